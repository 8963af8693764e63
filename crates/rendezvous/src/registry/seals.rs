//! Seals of requests: whoever has once sealed what it changes must go on so, and no seal counts twice.

use super::{Key, Refusal, State};
use pilot_crypto::verify;
use pilot_wire::{
    NodeId, PublicKey,
    registry::{Request, Sealed, Sealer},
};
use std::time::Instant;

impl State {
    /// Checks a seal, remembers its number, and refuses a change without one by a node that seals. The short
    /// signatures of the protocol are the same for ever and cover no values, so who has seen one could repeat it
    /// (spec/registry.md 23 S5).
    pub(super) fn check_seal(
        &mut self,
        now: Instant,
        request: &Request,
        sealed: Option<&Sealed>,
        token: &str,
    ) -> Result<(), Refusal> {
        let Some((node, key)) = self.actor(request) else { return Ok(()) };
        let last = node.and_then(|node| self.nodes.get(&node)).and_then(|node| node.sealed);
        let Some(sealed) = sealed else {
            return match node {
                Some(node) if last.is_some() && !self.is_admin(token) => Err(Refusal::SealRequired(node)),
                Some(_) | None => Ok(()),
            };
        };
        let seq = sealed.seal.seq;
        if !verify(&key, &sealed.bytes, &sealed.seal.signature) {
            return Err(Refusal::SealWrong);
        }
        if let Some(last) = last
            && seq <= last
        {
            return Err(Refusal::SealOld { seq: seq.0, last: last.0 });
        }
        self.check_number(now, seq)?;
        // A key that is new is sealed from its next request on: it has no number yet.
        if let Some(node) = node.and_then(|id| Some((id, self.nodes.get_mut(&id)?))) {
            let (id, node) = node;
            node.sealed = Some(seq);
            self.touch(Key::Node(id));
        }
        Ok(())
    }

    /// Who changes something of its own with this request, and by which key it is known.
    fn actor(&self, request: &Request) -> Option<(Option<NodeId>, PublicKey)> {
        match Sealer::of(request)? {
            Sealer::Key(key) => Some((self.by_key.get(&key).copied(), key)),
            Sealer::Node(id) => Some((Some(id), self.nodes.get(&id)?.key)),
        }
    }
}
