//! Several rendezvous as processes, one of which is killed or stopped, and what protects the way to them.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "tests say what they measured")]

mod common;

use std::time::{Duration, Instant};

use common::{Agent, Rendezvous, World, befriend};

/// Nothing here takes long; this only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(30);

fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begin.elapsed()
}

fn is_at(agent: &Agent, rendezvous: &Rendezvous) -> bool {
    let status = agent.json(&["status"]);
    status["registered"] == true && status["registry"] == rendezvous.registry.as_str()
}

/// Two friends at the first of three rendezvous. They know nothing of each other, but gave out the same numbers.
fn friends(world: &World) -> (Vec<Rendezvous>, Agent, Agent) {
    let all: Vec<_> =
        ["one", "two", "three"].map(|name| Rendezvous::start(world.directory.path().join(name), &[])).into();
    let (mut a, mut b) = (world.machine("agent-a"), world.machine("agent-b"));
    for rendezvous in all.iter().rev() {
        for agent in [&mut a, &mut b] {
            agent.set_registry(&rendezvous.registry, &rendezvous.beacon);
            agent.start(&[]);
            agent.kill();
        }
    }
    let list =
        |part: fn(&Rendezvous) -> &String| all.iter().map(|r| part(r).as_str()).collect::<Vec<_>>().join(",");
    for agent in [&mut a, &mut b] {
        agent.set_registry(&list(|r| &r.registry), &list(|r| &r.beacon));
        agent.start(&[]);
    }
    befriend(&a, &b);
    (all, a, b)
}

#[test]
fn of_three_registries_the_next_takes_over_from_one_that_is_killed_and_one_that_is_stopped() {
    let world = World::new();
    let (mut all, a, b) = friends(&world);
    assert!(is_at(&a, &all[0]) && is_at(&b, &all[0]));

    all[0].kill();
    let took = until("the second registry", || is_at(&a, &all[1]) && is_at(&b, &all[1]));
    println!("registered at the second {} ms after a kill", took.as_millis());
    a.ok(&["send-message", "agent-b", "told after the kill", "--until", "stored"]);
    assert_eq!(a.json(&["info"])["beacon_addr"], all[1].beacon.as_str());

    all[1].freeze();
    let begin = Instant::now();
    a.ok(&["lookup", &b.address()]);
    println!("answered {} ms after a stop", begin.elapsed().as_millis());
    let took = until("the third registry", || is_at(&a, &all[2]));
    println!("registered at the third {} ms later", took.as_millis());
    a.ok(&["send-message", "agent-b", "told after the stop", "--until", "stored"]);

    // All are gone, and both start anew: what they know of each other is enough.
    all.iter_mut().for_each(Rendezvous::kill);
    let (mut a, mut b) = (a, b);
    for agent in [&mut a, &mut b] {
        agent.kill();
        agent.start_anyhow();
    }
    a.ok(&["send-message", "agent-b", "told without any", "--until", "stored"]);
    assert_eq!(b.json(&["inbox"])["total"], 3);
}

#[test]
fn messages_are_delivered_although_registry_and_beacon_stopped_without_a_word() {
    let world = World::new();
    let (mut all, mut a, b) = friends(&world);
    // One reaches its beacon over the web, the other over UDP.
    a.kill();
    a.set_env("PILOT_TRANSPORT", "web");
    a.start(&[]);
    until("the web", || a.json(&["status"])["transport"] == "web");
    b.ok(&["send-message", "agent-a", "before", "--until", "stored"]);
    all[0].freeze();
    let begin = Instant::now();
    // Each notices it by what it wants itself.
    let to_b = a.spawn(&["send-message", "agent-b", "after", "--until", "stored"]);
    b.ok(&["send-message", "agent-a", "after", "--until", "stored"]);
    let to_b = to_b.finish();
    assert_eq!(to_b.status, 0, "{to_b:?}");
    println!("both at the second, messages delivered {} ms after a stop", begin.elapsed().as_millis());
    all.clear();
}

#[test]
fn a_changed_certificate_is_refused_and_the_user_is_told_how_to_accept_it() {
    let world = World::new();
    let mut rendezvous = Rendezvous::start(world.directory.path().join("one"), &[]);
    let mut a = world.machine("agent-a");
    a.set_registry(&rendezvous.registry, &rendezvous.beacon);
    a.start(&[]);
    let tls = a.json(&["status"])["registry_tls"].clone();
    assert_eq!((&tls["used"], &tls["pinned"]), (&true.into(), &true.into()), "{tls}");
    assert_eq!(tls["fingerprint"], rendezvous.fingerprint.as_str());
    assert!(a.ok(&["info"]).contains("TLS"));

    let before = rendezvous.fingerprint.clone();
    rendezvous.kill();
    rendezvous.lose_certificate();
    rendezvous.restart(&[]);
    until("the refusal", || a.ok(&["status"]).contains("another certificate"));
    let status = a.ok(&["status"]);
    for part in [&before, &rendezvous.fingerprint, "registry_fingerprint"] {
        assert!(status.contains(part), "{part}: {status}");
    }
    a.kill();
    let fingerprint = rendezvous.fingerprint.clone();
    a.start(&["--registry-fingerprint", &fingerprint]);
}

#[test]
fn a_registry_that_takes_tls_only_says_so_to_those_without() {
    let world = World::new();
    let rendezvous = Rendezvous::start(world.directory.path().join("one"), &["--plaintext", "off"]);
    let mut a = world.machine("agent-a");
    a.set_registry(&rendezvous.registry, &rendezvous.beacon);
    a.set_env("PILOT_REGISTRY_TLS", "off");
    a.start_anyhow();
    until("the refusal", || a.ok(&["status"]).contains("TLS only"));
    a.kill();
    a.set_env("PILOT_REGISTRY_TLS", "require");
    a.start(&[]);
}

#[test]
fn a_daemon_that_goes_without_tls_says_that_it_is_not_protected() {
    let world = World::new();
    let mut a = world.machine("agent-a");
    a.set_env("PILOT_REGISTRY_TLS", "off");
    a.start(&[]);
    assert!(a.ok(&["status"]).contains("plaintext, not protected"));
    assert!(a.ok(&["info"]).contains("plaintext, not protected"));
    assert_eq!(a.json(&["info"])["registry_tls"]["used"], false);
}
