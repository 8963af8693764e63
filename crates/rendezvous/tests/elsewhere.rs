//! What a registry makes of records that another instance has written.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{Agent, World, notices, refusal, rotate};
use pilot_rendezvous::registry::{Change, Key, Record};
use pilot_wire::{
    NodeId,
    registry::{Request, Response},
};
use std::{collections::BTreeMap, time::Duration};

/// Instances over one database; the test says when one hears what the other has written.
fn two() -> (World, World) {
    let (mut a, mut b) = (World::new(), World::new());
    b.now = a.now;
    for world in [&mut a, &mut b] {
        world.state.has_company();
        world.state.hears_others(world.now, true);
    }
    (a, b)
}

/// What one has written reaches the other, who writes nothing because of it.
fn tell(from: &World, to: &mut World) {
    let changes = difference(&to.disk, &from.disk);
    to.state.apply(to.now, changes, false);
    assert_eq!(to.state.take_changes(), []);
    to.disk.clone_from(&from.disk);
    to.settle();
}

fn difference(from: &BTreeMap<Key, Record>, to: &BTreeMap<Key, Record>) -> Vec<Change> {
    let removed = from.keys().filter(|key| !to.contains_key(key)).map(|key| (*key, None));
    let changed = to.iter().filter(|(key, record)| from.get(key) != Some(record));
    removed.chain(changed.map(|(key, record)| (*key, Some(record.clone())))).collect()
}

/// The same agent with a connection to this instance.
fn at(world: &mut World, agent: &Agent, from: &str) -> Agent {
    let conn = world.connect(from);
    Agent { identity: common::identity(seed(agent)), conn, id: agent.id }
}

fn seed(agent: &Agent) -> u8 {
    (0..=u8::MAX).find(|seed| common::identity(*seed).public() == agent.identity.public()).unwrap()
}

fn beat(world: &mut World, agent: &Agent) -> bool {
    matches!(world.by(agent, Request::Heartbeat(common::about(agent.id))), Response::Heartbeat { .. })
}

fn is_registered(world: &mut World, id: NodeId) -> bool {
    let conn = world.connect("192.0.2.9:1");
    matches!(world.ask(conn, Request::Lookup(common::about(id))), Response::Lookup(_))
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn who_is_heard_of_elsewhere_does_not_expire_here() {
    let (mut a, mut b) = two();
    let at_a = a.agent(1);
    tell(&a, &mut b);
    let at_b = at(&mut b, &at_a, "198.51.100.1:2");
    assert_eq!(a.state.take_heard(), [at_a.id]);
    for _ in 0..20 {
        a.pass(MINUTE);
        b.pass(MINUTE);
        assert!(beat(&mut b, &at_b));
        let heard = b.state.take_heard();
        assert_eq!(heard, [at_b.id]);
        a.state.heard_elsewhere(a.now, &heard);
        // It is not news that somebody else has heard of it.
        assert_eq!(a.state.take_heard(), []);
    }
    assert!(is_registered(&mut a, at_a.id));
    a.pass(6 * MINUTE);
    assert!(!is_registered(&mut a, at_a.id), "nobody hears of it any more");
    tell(&a, &mut b);
    assert!(!is_registered(&mut b, at_a.id));
}

#[test]
fn while_the_others_are_not_heard_nobody_expires_and_then_silence_counts_anew() {
    let (mut a, _) = two();
    let agent = a.agent(1);
    a.state.hears_others(a.now, false);
    a.pass(60 * MINUTE);
    assert!(is_registered(&mut a, agent.id));
    a.state.hears_others(a.now, true);
    a.pass(4 * MINUTE);
    assert!(is_registered(&mut a, agent.id));
    a.pass(2 * MINUTE);
    assert!(!is_registered(&mut a, agent.id));
}

#[test]
fn nothing_expires_before_the_others_were_heard_for_the_first_time() {
    let mut a = World::new();
    a.state.has_company();
    let agent = a.agent(1);
    a.pass(60 * MINUTE);
    assert!(is_registered(&mut a, agent.id));
}

#[test]
fn what_was_handed_out_here_stays_so_when_more_comes_in_elsewhere() {
    let (mut a, mut b) = two();
    let (one, two, target) = (a.agent(1), a.agent(2), a.agent(3));
    a.request_trust(&one, target.id);
    assert_eq!(a.poll(&target).requests.len(), 1);
    tell(&a, &mut b);
    let two_at_b = at(&mut b, &two, "198.51.100.2:2");
    b.request_trust(&two_at_b, target.id);
    a.notices.clear();
    tell(&b, &mut a);
    assert_eq!(a.notices, [target.id], "it is told that there is more");
    // On another connection, so that nothing is taken for received.
    let elsewhere = at(&mut a, &target, "198.51.100.3:9");
    let news = a.poll(&elsewhere).requests;
    assert_eq!(news.len(), 1);
    assert_eq!(news[0].from_node_id, two.id);
}

#[test]
fn a_node_that_waits_here_is_woken_by_what_was_written_elsewhere() {
    let (mut a, mut b) = two();
    let (asker, target) = (a.agent(1), a.agent(2));
    tell(&a, &mut b);
    let conn = b.connect("198.51.100.2:2");
    b.wait(&target, conn, MINUTE);
    assert_eq!(b.reply(conn), None);
    a.request_trust(&asker, target.id);
    tell(&a, &mut b);
    assert_eq!(b.reply(conn), Some(notices(true)));
}

#[test]
fn names_may_be_swapped_elsewhere() {
    let (mut a, mut b) = two();
    let (one, two) = (a.agent(1), a.agent(2));
    for (first, second) in [("alpha", "beta"), ("beta", "alpha")] {
        a.name(&one, "");
        a.name(&two, "");
        a.name(&one, first);
        a.name(&two, second);
        tell(&a, &mut b);
        let seeker = at(&mut b, &one, "198.51.100.1:3");
        assert!(beat(&mut b, &seeker));
        assert_eq!(b.find(seeker.conn, first), Some(one.id));
        assert_eq!(b.find(seeker.conn, second), Some(two.id));
    }
}

#[test]
fn a_key_that_was_rotated_elsewhere_is_the_key_here() {
    let (mut a, mut b) = two();
    let agent = a.agent(1);
    tell(&a, &mut b);
    let new = common::identity(9);
    assert!(matches!(a.by(&agent, rotate(agent.id, &new)), Response::RotateKey(_)));
    tell(&a, &mut b);
    assert_eq!(b.state.key_of(agent.id), Some(new.public()));
    let old_key = at(&mut b, &agent, "198.51.100.1:4");
    let refused = b.by(&old_key, Request::Heartbeat(common::about(agent.id)));
    assert!(refusal(&refused).contains("signature"), "{refused:?}");
    let conn = b.connect("198.51.100.1:5");
    let mut renewed = Agent { identity: new, conn, id: NodeId::UNSET };
    renewed.id = b.register(&renewed);
    assert_eq!(renewed.id, agent.id);
}

#[test]
fn when_everything_is_read_anew_what_is_not_there_is_gone() {
    let (mut a, mut b) = two();
    let (one, two) = (a.agent(1), a.agent(2));
    tell(&a, &mut b);
    let at_b = b.agent(3);
    b.name(&at_b, "gamma");
    assert!(beat(&mut b, &at_b));
    let everything = a.disk.iter().map(|(key, record)| (*key, Some(record.clone()))).collect();
    b.state.apply(b.now, everything, true);
    b.settle();
    b.disk.clone_from(&a.disk);
    assert!(is_registered(&mut b, one.id) && is_registered(&mut b, two.id));
    assert!(!is_registered(&mut b, at_b.id));
    assert!(!beat(&mut b, &at_b));
    // Its number is somebody else's, and nothing that was proven before counts for that one.
    let next = b.agent(4);
    assert_eq!(next.id, at_b.id);
    assert!(!b.state.has_proven(at_b.conn));
    assert_eq!(b.find(next.conn, "gamma"), None);
}
