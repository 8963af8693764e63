//! A world: hosts with nodes on them, links between them, a registry, and one clock that jumps from event to event.
//!
//! Everything that happens follows from the seed: the same seed gives the same history, to the datagram.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use pilot_crypto::Identity;
use pilot_proto::{
    Answer, Closed, Config, Event, Node, QueryId, Read, StreamEvent, Visibility, trust::UnixTime,
};
use pilot_rendezvous::beacon;
use pilot_wire::{Addr, Endpoint, NodeId, Port, StreamId};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    Conditions, Detail, History, Link, Role, Transfer, Violation,
    directory::{Carried, Directory},
    nat::{Nat, NatBox},
    transfer::Side,
    watch::{Fault, Seen, Watch},
};

/// Adds a line to the history. A macro, because the line borrows other fields of the world.
macro_rules! tell {
    ($world:ident, $($line:tt)*) => {
        $world.history.record($world.now - $world.start, format_args!($($line)*))
    };
}

mod network;

use network::{Arriving, Place};

/// Names a host of a world, in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub usize);

/// Names a transfer of a world, in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub usize);

/// How long the registry takes to answer.
const REGISTRY_DELAY: Duration = Duration::from_millis(20);

/// When worlds begin, in seconds since 1970. Any time will do.
const WALL_START: UnixTime = 1_700_000_000;

/// Trust through a registry that can be reached takes well below a second.
const TRUST_LIMIT: Duration = Duration::from_secs(10);

/// Steps at one and the same instant before the world is declared stuck: no node has that much to do at once.
const STEPS_PER_INSTANT_MAX: u32 = 100_000;

/// Segments that a node may put into one transmission, as the daemon asks for (GSO).
const SEGMENTS_MAX: usize = 16;

/// The imaginary network.
pub struct World {
    start: Instant,
    now: Instant,
    steps_now: u32,
    chance: StdRng,
    hosts: Vec<Machine>,
    links: BTreeMap<(Place, Place), Link>,
    beacon: Option<beacon::State>,
    conditions: Conditions,
    directory: Directory,
    transfers: Vec<Running>,
    queue: BTreeMap<(Instant, u64), Happening>,
    queued: u64,
    timers: BTreeSet<(Instant, Host)>,
    attacks: f64,
    recording: Option<(Host, Host, Vec<Vec<u8>>)>,
    history: History,
    watch: Watch,
    buffer: Vec<u8>,
}

/// Changes the default settings of a node.
type Configure = Rc<dyn Fn(&mut Config)>;

struct Machine {
    name: String,
    at: SocketAddr,
    number: NodeId,
    identity: Identity,
    configure: Configure,
    /// Whether its streams can end one direction alone.
    half_close: bool,
    visibility: Visibility,
    node: Node,
    timer: Option<Instant>,
    nat: Option<NatBox>,
    streams: BTreeMap<StreamId, (TransferId, Role)>,
    /// Streams of transfers that have theirs already.
    repeated: BTreeMap<StreamId, TransferId>,
    /// Events that belong to no transfer.
    events: Vec<Event>,
}

struct Running {
    transfer: Transfer,
    sides: BTreeMap<Role, Side>,
}

enum Happening {
    Arrives(Arriving),
    Answered { host: Host, query: QueryId, answer: Answer },
    Carried(Carried),
    Dial(TransferId),
    Reads(TransferId, Role),
}

/// Building a world.
impl World {
    /// An empty world.
    pub fn new(seed: u64, detail: Detail) -> Self {
        // Where virtual time starts is of no importance, but there is no other way to get an `Instant`.
        let start = Instant::now();
        Self {
            start,
            now: start,
            steps_now: 0,
            chance: StdRng::seed_from_u64(seed),
            hosts: Vec::new(),
            links: BTreeMap::new(),
            beacon: None,
            conditions: Conditions::PERFECT,
            directory: Directory::default(),
            transfers: Vec::new(),
            queue: BTreeMap::new(),
            queued: 0,
            timers: BTreeSet::new(),
            attacks: 0.0,
            recording: None,
            history: History::new(detail),
            watch: Watch::new(detail != Detail::Nothing),
            buffer: Vec::new(),
        }
    }

    /// What links are like that are not set by themselves, from now on.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
        for link in self.links.values_mut() {
            link.set(conditions);
        }
    }

    /// What the link from one host to another is like from now on. The way back stays as it is.
    pub fn set_link(&mut self, from: Host, to: Host, conditions: Conditions) {
        self.link(Place::Host(from), Place::Host(to)).set(conditions);
    }

    /// An attacker records this share of all datagrams and sends each again later, whole or changed, from anywhere.
    pub fn set_attacks(&mut self, share: f64) {
        self.attacks = share;
    }

    /// Whether the registry can be reached.
    pub fn set_registry_reachable(&mut self, reachable: bool) {
        self.directory.unreachable = !reachable;
    }

    /// Adds a beacon, for all nodes that are added after it.
    pub fn add_beacon(&mut self) {
        self.beacon = Some(beacon::State::new(beacon::Config::default()));
    }

    /// Puts a host behind a box of its own, before it has sent anything.
    pub fn set_nat(&mut self, host: Host, kind: Nat) {
        let machine = &mut self.hosts[host.0];
        machine.nat = Some(NatBox::new(kind, network::outside_of(host)));
        self.directory.moved(machine.number, None);
    }

    /// The box in front of a host restarts: what goes out comes from other ports, and nothing old is let in.
    pub fn forget_bindings(&mut self, host: Host) {
        if let Some(nat) = &mut self.hosts[host.0].nat {
            nat.forget();
        }
    }

    /// Adds a private node with default settings.
    pub fn node(&mut self, name: &str) -> Host {
        self.node_with(name, Visibility::Private, |_| {})
    }

    /// Adds a node. `configure` is asked again when it restarts.
    pub fn node_with(
        &mut self,
        name: &str,
        visibility: Visibility,
        configure: impl Fn(&mut Config) + 'static,
    ) -> Host {
        let configure: Configure = Rc::new(configure);
        let host = Host(self.hosts.len());
        let index = u8::try_from(host.0 + 1).unwrap_or(u8::MAX);
        let at = SocketAddr::from((Ipv4Addr::new(10, 0, 0, index), 4000 + u16::from(index)));
        let number = NodeId(u32::from(index));
        let identity = Identity::from_seed(&self.chance.random());
        self.directory.register(number, identity.public(), Some(at), visibility == Visibility::Public);
        let mut config = Config::new(identity.clone(), [0; 32]);
        configure(&mut config);
        let half_close = config.streams.options;
        let node = self.birth(&identity, number, visibility, &configure);
        self.hosts.push(Machine {
            name: name.to_owned(),
            at,
            number,
            identity,
            configure,
            half_close,
            visibility,
            node,
            timer: None,
            nat: None,
            streams: BTreeMap::new(),
            repeated: BTreeMap::new(),
            events: Vec::new(),
        });
        // What it has to send at once is sent when time goes on, so that a box can be put in front of it first.
        self.set_timer(host, Some(self.now));
        host
    }

    fn birth(
        &mut self,
        identity: &Identity,
        number: NodeId,
        visibility: Visibility,
        configure: &Configure,
    ) -> Node {
        let mut config = Config::new(identity.clone(), self.chance.random());
        config.visibility = visibility;
        config.beacon = self.beacon.is_some().then_some(network::BEACON);
        configure(&mut config);
        let mut node = Node::new(config, self.now);
        node.set_node(self.now, number);
        node
    }

    /// Adds a transfer. The listener listens from now on.
    pub fn transfer(&mut self, transfer: Transfer) -> TransferId {
        let id = TransferId(self.transfers.len());
        let half_close =
            self.hosts[transfer.dialer.0].half_close && self.hosts[transfer.listener.0].half_close;
        let sides = [
            (Role::Dialer, Side::new(transfer.dialing, &transfer.listening, half_close)),
            (Role::Listener, Side::new(transfer.listening, &transfer.dialing, half_close)),
        ];
        if let Err(error) = self.hosts[transfer.listener.0].node.listen(transfer.port) {
            self.watch.note(Fault::Setup(error.to_string()));
        }
        self.plan(self.start + transfer.starts, Happening::Dial(id));
        self.transfers.push(Running { transfer, sides: BTreeMap::from(sides) });
        id
    }
}

/// Time goes on.
impl World {
    /// Runs until `done` or until `limit` has passed from now; says whether it was done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if self.watch.fault().is_some() || !self.step(end) {
                return false;
            }
        }
    }

    /// Runs for `time`.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until every transfer has ended on both sides.
    pub fn run_transfers(&mut self, limit: Duration) -> bool {
        self.run_until(limit, |world| world.transfers().all(|id| world.is_over(id)))
    }

    /// Goes to the next event, unless it is after `end`; then time goes on to `end`.
    fn step(&mut self, end: Instant) -> bool {
        let event = self.queue.first_key_value().map(|(&(at, _), _)| at);
        let timer = self.timers.first().map(|&(at, _)| at);
        let Some(next) = event.into_iter().chain(timer).min().filter(|&next| next <= end) else {
            self.now = self.now.max(end);
            return false;
        };
        self.advance(next);
        if event == Some(next)
            && let Some((_, happening)) = self.queue.pop_first()
        {
            self.happen(happening);
        } else if let Some(&(_, host)) = self.timers.first() {
            let now = self.now;
            tell!(self, "{} wakes", self.hosts[host.0].name);
            self.hosts[host.0].node.handle_timeout(now);
            self.drain(host);
        }
        true
    }

    fn advance(&mut self, next: Instant) {
        if next > self.now {
            self.now = next;
            self.steps_now = 0;
            return;
        }
        self.steps_now += 1;
        if self.steps_now > STEPS_PER_INSTANT_MAX {
            self.watch.note(Fault::Stuck);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(arriving) => self.arrive(arriving),
            Happening::Answered { host, query, answer } => {
                tell!(self, "{} is answered {answer:?}", self.hosts[host.0].name);
                let now = self.now;
                self.hosts[host.0].node.handle_answer(now, query, answer);
                self.drain(host);
            }
            Happening::Carried(carried) => self.carry(carried),
            Happening::Dial(id) => self.start_transfer(id),
            Happening::Reads(id, role) => self.pump(id, role),
        }
    }

    /// Carries out everything that a node wants done.
    fn drain(&mut self, host: Host) {
        let now = self.now;
        loop {
            let mut buffer = std::mem::take(&mut self.buffer);
            loop {
                buffer.clear();
                let node = &mut self.hosts[host.0].node;
                let Some(transmit) = node.poll_transmit(now, &mut buffer, SEGMENTS_MAX) else { break };
                for segment in buffer.chunks(transmit.segment_size.max(1)) {
                    self.send(host, transmit.destination, segment);
                }
            }
            self.buffer = buffer;
            while let Some((id, query)) = self.hosts[host.0].node.poll_query() {
                tell!(self, "{} asks {query:?}", self.hosts[host.0].name);
                let (answer, carried) = self.directory.answer(self.hosts[host.0].number, query);
                self.plan(now + REGISTRY_DELAY, Happening::Answered { host, query: id, answer });
                if let Some(carried) = carried {
                    self.plan(now + REGISTRY_DELAY, Happening::Carried(carried));
                }
            }
            let mut quiet = true;
            while let Some(event) = self.hosts[host.0].node.poll_event() {
                quiet = false;
                self.on_event(host, event);
            }
            if quiet {
                break;
            }
        }
        let timer = self.hosts[host.0].node.poll_timeout().map(|at| at.max(now));
        self.set_timer(host, timer);
    }

    fn set_timer(&mut self, host: Host, timer: Option<Instant>) {
        let machine = &mut self.hosts[host.0];
        if timer != machine.timer {
            if let Some(old) = std::mem::replace(&mut machine.timer, timer) {
                self.timers.remove(&(old, host));
            }
            if let Some(new) = timer {
                self.timers.insert((new, host));
            }
        }
    }

    fn plan(&mut self, at: Instant, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at, self.queued), happening);
    }
}

/// Applications.
impl World {
    fn start_transfer(&mut self, id: TransferId) {
        let now = self.now;
        let transfer = &self.transfers[id.0].transfer;
        let (dialer, port) = (transfer.dialer, transfer.port);
        let to = self.addr(transfer.listener).port(port);
        tell!(self, "{} dials {to}", self.hosts[dialer.0].name);
        match self.hosts[dialer.0].node.dial(now, to) {
            Ok(stream) => {
                self.hosts[dialer.0].streams.insert(stream, (id, Role::Dialer));
                if let Some(side) = self.transfers[id.0].sides.get_mut(&Role::Dialer) {
                    side.stream = Some(stream);
                }
            }
            Err(error) => self.watch.note(Fault::Setup(error.to_string())),
        }
        self.pump(id, Role::Dialer);
    }

    fn on_event(&mut self, host: Host, event: Event) {
        tell!(self, "{} sees {}", self.hosts[host.0].name, Seen(&event));
        if let Event::Observed(at) = &event {
            // As the daemon does: the registry is told where we are seen.
            let number = self.hosts[host.0].number;
            self.directory.moved(number, Some(*at));
        }
        let Event::Stream(stream, stream_event) = &event else {
            self.hosts[host.0].events.push(event);
            return;
        };
        if let StreamEvent::Incoming { port, .. } = stream_event {
            self.adopt(host, *stream, *port);
        }
        if let Some(&id) = self.hosts[host.0].repeated.get(stream) {
            self.watch_repeated(host, *stream, id);
            return;
        }
        let Some(&(id, role)) = self.hosts[host.0].streams.get(stream) else {
            self.hosts[host.0].events.push(event);
            return;
        };
        let now = self.now;
        let Some(side) = self.transfers[id.0].sides.get_mut(&role) else { return };
        let result = side.on_event(now, &mut self.hosts[host.0].node, stream_event);
        self.after_pump(id, role, result);
    }

    /// Gives a stream that came in to the transfer that waits on its port.
    fn adopt(&mut self, host: Host, stream: StreamId, port: Port) {
        let waiting = self
            .transfers
            .iter_mut()
            .enumerate()
            .find(|(_, running)| running.transfer.listener == host && running.transfer.port == port);
        let Some((index, running)) = waiting else { return };
        let id = TransferId(index);
        let Some(side) = running.sides.get_mut(&Role::Listener) else { return };
        if side.died {
            // The dial outlived the application that it was for.
            let now = self.now;
            self.hosts[host.0].node.reset(now, stream);
            return;
        }
        if side.stream.is_some() {
            self.hosts[host.0].repeated.insert(stream, id);
            return;
        }
        side.stream = Some(stream);
        self.hosts[host.0].streams.insert(stream, (id, Role::Listener));
    }

    fn watch_repeated(&mut self, host: Host, stream: StreamId, id: TransferId) {
        let now = self.now;
        if let Ok(Read::Data(_)) = self.hosts[host.0].node.read(now, stream, 1) {
            self.watch.note(Fault::Observed(id, Role::Listener, Violation::Repeated));
        }
    }

    fn pump(&mut self, id: TransferId, role: Role) {
        let now = self.now;
        let host = self.host_of(id, role);
        let Some(side) = self.transfers[id.0].sides.get_mut(&role) else { return };
        let result = side.pump(now, &mut self.hosts[host.0].node);
        self.after_pump(id, role, result);
        self.drain(host);
    }

    fn after_pump(&mut self, id: TransferId, role: Role, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.watch.note(Fault::Observed(id, role, violation));
        }
        let now = self.now;
        let Some(side) = self.transfers[id.0].sides.get_mut(&role) else { return };
        let again = side.reads_at.filter(|&at| at > now && side.planned_read != Some(at));
        if let Some(at) = again {
            side.planned_read = Some(at);
            self.plan(at, Happening::Reads(id, role));
        }
    }
}

/// Trust between owners.
impl World {
    /// One owner asks, the other agrees, and the registry carries it.
    pub fn befriend(&mut self, asks: Host, agrees: Host) {
        let (asker, other) = (self.number(asks), self.number(agrees));
        let wall = self.wall();
        let asked =
            self.with_node(asks, |node, now| node.request_trust(now, wall, other, "let us talk".into()));
        self.expect(asked);
        self.run_until(TRUST_LIMIT, |world| {
            world.hosts[agrees.0].node.trust().pending().any(|(node, _)| node == asker)
        });
        let wall = self.wall();
        let agreed = self.with_node(agrees, |node, now| node.approve(now, wall, asker));
        self.expect(agreed);
        let done = self.run_until(TRUST_LIMIT, |world| {
            let trusts = |host: Host, node| world.hosts[host.0].node.trust().get(node).is_some();
            trusts(asks, other) && trusts(agrees, asker) && world.directory.is_mutual(asker, other)
        });
        if !done {
            self.watch.note(Fault::Setup(format!("{asker} and {other} did not come to trust each other")));
        }
    }

    /// The registry brings a request for trust, or the answer to one.
    fn carry(&mut self, carried: Carried) {
        let (now, wall) = (self.now, self.wall());
        tell!(self, "the registry carries {carried:?}");
        match carried {
            Carried::Request { from, to, justification } => {
                let Some(host) = self.host_of_node(to) else { return };
                self.hosts[host.0].node.relayed_request(now, wall, from, &justification);
                self.drain(host);
            }
            Carried::Verdict { from, to, accept } => {
                let Some(host) = self.host_of_node(to) else { return };
                self.hosts[host.0].node.relayed_response(now, wall, from, accept, Some(wall));
                self.drain(host);
            }
        }
    }

    /// Seconds since 1970 as the machines of this world count them.
    fn wall(&self) -> UnixTime {
        WALL_START + self.elapsed().as_secs()
    }

    fn expect<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) {
        if let Err(error) = result {
            self.watch.note(Fault::Setup(error.to_string()));
        }
    }

    fn host_of_node(&self, number: NodeId) -> Option<Host> {
        self.hosts.iter().position(|machine| machine.number == number).map(Host)
    }
}

/// What a test does by hand, and what it can look at.
impl World {
    /// The machine of a host dies and comes back with its identity and what was stored, but without keys and streams.
    /// Its transfers end on this side without an error that anybody sees.
    pub fn restart(&mut self, host: Host) {
        let machine = &self.hosts[host.0];
        let (identity, number) = (machine.identity.clone(), machine.number);
        let (visibility, configure) = (machine.visibility, Rc::clone(&machine.configure));
        tell!(self, "{} restarts", self.hosts[host.0].name);
        let mut node = self.birth(&identity, number, visibility, &configure);
        let machine = &mut self.hosts[host.0];
        node.restore_trust(machine.node.trust().clone());
        machine.node = node;
        machine.repeated.clear();
        for (id, role) in std::mem::take(&mut machine.streams).into_values() {
            if let Some(side) = self.transfers[id.0].sides.get_mut(&role) {
                side.died |= !side.is_over();
            }
        }
        let listening = self.transfers.iter().filter(|running| running.transfer.listener == host);
        for port in listening.map(|running| running.transfer.port) {
            let listened = self.hosts[host.0].node.listen(port);
            if let Err(error) = listened {
                self.watch.note(Fault::Setup(error.to_string()));
            }
        }
        self.drain(host);
    }

    /// Puts a datagram into the hands of a host, as if it came from `from`.
    pub fn inject(&mut self, to: Host, from: SocketAddr, datagram: &[u8]) {
        let now = self.now;
        let place = Place::Host(to);
        let (to, datagram) = (None, datagram.to_vec());
        self.plan(now, Happening::Arrives(Arriving { place, to, from, datagram }));
    }

    /// Keeps a copy of everything that goes from one host to another, from now on.
    pub fn record_datagrams(&mut self, from: Host, to: Host) {
        self.recording = Some((from, to, Vec::new()));
    }

    /// What was recorded. The recording ends.
    pub fn take_recorded(&mut self) -> Vec<Vec<u8>> {
        self.recording.take().map(|(_, _, datagrams)| datagrams).unwrap_or_default()
    }

    /// Lets a test call a node directly and then carries out what follows.
    pub fn with_node<T>(&mut self, host: Host, act: impl FnOnce(&mut Node, Instant) -> T) -> T {
        let result = act(&mut self.hosts[host.0].node, self.now);
        self.drain(host);
        result
    }

    /// Events of a host that belong to no transfer, since the last call.
    pub fn take_events(&mut self, host: Host) -> Vec<Event> {
        std::mem::take(&mut self.hosts[host.0].events)
    }

    /// The stream that a host was told of last, if it belongs to no transfer, and where it comes from.
    pub fn take_incoming(&mut self, host: Host) -> Option<(StreamId, Endpoint)> {
        self.take_events(host).into_iter().rev().find_map(|event| match event {
            Event::Stream(stream, StreamEvent::Incoming { from, .. }) => Some((stream, from)),
            Event::Stream(..)
            | Event::Datagram { .. }
            | Event::Pong { .. }
            | Event::Observed(_)
            | Event::Beacon(_)
            | Event::Surveyed(_)
            | Event::HandshakeWaiting
            | Event::Trust(_)
            | Event::Peer(..) => None,
        })
    }

    /// The overlay address of a host.
    pub fn addr(&self, host: Host) -> Addr {
        Addr::backbone(self.number(host))
    }

    /// The node number of a host.
    pub fn number(&self, host: Host) -> NodeId {
        self.hosts[host.0].number
    }

    /// Where a host receives datagrams.
    pub fn socket_addr(&self, host: Host) -> SocketAddr {
        self.hosts[host.0].at
    }

    /// Time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Datagrams that were sent so far.
    pub fn datagrams(&self) -> u64 {
        self.watch.datagrams()
    }

    /// Bytes of these datagrams.
    pub fn bytes_sent(&self) -> u64 {
        self.watch.bytes()
    }

    /// Whether both streams of a transfer have ended, however.
    pub fn is_over(&self, id: TransferId) -> bool {
        self.transfers[id.0].sides.values().all(Side::is_over)
    }

    /// What happened.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The first thing that must not happen, if it happened.
    pub fn fault(&self) -> Option<&Fault> {
        self.watch.fault()
    }

    /// How a side of a transfer stands.
    pub fn progress(&self, id: TransferId, role: Role) -> Progress {
        let side = &self.transfers[id.0].sides[&role];
        Progress {
            began: side.stream.is_some(),
            written: side.written,
            read: side.read,
            ended: side.ended.clone(),
            complete: side.is_complete(),
        }
    }

    /// All transfers.
    pub fn transfers(&self) -> impl Iterator<Item = TransferId> {
        (0..self.transfers.len()).map(TransferId)
    }

    fn host_of(&self, id: TransferId, role: Role) -> Host {
        let transfer = &self.transfers[id.0].transfer;
        match role {
            Role::Dialer => transfer.dialer,
            Role::Listener => transfer.listener,
        }
    }
}

/// How one side of a transfer stands.
#[derive(Clone, Debug)]
pub struct Progress {
    /// There is a stream, or was.
    pub began: bool,
    /// Bytes that the stream took from the application.
    pub written: u64,
    /// Bytes that the application read, each checked.
    pub read: u64,
    /// How the stream ended.
    pub ended: Option<Closed>,
    /// All was written and read, and the stream ended without an error.
    pub complete: bool,
}
