//! The other beacons: who they are, that it is they who speak, and which nodes are at which of them.
//!
//! All beacons of a mesh have one secret. With a [`Body::Hello`], sealed with it, two tell each other in which life they
//! are; a beacon that sees its own life in the other's hello knows that it is no old one, and makes the keys of the two
//! directions from both lives. Everything else is sealed with these, and counted. So nothing that was recorded in an
//! earlier life of either is believed again, and no clock has to be right.

mod window;

use pilot_crypto::MacKey;
use pilot_wire::{
    NodeId,
    mesh::{Body, Located, NODES_MAX, Sealed, Standing},
    registry::MeshSecret,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Drop, Route, outgoing::Outgoing};
use window::Window;

/// Other beacons at most. A registry announces as many.
pub(super) const PEERS_MAX: usize = 64;

/// How often each other beacon hears that this one is there.
const HELLO: Duration = Duration::from_millis(500);

/// After this long without a word another beacon counts as gone, and its nodes with it.
const SILENCE: Duration = Duration::from_secs(3);

/// News of nodes are collected for so long after the first, which leaves at once.
const GATHER: Duration = Duration::from_millis(20);

/// How often each other beacon is told of all nodes again, should a message have been lost.
const LISTING: Duration = Duration::from_secs(60);

/// Messages of a listing that leave at a time: 100,000 nodes in about a second.
const LISTING_PAGES: usize = 16;

/// How long a node that is more surely here than elsewhere counts before one that is heard of later: as long as nodes
/// need at most to say again that they are there.
const PATIENCE: Duration = Duration::from_secs(90);

/// How old what is known of a node at another beacon may be. Beacons repeat it with each listing.
const FORGOTTEN: Duration = Duration::from_secs(200);

/// How often what is forgotten is removed.
const SWEEP: Duration = Duration::from_secs(30);

/// How sure, and since when, a beacon has a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) standing: Standing,
    pub(super) at: Instant,
}

impl Claim {
    /// Whether a node that is claimed by both is here rather than there: the surer one counts for as long as it may take
    /// the node to repeat it, then the later one.
    pub(super) fn beats(self, other: Self, now: Instant) -> bool {
        let is_alive = |claim: Self| now.saturating_duration_since(claim.at) < PATIENCE;
        match self.standing.cmp(&other.standing) {
            std::cmp::Ordering::Greater if is_alive(self) => true,
            std::cmp::Ordering::Less if is_alive(other) => false,
            std::cmp::Ordering::Greater | std::cmp::Ordering::Less | std::cmp::Ordering::Equal => {
                self.at > other.at
            }
        }
    }
}

/// A node at another beacon.
#[derive(Clone, Copy, Debug)]
struct Remote {
    beacon: u32,
    claim: Claim,
    /// When its beacon last said so.
    told: Instant,
}

/// What the state machine has to do about a message.
#[derive(Debug)]
pub(super) enum Heard<'a> {
    /// Nothing.
    Done,
    /// These are at another beacon, as it says.
    Here(u32, Vec<Located>),
    /// Something that concerns a node of ours.
    Errand(u32, Body<'a>),
}

#[derive(Debug)]
pub(super) struct Mesh {
    own: Option<Own>,
    peers: BTreeMap<u32, Peer>,
    nodes: HashMap<NodeId, Remote>,
    nodes_max: usize,
    /// Nodes of ours that the others have to hear of.
    news: BTreeSet<NodeId>,
    news_at: Option<Instant>,
    /// When news last left.
    told: Option<Instant>,
    hello_at: Option<Instant>,
    sweep_at: Option<Instant>,
}

#[derive(Debug)]
struct Own {
    id: u32,
    session: u64,
    secret: MeshSecret,
    hello: MacKey,
}

#[derive(Debug)]
struct Peer {
    addr: SocketAddr,
    link: Option<Link>,
    /// Its life, as a hello said that may be an old one.
    session: u64,
    heard: Instant,
    greeted: Option<Instant>,
    /// Nodes of ours that it has to be told of, and when that begins anew.
    listing: VecDeque<NodeId>,
    listing_at: Instant,
}

#[derive(Debug)]
struct Link {
    session: u64,
    to: MacKey,
    from: MacKey,
    counter: u64,
    window: Window,
}

impl Mesh {
    pub(super) fn new(nodes_max: usize) -> Self {
        Self {
            own: None,
            peers: BTreeMap::new(),
            nodes: HashMap::new(),
            nodes_max,
            news: BTreeSet::new(),
            news_at: None,
            told: None,
            hello_at: None,
            sweep_at: None,
        }
    }

    /// Who we are. `session` must be larger than in any earlier life.
    pub(super) fn join(&mut self, now: Instant, id: u32, secret: MeshSecret, session: u64) {
        if self.own.as_ref().is_some_and(|own| own.id == id && own.secret == secret) {
            return;
        }
        let hello = MacKey::new(&pilot_crypto::hmac_sha256(&secret.0, b"pilot-mesh-hello"));
        self.own = Some(Own { id, session, secret, hello });
        for peer in self.peers.values_mut() {
            peer.link = None;
        }
        self.hello_at = Some(now);
    }

    /// Who the others are.
    pub(super) fn set_peers(&mut self, now: Instant, peers: &[(u32, SocketAddr)]) {
        let own = self.own.as_ref().map(|own| own.id);
        let wanted = peers.iter().filter(|(id, _)| Some(*id) != own).take(PEERS_MAX);
        let wanted: BTreeMap<u32, SocketAddr> = wanted.copied().collect();
        let count = self.peers.len();
        self.peers.retain(|id, _| wanted.contains_key(id));
        if self.peers.len() < count {
            self.nodes.retain(|_, remote| wanted.contains_key(&remote.beacon));
        }
        for (id, addr) in wanted {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.addr = addr;
                continue;
            }
            let peer = Peer {
                addr,
                link: None,
                session: 0,
                heard: now,
                greeted: None,
                listing: VecDeque::new(),
                listing_at: now,
            };
            self.peers.insert(id, peer);
            self.hello_at = Some(now);
        }
    }

    /// Others that are there at the moment.
    pub(super) fn linked(&self) -> usize {
        self.peers.values().filter(|peer| peer.link.is_some()).count()
    }

    /// The beacon at which the node is, and how surely.
    pub(super) fn locate(&self, now: Instant, node: NodeId) -> Option<(u32, Claim)> {
        let remote = self.nodes.get(&node)?;
        let is_known = now.saturating_duration_since(remote.told) < FORGOTTEN;
        let is_there = self.peers.get(&remote.beacon).is_some_and(|peer| peer.link.is_some());
        (is_known && is_there).then_some((remote.beacon, remote.claim))
    }

    /// Another beacon has the node.
    pub(super) fn learn(&mut self, now: Instant, beacon: u32, node: NodeId, claim: Claim) {
        if let Some((known, before)) = self.locate(now, node)
            && known != beacon
            && !claim.beats(before, now)
        {
            return;
        }
        if self.nodes.len() < self.nodes_max || self.nodes.contains_key(&node) {
            self.nodes.insert(node, Remote { beacon, claim, told: now });
        }
    }

    /// No other beacon has the node any more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// The others have to hear of a node: it is here, or not any more.
    pub(super) fn tell_of(&mut self, now: Instant, node: NodeId) {
        if self.peers.is_empty() {
            return;
        }
        self.news.insert(node);
        let earliest = self.told.map_or(now, |told| told + GATHER);
        self.news_at.get_or_insert(earliest.max(now));
    }

    /// A message said to be from another beacon. `Err`: it is not, or is an old one.
    pub(super) fn hear<'a>(
        &mut self,
        now: Instant,
        out: &mut Outgoing,
        datagram: &'a [u8],
    ) -> Result<Heard<'a>, Drop> {
        let sealed = Sealed::parse(datagram).map_err(|_| Drop::Unreadable)?;
        let own = self.own.as_ref().ok_or(Drop::Unreadable)?;
        let peer = self.peers.get_mut(&sealed.beacon).ok_or(Drop::Impostor)?;
        if sealed.is_hello() {
            if !own.hello.is_tag_of(sealed.covered, sealed.tag) {
                return Err(Drop::Impostor);
            }
            let Ok(Body::Hello { session, echo }) = sealed.body() else { return Err(Drop::Unreadable) };
            peer.greeted_with(now, own, sealed.beacon, session, echo, out);
            return Ok(Heard::Done);
        }
        let link = peer.link.as_mut().ok_or(Drop::Impostor)?;
        if !link.from.is_tag_of(sealed.covered, sealed.tag) || !link.window.admits(sealed.counter) {
            return Err(Drop::Impostor);
        }
        peer.heard = now;
        match sealed.body().map_err(|_| Drop::Unreadable)? {
            Body::Here(nodes) => Ok(Heard::Here(sealed.beacon, nodes)),
            Body::Gone(nodes) => {
                for node in nodes {
                    if self.nodes.get(&node).is_some_and(|remote| remote.beacon == sealed.beacon) {
                        self.nodes.remove(&node);
                    }
                }
                Ok(Heard::Done)
            }
            Body::Hello { .. } => Err(Drop::Unreadable),
            errand @ (Body::Relay { .. } | Body::Introduce(_) | Body::Introduced(_) | Body::Notify(_)) => {
                Ok(Heard::Errand(sealed.beacon, errand))
            }
        }
    }

    /// Tells one of the others something. `false` if it is not there.
    pub(super) fn tell(&mut self, beacon: u32, body: &Body<'_>, out: &mut Outgoing) -> bool {
        let (Some(own), Some(peer)) = (&self.own, self.peers.get_mut(&beacon)) else { return false };
        peer.tell(own.id, body, out)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.own.as_ref()?;
        let listings = self.peers.values().filter(|peer| peer.link.is_some()).map(|peer| peer.listing_at);
        listings.chain(self.hello_at).chain(self.news_at).chain(self.sweep_at).min()
    }

    /// `nodes` are all that are here, and `claim` says how surely one is, or that it is not here.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut Outgoing,
        nodes: impl Fn() -> Vec<NodeId>,
        claim: impl Fn(NodeId) -> Option<Claim>,
    ) {
        let Some(own) = &self.own else { return };
        if self.hello_at.is_some_and(|at| at <= now) {
            for (id, peer) in &mut self.peers {
                if peer.link.is_some() && now.saturating_duration_since(peer.heard) >= SILENCE {
                    tracing::warn!(beacon = id, addr = %peer.addr, "another beacon is not heard of any more");
                    peer.link = None;
                }
                peer.greet(own, out);
            }
            self.hello_at = (!self.peers.is_empty()).then(|| now + HELLO);
        }
        if self.news_at.is_some_and(|at| at <= now) {
            self.news_at = None;
            self.told = Some(now);
            let news: Vec<NodeId> = std::mem::take(&mut self.news).into_iter().collect();
            for page in news.chunks(NODES_MAX) {
                let (here, gone) = sorted(now, page, &claim);
                for peer in self.peers.values_mut() {
                    for body in [&here, &gone].into_iter().flatten() {
                        peer.tell(own.id, body, out);
                    }
                }
            }
        }
        let mut all = None;
        for peer in self.peers.values_mut().filter(|peer| peer.link.is_some() && peer.listing_at <= now) {
            if peer.listing.is_empty() {
                peer.listing.extend(all.get_or_insert_with(&nodes).iter().copied());
            }
            for _ in 0..LISTING_PAGES {
                let page: Vec<NodeId> = peer.listing.drain(..peer.listing.len().min(NODES_MAX)).collect();
                if let (Some(here), _) = sorted(now, &page, &claim) {
                    peer.tell(own.id, &here, out);
                }
            }
            peer.listing_at = now + if peer.listing.is_empty() { LISTING } else { GATHER };
        }
        if self.sweep_at.is_none_or(|at| at <= now) {
            self.nodes.retain(|_, remote| now.saturating_duration_since(remote.told) < FORGOTTEN);
            self.sweep_at = (!self.peers.is_empty()).then(|| now + SWEEP);
        }
    }
}

/// Those that are here, and those that are not.
fn sorted<'a>(
    now: Instant,
    nodes: &[NodeId],
    claim: impl Fn(NodeId) -> Option<Claim>,
) -> (Option<Body<'a>>, Option<Body<'a>>) {
    let (mut here, mut gone) = (Vec::new(), Vec::new());
    for &node in nodes {
        match claim(node) {
            Some(Claim { standing, at }) => {
                let age = now.saturating_duration_since(at).as_millis();
                here.push(Located { node, standing, age: u32::try_from(age).unwrap_or(u32::MAX) });
            }
            None => gone.push(node),
        }
    }
    let here = (!here.is_empty()).then_some(Body::Here(here));
    (here, (!gone.is_empty()).then_some(Body::Gone(gone)))
}

impl Peer {
    fn greet(&self, own: &Own, out: &mut Outgoing) {
        let hello = Body::Hello { session: own.session, echo: self.session };
        out.push(Route::Udp(self.addr), |out| {
            hello.emit(own.id, 0, |covered| own.hello.tag(covered), out);
        });
    }

    fn greeted_with(
        &mut self,
        now: Instant,
        own: &Own,
        id: u32,
        session: u64,
        echo: u64,
        out: &mut Outgoing,
    ) {
        let known = self.link.as_ref().map(|link| link.session);
        if known == Some(session) && echo == own.session {
            self.heard = now;
            return;
        }
        // One of an earlier life, recorded by somebody.
        if known.is_some_and(|known| session < known) {
            return;
        }
        self.session = session;
        if echo == own.session {
            tracing::info!(beacon = id, addr = %self.addr, "another beacon is there");
            let key = |from: u32, to: u32, from_session: u64, to_session: u64| {
                let text = format!("pilot-mesh-link:{from}:{to}:{from_session}:{to_session}");
                MacKey::new(&pilot_crypto::hmac_sha256(&own.secret.0, text.as_bytes()))
            };
            self.link = Some(Link {
                session,
                to: key(own.id, id, own.session, session),
                from: key(id, own.id, session, own.session),
                counter: 0,
                window: Window::default(),
            });
            self.heard = now;
            self.listing.clear();
            self.listing_at = now;
        }
        // It has to know us before it believes anything else. A recorded hello makes us send no more than it would.
        if self.greeted.is_none_or(|at| now.saturating_duration_since(at) >= GATHER) || echo == own.session {
            self.greeted = Some(now);
            self.greet(own, out);
        }
    }

    fn tell(&mut self, own: u32, body: &Body<'_>, out: &mut Outgoing) -> bool {
        let Some(link) = &mut self.link else { return false };
        link.counter += 1;
        let (counter, key) = (link.counter, &link.to);
        out.push(Route::Udp(self.addr), |out| body.emit(own, counter, |covered| key.tag(covered), out));
        true
    }
}
