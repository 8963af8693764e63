//! Who trusts whom.
//!
//! A pair counts only when both sides have shown consent in a signed message (spec/registry.md 23 S6): a request for
//! trust, its acceptance, or a report of trust. Otherwise anybody could open a private node by reporting trust in it.

use super::Refusal;
use pilot_wire::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Peers one node may consent to.
const CONSENTS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Trust {
    consents: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Trust {
    pub(super) fn restore(&mut self, node: NodeId, peers: BTreeSet<NodeId>) {
        self.consents.insert(node, peers);
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.consents.remove(&node);
    }

    pub(super) fn of(&self, node: NodeId) -> Option<&BTreeSet<NodeId>> {
        self.consents.get(&node)
    }

    /// True if `node` has consented to be found by `peer`.
    pub(super) fn consents(&self, node: NodeId, peer: NodeId) -> bool {
        self.consents.get(&node).is_some_and(|peers| peers.contains(&peer))
    }

    pub(super) fn is_mutual(&self, a: NodeId, b: NodeId) -> bool {
        self.consents(a, b) && self.consents(b, a)
    }

    /// True if this changed something. A node's trust in itself goes without saying.
    pub(super) fn consent(&mut self, node: NodeId, peer: NodeId) -> Result<bool, Refusal> {
        if node == peer || self.consents(node, peer) {
            return Ok(false);
        }
        let peers = self.consents.entry(node).or_default();
        if peers.len() >= CONSENTS_MAX {
            return Err(Refusal::TooManyPeers(node, CONSENTS_MAX));
        }
        Ok(peers.insert(peer))
    }

    /// True if this changed something.
    pub(super) fn withdraw(&mut self, node: NodeId, peer: NodeId) -> bool {
        let Some(peers) = self.consents.get_mut(&node) else { return false };
        let changed = peers.remove(&peer);
        if peers.is_empty() {
            self.consents.remove(&node);
        }
        changed
    }
}
