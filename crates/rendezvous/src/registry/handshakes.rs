//! Requests for trust that go through the registry, and the trust they lead to (spec/registry.md 9).

use super::{
    ConnId, Key, Refusal, State,
    delivery::{self, Item},
    record,
};
use pilot_wire::{
    NodeId,
    registry::{Handshake, HandshakeNotice, HandshakeVerdict, Handshakes, NoticeKind, Response},
};
use std::{collections::BTreeMap, time::Instant};

/// Requests that wait in one inbox, one from each node.
const REQUESTS_MAX: usize = 100;
/// Answers that wait in one inbox. Each answers an own request; when it is full the oldest goes.
const VERDICTS_MAX: usize = 200;
/// Requests one node remembers having been asked. The oldest is forgotten; its sender has to ask again.
const ASKED_MAX: usize = 1000;
/// Longest justification, in bytes.
const JUSTIFICATION_MAX: usize = 1024;
/// How long a request can be answered.
const ASKED_LIFETIME: u64 = 30 * 86_400;

/// What waits for a node, and what it was asked.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) requests: Vec<Item<record::Request>>,
    pub(super) verdicts: Vec<Item<record::Verdict>>,
    pub(super) invites: Vec<record::Invite>,
    /// True if an invitation came since the last poll for them.
    pub(super) invited: bool,
    asked: BTreeMap<NodeId, record::Asked>,
}

impl Inbox {
    pub(super) fn restore(record: record::Inbox) -> Self {
        Self {
            requests: record.requests.into_iter().map(Item::new).collect(),
            verdicts: record.verdicts.into_iter().map(Item::new).collect(),
            invited: !record.invites.is_empty(),
            invites: record.invites,
            asked: record.asked,
        }
    }

    /// As the record says; what was handed out here stays so. True if something new waits.
    pub(super) fn renew(&mut self, record: record::Inbox) -> bool {
        let (requests, new_request) = delivery::renewed(std::mem::take(&mut self.requests), record.requests);
        let (verdicts, new_verdict) = delivery::renewed(std::mem::take(&mut self.verdicts), record.verdicts);
        let new_invite = record.invites.iter().any(|invite| !self.invites.contains(invite));
        *self = Self {
            requests,
            verdicts,
            invited: (self.invited || new_invite) && !record.invites.is_empty(),
            invites: record.invites,
            asked: record.asked,
        };
        new_request || new_verdict || new_invite
    }

    pub(super) fn record(&self) -> Option<record::Inbox> {
        let record = record::Inbox {
            requests: self.requests.iter().map(|item| item.content.clone()).collect(),
            verdicts: self.verdicts.iter().map(|item| item.content.clone()).collect(),
            invites: self.invites.clone(),
            asked: self.asked.clone(),
        };
        (record != record::Inbox::default()).then_some(record)
    }

    /// True if a poll would bring something.
    pub(super) fn has_news(&self) -> bool {
        self.invited || self.has_handshakes()
    }

    /// True if a request or an answer waits.
    pub(super) fn has_handshakes(&self) -> bool {
        self.requests.iter().any(Item::is_waiting) || self.verdicts.iter().any(Item::is_waiting)
    }

    fn remember(&mut self, from: NodeId, at: u64) {
        if self.asked.len() >= ASKED_MAX
            && !self.asked.contains_key(&from)
            && let Some((oldest, _)) =
                self.asked.iter().min_by_key(|(_, asked)| (asked.answer.is_none(), asked.at))
        {
            let oldest = *oldest;
            self.asked.remove(&oldest);
        }
        self.asked.insert(from, record::Asked { at, answer: None });
    }
}

impl State {
    pub(super) fn report_trust(&mut self, node: NodeId, peer: NodeId) -> Result<Response, Refusal> {
        self.known(peer)?;
        self.consent(node, peer)?;
        Ok(Response::ReportTrust {})
    }

    pub(super) fn revoke_trust(&mut self, node: NodeId, peer: NodeId) -> Result<Response, Refusal> {
        // The peer's consent ends with the pair, so that both must consent again. Without a pair it is its own affair.
        if self.trust.is_mutual(node, peer) {
            self.trust.withdraw(peer, node);
            self.touch(Key::Consents(peer));
            self.tell_about(peer, NoticeKind::Trust, node);
        }
        if !self.trust.withdraw(node, peer) {
            return Err(Refusal::NoTrust(node, peer));
        }
        self.touch(Key::Consents(node));
        Ok(Response::RevokeTrust {})
    }

    /// Tells the truth to the two, to their peers in a network, and to the operator; to others everybody is a stranger.
    pub(super) fn check_trust(&self, conn: ConnId, node: NodeId, peer: NodeId, token: &str) -> Response {
        let viewers = self.viewers(conn);
        let may_know = viewers.contains(&node) || viewers.contains(&peer) || self.is_admin(token);
        let trusted = self.trust.is_mutual(node, peer) || self.networks.share_one(node, peer);
        Response::CheckTrust { trusted: may_know && trusted }
    }

    /// The request is the sender's consent: it wants to be found by the receiver.
    pub(super) fn request_handshake(
        &mut self,
        now: Instant,
        request: Handshake,
    ) -> Result<Response, Refusal> {
        let (from, to) = (request.from_node_id, request.to_node_id);
        let length = request.justification.len();
        if length > JUSTIFICATION_MAX {
            return Err(Refusal::JustificationTooLong(length, JUSTIFICATION_MAX));
        }
        let at = self.clock.unix(now);
        let inbox = self.inboxes.entry(to).or_default();
        if inbox.requests.iter().any(|item| item.is_waiting() && item.content.from == from) {
            return Err(Refusal::AlreadyPending(from));
        }
        if inbox.requests.len() >= REQUESTS_MAX {
            return Err(Refusal::InboxFull(to));
        }
        self.consent(from, to)?;
        let inbox = self.inboxes.entry(to).or_default();
        inbox.remember(from, at);
        inbox.requests.push(record::Request { from, justification: request.justification, at }.into());
        self.touch(Key::Inbox(to));
        self.tell(to);
        Ok(Response::RequestHandshake { status: "delivered".to_owned() })
    }

    pub(super) fn poll_handshakes(&mut self, conn: ConnId, node: NodeId) -> Response {
        let Some(inbox) = self.inboxes.get_mut(&node) else {
            return Response::PollHandshakes(Handshakes::default());
        };
        let requests = delivery::hand_out(&mut inbox.requests, conn);
        let verdicts = delivery::hand_out(&mut inbox.verdicts, conn);
        if !(requests.is_empty() && verdicts.is_empty())
            && let Some(session) = self.sessions.get_mut(&conn)
        {
            session.handed_out.insert(node);
        }
        let requests = requests.into_iter().map(|request| HandshakeNotice {
            from_node_id: request.from,
            public_key: self.nodes.get(&request.from).map(|node| node.key),
            justification: request.justification,
            timestamp: request.at,
        });
        let verdicts = verdicts.into_iter().map(|verdict| HandshakeVerdict {
            from_node_id: verdict.from,
            accept: verdict.accept,
            timestamp: verdict.at,
        });
        Response::PollHandshakes(Handshakes { requests: requests.collect(), responses: verdicts.collect() })
    }

    /// Only what was asked can be answered (spec/registry.md 23 S0), and only once; the same answer again is a client
    /// that did not get the reply.
    pub(super) fn respond_handshake(
        &mut self,
        now: Instant,
        node: NodeId,
        peer: NodeId,
        accept: bool,
    ) -> Result<Response, Refusal> {
        let at = self.clock.unix(now);
        let asked = self.inboxes.get_mut(&node).and_then(|inbox| inbox.asked.get_mut(&peer));
        let asked = asked
            .filter(|asked| at.saturating_sub(asked.at) < ASKED_LIFETIME)
            .ok_or(Refusal::NotPending(peer))?;
        match asked.answer {
            Some(answer) if answer == accept => {
                return Ok(Response::RespondHandshake { peer_id: peer, accept });
            }
            Some(_) => return Err(Refusal::AlreadyAnswered(peer)),
            None => asked.answer = Some(accept),
        }
        if let Some(inbox) = self.inboxes.get_mut(&node) {
            inbox.requests.retain(|item| item.content.from != peer);
        }
        self.touch(Key::Inbox(node));
        if accept {
            self.consent(node, peer)?;
        } else {
            self.trust.withdraw(peer, node);
            self.trust.withdraw(node, peer);
            self.touch(Key::Consents(peer));
            self.touch(Key::Consents(node));
        }
        let inbox = self.inboxes.entry(peer).or_default();
        if inbox.verdicts.len() >= VERDICTS_MAX {
            inbox.verdicts.remove(0);
        }
        inbox.verdicts.push(record::Verdict { from: node, accept, at }.into());
        self.touch(Key::Inbox(peer));
        self.tell(peer);
        Ok(Response::RespondHandshake { peer_id: peer, accept })
    }

    fn consent(&mut self, node: NodeId, peer: NodeId) -> Result<(), Refusal> {
        if self.trust.consent(node, peer)? {
            self.touch(Key::Consents(node));
            if self.trust.is_mutual(node, peer) {
                self.tell_about(peer, NoticeKind::Trust, node);
            }
        }
        Ok(())
    }
}
