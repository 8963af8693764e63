//! What two agents do with each other, each with real processes.

mod common;

use common::{World, befriend, noise};

#[test]
fn strangers_become_friends_and_exchange_a_message_with_a_reply() {
    let world = World::new();
    let (a, b) = (world.agent("agent-a"), world.agent("agent-b"));
    let refused = a.run(&["send-message", &b.address(), "hello", "--now", "--json"]);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (4, Some("trust_required")), "{refused:?}");

    befriend(&a, &b);
    assert_eq!(a.json(&["trust"])["trusted"][0]["hostname"], "agent-b");
    assert_eq!(b.json(&["trusted", "list"])["trusted"][0]["hostname"], "agent-a");

    let asking = a.spawn(&["send-message", "agent-b", "--data", "what is 6 x 7?", "--wait=20s", "--json"]);
    let question = b.json(&["inbox", "--wait=20s", "--since", "60s"]);
    assert_eq!(question["data"], "what is 6 x 7?");
    let id = question["message_id"].as_str().unwrap();
    b.ok(&["send-message", "agent-a", "42", "--reply-to", id, "--until", "stored"]);
    let answered = asking.finish().json();
    assert_eq!(answered["data"]["message_id"], id);
    assert_eq!(answered["data"]["reply"]["data"], "42");
    assert_eq!(answered["data"]["reply"]["reply_to"], id);
}

#[test]
fn messages_of_every_type_arrive_as_they_were_sent() {
    let world = World::new();
    let (a, b) = world.friends();
    let bytes = [0, 159, 146, 150, 255];
    a.ok(&["send-message", "agent-b", "--data", "text", "--until", "stored"]);
    a.ok(&["send-message", "agent-b", "--type", "json", "--data", r#"{"n":1}"#, "--until", "stored"]);
    let words = ["send-message", "agent-b", "--type", "binary", "--data", "-", "--until", "stored"];
    assert_eq!(a.pipe(&words, &bytes).status, 0);
    let mail = b.json(&["inbox", "--full"]);
    let kinds: Vec<_> =
        mail["messages"].as_array().unwrap().iter().map(|m| m["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["BINARY", "JSON", "TEXT"]);
    assert_eq!(mail["messages"][0]["data_b64"], "AJ+Slv8=");
    assert_eq!(mail["messages"][1]["json"]["n"], 1);

    let wrong = a.run(&["send-message", "agent-b", "--type", "json", "--data", "{not json"]);
    assert_eq!(wrong.status, 2, "{wrong:?}");
    assert_eq!(b.json(&["inbox", "--clear"])["cleared"], 3);
    assert_eq!(b.json(&["inbox"])["messages"], serde_json::json!([]));
}

#[test]
fn a_stream_carries_both_directions_to_their_end() {
    let world = World::new();
    let (a, b) = world.friends();
    let listening = b.spawn_until(&["recv", "1000", "--reply", "the answer"], "listening");
    let answer = a.ok(&["connect", "agent-b", "1000", "--message", "the question"]);
    assert_eq!((answer.as_str(), listening.finish().text().as_str()), ("the answer", "the question"));

    let bytes = noise(3 << 20);
    let back = a.pipe(&["connect", "agent-b", "7"], &bytes);
    assert_eq!((back.status, back.stdout == bytes), (0, true), "{}", back.stderr);
}

#[test]
fn nobody_listening_is_told_at_once() {
    let world = World::new();
    let (a, _b) = world.friends();
    let refused = a.run(&["connect", "agent-b", "4242", "--message", "x", "--json"]);
    assert_eq!(refused.json()["code"], "refused", "{refused:?}");
    assert_ne!(refused.status, 0);
}

#[test]
fn a_file_arrives_whole_and_checked() {
    let world = World::new();
    let (a, b) = world.friends();
    let content = noise(2 << 20);
    std::fs::write(a.home.join("report.bin"), &content).unwrap();
    let sent = a.json(&["send-file", "agent-b", "report.bin"]);
    assert_eq!((sent["bytes"].as_u64(), sent["verified"].as_bool()), (Some(2 << 20), Some(true)));
    let received = b.json(&["received"]);
    let path = received["files"][0]["path"].as_str().unwrap();
    assert!(std::fs::read(path).unwrap() == content);
    assert_eq!(a.run(&["send-file", "agent-b", "nothing.bin"]).status, 5);
}

#[test]
fn events_reach_subscribers_by_topic_alone_by_pattern_and_at_a_node() {
    let world = World::new();
    let (a, b) = world.friends();
    for (subscribe, publish) in [
        (&["subscribe", "agent-a.tasks"][..], &["publish", "agent-a.tasks", r#"{"id":1}"#][..]),
        (&["subscribe", "agent-a.*"], &["publish", "agent-a.tasks", "--data", r#"{"id":1}"#]),
        (&["subscribe", "agent-a", "agent-a.tasks"], &["publish", "agent-a.tasks", r#"{"id":1}"#]),
    ] {
        let words = [subscribe, &["--count", "1", "--timeout", "20s"]].concat();
        let waiting = b.spawn_until(&words, "subscribed");
        a.ok(publish);
        assert_eq!(waiting.finish().text(), "[agent-a.tasks] {\"id\":1}\n", "{subscribe:?}");
    }
    let waiting = b.spawn_until(&["subscribe", "direct", "--count", "1", "--timeout", "20s"], "subscribed");
    a.ok(&["publish", "agent-b", "direct", "to you"]);
    assert_eq!(waiting.finish().text(), "[direct] to you\n");
}

#[test]
fn a_silent_topic_ends_with_one_document_that_says_so() {
    let world = World::new();
    let a = world.agent("agent-a");
    let done = a.run(&["subscribe", "nothing", "--count", "1", "--timeout", "50ms", "--json"]);
    assert_eq!(done.status, 6);
    assert_eq!(done.json()["code"], "timeout");
    assert_eq!(done.json()["data"], serde_json::json!({"events": [], "timeout": true}));
}

#[test]
fn datagrams_arrive_at_the_port_they_are_for() {
    let world = World::new();
    let (a, b) = world.friends();
    let listening = b.spawn_until(&["listen", "5000", "--count", "1", "--timeout", "20s"], "listening");
    a.ok(&["ping", "agent-b", "--count", "1"]);
    a.ok(&["dgram", "agent-b", "5000", "--data", "ping"]);
    let heard = listening.finish();
    let from = format!("{}:", a.address());
    assert!(heard.text().starts_with(&from) && heard.text().ends_with(" ping\n"), "{heard:?}");
}

#[test]
fn every_tunnel_is_encrypted_and_its_other_end_proved() {
    let world = World::new();
    let (a, _b) = world.friends();
    a.ok(&["ping", "agent-b"]);
    let peers = a.json(&["peers"]);
    assert_eq!(peers["total"], 1);
    assert_eq!(
        (&peers["peers"][0]["encrypted"], &peers["peers"][0]["authenticated"]),
        (&true.into(), &true.into())
    );
}

#[test]
fn names_tags_and_visibility_are_set_and_seen_by_a_friend() {
    let world = World::new();
    let (a, b) = world.friends();
    b.ok(&["set-hostname", "renamed"]);
    assert_eq!(a.json(&["find", "renamed"])["address"], b.address());
    b.ok(&["set-tags", "gpu", "#llm"]);
    assert_eq!(a.json(&["search", "--tag", "gpu", "--tag", "llm"])["nodes"][0]["address"], b.address());
    assert_eq!(a.json(&["search", "cpu"])["total"], 0);
    assert_eq!(b.json(&["set-public"])["visibility"], "public");
    assert_eq!(b.json(&["set-visibility", "private"])["visibility"], "private");
    let taken = a.run(&["set-hostname", "renamed", "--json"]);
    assert_eq!((taken.status, taken.json()["code"].as_str()), (1, Some("already_exists")), "{taken:?}");
}

#[test]
fn untrust_ends_the_relation_and_reject_declines_it() {
    let world = World::new();
    let (a, b) = world.friends();
    a.ok(&["untrust", "agent-b"]);
    assert_eq!(a.run(&["send-message", &b.address(), "x", "--now"]).status, 4);
    let again = a.run(&["untrust", "agent-b", "--json"]);
    assert_eq!((again.status, again.json()["code"].as_str()), (5, Some("not_found")));

    let c = world.agent("agent-c");
    let asking = c.spawn(&["handshake", &b.address(), "please", "--wait=20s", "--json"]);
    b.ok(&["pending", "--wait=20s"]);
    b.ok(&["reject", "agent-c", "not now"]);
    let declined = asking.finish();
    assert_eq!(declined.status, 4, "{declined:?}");
    assert_eq!(declined.json()["data"]["status"], "rejected");
}
