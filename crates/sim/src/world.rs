//! A world: hosts with nodes on them, links between them, a registry, and one clock that jumps from event to event.
//!
//! Everything that happens follows from the seed: the same seed gives the same history, to the datagram.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use pilot_crypto::Identity;
use pilot_proto::{Answer, Config, Event, Node, QueryId, Visibility, trust::UnixTime};
use pilot_wire::{NodeId, PublicKey, StreamId};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    Conditions, Detail, History, Link, Net, Role, Transfer,
    directory::{Carried, Directory},
    topology::Topology,
    transfer::Side,
    watch::{Fault, Watch},
};

/// Adds a line to the history. A macro, because the line borrows other fields of the world.
macro_rules! tell {
    ($world:ident, $($line:tt)*) => {
        $world.history.record($world.now - $world.start, format_args!($($line)*))
    };
}

mod applications;
mod beacon;
mod hands;
mod network;
mod places;
mod trust;
mod web;

pub use hands::{Memory, Overheard, Progress};
use network::{Arriving, LinkKey, Place, Reach};
use web::Web;

/// Names a host of a world, in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub usize);

/// Names a transfer of a world, in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub usize);

/// How long the registry takes to answer.
const REGISTRY_DELAY: Duration = Duration::from_millis(20);

/// A daemon that cannot tell the registry something tries again after this long.
const REGISTRY_AGAIN: Duration = Duration::from_secs(1);

/// What an application did this long ago still counts as a wish to reach somebody.
const USED_LATELY: Duration = Duration::from_secs(120);

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
    topology: Topology,
    links: BTreeMap<LinkKey, Link>,
    /// Nodes know of a beacon, whether it runs or not.
    has_beacon: bool,
    beacon: Option<pilot_rendezvous::beacon::State>,
    /// Daemons open a web connection where UDP does not pass.
    web: bool,
    /// Web connections so far.
    webs: u64,
    conditions: Conditions,
    local_conditions: Option<Conditions>,
    /// Hosts that were added since time last went on.
    newcomers: Vec<Host>,
    directory: Directory,
    transfers: Vec<Running>,
    queue: BTreeMap<(Instant, u64), Happening>,
    queued: u64,
    timers: BTreeSet<(Instant, Host)>,
    attacks: f64,
    strips: bool,
    recording: Option<(Host, Host, Vec<Vec<u8>>)>,
    /// What an attacker on the path sees.
    overheard: Option<Vec<Overheard>>,
    history: History,
    watch: Watch,
    buffer: Vec<u8>,
}

/// Changes the default settings of a node.
type Configure = Rc<dyn Fn(&mut Config)>;

struct Machine {
    name: String,
    number: NodeId,
    identity: Identity,
    configure: Configure,
    /// Whether its streams can end one direction alone.
    half_close: bool,
    visibility: Visibility,
    node: Node,
    /// How often it was restarted.
    life: u32,
    timer: Option<Instant>,
    web: Web,
    /// Where its daemon believes that it can be reached from outside, and inside its own network.
    reachable: Option<SocketAddr>,
    inside: Vec<SocketAddr>,
    /// When an application last had a stream or did something.
    used: Option<Instant>,
    /// Suspended.
    asleep: bool,
    /// By how many seconds its clock on the wall is wrong.
    clock_off: i64,
    /// Peers that were seen to agree on keys of the moment, as the daemon stores them.
    agreed: BTreeMap<NodeId, PublicKey>,
    streams: BTreeMap<StreamId, (TransferId, Role)>,
    /// Streams of transfers that have theirs already.
    repeated: BTreeMap<StreamId, TransferId>,
    /// Events that belong to no transfer.
    events: Vec<Event>,
}

impl Machine {
    /// Whether somebody there wants something of a peer, or did lately.
    fn is_used(&self, now: Instant) -> bool {
        self.node.streams().next().is_some() || self.used.is_some_and(|used| used + USED_LATELY > now)
    }
}

struct Running {
    transfer: Transfer,
    sides: BTreeMap<Role, Side>,
}

enum Happening {
    Arrives(Arriving),
    Answered {
        host: Host,
        /// Which of its lives asked.
        life: u32,
        query: QueryId,
        answer: Answer,
    },
    Carried(Carried),
    /// A daemon tells the registry where its node is.
    Registers(Host),
    /// A daemon sees the addresses of its interfaces.
    Notices(Host),
    WebOpens(Host),
    LooksForUdp(Host),
    Dial(TransferId),
    Acts(TransferId, Role),
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
            topology: Topology::default(),
            links: BTreeMap::new(),
            has_beacon: false,
            beacon: None,
            web: true,
            webs: 0,
            conditions: Conditions::PERFECT,
            local_conditions: None,
            newcomers: Vec::new(),
            directory: Directory::default(),
            transfers: Vec::new(),
            queue: BTreeMap::new(),
            queued: 0,
            timers: BTreeSet::new(),
            attacks: 0.0,
            strips: false,
            recording: None,
            overheard: None,
            history: History::new(detail),
            watch: Watch::new(detail != Detail::Nothing),
            buffer: Vec::new(),
        }
    }

    /// What links are like that are not set by themselves, from now on.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
        let local = self.local_conditions.unwrap_or(conditions);
        for (&(_, _, reach), link) in &mut self.links {
            link.set(if reach == Reach::Local { local } else { conditions });
        }
    }

    /// What links inside homes are like, from now on. Until then they are like all others.
    pub fn set_local_conditions(&mut self, conditions: Conditions) {
        self.local_conditions = Some(conditions);
        self.set_conditions(self.conditions);
    }

    /// What the link from one host to another is like from now on. The way back stays as it is.
    pub fn set_link(&mut self, from: Host, to: Host, conditions: Conditions) {
        for reach in [Reach::Local, Reach::Wide] {
            self.link((Place::Host(from), Place::Host(to), reach)).set(conditions);
        }
    }

    /// What both directions between a host and the beacon are like from now on.
    pub fn set_beacon_link(&mut self, host: Host, conditions: Conditions) {
        let host = Place::Host(host);
        self.link((host, Place::Beacon, Reach::Wide)).set(conditions);
        self.link((Place::Beacon, host, Reach::Wide)).set(conditions);
    }

    /// Whether daemons open a web connection to the beacon when UDP gets no answer.
    pub fn set_web(&mut self, on: bool) {
        self.web = on;
    }

    /// An attacker records this share of all datagrams and sends each again later, whole or changed, from anywhere.
    pub fn set_attacks(&mut self, share: f64) {
        self.attacks = share;
    }

    /// Whether the registry can be reached.
    pub fn set_registry_reachable(&mut self, reachable: bool) {
        self.directory.unreachable = !reachable;
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
        let number = NodeId(u32::from(index));
        let identity = Identity::from_seed(&self.chance.random());
        self.topology.seat(host, Net::Internet);
        let at = self.topology.addresses(host).first().copied();
        self.directory.register(self.now, number, identity.public(), at, visibility == Visibility::Public);
        let mut config = Config::new(identity.clone(), [0; 32]);
        configure(&mut config);
        let half_close = config.streams.options;
        let node = self.birth(&identity, number, visibility, &configure);
        self.hosts.push(Machine {
            name: name.to_owned(),
            number,
            identity,
            configure,
            half_close,
            visibility,
            node,
            life: 0,
            timer: None,
            web: Web::default(),
            reachable: at,
            inside: Vec::new(),
            used: None,
            asleep: false,
            clock_off: 0,
            agreed: BTreeMap::new(),
            streams: BTreeMap::new(),
            repeated: BTreeMap::new(),
            events: Vec::new(),
        });
        // What it has to send at once is sent when time goes on, so that a box can be put in front of it first.
        self.newcomers.push(host);
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
        config.beacon = self.has_beacon.then_some(beacon::ADDRESS);
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
        self.welcome();
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
            // Nobody there listens; what was asked gets its answer when there is somebody again.
            Happening::Answered { host, life, query, answer } if self.hosts[host.0].asleep => {
                let later = self.now + REGISTRY_DELAY;
                self.plan(later, Happening::Answered { host, life, query, answer });
            }
            // Who asked is dead.
            Happening::Answered { host, life, .. } if self.hosts[host.0].life != life => {}
            Happening::Answered { host, query, answer, .. } => {
                tell!(self, "{} is answered {answer:?}", self.hosts[host.0].name);
                let now = self.now;
                self.hosts[host.0].node.handle_answer(now, query, answer);
                self.drain(host);
            }
            Happening::Carried(carried) => self.carry(carried),
            Happening::Registers(host) => self.register(host),
            Happening::Notices(host) => {
                self.notice_addresses(host);
                self.drain(host);
            }
            Happening::WebOpens(host) => self.open_web(host),
            Happening::LooksForUdp(host) => self.look_for_udp(host),
            Happening::Dial(id) => self.start_transfer(id),
            Happening::Acts(id, role) => self.pump(id, role),
        }
    }

    /// Carries out everything that a node wants done.
    fn drain(&mut self, host: Host) {
        if self.hosts[host.0].asleep {
            return;
        }
        let now = self.now;
        loop {
            let mut buffer = std::mem::take(&mut self.buffer);
            loop {
                buffer.clear();
                let node = &mut self.hosts[host.0].node;
                let Some(transmit) = node.poll_transmit(now, &mut buffer, SEGMENTS_MAX) else { break };
                for segment in buffer.chunks(transmit.segment_size.max(1)) {
                    self.send(host, transmit.destination, segment, transmit.may_fragment);
                }
            }
            self.buffer = buffer;
            while let Some((id, query)) = self.hosts[host.0].node.poll_query() {
                tell!(self, "{} asks {query:?}", self.hosts[host.0].name);
                let (answer, carried) = self.directory.answer(now, self.hosts[host.0].number, query);
                let life = self.hosts[host.0].life;
                self.plan(now + REGISTRY_DELAY, Happening::Answered { host, life, query: id, answer });
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
        if self.hosts[host.0].node.streams().next().is_some() {
            self.hosts[host.0].used = Some(now);
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
