//! The connection as programs see it.

use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use pilot_wire::ipc::{Call, Code, FIRST_BYTES, Request};
use pilot_wire::{Endpoint, Port};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use crate::driver::Link;
use crate::halves::halves;
use crate::local::Door;
use crate::session::{Answer, Dialect};
use crate::{ConnectError, Datagrams, Error, Listener, Stream, default_socket};

/// A connection to the local daemon. Clones share it; it ends when the last clone and everything opened through
/// it are dropped.
#[derive(Clone)]
pub struct Client {
    link: Link,
    origin: Origin,
}

/// How the daemon was reached.
#[derive(Clone)]
enum Origin {
    /// Through this socket.
    Socket(Arc<Path>),
    /// It runs in this process.
    Door(Door),
    /// Through something that was handed over; there is no second one.
    Pipe,
}

impl Client {
    /// Connects to the daemon at [`default_socket`].
    ///
    /// # Errors
    /// When no daemon answers there.
    pub async fn connect() -> Result<Self, ConnectError> {
        Self::connect_to(default_socket()).await
    }

    /// Connects to the daemon at `socket`.
    ///
    /// # Errors
    /// When no daemon answers there.
    pub async fn connect_to(socket: impl AsRef<Path>) -> Result<Self, ConnectError> {
        let path = socket.as_ref();
        let stream = UnixStream::connect(path).await.map_err(|error| {
            let socket = path.to_owned();
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
                ConnectError::NotRunning { socket }
            } else if error.kind() == io::ErrorKind::PermissionDenied {
                ConnectError::Denied { socket }
            } else {
                ConnectError::Unusable { socket, reason: error.to_string() }
            }
        })?;
        let (reader, writer) = halves(stream)
            .map_err(|error| ConnectError::Unusable { socket: path.to_owned(), reason: error.to_string() })?;
        Ok(Self { link: Link::start(reader, writer).await?, origin: Origin::Socket(path.into()) })
    }

    /// Connects anew: to the daemon at the same socket, which may be another process by now, or to the same node in this
    /// process. What was opened through this client stays with it.
    ///
    /// # Errors
    /// When no daemon answers there, the node has ended, or this client speaks over a pipe.
    pub async fn reconnect(&self) -> Result<Self, ConnectError> {
        match &self.origin {
            Origin::Socket(socket) => Self::connect_to(socket).await,
            Origin::Door(door) => door.connect().await,
            Origin::Pipe => {
                Err(ConnectError::Strange { reason: "a pipe cannot be connected again".to_owned() })
            }
        }
    }

    /// Waits until the connection to the daemon has ended, and says why: it was stopped or restarted, or has dropped this
    /// client. [`Client::reconnect`] then finds the next one.
    pub async fn ended(&self) -> Error {
        poll_fn(|cx| self.link.session().poll_over(cx)).await
    }

    /// Whether the connection to the daemon still stands, as far as is known by now.
    pub fn is_connected(&self) -> bool {
        !self.link.session().is_over()
    }

    /// A client that may work where this one failed: the daemon can be a new one on the same socket.
    pub(crate) async fn mended(&self, error: &Error) -> Self {
        let is_gone = matches!(error, Error::Disconnected | Error::Connect(_));
        match is_gone {
            true => self.reconnect().await.unwrap_or_else(|_| self.clone()),
            false => self.clone(),
        }
    }

    /// Speaks to a daemon over any pair of byte streams: a pipe in memory, a forwarded socket.
    ///
    /// # Errors
    /// When what answers is no daemon.
    pub async fn over<Io>(io: Io) -> Result<Self, ConnectError>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reader, writer) = tokio::io::split(io);
        Ok(Self { link: Link::start(reader, writer).await?, origin: Origin::Pipe })
    }

    /// True when the daemon speaks the reference dialect only: no half-close, no [`Stream::drain`], no
    /// [`Client::call`], and one request at a time.
    pub fn is_reference(&self) -> bool {
        self.link.session().dialect() == Dialect::Reference
    }

    /// Opens a stream to a service. Resolves when the peer has accepted it.
    ///
    /// # Errors
    /// When the peer cannot be reached, does not trust us, or does not listen there.
    pub async fn dial(&self, to: Endpoint) -> Result<Stream, Error> {
        match self.order(&Request::Dial { to }).await? {
            Answer::Stream(id) => Ok(Stream::new(self.link.clone(), id, to)),
            Answer::Done | Answer::Json(_) | Answer::Packets(_) => {
                Err(Error::Protocol("a dial was answered without a stream".into()))
            }
        }
    }

    /// Opens a stream to a service, and writes to it before the peer has accepted it: what fits into its first packet costs
    /// no round trip. Resolves as [`Client::dial`] does.
    ///
    /// # Errors
    /// As [`Client::dial`]; what was written may have arrived all the same.
    pub async fn dial_with(&self, to: Endpoint, data: &[u8]) -> Result<Stream, Error> {
        use tokio::io::AsyncWriteExt;
        let (first, rest) = data.split_at(data.len().min(FIRST_BYTES));
        let dialed = match self.is_reference() {
            true => Err(Error::Unsupported("dial with data")),
            false => self.order(&Request::DialWith { to, data: first }).await,
        };
        let (mut stream, rest) = match dialed {
            Ok(Answer::Stream(id)) => (Stream::new(self.link.clone(), id, to), rest),
            Ok(Answer::Done | Answer::Json(_) | Answer::Packets(_)) => {
                return Err(Error::Protocol("a dial was answered without a stream".into()));
            }
            // A daemon that does not know this way.
            Err(error) if error.code() == Code::Unsupported => (self.dial(to).await?, data),
            Err(error) => return Err(error),
        };
        stream.write_all(rest).await?;
        stream.flush().await?;
        Ok(stream)
    }

    /// Opens a stream to a service of a node that is given as text: hostname, address or number.
    ///
    /// # Errors
    /// As [`Client::resolve`] and [`Client::dial`].
    pub async fn dial_target(&self, target: &str, port: Port) -> Result<Stream, Error> {
        let node = self.resolve(target).await?;
        self.dial(node.address.port(port)).await
    }

    /// Claims a port; streams to it are then accepted through the listener.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn listen(&self, port: Port) -> Result<Listener, Error> {
        self.link.session().add_listener(port)?;
        // From here on the listener's drop cleans up.
        let listener = Listener::new(self.link.clone(), port);
        match self.order(&Request::Bind { port }).await {
            Ok(_) => Ok(listener),
            Err(error) => {
                listener.discard();
                Err(error)
            }
        }
    }

    /// Receives the datagrams for a port, and sends from it.
    ///
    /// # Errors
    /// When this client receives the port's datagrams already.
    pub fn datagrams(&self, port: Port) -> Result<Datagrams, Error> {
        self.link.session().add_datagrams(port)?;
        Ok(Datagrams::new(self.clone(), port))
    }

    /// Sends one datagram from a port that the daemon chooses. Resolves when it has been handed to the network.
    ///
    /// # Errors
    /// When the peer is unknown or not trusted, or `data` too large (65 535 bytes).
    pub async fn send_datagram(&self, to: Endpoint, data: &[u8]) -> Result<(), Error> {
        self.order(&Request::SendToConfirm { to, data }).await.map(drop)
    }

    /// One of our own calls, and its result.
    ///
    /// # Errors
    /// What the daemon says; [`Error::Unsupported`] when it is a reference daemon.
    pub async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        if self.is_reference() {
            return Err(Error::Unsupported(call.name()));
        }
        self.json(&Request::Call(call)).await
    }

    pub(crate) const fn from_link(link: Link) -> Self {
        Self { link, origin: Origin::Pipe }
    }

    /// A client of a node in this process.
    pub(crate) const fn behind(link: Link, door: Door) -> Self {
        Self { link, origin: Origin::Door(door) }
    }

    /// A datagram that the daemon does not confirm.
    pub(crate) async fn send_unconfirmed(&self, to: Endpoint, data: &[u8]) -> Result<(), Error> {
        let request = Request::SendTo { to, data };
        poll_fn(|cx| self.link.session().poll_send(&request, cx)).await
    }

    pub(crate) const fn link(&self) -> &Link {
        &self.link
    }

    /// A request whose answer is JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<T, Error> {
        let body = match self.order(request).await? {
            Answer::Json(body) => body,
            Answer::Done | Answer::Stream(_) | Answer::Packets(_) => Bytes::new(),
        };
        serde_json::from_slice(&body).map_err(|error| Error::Protocol(error.to_string()))
    }

    pub(crate) async fn order(&self, request: &Request<'_>) -> Result<Answer, Error> {
        let tag = poll_fn(|cx| self.link.session().poll_start(request, cx)).await?;
        Waiting { link: &self.link, tag, answered: false }.await
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("dialect", &self.link.session().dialect()).finish()
    }
}

/// The answer to come. When it is dropped first, what the answer brings is given back.
struct Waiting<'a> {
    link: &'a Link,
    tag: u32,
    answered: bool,
}

impl Future for Waiting<'_> {
    type Output = Result<Answer, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.link.session().poll_answer(self.tag, cx);
        self.answered = polled.is_ready();
        polled
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.link.session().forget_request(self.tag);
        }
    }
}
