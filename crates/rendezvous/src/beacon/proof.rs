//! Challenges: a node that is seen somewhere else proves that a number is its own.
//!
//! The nonce is made from the address it is sent to, so that the answer is worth nothing from anywhere else, and
//! nothing is kept for those who are challenged.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilot_crypto::hmac_sha256;
use pilot_wire::beacon::{DiscoverProof, Nonce};
use pilot_wire::{NodeId, PublicKey};

/// A nonce is good for this long, and up to as long again.
const LIFE: Duration = Duration::from_secs(10);

/// What challenges are made from.
#[derive(Clone)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Makes and checks challenges.
#[derive(Debug)]
pub(super) struct Challenger {
    secret: Secret,
    born: Option<Instant>,
}

impl Challenger {
    pub(super) fn new(secret: Secret) -> Self {
        Self { secret, born: None }
    }

    /// What a node at `addr` has to sign.
    pub(super) fn nonce(&mut self, now: Instant, addr: SocketAddr) -> Nonce {
        let epoch = self.epoch(now);
        self.nonce_of(epoch, addr)
    }

    /// Whether `node`, whose key this is, signed what was sent to `addr` lately.
    pub(super) fn is_answered(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        node: NodeId,
        key: &PublicKey,
        proof: &DiscoverProof,
    ) -> bool {
        let epoch = self.epoch(now);
        let fresh = [Some(epoch), epoch.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|epoch| self.nonce_of(epoch, addr) == proof.nonce);
        fresh && pilot_crypto::verify(key, &DiscoverProof::signed_bytes(node, &proof.nonce), &proof.signature)
    }

    fn epoch(&mut self, now: Instant) -> u64 {
        let born = *self.born.get_or_insert(now);
        now.saturating_duration_since(born).as_secs() / LIFE.as_secs()
    }

    fn nonce_of(&self, epoch: u64, addr: SocketAddr) -> Nonce {
        let digest = hmac_sha256(&self.secret.0, format!("{epoch} {addr}").as_bytes());
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&digest[..16]);
        nonce
    }
}
