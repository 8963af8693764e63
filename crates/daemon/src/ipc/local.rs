//! Clients in this process: the built-in services, and the program around the node. No socket and no task is between
//! them and the loop, which takes what they wrote and hands them what it has for them itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use pilot_client::local::{End, Frames, Item, Taken};
use pilot_wire::StreamId;

use super::bell::Bell;
use super::budget::Budget;
use super::io::{Heard, Received};

/// Bytes of frames up to which the next one is put behind them.
const JOINED_MAX: usize = 16 << 10;

/// Frames and pieces of data taken from one client in one turn, so that the others and the network get theirs.
const HEARD_PER_TURN: usize = 64;

/// One client in this process.
pub(crate) struct Local {
    end: End,
    /// What it wrote, as far as it was taken from it.
    written: VecDeque<Item>,
    /// Frames begun of the first item.
    frames: Frames,
    /// A frame that waits for its share of the budget.
    held: Option<Bytes>,
    gone: bool,
    budget: Budget,
    bell: Arc<Bell>,
    /// The bell, as a waker.
    waker: Waker,
    /// What may still be heard in this turn.
    hearable: usize,
    /// What this turn has for it.
    items: Vec<Item>,
}

impl Local {
    pub(crate) fn new(end: End, bell: Arc<Bell>) -> Self {
        // It may have written something before.
        bell.ring();
        Self {
            end,
            written: VecDeque::new(),
            frames: Frames::default(),
            held: None,
            gone: false,
            budget: Budget::new(bell.clone()),
            waker: bell.clone().into(),
            bell,
            hearable: 0,
            items: Vec::new(),
        }
    }

    /// A turn begins in which this client is looked at.
    pub(crate) fn answer(&mut self) {
        self.bell.answer();
        self.hearable = HEARD_PER_TURN;
    }

    /// The loop has more to do for this client, but not in this turn.
    pub(crate) fn call_again(&self) {
        self.bell.ring();
    }

    /// What it did next.
    pub(crate) fn hear(&mut self) -> Heard {
        if self.hearable == 0 {
            self.bell.ring();
            return Heard::Nothing;
        }
        self.hearable -= 1;
        loop {
            if let Some(frame) = self.held.take().or_else(|| self.frames.next()) {
                let Some(charge) = self.budget.charge(frame.len()) else {
                    self.held = Some(frame);
                    return Heard::Nothing;
                };
                return Heard::Frame(Received { frame, charge });
            }
            match self.written.pop_front() {
                Some(Item::Frames(frames)) => self.frames = Frames::of(frames),
                // What a client in this process may write ahead is bounded by the credit of its streams alone.
                Some(Item::Data { stream, data }) => return Heard::Data(stream, data),
                None if self.gone => return Heard::End,
                None => {
                    self.gone = self.end.take(&mut self.written, &self.waker) == Taken::Gone;
                    if self.written.is_empty() && !self.gone {
                        return Heard::Nothing;
                    }
                }
            }
        }
    }

    /// Queues the frame that `emit` appends, length included.
    pub(crate) fn push(&mut self, emit: impl FnOnce(&mut Vec<u8>)) {
        match self.items.last_mut() {
            Some(Item::Frames(frames)) if frames.len() < JOINED_MAX => emit(frames),
            Some(Item::Frames(_) | Item::Data { .. }) | None => {
                let mut frames = Vec::new();
                emit(&mut frames);
                self.items.push(Item::Frames(frames));
            }
        }
    }

    /// Queues data of a stream without copying it.
    pub(crate) fn push_data(&mut self, stream: StreamId, data: Bytes) {
        self.items.push(Item::Data { stream, data });
    }

    /// Hands over what is queued.
    pub(crate) fn flush(&mut self) {
        if !self.items.is_empty() {
            self.end.deliver(&mut self.items);
        }
    }
}
