//! Deadlines by key: the earliest of all in O(1), a change in O(log n).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// A set of deadlines, at most one for each key.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    by_key: BTreeMap<K, Instant>,
    by_time: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }

    /// Sets, moves or (with `None`) removes the deadline of `key`.
    pub(crate) fn set(&mut self, key: K, at: Option<Instant>) {
        let old = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.by_time.remove(&(old, key));
        }
        if let Some(at) = at {
            self.by_time.insert((at, key));
        }
    }

    /// The deadline of `key`.
    pub(crate) fn get(&self, key: K) -> Option<Instant> {
        self.by_key.get(&key).copied()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// Removes and returns a key whose deadline is not after `now`.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.by_time.first().filter(|&&(at, _)| at <= now)?;
        self.by_time.remove(&(at, key));
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn keys_expire_in_order_of_their_latest_deadline() {
        let start = crate::testing::start();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::new();
        timers.set('a', Some(at(30)));
        timers.set('b', Some(at(10)));
        timers.set('c', Some(at(20)));
        timers.set('b', Some(at(40)));
        timers.set('c', None);
        assert_eq!(timers.next(), Some(at(30)));
        assert_eq!(timers.expire(at(29)), None);
        assert_eq!(timers.expire(at(50)), Some('a'));
        assert_eq!(timers.expire(at(50)), Some('b'));
        assert_eq!(timers.expire(at(50)), None);
        assert_eq!(timers.next(), None);
    }
}
