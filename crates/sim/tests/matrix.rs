//! Every kind of place to every other: which pairs talk directly, which through the beacon, and that all talk at once.

use std::{fmt, ops::Range, time::Duration};

use pilot_proto::{Visibility, node::PathView};
use pilot_sim::{
    Conditions, Content, Detail, Finishes, Host, Nat, Net, Pace, Role, Script, TransferId, World,
};
use pilot_wire::Port;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Public,
    FullCone,
    AddressRestricted,
    PortRestricted,
    Symmetric,
    /// A home behind a carrier's box.
    Carrier,
    /// A firewall lets no UDP out.
    Blocked,
}

/// Two nodes that share something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shared {
    /// One home, whose box is symmetric.
    Lan,
    /// One home, whose box lets no UDP out.
    BlockedLan,
    /// Homes behind one carrier's box that sends back in what goes to its own address.
    HairpinningCarrier,
    /// Homes behind one carrier's box that does not.
    Carrier,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Relay,
}

use At::{AddressRestricted, Blocked, Carrier, FullCone, PortRestricted, Public, Symmetric};
use Way::{Direct as D, Relay as R};

const PLACES: [At; 7] = [Public, FullCone, AddressRestricted, PortRestricted, Symmetric, Carrier, Blocked];

/// The way from the one in the row to the one in the column. A home behind a carrier is as strict as the strictest of
/// its boxes, here a port-restricted one.
const EXPECTED: [[Way; 7]; 7] = [
    //                    public full  addr. port  symm. carrier blocked
    /* public          */
    [D, D, D, D, D, D, R],
    /* full cone       */ [D, D, D, D, D, D, R],
    /* address-restr.  */ [D, D, D, D, D, D, R],
    /* port-restricted */ [D, D, D, D, R, D, R],
    /* symmetric       */ [D, D, D, R, R, R, R],
    /* carrier         */ [D, D, D, D, R, D, R],
    /* blocked         */ [R, R, R, R, R, R, R],
];

const EXPECTED_SHARED: [(Shared, Way); 4] = [
    (Shared::Lan, D),
    // Who is on the web asks at the registry to be reached through the beacon only.
    (Shared::BlockedLan, R),
    (Shared::HairpinningCarrier, D),
    (Shared::Carrier, R),
];

const PAIRS: u64 = (PLACES.len() * PLACES.len() + EXPECTED_SHARED.len()) as u64;

/// This many worlds for each pair: more than a thousand in all. By hand: `PILOT_SIM_ROUNDS=1000 cargo test ...`.
const ROUNDS: u64 = 20;

/// From the first byte until both sides send to each other directly.
const UPGRADE: Duration = Duration::from_secs(2);

/// The same with losses: three packets to an address may all be lost, and a second try comes seconds later.
const UPGRADE_WITH_LOSS: Duration = Duration::from_secs(6);

/// A first byte that came later than this was not sent at once through whatever is there. Exact times: `cold.rs`.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The same with losses, which cost a repetition or two.
const AT_ONCE_WITH_LOSS: Duration = Duration::from_secs(3);

/// What one side says in the course of a world: some hundred bytes at a time, for several seconds.
const TRICKLE: Script = Script {
    sends: 60_000,
    content: Content::Noise(1),
    write_size: 300,
    writes: Pace::Slow { bytes: 300, every: Duration::from_millis(20) },
    pace: Pace::Eager,
    finishes: Finishes::WhenWritten,
};

#[test]
fn the_table_holds_in_the_first_half_of_the_worlds() {
    run(0..PAIRS * rounds() / 2);
}

#[test]
fn the_table_holds_in_the_second_half_of_the_worlds() {
    run(PAIRS * rounds() / 2..PAIRS * rounds());
}

fn rounds() -> u64 {
    std::env::var("PILOT_SIM_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS)
}

fn run(seeds: Range<u64>) {
    let failures: Vec<_> = seeds.filter_map(|seed| Case::of(seed).judge().err()).collect();
    assert!(failures.is_empty(), "{} worlds failed\n{}", failures.len(), failures.join("\n"));
}

/// One world for a test to look at: `PILOT_SIM_SEED=17 cargo test -p pilot-sim --test matrix -- one_world`.
#[test]
fn one_world_can_be_looked_at() {
    let seed = std::env::var("PILOT_SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let case = Case::of(seed);
    let mut world = case.world(Detail::Lines);
    let result = case.play(&mut world);
    assert!(result.is_ok(), "{}\n{}", world.history().lines().join("\n"), result.unwrap_err());
}

/// What a seed stands for.
struct Case {
    seed: u64,
    pair: Pair,
    expected: Way,
    conditions: Conditions,
}

#[derive(Clone, Copy)]
enum Pair {
    Apart(At, At),
    Together(Shared),
}

impl Case {
    fn of(seed: u64) -> Self {
        let index = usize::try_from(seed % PAIRS).expect("there are few pairs");
        let places = PLACES.len();
        let (pair, expected) = if let Some(shared) = index.checked_sub(places * places) {
            let (shared, expected) = EXPECTED_SHARED[shared];
            (Pair::Together(shared), expected)
        } else {
            let (row, column) = (index / places, index % places);
            (Pair::Apart(PLACES[row], PLACES[column]), EXPECTED[row][column])
        };
        let mut chance = StdRng::seed_from_u64(seed);
        let conditions = Conditions {
            delay: Duration::from_micros(chance.random_range(500..60_000)),
            jitter: Duration::from_micros(chance.random_range(0..10_000)),
            loss: if chance.random_bool(0.5) { chance.random_range(0.0..0.05) } else { 0.0 },
            ..Conditions::PERFECT
        };
        Self { seed, pair, expected, conditions }
    }

    fn judge(&self) -> Result<(), String> {
        self.play(&mut self.world(Detail::Digest))
    }

    fn world(&self, detail: Detail) -> World {
        let mut world = World::new(self.seed, detail);
        world.set_conditions(self.conditions);
        world.add_beacon();
        let [a, b] = ["a", "b"].map(|name| world.node_with(name, Visibility::Public, |_| {}));
        match self.pair {
            Pair::Apart(ours, theirs) => {
                put(&mut world, a, ours);
                put(&mut world, b, theirs);
            }
            Pair::Together(Shared::Lan) => {
                let home = world.set_nat(a, Nat::SYMMETRIC);
                world.place(b, Net::Behind(home));
            }
            Pair::Together(Shared::BlockedLan) => {
                let home = world.set_udp_blocked(a);
                world.place(b, Net::Behind(home));
            }
            Pair::Together(shared @ (Shared::HairpinningCarrier | Shared::Carrier)) => {
                let hairpinning = shared == Shared::HairpinningCarrier;
                let carrier = world.add_carrier(Nat::CARRIER.hairpinning(hairpinning));
                for host in [a, b] {
                    let home = world.add_box(Net::Behind(carrier), Nat::HOME);
                    world.place(host, Net::Behind(home));
                }
            }
        }
        world
    }

    fn play(&self, world: &mut World) -> Result<(), String> {
        let (a, b) = (Host(0), Host(1));
        // Both daemons have been running for a while.
        world.run_for(Duration::from_secs(5));
        let began = world.elapsed();
        let id = world.converse(a, b, Port(2000), TRICKLE, Script { content: Content::Noise(2), ..TRICKLE });
        let lossless = self.conditions.loss == 0.0;
        let (limit, upgrade) =
            if lossless { (AT_ONCE, UPGRADE) } else { (AT_ONCE_WITH_LOSS, UPGRADE_WITH_LOSS) };
        if !world.run_until(limit, |world| world.progress(id, Role::Listener).read > 0) {
            return Err(format!("{self}: no byte within {limit:?}; {}", state(world, id)));
        }
        let first = world.elapsed() - began;
        match self.expected {
            Way::Direct => {
                if !world.run_until(upgrade, |world| world.is_direct(a, b)) {
                    return Err(format!(
                        "{self}: first byte after {first:?}, not direct within {upgrade:?}; {}",
                        state(world, id)
                    ));
                }
            }
            Way::Relay => {
                let relayed = |world: &World| {
                    [world.path(a, b), world.path(b, a)].iter().all(|path| *path == PathView::Relayed)
                };
                if world.run_until(Duration::from_secs(10), |world| !relayed(world)) {
                    return Err(format!("{self}: left the relay; {}", state(world, id)));
                }
            }
        }
        if !world.run_until(Duration::from_secs(120), |world| world.is_over(id)) {
            return Err(format!("{self}: the transfer does not end; {}", state(world, id)));
        }
        if self.expected == Way::Direct && !world.is_direct(a, b) {
            return Err(format!("{self}: did not stay direct; {}", state(world, id)));
        }
        let complete = [Role::Dialer, Role::Listener].iter().all(|&role| world.progress(id, role).complete);
        if complete && world.fault().is_none() {
            Ok(())
        } else {
            Err(format!("{self}: the transfer went wrong; {}", state(world, id)))
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: ", self.seed)?;
        match self.pair {
            Pair::Apart(a, b) => write!(f, "{a:?} to {b:?}")?,
            Pair::Together(shared) => write!(f, "both on {shared:?}")?,
        }
        let Conditions { delay, jitter, loss, .. } = self.conditions;
        write!(f, " ({delay:?} + {jitter:?}, {:.1} % loss, expected {:?})", loss * 100.0, self.expected)
    }
}

fn put(world: &mut World, host: Host, at: At) {
    let nat = match at {
        Public => return,
        FullCone => Nat::FULL_CONE,
        AddressRestricted => Nat::ADDRESS_RESTRICTED,
        PortRestricted => Nat::PORT_RESTRICTED,
        Symmetric => Nat::SYMMETRIC,
        Carrier => {
            let carrier = world.add_carrier(Nat::CARRIER);
            let home = world.add_box(Net::Behind(carrier), Nat::HOME);
            return world.place(host, Net::Behind(home));
        }
        Blocked => {
            world.set_udp_blocked(host);
            return;
        }
    };
    world.set_nat(host, nat);
}

fn state(world: &World, id: TransferId) -> String {
    let (a, b) = (Host(0), Host(1));
    format!(
        "at {:?}: {:?} and {:?}, fault {:?}, {:?}, {:?}",
        world.elapsed(),
        world.path(a, b),
        world.path(b, a),
        world.fault(),
        world.progress(id, Role::Dialer),
        world.progress(id, Role::Listener),
    )
}
