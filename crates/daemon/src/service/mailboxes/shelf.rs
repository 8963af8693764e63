//! Sealed messages kept for others: one file each, under `mailbox/<owner>/`.
//!
//! A file is a line of JSON and the sealed bytes. It is complete, synced and named in a synced directory before its
//! message counts as kept. Numbers grow with every message, so that names are in the order of arrival.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::MessageId;
use pilot_wire::mailboxes::{BYTES_TOTAL, MESSAGES_TOTAL, TTL_MAX_MS};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::service::disk;

/// Longest first line of a file: two ids and numbers are far below.
const HEADER_MAX: usize = 1024;

const SUFFIX: &str = ".sealed";

/// What is kept for one owner at most. One depositor gets half of it, so that nobody can shut out all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) bytes: u64,
    pub(super) messages: u32,
}

impl Allowance {
    fn of_one_depositor(self) -> Self {
        Self { bytes: self.bytes.div_ceil(2), messages: self.messages.div_ceil(2) }
    }
}

/// Why a message is not kept. The text goes to the depositor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ShelfError {
    /// The owner's, the depositor's or all room is taken.
    #[error("mailbox is full")]
    Full,
    /// It would not even fit into an empty mailbox.
    #[error("the message is over the {0} bytes that this mailbox takes of one sender")]
    TooLong(u64),
    /// No room on the disk.
    #[error("no space left on the mailbox's disk")]
    DiskFull,
    /// Anything else of the disk; the log has it.
    #[error("the mailbox cannot write to its disk")]
    Disk,
}

impl From<io::Error> for ShelfError {
    fn from(error: io::Error) -> Self {
        tracing::warn!(%error, "cannot keep a message");
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::DiskFull
        } else {
            Self::Disk
        }
    }
}

/// What became of a deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Kept,
    /// It is here already.
    Duplicate,
}

/// The first line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    from: NodeId,
    id: MessageId,
    /// Seconds since 1970.
    deposited: u64,
    /// Seconds since 1970.
    expires: u64,
}

/// A message that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) number: u64,
    pub(super) from: NodeId,
    pub(super) id: MessageId,
    /// Length of its file.
    bytes: u64,
    deposited: u64,
    expires: u64,
}

/// How much is kept for an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) messages: u32,
    pub(super) bytes: u64,
    pub(super) oldest: Option<SystemTime>,
}

/// The directory, and an index of it.
#[derive(Debug)]
pub(super) struct Shelf {
    directory: PathBuf,
    owners: BTreeMap<NodeId, BTreeMap<u64, Kept>>,
    bytes: u64,
    messages: u32,
    last: u64,
}

impl Shelf {
    /// Reads what is there. What a killed process left half written is removed, and so is what cannot be understood:
    /// nobody could be given it.
    pub(super) fn open(home: &Path, now: SystemTime) -> io::Result<Self> {
        let directory = home.join("mailbox");
        let mut shelf = Self { directory, owners: BTreeMap::new(), bytes: 0, messages: 0, last: 0 };
        let entries = match fs::read_dir(&shelf.directory) {
            Ok(entries) => entries,
            // It is made with the first message.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(shelf),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let owner = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(NodeId);
            if let Some(owner) = owner {
                shelf.read_owner(owner, &entry.path())?;
            }
        }
        shelf.expire(now);
        Ok(shelf)
    }

    fn read_owner(&mut self, owner: NodeId, directory: &Path) -> io::Result<()> {
        disk::remove_temporaries(directory);
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(number_of) else { continue };
            match read_header(&entry.path()) {
                Ok(header) => {
                    let bytes = entry.metadata()?.len();
                    self.index(owner, Kept::new(number, header, bytes));
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(file = %entry.path().display(), %error, "a kept message is damaged");
                    fs::remove_file(entry.path())?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn index(&mut self, owner: NodeId, kept: Kept) {
        self.last = self.last.max(kept.number);
        self.bytes += kept.bytes;
        self.messages += 1;
        self.owners.entry(owner).or_default().insert(kept.number, kept);
    }

    /// Keeps a message; when this returns `Kept` it survives a crash.
    pub(super) fn put(
        &mut self,
        owner: NodeId,
        allowance: Allowance,
        deposit: Deposit<'_>,
        now: SystemTime,
    ) -> Result<Put, ShelfError> {
        self.expire(now);
        let Deposit { from, id, ttl, sealed } = deposit;
        let of_owner = self.owners.get(&owner);
        let of_owner = || of_owner.into_iter().flat_map(BTreeMap::values);
        if of_owner().any(|kept| kept.from == from && kept.id == *id) {
            return Ok(Put::Duplicate);
        }
        let deposited = unix(now);
        let ttl = ttl.min(Duration::from_millis(TTL_MAX_MS));
        let header = Header { from, id: id.clone(), deposited, expires: deposited + ttl.as_secs().max(1) };
        let mut content = serde_json::to_vec(&header).map_err(io::Error::from)?;
        content.push(b'\n');
        content.extend_from_slice(sealed);
        let bytes = content.len() as u64;

        let share = allowance.of_one_depositor();
        if bytes > share.bytes {
            return Err(ShelfError::TooLong(share.bytes));
        }
        let fits = |kept: &mut dyn Iterator<Item = &Kept>, limit: Allowance| {
            let (messages, held) = kept.fold((0, 0), |(n, held), kept| (n + 1, held + kept.bytes));
            messages < limit.messages && held + bytes <= limit.bytes
        };
        let whole = Allowance { bytes: BYTES_TOTAL, messages: MESSAGES_TOTAL };
        if !fits(&mut of_owner(), allowance)
            || !fits(&mut of_owner().filter(|kept| kept.from == from), share)
            || self.bytes + bytes > whole.bytes
            || self.messages >= whole.messages
        {
            return Err(ShelfError::Full);
        }
        let number = self.last + 1;
        let path = self.path(owner, number);
        self.make_directory(owner)?;
        files::replace(&path, &content)?;
        self.index(owner, Kept::new(number, header, bytes));
        Ok(Put::Kept)
    }

    /// The directory itself must be on disk, too, before anything in it counts as kept.
    fn make_directory(&self, owner: NodeId) -> io::Result<()> {
        let directory = self.directory.join(owner.0.to_string());
        if directory.is_dir() {
            return Ok(());
        }
        files::create_private_dir(&directory)?;
        let parent = self.directory.parent().unwrap_or(Path::new("."));
        fs::File::open(&self.directory)?.sync_all()?;
        fs::File::open(parent)?.sync_all()
    }

    /// The oldest message kept for an owner, beginning after the one with this number.
    pub(super) fn next_after(&mut self, owner: NodeId, number: u64, now: SystemTime) -> Option<Kept> {
        self.expire(now);
        self.owners.get(&owner)?.range(number + 1..).next().map(|(_, kept)| kept.clone())
    }

    /// The sealed bytes of a message.
    pub(super) fn read(&self, owner: NodeId, kept: &Kept) -> io::Result<Bytes> {
        read_file(&self.path(owner, kept.number))
    }

    /// The message has been fetched, or nobody wants it.
    pub(super) fn remove(&mut self, owner: NodeId, number: u64) {
        let Some(of_owner) = self.owners.get_mut(&owner) else { return };
        let Some(kept) = of_owner.remove(&number) else { return };
        self.bytes -= kept.bytes;
        self.messages -= 1;
        let emptied = of_owner.is_empty();
        let path = self.path(owner, number);
        // One that stays after all is brought once more after a restart; its owner knows it by its id.
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, file = %path.display(), "a message that was fetched is not removed");
        }
        if emptied {
            self.owners.remove(&owner);
            // Not when something unknown lies in it.
            let _ = fs::remove_dir(self.directory.join(owner.0.to_string()));
        }
    }

    /// Throws away what is kept for an owner; how many messages that were.
    pub(super) fn discard(&mut self, owner: NodeId) -> u32 {
        let numbers: Vec<u64> =
            self.owners.get(&owner).into_iter().flat_map(BTreeMap::keys).copied().collect();
        for &number in &numbers {
            self.remove(owner, number);
        }
        u32::try_from(numbers.len()).unwrap_or(u32::MAX)
    }

    /// Throws away what is of no use any more.
    pub(super) fn expire(&mut self, now: SystemTime) {
        let now = unix(now);
        let mut over = Vec::new();
        for (&owner, of_owner) in &self.owners {
            over.extend(
                of_owner.values().filter(|kept| kept.expires <= now).map(|kept| (owner, kept.number)),
            );
        }
        for (owner, number) in over {
            self.remove(owner, number);
        }
    }

    /// When the next message is of no use any more.
    pub(super) fn next_expiry(&self) -> Option<SystemTime> {
        let expiries = self.owners.values().flat_map(BTreeMap::values).map(|kept| kept.expires);
        expiries.min().map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// Whom anything is kept for.
    pub(super) fn owners(&self) -> impl Iterator<Item = NodeId> {
        self.owners.keys().copied()
    }

    pub(super) fn load(&self, owner: NodeId) -> Load {
        let mut load = Load { messages: 0, bytes: 0, oldest: None };
        for kept in self.owners.get(&owner).into_iter().flat_map(BTreeMap::values) {
            load.messages += 1;
            load.bytes += kept.bytes;
            let since = SystemTime::UNIX_EPOCH + Duration::from_secs(kept.deposited);
            load.oldest = Some(load.oldest.map_or(since, |oldest| oldest.min(since)));
        }
        load
    }

    fn path(&self, owner: NodeId, number: u64) -> PathBuf {
        self.directory.join(owner.0.to_string()).join(format!("{number:020}{SUFFIX}"))
    }
}

/// What somebody leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deposit<'a> {
    pub(super) from: NodeId,
    pub(super) id: &'a MessageId,
    pub(super) ttl: Duration,
    pub(super) sealed: &'a [u8],
}

impl Kept {
    fn new(number: u64, header: Header, bytes: u64) -> Self {
        let Header { from, id, deposited, expires } = header;
        Self { number, from, id, bytes, deposited, expires }
    }
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX)?.parse().ok()
}

/// The first line alone: what is behind it may be long.
fn read_header(path: &Path) -> io::Result<Header> {
    let mut begin = Vec::with_capacity(HEADER_MAX);
    fs::File::open(path)?.take(HEADER_MAX as u64).read_to_end(&mut begin)?;
    header(&begin).map(|(header, _)| header)
}

fn read_file(path: &Path) -> io::Result<Bytes> {
    let content = Bytes::from(fs::read(path)?);
    let (_, length) = header(&content)?;
    Ok(content.slice(length..))
}

/// The first line, and its length with its end.
fn header(content: &[u8]) -> io::Result<(Header, usize)> {
    let line = content.iter().take(HEADER_MAX).position(|&byte| byte == b'\n');
    let line = line.ok_or(io::ErrorKind::InvalidData)?;
    let header = serde_json::from_slice(content.get(..line).unwrap_or_default());
    Ok((header.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?, line + 1))
}

fn unix(time: SystemTime) -> u64 {
    crate::datetime::unix_seconds(time)
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(content: &[u8]) {
    if let Ok((_, length)) = header(content) {
        assert!(length <= content.len());
    }
}

#[cfg(test)]
mod tests;
