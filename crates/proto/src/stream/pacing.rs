//! Pacing: a token bucket that spreads a window over its round trip, in trains rather than single packets.
//!
//! The bucket is full whenever the stream was idle, so the first bytes never wait for a timer. It is deep enough
//! for what a driver's timer (1 ms) and segmentation offload make of it: on a fast path pacing must not become the
//! limit, on a slow path trains must stay short.

use std::time::{Duration, Instant};

/// Bytes that may always go in one train, if that is more than two segments.
const TRAIN: u64 = 24 << 10;

/// The bucket holds at least what this time earns: twice what timers resolve.
const DEPTH: Duration = Duration::from_millis(2);

/// Below this a round trip is shorter than a timer: acknowledgements clock the sender well enough.
const UNPACED_BELOW: Duration = Duration::from_millis(2);

/// The bucket.
#[derive(Debug)]
pub(super) struct Pacer {
    tokens: u64,
    updated: Instant,
}

/// How fast to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Bytes to spread over one round trip.
    pub(super) window: u64,
    /// The round trip.
    pub(super) rtt: Duration,
    /// Bytes of a full segment.
    pub(super) segment: u64,
}

impl Rate {
    fn bytes_in(&self, time: Duration) -> u64 {
        let bytes = u128::from(self.window) * time.as_nanos() / self.rtt.as_nanos().max(1);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn depth(&self) -> u64 {
        self.bytes_in(DEPTH).max(self.train())
    }

    fn train(&self) -> u64 {
        TRAIN.max(2 * self.segment)
    }

    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * self.rtt.as_nanos() / u128::from(self.window.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Pacer {
    /// A full bucket.
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: u64::MAX, updated: now }
    }

    /// Whether a segment may go now, or else when to ask again.
    pub(super) fn check(&mut self, now: Instant, rate: Option<Rate>) -> Result<(), Instant> {
        let Some(rate) = rate.filter(|rate| rate.rtt >= UNPACED_BELOW) else { return Ok(()) };
        let earned = rate.bytes_in(now.saturating_duration_since(self.updated));
        // Time that has not yet earned a byte is kept for later.
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(rate.depth());
            self.updated = now;
        }
        self.tokens = self.tokens.min(rate.depth());
        if self.tokens >= rate.segment {
            return Ok(());
        }
        let train = rate.depth().min(rate.train()) / 2;
        Err(now + rate.time_for(train - self.tokens.min(train)).max(Duration::from_micros(100)))
    }

    /// Bytes went out.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn an_idle_stream_sends_a_train_at_once_and_then_at_its_rate() {
        let mut now = start();
        let mut pacer = Pacer::new(now);
        let rate = Some(Rate { window: 100_000, rtt: Duration::from_millis(100), segment: 1000 });
        let start = now;
        let mut sent = 0u64;
        while sent < 200_000 {
            match pacer.check(now, rate) {
                Ok(()) => {
                    pacer.spend(1000);
                    sent += 1000;
                    assert!(now > start || sent <= TRAIN);
                }
                Err(later) => {
                    assert!(later > now);
                    now = later;
                }
            }
        }
        let took = now - start;
        assert!((Duration::from_millis(165)..Duration::from_millis(200)).contains(&took), "{took:?}");
    }
}
