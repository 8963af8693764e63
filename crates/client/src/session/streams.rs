//! Streams: what arrived and was not read, how much may be written, and how each ends.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use pilot_wire::StreamId;
use pilot_wire::ipc::{ClientFrame, Command, Failure, data_header};
use tokio::io::ReadBuf;

use super::{Dialect, Outbox, remember, wake};
use crate::Error;

/// Largest piece of data in one frame. Larger pieces would make other streams wait longer for their turn, and are read in
/// parts that have to be put together; smaller ones cost more frames.
pub(crate) const MAX_PIECE: usize = 32 * 1024;

/// Frames that are written directly in one go.
pub(crate) const PIECES: usize = 4;

/// Reference dialect: once so many bytes wait to be read, the connection itself is not read. A 1.18 daemon then
/// gives up on us after 10 s, so the bound is generous.
const REFERENCE_BACKLOG: usize = 16 << 20;

/// Reference dialect: streams whose data came before they were announced. 1.18 answers requests and pushes data
/// from different threads, so a few frames can overtake the announcement.
const EARLY_STREAMS: usize = 64;

pub(super) struct Streams {
    dialect: Dialect,
    open: BTreeMap<StreamId, Stream>,
    /// Reference dialect: not announced yet, oldest first.
    early: VecDeque<(StreamId, Stream)>,
    /// Bytes that wait to be read, in all streams.
    unread: usize,
}

#[derive(Default)]
struct Stream {
    arrived: VecDeque<Bytes>,
    /// Bytes the daemon may still send without asking.
    granted: usize,
    /// Bytes read since the last grant.
    read: usize,
    reader: Option<Waker>,
    /// Bytes we may still write without asking.
    credit: usize,
    writer: Option<Waker>,
    /// Where in the outbox the last piece ends.
    last_write: u64,
    finished: Finished,
    end: Option<End>,
    /// We asked for the end; only its confirmation matters still.
    closing: bool,
    closer: Option<Waker>,
}

/// Which directions carry no more data.
#[derive(Default)]
struct Finished {
    by_peer: bool,
    by_us: bool,
}

enum End {
    Orderly,
    Abnormal(Failure),
}

impl Streams {
    pub(super) const fn new(dialect: Dialect) -> Self {
        Self { dialect, open: BTreeMap::new(), early: VecDeque::new(), unread: 0 }
    }

    /// The daemon announced a stream.
    pub(super) fn open(&mut self, id: StreamId) {
        let early =
            self.early.iter().position(|(early, _)| *early == id).and_then(|at| self.early.remove(at));
        let stream = early.map_or_else(|| Stream::new(self.dialect), |(_, stream)| stream);
        if let Some(replaced) = self.open.insert(id, stream) {
            self.unread -= replaced.unread();
        }
    }

    pub(super) fn on_data(&mut self, id: StreamId, data: Bytes) -> Result<(), Error> {
        let dialect = self.dialect;
        let Some(stream) = self.find(id) else { return Ok(()) };
        if stream.closing || data.is_empty() {
            return Ok(());
        }
        if let Dialect::Extended { .. } = dialect {
            let Some(left) = stream.granted.checked_sub(data.len()) else {
                return Err(Error::Protocol(format!("more data than granted on stream {id}")));
            };
            stream.granted = left;
        }
        let length = data.len();
        stream.arrived.push_back(data);
        wake(&mut stream.reader);
        self.unread += length;
        Ok(())
    }

    pub(super) fn on_credit(&mut self, id: StreamId, bytes: u32) {
        if let Some(stream) = self.open.get_mut(&id) {
            stream.credit = stream.credit.saturating_add(bytes as usize);
            wake(&mut stream.writer);
        }
    }

    pub(super) fn on_finish(&mut self, id: StreamId) {
        if let Some(stream) = self.open.get_mut(&id) {
            stream.finished.by_peer = true;
            wake(&mut stream.reader);
        }
    }

    /// The stream is over: in order, or with a failure.
    pub(super) fn on_end(&mut self, id: StreamId, failure: Option<Failure>) {
        let Some(stream) = self.find(id) else { return };
        // What the peer sent before an abnormal end can still be read, then the failure shows.
        stream.end.get_or_insert(failure.map_or(End::Orderly, End::Abnormal));
        stream.wake_all();
        if stream.closing {
            self.open.remove(&id);
        }
    }

    pub(super) const fn may_read(&self) -> bool {
        self.unread < REFERENCE_BACKLOG || matches!(self.dialect, Dialect::Extended { .. })
    }

    /// Moves what arrived into `buffer`; leaves it as it is at the end of the data.
    pub(super) fn poll_read(
        &mut self,
        id: StreamId,
        buffer: &mut ReadBuf<'_>,
        outbox: &mut Outbox,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let Some(stream) = self.open.get_mut(&id).filter(|stream| !stream.closing) else {
            return Poll::Ready(Err(Error::Closed));
        };
        let read = stream.take_arrived(buffer);
        if read == 0 && buffer.remaining() > 0 {
            return match &stream.end {
                Some(End::Abnormal(failure)) => Poll::Ready(Err(failure.clone().into())),
                Some(End::Orderly) => Poll::Ready(Ok(())),
                None if stream.finished.by_peer => Poll::Ready(Ok(())),
                None => {
                    remember(&mut stream.reader, cx);
                    Poll::Pending
                }
            };
        }
        if let Dialect::Extended { initial_credit } = self.dialect {
            stream.grant(id, read, initial_credit as usize, outbox);
        }
        let was_full = self.unread >= REFERENCE_BACKLOG;
        self.unread -= read;
        if was_full && self.unread < REFERENCE_BACKLOG {
            outbox.ring();
        }
        Poll::Ready(Ok(()))
    }

    /// How much may be written now, and the stream; `None` when there is nothing to write.
    fn poll_writable(
        &mut self,
        id: StreamId,
        parts: &[IoSlice<'_>],
        cx: &Context<'_>,
        most: usize,
    ) -> Poll<Result<Option<(&mut Stream, usize)>, Error>> {
        let Some(stream) = self.open.get_mut(&id).filter(|stream| !stream.closing) else {
            return Poll::Ready(Err(Error::Closed));
        };
        match &stream.end {
            Some(End::Abnormal(failure)) => return Poll::Ready(Err(failure.clone().into())),
            Some(End::Orderly) => return Poll::Ready(Err(Error::Closed)),
            None if stream.finished.by_us => return Poll::Ready(Err(Error::Closed)),
            None => {}
        }
        let wanted: usize = parts.iter().map(|part| part.len()).sum();
        if wanted == 0 {
            return Poll::Ready(Ok(None));
        }
        if stream.credit == 0 {
            remember(&mut stream.writer, cx);
            return Poll::Pending;
        }
        let length = wanted.min(stream.credit).min(most);
        Poll::Ready(Ok(Some((stream, length))))
    }

    pub(super) fn poll_write(
        &mut self,
        id: StreamId,
        parts: &[IoSlice<'_>],
        outbox: &mut Outbox,
        cx: &Context<'_>,
    ) -> Poll<Result<usize, Error>> {
        let dialect = self.dialect;
        let Some((stream, length)) = ready!(self.poll_writable(id, parts, cx, MAX_PIECE))? else {
            return Poll::Ready(Ok(0));
        };
        if !outbox.has_room(cx) {
            return Poll::Pending;
        }
        stream.spend(length, dialect);
        outbox.data(id, parts, length);
        stream.last_write = outbox.position();
        Poll::Ready(Ok(length))
    }

    pub(super) fn poll_claim_direct(
        &mut self,
        id: StreamId,
        parts: &[IoSlice<'_>],
        outbox: &mut Outbox,
        cx: &Context<'_>,
    ) -> Option<Poll<Result<usize, Error>>> {
        let dialect = self.dialect;
        let (stream, length) = match self.poll_writable(id, parts, cx, PIECES * MAX_PIECE) {
            Poll::Ready(Ok(writable)) => writable?,
            Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
            Poll::Pending => return Some(Poll::Pending),
        };
        let headers = length.div_ceil(MAX_PIECE) * data_header(Command::Send, id, 0).len();
        if !outbox.bypass(headers + length) {
            return None;
        }
        stream.spend(length, dialect);
        stream.last_write = outbox.position();
        Some(Poll::Ready(Ok(length)))
    }

    pub(super) fn last_write(&self, id: StreamId) -> u64 {
        self.open.get(&id).map_or(0, |stream| stream.last_write)
    }

    /// We write no more; true when the daemon should be told.
    pub(super) fn finish(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.open.get_mut(&id) else { return false };
        let news = !stream.finished.by_us && !stream.closing && stream.end.is_none();
        stream.finished.by_us = true;
        news
    }

    /// We want the stream to end; true when the daemon should be told.
    pub(super) fn start_closing(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.open.get_mut(&id) else { return false };
        if stream.closing {
            return false;
        }
        self.unread -= stream.unread();
        stream.arrived.clear();
        stream.closing = true;
        if stream.end.is_some() && matches!(self.dialect, Dialect::Extended { .. }) {
            // Both sides know already; the number means nothing to the daemon any more.
            self.open.remove(&id);
            return false;
        }
        true
    }

    /// Drops the stream without waiting for anything; true when the daemon should be told.
    pub(super) fn forget(&mut self, id: StreamId) -> bool {
        let Some(mut stream) = self.open.remove(&id) else { return false };
        self.unread -= stream.unread();
        stream.wake_all();
        stream.end.is_none()
    }

    pub(super) fn poll_closed(&mut self, id: StreamId, cx: &Context<'_>) -> Poll<()> {
        match self.open.get_mut(&id) {
            Some(stream) => {
                remember(&mut stream.closer, cx);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    pub(super) fn wake_all(&mut self) {
        self.open.values_mut().for_each(Stream::wake_all);
    }

    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        let early = self.early.iter().map(|(_, stream)| stream.unread());
        let unread: usize = self.open.values().map(Stream::unread).chain(early).sum();
        unread == self.unread && self.early.len() <= EARLY_STREAMS
    }

    /// The stream of this number; in the reference dialect also one that is not announced yet.
    fn find(&mut self, id: StreamId) -> Option<&mut Stream> {
        if self.open.contains_key(&id) || self.dialect != Dialect::Reference {
            return self.open.get_mut(&id);
        }
        let at = match self.early.iter().position(|(early, _)| *early == id) {
            Some(at) => at,
            None => {
                if self.early.len() == EARLY_STREAMS
                    && let Some((_, oldest)) = self.early.pop_front()
                {
                    self.unread -= oldest.unread();
                }
                self.early.push_back((id, Stream::new(self.dialect)));
                self.early.len() - 1
            }
        };
        self.early.get_mut(at).map(|(_, stream)| stream)
    }
}

impl Stream {
    fn new(dialect: Dialect) -> Self {
        let credit = match dialect {
            Dialect::Reference => usize::MAX,
            Dialect::Extended { initial_credit } => initial_credit as usize,
        };
        Self { granted: credit, credit, ..Self::default() }
    }

    /// So much is written.
    fn spend(&mut self, length: usize, dialect: Dialect) {
        if let Dialect::Extended { .. } = dialect {
            self.credit -= length;
        }
    }

    fn unread(&self) -> usize {
        self.arrived.iter().map(Bytes::len).sum()
    }

    fn take_arrived(&mut self, buffer: &mut ReadBuf<'_>) -> usize {
        let before = buffer.remaining();
        while let Some(first) = self.arrived.front_mut() {
            let length = buffer.remaining().min(first.len());
            buffer.put_slice(&first[..length]);
            first.advance(length);
            if !first.is_empty() {
                break;
            }
            self.arrived.pop_front();
        }
        before - buffer.remaining()
    }

    /// Lets the daemon send as much again as was read, in large steps.
    fn grant(&mut self, id: StreamId, read: usize, initial: usize, outbox: &mut Outbox) {
        self.read += read;
        if self.read < initial / 4 || self.finished.by_peer || self.end.is_some() {
            return;
        }
        self.granted += self.read;
        let bytes = u32::try_from(self.read).unwrap_or(u32::MAX);
        self.read = 0;
        ClientFrame::Credit { stream: id, bytes }.emit(outbox.frame());
    }

    fn wake_all(&mut self) {
        wake(&mut self.reader);
        wake(&mut self.writer);
        wake(&mut self.closer);
    }
}
