//! The way to a client: a connection with a queue, or a hand in this process.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use pilot_client::local::End;
use pilot_wire::StreamId;
use pilot_wire::ipc::{Command, data_header};

use super::bell::Bell;
use super::io::{Heard, Line, Pipe};
use super::local::Local;
use super::outbox::Outbox;

/// How a client is spoken with.
pub(crate) enum Way {
    /// Over a socket.
    Connection {
        /// The connection.
        line: Line,
        /// What is queued for it.
        outbox: Outbox,
    },
    /// In this process.
    Local(Local),
}

impl Way {
    pub(crate) fn connection(io: impl Pipe + 'static, bell: Arc<Bell>) -> Self {
        Self::Connection { line: Line::new(io, bell), outbox: Outbox::default() }
    }

    pub(crate) fn local(end: End, bell: Arc<Bell>) -> Self {
        Self::Local(Local::new(end, bell))
    }

    /// A turn begins in which this client is looked at.
    pub(crate) fn answer(&mut self) {
        match self {
            Self::Connection { line, .. } => line.answer(),
            Self::Local(local) => local.answer(),
        }
    }

    /// The loop has more to do for this client, but not in this turn.
    pub(crate) fn call_again(&self) {
        match self {
            Self::Connection { line, .. } => line.call_again(),
            Self::Local(local) => local.call_again(),
        }
    }

    /// What the client said next.
    pub(crate) fn hear(&mut self) -> Heard {
        match self {
            Self::Connection { line, .. } => line.hear(),
            Self::Local(local) => local.hear(),
        }
    }

    /// Whether the client keeps up: if not, produce nothing more for it until it does. One in this process is bounded by
    /// the credit of its streams and by its own requests alone.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::Connection { outbox, .. } => outbox.has_room(),
            Self::Local(_) => true,
        }
    }

    /// Queues the frame that `emit` appends, length included.
    pub(crate) fn push(&mut self, emit: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Connection { outbox, .. } => outbox.push(emit),
            Self::Local(local) => local.push(emit),
        }
    }

    /// Queues data of a stream without copying it.
    pub(crate) fn push_data(&mut self, stream: StreamId, data: Bytes) {
        match self {
            Self::Connection { outbox, .. } => {
                outbox.push_data(&data_header(Command::Recv, stream, data.len()), data);
            }
            Self::Local(local) => local.push_data(stream, data),
        }
    }

    /// Writes what is queued, as far as the client takes it; its bell rings when it takes more.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Connection { line, outbox } => line.flush(outbox),
            Self::Local(local) => {
                local.flush();
                Ok(())
            }
        }
    }

    /// Ready when everything has been written and the client told that nothing follows, or when it has left.
    pub(crate) fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Connection { line, outbox } => line.poll_last(outbox, cx),
            Self::Local(local) => {
                local.flush();
                Poll::Ready(())
            }
        }
    }
}
