//! How a stream ends: in order, given up, or left by its application.

use std::time::Instant;

use super::{CloseReason, Owed, Phase, Stream, options::Dialect, send::Fin};

/// A peer is given up only after this many time-outs in a row: a clock that jumped over the time in which this machine
/// slept proves nothing.
const MIN_TIMEOUTS: u32 = 4;

/// Transmissions of a FIN towards the reference, which ignores all but the first: if its answer was lost, nobody
/// will ever repeat it. All data was acknowledged before.
const LEGACY_FIN_COPIES: u8 = 6;

impl Stream {
    pub(super) fn orphan(&mut self, now: Instant) {
        if !self.orphaned {
            self.orphaned = true;
            self.orphan_deadline = None;
            self.arm_orphan_deadline(now);
        }
        if let Some(receiver) = &mut self.receiver {
            receiver.discard();
        }
        self.pending.readable = false;
    }

    /// Once the peer has everything, it gets a while to finish its own side.
    pub(super) fn arm_orphan_deadline(&mut self, now: Instant) {
        if self.orphaned && self.orphan_deadline.is_none() && self.sender.fin_acknowledged() {
            self.orphan_deadline = Some(now + self.limits.finish_timeout());
        }
    }

    /// Ends the stream for the application. Nothing is sent any more but what is owed.
    pub(super) fn end(&mut self, reason: CloseReason) {
        self.phase = Phase::Closed;
        self.conclude(reason);
    }

    pub(super) fn conclude(&mut self, reason: CloseReason) {
        if self.ended.is_none() {
            self.ended = Some(reason);
            self.pending.closed = Some(reason);
            self.pending.writable = false;
            self.sender.abandon();
            if let Some(receiver) = &mut self.receiver {
                receiver.forget_islands();
            }
        }
    }

    pub(super) fn reset(&mut self, reason: CloseReason) {
        self.owed = Some(Owed::Reset);
        self.end(reason);
    }

    /// Looks whether both directions are over. `last_came_from_peer`: the peer may not know yet that we know.
    pub(super) fn settle(&mut self, now: Instant, last_came_from_peer: bool) {
        if self.ended.is_some() {
            return;
        }
        self.arm_orphan_deadline(now);
        let Some(receiver) = &self.receiver else { return };
        let theirs = receiver.finished();
        let ours = self.sender.fin_acknowledged();
        let over = match self.agreed.dialect {
            Dialect::Extended => ours && theirs,
            // The reference closes both directions with one FIN of either side.
            Dialect::Legacy => {
                ours || theirs || (matches!(self.sender.fin(), Fin::Sent(_)) && receiver.knows_end())
            }
        };
        if !over {
            return;
        }
        let unacknowledged = self.sender.unacknowledged();
        let reason = if unacknowledged > 0 {
            CloseReason::Discarded { unacknowledged }
        } else {
            CloseReason::Finished
        };
        if last_came_from_peer || !self.fin_confirms || self.agreed.is_legacy() {
            self.phase = Phase::TimeWait { until: now + self.limits.time_wait() };
            self.conclude(reason);
        } else {
            self.end(reason);
        }
    }

    /// After a retransmission time-out: is it time to give up?
    pub(super) fn check_progress(&mut self, now: Instant) {
        if self.agreed.is_legacy() && self.sender.fin_copies() >= LEGACY_FIN_COPIES {
            self.end(CloseReason::Finished);
            return;
        }
        let Some(stuck) = self.sender.stuck_since() else { return };
        let waited = now.saturating_duration_since(stuck.max(self.liveness.heard));
        if waited >= self.limits.give_up() && self.sender.timeouts_in_a_row() >= MIN_TIMEOUTS {
            self.reset(CloseReason::TimedOut { waited });
        }
    }
}
