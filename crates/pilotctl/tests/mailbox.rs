//! Two laptops that are never online together, and a machine that keeps their messages.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::time::{Duration, Instant};

use common::{Agent, World, befriend};
use serde_json::Value;

/// Only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until it is so: there is no command that waits for what a daemon does by itself.
fn until(what: &str, agent: &Agent, words: &[&str], is_so: impl Fn(&Value) -> bool) -> Value {
    let begin = Instant::now();
    loop {
        let report = agent.json(words);
        if is_so(&report) {
            return report;
        }
        assert!(begin.elapsed() < PATIENCE, "waited too long for {what}: {report}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Three machines that trust each other.
fn three(world: &World) -> [Agent; 3] {
    let [a, b, m] = ["agent-a", "agent-b", "home"].map(|name| world.agent(name));
    befriend(&a, &b);
    befriend(&a, &m);
    befriend(&b, &m);
    [a, b, m]
}

#[test]
fn a_message_waits_in_a_mailbox_for_a_laptop_that_is_never_there_with_the_other() {
    let world = World::new();
    let [mut a, mut b, m] = three(&world);
    let allowed = m.ok(&["mailbox", "allow", "agent-b", "--max-bytes", "16MB", "--max-messages", "200"]);
    assert_eq!(allowed, "messages for agent-b are kept here: up to 200 messages and 16.0 MB\n");
    let used = b.ok(&["mailbox", "use", "home"]);
    assert!(used.starts_with("home keeps messages for this node while it is away\n"), "{used}");
    until("word of it", &a, &["mailbox"], |state| state["peers"][0]["mailboxes"][0]["hostname"] == "home");

    b.kill();
    let sent = a.json(&["send-message", "agent-b", "see you tomorrow"]);
    let id = sent["message_id"].as_str().unwrap();
    let item = a.json(&["outbox", "wait", id, "--until", "sent"]);
    assert_eq!((item["state"].as_str(), item["via"].as_str()), (Some("sent"), Some(m.address().as_str())));
    let kept = m.json(&["mailbox", "status"]);
    let kept = &kept["kept"][0];
    assert_eq!((&kept["hostname"], &kept["messages"]), (&"agent-b".into(), &1.into()), "{kept}");
    assert!(kept["oldest"].is_string() && kept["bytes"].as_u64().unwrap() > 256, "{kept}");
    let shown = m.ok(&["mailbox"]);
    assert!(shown.contains("agent-b") && shown.contains("1 of 200 messages"), "{shown}");
    a.kill();

    b.start(&[]);
    let mail = until("the message", &b, &["inbox", "--full"], |mail| mail["messages"][0].is_object());
    assert_eq!(mail["messages"][0]["data"], "see you tomorrow");
    until("an empty mailbox", &m, &["mailbox"], |state| state["kept"][0]["messages"] == 0);

    a.start(&[]);
    // It was looked at above, and the sender may have heard of that, too.
    let state = a.json(&["outbox", "wait", id, "--timeout", "60s"])["state"].clone();
    assert!(state == "stored" || state == "read", "{state}");
    assert_eq!(b.json(&["inbox"])["messages"].as_array().unwrap().len(), 1);

    assert_eq!(b.ok(&["mailbox", "stop", "home"]), "home is no mailbox of this node any more\n");
    assert_eq!(m.ok(&["mailbox", "deny", "agent-b"]), "no more messages for agent-b are taken\n");
    let empty = m.ok(&["mailbox"]);
    assert!(empty.starts_with("no mailboxes\n"), "{empty}");
}

#[test]
fn what_cannot_be_is_refused_with_a_reason_and_what_to_do() {
    let world = World::new();
    let (a, b) = world.friends();
    let refused = b.run(&["mailbox", "use", "agent-a", "--json"]);
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (4, Some("permission_denied")),
        "{refused:?}"
    );
    let hint = refused.json()["hint"].as_str().unwrap().to_owned();
    assert_eq!(hint, format!("its owner allows it there with: pilotctl mailbox allow {}", b.address()));
    for (words, status) in [
        (&["mailbox", "use", "nobody"][..], 5),
        (&["mailbox", "use"], 2),
        (&["mailbox", "use", &b.address()], 2),
        (&["mailbox", "stop", "agent-a"], 5),
        (&["mailbox", "deny", "agent-a"], 5),
        (&["mailbox", "allow", "agent-a", "--max-bytes", "0"], 2),
        (&["mailbox", "allow", "agent-a", "--max-bytes", "9TB"], 2),
        (&["mailbox", "allow", "agent-a", "--max-messages", "100000"], 2),
    ] {
        assert_eq!(b.run(words).status, status, "{words:?}: {:?}", b.run(words));
    }
    drop(a);
}
