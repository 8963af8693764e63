//! Joins a local socket and a stream until both directions have ended.
//!
//! Each direction ends on its own, as they do in TCP: the end of what is read finishes what is written. A failure of one
//! side is a failure for the other: a reset stays a reset. Whoever reads slowly holds up its writer and nobody else.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pilot_client::{Error, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::local::Socket;

/// Bytes moved at a time.
const CHUNK: usize = 64 << 10;

/// How long a local program may go on saying what nobody wants to hear, after it was given everything. Ending at once
/// would reset its connection, and with it the last bytes that it has not read.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    /// What is passed on at once needs no memory of its own: ten thousand idle connections have no buffers.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// What went through, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// Bytes from the socket to the stream.
    pub(crate) sent: u64,
    /// Bytes from the stream to the socket.
    pub(crate) received: u64,
    /// Why the stream broke, if it did.
    pub(crate) broken: Option<Error>,
}

/// Carries bytes both ways until both have ended.
pub(crate) async fn splice(mut local: Socket, mut stream: Stream) -> Carried {
    let (mut out, mut back) = (Way::default(), Way::default());
    let mut deaf = false;
    let ended = poll_fn(|cx| poll(&mut local, &mut stream, &mut out, &mut back, &mut deaf, cx)).await;
    let (sent, received) = (out.moved, back.moved);
    let broken = match ended {
        Ended::Orderly => {
            if deaf {
                linger(&mut local).await;
            }
            None
        }
        Ended::LocalBroke => {
            stream.reset();
            None
        }
        Ended::StreamBroke(error) => {
            local.reset();
            Some(error)
        }
    };
    Carried { sent, received, broken }
}

enum Ended {
    Orderly,
    LocalBroke,
    StreamBroke(Error),
}

fn poll(
    local: &mut Socket,
    stream: &mut Stream,
    out: &mut Way,
    back: &mut Way,
    deaf: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Ended> {
    let is_out = if *deaf {
        true
    } else {
        match out.poll(local, stream, cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(Broken::Reading(_))) => return Poll::Ready(Ended::LocalBroke),
            // The peer listens no more. What it said before that is still to be passed on; the other direction knows
            // whether that was a failure.
            Poll::Ready(Err(Broken::Writing)) => {
                *deaf = true;
                true
            }
            Poll::Pending => false,
        }
    };
    match back.poll(stream, local, cx) {
        Poll::Ready(Ok(())) if is_out => Poll::Ready(Ended::Orderly),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        Poll::Ready(Err(Broken::Reading(error))) => Poll::Ready(Ended::StreamBroke(error.into())),
        Poll::Ready(Err(Broken::Writing)) => Poll::Ready(Ended::LocalBroke),
    }
}

/// Hears out a program that was given everything and told so, for a while.
async fn linger(local: &mut Socket) {
    let mut waste = vec![0; 4 << 10];
    let hear_out = async { while local.read(&mut waste).await.is_ok_and(|count| count > 0) {} };
    drop(tokio::time::timeout(LINGER, hear_out).await);
}

/// The last words to a program whose connection leads nowhere, so that it can read them.
pub(crate) async fn part(mut local: Socket, words: &[u8]) {
    let speak = async {
        local.write_all(words).await?;
        local.shutdown().await
    };
    if let Ok(Ok(())) = tokio::time::timeout(LINGER, speak).await {
        linger(&mut local).await;
    }
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Read, and not yet taken by the writer; from `at` on.
    left: Vec<u8>,
    at: usize,
    phase: Phase,
    moved: u64,
}

#[derive(Default, Clone, Copy)]
enum Phase {
    #[default]
    Copying,
    /// The reader is at its end, the writer not yet told or not yet done.
    Finishing,
    Over,
}

/// Which side failed.
enum Broken {
    Reading(io::Error),
    Writing,
}

impl Way {
    fn poll<R, W>(&mut self, reader: &mut R, writer: &mut W, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match self.phase {
                Phase::Over => return Poll::Ready(Ok(())),
                Phase::Finishing => {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(|_| Broken::Writing)?;
                    self.phase = Phase::Over;
                }
                Phase::Copying => {
                    ready!(self.poll_left(writer, cx))?;
                    ready!(SCRATCH.with_borrow_mut(|scratch| self.poll_copy(reader, writer, scratch, cx)))?;
                }
            }
        }
    }

    /// Writes what the writer did not take the last time.
    fn poll_left<W>(&mut self, writer: &mut W, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>
    where
        W: AsyncWrite + Unpin,
    {
        while self.at < self.left.len() {
            let wrote = ready!(Pin::new(&mut *writer).poll_write(cx, &self.left[self.at..]));
            self.at += some(wrote).map_err(|_| Broken::Writing)?;
        }
        (self.left, self.at) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes that, as far as it is taken.
    fn poll_copy<R, W>(
        &mut self,
        reader: &mut R,
        writer: &mut W,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(&mut *reader).poll_read(cx, &mut buffer)).map_err(Broken::Reading)?;
        let read = buffer.filled();
        if read.is_empty() {
            self.phase = Phase::Finishing;
            return Poll::Ready(Ok(()));
        }
        self.moved += read.len() as u64;
        let mut written = 0;
        while written < read.len() {
            match Pin::new(&mut *writer).poll_write(cx, &read[written..]) {
                Poll::Ready(wrote) => written += some(wrote).map_err(|_| Broken::Writing)?,
                Poll::Pending => {
                    self.left = read[written..].to_vec();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A writer that takes nothing would be asked for ever.
fn some(wrote: io::Result<usize>) -> io::Result<usize> {
    match wrote {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        wrote => wrote,
    }
}
