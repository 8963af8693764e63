//! A message sealed to the owner of an identity key, for a carrier who must neither read, change nor readdress it.
//!
//! Layout: `version 1 | ephemeral X25519 key, 32 bytes | AES-256-GCM of the inside | tag, 16 bytes`; the inside is
//! `Ed25519 signature, 64 bytes | length, u32 | body | zeros`.
//!
//! - The key is HKDF-SHA256 over X25519 of a fresh ephemeral key and the receiver's identity key in its X25519 shape. The
//!   info of the derivation holds everything a [`Letterhead`] says and the ephemeral key, so that a message opens only
//!   as the one it was sealed as. A key is used once; the nonce is constant.
//! - The sender signs the same words and the hash of the body: nobody but the sender can make a message that opens as
//!   theirs, not even somebody who has stolen the receiver's key.
//! - Zeros fill the body up to one of few lengths (Padmé: at most 12 % more, and what the length tells a carrier grows
//!   with the logarithm of the logarithm of it), and never below [`SMALLEST`].
//!
//! What it does not do: whoever steals the receiver's identity key later can read what was sealed to it before, because
//! a receiver that is away cannot take part in agreeing on a key of the moment. A receiver that has replaced its key
//! cannot open what was sealed to the old one; the sender still has it and seals it again.

use pilot_wire::{AgreementPublic, NodeId, PublicKey, Signature};
use zeroize::Zeroizing;

use crate::agreement::WeakKey;
use crate::identity::agreement_public;
use crate::{AgreementKey, Identity, RandomUnavailable, SessionKey, Sha256, SharedSecret, TAG_LEN, verify};

/// Tells this use of keys and signatures from all others.
const LABEL: &[u8] = b"pilot-seal-v1";

const VERSION: u8 = 1;
const KEY_LEN: usize = 32;
const SIGNATURE_LEN: usize = 64;
const LENGTH_LEN: usize = 4;
const INSIDE: usize = 1 + KEY_LEN;
const BODY: usize = SIGNATURE_LEN + LENGTH_LEN;

/// Bodies are filled up to this length at least: most words between agents look alike.
const SMALLEST: usize = 256;

/// The key is used for one message.
const NONCE: [u8; 12] = [0; 12];

/// Longest sealed message, in bytes: one frame that every receiver takes, with room for what is around it.
pub const SEALED_MAX: usize = 48 << 20;

/// What carrier, sender and receiver all know of a sealed message. It opens only with the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letterhead<'a> {
    /// Who seals it.
    pub sender: NodeId,
    /// The sender's identity key.
    pub sender_key: PublicKey,
    /// Who shall open it.
    pub receiver: NodeId,
    /// The receiver's identity key.
    pub receiver_key: PublicKey,
    /// The sender's name of the message.
    pub message_id: &'a str,
}

/// Why nothing was sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The receiver's key is no key that anything can be sealed to.
    #[error("the receiver's identity key is unusable")]
    ReceiverKey,
    /// The letterhead does not show the key that shall sign.
    #[error("the sender's identity key is not the one on the letterhead")]
    SenderKey,
    /// It would be over [`SEALED_MAX`].
    #[error("a message of {0} bytes is too long to be sealed")]
    TooLong(usize),
    /// No ephemeral key.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

/// Why a sealed message was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// It is no sealed message, or one of a later release.
    #[error("it is not a sealed message of a form known here")]
    Malformed,
    /// It is sealed to another key, was changed on its way, or is not what the carrier says it is.
    #[error(
        "the seal does not open with this node's key: it was changed, or is meant for another key or message"
    )]
    Seal,
    /// The inside is not signed by the sender.
    #[error("the seal does not bear its sender's signature")]
    Signature,
}

/// Length of a sealed message with a body of this length.
#[must_use]
pub fn sealed_len(body: usize) -> usize {
    INSIDE + BODY + padded(body) + TAG_LEN
}

/// Seals `body` under a fresh ephemeral key.
///
/// # Errors
/// [`SealError`].
pub fn seal(sender: &Identity, head: &Letterhead<'_>, body: &[u8]) -> Result<Vec<u8>, SealError> {
    let ephemeral = AgreementKey::from_bytes(&Zeroizing::new(crate::random_bytes()?));
    seal_with(&ephemeral, sender, head, body)
}

fn seal_with(
    ephemeral: &AgreementKey,
    sender: &Identity,
    head: &Letterhead<'_>,
    body: &[u8],
) -> Result<Vec<u8>, SealError> {
    if sender.public() != head.sender_key {
        return Err(SealError::SenderKey);
    }
    let length = sealed_len(body.len());
    let too_long = || SealError::TooLong(body.len());
    let stated = u32::try_from(body.len()).map_err(|_| too_long())?;
    if length > SEALED_MAX {
        return Err(too_long());
    }
    let receiver = agreement_public(&head.receiver_key).ok_or(SealError::ReceiverKey)?;
    let secret = ephemeral.agree(&receiver).map_err(|WeakKey| SealError::ReceiverKey)?;
    let words = head.words(&ephemeral.public());
    let signature = sender.sign(&signed(&words, body));

    // Of its final size from the start: no copy of the plaintext is left behind by growing.
    let mut sealed = Vec::with_capacity(length);
    sealed.push(VERSION);
    sealed.extend_from_slice(ephemeral.public().as_bytes());
    sealed.extend_from_slice(signature.as_bytes());
    sealed.extend_from_slice(&stated.to_be_bytes());
    sealed.extend_from_slice(body);
    sealed.resize(length - TAG_LEN, 0);
    let (outside, inside) = sealed.split_at_mut(INSIDE);
    let tag = key(&secret, &words).seal_in_place(NONCE, outside, inside);
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// Opens a sealed message where it lies and returns its body.
///
/// # Errors
/// [`UnsealError`]; nothing of the inside is given out then.
pub fn open_sealed(
    receiver: &Identity,
    head: &Letterhead<'_>,
    mut sealed: Vec<u8>,
) -> Result<Vec<u8>, UnsealError> {
    if sealed.len() < sealed_len(0) || sealed.len() > SEALED_MAX || sealed.first() != Some(&VERSION) {
        return Err(UnsealError::Malformed);
    }
    if receiver.public() != head.receiver_key {
        return Err(UnsealError::Seal);
    }
    let (outside, inside) = sealed.split_at_mut(INSIDE);
    let ephemeral = outside.get(1..).and_then(|key| <[u8; KEY_LEN]>::try_from(key).ok());
    let ephemeral = AgreementPublic::from_bytes(ephemeral.ok_or(UnsealError::Malformed)?);
    let secret = receiver.agreement().agree(&ephemeral).map_err(|WeakKey| UnsealError::Seal)?;
    let words = head.words(&ephemeral);
    let opened = key(&secret, &words).open_in_place(NONCE, outside, inside);
    let opened = &*opened.map_err(|_| UnsealError::Seal)?;

    let (signature, body) = parse_inside(opened).ok_or(UnsealError::Malformed)?;
    if !verify(&head.sender_key, &signed(&words, body), &signature) {
        return Err(UnsealError::Signature);
    }
    let length = body.len();
    // In one piece with what was read: no second buffer.
    sealed.truncate(INSIDE + BODY + length);
    sealed.drain(..INSIDE + BODY);
    Ok(sealed)
}

/// One body has one inside: the length leads to the padding that it has, and that is zeros.
fn parse_inside(inside: &[u8]) -> Option<(Signature, &[u8])> {
    let (signature, rest) = inside.split_first_chunk::<SIGNATURE_LEN>()?;
    let (length, rest) = rest.split_first_chunk::<LENGTH_LEN>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if length > rest.len() || padded(length) != rest.len() {
        return None;
    }
    let (body, padding) = rest.split_at(length);
    padding.iter().all(|&byte| byte == 0).then(|| (Signature::from_bytes(*signature), body))
}

impl Letterhead<'_> {
    /// Everything on it, each part of fixed length or with its length before it.
    fn words(&self, ephemeral: &AgreementPublic) -> Vec<u8> {
        let id = self.message_id.as_bytes();
        let mut words = Vec::with_capacity(LABEL.len() + 3 * KEY_LEN + 12 + id.len());
        words.extend_from_slice(LABEL);
        words.extend_from_slice(ephemeral.as_bytes());
        words.extend_from_slice(&self.sender.0.to_be_bytes());
        words.extend_from_slice(self.sender_key.as_bytes());
        words.extend_from_slice(&self.receiver.0.to_be_bytes());
        words.extend_from_slice(self.receiver_key.as_bytes());
        words.extend_from_slice(&u32::try_from(id.len()).unwrap_or(u32::MAX).to_be_bytes());
        words.extend_from_slice(id);
        words
    }
}

fn key(secret: &SharedSecret, words: &[u8]) -> SessionKey {
    SessionKey::derive_for(secret, words)
}

/// What the sender signs. The label at its beginning keeps it apart from everything else that identity keys sign.
fn signed(words: &[u8], body: &[u8]) -> Vec<u8> {
    [words, &Sha256::digest(body)].concat()
}

/// The length to which a body is filled up: Padmé (Nikitin and others, 2019, section 4).
fn padded(length: usize) -> usize {
    if length <= SMALLEST {
        return SMALLEST;
    }
    let exponent = length.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1_usize << (exponent - kept)) - 1;
    length.saturating_add(mask) & !mask
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alice() -> Identity {
        Identity::from_seed(&[1; 32])
    }

    fn bob() -> Identity {
        Identity::from_seed(&[2; 32])
    }

    fn head<'a>(from: &Identity, to: &Identity, message_id: &'a str) -> Letterhead<'a> {
        Letterhead {
            sender: NodeId(7),
            sender_key: from.public(),
            receiver: NodeId(9),
            receiver_key: to.public(),
            message_id,
        }
    }

    #[test]
    fn both_shapes_of_an_identity_key_belong_together() {
        for seed in 0..32 {
            let identity = Identity::from_seed(&[seed; 32]);
            assert_eq!(identity.agreement().public(), agreement_public(&identity.public()).unwrap());
        }
    }

    #[test]
    fn a_message_sealed_with_known_keys_has_known_bytes() {
        let ephemeral = AgreementKey::from_bytes(&[3; 32]);
        let sealed =
            seal_with(&ephemeral, &alice(), &head(&alice(), &bob(), "m-1"), b"attack at dawn").unwrap();
        assert_eq!(sealed.len(), 1 + 32 + 64 + 4 + 256 + 16);
        assert_eq!(hex::encode(&sealed[..33]), VECTOR_OUTSIDE);
        assert_eq!(hex::encode(Sha256::digest(&sealed)), VECTOR_DIGEST);
        assert_eq!(open_sealed(&bob(), &head(&alice(), &bob(), "m-1"), sealed).unwrap(), b"attack at dawn");
    }

    const VECTOR_OUTSIDE: &str = "015dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef22";
    // Computed with another library as well (Python cryptography 48), from the description at the head of this file.
    const VECTOR_DIGEST: &str = "263c6558806c2d46f5e92c76191d589219d14fc88d795529966aeac5a7fc56fc";

    #[test]
    fn every_flipped_byte_is_refused() {
        let head = head(&alice(), &bob(), "m-1");
        let sealed = seal(&alice(), &head, b"attack at dawn").unwrap();
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 0x40;
            assert!(open_sealed(&bob(), &head, changed).is_err(), "byte {position}");
        }
    }

    #[test]
    fn every_truncation_and_anything_behind_it_is_refused() {
        let head = head(&alice(), &bob(), "m-1");
        let sealed = seal(&alice(), &head, b"attack at dawn").unwrap();
        for length in 0..sealed.len() {
            assert!(open_sealed(&bob(), &head, sealed[..length].to_vec()).is_err(), "{length}");
        }
        assert!(open_sealed(&bob(), &head, [&sealed[..], &[0]].concat()).is_err());
    }

    #[test]
    fn it_opens_for_nobody_else_and_as_nothing_else() {
        let (alice, bob, carol) = (alice(), bob(), Identity::from_seed(&[5; 32]));
        let good = head(&alice, &bob, "m-1");
        let sealed = seal(&alice, &good, b"attack at dawn").unwrap();
        let to_carol = Letterhead { receiver_key: carol.public(), ..good };
        assert_eq!(open_sealed(&carol, &to_carol, sealed.clone()), Err(UnsealError::Seal));
        assert_eq!(open_sealed(&carol, &good, sealed.clone()), Err(UnsealError::Seal));
        for other in [
            Letterhead { message_id: "m-2", ..good },
            Letterhead { sender: NodeId(8), ..good },
            Letterhead { sender_key: carol.public(), ..good },
            Letterhead { receiver: NodeId(10), ..good },
        ] {
            assert_eq!(open_sealed(&bob, &other, sealed.clone()), Err(UnsealError::Seal), "{other:?}");
        }
        assert_eq!(open_sealed(&bob, &good, sealed).unwrap(), b"attack at dawn");
    }

    #[test]
    fn nobody_can_seal_in_the_name_of_another_who_has_not_signed() {
        let (alice, bob, mallory) = (alice(), bob(), Identity::from_seed(&[6; 32]));
        let head = head(&alice, &bob, "m-1");
        assert!(matches!(seal(&mallory, &head, b"send money"), Err(SealError::SenderKey)));
        // Without that check, as an attacker would do it: all right but for the signature.
        let ephemeral = AgreementKey::from_bytes(&[3; 32]);
        let words = head.words(&ephemeral.public());
        let secret = ephemeral.agree(&agreement_public(&bob.public()).unwrap()).unwrap();
        let mut inside = mallory.sign(&signed(&words, b"send money")).as_bytes().to_vec();
        inside.extend_from_slice(&10_u32.to_be_bytes());
        inside.extend_from_slice(b"send money");
        inside.resize(BODY + SMALLEST, 0);
        let mut sealed = [&[VERSION][..], ephemeral.public().as_bytes()].concat();
        let tag = key(&secret, &words).seal_in_place(NONCE, &sealed, &mut inside);
        sealed.extend_from_slice(&inside);
        sealed.extend_from_slice(&tag);
        assert_eq!(open_sealed(&bob, &head, sealed), Err(UnsealError::Signature));
    }

    #[test]
    fn nothing_is_sealed_to_a_key_that_is_none() {
        let head =
            |key| Letterhead { receiver_key: PublicKey::from_bytes(key), ..head(&alice(), &bob(), "m-1") };
        let identity_point = {
            let mut point = [0; 32];
            point[0] = 1;
            point
        };
        for key in [identity_point, [0; 32], [2; 32]] {
            let sealed = seal(&alice(), &head(key), b"x");
            assert!(matches!(sealed, Err(SealError::ReceiverKey)), "{key:?} {sealed:?}");
        }
    }

    #[test]
    fn the_same_message_sealed_twice_looks_different() {
        let head = head(&alice(), &bob(), "m-1");
        let (one, two) = (seal(&alice(), &head, b"x").unwrap(), seal(&alice(), &head, b"x").unwrap());
        assert!(one[1..].iter().zip(&two[1..]).filter(|(a, b)| a == b).count() < 32);
    }

    #[test]
    fn short_messages_are_all_of_one_length_and_long_ones_of_few() {
        assert_eq!(sealed_len(0), sealed_len(SMALLEST));
        let lengths: std::collections::BTreeSet<_> = (0..100_000).map(sealed_len).collect();
        assert!(lengths.len() < 160, "{}", lengths.len());
        for length in (SMALLEST..SEALED_MAX).step_by(4_099) {
            let padded = padded(length);
            assert!(padded >= length && padded - length <= length * 12 / 100, "{length} {padded}");
        }
    }

    #[test]
    fn what_is_too_long_is_not_sealed() {
        let body = vec![0; SEALED_MAX];
        let sealed = seal(&alice(), &head(&alice(), &bob(), "m-1"), &body);
        assert!(matches!(sealed, Err(SealError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(body in proptest::collection::vec(any::<u8>(), 0..3000), id in "[a-z0-9]{1,128}") {
            let head = head(&alice(), &bob(), &id);
            let sealed = seal(&alice(), &head, &body).unwrap();
            prop_assert_eq!(sealed.len(), sealed_len(body.len()));
            prop_assert_eq!(open_sealed(&bob(), &head, sealed).unwrap(), body);
        }

        #[test]
        fn no_bytes_of_strangers_open_or_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let head = head(&alice(), &bob(), "m-1");
            let framed = [&[VERSION][..], &bytes].concat();
            prop_assert!(open_sealed(&bob(), &head, bytes).is_err());
            prop_assert!(open_sealed(&bob(), &head, framed).is_err());
        }

        #[test]
        fn a_change_anywhere_is_refused(position in any::<prop::sample::Index>(), change in 1..=255_u8) {
            let head = head(&alice(), &bob(), "m-1");
            let mut sealed = seal(&alice(), &head, b"attack at dawn").unwrap();
            *position.get_mut(&mut sealed) ^= change;
            prop_assert!(open_sealed(&bob(), &head, sealed).is_err());
        }
    }
}
