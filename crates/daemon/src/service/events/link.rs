//! A subscription at a trusted node's broker, on behalf of this node's applications; renewed for as long as
//! somebody wants it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use pilot_wire::NodeId;
use pilot_wire::events::{Decoder, Note, NoteToken};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use super::Command;

/// First pause before a link is renewed; doubled up to [`PAUSE_MAX`] while it fails.
const PAUSE_MIN: Duration = Duration::from_millis(250);

/// Longest pause: a peer that comes back is heard after this at the latest.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// How long a broker that has the subscription may take to say so. Those of 1.18.0 never do.
const CONFIRMATION: Duration = Duration::from_millis(250);

/// Which broker, and what was subscribed to there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkKey {
    pub(super) node: NodeId,
    pub(super) topic: String,
}

/// How a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkState {
    /// No try has ended yet.
    Connecting,
    /// Events come.
    Live,
    /// The last try failed, another follows.
    Down,
}

/// Reaches the event port of other nodes.
pub(crate) trait DialBroker: Clone + Send + Sync + 'static {
    /// A stream to a broker.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// Opens a stream to port 1002 of a node.
    fn dial(&self, node: NodeId) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Resolves when the other node has everything that was written.
    fn drain(stream: &mut Self::Stream) -> impl Future<Output = io::Result<()>> + Send;
}

/// Keeps the link until the task is aborted or the broker is gone. `awake` cuts a pause short: the other node has
/// shown that it is there.
pub(super) async fn run<D: DialBroker>(
    key: LinkKey,
    dial: D,
    broker: mpsc::Sender<Command>,
    awake: Arc<Notify>,
) {
    let mut pause = PAUSE_MIN;
    loop {
        let mut was_live = false;
        let ended = once(&key, &dial, &broker, &mut was_live).await;
        match ended {
            Ok(()) => tracing::debug!(node = %key.node, topic = key.topic, "a broker ended the subscription"),
            Err(error) => {
                tracing::debug!(node = %key.node, topic = key.topic, %error, "no events from a broker")
            }
        }
        if broker.send(Command::Link(key.clone(), LinkState::Down)).await.is_err() {
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

async fn once<D: DialBroker>(
    key: &LinkKey,
    dial: &D,
    broker: &mpsc::Sender<Command>,
    was_live: &mut bool,
) -> io::Result<()> {
    let mut stream = dial.dial(key.node).await?;
    let token = NoteToken::from_random(pilot_crypto::random_bytes().map_err(io::Error::other)?);
    let mut subscription = Vec::new();
    token.subscription(key.topic.as_str()).map_err(io::Error::other)?.emit(&mut subscription);
    stream.write_all(&subscription).await?;
    stream.flush().await?;
    D::drain(&mut stream).await?;
    let mut reader = Reader { stream, decoder: Decoder::new(), token, key, broker, publisher: None };
    let confirmed = timeout(CONFIRMATION, reader.until_confirmed()).await;
    if let Ok(confirmed) = confirmed {
        confirmed?;
    }
    *was_live = true;
    let _ = broker.send(Command::Link(key.clone(), LinkState::Live)).await;
    while reader.next().await?.is_some() {}
    Ok(())
}

struct Reader<'a, S> {
    stream: S,
    decoder: Decoder,
    token: NoteToken,
    key: &'a LinkKey,
    broker: &'a mpsc::Sender<Command>,
    publisher: Option<pilot_wire::Addr>,
}

enum Read {
    Confirmed,
    Other,
}

impl<S: AsyncRead + Unpin> Reader<'_, S> {
    async fn until_confirmed(&mut self) -> io::Result<()> {
        loop {
            match self.next().await? {
                Some(Read::Confirmed) => return Ok(()),
                Some(Read::Other) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Passes one event on. Cancel-safe: an event is in the decoder until it is passed on as a whole.
    async fn next(&mut self) -> io::Result<Option<Read>> {
        loop {
            // The slot is awaited before the event is taken, so that none is lost between the two.
            let slot = self.broker.reserve().await.map_err(io::Error::other)?;
            match self.decoder.next_event().map_err(io::Error::other)? {
                Some(event) => match self.token.read(&event) {
                    Some(Note::Subscribed { .. }) => return Ok(Some(Read::Confirmed)),
                    Some(Note::From { publisher, .. }) => self.publisher = publisher,
                    Some(Note::Lost { events }) => {
                        tracing::warn!(node = %self.key.node, events, "a broker dropped events meant for this node");
                    }
                    None => {
                        let publisher = self.publisher.take();
                        slot.send(Command::FromBroker { key: self.key.clone(), publisher, event });
                        return Ok(Some(Read::Other));
                    }
                },
                None => {
                    drop(slot);
                    if self.stream.read_buf(self.decoder.buffer_mut()).await? == 0 {
                        return Ok(None);
                    }
                }
            }
        }
    }
}
