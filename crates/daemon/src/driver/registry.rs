//! The registry as the loop sees it: the node's questions go out and come back, local programs' requests too.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use pilot_crypto::{Identity, sign_change};
use pilot_proto::{Answer, PeerEvent, Query, QueryError, QueryId, Visibility};
use pilot_wire::ipc::{Code, Command, Managed, Preferred, RegistryTls, Reply, VerifyEnvelope};
use pilot_wire::record::{ChangedBy, KeyChange};
use pilot_wire::registry::{
    self, Envelope, ExprPolicyUpdate, Handshakes, MemberQuery, MemberTagsUpdate, NetworkQuery, NoticeKind,
    Notices, Registered, Response, RotateKey, SetTaskExec,
};
use pilot_wire::{Addr, Endpoint, NetworkId, NodeId, Port};
use serde_json::json;
use tokio::sync::oneshot;

use super::Driver;
use super::beliefs::{Study, Told};
use super::membership::{self, Change};
use super::names::{Contest, Form, Name};
use super::replies::{Refusal, ReplyTo};
use super::trust::wall;
use crate::config::TlsMode;
use crate::handle::Sign;
use crate::registry::{CallError, CallId, Order, Protection, Report, Witness};
use crate::state;
use crate::tls::Known;

/// Changes of trust that the registry could not be told, to be told when it is back.
const OWED_MAX: usize = 256;

/// Peers that are looked up when the registry has more news than it names.
const NAMED_MAX: usize = 256;

/// How the registry stands to us, for `status`.
#[derive(Debug)]
pub(super) struct Standing {
    /// It was not heard of yet, and may be any moment.
    pub(super) awaited: bool,
    pub(super) address: String,
    pub(super) connected: bool,
    pub(super) error: Option<String>,
    /// Says so if the own key ends soon.
    pub(super) key_expiry: Option<String>,
    /// What hides the connection, while there is one.
    protection: Option<Protection>,
    /// What the registry should have been told.
    owed: Vec<Query>,
    /// Look-ups under way by which this node learns what there is to know of another.
    pub(super) studies: BTreeMap<CallId, Study>,
    /// Peers' wrong keys.
    pub(super) told: Told,
    /// The same, to remember an address.
    pub(super) places: BTreeMap<CallId, NodeId>,
    /// Requests of the built-in services.
    of_services: BTreeMap<CallId, oneshot::Sender<Result<Vec<u8>, CallError>>>,
}

impl Standing {
    pub(super) fn new(awaited: bool) -> Self {
        Self {
            awaited,
            address: String::new(),
            connected: false,
            error: None,
            key_expiry: None,
            protection: None,
            owed: Vec::new(),
            studies: BTreeMap::new(),
            told: Told::default(),
            places: BTreeMap::new(),
            of_services: BTreeMap::new(),
        }
    }

    /// Nothing is to be expected of it at present: what is remembered has to do.
    pub(super) fn is_away(&self) -> bool {
        !self.connected && !self.awaited
    }
}

/// A request of a local program at the registry.
#[derive(Debug)]
pub(super) struct RegistryCall {
    to: ReplyTo,
    purpose: Purpose,
}

/// What the reply of the registry is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Passed on as it is; the operation stands in front of a refusal.
    Pass(Command, Cow<'static, str>),
    Hostname(String),
    Visibility(bool),
    Tags(Vec<String>),
    Deregister,
    /// A name to be resolved.
    Resolve(Name),
    /// What the registry now says of the trusted node that had the name, before another is believed to have it.
    Contested(Contest),
    /// What the registry knows of a node, for our own call.
    Lookup(NodeId),
    Broadcast {
        network: NetworkId,
        port: Port,
        data: Vec<u8>,
    },
    RotateKey(Box<Identity>),
    Verify {
        request: VerifyEnvelope,
        signer: NodeId,
    },
    Policy(NetworkId),
    /// About networks; what it changes here is done once the registry has agreed.
    Network {
        form: membership::Form,
        change: Change,
        operation: String,
    },
    /// Cards of the directory of a network, to be checked.
    Cards(NetworkId),
    PreferDirect(Preferred),
    /// A datagram to a node that may not exist.
    Datagram {
        to: Endpoint,
        from: Option<Port>,
        data: Vec<u8>,
    },
}

impl Purpose {
    pub(super) fn pass(command: Command, operation: impl Into<Cow<'static, str>>) -> Self {
        Self::Pass(command, operation.into())
    }

    /// What stands in front of a refusal in the reference's words.
    fn operation(&self) -> &str {
        match self {
            Self::Pass(_, operation) => operation,
            Self::Hostname(_) => "set_hostname",
            Self::Visibility(_) => "set_visibility",
            Self::Tags(_) => "set_tags",
            Self::Deregister => "deregister",
            Self::Resolve(_) | Self::Contested(_) => "resolve_hostname",
            Self::Lookup(_) => "lookup",
            Self::Broadcast { .. } => "broadcast: list nodes for broadcast",
            Self::RotateKey(_) => "rotate_key",
            Self::Verify { .. } => "verify_envelope",
            Self::Policy(_) => "managed policy get",
            Self::Network { operation, .. } => operation,
            Self::Cards(_) => "list cards",
            Self::PreferDirect(_) => "prefer_direct",
            Self::Datagram { .. } => "sendto",
        }
    }

    /// Whether it can be asked without being somebody.
    fn needs_number(&self) -> bool {
        match self {
            Self::Hostname(_)
            | Self::Visibility(_)
            | Self::Tags(_)
            | Self::Deregister
            | Self::Network { .. }
            | Self::RotateKey(_) => true,
            Self::Pass(..)
            | Self::Resolve(_)
            | Self::Contested(_)
            | Self::Lookup(_)
            | Self::Broadcast { .. }
            | Self::Verify { .. }
            | Self::Policy(_)
            | Self::Cards(_)
            | Self::PreferDirect(_)
            | Self::Datagram { .. } => false,
        }
    }
}

/// Requests of local programs.
impl Driver {
    pub(super) fn ask_registry(&mut self, to: ReplyTo, request: registry::Request, purpose: Purpose) {
        self.ask_registry_as(to, request.into(), purpose);
    }

    pub(super) fn ask_registry_as(&mut self, to: ReplyTo, envelope: Envelope, purpose: Purpose) {
        if purpose.needs_number() && self.node.id().is_none() {
            return self.refuse(to, Refusal::not_registered().within(purpose.operation()));
        }
        match self.send_call(envelope) {
            Some(id) => {
                self.calls.insert(id, RegistryCall { to, purpose });
            }
            None => {
                self.refuse(to, Refusal::new(Code::Busy, "too many requests to the registry are under way"))
            }
        }
    }

    pub(super) fn send_call(&mut self, envelope: Envelope) -> Option<CallId> {
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.link.send(Order::Call(id, Box::new(envelope))).is_ok().then_some(id)
    }

    pub(super) fn fetch_handshakes(&self) {
        // A full queue ends with the next heartbeat, which fetches them too.
        let _ = self.link.send(Order::FetchHandshakes);
    }

    pub(super) fn tell_link_profile(&self) {
        let _ = self.link.send(Order::Profile(Box::new(self.profile.clone())));
    }

    /// A built-in service asks; the link answers each request, so the table has a bound: its own.
    pub(super) fn ask_registry_for_service(
        &mut self,
        request: registry::Request,
        answer: oneshot::Sender<Result<Vec<u8>, CallError>>,
    ) {
        match self.send_call(request.into()) {
            Some(id) => drop(self.registry.of_services.insert(id, answer)),
            None => {
                let busy = "too many requests to the registry are under way".to_owned();
                let _ = answer.send(Err(CallError::Unreachable(busy)));
            }
        }
    }

    /// Whether this node takes tasks is told at every registration, and now if there is one.
    pub(super) fn set_task_exec(&mut self, enabled: bool) {
        self.profile.task_exec = enabled;
        self.tell_link_profile();
        if let Some(node_id) = self.node.id() {
            let request = SetTaskExec { node_id, enabled, ..SetTaskExec::default() };
            // A full queue ends with the next registration, which tells it too.
            let _ = self.send_call(registry::Request::SetTaskExec(request).into());
        }
    }

    pub(super) fn on_managed(&mut self, to: ReplyTo, command: Command, request: Managed<'_>) {
        let node_id = self.own_node();
        let runner = || Refusal::new(Code::NotFound, "managed: no active policy runner for network");
        match request {
            Managed::Status { .. } => {
                self.refuse(to, Refusal::new(Code::NotFound, "managed: no active managed networks"));
            }
            Managed::Cycle { .. } | Managed::Reconcile { .. } => self.refuse(to, runner()),
            Managed::PolicyGet { network } => {
                let request = registry::Request::GetExprPolicy(NetworkQuery { network_id: network });
                self.ask_registry(to, request, Purpose::Policy(network));
            }
            Managed::PolicySet { network, token, policy } => {
                let policy = match serde_json::from_str::<serde_json::Value>(policy) {
                    Ok(policy) => policy,
                    Err(error) => {
                        let message = format!("policy set: invalid JSON: {error}");
                        return self.refuse(to, Refusal::new(Code::InvalidArgument, message));
                    }
                };
                let update =
                    ExprPolicyUpdate { network_id: network, node_id, expr_policy: policy_field(policy) };
                let request = registry::Request::SetExprPolicy(update);
                let envelope = Envelope::with_token(request, token);
                self.ask_registry_as(to, envelope, Purpose::pass(command, "managed policy set"));
            }
            Managed::TagsGet { network, node } => {
                let query = MemberQuery { network_id: network, node_id, target_node_id: node };
                let request = registry::Request::GetMemberTags(query);
                self.ask_registry(to, request, Purpose::pass(command, "member-tags get"));
            }
            Managed::TagsSet { network, node, tags } => {
                let update = MemberTagsUpdate { network_id: network, node_id, target_node_id: node, tags };
                let request = registry::Request::SetMemberTags(update);
                self.ask_registry(to, request, Purpose::pass(command, "member-tags set"));
            }
        }
    }

    /// A new key. It is stored before the registry hears of it, so that a crash between the two loses neither.
    pub(super) fn on_rotate_key(&mut self, to: ReplyTo) {
        let identity = match Identity::generate() {
            Ok(identity) => identity,
            Err(error) => return self.refuse(to, Refusal::new(Code::Internal, error.to_string())),
        };
        if let Err(error) = identity.store(&self.next_identity()) {
            return self.refuse(to, Refusal::new(Code::Internal, error.to_string()).within("rotate_key"));
        }
        let node_id = self.own_node();
        let change = KeyChange {
            node: node_id,
            old: self.own_key(),
            new: identity.public(),
            seq: self.numbers.next(),
            by: ChangedBy::Old,
        };
        let request = RotateKey {
            node_id,
            new_public_key: identity.public().into(),
            change: sign_change(&self.identity, &identity, &change).to_text(),
            ..RotateKey::default()
        };
        self.ask_registry(to, registry::Request::RotateKey(request), Purpose::RotateKey(Box::new(identity)));
    }

    fn next_identity(&self) -> std::path::PathBuf {
        state::next_identity(&self.config.identity)
    }

    /// The new key is in force: put it in its place and use it.
    fn adopt(&mut self, now: Instant, identity: Identity) {
        if let Err(error) = std::fs::rename(self.next_identity(), &self.config.identity) {
            let next = self.next_identity();
            tracing::error!(%error, next = %next.display(), "the new key is in force but not in its place");
        }
        self.memory.public_key = Some(identity.public());
        self.memory_stale = true;
        let _ = self.link.send(Order::Identity(Box::new(identity.clone())));
        self.node.set_identity(now, identity.clone());
        self.identity = identity;
        self.tell_finder();
        if let Some(node) = self.node.id() {
            self.tell_web_credentials(node);
        }
    }

    /// The registry gave the old key a new number: it knows the node by a new key already, and the crash or the lost reply
    /// came between its yes and our rename.
    fn finish_rotation(&mut self, now: Instant, number: NodeId) -> bool {
        let Some(ours) = self.memory.node_id.filter(|ours| *ours != number) else { return false };
        let Ok(identity) = Identity::load(&self.next_identity()) else { return false };
        tracing::warn!(node = %ours, "finishing a key rotation that was interrupted");
        self.adopt(now, identity);
        true
    }

    pub(super) fn on_prefer_direct(&mut self, now: Instant, to: ReplyTo, node: NodeId) {
        let peer = self.node.peers().find(|peer| peer.node == node);
        let relayed = peer.as_ref().is_some_and(|peer| peer.path == pilot_proto::node::PathView::Relayed);
        let preferred = Preferred {
            node_id: node,
            had_tunnel: peer.is_some_and(|peer| peer.encrypted),
            was_relay_active: relayed,
            pila_pushed: true,
            ..Preferred::default()
        };
        // A ping goes out on every path there is, and the direct one wins if it answers.
        self.node.ping(now, node, 0);
        let request = registry::Resolve {
            node_id: node,
            requester_id: self.own_node(),
            ..registry::Resolve::default()
        };
        self.ask_registry(to, registry::Request::Resolve(request), Purpose::PreferDirect(preferred));
    }
}

/// What comes from the registry.
impl Driver {
    pub(super) fn on_report(&mut self, now: Instant, report: Report) {
        self.tally.on_report(&report, self.registry.connected);
        match report {
            Report::Registered(key, registered) if key == self.own_key() => {
                self.on_registered(now, registered)
            }
            // Asked before the key was changed; the registration of the new one is on its way.
            Report::Registered(..) => {}
            Report::Answer(id, answer) => self.on_answer(now, id, answer),
            Report::Said(id, said, witness) => self.on_said(now, id, &said, &witness),
            Report::Reply(id, outcome, witness) => self.on_reply(now, id, outcome, &witness),
            Report::Heard => {}
            Report::NameRefused(reason) => self.on_name_refused(&reason),
            Report::Handshakes(found) => self.on_handshakes(now, found),
            Report::KeyExpiry(warning) => {
                if let Some(warning) = &warning {
                    tracing::warn!(warning, "replace it: pilotctl rotate-key");
                }
                self.registry.key_expiry = warning;
            }
            Report::News(news) => self.on_registry_news(now, &news),
            Report::Certificate(address, known) => {
                tracing::info!(address, ?known, "the registry's certificate is remembered");
                state::remember(&mut self.memory.registry_certificates, address, known);
                self.memory_stale = true;
            }
            Report::Up { index, address, protection } => {
                self.registry.connected = true;
                self.registry.address = address;
                self.registry.awaited = false;
                self.registry.error = None;
                if protection == Protection::Plaintext && self.config.registry_tls.mode == TlsMode::Auto {
                    tracing::warn!(
                        registry = self.registry.address,
                        "the registry speaks no TLS: what is said to it can be read and changed on the way"
                    );
                }
                self.registry.protection = Some(protection);
                // The registration itself follows, with the number.
                self.use_beacon_of(now, index);
            }
            Report::Down { address, error } => {
                self.registry.connected = false;
                self.registry.address = address;
                self.registry.awaited = false;
                self.registry.error = Some(error);
                self.registry.protection = None;
                self.check_ready();
            }
        }
    }

    fn on_registered(&mut self, now: Instant, registered: Registered) {
        let node = registered.node_id;
        if self.finish_rotation(now, node) {
            return;
        }
        let first = self.memory.node_id != Some(node);
        tracing::info!(%node, first, "registered");
        self.look_for_beacons(now);
        if let Some(reason) = &registered.hostname_error {
            self.on_name_refused(reason);
        }
        self.memory.node_id = Some(node);
        self.memory.public_key = Some(self.own_key());
        self.memory.hostname.clone_from(&self.profile.hostname);
        self.memory_stale = true;
        self.node.set_node(now, node);
        self.own.send_replace(node);
        self.tell_policy();
        self.tell_web_credentials(node);
        let address = Addr::backbone(node);
        match first {
            true => {
                let endpoint = registered.observed_addr;
                self.notify("node.registered", Some(json!({"address": address, "endpoint": endpoint})));
            }
            false => self.notify("node.reregistered", Some(json!({"address": address}))),
        }
        if first || self.memory.registry != self.registry.address {
            self.memory.registry.clone_from(&self.registry.address);
            self.tell_registry_of_trust();
        }
        for query in std::mem::take(&mut self.registry.owed) {
            let request = crate::registry::request(node, &query);
            let _ = self.send_call(request.into());
        }
        self.networks_registered(now);
        self.check_ready();
    }

    /// The registry says that something about peers is otherwise than before. It says only what to ask: what counts is
    /// the answer, and what the peers themselves can show.
    fn on_registry_news(&mut self, now: Instant, news: &Notices) {
        let peers: Vec<NodeId> = match news.more {
            true => self.node.trust().trusted().map(|(node, _)| node).take(NAMED_MAX).collect(),
            false => news.peers.clone(),
        };
        for peer in peers {
            if self.node.is_trusted(peer) && !self.node.relocate(now, peer) {
                // Nothing is said to it at present; where it is found some day, and how it is called, is remembered.
                self.learn_place(peer);
            }
        }
        for peer in &news.trust {
            self.node.doubt_trust(*peer);
        }
        if news.kinds.contains(&NoticeKind::Networks) {
            self.refresh_networks(now);
        }
        if news.kinds.contains(&NoticeKind::Invite) {
            tracing::info!("an invitation to a network waits: pilotctl network invites");
            self.notify("network.invited", None);
        }
    }

    fn learn_place(&mut self, peer: NodeId) {
        let request = registry::Resolve {
            node_id: peer,
            requester_id: self.own_node(),
            ..registry::Resolve::default()
        };
        if let Some(id) = self.send_call(registry::Request::Resolve(request).into()) {
            self.registry.places.insert(id, peer);
        }
        self.study(peer, None);
    }

    /// A registry that does not share its records with the one before learns whom we trust, and whom no more.
    fn tell_registry_of_trust(&self) {
        let book = self.node.trust();
        let ended = book.revoked().map(|(node, _)| Query::RevokeTrust(node));
        let begun = book.trusted().map(|(node, _)| Query::ReportTrust(node));
        // A full queue ends with the next registration elsewhere; until then the peers know.
        let _ = self.link.send(Order::Tell(ended.chain(begun).collect()));
    }

    /// What hides the connection to the registry.
    pub(super) fn registry_protection(&self) -> Option<RegistryTls> {
        let remembered = self.memory.registry_certificates.get(&self.registry.address);
        self.registry.protection.map(|protection| match protection {
            Protection::Tls(fingerprint) => RegistryTls {
                used: true,
                fingerprint: fingerprint.to_string(),
                pinned: !self.config.registry_tls.fingerprints.is_empty()
                    || remembered == Some(&Known::First(fingerprint)),
            },
            Protection::Plaintext => RegistryTls::default(),
        })
    }

    fn on_name_refused(&mut self, reason: &str) {
        tracing::warn!(hostname = self.profile.hostname, reason, "the registry does not grant the hostname");
        self.profile.hostname.clear();
        self.memory.hostname.clear();
        self.memory_stale = true;
    }

    pub(super) fn on_query(&mut self, now: Instant, id: QueryId, query: Query) {
        if let Query::Resolve(node) = &query
            && self.node.is_trusted(*node)
        {
            // Whatever the registry says: the peer may be in this network, or where it was.
            self.wish_for_peers();
            if !self.registry.connected {
                self.hint_remembered(now, *node);
            }
        }
        if self.registry.is_away()
            && let Some(answer) = self.remembered_answer(&query)
        {
            return self.node.handle_answer(now, id, answer);
        }
        if let Query::RequestHandshake { to, .. } = &query {
            self.relations.carried.insert(id, *to);
        }
        self.asked.insert(id, query.clone());
        if let Err(Order::Query(id, query)) = self.link.send(Order::Query(id, query)) {
            let busy = QueryError::Unreachable("too many questions are under way".to_owned());
            self.on_answer(now, id, crate::registry::failed(&query, busy));
        }
    }

    fn on_answer(&mut self, now: Instant, id: QueryId, answer: Answer) {
        let query = self.asked.remove(&id);
        if let Some(node) = self.relations.carried.remove(&id)
            && matches!(answer, Answer::Done(Ok(()) | Err(QueryError::Already)))
        {
            self.settle_requests(node, Ok(()));
        }
        if let (Some(Query::CheckTrust(node)), Answer::Trusted(Ok(true))) = (&query, &answer)
            && !self.node.is_trusted(*node)
        {
            return self.check_membership(now, id, *node);
        }
        let answer = match query {
            Some(query) => self.remembering(&query, answer),
            None => answer,
        };
        self.node.handle_answer(now, id, answer);
    }

    /// What is remembered of a peer stands in for a registry that cannot be asked; what it says is remembered.
    fn remembering(&mut self, query: &Query, answer: Answer) -> Answer {
        match (query, answer) {
            (
                Query::Resolve(_) | Query::PeerKey(_),
                answer @ (Answer::Resolved(Err(QueryError::Unreachable(_)))
                | Answer::PeerKey(Err(QueryError::Unreachable(_)))),
            ) => self.remembered_answer(query).unwrap_or(answer),
            (
                Query::RespondHandshake { .. } | Query::ReportTrust(_) | Query::RevokeTrust(_),
                Answer::Done(Err(QueryError::Unreachable(reason))),
            ) => {
                if self.registry.owed.len() < OWED_MAX {
                    self.registry.owed.push(query.clone());
                }
                Answer::Done(Err(QueryError::Unreachable(reason)))
            }
            (_, answer) => answer,
        }
    }

    fn on_handshakes(&mut self, now: Instant, found: Handshakes) {
        for request in found.requests {
            self.node.relayed_request(now, wall(), request.from_node_id, &request.justification);
        }
        for response in found.responses {
            let at = (response.timestamp > 0).then_some(response.timestamp);
            self.node.relayed_response(now, wall(), response.from_node_id, response.accept, at);
        }
    }

    fn on_reply(&mut self, now: Instant, id: CallId, outcome: Result<Vec<u8>, CallError>, witness: &Witness) {
        if let Some(study) = self.registry.studies.remove(&id) {
            return self.on_studied(now, study, outcome, witness);
        }
        let outcome = match self.on_networks_reply(now, id, outcome) {
            Ok(()) => return,
            Err(outcome) => outcome,
        };
        if let Some(node) = self.registry.places.remove(&id) {
            return self.on_place(now, node, outcome, witness);
        }
        if let Some(answer) = self.registry.of_services.remove(&id) {
            // The service may have given up meanwhile.
            let _ = answer.send(outcome);
            return;
        }
        if self.beacons.is_asked(id) {
            return self.on_beacon_list(outcome);
        }
        if let Some(inquiry) = self.inquiries.answered(id) {
            let outcome = outcome.and_then(|reply| match self.inquiries.node(inquiry) {
                Some(node) => self.believed_reply(now, node, reply, witness),
                None => Ok(reply),
            });
            return self.on_listing(now, inquiry, outcome);
        }
        if let Some(check) = self.checks.answered(id) {
            return self.on_timed(now, check, outcome);
        }
        let Some(RegistryCall { to, purpose }) = self.calls.remove(&id) else { return };
        let reply = match outcome {
            Ok(reply) => reply,
            Err(error) => return self.on_refusal(now, to, purpose, error),
        };
        let pass = |command| Reply::Json { command, body: (&reply[..]).into() };
        match purpose {
            Purpose::Pass(command, _) => self.reply(to, &pass(command)),
            Purpose::Hostname(name) => {
                self.profile.hostname = name;
                self.profile_changed();
                self.reply(to, &pass(Command::SetHostnameOk));
            }
            Purpose::Visibility(public) => {
                self.profile.public = public;
                self.profile_changed();
                self.node.set_visibility(if public { Visibility::Public } else { Visibility::Private });
                self.reply(to, &pass(Command::SetVisibilityOk));
            }
            Purpose::Tags(tags) => {
                self.profile.tags = tags;
                self.profile_changed();
                self.reply(to, &pass(Command::SetTagsOk));
            }
            Purpose::Deregister => {
                self.profile.left = true;
                self.tell_link_profile();
                self.notify("node.deregistered", None);
                self.reply(to, &pass(Command::DeregisterOk));
            }
            Purpose::Resolve(name) => self.on_name_resolved(to, name, &reply, witness),
            Purpose::Contested(contest) => self.on_contested(now, to, contest, &reply, witness),
            Purpose::Lookup(node) => match self.believed_reply(now, node, reply, witness) {
                Ok(reply) => {
                    self.reply(to, &Reply::Json { command: Command::CallOk, body: (&reply[..]).into() });
                }
                Err(error) => self.refuse(to, Refusal::from(error).within("lookup")),
            },
            Purpose::Broadcast { network, port, data } => {
                self.on_members(now, to, network, port, &data, &reply)
            }
            Purpose::RotateKey(identity) => {
                self.adopt(now, *identity);
                self.reply(to, &pass(Command::RotateKeyOk));
            }
            Purpose::Verify { request, signer } => {
                let believed = self.believed_reply(now, signer, reply, witness);
                match believed.map(|reply| Response::parse(&reply)) {
                    Ok(Ok(Response::Lookup(lookup))) => {
                        let check = self.check_envelope(&request, signer, lookup.public_key, "registry");
                        self.answer(to, Command::VerifyEnvelopeOk, &check);
                    }
                    Ok(_) => self.refuse(to, another_reply()),
                    Err(error) => self.refuse(to, Refusal::from(error).within("verify_envelope")),
                }
            }
            Purpose::Policy(network) => self.on_policy(to, network, &reply),
            Purpose::Network { form, change, .. } => self.on_network_done(now, to, form, change, &reply),
            Purpose::Cards(network) => self.on_cards(to, network, &reply),
            Purpose::PreferDirect(preferred) => self.answer(to, Command::PreferDirectOk, &preferred),
            Purpose::Datagram { to: endpoint, from, data } => {
                self.send_datagram(now, to, endpoint, from, &data)
            }
        }
    }

    fn on_refusal(&mut self, now: Instant, to: ReplyTo, purpose: Purpose, error: CallError) {
        match purpose {
            Purpose::PreferDirect(preferred) => {
                let preferred = Preferred { resolve_error: error.to_string(), ..preferred };
                self.answer(to, Command::PreferDirectOk, &preferred);
            }
            purpose @ Purpose::RotateKey(_) if matches!(error, CallError::Refused(_)) => {
                // Only a clear no makes the new key worthless; after silence the registry may have taken it.
                let _ = std::fs::remove_file(self.next_identity());
                self.refuse(to, Refusal::from(error).within(purpose.operation()));
            }
            Purpose::Policy(network) if matches!(error, CallError::Refused(_)) => {
                self.on_policy(to, network, b"{}")
            }
            Purpose::Resolve(name) if let Some(resolved) = self.resolved_without(&name, &error) => {
                self.answer_name(to, name.form, &resolved);
            }
            // It has nothing new of the trusted one, so there is no reason to believe another.
            Purpose::Contested(contest) => self.answer_trusted(to, contest),
            Purpose::Datagram { to: endpoint, from, data } if matches!(error, CallError::Unreachable(_)) => {
                self.send_datagram(now, to, endpoint, from, &data);
            }
            Purpose::Datagram { to: endpoint, .. } => {
                let node = endpoint.addr.node;
                let refusal = Refusal::from(error);
                let text = format!("sendto: resolve node {node}: {}", refusal.text());
                self.refuse(to, refusal.worded(text));
            }
            purpose @ Purpose::Resolve(Name { form: Form::Call, .. }) => {
                let refusal = Refusal::from(error)
                    .within(purpose.operation())
                    .hint("is the name right, and is there trust? see: pilotctl handshake");
                self.refuse(to, refusal);
            }
            purpose @ (Purpose::Pass(..)
            | Purpose::Resolve(_)
            | Purpose::Lookup(_)
            | Purpose::Hostname(_)
            | Purpose::Visibility(_)
            | Purpose::Tags(_)
            | Purpose::Deregister
            | Purpose::Broadcast { .. }
            | Purpose::RotateKey(_)
            | Purpose::Verify { .. }
            | Purpose::Network { .. }
            | Purpose::Cards(_)
            | Purpose::Policy(_)) => self.refuse(to, Refusal::from(error).within(purpose.operation())),
        }
    }

    fn on_members(
        &mut self,
        now: Instant,
        to: ReplyTo,
        network: NetworkId,
        port: Port,
        data: &[u8],
        reply: &[u8],
    ) {
        let Ok(Response::ListNodes { nodes }) = Response::parse(reply) else {
            return self.refuse(to, another_reply());
        };
        for member in nodes {
            if self.node.id() == Some(member.node_id) {
                continue;
            }
            let address = Addr { network, node: member.node_id };
            if let Err(error) = self.node.send_datagram(now, address.port(port), None, data) {
                tracing::debug!(%address, %error, "broadcast datagram not sent");
            }
        }
        self.reply(to, &Reply::Broadcast);
    }

    fn on_policy(&mut self, to: ReplyTo, network: NetworkId, reply: &[u8]) {
        let policy = match Response::parse(reply) {
            Ok(Response::GetExprPolicy { expr_policy, .. }) => expr_policy,
            Ok(_) | Err(_) => None,
        };
        let engine = if policy.is_some() { "policy" } else { "none" };
        let mut shown = json!({"engine": engine, "network_id": network, "type": "managed_policy_ok"});
        if let Some(policy) = policy {
            shown["expr_policy"] = policy;
        }
        self.answer(to, Command::ManagedOk, &shown);
    }

    fn profile_changed(&mut self) {
        self.memory.hostname.clone_from(&self.profile.hostname);
        self.memory.public = self.profile.public;
        self.memory.tags.clone_from(&self.profile.tags);
        self.memory_stale = true;
        self.tell_link_profile();
    }

    /// The beacon sees our datagrams come from this address.
    pub(super) fn on_observed(&mut self, address: SocketAddr) {
        // Over the web the beacon sees no datagrams of ours.
        if !address.ip().is_unspecified() && self.profile.observed != Some(address) {
            tracing::info!(%address, "seen by the beacon");
            if self.profile.observed.replace(address).is_some() {
                // Another gateway, or one that forgot what it had.
                self.doubt_mapping();
            }
            self.tell_link_profile();
        }
    }

    pub(super) fn on_peer(&mut self, peer: NodeId, event: &PeerEvent) {
        self.tally.on_peer(event);
        self.waits.on_peer(peer, event);
        match event {
            PeerEvent::Established { .. } | PeerEvent::Direct(_) | PeerEvent::Relayed => {
                self.sign(Sign::Peer(peer));
            }
            PeerEvent::KeyMismatch(_) | PeerEvent::Silent | PeerEvent::Agreed(_) | PeerEvent::Downgraded => {}
        }
        match event {
            PeerEvent::Established { rekeyed, relayed } => {
                tracing::info!(%peer, rekeyed, relayed, "tunnel established");
                self.notify(
                    "tunnel.established",
                    Some(json!({
                        "peer_node_id": peer, "authenticated": true, "relay": relayed, "rekeyed": rekeyed
                    })),
                );
            }
            PeerEvent::Direct(endpoint) => {
                tracing::info!(%peer, %endpoint, "direct path");
                self.remember_endpoint(peer, *endpoint);
                self.notify("tunnel.peer_added", Some(json!({"peer_node_id": peer, "endpoint": endpoint})));
            }
            PeerEvent::Relayed => {
                tracing::info!(%peer, "through the relay");
                self.notify("tunnel.relay_activated", Some(json!({"peer_node_id": peer})));
            }
            // Its owner may have replaced it, and then the registry has the old key's word for that.
            PeerEvent::KeyMismatch(key) => self.study(peer, Some(*key)),
            PeerEvent::Agreed(identity) => self.remember_agreement(peer, *identity),
            PeerEvent::Downgraded => self.tell_downgrade(peer),
            PeerEvent::Silent => {
                tracing::info!(%peer, "does not answer");
                self.wish_for_peers();
            }
        }
    }
}

pub(super) fn another_reply() -> Refusal {
    Refusal::new(Code::Internal, "the registry sent another reply than asked for")
}

/// `null` takes a policy away.
fn policy_field(policy: serde_json::Value) -> registry::Sent<serde_json::Value> {
    registry::Sent::Given(policy)
}
