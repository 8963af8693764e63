//! One connection to a registry, over TLS or in the clear: frames out and in, both at once.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pilot_wire::registry::{Decoder, Envelope, FrameError, frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{RegistryTls, TlsMode};
use crate::tls::{self, Expectation, Fingerprint, Insecure, Known, KnownCertificates, Whose};
use crate::web::Proxy;

/// Bytes asked of the system per read.
const READ: usize = 8 << 10;

/// How long the direct way is tried alone. Firewalls often give no answer at all, so waiting for a failure takes long.
const DIRECT_ALONE: Duration = Duration::from_secs(1);

/// How long it is given after the proxy has refused.
const DIRECT_LAST: Duration = Duration::from_secs(2);

/// Why there is no connection any more, or none came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("cannot connect: no answer")]
    NoConnection,
    #[error(transparent)]
    Insecure(#[from] Insecure),
    #[error("{0}")]
    Everywhere(String),
    #[error("the registry closed the connection")]
    Closed,
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    #[error("the registry does not answer")]
    Silent,
    #[error("the registry refused the registration: {0}")]
    Refused(String),
    #[error("the registry sent something that is no reply: {0}")]
    Malformed(String),
    #[error("the registry sent a reply nobody asked for")]
    Unasked,
    #[error("the network changed")]
    NetworkChanged,
    #[error("the daemon is stopping")]
    DriverGone,
}

impl From<FrameError> for Lost {
    fn from(error: FrameError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The direct way, and a little later the one through the proxy; the first that leads there.
async fn reach(
    direct: impl Future<Output = io::Result<TcpStream>>,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> io::Result<TcpStream> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let both = |failure: io::Error, refused| io::Error::new(failure.kind(), format!("{failure}; {refused}"));
    tokio::pin!(direct);
    let failure = match timeout(DIRECT_ALONE, &mut direct).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(failure)) => Some(failure),
        Err(_) => None,
    };
    let proxied = proxy.connect(host, port);
    if let Some(failure) = failure {
        return proxied.await.map_err(|refused| both(failure, refused));
    }
    tokio::pin!(proxied);
    tokio::select! {
        reached = &mut direct => match reached {
            Ok(stream) => Ok(stream),
            Err(failure) => proxied.await.map_err(|refused| both(failure, refused)),
        },
        passed = &mut proxied => match passed {
            Ok(stream) => Ok(stream),
            Err(refused) => match timeout(DIRECT_LAST, direct).await {
                Ok(reached) => reached.map_err(|failure| both(failure, refused)),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no direct answer; {refused}"))),
            },
        },
    }
}

/// How registries are reached, and what is known of their certificates.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// A way where there is no direct one.
    pub(super) proxy: Option<Proxy>,
    pub(super) tls: TlsMode,
    /// The only certificates that are right, if the owner said so.
    pub(super) given: Vec<Fingerprint>,
    /// Whether what is seen once has to stay.
    pub(super) remembers: bool,
    pub(super) known: KnownCertificates,
}

/// What hides a connection from those on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// TLS with this certificate.
    Tls(Fingerprint),
    /// Nothing.
    Plaintext,
}

impl Access {
    /// As the settings have it; `known` is what is remembered of certificates.
    pub(super) fn new(proxy: Option<Proxy>, tls: RegistryTls, known: KnownCertificates) -> Self {
        let RegistryTls { mode, fingerprints, remembers } = tls;
        let known = if remembers { known } else { KnownCertificates::new() };
        Self { proxy, tls: mode, given: fingerprints, remembers, known }
    }

    /// The same, for another connection to where one with this protection leads.
    pub(super) fn like(&self, protection: Protection) -> Self {
        let tls = match protection {
            Protection::Tls(_) => TlsMode::Require,
            Protection::Plaintext => TlsMode::Off,
        };
        Self { tls, ..self.clone() }
    }

    fn expectation(&self, address: &str) -> Expectation {
        let before = self.known.get(address).copied();
        Expectation { whose: Whose::Registry, given: self.given.clone(), before }
    }

    /// Whether a registry that shows no TLS may be talked to without. One that showed it before may not: whoever stands
    /// in between would only have to be in the way of TLS.
    fn may_go_without(&self, address: &str) -> bool {
        self.tls == TlsMode::Auto && self.given.is_empty() && !self.known.contains_key(address)
    }
}

/// The bytes of a connection.
enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
}

/// The connection with what is on the way in and out.
pub(super) struct Connection {
    stream: Stream,
    decoder: Decoder,
    outgoing: Vec<u8>,
    /// Written to the stream, which may hold some of it back.
    unflushed: bool,
    local: Option<IpAddr>,
    protection: Protection,
    /// What is to be remembered of the certificate.
    pub(super) news: Option<Known>,
}

impl Connection {
    /// Directly, or through the proxy where there is no direct way; over TLS, or without where that is allowed and
    /// there is none.
    pub(super) async fn open(address: &str, access: &Access) -> Result<Self, Lost> {
        let stream = connect(address, access.proxy.as_ref()).await.map_err(Lost::Connect)?;
        let local = stream.local_addr().ok().map(|address| address.ip().to_canonical());
        let opened = |stream, protection, news| Self {
            stream,
            decoder: Decoder::new(),
            outgoing: Vec::new(),
            unflushed: false,
            local,
            protection,
            news,
        };
        if access.tls == TlsMode::Off {
            return Ok(opened(Stream::Plain(stream), Protection::Plaintext, None));
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        match Box::pin(tls::secure(stream, host, access.expectation(address))).await {
            Ok((stream, seen)) => {
                let protection = Protection::Tls(seen.fingerprint);
                let news = seen.news.filter(|_| access.remembers);
                Ok(opened(Stream::Tls(Box::new(stream)), protection, news))
            }
            Err(Insecure::NoTls(error)) if access.may_go_without(address) => {
                tracing::debug!(address, %error, "the registry speaks no TLS");
                let stream = connect(address, access.proxy.as_ref()).await.map_err(Lost::Connect)?;
                Ok(opened(Stream::Plain(stream), Protection::Plaintext, None))
            }
            Err(error) => Err(Lost::Insecure(error)),
        }
    }

    /// The address that this machine reaches the registry from.
    pub(super) fn local(&self) -> Option<IpAddr> {
        self.local
    }

    pub(super) fn protection(&self) -> Protection {
        self.protection
    }

    pub(super) fn queue(&mut self, envelope: &Envelope) {
        self.queue_json(&envelope.to_json());
    }

    /// The content of a frame, ready to go.
    pub(super) fn queue_json(&mut self, content: &[u8]) {
        match frame(content) {
            Ok(frame) => self.outgoing.extend_from_slice(&frame),
            // Without the frame the replies would no longer match; the registry answers this one with an error.
            Err(error) => {
                tracing::warn!(%error, "request to the registry is too long");
                self.outgoing.extend_from_slice(b"\0\0\0\x02{}");
            }
        }
    }

    /// Moves what can be moved. Returns a reply when one is complete, `None` when only bytes moved.
    pub(super) async fn exchange(&mut self) -> Result<Option<Vec<u8>>, Lost> {
        if let Some(reply) = self.decoder.next()? {
            return Ok(Some(reply));
        }
        let mut bytes = [0; READ];
        let count = poll_fn(|cx| self.poll_exchange(cx, &mut bytes)).await?;
        match count {
            Some(0) => return Err(Lost::Closed),
            Some(count) => self.decoder.feed(&bytes[..count]),
            None => {}
        }
        Ok(self.decoder.next()?)
    }

    /// How many bytes came, or `None` when some went.
    fn poll_exchange(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<Option<usize>>> {
        let mut into = ReadBuf::new(bytes);
        if let Poll::Ready(read) = self.stream.poll_read(cx, &mut into) {
            read?;
            return Poll::Ready(Ok(Some(into.filled().len())));
        }
        if !self.outgoing.is_empty() {
            let written = ready!(self.stream.poll_write(cx, &self.outgoing))?;
            self.outgoing.drain(..written);
            self.unflushed = true;
            return Poll::Ready(Ok(None));
        }
        if self.unflushed {
            ready!(self.stream.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Pending
    }
}

async fn connect(address: &str, proxy: Option<&Proxy>) -> io::Result<TcpStream> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let stream = match (proxy, parts) {
        (Some(proxy), Some((host, port))) if proxy.is_for(host) => {
            reach(TcpStream::connect(address), proxy, host, port).await?
        }
        _ => TcpStream::connect(address).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}
