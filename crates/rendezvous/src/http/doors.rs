//! Lets visitors in: a bounded number, each for a bounded time.

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};

/// Visitors at a time: from this machine, and from others, who so cannot take the place of a probe or of Prometheus.
/// One more is closed.
const FROM_HERE_MAX: usize = 32;
const FROM_AFAR_MAX: usize = 64;
/// How long a visit may take. A copy of the records of a large registry takes seconds.
const FROM_HERE: Duration = Duration::from_secs(120);
const FROM_AFAR: Duration = Duration::from_secs(15);
/// Pause when the system has no descriptors left, during which one is freed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The listening socket.
pub(super) struct Doors {
    listener: TcpListener,
    here: Arc<Semaphore>,
    afar: Arc<Semaphore>,
}

impl Doors {
    pub(super) fn new(listener: TcpListener) -> Self {
        let [here, afar] = [FROM_HERE_MAX, FROM_AFAR_MAX].map(|max| Arc::new(Semaphore::new(max)));
        Self { listener, here, afar }
    }
}

impl Listener for Doors {
    type Io = Visit;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visit, SocketAddr) {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a visitor of the pages could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let (places, time) = match peer.ip().is_loopback() {
                true => (&self.here, FROM_HERE),
                false => (&self.afar, FROM_AFAR),
            };
            match Arc::clone(places).try_acquire_owned() {
                Ok(place) => {
                    let end = Box::pin(tokio::time::sleep(time));
                    return (Visit { stream, end, _place: place }, peer);
                }
                Err(_) => tracing::debug!(%peer, "too many visitors of the pages"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when its time is over, whatever it is doing.
pub(super) struct Visit {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Visit {
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Who is at the other end, by the socket. What headers say of it is not believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(pub(super) SocketAddr);

impl Connected<IncomingStream<'_, Doors>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Doors>) -> Self {
        Self(*stream.remote_addr())
    }
}
