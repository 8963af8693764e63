//! One client of the registry: reads a request, waits for the reply, writes it, and so on.

use super::registry::Event;
use crate::{
    config::Connections,
    meters::{Ended, Meters},
    rate::Bucket,
    registry::ConnId,
};
use pilot_wire::registry::{Decoder, Envelope, FrameError, MAX_FRAME, RequestError, Response, frame};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
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
            Self::Closed | Self::Io(_) => Ended::Closed,
            Self::Idle => Ended::Idle,
            Self::Stuck => Ended::Stuck,
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

pub(super) async fn serve(
    conn: ConnId,
    stream: TcpStream,
    limits: Connections,
    activity: Arc<Activity>,
    to_registry: mpsc::Sender<Event>,
    meters: Arc<Meters>,
) {
    let mut over = Over(Arc::clone(&meters), Ended::Dropped);
    let requests = Bucket::full(limits.requests, Instant::now());
    let mut client =
        Client { conn, stream, limits, activity, to_registry, meters, decoder: Decoder::new(), requests };
    let Err(end) = client.exchange().await;
    over.1 = end.how();
    tracing::debug!(conn = conn.0, %end, "connection ended");
}

struct Client {
    conn: ConnId,
    stream: TcpStream,
    limits: Connections,
    activity: Arc<Activity>,
    to_registry: mpsc::Sender<Event>,
    meters: Arc<Meters>,
    decoder: Decoder,
    requests: Bucket,
}

impl Client {
    async fn exchange(&mut self) -> Result<std::convert::Infallible, End> {
        self.stream.set_nodelay(true)?;
        loop {
            let request = timeout(self.limits.idle, self.request()).await.map_err(|_| End::Idle)??;
            self.activity.heard();
            self.throttle().await;
            let response = match Envelope::parse_kind(&request) {
                Ok((kind, envelope)) => {
                    let start = Instant::now();
                    let response = self.ask(envelope).await?;
                    self.meters.answered(kind, start.elapsed(), &response);
                    response
                }
                Err(error @ RequestError::Malformed(_)) => return Err(End::Request(error)),
                Err(error @ (RequestError::UnknownType(_) | RequestError::Invalid(_))) => {
                    self.meters.unreadable.add(1);
                    Response::error(error.to_string())
                }
            };
            self.activity.heard();
            let reply = frame(&response.to_json())
                .or_else(|_| frame(&Response::error("the reply is too long; ask for less").to_json()))?;
            timeout(self.limits.write, self.stream.write_all(&reply)).await.map_err(|_| End::Stuck)??;
        }
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
        while let Err(wait) = self.requests.take(self.limits.requests, Instant::now()) {
            self.meters.throttled.add(1);
            tokio::time::sleep(wait).await;
        }
    }

    /// Some requests are answered minutes later; a client that leaves meanwhile must not be waited for.
    async fn ask(&mut self, envelope: Envelope) -> Result<Response, End> {
        let (reply, mut response) = oneshot::channel();
        let asked = Event::Asked { conn: self.conn, envelope: Box::new(envelope), reply };
        self.to_registry.send(asked).await.map_err(|_| End::Shutdown)?;
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
