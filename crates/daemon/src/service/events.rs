//! Event stream, port 1002: a broker between this node's applications, other nodes, and their brokers.
//!
//! The broker is one task that owns the [`Hub`]; each connection and each [`link`] to another node's broker is a
//! task that talks to it over a bounded channel. A subscriber that does not read fills its own queue and nobody
//! else's.

mod hub;
mod link;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pilot_wire::events::{Decoder, Event, EventError, Note, NoteToken, RESERVED_PREFIX};
use pilot_wire::ipc::EventsStatus;
use pilot_wire::{Addr, Endpoint, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::hub::{Hub, Origin, SubscriberId};
use self::link::{LinkKey, LinkState};
use super::{Notice, Notices, Remote};
use crate::handle::Sign;

pub(super) use self::hub::Side;
pub(crate) use self::link::DialBroker;

/// Commands under way to the broker.
const QUEUE: usize = 256;

/// Subscriptions at the same time.
const SUBSCRIBERS_MAX: usize = 1024;

/// How long a confirmation waits for the brokers of trusted nodes. One that is away must not hold up who
/// listens to the others.
const CONFIRM_WITHIN: Duration = Duration::from_secs(2);

/// How long a connection may take to say what it subscribes to.
const SUBSCRIBE_WITHIN: Duration = Duration::from_secs(30);

/// Events a publisher of another node may send at once.
const BURST: f64 = 200.0;

/// Events per second it may send after that. Beyond, its connection is read more slowly, so that it waits and
/// nothing is lost (release 1.18.0 drops at the same rate).
const RATE: f64 = 100.0;

/// An event longer than this is admitted one at a time per peer.
const LARGE_EVENT: usize = 1 << 20;

enum Command {
    Subscribe {
        side: Side,
        remote: Endpoint,
        topic: String,
        token: Option<NoteToken>,
        answer: oneshot::Sender<Subscription>,
    },
    Unsubscribe(SubscriberId),
    Publish(SubscriberId, Endpoint, Event),
    WriterIdle(SubscriberId),
    FromBroker {
        key: LinkKey,
        publisher: Option<Addr>,
        event: Event,
    },
    Link(LinkKey, LinkState),
    Status(oneshot::Sender<EventsStatus>),
}

/// What a connection gets for its subscription.
struct Subscription {
    id: SubscriberId,
    batches: mpsc::Receiver<Bytes>,
}

/// The way to the broker; cheap to clone.
#[derive(Clone)]
pub(super) struct Broker {
    commands: mpsc::Sender<Command>,
    large_events: Arc<Semaphore>,
}

impl Broker {
    /// A broker, and the task to be run for it. It dials the nodes in `trusted` on behalf of this node's applications.
    pub(super) fn new<D: DialBroker>(
        dial: D,
        trusted: watch::Receiver<Vec<NodeId>>,
        signs: broadcast::Receiver<Sign>,
        notices: Notices,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (commands, queue) = mpsc::channel(QUEUE);
        let task = Task {
            hub: Hub::default(),
            writers: BTreeMap::new(),
            dial,
            trusted,
            signs,
            commands: commands.clone(),
            links: BTreeMap::new(),
            link_tasks: JoinSet::new(),
            confirmations: Vec::new(),
            notices,
        };
        (Self { commands, large_events: Arc::new(Semaphore::new(2)) }, task.run(queue))
    }

    /// How the broker stands.
    pub(super) async fn status(&self) -> EventsStatus {
        let (answer, answered) = oneshot::channel();
        // A broker that has ended has no subscribers.
        let _ = self.commands.send(Command::Status(answer)).await;
        answered.await.unwrap_or_default()
    }

    /// Serves one connection until either side ends it. `large_of_peer` has one permit.
    pub(super) async fn serve<S>(
        &self,
        stream: S,
        from: &Remote,
        side: Side,
        large_of_peer: &Semaphore,
    ) -> Result<(), Closed>
    where
        S: AsyncRead + AsyncWrite,
    {
        let (reader, writer) = tokio::io::split(stream);
        let mut reader =
            EventReader { reader, decoder: Decoder::new(), large_of_peer, large_events: &self.large_events };
        let first = timeout(SUBSCRIBE_WITHIN, reader.next()).await.map_err(|_| Closed::NoSubscription)??;
        let Some(first) = first else { return Ok(()) };
        let (answer, answered) = oneshot::channel();
        let token = NoteToken::asked(&first.payload);
        let subscribe = Command::Subscribe { side, remote: from.endpoint, topic: first.topic, token, answer };
        self.commands.send(subscribe).await.map_err(|_| Closed::Stopped)?;
        let Subscription { id, batches } = answered.await.map_err(|_| Closed::TooMany)?;
        let ended = tokio::select! {
            read = self.publish_all(reader, id, from.endpoint, side) => read,
            written = self.write_all(writer, id, batches) => written,
        };
        self.commands.send(Command::Unsubscribe(id)).await.map_err(|_| Closed::Stopped)?;
        ended
    }

    async fn publish_all<R: AsyncRead + Unpin>(
        &self,
        mut reader: EventReader<'_, R>,
        id: SubscriberId,
        from: Endpoint,
        side: Side,
    ) -> Result<(), Closed> {
        let mut allowance = Allowance::full();
        while let Some(event) = reader.next().await? {
            match side {
                Side::Own => {}
                Side::Other => sleep(allowance.take()).await,
            }
            self.commands.send(Command::Publish(id, from, event)).await.map_err(|_| Closed::Stopped)?;
        }
        Ok(())
    }

    async fn write_all<W: AsyncWrite + Unpin>(
        &self,
        mut writer: W,
        id: SubscriberId,
        mut batches: mpsc::Receiver<Bytes>,
    ) -> Result<(), Closed> {
        while let Some(batch) = batches.recv().await {
            writer.write_all(&batch).await?;
            writer.flush().await?;
            self.commands.send(Command::WriterIdle(id)).await.map_err(|_| Closed::Stopped)?;
        }
        Err(Closed::Stopped)
    }
}

/// Why a connection was closed by this side.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// What came is no event.
    #[error(transparent)]
    Malformed(#[from] EventError),
    /// It never said what it wants.
    #[error("no subscription in {SUBSCRIBE_WITHIN:?}")]
    NoSubscription,
    /// The broker has as many subscribers as it takes.
    #[error("too many subscribers")]
    TooMany,
    /// The daemon stops.
    #[error("the broker has stopped")]
    Stopped,
}

struct EventReader<'a, R> {
    reader: R,
    decoder: Decoder,
    large_of_peer: &'a Semaphore,
    large_events: &'a Semaphore,
}

impl<R: AsyncRead + Unpin> EventReader<'_, R> {
    async fn next(&mut self) -> Result<Option<Event>, Closed> {
        let mut large = None;
        loop {
            if let Some(event) = self.decoder.next_event()? {
                return Ok(Some(event));
            }
            if large.is_none() && self.decoder.announced().is_some_and(|length| length > LARGE_EVENT) {
                // The semaphores are never closed; were they, no limit would be left to respect.
                large =
                    Some((self.large_of_peer.acquire().await.ok(), self.large_events.acquire().await.ok()));
            }
            self.decoder.buffer_mut().reserve(4096);
            if self.reader.read_buf(self.decoder.buffer_mut()).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// A token bucket that says how long to wait instead of no.
struct Allowance {
    tokens: f64,
    at: Instant,
}

impl Allowance {
    fn full() -> Self {
        Self { tokens: BURST, at: Instant::now() }
    }

    fn take(&mut self) -> Duration {
        let now = Instant::now();
        self.tokens = (self.tokens + now.duration_since(self.at).as_secs_f64() * RATE).min(BURST) - 1.0;
        self.at = now;
        if self.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.tokens / RATE) }
    }
}

struct Link {
    state: LinkState,
    task: AbortHandle,
    awake: Arc<Notify>,
}

impl Link {
    fn wake(&self) {
        match self.state {
            LinkState::Down => self.awake.notify_one(),
            LinkState::Connecting | LinkState::Live => {}
        }
    }
}

struct Confirmation {
    id: SubscriberId,
    deadline: Instant,
}

struct Writer {
    batches: mpsc::Sender<Bytes>,
    remote: Endpoint,
    topic: String,
}

struct Task<D> {
    hub: Hub,
    writers: BTreeMap<SubscriberId, Writer>,
    dial: D,
    trusted: watch::Receiver<Vec<NodeId>>,
    signs: broadcast::Receiver<Sign>,
    /// For the links.
    commands: mpsc::Sender<Command>,
    links: BTreeMap<LinkKey, Link>,
    link_tasks: JoinSet<()>,
    confirmations: Vec<Confirmation>,
    notices: Notices,
}

impl<D: DialBroker> Task<D> {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut trust_can_change = true;
        let mut signs_can_come = true;
        loop {
            let deadline = self.confirmations.iter().map(|waiting| waiting.deadline).min();
            let next_deadline = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.handle(command),
                    None => return,
                },
                changed = self.trusted.changed(), if trust_can_change => {
                    trust_can_change = changed.is_ok();
                    self.update_links();
                }
                sign = self.signs.recv(), if signs_can_come => match sign {
                    Ok(Sign::Peer(node)) => self.wake_links(node),
                    Ok(Sign::Network) | Err(broadcast::error::RecvError::Lagged(_)) => self.wake_all_links(),
                    Err(broadcast::error::RecvError::Closed) => signs_can_come = false,
                },
                Some(_) = self.link_tasks.join_next() => {}
                () = next_deadline => {}
            }
            self.confirm();
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Subscribe { side, remote, topic, token, answer } => {
                self.subscribe(side, remote, topic, token, answer);
            }
            Command::Unsubscribe(id) => self.unsubscribe(id),
            Command::Publish(id, from, event) => {
                let ready = self.hub.publish(Origin::Connection(id), &event);
                self.write(ready);
                if !event.topic.starts_with(RESERVED_PREFIX) {
                    let size = event.payload.len() as u64;
                    self.notices.send(Notice::EventPublished { topic: event.topic, size, from });
                }
            }
            Command::WriterIdle(id) => {
                self.hub.writer_idle(id);
                self.write([id]);
            }
            Command::FromBroker { key, publisher, event } => {
                let origin = Origin::Broker { node: key.node, topic: &key.topic, publisher };
                let ready = self.hub.publish(origin, &event);
                self.write(ready);
            }
            Command::Status(answer) => {
                let _ = answer.send(EventsStatus { subscribers: self.hub.len() as u64 });
            }
            Command::Link(key, state) => {
                // An aborted task's last words may still be in the queue.
                if let Some(link) = self.links.get_mut(&key) {
                    link.state = state;
                }
            }
        }
    }

    fn subscribe(
        &mut self,
        side: Side,
        remote: Endpoint,
        topic: String,
        token: Option<NoteToken>,
        answer: oneshot::Sender<Subscription>,
    ) {
        self.wake_links(remote.addr.node);
        if self.hub.len() >= SUBSCRIBERS_MAX {
            return;
        }
        let wants_confirmation = token.is_some();
        let id = self.hub.subscribe(side, remote.addr, &topic, token);
        let (batches, batches_out) = mpsc::channel(1);
        if answer.send(Subscription { id, batches: batches_out }).is_err() {
            self.hub.unsubscribe(id);
            return;
        }
        if !topic.starts_with(RESERVED_PREFIX) {
            self.notices.send(Notice::EventSubscribed { topic: topic.clone(), remote });
        }
        self.writers.insert(id, Writer { batches, remote, topic });
        self.update_links();
        if wants_confirmation {
            self.confirmations.push(Confirmation { id, deadline: Instant::now() + CONFIRM_WITHIN });
        }
    }

    fn unsubscribe(&mut self, id: SubscriberId) {
        self.hub.unsubscribe(id);
        self.confirmations.retain(|waiting| waiting.id != id);
        if let Some(Writer { topic, remote, .. }) = self.writers.remove(&id)
            && !topic.starts_with(RESERVED_PREFIX)
        {
            self.notices.send(Notice::EventUnsubscribed { topic, remote });
        }
        self.update_links();
    }

    fn write(&mut self, ready: impl IntoIterator<Item = SubscriberId>) {
        for id in ready {
            let Some(writer) = self.writers.get(&id) else { continue };
            // A writer is asked only while it is idle, so the one place in its channel is free.
            let Ok(place) = writer.batches.try_reserve() else { continue };
            if let Some(batch) = self.hub.take(id) {
                place.send(batch);
            }
        }
    }

    /// Starts the links that are wanted and ends those that are not.
    fn update_links(&mut self) {
        let trusted = self.trusted.borrow_and_update().clone();
        let topics = self.hub.link_topics();
        let wanted = |key: &LinkKey| trusted.contains(&key.node) && topics.contains(key.topic.as_str());
        self.links.retain(|key, link| {
            let keep = wanted(key);
            if !keep {
                link.task.abort();
            }
            keep
        });
        for node in &trusted {
            for topic in &topics {
                let key = LinkKey { node: *node, topic: (*topic).to_owned() };
                self.links.entry(key.clone()).or_insert_with(|| {
                    let awake = Arc::new(Notify::new());
                    let run = link::run(key, self.dial.clone(), self.commands.clone(), Arc::clone(&awake));
                    Link { state: LinkState::Connecting, task: self.link_tasks.spawn(run), awake }
                });
            }
        }
    }

    /// A node was heard of: links to it that wait for their next try need not wait.
    fn wake_links(&self, node: NodeId) {
        self.links.iter().filter(|(key, _)| key.node == node).for_each(|(_, link)| link.wake());
    }

    fn wake_all_links(&self) {
        self.links.values().for_each(Link::wake);
    }

    /// Tells subscribers that everything they can hear is connected.
    fn confirm(&mut self) {
        let now = Instant::now();
        let waiting = std::mem::take(&mut self.confirmations);
        for confirmation in waiting {
            let Some(topic) = self.hub.link_topic(confirmation.id).map(str::to_owned) else {
                self.tell_subscribed(confirmation.id, 0);
                continue;
            };
            let states =
                || self.links.iter().filter(|(key, _)| key.topic == topic).map(|(_, link)| link.state);
            let is_connecting = states().any(|state| state == LinkState::Connecting);
            if is_connecting && confirmation.deadline > now {
                self.confirmations.push(confirmation);
                continue;
            }
            let brokers = states().filter(|state| *state == LinkState::Live).count();
            self.tell_subscribed(confirmation.id, u32::try_from(brokers).unwrap_or(u32::MAX));
        }
    }

    fn tell_subscribed(&mut self, id: SubscriberId, brokers: u32) {
        if self.hub.tell(id, &Note::Subscribed { brokers }) {
            self.write([id]);
        }
    }
}

#[cfg(test)]
mod tests;
