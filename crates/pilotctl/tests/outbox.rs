//! Messages for peers that are away, as people and scripts send them.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on stops, and says why")]

mod common;

use std::time::{Duration, Instant};

use common::{Agent, World};
use pilot_client::{Addr, Client, DeliveryState, Outgoing, Queued};

/// Only turns a hang into a failure.
const PATIENCE: &str = "60s";

fn id_of(report: &serde_json::Value) -> String {
    report["message_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_message_for_a_peer_that_is_away_is_queued_at_once_and_arrives_when_the_peer_is_back() {
    let world = World::new();
    let (a, mut b) = world.friends();
    let to = b.address();
    b.kill();
    // A daemon that has no tunnel to it, as after a night.
    let mut a = a;
    a.kill();
    a.start(&[]);
    let begin = Instant::now();
    let report = a.json(&["send-message", &to, "good morning"]);
    let took = begin.elapsed();
    assert!(matches!(report["state"].as_str(), Some("queued" | "sent")), "{report}");
    assert_eq!(report["ack"], serde_json::Value::Null);
    let id = id_of(&report);
    let listed = a.json(&["outbox", "--pending"]);
    assert_eq!(
        (listed["pending"].as_u64(), listed["messages"][0]["id"].as_str()),
        (Some(1), Some(id.as_str()))
    );

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (by_driver, back) = runtime.block_on(async {
        let client = Client::connect_to(&a.socket).await.unwrap();
        let to: Addr = to.parse().unwrap();
        let mut times = Vec::new();
        let mut last = None;
        for number in 0..100 {
            let begin = Instant::now();
            last = Some(client.queue(Queued::new(to, Outgoing::text(number.to_string()))).await.unwrap().id);
            times.push(begin.elapsed());
        }
        times.sort();
        b.start(&[]);
        let up = Instant::now();
        let limit = Duration::from_secs(60);
        let item = client.outbox_wait(&last.unwrap(), DeliveryState::Stored, limit).await.unwrap();
        assert_eq!(item.state, DeliveryState::Stored);
        ((times[50], times[99]), up.elapsed())
    });
    eprintln!(
        "queued for a peer that is away: command {took:?}, driver {:?} (median), {:?} (longest of 100); all of 101 there \
         {back:?} after the peer was ready",
        by_driver.0, by_driver.1
    );
    assert_eq!(a.json(&["outbox", "show", &id])["state"], "stored");
    assert_eq!(b.json(&["inbox", "--limit", "0"])["total"], 101);
}

#[test]
fn now_fails_instead_of_leaving_the_message_with_the_daemon() {
    let world = World::new();
    let (a, mut b) = world.friends();
    a.ok(&["send-message", "agent-b", "hello", "--now"]);
    b.kill();
    let failed = a.run(&["send-message", "agent-b", "hello?", "--now", "--json"]);
    assert!([3, 6].contains(&failed.status), "{failed:?}");
    assert!(failed.json()["hint"].is_string());
    assert_eq!(a.json(&["outbox"])["messages"], serde_json::json!([]));
}

#[test]
fn a_message_is_followed_from_queued_to_answered() {
    let world = World::new();
    let (a, b) = world.friends();
    let stored = a.json(&["send-message", "agent-b", "2 + 2?", "--until", "stored", "--timeout", PATIENCE]);
    assert_eq!(
        (stored["state"].as_str(), stored["ack"].as_str()),
        (Some("stored"), Some("ACK TEXT 6 bytes"))
    );
    let id = id_of(&stored);
    let text = a.ok(&["outbox", "show", &id]);
    assert!(text.starts_with("stored: text to agent-b, 6 B\n") && text.contains(&id), "{text}");
    let waiting = a.spawn(&["outbox", "wait", &id, "--until", "answered", "--timeout", PATIENCE, "--json"]);
    b.ok(&["send-message", "agent-a", "4", "--reply-to", &id, "--until", "stored", "--timeout", PATIENCE]);
    let answered = waiting.finish();
    assert_eq!((answered.status, answered.json()["data"]["state"].as_str()), (0, Some("answered")));
    let late = a.run(&["outbox", "cancel", &id, "--json"]);
    assert_eq!((late.status, late.json()["code"].as_str()), (1, Some("refused")), "{late:?}");
}

#[test]
fn a_message_that_does_not_come_as_far_as_wanted_is_an_error_that_says_where_it_is() {
    let world = World::new();
    let (a, mut b) = world.friends();
    b.kill();
    let failed =
        a.run(&["send-message", "agent-b", "x", "--until", "stored", "--timeout", "100ms", "--json"]);
    assert_eq!((failed.status, failed.json()["code"].as_str()), (6, Some("timeout")));
    let id = failed.json()["data"]["id"].as_str().unwrap().to_owned();
    assert!(failed.json()["hint"].as_str().unwrap().contains(&id));
    let waited = a.run(&["outbox", "wait", &id, "--timeout", "10ms"]);
    assert_eq!(waited.status, 6, "{waited:?}");
    let taken = a.run(&["outbox", "cancel", &id]);
    // One that is being tried at this moment is taken back when the try has failed.
    assert!([0, 3].contains(&taken.status), "{taken:?}");
    let ended = a.run(&["outbox", "wait", &id, "--timeout", PATIENCE, "--json"]);
    assert_eq!((ended.status, ended.json()["data"]["state"].as_str()), (1, Some("cancelled")), "{ended:?}");

    let short = a.run(&["send-message", "agent-b", "x", "--ttl", "50ms", "--until", "stored", "--json"]);
    assert_eq!((short.status, short.json()["data"]["state"].as_str()), (6, Some("expired")), "{short:?}");
    let unknown = a.run(&["outbox", "show", "nonsense", "--json"]);
    assert_eq!((unknown.status, unknown.json()["code"].as_str()), (5, Some("not_found")));
    assert_eq!(a.run(&["outbox", "show", "not an id"]).status, 2);
    assert_eq!(a.run(&["send-message", "nobody-has-this-name", "x"]).status, 5);
}

#[test]
fn a_name_that_was_heard_before_is_enough_while_the_rendezvous_is_away() {
    let mut world = World::new();
    let (a, mut b) = world.friends();
    a.ok(&["send-message", "agent-b", "before", "--until", "stored", "--timeout", PATIENCE]);
    b.kill();
    world.kill_rendezvous();
    let report = a.json(&["send-message", "agent-b", "while all are away", "--ttl", "1h"]);
    world.restart_rendezvous();
    b.start(&[]);
    a.ok(&["outbox", "wait", &id_of(&report), "--timeout", PATIENCE]);
    assert_eq!(b.json(&["inbox", "--latest"])["messages"][0]["data"], "while all are away");
}

fn start_with_small_frames(agent: &mut Agent) {
    agent.set_env("PILOT_DATAEXCHANGE_MAX_FRAME", "100000");
    agent.start(&[]);
}

#[test]
fn a_message_too_large_for_its_receiver_is_refused_and_the_next_one_arrives() {
    let world = World::new();
    let (a, mut b) = world.friends();
    b.kill();
    start_with_small_frames(&mut b);
    let large = a.home.join("large.txt");
    std::fs::write(&large, "x".repeat(200_000)).unwrap();
    let sent = a.json(&["send-message", "agent-b", "--data-file", large.to_str().unwrap()]);
    let small = a.json(&["send-message", "agent-b", "small"]);
    let refused = a.run(&["outbox", "wait", &id_of(&sent), "--timeout", PATIENCE, "--json"]);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (1, Some("refused")), "{refused:?}");
    assert!(refused.json()["message"].as_str().unwrap().contains("too large"), "{refused:?}");
    a.ok(&["outbox", "wait", &id_of(&small), "--timeout", PATIENCE]);
    assert_eq!(b.json(&["inbox", "--limit", "0"])["total"], 1);
}
