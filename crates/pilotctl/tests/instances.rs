//! Two rendezvous over one PostgreSQL database, of which one is killed while it is needed.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "tests say what they measured")]

mod common;
#[allow(dead_code, reason = "the tests of the store use more of it")]
#[path = "../../rendezvous/tests/common/postgres.rs"]
mod postgres;

use std::time::{Duration, Instant};

use common::{Agent, Rendezvous, World, befriend, noise};

/// Nothing here takes long; this only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two rendezvous over one database, and the two agents that know both.
struct Company {
    _world: World,
    both: Vec<Rendezvous>,
    a: Agent,
    b: Agent,
}

impl Company {
    fn new() -> Self {
        let (world, database) = (World::new(), postgres::database());
        let start = |name| Rendezvous::start(world.directory.path().join(name), &["--store", &database.url]);
        let both: Vec<_> = ["one", "two"].map(start).into();
        let (mut a, mut b) = (world.machine("agent-a"), world.machine("agent-b"));
        let list = |part: fn(&Rendezvous) -> &String| format!("{},{}", part(&both[0]), part(&both[1]));
        for agent in [&mut a, &mut b] {
            agent.set_registry(&list(|r| &r.registry), &list(|r| &r.beacon));
        }
        Self { _world: world, both, a, b }
    }

    fn are_at_the_second(&self) -> bool {
        let is_there = |agent: &Agent| {
            let status = agent.json(&["status"]);
            status["registered"] == true && status["registry"] == self.both[1].registry.as_str()
        };
        is_there(&self.a) && is_there(&self.b)
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begin.elapsed()
}

#[test]
fn one_of_two_instances_is_killed_in_the_middle_of_a_story_and_the_other_goes_on_with_it() {
    let mut company = Company::new();
    company.a.start(&[]);
    company.b.start(&[]);
    let (addresses, names) = ([company.a.address(), company.b.address()], ["agent-a", "agent-b"]);
    // Asked at the first, decided at the second.
    company.a.ok(&["handshake", "agent-b", "we work together"]);
    company.both[0].kill();
    let begin = Instant::now();
    until("the request", || {
        company.b.json(&["pending"])["pending"].as_array().is_some_and(|all| !all.is_empty())
    });
    company.b.ok(&["approve", "agent-a"]);
    until("trust", || {
        company.a.ok(&["trust"]).contains("agent-b") || company.a.ok(&["trust"]).contains(&addresses[1])
    });
    company.a.ok(&["send-message", "agent-b", "still here", "--until", "stored"]);
    println!("told {} ms after the kill", begin.elapsed().as_millis());
    let took = until("the second instance", || company.are_at_the_second());
    println!("both are at the second instance {} ms later", took.as_millis());
    for (agent, name) in [(&company.a, names[1]), (&company.b, names[0])] {
        let found = agent.json(&["find", name]);
        let expected = if name == names[1] { &addresses[1] } else { &addresses[0] };
        assert_eq!(found["address"], expected.as_str(), "{found}");
    }
    assert_eq!(company.b.json(&["inbox"])["total"], 1);
}

#[test]
fn a_relayed_transfer_goes_on_when_the_instance_that_relays_it_is_killed() {
    let mut company = Company::new();
    // Reached over the web only: everything to and from it is relayed.
    company.a.set_env("PILOT_TRANSPORT", "web");
    company.a.start(&[]);
    company.b.start(&[]);
    befriend(&company.a, &company.b);
    until("the web", || company.a.json(&["status"])["transport"] == "web");
    let file = company.a.home.join("large.bin");
    let content = noise(48 << 20);
    std::fs::write(&file, &content).unwrap();
    let sending =
        company.a.spawn(&["send-file", "agent-b", file.to_str().unwrap(), "--timeout", "120s", "--json"]);
    let partial = company.b.home.join("received/.partial");
    until("the first part", || {
        std::fs::read_dir(&partial)
            .into_iter()
            .flatten()
            .flatten()
            .any(|part| part.metadata().is_ok_and(|part| part.len() > 4 << 20))
    });
    company.both[0].kill();
    let killed = Instant::now();
    let took = until("the second instance", || company.are_at_the_second());
    let done = sending.finish();
    assert_eq!(done.status, 0, "{done:?}");
    println!(
        "at the second instance after {} ms, sent after {} ms",
        took.as_millis(),
        killed.elapsed().as_millis()
    );
    assert!(
        std::fs::read(company.b.home.join("received/large.bin")).unwrap() == content,
        "what arrived is another file"
    );
}
