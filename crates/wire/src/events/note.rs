//! What a broker of this implementation tells a subscriber besides events.
//!
//! A subscriber asks for notes by the payload of its subscription, which other brokers ignore. The token in it is
//! chosen at random, so that no publisher can forge a note.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Ask, Event, EventError, Overflow, Position, RESERVED_PREFIX, Wishes};
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

    /// The subscription that asks for notes and for `wishes`.
    ///
    /// # Errors
    /// When topic or wishes are too long.
    pub fn subscription_with(&self, topic: impl Into<String>, wishes: &Wishes) -> Result<Event, EventError> {
        // Serialising these types into memory cannot fail.
        let wishes = serde_json::to_vec(wishes).unwrap_or_default();
        Event::new(topic, [ASK, self.0.as_bytes(), b" ", &wishes].concat())
    }

    /// The token in the payload of a subscription and what is wished, if it asks for notes. Wishes that cannot be
    /// understood are none.
    #[must_use]
    pub fn asked(payload: &[u8]) -> Option<(Self, Wishes)> {
        let text = std::str::from_utf8(payload.strip_prefix(ASK)?).ok()?;
        let (token, wishes) = text.split_once(' ').unwrap_or((text, ""));
        let valid = (8..=64).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let wishes = serde_json::from_str(wishes).unwrap_or_default();
        valid.then(|| (Self(token.to_owned()), wishes))
    }

    /// The event that carries a note.
    #[must_use]
    pub fn note(&self, note: &Note) -> Event {
        Event { topic: self.topic(), payload: note.to_bytes() }
    }

    /// The event that asks about the past on a connection that has subscribed with this token. Only for a broker that
    /// has confirmed the subscription: others would publish it.
    #[must_use]
    pub fn ask(&self, ask: &Ask) -> Event {
        Event { topic: self.topic(), payload: Bytes::from(serde_json::to_vec(ask).unwrap_or_default()) }
    }

    /// The note an event carries, if it is one and of this token.
    #[must_use]
    pub fn read(&self, event: &Event) -> Option<Note> {
        if self.is_topic(&event.topic) { serde_json::from_slice(&event.payload).ok() } else { None }
    }

    /// The question an event carries, if it is one and of this token.
    #[must_use]
    pub fn read_ask(&self, event: &Event) -> Option<Ask> {
        if self.is_topic(&event.topic) { serde_json::from_slice(&event.payload).ok() } else { None }
    }

    /// The topic of what belongs to this token.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("{RESERVED_PREFIX}{}", self.0)
    }

    fn is_topic(&self, topic: &str) -> bool {
        topic.strip_prefix(RESERVED_PREFIX) == Some(self.0.as_str())
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
        /// What was granted when the queue is full.
        #[serde(default)]
        overflow: Overflow,
        /// Events the queue holds.
        #[serde(default)]
        queue: u32,
    },
    /// Events of a broker up to here have been delivered or lie before the subscription.
    At {
        /// Whose broker; `None` is the one that speaks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        broker: Option<Addr>,
        /// The place.
        at: Position,
    },
    /// Where the next event comes from.
    From(Source),
    /// So many events were dropped before the next one: this subscriber was too slow, or the history did not go back
    /// far enough.
    Lost {
        /// How many.
        events: u64,
        /// There may have been more.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        at_least: bool,
        /// They are missing in the answer to this question.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<u64>,
    },
    /// All events of the past that were asked for have been delivered.
    Replayed {
        /// Which question this answers; `None` is the subscription itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<u64>,
        /// The broker's events up to here are covered; later ones come as they happen.
        at: Position,
    },
    /// This subscriber did not read for too long while publishers waited for it: from now on its oldest events are
    /// dropped when its queue is full.
    Demoted,
    /// The subscription, or a publication on this connection, is not allowed here.
    Refused {
        /// Why.
        reason: String,
    },
}

impl Note {
    /// The payload of the event that carries it.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        // Serialising these types into memory cannot fail.
        Bytes::from(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Where an event comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// The node that published it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publisher: Option<Addr>,
    /// That node's name, as the speaking broker knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The node whose broker passed it on, if not this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Addr>,
    /// When the first broker took it, or where that does not say, when it came here: Unix time in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
    /// Its place among the events of the broker it was published at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Position>,
    /// It comes out of the history.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
    /// It answers this question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::super::Past;
    use super::*;

    #[test]
    fn notes_reach_only_who_asked_for_them() {
        let token = NoteToken::from_random([7; 16]);
        let asked = NoteToken::asked(&token.subscription("t").unwrap().payload);
        assert_eq!(asked, Some((token.clone(), Wishes::default())));
        let note = Note::Subscribed { brokers: 2, overflow: Overflow::Block, queue: 7 };
        let event = token.note(&note);
        assert_eq!(token.read(&event), Some(note));
        assert_eq!(NoteToken::from_random([8; 16]).read(&event), None);
        for other in [&b""[..], b"hello", b"pilot.notes:", b"pilot.notes:short", b"pilot.notes:white space!"]
        {
            assert_eq!(NoteToken::asked(other), None);
        }
    }

    #[test]
    fn wishes_are_read_as_they_were_written_and_unknown_ones_are_left_out() {
        let token = NoteToken::from_random([7; 16]);
        let wishes = Wishes {
            overflow: Overflow::Block,
            queue: Some(10),
            replay: 3,
            resume: vec![super::super::Reached { broker: None, at: Position { epoch: 1, seq: 2 } }],
            pattern: Some("a.*".into()),
        };
        let payload = token.subscription_with("t", &wishes).unwrap().payload;
        assert_eq!(NoteToken::asked(&payload), Some((token, wishes)));
        let later = br#"pilot.notes:abcdefgh {"overflow":"drop-newest","colour":"red"}"#;
        assert_eq!(NoteToken::asked(later).unwrap().1.overflow, Overflow::DropNewest);
        let garbage = b"pilot.notes:abcdefgh {{{";
        assert_eq!(NoteToken::asked(garbage).unwrap().1, Wishes::default());
    }

    #[test]
    fn a_question_is_read_only_with_its_token() {
        let token = NoteToken::from_random([7; 16]);
        let ask = Ask { id: 4, past: Past::Last(9), pattern: "a.*".into() };
        let event = token.ask(&ask);
        assert_eq!(token.read_ask(&event), Some(ask));
        assert_eq!(NoteToken::from_random([8; 16]).read_ask(&event), None);
        assert_eq!(token.read(&event), None);
    }
}
