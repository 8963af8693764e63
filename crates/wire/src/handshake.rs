//! Handshake, port 444: two owners agree to trust each other's nodes.
//!
//! One JSON object per stream, in one direction, unanswered (spec local.md 2.2). The signature covers only the
//! two node numbers; whoever accepts a message must check its time, its key and that it came over the
//! tunnel of the node it names.

use serde::{Deserialize, Serialize};

use crate::{NodeId, PublicKey, Signature};

/// Longest message a receiver reads, in bytes.
pub const MAX_LEN: usize = 64 << 10;

/// What a handshake message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Asks to be trusted.
    #[serde(rename = "handshake_request")]
    Request,
    /// Grants what was asked.
    #[serde(rename = "handshake_accept")]
    Accept,
    /// Declines it.
    #[serde(rename = "handshake_reject")]
    Reject,
    /// Takes trust back.
    #[serde(rename = "handshake_revoke")]
    Revoke,
}

/// One message; the fields in the order they have on the wire, none left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What it does.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The sender.
    pub node_id: NodeId,
    /// The sender's identity key.
    pub public_key: PublicKey,
    /// Why trust is wanted, for the people who decide (requests only).
    #[serde(default)]
    pub justification: String,
    /// Ed25519 over [`signed_text`].
    pub signature: Signature,
    /// Why it was declined (rejections only).
    #[serde(default)]
    pub reason: String,
    /// When it was made: seconds since 1970, sender's clock.
    pub timestamp: i64,
}

impl Message {
    /// Reads one message from exactly these bytes (white space around it allowed).
    ///
    /// # Errors
    /// When it is over [`MAX_LEN`] or not such an object.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MAX_LEN {
            return Err(MessageError::TooLong);
        }
        serde_json::from_slice(bytes).map_err(|error| MessageError::Json(error.to_string()))
    }

    /// Whether a stream that has carried these bytes has carried a whole JSON value, valid or not.
    ///
    /// The sender keeps its stream open after the message, so its end is not announced by end of stream.
    #[must_use]
    pub fn is_complete(bytes: &[u8]) -> bool {
        let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<serde::de::IgnoredAny>();
        match values.next() {
            None => false,
            Some(Ok(_)) => true,
            Some(Err(error)) => !error.is_eof(),
        }
    }

    /// Appends the message as it goes onto the stream: in one write, or receivers of early 2026 miss the rest.
    pub fn emit(&self, out: &mut Vec<u8>) {
        // Serialising these types into memory cannot fail.
        out.extend_from_slice(&serde_json::to_vec(self).unwrap_or_default());
    }
}

/// What the signature of a message from `sender` to `receiver` covers, of whatever kind.
#[must_use]
pub fn signed_text(sender: NodeId, receiver: NodeId) -> String {
    format!("handshake:{}:{}", sender.0, receiver.0)
}

/// Bytes that are no handshake message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Over [`MAX_LEN`].
    #[error("a handshake message has at most {MAX_LEN} bytes")]
    TooLong,
    /// Not the JSON object it should be.
    #[error("not a handshake message: {0}")]
    Json(String),
}
