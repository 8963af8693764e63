//! Networks and their members.

use super::record::{Member, Network};
use pilot_wire::{NetworkId, NodeId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Networks {
    networks: BTreeMap<NetworkId, Network>,
    by_name: BTreeMap<String, NetworkId>,
    by_member: BTreeMap<NodeId, BTreeSet<NetworkId>>,
    /// When memberships end, in seconds since 1970.
    ends: BTreeSet<(u64, NetworkId, NodeId)>,
}

impl Networks {
    pub(super) fn restore(&mut self, id: NetworkId, network: Network) {
        self.insert(id, network);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.networks.len()
    }

    pub(super) fn insert(&mut self, id: NetworkId, network: Network) {
        self.by_name.insert(network.name.clone(), id);
        for (node, member) in &network.members {
            self.by_member.entry(*node).or_default().insert(id);
            self.ends.extend(member.expires_at.map(|end| (end, id, *node)));
        }
        self.networks.insert(id, network);
    }

    pub(super) fn remove(&mut self, id: NetworkId) -> Option<Network> {
        let network = self.networks.remove(&id)?;
        if self.named(&network.name) == Some(id) {
            self.by_name.remove(&network.name);
        }
        for (node, member) in &network.members {
            self.unlink(*node, id);
            self.ends.retain(|(_, other, _)| member.expires_at.is_none() || *other != id);
        }
        Some(network)
    }

    pub(super) fn rename(&mut self, id: NetworkId, name: &str) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        self.by_name.remove(&network.name);
        name.clone_into(&mut network.name);
        self.by_name.insert(name.to_owned(), id);
    }

    pub(super) fn get(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(&id)
    }

    /// For changes other than of the name and of who is a member.
    pub(super) fn get_mut(&mut self, id: NetworkId) -> Option<&mut Network> {
        self.networks.get_mut(&id)
    }

    pub(super) fn named(&self, name: &str) -> Option<NetworkId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NetworkId, &Network)> {
        self.networks.iter().map(|(id, network)| (*id, network))
    }

    pub(super) fn add_member(&mut self, id: NetworkId, node: NodeId, member: Member) {
        if let Some(network) = self.networks.get_mut(&id) {
            network.members.insert(node, member);
            self.by_member.entry(node).or_default().insert(id);
        }
    }

    pub(super) fn remove_member(&mut self, id: NetworkId, node: NodeId) {
        if let Some(network) = self.networks.get_mut(&id) {
            if let Some(end) = network.members.remove(&node).and_then(|member| member.expires_at) {
                self.ends.remove(&(end, id, node));
            }
            self.unlink(node, id);
        }
    }

    /// Says when a membership ends.
    pub(super) fn set_expiry(&mut self, id: NetworkId, node: NodeId, end: Option<u64>) {
        let Some(member) = self.networks.get_mut(&id).and_then(|network| network.members.get_mut(&node))
        else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut member.expires_at, end) {
            self.ends.remove(&(before, id, node));
        }
        self.ends.extend(end.map(|end| (end, id, node)));
    }

    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.ends.first().map(|(end, ..)| *end)
    }

    /// A membership whose time is over.
    pub(super) fn expired(&self, now: u64) -> Option<(NetworkId, NodeId)> {
        self.ends.first().filter(|(end, ..)| *end <= now).map(|(_, id, node)| (*id, *node))
    }

    fn unlink(&mut self, node: NodeId, id: NetworkId) {
        if let Some(networks) = self.by_member.get_mut(&node) {
            networks.remove(&id);
            if networks.is_empty() {
                self.by_member.remove(&node);
            }
        }
    }

    /// The networks of a node, without the backbone.
    pub(super) fn of(&self, node: NodeId) -> impl Iterator<Item = NetworkId> {
        self.by_member.get(&node).into_iter().flatten().copied()
    }

    pub(super) fn share_one(&self, a: NodeId, b: NodeId) -> bool {
        match (self.by_member.get(&a), self.by_member.get(&b)) {
            (Some(a), Some(b)) => !a.is_disjoint(b),
            (Some(_) | None, Some(_) | None) => false,
        }
    }
}
