//! Files that peers sent, and how a node's applications ask for them.
//!
//! [`Request`] and [`Reply`] travel as JSON over the local socket; failures come as [`Failure`](crate::ipc::Failure)s.

use serde::{Deserialize, Serialize};

use crate::dataexchange::ContentHash;
use crate::{Addr, NodeId};

/// What a list says of one received file or folder. What a file says itself is there for all; the rest is known of those
/// that came through this daemon and were not renamed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedFile {
    /// Its name in the directory.
    pub name: String,
    /// Its length; of a folder, that of all its files.
    pub bytes: u64,
    /// When it was completed, RFC 3339, UTC.
    pub modified: String,
    /// Where it is, absolute.
    pub path: String,
    /// Who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Addr>,
    /// The sender's hostname, when it was known on arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_hostname: Option<String>,
    /// Fingerprint of the sender's identity key, when it was known on arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_key: Option<String>,
    /// Its SHA-256; of a folder, that of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<ContentHash>,
    /// The name its sender gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<String>,
    /// How many files it has, when it is a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// When it was completed, nanoseconds since 1970: what [`Request::Wait`] takes as `since_ns` to get the next one.
    #[serde(default)]
    pub received_ns: u64,
}

/// A question or order about received files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// The newest files, oldest of them first. Answered with [`Reply::Files`].
    List {
        /// Only of this sender.
        #[serde(default)]
        from: Option<NodeId>,
        /// Only those completed later: nanoseconds since 1970.
        #[serde(default)]
        since_ns: Option<u64>,
        /// How many at most; the daemon has a ceiling of its own.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// Waits until a file is there. Answered with [`Reply::File`], or [`Reply::TimedOut`].
    Wait {
        /// Only of this sender.
        #[serde(default)]
        from: Option<NodeId>,
        /// Only one completed later, nanoseconds since 1970; from now on when absent.
        #[serde(default)]
        since_ns: Option<u64>,
        /// How long.
        timeout_ms: u64,
    },
    /// Removes one. Answered with [`Reply::Cleared`]; a failure when there is none of this name.
    Remove {
        /// Its [`ReceivedFile::name`].
        name: String,
    },
    /// Removes many. Answered with [`Reply::Cleared`].
    Clear {
        /// Only of this sender.
        #[serde(default)]
        from: Option<NodeId>,
        /// Only those completed earlier: nanoseconds since 1970.
        #[serde(default)]
        before_ns: Option<u64>,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::List`].
    Files {
        /// Oldest first.
        files: Vec<ReceivedFile>,
        /// How many there are in all that match.
        total: u64,
        /// Where they are kept.
        dir: String,
    },
    /// To [`Request::Wait`].
    File(Box<ReceivedFile>),
    /// To [`Request::Wait`]: nothing came.
    TimedOut,
    /// To [`Request::Remove`] and [`Request::Clear`].
    Cleared {
        /// How many were removed.
        cleared: u64,
    },
}
