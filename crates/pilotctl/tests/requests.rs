//! Requests on the command line: asked, answered by programs and by people, taken back, and over time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::process::Command;

use common::{Agent, Done, Running, World};
use serde_json::Value;

fn serve(agent: &Agent, line: &str, more: &[&str]) -> Running {
    agent.spawn(&[&["serve", "--exec", line, "--json"], more].concat())
}

fn ask(agent: &Agent, text: &str, more: &[&str]) -> Done {
    agent.run(&[&["send-message", "agent-b", text, "--wait=20s", "--json"], more].concat())
}

fn signal(process: &Running, name: &str) {
    let sent = Command::new("kill").args([name, &process.pid().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z')
}

#[test]
fn a_program_answers_with_what_it_writes() {
    let world = World::new();
    let (a, b) = world.friends();
    let mut serving = serve(&b, "tr a-z A-Z", &[]);
    let answered = ask(&a, "loud", &[]).json();
    assert_eq!(answered["data"]["reply"]["data"], "LOUD", "{answered}");
    assert_eq!(answered["data"]["reply"]["reply_to"], answered["data"]["message_id"]);
    let served = serving.json_line();
    assert_eq!((served["outcome"].as_str(), served["bytes"].as_u64()), (Some("answered"), Some(4)));
    assert_eq!(
        (&served["message_id"], &served["from_hostname"]),
        (&answered["data"]["message_id"], &"agent-a".into())
    );
    assert_eq!(
        a.ok(&["send-message", "agent-b", "again", "--wait=20s"]),
        "AGAIN\n",
        "text has the answer alone"
    );
}

#[test]
fn a_program_knows_who_asks_and_what() {
    let world = World::new();
    let (a, b) = world.friends();
    let line = r#"cat >/dev/null; printf '{"from":"%s","name":"%s","id":"%s","type":"%s","left":%s,"hops":%s}' \
        "$PILOT_FROM" "$PILOT_FROM_HOSTNAME" "$PILOT_MESSAGE_ID" "$PILOT_TYPE" "$PILOT_DEADLINE_MS" "$PILOT_HOPS""#;
    let _serving = serve(&b, line, &[]);
    let answered = ask(&a, r#"{"n":1}"#, &["--type", "json"]).json();
    let (reply, says) = (&answered["data"]["reply"], &answered["data"]["reply"]["json"]);
    assert_eq!(reply["type"], "JSON", "a JSON answer to a JSON request: {answered}");
    assert_eq!((&says["from"], &says["name"]), (&a.address().into(), &"agent-a".into()));
    assert_eq!(
        (&says["id"], &says["type"], &says["hops"]),
        (&answered["data"]["message_id"], &"json".into(), &0.into())
    );
    assert!((1..=20_000).contains(&says["left"].as_u64().unwrap()), "{says}");
}

#[test]
fn a_program_that_fails_is_a_failure_with_the_end_of_its_stderr() {
    let world = World::new();
    let (a, b) = world.friends();
    let mut serving = serve(&b, "echo out of paper >&2; exit 3", &[]);
    let failed = ask(&a, "print", &[]);
    assert_eq!((failed.status, failed.json()["code"].as_str()), (1, Some("failed")), "{failed:?}");
    assert_eq!(failed.json()["message"], "agent-b: out of paper");
    assert_eq!(failed.json()["data"]["reply"]["data"], "out of paper");
    assert_eq!(serving.json_line()["outcome"], "failed");
}

#[test]
fn pieces_are_printed_as_they_come_and_the_answer_is_all_of_them() {
    let world = World::new();
    let (a, b) = world.friends();
    // Each line waits for a word from outside, so that it is seen to come by itself.
    let gate = b.home.join("gate");
    assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let line = format!("echo one; read go <{}; echo two; echo three", gate.display());
    let _serving = serve(&b, &line, &["--stream"]);
    let mut asking = a.spawn(&["send-message", "agent-b", "count", "--wait=20s", "--stream", "--json"]);
    let mut of = |event: &str| -> Value {
        loop {
            let line = asking.json_line();
            if line["event"] != "state" {
                assert_eq!(line["event"], event, "{line}");
                return line;
            }
        }
    };
    let mut got = of("part")["data"].as_str().unwrap().to_owned();
    assert_eq!(got, "one", "it is here while the program runs");
    std::fs::write(&gate, "go\n").unwrap();
    let done = loop {
        let line = asking.json_line();
        match line["event"].as_str().unwrap() {
            "part" => got += line["data"].as_str().unwrap(),
            "done" => break line,
            other => assert_eq!(other, "state"),
        }
    };
    assert_eq!((got.as_str(), done["reply"]["data"].as_str()), ("one\ntwo\nthree", Some("one\ntwo\nthree")));
    assert_eq!(asking.finish().status, 0);
}

#[test]
fn whoever_stops_waiting_stops_the_program_and_its_children() {
    let world = World::new();
    let (a, b) = world.friends();
    let mut serving = serve(&b, "sleep 1000 & printf '%s %s' $$ $!; wait", &["--stream"]);
    let mut asking = a.spawn(&["send-message", "agent-b", "dig", "--wait=60s", "--stream", "--json"]);
    let pids = loop {
        let line = asking.json_line();
        if line["event"] == "part" {
            break line["data"].as_str().unwrap().to_owned();
        }
    };
    for pid in pids.split(' ') {
        assert!(is_running(pid), "{pids}");
    }
    signal(&asking, "-TERM");
    let ended = asking.finish();
    assert_eq!(ended.status, 1, "{ended:?}");
    assert!(ended.text().contains("interrupted"), "{ended:?}");
    let served = serving.json_line();
    assert_eq!(served["outcome"], "stopped", "{served}");
    for pid in pids.split(' ') {
        // A killed process is gone when the system has cleared it away.
        let gone = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            !is_running(pid)
        });
        assert!(gone, "{pid} was left over");
    }
}

#[test]
fn a_program_is_killed_when_nobody_waits_any_longer() {
    let world = World::new();
    let (a, b) = world.friends();
    let mut serving = serve(&b, "sleep 1000", &[]);
    let late = a.run(&["send-message", "agent-b", "think", "--wait=1s", "--json"]);
    assert_eq!((late.status, late.json()["code"].as_str()), (6, Some("timeout")), "{late:?}");
    let known = &late.json()["data"];
    assert!(["stored", "read"].contains(&known["state"].as_str().unwrap()), "{known}");
    assert_eq!(serving.json_line()["outcome"], "stopped");
}

#[test]
fn a_peer_that_is_down_is_a_timeout_that_says_that_the_message_waits() {
    let world = World::new();
    let (a, mut b) = world.friends();
    b.kill();
    let late = a.run(&["send-message", "agent-b", "hello?", "--wait=500ms", "--json"]);
    assert_eq!((late.status, late.json()["data"]["state"].as_str()), (6, Some("queued")), "{late:?}");
    b.start(&[]);
    let arrived = b.json(&["inbox", "--wait=20s", "--since", "60s"]);
    assert_eq!(arrived["data"], "hello?", "it was delivered all the same");
}

#[test]
fn one_key_is_one_run() {
    let world = World::new();
    let (a, b) = world.friends();
    let count = b.home.join("count");
    let line = format!("echo run >>{0}; wc -l <{0}", count.display());
    let _serving = serve(&b, &line, &[]);
    for _ in 0..2 {
        let answered = ask(&a, "pay", &["--key", "order-7"]).json();
        assert_eq!(answered["data"]["reply"]["data"].as_str().unwrap().trim(), "1", "{answered}");
    }
    let other = ask(&a, "pay", &["--key", "order-8"]).json();
    assert_eq!(other["data"]["reply"]["data"].as_str().unwrap().trim(), "2");
}

#[test]
fn a_killed_server_is_replaced_by_the_next() {
    let world = World::new();
    let (a, b) = world.friends();
    let first = serve(&b, "printf working; sleep 20", &["--stream"]);
    let mut asking = a.spawn(&["send-message", "agent-b", "go", "--wait=20s", "--stream", "--json"]);
    while asking.json_line()["event"] != "part" {}
    // With SIGKILL.
    drop(first);
    let _second = serve(&b, "printf done", &["--stream"]);
    let mut events = Vec::new();
    loop {
        let line = asking.json_line();
        events.push(line["event"].as_str().unwrap().to_owned());
        if line["event"] == "done" {
            assert_eq!(line["reply"]["data"], "done");
            break;
        }
    }
    assert!(events.contains(&"restarted".to_owned()), "{events:?}");
}

#[test]
fn both_daemons_may_be_killed_while_a_request_is_under_way() {
    let world = World::new();
    let (mut a, mut b) = world.friends();
    let gate = b.home.join("gate");
    assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let mut serving =
        serve(&b, &format!("printf begun; read go <{}; printf ' and done'", gate.display()), &["--stream"]);
    let mut asking = a.spawn(&["send-message", "agent-b", "go", "--wait=30s", "--stream", "--json"]);
    while asking.json_line()["event"] != "part" {}
    b.kill();
    b.start(&[]);
    a.kill();
    a.start(&[]);
    std::fs::write(&gate, "go\n").unwrap();
    let done = loop {
        let line = asking.json_line();
        if line["event"] == "done" {
            break line;
        }
    };
    assert_eq!(done["reply"]["data"], "begun and done");
    assert_eq!(serving.json_line()["outcome"], "answered");
    assert_eq!(a.json(&["inbox"])["total"], 1, "the answer, once");
}

#[test]
fn people_answer_with_reply() {
    let world = World::new();
    let (a, b) = world.friends();
    let asking = a.spawn(&["send-message", "agent-b", "lunch?", "--wait=20s", "--json"]);
    let question = b.json(&["inbox", "--wait=20s", "--since", "60s"]);
    let replied = b.json(&["reply", &question["message_id"].as_str().unwrap()[..12], "at noon"]);
    assert_eq!((&replied["outcome"], &replied["reply_to"]), (&"answered".into(), &question["message_id"]));
    assert_eq!(asking.finish().json()["data"]["reply"]["data"], "at noon");
    let twice = b.run(&["reply", "last", "at one", "--json"]);
    assert_eq!((twice.status, twice.json()["code"].as_str()), (1, Some("already_exists")), "{twice:?}");

    let asking = a.spawn(&["send-message", "agent-b", "dinner?", "--wait=20s", "--json"]);
    b.ok(&["inbox", "--wait=20s", "--since", "10ms"]);
    b.ok(&["reply", "last", "--decline", "no time"]);
    let declined = asking.finish();
    assert_eq!((declined.status, declined.json()["code"].as_str()), (1, Some("refused")), "{declined:?}");
    assert_eq!(declined.json()["message"], "agent-b: no time");
    assert_eq!(b.run(&["reply", "nothing", "x"]).status, 5);
}

#[test]
fn a_server_that_is_asked_to_end_finishes_what_it_began() {
    let world = World::new();
    let (a, b) = world.friends();
    let gate = b.home.join("gate");
    assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let serving =
        serve(&b, &format!("printf begun; read go <{}; printf ' done'", gate.display()), &["--stream"]);
    let mut asking = a.spawn(&["send-message", "agent-b", "go", "--wait=20s", "--stream", "--json"]);
    while asking.json_line()["event"] != "part" {}
    signal(&serving, "-TERM");
    std::fs::write(&gate, "go\n").unwrap();
    let ended = serving.finish();
    assert_eq!((ended.status, ended.json()["outcome"].as_str()), (0, Some("answered")), "{ended:?}");
    assert_eq!(asking.finish().status, 0);
}

#[test]
fn once_is_once_and_too_much_output_is_a_failure() {
    let world = World::new();
    let (a, b) = world.friends();
    let serving = serve(&b, "yes", &["--once", "--max-output", "1000"]);
    let failed = ask(&a, "agree", &[]);
    assert_eq!(failed.json()["code"], "failed", "{failed:?}");
    assert!(failed.json()["message"].as_str().unwrap().contains("wrote more than"), "{failed:?}");
    assert_eq!(serving.finish().status, 0);
}
