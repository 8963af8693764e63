//! How long the first byte of a stream takes, in round trips, in virtual time.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is not as it says")]

use std::time::Duration;

use pilot_proto::{Read, Visibility};
use pilot_sim::{Conditions, Detail, Host, World};
use pilot_wire::{Port, StreamId};

const ONE_WAY: Duration = Duration::from_millis(50);

/// What the registry takes to answer, once for each of the two.
const REGISTRY: Duration = Duration::from_millis(2 * 20);

/// Two public nodes that have never spoken to each other.
fn strangers() -> (World, Host, Host) {
    let mut world = World::new(1, Detail::Lines);
    let [alice, bob] = ["alice", "bob"].map(|name| world.node_with(name, Visibility::Public, |_| {}));
    world.set_conditions(Conditions { delay: ONE_WAY, ..Conditions::PERFECT });
    world.with_node(bob, |node, _| node.listen(Port(2000))).unwrap();
    (world, alice, bob)
}

/// Dials, says something at once, and returns when it was heard, and when an answer to it.
fn ask(world: &mut World, alice: Host, bob: Host) -> (Duration, Duration) {
    let to = world.addr(bob).port(Port(2000));
    let started = world.elapsed();
    let ours = world.with_node(alice, |node, now| {
        let ours = node.dial(now, to).unwrap();
        node.write(now, ours, "are you there?".into()).unwrap();
        ours
    });
    let theirs = next_incoming(world, bob);
    let asked = world.with_node(bob, |node, now| node.read(now, theirs, 100)).unwrap();
    assert_eq!(asked, Read::Data("are you there?".into()), "with the stream, not after it");
    let heard = world.elapsed() - started;
    world.with_node(bob, |node, now| node.write(now, theirs, "yes".into())).unwrap();
    loop {
        let read = world.with_node(alice, |node, now| node.read(now, ours, 100)).unwrap();
        if read != Read::Blocked {
            assert_eq!(read, Read::Data("yes".into()));
            return (heard, world.elapsed() - started);
        }
        world.run_for(Duration::from_millis(1));
    }
}

fn next_incoming(world: &mut World, host: Host) -> StreamId {
    for _ in 0..10_000 {
        if let Some((stream, _)) = world.take_incoming(host) {
            return stream;
        }
        world.run_for(Duration::from_millis(1));
    }
    panic!("nobody called: {:#?}", world.history().lines())
}

#[test]
fn on_a_cold_connection_the_first_byte_takes_two_round_trips_at_most() {
    let (mut world, alice, bob) = strangers();
    let (heard, answered) = ask(&mut world, alice, bob);
    assert!(heard <= 4 * ONE_WAY + REGISTRY, "{heard:?}: {:#?}", world.history().lines());
    assert!(answered <= 5 * ONE_WAY + REGISTRY, "{answered:?}: {:#?}", world.history().lines());
    println!("cold: heard after {heard:?}, answered after {answered:?}");
}

#[test]
fn on_a_warm_tunnel_the_answer_to_the_first_byte_takes_one_round_trip() {
    let (mut world, alice, bob) = strangers();
    ask(&mut world, alice, bob);
    world.run_for(Duration::from_secs(1));
    let (heard, answered) = ask(&mut world, alice, bob);
    let grain = Duration::from_millis(2);
    assert!(heard <= ONE_WAY + grain, "{heard:?}: {:#?}", world.history().lines());
    assert!(answered <= 2 * ONE_WAY + grain, "{answered:?}: {:#?}", world.history().lines());
    println!("warm: heard after {heard:?}, answered after {answered:?}");
}
