//! Event stream, port 1002: a broker between this node's applications, other nodes, and their brokers.
//!
//! The broker is one [`task`] that owns the [`hub`]; each connection and each [`link`] to another node's broker is a
//! task that talks to it over a bounded channel. What a connection has read is taken before it reads on, so a
//! subscriber for which publishers shall wait is felt at their end; any other that does not read fills its own queue
//! and nobody else's. The [`history`] keeps the last events, so that a subscription can begin with them or go on
//! after an interruption.

mod catch_up;
mod history;
mod hub;
mod link;
mod published;
mod queue;
mod task;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pilot_wire::events::{Ask, Decoder, Event, EventError, Note, NoteToken, Position};
use pilot_wire::ipc::EventsStatus;
use pilot_wire::{Endpoint, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use self::hub::{SubscriberId, Subscription};
use self::link::{Arrival, LinkKey};
use self::task::Task;
use super::policy::Policy;
use super::{Notices, Remote};
use crate::handle::Sign;

pub(super) use self::hub::Side;
pub(crate) use self::link::DialBroker;

/// Commands under way to the broker.
const QUEUE: usize = 256;

/// Subscriptions at the same time.
const SUBSCRIBERS_MAX: usize = 1024;

/// How long a confirmation waits for the brokers of trusted nodes, and then their past. One that is away must not hold
/// up who listens to the others.
const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(2);

/// How long a connection may take to say what it subscribes to.
const SUBSCRIBE_WITHIN: Duration = Duration::from_secs(30);

/// Events a publisher of another node may send at once.
const BURST: f64 = 200.0;

/// Events per second it may send after that. Beyond, its connection is read more slowly, so that it waits and
/// nothing is lost (release 1.18.0 drops at the same rate).
const RATE: f64 = 100.0;

/// An event longer than this is admitted one at a time per peer.
const LARGE_EVENT: usize = 1 << 20;

/// Events of one connection handed to the broker together.
const BATCH_EVENTS: usize = 64;

/// Bytes of such events; one may be longer.
const BATCH_BYTES: usize = 256 << 10;

/// Questions on their way to one broker. One is put for each subscription that is renewed; for further ones the
/// missed events count as lost.
const LINK_ASKS: usize = SUBSCRIBERS_MAX;

enum Command {
    Subscribe {
        asked: Subscription,
        remote: Endpoint,
        answer: oneshot::Sender<Connected>,
    },
    Unsubscribe(SubscriberId),
    /// Answered when all of it is taken.
    Publish {
        id: SubscriberId,
        from: Endpoint,
        events: VecDeque<Event>,
        done: oneshot::Sender<()>,
    },
    Ask(SubscriberId, Ask),
    WriterIdle(SubscriberId),
    /// Answered when all of it is taken.
    FromBroker {
        key: LinkKey,
        arrivals: VecDeque<Arrival>,
        done: oneshot::Sender<()>,
    },
    LinkUp {
        key: LinkKey,
        numbered: bool,
        at: Option<Position>,
    },
    LinkDown(LinkKey),
    Status(oneshot::Sender<EventsStatus>),
}

/// What a connection gets for its subscription.
enum Connected {
    As { id: SubscriberId, batches: mpsc::Receiver<Bytes> },
    Refused(String),
}

/// The Unix time in nanoseconds.
fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
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
        policy: Policy,
        notices: Notices,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (commands, queue) = mpsc::channel(QUEUE);
        let task = Task::new(dial, trusted, signs, policy, notices, commands.clone());
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
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader =
            EventReader { reader, decoder: Decoder::new(), large_of_peer, large_events: &self.large_events };
        let first = timeout(SUBSCRIBE_WITHIN, reader.next()).await.map_err(|_| Closed::NoSubscription)??;
        let Some(first) = first else { return Ok(()) };
        let (answer, answered) = oneshot::channel();
        let asked = NoteToken::asked(&first.payload);
        let token = asked.as_ref().map(|(token, _)| token.clone());
        let asked = Subscription {
            side,
            addr: from.endpoint.addr,
            hostname: from.hostname.clone(),
            topic: first.topic,
            asked,
            may_block: false,
        };
        let subscribe = Command::Subscribe { asked, remote: from.endpoint, answer };
        self.commands.send(subscribe).await.map_err(|_| Closed::Stopped)?;
        let (id, batches) = match answered.await.map_err(|_| Closed::TooMany)? {
            Connected::As { id, batches } => (id, batches),
            Connected::Refused(reason) => {
                if let Some(token) = token {
                    let mut frame = Vec::new();
                    token.note(&Note::Refused { reason: reason.clone() }).emit(&mut frame);
                    writer.write_all(&frame).await?;
                    writer.shutdown().await?;
                }
                return Err(Closed::Refused(reason));
            }
        };
        let ended = tokio::select! {
            read = self.publish_all(reader, id, token, from.endpoint, side) => read,
            written = self.write_all(writer, id, batches) => written,
        };
        self.commands.send(Command::Unsubscribe(id)).await.map_err(|_| Closed::Stopped)?;
        ended
    }

    async fn publish_all<R: AsyncRead + Unpin>(
        &self,
        mut reader: EventReader<'_, R>,
        id: SubscriberId,
        token: Option<NoteToken>,
        from: Endpoint,
        side: Side,
    ) -> Result<(), Closed> {
        let mut allowance = Allowance::full();
        while let Some(first) = reader.next().await? {
            let (mut bytes, mut events) = (first.wire_len(), VecDeque::from([first]));
            while events.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
                let Some(event) = reader.decoder.next_event()? else { break };
                bytes += event.wire_len();
                events.push_back(event);
            }
            match side {
                Side::Own => {}
                Side::Other => sleep(allowance.take(events.len())).await,
            }
            if let Some(token) = &token {
                let asks: Vec<Ask> = events.iter().filter_map(|event| token.read_ask(event)).collect();
                for ask in asks {
                    self.commands.send(Command::Ask(id, ask)).await.map_err(|_| Closed::Stopped)?;
                }
            }
            // The next are read when the broker has taken these: so a publisher waits for who shall lose nothing.
            let (done, is_done) = oneshot::channel();
            let publish = Command::Publish { id, from, events, done };
            self.commands.send(publish).await.map_err(|_| Closed::Stopped)?;
            is_done.await.map_err(|_| Closed::Stopped)?;
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
    /// The rules say no.
    #[error("{0}")]
    Refused(String),
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

    /// How long to wait before so many events may pass.
    fn take(&mut self, events: usize) -> Duration {
        let now = Instant::now();
        let events = events.min(BATCH_EVENTS) as f64;
        self.tokens = (self.tokens + now.duration_since(self.at).as_secs_f64() * RATE).min(BURST) - events;
        self.at = now;
        if self.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.tokens / RATE) }
    }
}

#[cfg(test)]
mod tests;
