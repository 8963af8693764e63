//! A subscription at a trusted node's broker, on behalf of this node's applications; renewed for as long as
//! somebody wants it, from where it stopped.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use pilot_wire::NodeId;
use pilot_wire::events::{
    Ask, Decoder, Event, Note, NoteToken, Overflow, Position, RESERVED_PREFIX, Reached, Source, Wishes,
};
use pilot_wire::ipc::LinkState;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::hub::{Delivered, LinkTopic};
use super::{BATCH_EVENTS, Command, unix_ns};

/// First pause before a link is renewed; doubled up to [`PAUSE_MAX`] while it fails.
const PAUSE_MIN: Duration = Duration::from_millis(250);

/// Longest pause: a peer that comes back is heard after this at the latest.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// How long a broker that has the subscription may take to say so. Those of 1.18.0 never do.
const CONFIRMATION: Duration = Duration::from_millis(250);

/// Events that the other broker queues for a link that blocks: a full one is felt at the publisher soon.
const BLOCKING_QUEUE: u32 = 256;

/// Bytes of events handed to the broker at a time.
const BATCH_BYTES: usize = 256 << 10;

/// Which broker, and what was subscribed to there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkKey {
    pub(super) node: NodeId,
    pub(super) ask: LinkTopic,
}

/// What came over a link.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It just happened.
    Live(Delivered),
    /// It happened while the link was down.
    Missed(Delivered),
    /// A piece of the answer to a question.
    Answer(u64, Delivered),
    /// The end of that answer.
    Answered(u64, Position),
    /// All that was missed has come; this is the place from which it goes on.
    Reached(Position),
    /// Events that will not come.
    Lost { events: u64, at_least: bool, answer: Option<u64> },
    /// The broker waits for this node no longer.
    Demoted,
}

/// Reaches the event port of other nodes.
pub(crate) trait DialBroker: Clone + Send + Sync + 'static {
    /// A stream to a broker.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// Opens a stream to port 1002 of a node.
    fn dial(&self, node: NodeId) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Resolves when the other node has everything that was written.
    fn drain(stream: &mut Self::Stream) -> impl Future<Output = io::Result<()>> + Send;

    /// The name of a node, when known without asking it.
    fn hostname(&self, node: NodeId) -> impl Future<Output = Option<String>> + Send;
}

/// The broker's side of a link.
pub(super) struct Link {
    pub(super) state: LinkState,
    pub(super) task: tokio::task::AbortHandle,
    pub(super) awake: Arc<Notify>,
    pub(super) asks: mpsc::Sender<Ask>,
}

impl Link {
    /// The other node shows that it is there: the next try need not wait.
    pub(super) fn wake(&self) {
        match self.state {
            LinkState::Down => self.awake.notify_one(),
            LinkState::Connecting | LinkState::Live => {}
        }
    }
}

/// Keeps the link until the task is aborted or the broker is gone. `awake` cuts a pause short: the other node has
/// shown that it is there.
pub(super) async fn run<D: DialBroker>(
    key: LinkKey,
    dial: D,
    broker: mpsc::Sender<Command>,
    awake: Arc<Notify>,
    asks: mpsc::Receiver<Ask>,
) {
    let mut pause = PAUSE_MIN;
    let mut keeper = Keeper { key, dial, broker, asks, reached: None };
    loop {
        let mut was_live = false;
        let ended = keeper.once(&mut was_live).await;
        let key = &keeper.key;
        match ended {
            Ok(()) => {
                tracing::debug!(node = %key.node, topic = key.ask.topic, "a broker ended the subscription")
            }
            Err(error) => {
                tracing::debug!(node = %key.node, topic = key.ask.topic, %error, "no events from a broker");
            }
        }
        if keeper.broker.send(Command::LinkDown(key.clone())).await.is_err() {
            return;
        }
        if was_live {
            pause = PAUSE_MIN;
        }
        tokio::select! {
            () = sleep(pause + jitter(pause)) => pause = (pause * 2).min(PAUSE_MAX),
            () = awake.notified() => pause = PAUSE_MIN,
        }
    }
}

/// Up to half as much again, so that many nodes do not come back to a restarted one at the same moment.
fn jitter(pause: Duration) -> Duration {
    let [random] = pilot_crypto::random_bytes().unwrap_or([128]);
    pause * u32::from(random) / 512
}

struct Keeper<D> {
    key: LinkKey,
    dial: D,
    broker: mpsc::Sender<Command>,
    asks: mpsc::Receiver<Ask>,
    /// The last event that came. The link is renewed from here.
    reached: Option<Position>,
}

impl<D: DialBroker> Keeper<D> {
    async fn once(&mut self, was_live: &mut bool) -> io::Result<()> {
        let mut stream = self.dial.dial(self.key.node).await?;
        let token = NoteToken::from_random(pilot_crypto::random_bytes().map_err(io::Error::other)?);
        let wishes = Wishes {
            overflow: if self.key.ask.blocks { Overflow::Block } else { Overflow::DropOldest },
            queue: self.key.ask.blocks.then_some(BLOCKING_QUEUE),
            resume: self.reached.map(|at| Reached { broker: None, at }).into_iter().collect(),
            ..Wishes::default()
        };
        let mut subscription = Vec::new();
        let event = token.subscription_with(self.key.ask.topic.as_str(), &wishes);
        event.map_err(io::Error::other)?.emit(&mut subscription);
        stream.write_all(&subscription).await?;
        stream.flush().await?;
        D::drain(&mut stream).await?;
        // Questions of the time before are put again by who still wants to know.
        while self.asks.try_recv().is_ok() {}
        let (stream, writer) = tokio::io::split(stream);
        let mut reader = Reader {
            stream,
            decoder: Decoder::new(),
            token: &token,
            key: &self.key,
            dial: &self.dial,
            broker: &self.broker,
            reached: &mut self.reached,
            source: Source::default(),
            is_numbered: false,
            name: None,
            batch: Vec::new(),
            batch_bytes: 0,
        };
        let deadline = Instant::now() + CONFIRMATION;
        if let Ok(confirmed) = timeout_at(deadline, reader.until_confirmed()).await {
            confirmed?;
        }
        *was_live = true;
        reader.announce().await?;
        tokio::select! {
            ended = reader.read_all() => ended,
            ended = ask_all(writer, &token, &mut self.asks) => ended,
        }
    }
}

/// Puts questions for as long as the link lasts.
async fn ask_all<S: AsyncWrite>(
    mut writer: WriteHalf<S>,
    token: &NoteToken,
    asks: &mut mpsc::Receiver<Ask>,
) -> io::Result<()> {
    while let Some(ask) = asks.recv().await {
        let mut frame = Vec::new();
        token.ask(&ask).emit(&mut frame);
        writer.write_all(&frame).await?;
        writer.flush().await?;
    }
    std::future::pending().await
}

struct Reader<'a, S, D> {
    stream: ReadHalf<S>,
    decoder: Decoder,
    token: &'a NoteToken,
    key: &'a LinkKey,
    dial: &'a D,
    broker: &'a mpsc::Sender<Command>,
    reached: &'a mut Option<Position>,
    /// Of the next event.
    source: Source,
    is_numbered: bool,
    /// The publisher of the last event, and its name.
    name: Option<(NodeId, Option<String>)>,
    batch: Vec<Arrival>,
    batch_bytes: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin, D: DialBroker> Reader<'_, S, D> {
    /// Reads until the broker says that the subscription is in force, or shows by events that it is. Cancel-safe.
    async fn until_confirmed(&mut self) -> io::Result<()> {
        loop {
            while let Some(event) = self.decoder.next_event().map_err(io::Error::other)? {
                self.sort(event)?;
                if self.is_numbered || self.is_full() {
                    return Ok(());
                }
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.decoder.buffer_mut().reserve(16 << 10);
        match self.stream.read_buf(self.decoder.buffer_mut()).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn is_full(&self) -> bool {
        self.batch.len() >= BATCH_EVENTS || self.batch_bytes >= BATCH_BYTES
    }

    async fn announce(&mut self) -> io::Result<()> {
        let up = Command::LinkUp { key: self.key.clone(), numbered: self.is_numbered, at: *self.reached };
        self.broker.send(up).await.map_err(io::Error::other)
    }

    /// Hands everything to the broker. It is read on when the broker has taken what was read before, so that a
    /// subscriber without room is felt at the publisher.
    async fn read_all(&mut self) -> io::Result<()> {
        loop {
            let was_numbered = self.is_numbered;
            while !self.is_full()
                && let Some(event) = self.decoder.next_event().map_err(io::Error::other)?
            {
                self.sort(event)?;
            }
            if self.is_numbered && !was_numbered {
                self.announce().await?;
            }
            if self.batch.is_empty() {
                self.fill().await?;
            } else {
                self.hand_over().await?;
            }
        }
    }

    async fn hand_over(&mut self) -> io::Result<()> {
        let mut arrivals = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let mut reached = *self.reached;
        for arrival in &mut arrivals {
            let (is_answer, delivered) = match arrival {
                Arrival::Live(delivered) | Arrival::Missed(delivered) => (false, delivered),
                Arrival::Answer(_, delivered) => (true, delivered),
                Arrival::Answered(..) | Arrival::Reached(_) | Arrival::Lost { .. } | Arrival::Demoted => {
                    continue;
                }
            };
            if !is_answer {
                reached = delivered.source.at.or(reached);
            }
            // What a broker calls other nodes is its own affair.
            delivered.source.hostname = None;
            if let Some(publisher) = delivered.source.publisher {
                if self.name.as_ref().is_none_or(|(node, _)| *node != publisher.node) {
                    self.name = Some((publisher.node, self.dial.hostname(publisher.node).await));
                }
                delivered.source.hostname = self.name.as_ref().and_then(|(_, name)| name.clone());
            }
        }
        let (done, is_done) = oneshot::channel();
        let command = Command::FromBroker { key: self.key.clone(), arrivals: arrivals.into(), done };
        self.broker.send(command).await.map_err(io::Error::other)?;
        is_done.await.map_err(io::Error::other)?;
        *self.reached = reached;
        Ok(())
    }

    /// Puts one event where it belongs.
    fn sort(&mut self, event: Event) -> io::Result<()> {
        if !event.topic.starts_with(RESERVED_PREFIX) {
            let source = std::mem::take(&mut self.source);
            self.batch_bytes += event.wire_len();
            let (is_past, answer) = (source.replayed, source.answer);
            let delivered = Delivered { event, source, received: unix_ns() };
            self.batch.push(match answer {
                Some(ask) => Arrival::Answer(ask, delivered),
                None if is_past => Arrival::Missed(delivered),
                None => Arrival::Live(delivered),
            });
            return Ok(());
        }
        match self.token.read(&event) {
            Some(Note::Subscribed { .. }) => self.is_numbered = true,
            // The first place; from then on the events themselves say.
            Some(Note::At { broker: None, at }) => *self.reached = self.reached.or(Some(at)),
            Some(Note::From(source)) => self.source = source,
            Some(Note::Lost { events, at_least, answer }) => {
                tracing::warn!(node = %self.key.node, events, "a broker dropped events meant for this node");
                self.batch.push(Arrival::Lost { events, at_least, answer });
            }
            Some(Note::Replayed { answer: Some(ask), at }) => self.batch.push(Arrival::Answered(ask, at)),
            Some(Note::Replayed { answer: None, at }) => {
                *self.reached = Some(at);
                self.batch.push(Arrival::Reached(at));
            }
            Some(Note::Demoted) => self.batch.push(Arrival::Demoted),
            Some(Note::Refused { reason }) => return Err(io::Error::other(format!("refused: {reason}"))),
            Some(Note::At { broker: Some(_), .. }) | None => {}
        }
        Ok(())
    }
}
