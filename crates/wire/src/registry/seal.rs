//! Signatures over whole messages, beside those over the short texts of the protocol (spec/registry.md 23 S5).
//!
//! A node seals what it changes: its signature covers every field of the request and a number that only rises, so
//! nothing of it can be altered, and it cannot be said twice. A registry attests to what it serves to those who ask for
//! that, so an answer can be shown to others and told from that of somebody in between.
//!
//! What is signed is the message without the field that holds the signature (and without the operator's token), as
//! JSON with its keys in order and without spaces, behind a word that says which of the two it is.

use crate::{PublicKey, Signature, record::RecordSeq};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// In front of a sealed request.
const REQUEST: &[u8] = b"pilot-request-v1\n";
/// In front of an attested reply.
const REPLY: &[u8] = b"pilot-reply-v1\n";

/// The field of a sealed request.
const SEAL: &str = "seal";
/// The field of an attested reply.
const ATTESTATION: &str = "attested";
/// Set in a request that wants its reply attested.
const WANTED: &str = "attest";
/// Never signed: it is for the registry's eyes only.
const TOKEN: &str = "admin_token";

/// A node's signature over a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Higher than in every request before that the node sealed.
    pub seq: RecordSeq,
    /// Over [`sealed_bytes`].
    pub signature: Signature,
}

/// A registry's signature over a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The registry's key.
    pub key: PublicKey,
    /// Seconds since 1970, by the registry, rounded down.
    pub at: u64,
    /// Over [`attested_bytes`].
    pub signature: Signature,
}

/// What a node signs to seal a request with this number.
#[must_use]
pub fn sealed_bytes(request: &Map<String, Value>, seq: RecordSeq) -> Vec<u8> {
    signed_bytes(REQUEST, seq.0, request, &[SEAL, TOKEN, WANTED])
}

/// What a registry signs to attest to a reply at this time.
#[must_use]
pub fn attested_bytes(reply: &Map<String, Value>, at: u64) -> Vec<u8> {
    signed_bytes(REPLY, at, reply, &[ATTESTATION])
}

/// The request with its seal, as the content of a frame. `sign` is given what to sign.
///
/// # Errors
/// If `request` is no JSON object.
pub fn seal(
    request: &[u8],
    seq: RecordSeq,
    sign: impl FnOnce(&[u8]) -> Signature,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut fields: Map<String, Value> = serde_json::from_slice(request)?;
    let signature = sign(&sealed_bytes(&fields, seq));
    fields.insert(SEAL.to_owned(), serde_json::to_value(Seal { seq, signature })?);
    serde_json::to_vec(&fields)
}

/// The seal of a request and what it must be a signature over; `None` if it bears none.
///
/// # Errors
/// If `request` is no JSON object, or the seal is none.
pub fn seal_of(request: &[u8]) -> Result<Option<(Seal, Vec<u8>)>, serde_json::Error> {
    let fields: Map<String, Value> = serde_json::from_slice(request)?;
    let Some(seal) = fields.get(SEAL) else { return Ok(None) };
    let seal = Seal::deserialize(seal)?;
    let bytes = sealed_bytes(&fields, seal.seq);
    Ok(Some((seal, bytes)))
}

/// The reply with the registry's word for it, as the content of a frame.
///
/// # Errors
/// If `reply` is no JSON object.
pub fn attest(
    reply: &[u8],
    key: PublicKey,
    at: u64,
    sign: impl FnOnce(&[u8]) -> Signature,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut fields: Map<String, Value> = serde_json::from_slice(reply)?;
    let signature = sign(&attested_bytes(&fields, at));
    fields.insert(ATTESTATION.to_owned(), serde_json::to_value(Attestation { key, at, signature })?);
    serde_json::to_vec(&fields)
}

/// The registry's word for a reply and what it must be a signature over; `None` if it bears none.
///
/// # Errors
/// If `reply` is no JSON object, or the attestation is none.
pub fn attestation_of(reply: &[u8]) -> Result<Option<(Attestation, Vec<u8>)>, serde_json::Error> {
    let fields: Map<String, Value> = serde_json::from_slice(reply)?;
    let Some(attested) = fields.get(ATTESTATION) else { return Ok(None) };
    let attested = Attestation::deserialize(attested)?;
    let bytes = attested_bytes(&fields, attested.at);
    Ok(Some((attested, bytes)))
}

/// Inner objects have their keys in order too: the maps of the JSON library are sorted (a test holds it to that).
fn signed_bytes(word: &[u8], number: u64, fields: &Map<String, Value>, without: &[&str]) -> Vec<u8> {
    let mut out = word.to_vec();
    out.extend_from_slice(&number.to_be_bytes());
    let kept: BTreeMap<&str, &Value> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .filter(|(name, _)| !without.contains(name))
        .collect();
    #[expect(clippy::expect_used, reason = "a value that was read can be written")]
    serde_json::to_writer(&mut out, &kept).expect("JSON");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(bytes: &[u8]) -> Signature {
        let mut all = [0; 64];
        for (index, byte) in bytes.iter().enumerate() {
            all[index % 64] ^= byte.wrapping_add(u8::try_from(index % 251).unwrap());
        }
        Signature::from_bytes(all)
    }

    #[test]
    fn a_seal_covers_every_field_but_the_token_and_the_wish_for_an_attestation() {
        let plain = br#"{"type":"set_hostname","node_id":7,"hostname":"a","deep":{"z":1,"a":2}}"#;
        let sealed = seal(plain, RecordSeq(5), signature).unwrap();
        let (found, bytes) = seal_of(&sealed).unwrap().unwrap();
        assert_eq!((found.seq, found.signature), (RecordSeq(5), signature(&bytes)));
        assert!(
            bytes.ends_with(br#"{"deep":{"a":2,"z":1},"hostname":"a","node_id":7,"type":"set_hostname"}"#)
        );

        let text = String::from_utf8(sealed).unwrap();
        let with_token = text.replacen('{', r#"{"admin_token":"secret","attest":true,"#, 1);
        assert_eq!(seal_of(with_token.as_bytes()).unwrap().unwrap().1, bytes);
        let altered = text.replace(r#""hostname":"a""#, r#""hostname":"b""#);
        assert_ne!(seal_of(altered.as_bytes()).unwrap().unwrap().1, bytes);
        let later = text.replace(r#""seq":5"#, r#""seq":6"#);
        assert_ne!(seal_of(later.as_bytes()).unwrap().unwrap().1, bytes);
        assert_eq!(seal_of(plain).unwrap(), None);
    }

    #[test]
    fn an_attestation_covers_every_field_and_its_time_and_is_no_seal() {
        let plain = br#"{"type":"lookup_ok","node_id":7}"#;
        let key = PublicKey::from_bytes([1; 32]);
        let attested = attest(plain, key, 1000, signature).unwrap();
        let (found, bytes) = attestation_of(&attested).unwrap().unwrap();
        assert_eq!(found, Attestation { key, at: 1000, signature: signature(&bytes) });
        assert_eq!(attestation_of(plain).unwrap(), None);
        let fields: Map<String, Value> = serde_json::from_slice(plain).unwrap();
        assert_ne!(sealed_bytes(&fields, RecordSeq(1000)), attested_bytes(&fields, 1000));
    }

    #[test]
    fn what_is_no_object_or_has_a_seal_that_is_none_is_refused() {
        seal_of(b"[1]").unwrap_err();
        seal_of(br#"{"seal":"x"}"#).unwrap_err();
        seal_of(br#"{"seal":{"seq":-1,"signature":""}}"#).unwrap_err();
        attestation_of(br#"{"attested":{}}"#).unwrap_err();
    }
}
