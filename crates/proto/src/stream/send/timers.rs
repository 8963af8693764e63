//! The timers of the sending half: probes of the tail, time-outs, reordering, pacing, closed windows.

use std::time::Instant;

use super::{Forced, Phase, Sender, TailProbe};
use crate::stream::{recovery::probe_timeout, scoreboard::Delivered};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    Probe,
    Timeout,
}

/// Time-outs in a row, or repetitions that brought nothing though the peer gave signs of life in between, after which the
/// path may not carry segments of this size.
const SUSPICIOUS_TIMEOUTS: u32 = 2;
const SUSPICIOUS_REPETITIONS: u8 = 3;

impl Sender {
    /// When [`on_timeout`](Self::on_timeout) wants to be called.
    pub(in crate::stream) fn timeout(&self) -> Option<Instant> {
        let tail = self.tail_timer().map(|(at, _)| at);
        [tail, self.reorder_at, self.pace_at, self.probe_window_at].into_iter().flatten().min()
    }

    /// Acts on every timer that is due. Says whether a retransmission time-out was among them.
    pub(in crate::stream) fn on_timeout(&mut self, now: Instant) -> bool {
        if self.pace_at.is_some_and(|at| at <= now) {
            self.pace_at = None;
        }
        if self.probe_window_at.is_some_and(|at| at <= now) {
            self.probe_window_at = None;
            self.forced = Some(Forced::Window);
        }
        if self.reorder_at.is_some_and(|at| at <= now) {
            self.reorder_at = None;
            let flight = self.board.flying();
            let lost = self.detect_losses(now);
            self.on_losses(lost, flight, &Delivered::default());
        }
        match self.tail_timer() {
            Some((at, Tail::Probe)) if at <= now => {
                self.forced = Some(Forced::Tail);
                self.waiting_since = now;
                self.tail_probe = Some(TailProbe { end: self.next, again: false });
                false
            }
            Some((at, Tail::Timeout)) if at <= now => {
                self.retransmission_timeout(now);
                true
            }
            Some(_) | None => false,
        }
    }

    /// The peer can be reached again: do not wait for a timer that was backed off.
    pub(in crate::stream) fn retry_now(&mut self, now: Instant) {
        self.rtt.forget_minimum();
        self.control.on_path_change(now);
        if self.rtt.backoff() > 0 && !self.board.is_empty() {
            self.suspect_size();
            self.rtt.reset_backoff();
            self.board.lose_front();
            self.forced = Some(Forced::Lost);
            self.waiting_since = now;
        }
    }

    /// What was sent last brought no answer either.
    fn suspect_size(&mut self) {
        self.fruitless = self.fruitless.saturating_add(1);
        self.suspicious |=
            self.rtt.backoff() >= SUSPICIOUS_TIMEOUTS || self.fruitless >= SUSPICIOUS_REPETITIONS;
    }

    /// Whether the peer has no room for what it is to get next, so that it answers without taking it.
    fn has_no_room_for_front(&self) -> bool {
        let front = self.board.front();
        self.slots == 0 || front.is_some_and(|segment| segment.start + u64::from(segment.len) > self.edge)
    }

    fn tail_timer(&self) -> Option<(Instant, Tail)> {
        if self.board.is_empty() || self.forced.is_some() {
            return None;
        }
        let pause = match self.has_no_room_for_front() {
            true => self.rtt.persistence(self.max_rto()),
            false => self.rtt.timeout(self.max_rto()),
        };
        let timeout = self.waiting_since + pause;
        let probing_allowed = matches!(self.phase, Phase::Open)
            && self.tail_probe.is_none()
            && self.rtt.backoff() == 0
            && self.board.sacked_bytes() == 0
            && !self.probing_window;
        if probing_allowed && let Some(wait) = probe_timeout(&self.rtt, self.board.outstanding()) {
            let probe = self.last_sent.max(self.waiting_since) + wait;
            if probe < timeout {
                return Some((probe, Tail::Probe));
            }
        }
        Some((timeout, Tail::Timeout))
    }

    fn retransmission_timeout(&mut self, now: Instant) {
        self.stats.timeouts += 1;
        self.waiting_since = now;
        self.tail_probe = None;
        if self.probing_window {
            self.rtt.back_off();
            self.board.lose_front();
            self.forced = Some(Forced::Lost);
            return;
        }
        self.timed_out = true;
        self.control.on_timeout(matches!(self.phase, Phase::Open));
        // Time-outs in a row mean an outage. What had arrived before it says nothing about what was under way.
        let first = !matches!(self.phase, Phase::Lossy { .. });
        let order = first.then(|| self.board.transmissions());
        let patience = self.rack.patience_after_timeout(&self.rtt);
        let front = self.board.lose_front();
        let (lost, _) = self.board.expire(now, u64::MAX, patience);
        self.control.on_lost(front + lost);
        self.rtt.back_off();
        self.suspect_size();
        self.reorder_at = None;
        self.phase = Phase::Lossy { until: self.next, order };
        self.forced = Some(Forced::Lost);
    }
}
