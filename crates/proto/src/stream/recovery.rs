//! Finding out what was lost (RACK, RFC 8985) and how fast to repair it (PRR, RFC 9937).

use std::time::{Duration, Instant};

use super::{
    rtt::Rtt,
    scoreboard::{Delivered, Newest},
};

/// Before reordering was seen, this many segments behind a hole mean loss at once (RFC 8985 6.2 step 4).
const DUP_THRESH: usize = 3;

/// After this many recoveries without an unnecessary retransmission the reordering window is small again.
const RESET_AFTER: u8 = 16;

/// Probing too early is worse than waiting as long as a peer may delay an acknowledgement (RFC 8985 7.2); ours and
/// 1.18 delay by 5 ms, and timers have a millisecond.
const PEER_ACK_DELAY: Duration = Duration::from_millis(7);

/// A tail is not probed earlier than this, however short the path: timers are not that good.
const MIN_PROBE_TIMEOUT: Duration = Duration::from_millis(10);

/// What RACK remembers.
#[derive(Debug, Default)]
pub(super) struct Rack {
    newest: Option<Newest>,
    /// Round trip of the newest delivered transmission.
    rtt: Duration,
    reordering_seen: bool,
    /// The reordering window is this many quarters of the minimal round trip, plus one.
    extra_quarters: u32,
    /// Recoveries until `extra_quarters` is forgotten.
    persist: u8,
    /// Unnecessary copies count once until this offset is acknowledged.
    round_end: u64,
}

impl Rack {
    /// Takes what an acknowledgement reported (RFC 8985 6.2 steps 1 to 3).
    pub(super) fn on_ack(&mut self, now: Instant, delivered: &Delivered, rtt: &Rtt) {
        self.reordering_seen |= delivered.reordered;
        let Some(newest) = delivered.newest else { return };
        let took = now.saturating_duration_since(newest.sent);
        // A copy that seems to have come back too fast is the original.
        if newest.copies > 1 && rtt.minimum().is_some_and(|min| took < min) {
            return;
        }
        self.rtt = took;
        if self.newest.is_none_or(|known| known.order < newest.order) {
            self.newest = Some(newest);
        }
    }

    /// A copy was not needed: wait longer next time.
    pub(super) fn on_duplicate(&mut self, acked: u64, sent: u64) {
        if acked >= self.round_end {
            self.round_end = sent;
            self.extra_quarters = (self.extra_quarters + 1).min(15);
            self.persist = RESET_AFTER;
            self.reordering_seen = true;
        }
    }

    /// A recovery is over.
    pub(super) fn on_recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.extra_quarters = 0;
        }
    }

    /// The transmission before which everything outstanding may be lost.
    pub(super) fn newest_order(&self) -> Option<u64> {
        self.newest.map(|newest| newest.order)
    }

    /// How long after sending a segment may still arrive (RFC 8985 6.2 step 4). `sacked` is the number of segments
    /// behind holes.
    pub(super) fn patience(&self, rtt: &Rtt, recovering: bool, sacked: usize) -> Duration {
        if !self.reordering_seen && (recovering || sacked >= DUP_THRESH) {
            return self.rtt;
        }
        let quarter = rtt.minimum().unwrap_or_default() / 4;
        let window = quarter * (self.extra_quarters + 1);
        self.rtt + window.min(rtt.smoothed().unwrap_or(window))
    }

    /// Patience after a time-out, when there may be no newest transmission (RFC 8985 6.3).
    pub(super) fn patience_after_timeout(&self, rtt: &Rtt) -> Duration {
        if self.newest.is_none() { Duration::ZERO } else { self.patience(rtt, true, 0) }
    }
}

/// When to probe the tail of a flight (RFC 8985 7.2).
pub(super) fn probe_timeout(rtt: &Rtt, segments: usize) -> Option<Duration> {
    let smoothed = rtt.smoothed()?;
    let delay = if segments <= 1 { PEER_ACK_DELAY } else { Duration::ZERO };
    Some((smoothed * 2 + delay).max(MIN_PROBE_TIMEOUT))
}

/// Proportional rate reduction: sending goes on during recovery, at a rate that ends at the new window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prr {
    delivered: u64,
    out: u64,
    flight: u64,
}

impl Prr {
    /// Recovery starts with `flight` bytes in the network.
    pub(super) fn new(flight: u64) -> Self {
        Self { delivered: 0, out: 0, flight: flight.max(1) }
    }

    /// Bytes were sent.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.out += bytes;
    }

    /// How many bytes may be sent now (RFC 9937 6.2). `safe`: the acknowledgement moved and nothing more was lost.
    pub(super) fn allowance(
        &mut self,
        delivered: u64,
        flying: u64,
        target: u64,
        segment: u64,
        safe: bool,
    ) -> u64 {
        self.delivered += delivered;
        let allowance = if flying > target {
            (self.delivered * target).div_ceil(self.flight).saturating_sub(self.out)
        } else {
            let catch_up = self.delivered.saturating_sub(self.out).max(delivered);
            let catch_up = if safe { catch_up + segment } else { catch_up };
            catch_up.min(target - flying)
        };
        if self.out == 0 { allowance.max(segment) } else { allowance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_sends_seven_segments_for_ten_delivered() {
        let mut prr = Prr::new(100_000);
        let (mut flying, mut sent) = (99_000u64, 0);
        for _ in 0..90 {
            flying -= 1000;
            let allowed = prr.allowance(1000, flying, 70_000, 1000, true) / 1000 * 1000;
            prr.sent(allowed);
            flying += allowed;
            sent += allowed;
        }
        assert!((60_000..=72_000).contains(&sent), "{sent}");
        assert!((66_000..=74_000).contains(&flying), "{flying}");
    }
}
