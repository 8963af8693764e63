//! The state of one connection to the daemon, without the connection: what frames mean and what handles may do.
//!
//! The driver feeds it frames ([`Session::on_frame`]) and takes bytes from its [`Outbox`]; the public handles ask
//! it for things and leave a waker when they must wait. It does no I/O and never blocks, so one short lock
//! around it is all the coordination there is.

mod outbox;
mod requests;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use pilot_wire::ipc::{ClientFrame, Code, DaemonFrame, Failure, Reply, Request};
use pilot_wire::{Endpoint, Port, StreamId};
use tokio::io::ReadBuf;

pub(crate) use outbox::Outbox;
pub(crate) use requests::Answer;
use requests::Requests;
use streams::Streams;
pub(crate) use streams::{MAX_PIECE, PIECES};

use crate::Error;

/// Streams that wait to be accepted on one port. More are turned away, and their peers told so. A peer may open 512 in
/// one go, and a program with one thread takes none while it is doing something else.
const ACCEPT_BACKLOG: usize = 1024;

/// Tasks that wait for the end of the connection. One too many wakes all, and those that still wait come back.
const MOURNERS: usize = 64;

/// Datagrams that wait to be received on one port (at most 64 KiB each). More are dropped, as networks do.
const DATAGRAM_BACKLOG: usize = 256;

/// How the daemon on the other end talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As released 1.18 daemons do: one request at a time, no credit, failures as text.
    Reference,
    /// With request numbers, credit, half-close and typed failures.
    Extended {
        /// Bytes each side may send on a new stream at first.
        initial_credit: u32,
    },
}

/// A datagram and where it came from.
pub(crate) type Datagram = (Endpoint, Bytes);

/// A stream that a peer opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming {
    pub(crate) stream: StreamId,
    pub(crate) from: Endpoint,
}

pub(crate) struct Session {
    dialect: Dialect,
    /// Bytes for the daemon.
    pub(crate) outbox: Outbox,
    requests: Requests,
    streams: Streams,
    listeners: BTreeMap<Port, Waiting<Incoming>>,
    datagrams: BTreeMap<Port, Waiting<Datagram>>,
    /// Why nothing more will happen on this connection.
    over: Option<Error>,
    /// Those who wait for that.
    mourners: Vec<Waker>,
    /// No handle is left: what is in the outbox still goes out, then the connection ends.
    abandoned: bool,
}

/// Things that arrived for a handle, and the handle's waker.
struct Waiting<T> {
    queue: VecDeque<T>,
    waker: Option<Waker>,
}

impl<T> Waiting<T> {
    const fn new() -> Self {
        Self { queue: VecDeque::new(), waker: None }
    }

    fn push(&mut self, item: T) {
        self.queue.push_back(item);
        wake(&mut self.waker);
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<T> {
        if let Some(item) = self.queue.pop_front() {
            return Poll::Ready(item);
        }
        remember(&mut self.waker, cx);
        Poll::Pending
    }
}

impl Session {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            outbox: Outbox::default(),
            requests: Requests::new(dialect),
            streams: Streams::new(dialect),
            listeners: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            over: None,
            mourners: Vec::new(),
            abandoned: false,
        }
    }

    pub(crate) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    // ---- the driver's side

    /// Takes one frame from the daemon.
    pub(crate) fn on_frame(&mut self, frame: &Bytes) -> Result<(), Error> {
        self.outbox.pause();
        match DaemonFrame::parse(frame).map_err(|error| Error::Protocol(error.to_string()))? {
            DaemonFrame::HelloOk { .. } => {}
            DaemonFrame::Tagged { tag, reply } => {
                let reply = Reply::parse(reply).map_err(|error| Error::Protocol(error.to_string()))?;
                self.on_reply(Some(tag), frame, reply);
            }
            DaemonFrame::Credit { stream, bytes } => self.streams.on_credit(stream, bytes),
            DaemonFrame::Finish { stream } => self.streams.on_finish(stream),
            DaemonFrame::Reset { stream, failure } => self.streams.on_end(stream, Some(failure)),
            DaemonFrame::Accept { port, stream, from } => self.on_accept(port, Incoming { stream, from }),
            DaemonFrame::Recv { stream, data } => self.on_data(stream, frame.slice_ref(data))?,
            DaemonFrame::RecvFrom { from, port, data } => {
                if let Some(waiting) = self.datagrams.get_mut(&port)
                    && waiting.queue.len() < DATAGRAM_BACKLOG
                {
                    waiting.push((from, Bytes::copy_from_slice(data)));
                }
            }
            DaemonFrame::Reply(Reply::Closed { stream }) => self.streams.on_end(stream, None),
            DaemonFrame::Reply(reply) => self.on_reply(None, frame, reply),
        }
        Ok(())
    }

    /// Takes data of a stream.
    pub(crate) fn on_data(&mut self, stream: StreamId, data: Bytes) -> Result<(), Error> {
        self.streams.on_data(stream, data)
    }

    fn on_reply(&mut self, tag: Option<u32>, frame: &Bytes, reply: Reply<'_>) {
        if let Reply::Dialed { stream } = &reply {
            self.streams.open(*stream);
        }
        let orphan = self.requests.on_reply(tag, frame, reply, &mut self.outbox);
        if let Some(stream) = orphan {
            self.close(stream);
        }
    }

    fn on_accept(&mut self, port: Port, incoming: Incoming) {
        self.streams.open(incoming.stream);
        match self.listeners.get_mut(&port) {
            Some(listener) if listener.queue.len() < ACCEPT_BACKLOG => listener.push(incoming),
            Some(_) => {
                self.reset(incoming.stream, Failure::new(Code::Busy, "too many streams wait to be accepted"))
            }
            None => self.reset(incoming.stream, Failure::new(Code::Refused, "nobody listens any more")),
        }
    }

    /// False while data of a reference daemon piles up unread: it knows no credit, so the only brake is not to
    /// read from it.
    pub(crate) const fn may_read(&self) -> bool {
        self.streams.may_read()
    }

    /// The connection ended. Everybody who waits is told.
    pub(crate) fn end(&mut self, why: Error) {
        if self.over.is_some() {
            return;
        }
        self.requests.fail_all(&why);
        self.streams.wake_all();
        for waiting in self.listeners.values_mut() {
            wake(&mut waiting.waker);
        }
        for waiting in self.datagrams.values_mut() {
            wake(&mut waiting.waker);
        }
        self.outbox.wake_all();
        self.mourners.drain(..).for_each(Waker::wake);
        self.over = Some(why);
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Ready when the connection has ended.
    pub(crate) fn poll_over(&mut self, cx: &Context<'_>) -> Poll<Error> {
        if let Some(over) = &self.over {
            return Poll::Ready(over.clone());
        }
        if !self.mourners.iter().any(|waker| waker.will_wake(cx.waker())) {
            if self.mourners.len() >= MOURNERS {
                self.mourners.drain(..).for_each(Waker::wake);
            }
            self.mourners.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Nobody holds a handle any more.
    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
        self.outbox.ring();
    }

    /// True when the driver has nothing left to do.
    pub(crate) fn is_done(&self) -> bool {
        self.over.is_some() || (self.abandoned && self.outbox.is_empty())
    }

    // ---- requests

    /// Sends a request once there is room for it; gives the number under which its answer is waited for.
    pub(crate) fn poll_start(&mut self, request: &Request<'_>, cx: &Context<'_>) -> Poll<Result<u32, Error>> {
        if let Some(over) = &self.over {
            return Poll::Ready(Err(over.clone()));
        }
        if !self.outbox.has_room(cx) {
            return Poll::Pending;
        }
        Poll::Ready(self.requests.start(request, &mut self.outbox))
    }

    /// Sends a request that has no answer, once there is room for it.
    pub(crate) fn poll_send(&mut self, request: &Request<'_>, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(over) = &self.over {
            return Poll::Ready(Err(over.clone()));
        }
        if !self.outbox.has_room(cx) {
            return Poll::Pending;
        }
        request.emit(self.outbox.frame());
        Poll::Ready(Ok(()))
    }

    /// Sends a request whose answer nobody waits for.
    pub(crate) fn start_unattended(&mut self, request: &Request<'_>) {
        if self.over.is_none()
            && let Ok(tag) = self.requests.start(request, &mut self.outbox)
        {
            self.forget_request(tag);
        }
    }

    pub(crate) fn poll_answer(&mut self, tag: u32, cx: &Context<'_>) -> Poll<Result<Answer, Error>> {
        self.requests.poll(tag, cx)
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn forget_request(&mut self, tag: u32) {
        if let Some(stream) = self.requests.forget(tag) {
            self.close(stream);
        }
    }

    // ---- listeners and datagrams

    /// Gets ready for streams to `port`. This comes before the request to the daemon, because the first stream
    /// may overtake the answer.
    pub(crate) fn add_listener(&mut self, port: Port) -> Result<(), Error> {
        if self.listeners.contains_key(&port) {
            return Err(port_taken(port));
        }
        self.listeners.insert(port, Waiting::new());
        Ok(())
    }

    pub(crate) fn poll_accept(&mut self, port: Port, cx: &Context<'_>) -> Poll<Result<Incoming, Error>> {
        let polled = self.listeners.get_mut(&port).map_or(Poll::Pending, |listener| listener.poll(cx));
        self.or_over(polled)
    }

    pub(crate) fn remove_listener(&mut self, port: Port) {
        let Some(listener) = self.listeners.remove(&port) else { return };
        for incoming in listener.queue {
            self.reset(incoming.stream, Failure::new(Code::Refused, "nobody listens any more"));
        }
    }

    pub(crate) fn add_datagrams(&mut self, port: Port) -> Result<(), Error> {
        if self.datagrams.contains_key(&port) {
            return Err(port_taken(port));
        }
        self.datagrams.insert(port, Waiting::new());
        Ok(())
    }

    pub(crate) fn poll_datagram(&mut self, port: Port, cx: &Context<'_>) -> Poll<Result<Datagram, Error>> {
        let polled = self.datagrams.get_mut(&port).map_or(Poll::Pending, |waiting| waiting.poll(cx));
        self.or_over(polled)
    }

    pub(crate) fn remove_datagrams(&mut self, port: Port) {
        self.datagrams.remove(&port);
    }

    fn or_over<T>(&self, polled: Poll<T>) -> Poll<Result<T, Error>> {
        match (polled, &self.over) {
            (Poll::Ready(item), _) => Poll::Ready(Ok(item)),
            (Poll::Pending, Some(over)) => Poll::Ready(Err(over.clone())),
            (Poll::Pending, None) => Poll::Pending,
        }
    }

    // ---- streams

    pub(crate) fn poll_read(
        &mut self,
        stream: StreamId,
        buffer: &mut ReadBuf<'_>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let polled = self.streams.poll_read(stream, buffer, &mut self.outbox, cx);
        match (polled, &self.over) {
            (Poll::Pending, Some(over)) => Poll::Ready(Err(over.clone())),
            (Poll::Pending, None) => {
                self.outbox.pause();
                Poll::Pending
            }
            (polled, _) => polled,
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        stream: StreamId,
        parts: &[std::io::IoSlice<'_>],
        cx: &Context<'_>,
    ) -> Poll<Result<usize, Error>> {
        match &self.over {
            Some(over) => Poll::Ready(Err(over.clone())),
            None => self.streams.poll_write(stream, parts, &mut self.outbox, cx),
        }
    }

    /// As [`Session::poll_write`], for up to [`PIECES`] frames of [`MAX_PIECE`] that the caller writes itself at once; `None`
    /// when they have to wait for their turn behind what has gathered.
    pub(crate) fn poll_claim_direct(
        &mut self,
        stream: StreamId,
        parts: &[std::io::IoSlice<'_>],
        cx: &Context<'_>,
    ) -> Option<Poll<Result<usize, Error>>> {
        match &self.over {
            Some(over) => Some(Poll::Ready(Err(over.clone()))),
            None => self.streams.poll_claim_direct(stream, parts, &mut self.outbox, cx),
        }
    }

    /// Ready once everything written to the stream so far has left for the daemon.
    pub(crate) fn poll_flush(&mut self, stream: StreamId, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        if self.outbox.is_written(self.streams.last_write(stream), cx) {
            return Poll::Ready(Ok(()));
        }
        self.or_over(Poll::Pending)
    }

    pub(crate) fn finish(&mut self, stream: StreamId) {
        if self.streams.finish(stream) && self.dialect != Dialect::Reference {
            ClientFrame::Finish { stream }.emit(self.outbox.frame());
        }
    }

    /// Ends the stream; what was written is still delivered.
    pub(crate) fn close(&mut self, stream: StreamId) {
        if self.streams.start_closing(stream) {
            Request::Close { stream }.emit(self.outbox.frame());
        }
    }

    /// Ends a stream of another program.
    pub(crate) fn close_foreign(&mut self, stream: StreamId) {
        Request::Close { stream }.emit(self.outbox.frame());
    }

    /// Ends the stream at once.
    pub(crate) fn reset(&mut self, stream: StreamId, failure: Failure) {
        match self.dialect {
            Dialect::Reference => self.close(stream),
            Dialect::Extended { .. } => {
                if self.streams.forget(stream) {
                    ClientFrame::Reset { stream, failure }.emit(self.outbox.frame());
                }
            }
        }
    }

    /// Ready once the daemon has confirmed the end of a stream that is being closed.
    pub(crate) fn poll_closed(&mut self, stream: StreamId, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let polled = self.streams.poll_closed(stream, cx);
        self.or_over(polled)
    }
}

fn port_taken(port: Port) -> Error {
    Failure::new(Code::AlreadyExists, format!("port {port} is in use by this program")).into()
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
