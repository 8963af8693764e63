//! Agreeing on keys of the moment with nodes of this make (docs/handshake.md).

use std::time::Instant;

use pilot_wire::tunnel::{Busy, Cookie, MESSAGE_LEN, emit_key_request};
use pilot_wire::{NodeId, PublicKey};

use super::exchange::Offer;
use super::{Drop, Frame, Node, Query, Via};
use crate::path::candidate::CandidateSource;
use crate::tunnel::agreeing::{Initiated, Them, Us};
use crate::tunnel::{KeyShown, Proof};
use crate::{Event, PeerEvent};

/// Peers of which is remembered that they agree on keys of the moment. When full, a stranger makes room for a peer that is
/// trusted, and is not remembered itself.
pub(super) const MODERN_MAX: usize = 8192;

impl Node {
    /// A peer of our make that does not know who we are: we begin.
    pub(super) fn take_hello(&mut self, now: Instant, via: Via, offer: &Offer) {
        if self.is_genuine(now, offer) && self.request_limits.take(now, offer.sender) {
            self.peer(now, offer.sender).key = Some(offer.identity);
            self.offer(now, offer.sender, via);
        }
    }

    /// The peer begins. `vouched`: it has shown that it receives what is sent to its address.
    pub(super) fn take_initiation(
        &mut self,
        now: Instant,
        via: Via,
        offer: &Offer,
        message: &[u8; MESSAGE_LEN],
        vouched: bool,
    ) {
        let (Some(us), node) = (self.id, offer.sender) else { return };
        let tunnel = self.peers.get(&node).map(|peer| &peer.tunnel);
        match tunnel.map_or(Initiated::New, |tunnel| tunnel.what_is(message)) {
            Initiated::New => {}
            Initiated::Answered if self.reply_limits.take(now, node) => {
                return self.answer(now, node, via);
            }
            Initiated::Answered => return,
            Initiated::Spent => {
                self.drop_frame(Drop::Replayed);
                return self.learn_way(now, node, via);
            }
        }
        let them = Them { node, key: offer.identity };
        if tunnel.is_some_and(|tunnel| tunnel.insists(now, us, them)) {
            // It is to answer ours, which it has perhaps not seen.
            if self.reply_limits.take(now, node) {
                self.offer(now, node, via);
            }
            return;
        }
        if !vouched && !self.has_time_to_verify(now) {
            return self.ask_for_cookie(now, via, node, message);
        }
        if !self.is_signed(offer) {
            return;
        }
        self.peer(now, node);
        let ours = Us { node: us, identity: &self.config.identity, life: self.life };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Ok(shown) = peer.tunnel.answer(now, ours, them, message, &mut self.rng) else {
            // It is who it says it is, so it takes us for somebody else: our identity was replaced.
            self.drop_frame(Drop::BadSignature);
            if self.request_limits.take(now, node) {
                self.offer(now, node, via);
            }
            return;
        };
        self.knows(now, via, offer);
        self.answer(now, node, via);
        if shown == KeyShown::Installed {
            self.tunnel_ready(now, node);
        }
        self.arm_peer(node);
    }

    /// The peer answers what we began.
    pub(super) fn take_answer(
        &mut self,
        now: Instant,
        via: Via,
        offer: &Offer,
        to: [u8; 4],
        message: &[u8; MESSAGE_LEN],
    ) {
        let node = offer.sender;
        let Some(peer) = self.peers.get_mut(&node) else { return self.drop_frame(Drop::NotAuthentic) };
        let Some(proof) = peer.tunnel.answered(now, to, message) else {
            return self.drop_frame(Drop::NotAuthentic);
        };
        peer.knows_ours = true;
        if proof == Proof::Restarted {
            peer.path.peer_restarted();
        }
        if let Via::Direct(addr) = via
            && self.ledger.wrote(now, addr)
        {
            // What was begun went there, perhaps before anything was known of that address.
            peer.path.learn(now, addr, CandidateSource::Frames);
            peer.path.was_tried(now, addr);
        }
        self.knows(now, via, offer);
        self.agrees_anew(node);
        self.on_proof(now, node, via, proof);
        let waits = self.peers.get(&node).is_some_and(super::Peer::is_wanted);
        self.tunnel_ready(now, node);
        if !waits {
            // It keeps to the keys before until something comes under these.
            self.ask(now, node, via);
        }
        self.arm_peer(node);
    }

    /// What is known of a peer after an exchange with it.
    fn knows(&mut self, now: Instant, via: Via, offer: &Offer) {
        let peer = self.peer(now, offer.sender);
        peer.key = Some(offer.identity);
        peer.path.exchanged(now, via);
        let relayed = via == Via::Relay && peer.needs_location(now);
        let steps = self.book.learned_key(offer.sender, offer.identity);
        self.carry_out(now, steps);
        if relayed {
            self.directory.ask(Query::Resolve(offer.sender));
        }
    }

    /// Says under the keys in use that we have them.
    fn ask(&mut self, now: Instant, node: NodeId, via: Via) {
        match via {
            Via::Direct(addr) => {
                self.peer(now, node).path.learn(now, addr, CandidateSource::Frames);
                self.probe(now, node, addr);
            }
            Via::Relay => self.ping_relay(now, node),
        }
    }

    /// Keys of the moment that have been used for long enough are replaced while the peer is there.
    pub(super) fn rekey_if_due(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.rekey_at().is_none_or(|at| at > now) {
            return;
        }
        peer.rekey_tried = Some(now);
        if let Some(via) = peer.path.route() {
            self.offer(now, node, via);
        }
    }
}

/// Load.
impl Node {
    /// Whether an initiation comes with a cookie of ours for the address that it comes from.
    pub(super) fn is_vouched(&self, now: Instant, via: Via, node: NodeId, cookie: Option<Cookie>) -> bool {
        match (via, cookie) {
            (Via::Direct(addr), Some(cookie)) => self.cookies.holds(now, addr, node, cookie),
            (Via::Direct(_) | Via::Relay, _) => false,
        }
    }

    /// There is no time for an initiation, unless it is shown to come from where it says.
    pub(super) fn ask_for_cookie(
        &mut self,
        now: Instant,
        via: Via,
        node: NodeId,
        message: &[u8; MESSAGE_LEN],
    ) {
        self.drop_frame(Drop::TooMany);
        let (Some(us), Via::Direct(addr)) = (self.id, via) else { return };
        if let Some(cookie) = self.cookies.give(now, addr, node, &mut self.rng) {
            // Shorter than what it answers, so that it is of no use against others.
            let mut frame = Vec::with_capacity(52);
            emit_key_request(us, &self.request_key, &mut frame);
            let [a, b, c, d, ..] = *message;
            Busy { to: [a, b, c, d], cookie }.emit(&mut frame);
            self.outbox.push_back(Frame::whole(addr, frame));
        }
    }

    /// A peer that we want to agree with is busy: what was begun is repeated with its cookie.
    pub(super) fn take_cookie(&mut self, now: Instant, via: Via, node: NodeId, busy: Busy) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.tunnel.take_cookie(busy)
            && self.request_limits.take(now, node)
        {
            self.offer(now, node, via);
        }
    }
}

/// Memory.
impl Node {
    /// A peer was seen to agree on keys of the moment under this identity, in an earlier life of ours: less is not taken of
    /// it any more.
    pub fn remember_agreement(&mut self, node: NodeId, identity: PublicKey) {
        self.remember_modern(node, identity);
    }

    /// It has the keys of the moment: from now on it is told from whoever takes that away on the way.
    pub(super) fn agrees_anew(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get(&node) else { return };
        if let Some(key) = peer.key.filter(|_| peer.tunnel.is_agreed())
            && self.remember_modern(node, key)
        {
            self.events.push_back(Event::Peer(node, PeerEvent::Agreed(key)));
        }
    }

    /// Whether more is expected of this identity than it showed.
    pub(super) fn is_modern(&self, node: NodeId, identity: &PublicKey) -> bool {
        self.modern.get(&node) == Some(identity)
    }

    /// `true` if that is news.
    fn remember_modern(&mut self, node: NodeId, identity: PublicKey) -> bool {
        if self.modern.len() >= MODERN_MAX && !self.modern.contains_key(&node) {
            let stranger = self.modern.keys().find(|known| self.book.get(**known).is_none()).copied();
            match stranger.filter(|_| self.book.get(node).is_some()) {
                Some(stranger) => drop(self.modern.remove(&stranger)),
                None => return false,
            }
        }
        self.modern.insert(node, identity) != Some(identity)
    }
}
