//! AES-256-GCM over the frames of one tunnel, as release 1.18.0 uses it.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::SharedSecret;

/// Bytes that sealing adds to a plaintext.
pub const TAG_LEN: usize = 16;

/// HKDF info of the *hkdf* suite (spec/dataplane.md 2.4).
const TUNNEL_INFO: &[u8] = b"pilot-tunnel-v1";

/// The key of one tunnel. Both directions share it and are kept apart by their nonce prefixes.
pub struct SessionKey(LessSafeKey);

/// The frame was not sealed with this key, nonce and associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the frame does not authenticate")]
pub struct OpenError;

impl SessionKey {
    /// Derives the tunnel key: HKDF-SHA256 with an empty salt over the agreed secret.
    #[must_use]
    pub fn derive(secret: &SharedSecret) -> Self {
        Self::derive_for(secret, TUNNEL_INFO)
    }

    /// Derives a key for the use that `info` names: HKDF-SHA256 with an empty salt over the agreed secret.
    pub(crate) fn derive_for(secret: &SharedSecret, info: &[u8]) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        expand(secret, info, &mut key);
        Self::from_bytes(&key)
    }

    /// A key given as bytes, for tests against recorded frames.
    #[must_use]
    pub fn from_bytes(key: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "the only failure is a wrong length, and 32 is the right one")]
        let unbound = UnboundKey::new(&AES_256_GCM, key).expect("AES-256 keys have 32 bytes");
        Self(LessSafeKey::new(unbound))
    }

    /// Encrypts `in_out` where it lies and returns the tag to append.
    ///
    /// A nonce must never be used twice with one key; the caller's counter sees to that.
    #[must_use]
    pub fn seal_in_place(&self, nonce: [u8; 12], associated: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        #[expect(clippy::expect_used, reason = "fails only beyond 64 GiB of plaintext")]
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(associated), in_out)
            .expect("a datagram is shorter than the limit of AES-GCM");
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Decrypts `ciphertext` (which ends with the tag) where it lies and returns the plaintext.
    ///
    /// # Errors
    /// [`OpenError`] when the frame is not authentic; the buffer then holds nothing of use.
    pub fn open_in_place<'a>(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        ciphertext: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, Aad::from(associated), ciphertext).map_err(|_| OpenError)
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

fn expand(secret: &SharedSecret, info: &[u8], out: &mut [u8; 32]) {
    let salt = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]);
    let prk = salt.extract(secret.as_bytes());
    #[expect(clippy::expect_used, reason = "32 bytes is one block, far below the limit of HKDF")]
    prk.expand(&[info], ring::hkdf::HKDF_SHA256).and_then(|okm| okm.fill(out)).expect("one block of output");
}
