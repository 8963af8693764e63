//! The event stream: subscriptions that renew themselves, and publishing.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use pilot_wire::events::{Decoder, Event, NOTHING, Note, NoteToken, Pattern};
use pilot_wire::{Addr, Port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::message::random;
use crate::{Client, Error, Stream};

/// Events held for an application that does not read. When they are full the broker is not read, and drops on
/// its side.
const QUEUE: usize = 1024;

/// How long a broker may take to confirm a subscription: ours waits two seconds for the brokers of other nodes.
const CONFIRM_OWN: Duration = Duration::from_millis(2500);

/// The same for another node's broker, which waits for nobody. Those of 1.18.0 never confirm.
const CONFIRM_OTHER: Duration = Duration::from_millis(250);

/// First pause before a lost subscription is renewed; doubled up to [`PAUSE_MAX`] while that fails.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// An event that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What it is about.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// The node that published it, as the broker says; brokers of 1.18.0 do not.
    pub publisher: Option<Addr>,
    /// The node whose broker passed it on.
    pub broker: Option<Addr>,
    /// Events of this subscription that were dropped just before, because they were not read in time.
    pub lost: u64,
}

/// A subscription in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    /// Brokers of trusted nodes that deliver too.
    pub brokers: u32,
    /// Whether the broker has said so itself. One of 1.18.0 cannot: its node has acknowledged the request.
    pub confirmed: bool,
}

/// Events of this node and the nodes it trusts, or of one other node's broker.
///
/// A subscription that was once in force is renewed by itself when the broker or the local daemon goes away and
/// comes back; what is published meanwhile is missed, for brokers keep no history. An application receives its own
/// publications if it subscribed to their topic.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    broker: Broker,
    received: mpsc::Receiver<Received>,
    incoming: mpsc::Sender<Received>,
    subscriptions: JoinSet<()>,
    publisher: Option<Stream>,
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
        let mut subscription = Subscription {
            client: self.client.clone(),
            broker: self.broker,
            pattern: Pattern::new(pattern),
            incoming: self.incoming.clone(),
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
        let open = self.publisher.take().and_then(|mut stream| (!has_ended(&mut stream)).then_some(stream));
        let mut stream = match open {
            Some(stream) => stream,
            None => {
                // The first event of a connection is its subscription, even if it wants nothing.
                Event { topic: NOTHING.to_owned(), payload: Bytes::new() }.emit(&mut frames);
                self.dial().await?
            }
        };
        event.emit(&mut frames);
        stream.write_all(&frames).await?;
        stream.flush().await?;
        self.publisher = Some(stream);
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
    /// When the connection broke before; the last publications may be lost.
    pub async fn settle(&mut self) -> Result<(), Error> {
        match &mut self.publisher {
            Some(stream) => drained(stream).await,
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

/// Looks whether a publisher's stream has been closed meanwhile, without waiting.
fn has_ended(stream: &mut Stream) -> bool {
    let mut unwanted = [0; 256];
    loop {
        let read = pin!(stream.read(&mut unwanted)).poll(&mut Context::from_waker(Waker::noop()));
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(0) | Err(_)) => return true,
            Poll::Ready(Ok(_)) => {}
        }
    }
}

/// One subscription, on a connection of its own.
struct Subscription {
    client: Client,
    broker: Broker,
    pattern: Pattern,
    incoming: mpsc::Sender<Received>,
}

impl Subscription {
    async fn keep(&mut self, first: oneshot::Sender<Result<Subscribed, Error>>) {
        let mut first = Some(first);
        let mut pause = PAUSE_MIN;
        loop {
            match self.open().await {
                Ok((mut feed, subscribed)) => {
                    pause = PAUSE_MIN;
                    if let Some(first) = first.take() {
                        // Whoever subscribed may have given up waiting, and still wants the events.
                        let _ = first.send(Ok(subscribed));
                    }
                    while let Some(received) = feed.next(&self.pattern).await {
                        if self.incoming.send(received).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    if let Some(first) = first.take() {
                        let _ = first.send(Err(error));
                        return;
                    }
                    self.client = self.client.mended(&error).await;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn open(&self) -> Result<(Feed, Subscribed), Error> {
        let mut stream = self.client.dial(self.broker.addr.port(Port::EVENT_STREAM)).await?;
        let token = NoteToken::from_random(random()?);
        // Only our own broker knows patterns; any other is asked for everything, and the rest happens here.
        let knows_patterns = self.broker.is_own && !self.client.is_reference();
        let topic = if knows_patterns { self.pattern.as_str() } else { self.pattern.wire_topic() };
        let subscription = token.subscription(topic).map_err(|error| Error::Invalid(error.to_string()))?;
        let mut frame = Vec::new();
        subscription.emit(&mut frame);
        stream.write_all(&frame).await?;
        stream.flush().await?;
        drained(&mut stream).await?;
        let mut feed = Feed::new(stream, self.broker.addr, token);
        let limit = if knows_patterns { CONFIRM_OWN } else { CONFIRM_OTHER };
        match timeout(limit, feed.until_subscribed(&self.pattern)).await {
            Ok(Some(brokers)) => Ok((feed, Subscribed { brokers, confirmed: true })),
            Ok(None) => Err(Error::Disconnected),
            Err(_) => Ok((feed, Subscribed { brokers: 0, confirmed: false })),
        }
    }
}

/// What arrives on the connection of a subscription.
struct Feed {
    stream: Stream,
    decoder: Decoder,
    broker: Addr,
    token: NoteToken,
    source: Option<(Option<Addr>, Option<Addr>)>,
    lost: u64,
    /// Came while the confirmation was awaited.
    early: VecDeque<Received>,
}

enum Step {
    Subscribed(u32),
    Event(Received),
}

impl Feed {
    fn new(stream: Stream, broker: Addr, token: NoteToken) -> Self {
        Self { stream, decoder: Decoder::new(), broker, token, source: None, lost: 0, early: VecDeque::new() }
    }

    /// How many other brokers deliver; `None` when the connection ended. Cancel-safe.
    async fn until_subscribed(&mut self, pattern: &Pattern) -> Option<u32> {
        loop {
            match self.step(pattern).await? {
                Step::Subscribed(brokers) => return Some(brokers),
                Step::Event(event) => self.early.push_back(event),
            }
        }
    }

    async fn next(&mut self, pattern: &Pattern) -> Option<Received> {
        if let Some(event) = self.early.pop_front() {
            return Some(event);
        }
        loop {
            match self.step(pattern).await? {
                Step::Subscribed(_) => {}
                Step::Event(event) => return Some(event),
            }
        }
    }

    async fn step(&mut self, pattern: &Pattern) -> Option<Step> {
        loop {
            match self.decoder.next_event().ok()? {
                Some(event) => match self.token.read(&event) {
                    Some(Note::Subscribed { brokers }) => return Some(Step::Subscribed(brokers)),
                    Some(Note::From { publisher, via }) => self.source = Some((publisher, via)),
                    Some(Note::Lost { events }) => self.lost += events,
                    None => {
                        let (publisher, via) = self.source.take().unwrap_or_default();
                        if pattern.matches(&event.topic) {
                            return Some(Step::Event(Received {
                                topic: event.topic,
                                payload: event.payload,
                                publisher,
                                broker: Some(via.unwrap_or(self.broker)),
                                lost: std::mem::take(&mut self.lost),
                            }));
                        }
                    }
                },
                None => {
                    self.decoder.buffer_mut().reserve(16 << 10);
                    if self.stream.read_buf(self.decoder.buffer_mut()).await.ok()? == 0 {
                        return None;
                    }
                }
            }
        }
    }
}
