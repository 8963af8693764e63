//! X25519: a key pair of ours agreed with one of a peer's.

use pilot_wire::AgreementPublic;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// One X25519 key pair. Wiped when dropped.
pub struct AgreementKey {
    secret: StaticSecret,
    public: AgreementPublic,
}

/// What two agreement keys have in common. Wiped when dropped.
pub struct SharedSecret(Zeroizing<[u8; 32]>);

/// The peer's key is of small order: the result would not depend on our secret (RFC 7748 section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer's X25519 key is of small order")]
pub struct WeakKey;

impl AgreementKey {
    /// A key pair from 32 secret bytes.
    #[must_use]
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        let secret = StaticSecret::from(*secret);
        let public = AgreementPublic::from_bytes(PublicKey::from(&secret).to_bytes());
        Self { secret, public }
    }

    /// A fresh key pair from the caller's generator.
    #[must_use]
    pub fn draw(rng: &mut impl rand::CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Self::from_bytes(&secret)
    }

    /// The public half, as key-exchange frames carry it.
    #[must_use]
    pub fn public(&self) -> AgreementPublic {
        self.public
    }

    /// The secret shared with the owner of `peer`.
    ///
    /// # Errors
    /// [`WeakKey`] for keys of small order.
    pub fn agree(&self, peer: &AgreementPublic) -> Result<SharedSecret, WeakKey> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(*peer.as_bytes()));
        if !shared.was_contributory() {
            return Err(WeakKey);
        }
        Ok(SharedSecret(Zeroizing::new(shared.to_bytes())))
    }
}

impl std::fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgreementKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SharedSecret {
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
