//! Files and folders between whole daemons: cut off, damaged, refused, waited for.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pilot_client::ipc::{Call, Code, ConnInfo, Done};
use pilot_client::received::{Reply, Request};
use pilot_client::{Addr, Client, FileOptions, Port, Progress};
use pilot_crypto::Sha256;
use pilot_daemon::Config;
use pilot_wire::dataexchange::{CHUNK_LEN, ContentHash, WIDE_WINDOW_CHUNKS};
use tokio::sync::mpsc;

use crate::common::{Daemon, Home, Rendezvous, befriend, within};

/// Most that a sender may have under way when a connection is cut.
const WINDOW: u64 = WIDE_WINDOW_CHUNKS * CHUNK_LEN as u64;

struct Pair {
    a: Daemon,
    b: Daemon,
    rendezvous: Rendezvous,
    homes: [Home; 2],
}

impl Pair {
    async fn of_friends(receiver: impl FnOnce(&mut Config)) -> Self {
        let rendezvous = Rendezvous::start().await;
        let homes = [Home::new(), Home::new()];
        let a = Daemon::start(homes[0].config(&rendezvous)).await;
        let mut config = homes[1].config(&rendezvous);
        receiver(&mut config);
        let b = Daemon::start(config).await;
        befriend(&a, &b).await;
        Self { a, b, rendezvous, homes }
    }
}

async fn client(daemon: &Daemon) -> Client {
    Client::connect_to(&daemon.config.socket).await.unwrap()
}

fn addr(daemon: &Daemon) -> Addr {
    Addr::backbone(daemon.node())
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A file without a repetition, written without being held in memory; its hash.
fn noise(path: &Path, bytes: u64) -> ContentHash {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
    let mut hash = Sha256::new();
    let mut left = bytes;
    let mut block = Vec::with_capacity(64 << 10);
    while left > 0 {
        block.clear();
        while block.len() < 64 << 10 {
            block.extend_from_slice(&random.next().to_le_bytes());
        }
        block.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(block.len()));
        hash.update(&block);
        file.write_all(&block).unwrap();
        left -= block.len() as u64;
    }
    file.flush().unwrap();
    ContentHash(hash.finish())
}

fn hash_of(path: &Path) -> ContentHash {
    let mut file = std::fs::File::open(path).unwrap();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).unwrap() {
            0 => return ContentHash(hash.finish()),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// What lies under its name in the folder of received files.
fn arrived(home: &Home) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.path().join("received")).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.')).collect()
}

/// Every file below a folder, by its path in it.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Cuts the connection that carries files to a peer, as seen by one of the daemons.
async fn cut(daemon: &Daemon) {
    let client = client(daemon).await;
    let is_it = |conn: &ConnInfo| [conn.remote_port, conn.local_port].contains(&Port::DATA_EXCHANGE);
    within("a connection to be cut", async {
        loop {
            let connections: Vec<ConnInfo> = client.call(Call::Connections).await.unwrap();
            let found = connections.iter().find(|conn| is_it(conn) && conn.state == "ESTABLISHED");
            if let Some(found) = found
                && client.call::<Done>(Call::Disconnect { stream: found.id }).await.is_ok()
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Tells once of each of `at` that was passed.
fn milestones(at: Vec<u64>) -> (impl FnMut(Progress) + Send, mpsc::Receiver<u64>) {
    let (tell, told) = mpsc::channel(at.len().max(1));
    let mut left = at.into_iter().peekable();
    let progress = move |progress: Progress| {
        if let Some(at) = left.next_if(|at| progress.done > *at) {
            tell.try_send(at).unwrap();
        }
    };
    (progress, told)
}

#[tokio::test]
async fn a_large_file_that_is_cut_off_five_times_arrives_once_and_no_more_than_a_window_is_sent_twice_per_cut()
 {
    let megabytes = std::env::var("PILOT_TEST_FILE_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(64);
    let size: u64 = megabytes * 1_000_000;
    let Pair { a, b, rendezvous: _rendezvous, homes } = Pair::of_friends(|_| {}).await;
    let path = homes[0].path().join("large.bin");
    let sha256 = noise(&path, size);
    let mut random = Random(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1);
    // In the first half, so that the connection is still there when it is to be cut.
    let mut offsets: Vec<u64> = (0..5).map(|_| random.next() % (size / 2)).collect();
    offsets.sort_unstable();
    let (progress, mut told) = milestones(offsets.clone());
    let (sender, to) = (client(&a).await, addr(&b));
    let started = std::time::Instant::now();
    let sending =
        tokio::spawn(async move { sender.send_file_with(to, &path, FileOptions::default(), progress).await });
    for number in 0..5 {
        told.recv().await.unwrap();
        cut(if number % 2 == 0 { &a } else { &b }).await;
    }
    let limit = Duration::from_secs(60 + megabytes);
    let receipt = tokio::time::timeout(limit, sending).await.expect("a hang").unwrap().unwrap();
    let again = receipt.bytes_sent - size;
    println!("{size} bytes cut at {offsets:?} in {:?}, {again} of them sent again", started.elapsed());
    assert!(again <= 5 * WINDOW, "{again} bytes were sent twice, cut at {offsets:?}");
    assert_eq!((receipt.bytes, ContentHash(receipt.sha256)), (size, sha256));
    let found = arrived(&homes[1]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(hash_of(&found[0]), sha256);
}

#[tokio::test]
async fn a_sender_that_is_gone_in_the_middle_goes_on_when_it_is_started_again() {
    let Pair { a, b, rendezvous: _rendezvous, homes } = Pair::of_friends(|_| {}).await;
    let size = 24_000_000;
    let path = homes[0].path().join("large.bin");
    let sha256 = noise(&path, size);
    let (progress, mut told) = milestones(vec![size / 2]);
    let (sender, to) = (client(&a).await, addr(&b));
    let sending = {
        let path = path.clone();
        tokio::spawn(async move { sender.send_file_as(to, &path, "one.bin", progress).await })
    };
    within("half of the file", told.recv()).await.unwrap();
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    let receipt =
        within("the rest", client(&a).await.send_file_as(to, &path, "one.bin", |_| {})).await.unwrap();
    assert!(receipt.bytes_resumed >= size / 2, "{receipt:?}");
    assert_eq!(receipt.bytes_sent + receipt.bytes_resumed, size);
    // The same again, as if the last answer had been lost: nothing is sent, nothing is stored twice.
    let receipt =
        within("the answer", client(&a).await.send_file_as(to, &path, "one.bin", |_| {})).await.unwrap();
    assert_eq!((receipt.bytes_sent, receipt.bytes_resumed), (0, size));
    let found = arrived(&homes[1]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(hash_of(&found[0]), sha256);
}

#[tokio::test]
async fn a_beginning_that_was_damaged_is_sent_again_by_itself() {
    let Pair { a, b, rendezvous: _rendezvous, homes } = Pair::of_friends(|_| {}).await;
    let size = 20_000_000;
    let path = homes[0].path().join("f.bin");
    let sha256 = noise(&path, size);
    let (progress, mut told) = milestones(vec![size / 2]);
    let (sender, to) = (client(&a).await, addr(&b));
    let sending = {
        let path = path.clone();
        tokio::spawn(async move { sender.send_file_with(to, &path, FileOptions::default(), progress).await })
    };
    within("half of the file", told.recv()).await.unwrap();
    sending.abort();
    let _ = sending.await;
    // The receiver's machine loses its power: the end of what was written is a hole.
    let config = Config { listen: b.running.listen, ..b.config.clone() };
    b.kill().await;
    let partial =
        std::fs::read_dir(homes[1].path().join("received/.partial")).unwrap().next().unwrap().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(partial.path()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 65_536], 9_000_000).unwrap();
    let b = Daemon::start(config).await;
    let receipt = tokio::time::timeout(
        Duration::from_secs(60),
        client(&a).await.send_file_with(addr(&b), &path, FileOptions::default(), |_| {}),
    )
    .await
    .expect("a hang")
    .unwrap();
    assert!(receipt.bytes_resumed >= size / 2 && receipt.bytes_sent > size, "{receipt:?}");
    let found = arrived(&homes[1]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(hash_of(&found[0]), sha256);
}

fn write_project(root: &Path) {
    std::fs::create_dir_all(root.join("src/deep")).unwrap();
    std::fs::create_dir_all(root.join("empty/inner")).unwrap();
    std::fs::write(root.join(".config"), "hidden").unwrap();
    std::fs::write(root.join("src/nothing"), "").unwrap();
    for number in 0..150 {
        std::fs::write(root.join(format!("src/deep/{number}.txt")), format!("number {number}")).unwrap();
    }
    noise(&root.join("large.bin"), 9_000_000);
    std::fs::copy(root.join("large.bin"), root.join("src/copy.bin")).unwrap();
    noise(&root.join("medium.bin"), 300_000);
}

#[tokio::test]
async fn a_folder_arrives_as_it_was_and_equal_files_in_it_are_sent_once() {
    let Pair { a, b, rendezvous: _rendezvous, homes } = Pair::of_friends(|_| {}).await;
    let root = homes[0].path().join("project");
    write_project(&root);
    std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
    let mut last = None;
    let sender = client(&a).await;
    let receipt =
        within("the folder", sender.send_file(addr(&b), &root, |now| last = Some(now))).await.unwrap();
    assert_eq!((receipt.files, receipt.bytes_resumed), (Some(155), 0));
    assert_eq!(receipt.skipped, ["link"]);
    assert!(receipt.bytes > 18_000_000 && receipt.bytes_sent < 9_400_000, "{receipt:?}");
    let last = last.unwrap();
    assert_eq!(last.done, last.total);
    std::fs::remove_file(root.join("link")).unwrap();
    let found = arrived(&homes[1]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(tree(&found[0]) == tree(&root));
    assert!(found[0].join("empty/inner").is_dir());
    let Reply::Files { files, .. } = client(&b)
        .await
        .received_files(Request::List { from: None, since_ns: None, limit: None })
        .await
        .unwrap()
    else {
        panic!("no list")
    };
    assert_eq!((files[0].from, files[0].files, files[0].bytes), (Some(addr(&a)), Some(155), receipt.bytes));
}

#[tokio::test]
async fn a_folder_goes_on_with_the_files_it_lacks_when_the_receivers_daemon_is_killed_in_the_middle() {
    let Pair { a, b, rendezvous: _rendezvous, homes } = Pair::of_friends(|_| {}).await;
    let root = homes[0].path().join("project");
    write_project(&root);
    let (progress, mut told) = milestones(vec![5_000_000]);
    let (sender, to) = (client(&a).await, addr(&b));
    let sending = {
        let root = root.clone();
        tokio::spawn(async move { sender.send_file_with(to, &root, FileOptions::default(), progress).await })
    };
    within("half of the folder", told.recv()).await.unwrap();
    let config = Config { listen: b.running.listen, ..b.config.clone() };
    b.kill().await;
    assert!(arrived(&homes[1]).is_empty(), "nothing appears before it is complete");
    let _b = Daemon::start(config).await;
    let receipt =
        tokio::time::timeout(Duration::from_secs(60), sending).await.expect("a hang").unwrap().unwrap();
    assert!(receipt.bytes_sent <= 9_400_000 + WINDOW, "{receipt:?}");
    let found = arrived(&homes[1]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(tree(&found[0]) == tree(&root));
}

#[tokio::test]
async fn a_receiver_without_room_says_so_and_takes_the_file_when_it_has_some() {
    let Pair { a, b, rendezvous: _rendezvous, homes } =
        Pair::of_friends(|config| config.received.min_free = 1 << 60).await;
    let path = homes[0].path().join("f.bin");
    noise(&path, 3_000_000);
    let full = client(&a).await.send_file(addr(&b), &path, |_| {}).await.unwrap_err();
    assert_eq!(full.code(), Code::Busy, "{full}");
    assert!(full.to_string().contains("no space left on the receiver's disk"), "{full}");
    let mut config = Config { listen: b.running.listen, ..b.config.clone() };
    config.received.min_free = 0;
    config.received.max_file = 3_000_000;
    b.stop().await;
    let b = Daemon::start(config).await;
    within("the file", client(&a).await.send_file(addr(&b), &path, |_| {})).await.unwrap();
    noise(&path, 3_000_001);
    let refused = client(&a).await.send_file(addr(&b), &path, |_| {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Refused, "{refused}");
    assert!(refused.to_string().contains("the receiver accepts up to 3000000 bytes"), "{refused}");
    assert_eq!(arrived(&homes[1]).len(), 1);
}

#[tokio::test]
async fn a_program_that_waits_for_a_file_is_told_who_sent_it_and_may_remove_it() {
    let Pair { a, b, rendezvous: _rendezvous, homes } = Pair::of_friends(|_| {}).await;
    let path = homes[0].path().join("report.pdf");
    let sha256 = noise(&path, 100_000);
    let waiting = client(&b).await;
    let (since, from) = (SystemTime::now(), a.node());
    let waiter = tokio::spawn(async move {
        waiting.wait_file(Some(from), since, Duration::from_secs(60)).await.unwrap().unwrap()
    });
    let stranger = client(&b).await;
    let nothing =
        stranger.wait_file(Some(b.node()), SystemTime::now(), Duration::from_millis(1)).await.unwrap();
    assert_eq!(nothing, None);
    client(&a).await.send_file(addr(&b), &path, |_| {}).await.unwrap();
    let file = within("the file", waiter).await.unwrap();
    assert_eq!((file.from, file.sha256, file.bytes), (Some(addr(&a)), Some(sha256), 100_000));
    assert_eq!(file.announced.as_deref(), Some("report.pdf"));
    assert_eq!(hash_of(Path::new(&file.path)), sha256);
    let remove = |name: &str| Request::Remove { name: name.to_owned() };
    let owner = client(&b).await;
    assert_eq!(owner.received_files(remove(&file.name)).await.unwrap(), Reply::Cleared { cleared: 1 });
    assert_eq!(owner.received_files(remove(&file.name)).await.unwrap_err().code(), Code::NotFound);
    assert!(arrived(&homes[1]).is_empty());
}
