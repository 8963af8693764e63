//! Requests and their answers: what applications of this node ask of others, and what they answer.
//!
//! A request is a message that says so ([`RequestTag`](crate::dataexchange::RequestTag)); its answer is a message that
//! names it. [`Request`] and [`Reply`] are what an application tells its daemon about either side of that, as JSON over
//! the local socket.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::dataexchange::{InterimKind, MessageId, Outcome};
use crate::mailbox::{self, StoredMessage};
use crate::outbox::{self, Body, Kind};
use crate::{Addr, NodeId};

/// Longest piece of an answer, or word of progress, in bytes.
pub const PART_MAX: usize = 64 << 10;

/// Longest time that a request gives its worker, in milliseconds: a day. What asks for more, or for nothing, gets this.
pub const DEADLINE_MAX_MS: u64 = 24 * 3600 * 1000;

/// A question or order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Sends a request and keeps what comes before its answer. Answered with [`Reply::Asked`]. The message has an id and
    /// an extension with a request tag; the same one again changes nothing.
    Ask(Box<outbox::Send>),
    /// Waits for something new about a request of ours. Answered with [`Reply::News`], empty when the time was up.
    Next(Next),
    /// The answer is not wanted any more. Answered with [`Reply::Done`].
    Cancel {
        /// The request.
        id: MessageId,
        /// Who was asked.
        to: NodeId,
    },
    /// Waits for a request that nobody works at, and holds it for as long as the connection lasts. Answered with
    /// [`Reply::Taken`] or [`Reply::TimedOut`].
    Take {
        /// Only of this node.
        #[serde(default)]
        from: Option<NodeId>,
        /// Plain messages too, of those that arrive from the first such call on.
        #[serde(default)]
        all: bool,
        /// How long, in milliseconds.
        timeout_ms: u64,
    },
    /// Holds requests again that this program works at, with a daemon that was restarted. Answered with
    /// [`Reply::Resumed`].
    Resume {
        /// Which.
        held: Vec<Held>,
    },
    /// A piece of the answer, or word of progress. Answered with [`Reply::Done`]; it fails with `cancelled` when the
    /// request is not to be worked at any more.
    Interim {
        /// The request: its id in the inbox.
        id: String,
        /// Which of the two.
        kind: InterimKind,
        /// In base64; up to [`PART_MAX`] bytes.
        data: String,
    },
    /// Answers a message of the inbox. Answered with [`Reply::Answered`].
    Answer(Answer),
    /// Gives a request back: others may take it. Answered with [`Reply::Done`].
    Release {
        /// Its id in the inbox.
        id: String,
    },
    /// Ends the waiting of this program's [`Request::Take`]s with [`Reply::TimedOut`]. Answered with [`Reply::Done`].
    Leave,
    /// Waits until a request that this program holds is not to be worked at any more. Answered with
    /// [`Reply::Withdrawn`] or [`Reply::TimedOut`].
    Watch {
        /// Its id in the inbox.
        id: String,
        /// How long, in milliseconds.
        timeout_ms: u64,
    },
    /// How many there are. Answered with [`Reply::State`].
    Show,
}

/// What is known already about a request, and how long to wait for more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// The request.
    pub id: MessageId,
    /// Who was asked.
    pub to: NodeId,
    /// When it was sent, in nanoseconds since 1970.
    pub since_ns: u64,
    /// Whether a message of that node that answers nothing by name may be the answer: older programs send such ones.
    #[serde(default)]
    pub loose: bool,
    /// The last interim message that was seen: its run,
    #[serde(default)]
    pub run: u64,
    /// and its number there.
    #[serde(default)]
    pub number: u32,
    /// How far the request had come.
    #[serde(default)]
    pub state: Option<outbox::State>,
    /// How long to wait, in milliseconds.
    pub timeout_ms: u64,
}

/// A request that a program works at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its id in the inbox.
    pub id: String,
    /// The run of the work, as [`Taken`] said.
    pub run: u64,
    /// Interim messages sent in it.
    pub sent: u32,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The message it answers: its id in the inbox; unless `held`, also the sender's id of it, `last` for the newest one,
    /// or the beginning of either id.
    pub id: String,
    /// Whether this program holds the request. Otherwise anybody of this node may answer, before whoever holds it.
    #[serde(default)]
    pub held: bool,
    /// How the request ended.
    pub outcome: Outcome,
    /// What the answer is.
    pub kind: Kind,
    /// Its bytes.
    pub body: Body,
    /// How many programs in a row have answered by themselves; one more than the request says when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<u8>,
}

/// Something that came before an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterimNews {
    /// Tells apart the runs of work that was begun anew; later ones are greater.
    pub run: u64,
    /// Counts from 1 in each run.
    pub number: u32,
    /// What it is.
    pub kind: InterimKind,
    /// In base64.
    pub data: String,
}

/// A message of the inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Its id there.
    pub id: String,
    /// Its file, absolute.
    pub path: String,
    /// When it arrived, in nanoseconds since 1970.
    #[serde(default)]
    pub arrived_ns: u64,
    /// Its content; absent when too long for the local socket: read the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<StoredMessage>>,
}

impl Letter {
    /// As the mailbox hands it out.
    #[must_use]
    pub fn into_reply(self) -> mailbox::Reply {
        let Self { id, path, arrived_ns, message } = self;
        mailbox::Reply::Message { id, path, arrived_ns, message }
    }
}

/// A request to be worked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The message.
    pub letter: Letter,
    /// The run of the work.
    pub run: u64,
    /// How much time is left for it, in milliseconds.
    pub left_ms: u64,
    /// Whether pieces and progress are wanted.
    pub parts: bool,
    /// How many programs in a row have answered by themselves to bring it about.
    pub hops: u8,
}

/// Why a request is not to be worked at any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The requester took it back.
    Cancelled,
    /// Its time is over.
    Deadline,
    /// Somebody else has answered it.
    Answered,
    /// The daemon does not know that this program holds it.
    Lost,
}

impl Why {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Cancelled => "the requester took it back",
            Self::Deadline => "its time is over",
            Self::Answered => "it was answered already",
            Self::Lost => "this program does not hold it",
        }
    }
}

/// The answer to a [`Request`]; failures come as [`Failure`](crate::ipc::Failure)s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    /// The request is to be delivered.
    Asked {
        /// Its id.
        id: MessageId,
        /// What the outbox knows of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<Box<outbox::Item>>,
    },
    /// What is new.
    News {
        /// Pieces and progress, in the order of their numbers as far as known.
        interim: Vec<InterimNews>,
        /// The outbox's word, when it is further than was known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<Box<outbox::Item>>,
        /// The answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Box<Letter>>,
    },
    /// Work.
    Taken(Box<Taken>),
    /// Nothing came.
    TimedOut,
    /// What of it is held again.
    Resumed {
        /// Those that are not, and why.
        lost: Vec<(String, Why)>,
    },
    /// The answer is on its way.
    Answered {
        /// Its id.
        message_id: MessageId,
        /// Whom it is for.
        to: Addr,
        /// The message it answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<MessageId>,
        /// The id in the inbox of the message it answers.
        id: String,
    },
    /// Stop working.
    Withdrawn {
        /// The reason.
        why: Why,
    },
    /// It is done.
    Done {},
    /// How many there are.
    State {
        /// Requests that wait for somebody to take them.
        waiting: u64,
        /// Requests that somebody works at.
        held: u64,
        /// Requests of ours with somebody waiting for news.
        asked: u64,
        /// Answers that are remembered.
        remembered: u64,
    },
}

/// Bytes as these requests carry them.
#[must_use]
pub fn encode(data: &[u8]) -> String {
    STANDARD.encode(data)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// When it is not base64.
pub fn decode(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    STANDARD.decode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_their_operation_and_need_little() {
        let take: Request = serde_json::from_str(r#"{"op":"take","timeout_ms":5}"#).unwrap();
        assert_eq!(take, Request::Take { from: None, all: false, timeout_ms: 5 });
        let next: Request =
            serde_json::from_str(r#"{"op":"next","id":"q","to":2,"since_ns":1,"timeout_ms":5}"#).unwrap();
        let Request::Next(next) = next else { panic!("{next:?}") };
        assert_eq!((next.run, next.number, next.state, next.loose), (0, 0, None, false));
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = [0, 159, 146, 150, 255];
        assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
    }
}
