//! An hour without a registry, in virtual time: nodes that know each other do not notice.

use std::time::Duration;

use pilot_proto::Visibility;
use pilot_sim::{Content, Detail, Finishes, Host, Nat, Role, Script, TransferId, World};
use pilot_wire::Port;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Bytes both ways, ended by both.
fn converse(world: &mut World, from: Host, to: Host, port: Port, bytes: u64) -> TransferId {
    let there = Script::eager(bytes, Content::Noise(3));
    let back = Script { finishes: Finishes::AfterPeer, ..Script::eager(bytes, Content::Noise(4)) };
    world.converse(from, to, port, there, back)
}

fn friends(nat: Option<Nat>) -> (World, Host, Host) {
    let mut world = World::new(1, Detail::Digest);
    world.add_beacon();
    let [alice, bob] = ["alice", "bob"].map(|name| world.node_with(name, Visibility::Private, |_| {}));
    for host in [alice, bob] {
        if let Some(nat) = nat {
            world.set_nat(host, nat);
        }
    }
    world.befriend(alice, bob);
    world.run_for(5 * SECOND);
    (world, alice, bob)
}

#[test]
fn an_hour_without_a_registry_costs_nothing_to_nodes_that_know_each_other() {
    for nat in [None, Some(Nat::HOME), Some(Nat::SYMMETRIC)] {
        let (mut world, alice, bob) = friends(nat);
        let first = converse(&mut world, alice, bob, Port(2000), 1000);
        assert!(world.run_until(10 * SECOND, |world| world.is_over(first)), "{nat:?}");
        world.set_registry_reachable(false);
        // A stream that was begun before goes on, whether it rests or not, and new ones begin.
        for (turn, port) in (2001..2007).enumerate() {
            let (from, to) = if turn % 2 == 0 { (alice, bob) } else { (bob, alice) };
            let id = converse(&mut world, from, to, Port(port), 100_000);
            assert!(world.run_until(30 * SECOND, |world| world.is_over(id)), "{nat:?}, turn {turn}");
            assert_eq!(world.progress(id, Role::Listener).read, 100_000, "{nat:?}, turn {turn}");
            world.run_for(10 * MINUTE);
        }
        assert!(world.elapsed() >= 60 * MINUTE);
        assert_eq!(world.fault(), None, "{nat:?}");
    }
}
