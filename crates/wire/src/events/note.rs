//! What a broker of this implementation tells a subscriber besides events.
//!
//! A subscriber asks for notes by the payload of its subscription, which other brokers ignore. The token in it is
//! chosen at random, so that no publisher can forge a note.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Event, EventError, RESERVED_PREFIX};
use crate::Addr;

const ASK: &[u8] = b"pilot.notes:";

/// The secret between a broker and one subscriber: 8 to 64 letters and digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteToken(String);

impl NoteToken {
    /// The token made of 16 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The subscription that asks for notes.
    ///
    /// # Errors
    /// When the topic is too long.
    pub fn subscription(&self, topic: impl Into<String>) -> Result<Event, EventError> {
        Event::new(topic, [ASK, self.0.as_bytes()].concat())
    }

    /// The token in the payload of a subscription, if it asks for notes.
    #[must_use]
    pub fn asked(payload: &[u8]) -> Option<Self> {
        let token = std::str::from_utf8(payload.strip_prefix(ASK)?).ok()?;
        let valid = (8..=64).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
        valid.then(|| Self(token.to_owned()))
    }

    /// The event that carries a note.
    #[must_use]
    pub fn note(&self, note: &Note) -> Event {
        // Serialising these types into memory cannot fail.
        let payload = serde_json::to_vec(note).unwrap_or_default();
        Event { topic: format!("{RESERVED_PREFIX}{}", self.0), payload: Bytes::from(payload) }
    }

    /// The note an event carries, if it is one and of this token.
    #[must_use]
    pub fn read(&self, event: &Event) -> Option<Note> {
        let is_mine = event.topic.strip_prefix(RESERVED_PREFIX) == Some(self.0.as_str());
        if is_mine { serde_json::from_slice(&event.payload).ok() } else { None }
    }
}

/// A broker's word to one subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// From here on matching events are delivered.
    Subscribed {
        /// Other nodes' brokers whose events are delivered too.
        brokers: u32,
    },
    /// Where the next event comes from.
    From {
        /// The node that published it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        publisher: Option<Addr>,
        /// The node whose broker passed it on, if not this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        via: Option<Addr>,
    },
    /// This subscriber was too slow, and so many events were dropped before the next one.
    Lost {
        /// How many.
        events: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_reach_only_who_asked_for_them() {
        let token = NoteToken::from_random([7; 16]);
        let asked = NoteToken::asked(&token.subscription("t").unwrap().payload);
        assert_eq!(asked.as_ref(), Some(&token));
        let event = token.note(&Note::Subscribed { brokers: 2 });
        assert_eq!(token.read(&event), Some(Note::Subscribed { brokers: 2 }));
        assert_eq!(NoteToken::from_random([8; 16]).read(&event), None);
        for other in [&b""[..], b"hello", b"pilot.notes:", b"pilot.notes:short", b"pilot.notes:white space!"]
        {
            assert_eq!(NoteToken::asked(other), None);
        }
    }
}
