//! One TCP connection to a registry: frames out and in, both at once.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use pilot_wire::registry::{Decoder, Envelope, FrameError, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

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

/// The connection with what is on the way in and out.
pub(super) struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    outgoing: Vec<u8>,
    local: Option<IpAddr>,
}

impl Connection {
    /// Directly, or through the proxy where there is no direct way.
    pub(super) async fn open(address: &str, proxy: Option<&Proxy>) -> io::Result<Self> {
        let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let stream = match (proxy, parts) {
            (Some(proxy), Some((host, port))) if proxy.is_for(host) => {
                reach(TcpStream::connect(address), proxy, host, port).await?
            }
            _ => TcpStream::connect(address).await?,
        };
        stream.set_nodelay(true)?;
        let local = stream.local_addr().ok().map(|address| address.ip().to_canonical());
        Ok(Self { stream, decoder: Decoder::new(), outgoing: Vec::new(), local })
    }

    /// The address that this machine reaches the registry from.
    pub(super) fn local(&self) -> Option<IpAddr> {
        self.local
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
        let (mut reader, mut writer) = self.stream.split();
        let mut bytes = [0; READ];
        tokio::select! {
            read = reader.read(&mut bytes) => match read? {
                0 => return Err(Lost::Closed),
                count => self.decoder.feed(&bytes[..count]),
            },
            written = writer.write(&self.outgoing), if !self.outgoing.is_empty() => {
                self.outgoing.drain(..written?);
            }
        }
        Ok(self.decoder.next()?)
    }
}
