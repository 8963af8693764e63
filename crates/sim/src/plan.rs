//! A random world from a seed: who is there, what the network is like, who sends how much to whom.

use std::time::Duration;

use pilot_proto::{Closed, Config, DialError, Visibility};
use pilot_wire::Port;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    Conditions, Content, Detail, Fault, Finishes, Host, Nat, Net, Pace, Progress, Role, Script, Transfer,
    World,
};

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
const QUIET_DATAGRAMS_PER_PAIR: u64 = 150;

/// What a world consists of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The number that everything follows from.
    pub seed: u64,
    /// Settings of each node.
    pub nodes: Vec<NodePlan>,
    /// What all links are like.
    pub conditions: Conditions,
    /// What links inside homes are like, if not the same.
    pub local: Option<Conditions>,
    /// The share of datagrams that an attacker sends again, whole or changed.
    pub attacks: f64,
    /// Whether nodes wait so long that no transfer has an excuse for failing. Otherwise they wait as long as they do by
    /// default, the network may be worse, and a transfer may end with an error, but not with a wrong byte, and not
    /// never.
    pub patient: bool,
    /// Whether there is a beacon.
    pub beacon: bool,
    /// What goes wrong on the way, by time.
    pub mishaps: Vec<(Duration, Mishap)>,
    /// What is sent.
    pub transfers: Vec<Transfer>,
}

/// Something that goes wrong at a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// Nothing passes from one node to another any more.
    Cut(Host, Host),
    /// It passes again.
    Mended(Host, Host),
    /// The box in front of a node forgets everything.
    BoxRestarts(Host),
    /// The box in front of a node gives everything another port.
    BoxRebinds(Host),
    /// A node changes its network. It notices after some time, or not at all.
    Moves(Host, Home, Option<Duration>),
    /// A node's machine is suspended.
    FallsAsleep(Host),
    /// And resumed.
    WakesUp(Host),
    /// The beacon stops.
    BeaconStops,
    /// It starts with empty tables.
    BeaconStarts,
    /// A node dies and comes back. Streams it had may end with an error.
    NodeRestarts(Host),
    /// The registry does not answer any more.
    RegistryGone,
    /// It answers again.
    RegistryBack,
}

/// Settings of one node.
#[derive(Clone, Copy, Debug)]
pub struct NodePlan {
    /// It behaves as release 1.18 on its streams: no options.
    pub legacy: bool,
    /// Bytes that it keeps for each direction of a stream.
    pub buffers: usize,
    /// Where it is. Only where there is a beacon, it may be anywhere but on the internet.
    pub home: Home,
    /// It has an IPv6 address too.
    pub v6: bool,
}

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// On the internet.
    Public,
    /// Behind a box of its own.
    Behind(Nat),
    /// Behind a box of its own in a carrier's network of its own.
    BehindCarrier(Nat, Nat),
    /// In the network of another node, with a lower number.
    With(Host),
    /// Behind a firewall that lets no UDP out.
    Blocked,
}

impl Plan {
    /// The plan of this seed. Most worlds are small and some are not.
    pub fn random(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let beacon = chance.random_bool(0.5);
        let count = chance.random_range(2..=4);
        let nodes: Vec<NodePlan> = (0..count).map(|index| random_node(&mut chance, index, beacon)).collect();
        let patient = chance.random_bool(0.85);
        let conditions = random_conditions(&mut chance, if patient { 0.3 } else { 0.6 });
        let attacks = if chance.random_bool(0.2) { 0.02 } else { 0.0 };
        // A large transfer over a very bad line tells nothing more and takes hours.
        let largest = match chance.random_range(0..100) {
            0..70 => 20_000,
            96.. if conditions.loss < 0.1 => 1_500_000,
            _ => 200_000,
        };
        let transfers = (0..chance.random_range(1..=4))
            .map(|index| random_transfer(&mut chance, nodes.len(), index, largest))
            .collect();
        let mishaps = random_mishaps(&mut chance, nodes.len(), beacon);
        let local = chance.random_bool(0.5).then_some(Conditions {
            delay: Duration::from_micros(300),
            jitter: Duration::from_micros(200),
            ..Conditions::PERFECT
        });
        Self { seed, nodes, conditions, local, attacks, patient, beacon, mishaps, transfers }
    }

    /// Builds the world, without running it.
    pub fn build(&self, detail: Detail) -> World {
        let mut world = World::new(self.seed, detail);
        world.set_conditions(self.conditions);
        world.set_attacks(self.attacks);
        if self.beacon {
            world.add_beacon();
        }
        let patient = self.patient;
        for (index, node) in self.nodes.iter().copied().enumerate() {
            let host = world.node_with(&format!("n{index}"), Visibility::Public, move |config| {
                config.streams.options = !node.legacy;
                if patient {
                    be_patient(config);
                }
                config.streams.send_buffer = node.buffers;
                config.streams.receive_buffer = node.buffers;
            });
            if node.home != Home::Public {
                let net = net_of(&mut world, node.home);
                world.place(host, net);
            }
            if node.v6 {
                world.give_v6(host);
            }
        }
        if let Some(conditions) = self.local {
            world.set_local_conditions(conditions);
        }
        for transfer in &self.transfers {
            world.transfer(transfer.clone());
        }
        world
    }

    /// Runs the world to its end and judges it.
    pub fn run(&self, detail: Detail) -> (World, Result<(), Fault>) {
        let mut world = self.build(detail);
        let result = self.judge(&mut world);
        (world, result)
    }

    fn judge(&self, world: &mut World) -> Result<(), Fault> {
        for &(at, mishap) in &self.mishaps {
            world.run_for(at.saturating_sub(world.elapsed()));
            self.happen(world, mishap);
        }
        world.run_transfers(TIME_LIMIT);
        check(world)?;
        for (id, transfer) in world.transfers().zip(&self.transfers) {
            if self.is_without_registry(&world.progress(id, Role::Dialer)) {
                continue;
            }
            for (role, host) in [(Role::Dialer, transfer.dialer), (Role::Listener, transfer.listener)] {
                let progress = world.progress(id, role);
                let excused =
                    !self.patient || self.restarts(transfer.dialer) || self.restarts(transfer.listener);
                let Some(ended) = &progress.ended else {
                    // A machine that died has nobody who could be told, and a dial may not have got through.
                    if self.restarts(host) || (excused && !progress.began) {
                        continue;
                    }
                    return Err(Fault::Unfinished(id, role, format!("{progress:?}")));
                };
                if !progress.complete && !excused {
                    return Err(Fault::Failed(id, role, format!("{ended}: {progress:?}")));
                }
            }
        }
        // Streams still wait out their last state; then there is silence.
        world.run_for(QUIET);
        let before = world.datagrams();
        world.run_for(QUIET);
        let datagrams = world.datagrams() - before;
        let pairs = (self.nodes.len() * (self.nodes.len() - 1)) as u64;
        if datagrams > pairs * QUIET_DATAGRAMS_PER_PAIR {
            return Err(Fault::Noise { datagrams });
        }
        check(world)
    }

    fn happen(&self, world: &mut World, mishap: Mishap) {
        match mishap {
            Mishap::Cut(from, to) => world.set_link(from, to, Conditions::CUT),
            Mishap::Mended(from, to) => world.set_link(from, to, self.conditions),
            Mishap::BoxRestarts(host) => {
                if let Some(id) = world.box_of(host) {
                    world.restart_box(id);
                }
            }
            Mishap::BoxRebinds(host) => {
                if let Some(id) = world.box_of(host) {
                    world.rebind(id);
                }
            }
            Mishap::Moves(host, home, notice) => {
                let net = net_of(world, home);
                world.move_host(host, net, notice);
            }
            Mishap::FallsAsleep(host) => world.suspend(host),
            Mishap::WakesUp(host) => world.resume(host),
            Mishap::BeaconStops => world.stop_beacon(),
            Mishap::BeaconStarts => world.start_beacon(),
            Mishap::NodeRestarts(host) => world.restart(host),
            Mishap::RegistryGone => world.set_registry_reachable(false),
            Mishap::RegistryBack => world.set_registry_reachable(true),
        }
    }

    /// A dial to a peer that is not known yet has to fail while the registry is gone.
    fn is_without_registry(&self, progress: &Progress) -> bool {
        matches!(progress.ended, Some(Closed::Dial(DialError::NoRegistry { .. })))
            && self.mishaps.iter().any(|&(_, mishap)| mishap == Mishap::RegistryGone)
    }

    fn restarts(&self, host: Host) -> bool {
        self.mishaps.iter().any(|&(_, mishap)| mishap == Mishap::NodeRestarts(host))
    }
}

pub(crate) fn net_of(world: &mut World, home: Home) -> Net {
    match home {
        Home::Public => Net::Internet,
        Home::Behind(nat) => Net::Behind(world.add_box(Net::Internet, nat)),
        Home::BehindCarrier(nat, carrier) => {
            let carrier = world.add_carrier(carrier);
            Net::Behind(world.add_box(Net::Behind(carrier), nat))
        }
        Home::With(other) => world.box_of(other).map_or(Net::Internet, Net::Behind),
        Home::Blocked => {
            let id = world.add_box(Net::Internet, Nat::HOME);
            world.block_udp(id, true);
            Net::Behind(id)
        }
    }
}

fn be_patient(config: &mut Config) {
    config.streams.connect_timeout = PATIENCE;
    config.streams.give_up = PATIENCE;
    config.streams.finish_timeout = PATIENCE;
    config.streams.time_wait = TIME_WAIT;
    config.tunnel.unreachable_after = PATIENCE;
    config.tunnel.unanswered_after = PATIENCE;
}

fn check(world: &World) -> Result<(), Fault> {
    world.fault().map_or(Ok(()), |fault| Err(fault.clone()))
}

fn random_mishaps(chance: &mut StdRng, nodes: usize, beacon: bool) -> Vec<(Duration, Mishap)> {
    let mut mishaps = Vec::new();
    let count = if chance.random_bool(0.4) { chance.random_range(1..=3) } else { 0 };
    // What comes in pairs must not overlap with its like.
    let (mut beacon_until, mut asleep_until) = (Duration::ZERO, vec![Duration::ZERO; nodes]);
    for _ in 0..count {
        let at = Duration::from_millis(chance.random_range(0..4000));
        let until = at + Duration::from_millis(chance.random_range(0..20_000));
        let index = chance.random_range(0..nodes);
        let other = Host((index + chance.random_range(1..nodes)) % nodes);
        let host = Host(index);
        match chance.random_range(0..16) {
            0..3 => mishaps.extend([(at, Mishap::Cut(host, other)), (until, Mishap::Mended(host, other))]),
            3..5 => mishaps.push((at, Mishap::BoxRestarts(host))),
            5..7 => mishaps.push((at, Mishap::BoxRebinds(host))),
            7..9 => mishaps.push((at, Mishap::NodeRestarts(host))),
            9..11 => mishaps.extend([(at, Mishap::RegistryGone), (until, Mishap::RegistryBack)]),
            11..14 => {
                // Without a beacon, nobody else could tell.
                let notices = !beacon || chance.random_bool(0.7);
                let notice = notices.then(|| Duration::from_millis(chance.random_range(0..2000)));
                mishaps.push((at, Mishap::Moves(host, random_home(chance, index, beacon), notice)));
            }
            14 if asleep_until[index].is_zero() => {
                asleep_until[index] = until;
                mishaps.extend([(at, Mishap::FallsAsleep(host)), (until, Mishap::WakesUp(host))]);
            }
            15 if beacon && beacon_until.is_zero() => {
                beacon_until = until;
                mishaps.extend([(at, Mishap::BeaconStops), (until, Mishap::BeaconStarts)]);
            }
            _ => {}
        }
    }
    mishaps.sort_by_key(|&(at, _)| at);
    mishaps
}

fn random_node(chance: &mut StdRng, index: usize, beacon: bool) -> NodePlan {
    let buffers = match chance.random_range(0..10) {
        0 => 8 << 10,
        1..4 => 64 << 10,
        _ => 1 << 20,
    };
    NodePlan {
        legacy: chance.random_bool(0.25),
        buffers,
        home: random_home(chance, index, beacon),
        v6: beacon && chance.random_bool(0.2),
    }
}

fn random_home(chance: &mut StdRng, index: usize, beacon: bool) -> Home {
    if !beacon {
        return Home::Public;
    }
    match chance.random_range(0..20) {
        0..6 => Home::Public,
        6..14 => Home::Behind(random_nat(chance)),
        14 => Home::Blocked,
        15..17 => Home::BehindCarrier(random_nat(chance), random_nat(chance)),
        _ if index > 0 => Home::With(Host(chance.random_range(0..index))),
        _ => Home::Behind(Nat::HOME),
    }
}

fn random_nat(chance: &mut StdRng) -> Nat {
    let kinds = [Nat::FULL_CONE, Nat::ADDRESS_RESTRICTED, Nat::PORT_RESTRICTED, Nat::SYMMETRIC, Nat::HOME];
    kinds[chance.random_range(0..kinds.len())].hairpinning(chance.random())
}

fn random_conditions(chance: &mut StdRng, most_loss: f64) -> Conditions {
    let millis = |chance: &mut StdRng, most: u64| Duration::from_micros(chance.random_range(0..=most * 1000));
    let delay = millis(chance, 150);
    let mut sometimes = |probability, most: f64| {
        if chance.random_bool(probability) { chance.random_range(0.0..=most) } else { 0.0 }
    };
    let loss = sometimes(0.7, most_loss);
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
        mtu: [1272, 1372, 1472, 8972, 65_535][chance.random_range(0..5)],
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
    Script { sends, content, write_size, writes: Pace::Eager, pace, finishes: Finishes::WhenWritten }
}
