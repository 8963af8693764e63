//! Registries that are away, hang, or move.

use std::time::{Duration, Instant};

use crate::common::{Daemon, Home, Rendezvous};
use crate::streams::Pair;
use pilot_wire::ipc::{Call, Code, Request, Resolved, Status};
use pilot_wire::{Addr, NodeId, Port};
use tokio::net::TcpListener;

/// Takes connections and says nothing.
async fn hanging_registry() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    (address, task)
}

#[tokio::test]
async fn with_a_registry_that_hangs_known_peers_are_served_and_others_fail_in_two_seconds() {
    let Pair { a, b, rendezvous, homes } = Pair::of_friends().await;
    let mut program = a.program().await;
    program.dial(b.at(Port::ECHO)).await.unwrap();
    let mut config = a.config.clone();
    a.kill().await;
    let (address, hanging) = hanging_registry().await;
    config.registries = vec![address];
    let a = Daemon::start(config).await;
    assert!(!a.running.registered);
    let mut program = a.program().await;
    let echo = program.dial(b.at(Port::ECHO)).await.expect("a known peer needs no registry");
    program.send(echo, b"hello").await;
    assert_eq!(program.read(echo, 5).await, b"hello");

    let begin = Instant::now();
    let nobody = Addr::backbone(NodeId(4711)).port(Port(7));
    let failure = program.dial(nobody).await.unwrap_err();
    assert_eq!(failure.code, Code::RegistryUnreachable);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    hanging.abort();
    drop((rendezvous, homes));
}

#[tokio::test]
async fn a_daemon_starts_without_its_registry_and_registers_when_it_appears() {
    let mut rendezvous = Rendezvous::start().await;
    rendezvous.kill().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    assert!(!daemon.running.registered && daemon.running.registry_error.is_some());
    let mut program = daemon.program().await;
    let failure = program.dial(daemon.at(Port::ECHO)).await.unwrap_err();
    assert_eq!(failure.code, Code::NotRegistered);
    rendezvous.restart().await;
    crate::common::within("the registration", async {
        loop {
            let status: Status = program.json(Request::Call(Call::Status)).await;
            if status.registry.connected && status.node_id != NodeId::UNSET {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_second_registry_of_the_list_takes_over() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let mut config = home.config(&rendezvous);
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    config.registries.insert(0, dead.to_string());
    let daemon = Daemon::start(config).await;
    let mut program = daemon.program().await;
    crate::common::within("the second registry", async {
        loop {
            let status: Status = program.json(Request::Call(Call::Status)).await;
            if status.registry.connected {
                return assert_eq!(status.registry.address, rendezvous.registry.to_string());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn names_are_found_by_trusted_peers_and_remembered_when_the_registry_is_away() {
    let Pair { a, b, mut rendezvous, homes } = Pair::of_friends().await;
    let mut at_b = b.program().await;
    at_b.call(Request::SetHostname { name: "worker" }).await.unwrap();
    let mut at_a = a.program().await;
    let found: Resolved = at_a.json(Request::Call(Call::Resolve { target: "worker".to_owned() })).await;
    assert_eq!(found.node_id, b.node());
    let failure = at_a.call(Request::Call(Call::Resolve { target: "nobody".to_owned() })).await.unwrap_err();
    assert_eq!(failure.code, Code::NotFound);
    rendezvous.kill().await;
    let found: Resolved = at_a.json(Request::Call(Call::Resolve { target: "worker".to_owned() })).await;
    assert_eq!(found.node_id, b.node());
    drop(homes);
}

#[tokio::test]
async fn a_rotated_key_keeps_address_and_trust_and_survives_a_restart() {
    let Pair { a, b, rendezvous, homes } = Pair::of_friends().await;
    let (node, config) = (a.node(), a.config.clone());
    let mut program = a.program().await;
    program.call(Request::RotateKey).await.unwrap();
    a.kill().await;
    let a = Daemon::start(config).await;
    assert_eq!(a.node(), node);
    let echo = b.program().await.dial(a.at(Port::ECHO)).await;
    echo.expect("the old key signed the change, so the friend takes the new one");
    drop((rendezvous, homes));
}

#[tokio::test]
async fn a_rotation_interrupted_after_the_registry_agreed_is_finished_at_the_next_start() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let (node, config) = (daemon.node(), daemon.config.clone());
    let memory = config.home.join("node.json");
    let before = [std::fs::read(&config.identity).unwrap(), std::fs::read(&memory).unwrap()];
    daemon.program().await.call(Request::RotateKey).await.unwrap();
    daemon.kill().await;
    // As if the reply had not come: the old files, and the new key where it was put first.
    std::fs::rename(&config.identity, config.identity.with_extension("json.next")).unwrap();
    std::fs::copy(config.identity.with_extension("json.next"), &config.identity).unwrap();
    std::fs::write(&config.identity, &before[0]).unwrap();
    std::fs::write(&memory, &before[1]).unwrap();

    let daemon = Daemon::start(config).await;
    assert_eq!(daemon.node(), node);
    assert!(daemon.running.registered);
}
