//! The networks of this node and their members: `networks.json` beside the other state.
//!
//! Members of a network that the owner has joined are trusted for as long as they and the node are in it. The registry says
//! who they are; what is not left to it is whether they are trusted at all, which the owner decides by joining, and which
//! key a member has: the first one that was told or shown is pinned, also for those who left and come back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use pilot_proto::trust::{Member, Trusted, UnixTime};
use pilot_wire::networks::Membership;
use pilot_wire::registry::{ListedNode, MemberKey, Members, OwnNetwork, Role};
use pilot_wire::{Addr, NetworkId, NodeId, Port, PublicKey};
use serde::{Deserialize, Serialize};

use crate::files;

/// Members remembered of one network, those who left included. Beyond this, members are not trusted, and those who left
/// are forgotten.
const MEMBERS_MAX: usize = 20_000;

/// Members of networks that the owner does not trust. Beyond this the oldest numbers are forgotten.
const EXCLUDED_MAX: usize = 4096;

/// What is remembered.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memberships {
    networks: BTreeMap<NetworkId, Joined>,
    /// Nodes that are not trusted, whatever networks they are in.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    excluded: BTreeSet<NodeId>,
}

/// One network.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Joined {
    name: String,
    /// Whether the owner trusts its members.
    trust: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_ports: Vec<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    /// Of the list of members.
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    members: BTreeMap<NodeId, Known>,
}

/// A member, or one that was.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<PublicKey>,
    since: UnixTime,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    answered: bool,
    /// It left; its key is still pinned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    left: bool,
    /// Another key that the registry says it has.
    #[serde(skip)]
    claimed: Option<PublicKey>,
}

/// Where members that are trusted for no other reason reach this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortLimit {
    pub(crate) ports: BTreeSet<Port>,
    /// Which networks say so, for people.
    pub(crate) networks: String,
}

/// The registry says that a member has another key than the pinned one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) node: NodeId,
    pub(crate) key: PublicKey,
}

impl Memberships {
    /// Reads the file; nothing is remembered if there is none.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        Ok(files::read_json(path)?.unwrap_or_default())
    }

    pub(crate) fn store(&self, path: &Path) -> io::Result<()> {
        files::replace_json(path, self)
    }

    /// Whether the members of some network are trusted.
    pub(crate) fn trusts_any(&self) -> bool {
        self.networks.values().any(|network| network.trust)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// The owner has joined a network.
    pub(crate) fn joined(&mut self, id: NetworkId, trust: bool) {
        let network = self.networks.entry(id).or_default();
        network.trust = trust;
        network.version.clear();
    }

    /// The owner has left a network; what was pinned in it is forgotten.
    pub(crate) fn left(&mut self, id: NetworkId) -> bool {
        self.networks.remove(&id).is_some()
    }

    /// Whether the members of a network are trusted from now on. Switched off, what was pinned is forgotten.
    pub(crate) fn set_trust(&mut self, id: NetworkId, on: bool) -> bool {
        let Some(network) = self.networks.get_mut(&id) else { return false };
        network.trust = on;
        network.version.clear();
        if !on {
            network.members.clear();
        }
        true
    }

    /// The owner trusts a member no more. False if it is none, or was not trusted anyway.
    pub(crate) fn exclude(&mut self, node: NodeId) -> bool {
        let is_member = self.networks.values().any(|network| network.trust && network.has(node));
        if is_member && self.excluded.len() >= EXCLUDED_MAX {
            self.excluded.pop_first();
        }
        is_member && self.excluded.insert(node)
    }

    /// The owner trusts it again.
    pub(crate) fn readmit(&mut self, node: NodeId) -> bool {
        self.excluded.remove(&node)
    }

    /// The registry says which networks this node is in. Tells of which the members have to be asked for, and whether
    /// anything is new.
    pub(crate) fn told_own(&mut self, told: Vec<OwnNetwork>) -> (Vec<(NetworkId, String)>, bool) {
        let ids: BTreeSet<NetworkId> = told.iter().map(|network| network.network_id).collect();
        let before = self.networks.len();
        self.networks.retain(|id, _| ids.contains(id));
        let mut changed = self.networks.len() != before;
        let mut wanted = Vec::new();
        for told in told {
            // A membership that others arranged is not the owner's word: its members are not trusted.
            let network = self.networks.entry(told.network_id).or_insert_with(|| {
                changed = true;
                Joined::default()
            });
            changed |= network.name != told.name
                || network.role != Some(told.role)
                || network.allowed_ports != told.allowed_ports
                || network.expires_at != told.expires_at;
            network.name = told.name;
            network.role = Some(told.role);
            network.allowed_ports = told.allowed_ports;
            network.expires_at = told.expires_at;
            if network.trust && (network.version.is_empty() || network.version != told.version) {
                wanted.push((told.network_id, network.version.clone()));
            }
        }
        (wanted, changed)
    }

    /// A registry of another make says only their numbers. Tells of which the members have to be asked for.
    pub(crate) fn told_numbers(&mut self, ids: &BTreeSet<NetworkId>) -> (Vec<NetworkId>, bool) {
        let before = self.networks.len();
        self.networks.retain(|id, _| ids.contains(id));
        let mut changed = self.networks.len() != before;
        for id in ids {
            self.networks.entry(*id).or_insert_with(|| {
                changed = true;
                Joined::default()
            });
        }
        let trusting = self.networks.iter().filter(|(_, network)| network.trust);
        (trusting.map(|(id, _)| *id).collect(), changed)
    }

    pub(crate) fn told_ports(&mut self, id: NetworkId, ports: Vec<u16>) -> bool {
        let Some(network) = self.networks.get_mut(&id) else { return false };
        let changed = network.allowed_ports != ports;
        network.allowed_ports = ports;
        changed
    }

    /// The registry says who is in a network: all, when `complete`, or what changed.
    pub(crate) fn told_members(&mut self, told: Members, wall: UnixTime) -> Vec<Claim> {
        let Some(network) = self.networks.get_mut(&told.network_id).filter(|network| network.trust) else {
            return Vec::new();
        };
        network.version = told.version;
        if told.complete {
            let ids: BTreeSet<NodeId> = told.members.iter().map(|member| member.node_id).collect();
            for (node, known) in &mut network.members {
                known.left |= !ids.contains(node);
            }
        }
        for node in told.left {
            if let Some(known) = network.members.get_mut(&node) {
                known.left = true;
            }
        }
        let claims = told.members.into_iter().filter_map(|member| network.learn(member, wall)).collect();
        network.shrink();
        claims
    }

    /// The same, by a registry of another make.
    pub(crate) fn told_nodes(&mut self, id: NetworkId, nodes: Vec<ListedNode>, wall: UnixTime) {
        let members = nodes.into_iter().map(|node| MemberKey {
            node_id: node.node_id,
            public_key: None,
            hostname: node.hostname,
        });
        let members = members.collect();
        let (version, left) = (String::new(), Vec::new());
        self.told_members(
            Members { network_id: id, version, complete: true, members, more: false, left },
            wall,
        );
    }

    /// What the book has pinned meanwhile. True if something is new.
    pub(crate) fn pinned<'a>(&mut self, members: impl Iterator<Item = (NodeId, &'a Member)>) -> bool {
        let mut changed = false;
        for (node, member) in members {
            for id in &member.networks {
                let known = self.networks.get_mut(id).and_then(|network| network.members.get_mut(&node));
                let Some(known) = known else { continue };
                changed |= known.key != member.trusted.key || known.answered != member.answered;
                known.key = known.key.or(member.trusted.key);
                known.answered = member.answered;
            }
        }
        changed
    }

    /// The owner of a member has replaced its key and proved it: the pin moves. True if there was one.
    pub(crate) fn rekeyed(&mut self, node: NodeId, old: PublicKey, new: PublicKey) -> bool {
        let mut changed = false;
        for network in self.networks.values_mut() {
            if let Some(known) = network.members.get_mut(&node)
                && known.key == Some(old)
            {
                known.key = Some(new);
                known.claimed = None;
                changed = true;
            }
        }
        changed
    }

    /// Everybody who is trusted for being in a network, without this node itself.
    pub(crate) fn trusted(&self, own: NodeId) -> BTreeMap<NodeId, Member> {
        let mut members: BTreeMap<NodeId, Member> = BTreeMap::new();
        for (id, network) in self.networks.iter().filter(|(_, network)| network.trust) {
            for (node, known) in &network.members {
                if known.left || *node == own || self.excluded.contains(node) {
                    continue;
                }
                let member = members.entry(*node).or_insert_with(|| Member {
                    trusted: Trusted { key: known.key, since: known.since, mutual: true },
                    networks: BTreeSet::new(),
                    answered: false,
                });
                member.networks.insert(*id);
                member.answered |= known.answered;
                member.trusted.key = member.trusted.key.or(known.key);
            }
        }
        members
    }

    /// The ports that are open to those who are trusted for being in these networks; `None` for all.
    pub(crate) fn limit(&self, networks: &BTreeSet<NetworkId>) -> Option<Arc<PortLimit>> {
        let mut ports = BTreeSet::new();
        let mut names = Vec::new();
        for id in networks {
            let network = self.networks.get(id)?;
            if network.allowed_ports.is_empty() {
                return None;
            }
            ports.extend(network.allowed_ports.iter().map(|port| Port(*port)));
            names.push(self.name(*id));
        }
        let networks = names.join(" and ");
        Some(Arc::new(PortLimit { ports, networks }))
    }

    /// The name of a network with its number, as people read it.
    pub(crate) fn name(&self, id: NetworkId) -> String {
        match self.networks.get(&id).map(|network| network.name.as_str()) {
            None | Some("") => format!("network {id}"),
            Some(name) => format!("network {name} ({id})"),
        }
    }

    /// The bare name of a network, or nothing.
    pub(crate) fn bare_name(&self, id: NetworkId) -> String {
        self.networks.get(&id).map(|network| network.name.clone()).unwrap_or_default()
    }

    /// For programs.
    pub(crate) fn list(&self, own: NodeId) -> Vec<Membership> {
        let list = self.networks.iter().map(|(id, network)| Membership {
            network_id: *id,
            name: network.name.clone(),
            address: Addr { network: *id, node: own },
            trust: network.trust,
            role: network.role,
            trusted_members: match network.trust {
                true => {
                    let here = |node: &&NodeId| **node != own && network.has(**node);
                    network.members.keys().filter(here).filter(|node| !self.excluded.contains(node)).count()
                        as u64
                }
                false => 0,
            },
            allowed_ports: network.allowed_ports.clone(),
            expires_at: network.expires_at,
        });
        list.collect()
    }
}

impl Joined {
    fn has(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|known| !known.left)
    }

    fn learn(&mut self, member: MemberKey, wall: UnixTime) -> Option<Claim> {
        let MemberKey { node_id: node, public_key: key, .. } = member;
        if self.members.len() >= 2 * MEMBERS_MAX && !self.members.contains_key(&node) {
            return None;
        }
        let known = self.members.entry(node).or_insert(Known {
            key: None,
            since: wall,
            answered: false,
            left: false,
            claimed: None,
        });
        if std::mem::take(&mut known.left) {
            known.since = wall;
            known.answered = false;
        }
        match (known.key, key) {
            (Some(pinned), Some(said)) if pinned != said => {
                let is_new = known.claimed.replace(said) != Some(said);
                is_new.then_some(Claim { node, key: said })
            }
            (None, said) => {
                known.key = said;
                None
            }
            (Some(_), _) => None,
        }
    }

    /// Forgets those who left, when there are too many.
    fn shrink(&mut self) {
        let mut surplus = self.members.len().saturating_sub(MEMBERS_MAX);
        self.members.retain(|_, known| {
            let goes = surplus > 0 && known.left;
            surplus -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: NodeId = NodeId(1);
    const TEAM: NetworkId = NetworkId(9);

    fn key(seed: u8) -> PublicKey {
        PublicKey::from_bytes([seed; 32])
    }

    fn own(id: NetworkId, ports: &[u16]) -> OwnNetwork {
        OwnNetwork {
            network_id: id,
            name: "team".to_owned(),
            role: Role::Member,
            join_rule: "open".to_owned(),
            allowed_ports: ports.to_vec(),
            members: 2,
            expires_at: None,
            version: "a.1".to_owned(),
        }
    }

    fn all(members: &[(u32, u8)]) -> Members {
        let members = members.iter().map(|(node, seed)| MemberKey {
            node_id: NodeId(*node),
            public_key: Some(key(*seed)),
            hostname: None,
        });
        Members {
            network_id: TEAM,
            version: "a.1".to_owned(),
            complete: true,
            members: members.collect(),
            more: false,
            left: Vec::new(),
        }
    }

    fn trusted(memberships: &Memberships) -> Vec<NodeId> {
        memberships.trusted(OWN).into_keys().collect()
    }

    #[test]
    fn members_are_trusted_of_networks_that_the_owner_joined_and_of_no_others() {
        let mut memberships = Memberships::default();
        memberships.joined(TEAM, true);
        let (wanted, _) = memberships.told_own(vec![own(TEAM, &[]), own(NetworkId(4), &[])]);
        assert_eq!(wanted, [(TEAM, String::new())], "others put this node into network 4");
        memberships.told_members(all(&[(1, 1), (2, 2), (3, 3)]), 5);
        assert_eq!(trusted(&memberships), [NodeId(2), NodeId(3)]);
        assert_eq!(
            memberships.told_own(vec![own(TEAM, &[]), own(NetworkId(4), &[])]).0,
            [],
            "nothing is new"
        );
        memberships.told_members(all(&[(1, 1), (3, 3)]), 6);
        assert_eq!(trusted(&memberships), [NodeId(3)]);
        assert!(memberships.exclude(NodeId(3)));
        assert_eq!(trusted(&memberships), []);
        assert!(memberships.readmit(NodeId(3)));
        memberships.told_own(vec![]);
        assert_eq!(trusted(&memberships), [], "the network is gone");
    }

    #[test]
    fn who_leaves_and_comes_back_with_another_key_is_not_taken_for_the_same() {
        let mut memberships = Memberships::default();
        memberships.joined(TEAM, true);
        assert_eq!(memberships.told_members(all(&[(2, 2)]), 5), []);
        memberships.told_members(all(&[]), 6);
        assert_eq!(memberships.told_members(all(&[(2, 7)]), 7), [Claim { node: NodeId(2), key: key(7) }]);
        assert_eq!(memberships.told_members(all(&[(2, 7)]), 8), [], "it is said once");
        assert_eq!(memberships.trusted(OWN)[&NodeId(2)].trusted.key, Some(key(2)));
        let file = tempfile::NamedTempFile::new().unwrap();
        memberships.store(file.path()).unwrap();
        let again = Memberships::load(file.path()).unwrap();
        assert_eq!(again.trusted(OWN)[&NodeId(2)].trusted.key, Some(key(2)));
        // The owner forgets what was pinned by switching trust off and on.
        memberships.set_trust(TEAM, false);
        memberships.set_trust(TEAM, true);
        assert_eq!(memberships.told_members(all(&[(2, 7)]), 9), []);
        assert_eq!(memberships.trusted(OWN)[&NodeId(2)].trusted.key, Some(key(7)));
    }

    #[test]
    fn ports_are_limited_unless_one_common_network_has_no_limit() {
        let mut memberships = Memberships::default();
        let (a, b, open) = (NetworkId(2), NetworkId(3), NetworkId(4));
        memberships.told_own(vec![own(a, &[1001]), own(b, &[80]), own(open, &[])]);
        let limit = |ids: &[NetworkId]| memberships.limit(&ids.iter().copied().collect());
        let both = limit(&[a, b]).unwrap();
        assert_eq!(both.ports, BTreeSet::from([Port(80), Port(1001)]));
        assert_eq!(both.networks, "network team (2) and network team (3)");
        assert_eq!(limit(&[a, open]), None);
    }
}
