//! Fills an empty store with the records of another.

use crate::{
    clock::Clock,
    registry::{Config, Key, Record, RestoreError, State},
    store::{Store, StoreError},
};
use std::{
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

/// Why a store was not filled. It is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The records cannot all be true.
    #[error("the records contradict each other: {0}; nothing was written")]
    Records(#[from] RestoreError),
    /// There is something in the store already.
    #[error("the store {} is not empty, it has {records} records; nothing was written", path.display())]
    NotEmpty {
        /// The store.
        path: PathBuf,
        /// How many it has.
        records: usize,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes all records into a store that has none, or nothing. When it returns they are on disk.
///
/// # Errors
/// [`FillError`]; nothing was written then.
pub fn fill(path: &Path, records: Vec<(Key, Record)>) -> Result<(), FillError> {
    let clock = Clock::new(Instant::now(), SystemTime::now());
    State::restore(Config::default(), clock, records.iter().cloned())?;
    let (mut store, found) = Store::open(path)?;
    if !found.is_empty() {
        return Err(FillError::NotEmpty { path: path.to_owned(), records: found.len() });
    }
    let changes: Vec<_> = records.into_iter().map(|(key, record)| (key, Some(record))).collect();
    store.commit(&changes)?;
    Ok(())
}
