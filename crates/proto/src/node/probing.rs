//! Trying ways to a peer: probes, rounds of them, what is told to the other side, and moves from one way to another.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilot_wire::packet::{Flags, Header, Protocol};
use pilot_wire::path::{self, Candidates};
use pilot_wire::{Addr, NodeId, beacon};

use super::{Frame, Node, Peer, Purpose, Via};
use crate::path::candidate::{CandidateSource, is_plausible};
use crate::path::search::Why;
use crate::path::{Moved, Reaction};
use crate::{Encryption, Event, PeerEvent, Query};

/// Our addresses are told to a peer this often at most, unless they change.
const TOLD_APART: Duration = Duration::from_secs(1);

/// A punch command without a name is for the peer that we asked to be introduced to, if that was not longer ago.
const INTRODUCTION_LIFE: Duration = Duration::from_secs(2);

/// Introductions asked for at one time. Older ones are answered or lost.
pub(super) const INTRODUCTIONS_MAX: usize = 64;

impl Node {
    /// Does what a path wants done.
    pub(super) fn react(&mut self, now: Instant, node: NodeId, reaction: Reaction) {
        if let Some(addr) = reaction.check {
            self.ping_address(now, node, addr);
        }
        if let Some(addr) = reaction.probe {
            self.probe(now, node, addr);
        }
        if let Some(moved) = reaction.moved {
            self.moved(now, node, moved);
        }
    }

    /// What went to a peer was not acknowledged in time. Its frames may come another way than ours go, so that it is heard
    /// while nothing reaches it.
    pub(super) fn suspect_route(&mut self, now: Instant, node: NodeId) {
        if let Some(addr) = self.peers.get_mut(&node).and_then(|peer| peer.path.suspect_route(now)) {
            self.ping_address(now, node, addr);
            self.arm_peer(node);
        }
    }

    /// Our frames go another way from now on.
    pub(super) fn moved(&mut self, now: Instant, node: NodeId, moved: Moved) {
        let event = match moved.to {
            Via::Direct(addr) => PeerEvent::Direct(addr),
            Via::Relay => PeerEvent::Relayed,
        };
        self.events.push_back(Event::Peer(node, event));
        self.mtu_of_another_path(now, node, moved.to);
        self.tunnel_ready(now, node);
        if moved.lost {
            // What is under way on the old path is gone.
            for id in self.streams.with(node) {
                self.with_stream(now, id, |stream| stream.path_recovered(now));
            }
        }
        if moved.to == Via::Relay {
            self.look_for_better_path(now, node);
        }
        self.arm_peer(node);
    }

    /// Asks an address for an answer, if it may be written to.
    pub(super) fn probe(&mut self, now: Instant, node: NodeId, addr: SocketAddr) {
        if self.may_ask(now, node, addr) {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.path.was_tried(now, addr);
            }
            self.ping_address(now, node, addr);
        }
    }

    fn ping_address(&mut self, now: Instant, node: NodeId, addr: SocketAddr) {
        let packet = self.start_ping(now, node, 0, Purpose::Way);
        self.emit_packet(now, node, Via::Direct(addr), &packet);
    }

    /// Asks for an answer through the relay.
    pub(super) fn ping_relay(&mut self, now: Instant, node: NodeId) {
        if self.beacon.is_some() {
            let packet = self.start_ping(now, node, 0, Purpose::Way);
            self.emit_packet(now, node, Via::Relay, &packet);
        }
    }

    /// Whether a packet that is no answer may go to an address. The last of the few that one may have before it answers
    /// is for an answer: two sides that only ask never hear of each other.
    pub(super) fn may_ask(&mut self, now: Instant, node: NodeId, addr: SocketAddr) -> bool {
        self.is_unlimited(node, addr) || self.ledger.take_spare(now, addr)
    }

    /// Whether one more packet may go to an address; if it never answered, the packet is counted.
    pub(super) fn may_write(&mut self, now: Instant, node: NodeId, addr: SocketAddr) -> bool {
        self.is_unlimited(node, addr) || self.ledger.take(now, addr)
    }

    /// The same, without counting any.
    pub(super) fn has_words_for(&self, now: Instant, node: NodeId, addr: SocketAddr) -> bool {
        self.is_unlimited(node, addr) || self.ledger.has_left(now, addr)
    }

    /// Whether what a peer began, and nobody else can have begun, may be answered to an address.
    pub(super) fn may_answer(&mut self, now: Instant, node: NodeId, addr: SocketAddr) -> bool {
        self.is_unlimited(node, addr) || self.ledger.take_in_return(now, addr)
    }

    /// It answered before, or nobody can prove anything here.
    fn is_unlimited(&self, node: NodeId, addr: SocketAddr) -> bool {
        self.config.encryption == Encryption::Off
            || self.peers.get(&node).is_some_and(|peer| peer.path.has_answered(addr))
    }

    /// The way that one more frame to a peer may go: the route, or what replaces it while it is not proven.
    pub(super) fn way_to(&mut self, now: Instant, node: NodeId) -> Option<Via> {
        let peer = self.peers.get(&node)?;
        let clear = self.config.encryption == Encryption::Off;
        let first = || if clear { peer.path.addresses().first().copied().map(Via::Direct) } else { None };
        match peer.path.route().or_else(first)? {
            Via::Direct(addr) if !clear && !peer.path.has_answered(addr) => {
                let relay = self.beacon.is_some().then_some(Via::Relay);
                // The last word is for who has nothing else: the relay brings what is repeated, and what is not understood
                // needs an exchange.
                let allowed = match peer.knows_ours && relay.is_none() {
                    true => self.ledger.take(now, addr),
                    false => self.ledger.take_spare(now, addr),
                };
                if allowed { Some(Via::Direct(addr)) } else { relay }
            }
            via @ (Via::Direct(_) | Via::Relay) => Some(via),
        }
    }

    /// While no address works, and for one round after the peer named new ones, they are tried now and then.
    pub(super) fn look_for_better_path(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if !peer.tunnel.is_proven() || self.config.encryption == Encryption::Off {
            return;
        }
        let in_use = peer.is_in_use(now);
        match (peer.path.is_improvable(), peer.path.search.is_on()) {
            (true, false) if in_use => peer.path.search.start(now, Why::Wanted),
            (false, true) if !peer.path.search.is_young() => peer.path.search.stop(),
            (true | false, true | false) => {}
        }
        while let Some(shot) = self.peers.get_mut(&node).and_then(|peer| peer.path.search.due(now, in_use)) {
            if shot.first {
                self.tell_candidates(now, node);
                self.request_punch(now, node);
                if self.peers.get(&node).is_some_and(|peer| peer.needs_location(now)) {
                    self.directory.ask(Query::Resolve(node));
                }
            }
            let Some(path) = self.peers.get(&node).map(|peer| &peer.path) else { return };
            let (targets, wishes) = (path.targets(), path.wishes(now));
            for addr in targets {
                if shot.first && shot.why == Why::Wanted && wishes.contains(&addr) {
                    self.ledger.renew(now, addr);
                }
                self.probe(now, node, addr);
            }
        }
        self.arm_peer(node);
    }

    /// A tunnel came about, or the peer has another life: both sides look for the best way.
    pub(super) fn begin_search(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let wanted = peer.is_wanted();
        peer.path.search.start(now, if wanted { Why::Wanted } else { Why::Told });
        if wanted {
            for addr in peer.path.wishes(now).into_iter().filter(|addr| !peer.path.has_answered(*addr)) {
                self.ledger.grant(now, addr);
            }
        }
        self.look_for_better_path(now, node);
    }

    /// Tells a peer our addresses, over the way in use. Those of our own network are for friends only.
    pub(super) fn tell_candidates(&mut self, now: Instant, node: NodeId) {
        let trusted = self.book.get(node).is_some();
        let mut list = self.local_candidates();
        list.retain(|candidate| trusted || candidate.kind != path::Kind::Host);
        list.truncate(path::CANDIDATES_MAX);
        let candidates = Candidates { generation: self.generation, nat: self.surveyor.nat(), list };
        let from = Addr::backbone(self.id.unwrap_or_default()).port(path::PORT);
        let header = Header::new(Protocol::Control, Flags::NONE, from, Addr::backbone(node).port(path::PORT));
        let mut payload = Vec::new();
        candidates.emit(&mut payload);
        let mut packet = Vec::new();
        header.emit_with(&[&payload], &mut packet);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.told = Some(now);
        if let Some(via) = peer.path.route().filter(|_| peer.path.is_proven()) {
            self.emit_packet(now, node, via, &packet);
        }
    }

    /// A peer told us its addresses.
    pub(super) fn on_candidates(&mut self, now: Instant, node: NodeId, payload: &[u8]) {
        let Ok(candidates) = Candidates::parse(payload) else { return };
        let own = self.local.clone();
        let loopback = self.lives_on_loopback();
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if !peer.path.told(now, &candidates, |addr| is_plausible(addr, loopback) && !own.contains(&addr)) {
            return;
        }
        let answer = peer.told.is_none_or(|told| told + TOLD_APART <= now);
        peer.path.search.start(now, Why::Told);
        if answer {
            self.tell_candidates(now, node);
        }
        self.look_for_better_path(now, node);
    }

    /// The beacon tells both sides to open their NATs for each other.
    pub(super) fn request_punch(&mut self, now: Instant, node: NodeId) {
        let relay_only = self.peers.get(&node).is_some_and(|peer| peer.path.is_relay_only());
        if let (Some(us), Some(beacon), false) = (self.id, &self.beacon, relay_only) {
            let mut message = Vec::new();
            beacon::Message::PunchRequest { requester: us, target: node, grant: None }.emit(&mut message);
            self.outbox.push_back(Frame::whole(beacon.addr(), message));
            self.introductions.retain(|(asked, at)| *asked != node && *at + INTRODUCTION_LIFE > now);
            if self.introductions.len() < INTRODUCTIONS_MAX {
                self.introductions.push_back((node, now));
            }
        }
    }

    /// The beacon introduces us to somebody at `addr`: we asked for it, or they did.
    pub(super) fn on_introduction(&mut self, now: Instant, addr: SocketAddr) {
        if !is_plausible(addr, self.lives_on_loopback()) {
            return;
        }
        self.introductions.retain(|(_, at)| *at + INTRODUCTION_LIFE > now);
        if let [(node, _)] = *self.introductions.make_contiguous()
            && let Some(peer) = self.peers.get_mut(&node)
        {
            peer.path.learn(now, addr, CandidateSource::Introduced);
        }
        let known = |peer: &Peer| peer.tunnel.is_proven() && peer.path.addresses().contains(&addr);
        if let Some(node) = self.peers.iter().find(|(_, peer)| known(peer)).map(|(&node, _)| node) {
            // A probe opens our box as well as a punch does, and may be answered.
            self.probe(now, node, addr);
        } else if !self.ledger.wrote(now, addr) && self.ledger.take_spare(now, addr) {
            // What was sent there before has opened our box. Of the few packets, the others are worth more.
            let mut punch = Vec::new();
            pilot_wire::tunnel::emit_punch(&mut punch);
            self.outbox.push_back(Frame::whole(addr, punch));
        }
    }

    /// Whether everything happens on one machine.
    pub(super) fn lives_on_loopback(&self) -> bool {
        let beacon = self.beacon.as_ref().map(|beacon| beacon.addr().ip().is_loopback());
        beacon.unwrap_or(true) || self.local.iter().any(|addr| addr.ip().is_loopback())
    }
}
