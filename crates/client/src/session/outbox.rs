//! Bytes on their way to the daemon. Small frames gather here and leave in one write, or, in the same process, in one go.
//!
//! What comes after a pause is written at once by whoever asks for it; what follows closely is left to the driver, which
//! writes it together. A pause is when the driver has written all there was, when something is heard from the daemon, and
//! when somebody begins to wait for that.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;
use std::task::{Context, Waker};

use pilot_wire::StreamId;
use pilot_wire::ipc::{Command, data_header};

use super::{remember, wake};
use crate::local::{self, Lane};

/// From this many waiting bytes on, writers wait. It holds a few full frames, so that the driver always has a
/// whole system call's worth at hand.
const LIMIT: usize = 256 * 1024;

/// Small writes to a stream of a daemon in this process are put together up to this size.
const JOINED_MAX: usize = 64 * 1024;

#[derive(Default)]
pub(crate) struct Outbox {
    /// Frames the driver has not taken yet.
    gathering: Vec<u8>,
    /// Instead, when the daemon is in this process.
    lane: Option<Lane>,
    /// Bytes ever gathered, and of those, bytes ever written to the connection. Of a lane, times it was handed over.
    gathered: u64,
    written: u64,
    /// Writers and requests that wait for room.
    crowd: Vec<Waker>,
    /// Flushes that wait for the count of written bytes to reach theirs.
    flushes: Vec<(u64, Waker)>,
    /// The driver, when it has nothing to write.
    driver: Option<Waker>,
    /// A frame was appended that nobody has been told of.
    is_fresh: bool,
    /// Something was written at once since the last pause.
    is_warm: bool,
}

impl Outbox {
    /// What is written is for a daemon in this process, which takes it with [`Outbox::hand_over`].
    pub(crate) fn run_in_process(&mut self) {
        self.lane = Some(Lane::default());
    }

    /// Where to append a frame. Small frames (credit, closing) may always be appended; others ask
    /// [`Outbox::has_room`] first.
    pub(crate) fn frame(&mut self) -> &mut Vec<u8> {
        self.is_fresh = true;
        match &mut self.lane {
            Some(lane) => lane.frame(),
            None => &mut self.gathering,
        }
    }

    /// Appends the first `length` bytes of `parts` as data of a stream.
    pub(super) fn data(&mut self, stream: StreamId, parts: &[IoSlice<'_>], length: usize) {
        if let Some(lane) = &mut self.lane {
            self.is_fresh = true;
            return lane.data(stream, parts, length, JOINED_MAX);
        }
        let out = self.frame();
        out.extend_from_slice(&data_header(Command::Send, stream, length));
        local::append(out, parts, length);
    }

    /// Gives a daemon in this process all there is; it is woken when there is more, or [`Outbox::ring`] is called.
    pub(crate) fn hand_over(&mut self, items: &mut VecDeque<local::Item>, cx: &Context<'_>) {
        let Some(lane) = &mut self.lane else { return };
        if lane.len() > 0 {
            lane.hand_over(items);
            self.gathered += 1;
            self.crowd.drain(..).for_each(Waker::wake);
            self.on_written(1);
        }
        self.listen(cx);
    }

    fn waiting(&self) -> usize {
        self.lane.as_ref().map_or(self.gathering.len(), Lane::len)
    }

    /// Somebody is done with asking for things: shall what was asked be written at once? If not, the driver has been
    /// told, if there is anything.
    pub(crate) fn take_turn(&mut self) -> bool {
        if !mem::take(&mut self.is_fresh) {
            return false;
        }
        if self.lane.is_some() || mem::replace(&mut self.is_warm, true) {
            wake(&mut self.driver);
            return false;
        }
        true
    }

    /// Whoever talks with the daemon pauses.
    pub(crate) const fn pause(&mut self) {
        self.is_warm = false;
    }

    /// Counts bytes that are written without having gathered; gives `false`, and nothing is counted, when some have.
    pub(crate) fn bypass(&mut self, bytes: usize) -> bool {
        let is_vacant = self.lane.is_none() && self.gathering.is_empty();
        if is_vacant {
            self.gathered += bytes as u64;
        }
        is_vacant
    }

    /// Is there room for another frame? If not, the caller is woken when there is.
    pub(crate) fn has_room(&mut self, cx: &Context<'_>) -> bool {
        let room = self.waiting() < LIMIT;
        // A task may look again and again before there is room, and is still one waiter.
        if !room && !self.crowd.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.crowd.push(cx.waker().clone());
        }
        room
    }

    /// How many bytes will have been written once all that is here now is.
    pub(crate) fn position(&self) -> u64 {
        match &self.lane {
            Some(lane) => self.gathered + u64::from(lane.len() > 0),
            None => self.gathered + self.gathering.len() as u64,
        }
    }

    /// Has everything up to `position` been written? If not, the caller is woken when it has.
    pub(crate) fn is_written(&mut self, position: u64, cx: &Context<'_>) -> bool {
        let done = self.written >= position;
        if !done && !self.flushes.iter().any(|(at, waker)| *at == position && waker.will_wake(cx.waker())) {
            self.flushes.push((position, cx.waker().clone()));
        }
        done
    }

    /// Gives all there is, in exchange for an empty buffer; false when there is nothing.
    pub(crate) fn take(&mut self, buffer: &mut Vec<u8>) -> bool {
        debug_assert!(buffer.is_empty(), "one buffer is written before the next is taken");
        if self.gathering.is_empty() {
            return false;
        }
        mem::swap(&mut self.gathering, buffer);
        self.gathered += buffer.len() as u64;
        self.crowd.drain(..).for_each(Waker::wake);
        true
    }

    /// The driver has written all that it knew of; gives `false` when there is more by now.
    pub(crate) fn rest(&mut self) -> bool {
        self.pause();
        self.gathering.is_empty()
    }

    /// The driver is woken when there are bytes for it, or [`Outbox::ring`] is called.
    pub(crate) fn listen(&mut self, cx: &Context<'_>) {
        remember(&mut self.driver, cx);
    }

    /// The driver wrote so many bytes of what it took.
    pub(crate) fn on_written(&mut self, bytes: usize) {
        self.written += bytes as u64;
        let written = self.written;
        for (_, waker) in self.flushes.extract_if(.., |(position, _)| *position <= written) {
            waker.wake();
        }
    }

    /// Nothing waits, and nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting() == 0 && self.written == self.gathered
    }

    /// Wakes the driver without giving it bytes: something else changed.
    pub(crate) fn ring(&mut self) {
        wake(&mut self.driver);
    }

    pub(super) fn wake_all(&mut self) {
        self.crowd.drain(..).for_each(Waker::wake);
        self.flushes.drain(..).for_each(|(_, waker)| waker.wake());
        wake(&mut self.driver);
    }
}
