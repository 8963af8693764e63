//! Counters that the tasks of a rendezvous share. They are only ever added to, so nothing waits for them.

use pilot_metrics::Histogram;
use pilot_wire::registry::{Kind, Response};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Counts from 0 upwards.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of how long something took, in seconds, as in the reference's metrics.
pub(crate) const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
/// Upper bounds of how much was in a batch.
pub(crate) const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// How often something was how large.
#[derive(Debug)]
pub(crate) struct Distribution {
    bounds: &'static [f64],
    /// One more than there are bounds.
    counts: Vec<Count>,
    /// In millionths.
    sum: Count,
}

impl Distribution {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| Count::default()).collect();
        Self { bounds, counts, sum: Count::default() }
    }

    pub(crate) fn took(&self, time: Duration) {
        self.add(time.as_secs_f64(), u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn held(&self, number: usize) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.add(f64::from(number), u64::from(number) * 1_000_000);
    }

    fn add(&self, value: f64, millionths: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.add(1);
        }
        self.sum.add(millionths);
    }
}

impl Histogram for Distribution {
    fn count(&self) -> u64 {
        self.counts.iter().map(Count::get).sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "a sum of measurements is no more exact")]
    fn sum(&self) -> f64 {
        self.sum.get() as f64 / 1e6
    }

    fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().map(Count::get)).collect()
    }
}

/// Requests of one kind.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) kind: Kind,
    pub(crate) errors: Count,
    /// From when the request was read until its reply was there, with what it waited for the disk.
    pub(crate) time: Distribution,
}

/// Why a connection to the registry is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client closed it, or it broke.
    Closed,
    /// The client was silent for too long.
    Idle,
    /// The client did not read.
    Stuck,
    /// The client did not manage TLS, or had none where it is demanded.
    Unprotected,
    /// What the client sent was no request.
    Unreadable,
    /// Another one needed its place, or the rendezvous ends.
    Dropped,
}

impl Ended {
    /// All there are.
    pub(crate) const ALL: [(Self, &'static str); 6] = [
        (Self::Closed, "closed"),
        (Self::Idle, "idle"),
        (Self::Stuck, "stuck"),
        (Self::Unprotected, "unprotected"),
        (Self::Unreadable, "unreadable"),
        (Self::Dropped, "dropped"),
    ];
}

/// All counters.
#[derive(Debug)]
pub(crate) struct Meters {
    requests: Vec<Requests>,
    /// Requests of a kind that is not known, or that make no sense.
    pub(crate) unreadable: Count,
    /// Times a connection was read more slowly because it asked too much.
    pub(crate) throttled: Count,
    pub(crate) accepted: Count,
    /// Of these, those that speak TLS, and those that were let in without.
    pub(crate) protected: Count,
    pub(crate) plain: Count,
    /// Connections closed at once, of which there were too many from one address.
    pub(crate) turned_away: Count,
    ended: [Count; Ended::ALL.len()],
    /// Of the store, synced.
    pub(crate) commit_time: Distribution,
    /// Records written at once.
    pub(crate) commit_size: Distribution,
    /// Times it could not be read or written.
    pub(crate) store_failures: Count,
}

impl Meters {
    pub(crate) fn new() -> Self {
        let requests = Kind::all().map(|kind| Requests {
            kind,
            errors: Count::default(),
            time: Distribution::new(SECONDS),
        });
        Self {
            requests: requests.collect(),
            unreadable: Count::default(),
            throttled: Count::default(),
            accepted: Count::default(),
            protected: Count::default(),
            plain: Count::default(),
            turned_away: Count::default(),
            ended: std::array::from_fn(|_| Count::default()),
            commit_time: Distribution::new(SECONDS),
            commit_size: Distribution::new(SIZES),
            store_failures: Count::default(),
        }
    }

    pub(crate) fn answered(&self, kind: Kind, took: Duration, response: &Response) {
        let Some(requests) = self.requests.get(kind.index()) else { return };
        requests.time.took(took);
        if matches!(response, Response::Error { .. }) {
            requests.errors.add(1);
        }
    }

    pub(crate) fn committed(&self, took: Duration, records: usize) {
        self.commit_time.took(took);
        self.commit_size.held(records);
    }

    pub(crate) fn ended(&self, how: Ended) {
        if let Some(place) = Ended::ALL.iter().position(|(ended, _)| *ended == how) {
            self.ended[place].add(1);
        }
    }

    pub(crate) fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Ended::ALL.iter().zip(&self.ended).map(|((_, name), count)| (*name, count.get()))
    }

    pub(crate) fn requests(&self) -> &[Requests] {
        &self.requests
    }

    /// Requests of this `type` that were granted.
    pub(crate) fn granted(&self, name: &str) -> u64 {
        let of_kind = self.requests.iter().find(|requests| requests.kind.name() == name);
        of_kind.map_or(0, |requests| requests.time.count().saturating_sub(requests.errors.get()))
    }

    /// All requests that were answered, and how many of them with an error.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let count = |(all, errors): (u64, u64), requests: &Requests| {
            (all + requests.time.count(), errors + requests.errors.get())
        };
        self.requests.iter().fold((0, 0), count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_first_bucket_that_holds_it() {
        let times = Distribution::new(SECONDS);
        times.took(Duration::from_micros(100));
        times.took(Duration::from_micros(101));
        times.took(Duration::from_secs(5));
        let buckets = times.buckets();
        assert_eq!(buckets[0], (0.0001, 1));
        assert_eq!(buckets[1], (0.00025, 1));
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, 1)));
        assert_eq!(times.count(), 3);
        assert!((times.sum() - 5.000_201).abs() < 1e-9);
    }

    #[test]
    fn what_is_granted_is_what_was_answered_without_an_error() {
        let meters = Meters::new();
        let kind = Kind::named("heartbeat").unwrap();
        meters.answered(kind, Duration::ZERO, &Response::Heartbeat { time: 0, key_expiry_warning: None });
        meters.answered(kind, Duration::ZERO, &Response::error("no"));
        assert_eq!((meters.granted("heartbeat"), meters.totals()), (1, (2, 1)));
    }
}
