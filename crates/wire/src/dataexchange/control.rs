//! What our nodes tell each other about messages, in a frame type of their own.
//!
//! A receiver of release 1.18.0 answers it with `ERR UNKNOWN(80)` and stores nothing: that is how a sender learns that
//! it must not expect receipts there. One of ours answers as to a TEXT frame. Payload: `u32 header length | header JSON | body`.

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use super::decoder::emit_with;
use super::{FrameType, MessageId};
use crate::NodeId;

/// Longest header, in bytes: a few hundred receipts with the longest ids. A frame may be a thousand times as long, and a peer
/// must not make of it as many values in memory.
pub const CONTROL_HEADER_MAX: usize = 64 << 10;

/// One such word. The body of those that have none is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Control {
    /// What became of messages of the node that hears this.
    Receipts {
        /// As many as [`CONTROL_HEADER_MAX`] has room for: at least 350.
        receipts: Vec<Receipt>,
    },
    /// The requester no longer waits for the answer.
    Cancel {
        /// The request.
        id: MessageId,
    },
    /// The nodes that keep messages for the speaker while it is away; all of them, so that none means none.
    Mailboxes {
        /// Which.
        nodes: Vec<NodeId>,
    },
    /// Does the hearer keep messages for the speaker? Asked by whoever wants to use it so, and again each time the speaker
    /// is back: what has been kept may come now.
    Keeps,
    /// The body is a sealed message for somebody else: keep it until they come.
    Deposit {
        /// For whom.
        to: NodeId,
        /// The sender's name of the message.
        id: MessageId,
        /// For how long it is of use, in milliseconds.
        ttl_ms: u64,
    },
    /// The body is a sealed message that a mailbox kept for the hearer.
    Forward {
        /// Who left it there, as the mailbox knows it; the seal proves it.
        from: NodeId,
        /// The sender's name of the message.
        id: MessageId,
    },
    /// About files, on the connection that carries them.
    Transfer {
        /// What.
        word: TransferWord,
    },
}

/// How the answer to [`Control::Forward`] begins when the mailbox need not bring the message again.
pub const NOT_WANTED: &str = "not wanted: ";

/// What our nodes say about files besides the steps of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferWord {
    /// A folder is to come; the body is its [`Manifest`](super::Manifest) as JSON. The files follow on the same connection,
    /// each content once, as file transfers named by their hash. Answered by `Held`, or an error.
    Folder {
        /// The name the sender gives it; it comes from a stranger.
        name: String,
    },
    /// Answers `Folder`; the body says which contents the speaker has from an earlier try: [`Held`](super::Held).
    Held,
    /// All files of the folder are sent: put it in its place.
    Done,
    /// A file is to come. Whoever takes this in has no need for the window of release 1.18.0:
    /// [`WIDE_WINDOW_CHUNKS`](super::WIDE_WINDOW_CHUNKS) is what the sender may have unacknowledged.
    WideWindow,
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The sender's name of it.
    pub id: MessageId,
    /// How far it came.
    pub state: ReceiptState,
}

/// How far a message came at its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptState {
    /// It is in the inbox.
    Stored,
    /// A program has taken it from there.
    Read,
}

impl Control {
    /// Gives the payload of a control frame its meaning, and what follows the header.
    ///
    /// # Errors
    /// [`ControlError`]; the receiver answers with its text.
    pub fn parse(mut payload: Bytes) -> Result<(Self, Bytes), ControlError> {
        let length = payload.try_get_u32().map_err(|_| ControlError::TooShort)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > CONTROL_HEADER_MAX {
            return Err(ControlError::TooLong(length));
        }
        if payload.len() < length {
            return Err(ControlError::TooShort);
        }
        let header = payload.split_to(length);
        let control =
            serde_json::from_slice(&header).map_err(|error| ControlError::Header(error.to_string()))?;
        Ok((control, payload))
    }

    /// Appends the frame.
    pub fn emit(&self, body: &[u8], out: &mut Vec<u8>) {
        let header = serde_json::to_vec(self).unwrap_or_default();
        let length = u32::try_from(header.len()).unwrap_or(u32::MAX).to_be_bytes();
        emit_with(FrameType::CONTROL, &[&length, &header, body], out);
    }
}

/// A control frame that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It ends before its header does.
    #[error("control payload too short")]
    TooShort,
    /// The header is longer than [`CONTROL_HEADER_MAX`].
    #[error("control header of {0} bytes, over {CONTROL_HEADER_MAX}")]
    TooLong(usize),
    /// The header is not one that this release knows.
    #[error("control header: {0}")]
    Header(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(control: &Control, body: &[u8]) -> Bytes {
        let mut frame = Vec::new();
        control.emit(body, &mut frame);
        Bytes::from(frame).slice(super::super::HEADER_LEN..)
    }

    #[test]
    fn what_is_written_is_read() {
        let control = Control::Receipts {
            receipts: vec![Receipt { id: "m-1".parse().unwrap(), state: ReceiptState::Read }],
        };
        assert_eq!(Control::parse(payload(&control, b"")), Ok((control, Bytes::new())));
        let deposit = Control::Deposit { to: NodeId(7), id: "m-2".parse().unwrap(), ttl_ms: 9 };
        assert_eq!(
            Control::parse(payload(&deposit, b"sealed")),
            Ok((deposit, Bytes::from_static(b"sealed")))
        );
    }

    #[test]
    fn a_header_without_end_is_refused_unread() {
        let receipts = |count| Control::Receipts {
            receipts: vec![
                Receipt {
                    id: "x".repeat(MessageId::MAX_LEN).parse().unwrap(),
                    state: ReceiptState::Stored
                };
                count
            ],
        };
        assert!(Control::parse(payload(&receipts(350), b"")).is_ok());
        let long = Control::parse(payload(&receipts(500), b"")).unwrap_err();
        assert!(matches!(long, ControlError::TooLong(_)), "{long}");
        assert!(matches!(
            Control::parse(Bytes::from_static(b"\xFF\xFF\xFF\xFF")),
            Err(ControlError::TooLong(_))
        ));
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = payload(&Control::Cancel { id: "m-1".parse().unwrap() }, b"");
        for length in 0..whole.len() {
            assert!(Control::parse(whole.slice(..length)).is_err(), "{length}");
        }
    }
}
