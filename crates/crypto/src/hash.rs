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

/// A key for HMAC-SHA256, prepared once and used for many messages.
#[derive(Clone)]
pub struct MacKey(ring::hmac::Key);

/// Bytes of a [`MacKey`]'s tag: the first half of the digest, which is more than can be guessed (RFC 2104 section 5).
pub const MAC_LEN: usize = 16;

impl MacKey {
    /// From bytes that nobody else knows.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key))
    }

    /// The tag of `message`.
    #[must_use]
    pub fn tag(&self, message: &[u8]) -> [u8; MAC_LEN] {
        let mut tag = [0; MAC_LEN];
        tag.copy_from_slice(&ring::hmac::sign(&self.0, message).as_ref()[..MAC_LEN]);
        tag
    }

    /// Whether this is the tag of `message`, in a time that does not depend on how much of it is right.
    #[must_use]
    pub fn is_tag_of(&self, message: &[u8], tag: &[u8; MAC_LEN]) -> bool {
        let expected = self.tag(message);
        expected.iter().zip(tag).fold(0, |differ, (ours, theirs)| differ | (ours ^ theirs)) == 0
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_beginning_of_the_hmac_and_holds_for_its_message_and_key_only() {
        let key = MacKey::new(b"key");
        let tag = key.tag(b"message");
        assert_eq!(tag, hmac_sha256(b"key", b"message")[..MAC_LEN]);
        assert!(key.is_tag_of(b"message", &tag));
        assert!(!key.is_tag_of(b"massage", &tag));
        assert!(!MacKey::new(b"another").is_tag_of(b"message", &tag));
    }
}
