//! `kill -9` of each part in the middle of the story: after a restart everything goes on.

mod common;

use common::World;

#[test]
fn a_killed_rendezvous_comes_back_with_everything_it_acknowledged() {
    let mut world = World::new();
    let (a, b) = world.friends();
    a.ok(&["ping", "agent-b", "--count", "1"]);
    world.kill_rendezvous();
    a.ok(&["send-message", "agent-b", "the tunnel needs no rendezvous", "--until", "stored"]);
    world.restart_rendezvous();
    let c = world.agent("agent-c");
    assert_ne!(c.address(), a.address());
    assert_ne!(c.address(), b.address());
    assert_eq!(a.json(&["find", "agent-b"])["address"], b.address());
}

#[test]
fn a_killed_daemon_comes_back_with_its_address_trust_and_inbox() {
    let world = World::new();
    let (a, mut b) = world.friends();
    let address = b.address();
    a.ok(&["send-message", "agent-b", "before", "--until", "stored"]);
    b.kill();
    let down = b.run(&["info", "--json"]);
    assert_eq!((down.status, down.json()["code"].as_str()), (7, Some("not_running")));
    assert_eq!(b.json(&["inbox"])["messages"][0]["preview"], "before", "read without a daemon");
    b.start(&[]);
    assert_eq!(b.address(), address);
    assert_eq!(b.json(&["trust"])["trusted"][0]["hostname"], "agent-a");
    a.ok(&["send-message", "agent-b", "after", "--until", "stored"]);
    b.ok(&["send-message", "agent-a", "and back", "--until", "stored"]);
    assert_eq!(b.json(&["inbox"])["total"], 2);
    assert_eq!(a.json(&["inbox"])["messages"][0]["preview"], "and back");
}

#[test]
fn the_asking_side_may_be_killed_too() {
    let world = World::new();
    let (mut a, b) = world.friends();
    a.ok(&["ping", "agent-b", "--count", "1"]);
    a.kill();
    a.start(&[]);
    a.ok(&["send-message", "agent-b", "again", "--until", "stored"]);
    assert_eq!(b.json(&["inbox", "--latest"])["messages"][0]["data"], "again");
}

#[test]
fn a_peer_that_is_down_is_reported_with_its_cause_and_soon() {
    let world = World::new();
    let (a, mut b) = world.friends();
    b.kill();
    let begin = std::time::Instant::now();
    let failed = a.run(&["send-message", "agent-b", "x", "--now", "--json"]);
    assert!(begin.elapsed() < std::time::Duration::from_secs(15), "took {:?}", begin.elapsed());
    assert!([3, 6].contains(&failed.status), "{failed:?}");
    assert!(failed.json()["hint"].is_string());
}
