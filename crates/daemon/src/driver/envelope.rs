//! Signed requests of applications: the daemon signs with the node's key, and checks what others signed.

use pilot_wire::ipc::{Code, Command, EnvelopeCheck, SignEnvelope, SignedEnvelope, VerifyEnvelope};
use pilot_wire::registry::{self, Signed};
use pilot_wire::{Addr, NetworkId, NodeId, PublicKey, Signature};

use super::Driver;
use super::registry::Purpose;
use super::replies::{Refusal, ReplyTo};
use super::trust::wall;

/// How far the clocks of signer and verifier may differ if the verifier does not say.
const SKEW: u64 = 300;

/// First field of the signed text.
const VERSION: &str = "pilot-req-v1";

/// The fields of `pilot-req-v1|<address>|<time>|<nonce>|<hash of the body>|<audience>` (spec/local.md 1.9).
struct Envelope {
    signer: Addr,
    signed_at: u64,
}

impl Driver {
    pub(super) fn on_sign_envelope(&mut self, to: ReplyTo, command: Command, request: &SignEnvelope) {
        if self.node.id().is_none() {
            return self.refuse(to, Refusal::not_registered().within("sign_envelope"));
        }
        match self.sign_envelope(request) {
            Ok(signed) => self.answer(to, command, &signed),
            Err(reason) => {
                self.refuse(to, Refusal::new(Code::InvalidArgument, reason).within("sign_envelope"));
            }
        }
    }

    fn sign_envelope(&self, request: &SignEnvelope) -> Result<SignedEnvelope, String> {
        use base64::Engine as _;
        let hash = match (&request.body_hash, &request.body_b64) {
            (Some(hash), _) if is_hex(hash, 64) => hash.to_ascii_lowercase(),
            (Some(_), _) => return Err("body_hash must be 64 hexadecimal digits".to_owned()),
            (None, Some(body)) => {
                let body = base64::engine::general_purpose::STANDARD.decode(body);
                hex(&pilot_crypto::Sha256::digest(&body.map_err(|error| format!("body_b64: {error}"))?))
            }
            (None, None) => return Err("body_hash or body_b64 is required".to_owned()),
        };
        let nonce = match &request.nonce {
            Some(nonce) if is_hex(nonce, 16) => nonce.to_ascii_lowercase(),
            Some(_) => return Err("nonce must be 16 hexadecimal digits".to_owned()),
            None => hex(&pilot_crypto::random_bytes::<8>().map_err(|error| error.to_string())?),
        };
        if request.audience.contains('|') {
            return Err("audience must not contain `|`".to_owned());
        }
        let address = self.address();
        let envelope = format!(
            "{VERSION}|{:04x}{:08x}|{}|{nonce}|{hash}|{}",
            address.network.0,
            address.node.0,
            wall(),
            request.audience
        );
        let signature = self.identity.sign(envelope.as_bytes()).to_base64();
        Ok(SignedEnvelope { address, envelope, signature })
    }

    pub(super) fn on_verify_envelope(&mut self, to: ReplyTo, command: Command, request: VerifyEnvelope) {
        let envelope = match Envelope::parse(&request.envelope) {
            Some(envelope) => envelope,
            None => return self.answer(to, command, &invalid("reqsig: malformed envelope")),
        };
        let skew = if request.max_skew_secs == 0 { SKEW } else { request.max_skew_secs };
        if envelope.signed_at.abs_diff(wall()) > skew {
            return self.answer(to, command, &invalid("reqsig: timestamp outside the allowed skew"));
        }
        let signer = envelope.signer.node;
        match self.known_key(signer) {
            Some(key) => {
                let check = self.check_envelope(&request, signer, key, "cache");
                self.answer(to, command, &check);
            }
            None => {
                let lookup = registry::Request::Lookup(Signed { node_id: signer, ..Signed::default() });
                self.ask_registry(to, lookup, Purpose::Verify { request, signer });
            }
        }
    }

    /// A key that is known without asking: the own one, a pinned one.
    pub(super) fn known_key(&self, node: NodeId) -> Option<PublicKey> {
        if self.node.id() == Some(node) {
            return Some(self.own_key());
        }
        self.node.trust().get(node).and_then(|trusted| trusted.key)
    }

    pub(super) fn check_envelope(
        &self,
        request: &VerifyEnvelope,
        signer: NodeId,
        key: PublicKey,
        via: &str,
    ) -> EnvelopeCheck {
        let genuine = request
            .signature
            .parse::<Signature>()
            .is_ok_and(|signature| pilot_crypto::verify(&key, request.envelope.as_bytes(), &signature));
        if !genuine {
            return invalid("reqsig: signature verification failed");
        }
        let ours = self.node.id() == Some(signer);
        let trusted = ours || self.node.trust().get(signer).is_some();
        EnvelopeCheck {
            valid: true,
            node_id: Some(signer),
            address: Some(Addr::backbone(signer)),
            verified_via: via.to_owned(),
            trusted: Some(trusted),
            network_member: Some(ours || self.node.trust().members().any(|(node, _)| node == signer)),
            ..EnvelopeCheck::default()
        }
    }
}

impl Envelope {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('|');
        if fields.next()? != VERSION {
            return None;
        }
        let address = fields.next()?;
        let signed_at = fields.next()?.parse().ok()?;
        let (nonce, hash, _audience) = (fields.next()?, fields.next()?, fields.next()?);
        if fields.next().is_some() || !is_hex(address, 12) || !is_hex(nonce, 16) || !is_hex(hash, 64) {
            return None;
        }
        let (network, node) = address.split_at(4);
        let network = NetworkId(u16::from_str_radix(network, 16).ok()?);
        let node = NodeId(u32::from_str_radix(node, 16).ok()?);
        Some(Self { signer: Addr { network, node }, signed_at })
    }
}

fn invalid(reason: &str) -> EnvelopeCheck {
    EnvelopeCheck { valid: false, reason: reason.to_owned(), ..EnvelopeCheck::default() }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(text: &str) {
    let _ = Envelope::parse(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_envelope_of_1_18_0_is_understood() {
        let text = "pilot-req-v1|000000000001|1795247235|7a935dd9663ff8fa|2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824|svc";
        let envelope = Envelope::parse(text).unwrap();
        assert_eq!((envelope.signer, envelope.signed_at), (Addr::backbone(NodeId(1)), 1_795_247_235));
        for cut in ["", "pilot-req-v1", "pilot-req-v2|000000000001|1|7a935dd9663ff8fa|00|svc"] {
            assert!(Envelope::parse(cut).is_none());
        }
    }
}
