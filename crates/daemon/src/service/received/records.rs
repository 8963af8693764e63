//! What is known of each received file beyond the file: a small file of JSON beside the others, written before the file
//! appears under its name.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pilot_wire::dataexchange::{ContentHash, MessageId};
use pilot_wire::{Addr, NodeId};
use serde::{Deserialize, Serialize};

use super::super::Remote;

/// Who sent something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::service) struct Origin {
    /// The address the tunnel proved.
    pub(in crate::service) from: Addr,
    /// Its name, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::service) from_hostname: Option<String>,
    /// Its key's fingerprint, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::service) from_key: Option<String>,
}

impl Origin {
    /// The other end of a stream.
    pub(in crate::service) fn of(remote: &Remote) -> Self {
        Self {
            from: remote.endpoint.addr,
            from_hostname: remote.hostname.clone(),
            from_key: remote.key.map(|key| key.fingerprint()),
        }
    }
}

/// What is known of one file or folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The name its sender gave it.
    pub(super) announced: String,
    #[serde(flatten)]
    pub(super) origin: Origin,
    /// Of the file, or of the folder's manifest.
    pub(super) sha256: ContentHash,
    /// Of the file, or of all files in the folder.
    pub(super) bytes: u64,
    /// How many files the folder has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) files: Option<u64>,
    /// When it arrived, nanoseconds since 1970; no two are the same.
    pub(super) received_ns: u64,
    /// The id under which it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) message_id: Option<MessageId>,
}

/// All records, by the names of the files they are about.
pub(super) struct Records {
    directory: PathBuf,
    known: BTreeMap<String, Record>,
}

impl Records {
    /// Reads the records, and removes those whose file is gone.
    pub(super) fn open(directory: PathBuf, files: &Path) -> io::Result<Self> {
        crate::files::create_private_dir(&directory)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
            let about = name.filter(|name| fs::symlink_metadata(files.join(name)).is_ok());
            // A record that cannot be read is none; its file is shown without a sender.
            match (about, crate::files::read_json(&path)) {
                (Some(name), Ok(Some(record))) if path.extension().is_some_and(|end| end == "json") => {
                    known.insert(name, record);
                }
                _ => {
                    let _ = fs::remove_file(&path);
                }
            }
        }
        Ok(Self { directory, known })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    /// Remembers a file that is about to appear, durably.
    pub(super) fn insert(&mut self, name: &str, record: Record) -> io::Result<()> {
        crate::files::replace_json(&self.path(name), &record)?;
        self.known.insert(name.to_owned(), record);
        Ok(())
    }

    /// Forgets a file that is gone.
    pub(super) fn remove(&mut self, name: &str) {
        if self.known.remove(name).is_some() {
            // Left over, it is removed at the next start.
            let _ = fs::remove_file(self.path(name));
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Record> {
        self.known.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Record)> {
        self.known.iter()
    }

    /// Those that came from a node after a time.
    pub(super) fn of(&self, node: NodeId, after_ns: u64) -> impl Iterator<Item = (&String, &Record)> {
        let fits = move |record: &Record| record.origin.from.node == node && record.received_ns > after_ns;
        self.known.iter().filter(move |(_, record)| fits(record))
    }
}
