//! Registration, what a node says of itself, and how it is found (spec/registry.md 5 to 8 and 10).

use super::{
    ConnId, Key, Refusal, State,
    names::{check_hostname, check_tags},
    record::{Node, Presence},
    refusal::HostnameFault,
};
use pilot_crypto::derived_numbers;
use pilot_wire::{
    Addr, NetworkId, NodeId, PublicKey,
    registry::{
        Lookup, Punch, Punched, Register, Registered, Resolve, Resolved, ResolvedHostname, Response, Sent,
        Visibility, signed_text,
    },
};
use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

/// Addresses in the local network kept for a node; hosts with more interfaces have the rest ignored.
const LAN_ADDRS_MAX: usize = 8;
/// Longest owner and version texts, in bytes; longer ones are cut.
const OWNER_MAX: usize = 256;
const VERSION_MAX: usize = 64;

impl Presence {
    pub(super) fn is_public(&self) -> bool {
        self.visibility == Visibility::Public
    }

    /// Text for the wire; empty if not known.
    fn endpoint_text(&self) -> String {
        self.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default()
    }
}

impl State {
    pub(super) fn register(
        &mut self,
        now: Instant,
        conn: ConnId,
        request: Register,
    ) -> Result<Response, Refusal> {
        let key = match &request.public_key {
            Sent::Missing => return Err(Refusal::KeyRequired),
            Sent::Malformed(why) => return Err(Refusal::KeyInvalid(why.clone())),
            Sent::Given(key) => *key,
        };
        let signs = match &request.signature {
            Sent::Missing => false,
            Sent::Malformed(_) => return Err(Refusal::RegistrationSignature),
            Sent::Given(signature) => {
                let text = signed_text::register(&request.listen_addr, &key);
                if !self.is_signed(&key, &text, signature) {
                    return Err(Refusal::RegistrationSignature);
                }
                true
            }
        };
        let id = match self.by_key.get(&key) {
            Some(id) => *id,
            None => self.enroll(now, conn, key, request.derived)?,
        };
        self.check_key_life(now, id)?;
        self.arrive(now, conn, id, signs, &request)?;
        if signs {
            self.proven(conn, id);
        }
        let (hostname, hostname_error) = match self.wish_hostname(id, &request.hostname) {
            Ok(hostname) => (hostname, None),
            Err(fault) => (None, Some(fault.to_string())),
        };
        let observed = self.presence(id).map(Presence::endpoint_text).unwrap_or_default();
        Ok(Response::Register(Registered {
            node_id: id,
            address: Addr::backbone(id).to_string(),
            network_id: NetworkId::BACKBONE,
            public_key: key.to_base64(),
            observed_addr: observed,
            protocol_version: 1,
            hostname,
            hostname_error,
        }))
    }

    /// A key that was never seen gets a number: one that follows from it, if it asks for that, else the next one. Who the owner is said to be makes no difference: a text that
    /// anybody may write must not lead to a node (spec/registry.md 23 S1).
    fn enroll(
        &mut self,
        now: Instant,
        conn: ConnId,
        key: PublicKey,
        derived: bool,
    ) -> Result<NodeId, Refusal> {
        if self.nodes.len() >= self.config.max_nodes {
            return Err(Refusal::Full(self.nodes.len()));
        }
        if let Some(session) = self.sessions.get(&conn)
            && !session.peer.ip().is_loopback()
        {
            let from = session.peer.ip();
            self.registrations.take(from, now).map_err(|wait| Refusal::RegistrationRate { from, wait })?;
        }
        if self.nodes.is_empty() {
            // A store with nodes and without counters counts as damaged, and a number of its own moves none of them.
            self.touch(Key::Counters);
        }
        let own = derived_numbers(&key).filter(|_| derived).find(|number| !self.nodes.contains_key(number));
        let id = own.or_else(|| self.next_number()).ok_or(Refusal::Full(self.nodes.len()))?;
        self.nodes.insert(id, Node::new(key, self.clock.unix(now)));
        self.by_key.insert(key, id);
        Ok(id)
    }

    /// The next number in order; none is ever given twice, and those that follow from keys are left out.
    fn next_number(&mut self) -> Option<NodeId> {
        let taken = |number| self.nodes.contains_key(&number);
        let mut next = NodeId(self.counters.next_node);
        while taken(next) {
            next.0 += 1;
        }
        if next == NodeId::BROADCAST {
            return None;
        }
        self.counters.next_node = next.0 + 1;
        self.touch(Key::Counters);
        Some(next)
    }

    /// The node is there, and possibly somewhere else than before.
    fn arrive(
        &mut self,
        now: Instant,
        conn: ConnId,
        id: NodeId,
        signs: bool,
        request: &Register,
    ) -> Result<(), Refusal> {
        let peer = self.sessions.get(&conn).map(|session| session.peer);
        let node = self.nodes.get_mut(&id).ok_or(Refusal::UnknownNode(id))?;
        if node.signs && !signs {
            return Err(Refusal::RegistrationUnsigned(id));
        }
        let before = node.clone();
        node.signs |= signs;
        if node.owner.is_empty() {
            node.owner = cut(&request.owner, OWNER_MAX).to_owned();
        }
        let presence = node.presence.get_or_insert_default();
        presence.endpoint = peer.and_then(|peer| endpoint(peer, &request.listen_addr));
        presence.version =
            Some(cut(&request.version, VERSION_MAX).to_owned()).filter(|text| !text.is_empty());
        presence.lan_addrs =
            request.lan_addrs.iter().filter_map(|addr| addr.parse().ok()).take(LAN_ADDRS_MAX).collect();
        presence.relay_only = request.relay_only;
        let after = presence.endpoint;
        let where_it_is =
            |presence: &Presence| (presence.endpoint, presence.lan_addrs.clone(), presence.relay_only);
        let moved = before.presence.as_ref().map(where_it_is) != node.presence.as_ref().map(where_it_is);
        if *node != before {
            self.touch(Key::Node(id));
        }
        if moved {
            self.tell_peers_of(id);
        }
        self.moved(id, before.presence.and_then(|presence| presence.endpoint), after);
        self.heard(now, id);
        Ok(())
    }

    fn wish_hostname(&mut self, id: NodeId, wish: &str) -> Result<Option<String>, HostnameFault> {
        if wish.is_empty() {
            return Ok(None);
        }
        check_hostname(wish)?;
        if self.by_name.get(wish).is_some_and(|holder| *holder != id) {
            return Err(HostnameFault::Taken(wish.to_owned()));
        }
        self.name(id, Some(wish.to_owned()));
        Ok(Some(wish.to_owned()))
    }

    pub(super) fn set_hostname(&mut self, id: NodeId, name: &str) -> Result<Response, Refusal> {
        self.known(id)?;
        let name = if name.is_empty() {
            None
        } else {
            check_hostname(name).map_err(Refusal::HostnameInvalid)?;
            match self.by_name.get(name) {
                Some(holder) if *holder != id => {
                    return Err(Refusal::HostnameTaken(name.to_owned(), *holder));
                }
                Some(_) | None => Some(name.to_owned()),
            }
        };
        self.name(id, name.clone());
        Ok(Response::SetHostname { node_id: id, hostname: name.unwrap_or_default() })
    }

    /// The name must be free or the node's own.
    fn name(&mut self, id: NodeId, name: Option<String>) {
        let Ok(presence) = self.presence_mut(id) else { return };
        if presence.hostname == name {
            return;
        }
        if let Some(before) = std::mem::replace(&mut presence.hostname, name.clone()) {
            self.by_name.remove(&before);
        }
        if let Some(name) = name {
            self.by_name.insert(name, id);
        }
        self.touch(Key::Node(id));
        self.tell_peers_of(id);
    }

    pub(super) fn set_visibility(&mut self, id: NodeId, public: bool) -> Result<Response, Refusal> {
        let visibility = if public { Visibility::Public } else { Visibility::Private };
        self.presence_mut(id)?.visibility = visibility;
        self.touch(Key::Node(id));
        Ok(Response::SetVisibility { node_id: id, visibility })
    }

    pub(super) fn set_tags(&mut self, id: NodeId, tags: &[String]) -> Result<Response, Refusal> {
        let tags = check_tags(tags)?;
        self.presence_mut(id)?.tags.clone_from(&tags);
        self.touch(Key::Node(id));
        Ok(Response::SetTags { node_id: id, tags: Some(tags).filter(|tags| !tags.is_empty()) })
    }

    /// The key of every node is for all to see, because it is what an unknown node is checked against. The rest of a
    /// private node's record is for those who may see it.
    pub(super) fn lookup(&self, conn: ConnId, id: NodeId, token: &str) -> Result<Response, Refusal> {
        let node = self.known(id)?;
        let presence = self.presence(id).ok_or(Refusal::UnknownNode(id))?;
        let viewers = self.viewers(conn);
        let sees = self.may_see(&viewers, id) || self.is_admin(token);
        let networks = std::iter::once(NetworkId::BACKBONE)
            .chain(self.networks.of(id).filter(|_| sees))
            .collect::<BTreeSet<_>>();
        let real_addr = presence.is_public().then(|| self.told_endpoint(conn, presence));
        Ok(Response::Lookup(Lookup {
            node_id: id,
            address: Addr::backbone(id).to_string(),
            public_key: node.key,
            public: presence.is_public(),
            networks: networks.into_iter().collect(),
            hostname: presence.hostname.clone().filter(|_| sees),
            tags: if sees { presence.tags.clone() } else { Vec::new() },
            version: presence.version.clone().filter(|_| sees),
            real_addr: real_addr.filter(|addr| !addr.is_empty()),
            relay_only: presence.relay_only,
            last_seen_unix: self.last_seen.get(&id).filter(|_| sees).map(|at| self.clock.unix(*at)),
            verified: false,
            polo_score: node.score,
            task_exec: presence.task_exec,
            record: self.record_for(&viewers, id),
            key_changes: node.key_changes.clone(),
        }))
    }

    pub(super) fn resolve(
        &mut self,
        now: Instant,
        conn: ConnId,
        text: &str,
        request: &Resolve,
    ) -> Result<Response, Refusal> {
        let (asker, target) = (request.requester_id, request.node_id);
        self.known(asker).map_err(|_| Refusal::RequesterUnknown(asker))?;
        self.prove(conn, asker, text, &request.signature)?;
        let node = self.known(target)?;
        let presence = self.presence(target).ok_or(Refusal::UnknownNode(target))?;
        if !self.may_meet(asker, target) {
            return Err(Refusal::Private(target));
        }
        let age = self.clock.unix(now).saturating_sub(node.key_since) / 86_400;
        let lan_addrs = if presence.relay_only { &[] } else { presence.lan_addrs.as_slice() };
        Ok(Response::Resolve(Resolved {
            node_id: target,
            real_addr: self.told_endpoint(conn, presence),
            lan_addrs: lan_addrs.iter().map(SocketAddr::to_string).collect(),
            relay_only: presence.relay_only,
            seen_secs_ago: self.last_seen.get(&target).map(|at| now.saturating_duration_since(*at).as_secs()),
            key_age_days: Some(u32::try_from(age).unwrap_or(u32::MAX)),
            public_key: Some(node.key),
            record: self.record_for(&BTreeSet::from([asker]), target),
            key_changes: node.key_changes.clone(),
        }))
    }

    /// The address to tell others. Of a node that must not be reached directly it is the beacon's, or nothing.
    fn told_endpoint(&self, conn: ConnId, presence: &Presence) -> String {
        if !presence.relay_only {
            return presence.endpoint_text();
        }
        let local = self.sessions.get(&conn).and_then(|session| session.local);
        let beacon = self.config.beacon.and_then(|beacon| match beacon.ip().is_unspecified() {
            true => local.map(|ip| SocketAddr::new(ip, beacon.port())),
            false => Some(beacon),
        });
        beacon.map(|beacon| beacon.to_string()).unwrap_or_default()
    }

    /// A node is named in order to be found: whoever is registered finds a private node by its exact name, and can then
    /// ask it for trust. Where it is, and what else there is to know of it, takes its consent. Guesses are limited.
    pub(super) fn resolve_hostname(
        &mut self,
        now: Instant,
        conn: ConnId,
        name: &str,
        token: &str,
    ) -> Result<Response, Refusal> {
        if name.is_empty() {
            return Err(Refusal::HostnameRequired);
        }
        let unknown = || Refusal::HostnameUnknown(cut(name, 64).to_owned());
        let found = self.by_name.get(name).copied();
        let is_public = found.and_then(|id| self.presence(id)).is_some_and(Presence::is_public);
        if !is_public && !self.is_admin(token) {
            if !self.is_somebody(conn, found) {
                return Err(unknown());
            }
            let viewers = self.viewers(conn);
            if !found.is_some_and(|id| self.may_see(&viewers, id)) {
                self.charge_search(now, conn)?;
            }
        }
        let id = found.ok_or_else(unknown)?;
        let address = Addr::backbone(id).to_string();
        let hostname = name.to_owned();
        Ok(Response::ResolveHostname(ResolvedHostname { node_id: id, address, hostname, public: is_public }))
    }

    fn charge_search(&mut self, now: Instant, conn: ConnId) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get(&conn) else { return Ok(()) };
        let from = session.peer.ip();
        if from.is_loopback() {
            return Ok(());
        }
        self.searches.take(from, now).map_err(|wait| Refusal::SearchRate { from, wait })
    }

    /// Tells no more than `resolve` would (spec/registry.md 23 S7).
    pub(super) fn punch(&mut self, conn: ConnId, text: &str, request: &Punch) -> Result<Response, Refusal> {
        let &Punch { requester_id, node_a, node_b, .. } = request;
        if requester_id != node_a && requester_id != node_b {
            return Err(Refusal::NotParticipant);
        }
        self.prove(conn, requester_id, text, &request.signature)?;
        let other = if requester_id == node_a { node_b } else { node_a };
        self.known(other)?;
        if !self.may_meet(requester_id, other) {
            return Err(Refusal::Private(other));
        }
        let addr =
            |id| self.presence(id).map(|presence| self.told_endpoint(conn, presence)).unwrap_or_default();
        Ok(Response::Punch(Punched { node_a, node_a_addr: addr(node_a), node_b, node_b_addr: addr(node_b) }))
    }

    /// The record of a node, registered or not.
    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }
}

/// Where the connection comes from, with the port that the node says it listens on. The host it claims is not
/// believed: it could be anybody's (spec/registry.md 23 S15).
fn endpoint(peer: SocketAddr, listen_addr: &str) -> Option<SocketAddr> {
    let (_, port) = listen_addr.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(peer.ip(), port))
}

/// As much of the text as fits, ending at a character.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
