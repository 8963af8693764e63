//! Carrying out what the trust book decides: messages to peers, changes at the registry, tunnels dropped.

use std::collections::BTreeMap;
use std::time::Instant;

use pilot_crypto::AgreementKey;
use pilot_wire::{NodeId, PublicKey, handshake};

use super::{Node, Timer};
use crate::path::Path;
use crate::trust::{Book, Member, Step, TrustError, UnixTime};
use crate::tunnel::Tunnel;
use crate::{DialError, Event, Query, QueryError, TrustEvent};

/// The owner's side of trust.
impl Node {
    /// All relations.
    #[must_use]
    pub fn trust(&self) -> &Book {
        &self.book
    }

    /// Puts back what was stored.
    pub fn restore_trust(&mut self, mut book: Book) {
        book.set_auto_approve(self.config.auto_approve);
        self.book = book;
    }

    /// Asks the owner of `to` for trust. [`TrustEvent::Trusted`] or [`TrustEvent::Rejected`] follows, some day.
    ///
    /// # Errors
    /// [`TrustError::Itself`].
    pub fn request_trust(
        &mut self,
        now: Instant,
        wall: UnixTime,
        to: NodeId,
        justification: String,
    ) -> Result<(), TrustError> {
        if self.id == Some(to) {
            return Err(TrustError::Itself(to));
        }
        let steps = self.book.request(to, justification, wall);
        self.decided(now, wall, steps);
        Ok(())
    }

    /// Says yes to a pending request.
    ///
    /// # Errors
    /// [`TrustError::NotPending`].
    pub fn approve(&mut self, now: Instant, wall: UnixTime, node: NodeId) -> Result<(), TrustError> {
        let steps = self.book.approve(node, wall)?;
        self.decided(now, wall, steps);
        Ok(())
    }

    /// Says no to a pending request.
    ///
    /// # Errors
    /// [`TrustError::NotPending`].
    pub fn reject(
        &mut self,
        now: Instant,
        wall: UnixTime,
        node: NodeId,
        reason: &str,
    ) -> Result<(), TrustError> {
        let steps = self.book.reject(node, reason)?;
        self.decided(now, wall, steps);
        Ok(())
    }

    /// Who is in networks of ours now, and is trusted for it. Tunnels to those who are not any more end, unless the
    /// owners agreed. What is pinned of a member stays pinned.
    pub fn set_members(&mut self, now: Instant, members: BTreeMap<NodeId, Member>) {
        let steps = self.book.set_members(members);
        self.carry_out(now, steps);
    }

    /// Ends trust. The peer is told if it can be reached, and its streams end.
    ///
    /// # Errors
    /// [`TrustError::NotTrusted`].
    pub fn revoke(&mut self, now: Instant, wall: UnixTime, node: NodeId) -> Result<(), TrustError> {
        let steps = self.book.revoke(node, wall)?;
        // Whoever is met anew may be of another make.
        self.modern.remove(&node);
        self.decided(now, wall, steps);
        Ok(())
    }
}

/// The peers' side of trust.
impl Node {
    /// A message came over a stream to port 444 from `from`. Ignored unless it says so itself and is signed
    /// with the key of that node. Its time is not judged: the tunnel proves that it is fresh, and the clocks of
    /// two laptops need not agree.
    pub fn handshake_received(
        &mut self,
        now: Instant,
        wall: UnixTime,
        from: NodeId,
        message: &handshake::Message,
    ) {
        let Some(us) = self.id else { return };
        let signed = handshake::signed_text(from, us);
        let key = message.public_key;
        let proven = self.peers.get(&from).and_then(|peer| peer.key);
        let genuine = message.node_id == from
            && proven.is_none_or(|proven| proven == key)
            && pilot_crypto::verify(&key, signed.as_bytes(), &message.signature);
        if !genuine {
            return self.drop_frame(super::Drop::BadSignature);
        }
        let steps = match message.kind {
            handshake::Kind::Request => {
                self.book.requested(from, Some(key), &message.justification, false, wall)
            }
            handshake::Kind::Accept => self.book.accepted(from, Some(key), wall),
            handshake::Kind::Reject => self.book.rejected(from, &message.reason, None),
            handshake::Kind::Revoke => self.book.revoked_by(from),
        };
        self.decided(now, wall, steps);
    }

    /// The registry carried a request. It vouches for the sender; the key is looked up and shown to the owner.
    pub fn relayed_request(&mut self, now: Instant, wall: UnixTime, from: NodeId, justification: &str) {
        if self.id != Some(from) {
            let steps = self.book.requested(from, None, justification, true, wall);
            self.decided(now, wall, steps);
        }
    }

    /// The registry carried the answer to a request of ours, given `at` that time.
    pub fn relayed_response(
        &mut self,
        now: Instant,
        wall: UnixTime,
        from: NodeId,
        accept: bool,
        at: Option<UnixTime>,
    ) {
        let steps = match accept {
            true => self.book.accepted(from, None, wall),
            false => self.book.rejected(from, "", at),
        };
        self.decided(now, wall, steps);
    }

    /// The registry says that trust between a node and us began or ended. What it said of that before is asked anew when
    /// it matters; what our owner decided stays, for that is not the registry's to change.
    pub fn doubt_trust(&mut self, node: NodeId) {
        self.directory.forget_trust(node);
    }

    /// How it went with a [`TrustEvent::Deliver`].
    pub fn handshake_delivered(
        &mut self,
        now: Instant,
        to: NodeId,
        kind: handshake::Kind,
        result: Result<(), String>,
    ) {
        match (kind, result) {
            (handshake::Kind::Revoke, _) => self.drop_peer(now, to),
            (handshake::Kind::Request, Err(reason)) if self.book.is_asked(to) => {
                self.events.push_back(Event::Trust(TrustEvent::Undeliverable { node: to, reason }));
            }
            (handshake::Kind::Request | handshake::Kind::Accept | handshake::Kind::Reject, _) => {}
        }
    }
}

impl Node {
    /// A peer has another key from now on, and the driver has seen it signed by the old key or by its recovery key. The
    /// pin moves. Whoever still holds the old key is no longer the peer: what was agreed with it ends, unless it was the
    /// old key itself that said so and the tunnel goes on by it (`keep`).
    pub fn rekeyed(&mut self, now: Instant, node: NodeId, key: PublicKey, keep: bool) {
        self.directory.learned_key(now, node, Some(key));
        if self.book.rekeyed(node, key) {
            self.tell(TrustEvent::Changed);
        }
        if let Some(identity) = self.modern.get_mut(&node) {
            *identity = key;
        }
        let holds_old = self.peers.get(&node).and_then(|peer| peer.key).is_some_and(|held| held != key);
        if holds_old {
            if !keep {
                self.disown(now, node);
            } else if let Some(peer) = self.peers.get_mut(&node) {
                peer.key = Some(key);
            }
        }
        self.reconsider(now, node);
    }

    fn decided(&mut self, now: Instant, wall: UnixTime, steps: Vec<Step>) {
        self.wall = Some((now, wall));
        self.carry_out(now, steps);
    }

    pub(super) fn carry_out(&mut self, now: Instant, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Store => self.tell(TrustEvent::Changed),
                Step::Tell(event) => self.tell(event),
                Step::SendRequest { to } => {
                    let justification = self.justification(to);
                    self.directory.ask(Query::RequestHandshake { to, justification });
                }
                Step::SendAccept { to, relayed: true } => {
                    self.directory.ask(Query::RespondHandshake { to, accept: true });
                }
                Step::SendAccept { to, relayed: false } => {
                    self.deliver(now, to, handshake::Kind::Accept, String::new());
                }
                Step::SendReject { to, relayed: true, .. } => {
                    self.directory.ask(Query::RespondHandshake { to, accept: false });
                }
                Step::SendReject { to, reason, relayed: false } => {
                    self.deliver(now, to, handshake::Kind::Reject, reason);
                }
                Step::SendRevoke { to } => {
                    self.directory.ask(Query::RevokeTrust(to));
                    self.directory.forget_trust(to);
                    if self.peers.get(&to).is_some_and(|peer| peer.tunnel.is_ready()) {
                        self.deliver(now, to, handshake::Kind::Revoke, String::new());
                    } else {
                        self.drop_peer(now, to);
                    }
                }
                Step::Report { peer } => {
                    self.directory.ask(Query::ReportTrust(peer));
                }
                Step::Dropped { peer } => {
                    self.directory.forget_trust(peer);
                    self.drop_peer(now, peer);
                }
                Step::Parted { peer, answered } => {
                    if answered {
                        self.directory.ask(Query::RevokeTrust(peer));
                    }
                    self.directory.forget_trust(peer);
                    self.drop_peer(now, peer);
                }
                Step::LearnKey { of } => match self.directory.key(now, of) {
                    super::Lookup::Known(key) => {
                        let steps = self.book.learned_key(of, key);
                        self.carry_out(now, steps);
                    }
                    super::Lookup::Asking | super::Lookup::Refused => {}
                },
            }
        }
    }

    fn tell(&mut self, event: TrustEvent) {
        self.events.push_back(Event::Trust(event));
    }

    fn justification(&self, to: NodeId) -> String {
        let outgoing = self.book.outgoing().find(|(node, _)| *node == to);
        outgoing.map(|(_, outgoing)| outgoing.justification.clone()).unwrap_or_default()
    }

    fn deliver(&mut self, now: Instant, to: NodeId, kind: handshake::Kind, reason: String) {
        let (Some(us), Some((then, wall))) = (self.id, self.wall) else { return };
        let wall = wall + (now - then).as_secs();
        let justification =
            if kind == handshake::Kind::Request { self.justification(to) } else { String::new() };
        let message = handshake::Message {
            kind,
            node_id: us,
            public_key: self.config.identity.public(),
            justification,
            signature: self.config.identity.sign(handshake::signed_text(us, to).as_bytes()),
            reason,
            timestamp: wall.cast_signed(),
        };
        self.tell(TrustEvent::Deliver { to, message });
    }

    /// The registry did, or refused, what a step asked of it. Messages that it will not carry are brought
    /// directly.
    pub(super) fn trust_step_done(&mut self, now: Instant, query: Query, result: Result<(), QueryError>) {
        match (query, result) {
            (_, Ok(()) | Err(QueryError::Already)) => {}
            (Query::RequestHandshake { to, .. }, Err(_)) => {
                self.deliver(now, to, handshake::Kind::Request, String::new());
            }
            (Query::RespondHandshake { to, accept }, Err(_)) => {
                let kind = if accept { handshake::Kind::Accept } else { handshake::Kind::Reject };
                self.deliver(now, to, kind, String::new());
            }
            (
                Query::ReportTrust(_)
                | Query::RevokeTrust(_)
                | Query::Resolve(_)
                | Query::PeerKey(_)
                | Query::CheckTrust(_),
                Err(_),
            ) => {}
        }
    }

    /// Ends the tunnel and the streams with somebody who was the peer until now. Dials go on: they are for the peer.
    fn disown(&mut self, now: Instant, node: NodeId) {
        let ours = AgreementKey::draw(&mut self.rng);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.tunnel = Tunnel::new(ours);
        peer.key = None;
        // It is somewhere else, too: what worked was the way to whoever held the old key.
        peer.path = Path::default();
        peer.location = None;
        let dials: Vec<_> = peer.dials.keys().copied().collect();
        for id in self.streams.with(node) {
            if !dials.contains(&id) {
                self.with_stream(now, id, |stream| stream.abort(now));
            }
        }
        if self.peers.get(&node).is_some_and(super::Peer::is_wanted) {
            self.want(now, node);
        }
        self.arm_peer(node);
    }

    /// Forgets keys and paths of a peer and ends its streams.
    fn drop_peer(&mut self, now: Instant, node: NodeId) {
        for id in self.streams.with(node) {
            self.with_stream(now, id, |stream| stream.abort(now));
        }
        let dials = self.peers.remove(&node).map(|peer| peer.dials).unwrap_or_default();
        for id in dials.into_keys() {
            self.fail_dial(now, id, DialError::NotTrusted(node));
        }
        self.timers.set(Timer::Peer(node), None);
    }
}
