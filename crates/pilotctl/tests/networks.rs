//! Networks with whole daemons: trust among members, ports, roles, ends, and the directory of service agents.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Agent, OPERATOR, Running, World};
use serde_json::Value;

/// Only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again until it is so. What is waited for comes by notice.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn operator(agent: &mut Agent) {
    agent.set_env("PILOT_ADMIN_TOKEN", OPERATOR);
}

fn trusts(agent: &Agent, peer: &str) -> Option<Value> {
    let trusted = agent.json(&["trust"]);
    trusted["trusted"].as_array().unwrap().iter().find(|row| row["address"] == peer).cloned()
}

fn can_send(from: &Agent, to: &str) -> bool {
    from.run(&["send-message", to, "hello", "--now"]).status == 0
}

#[test]
fn members_of_a_network_talk_without_a_handshake_and_no_longer_than_they_are_members() {
    let world = World::new();
    let (mut a, b, c) = (world.agent("agent-a"), world.agent("agent-b"), world.agent("agent-c"));
    operator(&mut a);
    assert!(!can_send(&b, "agent-a"), "strangers");
    a.ok(&["network", "create", "team"]);
    b.ok(&["network", "join", "team"]);
    assert!(can_send(&b, "agent-a") && can_send(&a, "agent-b"));
    let row = trusts(&a, &b.address()).unwrap();
    assert_eq!((row["network"].as_u64(), row["network_name"].as_str()), (Some(1), Some("team")), "{row}");
    assert!(row["key_fingerprint"].is_string(), "its key is pinned: {row}");
    assert!(a.ok(&["trust"]).contains("network team"));
    assert_eq!(a.json(&["peers"])["peers"][0]["networks"][0], 1);
    assert!(a.ok(&["why", "agent-b", "--no-try"]).contains("network 1"));
    assert!(a.ok(&["info"]).contains("team"));

    // Who joins without trust is a stranger to the others as far as it is concerned.
    c.ok(&["network", "join", "team", "--no-trust"]);
    assert!(!can_send(&b, "agent-c"));
    c.ok(&["network", "trust", "team", "on"]);
    assert!(can_send(&b, "agent-c"));
    c.ok(&["network", "trust", "team", "off"]);
    assert!(trusts(&c, &b.address()).is_none());

    b.ok(&["network", "leave", "team"]);
    assert!(trusts(&b, &a.address()).is_none(), "at once for who leaves");
    until("the other side knows", || trusts(&a, &b.address()).is_none().then_some(()));
    assert!(!can_send(&b, "agent-a"));
}

#[test]
fn trust_among_members_survives_a_restart_without_a_registry() {
    let mut world = World::new();
    let (mut a, mut b) = (world.agent("agent-a"), world.agent("agent-b"));
    operator(&mut a);
    a.ok(&["network", "create", "team"]);
    b.ok(&["network", "join", "team"]);
    assert!(can_send(&b, "agent-a") && can_send(&a, "agent-b"));
    // What was learned of a peer is written a moment after it was met.
    until("both remember where the other is", || {
        let remembers = |agent: &Agent| {
            let text = std::fs::read_to_string(agent.home.join("node.json")).unwrap();
            let memory: Value = serde_json::from_str(&text).unwrap();
            memory["peers"].as_object().is_some_and(|peers| {
                peers.values().any(|peer| peer["endpoint"].is_string() && peer["hostname"].is_string())
            })
        };
        (remembers(&a) && remembers(&b)).then_some(())
    });
    world.kill_rendezvous();
    a.kill();
    b.kill();
    a.start_anyhow();
    b.start_anyhow();
    assert!(trusts(&a, &b.address()).is_some() && trusts(&b, &a.address()).is_some());
    assert!(can_send(&b, "agent-a"));
}

#[test]
fn an_owner_needs_no_token_and_a_member_that_is_kicked_is_trusted_no_more() {
    let world = World::new();
    let (a, b) = (world.agent("agent-a"), world.agent("agent-b"));
    let mut operated = world.agent("desk");
    operator(&mut operated);
    let refused = a.run(&["network", "create", "team", "--json"]);
    assert_eq!(refused.status, 4, "{refused:?}");
    assert!(refused.json()["hint"].as_str().unwrap().contains("PILOT_ADMIN_TOKEN"));
    operated.ok(&["network", "create", "team", "--enterprise", "--node-id", "agent-a"]);
    b.ok(&["network", "join", "team"]);
    until("the owner knows of its network", || {
        a.json(&["network", "mine"])["networks"][0]["role"].as_str().filter(|role| *role == "owner").map(drop)
    });
    assert!(trusts(&a, &b.address()).is_none(), "others put this node into the network");
    a.ok(&["network", "trust", "team", "on"]);
    until("it does now", || trusts(&a, &b.address()));
    assert!(can_send(&b, "agent-a"));

    assert_eq!(a.json(&["network", "promote", "team", "agent-b"])["role"], "admin");
    assert_eq!(a.json(&["network", "role", "team", "agent-b"])["role"], "admin");
    assert_eq!(a.json(&["network", "demote", "team", "agent-b"])["role"], "member");
    assert_eq!(a.json(&["network", "tags", "team", "agent-b", "gpu", "linux"])["tags"][1], "linux");
    assert!(a.ok(&["network", "tags", "team", "agent-b"]).contains("gpu linux"));
    let policy = a.json(&["network", "policy", "set", "team", "--max-members", "5", "--description", "ours"]);
    assert_eq!((policy["max_members"].as_u64(), policy["description"].as_str()), (Some(5), Some("ours")));
    assert_eq!(a.json(&["network", "policy", "team", "--set", "max_members=6"])["max_members"], 6);
    assert_eq!(b.run(&["network", "kick", "team", "agent-a"]).status, 4, "a member is no admin");
    assert_eq!(a.json(&["network", "rename", "team", "crew"])["name"], "crew");

    a.ok(&["network", "kick", "crew", "agent-b"]);
    until("the owner's daemon knows", || trusts(&a, &b.address()).is_none().then_some(()));
    until("so does the one that was kicked", || trusts(&b, &a.address()).is_none().then_some(()));
    assert!(!can_send(&b, "agent-a"));
    let log = operated.json(&["audit", "--network", "crew", "--limit", "3"]);
    assert_eq!(log["entries"][0]["action"], "member.kicked", "{log}");
    assert_eq!(a.run(&["audit"]).status, 4);
    a.ok(&["network", "delete", "crew"]);
    assert!(a.ok(&["network", "mine"]).contains("in no network"));
}

#[test]
fn a_network_opens_the_ports_it_says_and_a_handshake_opens_the_rest() {
    let world = World::new();
    let (mut a, b) = (world.agent("agent-a"), world.agent("agent-b"));
    operator(&mut a);
    a.ok(&["network", "create", "team", "--enterprise"]);
    b.ok(&["network", "join", "team"]);
    assert!(can_send(&b, "agent-a"));
    a.ok(&["network", "policy", "team", "--ports", "1002"]);
    until("the limit holds", || {
        (a.run(&["policy", "test", "agent-b", "--port", "1001"]).status == 4).then_some(())
    });
    let test = a.run(&["policy", "test", "agent-b", "--port", "1001", "--json"]).json();
    assert!(test["data"]["reason"].as_str().unwrap().contains("network team (1)"), "{test}");
    assert_eq!(a.run(&["policy", "test", "agent-b", "--port", "1002"]).status, 0);
    assert!(!can_send(&b, "agent-a"));
    b.ok(&["handshake", "agent-a", "--wait=20s"]);
    assert_eq!(
        a.run(&["policy", "test", "agent-b", "--port", "1001"]).status,
        4,
        "one side alone lifts no limit"
    );
    a.ok(&["handshake", "agent-b", "--wait=20s"]);
    // Both trust each other all the time, so that there is nothing that `--wait` could wait for.
    until("the owners have agreed", || {
        (a.run(&["policy", "test", "agent-b", "--port", "1001"]).status == 0).then_some(())
    });
    assert!(can_send(&b, "agent-a"), "a handshake is more than a network");
}

#[test]
fn one_member_can_be_left_out_and_taken_in_again() {
    let world = World::new();
    let (mut a, b) = (world.agent("agent-a"), world.agent("agent-b"));
    operator(&mut a);
    a.ok(&["network", "create", "team"]);
    b.ok(&["network", "join", "team"]);
    assert!(can_send(&b, "agent-a"));
    a.ok(&["untrust", &b.address()]);
    assert!(trusts(&a, &b.address()).is_none());
    assert!(!can_send(&b, "agent-a"));
    a.ok(&["handshake", "agent-b", "--wait=20s"]);
    assert!(can_send(&b, "agent-a"));
}

#[test]
fn an_end_of_the_membership_and_of_the_key_is_shown_and_kept() {
    let world = World::new();
    let (mut a, b) = (world.agent("agent-a"), world.agent("agent-b"));
    operator(&mut a);
    a.ok(&["network", "create", "corp", "--enterprise"]);
    b.ok(&["network", "join", "corp"]);
    assert!(can_send(&b, "agent-a"));
    assert_eq!(b.run(&["network", "expire", "corp", "agent-a", "1h"]).status, 4, "a member is no admin");
    let expires = a.json(&["network", "expire", "corp", "agent-b", "2s"]);
    assert!(expires["expires_at"].is_string(), "{expires}");
    until("the membership has ended", || trusts(&a, &b.address()).is_none().then_some(()));
    until("who was the member knows", || {
        b.json(&["network", "mine"])["networks"].as_array().unwrap().is_empty().then_some(())
    });
    let key = a.json(&["key", "expire", "30d"]);
    assert!(key["expires_at"].is_string(), "{key}");
    assert_eq!(a.json(&["key", "info"])["expires_at"], key["expires_at"]);
    a.ok(&["key", "expire", "never"]);
    assert!(a.ok(&["key", "info"]).contains("ends      never"));
    assert_eq!(b.run(&["key", "expire", "30d"]).status, 4, "it is in no enterprise network any more");
}

#[test]
fn an_operator_provisions_a_network_from_a_blueprint() {
    let world = World::new();
    let mut a = world.agent("agent-a");
    operator(&mut a);
    let blueprint = r#"{"name":"corp","enterprise":true,"policy":{"allowed_ports":[1001]}}"#;
    let done = a.pipe(&["provision", "-", "--json"], blueprint.as_bytes()).json();
    assert_eq!((&done["data"]["created"], &done["data"]["network_id"]), (&true.into(), &1.into()), "{done}");
    let done = a.pipe(&["provision", "-", "--json"], blueprint.as_bytes()).json();
    assert_eq!(done["data"]["created"], false, "{done}");
    assert_eq!(a.json(&["provision-status"])["networks"][0]["name"], "corp");
    let wrong = a.pipe(&["provision", "-", "--json"], br#"{"name":"x","webhooks":{"audit_url":"http://x"}}"#);
    assert_ne!(wrong.status, 0);
    assert!(wrong.json()["message"].as_str().unwrap().contains("webhooks cannot be had"), "{wrong:?}");
}

#[test]
fn networks_do_what_their_document_shows() {
    common::tour::check("docs/networks.md", &["alice", "bob"], 20);
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/agents").join(name)
}

/// A data agent of the examples: joins, publishes its card, serves.
fn data_agent(world: &World, name: &str) -> (Agent, Running) {
    let agent = world.agent(name);
    agent.ok(&["network", "join", "9"]);
    let folder = example(name);
    agent.ok(&["agent", "publish", folder.join("card.json").to_str().unwrap()]);
    let program = format!("python3 {}", folder.join("agent.py").display());
    let serving = agent.spawn_until(&["serve", "--all", "--exec", &program], "serving");
    (agent, serving)
}

#[test]
fn data_agents_on_network_9_are_found_through_list_agents_and_asked_without_handshakes() {
    let world = World::new();
    let mut directory = world.agent("list-agents");
    operator(&mut directory);
    directory.ok(&["network", "create", "data-agents", "--network-id", "9"]);
    let _answering = directory.spawn_until(&["agent", "directory", "--network", "9"], "serving");
    let _agents = ["cities", "elements", "units"].map(|name| data_agent(&world, name));
    let client = world.agent("client");
    client.ok(&["network", "join", "data-agents"]);

    let listed = client.json(&["agent", "list"]);
    assert_eq!((listed["total"].as_u64(), listed["refused"].as_u64()), (Some(3), Some(0)), "{listed}");
    assert_eq!(client.json(&["agent", "list", "--tag", "geo"])["agents"][0]["name"], "cities");
    assert!(client.ok(&["agent", "show", "elements"]).contains("molar mass"));
    assert_eq!(client.run(&["agent", "show", "nobody"]).status, 5);

    let ask = |to: &str, text: &str| -> Value {
        let answer = client.ok(&["send-message", to, "--data", text, "--wait"]);
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    };
    let found = ask("list-agents", "weather in Berlin");
    assert_eq!(
        found["agents"][0]["name"], "cities",
        "nobody knows the weather, but somebody knows Berlin: {found}"
    );
    let found = ask("list-agents", r#"{"text":"","tag":"chemistry","limit":1}"#);
    assert_eq!(found["agents"][0]["name"], "elements", "{found}");
    let address = found["agents"][0]["address"].as_str().unwrap();
    assert!(address.starts_with("9:"), "{address}");
    assert_eq!(ask(address, "mass H2O")["molar_mass"], 18.015, "by the address on the card");
    assert_eq!(ask("cities", "distance Berlin Tokyo")["kilometres"], 8917);
    assert_eq!(ask("units", "10 miles in km")["value"], 16.0934);

    // Without waiting: the answer lies in the inbox, as those of released data agents do.
    client.ok(&["send-message", "list-agents", "--data", "miles"]);
    let reply =
        client.json(&["inbox", "wait", "--from", "list-agents", "--match", "units", "--timeout", "20s"]);
    assert!(reply.to_string().contains("conversion"), "{reply}");
    let none = client.json(&["trust"]);
    let rows = none["trusted"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["network"] == 9), "no handshakes: {none}");

    let stranger = world.agent("stranger");
    assert_eq!(stranger.run(&["agent", "list", "--network", "9"]).status, 4);
    assert_ne!(stranger.run(&["send-message", "cities", "Berlin", "--now"]).status, 0);
}
