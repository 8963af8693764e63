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
    /// Pairs that have consented to each other.
    links: u64,
}

impl Trust {
    /// These are all consents of the node.
    pub(super) fn restore(&mut self, node: NodeId, peers: BTreeSet<NodeId>) {
        self.forget(node);
        self.links += self.mutual(node, &peers);
        self.consents.insert(node, peers);
    }

    /// The node consents to nobody.
    pub(super) fn forget(&mut self, node: NodeId) {
        if let Some(peers) = self.consents.remove(&node) {
            self.links -= self.mutual(node, &peers);
        }
    }

    /// How many of the peers consent to the node.
    fn mutual(&self, node: NodeId, peers: &BTreeSet<NodeId>) -> u64 {
        peers.iter().map(|peer| u64::from(self.consents(*peer, node))).sum()
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
        peers.insert(peer);
        self.links += u64::from(self.consents(peer, node));
        Ok(true)
    }

    /// True if this changed something.
    pub(super) fn withdraw(&mut self, node: NodeId, peer: NodeId) -> bool {
        let Some(peers) = self.consents.get_mut(&node) else { return false };
        let changed = peers.remove(&peer);
        if peers.is_empty() {
            self.consents.remove(&node);
        }
        if changed && self.consents(peer, node) {
            self.links -= 1;
        }
        changed
    }

    /// Pairs that trust each other.
    pub(super) fn links(&self) -> u64 {
        self.links
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_counted_whoever_says_what_the_consents_are() {
        let [a, b, c] = [1, 2, 3].map(NodeId);
        let mut trust = Trust::default();
        trust.restore(a, BTreeSet::from([b, c]));
        trust.restore(b, BTreeSet::from([a]));
        assert_eq!(trust.links(), 1);
        trust.consent(c, a).unwrap();
        assert_eq!(trust.links(), 2);
        trust.restore(a, BTreeSet::from([b]));
        assert_eq!(trust.links(), 1, "the same node again");
        trust.restore(a, BTreeSet::from([b]));
        assert_eq!(trust.links(), 1);
        trust.forget(b);
        assert_eq!(trust.links(), 0);
        assert!(!trust.withdraw(b, a));
        assert_eq!(trust.links(), 0);
    }
}
