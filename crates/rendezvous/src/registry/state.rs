//! The state, how it is driven, and who may do what.

use super::{
    ConnId, Key, Record, Refusal, Refused,
    census::Census,
    delivery::{self, Item},
    handshakes::Inbox,
    networks::Networks,
    record,
    session::Session,
    trust::Trust,
    verified::Verified,
};
use crate::{
    Clock,
    rate::{Limiter, Rate},
};
use pilot_crypto::Sha256;
use pilot_wire::{
    NodeId, PublicKey, Signature,
    registry::{Envelope, Request, Response, Sent},
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
    by_silence: BTreeSet<(Instant, NodeId)>,
    pub(super) trust: Trust,
    pub(super) inboxes: BTreeMap<NodeId, Inbox>,
    pub(super) networks: Networks,
    /// Tasks that have been counted, by worker.
    pub(super) counted: BTreeMap<NodeId, Vec<record::Counted>>,
    pub(super) beacons: BTreeMap<u32, (String, Instant)>,
    pub(super) registrations: Limiter<IpAddr>,
    pub(super) searches: Limiter<IpAddr>,
    pub(super) sessions: BTreeMap<ConnId, Session>,
    /// Nodes by where they registered from.
    by_ip: BTreeMap<IpAddr, BTreeSet<NodeId>>,
    verified: Verified,
    /// Requests for notices, by what they wait for and until when.
    waiting: BTreeMap<NodeId, VecDeque<ConnId>>,
    wait_ends: BTreeSet<(Instant, ConnId)>,
    changed: BTreeSet<Key>,
    replies: VecDeque<(ConnId, Response)>,
    notices: VecDeque<NodeId>,
    pub(super) endpoints: VecDeque<(NodeId, SocketAddr)>,
    pub(super) census: Census,
    pub(super) refused: Refused,
}

/// Searches for names of nodes that the seeker does not know, from one address: plenty for people, slow for a dictionary.
const SEARCHES: Rate = Rate { burst: 100, per_second: 1.0 };

/// A record to write, or to remove if there is none.
pub type Change = (Key, Option<Record>);

/// Longest wait for a notice; below the idle limit of connections and of most NATs' patience with TCP.
const WAIT_MAX: Duration = Duration::from_secs(240);
/// Nodes from one address that a connection with nothing proven may stand for.
const NEIGHBOURS_MAX: usize = 256;
/// Requests for notices per node. One more ends the oldest.
const WAITING_MAX: usize = 4;

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
            counted: BTreeMap::new(),
            beacons: BTreeMap::new(),
            registrations,
            searches: Limiter::new(SEARCHES),
            sessions: BTreeMap::new(),
            by_ip: BTreeMap::new(),
            verified: Verified::default(),
            waiting: BTreeMap::new(),
            wait_ends: BTreeSet::new(),
            changed: BTreeSet::new(),
            replies: VecDeque::new(),
            notices: VecDeque::new(),
            endpoints: VecDeque::new(),
            census: Census::default(),
            refused: Refused::default(),
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
                (
                    key,
                    Record::Counters(_)
                    | Record::Node(_)
                    | Record::Consents { .. }
                    | Record::Inbox(_)
                    | Record::Tasks { .. }
                    | Record::Network(_),
                ) => return Err(RestoreError::Mislabelled(key)),
            }
        }
        match counters {
            Some(counters) => state.counters = counters,
            None if state.nodes.is_empty() && state.networks.is_empty() => {}
            None => return Err(RestoreError::NoCounters),
        }
        if let Some((last, _)) = state.nodes.last_key_value()
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
            self.heard(self.clock.start(), id);
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
            Err(refusal) => {
                self.refused.count(&refusal);
                self.replies.push_back((conn, Response::error(refusal.to_string())));
            }
        }
    }

    /// A connection ended.
    pub fn close(&mut self, conn: ConnId) {
        self.end_wait(conn, false);
        self.replies.retain(|(to, _)| *to != conn);
        let Some(session) = self.sessions.remove(&conn) else { return };
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
        let silence = self.by_silence.first().map(|(since, _)| *since + self.config.expiry);
        let wait = self.wait_ends.first().map(|(end, _)| *end);
        [silence, wait].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(since, node)) = self.by_silence.first()
            && now.saturating_duration_since(since) >= self.config.expiry
        {
            // A network that breaks takes thousands with it; the metrics say how many are left.
            tracing::debug!(%node, "expired");
            self.depart(node);
        }
        while let Some(&(end, conn)) = self.wait_ends.first()
            && end <= now
        {
            self.end_wait(conn, true);
        }
    }

    /// Records that changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changed).into_iter().map(|key| (key, self.record(key))).collect()
    }

    /// A reply to send.
    pub fn poll_reply(&mut self) -> Option<(ConnId, Response)> {
        self.replies.pop_front()
    }

    /// A node for which something waits, to be told by the beacon.
    pub fn poll_notice(&mut self) -> Option<NodeId> {
        self.notices.pop_front()
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
        Envelope { request, admin_token }: Envelope,
    ) -> Result<Option<Response>, Refusal> {
        let text = request.signed_text().unwrap_or_default();
        let token = admin_token.as_str();
        let response = match request {
            Request::Register(register) => self.register(now, conn, register)?,
            Request::Heartbeat(beat) => {
                self.prove(conn, beat.node_id, &text, &beat.signature)?;
                self.heard(now, beat.node_id);
                Response::Heartbeat { time: self.clock.unix(now) }
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
            Request::RotateKey(request) => self.rotate_key(now, conn, &text, request)?,
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
                return Ok(self.await_notices(now, conn, request.node_id, timeout));
            }
            Request::Punch(request) => self.punch(conn, &text, &request)?,
            Request::BeaconRegister(request) => {
                self.beacon_register(now, conn, request.beacon_id, request.addr, token)?
            }
            Request::BeaconList {} => self.beacon_list(now),
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
        };
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
        self.verified.check(key, text, signature, self.last_seen.len())
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

    /// Starts the node's silence anew.
    pub(super) fn heard(&mut self, now: Instant, node: NodeId) {
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

    // Notices.

    /// Something waits for the node.
    pub(super) fn tell(&mut self, node: NodeId) {
        while let Some(conn) = self.waiting.get(&node).and_then(|conns| conns.front().copied()) {
            self.end_wait_with(conn, Some(true));
        }
        if !self.notices.contains(&node) {
            self.notices.push_back(node);
        }
    }

    fn await_notices(
        &mut self,
        now: Instant,
        conn: ConnId,
        node: NodeId,
        timeout: Duration,
    ) -> Option<Response> {
        if self.inboxes.get(&node).is_some_and(Inbox::has_news) {
            return Some(Response::AwaitNotices { waiting: true });
        }
        let session = self.sessions.get_mut(&conn)?;
        let end = now + timeout.min(WAIT_MAX);
        session.waiting = Some((node, end));
        self.wait_ends.insert((end, conn));
        let conns = self.waiting.entry(node).or_default();
        conns.push_back(conn);
        if conns.len() > WAITING_MAX
            && let Some(oldest) = conns.front().copied()
        {
            self.end_wait(oldest, true);
        }
        None
    }

    /// Ends a request for notices with "nothing", and answers it if its connection is still there to be answered.
    fn end_wait(&mut self, conn: ConnId, answer: bool) {
        self.end_wait_with(conn, answer.then_some(false));
    }

    fn end_wait_with(&mut self, conn: ConnId, waiting: Option<bool>) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let Some((node, end)) = session.waiting.take() else { return };
        self.wait_ends.remove(&(end, conn));
        if let Some(conns) = self.waiting.get_mut(&node) {
            conns.retain(|other| *other != conn);
            if conns.is_empty() {
                self.waiting.remove(&node);
            }
        }
        if let Some(waiting) = waiting {
            self.replies.push_back((conn, Response::AwaitNotices { waiting }));
        }
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

    /// Requests for notices that are held.
    pub(super) fn held(&self) -> usize {
        self.wait_ends.len()
    }

    // Records.

    /// Everything that [`restore`](Self::restore) needs, at this moment.
    #[must_use]
    pub fn records(&self) -> Vec<(Key, Record)> {
        let nodes = self.nodes.keys().copied().map(Key::Node);
        let consents = self.trust.iter().map(|(node, _)| Key::Consents(node));
        let inboxes = self.inboxes.keys().copied().map(Key::Inbox);
        let tasks = self.counted.keys().copied().map(Key::Tasks);
        let networks = self.networks.iter().map(|(id, _)| Key::Network(id));
        let keys = std::iter::once(Key::Counters).chain(nodes).chain(consents).chain(inboxes).chain(tasks);
        keys.chain(networks).filter_map(|key| Some((key, self.record(key)?))).collect()
    }

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
