//! One agent's end of the network.

mod agreement;
mod cookies;
mod directory;
mod exchange;
mod incoming;
mod mtu;
mod opened;
mod outgoing;
mod paths;
mod peer;
mod pings;
mod probing;
mod reports;
#[cfg(test)]
mod sizes;
mod stats;
mod streams;
mod tables;
mod taps;
mod trusting;
mod upkeep;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pilot_crypto::AgreementKey;
use pilot_wire::{Addr, AgreementPublic, Endpoint, NodeId, Port, PublicKey, Seq, StreamId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::path::Via;
use crate::path::beacon::Beacon;
use crate::path::candidate::is_plausible;
use crate::path::ledger::Ledger;
use crate::path::survey::Surveyor;
use crate::rate::{Bucket, Buckets, Rate};
use crate::stream::{Read, Stream, StreamError};
use crate::tap::Taps;
use crate::timer::Timers;
use crate::trust::Book;
use crate::tunnel::Life;
use crate::{
    CandidateSource, Closed, Config, DatagramError, DialError, Encryption, Event, PingId, PortInUse, Query,
    QueryId, Side, StreamEvent, Visibility,
};

use cookies::Cookies;
use directory::{Directory, Lookup};
use exchange::Held;
use peer::Peer;
use pings::{Pings, Purpose};
pub use reports::{CandidateReport, PathReport, RelayReason, RelayReport, RelayState, Silence, Survey};
pub use stats::{Drop, Stats};
use streams::{Streams, Tuple};
pub use tables::Table;
pub use view::{PathView, PeerView, StreamView};

/// Peers known at one time. Beyond this, exchanges of further strangers are not answered; peers that nobody uses
/// are forgotten after five minutes.
const PEERS_MAX: usize = 16_384;

/// Key exchanges looked at per source address. The reference sends at most six in a row, and several nodes may
/// share an address.
const EXCHANGES_PER_SOURCE: Rate = Rate { burst: 32, interval: Duration::from_millis(50) };

/// Requests for a key after a frame that does not open, per peer.
const KEY_REQUESTS: Rate = Rate { burst: 2, interval: Duration::from_secs(1) };

/// Repeated replies to initiations, per peer. They come every way there is, and are repeated a quarter of a second after
/// the first.
const REPLIES: Rate = Rate { burst: 8, interval: Duration::from_millis(250) };

/// Streams opened by one peer.
const SYNS_PER_PEER: Rate = Rate { burst: 512, interval: Duration::from_millis(1) };

/// Challenges of the beacon that are answered: each costs a signature, and anybody may write the beacon's address on a
/// datagram.
const CHALLENGES: Rate = Rate { burst: 8, interval: Duration::from_millis(250) };

/// Questions to the registry for strangers, about whom nothing is known here: who floods with numbers of nodes must not make
/// this node flood the registry. Beyond this strangers show first that they receive what is sent to their address.
const STRANGERS: Rate = Rate { burst: 512, interval: Duration::from_millis(2) };

/// Exchanges in a peer's name under another identity that are looked into, per peer.
const MISMATCHES: Rate = Rate { burst: 4, interval: Duration::from_millis(500) };

/// Sources for which rates are kept.
const SOURCES_MAX: usize = 4096;

/// A node: the tunnels to its peers, its streams, whom it trusts.
///
/// It is driven by calls. After any input (`handle_*`, `set_*` or a call of an application) ask it until each
/// returns `None`, in this order: [`poll_transmit`](Self::poll_transmit) for datagrams to send,
/// [`poll_query`](Self::poll_query) for questions to the registry, [`poll_event`](Self::poll_event) for news.
/// Then sleep until the time of [`poll_timeout`](Self::poll_timeout) or the next input, whichever is first.
/// A batch of received datagrams is best handed over whole before asking: one acknowledgement then answers all.
/// `now` must not go backwards from call to call.
#[derive(Debug)]
pub struct Node {
    config: Config,
    born: Instant,
    id: Option<NodeId>,
    rng: StdRng,
    peers: BTreeMap<NodeId, Peer>,
    streams: Streams,
    pings: Pings,
    next_ping: u64,
    book: Book,
    /// What the wall clock showed when it was last told, for the time in messages.
    wall: Option<(Instant, crate::trust::UnixTime)>,
    directory: Directory,
    beacon: Option<Beacon>,
    /// Addresses of this host, with the tunnel's port.
    local: Vec<SocketAddr>,
    /// The address that a gateway maps to us.
    mapped: Option<SocketAddr>,
    /// Grows with each change of our addresses.
    generation: u64,
    surveyor: Surveyor,
    ledger: Ledger,
    /// Whom we asked to be introduced to, and when.
    introductions: VecDeque<(NodeId, Instant)>,
    /// Key exchanges that wait for an answer of the registry.
    held: BTreeMap<NodeId, Held>,
    exchange_limits: Buckets<Source>,
    request_limits: Buckets<NodeId>,
    reply_limits: Buckets<NodeId>,
    /// The same for those whose address is known to be theirs.
    vouched_limits: Buckets<Source>,
    verifications: Bucket,
    strangers: Bucket,
    /// By peer, and whether its address is known to be its.
    mismatches: Buckets<(NodeId, bool)>,
    /// When exchanges that wait were last searched for old ones.
    held_searched: Option<Instant>,
    cookies: Cookies,
    /// Tells this process from earlier ones of this node.
    life: Life,
    /// Peers that agree on keys of the moment, under the identity with which they did.
    modern: BTreeMap<NodeId, PublicKey>,
    challenges: Bucket,
    /// Shown when a stranger is asked for its key. Nothing is ever agreed with it.
    request_key: AgreementPublic,
    syn_limits: Buckets<NodeId>,
    timers: Timers<Timer>,
    /// Whole datagrams to send, made outside the streams.
    outbox: VecDeque<Frame>,
    events: VecDeque<Event>,
    stats: Stats,
    taps: Taps,
    scratch: Vec<u8>,
}

/// Where a key exchange came from, for rating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Address(IpAddr),
    Relayed(NodeId),
}

/// What a node waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Retransmission, delayed acknowledgement and so on of one stream.
    Stream(StreamId),
    /// Retries, keepalives and deadlines of one peer.
    Peer(NodeId),
    /// The oldest ping is given up.
    Pings,
    /// The beacon should hear from us.
    Beacon,
    /// The survey under way goes on.
    Survey,
}

/// Datagrams to one destination, appended to the caller's buffer back to back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Where they go.
    pub destination: SocketAddr,
    /// Bytes of each datagram; the last may be shorter.
    pub segment_size: usize,
    /// Whether they may go in fragments where the network does not carry that much. All others are to be sent marked
    /// "do not fragment", because the node finds out what the path carries.
    pub may_fragment: bool,
}

/// A datagram that was made outside the streams.
#[derive(Debug)]
struct Frame {
    destination: SocketAddr,
    bytes: Vec<u8>,
    may_fragment: bool,
}

impl Frame {
    /// One that must not be cut into fragments: most are small enough for every path.
    fn whole(destination: SocketAddr, bytes: Vec<u8>) -> Self {
        Self { destination, bytes, may_fragment: false }
    }
}

/// Life.
impl Node {
    /// A node that is not registered yet: it can talk to its beacon and to itself once it has a number.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        let mut rng = StdRng::from_seed(config.seed);
        let request_key = AgreementKey::draw(&mut rng).public();
        let cookies = Cookies::new(now, &mut rng);
        let life = Life(rng.next_u64());
        let beacon = config.beacon.map(|addr| Beacon::new(now, addr));
        let mut book = Book::default();
        book.set_auto_approve(config.auto_approve);
        let mut node = Self {
            config,
            born: now,
            id: None,
            rng,
            peers: BTreeMap::new(),
            streams: Streams::new(),
            pings: Pings::new(),
            next_ping: 0,
            book,
            wall: None,
            directory: Directory::default(),
            beacon,
            local: Vec::new(),
            mapped: None,
            generation: 1,
            surveyor: Surveyor::default(),
            ledger: Ledger::default(),
            introductions: VecDeque::new(),
            held: BTreeMap::new(),
            exchange_limits: Buckets::new(EXCHANGES_PER_SOURCE, SOURCES_MAX),
            request_limits: Buckets::new(KEY_REQUESTS, SOURCES_MAX),
            reply_limits: Buckets::new(REPLIES, SOURCES_MAX),
            vouched_limits: Buckets::new(EXCHANGES_PER_SOURCE, SOURCES_MAX),
            verifications: Bucket::full(now),
            strangers: Bucket::full(now),
            mismatches: Buckets::new(MISMATCHES, SOURCES_MAX),
            held_searched: None,
            cookies,
            life,
            modern: BTreeMap::new(),
            challenges: Bucket::full(now),
            request_key,
            syn_limits: Buckets::new(SYNS_PER_PEER, SOURCES_MAX),
            timers: Timers::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
            taps: Taps::default(),
            scratch: Vec::new(),
        };
        node.timers.set(Timer::Beacon, node.beacon.as_ref().map(Beacon::poll_timeout));
        node
    }

    /// The number the registry gave this node, at registration or remembered from an earlier one.
    pub fn set_node(&mut self, now: Instant, id: NodeId) {
        if self.id == Some(id) {
            return;
        }
        self.id = Some(id);
        if let Some(beacon) = &mut self.beacon {
            beacon.renamed(now);
            self.timers.set(Timer::Beacon, Some(now));
        }
    }

    /// Which beacon to use from now on.
    pub fn set_beacon(&mut self, now: Instant, addr: Option<SocketAddr>) {
        if self.beacon.as_ref().map(Beacon::addr) == addr {
            return;
        }
        self.beacon = addr.map(|addr| Beacon::new(now, addr));
        self.surveyor = Surveyor::default();
        self.timers.set(Timer::Beacon, self.beacon.as_ref().map(Beacon::poll_timeout));
    }

    /// Who may reach this node without trust, from now on.
    pub fn set_visibility(&mut self, visibility: Visibility) {
        self.config.visibility = visibility;
    }

    /// Whether requests for trust are approved without asking.
    pub fn set_auto_approve(&mut self, on: bool) {
        self.config.auto_approve = on;
        self.book.set_auto_approve(on);
    }

    /// The node's identity key was replaced: all keys are agreed anew.
    pub fn set_identity(&mut self, now: Instant, identity: pilot_crypto::Identity) {
        self.config.identity = identity;
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.replace_key(now, id);
        }
    }

    /// An address at which a peer may be reached, and how that is known. It is tried when the peer is wanted.
    pub fn hint(&mut self, now: Instant, peer: NodeId, addr: SocketAddr, source: CandidateSource) {
        if self.id != Some(peer) && is_plausible(addr, self.lives_on_loopback()) {
            self.peer(now, peer).path.learn(now, addr, source);
        }
    }

    /// The number of this node, once it has one.
    #[must_use]
    pub fn id(&self) -> Option<NodeId> {
        self.id
    }

    /// The identity key of this node.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.config.identity.public()
    }

    /// The beacon should hear of us now.
    fn announce(&mut self, now: Instant) {
        if let Some(beacon) = &mut self.beacon {
            beacon.announce(now);
            self.timers.set(Timer::Beacon, Some(now));
        }
    }
}

/// Streams, datagrams and pings, for applications.
impl Node {
    /// Opens a stream. [`StreamEvent::Established`] or [`StreamEvent::Closed`] follows. What is written before the
    /// next [`poll_transmit`](Self::poll_transmit), or while there is no key, rides in the SYN; what is written
    /// afterwards goes out as soon as the peer answers.
    ///
    /// # Errors
    /// [`DialError`] for what is known at once. Everything else comes with [`Closed::Dial`].
    pub fn dial(&mut self, now: Instant, to: Endpoint) -> Result<StreamId, DialError> {
        let us = self.id.ok_or(DialError::NotRegistered)?;
        let local = self.streams.free_port(to).ok_or(DialError::NoPorts)?;
        if self.streams.len() >= streams::STREAMS_MAX {
            return Err(DialError::NoPorts);
        }
        let from = Addr { network: to.addr.network, node: us }.port(local);
        let initial = self.first_sequence();
        let stream = Stream::connect(&self.config.streams, now, from, to, initial);
        let id = self.streams.insert(Tuple { local, remote: to }, stream, Side::Ours);
        let node = to.addr.node;
        if node != us {
            let peer = self.peer(now, node);
            peer.streams += 1;
            peer.dials.insert(id, now);
            self.size_stream(now, id);
            self.want(now, node);
        }
        self.settle(now, id);
        Ok(id)
    }

    /// Where the sequence numbers of our side of a new stream begin.
    fn first_sequence(&mut self) -> Seq {
        let drawn = Seq(self.rng.next_u32());
        self.config.streams.first_sequence.unwrap_or(drawn)
    }

    /// Accepts streams on `port` from now on.
    ///
    /// # Errors
    /// [`PortInUse`] when it does already.
    pub fn listen(&mut self, port: Port) -> Result<(), PortInUse> {
        self.streams.listen(port)
    }

    /// Stops accepting streams on `port`. Those that are open stay. `false` if it was not accepting.
    pub fn unlisten(&mut self, port: Port) -> bool {
        self.streams.unlisten(port)
    }

    /// Writes a prefix of `data` and returns its length, 0 when the send buffer is full;
    /// [`StreamEvent::Writable`] follows when there is room again.
    ///
    /// # Errors
    /// [`StreamError`] when the stream is over or finished.
    pub fn write(&mut self, now: Instant, id: StreamId, data: Bytes) -> Result<usize, NoStream> {
        let entry = self.streams.get_mut(id).ok_or(NoStream::Unknown(id))?;
        let taken = entry.stream.write(now, data);
        self.settle(now, id);
        Ok(taken?)
    }

    /// Reads at most `max` bytes.
    ///
    /// # Errors
    /// [`NoStream`] when there is no such stream, or it ended abnormally and all that had come is read.
    pub fn read(&mut self, now: Instant, id: StreamId, max: usize) -> Result<Read, NoStream> {
        let entry = self.streams.get_mut(id).ok_or(NoStream::Unknown(id))?;
        let read = entry.stream.read(now, max);
        self.settle(now, id);
        Ok(read?)
    }

    /// Says that nothing more will be written. Reading goes on, if the peer can do that too.
    pub fn finish(&mut self, now: Instant, id: StreamId) {
        self.with_stream(now, id, |stream| stream.finish(now));
    }

    /// Finishes and drops whatever is still read. Written data is still delivered.
    pub fn close(&mut self, now: Instant, id: StreamId) {
        self.with_stream(now, id, |stream| stream.close(now));
    }

    /// Ends the stream at once, here and at the peer.
    pub fn reset(&mut self, now: Instant, id: StreamId) {
        self.with_stream(now, id, |stream| stream.abort(now));
    }

    /// Whether everything written to the stream has been acknowledged. `None` if there is no such stream.
    #[must_use]
    pub fn is_drained(&self, id: StreamId) -> Option<bool> {
        self.streams.get(id).map(|entry| entry.stream.is_drained())
    }

    /// Sends one unreliable datagram, from a fresh port if none is given.
    ///
    /// # Errors
    /// [`DatagramError`].
    pub fn send_datagram(
        &mut self,
        now: Instant,
        to: Endpoint,
        from: Option<Port>,
        data: &[u8],
    ) -> Result<(), DatagramError> {
        use pilot_wire::packet::{Flags, Header, MAX_PAYLOAD, Protocol};
        let us = self.id.ok_or(DatagramError::NotRegistered)?;
        if data.len() > MAX_PAYLOAD {
            return Err(DatagramError::TooLarge(data.len()));
        }
        let port = from.or_else(|| self.streams.free_port(to)).unwrap_or(Port(*Port::EPHEMERAL.end()));
        let source = Addr { network: to.addr.network, node: us }.port(port);
        let mut packet = Vec::new();
        Header::new(Protocol::Datagram, Flags::NONE, source, to).emit_with(&[data], &mut packet);
        if !self.send_packet(now, to.addr.node, packet) {
            return Err(DatagramError::QueueFull(to.addr.node));
        }
        if let Some(peer) = self.peers.get_mut(&to.addr.node) {
            peer.tunnel.carries();
        }
        Ok(())
    }

    /// Asks `peer` for a sign of life. [`Event::Pong`] follows.
    pub fn ping(&mut self, now: Instant, peer: NodeId, payload: usize) -> PingId {
        self.next_ping += 1;
        let id = PingId(self.next_ping);
        let packet = self.start_ping(now, peer, payload, Purpose::Application(id));
        self.send_packet(now, peer, packet);
        id
    }
}

/// Outputs.
impl Node {
    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next question to the registry.
    pub fn poll_query(&mut self) -> Option<(QueryId, Query)> {
        self.directory.poll()
    }

    /// The next piece of news.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

/// Why a call on a stream failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoStream {
    /// There is none of that number, or no more.
    #[error("connection {0} not found")]
    Unknown(StreamId),
    /// It is finished or over.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// What the parts share.
impl Node {
    /// The peer of that number, made if need be.
    fn peer(&mut self, now: Instant, id: NodeId) -> &mut Peer {
        let rng = &mut self.rng;
        self.peers.entry(id).or_insert_with(|| Peer::new(now, AgreementKey::draw(rng)))
    }

    fn replace_key(&mut self, now: Instant, id: NodeId) {
        let ours = AgreementKey::draw(&mut self.rng);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.tunnel.replace_key(ours);
            peer.expect_answer(now);
            self.offer_everywhere(now, id);
            self.arm_peer(id);
        }
    }

    fn with_stream(&mut self, now: Instant, id: StreamId, act: impl FnOnce(&mut Stream)) {
        if let Some(entry) = self.streams.get_mut(id) {
            act(&mut entry.stream);
            self.settle(now, id);
        }
    }

    /// After any touch of a stream: its news, its timer, its end, and its place in the queue of those to be asked
    /// for segments.
    fn settle(&mut self, now: Instant, id: StreamId) {
        self.collect(now, id);
        self.streams.wake(id);
    }

    /// After a stream was asked for segments: all but the queue.
    fn collect(&mut self, now: Instant, id: StreamId) {
        use crate::stream::StreamEvent as Inner;
        let Some(entry) = self.streams.get_mut(id) else { return };
        let node = entry.peer();
        let is_suspicious = entry.stream.take_suspicion();
        let timed_out = entry.stream.take_time_out();
        while let Some(event) = entry.stream.poll_event() {
            if let Inner::Established | Inner::Closed(_) = event
                && let Some(peer) = self.peers.get_mut(&node)
            {
                peer.dials.remove(&id);
            }
            let event = match event {
                // The one who was dialled heard `Incoming`.
                Inner::Established if entry.opener == Side::Theirs => continue,
                Inner::Established => StreamEvent::Established,
                Inner::Readable | Inner::PeerFinished => StreamEvent::Readable,
                Inner::Writable => StreamEvent::Writable,
                Inner::Drained => StreamEvent::Drained,
                Inner::Closed(reason) => StreamEvent::Closed(Closed::Stream(reason)),
            };
            self.events.push_back(Event::Stream(id, event));
        }
        if entry.stream.is_gone() {
            self.forget_stream(now, id);
        } else {
            self.timers.set(Timer::Stream(id), entry.stream.poll_timeout());
        }
        if is_suspicious {
            self.path_lost_large(now, node);
        }
        if timed_out {
            self.suspect_route(now, node);
        }
    }

    fn forget_stream(&mut self, now: Instant, id: StreamId) {
        self.timers.set(Timer::Stream(id), None);
        let Some(entry) = self.streams.remove(id) else { return };
        self.stats.retransmits += entry.stream.stats().retransmits;
        if let Some(peer) = self.peers.get_mut(&entry.peer()) {
            peer.streams = peer.streams.saturating_sub(1);
            peer.dials.remove(&id);
            peer.used = now;
            self.arm_peer(entry.peer());
        }
    }

    /// A dial that the stream itself knows nothing of failed.
    fn fail_dial(&mut self, now: Instant, id: StreamId, error: DialError) {
        self.forget_stream(now, id);
        self.events.push_back(Event::Stream(id, StreamEvent::Closed(Closed::Dial(error))));
    }

    /// Makes sure that the peer is looked at when something is due. Deadlines mostly move away, with each frame; a
    /// timer that goes off early costs less than moving it each time.
    fn arm_peer(&mut self, id: NodeId) {
        let polite = self.id > Some(id);
        let at = self.peers.get(&id).and_then(|peer| peer.poll_timeout(&self.config.tunnel, polite));
        match (self.timers.get(Timer::Peer(id)), at) {
            (Some(armed), Some(at)) if armed <= at => {}
            (_, at) => self.timers.set(Timer::Peer(id), at),
        }
    }

    /// Whether `node` may have an answer from us on `port`; asks the registry when only it can know.
    fn admits(&mut self, now: Instant, node: NodeId, port: Option<Port>) -> Lookup<bool> {
        if self.is_admitted(node, port) { Lookup::Known(true) } else { self.directory.is_trusted(now, node) }
    }

    /// Whether the registry need not be asked for that.
    fn is_admitted(&self, node: NodeId, port: Option<Port>) -> bool {
        let asked = port.is_none_or(|port| port == Port::HANDSHAKE || port == Port::DATA_EXCHANGE);
        self.id == Some(node)
            || self.config.visibility == Visibility::Public
            || self.config.encryption == Encryption::Off
            || self.book.get(node).is_some()
            || (asked && self.book.is_asked(node))
    }

    /// Whether keys are agreed with `node`. Whoever has a stream, a dial or a packet of ours waiting is one we called:
    /// it needs no trust of ours to answer, and gains none. The registry is asked first, because a member of a network
    /// is trusted, and that is to be remembered.
    fn agrees_keys(&mut self, now: Instant, node: NodeId) -> Lookup<bool> {
        match self.admits(now, node, None) {
            Lookup::Known(false) | Lookup::Refused
                if self.peers.get(&node).is_some_and(|peer| !peer.is_unused()) =>
            {
                Lookup::Known(true)
            }
            answer @ (Lookup::Known(_) | Lookup::Asking | Lookup::Refused) => answer,
        }
    }

    fn drop_frame(&mut self, why: Drop) {
        self.stats.count(why);
    }
}
