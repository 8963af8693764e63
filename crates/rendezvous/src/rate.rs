//! Token buckets.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How much of something is allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// At once, after a pause.
    pub burst: u32,
    /// In the long run.
    pub per_second: f64,
}

/// What is left of a [`Rate`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: f64::from(rate.burst), at: now }
    }

    /// Takes one token, or says how long until there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.refill(rate, now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(((1.0 - self.tokens) / rate.per_second.max(1e-6)).min(3600.0)))
    }

    /// Takes as many tokens as something costs, which may be more than there are, if there is any. Or says how long until
    /// there is one.
    pub(crate) fn spend(&mut self, rate: Rate, now: Instant, cost: u32) -> Result<(), Duration> {
        self.take(rate, now)?;
        self.tokens -= f64::from(cost) - 1.0;
        Ok(())
    }

    /// Tokens left.
    pub(crate) fn left(&mut self, rate: Rate, now: Instant) -> f64 {
        self.refill(rate, now);
        self.tokens
    }

    fn refill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate.per_second).min(f64::from(rate.burst));
        self.at = now;
    }

    fn is_full(&mut self, rate: Rate, now: Instant) -> bool {
        self.refill(rate, now);
        self.tokens >= f64::from(rate.burst)
    }
}

/// Buckets by key.
#[derive(Debug)]
pub(crate) struct Limiter<K> {
    rate: Rate,
    buckets: BTreeMap<K, Bucket>,
}

/// Most buckets of a limiter. When it is reached, those that are full again are forgotten, which changes nothing for
/// their keys; if none is, all are, which errs on the side of service.
const BUCKETS_MAX: usize = 16_384;

impl<K: Ord> Limiter<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, buckets: BTreeMap::new() }
    }

    pub(crate) fn take(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        let rate = self.rate;
        if self.buckets.len() >= BUCKETS_MAX && !self.buckets.contains_key(&key) {
            self.buckets.retain(|_, bucket| !bucket.is_full(rate, now));
            if self.buckets.len() >= BUCKETS_MAX {
                self.buckets.clear();
            }
        }
        self.buckets.entry(key).or_insert_with(|| Bucket::full(rate, now)).take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate { burst: 3, per_second: 2.0 };
        let start = Instant::now();
        let mut limiter = Limiter::new(rate);
        for _ in 0..3 {
            assert_eq!(limiter.take("a", start), Ok(()));
        }
        assert_eq!(limiter.take("a", start), Err(Duration::from_millis(500)));
        assert_eq!(limiter.take("b", start), Ok(()));
        assert_eq!(limiter.take("a", start + Duration::from_millis(500)), Ok(()));
        assert!(limiter.take("a", start + Duration::from_millis(500)).is_err());
    }

    #[test]
    fn the_table_stays_bounded() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Rate { burst: 2, per_second: 0.1 });
        for key in 0..3 * BUCKETS_MAX {
            assert_eq!(limiter.take(key, start), Ok(()));
            assert!(limiter.buckets.len() <= BUCKETS_MAX);
        }
    }
}
