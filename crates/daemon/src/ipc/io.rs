//! The connection of one local program: frames out of it, queued bytes into it, served by the loop itself.
//!
//! There is no task between the socket and the loop: what a program writes is with the node, and what the node has for
//! it is with the kernel, in the same turn. The connection is also the brake: each frame holds part of the client's
//! budget until the driver is done with it, so a program that asks more than it lets happen waits on its own socket.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use pilot_wire::StreamId;
use pilot_wire::ipc::Decoder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::bell::Bell;
use super::budget::{Budget, Charge};
use super::outbox::Outbox;

/// Bytes read from one client in one turn, about: then it is the turn of the others.
const READ_PER_TURN: usize = 256 << 10;

/// What a client speaks through: a socket, or a pipe in memory.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Pipe for T {}

/// A frame without its length, and its share of the client's budget.
#[derive(Debug)]
pub(crate) struct Received {
    /// Command byte and payload; never empty.
    pub(crate) frame: Bytes,
    /// Held while the frame has unfinished business.
    pub(crate) charge: Charge,
}

/// What there is from a client.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A frame.
    Frame(Received),
    /// Data of one of its streams, from a client in this process. Others put it into frames.
    Data(StreamId, Bytes),
    /// Nothing for now; its bell rings when there is more.
    Nothing,
    /// It has left or broken the framing.
    End,
}

/// One connection.
pub(crate) struct Line {
    io: Pin<Box<dyn Pipe>>,
    frames: Decoder,
    /// A frame that waits for its share of the budget.
    held: Option<Bytes>,
    budget: Budget,
    bell: Arc<Bell>,
    /// The bell, as a waker.
    waker: Waker,
    /// Bytes that may still be read in this turn.
    readable: usize,
}

impl Line {
    pub(crate) fn new(io: impl Pipe + 'static, bell: Arc<Bell>) -> Self {
        // Nothing has been polled yet: the first look is due.
        bell.ring();
        Self {
            io: Box::pin(io),
            frames: Decoder::new(),
            held: None,
            budget: Budget::new(bell.clone()),
            waker: bell.clone().into(),
            bell,
            readable: 0,
        }
    }

    /// A turn begins in which this client is looked at.
    pub(crate) fn answer(&mut self) {
        self.bell.answer();
        self.readable = READ_PER_TURN;
    }

    /// The loop has more to do for this client, but not in this turn.
    pub(crate) fn call_again(&self) {
        self.bell.ring();
    }

    /// The next frame.
    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            let frame = match self.held.take() {
                Some(frame) => Some(frame),
                None => match self.frames.next_frame() {
                    Ok(frame) => frame,
                    Err(too_long) => {
                        tracing::debug!(%too_long, "local client broke the framing");
                        return Heard::End;
                    }
                },
            };
            if let Some(frame) = frame {
                let Some(charge) = self.budget.charge(frame.len()) else {
                    self.held = Some(frame);
                    return Heard::Nothing;
                };
                return Heard::Frame(Received { frame, charge });
            }
            if self.readable == 0 {
                self.bell.ring();
                return Heard::Nothing;
            }
            let read = pin!(self.io.read_buf(self.frames.space()));
            match read.poll(&mut Context::from_waker(&self.waker)) {
                Poll::Ready(Ok(0) | Err(_)) => return Heard::End,
                Poll::Ready(Ok(count)) => self.readable = self.readable.saturating_sub(count),
                Poll::Pending => return Heard::Nothing,
            }
        }
    }

    /// Writes what `outbox` has, as far as the client takes it; its bell rings when it takes more.
    pub(crate) fn flush(&mut self, outbox: &mut Outbox) -> io::Result<()> {
        match outbox.poll_flush(self.io.as_mut(), &mut Context::from_waker(&self.waker)) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Ready when everything has been written and the client told that nothing follows, or when it has left.
    pub(crate) fn poll_last(&mut self, outbox: &mut Outbox, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(outbox.poll_flush(self.io.as_mut(), cx)).is_ok() {
            let _ = ready!(self.io.as_mut().poll_shutdown(cx));
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use pilot_wire::ipc::MAX_FRAME;
    use tokio::io::AsyncWriteExt;

    use super::super::bell::Board;
    use super::*;
    use crate::driver::ClientId;

    fn line(io: impl Pipe + 'static) -> (Board, Line) {
        let board = Board::default();
        let mut line = Line::new(io, board.bell(ClientId(1)));
        rang(&board);
        line.answer();
        (board, line)
    }

    fn rang(board: &Board) -> bool {
        let mut clients = Vec::new();
        board.take(&mut clients);
        !clients.is_empty()
    }

    fn heard(line: &mut Line) -> Vec<Received> {
        let frame = || match line.hear() {
            Heard::Frame(received) => Some(received),
            Heard::Data(..) | Heard::Nothing | Heard::End => None,
        };
        std::iter::from_fn(frame).collect()
    }

    #[tokio::test]
    async fn an_overlong_frame_ends_the_connection() {
        let (near, mut far) = tokio::io::duplex(100);
        far.write_all(&[0x00, 0x10, 0x00, 0x01, 0x06]).await.unwrap();
        assert!(matches!(line(near).1.hear(), Heard::End));
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_heard_to_the_end_first() {
        let (near, mut far) = tokio::io::duplex(100);
        far.write_all(&[0, 0, 0, 1, 0x0D]).await.unwrap();
        drop(far);
        let (_, mut line) = line(near);
        assert!(matches!(line.hear(), Heard::Frame(_)));
        assert!(matches!(line.hear(), Heard::End));
    }

    #[tokio::test]
    async fn a_client_is_heard_further_only_when_the_driver_is_done_with_earlier_frames() {
        let mut input = Vec::new();
        for _ in 0..5 {
            input.extend_from_slice(&(MAX_FRAME as u32).to_be_bytes());
            input.resize(input.len() + MAX_FRAME, 6);
        }
        let (near, mut far) = tokio::io::duplex(input.len());
        far.write_all(&input).await.unwrap();
        let (board, mut line) = line(near);
        let mut held = Vec::new();
        while held.len() < 4 {
            line.answer();
            held.extend(heard(&mut line));
        }
        line.answer();
        while rang(&board) {
            line.answer();
            assert!(heard(&mut line).is_empty(), "the budget is used up");
        }
        held.pop();
        assert!(rang(&board), "there is room again");
        line.answer();
        assert_eq!(heard(&mut line).len(), 1);
    }

    #[tokio::test]
    async fn a_client_that_never_stops_is_heard_in_turns() {
        let frame = [0, 0, 0, 1, 0x0D];
        let (near, mut far) = tokio::io::duplex(4 * READ_PER_TURN);
        far.write_all(&frame.repeat(3 * READ_PER_TURN / frame.len())).await.unwrap();
        let (board, mut line) = line(near);
        let first = std::iter::from_fn(|| matches!(line.hear(), Heard::Frame(_)).then_some(())).count();
        assert!(first > 0 && first * frame.len() < 2 * READ_PER_TURN, "{first} frames");
        assert!(rang(&board), "it is heard again in the next turn");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_written_when_the_client_has_read() {
        let (near, mut far) = tokio::io::duplex(7);
        let (board, mut line) = line(near);
        let mut outbox = Outbox::default();
        outbox.push(|out| out.extend_from_slice(b"more than seven"));
        line.flush(&mut outbox).unwrap();
        let mut got = [0; 15];
        far.read_exact(&mut got[..7]).await.unwrap();
        assert!(rang(&board));
        line.answer();
        line.flush(&mut outbox).unwrap();
        far.read_exact(&mut got[7..14]).await.unwrap();
        assert!(rang(&board));
        line.flush(&mut outbox).unwrap();
        far.read_exact(&mut got[14..]).await.unwrap();
        assert_eq!(&got, b"more than seven");
    }
}
