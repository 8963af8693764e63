//! Records from a snapshot of the reference's rendezvous (spec/registry.md 15.1 and 15.2), so that a network moves
//! without anybody getting another number.
//!
//! What does not fit (a name that two nodes have, a key that is none, a member that nobody knows) is left out and
//! reported, never guessed at.

mod snapshot;

use crate::{
    clock,
    registry::{
        Key, Record, checked_hostname, checked_network_name, checked_tags,
        record::{
            Asked, Counters, Inbox, Invite, JoinRule, Member, Network, Node, Policy, Presence, Request,
            Verdict,
        },
        token_digest,
    },
};
use pilot_crypto::Sha256;
use pilot_wire::{
    NetworkId, NodeId, PublicKey,
    registry::{Role, Visibility},
};
use snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Why a snapshot is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is no snapshot.
    #[error("this is not a snapshot of a registry: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It is not what was written.
    #[error("the snapshot is damaged: its checksum is wrong")]
    Checksum,
    /// Nothing is in it.
    #[error("the snapshot has no nodes and no networks")]
    Empty,
}

/// What was taken from a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Nodes that were registered.
    pub nodes: usize,
    /// Nodes that had been, whose numbers stay theirs.
    pub departed: usize,
    /// Networks.
    pub networks: usize,
    /// Pairs that trust each other.
    pub trust_links: usize,
    /// Requests, answers and invitations that wait.
    pub waiting: usize,
    /// The snapshot had a checksum, and it was right.
    pub checked: bool,
    /// What was not taken, and why.
    pub left_out: Vec<String>,
}

/// Reads a snapshot, at `now` in seconds since 1970. With `trusting` a wrong checksum is reported only.
///
/// # Errors
/// [`ImportError`].
pub fn read(json: &[u8], now: u64, trusting: bool) -> Result<(Vec<(Key, Record)>, Report), ImportError> {
    let snapshot: Snapshot = serde_json::from_slice(json)?;
    let mut import = Import { now, ..Import::default() };
    if let Some(checksum) = &snapshot.checksum {
        import.report.checked = is_checksum_of(json, checksum);
        if !import.report.checked {
            if !trusting {
                return Err(ImportError::Checksum);
            }
            import.leave("the checksum: it is wrong".to_owned());
        }
    }
    import.nodes(&snapshot);
    import.departed(&snapshot);
    import.networks(&snapshot);
    import.trust(&snapshot);
    import.inboxes(&snapshot);
    if import.nodes.is_empty() && import.networks.is_empty() && snapshot.next_node <= 1 {
        return Err(ImportError::Empty);
    }
    Ok(import.finish(&snapshot))
}

/// The reference hashes the same text without the checksum.
fn is_checksum_of(json: &[u8], checksum: &str) -> bool {
    let member = format!("\"checksum\":\"{checksum}\"");
    let Ok(text) = str::from_utf8(json) else { return false };
    let text = text.trim_end();
    // The member stands at the top, and nothing that nodes send can contain unescaped quotes.
    let Some(place) = text.rfind(&member) else { return false };
    let (before, after) = (&text[..place], &text[place + member.len()..]);
    let (before, after) = match before.strip_suffix(',') {
        Some(before) => (before, after),
        None => (before, after.strip_prefix(',').unwrap_or(after)),
    };
    let digest = Sha256::digest([before, after].concat().as_bytes());
    hex::encode(digest).eq_ignore_ascii_case(checksum)
}

#[derive(Debug, Default)]
struct Import {
    now: u64,
    nodes: BTreeMap<NodeId, Node>,
    by_key: HashMap<PublicKey, NodeId>,
    names: BTreeSet<String>,
    networks: BTreeMap<NetworkId, Network>,
    consents: BTreeMap<NodeId, BTreeSet<NodeId>>,
    inboxes: BTreeMap<NodeId, Inbox>,
    report: Report,
}

impl Import {
    fn leave(&mut self, what: String) {
        self.report.left_out.push(what);
    }

    fn nodes(&mut self, snapshot: &Snapshot) {
        for node in snapshot.nodes.values() {
            let id = NodeId(node.id);
            if node.id == 0 || id == NodeId::BROADCAST {
                self.leave(format!("node {id}: not a number of a node"));
                continue;
            }
            let key = match node.public_key.parse::<PublicKey>() {
                Ok(key) => key,
                Err(error) => {
                    self.leave(format!("node {id}: its key cannot be read: {error}"));
                    continue;
                }
            };
            if let Some(other) = self.by_key.get(&key).copied() {
                self.leave(format!("node {id}: node {other} has the same key"));
                continue;
            }
            let presence = self.presence(id, node);
            let key_since = [&node.key_rotated, &node.key_created].into_iter().find_map(|time| unix(time));
            let record = Node {
                owner: node.owner.chars().take(256).collect(),
                score: node.polo_score,
                presence: Some(presence),
                // It signs from its next registration on, if that is signed.
                ..Node::new(key, key_since.unwrap_or(self.now))
            };
            self.by_key.insert(key, id);
            self.nodes.insert(id, record);
            self.report.nodes += 1;
        }
    }

    fn presence(&mut self, id: NodeId, node: &snapshot::Node) -> Presence {
        let mut hostname = Some(node.hostname.clone()).filter(|name| !name.is_empty());
        if let Some(name) = &hostname {
            let fault = match checked_hostname(name) {
                Err(fault) => Some(fault.to_string()),
                Ok(()) if !self.names.insert(name.clone()) => Some("another node has it".to_owned()),
                Ok(()) => None,
            };
            if let Some(fault) = fault {
                self.leave(format!("the hostname {name:?} of node {id}: {fault}"));
                hostname = None;
            }
        }
        let tags = checked_tags(&node.tags).unwrap_or_else(|refusal| {
            self.leave(format!("the tags of node {id}: {refusal}"));
            Vec::new()
        });
        Presence {
            endpoint: node.real_addr.parse().ok(),
            hostname,
            visibility: if node.public { Visibility::Public } else { Visibility::Private },
            tags,
            version: Some(node.version.chars().take(64).collect()).filter(|text: &String| !text.is_empty()),
            lan_addrs: node.lan_addrs.iter().filter_map(|addr| addr.parse().ok()).take(8).collect(),
            relay_only: node.relay_only,
            task_exec: node.task_exec,
        }
    }

    /// Keys of nodes that are away. A number that two keys claim is nobody's: one of them was replaced by the other, and
    /// the snapshot does not say which.
    fn departed(&mut self, snapshot: &Snapshot) {
        let mut claims: BTreeMap<NodeId, Vec<&String>> = BTreeMap::new();
        for (key, id) in &snapshot.pub_key_idx {
            if !self.nodes.contains_key(&NodeId(*id)) {
                claims.entry(NodeId(*id)).or_default().push(key);
            }
        }
        for (id, keys) in claims {
            let &[text] = keys.as_slice() else {
                self.leave(format!("node {id}: {} keys claim the number", keys.len()));
                continue;
            };
            match text.parse::<PublicKey>() {
                Ok(key) if self.by_key.contains_key(&key) => {
                    self.leave(format!("node {id}: another node has the same key"));
                }
                Ok(key) => {
                    self.nodes.insert(id, Node::new(key, self.now));
                    self.by_key.insert(key, id);
                    self.report.departed += 1;
                }
                Err(error) => self.leave(format!("node {id}: its key cannot be read: {error}")),
            }
        }
    }

    fn networks(&mut self, snapshot: &Snapshot) {
        let mut names = BTreeSet::new();
        for network in snapshot.networks.values().filter(|network| network.id != 0) {
            let id = NetworkId(network.id);
            if let Err(fault) = checked_network_name(&network.name) {
                self.leave(format!("network {id} ({:?}): {fault}", network.name));
                continue;
            }
            if !names.insert(network.name.clone()) {
                self.leave(format!("network {id}: another one is named {:?} too", network.name));
                continue;
            }
            let join_rule = match network.join_rule.as_str() {
                "open" => JoinRule::Open,
                "token" if !network.token.is_empty() => {
                    JoinRule::Token { digest: token_digest(&network.token) }
                }
                "invite" => JoinRule::Invite,
                other => {
                    self.leave(format!(
                        "the join rule {other:?} of network {id}: nobody enters uninvited now"
                    ));
                    JoinRule::Invite
                }
            };
            let members = self.members(id, network);
            let policy = network.policy.as_ref();
            let record = Network {
                name: network.name.clone(),
                join_rule,
                enterprise: network.enterprise,
                admin_token: Some(&network.admin_token)
                    .filter(|token| !token.is_empty())
                    .map(|t| token_digest(t)),
                created: unix(&network.created).unwrap_or(self.now),
                members,
                policy: policy
                    .map(|policy| Policy {
                        max_members: policy.max_members,
                        allowed_ports: policy.allowed_ports.clone(),
                        description: policy.description.clone(),
                    })
                    .unwrap_or_default(),
                rules: network.rules.clone().filter(serde_json::Value::is_object),
                expr_policy: network.expr_policy.clone().filter(serde_json::Value::is_object),
                roles: BTreeMap::new(),
            };
            self.networks.insert(id, record);
            self.report.networks += 1;
        }
    }

    fn members(&mut self, id: NetworkId, network: &snapshot::Network) -> BTreeMap<NodeId, Member> {
        let mut members = BTreeMap::new();
        for node in network.members.iter().copied().map(NodeId) {
            if !self.nodes.contains_key(&node) {
                self.leave(format!("member {node} of network {id}: no such node"));
                continue;
            }
            let number = node.0.to_string();
            let role = match network.member_roles.get(&number).map(String::as_str) {
                Some("owner") => Role::Owner,
                Some("admin") => Role::Admin,
                Some(_) | None => Role::Member,
            };
            let tags = network.member_tags.get(&number).map(|tags| checked_tags(tags));
            let tags = tags.transpose().unwrap_or_else(|refusal| {
                self.leave(format!("the tags of member {node} in network {id}: {refusal}"));
                None
            });
            members.insert(node, Member { role, tags: tags.unwrap_or_default(), expires_at: None });
        }
        members
    }

    fn trust(&mut self, snapshot: &Snapshot) {
        for pair in &snapshot.trust_pairs {
            let sides = pair.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            let Some((a, b)) = sides.map(|(a, b)| (NodeId(a), NodeId(b))) else {
                self.leave(format!("the trust pair {pair:?}: it names no two nodes"));
                continue;
            };
            if a == b || !self.nodes.contains_key(&a) || !self.nodes.contains_key(&b) {
                self.leave(format!("the trust pair {pair:?}: a node of it is not known"));
                continue;
            }
            // The reference keeps pairs only, and whoever is in one is trusted by both.
            self.consents.entry(a).or_default().insert(b);
            if self.consents.entry(b).or_default().insert(a) {
                self.report.trust_links += 1;
            }
        }
    }

    fn inboxes(&mut self, snapshot: &Snapshot) {
        for (to, requests) in &snapshot.handshake_inbox {
            for request in requests {
                let (Some(to), Some(from)) = (self.known(to), self.known(&request.from_node_id.to_string()))
                else {
                    self.leave(format!(
                        "a request for trust from node {} to {to}: not known",
                        request.from_node_id
                    ));
                    continue;
                };
                let at = unix(&request.timestamp).unwrap_or(self.now);
                let inbox = self.inboxes.entry(to).or_default();
                if inbox.requests.iter().any(|other| other.from == from) {
                    continue;
                }
                let justification = request.justification.clone();
                inbox.requests.push(Request { from, justification, at });
                inbox.asked.insert(from, Asked { at, answer: None });
                self.report.waiting += 1;
            }
        }
        for (to, verdicts) in &snapshot.handshake_responses {
            for verdict in verdicts {
                let (Some(to), Some(from)) = (self.known(to), self.known(&verdict.from_node_id.to_string()))
                else {
                    self.leave(format!("an answer from node {} to {to}: not known", verdict.from_node_id));
                    continue;
                };
                let at = unix(&verdict.timestamp).unwrap_or(self.now);
                let inbox = self.inboxes.entry(to).or_default();
                inbox.verdicts.push(Verdict { from, accept: verdict.accept, at });
                self.report.waiting += 1;
            }
        }
        for (to, invites) in &snapshot.invite_inbox {
            for invite in invites {
                let network = NetworkId(invite.network_id);
                let from = self.known(&invite.inviter_id.to_string());
                let (Some(to), Some(from), true) =
                    (self.known(to), from, self.networks.contains_key(&network))
                else {
                    self.leave(format!("an invitation of node {to} into network {network}: not known"));
                    continue;
                };
                let at = unix(&invite.timestamp).unwrap_or(self.now);
                self.inboxes.entry(to).or_default().invites.push(Invite { network, from, at });
                self.report.waiting += 1;
            }
        }
    }

    fn known(&self, number: &str) -> Option<NodeId> {
        let id = NodeId(number.parse().ok()?);
        self.nodes.contains_key(&id).then_some(id)
    }

    fn finish(self, snapshot: &Snapshot) -> (Vec<(Key, Record)>, Report) {
        // A number that was given out once is never given again, whatever the snapshot says is next.
        let numbers =
            snapshot.nodes.values().map(|node| node.id).chain(snapshot.pub_key_idx.values().copied());
        let above = |highest: Option<u32>| highest.map_or(1, |highest| highest.saturating_add(1));
        let networks = snapshot.networks.values().map(|network| network.id).max();
        let counters = Counters {
            next_node: snapshot.next_node.max(above(numbers.filter(|id| *id != u32::MAX).max())),
            next_network: snapshot.next_net.max(networks.map_or(1, |highest| highest.saturating_add(1))),
        };
        let mut records = vec![(Key::Counters, Record::Counters(counters))];
        records.extend(self.nodes.into_iter().map(|(id, node)| (Key::Node(id), Record::Node(node))));
        let consents = self.consents.into_iter();
        records.extend(consents.map(|(id, peers)| (Key::Consents(id), Record::Consents { peers })));
        records.extend(self.inboxes.into_iter().map(|(id, inbox)| (Key::Inbox(id), Record::Inbox(inbox))));
        let networks = self.networks.into_iter();
        records.extend(networks.map(|(id, network)| (Key::Network(id), Record::Network(network))));
        (records, self.report)
    }
}

fn unix(time: &str) -> Option<u64> {
    clock::parse_rfc3339(time).filter(|unix| *unix > 0)
}
