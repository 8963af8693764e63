//! The link to the registry: one task that keeps one connection, registers, and carries questions and answers.
//!
//! The driver puts [`Order`]s in and gets [`Report`]s back; it never waits. While there is no connection, questions wait
//! [`ANSWER_WAIT`] at most and are then answered with the reason, so known peers are served without a registry.

mod connection;
mod errand;
mod notices;
mod profile;
mod queries;
mod records;
mod seals;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pilot_crypto::Identity;
use pilot_proto::{Answer, Query, QueryError, QueryId};
use pilot_wire::registry::{
    AwaitNotices, Envelope, Handshakes, Register, Registered, Request, Response, SetTags, SetTaskExec,
    SetVisibility, Signed,
};
use pilot_wire::{NodeId, PublicKey};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use connection::{Connection, Lost};
pub(crate) use errand::{Errand, ErrandError};
use notices::Notices;
pub(crate) use profile::Profile;
pub(crate) use queries::{failed, request, said};
use records::{Publication, Refused};
pub(crate) use seals::{Attested, Numbers};

use crate::belief::Statement;
use crate::web::Proxy;

/// A question without an answer after this long is answered "unreachable": an unreachable peer is to be reported within
/// two seconds, whatever the reason.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// A registry that owes a reply for this long is left: the connection is dead or the registry hangs.
const REPLY_WAIT: Duration = Duration::from_secs(10);

/// The same for the sign of life that follows a change of the network: what was in order before may lead nowhere now.
const PROBE_WAIT: Duration = Duration::from_secs(2);

/// Time for the TCP connection to come about.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// First pause after a failed attempt; doubled each time up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longest pause between attempts. With its jitter, thousands of nodes spread over several seconds.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A new question cuts the pause short if the last attempt was at least this long ago.
const PAUSE_WHEN_ASKED: Duration = Duration::from_millis(500);

/// Orders that the driver may have put in ahead.
const ORDERS: usize = 1024;

/// Requests without a reply on one connection. More wait in the channel, then with the driver as "busy".
const OUTSTANDING_MAX: usize = 256;

/// Names one request of a local client until its reply comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CallId(pub(crate) u64);

/// What the driver wants of the registry.
#[derive(Debug)]
pub(crate) enum Order {
    /// A question of the node.
    Query(QueryId, Query),
    /// A request of a local client, signed on the way if it can be. The reply is passed on as it is.
    Call(CallId, Box<Envelope>),
    /// Something waits in the inbox: fetch it.
    FetchHandshakes,
    /// What to register from now on.
    Profile(Box<Profile>),
    /// The key to sign with from now on.
    Identity(Box<Identity>),
    /// This host is connected otherwise than before, or was asleep. These are all its addresses.
    NetworkChanged(Vec<IpAddr>),
}

/// What the link tells the driver.
#[derive(Debug)]
pub(crate) enum Report {
    /// The registry knows this key of ours, by this number.
    Registered(PublicKey, Registered),
    /// The answer to a question; each gets one.
    Answer(QueryId, Answer),
    /// The same where the registry said something of a node, which is to be judged before it is believed.
    Said(QueryId, Box<Statement>, Witness),
    /// The reply to a client's request; each gets one.
    Reply(CallId, Result<Vec<u8>, CallError>, Witness),
    /// The name that is registered belongs to another node; the registry's words.
    NameRefused(String),
    /// What lay in the inbox.
    Handshakes(Handshakes),
    /// The connection came or went.
    Status {
        /// Which registry.
        address: String,
        /// Why there is no connection.
        error: Option<String>,
    },
}

/// Why a client's request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The registry refused, with these words.
    #[error("{0}")]
    Refused(String),
    /// It could not be asked.
    #[error("{0}")]
    Unreachable(String),
}

/// Who said it, and who vouches for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Witness {
    /// The address of the registry.
    pub(crate) registry: String,
    /// Left out where nobody was asked to vouch, or nothing was said.
    pub(crate) attested: Option<Attested>,
}

/// Settings of the link.
pub(crate) struct Settings {
    pub(crate) addresses: Vec<String>,
    pub(crate) identity: Identity,
    pub(crate) profile: Profile,
    /// For what this node signs.
    pub(crate) numbers: Numbers,
    pub(crate) keepalive: Duration,
    /// A way where there is no direct one.
    pub(crate) proxy: Option<Proxy>,
}

/// The driver's end of the link.
pub(crate) struct Link {
    orders: mpsc::Sender<Order>,
}

impl Link {
    /// The two ends: this one, and the task to run. `report` brings reports to the driver.
    pub(crate) fn new<F, R>(settings: Settings, report: F) -> (Self, impl Future<Output = ()> + Send)
    where
        F: Fn(Report) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send,
    {
        let (orders, queue) = mpsc::channel(ORDERS);
        let task = Task {
            addresses: settings.addresses,
            current: 0,
            identity: settings.identity,
            node: None,
            profile: settings.profile,
            numbers: settings.numbers,
            moved: false,
            shaken: None,
            keepalive: settings.keepalive,
            proxy: settings.proxy,
            queue,
            waiting: VecDeque::new(),
            report,
        };
        (Self { orders }, task.run())
    }

    /// Hands an order over. `Err` gives it back when too many wait.
    pub(crate) fn send(&self, order: Order) -> Result<(), Order> {
        self.orders.try_send(order).map_err(mpsc::error::TrySendError::into_inner)
    }
}

/// A request and who wants to know about it.
struct Asked {
    since: Instant,
    by: Asker,
}

enum Asker {
    /// Of this key.
    Registration(PublicKey),
    /// Part of the registration; a refusal is only logged.
    Profile(&'static str),
    Heartbeat,
    /// A heartbeat that is to show whether the connection still works.
    Probe,
    /// The node's signed record.
    Record,
    Inbox,
    Node(QueryId, Query),
    Client(CallId),
    /// Was answered "unreachable" already; the reply is only taken off the line.
    Nobody,
}

struct Task<F> {
    addresses: Vec<String>,
    current: usize,
    identity: Identity,
    node: Option<NodeId>,
    profile: Profile,
    numbers: Numbers,
    /// The address or the key is another than what was registered.
    moved: bool,
    /// The network changed, and nothing was made of it yet.
    shaken: Option<Vec<IpAddr>>,
    keepalive: Duration,
    proxy: Option<Proxy>,
    queue: mpsc::Receiver<Order>,
    /// Orders that came while there was no registration, with their time.
    waiting: VecDeque<(Instant, Order)>,
    report: F,
}

impl<F, R> Task<F>
where
    F: Fn(Report) -> R + Send + Sync,
    R: Future<Output = ()> + Send,
{
    async fn run(mut self) {
        if self.addresses.is_empty() {
            return self.run_without_registry().await;
        }
        let mut pause = PAUSE_MIN;
        loop {
            let lost = match self.connect().await {
                Some(Ok(connection)) => {
                    let (lost, registered) = self.serve(connection).await;
                    if registered {
                        pause = PAUSE_MIN;
                    }
                    lost
                }
                Some(Err(lost)) => lost,
                None => return,
            };
            if matches!(lost, Lost::DriverGone) {
                return;
            }
            let reason = lost.to_string();
            tracing::warn!(registry = self.address(), reason, "no connection to the registry");
            (self.report)(Report::Status { address: self.address().to_owned(), error: Some(reason) }).await;
            if !matches!(lost, Lost::NetworkChanged) {
                self.current = (self.current + 1) % self.addresses.len();
            }
            if !self.rest(jittered(pause)).await {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Empty if there is none.
    fn address(&self) -> &str {
        self.addresses.get(self.current).map_or("", String::as_str)
    }

    async fn run_without_registry(mut self) {
        while let Some(order) = self.queue.recv().await {
            self.refuse(order, "no registry is configured").await;
        }
    }

    /// `None` when the driver is gone.
    async fn connect(&mut self) -> Option<Result<Connection, Lost>> {
        let address = self.address().to_owned();
        let proxy = self.proxy.clone();
        let connecting = async move {
            match timeout(CONNECT_WAIT, Connection::open(&address, proxy.as_ref())).await {
                Ok(outcome) => outcome.map_err(Lost::Connect),
                Err(_) => Err(Lost::NoConnection),
            }
        };
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                outcome = &mut connecting => return Some(outcome),
                proceed = self.collect() => if !proceed { return None },
            }
            // An attempt from an address that is gone would wait for nothing.
            if self.shaken.take().is_some() {
                return Some(Err(Lost::NetworkChanged));
            }
        }
    }

    /// Waits before the next attempt. `false` when the driver is gone.
    async fn rest(&mut self, pause: Duration) -> bool {
        let begin = Instant::now();
        let mut until = begin + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => return true,
                proceed = self.collect() => {
                    if !proceed {
                        return false;
                    }
                    if self.shaken.take().is_some() {
                        return true;
                    }
                    if !self.waiting.is_empty() {
                        until = until.min(begin + PAUSE_WHEN_ASKED);
                    }
                }
            }
        }
    }

    /// Takes one order in, or answers one that waited too long to be carried out. `false` when the driver is gone.
    async fn collect(&mut self) -> bool {
        let overdue = self.waiting.front().map(|(since, _)| *since + ANSWER_WAIT);
        tokio::select! {
            order = self.queue.recv(), if self.waiting.len() < ORDERS => match order {
                None => return false,
                Some(Order::Profile(profile)) => {
                    self.moved |= profile.addresses() != self.profile.addresses();
                    self.profile = *profile;
                }
                Some(Order::Identity(identity)) => {
                    self.identity = *identity;
                    self.moved = true;
                }
                Some(Order::NetworkChanged(own)) => self.shaken = Some(own),
                Some(order @ (Order::Query(..) | Order::Call(..) | Order::FetchHandshakes)) => {
                    self.waiting.push_back((Instant::now(), order));
                }
            },
            () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {
                if let Some((_, order)) = self.waiting.pop_front() {
                    let reason = format!("no answer from {}", self.address());
                    self.refuse(order, &reason).await;
                }
            }
        }
        true
    }

    async fn refuse(&self, order: Order, reason: &str) {
        match order {
            Order::Query(id, query) => {
                let answer = failed(&query, QueryError::Unreachable(reason.to_owned()));
                (self.report)(Report::Answer(id, answer)).await;
            }
            Order::Call(id, _) => {
                self.no_reply(id, reason).await;
            }
            Order::FetchHandshakes | Order::Profile(_) | Order::Identity(_) | Order::NetworkChanged(_) => {}
        }
    }

    /// Uses the connection until it is lost. Tells whether a registration succeeded on it.
    async fn serve(&mut self, connection: Connection) -> (Lost, bool) {
        let mut session = Session {
            connection,
            asked: VecDeque::new(),
            registered: false,
            publication: Publication::default(),
            notices: None,
            heartbeat: Instant::now() + self.keepalive,
        };
        self.moved = false;
        self.shaken = None;
        self.register(&mut session);
        let lost = loop {
            if let Err(lost) = self.step(&mut session).await {
                break lost;
            }
        };
        let reason = lost.to_string();
        for asked in std::mem::take(&mut session.asked) {
            self.unanswered(asked.by, &reason).await;
        }
        (lost, session.registered)
    }

    async fn step(&mut self, session: &mut Session) -> Result<(), Lost> {
        while session.registered
            && session.asked.len() < OUTSTANDING_MAX
            && let Some((since, order)) = self.waiting.pop_front()
        {
            self.carry_out(session, order, since);
        }
        if session.registered && std::mem::take(&mut self.moved) {
            self.register(session);
        }
        self.publish(session);
        if let Some(own) = self.shaken.take() {
            self.check(session, &own)?;
        }
        let deadline = session.deadline();
        tokio::select! {
            reply = session.connection.exchange() => {
                if let Some(reply) = reply? {
                    self.on_reply(session, &reply).await?;
                }
            }
            proceed = self.collect() => if !proceed { return Err(Lost::DriverGone) },
            () = next_notice(&mut session.notices) => self.fetch_handshakes(session, Instant::now()),
            () = sleep_until(deadline) => self.on_time(session).await?,
        }
        Ok(())
    }

    /// The network changed: does the connection still lead anywhere?
    fn check(&self, session: &mut Session, own: &[IpAddr]) -> Result<(), Lost> {
        // An empty list comes from a system that does not tell.
        if session.connection.local().is_some_and(|local| !own.is_empty() && !own.contains(&local)) {
            return Err(Lost::NetworkChanged);
        }
        let under_way = session.asked.iter().any(|asked| matches!(asked.by, Asker::Probe));
        if let Some(node_id) = self.node.filter(|_| session.registered && !self.profile.left && !under_way) {
            let now = Instant::now();
            session.heartbeat = now + self.keepalive;
            self.ask(session, Request::Heartbeat(signed(node_id)), Asker::Probe, now);
        }
        Ok(())
    }

    async fn on_time(&mut self, session: &mut Session) -> Result<(), Lost> {
        let now = Instant::now();
        if session.asked.iter().any(|asked| now >= asked.since + asked.patience()) {
            return Err(Lost::Silent);
        }
        for index in 0..session.asked.len() {
            let asked = &mut session.asked[index];
            if asked.answer_overdue(now) {
                let asker = std::mem::replace(&mut asked.by, Asker::Nobody);
                self.unanswered(asker, "the registry does not answer").await;
            }
        }
        if now >= session.heartbeat {
            session.heartbeat = now + self.keepalive;
            if let Some(node_id) = self.node.filter(|_| session.registered && !self.profile.left) {
                self.ask(session, Request::Heartbeat(signed(node_id)), Asker::Heartbeat, now);
                self.fetch_handshakes(session, now);
            }
        }
        Ok(())
    }

    async fn no_reply(&self, id: CallId, reason: &str) {
        let error = CallError::Unreachable(reason.to_owned());
        let witness = Witness { registry: self.address().to_owned(), attested: None };
        (self.report)(Report::Reply(id, Err(error), witness)).await;
    }

    async fn unanswered(&self, asker: Asker, reason: &str) {
        match asker {
            Asker::Node(id, query) => {
                let answer = failed(&query, QueryError::Unreachable(reason.to_owned()));
                (self.report)(Report::Answer(id, answer)).await;
            }
            Asker::Client(id) => {
                self.no_reply(id, reason).await;
            }
            Asker::Registration(_)
            | Asker::Profile(_)
            | Asker::Heartbeat
            | Asker::Probe
            | Asker::Record
            | Asker::Inbox
            | Asker::Nobody => {}
        }
    }

    fn carry_out(&self, session: &mut Session, order: Order, since: Instant) {
        match order {
            Order::Query(id, query) => {
                let request = request(self.node.unwrap_or_default(), &query);
                self.ask(session, request, Asker::Node(id, query), since);
            }
            Order::Call(id, envelope) => self.ask_as(session, *envelope, Asker::Client(id), since),
            Order::FetchHandshakes => self.fetch_handshakes(session, since),
            // Taken in at once when they come.
            Order::Identity(_) | Order::Profile(_) | Order::NetworkChanged(_) => {}
        }
    }

    fn ask(&self, session: &mut Session, request: Request, by: Asker, since: Instant) {
        self.ask_as(session, request.into(), by, since);
    }

    fn ask_as(&self, session: &mut Session, envelope: Envelope, by: Asker, since: Instant) {
        let attest = envelope.attest || seals::wants_attestation(&envelope.request);
        let request = envelope.request.sign_with(|text| self.identity.sign(text));
        let envelope = Envelope { request, attest, ..envelope };
        session.connection.queue_json(&seals::sealed(&envelope, self.node, &self.identity, &self.numbers));
        session.asked.push_back(Asked { since, by });
    }

    /// Publishes the record, if the node is registered and the registry has another one.
    fn publish(&self, session: &mut Session) {
        let Some(node) = self.node.filter(|_| session.registered) else { return };
        let reached_from = session.connection.local();
        let publication = &mut session.publication;
        let due = publication.due(node, &self.profile, reached_from, &self.identity, &self.numbers);
        if let Some(request) = due {
            self.ask(session, request, Asker::Record, Instant::now());
        }
    }

    async fn on_record_refused(&self, session: &mut Session, refusal: String) {
        match session.publication.refused(&refusal, &self.numbers) {
            Refused::Unknown => tracing::debug!("the registry does not know signed records"),
            Refused::Number => tracing::debug!(refusal, "the record goes again with a higher number"),
            Refused::Name => (self.report)(Report::NameRefused(refusal)).await,
            Refused::Other => tracing::warn!(refusal, "the registry does not take this node's record"),
        }
    }

    fn fetch_handshakes(&self, session: &mut Session, now: Instant) {
        let under_way = session.asked.iter().filter(|asked| matches!(asked.by, Asker::Inbox)).count();
        // One may have been answered by the registry before this wish came up; a second one cannot.
        if under_way < 2
            && let Some(node_id) = self.node
        {
            self.ask(session, Request::PollHandshakes(signed(node_id)), Asker::Inbox, now);
        }
    }

    fn register(&self, session: &mut Session) {
        let reached_from = session.connection.local();
        let public_key: PublicKey = self.identity.public();
        let register = Register {
            public_key: public_key.into(),
            listen_addr: self.profile.advertised(reached_from).unwrap_or_default(),
            hostname: self.profile.hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lan_addrs: self.profile.lan(reached_from).iter().map(SocketAddr::to_string).collect(),
            relay_only: self.profile.relay_only,
            derived: true,
            ..Register::default()
        };
        self.ask(session, Request::Register(register), Asker::Registration(public_key), Instant::now());
    }

    async fn on_reply(&mut self, session: &mut Session, reply: &[u8]) -> Result<(), Lost> {
        let Some(asked) = session.asked.pop_front() else { return Err(Lost::Unasked) };
        match asked.by {
            Asker::Client(id) => {
                let outcome = match queries::refused(reply) {
                    None => Ok(reply.to_vec()),
                    Some(refusal) => Err(CallError::Refused(refusal)),
                };
                (self.report)(Report::Reply(id, outcome, self.witness(reply))).await;
            }
            Asker::Node(id, query) => match queries::statement(&query, reply) {
                Some(said) => {
                    (self.report)(Report::Said(id, Box::new(said), self.witness(reply))).await;
                }
                None => (self.report)(Report::Answer(id, queries::answer(&query, reply))).await,
            },
            Asker::Record => match queries::refused(reply) {
                None => session.publication.published(),
                Some(refusal) => self.on_record_refused(session, refusal).await,
            },
            Asker::Registration(key) => self.on_registered(session, key, reply).await?,
            Asker::Inbox => match Response::parse(reply) {
                Ok(Response::PollHandshakes(found)) => {
                    if !found.requests.is_empty() || !found.responses.is_empty() {
                        if let Some(notices) = &mut session.notices {
                            notices.fetched();
                        }
                        (self.report)(Report::Handshakes(found)).await;
                    }
                }
                other => tracing::debug!(?other, "the registry does not show the inbox"),
            },
            Asker::Heartbeat | Asker::Probe => {
                if let Some(refusal) = queries::refused(reply) {
                    tracing::info!(refusal, "the registry has forgotten this node; registering again");
                    self.register(session);
                }
            }
            Asker::Profile(what) => {
                if let Some(refusal) = queries::refused(reply) {
                    tracing::warn!(what, refusal, "refused by the registry");
                }
            }
            Asker::Nobody => {}
        }
        Ok(())
    }

    fn witness(&self, reply: &[u8]) -> Witness {
        Witness { registry: self.address().to_owned(), attested: Some(seals::attested(reply)) }
    }

    async fn on_registered(
        &mut self,
        session: &mut Session,
        key: PublicKey,
        reply: &[u8],
    ) -> Result<(), Lost> {
        let registered = match Response::parse(reply) {
            Ok(Response::Register(registered)) => registered,
            Ok(Response::Error { error }) => {
                records::raise(&self.numbers, &error);
                return Err(Lost::Refused(error));
            }
            Ok(_) => return Err(Lost::Unasked),
            Err(error) => return Err(Lost::Malformed(error.to_string())),
        };
        let node_id = registered.node_id;
        let now = Instant::now();
        self.node = Some(node_id);
        session.registered = true;
        session.publication.start_over();
        if registered.hostname_error.is_some() {
            session.publication.name_refused(&self.profile.hostname);
        }
        // First of all, so that nobody finds the node without its record.
        self.publish(session);
        let visibility = SetVisibility { node_id, public: self.profile.public, ..SetVisibility::default() };
        self.ask(session, Request::SetVisibility(visibility), Asker::Profile("visibility"), now);
        if !self.profile.tags.is_empty() {
            let tags = SetTags { node_id, tags: self.profile.tags.clone(), ..SetTags::default() };
            self.ask(session, Request::SetTags(tags), Asker::Profile("tags"), now);
        }
        if self.profile.task_exec {
            let enabled = SetTaskExec { node_id, enabled: true, ..SetTaskExec::default() };
            self.ask(session, Request::SetTaskExec(enabled), Asker::Profile("task_exec"), now);
        }
        self.fetch_handshakes(session, now);
        let question = AwaitNotices { node_id, timeout_ms: notices::PATIENCE_MS, ..AwaitNotices::default() };
        let question = Request::AwaitNotices(question).sign_with(|text| self.identity.sign(text));
        session.notices = Some(Notices::new(self.address().to_owned(), self.proxy.clone(), question.into()));
        (self.report)(Report::Status { address: self.address().to_owned(), error: None }).await;
        (self.report)(Report::Registered(key, registered)).await;
        Ok(())
    }
}

/// Resolves when something waits at the registry.
async fn next_notice(notices: &mut Option<Notices>) {
    match notices {
        Some(notices) => notices.next().await,
        None => std::future::pending().await,
    }
}

struct Session {
    connection: Connection,
    asked: VecDeque<Asked>,
    registered: bool,
    publication: Publication,
    /// Exists once the node is registered.
    notices: Option<Notices>,
    heartbeat: Instant,
}

impl Session {
    /// The next moment at which something is to be done without anything having come.
    fn deadline(&self) -> Instant {
        let waits = self.asked.iter().map(Asked::deadline);
        waits.min().map_or(self.heartbeat, |wait| wait.min(self.heartbeat))
    }
}

impl Asked {
    fn answer_overdue(&self, now: Instant) -> bool {
        matches!(self.by, Asker::Node(..) | Asker::Client(_)) && now >= self.since + ANSWER_WAIT
    }

    fn deadline(&self) -> Instant {
        match self.by {
            Asker::Node(..) | Asker::Client(_) => self.since + ANSWER_WAIT,
            Asker::Registration(_)
            | Asker::Profile(_)
            | Asker::Heartbeat
            | Asker::Probe
            | Asker::Record
            | Asker::Inbox
            | Asker::Nobody => self.since + self.patience(),
        }
    }

    /// How long the reply may take before the connection counts as dead.
    fn patience(&self) -> Duration {
        if matches!(self.by, Asker::Probe) { PROBE_WAIT } else { REPLY_WAIT }
    }
}

fn signed(node_id: NodeId) -> Signed {
    Signed { node_id, ..Signed::default() }
}

/// Between half of `pause` and all of it, so that nodes which lost a registry together do not return together.
fn jittered(pause: Duration) -> Duration {
    let share = pilot_crypto::random_bytes::<1>().map_or(u8::MAX, |[byte]| byte);
    pause / 2 + pause / 2 * u32::from(share) / 255
}
