//! Single faults with a name: what exactly goes wrong, and what must hold nevertheless.

use std::{net::SocketAddr, time::Duration};

use pilot_proto::{Closed, DialError, Event, PeerEvent, Read, Visibility};
use pilot_sim::{
    Conditions, Content, Detail, Finishes, Host, Pace, Role, Script, Transfer, TransferId, World,
};
use pilot_wire::Port;

const SECOND: Duration = Duration::from_secs(1);

/// Where a stream without end costs little.
const NARROW: Conditions = Conditions { bandwidth: Some(500_000), queue: 50_000, ..Conditions::PERFECT };

#[test]
fn a_peer_that_restarts_agrees_new_keys_and_is_talked_to_again_within_a_second() {
    let (mut world, alice, bob) = friends();
    let before = message(&mut world, alice, bob, Port(2000));
    world.run_until(5 * SECOND, |world| world.is_over(before));
    assert!(is_complete(&world, before));

    world.restart(bob);
    world.take_events(alice);
    let after = message(&mut world, alice, bob, Port(2001));
    let done = world.run_until(SECOND, |world| world.progress(after, Role::Listener).read == 1000);
    assert!(done, "{:#?}", world.history().lines());
    let rekeyed =
        |event: &Event| matches!(event, Event::Peer(_, PeerEvent::Established { rekeyed: true, .. }));
    assert!(world.take_events(alice).iter().any(rekeyed));
    assert_eq!(world.fault(), None);
}

#[test]
fn streams_to_a_peer_that_restarts_end_with_an_error_and_do_not_hang() {
    let (mut world, alice, bob) = friends();
    world.set_conditions(NARROW);
    let endless = Script::eager(u64::MAX, Content::Noise(1));
    let never = Script { finishes: Finishes::AfterPeer, ..Script::eager(0, Content::Noise(2)) };
    let id = transfer(&mut world, alice, bob, Port(2000), endless, never);
    world.run_for(SECOND);
    assert!(world.progress(id, Role::Listener).read > 0);

    world.restart(bob);
    let ended = world.run_until(10 * SECOND, |world| world.progress(id, Role::Dialer).ended.is_some());
    assert!(ended, "the dialer was not told within ten seconds");
    assert!(
        matches!(world.progress(id, Role::Dialer).ended, Some(Closed::Stream(reason)) if !reason.is_orderly())
    );
}

#[test]
fn a_reader_that_stops_stalls_only_its_own_stream() {
    let (mut world, alice, bob) = friends();
    let much = Script::eager(20_000_000, Content::Noise(1));
    let silent = Script { finishes: Finishes::AfterPeer, ..Script::eager(0, Content::Noise(2)) };
    let stuck = transfer(&mut world, alice, bob, Port(2000), much, Script { pace: Pace::Never, ..silent });
    let other = transfer(&mut world, alice, bob, Port(2001), much, silent);
    assert!(world.run_until(60 * SECOND, |world| world.is_over(other)));
    assert!(is_complete(&world, other));

    let stuck_at = world.progress(stuck, Role::Dialer).written;
    assert!(stuck_at < 16_000_000, "{stuck_at} bytes were taken though nobody reads");
    let before = world.datagrams();
    world.run_for(60 * SECOND);
    assert_eq!(world.progress(stuck, Role::Dialer).ended, None, "waiting is not an error");
    assert_eq!(world.progress(stuck, Role::Dialer).written, stuck_at);
    assert!(world.datagrams() - before < 200, "a stalled stream probes, and now and then only");
}

#[test]
fn a_reader_that_stopped_and_goes_on_gets_the_rest() {
    let (mut world, alice, bob) = friends();
    let lazy = Pace::Slow { bytes: 5_000_000, every: Duration::from_secs(40) };
    let much = Script::eager(20_000_000, Content::Noise(1));
    let reader = Script { pace: lazy, finishes: Finishes::AfterPeer, ..Script::eager(0, Content::Noise(2)) };
    let id = transfer(&mut world, alice, bob, Port(2000), much, reader);
    assert!(world.run_until(600 * SECOND, |world| world.is_over(id)));
    assert!(is_complete(&world, id), "{:?}", world.fault());
}

#[test]
fn an_earlier_life_of_a_peer_that_is_replayed_does_not_come_back() {
    let (mut world, alice, bob) = friends();
    world.record_datagrams(bob, alice);
    let first = message(&mut world, alice, bob, Port(2000));
    assert!(world.run_until(5 * SECOND, |world| world.is_over(first)));
    let recorded = world.take_recorded();
    assert!(!recorded.is_empty());

    world.restart(bob);
    world.set_conditions(NARROW);
    let endless = Script::eager(u64::MAX, Content::Noise(1));
    let never = Script { finishes: Finishes::AfterPeer, ..Script::eager(0, Content::Noise(2)) };
    let id = transfer(&mut world, alice, bob, Port(2001), endless, never);
    world.run_for(SECOND);
    for from in [SocketAddr::from(([192, 0, 2, 1], 9)), world.socket_addr(bob)] {
        for datagram in &recorded {
            world.inject(alice, from, datagram);
            world.run_for(Duration::from_millis(20));
        }
    }
    let read = world.progress(id, Role::Listener).read;
    world.run_for(SECOND);
    let progress = world.progress(id, Role::Dialer);
    assert_eq!(progress.ended, None, "{:#?}", world.history().lines());
    assert!(world.progress(id, Role::Listener).read > read, "the stream goes on");
}

#[test]
fn a_cut_of_twenty_seconds_delays_a_stream_and_does_not_end_it() {
    let (mut world, alice, bob) = friends();
    let much = Script { write_size: 1000, ..Script::eager(50_000_000, Content::Noise(1)) };
    let silent = Script { finishes: Finishes::AfterPeer, ..Script::eager(0, Content::Noise(2)) };
    world.set_conditions(Conditions { bandwidth: Some(2_000_000), queue: 100_000, ..Conditions::PERFECT });
    let id = transfer(&mut world, alice, bob, Port(2000), much, silent);
    world.run_for(2 * SECOND);
    world.set_conditions(Conditions::CUT);
    world.run_for(20 * SECOND);
    let before = world.progress(id, Role::Listener).read;
    world.set_conditions(Conditions { bandwidth: Some(2_000_000), queue: 100_000, ..Conditions::PERFECT });
    // The longest pause between two attempts is five seconds.
    world.run_for(6 * SECOND);
    assert!(world.progress(id, Role::Listener).read > before);
    assert!(world.run_until(120 * SECOND, |world| world.is_over(id)));
    assert!(is_complete(&world, id));
}

#[test]
fn known_peers_do_not_need_the_registry() {
    let (mut world, alice, bob) = friends();
    let first = message(&mut world, alice, bob, Port(2000));
    assert!(world.run_until(5 * SECOND, |world| world.is_over(first)));
    world.set_registry_reachable(false);
    world.run_for(3600 * SECOND);
    let second = message(&mut world, alice, bob, Port(2001));
    assert!(
        world.run_until(5 * SECOND, |world| world.is_over(second)),
        "{:?}",
        world.progress(second, Role::Dialer)
    );
    assert!(is_complete(&world, second));
}

#[test]
fn a_stranger_is_told_within_two_seconds_that_a_private_node_does_not_trust_him() {
    let mut world = World::new(1, Detail::Lines);
    let [alice, mallory] = ["alice", "mallory"].map(|name| world.node(name));
    let id = message(&mut world, mallory, alice, Port(2000));
    assert!(world.run_until(2 * SECOND, |world| world.progress(id, Role::Dialer).ended.is_some()));
    let ended = world.progress(id, Role::Dialer).ended;
    assert!(matches!(ended, Some(Closed::Dial(DialError::NotTrusted(_)))), "{ended:?}");
    let heard = world.history().lines().iter().any(|line| line.contains("alice ->"));
    assert!(!heard, "a private node sends a stranger nothing");
}

#[test]
fn a_registry_that_is_gone_fails_a_dial_to_a_new_peer_within_two_seconds() {
    let mut world = World::new(1, Detail::Lines);
    let [alice, bob] = ["alice", "bob"].map(|name| world.node_with(name, Visibility::Public, |_| {}));
    world.set_registry_reachable(false);
    let id = message(&mut world, alice, bob, Port(2000));
    assert!(world.run_until(2 * SECOND, |world| world.progress(id, Role::Dialer).ended.is_some()));
    let ended = world.progress(id, Role::Dialer).ended;
    assert!(matches!(ended, Some(Closed::Dial(DialError::NoRegistry { .. }))), "{ended:?}");
}

#[test]
fn a_closed_port_is_refused_at_once() {
    let (mut world, alice, bob) = friends();
    let to = world.addr(bob).port(Port(9));
    let stream = world.with_node(alice, |node, now| node.dial(now, to)).unwrap();
    world.run_for(SECOND);
    let refused = world.take_events(alice).into_iter().any(|event| {
        matches!(event, Event::Stream(id, pilot_proto::StreamEvent::Closed(Closed::Stream(reason)))
            if id == stream && reason == pilot_proto::stream::CloseReason::Refused)
    });
    assert!(refused, "{:#?}", world.history().lines());
}

#[test]
fn a_node_talks_to_itself_without_a_datagram() {
    let mut world = World::new(1, Detail::Lines);
    let alice = world.node("alice");
    let before = world.datagrams();
    world.with_node(alice, |node, _| node.listen(Port(2000))).unwrap();
    let to = world.addr(alice).port(Port(2000));
    let ours = world.with_node(alice, |node, now| node.dial(now, to)).unwrap();
    world.with_node(alice, |node, now| node.write(now, ours, "hello".into())).unwrap();
    world.run_for(SECOND);
    let (theirs, from) = world.take_incoming(alice).expect("a stream");
    assert_eq!(from.addr, world.addr(alice));
    let read = world.with_node(alice, |node, now| node.read(now, theirs, 100)).unwrap();
    assert_eq!(read, Read::Data("hello".into()));
    assert_eq!(world.datagrams(), before);
}

#[test]
fn a_friend_that_is_gone_is_asked_for_ever_more_seldom() {
    let (mut world, alice, bob) = friends();
    let id = message(&mut world, alice, bob, Port(2000));
    assert!(world.run_until(5 * SECOND, |world| world.is_over(id)));
    world.set_conditions(Conditions::CUT);
    world.run_for(1800 * SECOND);
    let before = world.datagrams();
    world.run_for(24 * 3600 * SECOND);
    let an_hour = (world.datagrams() - before) / 24;
    assert!(an_hour < 200, "{an_hour} datagrams an hour to somebody who is not there");

    world.set_conditions(Conditions::PERFECT);
    let again = message(&mut world, alice, bob, Port(2001));
    assert!(world.run_until(2 * SECOND, |world| world.is_over(again)), "a new stream is tried at once");
    assert!(is_complete(&world, again));
}

#[test]
fn a_dial_that_was_held_back_brings_nothing_a_second_time() {
    for (options, after) in [(true, 1), (false, 1), (true, 15), (false, 15)] {
        let mut world = World::new(1, Detail::Lines);
        let [alice, bob] = ["alice", "bob"].map(|name| {
            world.node_with(name, Visibility::Public, move |config| config.streams.options = options)
        });
        let first = message(&mut world, alice, bob, Port(2000));
        assert!(world.run_until(5 * SECOND, |world| world.is_over(first)));

        // The dial and the message in it are held back; repetitions get through.
        world.record_datagrams(alice, bob);
        world.set_link(alice, bob, Conditions::CUT);
        let second = message(&mut world, alice, bob, Port(2001));
        world.run_for(Duration::from_millis(100));
        let held_back = world.take_recorded();
        assert!(!held_back.is_empty());
        world.set_link(alice, bob, Conditions::PERFECT);
        assert!(world.run_until(5 * SECOND, |world| world.is_over(second)));

        world.run_for(after * SECOND);
        let from = world.socket_addr(alice);
        for datagram in &held_back {
            world.inject(bob, from, datagram);
        }
        // A byte on a second stream of the same dial is a fault of the world.
        world.run_for(60 * SECOND);
        assert_eq!(world.fault(), None, "options {options}, after {after} s");
    }
}

#[test]
fn a_datagram_arrives_whole_and_once_or_not_at_all() {
    let (mut world, alice, bob) = friends();
    world.set_conditions(Conditions {
        loss: 0.1,
        duplicate: 0.3,
        reorder: 0.3,
        held_back: Duration::from_millis(200),
        corrupt: 0.05,
        ..Conditions::PERFECT
    });
    let to = world.addr(bob).port(Port(2000));
    for number in 0..500_u32 {
        let data = [&number.to_be_bytes()[..], &vec![7; number as usize]].concat();
        world.with_node(alice, |node, now| node.send_datagram(now, to, Some(Port(2001)), &data)).unwrap();
        world.run_for(Duration::from_millis(10));
    }
    world.run_for(5 * SECOND);
    let mut arrived = Vec::new();
    for event in world.take_events(bob) {
        if let Event::Datagram { from, to: Port(2000), data } = event {
            let (number, rest) = data.split_first_chunk::<4>().expect("a number");
            let number = u32::from_be_bytes(*number);
            assert_eq!(from, world.addr(alice).port(Port(2001)));
            assert_eq!(rest, vec![7; number as usize]);
            arrived.push(number);
        }
    }
    let all = arrived.len();
    arrived.sort_unstable();
    arrived.dedup();
    assert_eq!(arrived.len(), all, "some came twice");
    assert!((380..=460).contains(&all), "{all} of 500 arrived");
}

/// Two private nodes whose owners have agreed.
fn friends() -> (World, Host, Host) {
    let mut world = World::new(1, Detail::Lines);
    let [alice, bob] = ["alice", "bob"].map(|name| world.node(name));
    world.befriend(alice, bob);
    assert_eq!(world.fault(), None);
    (world, alice, bob)
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

/// A thousand bytes there, a thousand back.
fn message(world: &mut World, from: Host, to: Host, port: Port) -> TransferId {
    let there = Script::eager(1000, Content::Noise(3));
    let back = Script { finishes: Finishes::AfterPeer, ..Script::eager(1000, Content::Noise(4)) };
    transfer(world, from, to, port, there, back)
}

fn is_complete(world: &World, id: TransferId) -> bool {
    [Role::Dialer, Role::Listener].iter().all(|&role| world.progress(id, role).complete)
}
