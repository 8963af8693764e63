//! Signatures that have been checked before.
//!
//! Released nodes sign the same text for every heartbeat and poll of their life, and Ed25519 signatures are
//! deterministic; remembering them turns most verifications into one hash.

use pilot_crypto::{Digest, Sha256, verify};
use pilot_wire::{PublicKey, Signature};
use std::collections::HashSet;

/// Signatures per generation. Two generations are kept, so a signature in use survives; 64 bytes each with overhead.
const GENERATION: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Verified {
    current: HashSet<Digest>,
    previous: HashSet<Digest>,
}

impl Verified {
    pub(super) fn check(&mut self, key: &PublicKey, text: &str, signature: &Signature) -> bool {
        let mut hash = Sha256::new();
        hash.update(key.as_bytes());
        hash.update(signature.as_bytes());
        hash.update(text.as_bytes());
        let digest = hash.finish();
        if self.current.contains(&digest) {
            return true;
        }
        if !self.previous.remove(&digest) && !verify(key, text.as_bytes(), signature) {
            return false;
        }
        if self.current.len() >= GENERATION {
            self.previous = std::mem::take(&mut self.current);
        }
        self.current.insert(digest);
        true
    }
}
