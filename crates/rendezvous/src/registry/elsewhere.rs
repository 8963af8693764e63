//! What happens at other instances over the same records: what they have written, whom they have heard of.

use super::{Change, ConnId, Key, Record, State, record};
use pilot_wire::{NetworkId, NodeId};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How much longer a silence must last before a node expires where several instances serve: it may have been heard
/// elsewhere a moment ago, and we are told every few seconds.
const GRACE: Duration = Duration::from_secs(15);

/// The other instances.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// False if there cannot be any.
    exists: bool,
    /// We do not hear from them, so nobody's silence means anything.
    deaf: bool,
    /// Nodes that were heard of here since the others were told. At most all nodes.
    heard: BTreeSet<NodeId>,
}

impl Company {
    pub(super) fn heard_here(&mut self, node: NodeId) {
        if self.exists {
            self.heard.insert(node);
        }
    }
}

impl State {
    /// Other instances may serve from the same records. Nothing expires before they are [heard](Self::hears_others).
    pub fn has_company(&mut self) {
        self.company = Company { exists: true, deaf: true, heard: BTreeSet::new() };
    }

    /// Whether we learn whom the other instances hear of. While we do not, nobody expires; when we do again, everybody's
    /// silence counts anew.
    pub fn hears_others(&mut self, now: Instant, hears: bool) {
        if hears && self.company.deaf {
            let nodes: Vec<NodeId> = self.by_silence.iter().map(|(_, node)| *node).collect();
            for node in nodes {
                self.restart_silence(now, node);
            }
        }
        self.company.deaf = !hears;
    }

    /// Another instance has heard of these nodes.
    pub fn heard_elsewhere(&mut self, now: Instant, nodes: &[NodeId]) {
        for node in nodes {
            if self.presence(*node).is_some() {
                self.restart_silence(now, *node);
            }
        }
    }

    /// The nodes that were heard of here since the last call, to be told to the others.
    pub fn take_heard(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.company.heard).into_iter().collect()
    }

    /// Another instance knows of a beacon.
    pub fn beacon_elsewhere(&mut self, now: Instant, id: u32, addr: String) {
        self.beacons.announced_elsewhere(now, id, addr);
    }

    /// The beacons announced here since the last call, to be told to the others: number and address.
    pub fn take_announced(&mut self) -> Vec<(u32, String)> {
        self.beacons.take_news()
    }

    /// When the next node expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        if self.company.deaf {
            return None;
        }
        let grace = if self.company.exists { GRACE } else { Duration::ZERO };
        self.by_silence.first().map(|(since, _)| *since + self.config.expiry + grace)
    }

    /// True if the next event on the connection may change a record, whatever it is: something was handed out on it.
    #[must_use]
    pub fn owes_receipt(&self, conn: ConnId) -> bool {
        self.sessions.get(&conn).is_some_and(|session| !session.handed_out.is_empty())
    }

    /// Takes over records as somebody else has written them. `whole`: they are all there are.
    pub fn apply(&mut self, now: Instant, changes: Vec<Change>, whole: bool) {
        if whole {
            let kept: BTreeSet<Key> = changes.iter().map(|(key, _)| *key).collect();
            for key in self.keys().difference(&kept) {
                self.apply_one(now, *key, None);
            }
        }
        for (key, record) in changes {
            self.apply_one(now, key, record);
        }
    }

    fn apply_one(&mut self, now: Instant, key: Key, record: Option<Record>) {
        match (key, record) {
            (Key::Counters, Some(Record::Counters(counters))) => self.counters = counters,
            // There are none yet.
            (Key::Counters, None) => self.counters = record::Counters { next_node: 1, next_network: 1 },
            (Key::Node(id), Some(Record::Node(node))) => self.apply_node(now, id, node),
            (Key::Node(id), None) => self.forget_node(id),
            (Key::Consents(id), Some(Record::Consents { peers })) => self.trust.restore(id, peers),
            (Key::Consents(id), None) => self.trust.forget(id),
            (Key::Inbox(id), Some(Record::Inbox(inbox))) => {
                let has_news = self.inboxes.entry(id).or_default().renew(inbox);
                if has_news {
                    self.tell(id);
                }
            }
            (Key::Inbox(id), None) => {
                self.inboxes.remove(&id);
            }
            (Key::Tasks(id), Some(Record::Tasks { counted })) => {
                self.counted.insert(id, counted);
            }
            (Key::Tasks(id), None) => {
                self.counted.remove(&id);
            }
            (Key::Network(id), network @ (Some(Record::Network(_)) | None)) => {
                let network = match network {
                    Some(Record::Network(network)) => Some(network),
                    Some(_) | None => None,
                };
                self.apply_network(id, network);
            }
            (Key::KeyLife(id), Some(Record::KeyLife(life))) => {
                self.key_lives.insert(id, life);
            }
            (Key::KeyLife(id), None) => {
                self.key_lives.remove(&id);
            }
            (Key::Cards(id), cards @ (Some(Record::Cards(_)) | None)) => {
                self.directory.forget(id, None);
                if let Some(Record::Cards(cards)) = cards {
                    self.directory.restore(id, cards);
                }
            }
            (Key::Audit(place), entry @ (Some(Record::Audit(_)) | None)) => {
                self.log.forget(place);
                if let Some(Record::Audit(entry)) = entry {
                    self.log.restore(entry);
                }
            }
            (Key::Mesh, Some(Record::Mesh { secret })) => self.mesh_secret = Some(secret),
            (Key::Authority, Some(Record::Authority { seed })) => self.take_authority(seed),
            // There is none yet; whoever begins makes one.
            (Key::Authority | Key::Mesh, None) => {}
            (
                key,
                Some(
                    Record::Counters(_)
                    | Record::Node(_)
                    | Record::Consents { .. }
                    | Record::Inbox(_)
                    | Record::Tasks { .. }
                    | Record::Network(_)
                    | Record::KeyLife(_)
                    | Record::Cards(_)
                    | Record::Audit(_)
                    | Record::Mesh { .. }
                    | Record::Authority { .. },
                ),
            ) => tracing::error!(?key, "a record of another kind was written elsewhere; it is passed over"),
        }
    }

    /// Members of the network hear here what was done to it elsewhere.
    fn apply_network(&mut self, id: NetworkId, network: Option<record::Network>) {
        let before = self.networks.remove(id).map(|network| network.members).unwrap_or_default();
        let is_gone = network.is_none();
        if let Some(network) = network {
            self.networks.insert(id, network);
        }
        let after = self.networks.get(id).map(|network| network.members.clone()).unwrap_or_default();
        let left = before.keys().filter(|node| !after.contains_key(node));
        let came = after.keys().filter(|node| !before.contains_key(node));
        let left: Vec<NodeId> = left.copied().collect();
        for node in left.iter().chain(came) {
            self.member_changed(id, *node);
        }
        if is_gone {
            self.versions.forget(id);
        }
        for node in left {
            self.outdate(node);
        }
        self.tell_members(id);
    }

    fn apply_node(&mut self, now: Instant, id: NodeId, node: record::Node) {
        let before = self.nodes.insert(id, node.clone());
        let old_key = before.as_ref().map(|before| before.key);
        if old_key != Some(node.key) {
            self.forget_key(old_key, id);
            self.by_key.insert(node.key, id);
        }
        let old = before.and_then(|before| before.presence);
        let old_name = old.as_ref().and_then(|presence| presence.hostname.clone());
        let name = node.presence.as_ref().and_then(|presence| presence.hostname.clone());
        if old_name != name {
            self.forget_name(old_name.as_deref(), id);
        }
        if let Some(name) = name {
            self.by_name.insert(name, id);
        }
        let before = old.as_ref().and_then(|presence| presence.endpoint);
        let after = node.presence.as_ref().and_then(|presence| presence.endpoint);
        if before != after || old_key != Some(node.key) {
            self.moved(id, before, after);
        }
        match (old.is_some(), node.presence.is_some()) {
            (true, false) => self.end_silence(id),
            (false, true) => self.restart_silence(now, id),
            (true, true) if before != after => self.restart_silence(now, id),
            (true, true) | (false, false) => {}
        }
    }

    /// It was never there: its registration was refused after all, or the records are older ones than before.
    fn forget_node(&mut self, id: NodeId) {
        let Some(node) = self.nodes.remove(&id) else { return };
        self.forget_key(Some(node.key), id);
        self.end_silence(id);
        if let Some(presence) = node.presence {
            self.forget_name(presence.hostname.as_deref(), id);
            self.moved(id, presence.endpoint, None);
        }
        // The number will be somebody else's.
        for session in self.sessions.values_mut() {
            session.proven.remove(&id);
        }
    }

    /// Another node may have it by now.
    fn forget_key(&mut self, key: Option<pilot_wire::PublicKey>, id: NodeId) {
        if let Some(key) = key
            && self.by_key.get(&key) == Some(&id)
        {
            self.by_key.remove(&key);
        }
    }

    fn forget_name(&mut self, name: Option<&str>, id: NodeId) {
        if let Some(name) = name
            && self.by_name.get(name) == Some(&id)
        {
            self.by_name.remove(name);
        }
    }

    fn end_silence(&mut self, id: NodeId) {
        if let Some(since) = self.last_seen.remove(&id) {
            self.by_silence.remove(&(since, id));
        }
    }

    /// Of all records there are, or that might be, except for those that are never taken away.
    pub(super) fn keys(&self) -> BTreeSet<Key> {
        let of_node =
            |id| [Key::Node(id), Key::Consents(id), Key::Tasks(id), Key::KeyLife(id), Key::Cards(id)];
        let nodes = self.nodes.keys().copied().flat_map(of_node);
        let inboxes = self.inboxes.keys().map(|id| Key::Inbox(*id));
        let networks = self.networks.iter().map(|(id, _)| Key::Network(id));
        nodes.chain(inboxes).chain(networks).chain(self.log.places()).chain([Key::Counters]).collect()
    }
}
