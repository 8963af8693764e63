//! The outbox on disk: one database for records and short messages, a file for each long one. Mode 0600.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};

use super::entry::{Place, Record, Seq};
use super::ledger::Change;
use crate::files::create_private_dir;

/// Records, as JSON, by [`Seq`].
const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");

/// Bodies of up to [`IN_DATABASE`] bytes, by [`Seq`].
const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");

/// Memory for pages of the database, in bytes.
const PAGES: usize = 4 << 20;

/// Longest body in the database.
pub(super) const IN_DATABASE: u64 = 64 << 10;

/// Why the database cannot be used now.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// Another process has it, or an earlier life of this one is about to let go of it.
    #[error("{} is in use", .0.display())]
    Locked(PathBuf),
    /// The system says no.
    #[error("{}: {source}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The outbox on disk; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    path: PathBuf,
    folder: PathBuf,
    /// None after a failed write: the database takes no more then, and is opened again.
    database: Arc<Mutex<Option<Arc<Database>>>>,
}

impl Disk {
    /// Nothing is opened yet.
    pub(super) fn at(home: &Path) -> Self {
        Self {
            path: home.join("outbox.redb"),
            folder: home.join("outbox"),
            database: Arc::new(Mutex::new(None)),
        }
    }

    /// Opens the database and reads the records. One that is damaged is set aside, and a new one begun.
    pub(super) fn open(&self) -> Result<BTreeMap<Seq, Record>, OpenError> {
        let system = |source| OpenError::System { path: self.path.clone(), source };
        create_private_dir(&self.folder).map_err(system)?;
        match self.try_open() {
            Ok(records) => Ok(records),
            Err(Trouble::Open(error)) => Err(error),
            Err(Trouble::Damaged(reason)) => {
                let aside = self.set_aside().map_err(system)?;
                tracing::error!(
                    reason,
                    set_aside = %aside.display(),
                    "the outbox is damaged; messages that were not delivered yet are lost, unless that file can be read"
                );
                match self.try_open() {
                    Ok(records) => Ok(records),
                    Err(Trouble::Open(error)) => Err(error),
                    Err(Trouble::Damaged(reason)) => Err(system(io::Error::other(reason))),
                }
            }
        }
    }

    fn try_open(&self) -> Result<BTreeMap<Seq, Record>, Trouble> {
        // The database takes some damage for its own mistake and panics; here it is the file's.
        let opened = panic::catch_unwind(|| {
            let database = self.open_database()?;
            let records = read_records(&database).map_err(|error| Trouble::Damaged(error.to_string()))?;
            Ok((database, records))
        });
        let (database, records) =
            opened.unwrap_or_else(|_| Err(Trouble::Damaged("its pages contradict each other".to_owned())))?;
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(database));
        Ok(records)
    }

    fn open_database(&self) -> Result<Database, Trouble> {
        let system = |source| Trouble::Open(OpenError::System { path: self.path.clone(), source });
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        let file = file.map_err(system)?;
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(system)?;
        let database = Builder::new().set_cache_size(PAGES).create_file(file).map_err(|error| {
            if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
                return Trouble::Open(OpenError::Locked(self.path.clone()));
            }
            let text = error.to_string();
            if let DatabaseError::Storage(StorageError::Io(source)) = error
                && !says_damaged(&source)
            {
                return system(source);
            }
            Trouble::Damaged(text)
        })?;
        begin(&database).map_err(|error| Trouble::Damaged(error.to_string()))?;
        Ok(database)
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        let time = crate::datetime::compact(std::time::SystemTime::now());
        let mut aside = self.path.clone().into_os_string();
        aside.push(format!(".damaged-{time}"));
        let aside = PathBuf::from(aside);
        fs::rename(&self.path, &aside)?;
        Ok(aside)
    }

    /// Writes all changes or none. When it returns they are on disk.
    pub(super) fn commit(&self, changes: &BTreeMap<Seq, Change>) -> Result<(), String> {
        let opened = self.database.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let database = match opened {
            Some(database) => database,
            None => match self.open_database() {
                Ok(database) => {
                    let database = Arc::new(database);
                    *self.database.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(Arc::clone(&database));
                    database
                }
                Err(Trouble::Open(error)) => return Err(error.to_string()),
                Err(Trouble::Damaged(reason)) => return Err(reason),
            },
        };
        if let Err(error) = write(&database, changes) {
            *self.database.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Err(error.to_string());
        }
        for change in changes.values() {
            let place = match change {
                Change::Update(record) if record.state.is_settled() => record.place,
                Change::Remove(place) => *place,
                Change::New(..) | Change::Update(_) => continue,
            };
            if let Place::File(number) = place {
                self.remove_file(number);
            }
        }
        Ok(())
    }

    /// The bytes of a message.
    pub(super) fn load(&self, seq: Seq, place: Place) -> io::Result<Bytes> {
        match place {
            Place::File(number) => fs::read(self.file(number)).map(Bytes::from),
            Place::Database => {
                let database = self.database.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let database = database.ok_or_else(|| io::Error::other("the outbox is not open"))?;
                let transaction = database.begin_read().map_err(io::Error::other)?;
                let bodies = transaction.open_table(BODIES).map_err(io::Error::other)?;
                let body = bodies.get(seq.0).map_err(io::Error::other)?;
                let body = body.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                Ok(Bytes::copy_from_slice(body.value()))
            }
        }
    }

    /// Where a long body is.
    pub(super) fn file(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:016x}"))
    }

    /// Writes a long body, durably.
    pub(super) fn write_file(&self, number: u64, body: &[u8]) -> io::Result<()> {
        let mut file = self.create(number)?;
        file.write_all(body)?;
        self.finish(&file)
    }

    /// Copies a file that an application names, durably; at most `limit` bytes. Its length.
    pub(super) fn copy_file(&self, number: u64, mut from: &File, limit: u64) -> io::Result<u64> {
        let mut file = self.create(number)?;
        // On Linux this is a copy inside the kernel, which shares the blocks where the file system can.
        let length = io::copy(&mut io::Read::take(&mut from, limit.saturating_add(1)), &mut file)?;
        self.finish(&file)?;
        Ok(length)
    }

    fn create(&self, number: u64) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.file(number))
    }

    fn finish(&self, file: &File) -> io::Result<()> {
        file.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }

    /// If it cannot be removed it takes space until the next start, nothing else.
    pub(super) fn remove_file(&self, number: u64) {
        let _ = fs::remove_file(self.file(number));
    }

    /// Removes bodies that no message needs, and returns the highest number in use.
    pub(super) fn sweep(&self, needed: &BTreeSet<u64>) -> u64 {
        for file in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let number = file.file_name().to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
            if let Some(number) = number
                && !needed.contains(&number)
            {
                self.remove_file(number);
            }
        }
        needed.last().copied().unwrap_or(0)
    }
}

enum Trouble {
    Open(OpenError),
    Damaged(String),
}

/// The database reports a file that is none, or is cut short, as an error of reading it.
fn says_damaged(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn begin(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(BODIES)?;
    transaction.commit()?;
    Ok(())
}

fn read_records(database: &Database) -> Result<BTreeMap<Seq, Record>, redb::Error> {
    let transaction = database.begin_read()?;
    let mut records = BTreeMap::new();
    for entry in transaction.open_table(RECORDS)?.iter()? {
        let (seq, value) = entry?;
        match serde_json::from_slice(value.value()) {
            Ok(record) => drop(records.insert(Seq(seq.value()), record)),
            Err(error) => tracing::error!(seq = seq.value(), %error, "a message of the outbox is unreadable"),
        }
    }
    Ok(records)
}

fn write(database: &Database, changes: &BTreeMap<Seq, Change>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        let mut bodies = transaction.open_table(BODIES)?;
        for (Seq(seq), change) in changes {
            match change {
                Change::New(record, body) => {
                    records.insert(seq, json(record)?.as_slice())?;
                    if let (Place::Database, Some(body)) = (record.place, body) {
                        bodies.insert(seq, body.as_ref())?;
                    }
                }
                Change::Update(record) => {
                    records.insert(seq, json(record)?.as_slice())?;
                    if record.state.is_settled() {
                        bodies.remove(seq)?;
                    }
                }
                Change::Remove(_) => {
                    records.remove(seq)?;
                    bodies.remove(seq)?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn json(record: &Record) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(record).map_err(|error| io::Error::from(error).into())
}
