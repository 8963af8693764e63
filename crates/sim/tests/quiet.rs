//! What nodes send when nobody wants anything: counted to the datagram.

use std::time::Duration;

use pilot_proto::Visibility;
use pilot_sim::{Content, Detail, Finishes, Host, Nat, Net, Role, Script, Traffic, World};
use pilot_wire::Port;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Bindings of many boxes live for 30 s.
const SHORT_LIFE: Duration = Duration::from_secs(30);

#[test]
fn a_node_without_peers_and_without_a_beacon_sends_nothing() {
    let mut world = World::new(1, Detail::Digest);
    let alice = world.node("alice");
    world.run_for(24 * 60 * MINUTE);
    assert_eq!(world.sent_by(alice, None), Traffic::default());
}

#[test]
fn a_node_without_peers_only_stays_known_to_its_beacon() {
    let mut world = World::new(1, Detail::Digest);
    world.add_beacon();
    let alice = world.node("alice");
    world.set_nat(alice, Nat::HOME);
    world.run_for(MINUTE);
    let before = world.sent_by(alice, None);
    world.run_for(60 * MINUTE);
    let hour = world.sent_by(alice, None).datagrams - before.datagrams;
    println!("to the beacon: {hour} datagrams per hour");
    // Once in 25 s.
    assert!((120..=144).contains(&hour), "{hour} datagrams");
}

/// A tunnel that rests costs one small datagram each way in 25 to 30 seconds, and nothing else goes anywhere but to the
/// beacon.
#[test]
fn a_resting_tunnel_costs_one_small_probe_each_way_in_25_seconds() {
    println!(
        "path                 datagrams and bytes per minute: dialer, listener; all but the beacon's own"
    );
    for (name, nat) in [
        ("public", None),
        ("full cone", Some(Nat::FULL_CONE)),
        ("home", Some(Nat::HOME)),
        ("symmetric (relayed)", Some(Nat::SYMMETRIC)),
    ] {
        let (mut world, alice, bob) = talked(nat);
        let minutes = 20;
        let before = [alice, bob].map(|host| sent(&world, host));
        world.run_for(minutes * MINUTE);
        let after = [alice, bob].map(|host| sent(&world, host));
        let mut per_minute = [(0.0, 0.0); 2];
        for side in 0..2 {
            let (datagrams, bytes) = (after[side].0 - before[side].0, after[side].1 - before[side].1);
            per_minute[side] = (datagrams as f64 / f64::from(minutes), bytes as f64 / f64::from(minutes));
        }
        let [ours, theirs] = per_minute;
        println!("{name:<20} {:.2} and {:.0}, {:.2} and {:.0}", ours.0, ours.1, theirs.0, theirs.1);
        for (datagrams, bytes) in per_minute {
            // A relayed pair also looks for a better way now and then: at most three packets in two minutes.
            let search = if nat == Some(Nat::SYMMETRIC) { 1.5 } else { 0.0 };
            assert!(datagrams <= 60.0 / 25.0 + 0.11 + search, "{name}: {datagrams} a minute");
            assert!(bytes <= datagrams * 120.0, "{name}: {bytes} bytes a minute in {datagrams} datagrams");
            assert!(
                datagrams >= 60.0 / 30.0 - 0.11,
                "{name}: {datagrams} a minute keep no binding of 30 s alive"
            );
        }
        assert_eq!(world.fault(), None);
    }
}

#[test]
fn a_resting_tunnel_through_boxes_that_forget_after_30_seconds_is_used_at_once_an_hour_later() {
    for nat in [Nat::FULL_CONE, Nat::HOME, Nat::PORT_RESTRICTED, Nat::SYMMETRIC] {
        let (mut world, alice, bob) = talked(Some(nat));
        for host in [alice, bob] {
            let id = world.box_of(host).expect("a box");
            world.set_binding_life(id, SHORT_LIFE);
        }
        world.run_for(60 * MINUTE);
        let began = world.elapsed();
        let id = message(&mut world, bob, alice, Port(2001));
        let arrived = world.run_until(SECOND, |world| world.progress(id, Role::Listener).read == 1000);
        assert!(arrived, "{nat:?}: {:?}", world.elapsed() - began);
        // Two round trips of the relay, the longer of the ways.
        assert!(
            world.elapsed() - began <= Duration::from_millis(40),
            "{nat:?}: {:?}",
            world.elapsed() - began
        );
    }
}

/// A neighbour that was not talked to is not bothered.
#[test]
fn nodes_of_one_home_that_have_nothing_to_say_to_each_other_do_not() {
    let mut world = World::new(1, Detail::Digest);
    world.add_beacon();
    let [alice, bob] = ["alice", "bob"].map(|name| world.node(name));
    let home = world.set_nat(alice, Nat::HOME);
    world.place(bob, Net::Behind(home));
    world.befriend(alice, bob);
    world.run_for(60 * MINUTE);
    for host in [alice, bob] {
        let (datagrams, _) = sent(&world, host);
        assert!(datagrams <= 60 * 3, "{datagrams} in an hour");
    }
}

/// Everything a host sent but what is for the beacon itself.
fn sent(world: &World, host: Host) -> (u64, u64) {
    let all = world.sent_by(host, None);
    let own = world.sent_for_beacon(host);
    (all.datagrams - own.datagrams, all.bytes - own.bytes)
}

/// Two nodes that have talked, and then rested.
fn talked(nat: Option<Nat>) -> (World, Host, Host) {
    let mut world = World::new(1, Detail::Lines);
    world.add_beacon();
    let [alice, bob] = ["alice", "bob"].map(|name| world.node_with(name, Visibility::Public, |_| {}));
    for host in [alice, bob] {
        if let Some(nat) = nat {
            world.set_nat(host, nat);
        }
    }
    world.befriend(alice, bob);
    world.run_for(5 * SECOND);
    let id = message(&mut world, alice, bob, Port(2000));
    assert!(world.run_until(5 * SECOND, |world| world.is_over(id)));
    world.run_for(10 * MINUTE);
    (world, alice, bob)
}

fn message(world: &mut World, from: Host, to: Host, port: Port) -> pilot_sim::TransferId {
    let there = Script::eager(1000, Content::Noise(3));
    let back = Script { finishes: Finishes::AfterPeer, ..Script::eager(1000, Content::Noise(4)) };
    world.converse(from, to, port, there, back)
}
