//! How much peers may put on this disk.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::super::disk::Refusal;

/// How much of the disk is left alone, and how one asks for what is free.
#[derive(Clone)]
pub(super) struct Space {
    min_free: u64,
    free: Arc<dyn Fn(&File) -> io::Result<u64> + Send + Sync>,
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").field("min_free", &self.min_free).finish_non_exhaustive()
    }
}

impl Space {
    /// Leaves `min_free` bytes alone.
    pub(super) fn leaving(min_free: u64) -> Self {
        Self { min_free, free: Arc::new(free_of) }
    }

    /// One that is told what is free.
    #[cfg(test)]
    pub(super) fn told(min_free: u64, free: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { min_free, free: Arc::new(move |_| Ok(free())) }
    }

    /// Whether `bytes` more may be written to the disk that `file` is on.
    pub(super) fn check(&self, file: &File, bytes: u64) -> Result<(), Refusal> {
        let free = (self.free)(file).map_err(|error| Refusal::storage(&error))?;
        if free >= bytes.saturating_add(self.min_free) { Ok(()) } else { Err(Refusal::DiskFull) }
    }
}

fn free_of(file: &File) -> io::Result<u64> {
    let about = rustix::fs::fstatvfs(file)?;
    Ok(about.f_bavail.saturating_mul(about.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_says_how_much_is_free_and_some_of_it_is_left_alone() {
        let file = tempfile::tempfile().unwrap();
        assert!(free_of(&file).unwrap() > 0);
        assert_eq!(Space::leaving(0).check(&file, 1), Ok(()));
        assert_eq!(Space::leaving(u64::MAX).check(&file, 1), Err(Refusal::DiskFull));
    }
}
