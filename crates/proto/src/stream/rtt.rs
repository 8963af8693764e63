//! Round-trip time and the retransmission time-out computed from it (RFC 6298).

use std::time::{Duration, Instant};

/// RFC 6298 asks for 1 s; like everyone else since, and like the reference, less.
const MIN_RTO: Duration = Duration::from_millis(200);

/// Before the first sample (RFC 6298 2.1).
const INITIAL_RTO: Duration = Duration::from_secs(1);

/// G in RFC 6298: what a driver's timer can resolve.
const GRANULARITY: Duration = Duration::from_millis(1);

/// How long a minimum counts. A path that became longer is believed after at most twice this.
const MIN_WINDOW: Duration = Duration::from_secs(10);

/// Back-off stops doubling here; the time-out is capped long before.
const MAX_BACKOFF: u32 = 10;

/// Doublings of the time-out while the peer is heard: what it sends gets through, so this is a line that loses, and not one
/// that is down or full of what we repeat.
const HEARD_BACKOFF: u32 = 1;

/// The estimator.
#[derive(Debug, Default)]
pub(super) struct Rtt {
    estimate: Option<Estimate>,
    backoff: u32,
    /// Something of the peer came since the last time-out.
    heard: bool,
}

#[derive(Clone, Copy, Debug)]
struct Estimate {
    smoothed: Duration,
    variation: Duration,
    latest: Duration,
    /// Minimum of the current window and of the one before.
    minima: [Duration; 2],
    window_since: Instant,
}

impl Rtt {
    /// Takes a sample from a segment that was sent once (Karn's rule is the caller's).
    pub(super) fn sample(&mut self, now: Instant, rtt: Duration) {
        self.backoff = 0;
        let Some(estimate) = &mut self.estimate else {
            self.estimate = Some(Estimate {
                smoothed: rtt,
                variation: rtt / 2,
                latest: rtt,
                minima: [rtt, rtt],
                window_since: now,
            });
            return;
        };
        let deviation = estimate.smoothed.abs_diff(rtt);
        estimate.variation = (estimate.variation * 3 + deviation) / 4;
        estimate.smoothed = (estimate.smoothed * 7 + rtt) / 8;
        estimate.latest = rtt;
        if now.saturating_duration_since(estimate.window_since) > MIN_WINDOW {
            estimate.minima = [rtt, estimate.minima[0]];
            estimate.window_since = now;
        } else {
            estimate.minima[0] = estimate.minima[0].min(rtt);
        }
    }

    /// Smoothed round-trip time, once there is a sample.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|estimate| estimate.smoothed)
    }

    /// Mean deviation.
    pub(super) fn variation(&self) -> Duration {
        self.estimate.map_or(Duration::ZERO, |estimate| estimate.variation)
    }

    /// The least of the last 10 to 20 seconds.
    pub(super) fn minimum(&self) -> Option<Duration> {
        self.estimate.map(|estimate| estimate.minima[0].min(estimate.minima[1]))
    }

    /// The time-out for the next transmission, back-off included.
    pub(super) fn timeout(&self, cap: Duration) -> Duration {
        let backoff = if self.heard { self.backoff.min(HEARD_BACKOFF) } else { self.backoff };
        self.backed_off(backoff, cap)
    }

    /// The pause before a closed window is asked about again: a peer that answers each time is not to be asked more often.
    pub(super) fn persistence(&self, cap: Duration) -> Duration {
        self.backed_off(self.backoff, cap)
    }

    fn backed_off(&self, backoff: u32, cap: Duration) -> Duration {
        let base = self
            .estimate
            .map_or(INITIAL_RTO, |estimate| estimate.smoothed + (estimate.variation * 4).max(GRANULARITY));
        (base.max(MIN_RTO) * (1 << backoff)).min(cap)
    }

    /// A time-out passed.
    pub(super) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(MAX_BACKOFF);
        self.heard = false;
    }

    /// Something of the peer came, whatever it acknowledges.
    pub(super) fn heard(&mut self) {
        self.heard = true;
    }

    /// The peer acknowledged something: it is reachable.
    pub(super) fn reset_backoff(&mut self) {
        self.backoff = 0;
    }

    /// Time-outs in a row.
    pub(super) fn backoff(&self) -> u32 {
        self.backoff
    }

    /// The path is another one: old minima say nothing about it.
    pub(super) fn forget_minimum(&mut self) {
        if let Some(estimate) = &mut self.estimate {
            estimate.minima = [estimate.latest; 2];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const CAP: Duration = Duration::from_secs(5);

    #[test]
    fn the_timeout_follows_rfc_6298() {
        let now = start();
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(CAP), INITIAL_RTO);
        rtt.sample(now, Duration::from_millis(400));
        assert_eq!(rtt.timeout(CAP), Duration::from_millis(400 + 4 * 200));
        rtt.sample(now, Duration::from_millis(400));
        assert_eq!(rtt.timeout(CAP), Duration::from_millis(400 + 4 * 150));
        rtt.back_off();
        assert_eq!(rtt.timeout(CAP), Duration::from_millis(2000));
        rtt.back_off();
        rtt.back_off();
        assert_eq!(rtt.timeout(CAP), CAP);
        rtt.heard();
        assert_eq!(rtt.timeout(CAP), Duration::from_millis(2000), "once doubled, while the peer is heard");
        assert_eq!(rtt.persistence(CAP), CAP);
        assert_eq!(rtt.backoff(), 3);
    }

    #[test]
    fn an_old_minimum_is_forgotten() {
        let mut now = start();
        let mut rtt = Rtt::default();
        rtt.sample(now, Duration::from_millis(5));
        for _ in 0..30 {
            now += Duration::from_secs(1);
            rtt.sample(now, Duration::from_millis(50));
        }
        assert_eq!(rtt.minimum(), Some(Duration::from_millis(50)));
    }
}
