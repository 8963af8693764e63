//! The local programs that are connected: their queues, streams, ports, and the replies they wait for.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::task::{Context, Poll};

use pilot_wire::ipc::{DaemonFrame, Failure, Reply};
use pilot_wire::{Port, StreamId};
use tokio::sync::watch;

use super::replies::{Refusal, Slot};
use crate::ipc::io::Received;
use crate::ipc::way::Way;

/// Local programs connected at once (the reference's limit).
pub(super) const CLIENTS_MAX: usize = 1024;

/// Streams of one program (the reference's limit).
pub(super) const STREAMS_MAX: usize = 4096;

/// Ports of one program: as many as there are ephemeral ones.
pub(super) const PORTS_MAX: usize = 16_384;

/// Names one connection of a local program. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientId(pub(crate) u64);

/// Which of the two dialects a program speaks (see [`pilot_wire::ipc`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Reference,
    Extended,
}

/// One connected program.
pub(super) struct Client {
    pub(super) way: Way,
    pub(super) dialect: Dialect,
    pub(super) streams: BTreeSet<StreamId>,
    pub(super) ports: BTreeSet<Port>,
    /// Streams that have something for the program, but its queue was full.
    pub(super) stalled: BTreeSet<StreamId>,
    /// Frames not begun because the queue was full; bounded by the program's budget.
    pub(super) deferred: VecDeque<Received>,
    /// Replies that must leave in the order of their requests: programs of the reference tell them apart by order only.
    in_order: VecDeque<(u64, Option<Vec<u8>>)>,
    next_slot: u64,
    /// Dropped with the program.
    present: watch::Sender<()>,
}

impl Client {
    pub(super) fn new(way: Way, dialect: Dialect) -> Self {
        Self {
            way,
            dialect,
            streams: BTreeSet::new(),
            ports: BTreeSet::new(),
            stalled: BTreeSet::new(),
            deferred: VecDeque::new(),
            in_order: VecDeque::new(),
            next_slot: 0,
            present: watch::Sender::new(()),
        }
    }

    /// Ends with an error when the program is gone.
    pub(super) fn presence(&self) -> watch::Receiver<()> {
        self.present.subscribe()
    }

    /// Keeps the place of the reply to a request without a number.
    pub(super) fn reserve(&mut self) -> Slot {
        let number = self.next_slot;
        self.next_slot += 1;
        self.in_order.push_back((number, None));
        Slot::InOrder(number)
    }

    /// Queues a reply, or keeps it until the earlier ones are there.
    pub(super) fn reply(&mut self, slot: Slot, reply: &Reply<'_>) {
        match slot {
            Slot::Tagged(tag) => self.way.push(|out| reply.emit_tagged(tag, out)),
            Slot::InOrder(number) => {
                let mut frame = Vec::new();
                reply.emit(&mut frame);
                self.settle(number, frame);
            }
        }
    }

    /// Gives up the place of a reply that will not come.
    pub(super) fn forgo(&mut self, slot: Slot) {
        match slot {
            Slot::Tagged(_) => {}
            Slot::InOrder(number) => self.settle(number, Vec::new()),
        }
    }

    /// Queues a refusal in the form that the request's dialect has for it.
    pub(super) fn refuse(&mut self, slot: Slot, refusal: &Refusal) {
        match slot {
            Slot::Tagged(_) => self.reply(slot, &Reply::Failure(refusal.failure.clone())),
            Slot::InOrder(_) => self.reply(slot, &Reply::Error { code: 1, text: refusal.text().into() }),
        }
    }

    /// Queues something nobody asked for.
    pub(super) fn push(&mut self, frame: &DaemonFrame<'_>) {
        self.way.push(|out| frame.emit(out));
    }

    /// Queues stream data without copying it.
    pub(super) fn push_data(&mut self, stream: StreamId, data: bytes::Bytes) {
        self.way.push_data(stream, data);
    }

    /// Says that a stream ended, and how.
    pub(super) fn push_end(&mut self, stream: StreamId, failure: Option<Failure>) {
        match (self.dialect, failure) {
            (Dialect::Extended, Some(failure)) => self.push(&DaemonFrame::Reset { stream, failure }),
            (Dialect::Extended | Dialect::Reference, _) => {
                self.push(&DaemonFrame::Reply(Reply::Closed { stream }));
            }
        }
    }

    /// Writes what is queued, as far as the program takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.way.flush()
    }

    /// Whether there is room for what had to wait for it.
    pub(super) fn may_resume(&self) -> bool {
        self.way.has_room() && !(self.stalled.is_empty() && self.deferred.is_empty())
    }

    /// The daemon ends: ready when the program has what is queued, or is gone.
    pub(super) fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.way.poll_last(cx)
    }

    fn settle(&mut self, number: u64, frame: Vec<u8>) {
        if let Some(place) = self.in_order.iter_mut().find(|(place, _)| *place == number) {
            place.1 = Some(frame);
        }
        while let Some((_, Some(_))) = self.in_order.front() {
            if let Some((_, Some(frame))) = self.in_order.pop_front() {
                self.way.push(|out| out.extend_from_slice(&frame));
            }
        }
    }
}
