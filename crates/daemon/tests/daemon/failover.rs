//! Several registries: one is lost, the next is used, and nobody who knows each other notices.

use std::time::{Duration, Instant};

use pilot_daemon::{Config, Transport};
use pilot_wire::Port;
use pilot_wire::ipc::{Call, Request, Resolved, Status};

use crate::common::{Daemon, Home, Program, Rendezvous, befriend, within};
use crate::gate::{Gate, Passing, told};

/// Two friends, known by the same numbers to two rendezvous that know nothing of each other.
struct World {
    a: Daemon,
    b: Daemon,
    first: Rendezvous,
    second: Rendezvous,
    /// The way to the first registry.
    gate: Gate,
    homes: [Home; 2],
}

impl World {
    async fn new() -> Self {
        let (first, second) = (Rendezvous::start().await, Rendezvous::start().await);
        let gate = Gate::to(first.registry, Passing::Everything).await;
        let homes = [Home::new(), Home::new()];
        for rendezvous in [&second, &first] {
            for home in &homes {
                Daemon::start(home.config(rendezvous)).await.stop().await;
            }
        }
        let a = Daemon::start(Self::config(&homes[0], &gate, &first, &second)).await;
        let b = Daemon::start(Self::config(&homes[1], &gate, &first, &second)).await;
        befriend(&a, &b).await;
        Self { a, b, first, second, gate, homes }
    }

    fn config(home: &Home, gate: &Gate, first: &Rendezvous, second: &Rendezvous) -> Config {
        let mut config = home.config(first);
        config.registries = vec![gate.address.to_string(), second.registry.to_string()];
        config.beacons = vec![first.beacon.to_string(), second.beacon.to_string()];
        config
    }

    /// Waits until the daemon is at the second rendezvous.
    async fn moved(&self, daemon: &Daemon) -> Status {
        let mut program = daemon.program().await;
        let second = self.second.registry.to_string();
        within("the second registry", async {
            loop {
                let status: Status = program.json(Request::Call(Call::Status)).await;
                if status.registry.connected && status.registry.address == second {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

/// The name is asked for until it is found: the peer has to have come there, too.
async fn finds(program: &mut Program, name: &str) -> Resolved {
    within("a name", async {
        loop {
            let asked = program.call(Request::Call(Call::Resolve { target: name.to_owned() })).await;
            if let Ok(found) = asked {
                return serde_json::from_slice(&found[1..]).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn when_a_registry_is_gone_the_next_learns_name_and_trust_and_streams_go_on() {
    let mut world = World::new().await;
    let mut at_a = world.a.program().await;
    world.b.program().await.call(Request::SetHostname { name: "worker" }).await.unwrap();
    let echo = at_a.dial(world.b.at(Port::ECHO)).await.unwrap();
    let begin = Instant::now();
    world.gate.set(Passing::PlainOnly);
    world.first.kill().await;
    at_a.send(echo, b"without").await;
    assert_eq!(at_a.read(echo, 7).await, b"without");
    let status = world.moved(&world.a).await;
    told("registered elsewhere after a kill", begin.elapsed());
    assert_eq!(status.beacon, world.second.beacon.to_string(), "the beacon beside the registry");
    world.moved(&world.b).await;
    // Private nodes are found by name by those alone whose trust is known there.
    assert_eq!(finds(&mut at_a, "worker").await.node_id, world.b.node());
    at_a.send(echo, b"again").await;
    assert_eq!(at_a.read(echo, 5).await, b"again");
    // Whoever comes back does not draw anybody back.
    world.first.resume().await;
    assert_eq!(world.moved(&world.a).await.registry.address, world.second.registry.to_string());
    drop(world.homes);
}

#[tokio::test]
async fn a_question_to_a_registry_that_hangs_is_answered_by_the_next_in_its_two_seconds() {
    let world = World::new().await;
    let mut at_a = world.a.program().await;
    world.gate.set(Passing::Nothing);
    let begin = Instant::now();
    let node = world.b.node();
    let answer = at_a.call(Request::Call(Call::Lookup { node })).await;
    told("answered by the next registry", begin.elapsed());
    answer.expect("the second registry answers in time");
    world.moved(&world.a).await;
    told("registered elsewhere after a hang", begin.elapsed());
    drop(world.homes);
}

#[tokio::test]
async fn a_registry_that_hangs_at_the_start_delays_nobody_long() {
    let world = World::new().await;
    let home = Home::new();
    world.gate.set(Passing::Nothing);
    let begin = Instant::now();
    let c = Daemon::start(World::config(&home, &world.gate, &world.first, &world.second)).await;
    told("started beside a registry that hangs", begin.elapsed());
    assert!(c.running.registered);
    drop(world.homes);
}

#[tokio::test]
async fn friends_who_were_restarted_while_no_rendezvous_runs_reach_each_other() {
    let mut world = World::new().await;
    let echoed = async |from: &Daemon, to: &Daemon| {
        let mut program = from.program().await;
        let echo = program.dial(to.at(Port::ECHO)).await.unwrap();
        program.send(echo, b"hello").await;
        assert_eq!(program.read(echo, 5).await, b"hello");
    };
    echoed(&world.a, &world.b).await;
    echoed(&world.b, &world.a).await;
    world.a.remembers(world.b.node(), "endpoint").await;
    world.b.remembers(world.a.node(), "endpoint").await;
    world.gate.set(Passing::PlainOnly);
    world.first.kill().await;
    world.second.kill().await;
    let (numbers, configs) =
        ([world.a.node(), world.b.node()], [world.a.config.clone(), world.b.config.clone()]);
    world.a.kill().await;
    world.b.kill().await;
    let [a, b] = configs;
    let (a, b) = (Daemon::start(a).await, Daemon::start(b).await);
    assert!(!a.running.registered && !b.running.registered);
    assert_eq!([a.node(), b.node()], numbers);
    let begin = Instant::now();
    echoed(&a, &b).await;
    echoed(&b, &a).await;
    told("reached without any rendezvous", begin.elapsed());
    drop(world.homes);
}

#[tokio::test]
async fn a_node_on_the_web_moves_to_the_beacon_of_the_next_registry_and_its_streams_go_on() {
    let mut first = Rendezvous::start_with_web_beside().await;
    let second = Rendezvous::start_with_web_beside().await;
    let homes = [Home::new(), Home::new()];
    let config = |at: usize| {
        let mut config = homes[at].config(&first);
        config.registries.push(second.registry.to_string());
        config.beacons.push(second.beacon.to_string());
        config.web.transport = if at == 0 { Transport::Web } else { Transport::Udp };
        config
    };
    for (at, home) in homes.iter().enumerate() {
        let mut alone = home.config(&second);
        alone.web.transport = config(at).web.transport;
        Daemon::start(alone).await.stop().await;
    }
    let (a, b) = (Daemon::start(config(0)).await, Daemon::start(config(1)).await);
    befriend(&a, &b).await;
    let mut at_b = b.program().await;
    let echo = at_b.dial(a.at(Port::ECHO)).await.unwrap();
    at_b.send(echo, b"before").await;
    assert_eq!(at_b.read(echo, 6).await, b"before");
    first.kill().await;
    let begin = Instant::now();
    at_b.send(echo, b"after").await;
    assert_eq!(at_b.read(echo, 5).await, b"after");
    let mut at_a = a.program().await;
    within("the second beacon", async {
        loop {
            let status: Status = at_a.json(Request::Call(Call::Status)).await;
            let url = status.web.filter(|web| web.connected).map(|web| web.url);
            if url == Some(second.url()) && status.beacon == second.beacon.to_string() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    told("on the web at the second beacon after a kill", begin.elapsed());
    at_b.send(echo, b"again").await;
    assert_eq!(at_b.read(echo, 5).await, b"again");
}
