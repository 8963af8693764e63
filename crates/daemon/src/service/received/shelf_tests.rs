use super::*;
use pilot_crypto::Sha256;
use pilot_wire::Addr;
use pilot_wire::dataexchange::{FolderFile, Manifest};

use crate::service::received::{Content, IncomingFile, TransferError};

fn origin() -> Origin {
    Origin {
        from: Addr::backbone(NodeId(1)),
        from_hostname: Some("agent-a".into()),
        from_key: Some("fingerprint".into()),
    }
}

fn init(data: &[u8]) -> Init {
    let sha256 = Sha256::digest(data);
    Init {
        id: TransferId::of(&sha256),
        size: data.len() as u64,
        sha256,
        chunk: 49_152,
        name: Bytes::from_static(b"r.bin"),
    }
}

fn limits() -> ReceivedLimits {
    ReceivedLimits { min_free: 0, ..ReceivedLimits::default() }
}

fn open_with(home: &Path, limits: ReceivedLimits) -> Shelf {
    Shelf::open(home.join("received"), limits, SystemTime::now()).unwrap()
}

fn open(home: &Path) -> Shelf {
    open_with(home, limits())
}

fn try_begin(shelf: &mut Shelf, init: &Init) -> Result<Begun<Transfer>, Refusal> {
    let name = SafeName::parse(&init.name).unwrap();
    shelf.begin(origin(), init, name, watch::channel(false).0, SystemTime::now())
}

fn begin(shelf: &mut Shelf, init: &Init) -> Transfer {
    match try_begin(shelf, init).unwrap() {
        Begun::Ready(mut transfer) => {
            transfer.partial.prepare().unwrap();
            *transfer
        }
        other @ (Begun::Busy(_) | Begun::Here) => panic!("{other:?}"),
    }
}

fn receive(shelf: &mut Shelf, data: &[u8]) -> Arrived {
    let mut transfer = begin(shelf, &init(data));
    transfer.partial.write(0, data).unwrap();
    shelf.finish(transfer.complete().unwrap(), SystemTime::now()).unwrap()
}

fn partials(home: &Path) -> usize {
    fs::read_dir(home.join("received/.partial")).unwrap().count()
}

#[test]
fn an_interrupted_transfer_goes_on_where_it_stopped() {
    let home = tempfile::tempdir().unwrap();
    let data = vec![7u8; 100_000];
    let mut shelf = open(home.path());
    let mut transfer = begin(&mut shelf, &init(&data));
    transfer.partial.write(0, &data[..60_000]).unwrap();
    drop(transfer);
    let mut shelf = open(home.path());
    let mut transfer = begin(&mut shelf, &init(&data));
    assert_eq!(transfer.partial.written(), 60_000);
    transfer.partial.write(50_000, &data[50_000..]).unwrap();
    let stored = shelf.finish(transfer.complete().unwrap(), SystemTime::now()).unwrap();
    assert_eq!(fs::read(&stored.path).unwrap(), data);
    assert_eq!(partials(home.path()), 0);
}

#[test]
fn a_corrupt_file_is_removed_and_the_next_try_begins_anew() {
    let home = tempfile::tempdir().unwrap();
    let mut shelf = open(home.path());
    let mut transfer = begin(&mut shelf, &init(b"no"));
    transfer.partial.write(0, b"xx").unwrap();
    assert!(matches!(transfer.complete(), Err(TransferError::Mismatch)));
    assert_eq!(begin(&mut shelf, &init(b"no")).partial.written(), 0);
}

#[test]
fn the_newest_connection_of_a_transfer_takes_over() {
    let home = tempfile::tempdir().unwrap();
    let mut shelf = open(home.path());
    let name = SafeName::parse(b"r").unwrap();
    let (cancel, cancelled) = watch::channel(false);
    let Ok(Begun::Ready(first)) = shelf.begin(origin(), &init(b"abcd"), name, cancel, SystemTime::now())
    else {
        panic!("nobody else transfers it");
    };
    let Ok(Begun::Busy(alive)) = try_begin(&mut shelf, &init(b"abcd")) else {
        panic!("the first transfer still runs");
    };
    assert!(*cancelled.borrow());
    assert!(alive.has_changed().is_ok());
    drop(first);
    assert!(alive.has_changed().is_err());
    begin(&mut shelf, &init(b"abcd"));
}

#[test]
fn a_file_over_a_limit_is_refused_before_its_first_byte() {
    let home = tempfile::tempdir().unwrap();
    let of = |max_bytes, max_file| ReceivedLimits { max_bytes, max_file, min_free: 0 };
    let mut huge = init(b"");
    huge.size = 1001;
    let refused = |limits, init: &Init| try_begin(&mut open_with(home.path(), limits), init).err();
    assert_eq!(refused(of(1000, u64::MAX), &huge), Some(Refusal::TooLarge(1000)));
    assert_eq!(refused(of(u64::MAX, 1000), &huge), Some(Refusal::TooLarge(1000)));
    assert_eq!(refused(of(1001, 1001), &huge), None);
    let mut shelf = open_with(home.path(), of(1500, 1400));
    let under_way = begin(&mut shelf, &huge);
    let mut other = init(b"other");
    other.size = 600;
    assert_eq!(try_begin(&mut shelf, &other).err(), Some(Refusal::ReceivedFull), "both do not fit");
    drop(under_way);
    assert_eq!(try_begin(&mut shelf, &other).err(), None, "what is given up does not count");
}

#[test]
fn what_is_under_way_counts_once_and_what_was_removed_by_others_not_at_all() {
    let home = tempfile::tempdir().unwrap();
    let mut shelf = open_with(home.path(), ReceivedLimits { max_bytes: 1000, max_file: 1000, min_free: 0 });
    let arrived = receive(&mut shelf, &[1; 500]);
    let mut half = begin(&mut shelf, &init(&[2; 400]));
    half.partial.write(0, &[2; 390]).unwrap();
    let last = begin(&mut shelf, &init(&[3; 100]));
    assert_eq!(try_begin(&mut shelf, &init(&[4; 1])).err(), Some(Refusal::ReceivedFull));
    fs::remove_file(arrived.path).unwrap();
    drop(last);
    receive(&mut shelf, &[4; 500]);
}

#[test]
fn the_disk_keeps_what_it_is_told_to_keep() {
    let home = tempfile::tempdir().unwrap();
    let mut shelf = open(home.path());
    shelf.set_space(Space::told(1000, || 1100));
    let Ok(Begun::Ready(mut transfer)) = try_begin(&mut shelf, &init(&[7; 101])) else { panic!("refused") };
    assert_eq!(transfer.partial.prepare(), Err(Refusal::DiskFull));
    let whole = |data: &'static [u8]| IncomingFile {
        origin: origin(),
        message_id: None,
        name: SafeName::parse(b"w").unwrap(),
        announced: "w".into(),
        data: Bytes::from_static(data),
    };
    assert_eq!(shelf.put(whole(&[7; 101]), SystemTime::now()), Err(Refusal::DiskFull));
    assert!(shelf.put(whole(&[7; 100]), SystemTime::now()).unwrap().is_some());
}

#[test]
fn a_list_says_who_sent_what_and_the_records_outlive_the_process_and_not_the_file() {
    let home = tempfile::tempdir().unwrap();
    let mut shelf = open(home.path());
    let first = receive(&mut shelf, b"one");
    let second = receive(&mut shelf, b"two!");
    fs::write(home.path().join("received/by-hand.txt"), "x").unwrap();
    let shelf = open(home.path());
    let (files, total) = shelf.list(None, None, None).unwrap();
    assert_eq!((files.len(), total), (3, 3));
    let (mine, total) = shelf.list(Some(NodeId(1)), None, Some(1)).unwrap();
    assert_eq!((mine.len(), total), (1, 2));
    assert_eq!((&mine[0].name, mine[0].bytes), (&second.name, 4));
    assert_eq!(mine[0].from_hostname.as_deref(), Some("agent-a"));
    assert_eq!(mine[0].sha256, Some(ContentHash(Sha256::digest(b"two!"))));
    assert_eq!(mine[0].announced.as_deref(), Some("r.bin"));
    assert_eq!(shelf.list(Some(NodeId(2)), None, None).unwrap().1, 0);
    fs::remove_file(&first.path).unwrap();
    let shelf = open(home.path());
    assert_eq!(shelf.records.iter().count(), 1);
    assert_eq!(fs::read_dir(home.path().join("received/.meta")).unwrap().count(), 1);
}

#[test]
fn files_are_removed_by_name_by_age_and_by_sender() {
    let home = tempfile::tempdir().unwrap();
    let mut shelf = open(home.path());
    let one = receive(&mut shelf, b"one");
    let two = receive(&mut shelf, b"two");
    for bad in ["", ".partial", ".meta", "../received", "nothing", "a/b"] {
        assert!(!shelf.remove(bad).unwrap(), "{bad}");
    }
    assert!(shelf.remove(&one.name).unwrap());
    assert!(!one.path.exists());
    let at = shelf.records.get(&two.name).unwrap().received_ns;
    assert_eq!(shelf.clear(None, Some(at)).unwrap(), 0);
    assert_eq!(shelf.clear(Some(NodeId(7)), None).unwrap(), 0);
    assert_eq!(shelf.clear(Some(NodeId(1)), Some(at + 1)).unwrap(), 1);
    assert_eq!(shelf.list(None, None, None).unwrap().1, 0);
    assert_eq!(shelf.finished, Weight::default());
}

#[test]
fn a_sender_that_did_not_hear_of_the_end_sends_nothing_twice() {
    let home = tempfile::tempdir().unwrap();
    let mut shelf = open(home.path());
    let arrived = receive(&mut shelf, b"data");
    assert!(matches!(try_begin(&mut shelf, &init(b"data")), Ok(Begun::Here)));
    let mut shelf = open(home.path());
    assert!(matches!(try_begin(&mut shelf, &init(b"data")), Ok(Begun::Here)), "after a restart, too");
    let mut other = init(b"data");
    other.name = Bytes::from_static(b"other.bin");
    assert!(matches!(try_begin(&mut shelf, &other), Ok(Begun::Ready(_))), "another name is another file");
    let later = SystemTime::now() + REPEATED + Duration::from_secs(1);
    let name = SafeName::parse(b"r.bin").unwrap();
    let begun = shelf.begin(origin(), &init(b"data"), name, watch::channel(false).0, later);
    assert!(matches!(begun, Ok(Begun::Ready(_))), "what is sent again later is sent on purpose");
    drop(begun);
    fs::remove_file(arrived.path).unwrap();
    assert!(matches!(try_begin(&mut shelf, &init(b"data")), Ok(Begun::Ready(_))), "it is not here any more");
}

#[test]
fn a_file_in_one_frame_is_stored_once_under_its_id_even_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let file = |id: &str| IncomingFile {
        origin: origin(),
        message_id: Some(id.parse().unwrap()),
        name: SafeName::parse(b"w.txt").unwrap(),
        announced: "w.txt".into(),
        data: Bytes::from_static(b"whole"),
    };
    let mut shelf = open(home.path());
    assert!(shelf.put(file("m-1"), SystemTime::now()).unwrap().is_some());
    assert!(shelf.put(file("m-1"), SystemTime::now()).unwrap().is_none());
    assert!(shelf.put(file("m-2"), SystemTime::now()).unwrap().is_some());
    let mut shelf = open(home.path());
    assert!(shelf.put(file("m-1"), SystemTime::now()).unwrap().is_none());
    assert!(shelf.put(file("m-1"), SystemTime::now() + 2 * REPEATED).unwrap().is_some());
}

#[test]
fn the_next_file_is_found_by_the_time_of_the_last() {
    let home = tempfile::tempdir().unwrap();
    let mut shelf = open(home.path());
    let wanted = |since_ns, node| Wanted { from: node, since_ns };
    assert_eq!(shelf.find(&wanted(0, None)), None);
    receive(&mut shelf, b"one");
    receive(&mut shelf, b"two");
    let first = shelf.find(&wanted(0, Some(NodeId(1)))).unwrap();
    let second = shelf.find(&wanted(first.received_ns, None)).unwrap();
    assert_eq!((first.bytes, second.sha256), (3, Some(ContentHash(Sha256::digest(b"two")))));
    assert_eq!(shelf.find(&wanted(second.received_ns, None)), None);
    assert_eq!(shelf.find(&wanted(0, Some(NodeId(2)))), None);
}

fn folder_file(path: &str, data: &[u8]) -> FolderFile {
    FolderFile {
        path: path.parse().unwrap(),
        size: data.len() as u64,
        sha256: ContentHash(Sha256::digest(data)),
        executable: path.ends_with(".sh"),
    }
}

fn announced(files: Vec<FolderFile>) -> Announced {
    let manifest = Manifest::new(files, vec!["empty/inner".parse().unwrap()]).unwrap();
    let sha256 = ContentHash(Sha256::digest(&manifest.to_json()));
    Announced { name: SafeName::parse(b"project").unwrap(), said: "project".into(), manifest, sha256 }
}

fn begin_folder(shelf: &mut Shelf, files: Vec<FolderFile>) -> Folder {
    let cancel = watch::channel(false).0;
    match shelf.begin_folder(origin(), announced(files), cancel, SystemTime::now()).unwrap() {
        Begun::Ready(folder) => *folder,
        other @ (Begun::Busy(_) | Begun::Here) => panic!("{other:?}"),
    }
}

fn send(folder: &Folder, data: &[u8]) {
    let Ok(Content::Missing(mut partial)) = folder.begin(&init(data)) else { panic!("not missing") };
    partial.write(0, data).unwrap();
    Folder::keep(*partial).unwrap();
}

#[test]
fn a_folder_appears_whole_and_goes_on_after_a_restart_with_what_it_has() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let files = || {
        vec![
            folder_file("a.txt", b"same"),
            folder_file("deep/er/b.txt", b"same"),
            folder_file("run.sh", b"#!/bin/sh\n"),
            folder_file("deep/nothing", b""),
        ]
    };
    let mut shelf = open(home.path());
    let folder = begin_folder(&mut shelf, files());
    send(&folder, b"same");
    assert!(matches!(folder.build(), Err(TransferError::Incomplete { .. })), "one is missing");
    let mut shelf = open(home.path());
    let folder = begin_folder(&mut shelf, files());
    let held = folder.held();
    let contents = announced(files()).manifest.contents();
    let missing: Vec<u64> =
        contents.iter().enumerate().filter(|(at, _)| !held.has(*at)).map(|(_, (_, size))| *size).collect();
    assert_eq!(missing, [10]);
    assert!(matches!(folder.begin(&init(b"same")), Ok(Content::Held)));
    assert!(matches!(folder.begin(&init(b"other")), Err(TransferError::Foreign)));
    send(&folder, b"#!/bin/sh\n");
    let complete = folder.build().unwrap();
    assert!(
        !fs::read_dir(home.path().join("received"))
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with("project") })
    );
    let arrived = shelf.finish(complete, SystemTime::now()).unwrap();
    let read = |path: &str| fs::read(arrived.path.join(path)).unwrap();
    assert_eq!((read("a.txt"), read("deep/er/b.txt")), (b"same".to_vec(), b"same".to_vec()));
    assert_eq!(read("deep/nothing"), b"");
    assert!(arrived.path.join("empty/inner").is_dir());
    let mode = |path: &str| fs::metadata(arrived.path.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a.txt"), mode("run.sh"), mode("deep")), (0o600, 0o700, 0o700));
    fs::write(arrived.path.join("a.txt"), "changed").unwrap();
    assert_eq!(read("deep/er/b.txt"), b"same", "files of the same content are files of their own");
    assert_eq!((arrived.files, arrived.bytes), (Some(4), 18));
    assert_eq!(partials(home.path()), 0);
    let (files, _) = shelf.list(None, None, None).unwrap();
    assert_eq!((files[0].files, files[0].bytes), (Some(4), 18));
    assert!(shelf.remove(&arrived.name).unwrap());
    assert!(!arrived.path.exists());
}

#[test]
fn a_process_that_ends_while_it_builds_a_folder_builds_it_again() {
    let home = tempfile::tempdir().unwrap();
    let files = || vec![folder_file("a", b"1"), folder_file("b", b"2")];
    let mut shelf = open(home.path());
    let folder = begin_folder(&mut shelf, files());
    send(&folder, b"1");
    send(&folder, b"2");
    drop(folder.build().unwrap());
    let mut shelf = open(home.path());
    let folder = begin_folder(&mut shelf, files());
    let complete = folder.build().unwrap();
    let arrived = shelf.finish(complete, SystemTime::now()).unwrap();
    assert_eq!(fs::read(arrived.path.join("b")).unwrap(), b"2");
}

#[test]
fn a_folder_is_within_the_limits_as_a_whole() {
    let home = tempfile::tempdir().unwrap();
    let mut shelf = open_with(home.path(), ReceivedLimits { max_bytes: 10, max_file: 10, min_free: 0 });
    let files = vec![folder_file("a", b"123456"), folder_file("b", b"abcdef")];
    let cancel = watch::channel(false).0;
    let refused = shelf.begin_folder(origin(), announced(files), cancel, SystemTime::now());
    assert_eq!(refused.err(), Some(Refusal::TooLarge(10)));
    assert_eq!(partials(home.path()), 0);
}

#[test]
fn unfinished_files_and_folders_wait_a_week() {
    let home = tempfile::tempdir().unwrap();
    let mut shelf = open(home.path());
    drop(begin(&mut shelf, &init(b"file")));
    drop(begin_folder(&mut shelf, vec![folder_file("a", b"1")]));
    assert_eq!(partials(home.path()), 2);
    let after = |time| Shelf::open(home.path().join("received"), limits(), SystemTime::now() + time).unwrap();
    after(PARTIAL_LIFE - Duration::from_secs(60));
    assert_eq!(partials(home.path()), 2);
    after(PARTIAL_LIFE + Duration::from_secs(60));
    assert_eq!(partials(home.path()), 0);
}
