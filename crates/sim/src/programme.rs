//! Many worlds over all processors, and what came of them in one table.

mod report;

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{Day, Detail, Journal, Mishap, Plan, World};

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Programme {
    /// Long worlds are run until there are so many simulated hours.
    pub hours: u64,
    /// The seed of the first one.
    pub seed: u64,
    /// Short worlds that are run for each of them.
    pub plans_per_day: u64,
    /// Threads that run worlds; as many as there are processors if nothing is said.
    pub jobs: Option<NonZero<usize>>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Long worlds.
    pub days: u64,
    /// Short ones, in which several things go wrong at once.
    pub plans: u64,
    /// What passed in all of them.
    pub simulated: Duration,
    /// What it took.
    pub took: Duration,
    /// Datagrams that nodes sent.
    pub datagrams: u64,
    /// Streams of the long worlds.
    pub streams: u64,
    /// Bytes that their applications read and found right.
    pub bytes: u64,
    /// The most datagrams in two minutes of rest, for each way from a node to another or to the beacon.
    pub noise: f64,
    /// How long no data flowed, by kind of trouble.
    pub recoveries: BTreeMap<&'static str, Times>,
    /// What went wrong in short worlds, by kind.
    pub mishaps: BTreeMap<&'static str, u64>,
    /// Recoveries that took longer than is allowed.
    pub late: Vec<Failure>,
    /// What must not happen and did.
    pub failures: Vec<Failure>,
}

/// Of so many recoveries one may be late: where three datagrams of ten are lost, some time all that count are.
const ONE_LATE_OF: usize = 200;

/// How long no data flowed after one kind of trouble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Each time, in order.
    pub took: Vec<Duration>,
    /// What is allowed on the worst line there was.
    pub limit: Duration,
}

/// A world in which something happened that must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The world.
    pub which: Which,
    /// What happened.
    pub what: String,
}

/// Names a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// A long one.
    Day(u64),
    /// A short one.
    Plan(u64),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(seed) => write!(f, "--day {seed}"),
            Self::Plan(seed) => write!(f, "--seed {seed}"),
        }
    }
}

impl Programme {
    /// Runs it.
    pub fn run(self) -> Report {
        let began = Instant::now();
        let days = self.hours.div_ceil(24);
        let jobs = self.jobs.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get);
        let (next, report) = (AtomicU64::new(0), Mutex::new(Report::default()));
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    loop {
                        let day = next.fetch_add(1, Ordering::Relaxed);
                        if day >= days {
                            break;
                        }
                        let part = self.part(day);
                        report.lock().unwrap_or_else(PoisonError::into_inner).add(part);
                    }
                });
            }
        });
        let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.took = began.elapsed();
        for times in report.recoveries.values_mut() {
            times.took.sort_unstable();
        }
        report.late.sort_by_key(|failure| failure.which);
        report.failures.sort_by_key(|failure| failure.which);
        report
    }

    /// One long world and the short ones that go with it.
    fn part(self, day: u64) -> Report {
        let mut report = Report::default();
        let seed = self.seed.wrapping_add(day);
        let (world, journal, result) = Day::random(seed).run(Detail::Watched);
        report.days += 1;
        report.lived(&world, Which::Day(seed), result.err());
        report.wrote(&journal);
        for index in 0..self.plans_per_day {
            let seed = self.seed.wrapping_add(day).wrapping_mul(self.plans_per_day).wrapping_add(index);
            let plan = Plan::random(seed);
            let (world, result) = plan.run(Detail::Watched);
            report.plans += 1;
            report.lived(&world, Which::Plan(seed), result.err());
            for (_, mishap) in &plan.mishaps {
                if let Some(name) = name(*mishap) {
                    *report.mishaps.entry(name).or_default() += 1;
                }
            }
        }
        report
    }
}

impl Report {
    /// Whether nothing happened that must not, and hardly anything took too long.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        let recoveries: usize = self.recoveries.values().map(|times| times.took.len()).sum();
        self.failures.is_empty() && self.late.len() * ONE_LATE_OF <= recoveries.max(ONE_LATE_OF)
    }

    fn lived(&mut self, world: &World, which: Which, fault: Option<crate::Fault>) {
        self.simulated += world.elapsed();
        self.datagrams += world.datagrams();
        let list = if matches!(fault, Some(crate::Fault::Slow { .. })) {
            &mut self.late
        } else {
            &mut self.failures
        };
        list.extend(fault.map(|fault| Failure { which, what: fault.to_string() }));
    }

    fn wrote(&mut self, journal: &Journal) {
        self.streams += journal.streams;
        self.bytes += journal.bytes;
        self.noise = self.noise.max(journal.noise);
        for recovery in &journal.recoveries {
            let times = self.recoveries.entry(recovery.trouble.name()).or_default();
            times.took.push(recovery.took);
            times.limit = times.limit.max(recovery.limit);
        }
    }

    fn add(&mut self, other: Self) {
        self.days += other.days;
        self.plans += other.plans;
        self.simulated += other.simulated;
        self.datagrams += other.datagrams;
        self.streams += other.streams;
        self.bytes += other.bytes;
        self.noise = self.noise.max(other.noise);
        for (name, times) in other.recoveries {
            let sum = self.recoveries.entry(name).or_default();
            sum.took.extend(times.took);
            sum.limit = sum.limit.max(times.limit);
        }
        for (name, count) in other.mishaps {
            *self.mishaps.entry(name).or_default() += count;
        }
        self.late.extend(other.late);
        self.failures.extend(other.failures);
    }
}

/// What a mishap of a short world is called; nothing for the end of one.
fn name(mishap: Mishap) -> Option<&'static str> {
    match mishap {
        Mishap::Cut(..) => Some("one way cut"),
        Mishap::BoxRestarts(_) => Some("NAT restarts"),
        Mishap::BoxRebinds(_) => Some("NAT rebinds"),
        Mishap::Moves(..) => Some("address changes"),
        Mishap::FallsAsleep(_) => Some("suspended"),
        Mishap::BeaconStops => Some("beacon restarts"),
        Mishap::NodeRestarts(_) => Some("node killed"),
        Mishap::RegistryGone => Some("registry away"),
        Mishap::Mended(..) | Mishap::WakesUp(_) | Mishap::BeaconStarts | Mishap::RegistryBack => None,
    }
}
