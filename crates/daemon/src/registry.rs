//! The link to the registry: one task that keeps one connection, registers, and carries questions and answers.
//!
//! The driver puts [`Order`]s in and gets [`Report`]s back; it never waits. While there is no connection, questions wait
//! [`ANSWER_WAIT`] at most and are then answered with the reason, so known peers are served without a registry.
//!
//! Of several registries one is used at a time. When it is lost, or owes a reply for [`SUSPICION`] and another one can
//! be reached meanwhile, the node registers there and stays; questions that had no answer yet are asked again. Nobody
//! goes back by himself, so that a registry which comes and goes moves nobody.

mod connection;
mod errand;
mod notices;
mod profile;
mod queries;
mod race;
mod records;
mod seals;
mod session;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pilot_crypto::Identity;
use pilot_proto::{Answer, Query, QueryError, QueryId};
use pilot_wire::registry::{
    AwaitNotices, Envelope, Handshakes, Notices, Register, Registered, Request, Response, SetTags,
    SetTaskExec, SetVisibility, Signed,
};
use pilot_wire::{NodeId, PublicKey};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

pub(crate) use connection::Protection;
use connection::{Access, Lost};
pub(crate) use errand::{Errand, ErrandError};
use notices::Notice;
pub(crate) use profile::Profile;
pub(crate) use queries::{failed, request, said};
use race::{CONNECT_WAIT, Found, Race};
use records::Refused;
pub(crate) use seals::{Attested, Numbers};
use session::{Asked, Asker, Session};

use crate::belief::Statement;
use crate::config::RegistryTls;
use crate::tls::{Known, KnownCertificates};
use crate::trace::{Span, Tracer};
use crate::web::Proxy;

/// A question without an answer after this long is answered "unreachable": an unreachable peer is to be reported within
/// two seconds, whatever the reason.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// A registry that owes a reply for this long is left: the connection is dead or the registry hangs.
const REPLY_WAIT: Duration = Duration::from_secs(10);

/// The same for the sign of life that follows a change of the network: what was in order before may lead nowhere now.
const PROBE_WAIT: Duration = Duration::from_secs(2);

/// Where there are other registries, one that owes a reply for this long is doubted: another one is looked for, and used
/// if it is found before the reply comes. Half a second is what a commit to a busy disk takes.
const SUSPICION: Duration = Duration::from_millis(700);

/// A registration that lasted this long was a good one: its loss is no sign that the next will be lost, too.
const GOOD: Duration = Duration::from_secs(10);

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

/// Requests under way beside which nothing more is told that nobody waits for.
const TOLD_MAX: usize = 16;

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
    /// What runs beside the registry does not answer. Does the registry?
    Doubt,
    /// What the registry is to be told when there is time; nobody waits for the answers.
    Tell(Vec<Query>),
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
    /// It answered a heartbeat.
    Heard,
    /// Whether the key of this node ends soon, in words.
    KeyExpiry(Option<String>),
    /// What the registry has to say unasked.
    News(Notices),
    /// What is to be remembered of the certificate of a registry.
    Certificate(String, Known),
    /// There is a connection, on which the node is registered.
    Up {
        /// Which of the configured registries.
        index: usize,
        /// Its address.
        address: String,
        /// What hides the connection.
        protection: Protection,
    },
    /// There is none.
    Down {
        /// The address of the registry that was tried, or used.
        address: String,
        /// Why.
        error: String,
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
    pub(crate) tls: RegistryTls,
    /// The certificates that are remembered.
    pub(crate) known: KnownCertificates,
}

/// The driver's end of the link.
pub(crate) struct Link {
    orders: mpsc::Sender<Order>,
}

impl Link {
    /// The two ends: this one, and the task to run. `report` brings reports to the driver.
    pub(crate) fn new<F, R>(
        settings: Settings,
        tracer: Tracer,
        report: F,
    ) -> (Self, impl Future<Output = ()> + Send)
    where
        F: Fn(Report) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send,
    {
        let (orders, queue) = mpsc::channel(ORDERS);
        let access = Access::new(settings.proxy, settings.tls, settings.known);
        let task = Task {
            addresses: settings.addresses,
            access,
            current: 0,
            fruitless: 0,
            found: None,
            doubted: false,
            to_tell: VecDeque::new(),
            identity: settings.identity,
            node: None,
            profile: settings.profile,
            numbers: settings.numbers,
            moved: false,
            shaken: None,
            keepalive: settings.keepalive,
            key_expiry: None,
            queue,
            waiting: VecDeque::new(),
            tracer,
            report,
        };
        (Self { orders }, task.run())
    }

    /// Hands an order over. `Err` gives it back when too many wait.
    pub(crate) fn send(&self, order: Order) -> Result<(), Order> {
        self.orders.try_send(order).map_err(mpsc::error::TrySendError::into_inner)
    }
}

/// The registry's word for what is asked.
fn kind_of(request: &Request) -> Option<String> {
    let written = serde_json::to_value(request).ok()?;
    written.get("type")?.as_str().map(str::to_owned)
}

struct Task<F> {
    addresses: Vec<String>,
    access: Access,
    /// The registry that is used, or tried first.
    current: usize,
    /// Losses since a registration lasted.
    fruitless: usize,
    /// A registry that was reached while the one in use did not answer.
    found: Option<Found>,
    identity: Identity,
    node: Option<NodeId>,
    profile: Profile,
    numbers: Numbers,
    /// The address or the key is another than what was registered.
    moved: bool,
    /// The network changed, and nothing was made of it yet.
    shaken: Option<Vec<IpAddr>>,
    /// Whether the registry answers is to be found out.
    doubted: bool,
    /// What the registry is to be told when there is time.
    to_tell: VecDeque<Query>,
    keepalive: Duration,
    /// What the registry said last about the end of our key.
    key_expiry: Option<String>,
    queue: mpsc::Receiver<Order>,
    /// Orders that came while there was no registration, with their time.
    waiting: VecDeque<(Instant, Order)>,
    tracer: Tracer,
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
                Some(Ok(found)) => {
                    let (lost, lasted) = self.serve(found).await;
                    if let Some(lasted) = lasted {
                        pause = PAUSE_MIN;
                        if lasted >= GOOD {
                            self.fruitless = 0;
                        }
                    }
                    self.fruitless += 1;
                    lost
                }
                Some(Err(lost)) => {
                    self.fruitless = self.addresses.len();
                    lost
                }
                None => return,
            };
            if matches!(lost, Lost::DriverGone) {
                return;
            }
            let (address, error) = (self.address().to_owned(), lost.to_string());
            tracing::warn!(registry = address, reason = error, "no connection to the registry");
            (self.report)(Report::Down { address, error }).await;
            if self.found.is_some() {
                continue;
            }
            if !matches!(lost, Lost::NetworkChanged) {
                self.current = (self.current + 1) % self.addresses.len();
            }
            // Once all have been tried there is time; before that, the next one may be fine.
            if !self.fruitless.is_multiple_of(self.addresses.len()) {
                continue;
            }
            if !self.rest(jittered(pause)).await {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// All registries, the one in use or to be tried first in front.
    fn order(&self) -> impl Iterator<Item = usize> + use<F, R> {
        let (count, first) = (self.addresses.len(), self.current);
        (0..count).map(move |step| (first + step) % count)
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
    async fn connect(&mut self) -> Option<Result<Found, Lost>> {
        if let Some(found) = self.found.take() {
            return Some(Ok(found));
        }
        let mut race = Race::new(&self.addresses, self.order(), &self.access);
        loop {
            tokio::select! {
                outcome = race.finish() => return Some(outcome),
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
                Some(Order::Doubt) => self.doubted = true,
                Some(Order::Tell(queries)) => self.to_tell = queries.into(),
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
            Order::FetchHandshakes
            | Order::Profile(_)
            | Order::Identity(_)
            | Order::NetworkChanged(_)
            | Order::Doubt
            | Order::Tell(_) => {}
        }
    }

    /// Uses the connection until it is lost. Tells how long a registration on it lasted, if there was one.
    async fn serve(&mut self, found: Found) -> (Lost, Option<Duration>) {
        self.current = found.index;
        let mut connection = found.connection;
        if let Some(known) = connection.news.take() {
            let address = self.address().to_owned();
            self.access.known.insert(address.clone(), known);
            (self.report)(Report::Certificate(address, known)).await;
        }
        let mut session = Session::new(connection, self.keepalive, self.addresses.len() > 1);
        self.moved = false;
        self.shaken = None;
        self.doubted = false;
        self.register(&mut session);
        let lost = loop {
            if let Err(lost) = self.step(&mut session).await {
                break lost;
            }
        };
        let reason = lost.to_string();
        // The last first, so that they are asked again in their order.
        for asked in std::mem::take(&mut session.asked).into_iter().rev() {
            let since = asked.since;
            match asked.by.again() {
                Ok(order) if self.waiting.len() < ORDERS => self.waiting.push_front((since, order)),
                Ok(order) => self.refuse(order, &reason).await,
                Err(by) => self.unanswered(by, &reason).await,
            }
        }
        (lost, session.registered.map(|since| since.elapsed()))
    }

    async fn step(&mut self, session: &mut Session) -> Result<(), Lost> {
        while session.registered.is_some()
            && session.asked.len() < OUTSTANDING_MAX
            && let Some((since, order)) = self.waiting.pop_front()
        {
            self.carry_out(session, order, since);
        }
        if session.registered.is_some() && std::mem::take(&mut self.moved) {
            self.register(session);
        }
        self.publish(session);
        if let Some(own) = self.shaken.take() {
            self.check(session, &own)?;
        }
        if std::mem::take(&mut self.doubted) {
            self.probe(session);
        }
        self.tell(session);
        let deadline = session.deadline();
        tokio::select! {
            reply = session.connection.exchange() => {
                if let Some(reply) = reply? {
                    self.on_reply(session, &reply).await?;
                    session.heard(Instant::now());
                }
            }
            proceed = self.collect() => if !proceed { return Err(Lost::DriverGone) },
            notice = next_notice(&mut session.notices) => self.on_notice(session, notice).await,
            found = session::rival_found(&mut session.rival) => match found {
                Ok(found) => {
                    self.found = Some(found);
                    return Err(Lost::Silent);
                }
                Err(lost) => session.no_rival(Instant::now(), &lost),
            },
            () = sleep_until(deadline) => self.on_time(session).await?,
        }
        Ok(())
    }

    async fn on_notice(&self, session: &mut Session, notice: Notice) {
        match notice {
            Notice::News(news) => {
                if news.waiting {
                    self.fetch_handshakes(session, Instant::now());
                }
                if !news.kinds.is_empty() {
                    (self.report)(Report::News(news)).await;
                }
            }
            Notice::Broken => self.probe(session),
        }
    }

    /// What nobody waits for is told a little at a time.
    fn tell(&mut self, session: &mut Session) {
        while session.registered.is_some()
            && session.asked.len() < TOLD_MAX
            && let Some(query) = self.to_tell.pop_front()
        {
            let request = request(self.node.unwrap_or_default(), &query);
            self.ask(session, request, Asker::Told, Instant::now());
        }
    }

    /// The network changed: does the connection still lead anywhere?
    fn check(&self, session: &mut Session, own: &[IpAddr]) -> Result<(), Lost> {
        // An empty list comes from a system that does not tell.
        if session.connection.local().is_some_and(|local| !own.is_empty() && !own.contains(&local)) {
            return Err(Lost::NetworkChanged);
        }
        self.probe(session);
        Ok(())
    }

    /// A sign of life is asked for out of turn.
    fn probe(&self, session: &mut Session) {
        let under_way = session.asked.iter().any(|asked| matches!(asked.by, Asker::Probe));
        let is_known = session.registered.is_some() && !self.profile.left;
        if let Some(node_id) = self.node.filter(|_| is_known && !under_way) {
            let now = Instant::now();
            session.heartbeat = now + self.keepalive;
            self.ask(session, Request::Heartbeat(signed(node_id)), Asker::Probe, now);
        }
    }

    async fn on_time(&mut self, session: &mut Session) -> Result<(), Lost> {
        let now = Instant::now();
        if session.asked.iter().any(|asked| now >= asked.since + asked.patience()) {
            return Err(Lost::Silent);
        }
        if session.is_suspect(now) {
            let others = self.order().filter(|index| *index != self.current);
            session.rival = Some(Race::new(&self.addresses, others, &self.access));
        }
        for index in 0..session.asked.len() {
            let asked = &mut session.asked[index];
            if asked.answer_overdue(now) {
                self.trace(asked, || Some("the registry does not answer".to_owned()));
                let asker = std::mem::replace(&mut asked.by, Asker::Nobody);
                self.unanswered(asker, "the registry does not answer").await;
            }
        }
        if now >= session.heartbeat {
            session.heartbeat = now + self.keepalive;
            if let Some(node_id) = self.node.filter(|_| session.registered.is_some() && !self.profile.left) {
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
            Asker::Client(id, _) => {
                self.no_reply(id, reason).await;
            }
            Asker::Registration(_)
            | Asker::Profile(_)
            | Asker::Heartbeat
            | Asker::Probe
            | Asker::Record
            | Asker::Inbox
            | Asker::Told
            | Asker::Nobody => {}
        }
    }

    fn carry_out(&self, session: &mut Session, order: Order, since: Instant) {
        match order {
            Order::Query(id, query) => {
                let request = request(self.node.unwrap_or_default(), &query);
                self.ask(session, request, Asker::Node(id, query), since);
            }
            Order::Call(id, envelope) => {
                let again = session::may_be_repeated(&envelope.request).then(|| envelope.clone());
                self.ask_as(session, *envelope, Asker::Client(id, again), since);
            }
            Order::FetchHandshakes => self.fetch_handshakes(session, since),
            // Taken in at once when they come.
            Order::Identity(_)
            | Order::Profile(_)
            | Order::NetworkChanged(_)
            | Order::Doubt
            | Order::Tell(_) => {}
        }
    }

    fn ask(&self, session: &mut Session, request: Request, by: Asker, since: Instant) {
        self.ask_as(session, request.into(), by, since);
    }

    fn ask_as(&self, session: &mut Session, envelope: Envelope, by: Asker, since: Instant) {
        let attest = envelope.attest || seals::wants_attestation(&envelope.request);
        let request = envelope.request.sign_with(|text| self.identity.sign(text));
        let envelope = Envelope { request, attest, ..envelope };
        // Sealed each time anew, because a number counts once.
        session.connection.queue_json(&seals::sealed(&envelope, self.node, &self.identity, &self.numbers));
        // Only a span wants to know.
        let waited_for = matches!(by, Asker::Client(..) | Asker::Node(..)) && self.tracer.is_on();
        let kind = waited_for.then(|| kind_of(&envelope.request)).flatten();
        session.asked.push_back(Asked { since, sent: Instant::now(), by, kind });
    }

    /// What somebody waited for is over.
    fn trace(&self, asked: &mut Asked, failed: impl FnOnce() -> Option<String>) {
        if let Some(kind) = asked.kind.take() {
            let span = || Span::since("pilot.registry", asked.since.into_std()).with("pilot.request", kind);
            self.tracer.record(|| span().failed(failed()));
        }
    }

    /// Publishes the record, if the node is registered and the registry has another one.
    fn publish(&self, session: &mut Session) {
        let Some(node) = self.node.filter(|_| session.registered.is_some()) else { return };
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
        let Some(mut asked) = session.asked.pop_front() else { return Err(Lost::Unasked) };
        self.trace(&mut asked, || queries::refused(reply));
        match asked.by {
            Asker::Client(id, _) => {
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
                    return Ok(());
                }
                (self.report)(Report::Heard).await;
                if let Ok(Response::Heartbeat { key_expiry_warning, .. }) = Response::parse(reply)
                    && self.key_expiry != key_expiry_warning
                {
                    self.key_expiry.clone_from(&key_expiry_warning);
                    (self.report)(Report::KeyExpiry(key_expiry_warning)).await;
                }
            }
            Asker::Profile(what) => {
                if let Some(refusal) = queries::refused(reply) {
                    tracing::warn!(what, refusal, "refused by the registry");
                }
            }
            Asker::Told => {
                if let Some(refusal) = queries::refused(reply) {
                    tracing::debug!(refusal, "the registry does not take what it is told");
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
        session.registered.get_or_insert(now);
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
        let question = AwaitNotices {
            node_id,
            timeout_ms: notices::PATIENCE_MS,
            detailed: true,
            ..AwaitNotices::default()
        };
        let question = Request::AwaitNotices(question).sign_with(|text| self.identity.sign(text));
        let (address, protection) = (self.address().to_owned(), session.connection.protection());
        let access = self.access.like(protection);
        session.notices = Some(notices::Notices::new(address.clone(), access, question.into()));
        (self.report)(Report::Up { index: self.current, address, protection }).await;
        (self.report)(Report::Registered(key, registered)).await;
        Ok(())
    }
}

/// Resolves when the registry gives notice.
async fn next_notice(notices: &mut Option<notices::Notices>) -> Notice {
    match notices {
        Some(notices) => notices.next().await,
        None => std::future::pending().await,
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
