//! A local socket that wakes its task for what the task waits for, and for nothing else.
//!
//! A socket that is registered for reading and writing wakes its owner each time the other side reads: there is room
//! then, whether or not anybody wants it. In a conversation of small messages that is one wake-up in vain for each, and
//! wake-ups are what such a conversation costs. Here the two directions are registered apart, and writing only while the
//! socket is full.

use std::io::{self, IoSlice, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

/// Writes in a row that found room, after which the socket counts as one that is not full any more.
const SMOOTH: u32 = 64;

/// The half that reads.
#[derive(Debug)]
pub struct SocketReader {
    // tokio registers pipes, and nothing else that it reads into a buffer, for reading only. It does not look at what the
    // descriptor is of.
    inner: pipe::Receiver,
}

/// The half that writes.
#[derive(Debug)]
pub struct SocketWriter {
    socket: Arc<StdUnixStream>,
    /// Tells of room, after the socket was full.
    room: Option<AsyncFd<Arc<StdUnixStream>>>,
    /// Writes that found room since.
    smooth: u32,
}

/// Takes a socket apart.
///
/// # Errors
/// When the process is out of descriptors; each half has one of its own.
pub fn halves(socket: UnixStream) -> io::Result<(SocketReader, SocketWriter)> {
    let socket = socket.into_std()?;
    let inner = pipe::Receiver::from_owned_fd_unchecked(OwnedFd::from(socket.try_clone()?))?;
    Ok((SocketReader { inner }, SocketWriter { socket: Arc::new(socket), room: None, smooth: 0 }))
}

impl AsyncRead for SocketReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl SocketWriter {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&mut &StdUnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = match &self.room {
                Some(room) => Some(ready!(room.poll_write_ready(cx))?),
                None => None,
            };
            match write(&mut &*self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.smooth = 0;
                    match &mut ready {
                        Some(ready) => ready.clear_ready(),
                        None => self.room = Some(watch_room(self.socket.clone())?),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    self.smooth += 1;
                    if self.smooth >= SMOOTH {
                        self.smooth = 0;
                        self.room = None;
                    }
                    return Poll::Ready(result);
                }
            }
        }
    }
}

#[expect(deprecated, reason = "what replaces it is unsafe, because of types whose descriptor is not theirs")]
fn watch_room(socket: Arc<StdUnixStream>) -> io::Result<AsyncFd<Arc<StdUnixStream>>> {
    AsyncFd::with_interest(socket, Interest::WRITABLE)
}

impl AsyncWrite for SocketWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |socket| socket.write(data))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |socket| socket.write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What is written to a socket whose buffer it does not fit into.
    fn large() -> Vec<u8> {
        (0..4_000_000_u32).map(|i| (i % 251) as u8).collect()
    }

    #[tokio::test]
    async fn what_does_not_fit_arrives_all_the_same() {
        let (near, far) = UnixStream::pair().unwrap();
        let (_reader, mut writer) = halves(near).unwrap();
        let (mut reader, _writer) = halves(far).unwrap();
        for _ in 0..2 {
            let mut got = vec![0; large().len()];
            let sent = large();
            let (written, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut got));
            written.unwrap();
            read.unwrap();
            assert!(got == sent);
            assert!(writer.room.is_some(), "it was full");
            for _ in 0..SMOOTH {
                writer.write_all(b"small").await.unwrap();
                reader.read_exact(&mut [0; 5]).await.unwrap();
            }
            assert!(writer.room.is_none(), "it has not been full for long");
        }
        writer.shutdown().await.unwrap();
        assert_eq!(reader.read(&mut [0; 5]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_reader_is_not_woken_when_the_other_side_reads() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(0.into()));
        let waker = count.clone().into();
        let cx = &mut Context::from_waker(&waker);
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near_reader, mut near_writer) = halves(near).unwrap();
        let (mut far_reader, mut far_writer) = halves(far).unwrap();
        let mut bytes = [0; 10];
        let mut buffer = ReadBuf::new(&mut bytes);
        assert!(Pin::new(&mut near_reader).poll_read(cx, &mut buffer).is_pending());
        near_writer.write_all(b"question").await.unwrap();
        far_reader.read_exact(&mut [0; 8]).await.unwrap();
        // A second conversation through the same reactor: by its end everything before has been told.
        let (mut this, mut that) = UnixStream::pair().unwrap();
        this.write_all(b"1").await.unwrap();
        that.read_exact(&mut [0; 1]).await.unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        far_writer.write_all(b"answer").await.unwrap();
        near_reader.read_exact(&mut [0; 6]).await.unwrap();
    }
}
