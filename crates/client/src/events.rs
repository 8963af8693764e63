//! The event stream: subscriptions that renew themselves, and publishing.

mod feed;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pilot_wire::events::{
    Decoder, Event, NOTHING, Note, NoteToken, Overflow, Pattern, Position, RESUME_MAX, Reached, Wishes,
};
use pilot_wire::ipc::{Call, Code, EventsStatus, Failure};
use pilot_wire::{Addr, Port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::feed::{Feed, Step};
use crate::message::random;
use crate::{Client, Error, Stream};

/// Events held for an application that does not read. When they are full the broker is not read, and does on its
/// side what [`SubscribeOptions::policy`] says.
const QUEUE: usize = 1024;

/// How long a broker may take to confirm a subscription: ours waits two seconds for the brokers of other nodes.
const CONFIRM_OWN: Duration = Duration::from_millis(2500);

/// The same for another node's broker, which waits for nobody. Those of 1.18.0 never confirm.
const CONFIRM_OTHER: Duration = Duration::from_millis(250);

/// First pause before a lost subscription is renewed; doubled up to [`PAUSE_MAX`] while that fails.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The longest while there is no daemon on this machine: to look costs next to nothing, and it may be back any moment.
const PAUSE_MAX_HERE: Duration = Duration::from_millis(400);

/// An event that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What it is about.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// The node that published it, as the broker says; brokers of 1.18.0 do not.
    pub publisher: Option<Addr>,
    /// The name of that node, as the own daemon knows it. To be made printable before it is shown.
    pub hostname: Option<String>,
    /// The node whose broker passed it on.
    pub broker: Option<Addr>,
    /// When the broker took it from its publisher, by the broker's clock; with brokers of 1.18.0, when it came here.
    pub time: SystemTime,
    /// Its number at that broker since the broker's start, over all topics; brokers of 1.18.0 do not count.
    pub seq: Option<u64>,
    /// It comes out of the broker's history: it was asked for ([`SubscribeOptions::replay`]), or was missed during an
    /// interruption.
    pub replayed: bool,
    /// Events of this subscription that are lost, just before this one: they were not read in time, or an interruption
    /// lasted longer than the history goes back.
    pub lost: u64,
    /// More than `lost` may be lost.
    pub lost_at_least: bool,
    /// The subscription asked for [`Overflow::Block`] and was not read for too long; since before this event it is one
    /// of [`Overflow::DropOldest`].
    pub demoted: bool,
}

/// How a subscription is to be served. The default is the newest events, whatever happens to older ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// What happens when events come faster than they are read.
    pub policy: Overflow,
    /// Events the broker queues, from 1 to 65,536; other nodes' brokers to 4,096. `None`: 4,096.
    pub queue: Option<u32>,
    /// So many of the last matching events come first, those of trusted nodes among them, in the order of their times,
    /// as far as the brokers' histories go back; at most 10,000. Brokers of 1.18.0 have none.
    pub replay: u32,
}

/// A subscription in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    /// Brokers of trusted nodes that deliver too.
    pub brokers: u32,
    /// Whether the broker has said so itself. One of 1.18.0 cannot: its node has acknowledged the request.
    pub confirmed: bool,
    /// What the broker granted; [`Overflow::Block`] only to its own programs and nodes it trusts.
    pub policy: Overflow,
    /// Events it queues; 0 when it does not say.
    pub queue: u32,
}

/// Events of this node and the nodes it trusts, or of one other node's broker.
///
/// A subscription that was once in force is renewed by itself when a broker or the local daemon goes away and comes
/// back. What was published meanwhile follows, marked as replayed, as far as the brokers' histories go back: these are
/// in memory and end with a broker's daemon. Brokers of 1.18.0 have none. An application receives its own publications
/// if it subscribed to their topic.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    broker: Broker,
    received: mpsc::Receiver<Received>,
    incoming: mpsc::Sender<Received>,
    subscriptions: JoinSet<()>,
    publisher: Option<Publisher>,
}

#[derive(Debug, Clone, Copy)]
struct Broker {
    addr: Addr,
    /// The local daemon's own, which understands patterns and listens to other brokers.
    is_own: bool,
}

impl Client {
    /// Events of this node's broker, which also listens to the brokers of trusted nodes.
    ///
    /// # Errors
    /// When the daemon does not answer or the node has no address yet.
    pub async fn open_event_stream(&self) -> Result<EventStream, Error> {
        let addr = self.info().await?.address;
        Ok(EventStream::new(self.clone(), Broker { addr, is_own: true }))
    }

    /// Events of another node's broker alone.
    #[must_use]
    pub fn open_event_stream_at(&self, addr: Addr) -> EventStream {
        EventStream::new(self.clone(), Broker { addr, is_own: false })
    }

    /// How the event broker of this node stands: subscriptions, links to other brokers, history, counters.
    ///
    /// # Errors
    /// When the connection fails, or the daemon runs no broker.
    pub async fn events_status(&self) -> Result<EventsStatus, Error> {
        self.call(Call::Events).await
    }
}

impl EventStream {
    fn new(client: Client, broker: Broker) -> Self {
        let (incoming, received) = mpsc::channel(QUEUE);
        Self { client, broker, received, incoming, subscriptions: JoinSet::new(), publisher: None }
    }

    /// Subscribes to a topic or [pattern](Pattern); resolves when the subscription is in force.
    ///
    /// # Errors
    /// When the broker cannot be reached now. Later interruptions are mended silently.
    pub async fn subscribe(&mut self, pattern: impl Into<String>) -> Result<Subscribed, Error> {
        self.subscribe_with(pattern, SubscribeOptions::default()).await
    }

    /// The same with a policy, a queue length, or the last events first.
    ///
    /// # Errors
    /// When the broker cannot be reached now, or does not allow it. Later interruptions are mended silently.
    pub async fn subscribe_with(
        &mut self,
        pattern: impl Into<String>,
        options: SubscribeOptions,
    ) -> Result<Subscribed, Error> {
        let mut subscription = Subscription {
            client: self.client.clone(),
            broker: self.broker,
            pattern: Pattern::new(pattern),
            options,
            incoming: self.incoming.clone(),
            reached: BTreeMap::new(),
        };
        let (first, in_force) = oneshot::channel();
        self.subscriptions.spawn(async move { subscription.keep(first).await });
        in_force.await.unwrap_or(Err(Error::Disconnected))
    }

    /// The next event of any subscription. Never ends by itself: use a time-out where one is wanted.
    pub async fn next(&mut self) -> Received {
        match self.received.recv().await {
            Some(received) => received,
            // This stream holds a sender, so the channel cannot close.
            None => std::future::pending().await,
        }
    }

    /// Publishes an event; resolves when the local daemon has it. See [`EventStream::settle`].
    ///
    /// # Errors
    /// When the broker cannot be reached, or topic or data are too long.
    pub async fn publish(&mut self, topic: impl Into<String>, data: impl Into<Bytes>) -> Result<(), Error> {
        let event = Event::new(topic, data).map_err(|error| Error::Invalid(error.to_string()))?;
        let mut frames = Vec::new();
        let open = match self.publisher.take() {
            Some(mut open) => (!open.has_ended()?).then_some(open),
            None => None,
        };
        let mut publisher = match open {
            Some(open) => open,
            None => {
                // The first event of a connection is its subscription, even if it wants nothing.
                let token = NoteToken::from_random(random()?);
                let subscription = token.subscription(NOTHING);
                subscription.map_err(|error| Error::Invalid(error.to_string()))?.emit(&mut frames);
                Publisher { stream: self.dial().await?, token, decoder: Decoder::new() }
            }
        };
        event.emit(&mut frames);
        publisher.stream.write_all(&frames).await?;
        publisher.stream.flush().await?;
        self.publisher = Some(publisher);
        Ok(())
    }

    /// Dials the broker, through a new daemon if the old one is gone.
    async fn dial(&mut self) -> Result<Stream, Error> {
        let to = self.broker.addr.port(Port::EVENT_STREAM);
        match self.client.dial(to).await {
            Err(error @ (Error::Disconnected | Error::Connect(_))) => {
                self.client = self.client.mended(&error).await;
                self.client.dial(to).await
            }
            result => result,
        }
    }

    /// Resolves when the broker's node has acknowledged everything published so far. With a reference daemon, which
    /// cannot tell, at once.
    ///
    /// # Errors
    /// When the connection broke before; the last publications may be lost. When the broker has said by now that it
    /// does not allow one of them.
    pub async fn settle(&mut self) -> Result<(), Error> {
        match &mut self.publisher {
            Some(publisher) => {
                drained(&mut publisher.stream).await?;
                publisher.has_ended().map(drop)
            }
            None => Ok(()),
        }
    }
}

async fn drained(stream: &mut Stream) -> Result<(), Error> {
    match stream.drain().await {
        Err(Error::Unsupported(_)) => Ok(()),
        other => other,
    }
}

/// The connection that events are published on.
#[derive(Debug)]
struct Publisher {
    stream: Stream,
    token: NoteToken,
    decoder: Decoder,
}

impl Publisher {
    /// Looks whether the stream has been closed meanwhile, without waiting.
    ///
    /// # Errors
    /// When the broker has refused a publication.
    fn has_ended(&mut self) -> Result<bool, Error> {
        loop {
            while let Ok(Some(event)) = self.decoder.next_event() {
                if let Some(Note::Refused { reason }) = self.token.read(&event) {
                    return Err(refused(reason));
                }
            }
            let mut said = [0; 256];
            let read = pin!(self.stream.read(&mut said)).poll(&mut Context::from_waker(Waker::noop()));
            match read {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0) | Err(_)) => return Ok(true),
                Poll::Ready(Ok(count)) => self.decoder.feed(&said[..count]),
            }
        }
    }
}

fn refused(reason: String) -> Error {
    Error::Failed(Failure::new(Code::PermissionDenied, reason))
}

/// One subscription, on a connection of its own.
struct Subscription {
    client: Client,
    broker: Broker,
    pattern: Pattern,
    options: SubscribeOptions,
    incoming: mpsc::Sender<Received>,
    /// How far the events of each broker have come; `None` is the one that is subscribed at.
    reached: BTreeMap<Option<Addr>, Position>,
}

impl Subscription {
    async fn keep(&mut self, first: oneshot::Sender<Result<Subscribed, Error>>) {
        let mut first = Some(first);
        let mut pause = PAUSE_MIN;
        loop {
            match self.open().await {
                Ok(mut feed) => {
                    pause = PAUSE_MIN;
                    if let Some(first) = first.take() {
                        let limit = if self.knows_patterns() { CONFIRM_OWN } else { CONFIRM_OTHER };
                        let unconfirmed = Subscribed {
                            brokers: 0,
                            confirmed: false,
                            policy: Overflow::default(),
                            queue: 0,
                        };
                        let subscribed = match timeout(limit, feed.until_subscribed(QUEUE)).await {
                            Ok(subscribed) => subscribed,
                            Err(_) => Ok(unconfirmed),
                        };
                        let failed = subscribed.is_err();
                        // Whoever subscribed may have given up waiting, and still wants the events.
                        let _ = first.send(subscribed);
                        if failed {
                            return;
                        }
                    }
                    loop {
                        match feed.next().await {
                            Some(Step::Event(event, at)) => {
                                let broker = event.broker.filter(|broker| *broker != self.broker.addr);
                                if self.pattern.matches(&event.topic)
                                    && self.incoming.send(event).await.is_err()
                                {
                                    return;
                                }
                                self.reach(broker, at);
                            }
                            Some(Step::At(broker, at)) => self.reach(broker, Some(at)),
                            Some(Step::Subscribed(_)) => {}
                            Some(Step::Refused(_)) | None => break,
                        }
                    }
                }
                Err(error) => {
                    if let Some(first) = first.take() {
                        let _ = first.send(Err(error));
                        return;
                    }
                    if matches!(error, Error::Disconnected | Error::Connect(_)) {
                        pause = pause.min(PAUSE_MAX_HERE);
                    }
                    if error == Error::Ended {
                        return;
                    }
                    self.client = self.client.mended(&error).await;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn reach(&mut self, broker: Option<Addr>, at: Option<Position>) {
        let Some(at) = at else { return };
        if self.reached.len() < RESUME_MAX || self.reached.contains_key(&broker) {
            self.reached.insert(broker, at);
        }
    }

    /// Only our own broker knows patterns by its rules for everybody.
    fn knows_patterns(&self) -> bool {
        self.broker.is_own && !self.client.is_reference()
    }

    async fn open(&self) -> Result<Feed, Error> {
        let mut stream = self.client.dial(self.broker.addr.port(Port::EVENT_STREAM)).await?;
        let token = NoteToken::from_random(random()?);
        // Any other broker is asked for a topic it knows, and told the pattern besides; one of 1.18.0 sends everything,
        // and the rest happens here.
        let (topic, pattern) = if self.knows_patterns() {
            (self.pattern.as_str(), None)
        } else {
            (self.pattern.wire_topic(), self.pattern.is_wild().then(|| self.pattern.as_str().to_owned()))
        };
        let reached = |(broker, at): (&Option<Addr>, &Position)| Reached { broker: *broker, at: *at };
        let wishes = Wishes {
            overflow: self.options.policy,
            queue: self.options.queue,
            replay: if self.reached.is_empty() { self.options.replay } else { 0 },
            resume: self.reached.iter().map(reached).collect(),
            pattern,
        };
        let subscription = token.subscription_with(topic, &wishes);
        let mut frame = Vec::new();
        subscription.map_err(|error| Error::Invalid(error.to_string()))?.emit(&mut frame);
        stream.write_all(&frame).await?;
        stream.flush().await?;
        drained(&mut stream).await?;
        Ok(Feed::new(stream, self.broker.addr, token))
    }
}
