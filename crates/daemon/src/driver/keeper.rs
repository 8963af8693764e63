//! Who writes the node's own file. What somebody is told of is on disk before; what was only learned of others is
//! written beside the loop, because a disk may take longer for it than the first contact with a peer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::state::NodeFile;

/// How long what is learned waits while something else is being written.
const SOON: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    /// The number of the last content that was made.
    made: u64,
    /// The number of the content on disk: what is older comes too late.
    stored: Arc<Mutex<u64>>,
    /// A write beside the loop is under way.
    writes: Arc<AtomicBool>,
    learned: bool,
    waits: bool,
}

impl Keeper {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, made: 0, stored: Arc::default(), writes: Arc::default(), learned: false, waits: false }
    }

    /// Something about others changed, if `changed`.
    pub(super) fn learned(&mut self, changed: bool) {
        self.learned |= changed;
    }

    /// Writes, and comes back when the content is safe, or a failure is reported.
    pub(super) fn store(&mut self, memory: &NodeFile) {
        if let Some(write) = self.write(memory) {
            write();
        }
    }

    /// Begins to write what was learned, if anything was. While an earlier write is under way it says when to call
    /// [`waited`](Self::waited) and this again, so that no more than one runs.
    pub(super) fn store_behind(&mut self, now: Instant, memory: &NodeFile) -> Option<Instant> {
        if !self.learned || self.waits {
            return None;
        }
        if self.writes.load(Ordering::Acquire) {
            self.waits = true;
            return Some(now + SOON);
        }
        let write = self.write(memory)?;
        let writes = Arc::clone(&self.writes);
        writes.store(true, Ordering::Release);
        // A daemon that ends writes once more itself.
        drop(tokio::task::spawn_blocking(move || {
            write();
            writes.store(false, Ordering::Release);
        }));
        None
    }

    /// The time that [`store_behind`](Self::store_behind) named has come.
    pub(super) fn waited(&mut self) {
        self.waits = false;
    }

    fn write(&mut self, memory: &NodeFile) -> Option<impl FnOnce() + Send + 'static> {
        self.learned = false;
        let content = crate::files::json(memory)
            .inspect_err(|error| tracing::error!(%error, "the node's state cannot be written down"))
            .ok()?;
        self.made += 1;
        let (path, number, stored) = (self.path.clone(), self.made, Arc::clone(&self.stored));
        Some(move || {
            let mut stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
            if *stored >= number {
                return;
            }
            match crate::files::replace(&path, &content) {
                Ok(()) => *stored = number,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "the node's state is not stored");
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_content_never_replaces_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.json");
        let mut keeper = Keeper::new(path.clone());
        let older = keeper.write(&NodeFile { hostname: "older".to_owned(), ..NodeFile::default() }).unwrap();
        keeper.store(&NodeFile { hostname: "newer".to_owned(), ..NodeFile::default() });
        older();
        let kept: NodeFile = crate::files::read_json(&path).unwrap().unwrap();
        assert_eq!(kept.hostname, "newer");
    }

    #[tokio::test]
    async fn what_is_learned_while_another_write_is_under_way_waits_for_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.json");
        let mut keeper = Keeper::new(path.clone());
        let now = Instant::now();
        let named = |name: &str| NodeFile { hostname: name.to_owned(), ..NodeFile::default() };
        assert_eq!(keeper.store_behind(now, &named("nothing was learned")), None);
        assert!(!path.exists());
        let disk = Arc::clone(&keeper.stored);
        let slow = disk.lock().unwrap();
        keeper.learned(true);
        assert_eq!(keeper.store_behind(now, &named("first")), None);
        keeper.learned(true);
        assert_eq!(keeper.store_behind(now, &named("second")), Some(now + SOON));
        assert_eq!(keeper.store_behind(now, &named("second")), None);
        drop(slow);
        while keeper.writes.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        keeper.waited();
        assert_eq!(keeper.store_behind(now, &named("second")), None);
        while keeper.writes.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        let kept: NodeFile = crate::files::read_json(&path).unwrap().unwrap();
        assert_eq!(kept.hostname, "second");
    }
}
