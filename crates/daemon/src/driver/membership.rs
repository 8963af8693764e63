//! The networks this node is in: what the registry says of them, whom the node trusts for it, and what programs ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pilot_proto::{Answer, QueryId};
use pilot_wire::ipc::{Code, Command, NetworkAddress, Reply};
use pilot_wire::networks::{FoundCard, Reply as Answered, Request};
use pilot_wire::registry::{
    self, Envelope, JoinNetwork, Members, MembersQuery, NetworkQuery, PublishedCard, Response, Signed,
};
use pilot_wire::{Addr, NetworkId, NodeId};
use serde_json::{Value, json};

use super::Driver;
use super::deadlines::{self, Deadline};
use super::registry::Purpose;
use super::replies::{Refusal, ReplyTo};
use super::trust::wall;
use crate::memberships::PortLimit;
use crate::registry::{CallError, CallId};

/// How often the registry is asked who the members are, if it gives no notice.
const REFRESH: Duration = Duration::from_secs(60);

/// Requests to the registry that programs may make through their daemon, by type.
const REQUESTS: &[&str] = &[
    "list_networks",
    "list_nodes",
    "create_network",
    "delete_network",
    "rename_network",
    "set_network_enterprise",
    "leave_network",
    "invite_to_network",
    "kick_member",
    "promote_member",
    "demote_member",
    "transfer_ownership",
    "get_member_role",
    "set_member_tags",
    "get_member_tags",
    "set_member_expiry",
    "set_network_policy",
    "get_network_policy",
    "set_expr_policy",
    "get_expr_policy",
    "set_key_expiry",
    "get_key_info",
    "get_audit_log",
    "provision_network",
    "get_provision_status",
    "publish_card",
    "remove_card",
    "list_cards",
];

/// What is asked of the registry, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Refresh {
    asked: BTreeMap<CallId, Asked>,
    /// Something may have changed since it was asked.
    again: bool,
    /// What is known is other than what the node goes by.
    changed: bool,
    /// The registry is of another make, and tells less.
    is_foreign: bool,
    /// Nodes that want in, and may be members.
    checks: Vec<(QueryId, NodeId)>,
    /// Programs that changed something, and are told when this node goes by it: what they do next may depend on it.
    held: Vec<(ReplyTo, Form, Value)>,
    timer: Option<deadlines::Key>,
}

#[derive(Debug)]
enum Asked {
    Own,
    /// Members, and what earlier pages said.
    Members(NetworkId, Option<Members>),
    Nodes(NetworkId),
    Ports(NetworkId),
}

/// What a request changes once the registry has agreed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Joined(NetworkId, bool),
    Left(NetworkId),
    /// A network of which this node is the first member; its number is in the answer.
    Created,
    /// Something about a network.
    Other,
    Nothing,
}

/// How the program asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// As the reference does; the answer is the registry's.
    Reference(Command),
    Call,
}

/// Asking the registry.
impl Driver {
    /// Finds out who the members of this node's networks are.
    pub(super) fn refresh_networks(&mut self, now: Instant) {
        if !self.refresh.asked.is_empty() {
            self.refresh.again = true;
            return;
        }
        self.refresh.again = false;
        let Some(node_id) = self.node.id().filter(|_| self.registry.connected) else {
            return self.networks_known(now);
        };
        let signed = Signed { node_id, ..Signed::default() };
        let request = match self.refresh.is_foreign {
            false => registry::Request::OwnNetworks(signed),
            true => registry::Request::Lookup(signed),
        };
        if !self.ask_about_networks(request, Asked::Own) {
            self.networks_known(now);
        }
    }

    /// The registry may be another one than before.
    pub(super) fn networks_registered(&mut self, now: Instant) {
        self.refresh.is_foreign = false;
        self.refresh_networks(now);
    }

    pub(super) fn on_networks_due(&mut self, now: Instant) {
        self.refresh.timer = None;
        self.refresh_networks(now);
    }

    fn ask_about_networks(&mut self, request: registry::Request, asked: Asked) -> bool {
        let Some(id) = self.send_call(request.into()) else { return false };
        self.refresh.asked.insert(id, asked);
        true
    }

    /// Whether this was an answer to a question about networks.
    pub(super) fn on_networks_reply(
        &mut self,
        now: Instant,
        id: CallId,
        outcome: Result<Vec<u8>, CallError>,
    ) -> Result<(), Result<Vec<u8>, CallError>> {
        let Some(asked) = self.refresh.asked.remove(&id) else { return Err(outcome) };
        match outcome.map(|reply| Response::parse(&reply)) {
            Ok(Ok(response)) => self.on_networks_told(asked, response),
            Ok(Err(error)) => tracing::debug!(%error, ?asked, "the registry's answer is not understood"),
            Err(CallError::Refused(reason)) if matches!(asked, Asked::Own) && !self.refresh.is_foreign => {
                tracing::debug!(reason, "the registry knows no question about own networks");
                self.refresh.is_foreign = true;
                self.refresh.again = true;
            }
            Err(error) => tracing::debug!(%error, ?asked, "the registry does not tell of networks"),
        }
        if self.refresh.asked.is_empty() {
            self.networks_known(now);
        }
        Ok(())
    }

    fn on_networks_told(&mut self, asked: Asked, response: Response) {
        match (asked, response) {
            (Asked::Own, Response::OwnNetworks { networks }) => {
                let (wanted, changed) = self.memberships.told_own(networks);
                self.refresh.changed |= changed;
                for (network, since) in wanted {
                    self.ask_members(network, since, NodeId::UNSET, None);
                }
            }
            (Asked::Own, Response::Lookup(own)) => {
                let ids = own.networks.into_iter().filter(|id| *id != NetworkId::BACKBONE).collect();
                let (wanted, changed) = self.memberships.told_numbers(&ids);
                self.refresh.changed |= changed;
                for network_id in wanted {
                    let query = NetworkQuery { network_id };
                    let nodes = registry::Request::ListNodes(query.clone());
                    self.ask_about_networks(nodes, Asked::Nodes(network_id));
                    let ports = registry::Request::GetNetworkPolicy(query);
                    self.ask_about_networks(ports, Asked::Ports(network_id));
                }
            }
            (Asked::Members(network, earlier), Response::ListMembers(page)) => {
                self.on_members_page(network, earlier, page);
            }
            (Asked::Nodes(network), Response::ListNodes { nodes }) => {
                self.memberships.told_nodes(network, nodes, wall());
                self.refresh.changed = true;
            }
            (Asked::Ports(network), Response::GetNetworkPolicy(policy)) => {
                self.refresh.changed |= self.memberships.told_ports(network, policy.allowed_ports);
            }
            (asked, other) => tracing::debug!(?asked, ?other, "another answer than asked for"),
        }
    }

    fn ask_members(&mut self, network_id: NetworkId, since: String, after: NodeId, earlier: Option<Members>) {
        let node_id = self.own_node();
        let query = MembersQuery { node_id, network_id, since, after, ..MembersQuery::default() };
        self.ask_about_networks(registry::Request::ListMembers(query), Asked::Members(network_id, earlier));
    }

    /// A list is believed when all of it is there. Changes between its pages come with the next question, because the
    /// version is that of the first page.
    fn on_members_page(&mut self, network: NetworkId, earlier: Option<Members>, page: Members) {
        let (more, last) = (page.more, page.members.last().map(|member| member.node_id));
        let mut all = match earlier {
            Some(mut all) => {
                all.members.extend(page.members);
                all
            }
            None => page,
        };
        if let Some(last) = last.filter(|_| more && all.complete) {
            return self.ask_members(network, String::new(), last, Some(all));
        }
        all.network_id = network;
        for claim in self.memberships.told_members(all, wall()) {
            // Its owner may have replaced it, and then the registry has the old key's word for that.
            self.study(claim.node, Some(claim.key));
        }
        self.refresh.changed = true;
    }

    /// All that was asked is answered: the node goes by it.
    fn networks_known(&mut self, now: Instant) {
        if std::mem::take(&mut self.refresh.changed) {
            self.apply_networks(now);
        }
        if self.refresh.again && self.registry.connected {
            return self.refresh_networks(now);
        }
        for (to, form, answer) in std::mem::take(&mut self.refresh.held) {
            self.network_answer(to, form, &answer);
        }
        for (id, node) in std::mem::take(&mut self.refresh.checks) {
            let trusted = self.node.is_trusted(node);
            self.node.handle_answer(now, id, Answer::Trusted(Ok(trusted)));
        }
        if !self.memberships.is_empty() && self.refresh.timer.is_none() {
            self.refresh.timer = Some(self.deadlines.add(now + REFRESH, Deadline::Networks));
        }
    }

    /// The registry says that a node is trusted. If it is for a network, the members of which the owner trusts, it will be
    /// among them; the registry's word alone opens nothing.
    pub(super) fn check_membership(&mut self, now: Instant, id: QueryId, node: NodeId) {
        if !self.memberships.trusts_any() {
            return self.node.handle_answer(now, id, Answer::Trusted(Ok(false)));
        }
        self.refresh.checks.push((id, node));
        self.refresh_networks(now);
    }

    /// The node goes by what is known of networks.
    pub(super) fn apply_networks(&mut self, now: Instant) {
        let members = self.memberships.trusted(self.own_node());
        tracing::debug!(members = members.len(), "members of networks are trusted");
        self.node.set_members(now, members);
        self.networks_stale = true;
        self.tell_policy();
        self.end_forbidden_streams(now);
    }

    /// Writes what has to survive: the book may have pinned keys since.
    pub(super) fn store_networks(&mut self, book_changed: bool) {
        if book_changed {
            self.networks_stale |= self.memberships.pinned(self.node.trust().members());
        }
        if std::mem::take(&mut self.networks_stale) {
            let path = self.config.networks_file();
            if let Err(error) = self.memberships.store(&path) {
                tracing::error!(path = %path.display(), %error, "memberships are not stored");
            }
        }
    }
}

/// What others are told.
impl Driver {
    /// The ports that are open to members who are trusted for no other reason, by the networks that are it.
    pub(super) fn port_limits(&self) -> BTreeMap<NodeId, Option<Arc<PortLimit>>> {
        let mut limits: BTreeMap<&BTreeSet<NetworkId>, Option<Arc<PortLimit>>> = BTreeMap::new();
        let members = self.node.trust().members();
        let members = members.filter(|(node, _)| self.node.trust().agreed(*node).is_none());
        let limited = members.map(|(node, member)| {
            let limit =
                limits.entry(&member.networks).or_insert_with(|| self.memberships.limit(&member.networks));
            (node, limit.clone())
        });
        limited.collect()
    }

    /// The networks that are the only reason to trust a node.
    pub(super) fn networks_behind(&self, node: NodeId) -> Vec<NetworkId> {
        let member = self.node.trust().member(node);
        member.map(|member| member.networks.iter().copied().collect()).unwrap_or_default()
    }

    pub(super) fn network_addresses(&self) -> Vec<NetworkAddress> {
        let networks = self.memberships.list(self.own_node()).into_iter();
        let address = |membership: pilot_wire::networks::Membership| NetworkAddress {
            network_id: membership.network_id,
            address: membership.address,
            name: membership.name,
            trust: Some(membership.trust),
            expires_at: membership.expires_at,
        };
        networks.map(address).collect()
    }

    /// The owner does not trust this member any more. False if it is none.
    pub(super) fn exclude_member(&mut self, now: Instant, node: NodeId) -> bool {
        let excluded = self.memberships.exclude(node);
        if excluded {
            self.apply_networks(now);
        }
        excluded
    }

    /// The owners agreed; it is no exception any more.
    pub(super) fn readmit_member(&mut self, now: Instant, node: NodeId) {
        if self.memberships.readmit(node) {
            self.apply_networks(now);
        }
    }
}

/// What programs ask.
impl Driver {
    pub(super) fn on_networks_call(&mut self, now: Instant, to: ReplyTo, request: Request) {
        match request {
            Request::Show => {
                let networks = self.memberships.list(self.own_node());
                self.answer(to, Command::CallOk, &Answered::Networks { networks });
            }
            Request::Join { network, token, trust } => {
                let request = registry::Request::JoinNetwork(JoinNetwork {
                    node_id: self.own_node(),
                    network_id: network,
                    token,
                    ..JoinNetwork::default()
                });
                self.ask_for_network(to, request.into(), Form::Call, Change::Joined(network, trust), "join");
            }
            Request::Trust { network, on } => self.on_trust_network(now, to, network, on),
            Request::Ask { request, token } => match self.envelope(request, token) {
                Ok((envelope, change, kind)) => {
                    self.ask_for_network(to, envelope, Form::Call, change, &kind);
                }
                Err(refusal) => self.refuse(to, refusal),
            },
            Request::Cards { mut query, token } => {
                query["type"] = json!("list_cards");
                match self.envelope(query, token) {
                    Ok((envelope, ..)) => {
                        let registry::Request::ListCards(query) = &envelope.request else {
                            return self
                                .refuse(to, Refusal::new(Code::InvalidArgument, "not a search for cards"));
                        };
                        let network = query.network_id;
                        self.ask_registry_as(to, envelope, Purpose::Cards(network));
                    }
                    Err(refusal) => self.refuse(to, refusal),
                }
            }
        }
    }

    fn on_trust_network(&mut self, now: Instant, to: ReplyTo, network: NetworkId, on: bool) {
        if !self.memberships.set_trust(network, on) {
            let refusal = Refusal::new(Code::NotFound, format!("this node is not in network {network}"));
            return self.refuse(to, refusal.hint("join it: pilotctl network join"));
        }
        self.apply_networks(now);
        self.refresh_networks(now);
        let networks = self.memberships.list(self.own_node());
        let networks = networks.into_iter().filter(|membership| membership.network_id == network).collect();
        self.answer(to, Command::CallOk, &Answered::Networks { networks });
    }

    /// A request as a program wrote it, in the name of this node where it names none.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the table of requests above says which there are")]
    fn envelope(&self, mut request: Value, token: String) -> Result<(Envelope, Change, String), Refusal> {
        let wrong = |reason: String| Refusal::new(Code::InvalidArgument, reason);
        let kind = request["type"].as_str().unwrap_or_default().to_owned();
        if !REQUESTS.contains(&kind.as_str()) {
            return Err(wrong(format!("`{kind}` is no request about networks")));
        }
        let acts = !matches!(kind.as_str(), "list_cards" | "list_networks" | "list_nodes" | "get_audit_log");
        for field in ["node_id", "inviter_id"] {
            if acts && request[field].as_u64().unwrap_or_default() == 0 {
                request[field] = json!(self.own_node());
            }
        }
        let parsed =
            Envelope::parse(request.to_string().as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let change = match &parsed.request {
            registry::Request::CreateNetwork(created) if created.node_id == self.own_node() => {
                Change::Created
            }
            registry::Request::LeaveNetwork(left) if left.node_id == self.own_node() => {
                Change::Left(left.network_id)
            }
            registry::Request::CreateNetwork(_) => Change::Nothing,
            _ if kind.starts_with("get_") || kind.starts_with("list_") => Change::Nothing,
            _ => Change::Other,
        };
        Ok((Envelope::with_token(parsed.request, token), change, kind))
    }

    pub(super) fn ask_for_network(
        &mut self,
        to: ReplyTo,
        envelope: Envelope,
        form: Form,
        change: Change,
        operation: &str,
    ) {
        let operation = match form {
            Form::Reference(_) => format!("network {operation}"),
            Form::Call => operation.replace('_', " "),
        };
        self.ask_registry_as(to, envelope, Purpose::Network { form, change, operation });
    }

    /// The registry has agreed.
    pub(super) fn on_network_done(
        &mut self,
        now: Instant,
        to: ReplyTo,
        form: Form,
        change: Change,
        reply: &[u8],
    ) {
        let answer: Value = serde_json::from_slice(reply).unwrap_or_default();
        match change {
            Change::Joined(network, trust) => {
                // Whoever declines an invitation is not in.
                if answer["accepted"] != false {
                    self.memberships.joined(network, trust);
                }
                return self.answer_when_known(now, to, form, answer);
            }
            Change::Left(network) => {
                self.memberships.left(network);
                self.apply_networks(now);
            }
            Change::Created => {
                if let Some(network) = answer["network_id"].as_u64().and_then(|id| u16::try_from(id).ok()) {
                    self.memberships.joined(NetworkId(network), true);
                }
                return self.answer_when_known(now, to, form, answer);
            }
            Change::Other => return self.answer_when_known(now, to, form, answer),
            Change::Nothing => {}
        }
        self.network_answer(to, form, &answer);
    }

    fn answer_when_known(&mut self, now: Instant, to: ReplyTo, form: Form, answer: Value) {
        self.networks_stale = true;
        self.refresh.held.push((to, form, answer));
        self.refresh_networks(now);
    }

    fn network_answer(&mut self, to: ReplyTo, form: Form, answer: &Value) {
        match form {
            Form::Reference(command) => self.reply(to, &Reply::json(command, answer)),
            Form::Call => self.answer(to, Command::CallOk, &Answered::Registry { answer: answer.clone() }),
        }
    }

    /// Cards are checked against the keys that this node goes by; only of nodes that it never met it believes the registry.
    pub(super) fn on_cards(&mut self, to: ReplyTo, network: NetworkId, reply: &[u8]) {
        let Ok(Response::ListCards { total, cards: found, .. }) = Response::parse(reply) else {
            return self
                .refuse(to, Refusal::new(Code::Internal, "the registry sent another reply than asked for"));
        };
        let count = found.len();
        let cards: Vec<FoundCard> =
            found.into_iter().filter_map(|found| self.checked_card(network, &found)).collect();
        let refused = u32::try_from(count - cards.len()).unwrap_or(u32::MAX);
        self.answer(to, Command::CallOk, &Answered::Cards { total, cards, refused });
    }

    fn checked_card(&self, network: NetworkId, found: &PublishedCard) -> Option<FoundCard> {
        let key = match self.node.id() == Some(found.node_id) {
            true => self.own_key(),
            false => self.known_key(found.node_id).unwrap_or(found.public_key),
        };
        let verify = |text: &[u8], signature: &_| pilot_crypto::verify(&key, text, signature);
        let mut card = match found.open(network, verify) {
            Ok(card) => card,
            Err(error) => {
                tracing::warn!(node = %found.node_id, %error, "a card of the directory is left out");
                return None;
            }
        };
        card.address = Addr { network, node: found.node_id };
        let hostname = match self.node.id() == Some(found.node_id) {
            true => self.profile.hostname.clone(),
            false => self.hostname_of(found.node_id),
        };
        Some(FoundCard { card, hostname, online: found.online })
    }
}
