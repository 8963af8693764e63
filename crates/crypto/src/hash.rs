//! SHA-256 over content, and HMAC for webhook signatures.

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// SHA-256 fed piece by piece.
#[derive(Clone)]
pub struct Sha256(ring::digest::Context);

impl Sha256 {
    /// An empty hash.
    #[must_use]
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// The digest of `bytes` alone.
    #[must_use]
    pub fn digest(bytes: &[u8]) -> Digest {
        let mut hash = Self::new();
        hash.update(bytes);
        hash.finish()
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything added.
    #[must_use]
    pub fn finish(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

/// HMAC-SHA256 of `message` under `key`.
#[must_use]
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> Digest {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let mut tag = [0; 32];
    tag.copy_from_slice(ring::hmac::sign(&key, message).as_ref());
    tag
}
