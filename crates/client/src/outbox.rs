//! Messages that the daemon delivers when it can: handed over, asked for, waited for, taken back.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use pilot_wire::dataexchange::{Extension, MessageId};
use pilot_wire::ipc::Call;
use pilot_wire::outbox::{Body, INLINE_MAX, Item, Kind, Reply, Request, Send, State};
use pilot_wire::{Addr, NodeId};
use tokio::time::sleep;

use crate::{Client, Error, MAX_MESSAGE, MessageKind, Outgoing, new_message_id};

/// Pause before a wait is taken up again with a daemon that was restarted.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A message or file for the daemon to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Whom it is for.
    pub to: Addr,
    /// What it is.
    pub content: QueuedContent,
    /// Its id; chosen at random when absent. The same id again is the same message, and is delivered once.
    pub message_id: Option<MessageId>,
    /// The id of the message it answers.
    pub reply_to: Option<MessageId>,
    /// What else a receiver that is one of our nodes is told.
    pub extension: Extension,
    /// For how long the daemon tries: seven days when absent, and thirty at most.
    pub ttl: Option<Duration>,
    /// The hand-over returns only when it came this far, or [`Queued::patience`] is over.
    pub until: Option<State>,
    /// How long the hand-over may wait for that.
    pub patience: Duration,
}

/// The bytes of a message for the daemon to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueuedContent {
    /// A message.
    Message(MessageKind, Bytes),
    /// A file. The daemon takes a copy before it acknowledges, so the file may change or go after that.
    File {
        /// Where it is, as the daemon sees it: an absolute path.
        path: PathBuf,
        /// The name that the receiver shall see; the last part of the path when absent.
        name: Option<String>,
    },
}

impl Queued {
    /// A message as it would be sent, for the daemon to deliver.
    pub fn new(to: Addr, message: Outgoing) -> Self {
        Self {
            to,
            content: QueuedContent::Message(message.kind, message.data),
            message_id: message.message_id,
            reply_to: message.reply_to,
            extension: message.extension,
            ttl: None,
            until: None,
            patience: Duration::ZERO,
        }
    }

    /// A file for the daemon to deliver.
    pub fn file(to: Addr, path: impl Into<PathBuf>, name: Option<String>) -> Self {
        Self {
            to,
            content: QueuedContent::File { path: path.into(), name },
            message_id: None,
            reply_to: None,
            extension: Extension::default(),
            ttl: None,
            until: None,
            patience: Duration::ZERO,
        }
    }

    /// The same, with the answer held until the message came so far, for `patience` at most.
    #[must_use]
    pub fn until(self, state: State, patience: Duration) -> Self {
        Self { until: Some(state), patience, ..self }
    }
}

/// Which messages of the outbox are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxFilter {
    /// Only those for this node.
    pub to: Option<NodeId>,
    /// Only those that are not delivered yet.
    pub pending: bool,
    /// How many at most; the daemon has a ceiling of its own.
    pub limit: Option<u32>,
}

/// What an outbox holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    /// The newest messages that were asked for, oldest of them first.
    pub items: Vec<Item>,
    /// How many wait to be delivered in all.
    pub pending: u64,
    /// Bytes of those.
    pub pending_bytes: u64,
}

impl Client {
    /// Hands a message over to the daemon, which delivers it when it can: in order per peer, once, also when either side
    /// is restarted meanwhile. When this returns the message is on disk. If the daemon went away before it answered,
    /// handing the message over again under the same id is safe.
    ///
    /// # Errors
    /// When the outbox is full, the message too long, or the daemon cannot write; [`Error::Unsupported`] with a reference
    /// daemon.
    pub async fn queue(&self, message: Queued) -> Result<Item, Error> {
        let (kind, body, name, temporary) = match message.content {
            QueuedContent::Message(kind, data) => {
                let (body, temporary) = body_of(data).await?;
                let kind = match kind {
                    MessageKind::Text => Kind::Text,
                    MessageKind::Json => Kind::Json,
                    MessageKind::Binary => Kind::Binary,
                };
                (kind, body, None, temporary)
            }
            QueuedContent::File { path, name } => {
                let path = std::path::absolute(&path)?;
                let text = path.to_str().ok_or_else(|| {
                    Error::Invalid(format!("{} is not UTF-8: rename the file to queue it", path.display()))
                })?;
                (Kind::File, Body::Path(text.to_owned()), name, None)
            }
        };
        let send = Send {
            to: message.to,
            kind,
            body,
            name,
            message_id: message.message_id,
            reply_to: message.reply_to,
            extension: message.extension,
            ttl_ms: message.ttl.map(millis),
            until: message.until,
            wait_ms: millis(message.patience),
        };
        let item = self.outbox_item(Request::Send(Box::new(send))).await;
        drop(temporary);
        item
    }

    /// What the outbox holds.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn outbox(&self, filter: OutboxFilter) -> Result<Outbox, Error> {
        let OutboxFilter { to, pending, limit } = filter;
        match self.call(Call::Outbox(Request::List { to, pending, limit })).await? {
            Reply::Items { items, pending, pending_bytes } => Ok(Outbox { items, pending, pending_bytes }),
            other @ Reply::Item(_) => Err(unexpected(&other)),
        }
    }

    /// One message of the outbox.
    ///
    /// # Errors
    /// When the outbox does not know it, or not any more.
    pub async fn outbox_show(&self, id: &MessageId) -> Result<Item, Error> {
        self.outbox_item(Request::Show { id: id.clone() }).await
    }

    /// Takes a message back that is not stored yet. One that is being tried at this moment may still arrive: its state
    /// is not settled then, and becomes [`State::Cancelled`] or [`State::Stored`] when the try has ended.
    ///
    /// # Errors
    /// When the outbox does not know it.
    pub async fn outbox_cancel(&self, id: &MessageId) -> Result<Item, Error> {
        self.outbox_item(Request::Cancel { id: id.clone() }).await
    }

    /// Waits until a message has come as far as `until`, never will, or the time is over: the item tells. Nothing is
    /// polled, and the wait outlives a restart of the daemon.
    ///
    /// # Errors
    /// When the outbox does not know the message.
    pub async fn outbox_wait(&self, id: &MessageId, until: State, limit: Duration) -> Result<Item, Error> {
        let begin = Instant::now();
        let mut client = self.clone();
        loop {
            let timeout_ms = millis(limit.saturating_sub(begin.elapsed()));
            let request = Request::Wait { id: id.clone(), until, timeout_ms };
            match client.outbox_item(request).await {
                Err(error @ (Error::Disconnected | Error::Connect(_))) if begin.elapsed() < limit => {
                    sleep(RECONNECT_PAUSE).await;
                    client = client.mended(&error).await;
                }
                ended => return ended,
            }
        }
    }

    async fn outbox_item(&self, request: Request) -> Result<Item, Error> {
        match self.call(Call::Outbox(request)).await? {
            Reply::Item(item) => Ok(*item),
            other @ Reply::Items { .. } => Err(unexpected(&other)),
        }
    }
}

/// A message that does not fit into a request goes through a file, which is removed again.
pub(crate) async fn body_of(data: Bytes) -> Result<(Body, Option<Temporary>), Error> {
    if data.len() > MAX_MESSAGE {
        return Err(Error::Invalid(format!(
            "a message of {} bytes is over the limit of {MAX_MESSAGE}: send it as a file",
            data.len()
        )));
    }
    if data.len() <= INLINE_MAX {
        return Ok((Body::Inline(base64::engine::general_purpose::STANDARD.encode(&data)), None));
    }
    let path = std::env::temp_dir().join(format!("pilot-{}.msg", new_message_id()?));
    let written = path.clone();
    let write = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        let temporary = Temporary(written);
        options.write(true).create_new(true).mode(0o600).open(&temporary.0)?.write_all(&data)?;
        Ok::<_, std::io::Error>(temporary)
    });
    let temporary = write.await.map_err(|error| Error::Io(error.to_string()))??;
    Ok((Body::Path(path.to_string_lossy().into_owned()), Some(temporary)))
}

/// A file that goes with this.
pub(crate) struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // The system's own cleaning takes what could not be removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::Protocol(format!("unexpected answer about the outbox: {reply:?}"))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
