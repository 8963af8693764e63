//! Signatures over whole messages: what this node seals, and what the registry attests to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use pilot_crypto::{Identity, verify};
use pilot_wire::record::RecordSeq;
use pilot_wire::registry::{Envelope, Request, Sealer, seal};
use pilot_wire::{NodeId, PublicKey};

/// The numbers under which this node signs, for everything that does: each is higher than those before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers(Arc<AtomicU64>);

impl Numbers {
    /// Goes on above `last`.
    pub(crate) fn after(last: RecordSeq) -> Self {
        Self(Arc::new(AtomicU64::new(last.0)))
    }

    /// The next one, by the clock of this machine.
    pub(crate) fn next(&self) -> RecordSeq {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let next = |last| RecordSeq(last).next(now).0;
        let last = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        RecordSeq(next(last.unwrap_or_else(|last| last)))
    }

    /// The last one given out.
    pub(crate) fn last(&self) -> RecordSeq {
        RecordSeq(self.0.load(Ordering::Relaxed))
    }

    /// The registry has seen a higher one: those to come are above it.
    pub(super) fn at_least(&self, seen: RecordSeq) {
        self.0.fetch_max(seen.0, Ordering::Relaxed);
    }
}

/// Who vouches for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attested {
    /// Nobody.
    No,
    /// The registry with this key.
    By(PublicKey),
    /// It says it is the registry with this key, and the signature is wrong.
    Forged(PublicKey),
}

/// Who vouches for `reply`.
pub(super) fn attested(reply: &[u8]) -> Attested {
    match seal::attestation_of(reply) {
        Ok(Some((word, bytes))) if verify(&word.key, &bytes, &word.signature) => Attested::By(word.key),
        Ok(Some((word, _))) => Attested::Forged(word.key),
        Ok(None) | Err(_) => Attested::No,
    }
}

/// Whether the registry is to vouch for the answer.
pub(super) fn wants_attestation(request: &Request) -> bool {
    matches!(request, Request::Lookup(_) | Request::Resolve(_) | Request::ResolveHostname(_))
}

/// The content of the frame for a request of the node `own`, signed already as the protocol has it: sealed, if it
/// changes something of that node.
pub(super) fn sealed(
    envelope: &Envelope,
    own: Option<NodeId>,
    identity: &Identity,
    numbers: &Numbers,
) -> Vec<u8> {
    let plain = envelope.to_json();
    let is_ours = match Sealer::of(&envelope.request) {
        Some(Sealer::Key(key)) => key == identity.public(),
        Some(Sealer::Node(node)) => own == Some(node),
        None => false,
    };
    if !is_ours {
        return plain;
    }
    match seal::seal(&plain, numbers.next(), |bytes| identity.sign(bytes)) {
        Ok(sealed) => sealed,
        Err(error) => {
            tracing::error!(%error, "a request is not sealed");
            plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilot_wire::registry::{SetHostname, Signed};

    fn identity() -> Identity {
        Identity::from_seed(&[7; 32])
    }

    fn set_hostname(node_id: NodeId) -> Envelope {
        Request::SetHostname(SetHostname { node_id, hostname: "a".to_owned(), ..SetHostname::default() })
            .into()
    }

    #[test]
    fn what_changes_this_node_is_sealed_under_rising_numbers_and_nothing_else_is() {
        let (ours, numbers) = (Some(NodeId(7)), Numbers::default());
        let mut last = RecordSeq(0);
        for _ in 0..3 {
            let frame = sealed(&set_hostname(NodeId(7)), ours, &identity(), &numbers);
            let (found, bytes) = seal::seal_of(&frame).unwrap().unwrap();
            assert!(found.seq > last && verify(&identity().public(), &bytes, &found.signature));
            last = found.seq;
        }
        assert_eq!(numbers.last(), last);
        let of_another = sealed(&set_hostname(NodeId(8)), ours, &identity(), &numbers);
        assert_eq!(seal::seal_of(&of_another).unwrap(), None);
        let question = Request::Heartbeat(Signed { node_id: NodeId(7), ..Signed::default() });
        assert_eq!(seal::seal_of(&sealed(&question.into(), ours, &identity(), &numbers)).unwrap(), None);
    }

    #[test]
    fn numbers_go_on_above_the_last_of_an_earlier_life() {
        let far = RecordSeq(u64::MAX / 2);
        let numbers = Numbers::after(far);
        assert_eq!(numbers.next(), RecordSeq(far.0 + 1));
        numbers.at_least(RecordSeq(far.0 + 10));
        assert_eq!(numbers.clone().next(), RecordSeq(far.0 + 11));
    }

    #[test]
    fn an_attestation_counts_if_the_key_it_names_signed_it() {
        let reply = br#"{"type":"lookup_ok","node_id":7}"#;
        let key = identity().public();
        let word = seal::attest(reply, key, 1000, |bytes| identity().sign(bytes)).unwrap();
        assert_eq!(attested(&word), Attested::By(key));
        let altered = String::from_utf8(word).unwrap().replace("\"node_id\":7", "\"node_id\":8");
        assert_eq!(attested(altered.as_bytes()), Attested::Forged(key));
        assert_eq!(attested(reply), Attested::No);
    }
}
