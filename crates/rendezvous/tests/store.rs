//! What was acknowledged is on disk, and a store that is damaged is left alone.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::World;
use pilot_rendezvous::{
    registry::{Change, Key, Record, record::Counters},
    store::{Store, StoreError},
};
use pilot_wire::{
    NetworkId, NodeId,
    registry::{Invite, Request},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};
use tempfile::TempDir;

struct Place {
    _folder: TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.redb");
    Place { _folder: folder, path }
}

fn counters(next_node: u32) -> (Key, Option<Record>) {
    (Key::Counters, Some(Record::Counters(Counters { next_node, next_network: 1 })))
}

fn consents(node: u32, peers: &[u32]) -> (Key, Option<Record>) {
    let peers: BTreeSet<NodeId> = peers.iter().copied().map(NodeId).collect();
    (Key::Consents(NodeId(node)), Some(Record::Consents { peers }))
}

#[test]
fn what_was_committed_is_read_back() {
    let place = place();
    let (mut store, records) = Store::open(&place.path).unwrap();
    assert_eq!(records, []);
    store.commit(&[counters(7), consents(1, &[2, 3]), consents(2, &[1])]).unwrap();
    store
        .commit(&[counters(8), (Key::Consents(NodeId(2)), None), (Key::Network(NetworkId(9)), None)])
        .unwrap();
    drop(store);
    let (_store, records) = Store::open(&place.path).unwrap();
    let expected = [counters(8), consents(1, &[2, 3])].map(|(key, record)| (key, record.unwrap()));
    assert_eq!(records, expected);
}

#[test]
fn every_kind_of_record_is_read_back_as_it_was() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.name(&a, "alpha");
    world.request_trust(&a, b.id);
    let network_id = world.create_network(&a, "corp", "invite");
    let invite = Invite { inviter_id: a.id, network_id, target_node_id: b.id, ..Invite::default() };
    world.by(&a, Request::InviteToNetwork(invite));
    world.answer_trust(&b, a.id, true);
    let kept: BTreeMap<Key, Record> = world.disk;
    let kinds = |kind: fn(&Key) -> bool| kept.keys().filter(|key| kind(key)).count();
    assert_eq!(kinds(|key| matches!(key, Key::Node(_))), 2);
    assert_eq!(kinds(|key| matches!(key, Key::Consents(_))), 2);
    assert_eq!(kinds(|key| matches!(key, Key::Inbox(_))), 2);
    assert_eq!(kinds(|key| matches!(key, Key::Network(_))), 1);
    let place = place();
    let (mut store, _) = Store::open(&place.path).unwrap();
    let changes: Vec<Change> = kept.iter().map(|(key, record)| (*key, Some(record.clone()))).collect();
    store.commit(&changes).unwrap();
    drop(store);
    let (_store, records) = Store::open(&place.path).unwrap();
    assert_eq!(records.into_iter().collect::<BTreeMap<_, _>>(), kept);
}

#[test]
fn a_store_is_for_its_owner_and_for_one_process() {
    let place = place();
    let (store, _) = Store::open(&place.path).unwrap();
    let second = Store::open(&place.path);
    assert!(matches!(second, Err(StoreError::Locked { .. })), "{second:?}");
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&place.path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    drop(store);
    Store::open(&place.path).unwrap();
}

#[test]
fn an_empty_file_is_no_registry() {
    let place = place();
    fs::write(&place.path, b"").unwrap();
    assert!(matches!(Store::open(&place.path), Err(StoreError::Damaged { .. })));
    assert_eq!(fs::read(&place.path).unwrap(), b"");
}

#[test]
fn a_foreign_file_is_left_as_it_is() {
    let place = place();
    let content = b"{\"next_node\":4}".repeat(1000);
    fs::write(&place.path, &content).unwrap();
    let opened = Store::open(&place.path);
    assert!(matches!(opened, Err(StoreError::Damaged { .. })), "{opened:?}");
    assert_eq!(fs::read(&place.path).unwrap(), content);
}

#[test]
fn a_damaged_store_is_refused_or_whole_but_never_quietly_less() {
    let place = place();
    let (mut store, _) = Store::open(&place.path).unwrap();
    for node in 1..200 {
        store.commit(&[counters(node + 1), consents(node, &[1, 2, 3, 4])]).unwrap();
    }
    drop(store);
    let (store, whole) = Store::open(&place.path).unwrap();
    drop(store);
    let sound = fs::read(&place.path).unwrap();
    let mut refused = 0;
    let positions: Vec<usize> = (0..sound.len()).step_by(sound.len() / 200).collect();
    for at in &positions {
        let mut damaged = sound.clone();
        damaged[*at] ^= 0x55;
        fs::write(&place.path, &damaged).unwrap();
        match Store::open(&place.path) {
            Ok((_, records)) => assert_eq!(records, whole, "byte {at}"),
            Err(StoreError::Damaged { .. } | StoreError::Format { .. }) => refused += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(refused > 0, "no damage was noticed");
}
