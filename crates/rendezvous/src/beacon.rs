//! The beacon as a state machine: it tells nodes where they are seen, introduces them to each other, and relays frames
//! between those that do not reach each other (spec/dataplane.md 6).
//!
//! Messages of released nodes are not signed, so whoever knows a node's number can claim to be it. What can be held
//! against that without their help: a claim from the address the node registered from displaces any other and is
//! displaced by none; a claim from elsewhere does not displace one that is still being refreshed; and only the address
//! that an entry names may relay and punch in the node's name.
//!
//! A node that datagrams do not reach comes over the web ([`Route::Web`]), where it proves who it is. No claim over UDP
//! displaces it while it is there.

//! A node whose key the registry has told proves with a signature that a number is its own ([`Message::Challenge`]);
//! from then on only another proof moves it, and only its exact address speaks in its name. Released nodes do not
//! answer challenges and stay with the rules above.

mod ears;
mod proof;
mod route;

pub use ears::{Ear, Ears};
pub use proof::Secret;
pub use route::{Route, WebId};

use crate::rate::{Bucket, Rate};
use pilot_wire::{
    NodeId, PublicKey,
    beacon::{DiscoverProof, Message, NotifyKind, ReplyFrom, emit_deliver_header},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use proof::Challenger;
use route::{Seat, Seats};

/// Limits and rules of a beacon.
#[derive(Clone, Debug)]
pub struct Config {
    /// Silence after which an entry goes. Nodes repeat their discover every 30 to 60 s.
    pub expiry: Duration,
    /// Most entries; the one that has been silent longest makes room, those elsewhere than they registered first.
    pub max_nodes: usize,
    /// Frames relayed for one node.
    pub relay: Rate,
    /// Introductions one node may ask for.
    pub punch: Rate,
    /// Notices to one node. 1.18.0 acts on one every 2 s at most.
    pub notify: Rate,
    /// Who may be introduced to whom.
    pub introductions: Introductions,
    /// What is done for anybody, known or not: surveys, challenges, words about who is not known. Together.
    pub courtesies: Rate,
    /// Challenges are made from it. From the operating system, and kept to oneself.
    pub secret: Secret,
}

/// Who may be introduced to whom. An introduction tells each side the other's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introductions {
    /// Everybody to everybody.
    Everybody,
    /// Whom somebody else allows: a [`Question`] goes out for each.
    Ask,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            expiry: Duration::from_secs(600),
            max_nodes: 100_000,
            relay: Rate { burst: 20_000, per_second: 20_000.0 },
            punch: Rate { burst: 20, per_second: 5.0 },
            notify: Rate { burst: 5, per_second: 0.5 },
            introductions: Introductions::Everybody,
            courtesies: Rate { burst: 1000, per_second: 1000.0 },
            secret: Secret([0; 32]),
        }
    }
}

/// "May the one be introduced to the other?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks for it.
    pub requester: NodeId,
    /// To whom.
    pub target: NodeId,
}

/// Why a datagram was not acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// Not a message to a beacon.
    Unreadable,
    /// In the name of a node that is not known here, or from another address.
    Impostor,
    /// For a node that is not known here.
    Unreachable,
    /// Over a limit.
    TooMany,
}

/// What a beacon has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Discovers answered.
    pub discovered: u64,
    /// Frames relayed.
    pub relayed: u64,
    /// Bytes of these frames.
    pub relayed_bytes: u64,
    /// Pairs introduced.
    pub introduced: u64,
    /// [`Drop::Unreadable`].
    pub unreadable: u64,
    /// [`Drop::Impostor`].
    pub impostor: u64,
    /// [`Drop::Unreachable`].
    pub unreachable: u64,
    /// [`Drop::TooMany`].
    pub too_many: u64,
}

/// The beacon.
///
/// Tell it of each [datagram](Self::handle_datagram), of connections over the web that [open](Self::web_opened) and
/// [end](Self::web_closed) and each [message](Self::handle_web) on them, of [answers](Self::handle_answer) to its
/// questions, of nodes that [registered](Self::registered), of nodes to [notify](Self::notify). After each of these send what
/// [`poll_transmit`](Self::poll_transmit) gives, in that order, and put what [`poll_question`](Self::poll_question)
/// asks. Frames of one source leave in the order in which they came.
#[derive(Debug)]
pub struct State {
    config: Config,
    entries: HashMap<NodeId, Entry>,
    /// Who proved to be on which connection. The shell bounds their number.
    web: HashMap<WebId, Visitor>,
    /// By when they were last heard of: those at the address they registered from, and the others. Those on the web are
    /// in neither: they are there as long as their connection.
    residents: BTreeSet<(Instant, NodeId)>,
    strangers: BTreeSet<(Instant, NodeId)>,
    /// From where nodes registered.
    homes: BTreeMap<NodeId, IpAddr>,
    /// The keys of nodes that registered.
    keys: HashMap<NodeId, PublicKey>,
    transmits: VecDeque<(Route, Vec<u8>)>,
    questions: VecDeque<Question>,
    ears: Ears,
    challenger: Challenger,
    /// What is done for anybody at all: surveys, challenges and their answers, words about who is not known.
    courtesies: Option<Bucket>,
    stats: Stats,
}

#[derive(Debug)]
struct Entry {
    /// Its present UDP seat was claimed with a proof, so only another proof moves it.
    proven: bool,
    seats: Seats,
    /// When its claim over UDP was last repeated.
    seen: Instant,
    relay: Bucket,
    punch: Bucket,
    notify: Bucket,
}

impl Entry {
    /// Whether the node has proved to be at this address.
    fn is_proven_at(&self, addr: SocketAddr) -> bool {
        self.proven && self.seats.udp.is_some_and(|seat| seat.at == addr)
    }
}

/// A node on the web.
#[derive(Clone, Copy, Debug)]
struct Visitor {
    node: NodeId,
}

/// How long a claim from elsewhere must wait after the last discover of the one it would displace. Nodes repeat theirs
/// every 30 to 60 s, so one that is alive is not displaced.
const CLAIM_PATIENCE: Duration = Duration::from_secs(90);

/// The address at which a node on the web can be reached by datagrams.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Frames that wait to be sent. The shell drains after each datagram, so this is reached only by a test.
const TRANSMITS_MAX: usize = 1024;
/// Questions that wait to be put.
const QUESTIONS_MAX: usize = 1024;

impl State {
    /// A beacon that knows nobody.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let challenger = Challenger::new(config.secret.clone());
        Self {
            config,
            ears: Ears::default(),
            challenger,
            courtesies: None,
            keys: HashMap::new(),
            entries: HashMap::new(),
            web: HashMap::new(),
            residents: BTreeSet::new(),
            strangers: BTreeSet::new(),
            homes: BTreeMap::new(),
            transmits: VecDeque::new(),
            questions: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// A datagram arrived. What cannot be acted upon is counted and otherwise ignored.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.handle(now, Route::Udp(canonical(from)), datagram);
    }

    /// The sockets beside the main one are bound.
    pub fn set_ears(&mut self, ears: Ears) {
        self.ears = ears;
    }

    /// A datagram arrived at one of the other sockets. They answer surveys and nothing else.
    pub fn handle_elsewhere(&mut self, now: Instant, ear: Ear, from: SocketAddr, datagram: &[u8]) {
        let from = canonical(from);
        let outcome = match Message::parse(datagram) {
            Ok(Message::Survey { token, from: ReplyFrom::Here }) => self.answer_survey(now, ear, from, token),
            Ok(_) | Err(_) => Err(Drop::Unreadable),
        };
        self.count(outcome);
    }

    /// A message came over the web. On a connection on which nobody has proved to be anybody nothing is acted upon.
    pub fn handle_web(&mut self, now: Instant, conn: WebId, message: &[u8]) {
        self.handle(now, Route::Web(conn), message);
    }

    /// A node has proved who it is, on this connection. Returns the connection that it was on before, which
    /// nothing is expected of any more.
    #[must_use]
    pub fn web_opened(&mut self, now: Instant, conn: WebId, node: NodeId) -> Option<WebId> {
        self.web.insert(conn, Visitor { node });
        self.make_room(node);
        let entry = self.entry(now, node);
        let before = entry.seats.web.replace(Seat { at: conn, delivers_to: false }).map(|seat| seat.at);
        let seen = entry.seen;
        self.file(node, seen);
        if let Some(before) = before {
            self.web.remove(&before);
        }
        before
    }

    /// A connection has ended. Where its node claimed to be over UDP it is taken to be now.
    pub fn web_closed(&mut self, now: Instant, conn: WebId) {
        let Some(Visitor { node, .. }) = self.web.remove(&conn) else { return };
        let Some(entry) = self.entries.get_mut(&node) else { return };
        entry.seats.web = None;
        let seen = entry.seen;
        let stale = now.saturating_duration_since(seen) >= self.config.expiry;
        if stale || entry.seats.udp.is_none() {
            self.entries.remove(&node);
        } else {
            self.file(node, seen);
        }
    }

    fn handle(&mut self, now: Instant, from: Route, message: &[u8]) {
        self.expire(now);
        let outcome = match Message::parse(message) {
            Ok(Message::Discover { node, proof, .. }) => self.discover(now, from, node, false, proof),
            Ok(Message::DiscoverEx { node, .. }) => self.discover(now, from, node, true, None),
            Ok(Message::Survey { token, from: wanted }) => self.survey(now, from, token, wanted),
            Ok(Message::PunchRequest { requester, target, .. }) => self.punch(now, from, requester, target),
            Ok(Message::Relay { source, destination, frame }) => {
                self.relay(now, from, source, destination, frame)
            }
            // Sync comes from other beacons; this one keeps company with none.
            Ok(
                Message::Sync { .. }
                | Message::DiscoverReply(_)
                | Message::PunchCommand(_)
                | Message::RelayDeliver { .. }
                | Message::RelayDeliverTo { .. }
                | Message::Notify(_)
                | Message::SurveyReply { .. }
                | Message::Unknown { .. }
                | Message::Challenge { .. },
            )
            | Err(_) => Err(Drop::Unreadable),
        };
        self.count(outcome);
    }

    fn count(&mut self, outcome: Result<(), Drop>) {
        match outcome {
            Ok(()) => {}
            Err(Drop::Unreadable) => self.stats.unreadable += 1,
            Err(Drop::Impostor) => self.stats.impostor += 1,
            Err(Drop::Unreachable) => self.stats.unreachable += 1,
            Err(Drop::TooMany) => self.stats.too_many += 1,
        }
    }

    /// The answer to a question.
    pub fn handle_answer(&mut self, question: Question, allowed: bool) {
        if allowed {
            self.introduce(question);
        }
    }

    /// A node registered from this address: from here on its claim counts before others.
    pub fn registered(&mut self, node: NodeId, ip: IpAddr) {
        if self.homes.len() >= self.config.max_nodes && !self.homes.contains_key(&node) {
            // The lowest numbers are the oldest identities.
            self.homes.pop_first();
        }
        self.homes.insert(node, ip.to_canonical());
        if let Some(seen) = self.entries.get(&node).map(|entry| entry.seen) {
            self.file(node, seen);
        }
    }

    /// The key of a node that registered: from here on it can prove that it is where it says.
    pub fn has_key(&mut self, node: NodeId, key: PublicKey) {
        if self.keys.len() < self.config.max_nodes || self.keys.contains_key(&node) {
            self.keys.insert(node, key);
        }
    }

    /// A node that had registered to listen there before this beacon started. It may be talking through a beacon right
    /// now and repeats its discover only in a minute; until then it is taken to be where it said.
    pub fn remembered(&mut self, now: Instant, node: NodeId, addr: SocketAddr) {
        self.registered(node, addr.ip());
        if self.entries.len() < self.config.max_nodes {
            self.enter(now, node, addr, false);
        }
    }

    /// Something waits for the node at the registry.
    pub fn notify(&mut self, now: Instant, node: NodeId, kind: NotifyKind) {
        let rate = self.config.notify;
        let Some(entry) = self.entries.get_mut(&node) else { return };
        if entry.notify.take(rate, now).is_ok()
            && let Some((route, _)) = entry.seats.best()
        {
            self.send(route, &Message::Notify(kind));
        }
    }

    /// A message to send, and by which way.
    pub fn poll_transmit(&mut self) -> Option<(Route, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// A question to put, if introductions are to be asked about.
    pub fn poll_question(&mut self) -> Option<Question> {
        self.questions.pop_front()
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Nodes known at the moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if no node is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn discover(
        &mut self,
        now: Instant,
        from: Route,
        node: NodeId,
        delivers_to: bool,
        proof: Option<DiscoverProof>,
    ) -> Result<(), Drop> {
        let seen_at = self.seen_at(from)?;
        self.send(from, &Message::DiscoverReply(seen_at));
        self.stats.discovered += 1;
        if node == NodeId::UNSET || node == NodeId::BROADCAST {
            return Ok(());
        }
        let from = match from {
            Route::Udp(addr) => addr,
            Route::Web(conn) => {
                let entry = self.entry_of(from, node)?;
                entry.seats.web = Some(Seat { at: conn, delivers_to });
                return Ok(());
            }
            Route::Elsewhere(..) => return Err(Drop::Unreadable),
        };
        let proven = match proof {
            Some(proof) => self.is_proven(now, from, node, &proof)?,
            None => false,
        };
        if !proven {
            self.challenge(now, from, node);
            // An impostor, or the node itself from another network.
            if !self.may_claim(now, node, from) {
                return Err(Drop::Impostor);
            }
        }
        self.make_room(node);
        self.enter(now, node, from, delivers_to);
        if proven && let Some(entry) = self.entries.get_mut(&node) {
            entry.proven = true;
        }
        Ok(())
    }

    /// Asks for a proof, unless the address has given one or cannot.
    fn challenge(&mut self, now: Instant, from: SocketAddr, node: NodeId) {
        let is_proven = self.entries.get(&node).is_some_and(|entry| entry.is_proven_at(from));
        if !is_proven && self.keys.contains_key(&node) && self.courtesy(now).is_ok() {
            let nonce = self.challenger.nonce(now, from);
            self.send(Route::Udp(from), &Message::Challenge { nonce });
        }
    }

    /// A wrong proof is no claim either.
    fn is_proven(
        &mut self,
        now: Instant,
        from: SocketAddr,
        node: NodeId,
        proof: &DiscoverProof,
    ) -> Result<bool, Drop> {
        self.courtesy(now)?;
        let key = self.keys.get(&node).copied().ok_or(Drop::Impostor)?;
        match self.challenger.is_answered(now, from, node, &key, proof) {
            true => Ok(true),
            false => Err(Drop::Impostor),
        }
    }

    /// Takes one of the things that are done for anybody.
    fn courtesy(&mut self, now: Instant) -> Result<(), Drop> {
        let rate = self.config.courtesies;
        let bucket = self.courtesies.get_or_insert_with(|| Bucket::full(rate, now));
        bucket.take(rate, now).map_err(|_| Drop::TooMany)
    }

    fn survey(&mut self, now: Instant, from: Route, token: u64, wanted: ReplyFrom) -> Result<(), Drop> {
        let Route::Udp(addr) = from else { return Err(Drop::Unreadable) };
        let ear = match wanted {
            ReplyFrom::Here => Ear::Main,
            ReplyFrom::OtherPort if self.ears.second_port.is_some() => Ear::QuietPort,
            ReplyFrom::OtherAddress if self.ears.second_addr.is_some() => Ear::QuietAddress,
            ReplyFrom::OtherPort | ReplyFrom::OtherAddress => return Err(Drop::Unreachable),
        };
        self.answer_survey(now, ear, addr, token)
    }

    fn answer_survey(&mut self, now: Instant, ear: Ear, to: SocketAddr, token: u64) -> Result<(), Drop> {
        self.courtesy(now)?;
        let Ears { second_port, second_addr } = self.ears;
        let reply = Message::SurveyReply { token, observed: to, second_port, second_addr };
        let route = if ear == Ear::Main { Route::Udp(to) } else { Route::Elsewhere(ear, to) };
        self.send(route, &reply);
        Ok(())
    }

    /// Tells somebody that a node is not known here: the receiver of a frame, or its sender.
    fn say_unknown(&mut self, now: Instant, to: Route, node: NodeId) {
        if self.courtesy(now).is_ok() {
            self.send(to, &Message::Unknown { node });
        }
    }

    /// Where a discover came from, as its sender is told.
    fn seen_at(&self, from: Route) -> Result<SocketAddr, Drop> {
        match from {
            Route::Udp(addr) => Ok(addr),
            Route::Web(conn) if self.web.contains_key(&conn) => Ok(NOWHERE),
            Route::Web(_) | Route::Elsewhere(..) => Err(Drop::Impostor),
        }
    }

    fn enter(&mut self, now: Instant, node: NodeId, addr: SocketAddr, delivers_to: bool) {
        self.entry(now, node).seats.udp = Some(Seat { at: addr, delivers_to });
        self.file(node, now);
    }

    /// The entry of a node, without any seat if there was none.
    fn entry(&mut self, now: Instant, node: NodeId) -> &mut Entry {
        let config = &self.config;
        self.entries.entry(node).or_insert_with(|| Entry {
            proven: false,
            seats: Seats::default(),
            seen: now,
            relay: Bucket::full(config.relay, now),
            punch: Bucket::full(config.punch, now),
            notify: Bucket::full(config.notify, now),
        })
    }

    /// Puts an entry where it belongs by its address and the time it was last heard of.
    fn file(&mut self, node: NodeId, seen: Instant) {
        let Some(entry) = self.entries.get_mut(&node) else { return };
        self.residents.remove(&(entry.seen, node));
        self.strangers.remove(&(entry.seen, node));
        entry.seen = seen;
        if entry.seats.web.is_some() {
            return;
        }
        let ip = entry.seats.ip();
        let is_resident = ip.is_some() && self.homes.get(&node).copied() == ip;
        let list = if is_resident { &mut self.residents } else { &mut self.strangers };
        list.insert((seen, node));
    }

    fn may_claim(&self, now: Instant, node: NodeId, from: SocketAddr) -> bool {
        let Some(entry) = self.entries.get(&node) else { return true };
        let Some(ip) = entry.seats.ip() else { return true };
        if entry.proven {
            return entry.is_proven_at(from);
        }
        if ip == from.ip() || self.homes.get(&node) == Some(&from.ip()) {
            return true;
        }
        self.homes.get(&node) != Some(&ip) && now.saturating_duration_since(entry.seen) >= CLAIM_PATIENCE
    }

    fn punch(&mut self, now: Instant, from: Route, requester: NodeId, target: NodeId) -> Result<(), Drop> {
        let rate = self.config.punch;
        self.entry_of(from, requester)?.punch.take(rate, now).map_err(|_| Drop::TooMany)?;
        // Who is on the web cannot be reached by datagrams, so there is nothing to open a NAT for.
        if requester == target || self.punchable(requester).is_none() || self.punchable(target).is_none() {
            return Err(Drop::Unreachable);
        }
        let question = Question { requester, target };
        match self.config.introductions {
            Introductions::Everybody => self.introduce(question),
            Introductions::Ask if self.questions.len() < QUESTIONS_MAX => self.questions.push_back(question),
            Introductions::Ask => return Err(Drop::TooMany),
        }
        Ok(())
    }

    /// The requester hears of it first, as from the reference's beacons.
    fn introduce(&mut self, Question { requester, target }: Question) {
        let (Some(requester), Some(target)) = (self.punchable(requester), self.punchable(target)) else {
            return;
        };
        self.send(Route::Udp(requester), &Message::PunchCommand(target));
        self.send(Route::Udp(target), &Message::PunchCommand(requester));
        self.stats.introduced += 1;
    }

    fn punchable(&self, node: NodeId) -> Option<SocketAddr> {
        self.entries.get(&node)?.seats.punchable()
    }

    fn relay(
        &mut self,
        now: Instant,
        from: Route,
        source: NodeId,
        destination: NodeId,
        frame: &[u8],
    ) -> Result<(), Drop> {
        let rate = self.config.relay;
        match self.entry_of(from, source) {
            Ok(entry) => entry.relay.take(rate, now).map_err(|_| Drop::TooMany)?,
            Err(refused) => {
                // Perhaps it is the node itself, and this beacon was restarted, or the node's box was.
                if matches!(from, Route::Udp(_)) {
                    self.say_unknown(now, from, source);
                }
                return Err(refused);
            }
        }
        let target = self.entries.get(&destination).and_then(|entry| entry.seats.best());
        let Some((target, delivers_to)) = target else {
            self.say_unknown(now, from, destination);
            return Err(Drop::Unreachable);
        };
        if self.transmits.len() >= TRANSMITS_MAX {
            return Err(Drop::TooMany);
        }
        let mut out = Vec::with_capacity(pilot_wire::beacon::RELAY_HEADER_LEN + frame.len());
        if delivers_to {
            Message::RelayDeliverTo { source, destination, frame }.emit(&mut out);
        } else {
            emit_deliver_header(source, &mut out);
            out.extend_from_slice(frame);
        }
        self.transmits.push_back((target, out));
        self.stats.relayed += 1;
        self.stats.relayed_bytes += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// The entry of a node, if the message comes from where it is.
    fn entry_of(&mut self, from: Route, node: NodeId) -> Result<&mut Entry, Drop> {
        let entry = self.entries.get_mut(&node).ok_or(Drop::Impostor)?;
        let admits = match from {
            Route::Udp(addr) if entry.proven && entry.seats.web.is_none() => entry.is_proven_at(addr),
            Route::Udp(_) | Route::Web(_) | Route::Elsewhere(..) => entry.seats.admits(from),
        };
        if admits { Ok(entry) } else { Err(Drop::Impostor) }
    }

    fn send(&mut self, to: Route, message: &Message<'_>) {
        if self.transmits.len() < TRANSMITS_MAX {
            let mut out = Vec::new();
            message.emit(&mut out);
            self.transmits.push_back((to, out));
        }
    }

    fn expire(&mut self, now: Instant) {
        for list in [&mut self.residents, &mut self.strangers] {
            while let Some(&(seen, node)) = list.first()
                && now.saturating_duration_since(seen) >= self.config.expiry
            {
                list.pop_first();
                self.entries.remove(&node);
            }
        }
    }

    /// A flood of claims displaces other claims before any node that registered from where it is.
    fn make_room(&mut self, node: NodeId) {
        if self.entries.len() >= self.config.max_nodes
            && !self.entries.contains_key(&node)
            && let Some((_, oldest)) = self.strangers.pop_first().or_else(|| self.residents.pop_first())
        {
            self.entries.remove(&oldest);
        }
    }
}

/// One host has one address.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
