//! What a receiver says to a delivered message or file.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{FrameType, RawFrame};

/// The receiver's word on one delivery. On the wire it is a TEXT frame, or JSON for a traced message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// `ACK <NAME> <n> bytes[ (duplicate)]`: it is stored. Receivers of early 2026 also say so of types they
    /// do not know and drop: see [`Answer::is_unsupported`].
    Stored {
        /// Type of the message.
        kind: FrameType,
        /// Bytes of the message, or of the file without its name.
        bytes: u64,
        /// Whether the same message was stored before.
        duplicate: bool,
    },
    /// `ERR <NAME> save failed: <reason>`: it is not stored.
    Failed {
        /// Type of the message.
        kind: FrameType,
        /// Why, for people.
        reason: String,
    },
    /// Any other `ERR …`.
    Refused(String),
    /// The times of a traced message, around the answer it would have had untraced.
    Timed(Timing),
}

/// Whether a receiver that gives this reason will not store the message later either.
#[must_use]
pub fn is_refused_for_good(reason: &str) -> bool {
    reason.starts_with("refused by policy: ") || reason.starts_with("unsupported frame type")
}

/// When a traced message was where; nanoseconds since 1970, receiver's clock but for `sent_at_ns`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Just before the answer left.
    pub ack_sent_at_ns: u64,
    /// When the message was stored.
    pub inbox_written_at_ns: u64,
    /// The answer's text.
    pub inner_ack: String,
    /// When the frame was complete.
    pub received_at_ns: u64,
    /// The sender's own time, returned.
    pub sent_at_ns: u64,
}

impl Answer {
    /// The text of the answer, as `pilotctl` prints it under `ack`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Stored { kind, bytes, duplicate } => {
                let suffix = if *duplicate { " (duplicate)" } else { "" };
                format!("ACK {kind} {bytes} bytes{suffix}")
            }
            Self::Failed { kind, reason } => format!("ERR {kind} save failed: {reason}"),
            Self::Refused(reason) => format!("ERR {reason}"),
            Self::Timed(timing) => serde_json::to_string(timing).unwrap_or_default(),
        }
    }

    /// Whether the receiver does not know this type: the sender falls back to an older form.
    #[must_use]
    pub fn is_unsupported(&self, of: FrameType) -> bool {
        // A receiver that knows these envelopes answers with the type inside, a control frame with TEXT.
        let is_envelope =
            matches!(of, FrameType::TRACE | FrameType::FILESTREAM | FrameType::TAGGED | FrameType::CONTROL);
        match self {
            Self::Stored { kind, .. } | Self::Failed { kind, .. } => is_envelope && *kind == of,
            Self::Refused(_) | Self::Timed(_) => false,
        }
    }

    /// The answer as a frame.
    #[must_use]
    pub fn to_frame(&self) -> RawFrame {
        let kind = match self {
            Self::Timed(_) => FrameType::JSON,
            Self::Stored { .. } | Self::Failed { .. } | Self::Refused(_) => FrameType::TEXT,
        };
        RawFrame { kind, payload: Bytes::from(self.text()) }
    }

    /// Appends the answer as a frame.
    pub fn emit(&self, out: &mut Vec<u8>) {
        self.to_frame().emit(out);
    }

    /// Reads the frame a receiver answered with.
    ///
    /// # Errors
    /// When it is not an answer.
    pub fn parse(frame: &RawFrame) -> Result<Self, AnswerError> {
        match frame.kind {
            FrameType::TEXT => {
                let text = std::str::from_utf8(&frame.payload).map_err(|_| AnswerError::NotText)?;
                Self::parse_text(text)
            }
            FrameType::JSON => {
                serde_json::from_slice(&frame.payload).map(Self::Timed).map_err(|_| AnswerError::NotText)
            }
            FrameType(_) => Err(AnswerError::Type(frame.kind)),
        }
    }

    /// Reads the text of an answer, as it also lies in [`Timing::inner_ack`].
    ///
    /// # Errors
    /// When it begins neither with `ACK` nor with `ERR`.
    pub fn parse_text(text: &str) -> Result<Self, AnswerError> {
        if let Some(rest) = text.strip_prefix("ERR ") {
            let named = rest.split_once(" save failed: ").and_then(|(name, reason)| {
                FrameType::from_name(name).map(|kind| Self::Failed { kind, reason: reason.to_owned() })
            });
            return Ok(named.unwrap_or_else(|| Self::Refused(rest.to_owned())));
        }
        text.strip_prefix("ACK ")
            .and_then(parse_stored)
            .ok_or_else(|| AnswerError::Text(text.chars().take(80).collect()))
    }
}

fn parse_stored(rest: &str) -> Option<Answer> {
    let (rest, duplicate) = match rest.strip_suffix(" (duplicate)") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let (name, bytes) = rest.strip_suffix(" bytes")?.rsplit_once(' ')?;
    // Only the form that is written: no sign, no leading zeros.
    let number: u64 = bytes.parse().ok()?;
    if number.to_string() != bytes {
        return None;
    }
    Some(Answer::Stored { kind: FrameType::from_name(name)?, bytes: number, duplicate })
}

/// A frame that is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Of a type that answers do not have.
    #[error("the receiver answered with a {0} frame")]
    Type(FrameType),
    /// Neither UTF-8 text nor the JSON of a trace.
    #[error("the receiver's answer is not readable")]
    NotText,
    /// Text that says neither `ACK` nor `ERR`; its beginning.
    #[error("the receiver answered `{0}`")]
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_receiver_is_recognised_by_either_wording() {
        for text in ["ACK UNKNOWN(10) 31 bytes", "ERR UNKNOWN(10) save failed: unsupported frame type 10"] {
            assert!(Answer::parse_text(text).unwrap().is_unsupported(FrameType::TAGGED), "{text}");
        }
        assert!(!Answer::parse_text("ACK TEXT 5 bytes").unwrap().is_unsupported(FrameType::TEXT));
        assert!(
            !Answer::parse_text("ERR TEXT save failed: inbox is full")
                .unwrap()
                .is_unsupported(FrameType::TAGGED)
        );
    }

    #[test]
    fn reasons_may_contain_anything() {
        let answer = Answer::parse_text("ERR FILE save failed: a save failed: b").unwrap();
        assert_eq!(answer, Answer::Failed { kind: FrameType::FILE, reason: "a save failed: b".into() });
        assert_eq!(answer.text(), "ERR FILE save failed: a save failed: b");
    }

    #[test]
    fn other_text_is_not_an_answer() {
        for text in
            ["", "ACK", "ACK TEXT bytes", "ACK TEXT -1 bytes", "ACK TEXT +1 bytes", "OK", "ACK NOPE 1 bytes"]
        {
            assert!(Answer::parse_text(text).is_err(), "{text}");
        }
    }
}
