//! The one loop: what woke it, what the node makes of it, and what goes out then.
//!
//! One task owns the node, the tunnel socket and the tables of local programs; everything else is a task that sends it
//! [`Command`]s and is sent messages. The loop waits in one place, for the closed set of [`Wake`]s; after each, it
//! drains what the node has to say: events to their owners, questions to the registry, datagrams to the socket.

mod alarms;
mod beacon;
mod beacons;
mod beliefs;
mod calls;
mod captures;
mod clients;
mod deadlines;
mod envelope;
mod info;
mod keeper;
mod membership;
mod names;
mod netcheck;
mod network;
mod paths;
mod pulse;
mod pump;
mod registry;
mod replies;
mod requests;
mod serve;
mod streams;
mod trust;
mod waits;
mod web;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use pilot_client::halves;
use pilot_client::local::{End, Entrance};
use pilot_proto::{Event, Node, PingId, Query, QueryId};
use pilot_wire::ipc::{self, Code, MAX_DATA, Reply};
use pilot_wire::record::RecordSeq;
use pilot_wire::{NodeId, Port, PublicKey, StreamId};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinSet, coop};
use tokio::time::Sleep;

use crate::handle::{PeerIdentity, ServiceOrder, Sign};
use crate::ipc::bell::Board;
use crate::ipc::listener::Listener;
use crate::memberships::Memberships;
use crate::network::News;
use crate::registry::{CallId, Link, Numbers, Profile, Report};
use crate::service::{Services, handshake::Delivery, policy::Policy};
use crate::state::NodeFile;
use crate::trace::Tracer;
use crate::udp::{Sent, UdpSocket};
use crate::webhook::{self, Webhook};
use crate::{Config, Running};

use clients::Client;
pub(crate) use clients::ClientId;
use deadlines::Deadlines;
use keeper::Keeper;
pub(crate) use network::Edge;
pub(crate) use pulse::Pulse;
use registry::RegistryCall;
use replies::ReplyTo;
use streams::Attachment;

/// Commands that wait for the loop. Senders wait when it is full; the loop never waits for them.
const INBOX: usize = 256;

/// Commands taken in one turn, so that datagrams and timers are not kept waiting.
const COMMANDS_PER_TURN: usize = 64;

/// Trains sent in one turn before the loop looks for acknowledgements and commands again.
const TRAINS_PER_TURN: usize = 64;

/// Times that a turn looks for news of its own making. Two programs of one node that talk make news for ever.
const ROUNDS_PER_TURN: usize = 16;

/// How long a daemon that starts waits for its registry before it is called ready without it.
const READY_WAIT: Duration = Duration::from_secs(2);

/// Numbers, which are milliseconds, that are noted as used before they are.
const NUMBERS_AHEAD: u64 = 2000;

/// Pause after a failed write to disk. Space or permission comes back by what others do.
const STORE_AGAIN: Duration = Duration::from_secs(5);

/// How long programs may take to read the last replies when the daemon stops.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long the loop sleeps when the node has nothing planned.
const LONG_SLEEP: Duration = Duration::from_secs(3600);

/// What other tasks tell the loop.
pub(crate) enum Command {
    /// The registry link has news.
    Registry(Report),
    /// A built-in service has something to say.
    Service(ServiceOrder),
    /// A handshake message was delivered, or not.
    Delivered(trust::Outcome),
    /// A built-in service answered a local program.
    Answered(calls::Answered),
    /// The built-in services run.
    Services(Services),
    /// The beacon's name has this address.
    Beacon(String, SocketAddr),
    /// The network around this host has news.
    Network(News),
    /// The beacon's name has no address.
    BeaconUnknown(String),
    /// The link over the web has news; the number says which link.
    Web(u64, crate::web::Report),
    /// Somebody reads the metrics.
    Pulse(oneshot::Sender<Pulse>),
}

/// Why the loop runs: everything that is ready when it looks, so that nothing waits behind something busy. There is
/// nothing else that it waits for.
#[derive(Default)]
struct Wakes {
    shutdown: bool,
    datagrams: bool,
    /// Clients can be heard, or take more.
    programs: bool,
    timer: bool,
    command: Option<Command>,
    /// A program connected.
    connected: Option<UnixStream>,
    /// A new client in this process.
    guest: Option<End>,
}

/// Whose a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortOwner {
    Client(ClientId),
    Echo,
}

/// A train that the socket had no room for.
struct Blocked {
    destination: SocketAddr,
    segment_size: usize,
    may_fragment: bool,
}

/// What the loop is made of, besides the node.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) node: Node,
    pub(crate) socket: UdpSocket,
    /// None when only this process may talk to the node.
    pub(crate) listener: Option<Listener>,
    pub(crate) entrance: Entrance,
    pub(crate) inbox: mpsc::Receiver<Command>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) link: Link,
    pub(crate) proxy: Option<crate::web::Proxy>,
    pub(crate) webhook: Webhook,
    pub(crate) deliveries: mpsc::Sender<Delivery>,
    pub(crate) identity: pilot_crypto::Identity,
    pub(crate) memory: NodeFile,
    pub(crate) memberships: Memberships,
    pub(crate) profile: Profile,
    pub(crate) numbers: Numbers,
    pub(crate) trusted: watch::Sender<Vec<NodeId>>,
    pub(crate) own: watch::Sender<NodeId>,
    pub(crate) signs: broadcast::Sender<Sign>,
    pub(crate) policy: Policy,
    pub(crate) edge: Edge,
    /// Where the metrics are read.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) tracer: Tracer,
    pub(crate) ready: Box<dyn FnOnce(Running) + Send>,
}

/// The owner of everything.
pub(crate) struct Driver {
    config: Config,
    node: Node,
    socket: UdpSocket,
    listener: Option<Listener>,
    entrance: Entrance,
    inbox: mpsc::Receiver<Command>,
    /// For the tasks that work for the loop.
    commands: mpsc::Sender<Command>,
    link: Link,
    webhook: Webhook,
    services: Option<Services>,
    deliveries: mpsc::Sender<Delivery>,
    identity: pilot_crypto::Identity,
    /// What is remembered across restarts, and whether the file lags behind.
    memory: NodeFile,
    memory_stale: bool,
    keeper: Keeper,
    trust_stale: bool,
    /// The networks this node is in, and whether the file lags behind.
    memberships: Memberships,
    networks_stale: bool,
    refresh: membership::Refresh,
    profile: Profile,
    /// For what this node signs.
    numbers: Numbers,
    trusted: watch::Sender<Vec<NodeId>>,
    own: watch::Sender<NodeId>,
    /// For services that wait to try again.
    signs: broadcast::Sender<Sign>,
    /// What other nodes may do here.
    policy: Policy,
    /// Called once, when the daemon serves.
    ready: Option<Box<dyn FnOnce(Running) + Send>>,

    clients: BTreeMap<ClientId, Client>,
    next_client: u64,
    /// Where the connections of programs ring.
    board: Board,
    /// Programs to look at; kept for its memory.
    rung: Vec<ClientId>,
    /// Programs with something new in their queue.
    unflushed: BTreeSet<ClientId>,
    ports: BTreeMap<Port, PortOwner>,
    streams: BTreeMap<StreamId, Attachment>,
    /// Streams that ended in order lately, the oldest first.
    finished: VecDeque<StreamId>,
    /// Incoming streams refused because their program had too many.
    refused_streams: u64,
    tally: pulse::Tally,
    /// Where the metrics are read.
    metrics: Option<SocketAddr>,
    waits: waits::Waits,
    pings: BTreeMap<PingId, calls::PendingPing>,
    inquiries: paths::Inquiries,
    checks: netcheck::Checks,
    captures: captures::Captures,
    calls: BTreeMap<CallId, RegistryCall>,
    next_call: u64,
    /// Questions of the node that the registry has not answered.
    asked: BTreeMap<QueryId, Query>,
    relations: trust::Relations,
    deadlines: Deadlines,
    registry: registry::Standing,
    network: network::Network,
    beacon: beacon::Chosen,
    web: web::Web,
    beacons: beacons::Beacons,
    /// When the beacon is asked over UDP again.
    web_look: Option<deadlines::Key>,

    started: Instant,
    sleep: Pin<Box<Sleep>>,
    train: Vec<u8>,
    blocked: Option<Blocked>,
    more_to_send: bool,
    stopping: bool,
    /// Deliveries, calls of services, links: they end with the driver.
    tasks: JoinSet<()>,
}

/// The channel through which everybody talks to the loop.
pub(crate) fn inbox() -> (mpsc::Sender<Command>, mpsc::Receiver<Command>) {
    mpsc::channel(INBOX)
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let awaits_registry = !parts.config.registries.is_empty();
        let web = web::Web::new(&parts.config.web, parts.proxy);
        let keeper = Keeper::new(parts.config.node_file());
        let mut driver = Self {
            config: parts.config,
            node: parts.node,
            socket: parts.socket,
            listener: parts.listener,
            entrance: parts.entrance,
            inbox: parts.inbox,
            commands: parts.commands,
            link: parts.link,
            webhook: parts.webhook,
            services: None,
            deliveries: parts.deliveries,
            identity: parts.identity,
            memory: parts.memory,
            memory_stale: false,
            keeper,
            trust_stale: false,
            memberships: parts.memberships,
            networks_stale: false,
            refresh: membership::Refresh::default(),
            profile: parts.profile,
            numbers: parts.numbers,
            trusted: parts.trusted,
            own: parts.own,
            signs: parts.signs,
            policy: parts.policy,
            ready: Some(parts.ready),
            clients: BTreeMap::new(),
            next_client: 0,
            board: Board::default(),
            rung: Vec::new(),
            unflushed: BTreeSet::new(),
            ports: BTreeMap::new(),
            streams: BTreeMap::new(),
            finished: VecDeque::new(),
            refused_streams: 0,
            tally: pulse::Tally::default(),
            metrics: parts.metrics,
            waits: waits::Waits::new(parts.tracer),
            pings: BTreeMap::new(),
            inquiries: paths::Inquiries::default(),
            checks: netcheck::Checks::default(),
            captures: captures::Captures::default(),
            calls: BTreeMap::new(),
            next_call: 0,
            asked: BTreeMap::new(),
            relations: trust::Relations::default(),
            deadlines: Deadlines::default(),
            registry: registry::Standing::new(awaits_registry),
            network: network::Network::new(parts.edge),
            beacon: beacon::Chosen::default(),
            web,
            beacons: beacons::Beacons::default(),
            web_look: None,
            started: Instant::now(),
            sleep: Box::pin(tokio::time::sleep(LONG_SLEEP)),
            train: Vec::new(),
            blocked: None,
            more_to_send: false,
            stopping: false,
            tasks: JoinSet::new(),
        };
        if driver.config.services.echo && driver.node.listen(Port::ECHO).is_ok() {
            driver.ports.insert(Port::ECHO, PortOwner::Echo);
        }
        driver.deadlines.add(driver.started + READY_WAIT, deadlines::Deadline::Ready);
        driver.start_web(driver.started);
        driver.node.set_members(driver.started, driver.memberships.trusted(driver.own_node()));
        driver.tell_trusted();
        driver
    }

    /// Runs until `shutdown` is ready or a program asks for the end.
    pub(crate) async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let now = Instant::now();
        self.approve_all_listed(now);
        self.drain(now);
        while !self.stopping {
            let wakes = poll_fn(|cx| self.poll_wakes(shutdown.as_mut(), cx)).await;
            self.stopping |= wakes.shutdown;
            self.turn(wakes);
        }
        self.linger().await;
        self.close().await;
    }

    fn turn(&mut self, wakes: Wakes) {
        let now = Instant::now();
        self.notice_sleep(now);
        if wakes.datagrams {
            self.receive(now);
        }
        if let Some(end) = wakes.guest {
            self.attach_local(end);
        }
        if wakes.programs {
            self.serve_rung(now);
        }
        if let Some(command) = wakes.command {
            self.on_commands(now, command);
        }
        if let Some(stream) = wakes.connected {
            match halves(stream) {
                Ok((reader, writer)) => self.attach(tokio::io::join(reader, writer)),
                Err(error) => tracing::warn!(%error, "cannot serve a local client"),
            }
        }
        if wakes.timer {
            self.on_time(now);
        }
        self.drain(now);
    }

    /// Goes on for a while at the end, if that is wished, until peers have what was written to them.
    async fn linger(&mut self) {
        if self.config.linger.is_zero() {
            return;
        }
        let over = tokio::time::sleep(self.config.linger);
        tokio::pin!(over);
        // What was written before the end was asked for may not have been looked at.
        self.turn(Wakes { programs: true, ..Wakes::default() });
        while self.has_undelivered() {
            let wakes = poll_fn(|cx| self.poll_wakes(over.as_mut(), cx)).await;
            if wakes.shutdown {
                return;
            }
            self.turn(wakes);
        }
    }

    fn has_undelivered(&self) -> bool {
        let undelivered = |(id, stream): (&StreamId, &Attachment)| {
            !stream.untaken.is_empty() || self.node.is_drained(*id) == Some(false)
        };
        self.board.is_rung() || self.streams.iter().any(undelivered)
    }

    /// Ready when there is a reason to run.
    fn poll_wakes(&mut self, shutdown: Pin<&mut impl Future>, cx: &mut Context<'_>) -> Poll<Wakes> {
        // Others of this thread, and the system's news, get their turn even if the loop never runs out of work.
        let budget = ready!(coop::poll_proceed(cx));
        let mut wakes = Wakes { shutdown: shutdown.poll(cx).is_ready(), ..Wakes::default() };
        match self.socket.poll_readable(cx) {
            Poll::Ready(Ok(())) => wakes.datagrams = true,
            Poll::Ready(Err(error)) => {
                tracing::error!(%error, "the tunnel socket is unusable");
                wakes.shutdown = true;
            }
            Poll::Pending => {}
        }
        let writable = self.blocked.is_some() && self.socket.poll_writable(cx).is_ready();
        wakes.programs = self.board.poll_rung(cx).is_ready();
        // The loop itself holds a sender, so the channel never ends.
        if let Poll::Ready(command) = self.inbox.poll_recv(cx) {
            wakes.command = command;
        }
        if let Some(listener) = &mut self.listener
            && let Poll::Ready(stream) = listener.poll_accept(cx)
        {
            wakes.connected = Some(stream);
        }
        if let Poll::Ready(end) = self.entrance.poll_accept(cx) {
            wakes.guest = end;
        }
        wakes.timer = self.sleep.as_mut().poll(cx).is_ready();
        let is_idle = !(wakes.shutdown || wakes.datagrams || wakes.programs || wakes.timer)
            && wakes.command.is_none()
            && wakes.connected.is_none()
            && wakes.guest.is_none();
        if is_idle && !writable && !self.more_to_send {
            return Poll::Pending;
        }
        budget.made_progress();
        Poll::Ready(wakes)
    }

    fn receive(&mut self, now: Instant) {
        let awaited = self.awaits_udp_from();
        let mut answered = false;
        let node = &mut self.node;
        let received = self.socket.receive(|from, datagram| {
            answered |= Some(from) == awaited && web::is_answer(datagram);
            node.handle_datagram(now, from, datagram);
        });
        if let Err(error) = received {
            // Errors of single datagrams (ICMP of an earlier send) come up here; the socket itself goes on.
            tracing::debug!(%error, "receive");
        }
        if answered {
            self.on_answer_over_udp(now);
        }
    }

    fn on_time(&mut self, now: Instant) {
        self.node.handle_timeout(now);
        while let Some(deadline) = self.deadlines.pop(now) {
            self.on_deadline(now, deadline);
        }
    }

    fn on_commands(&mut self, now: Instant, first: Command) {
        self.on_command(now, first);
        for _ in 1..COMMANDS_PER_TURN {
            let Ok(command) = self.inbox.try_recv() else { return };
            self.on_command(now, command);
        }
    }

    fn on_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Registry(report) => self.on_report(now, report),
            Command::Service(order) => self.on_service(now, order),
            Command::Delivered(outcome) => self.on_delivered(now, outcome),
            Command::Answered(answered) => self.on_answered(answered),
            Command::Services(services) => self.services = Some(services),
            Command::Network(news) => self.on_network_news(now, news),
            Command::Beacon(beacon, address) => self.on_beacon_found(now, &beacon, address),
            Command::BeaconUnknown(beacon) => self.on_beacon_unknown(now, &beacon),
            Command::Web(link, report) => self.on_web(now, link, report),
            // Whoever asked may have given up.
            Command::Pulse(answer) => drop(answer.send(self.pulse(now))),
        }
    }

    /// Brings out what the node has to say. Events come first, because owners may answer them with more to send, and
    /// what must be on disk is there before anything leaves.
    fn drain(&mut self, now: Instant) {
        for round in 0.. {
            while let Some(event) = self.node.poll_event() {
                self.on_event(now, event);
            }
            while let Some((id, query)) = self.node.poll_query() {
                self.on_query(now, id, query);
            }
            self.store(now);
            // Programs first: they wait for what came, the network can wait for what the node says to it.
            self.flush_programs(now);
            self.send(now);
            // Sending may bring news at once: packets to ourselves loop back.
            let Some(event) = self.node.poll_event() else { break };
            self.on_event(now, event);
            if round >= ROUNDS_PER_TURN {
                self.more_to_send = true;
                break;
            }
        }
        self.serve_captures();
        self.flush_programs(now);
        self.set_alarm(now);
        // Finished tasks leave their results; nothing else does.
        while self.tasks.try_join_next().is_some() {}
    }

    fn send(&mut self, now: Instant) {
        self.more_to_send = false;
        if let Some(blocked) = self.blocked.take()
            && self.put_out(now, &blocked) == Sent::Blocked
        {
            self.blocked = Some(blocked);
            return;
        }
        let segments = self.socket.max_segments();
        for _ in 0..TRAINS_PER_TURN {
            self.train.clear();
            let Some(transmit) = self.node.poll_transmit(now, &mut self.train, segments) else { return };
            let (destination, segment_size) = (transmit.destination, transmit.segment_size);
            if self.sent_over_web(destination, segment_size, &self.train) {
                continue;
            }
            let train = Blocked { destination, segment_size, may_fragment: transmit.may_fragment };
            if self.put_out(now, &train) == Sent::Blocked {
                self.blocked = Some(train);
                return;
            }
        }
        self.more_to_send = true;
    }

    fn put_out(&mut self, now: Instant, train: &Blocked) -> Sent {
        let Blocked { destination, segment_size, may_fragment } = *train;
        let sent = self.socket.send(destination, segment_size, may_fragment, &self.train);
        if sent == Sent::TooLarge {
            self.node.datagram_too_large(now, destination, segment_size);
        }
        sent
    }

    /// Sees to it that the loop wakes no later than it has to. An alarm that comes to be needed later is left where it is:
    /// setting one costs more than waking once in vain, and a stream that talks would set one for each packet.
    fn set_alarm(&mut self, now: Instant) {
        let next = [self.node.poll_timeout(), self.deadlines.next()].into_iter().flatten().min();
        let next = next.unwrap_or(now + LONG_SLEEP);
        if self.sleep.is_elapsed() || next < self.sleep.deadline().into_std() {
            self.sleep.as_mut().reset(next.into());
        }
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Stream(id, event) => self.on_stream(now, id, event),
            Event::Datagram { from, to, data } => self.on_datagram(from, to, &data),
            Event::Pong { ping, rtt } => self.on_pong(now, ping, rtt),
            Event::Observed(address) => self.on_observed(address),
            Event::Beacon(event) => self.on_beacon(now, event),
            Event::Surveyed(survey) => self.on_surveyed(now, *survey),
            Event::HandshakeWaiting => self.fetch_handshakes(),
            Event::Trust(event) => self.on_trust(now, event),
            Event::Peer(peer, event) => self.on_peer(peer, &event),
        }
    }

    /// Writes what has to be on disk before anybody is told.
    fn store(&mut self, now: Instant) {
        let book_changed = std::mem::take(&mut self.trust_stale);
        self.store_networks(book_changed);
        if book_changed {
            let path = self.config.trust_file();
            if let Err(error) = crate::state::store_trust(&path, self.node.trust()) {
                tracing::error!(path = %path.display(), %error, "trust is not stored; it would be lost at a restart");
                self.deadlines.add(now + STORE_AGAIN, deadlines::Deadline::Store);
            }
            self.tell_trusted();
        }
        if self.numbers.last() > self.memory.numbers {
            // Ahead, so that not every signature costs a write.
            self.memory.numbers = RecordSeq(self.numbers.last().0.saturating_add(NUMBERS_AHEAD));
            self.memory_stale = true;
        }
        if std::mem::take(&mut self.memory_stale) {
            self.keeper.store(&self.memory);
        } else if let Some(at) = self.keeper.store_behind(now, &self.memory) {
            self.deadlines.add(at, deadlines::Deadline::Memory);
        }
    }

    /// Tells whoever started the daemon that it serves, once the services listen and the registry has answered or
    /// cannot be reached.
    fn check_ready(&mut self) {
        let services = self.config.services;
        let listening = |port: Port, on: bool| !on || self.ports.contains_key(&port);
        let serves = listening(Port::HANDSHAKE, true)
            && listening(Port::DATA_EXCHANGE, services.data_exchange)
            && listening(Port::EVENT_STREAM, services.event_stream)
            && listening(Port::TASKS, services.tasks);
        if serves
            && !self.registry.awaited
            && let Some(ready) = self.ready.take()
        {
            ready(Running {
                node_id: self.own_node(),
                address: self.address(),
                hostname: self.profile.hostname.clone(),
                socket: self.config.socket.clone(),
                listen: self.socket.local(),
                registered: self.registry.connected,
                registry_error: self.registry.error.clone(),
            });
        }
    }

    fn on_service(&mut self, now: Instant, order: ServiceOrder) {
        match order {
            ServiceOrder::HandshakeReceived(from, message) => {
                self.node.handshake_received(now, trust::wall(), from, &message);
            }
            ServiceOrder::Notice(notice) => {
                tracing::info!(event = notice.event(), ?notice);
                self.notify(notice.event(), serde_json::to_value(&notice).ok());
            }
            ServiceOrder::PolicyChanged => self.end_forbidden_streams(now),
            ServiceOrder::Describe(node, answer) => {
                let hostname = Some(self.hostname_of(node)).filter(|name| !name.is_empty());
                let key = self.known_key(node);
                // The service that asked may have given up.
                let (trust, path) = (self.trust_state(node), self.path_of(node));
                let _ = answer.send(PeerIdentity { hostname, key, trust, path });
            }
            ServiceOrder::Identity(answer) => drop(answer.send(self.identity.clone())),
            ServiceOrder::Registry(request, answer) => self.ask_registry_for_service(*request, answer),
            ServiceOrder::TaskExec(enabled) => self.set_task_exec(enabled),
        }
    }

    /// Posts an event to the webhook, if there is one.
    fn notify(&mut self, name: &'static str, data: Option<serde_json::Value>) {
        if self.webhook.is_set() {
            let event = webhook::Event { name, node: self.own_node(), time: SystemTime::now(), data };
            self.webhook.post(event);
        }
    }

    fn tell_trusted(&self) {
        self.tell_finder();
        self.tell_policy();
        let now: Vec<NodeId> = self.node.trust().trusted().map(|(node, _)| node).collect();
        self.trusted.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }

    /// The rules have to know who is meant by them.
    fn tell_policy(&self) {
        let limits = self.port_limits();
        let agreed = self.node.trust().trusted().map(|(node, trusted)| (node, trusted.key, None));
        let members = limits.into_iter().filter_map(|(node, limit)| {
            let trusted = self.node.trust().get(node)?;
            Some((node, trusted.key, limit))
        });
        self.policy.set_nodes(self.own_node(), agreed.chain(members));
    }

    /// Orderly end: peers are told of the end of their streams, programs see the end of their connections.
    async fn close(mut self) {
        let now = Instant::now();
        // First, so that they do not take the end of their connection for a fault.
        self.services = None;
        self.notify("daemon.shutting_down", Some(self.shutting_down()));
        for (id, _) in std::mem::take(&mut self.streams) {
            // Nobody will be here to repeat what is not acknowledged; the peer had better know at once.
            match self.node.is_drained(id) {
                Some(true) => self.node.close(now, id),
                Some(false) | None => self.node.reset(now, id),
            }
        }
        self.memory_stale = true;
        self.drain(now);
        self.end_web(LAST_WORDS).await;
        self.end_programs().await;
    }

    /// Tells the services; nobody may be listening.
    fn sign(&self, sign: Sign) {
        let _ = self.signs.send(sign);
    }

    fn own_node(&self) -> NodeId {
        *self.own.borrow()
    }

    fn own_key(&self) -> PublicKey {
        self.identity.public()
    }

    fn reply(&mut self, to: ReplyTo, reply: &Reply<'_>) {
        if let Reply::Json { body, .. } = reply
            && body.len() > MAX_DATA
        {
            return self
                .refuse(to, replies::Refusal::new(Code::Busy, "the answer is too long for one frame"));
        }
        if let Some(client) = self.clients.get_mut(&to.client) {
            client.reply(to.slot, reply);
            self.unflushed.insert(to.client);
        }
    }

    fn refuse(&mut self, to: ReplyTo, refusal: impl Into<replies::Refusal>) {
        if let Some(client) = self.clients.get_mut(&to.client) {
            client.refuse(to.slot, &refusal.into());
            self.unflushed.insert(to.client);
        }
    }

    fn answer<T: serde::Serialize>(&mut self, to: ReplyTo, command: ipc::Command, value: &T) {
        self.reply(to, &Reply::json(command, value));
    }
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    pub(crate) fn envelope(text: &str) {
        super::envelope::fuzz(text);
    }
}
