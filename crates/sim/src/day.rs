//! A day in the life of a few nodes: hours in which little happens, and in between everything that can go wrong, one thing
//! after the other. After each it is measured how long no data flowed.
//!
//! The short worlds of [`Plan`](crate::Plan) let several things go wrong at once; here each has time to be over, so that it
//! is known what a delay comes from.

mod live;
mod trouble;

use std::time::Duration;

use pilot_proto::{KeyAgreement, Visibility};
use pilot_wire::Seq;
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub use live::{Journal, Recovery};
pub use trouble::Trouble;

use crate::{Conditions, Detail, Home, Host, Memory, Nat, World, plan::net_of};

/// How long a day is.
const DAY: Duration = Duration::from_secs(24 * 3600);

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Between two troubles. Long enough for streams to be forgotten and for silence.
const REST: std::ops::Range<u64> = 8 * 60..40 * 60;

/// Ports that a node has used up in some worlds, so that the next dials wrap around.
const PORTS_USED: u16 = 16_380;

/// Two days: as far as a clock may be wrong.
const CLOCK_OFF: i64 = 48 * 3600;

/// What a day consists of.
#[derive(Clone, Debug)]
pub struct Day {
    /// The number that everything follows from.
    pub seed: u64,
    /// Settings of each node.
    pub nodes: Vec<Dweller>,
    /// Whether they may talk to everybody. Otherwise they have agreed to talk to each other.
    pub public: bool,
    /// What all links are like while nothing is wrong.
    pub conditions: Conditions,
    /// Whether there is a beacon.
    pub beacon: bool,
    /// What goes wrong, after how long a rest, for whom, and with whom it talks.
    pub troubles: Vec<Episode>,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Episode {
    /// How long nothing happens before.
    pub rest: Duration,
    /// To whom it happens.
    pub who: Host,
    /// With whom that one talks.
    pub peer: Host,
    /// Who opens the stream, and speaks first afterwards.
    pub who_dials: bool,
    /// What happens.
    pub trouble: Trouble,
}

/// Settings of one node.
#[derive(Clone, Copy, Debug)]
pub struct Dweller {
    /// It behaves as release 1.18 on its streams.
    pub legacy: bool,
    /// How it agrees on keys.
    pub agreement: KeyAgreement,
    /// Bytes that it keeps for each direction of a stream.
    pub buffers: usize,
    /// Where it is at first.
    pub home: Home,
    /// It has an IPv6 address too.
    pub v6: bool,
    /// Where the sequence numbers of its streams begin, if not anywhere.
    pub first_sequence: Option<u32>,
    /// It has used up almost all of its ports.
    pub few_ports: bool,
    /// By how much its clock is wrong.
    pub clock_off: i64,
}

impl Day {
    /// The day of this seed.
    pub fn random(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let beacon = chance.random_bool(0.75);
        let count = chance.random_range(2..=4);
        let nodes = (0..count).map(|index| random_dweller(&mut chance, index, beacon)).collect();
        let public = chance.random_bool(0.5);
        let conditions = random_conditions(&mut chance);
        let mut troubles = Vec::new();
        let mut lasts = Duration::ZERO;
        while lasts < DAY {
            let rest = Duration::from_secs(chance.random_range(REST));
            let index = chance.random_range(0..count);
            let trouble = trouble::random(&mut chance, beacon, public);
            troubles.push(Episode {
                rest,
                who: Host(index),
                peer: Host((index + chance.random_range(1..count)) % count),
                who_dials: chance.random(),
                trouble,
            });
            lasts += rest + trouble.lasts();
        }
        Self { seed, nodes, public, conditions, beacon, troubles }
    }

    /// Builds the world, without running it.
    pub fn build(&self, detail: Detail) -> World {
        let mut world = World::new(self.seed, detail);
        world.set_conditions(self.conditions);
        if self.beacon {
            world.add_beacon();
        }
        let visibility = if self.public { Visibility::Public } else { Visibility::Private };
        for (index, node) in self.nodes.iter().copied().enumerate() {
            let host = world.node_with(&format!("n{index}"), visibility, move |config| {
                config.agreement = node.agreement;
                config.streams.options = !node.legacy;
                config.streams.send_buffer = node.buffers;
                config.streams.receive_buffer = node.buffers;
                config.streams.first_sequence = node.first_sequence.map(Seq);
            });
            if node.home != Home::Public {
                let net = net_of(&mut world, node.home);
                world.place(host, net);
            }
            if node.v6 {
                world.give_v6(host);
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if node.clock_off != 0 {
                world.step_clock(Host(index), node.clock_off);
            }
            if node.few_ports {
                world.use_up_ports(Host(index), PORTS_USED);
            }
        }
        world
    }
}

fn random_dweller(chance: &mut StdRng, index: usize, beacon: bool) -> Dweller {
    let shown = chance.random_bool(0.15);
    Dweller {
        legacy: chance.random_bool(0.2),
        agreement: if shown { KeyAgreement::AsShown } else { KeyAgreement::OfTheMoment },
        buffers: [64 << 10, 256 << 10, 1 << 20][chance.random_range(0..3)],
        home: random_home(chance, index, beacon),
        v6: beacon && chance.random_bool(0.15),
        first_sequence: chance.random_bool(0.4).then(|| u32::MAX - chance.random_range(0..20_000)),
        few_ports: chance.random_bool(0.1),
        clock_off: if chance.random_bool(0.3) { chance.random_range(-CLOCK_OFF..=CLOCK_OFF) } else { 0 },
    }
}

/// Anywhere but behind a firewall, where the daemon's web connection decides how long everything takes.
fn random_home(chance: &mut StdRng, index: usize, beacon: bool) -> Home {
    if !beacon {
        return Home::Public;
    }
    match chance.random_range(0..10) {
        0..3 => Home::Public,
        3..8 => Home::Behind(random_nat(chance)),
        8 => Home::BehindCarrier(random_nat(chance), Nat::CARRIER),
        _ if index > 0 => Home::With(Host(chance.random_range(0..index))),
        _ => Home::Behind(Nat::HOME),
    }
}

fn random_nat(chance: &mut StdRng) -> Nat {
    let kinds = [Nat::FULL_CONE, Nat::ADDRESS_RESTRICTED, Nat::PORT_RESTRICTED, Nat::SYMMETRIC, Nat::HOME];
    kinds[chance.random_range(0..kinds.len())].hairpinning(chance.random())
}

/// A line as most are: what comes on top is a trouble of its own.
fn random_conditions(chance: &mut StdRng) -> Conditions {
    let delay = Duration::from_millis(chance.random_range(1..80));
    let jitter = Duration::from_millis(chance.random_range(0..10));
    let mut sometimes = |probability, most: f64| {
        if chance.random_bool(probability) { chance.random_range(0.0..=most) } else { 0.0 }
    };
    let loss = sometimes(0.4, 0.02);
    let duplicate = sometimes(0.2, 0.05);
    let reorder = sometimes(0.2, 0.1);
    let corrupt = sometimes(0.2, 0.005);
    let bandwidth = chance.random_bool(0.3).then(|| chance.random_range(100_000..2_000_000));
    Conditions {
        delay,
        jitter,
        loss,
        duplicate,
        reorder,
        held_back: Duration::from_millis(chance.random_range(0..100)),
        corrupt,
        bandwidth,
        queue: 0,
        mtu: [1272, 1372, 1472, 1472, 8972][chance.random_range(0..5)],
    }
    .queue_of_one_round_trip(40)
}
