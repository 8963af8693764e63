//! The registry's records outside of memory, where they are before anything is acknowledged.
//!
//! Two engines: [`Embedded`], a file for one process, and [`Postgres`], a database for several that serve at once. The
//! registry takes the right to write, learns what others have changed, changes its state, and commits; with a file nobody
//! else is there and the right costs nothing.
//!
//! A damaged store is never repaired by forgetting what it held, and never replaced: starting empty would give the
//! numbers and names of all nodes to strangers (spec/registry.md 22.5).

mod embedded;
mod postgres;
mod url;
mod word;

use crate::registry::{Change, Key, Record};
use pilot_wire::NodeId;
use std::{collections::BTreeSet, io, path::PathBuf, pin::Pin};
use tokio::sync::mpsc;

pub use embedded::Embedded;
pub use postgres::Postgres;
pub use url::{PostgresUrl, StoreUrl, UrlError};

/// Something that a store is doing.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An open store.
///
/// Writing goes in turns: [`begin`](Self::begin), then [`commit`](Self::commit). When a call fails the turn is over, and what
/// it was to write is in doubt: it may be there or not. The keys are given to the next call, which says what is true.
pub trait Store: Send + std::fmt::Debug {
    /// Takes the right to write, and says what others have changed since the last call. Until `commit` nobody else
    /// changes anything.
    ///
    /// # Errors
    /// [`StoreError`]: nothing can be written at the moment.
    fn begin(&mut self, doubtful: BTreeSet<Key>) -> Doing<'_, Result<Delta, StoreError>>;

    /// Writes all changes or none, and gives up the right. When it returns they survive a loss of power. With no
    /// changes it only gives up the right. Returns the number of this write.
    ///
    /// # Errors
    /// [`StoreError`]: the changes are in doubt.
    fn commit(&mut self, changes: Vec<Change>) -> Doing<'_, Result<u64, StoreError>>;

    /// Says what others have changed, without the right to write.
    ///
    /// # Errors
    /// [`StoreError`]: nothing can be read at the moment.
    fn catch_up(&mut self, doubtful: BTreeSet<Key>) -> Doing<'_, Result<Delta, StoreError>>;

    /// The others that serve from the same records: how to hear them and to talk to them. None if there cannot be any,
    /// or if it was asked for before.
    fn others(&mut self) -> Option<Others>;
}

/// What has changed in a store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Records as they are now.
    pub changes: Vec<Change>,
    /// True if these are all records, and those that are not among them are gone.
    pub whole: bool,
    /// The last write that is covered by it.
    pub revision: u64,
}

/// The other instances over the same records.
#[derive(Debug)]
pub struct Others {
    /// What they say.
    pub heard: mpsc::Receiver<Elsewhere>,
    /// What to tell them. Best effort: it is lost while the database is away.
    pub tell: mpsc::Sender<Vec<Word>>,
}

/// Something that happened at another instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// A write was committed.
    Changed {
        /// Its number.
        revision: u64,
    },
    /// It said something that is not written anywhere.
    Said(Word),
    /// Nothing is heard from now on.
    Lost,
    /// They are heard again, or for the first time. What was said meanwhile is lost.
    Back,
}

/// What instances tell each other besides records. It is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// These nodes have been heard of.
    Heard(Vec<NodeId>),
    /// A beacon is there.
    Beacon {
        /// Its number.
        id: u32,
        /// Where it is reached.
        addr: String,
    },
}

/// A store that was opened, and everything in it.
pub type Opened = (Box<dyn Store>, Vec<(Key, Record)>);

/// Opens a store, or makes one if there is none, and reads everything in it.
///
/// # Errors
/// [`StoreError`]; the store is then as it was.
pub async fn open(url: &StoreUrl) -> Result<Opened, StoreError> {
    match url {
        StoreUrl::File(path) => {
            let (store, records) = Embedded::open(path)?;
            Ok((Box::new(store), records))
        }
        StoreUrl::Postgres(url) => {
            let (store, records) = Postgres::open(url).await?;
            Ok((Box::new(store), records))
        }
    }
}

/// Why the records cannot be used. No text contains a password.
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
    /// The records are not what they must be. They are left as they are.
    #[error(
        "the store {store} is damaged ({reason}); it is left untouched: restore a copy, or move it away to start a new \
         registry, which forgets every node"
    )]
    Damaged {
        /// The file or the database.
        store: String,
        /// What is wrong.
        reason: String,
    },
    /// Written by another version of this program.
    #[error("the store {store} has format {found}, this program reads {known}")]
    Format {
        /// The file or the database.
        store: String,
        /// What it says.
        found: u64,
        /// What this program can read.
        known: u64,
    },
    /// Nobody answers there, or not as PostgreSQL does.
    #[error("the database {store} is not reached: {reason}")]
    Unreachable {
        /// The database.
        store: String,
        /// Why.
        reason: String,
    },
    /// The server refuses us: user or password are wrong, or it does not let this user in.
    #[error("the database {store} refuses us: {reason}")]
    Denied {
        /// The database.
        store: String,
        /// What it said.
        reason: String,
    },
    /// The server has no such database.
    #[error("the database {store} does not exist: {reason}")]
    NoDatabase {
        /// The database.
        store: String,
        /// What the server said.
        reason: String,
    },
    /// The user may not do there what must be done.
    #[error("the user of the database {store} lacks a right: {reason}")]
    Forbidden {
        /// The database.
        store: String,
        /// What the server said.
        reason: String,
    },
    /// Records could not be read or written; nothing of what was to be written is acknowledged.
    #[error("the store does not work: {0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Locked { .. } => {
                Some("another rendezvous uses this store; stop it or choose another `--store`")
            }
            Self::Damaged { .. } => Some("restore a copy; see docs/rendezvous.md"),
            Self::Format { .. } => Some("run the newest version of this program"),
            Self::Open { .. } => Some("another database: --store PATH or --store postgres://..."),
            Self::Unreachable { .. } => {
                Some("is PostgreSQL running there, and are host, port and sslmode of the URL right?")
            }
            Self::Denied { .. } => Some(
                "check user and password (in the URL, PGPASSWORD or ~/.pgpass) and the server's pg_hba.conf",
            ),
            Self::NoDatabase { .. } => {
                Some("make it with `createdb`, or name another one at the end of the URL")
            }
            Self::Forbidden { .. } => {
                Some("let it make tables once: GRANT CREATE, USAGE ON SCHEMA public TO the user")
            }
            Self::Failed(_) => None,
        }
    }
}
