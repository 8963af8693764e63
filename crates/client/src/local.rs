//! Clients of a daemon in the same process: no socket, no task in between.
//!
//! A [`Door`] is a node's, and gives clients ([`Door::connect`]) that are like all others. What they write goes into a
//! bounded lane, in order: stream data as it was written, in pieces of at most 64 KiB, everything else as frames. The
//! daemon takes the whole lane at once ([`End::take`]), and hands what it has for the client straight to its streams
//! ([`End::deliver`]); stream data is neither copied nor put into frames on the way. Each side wakes the other once for
//! all that waits.
//!
//! This is for those who write a daemon. Programs use crate `pilot`, which has the node and its clients in one.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use pilot_wire::StreamId;
use pilot_wire::ipc::INITIAL_CREDIT;
use tokio::sync::mpsc;

use crate::driver::{Connection, Link};
use crate::session::{Dialect, Session};
use crate::{Client, ConnectError, Error};

/// Clients that wait for the daemon to take note of them. It takes one per turn.
const ENTERING: usize = 64;

/// Bytes of the prefix of a frame.
const PREFIX: usize = 4;

/// Where clients get in. Clones are the same door.
#[derive(Debug, Clone)]
pub struct Door(mpsc::Sender<End>);

/// The inside of a [`Door`].
#[derive(Debug)]
pub struct Entrance(mpsc::Receiver<End>);

/// A door and its inside.
pub fn door() -> (Door, Entrance) {
    let (door, entrance) = mpsc::channel(ENTERING);
    (Door(door), Entrance(entrance))
}

impl Door {
    /// A new client, with ports and requests of its own.
    ///
    /// # Errors
    /// [`ConnectError::Ended`] when the node behind the door has ended.
    pub async fn connect(&self) -> Result<Client, ConnectError> {
        let mut session = Session::new(Dialect::Extended { initial_credit: INITIAL_CREDIT });
        session.outbox.run_in_process();
        let connection = Arc::new(Connection::in_process(session));
        let link = Link::to(connection.clone());
        self.0.send(End { connection }).await.map_err(|_| ConnectError::Ended)?;
        Ok(Client::behind(link, self.clone()))
    }
}

impl Entrance {
    /// The daemon's end of the next client; `None` when there is no door any more.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        self.0.poll_recv(cx)
    }
}

/// Something that a client hands over, or is handed.
#[derive(Debug)]
pub enum Item {
    /// Frames, each with its length before it.
    Frames(Vec<u8>),
    /// Data of a stream: what a `Send` or `Recv` frame holds.
    Data {
        /// The stream.
        stream: StreamId,
        /// The data, never empty.
        data: Bytes,
    },
}

/// How things stand after [`End::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// All there was has been taken. Whoever took it is woken when there is more.
    All,
    /// There was no more, and there will not be: the client is gone.
    Gone,
}

/// The daemon's end of a client. When it is dropped the client has lost its daemon.
pub struct End {
    connection: Arc<Connection>,
}

impl End {
    /// Moves everything that the client wrote behind what is in `items`.
    pub fn take(&self, items: &mut VecDeque<Item>, waker: &Waker) -> Taken {
        let mut session = self.connection.session();
        session.outbox.hand_over(items, &Context::from_waker(waker));
        if session.is_done() { Taken::Gone } else { Taken::All }
    }

    /// Hands the client what the daemon has for it. The bounds are those of any client: the credit of streams, the
    /// backlogs of listeners and datagrams, the requests it made.
    pub fn deliver(&self, items: &mut Vec<Item>) {
        let mut session = self.connection.session();
        for item in items.drain(..) {
            let taken = match item {
                Item::Frames(buffer) => Frames::of(buffer).try_for_each(|frame| session.on_frame(&frame)),
                Item::Data { stream, data } => session.on_data(stream, data),
            };
            if let Err(error) = taken {
                return session.end(error);
            }
        }
        // What it answers, such as credit, is for this side.
        session.outbox.take_turn();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.connection.session().end(Error::Ended);
    }
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("End").finish_non_exhaustive()
    }
}

/// The frames in a buffer of whole ones, each without its length.
#[derive(Debug, Default)]
pub struct Frames(Bytes);

impl Frames {
    /// The frames of [`Item::Frames`].
    pub fn of(buffer: Vec<u8>) -> Self {
        Self(buffer.into())
    }
}

impl Iterator for Frames {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let prefix = self.0.first_chunk::<PREFIX>()?;
        let length = u32::from_be_bytes(*prefix) as usize;
        self.0.advance(PREFIX);
        Some(self.0.split_to(length.min(self.0.len())))
    }
}

/// What waits for the daemon, in order.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    items: VecDeque<Waiting>,
    /// Bytes of all items but the last.
    before: usize,
}

#[derive(Debug)]
enum Waiting {
    Frames(Vec<u8>),
    Data { stream: StreamId, data: Vec<u8> },
}

impl Waiting {
    const fn len(&self) -> usize {
        match self {
            Self::Frames(bytes) | Self::Data { data: bytes, .. } => bytes.len(),
        }
    }
}

impl From<Waiting> for Item {
    fn from(waiting: Waiting) -> Self {
        match waiting {
            Waiting::Frames(buffer) => Self::Frames(buffer),
            Waiting::Data { stream, data } => Self::Data { stream, data: data.into() },
        }
    }
}

impl Lane {
    pub(crate) fn len(&self) -> usize {
        self.before + self.items.back().map_or(0, Waiting::len)
    }

    /// Where to append a frame.
    pub(crate) fn frame(&mut self) -> &mut Vec<u8> {
        if !matches!(self.items.back(), Some(Waiting::Frames(_))) {
            self.push(Waiting::Frames(Vec::new()));
        }
        self.last()
    }

    /// Appends `length` bytes of data. Small writes to one stream become one piece of up to `most` bytes.
    pub(crate) fn data(&mut self, stream: StreamId, parts: &[IoSlice<'_>], length: usize, most: usize) {
        let joins = matches!(self.items.back(), Some(Waiting::Data { stream: last, data })
            if *last == stream && data.len() + length <= most);
        if !joins {
            self.push(Waiting::Data { stream, data: Vec::with_capacity(length) });
        }
        append(self.last(), parts, length);
    }

    /// Moves everything behind what is in `items`.
    pub(crate) fn hand_over(&mut self, items: &mut VecDeque<Item>) {
        self.before = 0;
        items.extend(self.items.drain(..).map(Item::from));
    }

    fn push(&mut self, item: Waiting) {
        self.before = self.len();
        self.items.push_back(item);
    }

    /// The buffer of the last item; that of an empty lane is nobody's.
    fn last(&mut self) -> &mut Vec<u8> {
        if self.items.is_empty() {
            self.items.push_back(Waiting::Frames(Vec::new()));
        }
        let at = self.items.len() - 1;
        match &mut self.items[at] {
            Waiting::Frames(bytes) | Waiting::Data { data: bytes, .. } => bytes,
        }
    }
}

/// Appends the first `length` bytes of `parts`.
pub(crate) fn append(out: &mut Vec<u8>, parts: &[IoSlice<'_>], length: usize) {
    let mut left = length;
    for part in parts {
        let part = &part[..left.min(part.len())];
        out.extend_from_slice(part);
        left -= part.len();
    }
}
