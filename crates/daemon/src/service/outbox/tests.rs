//! The outbox on a real disk: what is acknowledged is there after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use bytes::Bytes;
use pilot_wire::dataexchange::Extension;
use pilot_wire::outbox::{Kind, State};
use pilot_wire::{Addr, NodeId};

use super::desk::Desk;
use super::disk::{Disk, OpenError};
use super::entry::{Now, Place, Record, Seq};
use super::ledger::{Change, Ledger};

fn record(id: &str, place: Place) -> Record {
    let now = Now::read().wall;
    Record {
        id: id.parse().unwrap(),
        to: Addr::backbone(NodeId(2)),
        kind: Kind::Binary,
        bytes: 4,
        name: None,
        reply_to: Some("q-1".parse().unwrap()),
        extension: Extension { hops: 2, ..Extension::default() },
        place,
        state: State::Queued,
        created: now,
        state_at: now,
        expires: now + 3_600_000,
        reason: None,
        ack: None,
        tagged: None,
        left: None,
    }
}

fn new(record: &Record, body: &'static [u8]) -> Change {
    Change::New(Box::new(record.clone()), Some(Bytes::from_static(body)))
}

#[test]
fn what_was_committed_is_there_when_the_database_is_opened_again() {
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::at(home.path());
    assert_eq!(disk.open().unwrap(), BTreeMap::new());
    let (short, long) = (record("m-1", Place::Database), record("m-2", Place::File(7)));
    disk.write_file(7, b"long").unwrap();
    disk.commit(&BTreeMap::from([(Seq(1), new(&short, b"body")), (Seq(2), new(&long, b""))])).unwrap();
    drop(disk);

    let disk = Disk::at(home.path());
    assert_eq!(disk.open().unwrap(), BTreeMap::from([(Seq(1), short.clone()), (Seq(2), long.clone())]));
    assert_eq!(disk.load(Seq(1), Place::Database).unwrap(), "body");
    assert_eq!(disk.load(Seq(2), Place::File(7)).unwrap(), "long");
    for file in ["outbox.redb", "outbox/0000000000000007"] {
        let mode = std::fs::metadata(home.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }

    // Settled: the record stays, the bytes go.
    let settled =
        |record: &Record| Change::Update(Box::new(Record { state: State::Stored, ..record.clone() }));
    disk.commit(&BTreeMap::from([(Seq(1), settled(&short)), (Seq(2), settled(&long))])).unwrap();
    assert!(disk.load(Seq(1), Place::Database).is_err() && disk.load(Seq(2), Place::File(7)).is_err());
    disk.commit(&BTreeMap::from([(Seq(1), Change::Remove(Place::Database))])).unwrap();
    drop(disk);
    let records = Disk::at(home.path()).open().unwrap();
    assert_eq!(records.keys().collect::<Vec<_>>(), [&Seq(2)]);
}

#[test]
fn bodies_that_no_message_needs_are_swept_away() {
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::at(home.path());
    disk.open().unwrap();
    for number in 1..4 {
        disk.write_file(number, b"x").unwrap();
    }
    assert_eq!(disk.sweep(&BTreeSet::from([2])), 2);
    let left: Vec<_> = std::fs::read_dir(home.path().join("outbox")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].path(), disk.file(2));
}

#[test]
fn a_database_in_use_is_left_alone_and_a_damaged_one_is_set_aside() {
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::at(home.path());
    disk.open().unwrap();
    assert!(matches!(Disk::at(home.path()).open(), Err(OpenError::Locked(_))));
    disk.commit(&BTreeMap::from([(Seq(1), new(&record("m-1", Place::Database), b"body"))])).unwrap();
    drop(disk);
    let path = home.path().join("outbox.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(Disk::at(home.path()).open().unwrap(), BTreeMap::new());
    let aside = std::fs::read_dir(home.path())
        .unwrap()
        .flatten()
        .find(|file| file.file_name().to_string_lossy().starts_with("outbox.redb.damaged-"));
    assert_eq!(std::fs::read(aside.unwrap().path()).unwrap(), bytes);
}

fn admit(desk: &Desk, id: &str) -> tokio::sync::oneshot::Receiver<Result<(), String>> {
    let admitted = desk.write(|ledger: &mut Ledger, _| {
        ledger.admit(record(id, Place::Database), Some(Bytes::from_static(b"body")))
    });
    admitted.unwrap().2
}

#[tokio::test]
async fn every_acknowledged_message_survives_whatever_was_under_way_when_the_process_ended() {
    let home = tempfile::tempdir().unwrap();
    let desk = Arc::new(Desk::new(Disk::at(home.path()), 1));
    let thread = Arc::clone(&desk);
    let thread = std::thread::spawn(move || thread.run_disk());
    desk.ready().await.unwrap();
    let told: Vec<_> = (0..500).map(|number| admit(&desk, &format!("m-{number}"))).collect();
    for told in told {
        told.await.unwrap().unwrap();
    }
    // What the file holds at this moment is what a killed process leaves: no orderly end has touched it.
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(home.path().join("outbox.redb"), copy.path().join("outbox.redb")).unwrap();
    let disk = Disk::at(copy.path());
    let records = disk.open().unwrap();
    assert_eq!(records.len(), 500);
    assert_eq!(disk.load(Seq(500), Place::Database).unwrap(), "body");
    desk.end();
    thread.join().unwrap();
}

#[tokio::test]
async fn an_outbox_that_cannot_be_opened_says_why_and_is_tried_again() {
    let home = tempfile::tempdir().unwrap();
    // What is in the way keeps root, too, from opening it.
    let path = home.path().join("outbox.redb");
    std::fs::create_dir(&path).unwrap();
    let desk = Arc::new(Desk::new(Disk::at(home.path()), 1));
    let thread = Arc::clone(&desk);
    let thread = std::thread::spawn(move || thread.run_disk());
    let refused = desk.ready().await.unwrap_err();
    assert!(refused.message.contains("outbox.redb") && refused.hint.is_some(), "{refused:?}");
    std::fs::remove_dir(&path).unwrap();
    desk.ready().await.unwrap();
    admit(&desk, "m-1").await.unwrap().unwrap();
    desk.end();
    thread.join().unwrap();
}
