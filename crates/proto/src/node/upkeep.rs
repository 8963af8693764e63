//! What time brings about: retries, keepalives, deadlines, answers of the registry.

use std::time::{Duration, Instant};

use pilot_wire::{NodeId, Port, beacon};

use super::peer::{Location, Peer};
use super::{Frame, Node, Purpose, Timer, Via};
use crate::path::candidate::is_plausible;
use crate::path::search::Why;
use crate::{Answer, BeaconEvent, DialError, Encryption, Event, PeerEvent, Query, QueryError, QueryId};

/// A direct way is doubted when an answer has been waited for this long.
const DOUBT_AFTER: Duration = Duration::from_millis(200);

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
                Timer::Survey => self.go_on_surveying(now),
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
                self.identified(now, node);
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
        peer.wanted = Some(now);
        if !peer.path.is_proven() && peer.needs_location(now) {
            self.directory.ask(Query::Resolve(node));
        }
        if !clear && !self.peers.get(&node).is_some_and(|peer| peer.tunnel.is_ready()) {
            // Both are needed when the peer answers; ask while its address is being asked for.
            let _ = self.identity_of(now, node);
            let _ = self.agrees_keys(now, node);
        }
        let identified = clear || !self.is_being_identified(now, node);
        let peer = self.peer(now, node);
        let blind = !peer.path.has_candidates() && peer.needs_location(now) || !identified;
        let fresh = !peer.is_awaited();
        let needs_relay = peer.path.is_improvable();
        peer.expect_answer(now);
        if fresh && !peer.tunnel.is_ready() {
            for addr in peer.path.wishes(now) {
                self.ledger.renew(now, addr);
            }
        }
        if needs_relay && let Some(beacon) = &mut self.beacon {
            beacon.hurry(now);
            self.timers.set(Timer::Beacon, Some(beacon.poll_timeout()));
        }
        let peer = self.peer(now, node);
        if blind {
            // The relay needs no address, but a peer that first hears of us through it may stay there. And who does not know
            // whom to expect can only say hello, which costs a round trip.
            peer.wait_for_location(now);
        }
        self.tend(now, node);
    }

    /// The registry said where a peer is, or that it will not.
    fn located(&mut self, now: Instant, node: NodeId, result: Result<crate::Location, QueryError>) {
        let relay = self.beacon.is_some();
        let trusted = self.book.get(node).is_some();
        let (loopback, own) = (self.lives_on_loopback(), self.local.clone());
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let mut seen = None;
        let found = result.map(|mut location| {
            seen = location.seen;
            let fits = |addr: &_| is_plausible(*addr, loopback) && !own.contains(addr);
            location.signed.retain(fits);
            location.signed_lan.retain(fits);
            location.lan.retain(fits);
            location.public = location.public.filter(fits);
            peer.path.located(now, &location);
        });
        let hopeless = match &found {
            Ok(()) => None,
            Err(QueryError::NotFound) => Some(DialError::UnknownNode(node)),
            Err(QueryError::Denied | QueryError::Refused(_)) if !trusted => Some(DialError::NotTrusted(node)),
            Err(QueryError::Unreachable(reason)) if !relay && !peer.path.has_candidates() => {
                Some(DialError::NoRegistry { node, reason: reason.clone() })
            }
            Err(_) => None,
        };
        let is_news = found.is_ok();
        peer.location = Some(Location { at: now, found, seen });
        if let Some(error) = hopeless.filter(|_| !peer.path.is_proven()) {
            peer.give_up(now);
            for id in std::mem::take(&mut peer.dials).into_keys() {
                self.fail_dial(now, id, error.clone());
            }
            return self.arm_peer(node);
        }
        let identified = self.config.encryption == Encryption::Off || !self.is_being_identified(now, node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if (is_news || !peer.was_tried()) && (identified || peer.was_tried()) {
            // Not after a refusal: whoever is tried again because of it asks again, too, and so on.
            peer.hurry(now);
        }
        if peer.tunnel.is_proven() && peer.path.is_improvable() {
            // It showed its key through the relay before we knew where it is.
            let why = if peer.is_in_use(now) { Why::Wanted } else { Why::Told };
            peer.path.search.start(now, why);
        }
        if self.config.encryption == Encryption::Off {
            for id in self.streams.with(node) {
                self.streams.wake(id);
            }
            let queue = self.peers.get_mut(&node).map(Peer::take_queue).unwrap_or_default();
            for packet in queue {
                self.send_packet(now, node, packet);
            }
        }
        self.tend(now, node);
    }

    /// Whether the registry has been asked who a peer is, and that is all that is known.
    fn is_being_identified(&self, now: Instant, node: NodeId) -> bool {
        self.known_identity(now, node).is_none() && self.directory.is_asking(&Query::PeerKey(node))
    }

    /// The registry said who a peer is, or did not: what waited for that goes out, unless its address is awaited, too.
    fn identified(&mut self, now: Instant, node: NodeId) {
        let locating = self.directory.is_asking(&Query::Resolve(node));
        if let Some(peer) = self.peers.get_mut(&node).filter(|peer| !peer.was_tried() && !locating) {
            peer.hurry(now);
            self.tend(now, node);
        }
    }

    /// Everything that may be due for one peer.
    pub(super) fn tend(&mut self, now: Instant, node: NodeId) {
        let polite = self.id > Some(node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.tunnel.expire(now);
        let moved = peer.path.expire(now);
        if peer.stalls(now) {
            peer.ask_now(now);
        }
        self.probe_mtu(now, node);
        let Some(peer) = self.peers.get(&node) else { return };
        if peer.watch_due(now, &self.config.tunnel, polite) {
            self.watch(now, node);
        }
        if let Some(moved) = moved {
            self.moved(now, node, moved);
        }
        if let Some(tries) = self.peers.get_mut(&node).and_then(|peer| peer.try_due(now)) {
            self.try_again(now, node, tries);
        }
        self.expire_dials(now, node);
        self.rekey_if_due(now, node);
        self.look_for_better_path(now, node);
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
        // A key that the peer never used may be one that it does not know we have: it must see ours first.
        let ready = peer.tunnel.is_proven();
        let needs_location = peer.needs_location(now);
        if needs_location && tries > 1 {
            self.directory.ask(Query::Resolve(node));
        }
        if self.config.encryption == Encryption::Off {
            if tries > 1 {
                self.ask_every_way(now, node);
            }
            return;
        }
        if ready {
            self.ask_every_way(now, node);
        } else {
            let wanted = self.peers.get(&node).is_some_and(Peer::is_wanted);
            for addr in self.peers.get(&node).map(|peer| peer.path.wishes(now)).unwrap_or_default() {
                if wanted {
                    self.ledger.renew(now, addr);
                }
            }
        }
        // A peer that lost its key cannot read the pings; one that has it ignores the offer.
        if !ready || tries > 2 {
            self.offer_everywhere(now, node);
        }
        if !ready && tries > 1 {
            self.request_everywhere(node);
            if self.peers.get(&node).is_some_and(|peer| peer.tunnel.is_ready()) {
                // The peer has shown its key, and what was to be said under it had no packet left to go in.
                self.tunnel_ready(now, node);
            }
        }
        if tries == 2 {
            // Perhaps it is our own way to the beacon that is gone: behind a box that restarted nobody else can know.
            self.announce(now);
        }
        if !self.peers.get(&node).is_some_and(|peer| peer.path.is_proven()) || tries > 2 {
            self.request_punch(now, node);
        }
    }

    /// The peer has a key and does not answer: every way that ever worked is asked, and others are looked for. With
    /// encryption off anybody may have planted the address in use, so that all others are asked, too.
    fn ask_every_way(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.waited(now) >= DOUBT_AFTER {
            if let Some(moved) = peer.path.doubt_direct(now) {
                self.moved(now, node, moved);
            }
        } else {
            peer.path.recheck(now);
        }
        let clear = self.config.encryption == Encryption::Off;
        let asked = |peer: &Peer| if clear { peer.path.addresses() } else { peer.path.known_addresses() };
        for addr in self.peers.get(&node).map(asked).unwrap_or_default() {
            self.probe(now, node, addr);
        }
        self.ping_relay(now, node);
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.is_in_use(now)
            && peer.path.is_improvable()
        {
            peer.path.search.start(now, Why::Wanted);
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
                failed.push((id, self.unreachable(now, node)));
            } else if since + config.unanswered_after <= now {
                let port = self.streams.get(id).map_or(Port(0), |entry| entry.tuple.remote.port);
                failed.push((id, DialError::Unanswered { node, port }));
            }
        }
        for (id, error) in failed {
            self.fail_dial(now, id, error);
        }
    }

    fn unreachable(&self, now: Instant, node: NodeId) -> DialError {
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
            None if self.peers.get(&node).is_none_or(|peer| !peer.path.has_candidates()) => {
                DialError::NoRegistry { node, reason: "it gave no answer".into() }
            }
            Some(_) | None => {
                DialError::Unreachable { node, waited, silence: Box::new(self.silence(now, node)) }
            }
        }
    }

    /// Asks for a sign of life on the way in use, which keeps it open and shows whether it works.
    fn watch(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let route = peer.path.route();
        let clear = self.config.encryption == Encryption::Off;
        peer.expect_answer(now);
        match route {
            _ if clear => {
                let packet = self.start_ping(now, node, 0, Purpose::Way);
                self.send_packet(now, node, packet);
            }
            Some(Via::Direct(addr)) => self.probe(now, node, addr),
            Some(Via::Relay) => self.ping_relay(now, node),
            None => {}
        }
    }

    fn forget_if_idle(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if !peer.is_idle(now) {
            return;
        }
        // Of a network with thousands of members each would keep all others busy.
        if self.book.agreed(node).is_some() {
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
            Purpose::Way => {}
        }
    }

    fn discover(&mut self, now: Instant) {
        let needed = self.relay_is_needed(now);
        let Some(beacon) = &mut self.beacon else { return };
        if beacon.is_due(now, needed) {
            let mut message = Vec::new();
            // With the key, which says that a challenge would be answered.
            let (node, key) = (self.id.unwrap_or_default(), Some(self.config.identity.public()));
            beacon::Message::Discover { node, key, proof: None }.emit(&mut message);
            self.outbox.push_back(Frame::whole(beacon.addr(), message));
            if beacon.falls_silent(now) {
                self.events.push_back(Event::Beacon(BeaconEvent::Silent));
            } else if needed && beacon.is_late() {
                self.events.push_back(Event::Beacon(BeaconEvent::Late));
            }
        }
        self.timers.set(Timer::Beacon, Some(beacon.poll_timeout()));
    }

    /// Whether something here waits for what only the relay brings.
    fn relay_is_needed(&self, now: Instant) -> bool {
        let is_without = |peer: &Peer| peer.path.is_improvable() && peer.is_in_use(now);
        self.peers.values().any(is_without)
    }

    /// Whether a peer is trusted as far as this node can tell without asking.
    #[must_use]
    pub fn is_trusted(&self, node: NodeId) -> bool {
        self.book.get(node).is_some()
    }
}
