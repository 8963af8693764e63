//! Nodes behind boxes: which pairs reach each other directly, which through the beacon, and that all do.

use std::time::Duration;

use pilot_proto::{Config, Visibility, node::PathView};
use pilot_sim::{
    Conditions, Content, Detail, Finishes, Host, Nat, Role, Script, Transfer, TransferId, World,
};
use pilot_wire::Port;

const SECOND: Duration = Duration::from_secs(1);
const KINDS: [Option<Nat>; 4] =
    [None, Some(Nat::FULL_CONE), Some(Nat::PORT_RESTRICTED), Some(Nat::SYMMETRIC)];

#[test]
fn every_pair_of_boxes_is_overcome_and_the_relay_is_used_only_where_it_must_be() {
    for ours in KINDS {
        for theirs in KINDS {
            let (mut world, alice, bob) = behind(ours, theirs);
            let id = message(&mut world, alice, bob, Port(2000));
            let arrived =
                world.run_until(2 * SECOND, |world| world.progress(id, Role::Listener).read == 1000);
            assert!(arrived, "{ours:?} to {theirs:?}: {:#?}", world.history().lines());

            // A direct way is found soon, if there is one.
            world.run_for(20 * SECOND);
            let later = message(&mut world, alice, bob, Port(2001));
            assert!(world.run_until(5 * SECOND, |world| world.is_over(later)), "{ours:?} to {theirs:?}");
            let must_relay = is_strict(ours) && theirs == Some(Nat::SYMMETRIC)
                || ours == Some(Nat::SYMMETRIC) && is_strict(theirs);
            let relayed = path(&mut world, alice, bob) == PathView::Relayed;
            assert_eq!(relayed, must_relay, "{ours:?} to {theirs:?}: {:#?}", world.history().lines());
        }
    }
}

#[test]
fn a_stream_goes_on_through_the_relay_when_the_direct_way_is_cut() {
    let (mut world, alice, bob) = behind(None, None);
    let much = Script::eager(20_000_000, Content::Noise(1));
    let silent = Script { finishes: Finishes::AfterPeer, ..Script::eager(0, Content::Noise(2)) };
    world.set_conditions(Conditions { bandwidth: Some(1_000_000), queue: 50_000, ..Conditions::PERFECT });
    let id = transfer(&mut world, alice, bob, Port(2000), much, silent);
    world.run_for(3 * SECOND);
    assert!(matches!(path(&mut world, alice, bob), PathView::Direct(_)));

    world.set_link(alice, bob, Conditions::CUT);
    world.set_link(bob, alice, Conditions::CUT);
    let before = world.progress(id, Role::Listener).read;
    let goes_on =
        world.run_until(12 * SECOND, |world| world.progress(id, Role::Listener).read > before + 100_000);
    assert!(goes_on, "{:#?}", world.history().lines().iter().rev().take(100).collect::<Vec<_>>());
    assert!(world.run_until(120 * SECOND, |world| world.is_over(id)));
    assert!(world.progress(id, Role::Listener).complete && world.progress(id, Role::Dialer).complete);
}

#[test]
fn a_stream_from_behind_a_box_that_restarts_goes_on_within_a_second() {
    stream_goes_on_after_the_box_restarts(Role::Dialer, SECOND);
}

/// A receiver has nothing to say, and until its node says something nobody can know its new address. It notices that
/// what came has stopped.
#[test]
fn a_stream_to_behind_a_box_that_restarts_goes_on_within_a_second() {
    stream_goes_on_after_the_box_restarts(Role::Listener, SECOND);
}

fn stream_goes_on_after_the_box_restarts(behind_box: Role, limit: Duration) {
    let (ours, theirs) = match behind_box {
        Role::Dialer => (Some(Nat::PORT_RESTRICTED), None),
        Role::Listener => (None, Some(Nat::PORT_RESTRICTED)),
    };
    let (mut world, alice, bob) = behind(ours, theirs);
    // More than the link carries until the end of the wait, in case that nothing stops at all.
    let much = Script::eager(40_000_000, Content::Noise(1));
    let silent = Script { finishes: Finishes::AfterPeer, ..Script::eager(0, Content::Noise(2)) };
    world.set_conditions(Conditions { bandwidth: Some(1_000_000), queue: 50_000, ..Conditions::PERFECT });
    let id = transfer(&mut world, alice, bob, Port(2000), much, silent);
    world.run_for(3 * SECOND);
    let home = world.box_of(if behind_box == Role::Dialer { alice } else { bob }).expect("a box");
    world.rebind(home);
    world.run_for(limit);
    let before = world.progress(id, Role::Listener).read;
    world.run_for(SECOND);
    let read = world.progress(id, Role::Listener).read;
    assert!(
        read > before + 200_000,
        "{:#?}",
        world.history().lines().iter().rev().take(60).collect::<Vec<_>>()
    );
    assert!(world.run_until(120 * SECOND, |world| world.is_over(id)));
    assert!(world.progress(id, Role::Listener).complete && world.progress(id, Role::Dialer).complete);
}

/// A box that lets in only what answers.
fn is_strict(kind: Option<Nat>) -> bool {
    matches!(kind, Some(Nat::PORT_RESTRICTED | Nat::SYMMETRIC))
}

fn behind(ours: Option<Nat>, theirs: Option<Nat>) -> (World, Host, Host) {
    let mut world = World::new(1, Detail::Lines);
    world.add_beacon();
    let default = |_: &mut Config| {};
    let [alice, bob] = ["alice", "bob"].map(|name| world.node_with(name, Visibility::Public, default));
    for (host, kind) in [(alice, ours), (bob, theirs)] {
        if let Some(kind) = kind {
            world.set_nat(host, kind);
        }
    }
    world.run_for(SECOND);
    (world, alice, bob)
}

fn path(world: &mut World, from: Host, to: Host) -> PathView {
    let number = world.number(to);
    world.with_node(from, |node, _| {
        node.peers().find(|peer| peer.node == number).map_or(PathView::Unknown, |peer| peer.path)
    })
}

fn transfer(
    world: &mut World,
    dialer: Host,
    listener: Host,
    port: Port,
    dialing: Script,
    listening: Script,
) -> TransferId {
    let starts = world.elapsed();
    world.transfer(Transfer { dialer, listener, port, starts, dialing, listening })
}

fn message(world: &mut World, from: Host, to: Host, port: Port) -> TransferId {
    let there = Script::eager(1000, Content::Noise(3));
    let back = Script { finishes: Finishes::AfterPeer, ..Script::eager(1000, Content::Noise(4)) };
    transfer(world, from, to, port, there, back)
}
