//! A file of one process: an embedded database, each commit synced.

use super::{Delta, Doing, Others, Store, StoreError};
use crate::registry::{Change, Key, Record};
use pilot_wire::{NetworkId, NodeId};
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io, panic,
    path::{Path, PathBuf},
};

/// Records by [`Key`].
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// Facts about the file.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: &str = "format";
/// Of the records. A file with another number is left alone.
const FORMAT_VERSION: u64 = 1;
/// Memory for pages in bytes; a hundred thousand nodes are about 40 MB on disk.
const CACHE: usize = 16 << 20;

/// An open file. It holds its lock.
#[derive(Debug)]
pub struct Embedded {
    /// None after a failed write: the database takes no more then, and must be opened again.
    database: Option<Database>,
    path: PathBuf,
}

impl Embedded {
    /// Opens the store, or makes one with mode 0600 if there is no file, and reads everything in it.
    ///
    /// # Errors
    /// [`StoreError`]; the file is then as it was.
    pub fn open(path: &Path) -> Result<(Self, Vec<(Key, Record)>), StoreError> {
        // The database takes some damage for its own mistake and panics; here it is the file's.
        panic::catch_unwind(|| Self::open_sound(path)).unwrap_or_else(|_| {
            Err(StoreError::Damaged {
                store: path.display().to_string(),
                reason: "its pages contradict each other".to_owned(),
            })
        })
    }

    fn open_sound(path: &Path) -> Result<(Self, Vec<(Key, Record)>), StoreError> {
        let damaged = |reason: String| StoreError::Damaged { store: path.display().to_string(), reason };
        let failed = |source| StoreError::Open { path: path.to_owned(), source };
        let exists = path.exists();
        if exists && path.metadata().map_err(failed)?.len() == 0 {
            return Err(damaged("the file is empty".to_owned()));
        }
        let file = open_private(path).map_err(failed)?;
        let opened = Builder::new().set_cache_size(CACHE).create_file(file);
        let mut database = opened.map_err(|error| {
            if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
                return StoreError::Locked { path: path.to_owned() };
            }
            let text = error.to_string();
            if let DatabaseError::Storage(redb::StorageError::Io(source)) = error
                && !says_damaged(&source)
            {
                return failed(source);
            }
            damaged(text)
        })?;
        if exists {
            match database.check_integrity() {
                Ok(true) => {}
                Ok(false) => return Err(damaged("a checksum was wrong".to_owned())),
                Err(error) => return Err(damaged(error.to_string())),
            }
        }
        if !exists {
            begin(&database).map_err(|error| StoreError::Failed(Box::new(error)))?;
        }
        let store = Self { database: Some(database), path: path.to_owned() };
        let records = store.load()?;
        Ok((store, records))
    }

    /// Works with the database in a thread where that may take its time. After a failure it is opened anew.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (database, path) = (self.database.take(), self.path.clone());
        let working = tokio::task::spawn_blocking(move || {
            let database = match database {
                Some(database) => database,
                None => Builder::new().set_cache_size(CACHE).open(path)?,
            };
            let outcome = work(&database)?;
            Ok::<_, redb::Error>((database, outcome))
        });
        match working.await {
            Ok(Ok((database, outcome))) => {
                self.database = Some(database);
                Ok(outcome)
            }
            Ok(Err(error)) => Err(StoreError::Failed(Box::new(error))),
            Err(panicked) => Err(StoreError::Failed(Box::new(panicked))),
        }
    }

    /// Nobody else writes, so only what is in doubt has to be read.
    async fn truth(&mut self, doubtful: BTreeSet<Key>) -> Result<Delta, StoreError> {
        if doubtful.is_empty() {
            return Ok(Delta::default());
        }
        let changes = self.with(move |database| read_some(database, &doubtful)).await?;
        Ok(Delta { changes, ..Delta::default() })
    }

    fn load(&self) -> Result<Vec<(Key, Record)>, StoreError> {
        match self.read() {
            Ok(Ok(records)) => Ok(records),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(self.damaged(error.to_string())),
        }
    }

    fn read(&self) -> Result<Result<Vec<(Key, Record)>, StoreError>, redb::Error> {
        let Some(database) = &self.database else { return Ok(Ok(Vec::new())) };
        let transaction = database.begin_read()?;
        let format = transaction.open_table(META)?.get(FORMAT)?.map(|value| value.value());
        match format {
            Some(FORMAT_VERSION) => {}
            Some(found) => {
                let store = self.path.display().to_string();
                return Ok(Err(StoreError::Format { store, found, known: FORMAT_VERSION }));
            }
            None => return Ok(Err(self.damaged("it does not say its format".to_owned()))),
        }
        let mut records = Vec::new();
        for entry in transaction.open_table(RECORDS)?.iter()? {
            let (key, value) = entry?;
            let Some(key) = decode(key.value()) else {
                return Ok(Err(self.damaged(format!("unknown key {:02x?}", key.value()))));
            };
            match serde_json::from_slice(value.value()) {
                Ok(record) => records.push((key, record)),
                Err(error) => {
                    return Ok(Err(self.damaged(format!("the record {key:?} is unreadable: {error}"))));
                }
            }
        }
        Ok(Ok(records))
    }

    fn damaged(&self, reason: String) -> StoreError {
        StoreError::Damaged { store: self.path.display().to_string(), reason }
    }
}

impl Store for Embedded {
    fn begin(&mut self, doubtful: BTreeSet<Key>) -> Doing<'_, Result<Delta, StoreError>> {
        Box::pin(self.truth(doubtful))
    }

    fn commit(&mut self, changes: Vec<Change>) -> Doing<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            if !changes.is_empty() {
                self.with(move |database| write(database, &changes)).await?;
            }
            Ok(0)
        })
    }

    fn catch_up(&mut self, doubtful: BTreeSet<Key>) -> Doing<'_, Result<Delta, StoreError>> {
        Box::pin(self.truth(doubtful))
    }

    fn others(&mut self) -> Option<Others> {
        None
    }
}

fn read_some(database: &Database, keys: &BTreeSet<Key>) -> Result<Vec<Change>, redb::Error> {
    let table = database.begin_read()?.open_table(RECORDS)?;
    let read = |key: &Key| {
        let value = table.get(encode(*key).as_slice())?;
        let record = value.map(|value| serde_json::from_slice(value.value())).transpose();
        Ok((*key, record.map_err(io::Error::from)?))
    };
    keys.iter().map(read).collect()
}

fn write(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        for (key, record) in changes {
            let key = encode(*key);
            match record {
                Some(record) => {
                    let value = serde_json::to_vec(record).map_err(io::Error::from)?;
                    table.insert(key.as_slice(), value.as_slice())?;
                }
                None => {
                    table.remove(key.as_slice())?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Marks a new file, so that an empty one is never taken for a registry without nodes.
fn begin(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(FORMAT, FORMAT_VERSION)?;
    transaction.open_table(RECORDS)?;
    transaction.commit()?;
    Ok(())
}

/// Tokens of networks and endpoints of private nodes are in it.
fn open_private(path: &Path) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(file)
}

/// The database reports a file that is none, or is cut short, as an error of reading it.
fn says_damaged(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn encode(key: Key) -> Vec<u8> {
    let (kind, number) = match key {
        Key::Counters => (b'c', 0),
        Key::Node(node) => (b'n', node.0),
        Key::Consents(node) => (b't', node.0),
        Key::Inbox(node) => (b'i', node.0),
        Key::Tasks(node) => (b'k', node.0),
        Key::Network(network) => (b'w', u32::from(network.0)),
        Key::KeyLife(node) => (b'l', node.0),
        Key::Cards(node) => (b'a', node.0),
        Key::Audit(place) => (b'z', place),
        Key::Mesh => (b'm', 0),
        Key::Authority => (b'y', 0),
    };
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Key> {
    let (kind, number) = bytes.split_first()?;
    let number = u32::from_be_bytes(number.try_into().ok()?);
    match kind {
        b'c' => Some(Key::Counters),
        b'n' => Some(Key::Node(NodeId(number))),
        b't' => Some(Key::Consents(NodeId(number))),
        b'i' => Some(Key::Inbox(NodeId(number))),
        b'k' => Some(Key::Tasks(NodeId(number))),
        b'l' => Some(Key::KeyLife(NodeId(number))),
        b'a' => Some(Key::Cards(NodeId(number))),
        b'z' => Some(Key::Audit(number)),
        b'm' => Some(Key::Mesh),
        b'y' => Some(Key::Authority),
        b'w' => u16::try_from(number).ok().map(|number| Key::Network(NetworkId(number))),
        _ => None,
    }
}
