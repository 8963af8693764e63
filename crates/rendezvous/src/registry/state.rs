//! The state, how it is driven, and who may do what.

use super::{
    ConnId, Key, Record, Refusal,
    audit::{Draft, Log},
    beacons::Beacons,
    cards::Directory,
    delivery::{self, Item},
    elsewhere::Company,
    handshakes::Inbox,
    membership::Versions,
    networks::Networks,
    notices::Waiting,
    record,
    session::Session,
    trust::Trust,
    verified::Verified,
};
use crate::{
    Clock,
    rate::{Limiter, Rate},
};
use pilot_crypto::{DERIVED_FROM, Identity, Sha256};
use pilot_wire::{
    NodeId, PublicKey, Signature,
    registry::{Envelope, MeshSecret, Request, Response, Sent},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Limits and rules of a registry.
#[derive(Clone, Debug)]
pub struct Config {
    /// The operator's token; without one nobody creates networks.
    pub admin_token: Option<String>,
    /// Silence after which a node counts as gone. Released nodes send a heartbeat every 30 to 60 s; two may be lost.
    pub expiry: Duration,
    /// Most nodes.
    pub max_nodes: usize,
    /// New identities from one address; loopback is exempt, and a key that is known costs nothing.
    pub registrations: Rate,
    /// Where nodes that must not be reached directly are said to be: the beacon. If it is on every address of this host,
    /// each client is told the one it came by.
    pub beacon: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            admin_token: None,
            expiry: Duration::from_secs(300),
            max_nodes: 1_000_000,
            registrations: Rate { burst: 60, per_second: 1.0 },
            beacon: None,
        }
    }
}

/// The registry.
///
/// Tell it what happens: a connection [opened](Self::open), a [request](Self::handle) came on it, it was
/// [closed](Self::close), time [passed](Self::handle_timeout). After each of these take, in this order, the
/// [changes](Self::take_changes), which must be on disk before anything is said, then the
/// [replies](Self::poll_reply), exactly one to each request though not always at once, then the
/// [notices](Self::poll_notice), the nodes for which something waits. Come back at [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct State {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) counters: record::Counters,
    pub(super) nodes: BTreeMap<NodeId, record::Node>,
    pub(super) by_key: HashMap<PublicKey, NodeId>,
    pub(super) by_name: HashMap<String, NodeId>,
    /// When each registered node was last heard of.
    pub(super) last_seen: HashMap<NodeId, Instant>,
    pub(super) by_silence: BTreeSet<(Instant, NodeId)>,
    pub(super) trust: Trust,
    pub(super) inboxes: BTreeMap<NodeId, Inbox>,
    pub(super) networks: Networks,
    pub(super) versions: Versions,
    pub(super) directory: Directory,
    pub(super) key_lives: BTreeMap<NodeId, record::KeyLife>,
    pub(super) log: Log,
    /// Tasks that have been counted, by worker.
    pub(super) counted: BTreeMap<NodeId, Vec<record::Counted>>,
    pub(super) beacons: Beacons,
    /// The beacon of this rendezvous, and where it is reached.
    pub(super) own_beacon: Option<(u32, SocketAddr)>,
    pub(super) mesh_secret: Option<MeshSecret>,
    pub(super) company: Company,
    pub(super) registrations: Limiter<IpAddr>,
    pub(super) searches: Limiter<IpAddr>,
    pub(super) sessions: BTreeMap<ConnId, Session>,
    /// Nodes by where they registered from.
    by_ip: BTreeMap<IpAddr, BTreeSet<NodeId>>,
    verified: Verified,
    authority: Option<record::Seed>,
    pub(super) waiting: Waiting,
    changed: BTreeSet<Key>,
    replies: VecDeque<(ConnId, Response)>,
    pub(super) endpoints: VecDeque<(NodeId, SocketAddr)>,
}

/// Searches for names of nodes that the seeker does not know, from one address: plenty for people, slow for a dictionary.
const SEARCHES: Rate = Rate { burst: 100, per_second: 1.0 };

/// A record to write, or to remove if there is none.
pub type Change = (Key, Option<Record>);

/// Nodes from one address that a connection with nothing proven may stand for.
const NEIGHBOURS_MAX: usize = 256;

impl State {
    /// An empty registry.
    #[must_use]
    pub fn new(config: Config, clock: Clock) -> Self {
        let registrations = Limiter::new(config.registrations);
        Self {
            config,
            clock,
            counters: record::Counters { next_node: 1, next_network: 1 },
            nodes: BTreeMap::new(),
            by_key: HashMap::new(),
            by_name: HashMap::new(),
            last_seen: HashMap::new(),
            by_silence: BTreeSet::new(),
            trust: Trust::default(),
            inboxes: BTreeMap::new(),
            networks: Networks::default(),
            versions: Versions::default(),
            directory: Directory::default(),
            key_lives: BTreeMap::new(),
            log: Log::default(),
            counted: BTreeMap::new(),
            beacons: Beacons::default(),
            own_beacon: None,
            mesh_secret: None,
            company: Company::default(),
            registrations,
            searches: Limiter::new(SEARCHES),
            sessions: BTreeMap::new(),
            by_ip: BTreeMap::new(),
            verified: Verified::default(),
            authority: None,
            waiting: Waiting::default(),
            changed: BTreeSet::new(),
            replies: VecDeque::new(),
            endpoints: VecDeque::new(),
        }
    }

    /// A registry with the records that [`take_changes`](Self::take_changes) had given out. Registered nodes stay
    /// registered, and their silence counts from now: nobody can have been heard while nobody listened.
    ///
    /// # Errors
    /// [`RestoreError`] if the records contradict each other.
    pub fn restore(
        config: Config,
        clock: Clock,
        records: impl IntoIterator<Item = (Key, Record)>,
    ) -> Result<Self, RestoreError> {
        let mut state = Self::new(config, clock);
        let mut counters = None;
        for (key, record) in records {
            match (key, record) {
                (Key::Counters, Record::Counters(found)) => counters = Some(found),
                (Key::Node(id), Record::Node(node)) => state.restore_node(id, node)?,
                (Key::Consents(id), Record::Consents { peers }) => state.trust.restore(id, peers),
                (Key::Inbox(id), Record::Inbox(inbox)) => {
                    state.inboxes.insert(id, Inbox::restore(inbox));
                }
                (Key::Tasks(id), Record::Tasks { counted }) => {
                    state.counted.insert(id, counted);
                }
                (Key::Network(id), Record::Network(network)) => state.networks.restore(id, network),
                (Key::Authority, Record::Authority { seed }) => state.authority = Some(seed),
                (Key::KeyLife(id), Record::KeyLife(life)) => {
                    state.key_lives.insert(id, life);
                }
                (Key::Cards(id), Record::Cards(cards)) => state.directory.restore(id, cards),
                (Key::Audit(_), Record::Audit(entry)) => state.log.restore(entry),
                (Key::Mesh, Record::Mesh { secret }) => state.mesh_secret = Some(secret),
                (
                    key,
                    Record::Counters(_)
                    | Record::Node(_)
                    | Record::Consents { .. }
                    | Record::Inbox(_)
                    | Record::Tasks { .. }
                    | Record::Network(_)
                    | Record::Authority { .. }
                    | Record::Mesh { .. }
                    | Record::KeyLife(_)
                    | Record::Cards(_)
                    | Record::Audit(_),
                ) => return Err(RestoreError::Mislabelled(key)),
            }
        }
        match counters {
            Some(counters) => state.counters = counters,
            None if state.nodes.is_empty() && state.networks.is_empty() => {}
            None => return Err(RestoreError::NoCounters),
        }
        let in_order = ..NodeId(DERIVED_FROM);
        if let Some((last, _)) = state.nodes.range(in_order).next_back()
            && last.0 >= state.counters.next_node
        {
            return Err(RestoreError::Counter(*last));
        }
        Ok(state)
    }

    fn restore_node(&mut self, id: NodeId, node: record::Node) -> Result<(), RestoreError> {
        if let Some(other) = self.by_key.insert(node.key, id) {
            return Err(RestoreError::SharedKey(other, id));
        }
        if let Some(presence) = &node.presence {
            if let Some(name) = &presence.hostname
                && let Some(other) = self.by_name.insert(name.clone(), id)
            {
                return Err(RestoreError::SharedName(other, id));
            }
            let endpoint = presence.endpoint;
            self.nodes.insert(id, node);
            self.moved(id, None, endpoint);
            self.restart_silence(self.clock.start(), id);
        } else {
            self.nodes.insert(id, node);
        }
        Ok(())
    }

    /// A client connected, by which address of ours if that is known. `conn` must be a number not used before.
    pub fn open(&mut self, conn: ConnId, peer: SocketAddr, local: Option<IpAddr>) {
        self.sessions.insert(conn, Session::new(peer, local));
    }

    /// A request came on a connection.
    pub fn handle(&mut self, now: Instant, conn: ConnId, envelope: Envelope) {
        self.confirm_received(conn);
        self.end_wait(conn, false);
        match self.answer(now, conn, envelope) {
            Ok(Some(response)) => self.replies.push_back((conn, response)),
            Ok(None) => {}
            Err(refusal) => self.replies.push_back((conn, Response::error(refusal.to_string()))),
        }
    }

    /// A connection ended.
    pub fn close(&mut self, conn: ConnId) {
        self.end_wait(conn, false);
        self.replies.retain(|(to, _)| *to != conn);
        let Some(session) = self.sessions.remove(&conn) else { return };
        self.stop_listening(session.listens);
        for node in session.handed_out {
            let Some(inbox) = self.inboxes.get_mut(&node) else { continue };
            let dropped_requests = delivery::lost(&mut inbox.requests, conn);
            let dropped_verdicts = delivery::lost(&mut inbox.verdicts, conn);
            let waits = inbox.has_news();
            if dropped_requests || dropped_verdicts {
                self.touch(Key::Inbox(node));
            }
            if waits {
                self.tell(node);
            }
        }
    }

    /// The next moment at which something is due without anybody asking.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.next_end(), self.next_wait_end()].into_iter().flatten().min()
    }

    /// When the next node or membership ends, which changes records.
    #[must_use]
    pub fn next_end(&self) -> Option<Instant> {
        [self.next_expiry(), self.next_membership_end()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire_members(now);
        while let Some(due) = self.next_expiry()
            && due <= now
            && let Some(&(_, node)) = self.by_silence.first()
        {
            tracing::info!(%node, "expired");
            self.depart(node);
        }
        self.end_waits(now);
    }

    /// Records that changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changed).into_iter().map(|key| (key, self.record(key))).collect()
    }

    /// A reply to send.
    pub fn poll_reply(&mut self) -> Option<(ConnId, Response)> {
        self.replies.pop_front()
    }

    /// Where a node has registered to be reached, which the beacon compares with where it is heard from. After
    /// [`restore`](Self::restore) these are all that are registered.
    pub fn poll_endpoint(&mut self) -> Option<(NodeId, SocketAddr)> {
        self.endpoints.pop_front()
    }

    /// Numbers of nodes registered now and ever.
    #[must_use]
    pub fn node_counts(&self) -> (usize, usize) {
        (self.last_seen.len(), self.nodes.len())
    }

    /// True if an identity was proven on the connection.
    #[must_use]
    pub fn has_proven(&self, conn: ConnId) -> bool {
        self.sessions.get(&conn).is_some_and(|session| !session.proven.is_empty())
    }

    /// The key that a number belongs to.
    #[must_use]
    pub fn key_of(&self, node: NodeId) -> Option<PublicKey> {
        self.nodes.get(&node).map(|known| known.key)
    }

    /// The key with which the registry attests to what it serves; the same for ever, once there is one.
    #[must_use]
    pub fn authority(&self) -> Option<Identity> {
        self.authority.as_ref().map(|seed| Identity::from_seed(&seed.0))
    }

    /// Gives the registry the key of this seed, if it has none yet.
    pub fn appoint(&mut self, seed: record::Seed) {
        if self.authority.is_none() {
            self.authority = Some(seed);
            self.touch(Key::Authority);
        }
    }

    pub(super) fn take_authority(&mut self, seed: record::Seed) {
        self.authority = Some(seed);
    }

    /// True if the two may be told each other's address, so that they can punch: as in `resolve`, and neither of them
    /// wants to be relayed only.
    #[must_use]
    pub fn may_introduce(&self, asker: NodeId, target: NodeId) -> bool {
        let is_open = |node| self.presence(node).is_some_and(|presence| !presence.relay_only);
        is_open(asker) && is_open(target) && self.may_meet(asker, target)
    }

    /// True if `asker` may learn where `target` is: the rule of `resolve`.
    #[must_use]
    pub fn may_meet(&self, asker: NodeId, target: NodeId) -> bool {
        asker == target
            || self.presence(target).is_some_and(|presence| presence.is_public())
            || self.trust.is_mutual(asker, target)
            || self.networks.share_one(asker, target)
    }

    fn answer(
        &mut self,
        now: Instant,
        conn: ConnId,
        Envelope { request, admin_token, seal, attest: _ }: Envelope,
    ) -> Result<Option<Response>, Refusal> {
        let text = request.signed_text().unwrap_or_default();
        let token = admin_token.as_str();
        self.check_seal(now, &request, seal.as_ref(), token)?;
        let draft = Draft::of(&request);
        let response = match request {
            Request::Register(register) => self.register(now, conn, register)?,
            Request::Heartbeat(beat) => {
                self.prove(conn, beat.node_id, &text, &beat.signature)?;
                let key_expiry_warning = self.check_key_life(now, beat.node_id)?;
                self.heard(now, beat.node_id);
                Response::Heartbeat { time: self.clock.unix(now), key_expiry_warning }
            }
            Request::Deregister(request) => {
                if self.presence(request.node_id).is_some() {
                    self.prove_or_admin(conn, request.node_id, &text, &request.signature, token)?;
                    self.depart(request.node_id);
                }
                Response::Deregister {}
            }
            Request::Lookup(request) => self.lookup(conn, request.node_id, token)?,
            Request::Resolve(request) => self.resolve(now, conn, &text, &request)?,
            Request::ResolveHostname(request) => {
                self.resolve_hostname(now, conn, &request.hostname, token)?
            }
            Request::SetVisibility(request) => {
                self.prove_or_admin(conn, request.node_id, &text, &request.signature, token)?;
                self.set_visibility(request.node_id, request.public)?
            }
            Request::SetHostname(request) => {
                self.prove_or_admin(conn, request.node_id, &text, &request.signature, token)?;
                self.set_hostname(request.node_id, &request.hostname)?
            }
            Request::SetTags(request) => {
                self.prove_or_admin(conn, request.node_id, &text, &request.signature, token)?;
                self.set_tags(request.node_id, &request.tags)?
            }
            Request::SetTaskExec(request) => {
                self.prove_or_admin(conn, request.node_id, &text, &request.signature, token)?;
                self.set_task_exec(request.node_id, request.enabled)?
            }
            Request::GetPoloScore(request) => Response::GetPoloScore(self.polo_score(request.node_id)?),
            Request::UpdatePoloScore(request) => {
                Response::UpdatePoloScore(self.update_polo_score(&request, token)?)
            }
            Request::SetPoloScore(request) => Response::SetPoloScore(self.set_polo_score(&request, token)?),
            Request::ReportTask(request) => self.report_task(now, &request)?,
            Request::PublishRecord(request) => self.publish_record(now, &request)?,
            Request::RotateKey(request) => self.rotate_key(now, conn, &text, &request)?,
            Request::ReportTrust(request) => {
                self.prove(conn, request.node_id, &text, &request.signature)?;
                self.report_trust(request.node_id, request.peer_id)?
            }
            Request::RevokeTrust(request) => {
                self.prove(conn, request.node_id, &text, &request.signature)?;
                self.revoke_trust(request.node_id, request.peer_id)?
            }
            Request::CheckTrust(request) => self.check_trust(conn, request.node_id, request.peer_id, token),
            Request::RequestHandshake(request) => {
                self.known(request.from_node_id)?;
                self.known(request.to_node_id)?;
                self.prove(conn, request.from_node_id, &text, &request.signature)?;
                self.request_handshake(now, request)?
            }
            Request::PollHandshakes(request) => {
                self.prove(conn, request.node_id, &text, &request.signature)?;
                self.poll_handshakes(conn, request.node_id)
            }
            Request::RespondHandshake(request) => {
                self.prove(conn, request.node_id, &text, &request.signature)?;
                self.respond_handshake(now, request.node_id, request.peer_id, request.accept)?
            }
            Request::AwaitNotices(request) => {
                self.prove(conn, request.node_id, &text, &request.signature)?;
                let timeout = Duration::from_millis(u64::from(request.timeout_ms));
                return Ok(self.await_notices(now, conn, request.node_id, timeout, request.detailed));
            }
            Request::Punch(request) => self.punch(conn, &text, &request)?,
            Request::BeaconRegister(request) => {
                self.beacon_register(now, conn, request.beacon_id, request.addr, token)?
            }
            Request::BeaconList {} => self.beacon_list(now, conn),
            Request::BeaconLink(request) => self.beacon_link(now, conn, request, token)?,
            Request::ListNetworks {} => self.list_networks(conn, token),
            Request::ListNodes(request) => self.list_nodes(conn, request.network_id, token)?,
            Request::CreateNetwork(request) => self.create_network(now, request, token)?,
            Request::DeleteNetwork(request) => self.delete_network(conn, &request, token)?,
            Request::RenameNetwork(request) => self.rename_network(conn, request, token)?,
            Request::SetNetworkEnterprise(request) => self.set_network_enterprise(&request, token)?,
            Request::JoinNetwork(request) => {
                self.prove_or_admin(conn, request.node_id, &text, &request.signature, token)?;
                self.join_network(&request)?
            }
            Request::LeaveNetwork(request) => {
                self.prove_or_admin(conn, request.node_id, &text, &request.signature, token)?;
                self.leave_network(request.node_id, request.network_id)?
            }
            Request::InviteToNetwork(request) if request.inviter_id == request.target_node_id => {
                return Err(Refusal::InviteSelf);
            }
            Request::InviteToNetwork(request) => {
                self.prove_or_admin(conn, request.inviter_id, &text, &request.signature, token)?;
                self.invite(now, &request)?
            }
            Request::PollInvites(request) => {
                self.prove(conn, request.node_id, &text, &request.signature)?;
                self.poll_invites(now, request.node_id)
            }
            Request::RespondInvite(request) => {
                self.prove(conn, request.node_id, &text, &request.signature)?;
                self.respond_invite(now, request.node_id, request.network_id, request.accept)?
            }
            Request::KickMember(request) => self.kick_member(conn, &request, token)?,
            Request::PromoteMember(request) => self.promote_member(conn, &request, token)?,
            Request::DemoteMember(request) => self.demote_member(conn, &request, token)?,
            Request::TransferOwnership(request) => self.transfer_ownership(conn, &request, token)?,
            Request::GetMemberRole(request) => self.get_member_role(&request)?,
            Request::SetMemberTags(request) => self.set_member_tags(conn, &request, token)?,
            Request::GetMemberTags(request) => self.get_member_tags(&request)?,
            Request::SetNetworkPolicy(request) => self.set_network_policy(conn, request, token)?,
            Request::GetNetworkPolicy(request) => self.get_network_policy(request.network_id)?,
            Request::SetExprPolicy(request) => self.set_expr_policy(conn, request, token)?,
            Request::GetExprPolicy(request) => self.get_expr_policy(request.network_id)?,
            Request::OwnNetworks(request) => {
                self.prove(conn, request.node_id, &text, &request.signature)?;
                self.own_networks(request.node_id)
            }
            Request::ListMembers(request) => {
                self.prove(conn, request.node_id, &text, &request.signature)?;
                self.list_members(&request)?
            }
            Request::SetMemberExpiry(request) => self.set_member_expiry(now, conn, &request, token)?,
            Request::SetKeyExpiry(request) => {
                // The operator helps a node whose key has ended, and which is gone for that reason.
                if !self.is_admin(token) {
                    self.prove(conn, request.node_id, &text, &request.signature)?;
                }
                self.set_key_expiry(now, &request)?
            }
            Request::GetKeyInfo(request) => self.get_key_info(now, request.node_id)?,
            Request::GetAuditLog(request) => self.get_audit_log(&request, token)?,
            Request::ProvisionNetwork(request) => self.provision_network(now, conn, request, token)?,
            Request::GetProvisionStatus {} => self.get_provision_status(token)?,
            Request::PublishCard(request) => {
                self.prove(conn, request.node_id, &text, &request.signature)?;
                self.publish_card(request)?
            }
            Request::RemoveCard(request) => {
                self.prove(conn, request.node_id, &text, &request.signature)?;
                self.remove_card(&request)?
            }
            Request::ListCards(request) => self.list_cards(conn, &request, token)?,
        };
        if let Some(draft) = draft {
            self.audit(now, draft, &response);
        }
        Ok(Some(response))
    }

    // Who is asking.

    /// The node, if it is registered.
    pub(super) fn known(&self, node: NodeId) -> Result<&record::Node, Refusal> {
        let known = self.nodes.get(&node).filter(|known| known.presence.is_some());
        known.ok_or(Refusal::UnknownNode(node))
    }

    pub(super) fn presence(&self, node: NodeId) -> Option<&record::Presence> {
        self.nodes.get(&node)?.presence.as_ref()
    }

    pub(super) fn presence_mut(&mut self, node: NodeId) -> Result<&mut record::Presence, Refusal> {
        let known = self.nodes.get_mut(&node).and_then(|known| known.presence.as_mut());
        known.ok_or(Refusal::UnknownNode(node))
    }

    /// The request must be signed by a registered node, who is then known to be behind the connection.
    pub(super) fn prove(
        &mut self,
        conn: ConnId,
        node: NodeId,
        text: &str,
        signature: &Sent<Signature>,
    ) -> Result<(), Refusal> {
        let key = self.known(node)?.key;
        match signature {
            Sent::Missing => Err(Refusal::SignatureRequired),
            Sent::Malformed(why) => {
                let why = why.strip_prefix("decode signature: ").unwrap_or(why);
                Err(Refusal::SignatureEncoding(why.to_owned()))
            }
            Sent::Given(signature) if self.is_signed(&key, text, signature) => {
                self.proven(conn, node);
                Ok(())
            }
            Sent::Given(_) => Err(Refusal::SignatureWrong),
        }
    }

    pub(super) fn prove_or_admin(
        &mut self,
        conn: ConnId,
        node: NodeId,
        text: &str,
        signature: &Sent<Signature>,
        token: &str,
    ) -> Result<(), Refusal> {
        self.known(node)?;
        if self.is_admin(token) { Ok(()) } else { self.prove(conn, node, text, signature) }
    }

    pub(super) fn is_signed(&mut self, key: &PublicKey, text: &str, signature: &Signature) -> bool {
        self.verified.check(key, text, signature)
    }

    pub(super) fn proven(&mut self, conn: ConnId, node: NodeId) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.prove(node);
        }
    }

    /// The nodes as which the connection may look around.
    pub(super) fn viewers(&self, conn: ConnId) -> BTreeSet<NodeId> {
        match self.sessions.get(&conn) {
            Some(session) if session.proven.is_empty() => {
                let neighbours = self.by_ip.get(&session.peer.ip()).into_iter().flatten();
                neighbours.copied().take(NEIGHBOURS_MAX).collect()
            }
            Some(session) => session.proven.clone(),
            None => BTreeSet::new(),
        }
    }

    /// True if one of the viewers may know that the node exists: it may meet it, or the node has asked it for trust.
    pub(super) fn may_see(&self, viewers: &BTreeSet<NodeId>, node: NodeId) -> bool {
        self.presence(node).is_some_and(record::Presence::is_public)
            || viewers.iter().any(|viewer| self.may_meet(*viewer, node) || self.trust.consents(node, *viewer))
    }

    /// True if the connection belongs to somebody who is registered. Where nothing was proven on it, its address must
    /// do, and the node that is sought does not vouch for those who seek it.
    pub(super) fn is_somebody(&self, conn: ConnId, sought: Option<NodeId>) -> bool {
        let is_sought = |viewer: &NodeId| Some(*viewer) == sought;
        self.has_proven(conn) || !self.viewers(conn).iter().all(is_sought)
    }

    pub(super) fn is_admin(&self, token: &str) -> bool {
        self.require_admin(token).is_ok()
    }

    /// Compares digests, so that the time taken tells nothing about the token.
    pub(super) fn require_admin(&self, token: &str) -> Result<(), Refusal> {
        let Some(expected) = &self.config.admin_token else { return Err(Refusal::NoAdminToken) };
        let matches = Sha256::digest(token.as_bytes()) == Sha256::digest(expected.as_bytes());
        if matches && !token.is_empty() { Ok(()) } else { Err(Refusal::AdminToken) }
    }

    // Presence.

    /// The node said something to us.
    pub(super) fn heard(&mut self, now: Instant, node: NodeId) {
        self.company.heard_here(node);
        self.restart_silence(now, node);
    }

    pub(super) fn restart_silence(&mut self, now: Instant, node: NodeId) {
        if let Some(before) = self.last_seen.insert(node, now) {
            self.by_silence.remove(&(before, node));
        }
        self.by_silence.insert((now, node));
    }

    /// Forgets where the node is and what it said of itself; its number, trust, inbox and networks stay.
    pub(super) fn depart(&mut self, node: NodeId) {
        if let Some(before) = self.last_seen.remove(&node) {
            self.by_silence.remove(&(before, node));
        }
        let Some(presence) = self.nodes.get_mut(&node).and_then(|known| known.presence.take()) else {
            return;
        };
        if let Some(name) = presence.hostname {
            self.by_name.remove(&name);
        }
        self.moved(node, presence.endpoint, None);
        self.touch(Key::Node(node));
    }

    /// A node's address is another one.
    pub(super) fn moved(&mut self, node: NodeId, before: Option<SocketAddr>, after: Option<SocketAddr>) {
        if let Some(before) = before.map(|addr| addr.ip())
            && let Some(neighbours) = self.by_ip.get_mut(&before)
        {
            neighbours.remove(&node);
            if neighbours.is_empty() {
                self.by_ip.remove(&before);
            }
        }
        if let Some(after) = after {
            self.by_ip.entry(after.ip()).or_default().insert(node);
            self.endpoints.push_back((node, after));
        }
    }

    /// Sends a reply that had to wait.
    pub(super) fn reply(&mut self, conn: ConnId, response: Response) {
        self.replies.push_back((conn, response));
    }

    fn confirm_received(&mut self, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        for node in std::mem::take(&mut session.handed_out) {
            let Some(inbox) = self.inboxes.get_mut(&node) else { continue };
            let requests = delivery::received(&mut inbox.requests, conn);
            let verdicts = delivery::received(&mut inbox.verdicts, conn);
            if requests || verdicts {
                self.touch(Key::Inbox(node));
            }
        }
    }

    // Records.

    pub(super) fn touch(&mut self, key: Key) {
        self.changed.insert(key);
    }

    fn record(&self, key: Key) -> Option<Record> {
        match key {
            Key::Counters => Some(Record::Counters(self.counters)),
            Key::Node(id) => self.nodes.get(&id).cloned().map(Record::Node),
            Key::Consents(id) => self.trust.of(id).map(|peers| Record::Consents { peers: peers.clone() }),
            Key::Inbox(id) => self.inboxes.get(&id).and_then(Inbox::record).map(Record::Inbox),
            Key::Tasks(id) => {
                let counted = self.counted.get(&id).filter(|counted| !counted.is_empty());
                counted.map(|counted| Record::Tasks { counted: counted.clone() })
            }
            Key::Network(id) => self.networks.get(id).cloned().map(Record::Network),
            Key::Authority => self.authority.clone().map(|seed| Record::Authority { seed }),
            Key::KeyLife(id) => self.key_life(id).map(Record::KeyLife),
            Key::Cards(id) => self.directory.record(id).map(Record::Cards),
            Key::Audit(place) => self.log.at(place).cloned().map(Record::Audit),
            Key::Mesh => self.mesh_secret.map(|secret| Record::Mesh { secret }),
        }
    }
}

/// Records that cannot all be true.
#[expect(missing_docs, reason = "the texts say it")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("the record {0:?} is of another kind")]
    Mislabelled(Key),
    #[error("the record of the next free numbers is missing")]
    NoCounters,
    #[error("node {0} has a number that was not given out yet")]
    Counter(NodeId),
    #[error("nodes {0} and {1} have the same key")]
    SharedKey(NodeId, NodeId),
    #[error("nodes {0} and {1} have the same hostname")]
    SharedName(NodeId, NodeId),
}

impl<T> From<T> for Item<T> {
    fn from(content: T) -> Self {
        Self::new(content)
    }
}
