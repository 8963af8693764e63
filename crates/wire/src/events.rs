//! Event stream, port 1002: topics and payloads, one frame each, nothing acknowledged.
//!
//! `u16 topic length | topic | u32 payload length | payload`. The first event on a connection says what to
//! receive, every later one is published (spec local.md 2.6). On the wire a subscription is a literal topic
//! or `*`; [`Pattern`] is the richer form that a daemon and its own applications use between themselves.

mod note;
mod pattern;
mod wishes;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub use note::{Note, NoteToken, Source};
pub use pattern::Pattern;
pub use wishes::{Ask, Overflow, Past, Position, REPLAY_MAX, RESUME_MAX, Reached, Wishes};

/// Longest topic in bytes; brokers close the connection of a longer one.
pub const MAX_TOPIC: usize = 1024;

/// Longest payload in bytes; brokers close the connection of a longer one.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// The subscription to everything.
pub const EVERYTHING: &str = "*";

/// Topics that begin so are never delivered to others: `\0pilot.governed.v1` belongs to release 1.18.0,
/// the rest to [`Note`]s between a broker and one subscriber.
pub const RESERVED_PREFIX: &str = "\0pilot.";

/// What a connection subscribes to that only publishes: nothing.
pub const NOTHING: &str = "\0pilot.nothing";

/// One event, or (first on a connection) a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub topic: String,
    /// What is said.
    pub payload: Bytes,
}

impl Event {
    /// An event ready to be written.
    ///
    /// # Errors
    /// When topic or payload are over the limits that brokers enforce.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>) -> Result<Self, EventError> {
        let (topic, payload) = (topic.into(), payload.into());
        check_topic(topic.len())?;
        check_payload(payload.len())?;
        Ok(Self { topic, payload })
    }

    /// The first event of a connection: what to receive.
    ///
    /// # Errors
    /// When the topic is too long.
    pub fn subscription(topic: impl Into<String>) -> Result<Self, EventError> {
        Self::new(topic, Bytes::new())
    }

    /// Length of the frame in bytes.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        2 + self.topic.len() + 4 + self.payload.len()
    }

    /// Appends the frame.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.reserve(self.wire_len());
        out.put_u16(u16::try_from(self.topic.len()).unwrap_or(u16::MAX));
        out.put_slice(self.topic.as_bytes());
        out.put_u32(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
        out.put_slice(&self.payload);
    }
}

fn check_topic(length: usize) -> Result<(), EventError> {
    if length > MAX_TOPIC { Err(EventError::TopicTooLong(length)) } else { Ok(()) }
}

fn check_payload(length: usize) -> Result<(), EventError> {
    if length > MAX_PAYLOAD { Err(EventError::PayloadTooLong(length)) } else { Ok(()) }
}

/// Bytes that are no event. On a connection: close it, it cannot be resynchronised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Topic over [`MAX_TOPIC`].
    #[error("a topic of {0} bytes is over the limit of {MAX_TOPIC}")]
    TopicTooLong(usize),
    /// Payload over [`MAX_PAYLOAD`].
    #[error("an event of {0} bytes is over the limit of {MAX_PAYLOAD}: send a message or a file instead")]
    PayloadTooLong(usize),
    /// Topic that is not UTF-8.
    #[error("the topic is not UTF-8")]
    TopicNotText,
}

/// Collects bytes in any segmentation and gives out whole events; memory follows what really arrived.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// An empty decoder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer behind the decoder, for a reader that can append to it without a copy in between.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The payload length the event at the front announces, once that is here.
    #[must_use]
    pub fn announced(&self) -> Option<usize> {
        let mut head = &self.buffer[..];
        let topic_len = usize::from(head.try_get_u16().ok()?);
        head = head.get(topic_len..)?;
        head.try_get_u32().ok().and_then(|length| usize::try_from(length).ok())
    }

    /// The next whole event, or `None` until more bytes are fed.
    ///
    /// # Errors
    /// When a length is over its limit, as soon as it is here, or the topic is not UTF-8.
    pub fn next_event(&mut self) -> Result<Option<Event>, EventError> {
        let mut head = &self.buffer[..];
        let Ok(topic_len) = head.try_get_u16().map(usize::from) else {
            return Ok(None);
        };
        check_topic(topic_len)?;
        if head.len() < topic_len + 4 {
            return Ok(None);
        }
        head.advance(topic_len);
        let payload_len = usize::try_from(head.get_u32()).unwrap_or(usize::MAX);
        check_payload(payload_len)?;
        if head.len() < payload_len {
            return Ok(None);
        }
        self.buffer.advance(2);
        let topic = String::from_utf8(self.buffer.split_to(topic_len).to_vec())
            .map_err(|_| EventError::TopicNotText)?;
        self.buffer.advance(4);
        let payload = self.buffer.split_to(payload_len).freeze();
        Ok(Some(Event { topic, payload }))
    }

    /// Whether no byte of an unfinished event is held: the stream may end here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Option<Event>, EventError> {
        let mut decoder = Decoder::new();
        decoder.feed(bytes);
        decoder.next_event()
    }

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let wire = b"\x00\x04news\x00\x00\x00\x05hello";
        let event = Event::new("news", &b"hello"[..]).unwrap();
        assert_eq!(decode(wire), Ok(Some(event.clone())));
        let mut out = Vec::new();
        event.emit(&mut out);
        assert_eq!(out, wire);
        assert_eq!(event.wire_len(), wire.len());
        for cut in 0..wire.len() {
            assert_eq!(decode(&wire[..cut]), Ok(None), "at {cut}");
        }
    }

    #[test]
    fn lengths_over_the_limit_are_refused_at_once() {
        assert_eq!(decode(&[0x04, 0x01]), Err(EventError::TopicTooLong(1025)));
        assert_eq!(decode(&[0, 1, b't', 0x01, 0, 0, 1]), Err(EventError::PayloadTooLong(MAX_PAYLOAD + 1)));
        assert_eq!(decode(&[0, 1, b't', 0x01, 0, 0, 0]), Ok(None));
        assert!(Event::new("t".repeat(1025), Bytes::new()).is_err());
    }

    #[test]
    fn a_topic_that_is_not_text_is_refused() {
        assert_eq!(decode(&[0, 1, 0xFF, 0, 0, 0, 0]), Err(EventError::TopicNotText));
    }
}
