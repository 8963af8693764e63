//! Fills an empty store with the records of another.

use crate::{
    clock::Clock,
    registry::{Config, Key, Record, RestoreError, State},
    store::{self, StoreError, StoreUrl},
};
use std::{
    collections::BTreeSet,
    time::{Instant, SystemTime},
};

/// Why a store was not filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The records cannot all be true.
    #[error("the records contradict each other: {0}; nothing was written")]
    Records(#[from] RestoreError),
    /// There is something in the store already.
    #[error("the store {store} is not empty, it has {records} records; nothing was written")]
    NotEmpty {
        /// The file or the database.
        store: String,
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
/// [`FillError`]; nothing was written then, unless a database fell silent while it was told to keep what it had been given.
pub async fn fill(url: &StoreUrl, records: Vec<(Key, Record)>) -> Result<(), FillError> {
    let clock = Clock::new(Instant::now(), SystemTime::now());
    State::restore(Config::default(), clock, records.iter().cloned())?;
    let (mut store, found) = store::open(url).await?;
    // From now on nobody else writes there.
    let delta = store.begin(BTreeSet::new()).await?;
    let records_there = found.len() + delta.changes.len();
    if records_there > 0 {
        store.commit(Vec::new()).await?;
        return Err(FillError::NotEmpty { store: url.to_string(), records: records_there });
    }
    store.commit(records.into_iter().map(|(key, record)| (key, Some(record))).collect()).await?;
    Ok(())
}
