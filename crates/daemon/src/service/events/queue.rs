//! The queue of one subscriber: what waits for its connection, and what happens when there is no room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pilot_wire::events::{Note, NoteToken, Overflow};
use tokio::time::Instant;

use super::published::{How, Published};

/// Bytes queued for one subscriber at most. Two of the longest events fit.
pub(super) const QUEUE_BYTES: usize = 33 << 20;

/// Bytes handed to a writer at a time, so that many small events leave in one write.
pub(super) const BATCH_LEN: usize = 64 << 10;

/// Events of the past that may wait for one subscriber, however many it asks for.
const BACKLOG_EVENTS: usize = 20_000;

#[derive(Debug)]
enum Item {
    Event(Arc<Published>, How),
    Note(Note),
    /// So many were dropped here.
    Lost(Loss),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Loss {
    events: u64,
    at_least: bool,
}

/// What was handed to a writer.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Nothing: the queue is empty.
    pub(super) batch: Option<Bytes>,
    /// Events in it.
    pub(super) events: u64,
}

/// Events and notes on their way to one connection.
#[derive(Debug)]
pub(super) struct Queue {
    overflow: Overflow,
    limit: usize,
    /// Goes first and has no part in the limit: answers about the past.
    backlog: VecDeque<Item>,
    items: VecDeque<Item>,
    /// Events in `items`.
    events: usize,
    bytes: usize,
    /// Dropped before everything in `items`.
    lost: Loss,
    /// Rest of the last batch: a long event that is handed over without a copy.
    long: Option<Bytes>,
    /// Since when publishers have been waiting for room.
    stalled: Option<Instant>,
    pub(super) dropped: u64,
    pub(super) delivered: u64,
    pub(super) blocked: Duration,
    pub(super) demoted: bool,
}

impl Queue {
    pub(super) fn new(overflow: Overflow, limit: usize) -> Self {
        Self {
            overflow,
            limit: limit.max(1),
            backlog: VecDeque::new(),
            items: VecDeque::new(),
            events: 0,
            bytes: 0,
            lost: Loss::default(),
            long: None,
            stalled: None,
            dropped: 0,
            delivered: 0,
            blocked: Duration::ZERO,
            demoted: false,
        }
    }

    pub(super) fn overflow(&self) -> Overflow {
        self.overflow
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Events that wait, those of the past too.
    pub(super) fn len(&self) -> usize {
        self.events + self.backlog.len()
    }

    /// Whether a publisher has to wait before an event of this length can be added, which starts the clock on the
    /// subscriber. Nobody waits for one whose events may be dropped.
    pub(super) fn holds_up(&mut self, length: usize, now: Instant) -> bool {
        let holds_up = match self.overflow {
            Overflow::Block => !self.has_room(length),
            Overflow::DropOldest | Overflow::DropNewest => false,
        };
        if holds_up {
            self.stalled.get_or_insert(now);
        }
        holds_up
    }

    fn has_room(&self, length: usize) -> bool {
        // One event always fits, however long.
        self.events == 0 || (self.events < self.limit && self.bytes + length <= QUEUE_BYTES)
    }

    /// Adds an event, or drops one, by the policy. For a blocking subscriber [`Queue::holds_up`] comes first.
    pub(super) fn push(&mut self, event: Arc<Published>, how: How) {
        match self.overflow {
            Overflow::DropNewest if !self.has_room(event.frame.len()) => {
                self.dropped += 1;
                if let Some(Item::Lost(loss)) = self.items.back_mut() {
                    loss.events += 1;
                } else {
                    self.items.push_back(Item::Lost(Loss { events: 1, at_least: false }));
                }
                return;
            }
            Overflow::DropOldest | Overflow::DropNewest | Overflow::Block => {}
        }
        self.bytes += event.frame.len();
        self.events += 1;
        self.items.push_back(Item::Event(event, how));
        if self.overflow == Overflow::DropOldest {
            while self.events > 1 && (self.events > self.limit || self.bytes > QUEUE_BYTES) {
                self.drop_oldest();
            }
        }
    }

    fn drop_oldest(&mut self) {
        while let Some(item) = self.items.pop_front() {
            match item {
                Item::Event(event, _) => {
                    self.bytes -= event.frame.len();
                    self.events -= 1;
                    self.dropped += 1;
                    self.lost.events += 1;
                    return;
                }
                // Notes are not dropped: what comes first anyway may as well go with what comes before all.
                Item::Note(note) => self.backlog.push_back(Item::Note(note)),
                Item::Lost(loss) => self.add_loss(loss),
            }
        }
    }

    fn add_loss(&mut self, loss: Loss) {
        self.lost.events += loss.events;
        self.lost.at_least |= loss.at_least;
    }

    /// Events that did not even come here were lost before what is added next.
    pub(super) fn lose(&mut self, events: u64, at_least: bool) {
        match self.items.back_mut() {
            Some(Item::Lost(loss)) => {
                loss.events += events;
                loss.at_least |= at_least;
            }
            Some(Item::Event(..) | Item::Note(_)) => {
                self.items.push_back(Item::Lost(Loss { events, at_least }));
            }
            None => self.add_loss(Loss { events, at_least }),
        }
    }

    /// Adds a note after everything that waits.
    pub(super) fn tell(&mut self, note: Note) {
        self.items.push_back(Item::Note(note));
    }

    /// Puts notes before everything that waits.
    pub(super) fn tell_first(&mut self, notes: Vec<Note>) {
        for note in notes.into_iter().rev() {
            self.backlog.push_front(Item::Note(note));
        }
    }

    /// Adds events of the past, and notes around them, before what happens now.
    pub(super) fn add_past(
        &mut self,
        before: Option<Note>,
        events: Vec<Arc<Published>>,
        how: How,
        after: Vec<Note>,
    ) {
        self.backlog.extend(before.map(Item::Note));
        let room = BACKLOG_EVENTS.saturating_sub(self.backlog.len());
        let too_many = events.len().saturating_sub(room);
        if too_many > 0 {
            let answer = if let How::Answer(id) = how { Some(id) } else { None };
            let lost = Note::Lost { events: too_many as u64, at_least: false, answer };
            self.backlog.push_back(Item::Note(lost));
        }
        self.backlog.extend(events.into_iter().skip(too_many).map(|event| Item::Event(event, how)));
        self.backlog.extend(after.into_iter().map(Item::Note));
    }

    /// The next batch. Events that ask for notes get theirs in front.
    pub(super) fn take(&mut self, token: Option<&NoteToken>, now: Instant) -> Taken {
        if let Some(long) = self.long.take() {
            return Taken { batch: Some(long), events: 0 };
        }
        let (mut batch, mut events) = (Vec::new(), 0);
        while batch.len() < BATCH_LEN {
            if self.backlog.is_empty() && self.lost.events > 0 {
                emit_loss(token, std::mem::take(&mut self.lost), &mut batch);
            }
            let item = match self.backlog.pop_front() {
                Some(item) => item,
                None => match self.items.pop_front() {
                    Some(item) => {
                        if let Item::Event(event, _) = &item {
                            self.bytes -= event.frame.len();
                            self.events -= 1;
                        }
                        item
                    }
                    None => break,
                },
            };
            match item {
                Item::Note(note) => {
                    if let Some(token) = token {
                        token.note(&note).emit(&mut batch);
                    }
                }
                Item::Lost(loss) => emit_loss(token, loss, &mut batch),
                Item::Event(event, how) => {
                    events += 1;
                    if let Some(token) = token {
                        event.emit_note(token, how, &mut batch);
                    }
                    if batch.len() + event.frame.len() < BATCH_LEN {
                        batch.extend_from_slice(&event.frame);
                    } else {
                        self.long = Some(event.frame.clone());
                        break;
                    }
                }
            }
        }
        if events > 0
            && let Some(since) = self.stalled.take()
        {
            self.blocked += now.saturating_duration_since(since);
        }
        self.delivered += events;
        let batch = if batch.is_empty() { self.long.take() } else { Some(Bytes::from(batch)) };
        Taken { batch, events }
    }

    /// When publishers began to wait for it.
    pub(super) fn stalled(&self) -> Option<Instant> {
        self.stalled
    }

    /// From now on nobody waits for it.
    pub(super) fn demote(&mut self, now: Instant) {
        if let Some(since) = self.stalled.take() {
            self.blocked += now.saturating_duration_since(since);
        }
        self.overflow = Overflow::DropOldest;
        self.demoted = true;
        self.tell(Note::Demoted);
    }
}

fn emit_loss(token: Option<&NoteToken>, loss: Loss, out: &mut Vec<u8>) {
    if let Some(token) = token {
        token.note(&Note::Lost { events: loss.events, at_least: loss.at_least, answer: None }).emit(out);
    }
}
