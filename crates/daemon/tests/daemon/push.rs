//! What reaches a node without its asking.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilot_wire::Port;
use pilot_wire::ipc::{Handshake, PendingList, Request};

use crate::common::{Daemon, Home, Rendezvous, befriend, within};
use crate::gate::told;
use crate::streams::Pair;

#[tokio::test]
async fn a_request_for_trust_is_pending_at_the_other_side_at_once() {
    let rendezvous = Rendezvous::start().await;
    let homes = [Home::new(), Home::new()];
    let a = Daemon::start(homes[0].config(&rendezvous)).await;
    let b = Daemon::start(homes[1].config(&rendezvous)).await;
    let (mut at_a, mut at_b) = (a.program().await, b.program().await);
    let begin = Instant::now();
    at_a.handshake(Handshake::Send { node: b.node(), justification: "tests" }).await.unwrap();
    within("the request", async {
        loop {
            let list: PendingList = at_b.json(Request::Handshake(Handshake::Pending)).await;
            if !list.pending.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    told("handshake to pending", begin.elapsed());
}

#[tokio::test]
async fn where_a_friend_went_is_known_before_it_is_called() {
    let Pair { a, b, rendezvous, homes } = Pair::of_friends().await;
    let mut config = b.config.clone();
    b.stop().await;
    let port = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    config.listen = SocketAddr::from(([127, 0, 0, 1], port));
    let begin = Instant::now();
    let b = Daemon::start(config).await;
    let memory = homes[0].path().join("node.json");
    within("the news", async {
        loop {
            let kept = std::fs::read_to_string(&memory).unwrap_or_default();
            if kept.contains(&format!("127.0.0.1:{port}")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    told("a friend's new address", begin.elapsed());
    let mut program = a.program().await;
    let echo = program.dial(b.at(Port::ECHO)).await.unwrap();
    program.send(echo, b"hello").await;
    assert_eq!(program.read(echo, 5).await, b"hello");
    drop(rendezvous);
}

#[tokio::test]
async fn friends_of_one_registry_are_friends_after_its_restart() {
    let mut rendezvous = Rendezvous::start().await;
    let homes = [Home::new(), Home::new()];
    let a = Daemon::start(homes[0].config(&rendezvous)).await;
    let b = Daemon::start(homes[1].config(&rendezvous)).await;
    rendezvous.restart().await;
    befriend(&a, &b).await;
}
