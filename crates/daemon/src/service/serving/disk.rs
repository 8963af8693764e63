//! `~/.pilot/serving.redb`: what the [`Book`](super::book::Book) remembers, on disk. A thread of its own writes it,
//! because disks block; entries that wait are written together.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pilot_wire::NodeId;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::book::{Entry, Kept, Name, Shelf};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

/// Memory that the database may use.
const CACHE: usize = 2 << 20;

/// Changes on their way. A request is answered once, so this is about programs that answer at the same time.
const QUEUE: usize = 256;

/// Pause before the file is tried again that an ending daemon still holds. There is nothing to wait on.
const LOCKED_PAUSE: Duration = Duration::from_millis(20);

/// What is written: an entry, or that there is none.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) shelf: Shelf,
    pub(super) name: Name,
    pub(super) entry: Option<Entry>,
}

/// Everything on the disk.
pub(super) type Loaded = Vec<(Shelf, Name, Entry)>;

/// The way to the thread; it ends when the last one is gone.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    queue: mpsc::Sender<Batch>,
}

type Batch = (Vec<Change>, oneshot::Sender<io::Result<()>>);

impl Disk {
    /// Starts the thread. What is on the disk comes through the second value; a file that cannot be read is set aside.
    pub(super) fn start(home: &Path) -> io::Result<(Self, oneshot::Receiver<Loaded>)> {
        let (queue, batches) = mpsc::channel(QUEUE);
        let (loaded, loading) = oneshot::channel();
        let path = home.join("serving.redb");
        std::thread::Builder::new()
            .name("pilot-serving".into())
            .spawn(move || run(&path, loaded, batches))?;
        Ok((Self { queue }, loading))
    }

    /// Writes changes; when it returns they are on disk.
    pub(super) async fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let (answer, answered) = oneshot::channel();
        let gone = || io::Error::other("the daemon is shutting down");
        self.queue.send((changes, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn run(path: &Path, loaded: oneshot::Sender<Loaded>, mut batches: mpsc::Receiver<Batch>) {
    let Some((mut database, entries)) = open_somehow(path, &batches) else { return };
    if loaded.send(entries).is_err() {
        return;
    }
    let mut waiting = Vec::new();
    while let Some(first) = batches.blocking_recv() {
        waiting.push(first);
        while let Ok(more) = batches.try_recv() {
            waiting.push(more);
        }
        let changes = waiting.iter().flat_map(|(changes, _)| changes);
        let written = match database.take() {
            Some(open) => write(&open, changes).map(|()| open),
            // It takes no more after a failed write, and must be opened again.
            None => {
                open(path).map_err(io::Error::other).and_then(|open| write(&open, changes).map(|()| open))
            }
        };
        let written = written.map(|open| database = Some(open));
        if let Err(error) = &written {
            tracing::error!(path = %path.display(), %error, "answers cannot be remembered");
        }
        for (_, answer) in waiting.drain(..) {
            let outcome = match &written {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            // Whoever asked may have gone.
            let _ = answer.send(outcome);
        }
    }
}

/// None when the daemon ends meanwhile.
fn open_somehow(path: &Path, batches: &mpsc::Receiver<Batch>) -> Option<(Option<Database>, Loaded)> {
    loop {
        if batches.is_closed() {
            return None;
        }
        // The database takes some damage for its own mistake and panics; here it is the file's.
        let opened = std::panic::catch_unwind(|| {
            let database = open(path)?;
            let entries = load(&database)?;
            Ok::<_, redb::Error>((database, entries))
        });
        let reason = match opened {
            Ok(Ok((database, entries))) => return Some((Some(database), entries)),
            Ok(Err(redb::Error::DatabaseAlreadyOpen)) => {
                std::thread::sleep(LOCKED_PAUSE);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its pages contradict each other".to_owned(),
        };
        let aside: PathBuf = path.with_extension("redb.damaged");
        tracing::error!(path = %path.display(), reason, aside = %aside.display(), "the answered requests cannot be read");
        if std::fs::rename(path, &aside).is_err() {
            // Nothing can be remembered; each answer fails with the reason.
            return Some((None, Vec::new()));
        }
    }
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let database = Builder::new().set_cache_size(CACHE).create_file(file).map_err(redb::Error::from)?;
    let transaction = database.begin_write()?;
    transaction.open_table(ENTRIES)?;
    transaction.commit()?;
    Ok(database)
}

fn load(database: &Database) -> Result<Loaded, redb::Error> {
    let transaction = database.begin_read()?;
    let mut entries = Vec::new();
    for row in transaction.open_table(ENTRIES)?.iter()? {
        let (key, value) = row?;
        match decode(key.value(), value.value()) {
            Some(entry) => entries.push(entry),
            None => tracing::warn!("an entry about an answered request cannot be read"),
        }
    }
    entries.sort_by_key(|(_, _, entry)| entry.at);
    Ok(entries)
}

fn write<'a>(database: &Database, changes: impl Iterator<Item = &'a Change>) -> io::Result<()> {
    let all = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(ENTRIES)?;
            for change in changes {
                let key = encode_key(change.shelf, &change.name);
                match &change.entry {
                    Some(entry) => {
                        table.insert(key.as_slice(), encode(entry).as_slice())?;
                    }
                    None => {
                        table.remove(key.as_slice())?;
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(())
    };
    all().map_err(io::Error::other)
}

/// The head of an entry; the body of the answer follows it.
#[derive(Serialize, Deserialize)]
struct Head {
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<AnswerHead>,
}

#[derive(Serialize, Deserialize)]
struct AnswerHead {
    outcome: pilot_wire::dataexchange::Outcome,
    kind: pilot_wire::outbox::Kind,
    hops: u8,
}

/// `a` or `k`, the sender, its id or key.
fn encode_key(shelf: Shelf, name: &Name) -> Vec<u8> {
    let mut key = vec![match shelf {
        Shelf::Answered => b'a',
        Shelf::Key => b'k',
    }];
    key.extend_from_slice(&name.0.0.to_be_bytes());
    key.extend_from_slice(name.1.as_str().as_bytes());
    key
}

/// `u32 length of the head | head as JSON | body`.
fn encode(entry: &Entry) -> Vec<u8> {
    let answer = entry.answer.as_ref();
    let head = Head {
        at: entry.at,
        answer: answer.map(|kept| AnswerHead { outcome: kept.outcome, kind: kept.kind, hops: kept.hops }),
    };
    let head = serde_json::to_vec(&head).unwrap_or_default();
    let mut value = u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    value.extend_from_slice(&head);
    value.extend_from_slice(answer.map_or(&[][..], |kept| &kept.body));
    value
}

fn decode(key: &[u8], value: &[u8]) -> Option<(Shelf, Name, Entry)> {
    let (shelf, rest) = key.split_first()?;
    let shelf = match shelf {
        b'a' => Shelf::Answered,
        b'k' => Shelf::Key,
        _ => return None,
    };
    let (node, id) = rest.split_first_chunk()?;
    let name = (NodeId(u32::from_be_bytes(*node)), std::str::from_utf8(id).ok()?.parse().ok()?);
    let (length, rest) = value.split_first_chunk()?;
    let (head, body) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let head: Head = serde_json::from_slice(head).ok()?;
    let answer = head.answer.map(|answer| Kept {
        outcome: answer.outcome,
        kind: answer.kind,
        body: bytes::Bytes::copy_from_slice(body),
        hops: answer.hops,
    });
    Some((shelf, name, Entry { at: head.at, answer }))
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    let (key, value) = bytes.split_at(bytes.len().min(37));
    if let Some((shelf, name, entry)) = decode(key, value) {
        assert_eq!(encode_key(shelf, &name), key);
        let again = encode(&entry);
        assert_eq!(decode(key, &again).map(|(_, _, entry)| encode(&entry)), Some(again));
    }
}

#[cfg(test)]
mod tests {
    use pilot_wire::dataexchange::Outcome;
    use pilot_wire::outbox::Kind;

    use super::*;

    fn change(shelf: Shelf, id: &str, entry: Option<Entry>) -> Change {
        Change { shelf, name: (NodeId(7), id.parse().unwrap()), entry }
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_a_restart_and_what_was_removed_is_not() {
        let home = tempfile::tempdir().unwrap();
        let (disk, loading) = Disk::start(home.path()).unwrap();
        assert!(loading.await.unwrap().is_empty());
        let body = bytes::Bytes::from_static(b"\x00answer\xff");
        let kept = Kept { outcome: Outcome::Failed, kind: Kind::Binary, body, hops: 3 };
        let entry = Entry { at: 5, answer: Some(kept) };
        let plain = Entry { at: 9, answer: None };
        disk.write(vec![
            change(Shelf::Key, "k", Some(entry.clone())),
            change(Shelf::Answered, "m", Some(plain.clone())),
            change(Shelf::Answered, "n", Some(plain.clone())),
        ])
        .await
        .unwrap();
        disk.write(vec![change(Shelf::Answered, "n", None)]).await.unwrap();
        drop(disk);
        let (_disk, loading) = Disk::start(home.path()).unwrap();
        let name = |id: &str| (NodeId(7), id.parse().unwrap());
        assert_eq!(
            loading.await.unwrap(),
            [(Shelf::Key, name("k"), entry), (Shelf::Answered, name("m"), plain)]
        );
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("serving.redb");
        std::fs::write(&path, b"this is no database, however long it may be").unwrap();
        let (disk, loading) = Disk::start(home.path()).unwrap();
        assert!(loading.await.unwrap().is_empty());
        disk.write(vec![change(Shelf::Answered, "m", Some(Entry { at: 1, answer: None }))]).await.unwrap();
        assert!(home.path().join("serving.redb.damaged").exists());
    }
}
