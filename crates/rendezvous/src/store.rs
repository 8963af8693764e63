//! The registry's records on disk: one embedded database, each commit synced before anything is acknowledged.
//!
//! A damaged file is never repaired by forgetting what it held, and never replaced: starting empty would give the
//! numbers and names of all nodes to strangers (spec/registry.md 22.5).

use crate::registry::{Change, Key, Record};
use pilot_wire::{NetworkId, NodeId};
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
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

/// Why the records cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the store {} is in use by another process", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened or made.
    #[error("the store {} cannot be opened: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it must be. It is left as it is.
    #[error(
        "the store {} is damaged ({reason}); it is left untouched: restore a copy, or move it away to start a new \
         registry, which forgets every node",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Written by another version of this program.
    #[error("the store {} has format {found}, this program reads {FORMAT_VERSION}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
    },
    /// Records could not be written; nothing of them is acknowledged.
    #[error("the store cannot be written: {0}")]
    Write(#[source] Box<redb::Error>),
}

/// An open store. It holds the lock of the file.
#[derive(Debug)]
pub struct Store {
    /// None after a failed write: the database takes no more then, and must be opened again.
    database: Option<Database>,
    path: PathBuf,
}

impl Store {
    /// Opens the store, or makes one with mode 0600 if there is no file, and reads everything in it.
    ///
    /// # Errors
    /// [`StoreError`]; the file is then as it was.
    pub fn open(path: &Path) -> Result<(Self, Vec<(Key, Record)>), StoreError> {
        // The database takes some damage for its own mistake and panics; here it is the file's.
        panic::catch_unwind(|| Self::open_sound(path)).unwrap_or_else(|_| {
            Err(StoreError::Damaged {
                path: path.to_owned(),
                reason: "its pages contradict each other".to_owned(),
            })
        })
    }

    fn open_sound(path: &Path) -> Result<(Self, Vec<(Key, Record)>), StoreError> {
        let damaged = |reason: String| StoreError::Damaged { path: path.to_owned(), reason };
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
            begin(&database).map_err(|error| StoreError::Write(Box::new(error)))?;
        }
        let store = Self { database: Some(database), path: path.to_owned() };
        let records = store.load()?;
        Ok((store, records))
    }

    /// A store whose file is opened with the first commit, for one that was lost in the middle of a write.
    #[must_use]
    pub fn reopening(path: PathBuf) -> Self {
        Self { database: None, path }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all changes or none. When it returns they are on disk.
    ///
    /// # Errors
    /// [`StoreError::Write`]; call it again with the same changes and all that came since.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let outcome = match self.database.take() {
            Some(database) => write(&database, changes).map(|()| database),
            None => Builder::new()
                .set_cache_size(CACHE)
                .open(&self.path)
                .map_err(redb::Error::from)
                .and_then(|database| write(&database, changes).map(|()| database)),
        };
        self.database = Some(outcome.map_err(|error| StoreError::Write(Box::new(error)))?);
        Ok(())
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
            Some(found) => return Ok(Err(StoreError::Format { path: self.path.clone(), found })),
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
        StoreError::Damaged { path: self.path.clone(), reason }
    }
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
        Key::Mesh => (b'm', 0),
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
        b'm' => Some(Key::Mesh),
        b'w' => u16::try_from(number).ok().map(|number| Key::Network(NetworkId(number))),
        _ => None,
    }
}
