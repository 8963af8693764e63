//! One client of the registry: reads a request, waits for the reply, writes it, and so on.

use super::{
    entrance::{Entered, Entrance, Refused},
    registry::Event,
};
use crate::{
    config::Connections,
    meters::{Ended, Meters},
    rate::Bucket,
    registry::ConnId,
};
use pilot_crypto::Identity;
use pilot_wire::registry::{
    Decoder, Envelope, FrameError, MAX_FRAME, RequestError, Response, frame, seal::attest,
};
use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Bytes taken from the socket at a time. Requests are a few hundred; idle connections hold this buffer.
const READ: usize = 1024;

/// When a client was last heard of, and whether it has proven an identity.
#[derive(Debug)]
pub(super) struct Activity {
    start: Instant,
    last_ms: AtomicU64,
    proven: Arc<AtomicBool>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0), proven: Arc::default() }
    }

    pub(super) fn proven(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.proven)
    }

    /// The lower, the sooner it may go.
    pub(super) fn worth(&self) -> (bool, Instant) {
        let last = std::time::Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        (self.proven.load(Ordering::Relaxed), self.start + last)
    }

    fn heard(&self) {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(passed, Ordering::Relaxed);
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the client speaks no TLS, which this registry demands")]
    Unprotected,
    #[error("closed by the client")]
    Closed,
    #[error("idle")]
    Idle,
    #[error("the client does not read its reply")]
    Stuck,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Request(RequestError),
    #[error("the registry is shutting down")]
    Shutdown,
}

impl End {
    fn how(&self) -> Ended {
        match self {
            Self::Closed | Self::Io(_) | Self::Refused(Refused::Closed | Refused::Io(_)) => Ended::Closed,
            Self::Idle | Self::Refused(Refused::Silent) => Ended::Idle,
            Self::Stuck => Ended::Stuck,
            Self::Unprotected | Self::Refused(Refused::Slow | Refused::Tls(_)) => Ended::Unprotected,
            Self::Frame(_) | Self::Request(_) => Ended::Unreadable,
            Self::Shutdown => Ended::Dropped,
        }
    }
}

/// Counts a connection as dropped if nothing else is said of its end.
struct Over(Arc<Meters>, Ended);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.ended(self.1);
    }
}

/// What a new client meets.
pub(super) struct Visit {
    pub(super) conn: ConnId,
    pub(super) from: IpAddr,
    pub(super) entrance: Entrance,
    pub(super) authority: Arc<Identity>,
    pub(super) limits: Connections,
    pub(super) activity: Arc<Activity>,
    pub(super) to_registry: mpsc::Sender<Event>,
    pub(super) meters: Arc<Meters>,
}

/// Serves one client until it ends.
pub(super) async fn serve(visit: Visit, stream: TcpStream) {
    let conn = visit.conn;
    let mut over = Over(Arc::clone(&visit.meters), Ended::Dropped);
    let Err(end) = enter(visit, stream).await;
    over.1 = end.how();
    tracing::debug!(conn = conn.0, %end, "connection ended");
}

async fn enter(visit: Visit, stream: TcpStream) -> Result<Infallible, End> {
    stream.set_nodelay(true)?;
    match visit.entrance.enter(stream, visit.limits.idle).await? {
        Entered::Tls(stream) => {
            visit.activity.heard();
            visit.meters.protected.add(1);
            Client::new(visit, stream, Protection::Tls).exchange().await
        }
        Entered::Plain(stream) => {
            visit.meters.plain.add(1);
            Client::new(visit, stream, Protection::None).exchange().await
        }
        Entered::Unwanted(stream) => Client::new(visit, stream, Protection::None).turn_away().await,
    }
}

/// What hides the requests from whoever is on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protection {
    Tls,
    None,
}

struct Client<S> {
    visit: Visit,
    stream: S,
    protection: Protection,
    decoder: Decoder,
    requests: Bucket,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    fn new(visit: Visit, stream: S, protection: Protection) -> Self {
        let requests = Bucket::full(visit.limits.requests, Instant::now());
        Self { visit, stream, protection, decoder: Decoder::new(), requests }
    }

    async fn exchange(&mut self) -> Result<Infallible, End> {
        loop {
            let request = timeout(self.visit.limits.idle, self.request()).await.map_err(|_| End::Idle)??;
            self.visit.activity.heard();
            self.throttle().await;
            let response = match Envelope::parse_kind(&request) {
                Ok((kind, envelope)) => {
                    let attest = envelope.attest;
                    let start = Instant::now();
                    let response = self.ask(envelope).await?;
                    self.visit.meters.answered(kind, start.elapsed(), &response);
                    if attest { self.attested(&response) } else { response.to_json() }
                }
                Err(error @ RequestError::Malformed(_)) => return Err(End::Request(error)),
                Err(
                    error @ (RequestError::UnknownType(_)
                    | RequestError::Unsupported(_)
                    | RequestError::Invalid(_)),
                ) => {
                    self.visit.meters.unreadable.add(1);
                    Response::error(error.to_string()).to_json()
                }
            };
            self.visit.activity.heard();
            self.reply(&response).await?;
        }
    }

    /// The reply with the registry's word for it: here, so that signing keeps nobody else waiting.
    fn attested(&self, response: &Response) -> Vec<u8> {
        let (json, authority) = (response.to_json(), &self.visit.authority);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        attest(&json, authority.public(), now, |bytes| authority.sign(bytes)).unwrap_or(json)
    }

    /// One request is taken, so that its sender reads the reply instead of a broken connection.
    async fn turn_away(&mut self) -> Result<Infallible, End> {
        let patience = self.visit.entrance.patience();
        timeout(patience, self.request()).await.map_err(|_| End::Idle)??;
        let refusal = "this registry takes TLS only; connect with TLS (1.18.0: -registry-tls)";
        self.reply(&Response::error(refusal).to_json()).await?;
        self.stream.shutdown().await?;
        Err(End::Unprotected)
    }

    async fn reply(&mut self, response: &[u8]) -> Result<(), End> {
        let reply = frame(response)
            .or_else(|_| frame(&Response::error("the reply is too long; ask for less").to_json()))?;
        let write = async {
            self.stream.write_all(&reply).await?;
            self.stream.flush().await
        };
        Ok(timeout(self.visit.limits.write, write).await.map_err(|_| End::Stuck)??)
    }

    async fn request(&mut self) -> Result<Vec<u8>, End> {
        loop {
            if let Some(content) = self.decoder.next()? {
                return Ok(content);
            }
            let mut buffer = [0; READ];
            match self.stream.read(&mut buffer).await? {
                0 => return Err(End::Closed),
                length => self.decoder.feed(&buffer[..length]),
            }
        }
    }

    /// A client that asks too fast is read more slowly.
    async fn throttle(&mut self) {
        while let Err(wait) = self.requests.take(self.visit.limits.requests, Instant::now()) {
            self.visit.meters.throttled.add(1);
            tokio::time::sleep(wait).await;
        }
    }

    /// Some requests are answered minutes later; a client that leaves meanwhile must not be waited for.
    async fn ask(&mut self, envelope: Envelope) -> Result<Response, End> {
        if self.protection == Protection::None {
            self.visit.entrance.overheard(self.visit.from, &envelope);
        }
        let (reply, mut response) = oneshot::channel();
        let asked = Event::Asked { conn: self.visit.conn, envelope: Box::new(envelope), reply };
        self.visit.to_registry.send(asked).await.map_err(|_| End::Shutdown)?;
        let mut pipelined = 0;
        loop {
            let mut buffer = [0; READ];
            tokio::select! {
                response = &mut response => return response.map_err(|_| End::Shutdown),
                read = self.stream.read(&mut buffer), if pipelined < MAX_FRAME => match read? {
                    0 => return Err(End::Closed),
                    length => {
                        pipelined += length;
                        self.decoder.feed(&buffer[..length]);
                    }
                },
            }
        }
    }
}
