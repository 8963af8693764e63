//! What a daemon keeps of delivered messages, and how its applications ask for it.
//!
//! [`StoredMessage`] is the content of a file in `~/.pilot/inbox`, readable by tools of release 1.18.0.
//! [`Request`] and [`Reply`] travel as JSON over the local socket.

use serde::{Deserialize, Serialize};

use crate::dataexchange::{Extension, MessageId};
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
    /// When it arrived, RFC 3339, UTC.
    pub received_at: String,
    /// The id of the message this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// `TEXT`, `JSON` or `BINARY`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A question about the mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// The newest messages, oldest of them first. Answered with [`Reply::Messages`].
    List {
        /// Only of this sender.
        #[serde(default)]
        from: Option<NodeId>,
        /// Only those that arrived later: nanoseconds since 1970.
        #[serde(default)]
        since_ns: Option<u64>,
        /// How many at most; the daemon has a ceiling of its own.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// One message, or the newest when no id is given. Answered with [`Reply::Message`].
    Read {
        /// Its [`Entry::id`].
        #[serde(default)]
        id: Option<String>,
    },
    /// Waits until a message is there. Answered with [`Reply::Message`] or [`Reply::TimedOut`].
    ///
    /// With `reply_to`, the message that answers that id is taken, whenever it arrived; failing that one of
    /// the same sender that answers no id at all and arrived after `since_ns`. Without, the first message
    /// after `since_ns` (or after the one called `after`).
    Wait {
        /// Only of this sender.
        #[serde(default)]
        from: Option<NodeId>,
        /// The id of the message to be answered.
        #[serde(default)]
        reply_to: Option<MessageId>,
        /// Only those that arrived later: nanoseconds since 1970.
        #[serde(default)]
        since_ns: Option<u64>,
        /// Only those after this one, by [`Entry::id`].
        #[serde(default)]
        after: Option<String>,
        /// How long.
        timeout_ms: u64,
    },
    /// Removes messages. Answered with [`Reply::Cleared`].
    Clear {
        /// Only those that arrived earlier: nanoseconds since 1970.
        #[serde(default)]
        before_ns: Option<u64>,
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
        /// Where they are kept.
        dir: String,
    },
    /// To [`Request::Read`] and [`Request::Wait`].
    Message {
        /// Its [`Entry::id`].
        id: String,
        /// Its file, absolute.
        path: String,
        /// Its content; absent when too long for the local socket: read the file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<Box<StoredMessage>>,
    },
    /// To [`Request::Wait`]: nothing came.
    TimedOut,
    /// To [`Request::Clear`].
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
    fn requests_name_their_operation() {
        let request = Request::Wait {
            from: Some(NodeId(2)),
            reply_to: Some("m-1".parse().unwrap()),
            since_ns: None,
            after: None,
            timeout_ms: 30_000,
        };
        let json = serde_json::to_string(&request).unwrap();
        assert!(json.starts_with(r#"{"op":"wait","from":2,"reply_to":"m-1""#), "{json}");
        assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request);
        assert_eq!(
            serde_json::from_str::<Request>(r#"{"op":"list"}"#).unwrap(),
            Request::List { from: None, since_ns: None, limit: None }
        );
    }
}
