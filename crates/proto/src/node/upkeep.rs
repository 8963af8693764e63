//! What time brings about: retries, keepalives, deadlines, answers of the registry.

use std::time::Instant;

use pilot_wire::packet::{Flags, Header, Protocol};
use pilot_wire::{Addr, NodeId, Port, beacon};

use super::peer::Location;
use super::{Node, Purpose, Timer, Via};
use crate::{Answer, DialError, Encryption, Event, PeerEvent, Query, QueryError, QueryId};

impl Node {
    /// Something is due. Harmless when called early or twice.
    pub fn handle_timeout(&mut self, now: Instant) {
        // Taken out first: what becomes due again at once waits for the next call, after the outputs were polled.
        let due: Vec<_> = std::iter::from_fn(|| self.timers.expire(now)).collect();
        for timer in due {
            match timer {
                Timer::Stream(id) => self.with_stream(now, id, |stream| stream.handle_timeout(now)),
                Timer::Peer(id) => self.tend(now, id),
                Timer::Pings => self.expire_pings(now),
                Timer::Beacon => self.discover(now),
            }
        }
    }

    /// The registry answered a question. Answers to questions that were never asked, or that do not fit, are
    /// ignored.
    pub fn handle_answer(&mut self, now: Instant, id: QueryId, answer: Answer) {
        let Some(query) = self.directory.answered(id) else { return };
        match (query, answer) {
            (Query::Resolve(node), Answer::Resolved(result)) => self.located(now, node, result),
            (Query::PeerKey(node), Answer::PeerKey(result)) => {
                match &result {
                    Err(QueryError::Unreachable(_)) => self.directory.key_unanswered(now, node),
                    Ok(_) | Err(_) => self.directory.learned_key(now, node, result.clone().ok()),
                }
                if let Ok(key) = result {
                    let steps = self.book.learned_key(node, key);
                    self.carry_out(now, steps);
                }
                self.reconsider(now, node);
            }
            (Query::CheckTrust(node), Answer::Trusted(result)) => {
                self.directory.learned_trust(now, node, result.ok());
                self.reconsider(now, node);
            }
            (query, Answer::Done(result)) => self.trust_step_done(now, query, result),
            (_, Answer::Resolved(_) | Answer::PeerKey(_) | Answer::Trusted(_)) => {}
        }
    }

    /// Somebody here wants to reach a peer: learn where it is and agree keys, if that is not done.
    pub(super) fn want(&mut self, now: Instant, node: NodeId) {
        let clear = self.config.encryption == Encryption::Off;
        let peer = self.peer(now, node);
        peer.used = now;
        peer.stir(now);
        if !peer.path.is_proven() && peer.needs_location(now) {
            self.directory.ask(Query::Resolve(node));
        }
        if !clear && !self.peers.get(&node).is_some_and(|peer| peer.tunnel.is_ready()) {
            // The key is needed when the peer answers; ask while its address is being asked for.
            let _ = self.identity_of(now, node);
        }
        let peer = self.peer(now, node);
        let blind = !peer.path.has_hints() && peer.needs_location(now);
        peer.expect_answer(now);
        if blind {
            // The relay needs no address, but a peer that first hears of us through it may stay there.
            peer.wait_for_location(now);
        }
        self.tend(now, node);
    }

    /// The registry said where a peer is, or that it will not.
    fn located(&mut self, now: Instant, node: NodeId, result: Result<crate::Location, QueryError>) {
        let relay = self.beacon.is_some();
        let trusted = self.book.get(node).is_some();
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let found = result.map(|location| {
            for addr in location.lan.iter().chain(&location.public) {
                peer.path.hint(*addr);
            }
            peer.path.set_relay_only(location.relay_only);
        });
        let hopeless = match &found {
            Ok(()) => None,
            Err(QueryError::NotFound) => Some(DialError::UnknownNode(node)),
            Err(QueryError::Denied | QueryError::Refused(_)) if !trusted => Some(DialError::NotTrusted(node)),
            Err(QueryError::Unreachable(reason)) if !relay && !peer.path.has_hints() => {
                Some(DialError::NoRegistry { node, reason: reason.clone() })
            }
            Err(_) => None,
        };
        peer.location = Some(Location { at: now, found });
        if let Some(error) = hopeless.filter(|_| !peer.path.is_proven()) {
            peer.give_up(now);
            for id in std::mem::take(&mut peer.dials).into_keys() {
                self.fail_dial(now, id, error.clone());
            }
            return self.arm_peer(node);
        }
        peer.hurry(now);
        if peer.tunnel.is_ready() && peer.path.is_improvable() {
            // It showed its key through the relay before we knew where it is.
            peer.search_again();
            self.offer_everywhere(now, node);
        }
        if self.config.encryption == Encryption::Off {
            for id in self.streams.with(node) {
                self.streams.wake(id);
            }
            let queue = self.peers.get_mut(&node).map(super::Peer::take_queue).unwrap_or_default();
            for packet in queue {
                self.send_packet(now, node, packet);
            }
        }
        self.tend(now, node);
    }

    /// Everything that may be due for one peer.
    fn tend(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.tunnel.expire(now);
        if peer.probe_due(now, &self.config.tunnel) {
            peer.expect_answer(now);
        }
        if let Some(tries) = peer.try_due(now) {
            self.try_again(now, node, tries);
        }
        self.expire_dials(now, node);
        self.look_for_better_path(now, node);
        if self.peers.get(&node).is_some_and(|peer| peer.keepalive_due(now, &self.config.tunnel)) {
            self.keep_alive(now, node);
        }
        self.forget_if_idle(now, node);
        self.arm_peer(node);
    }

    fn try_again(&mut self, now: Instant, node: NodeId, tries: usize) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.is_hopeless() {
            peer.give_up(now);
            self.events.push_back(Event::Peer(node, PeerEvent::Silent));
            return;
        }
        let ready = peer.tunnel.is_ready();
        let needs_location = peer.needs_location(now);
        if needs_location && tries > 1 {
            self.directory.ask(Query::Resolve(node));
        }
        if self.config.encryption == Encryption::Off {
            return;
        }
        if ready {
            peer.path.doubt_direct(now);
            for via in self.ways(node) {
                let purpose = match via {
                    Via::Direct(addr) => Purpose::Validate(addr),
                    Via::Relay => Purpose::Life,
                };
                let packet = self.start_ping(now, node, 0, purpose);
                self.send_packet_via(now, node, via, &packet);
            }
        }
        // A peer that lost its key cannot read the pings; one that has it ignores the offer.
        if !ready || tries > 2 {
            self.offer_everywhere(now, node);
        }
        if !ready && tries > 1 {
            self.request_everywhere(node);
        }
        if !self.peers.get(&node).is_some_and(|peer| peer.path.is_proven()) || tries > 2 {
            self.request_punch(node);
        }
    }

    /// Dials that waited long enough fail with what is known about the reason.
    fn expire_dials(&mut self, now: Instant, node: NodeId) {
        let config = &self.config.tunnel;
        let Some(peer) = self.peers.get(&node) else { return };
        let mut failed = Vec::new();
        for (&id, &since) in &peer.dials {
            let silent = peer.tunnel.heard().is_none_or(|heard| heard < since);
            if silent && since + config.unreachable_after <= now {
                failed.push((id, self.unreachable(node)));
            } else if since + config.unanswered_after <= now {
                let port = self.streams.get(id).map_or(Port(0), |entry| entry.tuple.remote.port);
                failed.push((id, DialError::Unanswered { node, port }));
            }
        }
        for (id, error) in failed {
            self.fail_dial(now, id, error);
        }
    }

    fn unreachable(&self, node: NodeId) -> DialError {
        let waited = self.config.tunnel.unreachable_after;
        let peer = self.peers.get(&node);
        let location = peer.and_then(|peer| peer.location.as_ref());
        let key_known = self.book.get(node).is_some_and(|trusted| trusted.key.is_some())
            || peer.is_some_and(|peer| peer.key.is_some());
        match location.map(|location| &location.found) {
            Some(Err(QueryError::Denied | QueryError::Refused(_))) => DialError::NotTrusted(node),
            Some(Err(QueryError::Unreachable(reason))) if !key_known => {
                DialError::NoRegistry { node, reason: reason.clone() }
            }
            None if self.peers.get(&node).is_none_or(|peer| !peer.path.has_hints()) => {
                DialError::NoRegistry { node, reason: "it gave no answer".into() }
            }
            Some(_) | None => {
                let name = |via: Via| match via {
                    Via::Direct(addr) => addr.to_string(),
                    Via::Relay => "relay".into(),
                };
                let tried: Vec<_> = self.ways(node).into_iter().map(name).collect();
                DialError::Unreachable { node, waited, tried: tried.join(", ") }
            }
        }
    }

    /// While frames go through the relay, the direct addresses are tried now and then.
    pub(super) fn look_for_better_path(&mut self, now: Instant, node: NodeId) {
        if !self.peers.get_mut(&node).is_some_and(|peer| peer.upgrade_due(now)) {
            return;
        }
        self.request_punch(node);
        for via in self.ways(node) {
            if let Via::Direct(addr) = via {
                let packet = self.start_ping(now, node, 0, Purpose::Validate(addr));
                self.send_packet_via(now, node, via, &packet);
            }
        }
    }

    /// An empty control packet in the tunnel (spec/dataplane.md 2.9).
    fn keep_alive(&mut self, now: Instant, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.sent = now;
        }
        let from = Addr::backbone(self.id.unwrap_or_default()).port(Port::PING);
        let header = Header::new(Protocol::Control, Flags::NONE, from, Addr::UNSET.port(Port::PING));
        let mut packet = Vec::new();
        header.emit_with(&[], &mut packet);
        if let Some(via) = self.peers.get(&node).and_then(|peer| peer.path.route()) {
            self.send_packet_via(now, node, via, &packet);
        }
    }

    fn forget_if_idle(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if !peer.is_idle(now) {
            return;
        }
        if self.book.get(node).is_some() {
            peer.used = now;
        } else {
            self.peers.remove(&node);
        }
    }

    fn expire_pings(&mut self, now: Instant) {
        while let Some(purpose) = self.pings.expire(now) {
            self.ping_failed(purpose);
        }
        self.timers.set(Timer::Pings, self.pings.poll_timeout());
    }

    pub(super) fn ping_failed(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Application(ping) => self.events.push_back(Event::Pong { ping, rtt: None }),
            Purpose::Validate(_) | Purpose::Life => {}
        }
    }

    fn discover(&mut self, now: Instant) {
        let Some(beacon) = &mut self.beacon else { return };
        if beacon.is_due(now) {
            let mut message = Vec::new();
            beacon::Message::Discover { node: self.id.unwrap_or_default(), key: None }.emit(&mut message);
            self.outbox.push_back((beacon.addr(), message));
        }
        self.timers.set(Timer::Beacon, Some(beacon.poll_timeout()));
    }

    /// Whether a peer is trusted as far as this node can tell without asking.
    #[must_use]
    pub fn is_trusted(&self, node: NodeId) -> bool {
        self.book.get(node).is_some()
    }
}
