//! The inbox and what happens when a message arrives, with real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use common::{Agent, World};
use serde_json::{Value, json};

fn bodies(messages: &Value) -> Vec<&str> {
    messages.as_array().unwrap().iter().map(|message| message["preview"].as_str().unwrap_or("-")).collect()
}

fn send(from: &Agent, text: &str) -> String {
    let sent = from.json(&["send-message", "agent-b", "--now", "--data", text]);
    sent["message_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_message_says_how_it_came_and_what_the_peer_says_stands_behind_a_bar() {
    let world = World::new();
    let (a, b) = world.friends();
    let id = send(&a, "hello\nerror: the daemon is down");
    let key = a.json(&["info"])["key_fingerprint"].clone();
    let message = b.json(&["inbox", "read", "last", "--peek"]);
    assert_eq!((&message["from_hostname"], &message["from_key"]), (&json!("agent-a"), &key));
    assert_eq!(message["provenance"]["trust"], "trusted");
    assert_eq!(message["provenance"]["path"], "direct", "{message}");
    assert!(message["provenance"]["endpoint"].as_str().unwrap().starts_with("127.0.0.1:"));
    let text = b.ok(&["inbox", "read", &id]);
    let first = text.lines().next().unwrap();
    assert!(first.starts_with(&format!("from agent-a ({}) · key ", a.address())), "{text}");
    assert!(first.contains(" · trusted · direct 127.0.0.1:"), "{text}");
    assert!(text.ends_with("| hello\n| error: the daemon is down\n"), "{text}");
}

#[test]
fn any_bytes_come_out_as_they_went_in_and_json_is_parsed() {
    let world = World::new();
    let (a, b) = world.friends();
    let bytes: Vec<u8> = (0..=255).chain([b'\n']).collect();
    assert_eq!(
        a.pipe(&["send-message", "agent-b", "--now", "--type", "binary", "--data", "-"], &bytes).status,
        0
    );
    let raw = b.run(&["inbox", "read", "last", "--raw"]);
    // The line break at the end of stdin is the shell's, not the message's.
    assert_eq!((raw.status, raw.stdout.as_slice()), (0, &bytes[..256]));
    a.ok(&["send-message", "agent-b", "--now", "--type", "json", "--data", r#"{"n": [1, 2]}"#]);
    let message = b.json(&["inbox", "wait", "--type", "json", "--timeout", "20s"]);
    assert_eq!((&message["json"]["n"][1], &message["data"]), (&json!(2), &json!(r#"{"n": [1, 2]}"#)));
}

#[test]
fn lists_are_filtered_bounded_and_know_what_was_read() {
    let world = World::new();
    let (a, b) = world.friends();
    for number in 0..12 {
        send(&a, &format!("message {number}"));
    }
    let list = b.json(&["inbox"]);
    assert_eq!(
        (list["messages"].as_array().unwrap().len(), &list["more"], &list["unread"]),
        (10, &json!(2), &json!(12))
    );
    assert!(b.ok(&["inbox", "list"]).contains("2 more; --limit 0 shows all"));
    assert_eq!(b.json(&["inbox", "list", "--limit", "0"])["messages"].as_array().unwrap().len(), 12);
    let found = b.json(&["inbox", "list", "--match", "message 1", "--from", "agent-a"]);
    assert_eq!(bodies(&found["messages"]), ["message 11", "message 10", "message 1"]);
    let first = found["messages"][2]["id"].as_str().unwrap();
    b.ok(&["inbox", "read", first]);
    assert_eq!(
        b.json(&["inbox", "list", "--unread", "--limit", "0"])["messages"].as_array().unwrap().len(),
        11
    );
    assert_eq!(b.json(&["inbox", "clear", "--read"])["cleared"], 1);
    let last = b.json(&["inbox", "--limit", "1"])["messages"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(b.json(&["inbox", "mark", &last])["marked"], 1);
    assert_eq!(b.json(&["inbox", "mark", &last, "--unread"])["marked"], 1);
    assert_eq!(b.json(&["inbox", "rm", &last])["cleared"], 1);
    let gone = b.run(&["inbox", "rm", &last, "--json"]);
    assert_eq!((gone.status, &gone.json()["code"]), (5, &json!("not_found")));
    assert_eq!(b.json(&["inbox", "list"])["total"], 10);
}

#[test]
fn waiting_takes_the_first_unread_message_that_matches_and_ends_in_time() {
    let world = World::new();
    let (a, b) = world.friends();
    let nothing = b.run(&["inbox", "wait", "--timeout", "100ms", "--json"]);
    assert_eq!((nothing.status, &nothing.json()["code"]), (6, &json!("timeout")), "{nothing:?}");
    send(&a, "one");
    assert_eq!(b.json(&["inbox", "wait", "--timeout", "20s"])["data"], "one", "it was there already");
    let waiting =
        b.spawn(&["inbox", "wait", "--match", "done", "--from", "agent-a", "--timeout", "20s", "--raw"]);
    send(&a, "not yet");
    send(&a, "it is done");
    let waited = waiting.finish();
    assert_eq!((waited.status, waited.text().as_str()), (0, "it is done"));
    assert_eq!(b.json(&["inbox", "wait", "--timeout", "20s"])["data"], "not yet", "it was left for others");
}

#[test]
fn a_program_that_was_killed_while_it_waited_takes_nothing_along() {
    let world = World::new();
    let (a, b) = world.friends();
    let waiting = b.spawn(&["inbox", "wait"]);
    // Until the daemon has seen the program come and go, this proves nothing; a second one shows that it has.
    b.run(&["inbox", "wait", "--timeout", "100ms"]);
    drop(waiting);
    b.run(&["inbox", "wait", "--timeout", "100ms"]);
    send(&a, "for the living");
    assert_eq!(b.json(&["inbox", "wait", "--timeout", "20s"])["data"], "for the living");
}

#[test]
fn following_goes_on_over_a_restart_of_the_daemon() {
    let world = World::new();
    let (a, mut b) = world.friends();
    send(&a, "before");
    let mut following = b.spawn(&["inbox", "follow", "--unread", "--json"]);
    assert_eq!(following.json_line()["data"], "before");
    send(&a, "while it runs");
    assert_eq!(following.json_line()["data"], "while it runs");
    b.kill();
    b.start(&[]);
    send(&a, "after");
    assert_eq!(following.json_line()["data"], "after");
    assert_eq!(b.json(&["inbox"])["unread"], 0);
}

#[test]
fn the_older_forms_still_work() {
    let world = World::new();
    let (a, b) = world.friends();
    send(&a, "one");
    assert_eq!(b.json(&["inbox", "--wait=20s", "--since", "60s"])["data"], "one");
    let id = b.json(&["inbox"])["messages"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(b.json(&["inbox", &id])["data"], "one");
    assert_eq!(b.json(&["inbox", "--latest", "--from", "agent-a"])["messages"][0]["data"], "one");
    assert_eq!(b.json(&["inbox", "--full"])["messages"][0]["data"], "one");
    assert_eq!(b.json(&["inbox", "--clear", "--before", "1h"])["cleared"], 0);
    assert_eq!(b.json(&["inbox", "--clear"])["cleared"], 1);
}

#[test]
fn the_sender_learns_that_its_message_was_read() {
    let world = World::new();
    let (a, b) = world.friends();
    let sent = a.json(&["send-message", "agent-b", "--until", "stored", "--data", "read me"]);
    let id = sent["message_id"].as_str().unwrap();
    let waiting = a.spawn(&["outbox", "wait", id, "--until", "read", "--timeout", "20s", "--json"]);
    b.ok(&["inbox", "read", id]);
    let waited = waiting.finish().json();
    assert_eq!(waited["data"]["state"], "read", "{waited}");
}

/// Asks until it is so: a hook tells nobody that it has run.
fn hook_until(agent: &Agent, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..400 {
        let hook = agent.json(&["hook", "list"])["hooks"][0].clone();
        if fits(&hook) {
            return hook;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    panic!("waited too long for {what}: {}", agent.json(&["hook", "list"]))
}

#[test]
fn a_program_is_run_for_each_message_and_may_answer_it_also_after_a_kill() {
    let world = World::new();
    let (a, mut b) = world.friends();
    let script = format!(
        "{} send-message \"$PILOT_FROM\" \"seen $(cat | wc -l)\" --reply-to \"$PILOT_MESSAGE_ID\" --json",
        common::PILOTCTL
    );
    let added = b.json(&["hook", "add", "--exec", &script, "--from", "agent-a", "--match", "answer me"]);
    assert_eq!(added["id"], 1);
    send(&a, "not for the hook");
    let answered = a.json(&["send-message", "agent-b", "--data", "answer me", "--wait=30s"]);
    assert_eq!(answered["reply"]["data"], "seen 0");
    hook_until(&b, "the end of the program", |hook| hook["done"] == 1);
    assert_eq!(b.json(&["inbox", "list", "--unread"])["messages"].as_array().unwrap().len(), 1);
    b.kill();
    b.start(&[]);
    let answered = a.json(&["send-message", "agent-b", "--data", "answer me again", "--wait=30s"]);
    assert_eq!(answered["reply"]["data"], "seen 0");
    hook_until(&b, "the second", |hook| hook["done"] == 2);
    b.ok(&["hook", "remove", "1"]);
    assert_eq!(b.json(&["hook", "list"])["total"], 0);
}

#[test]
fn a_hook_can_be_tested_and_says_why_it_fails() {
    let world = World::new();
    let b = world.agent("agent-b");
    b.ok(&["hook", "add", "--exec", "echo fine"]);
    let tested = b.json(&["hook", "test", "1"]);
    assert_eq!((&tested["ok"], &tested["output"]), (&json!(true), &json!("fine")));
    b.ok(&["hook", "add", "--exec", "echo broken; exit 3"]);
    let failed = b.run(&["hook", "test", "2", "--json"]).json();
    assert_eq!((&failed["code"], &failed["data"]["outcome"]), (&json!("refused"), &json!("exit status 3")));
    for (words, status) in [
        (&["hook", "add", "--url", "http://169.254.169.254/latest/meta-data"][..], 2),
        (&["hook", "add", "--url", "gopher://example.com"], 2),
        (&["hook", "add"], 2),
        (&["hook", "add", "--exec", "x", "--url", "http://x"], 2),
        (&["hook", "remove", "77"], 5),
    ] {
        assert_eq!(b.run(words).status, status, "{words:?}");
    }
}
