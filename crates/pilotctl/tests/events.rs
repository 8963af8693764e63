//! The event stream with real processes: what its options print, and restarts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::time::Instant;

use common::{Agent, Running, World};
use serde_json::json;

fn publish(agent: &Agent, topic: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        agent.ok(&["publish", topic, &format!("{{\"n\":{number}}}")]);
    }
}

/// Starts to subscribe, and returns when that is in force at the brokers of all trusted nodes.
fn subscribe(agent: &Agent, words: &[&str]) -> Running {
    let reading = agent.spawn(&[&["subscribe"], words, &["--json"]].concat());
    loop {
        let status = agent.json(&["events", "status"]);
        let is_subscribed = !status["subscriptions"].as_array().unwrap().is_empty();
        let links = status["links"].as_array().unwrap();
        if is_subscribed && !links.is_empty() && links.iter().all(|link| link["state"] == "live") {
            return reading;
        }
    }
}

#[test]
fn events_show_topic_payload_source_time_and_number() {
    let world = World::new();
    let (a, b) = world.friends();
    let mut reading = subscribe(&b, &["jobs.*"]);
    publish(&a, "jobs.new", 1..2);
    let heard = b.json(&["subscribe", "jobs.*", "--replay", "1", "--count", "1", "--timeout", "20s"]);
    let event = &heard["events"][0];
    assert_eq!(event["topic"], "jobs.new", "{event}");
    assert_eq!((&event["data"], &event["json"]), (&json!("{\"n\":1}"), &json!({"n": 1})));
    assert_eq!(event["source"], json!({"address": a.address(), "hostname": "agent-a"}));
    assert_eq!((&event["broker"], &event["seq"]), (&json!(a.address()), &json!(1)));
    assert_eq!((&event["replayed"], &event["lost"]), (&json!(true), &json!(0)));
    assert!(event["time"].as_str().unwrap().ends_with('Z') && event["time_ns"].as_u64().unwrap() > 0);
    let line = reading.json_line();
    assert_eq!((&line["seq"], &line["source"]["hostname"]), (&json!(1), &json!("agent-a")), "{line}");

    let full = b.ok(&["subscribe", "jobs.*", "--replay", "1", "--full", "--count", "1", "--timeout", "20s"]);
    assert!(full.ends_with(" agent-a #1 replayed [jobs.new] {\"n\":1}\n"), "{full}");
}

#[test]
fn the_past_is_delivered_first_and_only_as_much_as_was_asked_for() {
    let world = World::new();
    let (a, b) = world.friends();
    publish(&a, "log", 0..4);
    publish(&a, "noise", 0..2);
    for target in [&["log"][..], &["agent-a", "log"]] {
        let words = [&["subscribe"], target, &["--replay", "2", "--count", "3", "--timeout", "20s"]].concat();
        let reading = b.spawn_until(&words, "subscribed");
        a.ok(&["publish", "log", "live"]);
        let text = reading.finish().text();
        let (past, live) = text.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(live, "[log] live");
        assert_eq!(past.lines().count(), 2, "{text}");
    }
}

#[test]
fn the_status_names_subscriptions_links_and_history() {
    let world = World::new();
    let (a, b) = world.friends();
    let mut reading = subscribe(&b, &["alerts", "--policy", "block", "--queue", "50"]);

    publish(&a, "alerts", 0..1);
    assert_eq!(reading.json_line()["topic"], "alerts");
    let status = b.json(&["events", "status"]);
    let subscription = &status["subscriptions"][0];
    assert_eq!(
        (&subscription["topic"], &subscription["policy"], &subscription["queue"], &subscription["own"]),
        (&json!("alerts"), &json!("block"), &json!(50), &json!(true)),
        "{status}"
    );
    assert_eq!((&subscription["delivered"], &subscription["dropped"]), (&json!(1), &json!(0)));
    let link = &status["links"][0];
    assert_eq!((&link["node"], &link["state"]), (&json!(a.address()), &json!("live")), "{status}");
    let theirs = a.json(&["events", "status"]);
    assert_eq!(theirs["history"]["events"], 1);
    assert_eq!(theirs["subscriptions"][0]["policy"], "block", "a trusted node may make publishers wait");
    let text = b.ok(&["events", "status"]);
    assert!(text.contains("SUBSCRIPTION") && text.contains("alerts") && text.contains("live"), "{text}");
}

#[test]
fn wrong_options_are_usage_errors() {
    let world = World::new();
    let machine = world.machine("agent-a");
    for words in [
        &["subscribe", "t", "--policy", "sometimes"][..],
        &["subscribe", "t", "--queue", "0"],
        &["subscribe", "t", "--replay", "many"],
        &["subscribe", "t", "--replay", "10001"],
        &["events"],
    ] {
        let done = machine.run(&[words, &["--json"]].concat());
        assert_eq!((done.status, done.json()["code"].as_str()), (2, Some("invalid_argument")), "{words:?}");
    }
    let down = machine.run(&["events", "status", "--json"]);
    assert_eq!((down.status, down.json()["code"].as_str()), (7, Some("not_running")));
}

#[test]
fn a_subscription_on_the_command_line_outlives_both_daemons() {
    let world = World::new();
    let (mut a, mut b) = world.friends();
    let mut reading = subscribe(&b, &["count"]);
    let mut published = 0;
    let mut next = |a: &Agent, what: &str| {
        let start = Instant::now();
        publish(a, "count", published..published + 1);
        // An event that was published before both sides are connected again follows from the history.
        let event = reading.json_line();
        assert_eq!((&event["json"]["n"], &event["lost"]), (&json!(published), &json!(0)), "{what}: {event}");
        println!("{what}: published and heard in {:?}", start.elapsed());
        published += 1;
    };
    next(&a, "at first");
    for round in 0..3 {
        b.kill();
        b.start(&[]);
        next(&a, &format!("subscriber's daemon, restart {round}"));
        a.kill();
        a.start(&[]);
        next(&a, &format!("publisher's daemon, restart {round}"));
    }
}
