//! Against the recorded vectors: keys, signatures and frames recorded from the reference.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it says")]

use pilot_crypto::{AgreementKey, Identity, SessionKey, verify};
use pilot_wire::{AgreementPublic, NodeId, PublicKey, Signature};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../wire/tests/vectors/dataplane.json")).unwrap()
}

fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

#[test]
fn both_sides_agree_on_the_recorded_secret() {
    let keys = &vectors()["keys"];
    let a = AgreementKey::from_bytes(&bytes(&keys["x25519_priv_a"]));
    let b = AgreementKey::from_bytes(&bytes(&keys["x25519_priv_b"]));
    assert_eq!(a.public().as_bytes(), &bytes::<32>(&keys["x25519_pub_a"]));
    assert_eq!(b.public().as_bytes(), &bytes::<32>(&keys["x25519_pub_b"]));

    // The keys themselves stay inside: what one seals with the derived key the recorded key must open.
    let ours = SessionKey::derive(&a.agree(&b.public()).unwrap());
    let theirs = SessionKey::derive(&b.agree(&a.public()).unwrap());
    let recorded = SessionKey::from_bytes(&bytes(&keys["key_suite_hkdf_since_2026-03-30"]));
    let mut frame = b"hello".to_vec();
    let tag = ours.seal_in_place([7; 12], b"aad", &mut frame);
    frame.extend_from_slice(&tag);
    assert_eq!(recorded.open_in_place([7; 12], b"aad", &mut frame.clone()).unwrap(), b"hello");
    assert_eq!(theirs.open_in_place([7; 12], b"aad", &mut frame).unwrap(), b"hello");
}

#[test]
fn frames_recorded_from_release_1_18_open_and_seal_to_the_same_bytes() {
    let vectors = vectors();
    let capture =
        vectors["live_capture"].as_array().unwrap().iter().find(|c| c["peer"] == "v1.18.0").unwrap();
    let pila = hex::decode(capture["pila_from_peer"].as_str().unwrap()).unwrap();
    let ours = AgreementKey::from_bytes(&bytes(&capture["our_x25519_priv"]));
    let peer = AgreementPublic::from_bytes(pila[8..40].try_into().unwrap());
    let key = SessionKey::derive(&ours.agree(&peer).unwrap());

    let sealed = hex::decode(capture["syn_pils_sent"].as_str().unwrap()).unwrap();
    let mut plain = hex::decode(capture["syn_plain"].as_str().unwrap()).unwrap();
    let tag = key.seal_in_place(sealed[8..20].try_into().unwrap(), &sealed[4..8], &mut plain);
    assert_eq!([&plain[..], &tag].concat(), sealed[20..]);

    let mut answer = hex::decode(capture["synack_pils_received"].as_str().unwrap()).unwrap();
    let (head, body) = answer.split_at_mut(20);
    let opened = key.open_in_place(head[8..20].try_into().unwrap(), &head[4..8], body).unwrap();
    assert_eq!(hex::encode(opened), capture["synack_plain"]);
}

#[test]
fn a_frame_with_any_bit_changed_does_not_open() {
    let key = SessionKey::from_bytes(&[3; 32]);
    let mut frame = b"payload".to_vec();
    let tag = key.seal_in_place([1; 12], b"node", &mut frame);
    frame.extend_from_slice(&tag);
    for bit in 0..frame.len() * 8 {
        let mut forged = frame.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(key.open_in_place([1; 12], b"node", &mut forged).is_err(), "bit {bit}");
    }
    assert!(key.open_in_place([2; 12], b"node", &mut frame.clone()).is_err());
    assert!(key.open_in_place([1; 12], b"nodf", &mut frame.clone()).is_err());
}

#[test]
fn keys_of_small_order_are_refused() {
    let ours = AgreementKey::from_bytes(&[9; 32]);
    assert!(ours.agree(&AgreementPublic::from_bytes([0; 32])).is_err());
}

#[test]
fn key_exchange_signatures_are_the_recorded_ones() {
    let vectors = vectors();
    let seed = bytes(&vectors["keys"]["ed25519_seed_a"]);
    let identity = Identity::from_seed(&seed);
    assert_eq!(identity.public().as_bytes(), &bytes::<32>(&vectors["keys"]["ed25519_pub_a"]));
    let frame = &vectors["frames_keyexchange"][0];
    let wire = hex::decode(frame["wire"].as_str().unwrap()).unwrap();
    let signed = hex::decode(frame["signed"].as_str().unwrap()).unwrap();
    assert_eq!(identity.sign(&signed).as_bytes()[..], wire[72..136]);
    assert!(verify(&identity.public(), &signed, &Signature::from_bytes(wire[72..136].try_into().unwrap())));
    assert!(!verify(&PublicKey::from_bytes([2; 32]), &signed, &identity.sign(&signed)));
}

#[test]
fn the_proof_on_the_web_is_signed_as_recorded() {
    let vectors = vectors();
    let identity = Identity::from_seed(&bytes(&vectors["keys"]["ed25519_seed_a"]));
    for vector in vectors["wss_auth"].as_array().unwrap() {
        let node = NodeId(vector["node_id"].as_u64().unwrap().try_into().unwrap());
        let text = pilot_wire::web::signed_text(
            node,
            vector["ts"].as_u64().unwrap(),
            vector["nonce"].as_str().unwrap(),
        );
        assert_eq!(text, vector["signed"]);
        assert_eq!(identity.sign(text.as_bytes()).to_string(), vector["sig_b64"]);
    }
}
