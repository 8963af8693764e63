//! `Noise_KK_25519_AESGCM_SHA256` (The Noise Protocol Framework, revision 34): two nodes that know each other's
//! identity agree on keys of the moment in two messages.
//!
//! ```text
//! -> s          both identities are known before
//! <- s
//!    ...
//! -> e, es, ss  [payload]     Initiation::start  ──▶  respond
//! <- e, ee, se  [payload]     Initiation::finish ◀──
//! ```
//!
//! Static keys are the identities in their X25519 shape. *KK*, because whoever judges a key exchange knows already
//! whose identity it must bear (pinned, or the registry's word), and the exchange shows it in clear anyway: sending it
//! once more under encryption, as *IK* and *XX* do, would hide nothing. What the pattern gives: both sides prove
//! their identity, keys of both directions that hang on ephemeral keys of both sides (whoever steals the identities
//! later reads nothing), and an answer that only the peer of the moment can have made.

use pilot_wire::{AgreementPublic, PublicKey};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::identity::agreement_public;
use crate::{AgreementKey, Digest, Identity, SessionKey, Sha256, SharedSecret};

const PROTOCOL: &[u8; 28] = b"Noise_KK_25519_AESGCM_SHA256";

const KEY_LEN: usize = 32;

/// The identities of both sides as the pattern wants them.
pub struct Pair {
    ours: AgreementKey,
    theirs: AgreementPublic,
}

/// What both sides hold in the end.
pub struct Agreed {
    /// Seals what we send.
    pub seal: SessionKey,
    /// Opens what the peer sends.
    pub open: SessionKey,
    /// The hash of all that was said: the same on both sides, and no secret.
    pub transcript: Digest,
    /// What the peer put into its message.
    pub payload: Vec<u8>,
}

/// Why no keys were agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    /// The identity of the peer is no key that anything can be agreed with.
    #[error("the peer's identity key is unusable")]
    Identity,
    /// Not made by the holder of the identity for this exchange, or changed on its way.
    #[error("the message does not authenticate")]
    NotAuthentic,
}

impl Pair {
    /// # Errors
    /// [`NoiseError::Identity`] when `theirs` is no point of the curve.
    pub fn new(ours: &Identity, theirs: &PublicKey) -> Result<Self, NoiseError> {
        let theirs = agreement_public(theirs).ok_or(NoiseError::Identity)?;
        Ok(Self { ours: ours.agreement(), theirs })
    }
}

/// The first message was made; the second is awaited. Wiped when dropped.
pub struct Initiation {
    symmetric: Symmetric,
    statics: Pair,
    ephemeral: AgreementKey,
}

impl Initiation {
    /// Makes the first message. `ephemeral` must be fresh. Both sides must name the same `prologue`.
    ///
    /// # Errors
    /// [`NoiseError::Identity`].
    pub fn start(
        statics: Pair,
        ephemeral: AgreementKey,
        prologue: &[u8],
        payload: &[u8],
    ) -> Result<(Self, Vec<u8>), NoiseError> {
        let mut symmetric = Symmetric::new(prologue);
        symmetric.mix_hash(statics.ours.public().as_bytes());
        symmetric.mix_hash(statics.theirs.as_bytes());
        let mut message = ephemeral.public().as_bytes().to_vec();
        symmetric.mix_hash(&message);
        let unusable = |_| NoiseError::Identity;
        symmetric.mix_key(&ephemeral.agree(&statics.theirs).map_err(unusable)?);
        symmetric.mix_key(&statics.ours.agree(&statics.theirs).map_err(unusable)?);
        symmetric.encrypt(payload, &mut message);
        Ok((Self { symmetric, statics, ephemeral }, message))
    }

    /// Takes the second message. What is not authentic leaves nothing behind: the awaited one may still come.
    ///
    /// # Errors
    /// [`NoiseError::NotAuthentic`].
    pub fn finish(&self, message: &[u8]) -> Result<Agreed, NoiseError> {
        let mut symmetric = self.symmetric.clone();
        let (theirs, sealed) = split(message)?;
        symmetric.mix_hash(theirs.as_bytes());
        let weak = |_| NoiseError::NotAuthentic;
        symmetric.mix_key(&self.ephemeral.agree(&theirs).map_err(weak)?);
        symmetric.mix_key(&self.statics.ours.agree(&theirs).map_err(weak)?);
        let payload = symmetric.decrypt(sealed)?;
        let [seal, open] = symmetric.split();
        Ok(Agreed { seal, open, transcript: symmetric.hash, payload })
    }
}

impl std::fmt::Debug for Initiation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Initiation").field("ephemeral", &self.ephemeral.public()).finish_non_exhaustive()
    }
}

/// Takes the first message and makes the second. `ephemeral` must be fresh.
///
/// # Errors
/// [`NoiseError::NotAuthentic`].
pub fn respond(
    statics: &Pair,
    ephemeral: &AgreementKey,
    prologue: &[u8],
    message: &[u8],
    payload: &[u8],
) -> Result<(Agreed, Vec<u8>), NoiseError> {
    let mut symmetric = Symmetric::new(prologue);
    symmetric.mix_hash(statics.theirs.as_bytes());
    symmetric.mix_hash(statics.ours.public().as_bytes());
    let (theirs, sealed) = split(message)?;
    symmetric.mix_hash(theirs.as_bytes());
    let weak = |_| NoiseError::NotAuthentic;
    symmetric.mix_key(&statics.ours.agree(&theirs).map_err(weak)?);
    symmetric.mix_key(&statics.ours.agree(&statics.theirs).map_err(|_| NoiseError::Identity)?);
    let said = symmetric.decrypt(sealed)?;

    let mut answer = ephemeral.public().as_bytes().to_vec();
    symmetric.mix_hash(&answer);
    symmetric.mix_key(&ephemeral.agree(&theirs).map_err(weak)?);
    symmetric.mix_key(&ephemeral.agree(&statics.theirs).map_err(|_| NoiseError::Identity)?);
    symmetric.encrypt(payload, &mut answer);
    let [open, seal] = symmetric.split();
    Ok((Agreed { seal, open, transcript: symmetric.hash, payload: said }, answer))
}

/// The ephemeral key in front of a message, and what is sealed behind it.
fn split(message: &[u8]) -> Result<(AgreementPublic, &[u8]), NoiseError> {
    let (key, sealed) = message.split_first_chunk::<KEY_LEN>().ok_or(NoiseError::NotAuthentic)?;
    Ok((AgreementPublic::from_bytes(*key), sealed))
}

/// The `SymmetricState` of the framework. Each key encrypts one payload, so its nonce is always zero.
#[derive(Clone)]
struct Symmetric {
    chain: Zeroizing<[u8; 32]>,
    key: Zeroizing<[u8; 32]>,
    hash: Digest,
}

impl Symmetric {
    fn new(prologue: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash[..PROTOCOL.len()].copy_from_slice(PROTOCOL);
        let mut new = Self { chain: Zeroizing::new(hash), key: Zeroizing::new([0; 32]), hash };
        new.mix_hash(prologue);
        new
    }

    fn mix_hash(&mut self, data: &[u8]) {
        let mut hash = Sha256::new();
        hash.update(&self.hash);
        hash.update(data);
        self.hash = hash.finish();
    }

    fn mix_key(&mut self, secret: &SharedSecret) {
        let [chain, key] = expand(&self.chain, secret.as_bytes());
        (self.chain, self.key) = (chain, key);
    }

    fn cipher(&self) -> LessSafeKey {
        #[expect(clippy::expect_used, reason = "the only failure is a wrong length, and 32 is the right one")]
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*self.key).expect("AES-256 keys have 32 bytes"))
    }

    fn encrypt(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        let mut sealed = payload.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        #[expect(clippy::expect_used, reason = "fails only beyond 64 GiB of plaintext")]
        self.cipher()
            .seal_in_place_append_tag(nonce, Aad::from(&self.hash), &mut sealed)
            .expect("a payload is shorter than the limit of AES-GCM");
        self.mix_hash(&sealed);
        out.extend_from_slice(&sealed);
    }

    fn decrypt(&mut self, sealed: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut payload = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let len = self
            .cipher()
            .open_in_place(nonce, Aad::from(&self.hash), &mut payload)
            .map_err(|_| NoiseError::NotAuthentic)?
            .len();
        payload.truncate(len);
        self.mix_hash(sealed);
        Ok(payload)
    }

    /// The keys of both directions; the initiator's first.
    fn split(&self) -> [SessionKey; 2] {
        expand(&self.chain, &[]).map(|key| SessionKey::from_bytes(&key))
    }
}

/// The `HKDF` of the framework with two outputs: RFC 5869 with the chaining key as salt and no info.
fn expand(chain: &[u8; 32], secret: &[u8]) -> [Zeroizing<[u8; 32]>; 2] {
    struct Both;
    impl ring::hkdf::KeyType for Both {
        fn len(&self) -> usize {
            64
        }
    }
    let mut output = Zeroizing::new([0; 64]);
    let pseudorandom = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, chain).extract(secret);
    #[expect(clippy::expect_used, reason = "64 bytes are two blocks, far below the limit of HKDF")]
    pseudorandom.expand(&[&[]], Both).and_then(|okm| okm.fill(&mut *output)).expect("two blocks of output");
    let mut keys = [Zeroizing::new([0; 32]), Zeroizing::new([0; 32])];
    keys[0].copy_from_slice(&output[..32]);
    keys[1].copy_from_slice(&output[32..]);
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    fn key(hex: &str) -> AgreementKey {
        AgreementKey::from_bytes(&bytes(hex))
    }

    fn pair(ours: &str, theirs: &str) -> Pair {
        Pair { ours: key(ours), theirs: key(theirs).public() }
    }

    const INITIATOR: &str = "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1";
    const INITIATOR_EPHEMERAL: &str = "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a";
    const RESPONDER: &str = "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893";
    const RESPONDER_EPHEMERAL: &str = "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b";
    const PROLOGUE: &[u8] = b"pilot test prologue";

    /// Made by another implementation (noiseprotocol 0.3.1 for Python), with these keys, payloads and prologue.
    #[test]
    fn messages_hash_and_keys_are_those_of_another_implementation() {
        let first = "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944af78658e995578f185c8a1e8c99714fa1849\
                     7586714060632191448ee2";
        let second = "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843875515d9d728cd9d99f0066526a40cc51c49\
                      10b6aa27";
        let (started, message) = Initiation::start(
            pair(INITIATOR, RESPONDER),
            key(INITIATOR_EPHEMERAL),
            PROLOGUE,
            b"first payload",
        )
        .unwrap();
        assert_eq!(hex::encode(&message), first);
        let ephemeral = key(RESPONDER_EPHEMERAL);
        let (theirs, answer) =
            respond(&pair(RESPONDER, INITIATOR), &ephemeral, PROLOGUE, &message, b"second").unwrap();
        assert_eq!(hex::encode(&answer), second);
        let ours = started.finish(&answer).unwrap();
        assert_eq!((&theirs.payload[..], &ours.payload[..]), (&b"first payload"[..], &b"second"[..]));
        let transcript = "e3c64921ca80821fd1f4273f528188b6a984a95e2c17e55a7b6c7cdaf0be8fe4";
        assert_eq!(hex::encode(ours.transcript), transcript);
        assert_eq!(theirs.transcript, ours.transcript);

        for (sealer, opener, text, expected) in [
            (
                &ours,
                &theirs,
                b"from initiator",
                "4a005f8e0f9dc5a88275fc06f57fdb976963bc88164a5b4d86375f8d4b60",
            ),
            (
                &theirs,
                &ours,
                b"from responder",
                "6b9906f16919fdca59254d6077e3df482e11c68a3cf146d3a784b4818a3f",
            ),
        ] {
            let mut sealed = text.to_vec();
            let tag = sealer.seal.seal_in_place([0; 12], &[], &mut sealed);
            sealed.extend_from_slice(&tag);
            assert_eq!(hex::encode(&sealed), expected);
            assert_eq!(opener.open.open_in_place([0; 12], &[], &mut sealed).unwrap(), text);
        }
    }

    fn identities() -> (Identity, Identity) {
        (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]))
    }

    fn begin(from: &Identity, to: &Identity) -> (Initiation, Vec<u8>) {
        let statics = Pair::new(from, &to.public()).unwrap();
        Initiation::start(statics, key(INITIATOR_EPHEMERAL), PROLOGUE, b"payload").unwrap()
    }

    #[test]
    fn identities_agree_and_nobody_else_can_take_or_give_the_answer() {
        let (a, b) = identities();
        let (started, message) = begin(&a, &b);
        let ephemeral = key(RESPONDER_EPHEMERAL);
        let as_b = Pair::new(&b, &a.public()).unwrap();
        let (_, answer) = respond(&as_b, &ephemeral, PROLOGUE, &message, b"").unwrap();
        assert!(started.finish(&answer).is_ok());

        let other = Identity::from_seed(&[3; 32]);
        let not_for_us = Pair::new(&other, &a.public()).unwrap();
        let not_from_them = Pair::new(&b, &other.public()).unwrap();
        for wrong in [&not_for_us, &not_from_them] {
            let refused = respond(wrong, &ephemeral, PROLOGUE, &message, b"");
            assert_eq!(refused.err(), Some(NoiseError::NotAuthentic));
        }
        let elsewhere = respond(&as_b, &ephemeral, b"another prologue", &message, b"");
        assert_eq!(elsewhere.err(), Some(NoiseError::NotAuthentic));
    }

    #[test]
    fn a_message_of_which_one_bit_is_changed_is_refused_and_the_genuine_one_still_works() {
        let (a, b) = identities();
        let (started, message) = begin(&a, &b);
        let (as_b, ephemeral) = (Pair::new(&b, &a.public()).unwrap(), key(RESPONDER_EPHEMERAL));
        let (_, answer) = respond(&as_b, &ephemeral, PROLOGUE, &message, b"").unwrap();
        for at in 0..message.len() {
            // The highest bit of an X25519 key is not looked at (RFC 7748 section 5), but it is hashed.
            let mut changed = message.clone();
            changed[at] ^= 0x80;
            assert!(respond(&as_b, &ephemeral, PROLOGUE, &changed, b"").is_err(), "byte {at}");
        }
        for at in 0..answer.len() {
            let mut changed = answer.clone();
            changed[at] ^= 0x80;
            assert_eq!(started.finish(&changed).err(), Some(NoiseError::NotAuthentic), "byte {at}");
        }
        assert!(started.finish(&answer[..answer.len() - 1]).is_err());
        assert!(started.finish(&[]).is_err());
        assert!(started.finish(&answer).is_ok());
    }

    #[test]
    fn keys_of_small_order_agree_on_nothing() {
        let (a, b) = identities();
        let (started, message) = begin(&a, &b);
        let mut weak = message.clone();
        weak[..KEY_LEN].fill(0);
        let as_b = Pair::new(&b, &a.public()).unwrap();
        assert!(respond(&as_b, &key(RESPONDER_EPHEMERAL), PROLOGUE, &weak, b"").is_err());
        assert!(started.finish(&weak).is_err());
        let no_point = PublicKey::from_bytes([2; 32]);
        assert_eq!(Pair::new(&a, &no_point).err(), Some(NoiseError::Identity));
    }

    /// Made by the same other implementation; docs/handshake.md.
    #[test]
    fn the_agreement_is_the_one_that_is_written_down() {
        let (a, b) = identities();
        let mut prologue = b"pilot tunnel v2".to_vec();
        prologue.extend_from_slice(&[0, 0, 0, 7, 0, 0, 0, 9]);
        let [of_a, of_b] = [3, 4].map(|byte| AgreementKey::from_bytes(&[byte; 32]));
        let statics = Pair::new(&a, &b.public()).unwrap();
        let payload = 0x1122_3344_5566_7788_u64.to_be_bytes();
        let (started, message) = Initiation::start(statics, of_a, &prologue, &payload).unwrap();
        let written = "5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef226e2278873f44432e25c9a51a837997e5\
                       e0964507f37848f7";
        assert_eq!(hex::encode(&message), written);
        let payload = 0x99aa_bbcc_ddee_ff00_u64.to_be_bytes();
        let statics = Pair::new(&b, &a.public()).unwrap();
        let (_, answer) = respond(&statics, &of_b, &prologue, &message, &payload).unwrap();
        let written = "ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10b4bf318a6496558ee37915891938caf4d\
                       57a2b3d36f24fd2c";
        assert_eq!(hex::encode(&answer), written);
        let written = "2df22cd22b02cf6f26e5a7317236d7e9b64be0f9884b2e0f591d630f3c230142";
        assert_eq!(hex::encode(started.finish(&answer).unwrap().transcript), written);
    }
}
