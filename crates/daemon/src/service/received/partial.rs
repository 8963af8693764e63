//! A file that is being written, and its hash.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pilot_crypto::Sha256;
use tokio::sync::oneshot;

use super::super::disk::Refusal;
use super::space::Space;

/// So much is hashed while the sender waits. What an earlier connection left beyond is hashed by a thread of its own,
/// while the rest of the file arrives.
const HASHED_AT_ONCE: u64 = 8 << 20;

/// Bytes read from disk at a time.
const READ_LEN: usize = 256 << 10;

/// Why a transfer step cannot be carried out. The text goes to the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::service) enum TransferError {
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
    /// A file that the folder under way does not have.
    #[error("the folder has no such file")]
    Foreign,
    /// The disk, or a limit.
    #[error(transparent)]
    Storage(#[from] Refusal),
}

/// An unfinished file: written by one connection, on blocking threads.
///
/// After a crash of this process what was acknowledged is in the file. After a power failure the end of it may be missing,
/// or be something else; then the hash does not fit in the end, and the sender begins anew.
#[derive(Debug)]
pub(in crate::service) struct Partial {
    file: File,
    path: PathBuf,
    size: u64,
    sha256: [u8; 32],
    written: u64,
    hashing: Hashing,
    space: Space,
}

impl Partial {
    /// Opens what an earlier connection left, or begins. Nothing is hashed yet, see [`Partial::prepare`].
    pub(super) fn open(path: PathBuf, size: u64, sha256: [u8; 32], space: Space) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let written = file.metadata()?.len().min(size);
        file.set_len(written)?;
        let hashing = Hashing::Level(Sha256::new());
        Ok(Self { file, path, size, sha256, written, hashing, space })
    }

    /// Whether the rest fits on the disk, and the hash of what is there. Blocks on the disk, for as long as a few megabytes
    /// take.
    pub(in crate::service) fn prepare(&mut self) -> Result<(), Refusal> {
        self.space.check(&self.file, self.size - self.written)?;
        self.hashing = Hashing::of(&self.file, Sha256::new(), 0, self.written)
            .map_err(|error| Refusal::storage(&error))?;
        Ok(())
    }

    /// Bytes written so far.
    pub(in crate::service) fn written(&self) -> u64 {
        self.written
    }

    /// Writes a chunk; bytes that are already here are skipped. Blocks on the disk.
    ///
    /// When the disk is full, what is there stays: the sender goes on from it when there is room again.
    pub(in crate::service) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TransferError> {
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
        self.space.check(&self.file, new.len() as u64)?;
        self.file.write_all_at(new, self.written).map_err(|error| Refusal::storage(&error))?;
        self.written = end;
        match &mut self.hashing {
            Hashing::Level(hash) => hash.update(new),
            Hashing::Behind(_) => self.catch_up(false)?,
        }
        Ok(())
    }

    /// Checks the whole file and makes it durable where it is. Blocks on the disk.
    ///
    /// A file with the wrong hash is removed, so that the next try begins anew.
    pub(super) fn complete(mut self) -> Result<PathBuf, TransferError> {
        if self.written < self.size {
            return Err(TransferError::Incomplete { written: self.written, size: self.size });
        }
        self.catch_up(true)?;
        let Hashing::Level(hash) = self.hashing else { return Err(Refusal::Disk.into()) };
        if hash.finish() != self.sha256 {
            fs::remove_file(&self.path).map_err(|error| Refusal::storage(&error))?;
            return Err(TransferError::Mismatch);
        }
        self.file.sync_all().map_err(|error| Refusal::storage(&error))?;
        Ok(self.path)
    }

    /// Takes what the thread has hashed, and lets it go on or does the rest here.
    fn catch_up(&mut self, wait: bool) -> Result<(), Refusal> {
        while let Hashing::Behind(reader) = &mut self.hashing {
            // A thread that ended without a word is told of as an error of the disk.
            let hash = match reader.hash.try_recv() {
                Ok(hash) => hash,
                Err(oneshot::error::TryRecvError::Closed) => Err(io::ErrorKind::BrokenPipe.into()),
                Err(oneshot::error::TryRecvError::Empty) if !wait => return Ok(()),
                Err(oneshot::error::TryRecvError::Empty) => {
                    let (_, nobody) = oneshot::channel();
                    let hash = std::mem::replace(&mut reader.hash, nobody);
                    hash.blocking_recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
                }
            };
            let read_to = reader.until;
            self.hashing = hash
                .and_then(|hash| Hashing::of(&self.file, hash, read_to, self.written))
                .map_err(|error| Refusal::storage(&error))?;
        }
        Ok(())
    }
}

/// How far the hash is.
enum Hashing {
    /// It covers all that is written.
    Level(Sha256),
    /// A thread reads what was written before.
    Behind(Reader),
}

impl std::fmt::Debug for Hashing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Level(_) => "Level",
            Self::Behind(_) => "Behind",
        })
    }
}

/// The thread that reads, which ends with this.
struct Reader {
    hash: oneshot::Receiver<io::Result<Sha256>>,
    /// Up to where.
    until: u64,
    stop: Arc<AtomicBool>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Hashing {
    /// Goes on with a hash that covers `from` bytes, until it covers `until`.
    fn of(file: &File, mut hash: Sha256, from: u64, until: u64) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        if until - from <= HASHED_AT_ONCE {
            hash_range(file, &mut hash, from, until, &stop)?;
            return Ok(Self::Level(hash));
        }
        let (tell, told) = oneshot::channel();
        let (file, stopped) = (file.try_clone()?, Arc::clone(&stop));
        std::thread::Builder::new().name("pilot-hash".into()).spawn(move || {
            let read = hash_range(&file, &mut hash, from, until, &stopped);
            // Nobody listens when the connection is gone.
            let _ = tell.send(read.map(|()| hash));
        })?;
        Ok(Self::Behind(Reader { hash: told, until, stop }))
    }
}

fn hash_range(file: &File, hash: &mut Sha256, from: u64, until: u64, stop: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; READ_LEN];
    let mut at = from;
    while at < until {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let wanted = usize::try_from(until - at).unwrap_or(usize::MAX).min(READ_LEN);
        let read = file.read_at(&mut buffer[..wanted], at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&buffer[..read]);
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn data(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    fn open(home: &Path, whole: &[u8], space: &Space) -> Partial {
        let sha256 = Sha256::digest(whole);
        Partial::open(home.join("part"), whole.len() as u64, sha256, space.clone()).unwrap()
    }

    #[test]
    fn a_large_beginning_is_hashed_while_the_rest_arrives() {
        let home = tempfile::tempdir().unwrap();
        let whole = data(30_000_000);
        let middle = whole.len() - 100_000;
        fs::write(home.path().join("part"), &whole[..middle]).unwrap();
        let mut partial = open(home.path(), &whole, &Space::leaving(0));
        partial.prepare().unwrap();
        assert!(matches!(partial.hashing, Hashing::Behind(_)));
        assert_eq!(partial.written(), middle as u64);
        for at in (middle..whole.len()).step_by(1000) {
            partial.write(at as u64, &whole[at..at + 1000]).unwrap();
        }
        assert_eq!(fs::read(partial.complete().unwrap()).unwrap(), whole);
    }

    #[test]
    fn a_large_beginning_that_is_something_else_is_found_out_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let whole = data(10_000_000);
        let mut holes = whole.clone();
        holes[5_000_000..5_004_096].fill(0);
        fs::write(home.path().join("part"), &holes).unwrap();
        let mut partial = open(home.path(), &whole, &Space::leaving(0));
        partial.prepare().unwrap();
        assert_eq!(partial.complete().unwrap_err(), TransferError::Mismatch);
        assert_eq!(open(home.path(), &whole, &Space::leaving(0)).written(), 0);
    }

    #[test]
    fn a_full_disk_keeps_what_is_there_and_the_file_goes_on_when_there_is_room() {
        let home = tempfile::tempdir().unwrap();
        let whole = data(100_000);
        let free = Arc::new(AtomicU64::new(1_000_000));
        let seen = Arc::clone(&free);
        let space = Space::told(50_000, move || seen.load(Ordering::Relaxed));
        let mut partial = open(home.path(), &whole, &space);
        partial.prepare().unwrap();
        partial.write(0, &whole[..40_000]).unwrap();
        free.store(60_000, Ordering::Relaxed);
        assert_eq!(partial.write(40_000, &whole[40_000..]), Err(Refusal::DiskFull.into()));
        drop(partial);
        let mut partial = open(home.path(), &whole, &space);
        assert_eq!(partial.prepare(), Err(Refusal::DiskFull), "the rest would not fit");
        free.store(1_000_000, Ordering::Relaxed);
        partial.prepare().unwrap();
        assert_eq!(partial.written(), 40_000);
        partial.write(40_000, &whole[40_000..]).unwrap();
        assert_eq!(fs::read(partial.complete().unwrap()).unwrap(), whole);
    }

    #[test]
    fn bytes_out_of_place_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let mut partial = open(home.path(), b"abcd", &Space::leaving(0));
        partial.prepare().unwrap();
        assert_eq!(partial.write(1, b"b"), Err(TransferError::Gap { got: 1, expected: 0 }));
        assert_eq!(partial.write(0, b"abcde"), Err(TransferError::TooLong));
        assert_eq!(partial.write(u64::MAX, b"a"), Err(TransferError::TooLong));
        assert_eq!(partial.complete().unwrap_err(), TransferError::Incomplete { written: 0, size: 4 });
    }
}
