//! One node on the web: who it is, then its messages in and out.

use super::{Outbox, Outgoing, Said};
use crate::{beacon::WebId, config::WebLimits, serve::registry::Event};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use pilot_wire::{
    NodeId,
    web::{CHALLENGE_LIFE, Greeting, GreetingError, MESSAGE_MAX, PATH, SUBPROTOCOL, TEXT_MAX, signed_text},
};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Error as WsError, Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// Bytes taken from a connection at a time; idle connections hold this buffer.
const READ: usize = 8 << 10;

/// Bytes gathered before they are written: many relayed frames are small.
const GATHER: usize = 16 << 10;

/// How long a node may take to hear why its connection ends.
const PARTING: Duration = Duration::from_secs(1);

/// What one connection is made of, besides the stream.
pub(super) struct Visit {
    pub(super) conn: WebId,
    pub(super) peer: SocketAddr,
    pub(super) limits: WebLimits,
    /// To be set once a node has proved who it is.
    pub(super) proven: Arc<AtomicBool>,
    pub(super) to_registry: mpsc::Sender<Event>,
    pub(super) to_beacon: mpsc::Sender<Said>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the node")]
    Closed,
    #[error("nothing was heard for too long")]
    Idle,
    #[error("the node does not read")]
    Stuck,
    #[error("the node is on another connection")]
    Replaced,
    #[error("it took too long to prove who it is")]
    Late,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    WebSocket(#[from] Box<WsError>),
    #[error("the system has no random bytes")]
    Random(#[from] pilot_crypto::RandomUnavailable),
    #[error("the rendezvous is shutting down")]
    Shutdown,
}

/// Why somebody is not believed.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Unreadable(#[from] GreetingError),
    #[error("an auth_reply is expected")]
    Unexpected,
    #[error("node {0} is not registered here")]
    Unknown(NodeId),
    #[error("node {0} has another key")]
    AnotherKey(NodeId),
    #[error("the signature is not right")]
    Signature,
    #[error("binary messages are expected")]
    Text,
}

impl From<WsError> for End {
    fn from(error: WsError) -> Self {
        match error {
            WsError::Io(error) => Self::Io(error),
            WsError::ConnectionClosed | WsError::AlreadyClosed => Self::Closed,
            error @ (WsError::Tls(_)
            | WsError::Capacity(_)
            | WsError::Protocol(_)
            | WsError::WriteBufferFull(_)
            | WsError::Utf8(_)
            | WsError::AttackAttempt
            | WsError::Url(_)
            | WsError::Http(_)
            | WsError::HttpFormat(_)) => Self::WebSocket(Box::new(error)),
        }
    }
}

impl End {
    /// What the node is told at the end, if it is its fault or there is hope for it.
    fn close_frame(&self) -> Option<CloseFrame> {
        let code = match self {
            Self::Refused(_) | Self::Late => CloseCode::Policy,
            Self::Replaced => CloseCode::Normal,
            Self::Idle | Self::Shutdown => CloseCode::Away,
            Self::WebSocket(error) if matches!(**error, WsError::Capacity(_)) => CloseCode::Size,
            Self::Closed | Self::Stuck | Self::Io(_) | Self::WebSocket(_) | Self::Random(_) => return None,
        };
        // A close frame has room for 123 bytes of text; ours are shorter but for those of other libraries.
        let mut reason = self.to_string();
        reason.truncate(reason.floor_char_boundary(120));
        Some(CloseFrame { code, reason: reason.into() })
    }
}

pub(super) async fn serve(visit: Visit, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
    let (conn, peer) = (visit.conn.0, visit.peer);
    let limit = visit.limits.auth.min(Duration::from_secs(CHALLENGE_LIFE));
    let deadline = tokio::time::Instant::now() + limit;
    let outcome = async {
        stream.set_nodelay(true)?;
        match acceptor {
            None => visit.greet(stream, deadline).await,
            Some(acceptor) => {
                let accepting = tokio::time::timeout_at(deadline, acceptor.accept(stream));
                let stream = accepting.await.map_err(|_| End::Late)??;
                visit.greet(stream, deadline).await
            }
        }
    };
    let Err(end) = Box::pin(outcome).await;
    tracing::debug!(conn, %peer, %end, "web connection ended");
}

type Ended = Result<std::convert::Infallible, End>;

impl Visit {
    async fn greet<S>(self, stream: S, deadline: tokio::time::Instant) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            .write_buffer_size(GATHER)
            .max_write_buffer_size(GATHER + 2 * MESSAGE_MAX)
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX));
        let accepting = accept_hdr_async_with_config(stream, admit, Some(config));
        let mut socket = tokio::time::timeout_at(deadline, accepting).await.map_err(|_| End::Late)??;
        let proving = tokio::time::timeout_at(deadline, self.prove(&mut socket)).await;
        let outcome = match proving.unwrap_or(Err(End::Late)) {
            Ok(node) => {
                self.proven.store(true, Ordering::Relaxed);
                tracing::debug!(conn = self.conn.0, peer = %self.peer, %node, "on the web");
                self.pass(node, &mut socket).await
            }
            Err(end) => Err(end),
        };
        let Err(end) = outcome;
        if let Some(frame) = end.close_frame() {
            // Who does not read does not hear it. What is still on its way must be read, or the system resets the
            // connection and the frame is lost.
            let parting = async {
                socket.close(Some(frame)).await?;
                while socket.next().await.transpose()?.is_some() {}
                Ok::<(), WsError>(())
            };
            let _ = timeout(PARTING, parting).await;
        }
        Err(end)
    }

    /// Who is it?
    async fn prove<S>(&self, socket: &mut WebSocketStream<S>) -> Result<NodeId, End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let nonce = hex::encode(pilot_crypto::random_bytes::<32>()?);
        let ts = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let challenge = Greeting::AuthChallenge { nonce: nonce.clone(), ts };
        socket.send(Message::text(challenge.to_text())).await?;
        let text = loop {
            match socket.next().await.ok_or(End::Closed)?? {
                Message::Text(text) if text.len() <= TEXT_MAX => break text,
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(_) => return Err(End::Closed),
                Message::Text(_) | Message::Binary(_) | Message::Frame(_) => {
                    return Err(Refused::Unexpected.into());
                }
            }
        };
        let greeting = Greeting::parse(&text).map_err(Refused::from)?;
        let Greeting::AuthReply { node_id, public_key, sig } = greeting else {
            return Err(Refused::Unexpected.into());
        };
        let (answer, key) = oneshot::channel();
        self.to_registry.send(Event::KeyOf(node_id, answer)).await.map_err(|_| End::Shutdown)?;
        let key = key.await.map_err(|_| End::Shutdown)?.ok_or(Refused::Unknown(node_id))?;
        if key != public_key {
            return Err(Refused::AnotherKey(node_id).into());
        }
        if !pilot_crypto::verify(&key, signed_text(node_id, ts, &nonce).as_bytes(), &sig) {
            return Err(Refused::Signature.into());
        }
        socket.send(Message::text(Greeting::AuthOk {}.to_text())).await?;
        Ok(node_id)
    }

    /// Messages both ways, each at its own pace.
    async fn pass<S>(&self, node: NodeId, socket: &mut WebSocketStream<S>) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (outbox, outgoing) = Outbox::new();
        let opened = Said::Opened { conn: self.conn, node, outbox };
        self.to_beacon.send(opened).await.map_err(|_| End::Shutdown)?;
        let (sink, stream) = socket.split();
        tokio::select! {
            end = self.read(stream) => end,
            end = self.write(sink, outgoing) => end,
        }
    }

    async fn read<S>(&self, mut stream: SplitStream<&mut WebSocketStream<S>>) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let next = timeout(self.limits.idle, stream.next()).await.map_err(|_| End::Idle)?;
            match next.ok_or(End::Closed)?? {
                Message::Binary(message) => {
                    let said = Said::Message(self.conn, message);
                    self.to_beacon.send(said).await.map_err(|_| End::Shutdown)?;
                }
                Message::Close(_) => return Err(End::Closed),
                // Answered by the library.
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Text(_) | Message::Frame(_) => return Err(Refused::Text.into()),
            }
        }
    }

    async fn write<S>(
        &self,
        mut sink: SplitSink<&mut WebSocketStream<S>, Message>,
        mut outgoing: mpsc::Receiver<Outgoing>,
    ) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let mut next = Some(outgoing.recv().await.ok_or(End::Replaced)?);
            let writing = async {
                while let Some(Outgoing { message, _room }) = next.take() {
                    sink.feed(Message::Binary(message.into())).await?;
                    next = outgoing.try_recv().ok();
                }
                sink.flush().await
            };
            timeout(self.limits.write, writing).await.map_err(|_| End::Stuck)??;
        }
    }
}

/// The path is fixed; the subprotocol is confirmed to who asks for it.
#[expect(clippy::result_large_err, reason = "the type that the library asks for")]
fn admit(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    if request.uri().path() != PATH {
        let mut refusal = ErrorResponse::new(Some(format!("the beacon is at {PATH}\n")));
        *refusal.status_mut() = StatusCode::NOT_FOUND;
        return Err(refusal);
    }
    let asked = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut asked = asked.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    if asked.any(|name| name.trim() == SUBPROTOCOL) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(response)
}
