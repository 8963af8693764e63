//! What the daemon does when a message arrives: programs it runs, URLs it posts to.
//!
//! [`Request`] and [`Reply`] travel as JSON over the local socket. What a program or URL is given is [`Arrival`].

use serde::{Deserialize, Serialize};

use crate::NodeId;
use crate::mailbox::StoredMessage;

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Run a program with the message on its stdin.
    Exec {
        /// What `sh -c` is given. Nothing of the message is put into it.
        command: String,
        /// How long it may run, in milliseconds; five minutes when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// Post the message to a URL.
    Post {
        /// `http://` or `https://`.
        url: String,
        /// Whether what is posted is signed.
        #[serde(default)]
        signed: bool,
    },
}

/// Which messages a hook is for. Nothing set means all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Matching {
    /// Only of this sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<NodeId>,
    /// Only of this type: `TEXT`, `JSON` or `BINARY`, in any case.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only those with these bytes somewhere in their body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A hook and how it fared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Its number; none is given twice.
    pub id: u64,
    /// What is done.
    #[serde(flatten)]
    pub action: Action,
    /// When.
    #[serde(flatten)]
    pub matching: Matching,
    /// Since when it is there, RFC 3339, UTC.
    pub created_at: String,
    /// Messages that were handed over, and those in `skipped`.
    pub done: u64,
    /// Messages that the owner's rules let no program answer: the program was not run for them, and they are left unread.
    #[serde(default)]
    pub skipped: u64,
    /// Messages that wait for their turn or their next try.
    pub pending: u64,
    /// Messages that were given up.
    pub failed: u64,
    /// Why the last try that failed did, if none has succeeded since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Which message was skipped last, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_skip: Option<String>,
    /// Why the owner's rules hold messages back, if no try has succeeded since they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}

/// A question or order.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// From now on, do this. Answered with [`Reply::Hook`].
    Add {
        /// What.
        action: Action,
        /// When.
        #[serde(default)]
        matching: Matching,
        /// The key that what is posted is signed with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secret: Option<String>,
    },
    /// All hooks. Answered with [`Reply::Hooks`].
    List,
    /// Do it no more, not even for messages that wait. Answered with [`Reply::Hook`].
    Remove {
        /// Which.
        id: u64,
    },
    /// Do it now, once, with a message made up for it. Answered with [`Reply::Tested`].
    Test {
        /// Which.
        id: u64,
    },
}

/// Not the secret.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Add { action, matching, secret: _ } => f
                .debug_struct("Add")
                .field("action", action)
                .field("matching", matching)
                .finish_non_exhaustive(),
            Self::List => f.write_str("List"),
            Self::Remove { id } => write!(f, "Remove({id})"),
            Self::Test { id } => write!(f, "Test({id})"),
        }
    }
}

/// The answer to a [`Request`]; failures come as [`Failure`](crate::ipc::Failure)s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    /// The one.
    Hook(Box<Hook>),
    /// All of them, oldest first.
    Hooks {
        /// By number.
        hooks: Vec<Hook>,
    },
    /// How the test went.
    Tested {
        /// Whether a message would count as handed over.
        ok: bool,
        /// The exit status or the answer of the URL, in words.
        outcome: String,
        /// What the program printed, as far as it is kept.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        output: String,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
}

/// What a program reads on its stdin and a URL is posted: one JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The same for every try of one message for one hook, and for nothing else.
    pub event_id: String,
    /// `message.received`, or `hook.test`.
    pub event: String,
    /// The message's name in the inbox.
    pub id: String,
    /// The message's file; for programs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The message, as its file has it. One of more than about 16 MB comes without `data` and `data_b64`: they are in the
    /// file.
    #[serde(flatten)]
    pub message: StoredMessage,
}
