//! Cryptography for Pilot, and the only crate that imports a cryptography library.
//!
//! - [`Identity`]: the Ed25519 key an address is bound to, and its key file;
//! - [`AgreementKey`]: an X25519 key pair, from which tunnel keys are agreed;
//! - [`SessionKey`]: AES-256-GCM over one tunnel, sealing and opening in place;
//! - [`Initiation`] and [`respond`]: keys of the moment between two identities (Noise KK);
//! - [`seal`] and [`open_sealed`]: a message for the owner of an identity key, left with somebody who must not read it;
//! - [`sign_record`] and its like: what nodes say of themselves, and the numbers that follow from their keys;
//! - [`Sha256`]: content hashes.
//!
//! Everything that can be deterministic is: the only source of randomness is [`random_bytes`], called by
//! the edge of the system, never by a state machine.

mod aead;
mod agreement;
mod hash;
mod identity;
mod key_file;
mod noise;
mod record;
mod seal;

pub use aead::{OpenError, SessionKey, TAG_LEN};
pub use agreement::{AgreementKey, SharedSecret, WeakKey};
pub use hash::{Digest, MAC_LEN, MacKey, Sha256, hmac_sha256};
pub use identity::{Identity, verify};
pub use key_file::KeyFileError;
pub use noise::{Agreed, Initiation, NoiseError, Pair, respond};
pub use record::{
    DERIVED_FROM, RecordError, derived_numbers, open_change, open_record, sign_change, sign_record,
};
pub use seal::{Letterhead, SEALED_MAX, SealError, UnsealError, open_sealed, seal, sealed_len};

use ring::rand::SecureRandom;

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random source failed")]
pub struct RandomUnavailable;

/// `N` bytes from the operating system's random source.
///
/// # Errors
/// [`RandomUnavailable`] when the system has none to give; nothing secret can be made then.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], RandomUnavailable> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| RandomUnavailable)?;
    Ok(bytes)
}
