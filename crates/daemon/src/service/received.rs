//! Received files: finished ones in `~/.pilot/received`, unfinished ones in its `.partial`, to be resumed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pilot_crypto::Sha256;
use pilot_wire::dataexchange::{Init, TransferId};
use pilot_wire::mailbox::{ReceivedFile, Reply};
use pilot_wire::{Addr, NodeId};
use tokio::sync::watch;

use super::disk::{self, Refusal, SequenceNames, unix_ns};
use crate::datetime;

/// Bytes of received files kept at most, finished or not, as release 1.18.0 keeps.
pub(super) const MAX_BYTES: u64 = 2 << 30;

/// Files kept at most: an empty file takes no byte but a directory entry.
const MAX_FILES: usize = 10_000;

/// Transfers at the same time. Each holds an open file.
const MAX_TRANSFERS: usize = 64;

/// How long an unfinished file waits for its sender to come back.
const PARTIAL_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Longest file name of common file systems.
const NAME_MAX: usize = 255;

/// Entries in one list: with names of full length it stays below the local socket's frame limit of 1 MiB.
const LIST_MAX: usize = 500;

/// A file name from a peer that can be used here, in two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SafeName {
    base: String,
    extension: String,
}

/// Why a peer's file name cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadName {
    /// It has no characters.
    #[error("the file has no name")]
    Empty,
    /// It leads elsewhere (`..`, a separator) or is too long for any disk.
    #[error("unsafe file name")]
    Unsafe,
}

impl SafeName {
    /// Checks a name: it must be one component. Characters that terminals or shells act upon are replaced.
    pub(super) fn parse(name: &[u8]) -> Result<Self, BadName> {
        let leads_elsewhere = name.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0));
        if name.is_empty() {
            return Err(BadName::Empty);
        }
        if leads_elsewhere || name == b"." || name == b".." || name.len() > NAME_MAX {
            return Err(BadName::Unsafe);
        }
        let text: String = String::from_utf8_lossy(name)
            .chars()
            .map(|c| if c.is_control() || c == char::REPLACEMENT_CHARACTER { '_' } else { c })
            .collect();
        // A leading dot hides the file, a leading dash makes it an option.
        let hidden = text.starts_with(['.', '-', '~']);
        let text = if hidden { format!("_{}", &text[1..]) } else { text };
        let (base, extension) = match text.rfind('.') {
            Some(at) if at > 0 && text.len() - at <= 32 => text.split_at(at),
            Some(_) | None => (text.as_str(), ""),
        };
        Ok(Self { base: base.to_owned(), extension: extension.to_owned() })
    }

    /// The whole name, and its extension without the dot.
    pub(super) fn parts(&self) -> (String, &str) {
        (format!("{}{}", self.base, self.extension), self.extension.trim_start_matches('.'))
    }

    fn with_time(&self, names: &mut SequenceNames, now: SystemTime) -> String {
        // Time and number take 26 bytes of the name.
        let room = NAME_MAX - 32 - self.extension.len();
        let end =
            (0..=room.min(self.base.len())).rev().find(|at| self.base.is_char_boundary(*at)).unwrap_or(0);
        names.next(&self.base[..end], now, &self.extension)
    }
}

/// A transfer is named by its sender and the beginning of the file's hash.
pub(super) type TransferKey = (NodeId, TransferId);

/// A file being received: held by the connection that receives it, moved to a blocking thread to be written.
pub(super) struct Transfer {
    pub(super) key: TransferKey,
    from: Addr,
    name: SafeName,
    size: u64,
    sha256: [u8; 32],
    file: File,
    path: PathBuf,
    hasher: Sha256,
    written: u64,
    /// Dropped with the transfer, which is how the table learns that it is over.
    _alive: watch::Sender<()>,
}

/// Why a transfer step cannot be carried out. The text goes to the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TransferError {
    /// Bytes beyond the next expected one.
    #[error("chunk at {got}, expected {expected}")]
    Gap {
        /// Where the chunk begins.
        got: u64,
        /// Where the file ends so far.
        expected: u64,
    },
    /// Bytes beyond the announced size.
    #[error("chunk beyond the announced size")]
    TooLong,
    /// DONE before all bytes.
    #[error("incomplete: {written} of {size} bytes")]
    Incomplete {
        /// Bytes here.
        written: u64,
        /// Bytes announced.
        size: u64,
    },
    /// The bytes are not those announced. Worded as 1.18.0 does.
    #[error("sha256 mismatch — file corrupt, .partial retained")]
    Mismatch,
    /// The disk.
    #[error(transparent)]
    Storage(#[from] Refusal),
}

impl Transfer {
    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Writes a chunk; bytes that are already here are skipped. Blocks on the disk.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TransferError> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= self.size)
            .ok_or(TransferError::TooLong)?;
        if offset > self.written {
            return Err(TransferError::Gap { got: offset, expected: self.written });
        }
        if end <= self.written {
            return Ok(());
        }
        let known = usize::try_from(self.written - offset).unwrap_or(usize::MAX);
        let new = data.get(known..).unwrap_or_default();
        if let Err(error) = self.file.write_all_at(new, self.written) {
            let refusal = Refusal::storage(&error);
            if refusal == Refusal::DiskFull {
                // The beginning of a file that does not fit must not keep the inbox from working. If it cannot be
                // removed, nothing is worse than before.
                let _ = fs::remove_file(&self.path);
            }
            return Err(refusal.into());
        }
        self.hasher.update(new);
        self.written = end;
        Ok(())
    }

    /// Checks the whole file and makes it durable where it is. Blocks on the disk.
    ///
    /// A file with the wrong hash is put aside under `.corrupt`, so that the next try begins anew.
    pub(super) fn complete(self) -> Result<Complete, TransferError> {
        if self.written < self.size {
            return Err(TransferError::Incomplete { written: self.written, size: self.size });
        }
        if self.hasher.finish() != self.sha256 {
            fs::rename(&self.path, self.path.with_extension("corrupt"))
                .map_err(|error| Refusal::storage(&error))?;
            return Err(TransferError::Mismatch);
        }
        self.file.sync_all().map_err(|error| Refusal::storage(&error))?;
        let Self { key, from, name, path, _alive: alive, size, .. } = self;
        Ok(Complete { key, from, name, path, size, _alive: alive })
    }
}

/// A checked and synced file that still lies among the unfinished ones.
pub(super) struct Complete {
    key: TransferKey,
    from: Addr,
    name: SafeName,
    path: PathBuf,
    size: u64,
    _alive: watch::Sender<()>,
}

struct Active {
    /// Closed when the transfer is dropped.
    alive: watch::Receiver<()>,
    cancel: watch::Sender<bool>,
    /// Bytes it may still write.
    reserved: u64,
}

impl Active {
    fn is_over(&self) -> bool {
        self.alive.has_changed().is_err()
    }
}

/// The answer to the beginning of a transfer.
pub(super) enum Begun {
    /// Go on from `Transfer::written`; not yet hashed up to there.
    Ready(Box<Transfer>),
    /// The same transfer runs on another connection, which was told to end; try again when this closes.
    Busy(watch::Receiver<()>),
}

/// The directory, and the transfers in progress.
pub(super) struct Received {
    directory: PathBuf,
    partial: PathBuf,
    names: SequenceNames,
    active: BTreeMap<TransferKey, Active>,
    /// Of finished and unfinished files; corrected by [`Received::measure`].
    bytes: u64,
    files: usize,
}

impl Received {
    /// Reads what is there and removes unfinished files whose senders never came back.
    pub(super) fn open(directory: PathBuf, now: SystemTime) -> io::Result<Self> {
        let partial = directory.join(".partial");
        crate::files::create_private_dir(&directory)?;
        crate::files::create_private_dir(&partial)?;
        disk::remove_temporaries(&directory);
        remove_abandoned(&partial, now);
        let mut received = Self {
            directory,
            partial,
            names: SequenceNames::default(),
            active: BTreeMap::new(),
            bytes: 0,
            files: 0,
        };
        received.measure()?;
        Ok(received)
    }

    fn measure(&mut self) -> io::Result<()> {
        (self.bytes, self.files) = (0, 0);
        for directory in [&self.directory, &self.partial] {
            for file in fs::read_dir(directory)? {
                let metadata = file?.metadata()?;
                if metadata.is_file() {
                    self.bytes += metadata.len();
                    self.files += 1;
                }
            }
        }
        Ok(())
    }

    fn make_room_for(&mut self, length: u64) -> Result<(), Refusal> {
        self.active.retain(|_, active| !active.is_over());
        let reserved: u64 = self.active.values().map(|active| active.reserved).sum();
        let fits = |received: &Self| {
            received.files < MAX_FILES
                && received.bytes.saturating_add(reserved).saturating_add(length) <= MAX_BYTES
        };
        if fits(self) {
            return Ok(());
        }
        self.measure().map_err(|error| Refusal::storage(&error))?;
        if fits(self) { Ok(()) } else { Err(Refusal::ReceivedFull) }
    }

    /// Stores a file that came in one piece; returns its name here.
    pub(super) fn put(
        &mut self,
        name: &SafeName,
        data: &[u8],
        now: SystemTime,
    ) -> Result<ReceivedPath, Refusal> {
        self.make_room_for(data.len() as u64)?;
        let name = name.with_time(&mut self.names, now);
        let path = self.directory.join(&name);
        crate::files::replace(&path, data).map_err(|error| Refusal::storage(&error))?;
        self.bytes += data.len() as u64;
        self.files += 1;
        Ok(ReceivedPath { name, path, bytes: data.len() as u64 })
    }

    /// Begins or resumes a transfer. `cancel` is set when the same one is begun on another connection.
    pub(super) fn begin(
        &mut self,
        from: Addr,
        init: &Init,
        name: SafeName,
        cancel: watch::Sender<bool>,
    ) -> Result<Begun, Refusal> {
        let key = (from.node, init.id);
        if let Some(active) = self.active.get(&key).filter(|active| !active.is_over()) {
            active.cancel.send_replace(true);
            return Ok(Begun::Busy(active.alive.clone()));
        }
        self.active.remove(&key);
        let path = self.partial.join(format!("{}-{}", from.node, init.id));
        let held = fs::metadata(&path).map_or(0, |metadata| metadata.len()).min(init.size);
        // What transfers that broke off have left is in no count yet.
        self.measure().map_err(|error| Refusal::storage(&error))?;
        self.make_room_for(init.size - held)?;
        if self.active.len() >= MAX_TRANSFERS {
            return Err(Refusal::ReceivedFull);
        }
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file
            .and_then(|file| file.set_len(held).map(|()| file))
            .map_err(|error| Refusal::storage(&error))?;
        let (alive, alive_watch) = watch::channel(());
        self.active.insert(key, Active { alive: alive_watch, cancel, reserved: init.size - held });
        Ok(Begun::Ready(Box::new(Transfer {
            key,
            from,
            name,
            size: init.size,
            sha256: init.sha256,
            file,
            path,
            hasher: Sha256::new(),
            written: held,
            _alive: alive,
        })))
    }

    /// Puts a checked file among the finished ones.
    pub(super) fn finish(&mut self, complete: Complete, now: SystemTime) -> Result<ReceivedPath, Refusal> {
        let name = complete.name.with_time(&mut self.names, now);
        let path = self.directory.join(&name);
        fs::rename(&complete.path, &path)
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_err(|error| Refusal::storage(&error))?;
        tracing::info!(from = %complete.from, file = %name, bytes = complete.size, "file received");
        self.active.remove(&complete.key);
        self.bytes += complete.size;
        self.files += 1;
        Ok(ReceivedPath { name, path, bytes: complete.size })
    }

    /// The newest files, oldest of them first.
    pub(super) fn list(&self, limit: Option<u32>) -> io::Result<Reply> {
        let mut found = self.finished()?;
        let total = found.len() as u64;
        found.sort();
        let limit = limit.map_or(LIST_MAX, |limit| usize::try_from(limit).unwrap_or(LIST_MAX).min(LIST_MAX));
        let skipped = found.len().saturating_sub(limit);
        let files = found
            .into_iter()
            .skip(skipped)
            .map(|(modified, name, bytes)| ReceivedFile {
                path: self.directory.join(&name).to_string_lossy().into_owned(),
                name,
                bytes,
                modified: datetime::rfc3339(modified),
                from: None,
            })
            .collect();
        Ok(Reply::Files { files, total, dir: self.directory.to_string_lossy().into_owned() })
    }

    /// Removes all finished files, or those completed before a time.
    pub(super) fn clear(&mut self, before_ns: Option<u64>) -> io::Result<u64> {
        let mut cleared = 0;
        for (modified, name, _) in self.finished()? {
            if before_ns.is_none_or(|before| unix_ns(modified) < before) {
                fs::remove_file(self.directory.join(name))?;
                cleared += 1;
            }
        }
        self.measure()?;
        Ok(cleared)
    }

    fn finished(&self) -> io::Result<Vec<(SystemTime, String, u64)>> {
        let mut found = Vec::new();
        for file in fs::read_dir(&self.directory)? {
            let file = file?;
            let metadata = file.metadata()?;
            if metadata.is_file() {
                found.push((
                    metadata.modified()?,
                    file.file_name().to_string_lossy().into_owned(),
                    metadata.len(),
                ));
            }
        }
        Ok(found)
    }
}

/// Where a file ended up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReceivedPath {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// Reads what an earlier connection left, so that the hash covers it. Blocks on the disk.
pub(super) fn hash_resumed(transfer: &mut Transfer) -> Result<(), Refusal> {
    let mut left = (&transfer.file).take(transfer.written);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = left.read(&mut buffer).map_err(|error| Refusal::storage(&error))?;
        if read == 0 {
            return Ok(());
        }
        transfer.hasher.update(&buffer[..read]);
    }
}

fn remove_abandoned(partial: &Path, now: SystemTime) {
    for file in fs::read_dir(partial).into_iter().flatten().flatten() {
        let modified = file.metadata().and_then(|metadata| metadata.modified());
        let is_old = modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > PARTIAL_LIFE));
        if is_old {
            // If it cannot be removed it takes space, which the limit counts.
            let _ = fs::remove_file(file.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn init(data: &[u8]) -> Init {
        let sha256 = Sha256::digest(data);
        Init {
            id: TransferId::of(&sha256),
            size: data.len() as u64,
            sha256,
            chunk: 49_152,
            name: Bytes::from_static(b"r.bin"),
        }
    }

    fn open(home: &Path) -> Received {
        Received::open(home.join("received"), SystemTime::now()).unwrap()
    }

    fn begin(received: &mut Received, init: &Init) -> Transfer {
        let name = SafeName::parse(&init.name).unwrap();
        match received.begin(Addr::backbone(NodeId(1)), init, name, watch::channel(false).0).unwrap() {
            Begun::Ready(mut transfer) => {
                hash_resumed(&mut transfer).unwrap();
                *transfer
            }
            Begun::Busy(_) => panic!("busy"),
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused_and_odd_ones_made_harmless() {
        for bad in [&b"../x"[..], b"a/b", b"..", b".", b"a\\b", b"a\0b", &[b'n'; 256]] {
            assert_eq!(SafeName::parse(bad), Err(BadName::Unsafe), "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(SafeName::parse(b""), Err(BadName::Empty));
        let stored = |name: &[u8]| {
            let name = SafeName::parse(name).unwrap();
            name.with_time(&mut SequenceNames::default(), SystemTime::UNIX_EPOCH)
        };
        assert_eq!(stored(b"a.txt"), "a-19700101-000000.000-000001.txt");
        assert_eq!(stored(b"a.tar.gz"), "a.tar-19700101-000000.000-000001.gz");
        assert_eq!(stored(b".bashrc"), "_bashrc-19700101-000000.000-000001");
        assert_eq!(stored(b"-rf"), "_rf-19700101-000000.000-000001");
        assert_eq!(stored(b"a\x1b[2Jb"), "a_[2Jb-19700101-000000.000-000001");
        assert!(stored("ö".repeat(127).as_bytes()).len() <= NAME_MAX);
        assert!(stored(&[b'n'; 255]).len() <= NAME_MAX);
    }

    #[test]
    fn an_interrupted_transfer_goes_on_where_it_stopped() {
        let home = tempfile::tempdir().unwrap();
        let data = vec![7u8; 100_000];
        let mut received = open(home.path());
        let mut transfer = begin(&mut received, &init(&data));
        transfer.write(0, &data[..60_000]).unwrap();
        drop(transfer);
        let mut received = open(home.path());
        let mut transfer = begin(&mut received, &init(&data));
        assert_eq!(transfer.written(), 60_000);
        transfer.write(50_000, &data[50_000..]).unwrap();
        let complete = transfer.complete().unwrap();
        let stored = received.finish(complete, SystemTime::now()).unwrap();
        assert_eq!(fs::read(&stored.path).unwrap(), data);
        assert_eq!(fs::read_dir(home.path().join("received/.partial")).unwrap().count(), 0);
    }

    #[test]
    fn a_corrupt_file_is_put_aside_and_the_next_try_begins_anew() {
        let home = tempfile::tempdir().unwrap();
        let mut received = open(home.path());
        let mut transfer = begin(&mut received, &init(b"no"));
        transfer.write(0, b"xx").unwrap();
        assert!(matches!(transfer.complete(), Err(TransferError::Mismatch)));
        assert_eq!(begin(&mut received, &init(b"no")).written(), 0);
    }

    #[test]
    fn bytes_out_of_place_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let mut received = open(home.path());
        let mut transfer = begin(&mut received, &init(b"abcd"));
        assert_eq!(transfer.write(1, b"b"), Err(TransferError::Gap { got: 1, expected: 0 }));
        assert_eq!(transfer.write(0, b"abcde"), Err(TransferError::TooLong));
        assert_eq!(transfer.write(u64::MAX, b"a"), Err(TransferError::TooLong));
        assert!(matches!(transfer.complete(), Err(TransferError::Incomplete { written: 0, size: 4 })));
    }

    #[test]
    fn the_newest_connection_of_a_transfer_takes_over() {
        let home = tempfile::tempdir().unwrap();
        let mut received = open(home.path());
        let name = SafeName::parse(b"r").unwrap();
        let (cancel, cancelled) = watch::channel(false);
        let Ok(Begun::Ready(first)) =
            received.begin(Addr::backbone(NodeId(1)), &init(b"abcd"), name.clone(), cancel)
        else {
            panic!("nobody else transfers it");
        };
        let again = received.begin(Addr::backbone(NodeId(1)), &init(b"abcd"), name, watch::channel(false).0);
        let Ok(Begun::Busy(alive)) = again else {
            panic!("the first transfer still runs");
        };
        assert!(*cancelled.borrow());
        assert!(alive.has_changed().is_ok());
        drop(first);
        assert!(alive.has_changed().is_err());
        begin(&mut received, &init(b"abcd"));
    }

    #[test]
    fn a_file_over_the_limit_is_refused_before_its_first_byte() {
        let home = tempfile::tempdir().unwrap();
        let mut received = open(home.path());
        let mut huge = init(b"");
        huge.size = MAX_BYTES + 1;
        let name = SafeName::parse(b"r").unwrap();
        let refused = received.begin(Addr::backbone(NodeId(1)), &huge, name, watch::channel(false).0);
        assert_eq!(refused.err(), Some(Refusal::ReceivedFull));
    }
}
