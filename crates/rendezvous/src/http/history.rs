//! How things went: points for the charts, in memory, of a fixed number. They begin anew with the process.

use super::Sources;
use pilot_metrics::Histogram;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What a point tells. What is counted at a moment comes first, then what happens per second, and milliseconds.
pub(super) const SERIES: [&str; 16] = [
    "online",
    "nodes",
    "trust_links",
    "networks",
    "connections",
    "total_requests",
    "heartbeats",
    "searches",
    "registrations",
    "polls",
    "changes",
    "errors",
    "relay_bits",
    "relay_frames",
    "commits",
    "commit_ms",
];
/// Series whose last value stands for a span; the others have a mean.
const MOMENTARY: usize = 6;

type Values = [f64; SERIES.len()];

/// A point in time, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Seconds since 1970.
    pub(super) at: u64,
    pub(super) values: Values,
}

/// How far back a chart looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Hour,
    Day,
    Month,
    /// A point each day.
    Days,
}

/// Points of all spans.
#[derive(Debug)]
pub(super) struct History {
    before: Option<Sample>,
    hour: Ring,
    day: Ring,
    month: Ring,
    days: Ring,
}

/// Counters at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    at: Instant,
    now: [f64; MOMENTARY],
    /// In the order of [`SERIES`], and at the end the number of commits and the seconds that they took.
    counters: [f64; SERIES.len() - MOMENTARY],
}

impl Sample {
    #[expect(clippy::cast_precision_loss, reason = "charts are no more exact")]
    pub(super) fn take(sources: &Sources, at: Instant) -> Self {
        let overview = sources.registry.borrow().overview.clone();
        let beacon = sources.beacon.borrow().stats;
        let meters = &sources.meters;
        let (requests, errors) = meters.totals();
        let now = [
            overview.online,
            overview.nodes,
            usize::try_from(overview.trust_links).unwrap_or(usize::MAX),
            overview.networks,
            overview.connections,
            usize::try_from(requests).unwrap_or(usize::MAX),
        ];
        let mut groups = [0; 5];
        for requests in meters.requests() {
            groups[group(requests.kind.name())] += requests.time.count();
        }
        let [heartbeats, searches, registrations, polls, changes] = groups.map(|count: u64| count as f64);
        let commits = &meters.commit_time;
        let counters = [
            heartbeats,
            searches,
            registrations,
            polls,
            changes,
            errors as f64,
            beacon.relayed_bytes as f64 * 8.0,
            beacon.relayed as f64,
            commits.count() as f64,
            commits.sum() * 1000.0,
        ];
        Self { at, now: now.map(|number| number as f64), counters }
    }

    fn since(&self, before: &Self) -> Values {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
        let mut values = [0.0; SERIES.len()];
        let (now, rates) = values.split_at_mut(MOMENTARY);
        now.copy_from_slice(&self.now);
        let deltas = self.counters.iter().zip(&before.counters).map(|(after, before)| after - before);
        for (rate, delta) in rates.iter_mut().zip(deltas) {
            *rate = delta / seconds;
        }
        // What all commits of a second took, by how many there were.
        if let [.., commits, time] = rates
            && *commits > 0.0
        {
            *time /= *commits;
        }
        values
    }
}

/// To which of the five series from `heartbeats` on a kind of request belongs.
fn group(kind: &str) -> usize {
    match kind {
        "heartbeat" => 0,
        "lookup" | "resolve" | "resolve_hostname" | "punch" | "check_trust" => 1,
        "register" | "deregister" => 2,
        "poll_handshakes" | "poll_invites" | "await_notices" => 3,
        kind if kind.starts_with("list_") || kind.starts_with("get_") || kind == "beacon_list" => 1,
        _ => 4,
    }
}

impl History {
    pub(super) fn new(step: Duration) -> Self {
        let step = step.as_secs().max(1);
        Self {
            before: None,
            hour: Ring::new(step, 360),
            day: Ring::new(300, 288),
            month: Ring::new(3600, 744),
            days: Ring::new(86_400, 366),
        }
    }

    /// A sample that was taken at this time, in seconds since 1970.
    pub(super) fn add(&mut self, unix: u64, sample: Sample) {
        if let Some(before) = self.before.replace(sample) {
            let point = Point { at: unix, values: sample.since(&before) };
            for ring in [&mut self.hour, &mut self.day, &mut self.month, &mut self.days] {
                ring.add(point);
            }
        }
    }

    /// Points from old to new, and the seconds between them.
    pub(super) fn points(&self, span: Span) -> (u64, impl Iterator<Item = Point>) {
        let ring = match span {
            Span::Hour => &self.hour,
            Span::Day => &self.day,
            Span::Month => &self.month,
            Span::Days => &self.days,
        };
        (ring.step, ring.points.iter().copied().chain(ring.open.map(|open| open.mean())))
    }

    /// The newest.
    pub(super) fn latest(&self) -> Option<Point> {
        self.points(Span::Hour).1.last()
    }
}

#[derive(Debug)]
struct Ring {
    step: u64,
    max: usize,
    points: VecDeque<Point>,
    /// The span that is not over yet.
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    slot: u64,
    at: u64,
    count: f64,
    sums: Values,
}

impl Open {
    fn mean(self) -> Point {
        let mut values = self.sums;
        for value in &mut values[MOMENTARY..] {
            *value /= self.count;
        }
        Point { at: self.at, values }
    }
}

impl Ring {
    fn new(step: u64, max: usize) -> Self {
        Self { step, max, points: VecDeque::new(), open: None }
    }

    fn add(&mut self, point: Point) {
        let slot = point.at / self.step;
        match &mut self.open {
            Some(open) if open.slot == slot => {
                open.at = point.at;
                open.count += 1.0;
                let (now, rates) = open.sums.split_at_mut(MOMENTARY);
                now.copy_from_slice(&point.values[..MOMENTARY]);
                for (sum, value) in rates.iter_mut().zip(&point.values[MOMENTARY..]) {
                    *sum += value;
                }
            }
            open => {
                let over = open.replace(Open { slot, at: point.at, count: 1.0, sums: point.values });
                if let Some(over) = over {
                    if self.points.len() + 1 >= self.max {
                        self.points.pop_front();
                    }
                    self.points.push_back(over.mean());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(start: Instant, second: u64, online: f64, heartbeats: f64) -> Sample {
        let mut counters = [0.0; SERIES.len() - MOMENTARY];
        counters[0] = heartbeats;
        let mut now = [0.0; MOMENTARY];
        now[0] = online;
        Sample { at: start + Duration::from_secs(second), now, counters }
    }

    #[test]
    fn a_longer_span_has_the_last_of_what_is_counted_and_the_mean_of_what_happens() {
        let (start, mut history) = (Instant::now(), History::new(Duration::from_secs(10)));
        for (second, online, heartbeats) in [(0, 1.0, 0.0), (10, 2.0, 100.0), (20, 3.0, 400.0)] {
            history.add(3_000_000 + second, sample(start, second, online, heartbeats));
        }
        let hour: Vec<_> = history.points(Span::Hour).1.collect();
        assert_eq!(hour.iter().map(|point| point.values[6]).collect::<Vec<_>>(), [10.0, 30.0]);
        let (step, day) = history.points(Span::Day);
        let day: Vec<_> = day.collect();
        assert_eq!((step, day.len()), (300, 1));
        assert_eq!((day[0].values[0], day[0].values[6]), (3.0, 20.0));
    }

    #[test]
    fn the_number_of_points_is_bounded() {
        let (start, mut history) = (Instant::now(), History::new(Duration::from_secs(10)));
        for step in 0..1000 {
            history.add(10 * step, sample(start, 10 * step, 0.0, 0.0));
        }
        let hour: Vec<_> = history.points(Span::Hour).1.collect();
        assert_eq!((hour.len(), hour.last().map(|point| point.at)), (360, Some(9990)));
        assert_eq!(history.points(Span::Day).1.count(), 34);
    }
}
