//! Streams: ordered, reliable bytes in both directions.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pilot_wire::ipc::{Code, Failure, Request};
use pilot_wire::{Endpoint, StreamId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Error;
use crate::driver::Link;

/// A stream to or from a peer. It reads and writes through tokio's traits; reading 0 bytes means that the peer
/// finished. Errors from the traits hold an [`Error`], which `Error::from` finds again.
///
/// Each stream has its own flow control: one that is not read holds up its own writer and nobody else.
///
/// Dropping it ends it in order: what was written is still delivered.
pub struct Stream {
    shared: Arc<Shared>,
}

/// The half of a [`Stream`] that reads.
#[derive(Debug)]
pub struct ReadHalf {
    shared: Arc<Shared>,
}

/// The half of a [`Stream`] that writes. Dropping it tells the peer that no more comes.
#[derive(Debug)]
pub struct WriteHalf {
    shared: Arc<Shared>,
}

struct Shared {
    link: Link,
    id: StreamId,
    peer: Endpoint,
}

impl Stream {
    pub(crate) fn new(link: Link, id: StreamId, peer: Endpoint) -> Self {
        Self { shared: Arc::new(Shared { link, id, peer }) }
    }

    /// The daemon's number for the stream, as `pilotctl connections` shows it.
    pub fn id(&self) -> StreamId {
        self.shared.id
    }

    /// The other end.
    pub fn peer(&self) -> Endpoint {
        self.shared.peer
    }

    /// Tells the peer that no more comes; reading goes on. A reference daemon or peer cannot be told, and
    /// notices when the stream is closed.
    ///
    /// # Errors
    /// When the connection to the daemon is lost before it has everything.
    pub async fn finish(&mut self) -> Result<(), Error> {
        self.shared.finish().await
    }

    /// Waits until the peer's node has acknowledged everything written so far.
    ///
    /// # Errors
    /// When the stream ends before; [`Error::Unsupported`] with a reference daemon.
    pub async fn drain(&mut self) -> Result<(), Error> {
        self.shared.drain().await
    }

    /// Ends the stream in order and waits until the daemon has taken note. What was written is still delivered.
    ///
    /// # Errors
    /// When the connection to the daemon is lost.
    pub async fn close(self) -> Result<(), Error> {
        let shared = &self.shared;
        shared.link.session().close(shared.id);
        poll_fn(|cx| shared.link.session().poll_closed(shared.id, cx)).await
    }

    /// Ends the stream at once. What is on its way in either direction may be lost, and the peer sees a failure.
    pub fn reset(self) {
        let failure = Failure::new(Code::Cancelled, "the application reset the stream");
        self.shared.link.session().reset(self.shared.id, failure);
    }

    /// Splits it into halves that may live in different tasks. The stream ends when both are dropped.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (ReadHalf { shared: self.shared.clone() }, WriteHalf { shared: self.shared })
    }
}

impl ReadHalf {
    /// The other end.
    pub fn peer(&self) -> Endpoint {
        self.shared.peer
    }
}

impl WriteHalf {
    /// The other end.
    pub fn peer(&self) -> Endpoint {
        self.shared.peer
    }

    /// As [`Stream::finish`].
    ///
    /// # Errors
    /// As [`Stream::finish`].
    pub async fn finish(&mut self) -> Result<(), Error> {
        self.shared.finish().await
    }

    /// As [`Stream::drain`].
    ///
    /// # Errors
    /// As [`Stream::drain`].
    pub async fn drain(&mut self) -> Result<(), Error> {
        self.shared.drain().await
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        self.shared.link.session().finish(self.shared.id);
    }
}

impl Shared {
    async fn finish(&self) -> Result<(), Error> {
        self.link.session().finish(self.id);
        poll_fn(|cx| self.link.session().poll_flush(self.id, cx)).await
    }

    async fn drain(&self) -> Result<(), Error> {
        let client = crate::Client::from_link(self.link.clone());
        if client.is_reference() {
            return Err(Error::Unsupported("drain"));
        }
        client.order(&Request::Drain { stream: self.id }).await.map(drop)
    }

    fn poll_read(&self, cx: &Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.link.session().poll_read(self.id, buffer, cx).map_err(io::Error::from)
    }

    fn poll_write(&self, cx: &Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.link.poll_write(self.id, parts, cx).map_err(io::Error::from)
    }

    fn poll_flush(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.link.session().poll_flush(self.id, cx).map_err(io::Error::from)
    }

    fn poll_shutdown(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.link.session().finish(self.id);
        ready!(self.poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.link.session().close(self.id);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.id, self.peer)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.shared).finish()
    }
}

macro_rules! reads {
    ($($name:ty),+) => {$(
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.shared.poll_read(cx, buffer)
            }
        }
    )+};
}

macro_rules! writes {
    ($($name:ty),+) => {$(
        impl AsyncWrite for $name {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
                self.shared.poll_write(cx, &[IoSlice::new(data)])
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                parts: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.shared.poll_write(cx, parts)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.shared.poll_flush(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.shared.poll_shutdown(cx)
            }
        }
    )+};
}

reads!(Stream, ReadHalf);
writes!(Stream, WriteHalf);
