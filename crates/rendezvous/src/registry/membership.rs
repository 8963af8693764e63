//! What nodes are told about the networks they are in, and memberships that end by themselves.
//!
//! A node trusts the members of its networks, so it has to know them, and to know soon who is not one any more. Asking
//! for the whole list every minute would cost the square of its length; so every network has a version, and who knows one
//! is told what changed since.

use super::{ConnId, Key, Refusal, State, key_life::moment};
use crate::clock::rfc3339;
use pilot_wire::{
    NetworkId, NodeId,
    registry::{MemberKey, Members, MembersQuery, OwnNetwork, Response, Role, SetMemberExpiry},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{BuildHasher, RandomState},
    time::Instant,
};

/// Members told at once; with the longest names a page stays well below the longest frame.
const PAGE: usize = 4000;
/// Changes remembered of each network. Who knows only an older version is told everything.
const CHANGES_MAX: usize = 1024;
/// Members who are told at once that something changed. Those of larger networks find out when they ask, every minute.
const TOLD_MAX: usize = 1000;

/// Versions of the lists of members. They mean something only to the process that gave them out: another one begins
/// with another number.
#[derive(Debug)]
pub(super) struct Versions {
    epoch: u64,
    networks: BTreeMap<NetworkId, Changes>,
}

#[derive(Debug, Default)]
struct Changes {
    /// Of the newest change.
    number: u64,
    /// Whom the last changes concern, oldest first.
    nodes: VecDeque<NodeId>,
}

impl Default for Versions {
    fn default() -> Self {
        Self { epoch: RandomState::new().hash_one(()), networks: BTreeMap::new() }
    }
}

impl Versions {
    pub(super) fn changed(&mut self, id: NetworkId, node: NodeId) {
        let changes = self.networks.entry(id).or_default();
        changes.number += 1;
        if changes.nodes.len() >= CHANGES_MAX {
            changes.nodes.pop_front();
        }
        changes.nodes.push_back(node);
    }

    pub(super) fn forget(&mut self, id: NetworkId) {
        // The number goes on, so that a later network with this number is never taken for this one.
        if let Some(changes) = self.networks.get_mut(&id) {
            changes.nodes.clear();
            changes.number += 1;
        }
    }

    fn text(&self, id: NetworkId) -> String {
        let number = self.networks.get(&id).map_or(0, |changes| changes.number);
        format!("{:016x}.{number}", self.epoch)
    }

    /// Whom the changes since a version concern; `None` if that is not known any more.
    fn since(&self, id: NetworkId, version: &str) -> Option<BTreeSet<NodeId>> {
        let (epoch, number) = version.split_once('.')?;
        let number: u64 = number.parse().ok().filter(|_| epoch == format!("{:016x}", self.epoch))?;
        let Some(changes) = self.networks.get(&id) else {
            return (number == 0).then(BTreeSet::new);
        };
        let missed = usize::try_from(changes.number.checked_sub(number)?).ok()?;
        let from = changes.nodes.len().checked_sub(missed)?;
        Some(changes.nodes.range(from..).copied().collect())
    }
}

impl State {
    pub(super) fn own_networks(&self, node: NodeId) -> Response {
        let networks = self.networks.of(node).filter_map(|id| {
            let network = self.networks.get(id)?;
            let member = network.members.get(&node)?;
            Some(OwnNetwork {
                network_id: id,
                name: network.name.clone(),
                role: member.role,
                join_rule: super::network_requests::rule_text(&network.join_rule).to_owned(),
                allowed_ports: network.policy.allowed_ports.clone(),
                members: u32::try_from(network.members.len()).unwrap_or(u32::MAX),
                expires_at: member.expires_at,
                version: self.versions.text(id),
            })
        });
        Response::OwnNetworks { networks: networks.collect() }
    }

    /// The keys are for all to see ([`lookup`](Self::lookup)); who is a member is for members.
    pub(super) fn list_members(&self, query: &MembersQuery) -> Result<Response, Refusal> {
        let (id, asker) = (query.network_id, query.node_id);
        let network = self.networks.get(id).ok_or(Refusal::UnknownNetwork(id))?;
        if !network.members.contains_key(&asker) {
            return Err(Refusal::NotMember(asker, id));
        }
        let changed = self.versions.since(id, &query.since);
        let key = |node: NodeId| MemberKey {
            node_id: node,
            public_key: self.key_of(node),
            hostname: self.presence(node).and_then(|presence| presence.hostname.clone()),
        };
        let after = query.after;
        let (complete, mut found, left) = match changed {
            Some(nodes) => {
                let (inside, outside): (Vec<_>, Vec<_>) =
                    nodes.into_iter().partition(|node| network.members.contains_key(node));
                (false, inside, outside)
            }
            None => {
                let members = network.members.keys().copied().filter(|node| *node > after);
                (true, members.take(PAGE + 1).collect(), Vec::new())
            }
        };
        let more = found.len() > PAGE;
        found.truncate(PAGE);
        Ok(Response::ListMembers(Members {
            network_id: id,
            version: self.versions.text(id),
            complete,
            members: found.into_iter().map(key).collect(),
            more,
            left,
        }))
    }

    /// A member came, went, or has another key.
    pub(super) fn member_changed(&mut self, id: NetworkId, node: NodeId) {
        self.versions.changed(id, node);
    }

    /// A member is not one any more: what it had published goes, and the others are to know it soon.
    pub(super) fn member_left(&mut self, id: NetworkId, node: NodeId) {
        self.member_changed(id, node);
        if self.directory.forget(node, Some(id)) {
            self.touch(Key::Cards(node));
        }
        self.tell_members(id);
        self.outdate(node);
    }

    /// Something about a network changed that its members had better know soon.
    pub(super) fn tell_members(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get(id).filter(|network| network.members.len() <= TOLD_MAX) else {
            return;
        };
        for node in network.members.keys().copied().collect::<Vec<_>>() {
            self.outdate(node);
        }
    }

    pub(super) fn set_member_expiry(
        &mut self,
        now: Instant,
        conn: ConnId,
        request: &SetMemberExpiry,
        token: &str,
    ) -> Result<Response, Refusal> {
        let (id, target) = (request.network_id, request.target_node_id);
        self.authorize(conn, id, request.node_id, token, super::network_requests::MANAGERS)?;
        let role = self.member(id, target)?.role;
        let expires_at = moment(&request.expires_at, self.clock.unix(now))?;
        if role == Role::Owner && expires_at.is_some() {
            return Err(Refusal::OwnerStays);
        }
        self.networks.set_expiry(id, target, expires_at);
        self.touch(Key::Network(id));
        self.outdate(target);
        Ok(Response::SetMemberExpiry {
            network_id: id,
            target_node_id: target,
            expires_at: expires_at.map(rfc3339),
        })
    }

    /// When the next membership ends.
    pub(super) fn next_membership_end(&self) -> Option<Instant> {
        self.networks.next_expiry().map(|unix| self.clock.instant(unix))
    }

    /// Ends the memberships whose time is over.
    pub(super) fn expire_members(&mut self, now: Instant) {
        let unix = self.clock.unix(now);
        while let Some((id, node)) = self.networks.expired(unix) {
            tracing::info!(network = %id, %node, "the membership has ended");
            self.networks.remove_member(id, node);
            self.touch(Key::Network(id));
            self.member_left(id, node);
            self.audit_own(now, "member.expired", id, node, String::new());
        }
    }
}
