//! Changes of a node's key.

use super::{ConnId, Key, Refusal, State};
use pilot_crypto::open_change;
use pilot_wire::{
    Addr, NodeId, PublicKey,
    record::{ChangedBy, KeyChange, SignedChange},
    registry::{Response, RotateKey, RotatedKey, Sent, signed_text},
};
use std::time::Instant;

/// Changes of a key that are passed on. Whoever knew the node before the oldest of them has to be told by its owner.
const CHANGES_MAX: usize = 16;

impl State {
    /// A key that another node has, or had before it left, is refused: its owner would register as this node
    /// (spec/registry.md 23 S3).
    ///
    /// A node whose peers may know it by a record must say so in a form that they can check: in a change signed by the
    /// old key, or by the recovery key that it named.
    pub(super) fn rotate_key(
        &mut self,
        now: Instant,
        conn: ConnId,
        text: &str,
        request: &RotateKey,
    ) -> Result<Response, Refusal> {
        let id = request.node_id;
        let new_key = match &request.new_public_key {
            Sent::Missing => return Err(Refusal::NewKeyRequired),
            Sent::Malformed(why) => return Err(Refusal::NewKeyInvalid(why.clone())),
            Sent::Given(key) => *key,
        };
        let change = match request.change.as_str() {
            "" => None,
            text => Some(self.checked_change(id, new_key, text)?),
        };
        match &change {
            // A lost key signs nothing, and its node need not be registered.
            Some(change) if change.by == ChangedBy::Recovery => {}
            None if self.known(id)?.signed.is_some() => return Err(Refusal::ChangeRequired(id)),
            Some(_) | None => self.prove_rotation(conn, text, request)?,
        }
        if self.by_key.get(&new_key).is_some_and(|holder| *holder != id) {
            return Err(Refusal::KeyTaken);
        }
        let key_since = self.clock.unix(now);
        let node = self.nodes.get_mut(&id).ok_or(Refusal::UnknownNode(id))?;
        self.by_key.remove(&node.key);
        node.key = new_key;
        let before = std::mem::replace(&mut node.key_since, key_since);
        if let Some(change) = change {
            if node.key_changes.len() >= CHANGES_MAX {
                node.key_changes.remove(0);
            }
            node.key_changes.push(request.change.clone());
            // The old key's word counts no longer; its number and the recovery key do.
            if let Some(signed) = &mut node.signed {
                signed.text.clear();
                signed.seq = signed.seq.max(change.seq);
            }
        }
        let is_here = node.presence.is_some();
        self.by_key.insert(new_key, id);
        self.key_rotated(id, before);
        self.tell_peers_of(id);
        // The beacon hears of the new key with the place, and takes proofs by it from now on.
        if let Some(endpoint) = self.presence(id).and_then(|presence| presence.endpoint) {
            self.moved(id, Some(endpoint), Some(endpoint));
        }
        if is_here {
            self.heard(now, id);
        }
        self.touch(Key::Node(id));
        let address = Addr::backbone(id).to_string();
        Ok(Response::RotateKey(RotatedKey { node_id: id, address, public_key: new_key }))
    }

    fn prove_rotation(&mut self, conn: ConnId, text: &str, request: &RotateKey) -> Result<(), Refusal> {
        let id = request.node_id;
        match self.prove(conn, id, text, &request.signature) {
            Err(Refusal::SignatureWrong) => {
                let older = signed_text::rotate_key_uncovered(id);
                self.prove(conn, id, &older, &request.signature)
            }
            outcome => outcome,
        }
    }

    fn checked_change(&self, id: NodeId, new: PublicKey, text: &str) -> Result<KeyChange, Refusal> {
        let node = self.nodes.get(&id).ok_or(Refusal::UnknownNode(id))?;
        let signed = SignedChange::from_text(text).map_err(|error| Refusal::ChangeInvalid(error.into()))?;
        let recovery = node.signed.as_ref().and_then(|signed| signed.recovery.as_ref());
        let change = open_change(&signed, &node.key, recovery).map_err(Refusal::ChangeInvalid)?;
        let last = node.signed.as_ref().map(|signed| signed.seq).unwrap_or_default();
        if change.node != id || change.new != new {
            return Err(Refusal::ChangeOfAnother);
        }
        if change.seq <= last {
            return Err(Refusal::RecordOld { seq: change.seq.0, last: last.0 });
        }
        Ok(change)
    }
}
