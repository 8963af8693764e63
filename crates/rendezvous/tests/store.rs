//! What was acknowledged is kept, by either engine, and a store that is damaged is left alone.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{World, postgres, postgres::Database};
use pilot_rendezvous::{
    registry::{
        Change, Key, Record,
        record::{Counters, Node, Presence},
    },
    store::{self, Embedded, Store, StoreError, StoreUrl},
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

/// A test of both engines: it is told where a new store is to be.
macro_rules! on_both {
    ($(#[$doc:meta])* async fn $name:ident($url:ident: &StoreUrl) $body:block) => {
        $(#[$doc])*
        mod $name {
            use super::*;

            async fn check($url: &StoreUrl) $body

            #[tokio::test]
            async fn embedded() {
                let place = place();
                check(&place.path.clone().into()).await;
            }

            #[tokio::test]
            async fn postgres() {
                check(&postgres::database().store()).await;
            }
        }
    };
}

fn counters(next_node: u32) -> (Key, Option<Record>) {
    (Key::Counters, Some(Record::Counters(Counters { next_node, next_network: 1 })))
}

fn consents(node: u32, peers: &[u32]) -> (Key, Option<Record>) {
    let peers: BTreeSet<NodeId> = peers.iter().copied().map(NodeId).collect();
    (Key::Consents(NodeId(node)), Some(Record::Consents { peers }))
}

fn node(number: u8, owner: &str, hostname: Option<&str>) -> (Key, Option<Record>) {
    let presence = Presence { hostname: hostname.map(str::to_owned), ..Presence::default() };
    let mut node = agent(number);
    node.owner = owner.to_owned();
    node.presence = Some(presence);
    (Key::Node(NodeId(number.into())), Some(Record::Node(node)))
}

fn agent(number: u8) -> Node {
    let mut world = World::new();
    let id = world.agent(number).id;
    match world.disk.remove(&Key::Node(id)) {
        Some(Record::Node(node)) => node,
        other => panic!("{other:?}"),
    }
}

async fn open(url: &StoreUrl) -> Box<dyn Store> {
    store::open(url).await.unwrap().0
}

async fn kept(url: &StoreUrl) -> BTreeMap<Key, Record> {
    store::open(url).await.unwrap().1.into_iter().collect()
}

async fn write(store: &mut dyn Store, changes: &[Change]) {
    store.begin(BTreeSet::new()).await.unwrap();
    store.commit(changes.to_vec()).await.unwrap();
}

fn as_kept(changes: &[Change]) -> BTreeMap<Key, Record> {
    changes.iter().map(|(key, record)| (*key, record.clone().unwrap())).collect()
}

on_both! {
    async fn what_was_committed_is_read_back(url: &StoreUrl) {
        let (mut store, records) = store::open(url).await.unwrap();
        assert_eq!(records, []);
        write(&mut *store, &[counters(7), consents(1, &[2, 3]), consents(2, &[1])]).await;
        let removed = [(Key::Consents(NodeId(2)), None), (Key::Network(NetworkId(9)), None)];
        write(&mut *store, &[&[counters(8)][..], &removed].concat()).await;
        drop(store);
        assert_eq!(kept(url).await, as_kept(&[counters(8), consents(1, &[2, 3])]));
    }
}

on_both! {
    async fn every_kind_of_record_is_read_back_as_it_was(url: &StoreUrl) {
        let mut world = World::new();
        let (a, b) = (world.agent(1), world.agent(2));
        world.name(&a, "alpha");
        world.request_trust(&a, b.id);
        let network_id = world.create_network(&a, "corp", "invite");
        let invite = Invite { inviter_id: a.id, network_id, target_node_id: b.id, ..Invite::default() };
        world.by(&a, Request::InviteToNetwork(invite));
        world.answer_trust(&b, a.id, true);
        let all: BTreeMap<Key, Record> = world.disk;
        let kinds = |kind: fn(&Key) -> bool| all.keys().filter(|key| kind(key)).count();
        assert_eq!(kinds(|key| matches!(key, Key::Node(_))), 2);
        assert_eq!(kinds(|key| matches!(key, Key::Consents(_))), 2);
        assert_eq!(kinds(|key| matches!(key, Key::Inbox(_))), 2);
        assert_eq!(kinds(|key| matches!(key, Key::Network(_))), 1);
        let mut store = open(url).await;
        let changes: Vec<Change> = all.iter().map(|(key, record)| (*key, Some(record.clone()))).collect();
        write(&mut *store, &changes).await;
        drop(store);
        assert_eq!(kept(url).await, all);
    }
}

on_both! {
    /// Zero bytes, escapes and quotes: what nodes write of themselves must not make a write fail for all.
    async fn whatever_a_node_says_of_itself_is_kept(url: &StoreUrl) {
        let mut store = open(url).await;
        let all = [
            counters(4),
            node(1, "zero \0 and \u{1} and \\u0000", None),
            node(2, "quote \" ' $1 \\ \u{10FFFF} \u{FFFD}", None),
            node(3, "'; DROP TABLE pilot_records; --", None),
        ];
        write(&mut *store, &all).await;
        drop(store);
        assert_eq!(kept(url).await, as_kept(&all));
    }
}

on_both! {
    async fn a_name_passes_from_one_to_another_in_one_write(url: &StoreUrl) {
        let mut store = open(url).await;
        write(&mut *store, &[counters(3), node(1, "", Some("alpha")), node(2, "", Some("beta"))]).await;
        let swapped = [counters(3), node(1, "", Some("beta")), node(2, "", Some("alpha"))];
        write(&mut *store, &swapped).await;
        drop(store);
        assert_eq!(kept(url).await, as_kept(&swapped));
    }
}

on_both! {
    async fn of_what_is_in_doubt_the_truth_is_told(url: &StoreUrl) {
        let mut store = open(url).await;
        write(&mut *store, &[counters(3), consents(1, &[2])]).await;
        let doubtful = BTreeSet::from([Key::Consents(NodeId(1)), Key::Consents(NodeId(2))]);
        let truth: BTreeMap<Key, Option<Record>> =
            [consents(1, &[2]), (Key::Consents(NodeId(2)), None)].into();
        let told = store.begin(doubtful.clone()).await.unwrap();
        assert_eq!(told.changes.into_iter().collect::<BTreeMap<_, _>>(), truth);
        store.commit(Vec::new()).await.unwrap();
        let told = store.catch_up(doubtful).await.unwrap();
        assert_eq!(told.changes.into_iter().collect::<BTreeMap<_, _>>(), truth);
    }
}

// The file.

#[tokio::test]
async fn a_store_is_for_its_owner_and_for_one_process() {
    let place = place();
    let (store, _) = Embedded::open(&place.path).unwrap();
    let second = Embedded::open(&place.path);
    assert!(matches!(second, Err(StoreError::Locked { .. })), "{second:?}");
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&place.path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    drop(store);
    Embedded::open(&place.path).unwrap();
}

#[test]
fn an_empty_file_is_no_registry() {
    let place = place();
    fs::write(&place.path, b"").unwrap();
    assert!(matches!(Embedded::open(&place.path), Err(StoreError::Damaged { .. })));
    assert_eq!(fs::read(&place.path).unwrap(), b"");
}

#[test]
fn a_foreign_file_is_left_as_it_is() {
    let place = place();
    let content = b"{\"next_node\":4}".repeat(1000);
    fs::write(&place.path, &content).unwrap();
    let opened = Embedded::open(&place.path);
    assert!(matches!(opened, Err(StoreError::Damaged { .. })), "{opened:?}");
    assert_eq!(fs::read(&place.path).unwrap(), content);
}

#[tokio::test]
async fn a_damaged_store_is_refused_or_whole_but_never_quietly_less() {
    let place = place();
    let (mut store, _) = Embedded::open(&place.path).unwrap();
    for node in 1..200 {
        write(&mut store, &[counters(node + 1), consents(node, &[1, 2, 3, 4])]).await;
    }
    drop(store);
    let (store, whole) = Embedded::open(&place.path).unwrap();
    drop(store);
    let sound = fs::read(&place.path).unwrap();
    let mut refused = 0;
    let positions: Vec<usize> = (0..sound.len()).step_by(sound.len() / 200).collect();
    for at in &positions {
        let mut damaged = sound.clone();
        damaged[*at] ^= 0x55;
        fs::write(&place.path, &damaged).unwrap();
        match Embedded::open(&place.path) {
            Ok((_, records)) => assert_eq!(records, whole, "byte {at}"),
            Err(StoreError::Damaged { .. } | StoreError::Format { .. }) => refused += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(refused > 0, "no damage was noticed");
}

// The database.

#[tokio::test]
async fn who_begins_learns_what_others_wrote_and_nothing_else() {
    let url = postgres::database().store();
    let (mut a, mut b) = (open(&url).await, open(&url).await);
    write(&mut *a, &[counters(2), consents(1, &[2])]).await;
    let delta = b.begin(BTreeSet::new()).await.unwrap();
    assert_eq!(as_map(delta.changes), as_map(vec![counters(2), consents(1, &[2])]));
    assert!(!delta.whole);
    b.commit(vec![(Key::Consents(NodeId(1)), None), counters(3)]).await.unwrap();
    let delta = a.begin(BTreeSet::new()).await.unwrap();
    assert_eq!(as_map(delta.changes), as_map(vec![(Key::Consents(NodeId(1)), None), counters(3)]));
    // Given up without a change.
    a.commit(Vec::new()).await.unwrap();
    assert_eq!(a.catch_up(BTreeSet::new()).await.unwrap().changes, []);
    assert_eq!(b.begin(BTreeSet::new()).await.unwrap().changes, []);
    b.commit(vec![counters(4)]).await.unwrap();
    assert_eq!(a.catch_up(BTreeSet::new()).await.unwrap().changes, [counters(4)]);
}

fn as_map(changes: Vec<Change>) -> BTreeMap<Key, Option<Record>> {
    changes.into_iter().collect()
}

#[tokio::test]
async fn who_was_away_for_longer_than_removals_are_remembered_reads_everything() {
    let database = postgres::database();
    let url = database.store();
    let (mut a, mut b) = (open(&url).await, open(&url).await);
    write(&mut *a, &[counters(2), consents(1, &[2]), consents(2, &[1])]).await;
    b.catch_up(BTreeSet::new()).await.unwrap();
    write(&mut *a, &[(Key::Consents(NodeId(1)), None)]).await;
    database
        .execute("UPDATE pilot_registry SET purged = revision; DELETE FROM pilot_records WHERE value IS NULL")
        .await;
    let delta = b.begin(BTreeSet::new()).await.unwrap();
    assert!(delta.whole);
    assert_eq!(as_map(delta.changes), as_map(vec![counters(2), consents(2, &[1])]));
    b.commit(Vec::new()).await.unwrap();
    assert!(!b.begin(BTreeSet::new()).await.unwrap().whole);
}

#[tokio::test]
async fn a_database_that_was_put_back_is_read_anew() {
    let database = postgres::database();
    let mut store = open(&database.store()).await;
    write(&mut *store, &[counters(2)]).await;
    write(&mut *store, &[counters(3), consents(1, &[2])]).await;
    database
        .execute("UPDATE pilot_registry SET revision = 1; DELETE FROM pilot_records WHERE kind = 'consents'")
        .await;
    let delta = store.catch_up(BTreeSet::new()).await.unwrap();
    assert!(delta.whole);
    assert_eq!(delta.changes, [counters(3)]);
}

#[tokio::test]
async fn one_that_stops_in_the_middle_of_its_turn_loses_it_and_its_write() {
    let url = postgres::database().store();
    let (mut stopped, mut other) = (open(&url).await, open(&url).await);
    stopped.begin(BTreeSet::new()).await.unwrap();
    // The server ends the turn after two seconds.
    other.begin(BTreeSet::new()).await.unwrap();
    other.commit(vec![counters(7)]).await.unwrap();
    let late = stopped.commit(vec![counters(2)]).await;
    assert!(matches!(late, Err(StoreError::Failed(_))), "{late:?}");
    let truth = stopped.begin([Key::Counters].into()).await.unwrap();
    assert!(truth.changes.iter().all(|change| *change == counters(7)), "{truth:?}");
    stopped.commit(vec![counters(8)]).await.unwrap();
}

#[tokio::test]
async fn a_write_after_the_connection_was_lost_is_refused_and_the_next_turn_is_whole() {
    let database = postgres::database();
    let mut store = open(&database.store()).await;
    store.begin(BTreeSet::new()).await.unwrap();
    cut_off(&database).await;
    assert!(store.commit(vec![counters(2)]).await.is_err());
    let truth = store.begin([Key::Counters].into()).await.unwrap();
    assert_eq!(truth.changes, [(Key::Counters, None)]);
    store.commit(vec![counters(3)]).await.unwrap();
    assert_eq!(kept(&database.store()).await, as_kept(&[counters(3)]));
}

async fn cut_off(database: &Database) {
    database
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
}

#[tokio::test]
async fn the_database_refuses_what_the_registry_must_never_write() {
    let mut store = open(&postgres::database().store()).await;
    store.begin(BTreeSet::new()).await.unwrap();
    let twice = vec![node(1, "", Some("alpha")), node(2, "", Some("alpha"))];
    assert!(store.commit(twice).await.is_err());
    store.begin(BTreeSet::new()).await.unwrap();
    let Some(Record::Node(same_key)) = node(1, "", None).1 else { panic!() };
    let twice = vec![node(1, "", None), (Key::Node(NodeId(2)), Some(Record::Node(same_key)))];
    assert!(store.commit(twice).await.is_err());
}

#[tokio::test]
async fn several_may_open_a_new_database_at_once() {
    let url = postgres::database().store();
    let opening: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { store::open(&url).await.map(drop) })
        })
        .collect();
    for opened in opening {
        opened.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn tables_of_a_newer_program_are_left_alone() {
    let database = postgres::database();
    drop(open(&database.store()).await);
    database
        .execute(
            "INSERT INTO pilot_migrations (version, description, success, checksum, execution_time) \
             VALUES (9000, 'later', true, '\\x00', 0)",
        )
        .await;
    match store::open(&database.store()).await {
        Err(error @ StoreError::Format { found: 9000, .. }) => {
            assert!(error.hint().unwrap().contains("newest"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_record_that_is_unreadable_ends_the_start() {
    let database = postgres::database();
    let mut store = open(&database.store()).await;
    write(&mut *store, &[counters(2)]).await;
    drop(store);
    database.execute("UPDATE pilot_records SET value = '{}'").await;
    let opened = store::open(&database.store()).await;
    assert!(matches!(opened, Err(StoreError::Damaged { .. })), "{opened:?}");
}

#[tokio::test]
async fn a_start_without_the_database_says_what_is_wrong_and_never_the_password() {
    let server = postgres::Postgres::private();
    let right = server.database().url;
    let (place, parameters) = right.split_once('?').unwrap();
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = format!("{place}?host={}", folder.path().display());
    let wrong_password = right.replace(postgres::PASSWORD, "s3cret-but-wrong");
    let wrong_database = format!("{place}_not?{parameters}");
    for (url, kind) in [
        (elsewhere, "is not reached"),
        ("postgres://pilot:s3cret@127.0.0.1:1/pilot".to_owned(), "is not reached"),
        (wrong_password, "refuses us"),
        (wrong_database, "does not exist"),
    ] {
        let error = store::open(&url.parse().unwrap()).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(kind), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        assert!(error.hint().is_some());
    }
}

#[tokio::test]
async fn a_user_who_may_not_make_tables_is_told_so() {
    let database = postgres::Postgres::private();
    let owner = database.database();
    owner
        .execute("CREATE ROLE guest LOGIN PASSWORD 's3cret'; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        .await;
    let guest = owner.url.replace("postgres:s3cret@", "guest:s3cret@");
    let error = store::open(&guest.parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, StoreError::Forbidden { .. }), "{error}");
    assert!(error.hint().unwrap().contains("GRANT"));
}

#[tokio::test]
async fn the_way_to_the_database_is_protected_as_its_url_says() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = pem("CERTIFICATE", made.cert.der());
    let key = pem("PRIVATE KEY", &made.signing_key.serialize_der());
    let ports = pilot_ports::Ports::reserve();
    let port = ports.registry().port();
    let server = postgres::Postgres::private_with_tls(port, &certificate, &key);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.crt");
    fs::write(&root, &certificate).unwrap();
    let database = |parameters: &str| Database { url: format!("{}?{parameters}", server.over_tcp(port)) };
    for (parameters, is_encrypted) in [
        ("sslmode=disable".to_owned(), false),
        ("sslmode=require".to_owned(), true),
        (format!("sslmode=verify-full&sslrootcert={}", root.display()), true),
    ] {
        let database = database(&parameters);
        let _store = open(&database.store()).await;
        let connections = database
            .numbers(
                "SELECT ssl::int::bigint FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                 WHERE datname = current_database() AND application_name = 'pilot-rendezvous'",
            )
            .await;
        assert!(!connections.is_empty());
        assert!(connections.iter().all(|ssl| (*ssl == 1) == is_encrypted), "{parameters}: {connections:?}");
    }
    // Nobody vouches for this certificate.
    let refused = store::open(&database("sslmode=verify-full").store()).await;
    assert!(matches!(refused, Err(StoreError::Unreachable { .. })), "{refused:?}");
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
