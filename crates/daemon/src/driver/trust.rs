//! Trust between owners: what local programs decide about it, what they wait for, and carrying messages to peers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use pilot_proto::trust::{TrustError, UnixTime};
use pilot_proto::{Agreement, QueryId, Side, TrustEvent};
use pilot_wire::ipc::{
    Code, Command, Handshake, NodeStatus, Pending, PendingList, TrustState, TrustWait, Trusted, TrustedList,
    Waited,
};
use pilot_wire::{NetworkId, NodeId, handshake};
use serde_json::json;
use tokio::sync::oneshot;

use super::clients::ClientId;
use super::deadlines::{self, Deadline, Deadlines};
use super::replies::{Refusal, ReplyTo};
use super::{Command as Inbox, Driver};
use crate::datetime;
use crate::handle::Sign;
use crate::service::handshake::Delivery;

/// Longest wait for trust that one request may ask for, in the reference's command (spec/local.md 1.6).
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A request that neither arrived nor failed in this time is reported as not confirmed. It is stored and goes on.
const REQUEST_WAIT: Duration = Duration::from_secs(5);

/// Rejections remembered for programs that ask later.
const REJECTIONS_MAX: usize = 256;

/// How a handshake message fared.
#[derive(Debug)]
pub(crate) struct Outcome {
    to: NodeId,
    kind: handshake::Kind,
    result: Result<(), String>,
}

/// What programs wait for, and what is remembered for them.
#[derive(Debug, Default)]
pub(super) struct Relations {
    /// Requests on their way; who sent them wants to know whether they arrived.
    requests: BTreeMap<NodeId, Vec<ReplyTo>>,
    waits: Vec<Wait>,
    /// Words of those who declined.
    rejections: BTreeMap<NodeId, String>,
    /// Requests that the registry carries.
    pub(super) carried: BTreeMap<QueryId, NodeId>,
}

#[derive(Debug)]
struct Wait {
    node: NodeId,
    to: ReplyTo,
    until: Instant,
    deadline: deadlines::Key,
    form: Form,
}

/// Which of the two ways to wait was used.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// The reference's: trusted or not.
    Reference,
    /// Ours: ends with every answer.
    Call,
}

impl Relations {
    /// The program is gone: nobody waits for these replies.
    pub(super) fn forget(&mut self, client: ClientId, deadlines: &mut Deadlines) {
        for wait in self.waits.extract_if(.., |wait| wait.to.client == client) {
            deadlines.cancel(wait.deadline);
        }
        for waiting in self.requests.values_mut() {
            waiting.retain(|to| to.client != client);
        }
    }
}

impl Driver {
    pub(super) fn on_handshake(&mut self, now: Instant, to: ReplyTo, request: Handshake<'_>) {
        let wall = wall();
        match request {
            Handshake::Send { node, justification } => self.on_request_trust(now, to, node, justification),
            Handshake::Approve { node } => {
                let result = self.node.approve(now, wall, node);
                self.decided(to, node, "approved", result);
            }
            Handshake::Reject { node, reason } => {
                let result = self.node.reject(now, wall, node, reason);
                self.decided(to, node, "rejected", result);
            }
            Handshake::Revoke { node } => match self.end_trust(now, node) {
                Ok(()) => match self.trust_is_stored() {
                    Ok(()) => {
                        let done = NodeStatus { node_id: node, ..NodeStatus::default() };
                        self.answer(to, Command::HandshakeOk, &done);
                    }
                    Err(refusal) => self.refuse(to, refusal),
                },
                Err(error) => self.refuse(
                    to,
                    Refusal::new(Code::NotFound, error.to_string())
                        .hint("see who is trusted: pilotctl trust")
                        .worded(format!("handshake revoke: {error}")),
                ),
            },
            Handshake::Pending => {
                let list = self.pending_list();
                self.answer(to, Command::HandshakeOk, &list);
            }
            Handshake::Trusted => {
                let list = self.trusted_list();
                self.answer(to, Command::HandshakeOk, &list);
            }
            Handshake::Wait { node, timeout } => {
                self.wait_trust(now, to, node, timeout.min(WAIT_MAX), Form::Reference);
            }
        }
    }

    /// Whatever the reason was: the owners' agreement, a common network, or both.
    fn end_trust(&mut self, now: Instant, node: NodeId) -> Result<(), TrustError> {
        let was_member = self.exclude_member(now, node);
        match self.node.revoke(now, wall(), node) {
            Err(TrustError::NotTrusted(_)) if was_member => Ok(()),
            result => result,
        }
    }

    fn on_request_trust(&mut self, now: Instant, to: ReplyTo, node: NodeId, justification: &str) {
        if self.node.id().is_none() {
            return self.refuse(to, Refusal::not_registered());
        }
        self.relations.rejections.remove(&node);
        if let Err(error) = self.node.request_trust(now, wall(), node, justification.to_owned()) {
            let refusal = Refusal::new(Code::InvalidArgument, error.to_string()).within("handshake request");
            return self.refuse(to, refusal);
        }
        self.relations.requests.entry(node).or_default().push(to);
        if self.node.trust().agreed(node).is_some() {
            // What the user wants is so already; the peer is only reminded.
            return self.settle_requests(node, Ok(()));
        }
        self.waits.trust_asked(now, node);
        self.deadlines.add(now + REQUEST_WAIT, Deadline::Request(node));
    }

    /// Programs of the reference are told "approved" and "rejected" whether or not there was a request.
    fn decided(&mut self, to: ReplyTo, node: NodeId, status: &str, result: Result<(), TrustError>) {
        let done = NodeStatus { node_id: node, status: status.to_owned() };
        match (result, to.slot) {
            (Ok(()), _) => match self.trust_is_stored() {
                Ok(()) => self.answer(to, Command::HandshakeOk, &done),
                Err(refusal) => self.refuse(to, refusal),
            },
            (Err(_), super::replies::Slot::InOrder(_)) => self.answer(to, Command::HandshakeOk, &done),
            (Err(error), super::replies::Slot::Tagged(_)) => self.refuse(
                to,
                Refusal::new(Code::NotFound, error.to_string()).hint("see who has asked: pilotctl pending"),
            ),
        }
    }

    /// A decision counts as made once it is on disk: it is written before the reply.
    fn trust_is_stored(&self) -> Result<(), Refusal> {
        crate::state::store_trust(&self.config.trust_file(), self.node.trust()).map_err(|error| {
            Refusal::new(Code::Internal, format!("the decision cannot be written to disk: {error}"))
                .hint("it holds until the daemon stops and is written again every few seconds; make room on the disk")
        })
    }

    fn pending_list(&self) -> PendingList {
        let mut pending: Vec<Pending> = self
            .node
            .trust()
            .pending()
            .map(|(node_id, pending)| Pending {
                node_id,
                public_key: pending.key,
                justification: pending.justification.clone(),
                received_at: pending.received,
                hostname: self.hostname_of(node_id),
            })
            .collect();
        pending.sort_by_key(|entry| entry.received_at);
        PendingList { pending }
    }

    fn trusted_list(&self) -> TrustedList {
        let entry = |(node_id, trusted): (NodeId, &pilot_proto::trust::Trusted)| Trusted {
            node_id,
            public_key: trusted.key,
            mutual: trusted.mutual,
            network: NetworkId::BACKBONE,
            approved_at: trusted.since,
            hostname: self.hostname_of(node_id),
            network_name: String::new(),
            key_changed: self.memory.peers.get(&node_id).and_then(|peer| peer.key_changed),
        };
        let mut list: Vec<Trusted> = self.node.trust().trusted().map(entry).collect();
        let book = self.node.trust();
        let members = book.members().filter(|(node, _)| book.agreed(*node).is_none());
        let room = super::info::RELATIONS_MAX.saturating_sub(list.len());
        list.extend(members.take(room).map(|(node, member)| {
            let network = member.networks.first().copied().unwrap_or_default();
            let network_name = self.memberships.bare_name(network);
            Trusted { network, network_name, ..entry((node, &member.trusted)) }
        }));
        list.sort_by_key(|entry| entry.node_id);
        TrustedList { trusted: list }
    }

    /// The name of a node, as far as it is remembered.
    pub(super) fn hostname_of(&self, node: NodeId) -> String {
        self.memory.peers.get(&node).map(|peer| peer.hostname.clone()).unwrap_or_default()
    }

    pub(super) fn trust_state(&self, node: NodeId) -> TrustState {
        let book = self.node.trust();
        if book.get(node).is_some() {
            TrustState::Trusted
        } else if book.is_asked(node) {
            TrustState::Requested
        } else if book.pending().any(|(pending, _)| pending == node) {
            TrustState::Pending
        } else if self.relations.rejections.contains_key(&node) {
            TrustState::Rejected
        } else if book.revoked().any(|(revoked, _)| revoked == node) {
            TrustState::Revoked
        } else {
            TrustState::None
        }
    }

    pub(super) fn on_wait_trust(&mut self, now: Instant, to: ReplyTo, node: NodeId, timeout: Duration) {
        self.wait_trust(now, to, node, timeout, Form::Call);
    }

    fn wait_trust(&mut self, now: Instant, to: ReplyTo, node: NodeId, timeout: Duration, form: Form) {
        let until = now + timeout.min(deadlines::LONGEST);
        let deadline = self.deadlines.add(until, Deadline::Trust(node));
        self.relations.waits.push(Wait { node, to, until, deadline, form });
        self.settle_waits(now, node);
    }

    /// Answers those who wait for `node` and have waited long enough, or have what they wait for.
    fn settle_waits(&mut self, now: Instant, node: NodeId) {
        let state = self.trust_state(node);
        let ends = |wait: &Wait| {
            wait.node == node
                && (wait.until <= now
                    || state == TrustState::Trusted
                    || matches!((wait.form, state), (Form::Call, TrustState::Rejected)))
        };
        let ended: Vec<Wait> = self.relations.waits.extract_if(.., |wait| ends(wait)).collect();
        for Wait { to, form, deadline, .. } in ended {
            self.deadlines.cancel(deadline);
            match form {
                Form::Reference => {
                    let waited = Waited { node_id: node, trusted: state == TrustState::Trusted };
                    self.answer(to, Command::HandshakeOk, &waited);
                }
                Form::Call => {
                    let reason = self.relations.rejections.get(&node).cloned().unwrap_or_default();
                    self.answer(to, Command::CallOk, &TrustWait { node_id: node, state, reason });
                }
            }
        }
    }

    pub(super) fn on_deadline(&mut self, now: Instant, deadline: Deadline) {
        match deadline {
            Deadline::Ping(ping) => self.on_pong(now, ping, None),
            Deadline::Why(id) => self.end_inquiry(now, id),
            Deadline::WhyAgain(id) => self.ping_again(now, id),
            Deadline::Netcheck(id) => self.end_check(now, id),
            Deadline::Trust(node) => self.settle_waits(now, node),
            Deadline::Request(node) => {
                self.settle_requests(node, Err("nothing confirms it yet; it is kept and will go on"));
            }
            Deadline::Store => self.trust_stale = true,
            Deadline::Memory => self.keeper.waited(),
            Deadline::LookForUdp => self.look_for_udp(now),
            Deadline::Networks => self.on_networks_due(now),
            Deadline::Beacons => self.look_for_beacons(now),
            Deadline::Ready => {
                self.registry.awaited = false;
                self.check_ready();
            }
        }
    }

    /// A request reached the peer or its inbox, or cannot.
    pub(super) fn settle_requests(&mut self, node: NodeId, result: Result<(), &str>) {
        for to in self.relations.requests.remove(&node).unwrap_or_default() {
            match result {
                Ok(()) => {
                    let sent = NodeStatus { node_id: node, status: "sent".to_owned() };
                    self.answer(to, Command::HandshakeOk, &sent);
                }
                Err(reason) => {
                    let code = if reason.contains("not found") { Code::NotFound } else { Code::Unreachable };
                    let refusal =
                        Refusal::new(code, format!("the request did not reach node {node}: {reason}"))
                            .worded(format!("handshake request: handshake relay: registry: {reason}"));
                    self.refuse(to, refusal);
                }
            }
        }
    }

    pub(super) fn on_trust(&mut self, now: Instant, event: TrustEvent) {
        self.tally.on_trust(&event);
        self.waits.on_trust(&event);
        match event {
            TrustEvent::Changed => self.trust_stale = true,
            TrustEvent::Deliver { to, message } => self.deliver(now, to, message),
            TrustEvent::Pending { node, justification } => {
                tracing::info!(%node, justification, "asks for trust");
                let data = json!({"peer_node_id": node, "justification": justification});
                self.notify("handshake.received", Some(data.clone()));
                self.notify("handshake.pending", Some(data));
                self.study(node, None);
                self.approve_listed(now, node);
            }
            TrustEvent::Trusted { node, how } => {
                tracing::info!(%node, ?how, "trusted");
                self.relations.rejections.remove(&node);
                self.readmit_member(now, node);
                self.settle_requests(node, Ok(()));
                self.settle_waits(now, node);
                self.notify_trusted(node, how);
                self.sign(Sign::Peer(node));
                self.study(node, None);
                // Find the peer and agree keys now: the first message is likely to follow.
                self.node.ping(now, node, 0);
            }
            TrustEvent::Rejected { node, reason } => {
                tracing::info!(%node, reason, "declined to trust this node");
                self.notify("handshake.rejected", Some(json!({"peer_node_id": node, "reason": reason})));
                if self.relations.rejections.len() >= REJECTIONS_MAX {
                    self.relations.rejections.pop_first();
                }
                self.relations.rejections.insert(node, reason);
                self.settle_waits(now, node);
            }
            TrustEvent::Revoked { node, by } => {
                tracing::info!(%node, ?by, "trust ended");
                let event = match by {
                    Side::Ours => "trust.revoked",
                    Side::Theirs => "trust.revoked_by_peer",
                };
                self.notify(event, Some(json!({"peer_node_id": node})));
                if by == Side::Ours {
                    self.forget_agreement(node);
                }
                self.settle_waits(now, node);
            }
            TrustEvent::Undeliverable { node, reason } => {
                tracing::warn!(%node, reason, "the request for trust cannot be delivered");
                self.settle_requests(node, Err(&reason));
            }
        }
    }

    /// Agrees for the owner, if the settings say so of this node.
    fn approve_listed(&mut self, now: Instant, node: NodeId) {
        if self.config.approved.contains(&node)
            && let Err(error) = self.node.approve(now, wall(), node)
        {
            tracing::debug!(%node, %error, "not approved");
        }
    }

    /// Agrees to those who asked in an earlier life, before the settings said so.
    pub(super) fn approve_all_listed(&mut self, now: Instant) {
        let pending: Vec<NodeId> = self.node.trust().pending().map(|(node, _)| node).collect();
        for node in pending {
            self.approve_listed(now, node);
        }
    }

    fn notify_trusted(&mut self, node: NodeId, how: Agreement) {
        let reason = match how {
            Agreement::Approved | Agreement::Accepted => None,
            Agreement::Mutual => Some("mutual"),
            Agreement::Automatic => Some("auto_approve"),
        };
        match reason {
            None => self.notify("handshake.approved", Some(json!({"peer_node_id": node}))),
            Some(reason) => {
                self.notify("handshake.auto_approved", Some(json!({"peer_node_id": node, "reason": reason})));
            }
        }
        self.notify(
            "trust.changed",
            Some(json!({"peer_node_id": node, "reason": reason, "state": "trusted"})),
        );
    }

    /// Has the handshake service carry a message to a peer.
    fn deliver(&mut self, now: Instant, to: NodeId, message: handshake::Message) {
        let kind = message.kind;
        let (done, outcome) = oneshot::channel();
        if self.deliveries.try_send(Delivery { to, message, done }).is_err() {
            return self.node.handshake_delivered(
                now,
                to,
                kind,
                Err("too many messages are on their way".to_owned()),
            );
        }
        let commands = self.commands.clone();
        self.tasks.spawn(async move {
            let result = match outcome.await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("the handshake service ended".to_owned()),
            };
            let _ = commands.send(Inbox::Delivered(Outcome { to, kind, result })).await;
        });
    }

    pub(super) fn on_delivered(&mut self, now: Instant, outcome: Outcome) {
        let Outcome { to, kind, result } = outcome;
        if kind == handshake::Kind::Request && result.is_ok() {
            self.settle_requests(to, Ok(()));
        }
        self.node.handshake_delivered(now, to, kind, result);
    }
}

/// Seconds since 1970, for what is stored and signed.
pub(super) fn wall() -> UnixTime {
    datetime::unix_seconds(SystemTime::now())
}
