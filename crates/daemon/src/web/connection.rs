//! One WebSocket to the beacon: there, greeted, and messages both ways.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use pilot_wire::web::{Greeting, GreetingError, MESSAGE_MAX, PATH, SUBPROTOCOL, TEXT_MAX, signed_text};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::proxy::{self, Proxy};
use super::{Credentials, Outgoing, Pins, Report, Target};
use crate::tls::{self, Expectation, Insecure, Known, Whose};

/// How long everything up to the beacon's consent may take.
const OPEN_WAIT: Duration = Duration::from_secs(15);

/// How often the beacon hears a ping, and how long it may take to answer (spec/dataplane.md 2.10).
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WAIT: Duration = Duration::from_secs(10);

/// How long the beacon may take to confirm the end.
const PARTING: Duration = Duration::from_secs(1);

/// Bytes taken from the connection at a time.
const READ: usize = 64 << 10;

/// Bytes gathered before they are written.
const GATHER: usize = 16 << 10;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, io::Error),
    #[error(transparent)]
    Proxy(#[from] proxy::Refused),
    #[error("no answer within {} s", OPEN_WAIT.as_secs())]
    NoAnswer,
    #[error(transparent)]
    Insecure(#[from] Insecure),
    #[error("there is no beacon at this URL: {0}")]
    NoBeacon(String),
    #[error("the beacon said something else than it should: {0}")]
    Greeting(#[from] GreetingError),
    #[error("the beacon said something else than it should")]
    Unexpected,
    #[error("the beacon closed the connection{0}")]
    Closed(Reason),
    #[error("the beacon does not answer")]
    Silent,
    #[error("connection lost: {0}")]
    Broken(String),
    #[error("not wanted any more")]
    LetGo,
}

/// What the beacon said when it closed the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason(String);

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

impl From<WsError> for Lost {
    fn from(error: WsError) -> Self {
        match error {
            WsError::ConnectionClosed | WsError::AlreadyClosed => Self::Closed(Reason(String::new())),
            WsError::Io(error) => Self::Broken(error.to_string()),
            error @ (WsError::Tls(_)
            | WsError::Capacity(_)
            | WsError::Protocol(_)
            | WsError::WriteBufferFull(_)
            | WsError::Utf8(_)
            | WsError::AttackAttempt
            | WsError::Url(_)
            | WsError::Http(_)
            | WsError::HttpFormat(_)) => Self::Broken(error.to_string()),
        }
    }
}

impl Lost {
    /// Whether a beacon was there: then it is looked for at the same place again.
    pub(super) fn is_of_the_beacon(&self) -> bool {
        match self {
            Self::Closed(_) | Self::Silent | Self::Broken(_) | Self::LetGo => true,
            Self::Unreachable(..)
            | Self::Proxy(_)
            | Self::NoAnswer
            | Self::Insecure(_)
            | Self::NoBeacon(_)
            | Self::Greeting(_)
            | Self::Unexpected => false,
        }
    }
}

/// What a stream of bytes must be.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

type Socket = WebSocketStream<Box<dyn Io>>;

/// A connection on which the beacon knows who we are.
pub(super) struct Connection {
    socket: Socket,
    /// The proxy that it goes through.
    pub(super) proxy: Option<String>,
    /// What is to be remembered of the certificate, and of which host.
    pub(super) news: Option<(String, Known)>,
}

pub(super) async fn open(
    target: &Target,
    pins: &Pins,
    proxy: Option<&Proxy>,
    credentials: &Credentials,
) -> Result<Connection, Lost> {
    let opening = Box::pin(async {
        let proxy = proxy.filter(|proxy| proxy.is_for(&target.host));
        let stream = connect(target, proxy).await?;
        let mut news = None;
        let stream: Box<dyn Io> = if target.tls {
            let host = target.authority();
            let before = pins.seen.get(&host).copied();
            let given = pins.given.into_iter().collect();
            let expectation = Expectation { whose: Whose::Beacon, given, before };
            let (stream, seen) = tls::secure(stream, &target.host, expectation).await?;
            news = seen.news.map(|known| (host, known));
            Box::new(stream)
        } else {
            Box::new(stream)
        };
        let mut socket = upgrade(target, stream).await?;
        prove(&mut socket, credentials).await?;
        Ok(Connection { socket, proxy: proxy.map(ToString::to_string), news })
    });
    timeout(OPEN_WAIT, opening).await.map_err(|_| Lost::NoAnswer)?
}

async fn connect(target: &Target, proxy: Option<&Proxy>) -> Result<TcpStream, Lost> {
    if let Some(proxy) = proxy {
        return Ok(proxy.connect(&target.host, target.port).await?);
    }
    let unreachable = |error| Lost::Unreachable(target.authority(), error);
    let stream = TcpStream::connect((&*target.host, target.port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(stream)
}

async fn upgrade(target: &Target, stream: Box<dyn Io>) -> Result<Socket, Lost> {
    let scheme = if target.tls { "wss" } else { "ws" };
    let url = format!("{scheme}://{}{PATH}", target.authority());
    let no_beacon = |error: WsError| Lost::NoBeacon(error.to_string());
    let mut request = url.into_client_request().map_err(no_beacon)?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let config = WebSocketConfig::default()
        .read_buffer_size(READ)
        .write_buffer_size(GATHER)
        .max_write_buffer_size(GATHER + 2 * MESSAGE_MAX)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let (socket, _) = client_async_with_config(request, stream, Some(config)).await.map_err(no_beacon)?;
    Ok(socket)
}

/// Answers the beacon's challenge.
async fn prove(socket: &mut Socket, Credentials { node, identity }: &Credentials) -> Result<(), Lost> {
    let Greeting::AuthChallenge { nonce, ts } = greeting(socket).await? else { return Err(Lost::Unexpected) };
    let sig = identity.sign(signed_text(*node, ts, &nonce).as_bytes());
    let reply = Greeting::AuthReply { node_id: *node, public_key: identity.public(), sig };
    socket.send(Message::text(reply.to_text())).await?;
    match greeting(socket).await? {
        Greeting::AuthOk {} => Ok(()),
        Greeting::AuthChallenge { .. } | Greeting::AuthReply { .. } => Err(Lost::Unexpected),
    }
}

async fn greeting(socket: &mut Socket) -> Result<Greeting, Lost> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) if text.len() <= TEXT_MAX => return Ok(Greeting::parse(&text)?),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Frame(_))) => {
                return Err(Lost::Unexpected);
            }
            other => return Err(ended(other)),
        }
    }
}

/// Why nothing more comes.
fn ended(last: Option<Result<Message, WsError>>) -> Lost {
    match last {
        Some(Ok(Message::Close(Some(frame)))) => Lost::Closed(Reason(frame.reason.to_string())),
        Some(Err(error)) => error.into(),
        Some(Ok(_)) | None => Lost::Closed(Reason(String::new())),
    }
}

type Passed = Result<std::convert::Infallible, Lost>;

impl Connection {
    /// Messages both ways, each at its own pace, until the connection is lost or let go.
    pub(super) async fn pass<F, R>(
        mut self,
        queue: &mut mpsc::Receiver<Outgoing>,
        check: &Notify,
        report: &F,
    ) -> Passed
    where
        F: Fn(Report) -> R + Send + Sync,
        R: Future<Output = ()> + Send,
    {
        let (pinged, pings) = watch::channel(());
        let (sink, stream) = (&mut self.socket).split();
        let outcome = tokio::select! {
            lost = read(stream, pings, report) => lost,
            lost = write(sink, queue, check, &pinged) => lost,
        };
        if matches!(outcome, Err(Lost::LetGo)) {
            let parting = async {
                self.socket.close(None).await?;
                // What the beacon has sent before it heard of the end is still ours.
                while let Some(message) = self.socket.next().await.transpose()? {
                    if let Message::Binary(message) = message {
                        report(Report::Message(message)).await;
                    }
                }
                Ok::<(), WsError>(())
            };
            // The beacon notices the end anyway.
            let _ = timeout(PARTING, parting).await;
        }
        outcome
    }
}

async fn read<F, R>(
    mut stream: SplitStream<&mut Socket>,
    mut pings: watch::Receiver<()>,
    report: &F,
) -> Passed
where
    F: Fn(Report) -> R + Send + Sync,
    R: Future<Output = ()> + Send,
{
    let mut overdue: Option<Instant> = None;
    loop {
        let message: Bytes = tokio::select! {
            next = stream.next() => {
                overdue = None;
                match next {
                    Some(Ok(Message::Binary(message))) => message,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Text(_) | Message::Frame(_))) => return Err(Lost::Unexpected),
                    other => return Err(ended(other)),
                }
            }
            Ok(()) = pings.changed() => {
                overdue = Some(Instant::now() + PONG_WAIT);
                continue;
            }
            () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {
                return Err(Lost::Silent);
            }
        };
        report(Report::Message(message)).await;
    }
}

async fn write(
    mut sink: SplitSink<&mut Socket, Message>,
    queue: &mut mpsc::Receiver<Outgoing>,
    check: &Notify,
    pinged: &watch::Sender<()>,
) -> Passed {
    let mut next_ping = Instant::now() + PING_EVERY;
    loop {
        let mut next = tokio::select! {
            outgoing = queue.recv() => Some(outgoing.ok_or(Lost::LetGo)?),
            () = sleep_until(next_ping) => None,
            () = check.notified() => None,
        };
        if next.is_none() {
            next_ping = Instant::now() + PING_EVERY;
            // Before it is written: a connection that takes nothing is dead, too.
            pinged.send_replace(());
            sink.feed(Message::Ping(Bytes::new())).await?;
        }
        while let Some(Outgoing { message, _room }) = next.take() {
            sink.feed(Message::Binary(message.into())).await?;
            next = queue.try_recv().ok();
        }
        sink.flush().await?;
    }
}
