//! What waits to be written to one local program.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Bytes waiting for one client from which on no stream is read for it and no request of it is begun. A good pipe's
/// worth: the client drains it in about a millisecond if it reads at all.
const FULL: usize = 1 << 20;

/// Small frames are put together up to this size, so that a reply and its pushes are one slice of one system call.
const JOINED_MAX: usize = 16 << 10;

/// Most slices given to one write call: enough to fill a socket buffer, below every system's limit.
const SLICES: usize = 64;

/// The queue towards one client.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Bytes>,
    /// Bytes in `queue`.
    queued: usize,
    /// Small frames, behind everything in `queue`.
    joining: Vec<u8>,
    /// Bytes of `joining` that have been written.
    joined_written: usize,
}

impl Outbox {
    /// Whether the client keeps up: if not, produce nothing more for it until it does.
    pub(crate) fn has_room(&self) -> bool {
        self.queued + self.joining.len() - self.joined_written < FULL
    }

    /// Queues the frame that `emit` appends, length included.
    pub(crate) fn push(&mut self, emit: impl FnOnce(&mut Vec<u8>)) {
        emit(&mut self.joining);
        if self.joining.len() >= JOINED_MAX {
            self.seal();
        }
    }

    /// Queues a frame whose payload is passed on without a copy.
    pub(crate) fn push_data(&mut self, header: &[u8], data: Bytes) {
        self.joining.extend_from_slice(header);
        if data.len() < JOINED_MAX / 4 {
            self.joining.extend_from_slice(&data);
            return;
        }
        self.seal();
        self.queued += data.len();
        self.queue.push_back(data);
    }

    /// Ready when everything has been written.
    pub(crate) fn poll_flush<W>(&mut self, mut io: Pin<&mut W>, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + ?Sized,
    {
        while !self.queue.is_empty() || self.joined_written < self.joining.len() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let joined = std::iter::once(&self.joining[self.joined_written..]);
            let mut count = 0;
            for (slice, bytes) in
                slices.iter_mut().zip(self.queue.iter().map(|frame| &frame[..]).chain(joined))
            {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            match ready!(io.as_mut().poll_write_vectored(cx, &slices[..count]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.on_written(written),
            }
        }
        io.poll_flush(cx)
    }

    fn on_written(&mut self, mut written: usize) {
        while let Some(first) = self.queue.front_mut() {
            let part = written.min(first.len());
            first.advance(part);
            self.queued -= part;
            written -= part;
            if !first.is_empty() {
                return;
            }
            self.queue.pop_front();
        }
        self.joined_written += written;
        if self.joined_written == self.joining.len() {
            self.joined_written = 0;
            self.joining.clear();
            // A long answer now and then is no reason to keep so much.
            self.joining.shrink_to(2 * JOINED_MAX);
        }
    }

    /// Nothing more is joined to what was.
    fn seal(&mut self) {
        let mut joined = Bytes::from(std::mem::take(&mut self.joining));
        joined.advance(std::mem::take(&mut self.joined_written));
        if !joined.is_empty() {
            self.queued += joined.len();
            self.queue.push_back(joined);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Waker;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn frames_leave_in_order_through_a_narrow_pipe() {
        let (near, mut far) = tokio::io::duplex(7);
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for i in 0..300_usize {
            let frame = vec![i as u8; if i % 50 == 0 { JOINED_MAX } else { i % 5 }];
            expected.extend_from_slice(b"head");
            expected.extend_from_slice(&frame);
            match i % 2 {
                0 => outbox.push_data(b"head", frame.into()),
                _ => outbox.push(|out| {
                    out.extend_from_slice(b"head");
                    out.extend_from_slice(&frame);
                }),
            }
        }
        let writing = async {
            let mut near = pin!(near);
            poll_fn(|cx| outbox.poll_flush(near.as_mut(), cx)).await.unwrap();
            assert!(outbox.has_room());
            assert_eq!((outbox.queued, outbox.joining.len()), (0, 0));
        };
        let mut got = vec![0; expected.len()];
        let (_, read) = tokio::join!(writing, far.read_exact(&mut got));
        read.unwrap();
        assert!(got == expected);
    }

    #[tokio::test]
    async fn frames_queued_behind_one_that_is_half_written_do_not_overtake_it() {
        let (near, mut far) = tokio::io::duplex(5);
        let mut near = pin!(near);
        let mut outbox = Outbox::default();
        outbox.push(|out| out.extend_from_slice(b"abcdefgh"));
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(outbox.poll_flush(near.as_mut(), cx).is_pending());
        outbox.push_data(b"ij", Bytes::from(vec![b'k'; JOINED_MAX]));
        outbox.push(|out| out.extend_from_slice(b"l"));
        let mut got = vec![0; 11 + JOINED_MAX];
        let writing = poll_fn(|cx| outbox.poll_flush(near.as_mut(), cx));
        let (written, read) = tokio::join!(writing, far.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        assert!(got.starts_with(b"abcdefghijk") && got.ends_with(b"kl"));
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_full_until_it_does() {
        let (near, mut far) = tokio::io::duplex(FULL / 2);
        let mut near = pin!(near);
        let mut outbox = Outbox::default();
        let mut flush = |outbox: &mut Outbox| {
            let _ = outbox.poll_flush(near.as_mut(), &mut Context::from_waker(Waker::noop()));
        };
        while outbox.has_room() {
            outbox.push_data(b"head", Bytes::from(vec![0; 100_000]));
            flush(&mut outbox);
        }
        far.read_exact(&mut vec![0; FULL / 2]).await.unwrap();
        flush(&mut outbox);
        assert!(outbox.has_room());
    }
}
