//! What the inbox and the received files have in common on disk: names, and refusals that tell a peer no path.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::datetime;

/// Why something was not stored. The text goes to the peer, so it names no local path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The inbox is at its limit.
    #[error("inbox is full")]
    InboxFull,
    /// The received files are at their limit.
    #[error("storage for received files is full")]
    ReceivedFull,
    /// A file that will not be accepted, however much room there is.
    #[error("the receiver accepts up to {0} bytes in one file or folder")]
    TooLarge(u64),
    /// The disk is full.
    #[error("no space left on the receiver's disk")]
    DiskFull,
    /// Anything else the disk said; the local log has it.
    #[error("the receiver cannot write to its disk")]
    Disk,
    /// One before it in its row was refused, for this reason.
    #[error("{0}")]
    Behind(String),
    /// The store is shutting down.
    #[error("the receiver is shutting down")]
    Stopped,
}

impl Refusal {
    /// What a peer is told of an error of the disk; the log is told all.
    pub(super) fn storage(error: &io::Error) -> Self {
        tracing::warn!(%error, "cannot store");
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::DiskFull
        } else {
            Self::Disk
        }
    }
}

/// Names `<base>-<time>-<number><extension>`, each once per process.
#[derive(Debug, Default)]
pub(super) struct SequenceNames {
    last: u64,
}

impl SequenceNames {
    /// The next name.
    pub(super) fn next(&mut self, base: &str, now: SystemTime, extension: &str) -> String {
        self.last += 1;
        format!("{base}-{}-{:06}{extension}", datetime::compact(now), self.last)
    }
}

/// Nanoseconds since 1970.
pub(super) fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Removes what a killed process left half written.
pub(super) fn remove_temporaries(directory: &Path) {
    for file in fs::read_dir(directory).into_iter().flatten().flatten() {
        if file.file_name().to_string_lossy().ends_with(".tmp") {
            // If it cannot be removed it takes space, nothing else.
            let _ = fs::remove_file(file.path());
        }
    }
}
