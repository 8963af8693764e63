//! A token bucket that says how long to wait instead of no.

use std::time::{Duration, Instant};

/// No wait is longer, whatever the rates say.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    per_min: f64,
    burst: f64,
}

impl Rate {
    /// So much a minute, and `minutes` of it at once. `per_min` is at least 1.
    #[expect(clippy::cast_precision_loss, reason = "a rate of 2^53 a minute is no limit")]
    pub(super) fn new(per_min: u64, minutes: u8) -> Self {
        let per_min = per_min.max(1) as f64;
        Self { per_min, burst: per_min * f64::from(minutes) }
    }
}

/// What is left of an allowance. More than there is may be taken at once; the debt is waited for afterwards, so that
/// something larger than the whole bucket can pass, too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bucket {
    /// `None` while nothing was ever taken: it is full, whatever the rate is.
    state: Option<(f64, Instant)>,
}

impl Bucket {
    pub(super) const fn full() -> Self {
        Self { state: None }
    }

    fn level(&self, now: Instant, rate: Rate) -> f64 {
        match self.state {
            None => rate.burst,
            Some((level, at)) => {
                let minutes = now.saturating_duration_since(at).as_secs_f64() / 60.0;
                (level + minutes * rate.per_min).min(rate.burst)
            }
        }
    }

    /// How long until something may be taken.
    pub(super) fn wait(&self, now: Instant, rate: Rate) -> Duration {
        let missing = 1.0 - self.level(now, rate);
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        // Rounded up: who waits so long must not find that it was a nanosecond short.
        let seconds = missing / rate.per_min * 60.0 + 1e-6;
        Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST)
    }

    /// Takes so much, even into debt.
    #[expect(clippy::cast_precision_loss, reason = "amounts are lengths of messages")]
    pub(super) fn take(&mut self, now: Instant, rate: Rate, amount: u64) {
        self.state = Some((self.level(now, rate) - amount as f64, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        Instant::now()
    }

    /// The times at which `count` takers get their turn who come all at once and wait as they are told.
    fn turns(bucket: &mut Bucket, rate: Rate, count: usize, amount: u64) -> Vec<Duration> {
        let start = start();
        let mut now = start;
        (0..count)
            .map(|_| {
                now += bucket.wait(now, rate);
                assert_eq!(bucket.wait(now, rate), Duration::ZERO, "a wait is long enough");
                bucket.take(now, rate, amount);
                now - start
            })
            .collect()
    }

    #[test]
    fn a_minutes_worth_passes_at_once_and_then_the_rate_holds() {
        let turns = turns(&mut Bucket::full(), Rate::new(60, 1), 120, 1);
        assert_eq!(turns[59], Duration::ZERO);
        for (at, turn) in turns.iter().enumerate().skip(60) {
            let due = (at - 59) as f64;
            assert!((turn.as_secs_f64() - due).abs() < 0.01, "{at}: {turn:?}");
        }
    }

    #[test]
    fn what_is_larger_than_the_bucket_passes_and_is_paid_for_afterwards() {
        let turns = turns(&mut Bucket::full(), Rate::new(1000, 1), 3, 3000);
        assert_eq!(turns[0], Duration::ZERO);
        for pair in turns.windows(2) {
            let pause = (pair[1] - pair[0]).as_secs_f64();
            assert!((119.0..=180.1).contains(&pause), "{pause}");
        }
    }

    #[test]
    fn a_bucket_that_rests_fills_up_and_no_further() {
        let (mut bucket, rate, now) = (Bucket::full(), Rate::new(60, 2), start());
        bucket.take(now, rate, 120);
        assert!(bucket.wait(now, rate) > Duration::ZERO);
        let later = now + Duration::from_secs(3600);
        bucket.take(later, rate, 119);
        assert_eq!(bucket.wait(later, rate), Duration::ZERO);
        bucket.take(later, rate, 1);
        assert!(bucket.wait(later, rate) > Duration::ZERO);
    }

    #[test]
    fn absurd_rates_and_amounts_are_borne() {
        let (mut bucket, now) = (Bucket::full(), start());
        bucket.take(now, Rate::new(1, 1), u64::MAX);
        assert_eq!(bucket.wait(now, Rate::new(1, 1)), LONGEST);
        assert_eq!(Bucket::full().wait(now, Rate::new(u64::MAX, 255)), Duration::ZERO);
        assert_eq!(bucket.wait(now, Rate::new(0, 1)), LONGEST);
    }
}
