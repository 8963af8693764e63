//! The directory of received files: what is in it, what is under way, and how much there may be.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::{ContentHash, Init, MessageId, TransferId};
use pilot_wire::received::ReceivedFile;
use tokio::sync::watch;

use super::super::disk::{self, Refusal, SequenceNames, unix_ns};
use super::folder::{Announced, Folder};
use super::name::SafeName;
use super::partial::Partial;
use super::records::{Origin, Record, Records};
use super::space::Space;
use super::{Arrived, Begun, Complete, Transfer, TransferKey, Wanted};
use crate::config::ReceivedLimits;
use crate::datetime;

/// Files kept at most, those in folders included: an empty file takes no byte but a directory entry.
const MAX_FILES: u64 = 10_000;

/// Transfers at the same time. Each holds an open file.
const MAX_TRANSFERS: usize = 64;

/// How long an unfinished file waits for its sender to come back.
const PARTIAL_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// For how long a file is recognised that the same sender sends again because it has not heard that it arrived.
const REPEATED: Duration = Duration::from_secs(600);

/// Message ids of files remembered for [`REPEATED`]; beyond, the oldest are forgotten.
const IDS_MAX: usize = 10_000;

/// Entries in one list: with names of full length it stays below the local socket's frame limit of 1 MiB.
const LIST_MAX: usize = 400;

struct Active {
    /// Closed when the transfer is dropped.
    alive: watch::Receiver<()>,
    cancel: watch::Sender<bool>,
    /// Where it is written.
    path: PathBuf,
    /// What it will take when it is complete.
    weight: Weight,
}

impl Active {
    fn is_over(&self) -> bool {
        self.alive.has_changed().is_err()
    }
}

/// What files take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Weight {
    bytes: u64,
    files: u64,
}

impl Weight {
    fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.files = self.files.saturating_add(other.files);
    }
}

/// The directory, and the transfers in progress.
pub(super) struct Shelf {
    directory: PathBuf,
    partial: PathBuf,
    limits: ReceivedLimits,
    space: Space,
    names: SequenceNames,
    records: Records,
    active: BTreeMap<TransferKey, Active>,
    /// Files that came in one frame, by their ids.
    ids: VecDeque<(u64, NodeId, MessageId)>,
    /// Of finished files; corrected by [`Shelf::measure`].
    finished: Weight,
    /// When the newest file arrived; no two arrive at the same time.
    newest_ns: u64,
}

impl Shelf {
    /// Reads what is there and removes unfinished files whose senders never came back.
    pub(super) fn open(directory: PathBuf, limits: ReceivedLimits, now: SystemTime) -> io::Result<Self> {
        let partial = directory.join(".partial");
        crate::files::create_private_dir(&directory)?;
        crate::files::create_private_dir(&partial)?;
        disk::remove_temporaries(&directory);
        remove_abandoned(&partial, now);
        let records = Records::open(directory.join(".meta"), &directory)?;
        let newest_ns = records.iter().map(|(_, record)| record.received_ns).max().unwrap_or(0);
        let recent = unix_ns(now.checked_sub(REPEATED).unwrap_or(now));
        let mut ids: Vec<_> = records
            .iter()
            .filter(|(_, record)| record.received_ns > recent)
            .filter_map(|(_, record)| {
                Some((record.received_ns, record.origin.from.node, record.message_id.clone()?))
            })
            .collect();
        ids.sort();
        let mut shelf = Self {
            directory,
            partial,
            space: Space::leaving(limits.min_free),
            limits,
            names: SequenceNames::default(),
            records,
            active: BTreeMap::new(),
            ids: ids.into(),
            finished: Weight::default(),
            newest_ns,
        };
        shelf.measure()?;
        Ok(shelf)
    }

    #[cfg(test)]
    pub(super) fn set_space(&mut self, space: Space) {
        self.space = space;
    }

    fn measure(&mut self) -> io::Result<()> {
        let mut finished = Weight::default();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with('.') {
                finished.add(weigh(&entry.path())?);
            }
        }
        self.finished = finished;
        Ok(())
    }

    /// What is under way, and what waits for its sender; `except` is about to be counted otherwise.
    fn unfinished(&self, except: Option<&Path>) -> io::Result<Weight> {
        let mut sum = Weight::default();
        for active in self.active.values() {
            sum.add(active.weight);
        }
        for entry in fs::read_dir(&self.partial)? {
            let path = entry?.path();
            if except != Some(path.as_path()) && !self.active.values().any(|active| active.path == path) {
                sum.add(weigh(&path)?);
            }
        }
        Ok(sum)
    }

    /// Whether a file or folder may come in that will lie at `path` until it is complete.
    fn make_room_for(&mut self, weight: Weight, path: Option<&Path>) -> Result<(), Refusal> {
        if weight.bytes > self.limits.max_file.min(self.limits.max_bytes) {
            return Err(Refusal::TooLarge(self.limits.max_file.min(self.limits.max_bytes)));
        }
        self.active.retain(|_, active| !active.is_over());
        let mut needed = self.unfinished(path).map_err(|error| Refusal::storage(&error))?;
        needed.add(weight);
        let fits = |shelf: &Self| {
            let mut all = shelf.finished;
            all.add(needed);
            all.files <= MAX_FILES && all.bytes <= shelf.limits.max_bytes
        };
        if fits(self) {
            return Ok(());
        }
        // Files may have been removed behind our back.
        self.measure().map_err(|error| Refusal::storage(&error))?;
        if fits(self) { Ok(()) } else { Err(Refusal::ReceivedFull) }
    }

    /// A name that no file here has.
    fn free_name(&mut self, name: &SafeName, now: SystemTime) -> String {
        loop {
            let free = name.with_time(&mut self.names, now);
            if fs::symlink_metadata(self.directory.join(&free)).is_err() {
                return free;
            }
        }
    }

    fn arrival_ns(&mut self, now: SystemTime) -> u64 {
        self.newest_ns = unix_ns(now).max(self.newest_ns + 1);
        self.newest_ns
    }

    /// Stores a file that came in one piece; nothing, when it came before under the same id.
    pub(super) fn put(
        &mut self,
        file: super::IncomingFile,
        now: SystemTime,
    ) -> Result<Option<Arrived>, Refusal> {
        let super::IncomingFile { origin, message_id, name, announced, data } = file;
        if message_id.as_ref().is_some_and(|id| self.is_repeated(origin.from.node, id, now)) {
            return Ok(None);
        }
        let weight = Weight { bytes: data.len() as u64, files: 1 };
        self.make_room_for(weight, None)?;
        let stored = self.partial.join("whole.tmp");
        self.write_whole(&stored, &data)?;
        let (alive, _) = watch::channel(());
        let node = origin.from.node;
        let sha256 = ContentHash(pilot_crypto::Sha256::digest(&data));
        let arrived = self.finish(
            Complete {
                key: (node, TransferId::of(&sha256.0)),
                origin,
                name,
                announced,
                sha256,
                path: stored,
                bytes: weight.bytes,
                files: None,
                message_id: message_id.clone(),
                remains: None,
                alive,
            },
            now,
        )?;
        if let Some(id) = message_id {
            if self.ids.len() >= IDS_MAX {
                self.ids.pop_front();
            }
            self.ids.push_back((unix_ns(now), node, id));
        }
        Ok(Some(arrived))
    }

    fn write_whole(&self, path: &Path, data: &Bytes) -> Result<(), Refusal> {
        let written =
            File::open(&self.partial).map_err(|error| Refusal::storage(&error)).and_then(|on_disk| {
                self.space.check(&on_disk, data.len() as u64)?;
                crate::files::replace(path, data).map_err(|error| Refusal::storage(&error))
            });
        if written.is_err() {
            let _ = fs::remove_file(path);
        }
        written
    }

    fn is_repeated(&mut self, node: NodeId, id: &MessageId, now: SystemTime) -> bool {
        let oldest = unix_ns(now.checked_sub(REPEATED).unwrap_or(now));
        while self.ids.front().is_some_and(|(at, _, _)| *at < oldest) {
            self.ids.pop_front();
        }
        self.ids.iter().any(|(_, of, known)| *of == node && known == id)
    }

    /// Whether this sender sent the same under the same name a moment ago, and it is still here: then it did not hear that
    /// it arrived.
    fn is_here(&self, node: NodeId, sha256: ContentHash, announced: &str, now: SystemTime) -> bool {
        let oldest = unix_ns(now.checked_sub(REPEATED).unwrap_or(now));
        let is_same = |record: &Record| record.sha256 == sha256 && record.announced == announced;
        self.records
            .of(node, oldest)
            .any(|(name, record)| is_same(record) && fs::symlink_metadata(self.directory.join(name)).is_ok())
    }

    fn run_already(&mut self, key: &TransferKey) -> Option<watch::Receiver<()>> {
        let active = self.active.get(key).filter(|active| !active.is_over());
        let alive = active.map(|active| {
            active.cancel.send_replace(true);
            active.alive.clone()
        });
        if alive.is_none() {
            self.active.remove(key);
        }
        alive
    }

    fn enter(
        &mut self,
        key: TransferKey,
        path: PathBuf,
        weight: Weight,
        cancel: watch::Sender<bool>,
    ) -> Result<watch::Sender<()>, Refusal> {
        self.make_room_for(weight, Some(&path))?;
        if self.active.len() >= MAX_TRANSFERS {
            return Err(Refusal::ReceivedFull);
        }
        let (alive, alive_watch) = watch::channel(());
        self.active.insert(key, Active { alive: alive_watch, cancel, path, weight });
        Ok(alive)
    }

    /// Begins or resumes a transfer. `cancel` is set when the same one is begun on another connection.
    pub(super) fn begin(
        &mut self,
        origin: Origin,
        init: &Init,
        name: SafeName,
        cancel: watch::Sender<bool>,
        now: SystemTime,
    ) -> Result<Begun<Transfer>, Refusal> {
        let key = (origin.from.node, init.id);
        if let Some(alive) = self.run_already(&key) {
            return Ok(Begun::Busy(alive));
        }
        let announced = String::from_utf8_lossy(&init.name).into_owned();
        let sha256 = ContentHash(init.sha256);
        if self.is_here(key.0, sha256, &announced, now) {
            return Ok(Begun::Here);
        }
        let path = self.partial.join(format!("{}-{}", key.0, key.1));
        let alive = self.enter(key, path.clone(), Weight { bytes: init.size, files: 1 }, cancel)?;
        let partial = Partial::open(path, init.size, init.sha256, self.space.clone())
            .map_err(|error| Refusal::storage(&error))?;
        Ok(Begun::Ready(Box::new(Transfer {
            key,
            origin,
            name,
            announced,
            sha256,
            partial,
            size: init.size,
            alive,
        })))
    }

    /// Begins or resumes a folder, as [`Shelf::begin`] does with a file.
    pub(super) fn begin_folder(
        &mut self,
        origin: Origin,
        announced: Announced,
        cancel: watch::Sender<bool>,
        now: SystemTime,
    ) -> Result<Begun<Folder>, Refusal> {
        let key = (origin.from.node, TransferId::of(&announced.sha256.0));
        if let Some(alive) = self.run_already(&key) {
            return Ok(Begun::Busy(alive));
        }
        if self.is_here(key.0, announced.sha256, &announced.said, now) {
            return Ok(Begun::Here);
        }
        let path = self.partial.join(format!("dir-{}-{}", key.0, key.1));
        let weight = Weight {
            bytes: announced.manifest.bytes(),
            files: announced.manifest.files().len().max(1) as u64,
        };
        let alive = self.enter(key, path.clone(), weight, cancel)?;
        let folder = Folder::open(key, origin, announced, path, self.space.clone(), alive)
            .map_err(|error| Refusal::storage(&error))?;
        Ok(Begun::Ready(Box::new(folder)))
    }

    /// Puts a checked file or folder among the finished ones.
    pub(super) fn finish(&mut self, complete: Complete, now: SystemTime) -> Result<Arrived, Refusal> {
        let name = self.free_name(&complete.name, now);
        let path = self.directory.join(&name);
        let record = Record {
            announced: complete.announced,
            origin: complete.origin.clone(),
            sha256: complete.sha256,
            bytes: complete.bytes,
            files: complete.files,
            received_ns: self.arrival_ns(now),
            message_id: complete.message_id,
        };
        let placed = self
            .records
            .insert(&name, record)
            .and_then(|()| fs::rename(&complete.path, &path))
            .and_then(|()| File::open(&self.directory)?.sync_all());
        if let Err(error) = placed {
            self.records.remove(&name);
            return Err(Refusal::storage(&error));
        }
        if let Some(remains) = complete.remains {
            // What cannot be removed is counted, and removed after a week.
            let _ = fs::remove_dir_all(remains);
        }
        tracing::info!(from = %complete.origin.from, file = %name, bytes = complete.bytes, "file received");
        self.active.remove(&complete.key);
        self.finished.add(Weight { bytes: complete.bytes, files: complete.files.unwrap_or(1).max(1) });
        Ok(Arrived {
            name,
            path,
            bytes: complete.bytes,
            from: complete.origin.from,
            from_hostname: complete.origin.from_hostname,
            sha256: complete.sha256,
            files: complete.files,
        })
    }

    /// The newest files that match, oldest of them first; and how many match in all.
    pub(super) fn list(
        &self,
        from: Option<NodeId>,
        since_ns: Option<u64>,
        limit: Option<u32>,
    ) -> io::Result<(Vec<ReceivedFile>, u64)> {
        let mut found = self.matching(from, |at| since_ns.is_none_or(|since| at > since))?;
        let total = found.len() as u64;
        found.sort();
        let limit = limit.map_or(LIST_MAX, |limit| usize::try_from(limit).unwrap_or(LIST_MAX).min(LIST_MAX));
        let skipped = found.len().saturating_sub(limit);
        let newest = found.into_iter().skip(skipped).map(|(at, name)| self.describe(name, at));
        Ok((newest.collect(), total))
    }

    /// The oldest recorded file that somebody waits for.
    pub(super) fn find(&self, wanted: &Wanted) -> Option<ReceivedFile> {
        let fits = |record: &Record| {
            record.received_ns > wanted.since_ns
                && wanted.from.is_none_or(|node| record.origin.from.node == node)
        };
        let fitting = self
            .records
            .iter()
            .filter(|(name, record)| fits(record) && fs::symlink_metadata(self.directory.join(name)).is_ok());
        let (name, record) = fitting.min_by_key(|(_, record)| record.received_ns)?;
        Some(self.describe(name.clone(), record.received_ns))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn describe(&self, name: String, at_ns: u64) -> ReceivedFile {
        let record = self.records.get(&name);
        let path = self.directory.join(&name);
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        // A folder is what it was when it came; looking through it would take long.
        let weight = match record {
            Some(Record { bytes, files: Some(files), .. }) if is_folder => {
                Weight { bytes: *bytes, files: *files }
            }
            Some(_) | None => weigh(&path).unwrap_or_default(),
        };
        ReceivedFile {
            bytes: weight.bytes,
            modified: datetime::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_nanos(at_ns)),
            path: path.to_string_lossy().into_owned(),
            from: record.map(|record| record.origin.from),
            from_hostname: record.and_then(|record| record.origin.from_hostname.clone()),
            from_key: record.and_then(|record| record.origin.from_key.clone()),
            sha256: record.map(|record| record.sha256),
            announced: record.map(|record| record.announced.clone()),
            files: is_folder.then_some(weight.files),
            received_ns: at_ns,
            name,
        }
    }

    /// Removes the finished files that match.
    pub(super) fn clear(&mut self, from: Option<NodeId>, before_ns: Option<u64>) -> io::Result<u64> {
        let found = self.matching(from, |at| before_ns.is_none_or(|before| at < before))?;
        let mut cleared = 0;
        for (_, name) in found {
            self.take_away(&name)?;
            cleared += 1;
        }
        self.measure()?;
        Ok(cleared)
    }

    /// Removes one finished file; false when there is none of this name.
    pub(super) fn remove(&mut self, name: &str) -> io::Result<bool> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Ok(false);
        }
        match self.take_away(name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        self.measure()?;
        Ok(true)
    }

    fn take_away(&mut self, name: &str) -> io::Result<()> {
        let path = self.directory.join(name);
        match fs::symlink_metadata(&path)?.is_dir() {
            true => fs::remove_dir_all(&path)?,
            false => fs::remove_file(&path)?,
        }
        self.records.remove(name);
        Ok(())
    }

    /// Finished files with their times.
    fn matching(&self, from: Option<NodeId>, when: impl Fn(u64) -> bool) -> io::Result<Vec<(u64, String)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let record = self.records.get(&name);
            let is_of = from.is_none_or(|node| record.is_some_and(|record| record.origin.from.node == node));
            if name.starts_with('.') || !is_of {
                continue;
            }
            let at = match record {
                Some(record) => record.received_ns,
                None => unix_ns(entry.metadata()?.modified()?),
            };
            if when(at) {
                found.push((at, name));
            }
        }
        Ok(found)
    }
}

/// Bytes and files at a path and below; links are not followed.
fn weigh(path: &Path) -> io::Result<Weight> {
    let mut weight = Weight::default();
    let mut folders = Vec::new();
    let mut add = |path: PathBuf, metadata: &fs::Metadata, folders: &mut Vec<PathBuf>| {
        if metadata.is_dir() {
            folders.push(path);
        } else {
            weight.add(Weight { bytes: metadata.len(), files: 1 });
        }
    };
    match fs::symlink_metadata(path) {
        Ok(metadata) => add(path.to_owned(), &metadata, &mut folders),
        // Somebody was faster.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if let Ok(metadata) = entry.metadata() {
                add(entry.path(), &metadata, &mut folders);
            }
        }
    }
    Ok(weight)
}

fn remove_abandoned(partial: &Path, now: SystemTime) {
    for entry in fs::read_dir(partial).into_iter().flatten().flatten() {
        let path = entry.path();
        // A folder is as young as the newest thing among its contents.
        let places = [path.clone(), path.join("contents")];
        let newest = places.iter().filter_map(|place| fs::metadata(place).ok()?.modified().ok()).max();
        let is_old = newest.is_some_and(|at| now.duration_since(at).is_ok_and(|age| age > PARTIAL_LIFE));
        let is_temporary = path.extension().is_some_and(|end| end == "tmp");
        if is_old || is_temporary {
            // If it cannot be removed it takes space, which the limit counts.
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
