//! What a daemon has to deliver, and how its applications hand it over and ask what became of it.
//!
//! [`Request`] and [`Reply`] travel as JSON over the local socket.

use serde::{Deserialize, Serialize};

use crate::dataexchange::{Extension, MessageId};
use crate::{Addr, NodeId};

/// How far a message came. Later states come after earlier ones, except that every state but the last four may be
/// followed by any of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// On this node's disk, to be delivered.
    Queued,
    /// On its way: with a mailbox, or written to the peer and not answered yet.
    Sent,
    /// In the peer's inbox.
    Stored,
    /// A program of the peer has taken it from there.
    Read,
    /// An answer that names it is in our inbox.
    Answered,
    /// Its time ran out before it was stored.
    Expired,
    /// The peer does not want it, and will not.
    Refused,
    /// Taken back before it was stored.
    Cancelled,
}

impl State {
    /// Whether the daemon has nothing more to do for delivery.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        !matches!(self, Self::Queued | Self::Sent)
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Text.
    Text,
    /// JSON.
    Json,
    /// Bytes.
    Binary,
    /// A file, or a folder of files.
    File,
}

/// Where the bytes of a message are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Here, in base64: up to [`INLINE_MAX`] bytes.
    Inline(String),
    /// In a file that the daemon can read; it takes a copy before it answers.
    Path(String),
}

/// Longest message that fits into a request with [`Body::Inline`].
pub const INLINE_MAX: usize = 512 << 10;

/// A message to be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// Whom it is for.
    pub to: Addr,
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub body: Body,
    /// The name of a file, as the receiver shall see it; the last part of the path when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its id; chosen by the daemon when absent. The same id again is the same message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// The message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// What else the receiver is told.
    #[serde(default)]
    pub extension: Extension,
    /// How long the daemon tries, in milliseconds; seven days when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Answer only when it came this far, or the time below is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<State>,
    /// How long the answer may be held for that, in milliseconds.
    #[serde(default)]
    pub wait_ms: u64,
}

/// A question or order about what is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Deliver this. Answered with [`Reply::Item`] once it is on disk.
    Send(Box<Send>),
    /// The newest messages, oldest of them first. Answered with [`Reply::Items`].
    List {
        /// Only for this node.
        #[serde(default)]
        to: Option<NodeId>,
        /// Only those that are not delivered yet.
        #[serde(default)]
        pending: bool,
        /// How many at most; the daemon has a ceiling of its own.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// One message. Answered with [`Reply::Item`].
    Show {
        /// Which.
        id: MessageId,
    },
    /// Waits until a message has come as far as `until`, or cannot. Answered with [`Reply::Item`] either way.
    Wait {
        /// Which.
        id: MessageId,
        /// How far.
        until: State,
        /// How long, in milliseconds.
        timeout_ms: u64,
    },
    /// Takes a message back that is not stored yet. Answered with [`Reply::Item`].
    Cancel {
        /// Which.
        id: MessageId,
    },
}

/// A message as the outbox knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its id.
    pub id: MessageId,
    /// Whom it is for.
    pub to: Addr,
    /// Their name, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_hostname: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub bytes: u64,
    /// The name of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// How far it came.
    pub state: State,
    /// When it was handed over, RFC 3339, UTC.
    pub created_at: String,
    /// When it came as far as `state`.
    pub state_at: String,
    /// Until when it is tried.
    pub expires_at: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next if nothing is heard of the peer before, in milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_ms: Option<u64>,
    /// Why the last try failed, or the message was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The mailbox that keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Addr>,
    /// What the receiver answered, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<String>,
    /// Whether the receiver knows ids; absent before it has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tagged: Option<bool>,
}

/// The answer to a [`Request`]; failures come as [`Failure`](crate::ipc::Failure)s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    /// One message.
    Item(Box<Item>),
    /// Several.
    Items {
        /// Oldest first.
        items: Vec<Item>,
        /// How many wait to be delivered in all.
        pending: u64,
        /// Bytes of those.
        pending_bytes: u64,
    },
}
