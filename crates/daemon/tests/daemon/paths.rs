//! What programs learn about the ways to peers and about the network, and how a peer that is gone is reported.

use std::time::Duration;

use pilot_client::Client;
use pilot_wire::ipc::paths::{Listing, OwnKind, PathKind};
use pilot_wire::ipc::{Call, Code, PeerInfo, Request, Status, TrustState};
use pilot_wire::{Addr, NodeId, Port};

use crate::common::{Daemon, Home, Rendezvous, within};
use crate::streams::Pair;

/// For peers and registries that answer.
const TIME: Duration = Duration::from_secs(10);

async fn client_of(daemon: &Daemon) -> Client {
    Client::connect_to(&daemon.config.socket).await.unwrap()
}

#[tokio::test]
async fn a_friend_that_answers_is_explained_with_its_addresses() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let client = client_of(&a).await;
    let why = within("the answer", client.why(b.node(), TIME)).await.unwrap();
    assert_eq!((why.node_id, why.address), (b.node(), Addr::backbone(b.node())));
    assert_eq!((why.trust, why.registry, why.encrypted), (TrustState::Trusted, Listing::Listed, true));
    let probe = why.probe.expect("it was tried");
    assert!(probe.answered && probe.rtt_us.is_some(), "{why:?}");
    assert!(why.heard_ms.is_some_and(|ms| ms < 10_000), "{why:?}");
    assert!(why.summary.contains(" answers "), "{}", why.summary);
    let listen = b.running.listen;
    assert!(why.candidates.iter().any(|candidate| candidate.address == listen), "{why:?}");
    assert!(matches!(why.path, PathKind::Direct | PathKind::Relayed), "{why:?}");
    assert!(why.endpoint.is_some(), "{why:?}");
}

#[tokio::test]
async fn who_was_never_met_is_explained_by_what_the_registry_says() {
    let rendezvous = Rendezvous::start().await;
    let homes = [Home::new(), Home::new()];
    let a = Daemon::start(homes[0].config(&rendezvous)).await;
    let b = Daemon::start(homes[1].config(&rendezvous)).await;
    let client = client_of(&a).await;
    let why = within("the answer", client.why(b.node(), TIME)).await.unwrap();
    assert_eq!((why.registry, why.trust, why.encrypted), (Listing::Private, TrustState::None, false));
    assert!(why.summary.ends_with("is private and does not trust this node yet"), "{}", why.summary);
    assert!(why.probe.is_some_and(|probe| !probe.answered && probe.waited_ms < 10_000), "{why:?}");

    let nobody = within("the answer", client.why(NodeId(4711), TIME)).await.unwrap();
    assert_eq!(nobody.registry, Listing::NotFound);
    assert_eq!(nobody.summary, "node 4711 is not known to the registry");
}

#[tokio::test]
async fn without_a_try_nobody_is_asked() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let a = Daemon::start(home.config(&rendezvous)).await;
    let client = client_of(&a).await;
    let why = client.why(NodeId(4711), Duration::ZERO).await.unwrap();
    assert_eq!((why.registry, why.probe, why.path), (Listing::NotAsked, None, PathKind::Unknown));
    assert_eq!(why.summary, "node 4711 was not tried since the daemon started");

    let own = client.why(a.node(), TIME).await.unwrap_err();
    assert_eq!(own.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_friend_that_is_gone_is_reported_with_its_cause_by_dial_ping_and_why() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let client = client_of(&a).await;
    let (node, at) = (b.node(), b.at(Port::ECHO));
    within("the echo", client.dial(at)).await.unwrap();
    b.kill().await;

    let why = within("the answer", client.why(node, Duration::from_secs(2))).await.unwrap();
    assert!(why.probe.is_some_and(|probe| !probe.answered), "{why:?}");
    assert_eq!((why.trust, why.registry), (TrustState::Trusted, Listing::Listed));
    assert!(why.summary.contains(" last seen ") && why.summary.contains("; relay: "), "{}", why.summary);

    let dial = within("the failure", client.dial(at)).await.unwrap_err();
    assert_eq!(dial.code(), Code::Unreachable, "{dial}");
    assert!(dial.hint().is_some_and(|hint| hint.contains("pilotctl why")), "{dial:?}");

    let ping = client.call::<serde_json::Value>(Call::Ping { node, size: 8, timeout_ms: 1000 }).await;
    let ping = within("the failure", async { ping }).await.unwrap_err();
    assert_eq!(ping.code(), Code::Unreachable, "{ping}");
    let known = ping.unreachable().expect("what is known goes with it");
    assert_eq!(known.node_id, node);
    assert!(known.last_seen_secs.is_some_and(|secs| secs < 60), "{known:?}");
}

#[tokio::test]
async fn a_program_that_leaves_takes_its_questions_with_it() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let a = Daemon::start(home.config(&rendezvous)).await;
    for _ in 0..50 {
        let mut program = a.program().await;
        program.tell(Request::Call(Call::Netcheck { timeout_ms: 60_000 })).await;
        program.tell(Request::Call(Call::Why { node: NodeId(9), timeout_ms: 60_000 })).await;
    }
    let status: Status = a.program().await.json(Request::Call(Call::Status)).await;
    assert_eq!(status.node_id, a.node());
}

#[tokio::test]
async fn a_check_of_the_network_names_beacon_registry_and_addresses() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let a = Daemon::start(home.config(&rendezvous)).await;
    let client = client_of(&a).await;
    let check = within("the check", client.netcheck(TIME)).await.unwrap();
    assert_eq!((check.udp, check.transport.as_str()), (Some(true), "udp"));
    assert_eq!(check.beacon.address, rendezvous.beacon.to_string());
    assert!(check.beacon.answers);
    assert_eq!(check.registry.address, rendezvous.registry.to_string());
    assert!(check.registry.answers && check.registry.rtt_us.is_some(), "{check:?}");
    assert_eq!(check.listen, a.running.listen.to_string());
    assert_eq!(check.observed, Some(a.running.listen), "nothing stands between them");
    assert!(!check.ipv6, "{check:?}");
}

#[tokio::test]
async fn a_registry_that_is_gone_is_found_out_by_the_check() {
    let mut rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let a = Daemon::start(home.config(&rendezvous)).await;
    rendezvous.kill().await;
    let client = client_of(&a).await;
    within("the news", async {
        loop {
            let check = client.netcheck(Duration::from_millis(3500)).await.unwrap();
            if !check.registry.answers {
                assert!(!check.registry.error.is_empty(), "{check:?}");
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn status_says_where_the_node_is_reached_and_peers_how_soon_they_answer() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let client = client_of(&a).await;
    client.why(b.node(), TIME).await.unwrap();
    let status: Status = client.call(Call::Status).await.unwrap();
    assert_eq!((status.beacon_answers, status.transport.as_str()), (Some(true), "udp"));
    let here = |kind| status.candidates.iter().any(|own| own.kind == kind && own.address == a.running.listen);
    assert!(here(OwnKind::Host) || here(OwnKind::Observed), "{status:?}");
    let peers: Vec<PeerInfo> = client.call(Call::Peers).await.unwrap();
    let peer = peers.iter().find(|peer| peer.node_id == b.node()).expect("it is there");
    assert!(!peer.endpoint.is_empty() && peer.idle_ms.is_some(), "{peer:?}");
}
