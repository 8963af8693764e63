//! Token buckets, and a bounded table of them by key.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// `burst` actions at once, then one for each `interval`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) interval: Duration,
}

/// How much of a [`Rate`] is used up, as the time at which it would all be free again (GCRA).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    free_at: Instant,
}

impl Bucket {
    pub(crate) fn full(now: Instant) -> Self {
        Self { free_at: now }
    }

    /// Takes one token, if there is one.
    pub(crate) fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let base = self.free_at.max(now);
        let next = base + rate.interval;
        if next > now + rate.interval * rate.burst {
            return false;
        }
        self.free_at = next;
        true
    }
}

/// A full table is not searched for keys that are free again more often than this: a flood of keys would pay for each of
/// its datagrams with our time.
const SEARCH_INTERVAL: Duration = Duration::from_millis(50);

/// One bucket for each key. When `max` keys are in use, those that are free again are dropped; if none is,
/// a newcomer shares one bucket with all other newcomers, so that a flood of keys limits only itself.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    max: usize,
    by_key: BTreeMap<K, Bucket>,
    others: Option<Bucket>,
    searched: Option<Instant>,
}

impl<K: Ord> Buckets<K> {
    pub(crate) fn new(rate: Rate, max: usize) -> Self {
        Self { rate, max, by_key: BTreeMap::new(), others: None, searched: None }
    }

    /// Keys that have a bucket of their own.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Takes one token of `key`.
    pub(crate) fn take(&mut self, now: Instant, key: K) -> bool {
        if self.by_key.len() >= self.max && !self.by_key.contains_key(&key) {
            if self.searched.is_none_or(|at| at + SEARCH_INTERVAL <= now) {
                self.searched = Some(now);
                self.by_key.retain(|_, bucket| bucket.free_at > now);
            }
            if self.by_key.len() >= self.max {
                return self.others.get_or_insert(Bucket::full(now)).take(now, self.rate);
            }
        }
        self.by_key.entry(key).or_insert(Bucket::full(now)).take(now, self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, interval: Duration::from_secs(1) };

    #[test]
    fn a_burst_passes_and_then_one_for_each_interval() {
        let now = crate::testing::start();
        let mut bucket = Bucket::full(now);
        assert_eq!((0..5).filter(|_| bucket.take(now, RATE)).count(), 3);
        assert!(!bucket.take(now + Duration::from_millis(999), RATE));
        assert!(bucket.take(now + Duration::from_millis(1000), RATE));
        assert_eq!((0..5).filter(|_| bucket.take(now + Duration::from_secs(60), RATE)).count(), 3);
    }

    #[test]
    fn a_full_table_is_searched_now_and_then_only() {
        let now = crate::testing::start();
        let mut buckets = Buckets::new(RATE, 2);
        assert!((0..3).all(|key| buckets.take(now, key)));
        let free = now + Duration::from_secs(1);
        buckets.searched = Some(free - SEARCH_INTERVAL / 2);
        assert!((3..5).all(|key| buckets.take(free, key)), "they share what newcomers have");
        assert_eq!(buckets.by_key.keys().copied().collect::<Vec<_>>(), [0, 1]);
        assert!(buckets.take(free + SEARCH_INTERVAL / 2, 5));
        assert_eq!(buckets.by_key.keys().copied().collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn a_flood_of_keys_limits_only_the_flood() {
        let now = crate::testing::start();
        let mut buckets = Buckets::new(RATE, 100);
        assert!(buckets.take(now, 0));
        assert_eq!((1..1000).filter(|&key| buckets.take(now, key)).count(), 99 + 3);
        assert!(buckets.take(now, 0), "a key that was there keeps its own bucket");
        assert_eq!(buckets.by_key.len(), 100);
        assert!(buckets.take(now + Duration::from_secs(5), 5000), "free buckets make room");
    }
}
