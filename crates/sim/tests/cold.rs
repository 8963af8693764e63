//! The first byte to a peer that nothing is agreed with yet: how long after the registry's answer it is there, on every
//! kind of path, to the microsecond.
#![expect(clippy::print_stdout, reason = "what was measured is to be read")]

use std::time::Duration;

use pilot_sim::{Conditions, Content, Detail, Finishes, Host, Nat, Net, Role, Script, TransferId, World};
use pilot_wire::Port;

/// From any host to any other, and to the beacon.
const DELAY: Duration = Duration::from_millis(50);

/// Inside a home.
const LAN_DELAY: Duration = Duration::from_millis(1);

/// In round trips of the path that the first byte takes.
const FIRST_BYTE: f64 = 2.0;

/// From the first byte to both sides sending directly.
const UPGRADE: Duration = Duration::from_secs(2);

/// What the first byte can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Through {
    /// The other side's address answers at once.
    Direct,
    /// The relay, while both look for better.
    Relay,
    /// The network of both.
    Lan,
}

impl Through {
    fn round_trip(self) -> Duration {
        match self {
            Self::Direct => 2 * DELAY,
            Self::Relay => 4 * DELAY,
            Self::Lan => 2 * LAN_DELAY,
        }
    }
}

struct Kind {
    name: &'static str,
    first: Through,
    /// Whether the direct path comes about.
    direct: bool,
    place: fn(&mut World, Host, Host),
}

const KINDS: [Kind; 11] = [
    Kind { name: "public to public", first: Through::Direct, direct: true, place: |_, _, _| {} },
    Kind {
        // Only the peer itself knows of its IPv6 address.
        name: "IPv6 behind symmetric",
        first: Through::Relay,
        direct: true,
        place: |world, a, b| {
            for host in [a, b] {
                world.set_nat(host, Nat::SYMMETRIC);
                world.give_v6(host);
            }
        },
    },
    Kind {
        name: "home to public",
        first: Through::Direct,
        direct: true,
        place: |world, a, _| {
            world.set_nat(a, Nat::HOME);
        },
    },
    Kind {
        name: "public to full cone",
        first: Through::Direct,
        direct: true,
        place: |world, _, b| {
            world.set_nat(b, Nat::FULL_CONE);
        },
    },
    Kind {
        name: "public to home",
        first: Through::Relay,
        direct: true,
        place: |world, _, b| {
            world.set_nat(b, Nat::HOME);
        },
    },
    Kind {
        name: "home to home",
        first: Through::Relay,
        direct: true,
        place: |world, a, b| {
            world.set_nat(a, Nat::HOME);
            world.set_nat(b, Nat::HOME);
        },
    },
    Kind {
        name: "carrier to carrier",
        first: Through::Relay,
        direct: true,
        place: |world, a, b| {
            for host in [a, b] {
                let carrier = world.add_carrier(Nat::CARRIER);
                let home = world.add_box(Net::Behind(carrier), Nat::HOME);
                world.place(host, Net::Behind(home));
            }
        },
    },
    Kind {
        name: "symmetric to symmetric",
        first: Through::Relay,
        direct: false,
        place: |world, a, b| {
            world.set_nat(a, Nat::SYMMETRIC);
            world.set_nat(b, Nat::SYMMETRIC);
        },
    },
    Kind {
        name: "UDP blocked to home",
        first: Through::Relay,
        direct: false,
        place: |world, a, b| {
            world.set_udp_blocked(a);
            world.set_nat(b, Nat::HOME);
        },
    },
    Kind {
        name: "home to UDP blocked",
        first: Through::Relay,
        direct: false,
        place: |world, a, b| {
            world.set_nat(a, Nat::HOME);
            world.set_udp_blocked(b);
        },
    },
    Kind {
        name: "same home",
        first: Through::Lan,
        direct: true,
        place: |world, a, b| {
            let home = world.set_nat(a, Nat::HOME);
            world.place(b, Net::Behind(home));
        },
    },
];

#[test]
fn the_first_byte_on_a_cold_connection_is_there_in_time_on_every_kind_of_path() {
    let measured: Vec<_> = KINDS.iter().map(measure).collect();
    let table: String = measured.iter().map(|row| format!("{row}\n")).collect();
    println!(
        "path                     first byte after the answer   round trips   direct after the first byte\n{table}"
    );
    let late: Vec<_> = measured.iter().filter(|row| !row.is_in_time()).map(|row| row.kind.name).collect();
    assert!(late.is_empty(), "late: {late:?}\n{table}");
}

struct Row {
    kind: &'static Kind,
    first_byte: Option<Duration>,
    direct: Option<Duration>,
}

impl Row {
    fn round_trips(&self) -> Option<f64> {
        Some(self.first_byte?.as_secs_f64() / self.kind.first.round_trip().as_secs_f64())
    }

    fn is_in_time(&self) -> bool {
        // A microsecond for what is rounded.
        self.round_trips().is_some_and(|trips| trips <= FIRST_BYTE + 0.001)
            && self.direct.is_some() == self.kind.direct
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |time: Option<Duration>| time.map_or("never".into(), |time| format!("{time:?}"));
        let trips = self.round_trips().map_or("-".into(), |trips| format!("{trips:.2}"));
        write!(
            f,
            "{:<24} {:>27} {trips:>13} {:>29}",
            self.kind.name,
            text(self.first_byte),
            text(self.direct)
        )
    }
}

fn measure(kind: &'static Kind) -> Row {
    let mut world = World::new(1, Detail::Lines);
    world.set_conditions(Conditions { delay: DELAY, ..Conditions::PERFECT });
    world.set_local_conditions(Conditions { delay: LAN_DELAY, ..Conditions::PERFECT });
    world.add_beacon();
    let [alice, bob] = ["alice", "bob"].map(|name| world.node(name));
    (kind.place)(&mut world, alice, bob);
    world.run_for(Duration::from_secs(5));
    world.befriend(alice, bob);
    assert_eq!(world.fault(), None, "{}", kind.name);
    // Both know each other's keys from now on, and nothing else.
    world.restart(alice);
    world.restart(bob);
    world.run_for(Duration::from_secs(10));

    let began = world.elapsed();
    let id = message(&mut world, alice, bob);
    let arrived =
        world.run_until(Duration::from_secs(5), |world| world.progress(id, Role::Listener).read > 0);
    let first_byte = arrived.then(|| world.elapsed() - began - world.registry_delay());
    let arrived = world.elapsed();
    let direct = world.run_until(UPGRADE, |world| world.is_direct(alice, bob));
    let direct = direct.then(|| world.elapsed() - arrived);
    let row = Row { kind, first_byte, direct };
    if !row.is_in_time() && std::env::var_os("PILOT_SIM_LINES").is_some() {
        println!("{}\n{}", kind.name, world.history().lines().join("\n"));
    }
    row
}

fn message(world: &mut World, from: Host, to: Host) -> TransferId {
    let there = Script::eager(1000, Content::Noise(1));
    let back = Script { finishes: Finishes::AfterPeer, ..Script::eager(1000, Content::Noise(2)) };
    world.converse(from, to, Port(2000), there, back)
}
