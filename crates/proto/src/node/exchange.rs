//! Agreeing keys with a peer: offers sent, offers taken.

use std::time::{Duration, Instant};

use pilot_wire::tunnel::{Busy, Extension, KeyExchange, Nonce};
use pilot_wire::{AgreementPublic, NodeId, PublicKey, Signature};
use rand::Rng;

use super::{Drop, Frame, Lookup, Node, PEERS_MAX, Purpose, STRANGERS, Source, Via};
use crate::path::candidate::CandidateSource;
use crate::rate::Rate;
use crate::tunnel::KeyShown;
use crate::tunnel::agreeing::{Them, Us};
use crate::{Encryption, Event, KeyAgreement, PeerEvent, Query};

/// Offers held while the registry is asked who the sender is.
pub(super) const HELD_MAX: usize = 256;

/// What the registry has not said in this time makes room for others: it may never say it.
const HELD_LIFE: Duration = Duration::from_secs(30);

/// Pause between two searches for such.
const HELD_SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// An offer of a key we have is answered if the peer seems not to have ours, at most this often.
const REPEAT_INTERVAL: Duration = Duration::from_millis(500);

/// The same before anything came under the peer's key: it waits a quarter of a second between its first tries.
const FIRST_REPEAT_INTERVAL: Duration = Duration::from_millis(200);

/// The peer seems not to have our key when nothing came for this long.
const SILENCE: Duration = Duration::from_secs(6);

/// Signatures checked, from all sources together: a flood of forged exchanges must leave time for the rest.
const VERIFICATIONS: Rate = Rate { burst: 256, interval: Duration::from_micros(500) };

/// A key exchange as it came, with its signature unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) sender: NodeId,
    agreement: AgreementPublic,
    pub(super) identity: PublicKey,
    signature: Signature,
    said: Extension,
    /// It came with a cookie of ours: the sender receives what is sent to its address.
    vouched: bool,
}

impl From<KeyExchange<'_>> for Offer {
    fn from(frame: KeyExchange<'_>) -> Self {
        let KeyExchange { sender, agreement, identity, signature, trailer } = frame;
        Self { sender, agreement, identity, signature, said: Extension::parse(trailer), vouched: false }
    }
}

/// Whether one more frame of an exchange is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Yes,
    TooMany,
    /// This node agrees on no keys, or not with itself.
    Never,
}

/// An offer that waits for an answer of the registry.
#[derive(Debug)]
pub(super) struct Held {
    offer: Offer,
    via: Via,
    /// Another way that it came.
    also: Option<Via>,
    since: Instant,
}

impl Node {
    /// A key exchange (PILA) came.
    pub(super) fn on_offer(&mut self, now: Instant, via: Via, mut offer: Offer) {
        if self.config.agreement == KeyAgreement::AsShown {
            offer.said = Extension::Absent;
        }
        let mut begins = None;
        if let Extension::Initiation { message, cookie } = offer.said {
            begins = Some(message);
            offer.vouched = self.is_vouched(now, via, offer.sender, cookie);
        }
        match self.takes_exchange(now, via, offer.sender, offer.vouched) {
            Takes::Yes if offer.vouched || self.has_time_for(now, offer.sender) => {
                self.consider(now, via, offer)
            }
            Takes::Yes | Takes::TooMany => match begins {
                Some(message) => self.ask_for_cookie(now, via, offer.sender, &message),
                None => self.drop_frame(Drop::TooMany),
            },
            Takes::Never => {}
        }
    }

    /// A request for our key (PILK) came: it proves nothing, so nothing is installed.
    pub(super) fn on_key_request(&mut self, now: Instant, via: Via, sender: NodeId, trailer: &[u8]) {
        if let Some(busy) = Busy::parse(trailer) {
            return self.take_cookie(now, via, sender, busy);
        }
        let known = self.peers.contains_key(&sender) || self.book.get(sender).is_some();
        // Whoever asks in its name from many places takes nothing from the place that it answered from.
        if known
            && !self.has_just_offered(now, sender, via)
            && (!self.is_new_there(sender, via) || self.request_limits.take(now, sender))
            && self.takes_exchange(now, via, sender, false) == Takes::Yes
            && self.agrees_keys(now, sender) == Lookup::Known(true)
        {
            self.offer(now, sender, via);
        }
    }

    /// Those who are vouched for share nothing with those who may be anybody.
    fn takes_exchange(&mut self, now: Instant, via: Via, sender: NodeId, vouched: bool) -> Takes {
        if self.config.encryption == Encryption::Off || self.id.is_none() || self.id == Some(sender) {
            return Takes::Never;
        }
        let source = match via {
            Via::Direct(addr) => Source::Address(addr.ip()),
            Via::Relay => Source::Relayed(sender),
        };
        let limits = if vouched { &mut self.vouched_limits } else { &mut self.exchange_limits };
        if limits.take(now, source) { Takes::Yes } else { Takes::TooMany }
    }

    /// Whether the registry may be asked about a node that nobody here wants, if it has to be.
    fn has_time_for(&mut self, now: Instant, node: NodeId) -> bool {
        let known =
            self.book.get(node).is_some() || self.peers.get(&node).is_some_and(|peer| !peer.is_unused());
        let admitted = self.is_admitted(node, None);
        known || !self.directory.would_ask(now, node, admitted) || self.strangers.take(now, STRANGERS)
    }

    /// Takes an offer if all that is needed to judge it is known, holds it if the registry has been asked.
    fn consider(&mut self, now: Instant, via: Via, offer: Offer) {
        match self.agrees_keys(now, offer.sender) {
            Lookup::Known(true) => {}
            Lookup::Known(false) | Lookup::Refused => return self.drop_frame(Drop::NotAdmitted),
            Lookup::Asking => return self.hold(now, via, offer),
        }
        match self.identity_of(now, offer.sender) {
            Lookup::Known(key) if key == offer.identity => self.take(now, via, offer),
            Lookup::Known(_) => self.mismatch(now, via, offer),
            Lookup::Asking => self.hold(now, via, offer),
            Lookup::Refused => self.drop_frame(Drop::NotAdmitted),
        }
    }

    fn hold(&mut self, now: Instant, via: Via, offer: Offer) {
        if let Some(held) = self.held.get_mut(&offer.sender).filter(|held| held.offer == offer) {
            // It is shown every way the sender knows, and answered every way.
            if held.via != via {
                held.also = Some(via);
            }
            return;
        }
        // Not for each of a flood.
        let searched = self.held_searched.is_some_and(|at| at + HELD_SEARCH_INTERVAL > now);
        if self.held.len() >= HELD_MAX && !searched {
            self.held_searched = Some(now);
            self.held.retain(|_, held| held.since + HELD_LIFE > now);
        }
        if self.held.len() < HELD_MAX || self.held.contains_key(&offer.sender) {
            self.held.insert(offer.sender, Held { offer, via, also: None, since: now });
        } else {
            self.drop_frame(Drop::TooMany);
        }
    }

    /// The registry said something about `node`: look again at what it offered.
    pub(super) fn reconsider(&mut self, now: Instant, node: NodeId) {
        if let Some(held) = self.held.remove(&node) {
            for via in [Some(held.via), held.also].into_iter().flatten() {
                self.consider(now, via, held.offer);
            }
        }
    }

    /// The identity key a peer must show: the pinned one, or the registry's word.
    pub(super) fn identity_of(&mut self, now: Instant, node: NodeId) -> Lookup<PublicKey> {
        match self.book.get(node).and_then(|trusted| trusted.key) {
            Some(pinned) => Lookup::Known(pinned),
            None => self.directory.key(now, node),
        }
    }

    /// The same, as far as it is known without asking.
    pub(super) fn known_identity(&self, now: Instant, node: NodeId) -> Option<PublicKey> {
        let pinned = self.book.get(node).and_then(|trusted| trusted.key);
        let proved = || self.peers.get(&node).and_then(|peer| peer.key);
        pinned.or_else(|| self.directory.known_key(now, node)).or_else(proved)
    }

    /// Another key than expected. A pinned one is final, unless its owner replaced it and the driver finds that out; the
    /// registry's word may have been outdated.
    fn mismatch(&mut self, now: Instant, via: Via, offer: Offer) {
        let pinned = self.book.get(offer.sender).is_some_and(|trusted| trusted.key.is_some());
        if !self.mismatches.take(now, (offer.sender, offer.vouched)) {
            self.drop_frame(Drop::WrongKey);
        } else if pinned {
            self.drop_frame(Drop::WrongKey);
            self.events.push_back(Event::Peer(offer.sender, PeerEvent::KeyMismatch(offer.identity)));
            self.hold(now, via, offer);
        } else if self.directory.doubt_key(now, offer.sender) {
            self.directory.ask(Query::PeerKey(offer.sender));
            self.hold(now, via, offer);
        } else {
            self.drop_frame(Drop::WrongKey);
        }
    }

    /// The identity is right; what the offer carries decides.
    fn take(&mut self, now: Instant, via: Via, offer: Offer) {
        match offer.said {
            Extension::Absent if self.is_modern(offer.sender, &offer.identity) => {
                // Its owner runs an earlier release now, or somebody on the way wants both sides to do with less.
                self.drop_frame(Drop::Downgraded);
                self.events.push_back(Event::Peer(offer.sender, PeerEvent::Downgraded));
            }
            Extension::Absent => self.take_shown(now, via, offer),
            Extension::Hello => self.take_hello(now, via, &offer),
            Extension::Initiation { ref message, .. } => {
                self.take_initiation(now, via, &offer, message, offer.vouched);
            }
            Extension::Answer { to, ref message } => self.take_answer(now, via, &offer, to, message),
        }
    }

    /// Whether there is time to check one more signature.
    pub(super) fn has_time_to_verify(&mut self, now: Instant) -> bool {
        self.verifications.take(now, VERIFICATIONS)
    }

    /// Whether an offer is signed by the identity it shows, and there is room for its sender.
    pub(super) fn is_signed(&mut self, offer: &Offer) -> bool {
        if !self.peers.contains_key(&offer.sender) && self.peers.len() >= PEERS_MAX {
            self.drop_frame(Drop::TooMany);
            return false;
        }
        let signed = pilot_wire::tunnel::signed_bytes(offer.sender, &offer.agreement);
        let genuine = pilot_crypto::verify(&offer.identity, &signed, &offer.signature);
        if !genuine {
            self.drop_frame(Drop::BadSignature);
        }
        genuine
    }

    /// The same, if there is time to look.
    pub(super) fn is_genuine(&mut self, now: Instant, offer: &Offer) -> bool {
        let time = self.has_time_to_verify(now);
        if !time {
            self.drop_frame(Drop::TooMany);
        }
        time && self.is_signed(offer)
    }

    /// A key as release 1.18.0 shows it: the signature decides.
    fn take_shown(&mut self, now: Instant, via: Via, offer: Offer) {
        let Offer { sender, agreement, identity, .. } = offer;
        if let Some(peer) = self.peers.get(&sender).filter(|peer| peer.tunnel.knows(&agreement)) {
            // Nothing can change by it, so the signature need not be paid for.
            return match peer.tunnel.awaits_proof_of(&agreement) {
                true => self.on_waiting_offer(now, sender, via),
                false => self.on_known_offer(now, sender, via),
            };
        }
        if !self.is_genuine(now, &offer) {
            return;
        }
        let mut start = Nonce { prefix: [0; 4], counter: self.counter_start(now) };
        self.rng.fill_bytes(&mut start.prefix);
        // An answer to what we have just sent there. Ours need not be repeated, and the packets that an address may have
        // are few: the first bytes shall be among them.
        let answers = via != Via::Relay && self.has_just_offered(now, sender, via);
        let peer = self.peer(now, sender);
        peer.knows_ours |= answers;
        peer.key = Some(identity);
        let shown = match peer.tunnel.key_shown(now, agreement, start) {
            Ok(KeyShown::Retired) => return self.drop_frame(Drop::Replayed),
            Ok(shown) => shown,
            Err(_) => return self.drop_frame(Drop::BadSignature),
        };
        peer.path.exchanged(now, via);
        let relayed = via == Via::Relay && peer.needs_location(now);
        let steps = self.book.learned_key(sender, identity);
        self.carry_out(now, steps);
        let has_ours = answers
            && match shown {
                KeyShown::Installed => true,
                // If one word is left, it is the question for a proof.
                KeyShown::Candidate => self.is_at_last_word(now, sender, via),
                KeyShown::Known | KeyShown::Retired => false,
            };
        if !has_ours {
            self.answer(now, sender, via);
        }
        if relayed {
            self.directory.ask(Query::Resolve(sender));
        }
        match shown {
            KeyShown::Known | KeyShown::Retired => {}
            KeyShown::Installed => self.tunnel_ready(now, sender),
            KeyShown::Candidate => self.ask_for_proof(now, sender, via),
        }
        self.arm_peer(sender);
    }

    /// An offer of a key that is in use came. If nothing comes under that key, the peer has perhaps not seen ours. If it
    /// came directly while no address works, it may show another way: peers send the same offer every way they know.
    fn on_known_offer(&mut self, now: Instant, node: NodeId, via: Via) {
        let asks = self.peers.get(&node).is_some_and(|peer| peer.is_wanted() && !peer.tunnel.is_proven());
        if asks {
            // It is the answer to ours: what is sealed is understood, and must be said before ours is shown once more.
            return self.ask_under_new_key(now, node, via);
        }
        if self.may_repeat_offer(now, node, via) {
            return self.repeat_offer(now, node, via);
        }
        self.learn_way(now, node, via);
    }

    /// A copy of what is known already came directly: while no address works, it may show another way.
    pub(super) fn learn_way(&mut self, now: Instant, node: NodeId, via: Via) {
        let Via::Direct(addr) = via else { return };
        let improvable =
            self.peers.get(&node).is_some_and(|peer| peer.tunnel.is_proven() && peer.path.is_improvable());
        if improvable && self.request_limits.take(now, node) {
            self.peer(now, node).path.learn(now, addr, CandidateSource::Frames);
            self.probe(now, node, addr);
        }
    }

    /// An offer of a key that waits for proof came once more, perhaps another way than before. The question of it may have
    /// been lost, and a peer that has nothing to say proves nothing by itself. Where no question may go any more, the peer
    /// has perhaps not seen our key either, and asks for that.
    fn on_waiting_offer(&mut self, now: Instant, node: NodeId, via: Via) {
        if !self.request_limits.take(now, node) {
            return;
        }
        match via {
            Via::Direct(addr) if !self.has_words_for(now, node, addr) => self.answer(now, node, via),
            Via::Direct(_) | Via::Relay => self.ask_for_proof(now, node, via),
        }
    }

    /// Asks for an answer under a key that the peer has not used.
    fn ask_under_new_key(&mut self, now: Instant, node: NodeId, via: Via) {
        if !self.request_limits.take(now, node) {
            return;
        }
        match via {
            Via::Direct(addr) => {
                self.peer(now, node).path.learn(now, addr, CandidateSource::Frames);
                self.probe(now, node, addr);
            }
            Via::Relay => self.ping_relay(now, node),
        }
    }

    /// Shows our key again. Perhaps the peer has it, and neither side has anything to say, so that both would repeat
    /// themselves for ever: a question ends that. Where nobody has answered yet, the few packets do.
    fn repeat_offer(&mut self, now: Instant, node: NodeId, via: Via) {
        if let Via::Direct(addr) = via {
            self.peer(now, node).path.learn(now, addr, CandidateSource::Frames);
        }
        self.answer(now, node, via);
        let answers = match via {
            Via::Direct(addr) => self.peers.get(&node).is_some_and(|peer| peer.path.has_answered(addr)),
            Via::Relay => true,
        };
        if answers {
            let packet = self.start_ping(now, node, 0, Purpose::Way);
            self.emit_packet(now, node, via, &packet);
        }
    }

    /// Above every counter used before, as long as fewer than a million frames leave in a millisecond.
    fn counter_start(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.born).as_millis();
        u64::try_from(age).unwrap_or(u64::MAX >> 21) << 20
    }

    /// There is a key now, or a way: what waited for it goes out.
    pub(super) fn tunnel_ready(&mut self, now: Instant, node: NodeId) {
        let queue = self.peers.get_mut(&node).map(super::Peer::take_queue).unwrap_or_default();
        for packet in queue {
            self.send_packet(now, node, packet);
        }
        for id in self.streams.with(node) {
            self.streams.wake(id);
        }
    }

    /// Sends a ping under the newest candidate key: only its owner can answer. Where an address has had all the packets that
    /// it may have before it answers, the question goes through the relay. Where there is none, it is an answer that is owed
    /// to who showed the key: one side that may not ask and one that has nothing to say would never meet.
    fn ask_for_proof(&mut self, now: Instant, node: NodeId, via: Via) {
        let Some(us) = self.id else { return };
        let via = match via {
            Via::Direct(addr) if self.is_at_last_word(now, node, via) => {
                match self.may_answer(now, node, addr) {
                    true => via,
                    false => return,
                }
            }
            Via::Direct(addr) if !self.may_write(now, node, addr) => Via::Relay,
            Via::Direct(_) | Via::Relay => via,
        };
        let packet = self.start_ping(now, node, 0, Purpose::Way);
        let mut frame = Vec::new();
        let Some(destination) = self.open_frame(node, via, &mut frame) else { return };
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.tunnel.seal_candidate(us, &mut frame, |out| out.extend_from_slice(&packet))
        {
            self.outbox.push_back(Frame::whole(destination, frame));
        }
    }

    /// Whether our key should be shown again. A peer that never used its own repeats it because ours got lost; each way
    /// counts for itself then.
    fn may_repeat_offer(&mut self, now: Instant, node: NodeId, via: Via) -> bool {
        let Some(peer) = self.peers.get(&node) else { return true };
        let apart = |last: Option<Instant>, apart| last.is_none_or(|at| at + apart <= now);
        match (peer.tunnel.heard(), via) {
            (Some(heard), _) => heard + SILENCE <= now && apart(peer.offered, REPEAT_INTERVAL),
            (None, Via::Relay) => apart(peer.offered, FIRST_REPEAT_INTERVAL),
            (None, Via::Direct(addr)) => {
                let known = peer.path.candidates().iter().find(|known| known.addr == addr);
                let due = apart(known.and_then(|known| known.tried), FIRST_REPEAT_INTERVAL);
                due && (known.is_some() || self.request_limits.take(now, node))
            }
        }
    }

    /// A frame came that fits no key we have: make the peer show its own.
    pub(super) fn request_key(&mut self, now: Instant, node: NodeId, via: Via) {
        if self.config.encryption == Encryption::Off
            || !self.request_limits.take(now, node)
            || !self.has_time_for(now, node)
            || self.agrees_keys(now, node) != Lookup::Known(true)
        {
            return;
        }
        if self.peers.contains_key(&node) || self.book.get(node).is_some() {
            // Sealed before our key arrived. Of the few packets to an address that never answered each counts.
            if self.is_new_there(node, via) && self.has_just_offered(now, node, via) {
                return;
            }
            self.offer(now, node, via);
            // A peer that has this key of ours already keeps its own to itself, unless it is asked.
            if self.peers.get(&node).is_some_and(|peer| peer.tunnel.is_proven()) {
                self.ask_for_key(now, node, via);
            }
            return;
        }
        // A stranger at a public node, or somebody in its name: ask, and remember nothing until it signs.
        self.ask_for_key(now, node, via);
    }

    /// Asks for the peer's key one way, showing ours without a proof.
    fn ask_for_key(&mut self, now: Instant, node: NodeId, via: Via) {
        // A question leaves the last of the few packets to the answer of what the peer then shows.
        let may = match via {
            Via::Direct(addr) => self.may_ask(now, node, addr),
            Via::Relay => true,
        };
        let Some(us) = self.id.filter(|_| may) else { return };
        let mut frame = Vec::new();
        let Some(destination) = self.open_frame(node, via, &mut frame) else { return };
        match self.peers.get(&node) {
            Some(peer) => peer.tunnel.emit_request(us, &mut frame),
            None => pilot_wire::tunnel::emit_key_request(us, &self.request_key, &mut frame),
        }
        self.outbox.push_back(Frame::whole(destination, frame));
    }

    /// Shows our key to a peer one way, and begins to agree on keys of the moment.
    pub(super) fn offer(&mut self, now: Instant, node: NodeId, via: Via) {
        self.show_key(now, node, via, false);
    }

    /// Answers what the peer began or showed, one way.
    pub(super) fn answer(&mut self, now: Instant, node: NodeId, via: Via) {
        self.show_key(now, node, via, true);
    }

    fn show_key(&mut self, now: Instant, node: NodeId, via: Via, answers: bool) {
        // Of the few packets that an address may have, one is for the answer that is owed: two sides that only begin never
        // agree.
        let owes = !answers && self.peers.get(&node).is_some_and(|peer| peer.tunnel.owes_answer());
        let may = match via {
            Via::Direct(addr) if owes => self.may_ask(now, node, addr),
            Via::Direct(addr) if answers => self.may_answer(now, node, addr),
            Via::Direct(addr) => self.may_write(now, node, addr),
            Via::Relay => true,
        };
        let Some(us) = self.id.filter(|_| may) else { return };
        let mut frame = Vec::new();
        let Some(destination) = self.open_frame(node, via, &mut frame) else { return };
        let peer = self.peer(now, node);
        peer.offered = Some(now);
        peer.path.shows_our_key(now, via);
        let them = self.known_identity(now, node).map(|key| Them { node, key });
        let ours = Us { node: us, identity: &self.config.identity, life: self.life };
        if let Some(peer) = self.peers.get_mut(&node) {
            if !(answers && peer.tunnel.emit_answer(ours, &mut frame)) {
                peer.tunnel.emit_offer(ours, &mut frame);
                if self.config.agreement == KeyAgreement::OfTheMoment {
                    peer.tunnel.extend_offer(now, ours, them, &mut self.rng, &mut frame);
                }
            }
            peer.sent = now;
            self.outbox.push_back(Frame::whole(destination, frame));
        }
        self.arm_peer(node);
    }

    /// Whether an address has had the packets that it may have before it answers, and there is no relay.
    fn is_at_last_word(&self, now: Instant, node: NodeId, via: Via) -> bool {
        matches!(via, Via::Direct(addr) if self.beacon.is_none() && !self.has_words_for(now, node, addr))
    }

    /// Whether nothing ever came back from where this goes.
    fn is_new_there(&self, node: NodeId, via: Via) -> bool {
        let Via::Direct(addr) = via else { return false };
        self.peers.get(&node).is_none_or(|peer| !peer.path.has_answered(addr))
    }

    /// Whether our key was shown this way a moment ago.
    fn has_just_offered(&self, now: Instant, node: NodeId, via: Via) -> bool {
        let shown = self.peers.get(&node).and_then(|peer| peer.path.our_key_shown(via));
        shown.is_some_and(|at| at + REPEAT_INTERVAL > now)
    }

    /// Shows our key every way there is.
    pub(super) fn offer_everywhere(&mut self, now: Instant, node: NodeId) {
        for via in self.ways(node) {
            self.offer(now, node, via);
        }
    }

    /// Asks for the peer's key every way that works or may. Peers that know us repeat theirs until it arrives.
    pub(super) fn request_everywhere(&mut self, node: NodeId) {
        let Some(us) = self.id else { return };
        for via in self.ways(node) {
            let Some(peer) = self.peers.get(&node) else { return };
            // What never answered has few packets to get, and an offer says more.
            if matches!(via, Via::Direct(addr) if !peer.path.has_answered(addr)) {
                continue;
            }
            let mut frame = Vec::new();
            if let Some(destination) = self.open_frame(node, via, &mut frame) {
                peer.tunnel.emit_request(us, &mut frame);
                self.outbox.push_back(Frame::whole(destination, frame));
            }
        }
    }

    /// Every way to a peer that this node can use now.
    pub(super) fn ways(&self, node: NodeId) -> Vec<Via> {
        let relay = self.beacon.is_some().then_some(Via::Relay);
        let addresses = self.peers.get(&node).map(|peer| peer.path.addresses()).unwrap_or_default();
        addresses.into_iter().map(Via::Direct).chain(relay).collect()
    }
}
