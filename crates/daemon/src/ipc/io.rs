//! Reader and writer of one local program: frames to the driver's inbox, batches of frames to the socket.
//!
//! The reader is the brake: each frame it hands over holds part of the client's budget until the driver is done with it,
//! so a program that asks more than it lets happen waits on its own socket.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use pilot_wire::ipc::{Decoder, MAX_FRAME};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes of frames of one client that the driver may hold: four of the longest.
pub(super) const BUDGET: usize = 4 << 20;

/// Least that a frame counts, so that small requests are bounded in number: 4096 of them.
pub(super) const LEAST_CHARGE: usize = 1 << 10;

/// A frame without its length, and its share of the client's budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Received {
    /// Command byte and payload; never empty.
    pub(crate) frame: Bytes,
    /// Held while the frame has unfinished business.
    pub(crate) charge: OwnedSemaphorePermit,
}

/// Frames to write, in order: each already with its length.
pub(crate) type Batch = Vec<Bytes>;

/// Reads frames until the client leaves or breaks the framing.
pub(crate) struct FrameReader<R> {
    io: R,
    frames: Decoder,
    budget: Arc<Semaphore>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(io: R) -> Self {
        Self { io, frames: Decoder::new(), budget: Arc::new(Semaphore::new(BUDGET)) }
    }

    /// The next frame; `None` when the client has left or sent a frame that is too long.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Received>> {
        loop {
            match self.frames.next_frame() {
                Ok(Some(frame)) => return Ok(Some(charged(&self.budget, frame).await)),
                Ok(None) => {}
                Err(too_long) => {
                    tracing::debug!(%too_long, "local client broke the framing");
                    return Ok(None);
                }
            }
            if self.io.read_buf(self.frames.space()).await? == 0 {
                return Ok(None);
            }
        }
    }
}

async fn charged(budget: &Arc<Semaphore>, frame: Bytes) -> Received {
    let charge = frame.len().clamp(LEAST_CHARGE, MAX_FRAME) as u32;
    #[expect(clippy::expect_used, reason = "the semaphore is never closed")]
    let charge = Arc::clone(budget).acquire_many_owned(charge).await.expect("open semaphore");
    Received { frame, charge }
}

/// Writes batches until the driver drops its end or the client is gone. `written` is told after each batch.
pub(crate) async fn write_batches<W, F>(
    mut io: W,
    mut batches: mpsc::Receiver<Batch>,
    written: impl Fn() -> F,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    while let Some(batch) = batches.recv().await {
        write_batch(&mut io, &batch).await?;
        io.flush().await?;
        written().await;
    }
    io.shutdown().await
}

/// Most slices given to one write call: enough to fill a socket buffer, below every system's limit.
const SLICES: usize = 64;

async fn write_batch<W: AsyncWrite + Unpin>(io: &mut W, batch: &[Bytes]) -> io::Result<()> {
    let mut index = 0;
    let mut offset = 0;
    while index < batch.len() {
        let slices: Vec<IoSlice<'_>> = std::iter::once(&batch[index][offset..])
            .chain(batch[index + 1..].iter().map(|frame| &frame[..]))
            .take(SLICES)
            .map(IoSlice::new)
            .collect();
        let mut written = io.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while index < batch.len() && written >= batch[index].len() - offset {
            written -= batch[index].len() - offset;
            offset = 0;
            index += 1;
        }
        offset += written;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_overlong_frame_ends_the_connection() {
        let mut reader = FrameReader::new(&[0x00, 0x10, 0x00, 0x01, 0x06][..]);
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_client_reads_on_only_when_the_driver_is_done_with_earlier_frames() {
        let mut input = Vec::new();
        for _ in 0..5 {
            input.extend_from_slice(&(MAX_FRAME as u32).to_be_bytes());
            input.resize(input.len() + MAX_FRAME, 6);
        }
        let mut reader = FrameReader::new(&input[..]);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(reader.next().await.unwrap().unwrap());
        }
        let fifth = reader.next();
        tokio::pin!(fifth);
        assert!(futures_poll(fifth.as_mut()).await.is_none(), "the budget is used up");
        held.pop();
        assert!(fifth.await.unwrap().is_some());
    }

    async fn futures_poll<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match future.as_mut().poll(cx) {
                std::task::Poll::Ready(value) => Some(value),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn a_batch_arrives_in_order_through_a_narrow_pipe() {
        let (near, mut far) = tokio::io::duplex(7);
        let batch: Batch = (0..200u8).map(|i| Bytes::from(vec![i; i as usize % 5])).collect();
        let expected: Vec<u8> = batch.concat();
        let (sender, receiver) = mpsc::channel(1);
        sender.send(batch).await.unwrap();
        drop(sender);
        let writing = write_batches(near, receiver, || std::future::ready(()));
        let mut got = Vec::new();
        let (written, read) = tokio::join!(writing, far.read_to_end(&mut got));
        written.unwrap();
        read.unwrap();
        assert_eq!(got, expected);
    }
}
