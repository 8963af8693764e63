//! A node whose identity is lost gets another one, by the signature of the recovery key that its record named.
//!
//! The registry passes the signed change on, so peers that have seen the record take the new key for the node's own.

use std::io;
use std::path::{Path, PathBuf};

use pilot_crypto::{Identity, KeyFileError, RandomUnavailable, sign_change};
use pilot_wire::record::{ChangedBy, KeyChange};
use pilot_wire::registry::{Lookup, Register, Request, Response, RotateKey, Signed};
use pilot_wire::{Addr, NodeId, PublicKey};

use crate::registry::{Errand, ErrandError, Numbers};
use crate::run::{RunError, lock_home};
use crate::state::{NodeFile, next_identity, remember};
use crate::web::{Proxy, ProxyError};
use crate::{Config, files};

/// What a node is again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Its number.
    pub node_id: NodeId,
    /// Its address.
    pub address: Addr,
    /// Its name, or empty.
    pub hostname: String,
    /// Its new key.
    pub public_key: PublicKey,
}

/// Why a node could not be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// There is an identity already.
    #[error("there is an identity at {}, which is not lost", .0.display())]
    Living(PathBuf),
    /// The recovery key or the new identity.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// No new identity could be made.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// The proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The state could not be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A daemon uses the same state.
    #[error(transparent)]
    Running(#[from] RunError),
    /// The registry refused, with these words.
    #[error("{0}")]
    Refused(String),
    /// The registry could not be asked.
    #[error("the registry cannot be reached: {0}")]
    Unreachable(String),
}

impl RecoverError {
    /// The class of the failure, in the words of the command line.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Living(_) => "already_exists",
            Self::KeyFile(KeyFileError::Missing { .. }) => "not_found",
            Self::KeyFile(_) | Self::Random(_) | Self::Io { .. } => "internal",
            Self::Running(error) => error.code(),
            Self::Proxy(_) => "invalid_argument",
            Self::Refused(text) if text.contains("not found") => "not_found",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "connection_failed",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Living(_) => Some(
                "to replace the key of a living node: pilotctl rotate-key; a file that is worthless can be moved away",
            ),
            Self::Refused(text) if text.contains("recovery key") || text.contains("signed by the key") => {
                Some("the node's record must have named this recovery key while its identity was there")
            }
            Self::Unreachable(_) => Some("what was begun goes on when the same command is repeated"),
            Self::Running(error) => error.hint(),
            Self::KeyFile(_) | Self::Random(_) | Self::Proxy(_) | Self::Io { .. } | Self::Refused(_) => None,
        }
    }
}

impl From<ErrandError> for RecoverError {
    fn from(error: ErrandError) -> Self {
        match error {
            ErrandError::Refused(text) => Self::Refused(text),
            ErrandError::Unreachable(why) => Self::Unreachable(why),
        }
    }
}

/// Makes a recovery key in a new file at `path`, for its owner only.
///
/// # Errors
/// [`RecoverError::KeyFile`] if there is a file already or it cannot be written.
pub fn make_recovery_key(path: &Path) -> Result<PublicKey, RecoverError> {
    let key = Identity::generate()?;
    key.store_new(path)?;
    Ok(key.public())
}

/// Makes a new identity for the node at `address`, whose own is lost, and has the registry take it by the signature of
/// the recovery key in the file `recovery`. The daemon must not be running. Repeating it after an interruption goes on
/// with the same new identity.
///
/// # Errors
/// [`RecoverError`]. Nothing is stored as the identity unless the registry has taken it.
pub async fn recover(config: &Config, recovery: &Path, address: Addr) -> Result<Recovered, RecoverError> {
    if config.identity.exists() {
        return Err(RecoverError::Living(config.identity.clone()));
    }
    let recovery = Identity::load(recovery)?;
    let io = |path: &Path, source| RecoverError::Io { path: path.to_owned(), source };
    files::create_private_dir(&config.home).map_err(|source| io(&config.home, source))?;
    let _lock = lock_home(&config.home)?;
    let next = next_identity(&config.identity);
    let identity = match Identity::load(&next) {
        Err(KeyFileError::Missing { .. }) => {
            let identity = Identity::generate()?;
            identity.store(&next)?;
            identity
        }
        found => found?,
    };
    let proxy = config.web.proxy.as_ref().map(|proxy| Proxy::parse(&proxy.url, &proxy.except)).transpose()?;
    let numbers = Numbers::default();
    let path = config.node_file();
    let mut kept = NodeFile::load(&path, &identity.public()).map_err(RunError::from)?;
    let (tls, known) = (config.registry_tls.clone(), kept.registry_certificates.clone());
    let mut errand = Errand::to(&config.registries, proxy, tls, known, numbers.clone()).await?;
    if let Some((address, known)) = errand.news.take() {
        remember(&mut kept.registry_certificates, address, known);
    }
    let node = address.node;
    let before = look_up(&mut errand, node, &identity).await?;
    if before.public_key != identity.public() {
        let change = KeyChange {
            node,
            old: before.public_key,
            new: identity.public(),
            seq: numbers.next(),
            by: ChangedBy::Recovery,
        };
        let request = RotateKey {
            node_id: node,
            new_public_key: identity.public().into(),
            change: sign_change(&recovery, &identity, &change).to_text(),
            ..RotateKey::default()
        };
        errand.ask(Request::RotateKey(request), Some(node), &identity).await?;
    }
    // Who has registered sees all that there is of itself.
    let register = Register { public_key: identity.public().into(), derived: true, ..Register::default() };
    errand.ask(Request::Register(register), Some(node), &identity).await?;
    let found = look_up(&mut errand, node, &identity).await?;
    let memory = NodeFile {
        node_id: Some(node),
        public_key: Some(identity.public()),
        hostname: found.hostname.clone().unwrap_or_default(),
        public: found.public,
        tags: found.tags,
        numbers: numbers.last(),
        recovery: Some(recovery.public()),
        ..kept
    };
    files::replace_json(&path, &memory).map_err(|source| io(&path, source))?;
    std::fs::rename(&next, &config.identity).map_err(|source| io(&config.identity, source))?;
    Ok(Recovered {
        node_id: node,
        address: Addr::backbone(node),
        hostname: memory.hostname,
        public_key: identity.public(),
    })
}

async fn look_up(errand: &mut Errand, node: NodeId, identity: &Identity) -> Result<Lookup, RecoverError> {
    let request = Request::Lookup(Signed { node_id: node, ..Signed::default() });
    if let Response::Lookup(found) = errand.ask(request, None, identity).await?
        && found.node_id == node
    {
        return Ok(found);
    }
    Err(RecoverError::Unreachable("the registry sent another reply than asked for".to_owned()))
}
