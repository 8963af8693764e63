//! The identity on disk: `{"private_key": base64(seed ‖ public), "public_key": base64}`, mode 0600, the
//! format of the reference's `identity.json` (spec/local.md 3.4), so an identity moves between the two.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::{Identity, RandomUnavailable};

/// Why an identity could not be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no file of that name.
    #[error("there is no identity at {}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Others could have read the secret.
    #[error("{} can be read by other users (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content is not an identity.
    #[error("{} is not an identity file: {what}; restore it from a backup, or move it away to get a new address", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No identity could be made.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

/// What to do with a key file that is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Refuse,
    Replace,
}

#[derive(Serialize, Deserialize)]
struct KeyFile {
    private_key: String,
    public_key: String,
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.private_key.zeroize();
    }
}

pub(crate) fn load(path: &Path) -> Result<Identity, KeyFileError> {
    let io = |source: io::Error| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            KeyFileError::Missing { path }
        } else {
            KeyFileError::Io { path, source }
        }
    };
    let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    let text = Zeroizing::new(fs::read(path).map_err(io)?);
    parse(&text).map_err(|what| KeyFileError::Damaged { path: path.to_owned(), what })
}

fn parse(text: &[u8]) -> Result<Identity, &'static str> {
    let file: KeyFile = serde_json::from_slice(text).map_err(|_| "it is not the expected JSON")?;
    let private =
        Zeroizing::new(STANDARD.decode(&file.private_key).map_err(|_| "private_key is not base64")?);
    let seed: &[u8; 32] =
        private.first_chunk().filter(|_| private.len() == 64).ok_or("private_key is not 64 bytes")?;
    let identity = Identity::from_seed(seed);
    if identity.to_keypair_bytes()[32..] != private[32..] || identity.public().to_string() != file.public_key
    {
        return Err("the public key does not belong to the private one");
    }
    Ok(identity)
}

/// Writes a temporary file beside `path`, syncs it and renames it, so that a crash leaves the old file or
/// the new one and never a part.
pub(crate) fn store(identity: &Identity, path: &Path, existing: Existing) -> Result<(), KeyFileError> {
    let io = |path: &Path, source| KeyFileError::Io { path: path.to_owned(), source };
    let file = KeyFile {
        private_key: STANDARD.encode(*identity.to_keypair_bytes()),
        public_key: identity.public().to_string(),
    };
    #[expect(clippy::expect_used, reason = "two strings always serialize")]
    let text = Zeroizing::new(serde_json::to_vec_pretty(&file).expect("plain strings"));

    let temporary = path.with_extension("tmp");
    if let Err(source) = fs::remove_file(&temporary)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(io(&temporary, source));
    }
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(|source| io(&temporary, source))?;
    out.write_all(&text).and_then(|()| out.sync_all()).map_err(|source| io(&temporary, source))?;

    let placed = match existing {
        // A hard link fails when the name exists, a rename would not.
        Existing::Refuse => fs::hard_link(&temporary, path).and_then(|()| fs::remove_file(&temporary)),
        Existing::Replace => fs::rename(&temporary, path),
    };
    placed.map_err(|source| io(path, source))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| io(folder, source))
}
