//! What nodes say of themselves: published, used where no registry answers, and changed keys that friends accept.

use std::time::Duration;

use pilot_daemon::{Config, RecoverError, make_recovery_key, recover};
use pilot_wire::ipc::{
    Call, Handshake, KeyChangedBy, Recovery, RecoveryChange, Request, Resolved, Trusted, TrustedList, Waited,
};
use pilot_wire::record::{NodeRecord, SignedRecord};
use pilot_wire::{Addr, NodeId, Port};
use serde_json::Value;

use crate::common::{Daemon, PATIENCE, within};
use crate::streams::Pair;

/// What the registry has of `node`, as it wishes to be shown to the daemon, once it is as wished.
async fn published(at: &Daemon, node: NodeId, wished: impl Fn(&NodeRecord) -> bool) -> NodeRecord {
    let mut program = at.program().await;
    within("the record", async {
        loop {
            let found: Value = program.json(Request::Call(Call::Lookup { node })).await;
            let signed = found["record"].as_str().map(|text| SignedRecord::from_text(text).unwrap());
            let record = signed.map(|signed| NodeRecord::parse(&signed.bytes).unwrap());
            if let Some(record) = record.filter(&wished) {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

async fn trusted(at: &Daemon, node: NodeId) -> Trusted {
    let list: TrustedList = at.program().await.json(Request::Handshake(Handshake::Trusted)).await;
    list.trusted.into_iter().find(|trusted| trusted.node_id == node).unwrap()
}

/// Waits until A has the key of a friend, which it looks up after the friend has agreed.
async fn pinned(at: &Daemon, node: NodeId) {
    within("the pinned key", async {
        while trusted(at, node).await.public_key.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_record_is_published_and_follows_every_change() {
    let Pair { a, b, rendezvous, homes } = Pair::of_friends().await;
    let first = published(&a, b.node(), |_| true).await;
    assert_eq!(first.endpoints, [b.running.listen]);
    let mut program = b.program().await;
    program.call(Request::SetHostname { name: "worker" }).await.unwrap();
    program.call(Request::SetTags { tags: vec!["ml".to_owned()] }).await.unwrap();
    program.call(Request::SetVisibility { public: true }).await.unwrap();
    let last = published(&a, b.node(), |record| record.public).await;
    assert_eq!((last.hostname.as_str(), &last.tags[..]), ("worker", &["ml".to_owned()][..]));
    assert!(last.seq > first.seq);
    drop((rendezvous, homes));
}

#[tokio::test]
async fn a_number_follows_from_the_key_and_comes_back_at_a_registry_that_lost_everything() {
    let Pair { a, rendezvous, homes, .. } = Pair::of_friends().await;
    let (node, mut config) = (a.node(), a.config.clone());
    a.stop().await;
    let fresh = crate::common::Rendezvous::start().await;
    config.registries = vec![fresh.registry.to_string()];
    let a = Daemon::start(config).await;
    assert!(a.running.registered);
    assert_eq!(a.node(), node);
    drop((rendezvous, homes));
}

#[tokio::test]
async fn a_record_that_was_seen_once_is_enough_when_no_registry_answers() {
    let Pair { a, b, mut rendezvous, homes } = Pair::of_friends().await;
    let record = published(&a, b.node(), |record| !record.endpoints.is_empty()).await;
    pinned(&a, b.node()).await;
    a.remembers(b.node(), "record").await;
    let mut config = a.config.clone();
    a.kill().await;
    rendezvous.kill().await;
    config.beacons.clear();
    // However long ago: nothing but the record is left of what A knew of the way.
    let path = config.home.join("node.json");
    let mut memory: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let peer = &mut memory["peers"][b.node().to_string()];
    peer.as_object_mut().unwrap().remove("endpoint");
    assert!(peer["record"].is_string(), "{peer}");
    std::fs::write(&path, serde_json::to_vec(&memory).unwrap()).unwrap();

    let a = Daemon::start(config).await;
    assert!(!a.running.registered);
    let mut program = a.program().await;
    let echo = program.dial(b.at(Port::ECHO)).await.expect("the record says where it is");
    program.send(echo, b"hello").await;
    assert_eq!(program.read(echo, 5).await, b"hello");
    assert_eq!(record.endpoints, [b.running.listen]);
    drop(homes);
}

#[tokio::test]
async fn a_friend_that_was_away_takes_the_key_that_the_old_one_signed() {
    let Pair { a, b, rendezvous, homes } = Pair::of_friends().await;
    let config = a.config.clone();
    pinned(&a, b.node()).await;
    a.stop().await;
    for _ in 0..2 {
        b.program().await.call(Request::RotateKey).await.unwrap();
    }
    let a = Daemon::start(config).await;
    let mut program = a.program().await;
    program.dial(b.at(Port::ECHO)).await.expect("the changes lead from the pinned key to the new one");
    let friend = trusted(&a, b.node()).await;
    assert_eq!(friend.key_changed.unwrap().by, KeyChangedBy::OldKey);
    let status: pilot_wire::ipc::Status = b.program().await.json(Request::Call(Call::Status)).await;
    assert_eq!(friend.public_key, status.public_key);
    drop((rendezvous, homes));
}

#[tokio::test]
async fn a_friend_that_is_there_takes_the_new_key_too() {
    let Pair { a, b, rendezvous, homes } = Pair::of_friends().await;
    let mut program = a.program().await;
    program.dial(b.at(Port::ECHO)).await.unwrap();
    b.program().await.call(Request::RotateKey).await.unwrap();
    within("the new key", async {
        loop {
            program.dial(b.at(Port::ECHO)).await.unwrap();
            if trusted(&a, b.node()).await.key_changed.is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    drop((rendezvous, homes));
}

#[tokio::test]
async fn a_lost_identity_is_replaced_by_its_recovery_key_and_address_name_and_trust_come_back() {
    let Pair { a, b, rendezvous, homes } = Pair::of_friends().await;
    let node = b.node();
    pinned(&a, node).await;
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("recovery.json");
    let key = make_recovery_key(&file).unwrap();
    let mut program = b.program().await;
    program.call(Request::SetHostname { name: "worker" }).await.unwrap();
    let change = Some(RecoveryChange::Name(key));
    let named: Recovery = program.json(Request::Call(Call::Recovery { change })).await;
    assert_eq!(named.key, Some(key));
    published(&a, node, |record| record.recovery == Some(key) && record.hostname == "worker").await;

    let living = recover(&b.config, &file, Addr::backbone(node)).await.unwrap_err();
    assert!(matches!(living, RecoverError::Living(_)), "{living}");
    b.kill().await;
    let elsewhere = crate::common::Home::new();
    let config: Config = elsewhere.config(&rendezvous);
    let other = keys.path().join("another.json");
    make_recovery_key(&other).unwrap();
    let refused = recover(&config, &other, Addr::backbone(node)).await.unwrap_err();
    assert!(matches!(refused, RecoverError::Refused(_)), "{refused}");
    assert!(!config.identity.exists());

    let recovered = recover(&config, &file, Addr::backbone(node)).await.unwrap();
    assert_eq!((recovered.node_id, recovered.hostname.as_str()), (node, "worker"));
    let b = Daemon::start(config).await;
    assert_eq!((b.node(), b.running.hostname.as_str()), (node, "worker"));
    // Whom it trusted was lost with the machine, and is not the registry's to say. Its friends still trust it, and answer.
    let mut program = b.program().await;
    program.handshake(Handshake::Send { node: a.node(), justification: "again" }).await.unwrap();
    let again = Handshake::Wait { node: a.node(), timeout: PATIENCE };
    let waited: Waited = program.json(Request::Handshake(again)).await;
    assert!(waited.trusted, "the friend answers at once");
    program.dial(a.at(Port::ECHO)).await.expect("the friend takes the new key");
    let mut program = a.program().await;
    let echo = program.dial(b.at(Port::ECHO)).await.expect("the friend takes the new key");
    program.send(echo, b"hello").await;
    assert_eq!(program.read(echo, 5).await, b"hello");
    assert_eq!(trusted(&a, node).await.key_changed.unwrap().by, KeyChangedBy::RecoveryKey);
    let found: Resolved = program.json(Request::Call(Call::Resolve { target: "worker".to_owned() })).await;
    assert_eq!(found.node_id, node);
    drop(homes);
}
