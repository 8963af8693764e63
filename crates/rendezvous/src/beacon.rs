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
//!
//! A node whose key the registry has told proves with a signature that a number is its own ([`Message::Challenge`]);
//! from then on only another proof moves it, and only its exact address speaks in its name. Released nodes do not
//! answer challenges and stay with the rules above.
//!
//! Beacons of one registry form a mesh: each tells the others which nodes are at it, and what is for a node of another
//! goes there, once, and never further.

mod courtesy;
mod ears;
mod mesh;
mod nodes;
mod outgoing;
mod proof;
mod punch;
mod relay;
mod route;
mod share;
mod stats;

pub use ears::{Ear, Ears};
pub use outgoing::Transmit;
pub use proof::Secret;
pub use punch::Question;
pub use route::{Route, WebId};
pub use share::RelayLimits;
pub use stats::{Drop, Stats};

use crate::rate::{Bucket, Limiter, Rate};
use pilot_wire::{
    NodeId, PublicKey,
    beacon::{Message, NotifyKind, ReplyFrom},
    registry::MeshSecret,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use mesh::Mesh;
use nodes::{Entry, Visitor};
use outgoing::Outgoing;
use proof::Challenger;
use route::Seat;
use share::Total;

/// Limits and rules of a beacon.
#[derive(Clone, Debug)]
pub struct Config {
    /// Silence after which an entry goes. Nodes repeat their discover every 30 to 60 s.
    pub expiry: Duration,
    /// Most entries; the one that has been silent longest makes room, first those that neither proved who they are nor
    /// are where they registered from.
    pub max_nodes: usize,
    /// What is relayed for one node, and for all together.
    pub relay: RelayLimits,
    /// Introductions one node may ask for.
    pub punch: Rate,
    /// Notices to one node. 1.18.0 acts on one every 2 s at most.
    pub notify: Rate,
    /// Who may be introduced to whom.
    pub introductions: Introductions,
    /// What is done for anybody, known or not: surveys, challenges, words about who is not known. Together.
    pub courtesies: Rate,
    /// Answers that are longer than the question, to one address that nothing speaks for; loopback is exempt. The
    /// discover of released nodes is shorter than its answer.
    pub long_answers: Rate,
    /// Whether nodes' keys are to be asked for ([`State::poll_wanted`]), because nobody tells them unasked.
    pub asks_keys: bool,
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
            relay: RelayLimits::default(),
            punch: Rate { burst: 20, per_second: 5.0 },
            notify: Rate { burst: 5, per_second: 0.5 },
            introductions: Introductions::Everybody,
            courtesies: Rate { burst: 1000, per_second: 1000.0 },
            // Many nodes may be behind one company's address.
            long_answers: Rate { burst: 256, per_second: 64.0 },
            asks_keys: false,
            secret: Secret([0; 32]),
        }
    }
}

/// The beacon.
///
/// Tell it of each [datagram](Self::handle_datagram) or [train](Self::handle_train) of them, of connections over the web
/// that [open](Self::web_opened) and [end](Self::web_closed) and each [message](Self::handle_web) on them, of
/// [answers](Self::handle_answer) to its questions, of nodes that [registered](Self::registered), of nodes to
/// [notify](Self::notify), and when [`poll_timeout`](Self::poll_timeout) is [reached](Self::handle_timeout). After each of
/// these send what [`poll_transmit`](Self::poll_transmit) gives, in that order, and ask what
/// [`poll_question`](Self::poll_question) and [`poll_wanted`](Self::poll_wanted) ask. Frames of one source leave in the
/// order in which they came.
#[derive(Debug)]
pub struct State {
    config: Config,
    entries: HashMap<NodeId, Entry>,
    /// Who proved to be on which connection. The shell bounds their number.
    web: HashMap<WebId, Visitor>,
    /// By when they were last heard of: those that something speaks for, and the others. Those on the web are in
    /// neither: they are there as long as their connection.
    residents: BTreeSet<(Instant, NodeId)>,
    strangers: BTreeSet<(Instant, NodeId)>,
    /// From where nodes registered.
    homes: BTreeMap<NodeId, IpAddr>,
    /// The keys of nodes that registered.
    keys: HashMap<NodeId, PublicKey>,
    /// Nodes whose keys were asked for lately.
    wanted: nodes::Wanted,
    mesh: Mesh,
    out: Outgoing,
    questions: VecDeque<Question>,
    ears: Ears,
    challenger: Challenger,
    /// What is done for anybody at all: surveys, challenges and their answers, words about who is not known.
    courtesies: Option<Bucket>,
    long_answers: Limiter<IpAddr>,
    total: Total,
    stats: Stats,
}

/// Nodes at other beacons that are remembered, for each that may be here.
const REMOTE_NODES: usize = 8;

impl State {
    /// A beacon that knows nobody.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let challenger = Challenger::new(config.secret.clone());
        Self {
            ears: Ears::default(),
            challenger,
            courtesies: None,
            long_answers: Limiter::new(config.long_answers),
            keys: HashMap::new(),
            wanted: nodes::Wanted::default(),
            entries: HashMap::new(),
            web: HashMap::new(),
            residents: BTreeSet::new(),
            strangers: BTreeSet::new(),
            homes: BTreeMap::new(),
            mesh: Mesh::new(config.max_nodes.saturating_mul(REMOTE_NODES)),
            out: Outgoing::default(),
            questions: VecDeque::new(),
            total: Total::default(),
            stats: Stats::default(),
            config,
        }
    }

    /// A datagram arrived. What cannot be acted upon is counted and otherwise ignored.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.handle_train(now, from, datagram.len(), datagram);
    }

    /// Datagrams of `segment` bytes each, the last may be shorter, arrived from one address.
    pub fn handle_train(&mut self, now: Instant, from: SocketAddr, segment: usize, train: &[u8]) {
        self.expire(now);
        let from = canonical(from);
        let segment = segment.max(1);
        let mut rest = train;
        loop {
            let run = relay::run_length(rest, segment);
            if run > 0 {
                let (frames, later) = rest.split_at(run);
                self.relay_run(now, Route::Udp(from), segment, frames);
                rest = later;
            } else {
                let (datagram, later) = rest.split_at(segment.min(rest.len()));
                self.handle(now, Route::Udp(from), datagram);
                rest = later;
            }
            if rest.is_empty() {
                break;
            }
        }
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
        self.stats.count(outcome);
    }

    /// A message came over the web. On a connection on which nobody has proved to be anybody nothing is acted upon.
    pub fn handle_web(&mut self, now: Instant, conn: WebId, message: &[u8]) {
        self.expire(now);
        if relay::run_length(message, message.len()) > 0 {
            self.relay_run(now, Route::Web(conn), message.len(), message);
        } else {
            self.handle(now, Route::Web(conn), message);
        }
    }

    /// This beacon is one of a mesh. `session` must be larger than in any earlier life of this beacon, as the time is.
    pub fn join_mesh(&mut self, now: Instant, id: u32, secret: MeshSecret, session: u64) {
        self.mesh.join(now, id, secret, session);
    }

    /// The other beacons of the mesh. Those past 64 are not kept company with.
    pub fn set_peers(&mut self, now: Instant, peers: &[(u32, SocketAddr)]) {
        self.mesh.set_peers(now, peers);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.mesh.poll_timeout()
    }

    /// What is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
        let Self { mesh, out, entries, homes, .. } = self;
        let claim = |node: NodeId| entries.get(&node).and_then(|entry| entry.claim(homes.get(&node)));
        let all = || {
            let mut nodes: Vec<NodeId> = entries.keys().copied().collect();
            nodes.sort_unstable();
            nodes
        };
        mesh.handle_timeout(now, out, all, claim);
    }

    fn handle(&mut self, now: Instant, from: Route, message: &[u8]) {
        if message.first() == Some(&pilot_wire::mesh::TYPE) {
            let outcome = self.hear(now, from, message);
            return self.stats.count(outcome);
        }
        let outcome = match Message::parse(message) {
            Ok(Message::Discover { node, key, proof }) => {
                let discover =
                    nodes::Discover { node, key, proof, delivers_to: false, length: message.len() };
                self.discover(now, from, &discover)
            }
            Ok(Message::DiscoverEx { node, key }) => {
                let discover =
                    nodes::Discover { node, key, proof: None, delivers_to: true, length: message.len() };
                self.discover(now, from, &discover)
            }
            Ok(Message::Survey { token, from: wanted }) => self.survey(now, from, token, wanted),
            Ok(Message::PunchRequest { requester, target, .. }) => {
                self.punch(now, from, message.len(), Question { requester, target })
            }
            // Of relayed frames those are left that are cut short. Sync is what the reference's beacons tell each other,
            // and says of itself only who sent it.
            Ok(
                Message::Relay { .. }
                | Message::Sync { .. }
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
        self.stats.count(outcome);
    }

    /// Something waits for the node at the registry.
    pub fn notify(&mut self, now: Instant, node: NodeId, kind: NotifyKind) {
        if !self.notify_here(now, node, kind)
            && let Some((beacon, _)) = self.mesh.locate(now, node)
        {
            self.mesh.tell(beacon, &pilot_wire::mesh::Body::Notify(node), &mut self.out);
        }
    }

    fn notify_here(&mut self, now: Instant, node: NodeId, kind: NotifyKind) -> bool {
        let rate = self.config.notify;
        let Some(entry) = self.entries.get_mut(&node) else { return false };
        if entry.notify.take(rate, now).is_ok()
            && let Some((route, _)) = entry.seats.best()
        {
            self.send(route, &Message::Notify(kind));
        }
        true
    }

    /// Datagrams to send, and by which way.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        self.out.poll()
    }

    /// A question to put, if introductions are to be asked about.
    pub fn poll_question(&mut self) -> Option<Question> {
        self.questions.pop_front()
    }

    /// A node whose key is wanted: [`registered`](Self::registered) and [`has_key`](Self::has_key) answer it.
    pub fn poll_wanted(&mut self) -> Option<NodeId> {
        self.wanted.poll()
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { nodes: self.entries.len() as u64, beacons: self.mesh.linked() as u64, ..self.stats }
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

    fn send(&mut self, to: Route, message: &Message<'_>) {
        self.out.push(to, |out| message.emit(out));
    }
}

/// One host has one address.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
