//! Which resources have changed, for those who want to be told.
//!
//! A change is a number per resource that grows; a reader remembers what it has told. However fast changes come, a reader
//! that is slow tells of each resource once: nothing is queued.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Stands for the list of resources itself.
pub(crate) const LIST: &str = "";

/// The board that changes are written on.
#[derive(Debug)]
pub(crate) struct Board {
    changes: Mutex<BTreeMap<String, u64>>,
    tick: watch::Sender<u64>,
}

/// Somebody who reads it.
#[derive(Debug)]
pub(crate) struct Reader {
    seen: BTreeMap<String, u64>,
    tick: watch::Receiver<u64>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { changes: Mutex::default(), tick: watch::Sender::new(0) }
    }

    fn changes(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resource has changed.
    pub(crate) fn touch(&self, uri: &str) {
        *self.changes().entry(uri.to_owned()).or_default() += 1;
        self.tick.send_modify(|tick| *tick += 1);
    }

    /// The resource is gone.
    pub(crate) fn forget(&self, uri: &str) {
        self.changes().remove(uri);
    }

    /// Reads what changes from now on.
    pub(crate) fn reader(&self) -> Reader {
        Reader { tick: self.tick.subscribe(), seen: self.changes().clone() }
    }
}

impl Reader {
    /// What has changed since it was last asked; waits until something has.
    pub(crate) async fn next(&mut self, board: &Board) -> Vec<String> {
        loop {
            self.tick.mark_unchanged();
            let now = board.changes().clone();
            let is_new =
                |(uri, change): (&String, &u64)| (self.seen.get(uri) != Some(change)).then(|| uri.clone());
            let changed: Vec<String> = now.iter().filter_map(is_new).collect();
            self.seen = now;
            if !changed.is_empty() {
                return changed;
            }
            if self.tick.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_hears_of_each_resource_once() {
        let board = Board::new();
        board.touch("old");
        let mut reader = board.reader();
        for _ in 0..1000 {
            board.touch("a");
        }
        board.touch("b");
        assert_eq!(reader.next(&board).await, ["a", "b"]);
        board.touch("a");
        assert_eq!(reader.next(&board).await, ["a"]);
    }
}
