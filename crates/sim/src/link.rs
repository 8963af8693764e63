//! One direction between two hosts: what happens to a datagram on the way.

use std::time::{Duration, Instant};

use rand::{RngExt, rngs::StdRng};

/// How a link behaves. Probabilities are from 0 to 1 and are drawn for each datagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Time from one end to the other.
    pub delay: Duration,
    /// Up to this much is added at random. Datagrams do not overtake each other because of it, as in a queue.
    pub jitter: Duration,
    /// Share of datagrams that vanish.
    pub loss: f64,
    /// Share of datagrams that arrive twice, the copy up to [`held_back`](Self::held_back) later.
    pub duplicate: f64,
    /// Share of datagrams that are held back and so overtaken by later ones.
    pub reorder: f64,
    /// The longest time that one is held back.
    pub held_back: Duration,
    /// Share of datagrams that arrive with one bit flipped.
    pub corrupt: f64,
    /// Bytes per second, or as fast as one likes.
    pub bandwidth: Option<u64>,
    /// Bytes that wait in front of a limited link before datagrams are dropped.
    pub queue: u64,
    /// The largest datagram that passes whole. Others are cut into fragments, each with its own luck, or do not pass if
    /// that is forbidden.
    pub mtu: usize,
}

impl Conditions {
    /// Nothing ever goes wrong, and 5 ms pass.
    pub const PERFECT: Self = Self {
        delay: Duration::from_millis(5),
        jitter: Duration::ZERO,
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        held_back: Duration::ZERO,
        corrupt: 0.0,
        bandwidth: None,
        queue: 0,
        mtu: 1472,
    };

    /// Nothing passes.
    pub const CUT: Self = Self { loss: 1.0, ..Self::PERFECT };

    /// The bytes that are under way on a link with this bandwidth and its return path, at least `datagrams` full ones.
    pub fn queue_of_one_round_trip(self, datagrams: u64) -> Self {
        let round_trip = 2 * u64::try_from(self.delay.as_micros()).unwrap_or(u64::MAX);
        let product = self.bandwidth.unwrap_or(0).saturating_mul(round_trip) / 1_000_000;
        Self { queue: product.max(datagrams * 1500), ..self }
    }
}

/// Why a datagram did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// By chance.
    Chance,
    /// The queue in front of the link was full.
    QueueFull,
    /// It is larger than the link carries, and must not be cut.
    TooLarge,
}

/// One copy of a datagram on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it is there.
    pub at: Instant,
    /// The bit that is flipped on the way.
    pub flipped_bit: Option<usize>,
}

/// A direction with its state.
#[derive(Clone, Debug)]
pub struct Link {
    conditions: Conditions,
    /// When the last bit of what waits has left.
    free_at: Option<Instant>,
    last_arrival: Option<Instant>,
}

impl Link {
    /// An idle link.
    pub fn new(conditions: Conditions) -> Self {
        Self { conditions, free_at: None, last_arrival: None }
    }

    /// What it is like from now on. What is under way arrives as it would have.
    pub fn set(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// What it is like.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Puts a datagram of `len` bytes on the link that must not be cut. It arrives once, or twice, or not at all.
    pub fn send(
        &mut self,
        now: Instant,
        len: usize,
        chance: &mut StdRng,
    ) -> Result<(Arrival, Option<Arrival>), Loss> {
        self.carry(now, len, false, chance)
    }

    /// The same with one that may be cut into fragments.
    pub fn carry(
        &mut self,
        now: Instant,
        len: usize,
        may_fragment: bool,
        chance: &mut StdRng,
    ) -> Result<(Arrival, Option<Arrival>), Loss> {
        let conditions = self.conditions;
        let fragments = len.div_ceil(conditions.mtu).max(1);
        if fragments > 1 && !may_fragment {
            return Err(Loss::TooLarge);
        }
        let left = self.leave(now, len)?;
        if (0..fragments).any(|_| happens(conditions.loss, chance)) {
            return Err(Loss::Chance);
        }
        let mut at = left + conditions.delay + upto(conditions.jitter, chance);
        at = self.last_arrival.map_or(at, |last| at.max(last));
        if happens(conditions.reorder, chance) {
            at += upto(conditions.held_back, chance);
        } else {
            self.last_arrival = Some(at);
        }
        let first = self.arrival(at, len, chance);
        let copy = happens(conditions.duplicate, chance).then(|| {
            let later = at + upto(conditions.held_back, chance);
            self.arrival(later, len, chance)
        });
        Ok((first, copy))
    }

    /// How long a datagram waits that comes now.
    pub fn queue_delay(&self, now: Instant) -> Duration {
        self.free_at.map_or(Duration::ZERO, |free_at| free_at.saturating_duration_since(now))
    }

    /// When the last byte is on the link, behind everything that waits already.
    fn leave(&mut self, now: Instant, len: usize) -> Result<Instant, Loss> {
        let Some(bandwidth) = self.conditions.bandwidth else { return Ok(now) };
        let start = self.free_at.map_or(now, |free_at| free_at.max(now));
        let waiting = bytes_in(start.duration_since(now), bandwidth);
        if waiting > self.conditions.queue {
            return Err(Loss::QueueFull);
        }
        let left = start + Duration::from_nanos(len as u64 * 1_000_000_000 / bandwidth);
        self.free_at = Some(left);
        Ok(left)
    }

    fn arrival(&self, at: Instant, len: usize, chance: &mut StdRng) -> Arrival {
        let flipped = len > 0 && happens(self.conditions.corrupt, chance);
        Arrival { at, flipped_bit: flipped.then(|| chance.random_range(0..len * 8)) }
    }
}

fn bytes_in(time: Duration, bandwidth: u64) -> u64 {
    u64::try_from(time.as_nanos() * u128::from(bandwidth) / 1_000_000_000).unwrap_or(u64::MAX)
}

fn happens(probability: f64, chance: &mut StdRng) -> bool {
    probability > 0.0 && chance.random_bool(probability.min(1.0))
}

fn upto(most: Duration, chance: &mut StdRng) -> Duration {
    if most.is_zero() { most } else { chance.random_range(Duration::ZERO..=most) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn arrivals(conditions: Conditions, count: u32) -> Vec<Result<(Arrival, Option<Arrival>), Loss>> {
        let mut chance = StdRng::seed_from_u64(1);
        let mut link = Link::new(conditions);
        let start = Instant::now();
        (0..count).map(|i| link.send(start + Duration::from_millis(1) * i, 1000, &mut chance)).collect()
    }

    #[test]
    fn a_perfect_link_only_delays() {
        for (before, after) in arrivals(Conditions::PERFECT, 100).windows(2).map(|pair| (pair[0], pair[1])) {
            let ((before, None), (after, None)) = (before.unwrap(), after.unwrap()) else { panic!("a copy") };
            assert_eq!(after.at - before.at, Duration::from_millis(1));
            assert_eq!(after.flipped_bit, None);
        }
    }

    #[test]
    fn faults_come_about_as_often_as_asked_for() {
        let faulty = Conditions { loss: 0.2, duplicate: 0.1, corrupt: 0.05, ..Conditions::PERFECT };
        let arrived: Vec<_> = arrivals(faulty, 10_000).into_iter().flatten().collect();
        let copies = arrived.iter().filter(|(_, copy)| copy.is_some()).count();
        let corrupt = arrived.iter().filter(|(first, _)| first.flipped_bit.is_some()).count();
        assert!((7800..8200).contains(&arrived.len()), "{} arrived", arrived.len());
        assert!((700..900).contains(&copies), "{copies} copies");
        assert!((340..460).contains(&corrupt), "{corrupt} corrupt");
    }

    #[test]
    fn what_is_too_large_passes_only_in_fragments_and_those_get_lost_one_by_one() {
        let mut chance = StdRng::seed_from_u64(2);
        let mut link = Link::new(Conditions { loss: 0.1, mtu: 1000, ..Conditions::PERFECT });
        let mut lost = |len, may_fragment| {
            let fates = (0..1000).map(|_| link.carry(Instant::now(), len, may_fragment, &mut chance));
            fates.filter(Result::is_err).count()
        };
        assert!((70..130).contains(&lost(1000, false)));
        assert_eq!(lost(1001, false), 1000);
        assert!((350..460).contains(&lost(5000, true)));
    }

    #[test]
    fn jitter_alone_keeps_the_order_and_reordering_does_not() {
        let in_order = |conditions| {
            let at: Vec<_> =
                arrivals(conditions, 1000).into_iter().flatten().map(|(first, _)| first.at).collect();
            at.is_sorted()
        };
        let jitter = Conditions { jitter: Duration::from_millis(50), ..Conditions::PERFECT };
        assert!(in_order(jitter));
        assert!(!in_order(Conditions { reorder: 0.1, held_back: Duration::from_millis(50), ..jitter }));
    }

    #[test]
    fn a_narrow_link_delays_by_its_queue_and_drops_above_it() {
        // 1000 bytes per millisecond come, 500 leave: after 20 ms of queue, every other datagram has no room.
        let narrow = Conditions { bandwidth: Some(500_000), queue: 10_000, ..Conditions::PERFECT };
        let fates = arrivals(narrow, 1000);
        let dropped = fates.iter().filter(|fate| **fate == Err(Loss::QueueFull)).count();
        assert!((450..500).contains(&dropped), "{dropped} dropped");
        assert!(arrivals(narrow, 10).iter().all(Result::is_ok));
    }
}
