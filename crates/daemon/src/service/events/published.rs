//! An event on its way to many subscribers: one copy, however many they are.

use bytes::Bytes;
use pilot_wire::NodeId;
use pilot_wire::events::{Event, Note, NoteToken, Position, Source};

use super::hub::SubscriberId;

/// An event and where it came from.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) topic: String,
    /// The event as it is written.
    pub(super) frame: Bytes,
    pub(super) source: Source,
    /// The connection it was published on, if at this broker.
    pub(super) origin: Option<SubscriberId>,
    /// The node whose broker it was published at, if not this one.
    pub(super) broker: Option<NodeId>,
    /// The payload of the note that says where it comes from.
    note: Bytes,
}

/// Why an event is delivered to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It just happened.
    Live,
    /// Out of a history.
    Replayed,
    /// The same, as the answer to a question.
    Answer(u64),
}

impl Published {
    pub(super) fn new(
        event: &Event,
        source: Source,
        origin: Option<SubscriberId>,
        broker: Option<NodeId>,
    ) -> Self {
        let mut frame = Vec::new();
        event.emit(&mut frame);
        let note = Note::From(source.clone()).to_bytes();
        Self { topic: event.topic.clone(), frame: Bytes::from(frame), source, origin, broker, note }
    }

    pub(super) fn at(&self) -> Option<Position> {
        self.source.at
    }

    /// Appends the note that goes before the event.
    pub(super) fn emit_note(&self, token: &NoteToken, how: How, out: &mut Vec<u8>) {
        let payload = match how {
            How::Live => self.note.clone(),
            How::Replayed => Note::From(Source { replayed: true, ..self.source.clone() }).to_bytes(),
            How::Answer(id) => {
                Note::From(Source { replayed: true, answer: Some(id), ..self.source.clone() }).to_bytes()
            }
        };
        Event { topic: token.topic(), payload }.emit(out);
    }
}
