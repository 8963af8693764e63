//! Killed and started again: address, trust and ports are what they were.

use crate::common::{Daemon, Home, Rendezvous};
use crate::streams::Pair;
use pilot_wire::Port;

async fn echo_works(from: &Daemon, to: &Daemon) {
    let mut program = from.program().await;
    let echo = program.dial(to.at(Port::ECHO)).await.unwrap();
    program.send(echo, b"hello").await;
    assert_eq!(program.read(echo, 5).await, b"hello");
}

#[tokio::test]
async fn a_killed_daemon_comes_back_with_its_address_and_trust() {
    let Pair { a, b, rendezvous, homes } = Pair::of_friends().await;
    let (node, config) = (a.node(), a.config.clone());
    echo_works(&a, &b).await;
    a.kill().await;
    let a = Daemon::start(config).await;
    assert_eq!(a.node(), node);
    echo_works(&a, &b).await;
    echo_works(&b, &a).await;
    drop((rendezvous, homes));
}

#[tokio::test]
async fn a_peer_that_was_killed_is_reached_again_by_the_one_that_stayed() {
    let Pair { a, b, rendezvous, homes } = Pair::of_friends().await;
    echo_works(&a, &b).await;
    let config = b.config.clone();
    b.kill().await;
    let b = Daemon::start(config).await;
    // The one that stayed speaks first, with the keys of the peer's earlier life.
    echo_works(&a, &b).await;
    drop((rendezvous, homes));
}

#[tokio::test]
async fn trust_is_on_disk_before_anybody_is_told_of_it() {
    let Pair { a, b, rendezvous, homes } = Pair::of_friends().await;
    // Killed at once, with nothing in between.
    let configs = [a.config.clone(), b.config.clone()];
    a.kill().await;
    b.kill().await;
    let [a, b] = configs;
    let a = Daemon::start(a).await;
    let b = Daemon::start(b).await;
    echo_works(&a, &b).await;
    drop((rendezvous, homes));
}

#[tokio::test]
async fn a_decision_that_cannot_be_written_is_not_confirmed() {
    use pilot_wire::ipc::Handshake;
    let Pair { a, b, rendezvous, homes } = Pair::of_friends().await;
    // What is in the way of the file keeps root, too, from writing it.
    let file = homes[0].path().join("trust.json");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("in the way")).unwrap();
    let mut program = a.program().await;
    let refused = program.handshake(Handshake::Revoke { node: b.node() }).await;
    assert!(refused.is_err(), "{refused:?}");
    drop((rendezvous, b));
}

#[tokio::test]
async fn a_killed_rendezvous_comes_back_and_everybody_goes_on() {
    let Pair { a, b, mut rendezvous, homes } = Pair::of_friends().await;
    echo_works(&a, &b).await;
    rendezvous.kill().await;
    echo_works(&a, &b).await;
    rendezvous.restart().await;
    let home = Home::new();
    let c = Daemon::start(home.config(&rendezvous)).await;
    assert_ne!(c.node(), a.node());
    crate::common::befriend(&c, &a).await;
    echo_works(&c, &a).await;
    drop(homes);
}

#[tokio::test]
async fn an_approval_given_while_the_registry_is_away_arrives_when_it_is_back() {
    use crate::common::{PATIENCE, wait_pending};
    use pilot_wire::ipc::{Handshake, Request, Waited};
    let mut rendezvous = Rendezvous::start().await;
    let homes = [Home::new(), Home::new()];
    let a = Daemon::start(homes[0].config(&rendezvous)).await;
    let b = Daemon::start(homes[1].config(&rendezvous)).await;
    let mut at_a = a.program().await;
    let mut at_b = b.program().await;
    at_a.handshake(Handshake::Send { node: b.node(), justification: "tests" }).await.unwrap();
    wait_pending(&mut at_b, a.node()).await;
    rendezvous.kill().await;
    at_b.handshake(Handshake::Approve { node: a.node() }).await.unwrap();
    rendezvous.restart().await;
    let waited: Waited =
        at_a.json(Request::Handshake(Handshake::Wait { node: b.node(), timeout: PATIENCE })).await;
    assert!(waited.trusted);
    echo_works(&a, &b).await;
}

#[tokio::test]
async fn an_orderly_end_removes_socket_and_process_id() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let (socket, pid) = (daemon.config.socket.clone(), daemon.config.pid_path());
    assert!(socket.exists() && pid.exists());
    daemon.stop().await;
    assert!(!socket.exists() && !pid.exists());
}

#[tokio::test]
async fn a_second_daemon_on_the_same_state_is_refused() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let mut second = home.config(&rendezvous);
    second.socket = home.path().join("other.sock");
    let error = pilot_daemon::run(second, |_| {}, std::future::pending()).await.unwrap_err();
    assert_eq!(error.code(), "already_exists");
    drop(daemon);
}
