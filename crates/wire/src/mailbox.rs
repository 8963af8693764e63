//! What a daemon keeps of delivered messages, and how its applications ask for it.
//!
//! [`StoredMessage`] is the content of a file in `~/.pilot/inbox`, readable by tools of release 1.18.0.
//! [`Request`] and [`Reply`] travel as JSON over the local socket.

use serde::{Deserialize, Serialize};

use crate::dataexchange::{Extension, MessageId};
use crate::ipc::TrustState;
use crate::{Addr, NodeId};

/// How the bytes of a [`StoredMessage`] are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataEncoding {
    /// As text in `data`.
    Utf8,
    /// As base64 in `data_b64`: binary messages, and text that is not UTF-8.
    Base64,
}

/// One message in the inbox: the content of its file. Keys of release 1.18.0 are written in alphabetical order, ours
/// behind them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// Length of the message in bytes.
    pub bytes: u64,
    /// The message, when [`DataEncoding::Utf8`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The message, when [`DataEncoding::Base64`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_b64: Option<String>,
    /// Which of the two; absent in files of early 2026, which have `data` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_encoding: Option<DataEncoding>,
    /// The address the tunnel proved.
    pub from: Addr,
    /// The sender's hostname, when it was known on arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_hostname: Option<String>,
    /// Fingerprint of the sender's identity key, when it was known on arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_key: Option<String>,
    /// The sender's id of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// When it arrived, RFC 3339 with up to nanoseconds, UTC, own clock.
    pub received_at: String,
    /// The id of the message this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// `TEXT`, `JSON` or `BINARY`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What else a sender that is one of our nodes says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pilot: Option<Box<Extension>>,
    /// How it came here, as this node saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Box<Provenance>>,
}

/// How a message came here. Nothing in it is the sender's word, except [`sent_at`](Self::sent_at).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// How the sender stood to this node when the message arrived.
    pub trust: TrustState,
    /// The way it took.
    #[serde(flatten)]
    pub path: Path,
    /// When it was sent by the sender's clock, RFC 3339, UTC; known of messages that ask for times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<String>,
}

/// The way a message took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "path", rename_all = "snake_case")]
pub enum Path {
    /// Not known.
    #[default]
    Unknown,
    /// From this node itself.
    Own,
    /// Straight from the sender.
    Direct {
        /// Its UDP address, `ip:port`.
        endpoint: String,
    },
    /// Through the beacon.
    Relayed,
    /// A node kept it, sealed, until it could be fetched.
    Mailbox {
        /// Which.
        via: Addr,
    },
}

impl StoredMessage {
    /// The message's bytes exactly as they were sent.
    ///
    /// # Errors
    /// When the file holds neither text nor valid base64.
    pub fn body(&self) -> Result<Vec<u8>, BodyError> {
        use base64::Engine as _;
        match (&self.data, &self.data_b64) {
            (_, Some(encoded)) => {
                base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|_| BodyError::Base64)
            }
            (Some(text), None) => Ok(text.clone().into_bytes()),
            (None, None) => Err(BodyError::Missing),
        }
    }

    /// Puts `body` into `data` or `data_b64`, whichever keeps it exact.
    pub fn set_body(&mut self, body: &[u8], binary: bool) {
        use base64::Engine as _;
        self.bytes = body.len() as u64;
        (self.data, self.data_b64) = (None, None);
        match std::str::from_utf8(body) {
            Ok(text) if !binary => {
                self.data_encoding = Some(DataEncoding::Utf8);
                self.data = Some(text.to_owned());
            }
            Ok(_) | Err(_) => {
                self.data_encoding = Some(DataEncoding::Base64);
                self.data_b64 = Some(base64::engine::general_purpose::STANDARD.encode(body));
            }
        }
    }
}

/// A stored message whose body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// `data_b64` is not base64.
    #[error("the stored message is damaged: `data_b64` is not base64")]
    Base64,
    /// Neither `data` nor `data_b64`.
    #[error("the stored message is damaged: it has no data")]
    Missing,
}

/// What a list says of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Name of the message in [`Request::Read`]: its file's name without `.json`.
    pub id: String,
    /// Length of the message in bytes.
    pub bytes: u64,
    /// The sender.
    pub from: Addr,
    /// The sender's hostname, when it was known on arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_hostname: Option<String>,
    /// The sender's id of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// The first characters of a text message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
    /// When a program took it, RFC 3339, UTC; absent while it is unread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at: Option<String>,
    /// When it arrived, RFC 3339, UTC.
    pub received_at: String,
    /// The same in nanoseconds since 1970. No two messages have the same, and later ones have more, so it also is a
    /// place in the list.
    #[serde(default)]
    pub arrived_ns: u64,
    /// The id of the message this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// `TEXT`, `JSON` or `BINARY`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Which messages are meant. Nothing set means all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Only of this sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<NodeId>,
    /// Only those that no program has taken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unread: bool,
    /// Only those that arrived later: nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ns: Option<u64>,
    /// Only of this type: `TEXT`, `JSON` or `BINARY`, in any case.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only those with these bytes somewhere in their body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What [`Request::List`] asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct List {
    /// Which messages.
    #[serde(flatten)]
    pub filter: Filter,
    /// Only those that arrived earlier: the [`Entry::arrived_ns`] of the first of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_ns: Option<u64>,
    /// How many at most; the daemon has a ceiling of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl List {
    /// The newest messages of a node, or of all.
    #[must_use]
    pub fn newest(from: Option<NodeId>, limit: u32) -> Self {
        Self { filter: Filter { from, ..Filter::default() }, limit: Some(limit), ..Self::default() }
    }
}

/// What [`Request::Wait`] waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wait {
    /// Which messages.
    #[serde(flatten)]
    pub filter: Filter,
    /// The id of the message to be answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// Leave it unread.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub peek: bool,
    /// How long, in milliseconds.
    pub timeout_ms: u64,
}

/// A question about the mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// The newest messages, oldest of them first. Answered with [`Reply::Messages`].
    List(List),
    /// One message, or the newest when no id is given. Answered with [`Reply::Message`].
    Read {
        /// Its [`Entry::id`], or the id that its sender gave it.
        #[serde(default)]
        id: Option<String>,
        /// Leave it unread.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        peek: bool,
    },
    /// Waits until a message is there. Answered with [`Reply::Message`] or [`Reply::TimedOut`].
    ///
    /// With `reply_to`, the message that answers that id is taken, whenever it arrived; failing that one of
    /// the same sender that answers no id at all and arrived after `since_ns`. Without, the first message
    /// that fits. No two waits for unread messages get the same one.
    Wait(Wait),
    /// Marks messages as read or unread. Answered with [`Reply::Marked`].
    Mark {
        /// Their [`Entry::id`]s.
        ids: Vec<String>,
        /// As read.
        read: bool,
    },
    /// Removes these messages. Answered with [`Reply::Cleared`].
    Remove {
        /// Their [`Entry::id`]s.
        ids: Vec<String>,
    },
    /// Removes messages. Answered with [`Reply::Cleared`].
    Clear {
        /// Only those that arrived earlier: nanoseconds since 1970.
        #[serde(default)]
        before_ns: Option<u64>,
        /// Only those that were read.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        read: bool,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::List`].
    Messages {
        /// Oldest first.
        messages: Vec<Entry>,
        /// How many there are in all.
        total: u64,
        /// How many of all no program has taken.
        #[serde(default)]
        unread: u64,
        /// How many older ones the filter lets through beside those in `messages`.
        #[serde(default)]
        more: u64,
        /// Where they are kept.
        dir: String,
    },
    /// To [`Request::Read`] and [`Request::Wait`].
    Message {
        /// Its [`Entry::id`].
        id: String,
        /// Its file, absolute.
        path: String,
        /// Its [`Entry::arrived_ns`].
        #[serde(default)]
        arrived_ns: u64,
        /// Its content; absent when too long for the local socket: read the file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<Box<StoredMessage>>,
    },
    /// To [`Request::Wait`]: nothing came.
    TimedOut,
    /// To [`Request::Mark`].
    Marked {
        /// How many were marked otherwise before.
        marked: u64,
    },
    /// To the clearing requests.
    Cleared {
        /// How many were removed.
        cleared: u64,
    },
    /// The request could not be carried out.
    Failed {
        /// `not_found`, `internal`, `unavailable`.
        code: String,
        /// What happened.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_release_1_18_are_read_and_written_the_same() {
        for file in [
            r#"{"bytes":5,"data":"hello","data_encoding":"utf8","from":"0:0000.0000.0001","received_at":"2026-11-21T08:02:49.011698596Z","type":"TEXT"}"#,
            r#"{"bytes":6,"data_b64":"AP+AYmlu","data_encoding":"base64","from":"0:0000.0000.0001","received_at":"2026-11-21T08:02:49.914471553Z","type":"BINARY"}"#,
            r#"{"bytes":2,"data":"re","data_encoding":"utf8","from":"0:0000.0000.0001","message_id":"m-2","received_at":"2026-11-21T08:03:07.844836276Z","reply_to":"m-1","type":"TEXT"}"#,
            r#"{"bytes":5,"data":"hello","from":"0:0000.0000.0001","received_at":"2026-11-21T08:01:27Z","type":"TEXT"}"#,
        ] {
            let message: StoredMessage = serde_json::from_str(file).unwrap();
            assert_eq!(serde_json::to_string(&message).unwrap(), file);
            assert_eq!(message.body().unwrap().len() as u64, message.bytes);
        }
    }

    #[test]
    fn how_a_message_came_stands_behind_what_release_1_18_writes() {
        let file = r#"{"bytes":1,"data":"x","data_encoding":"utf8","from":"0:0000.0000.0001","received_at":"2026-11-21T08:01:27Z","type":"TEXT","provenance":{"trust":"trusted","path":"direct","endpoint":"192.0.2.1:4000"}}"#;
        let message: StoredMessage = serde_json::from_str(file).unwrap();
        let path = Path::Direct { endpoint: "192.0.2.1:4000".to_owned() };
        assert_eq!(message.provenance.as_ref().unwrap().path, path);
        assert_eq!(serde_json::to_string(&message).unwrap(), file);
    }

    #[test]
    fn requests_name_their_operation() {
        let filter = Filter { from: Some(NodeId(2)), ..Filter::default() };
        let reply_to = Some("m-1".parse().unwrap());
        let request = Request::Wait(Wait { filter, reply_to, timeout_ms: 30_000, ..Wait::default() });
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(json, r#"{"op":"wait","from":2,"reply_to":"m-1","timeout_ms":30000}"#);
        assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request);
        assert_eq!(
            serde_json::from_str::<Request>(r#"{"op":"list"}"#).unwrap(),
            Request::List(List::default())
        );
        let read = Request::Read { id: None, peek: false };
        assert_eq!(serde_json::from_str::<Request>(r#"{"op":"read"}"#).unwrap(), read);
    }
}
