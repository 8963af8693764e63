//! The correlation header of a TAGGED frame.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// A message's name, chosen by its sender: 1 to 128 of `A-Z a-z 0-9 . _ : -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct MessageId(String);

impl MessageId {
    /// Longest id that receivers accept.
    pub const MAX_LEN: usize = 128;

    /// The id made of 16 random bytes, as `pilotctl` writes it: 32 hexadecimal digits.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
        if text.is_empty() || text.len() > Self::MAX_LEN {
            Err(MessageIdError::Length(text.len()))
        } else if text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(MessageIdError::Character)
        }
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Text that cannot be a message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageIdError {
    /// Empty or over [`MessageId::MAX_LEN`] bytes.
    #[error("a message id has 1 to {max} characters, not {0}", max = MessageId::MAX_LEN)]
    Length(usize),
    /// A character outside the alphabet.
    #[error("a message id may contain letters, digits and `. _ : -` only")]
    Character,
}

/// What a TAGGED frame says about the message inside it. Keys that are not known here are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The message's own id: a repetition by the same sender within ten minutes is not stored again.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_absent")]
    pub message_id: Option<MessageId>,
    /// The id of the message this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_absent")]
    pub reply_to: Option<MessageId>,
    /// What only our nodes say; release 1.18.0 ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pilot: Option<Box<Extension>>,
}

/// What our nodes say about a message beyond its ids (docs/protocol-notes.md).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// The sender wants to be told what becomes of the message, with [`Control::Receipts`](super::Control::Receipts).
    #[serde(skip_serializing_if = "is_false")]
    pub receipts: bool,
    /// For how long the message is of use, in milliseconds from its arrival.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// The message is not to be stored after one before it on the same connection was refused: the sender had several
    /// under way, and brings the refused one again first.
    #[serde(skip_serializing_if = "is_false")]
    pub ordered: bool,
    /// How many programs in a row have answered by themselves to bring this message about.
    #[serde(skip_serializing_if = "is_zero")]
    pub hops: u8,
    /// An answer is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestTag>,
    /// A piece of the answer to come, or word of how far it is. It is not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interim: Option<Interim>,
    /// How a request ended; on its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// What a message says that waits for an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestTag {
    /// How long the answer is waited for, in milliseconds from the request's arrival.
    pub deadline_ms: u64,
    /// Requests of one sender under one key are carried out once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<MessageId>,
    /// Whether pieces and progress are wanted before the answer.
    #[serde(skip_serializing_if = "is_false")]
    pub parts: bool,
}

/// What comes before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interim {
    /// Counts from 1, pieces and progress together.
    pub number: u32,
    /// Which of the two.
    pub kind: InterimKind,
    /// Tells apart the runs of work that was begun anew, whose numbers begin anew too; later ones are greater.
    #[serde(default, skip_serializing_if = "is_zero_run")]
    pub run: u64,
}

/// What an interim message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterimKind {
    /// A piece of the answer: the answer is all pieces in their order.
    Part,
    /// How far the work is, in words or JSON of the worker's choice.
    Progress,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The message is the answer.
    Done,
    /// The work failed; the message says why.
    Failed,
    /// The requester took it back.
    Cancelled,
    /// The worker did not begin: it is busy, or does not do such things.
    Declined,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero(value: &u8) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero_run(value: &u64) -> bool {
    *value == 0
}

/// Senders written in Go cannot tell an empty string from an absent key, so neither may we.
fn empty_is_absent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MessageId>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_an_alphabet_and_a_length() {
        for good in ["a", "m-1", "A.b_c:d-9", &"x".repeat(128)] {
            assert!(good.parse::<MessageId>().is_ok(), "{good}");
        }
        for bad in ["", "bad id!", "ä", "a/b", &"x".repeat(129)] {
            assert!(bad.parse::<MessageId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_random_id_is_32_hexadecimal_digits() {
        let id = MessageId::from_random(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\xff");
        assert_eq!(id.as_str(), "000102030405060708090a0b0c0d0eff");
    }
}
