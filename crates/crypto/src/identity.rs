//! The Ed25519 key that an address is bound to.

use std::path::Path;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use pilot_wire::{AgreementPublic, PublicKey, Signature};
use zeroize::Zeroizing;

use crate::{AgreementKey, KeyFileError, RandomUnavailable, key_file};

/// A node's identity. The secret half is wiped when dropped and is never printed.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// A new identity.
    ///
    /// # Errors
    /// When the operating system has no random bytes.
    pub fn generate() -> Result<Self, RandomUnavailable> {
        let seed = Zeroizing::new(crate::random_bytes()?);
        Ok(Self::from_seed(&seed))
    }

    /// The identity of a 32-byte seed (RFC 8032 section 5.1.5).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(seed) }
    }

    /// Reads the key file at `path` (the reference's `identity.json` format).
    ///
    /// # Errors
    /// [`KeyFileError`] when it is missing, damaged, or readable by other users.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        key_file::load(path)
    }

    /// Reads the key file at `path`, or makes a new identity and stores it there with mode 0600.
    ///
    /// A file that exists is never replaced: a damaged one is an error, because the address hangs on it.
    ///
    /// # Errors
    /// [`KeyFileError`] when the file is unusable or cannot be written.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        match key_file::load(path) {
            Err(KeyFileError::Missing { .. }) => {
                let identity = Self::generate()?;
                identity.store_new(path)?;
                Ok(identity)
            }
            loaded => loaded,
        }
    }

    /// Writes the key file at `path`, which must not exist.
    ///
    /// # Errors
    /// [`KeyFileError`] when it exists or cannot be written.
    pub fn store_new(&self, path: &Path) -> Result<(), KeyFileError> {
        key_file::store(self, path, key_file::Existing::Refuse)
    }

    /// Replaces the key file at `path` in one step (after a key rotation).
    ///
    /// # Errors
    /// [`KeyFileError`] when it cannot be written; the old file is then unchanged.
    pub fn store(&self, path: &Path) -> Result<(), KeyFileError> {
        key_file::store(self, path, key_file::Existing::Replace)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.key.verifying_key().to_bytes())
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_bytes(self.key.sign(message).to_bytes())
    }

    /// The X25519 pair that belongs to this key (RFC 7748 section 4.1: the two curves are one in two shapes). Others find
    /// its public half by [`agreement_public`].
    pub(crate) fn agreement(&self) -> AgreementKey {
        AgreementKey::from_bytes(&Zeroizing::new(self.key.to_scalar_bytes()))
    }

    /// Seed and public key, as the key file holds them.
    pub(crate) fn to_keypair_bytes(&self) -> Zeroizing<[u8; 64]> {
        Zeroizing::new(self.key.to_keypair_bytes())
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.public()).finish()
    }
}

/// The X25519 key that belongs to an Ed25519 key; `None` if that is no point of the curve.
pub(crate) fn agreement_public(of: &PublicKey) -> Option<AgreementPublic> {
    let key = VerifyingKey::from_bytes(of.as_bytes()).ok()?;
    Some(AgreementPublic::from_bytes(key.to_montgomery().to_bytes()))
}

/// Whether `signature` is `signer`'s over `message`. A malformed key verifies nothing.
#[must_use]
pub fn verify(signer: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(signer.as_bytes()) else { return false };
    key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature.as_bytes())).is_ok()
}
