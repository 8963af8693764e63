//! A random world from a seed: who is there, what the network is like, who sends how much to whom.

use std::time::Duration;

use pilot_proto::Visibility;
use pilot_wire::Port;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{Conditions, Content, Detail, Fault, Finishes, Host, Pace, Role, Script, Transfer, World};

/// The first port of the transfers of a plan.
const FIRST_PORT: u16 = 2000;

/// By then every transfer of a plan has ended. Thirty per cent of loss with back-off up to some seconds make the
/// slowest ones take minutes.
const TIME_LIMIT: Duration = Duration::from_secs(1800);

/// How long nodes wait before they give up on a peer.
const PATIENCE: Duration = Duration::from_secs(600);

/// With a third of all datagrams lost, the last acknowledgement of a stream can take many tries.
const TIME_WAIT: Duration = Duration::from_secs(60);

/// After the end, this long is watched for datagrams that nobody needs.
const QUIET: Duration = Duration::from_secs(120);

/// Keepalives, probes and late retransmissions that each pair of nodes may send in that time.
const QUIET_DATAGRAMS_PER_PAIR: u64 = 100;

/// What a world consists of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The number that everything follows from.
    pub seed: u64,
    /// Settings of each node.
    pub nodes: Vec<NodePlan>,
    /// What all links are like.
    pub conditions: Conditions,
    /// The share of datagrams that an attacker sends again, whole or changed.
    pub attacks: f64,
    /// What is sent.
    pub transfers: Vec<Transfer>,
}

/// Settings of one node.
#[derive(Clone, Copy, Debug)]
pub struct NodePlan {
    /// It behaves as release 1.18 on its streams: no options.
    pub legacy: bool,
    /// Bytes that it keeps for each direction of a stream.
    pub buffers: usize,
}

impl Plan {
    /// The plan of this seed. Most worlds are small and some are not.
    pub fn random(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let nodes: Vec<NodePlan> =
            (0..chance.random_range(2..=4)).map(|_| random_node(&mut chance)).collect();
        let conditions = random_conditions(&mut chance);
        let attacks = if chance.random_bool(0.2) { 0.02 } else { 0.0 };
        let largest = match chance.random_range(0..100) {
            0..70 => 20_000,
            70..96 => 200_000,
            _ => 1_500_000,
        };
        let transfers = (0..chance.random_range(1..=4))
            .map(|index| random_transfer(&mut chance, nodes.len(), index, largest))
            .collect();
        Self { seed, nodes, conditions, attacks, transfers }
    }

    /// Builds the world, without running it.
    pub fn build(&self, detail: Detail) -> World {
        let mut world = World::new(self.seed, detail);
        world.set_conditions(self.conditions);
        world.set_attacks(self.attacks);
        for (index, node) in self.nodes.iter().copied().enumerate() {
            world.node_with(&format!("n{index}"), Visibility::Public, move |config| {
                config.streams.options = !node.legacy;
                // With this much patience no transfer of a plan has an excuse for failing.
                config.streams.connect_timeout = PATIENCE;
                config.streams.give_up = PATIENCE;
                config.streams.finish_timeout = PATIENCE;
                config.streams.time_wait = TIME_WAIT;
                config.tunnel.unreachable_after = PATIENCE;
                config.tunnel.unanswered_after = PATIENCE;
                config.streams.send_buffer = node.buffers;
                config.streams.receive_buffer = node.buffers;
            });
        }
        for transfer in &self.transfers {
            world.transfer(transfer.clone());
        }
        world
    }

    /// Runs the world to its end and judges it.
    pub fn run(&self, detail: Detail) -> (World, Result<(), Fault>) {
        let mut world = self.build(detail);
        let result = judge(&mut world, self.nodes.len());
        (world, result)
    }
}

fn judge(world: &mut World, nodes: usize) -> Result<(), Fault> {
    world.run_transfers(TIME_LIMIT);
    check(world)?;
    for id in world.transfers() {
        for role in [Role::Dialer, Role::Listener] {
            let progress = world.progress(id, role);
            let Some(ended) = &progress.ended else {
                return Err(Fault::Unfinished(id, role, format!("{progress:?}")));
            };
            if !progress.complete {
                return Err(Fault::Failed(id, role, format!("{ended}: {progress:?}")));
            }
        }
    }
    // Streams still wait out their last state; then there is silence.
    world.run_for(QUIET);
    let before = world.datagrams();
    world.run_for(QUIET);
    let datagrams = world.datagrams() - before;
    let pairs = (nodes * (nodes - 1)) as u64;
    if datagrams > pairs * QUIET_DATAGRAMS_PER_PAIR {
        return Err(Fault::Noise { datagrams });
    }
    check(world)
}

fn check(world: &World) -> Result<(), Fault> {
    world.fault().map_or(Ok(()), |fault| Err(fault.clone()))
}

fn random_node(chance: &mut StdRng) -> NodePlan {
    let buffers = match chance.random_range(0..10) {
        0 => 8 << 10,
        1..4 => 64 << 10,
        _ => 1 << 20,
    };
    NodePlan { legacy: chance.random_bool(0.25), buffers }
}

fn random_conditions(chance: &mut StdRng) -> Conditions {
    let millis = |chance: &mut StdRng, most: u64| Duration::from_micros(chance.random_range(0..=most * 1000));
    let delay = millis(chance, 150);
    let mut sometimes = |probability, most: f64| {
        if chance.random_bool(probability) { chance.random_range(0.0..=most) } else { 0.0 }
    };
    let loss = sometimes(0.7, 0.3);
    let duplicate = sometimes(0.4, 0.2);
    let reorder = sometimes(0.4, 0.3);
    let corrupt = sometimes(0.3, 0.05);
    let bandwidth = chance.random_bool(0.3).then(|| chance.random_range(20_000..2_000_000));
    Conditions {
        delay,
        jitter: millis(chance, 20),
        loss,
        duplicate,
        reorder,
        held_back: millis(chance, 100),
        corrupt,
        bandwidth,
        queue: 0,
        mtu: 65_535,
    }
    .queue_of_one_round_trip(20)
}

fn random_transfer(chance: &mut StdRng, nodes: usize, index: u16, largest: u64) -> Transfer {
    let dialer = chance.random_range(0..nodes);
    let listener = (dialer + chance.random_range(1..nodes)) % nodes;
    let mut dialing = random_script(chance, largest);
    let mut listening = random_script(chance, largest);
    // Each closing order: dialer first, listener first, both at once.
    match chance.random_range(0..3) {
        0 => listening.finishes = Finishes::AfterPeer,
        1 => dialing.finishes = Finishes::AfterPeer,
        _ => {}
    }
    Transfer {
        dialer: Host(dialer),
        listener: Host(listener),
        port: Port(FIRST_PORT + index),
        starts: Duration::from_millis(chance.random_range(0..500)),
        dialing,
        listening,
    }
}

fn random_script(chance: &mut StdRng, largest: u64) -> Script {
    let sends = match chance.random_range(0..10) {
        0 => 0,
        1..4 => chance.random_range(1..2000),
        _ => chance.random_range(1..largest),
    };
    let content =
        if chance.random_bool(0.2) { Content::SackLookalikes } else { Content::Noise(chance.random()) };
    let write_size = match chance.random_range(0..4) {
        // Many tiny writes of a large transfer only cost time.
        0 if sends < 3000 => chance.random_range(1..20),
        0 | 1 => chance.random_range(20..3000),
        _ => chance.random_range(1000..100_000),
    };
    let pace = if chance.random_bool(0.2) {
        let bytes = chance.random_range(500..20_000);
        Pace::Slow { bytes, every: Duration::from_millis(chance.random_range(1..100)) }
    } else {
        Pace::Eager
    };
    Script { sends, content, write_size, pace, finishes: Finishes::WhenWritten }
}
