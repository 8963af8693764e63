//! How a node reaches its beacon over the web when datagrams do not pass (spec/dataplane.md 2.10): a WebSocket on which
//! it proves who it is, and then one [beacon message](crate::beacon) in each binary message.

use serde::{Deserialize, Serialize};

use crate::{NodeId, PublicKey, Signature};

/// The path of the URL; there is no other.
pub const PATH: &str = "/v1/compat";

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "pilot.v1";

/// Longest message, in both directions.
pub const MESSAGE_MAX: usize = 64 << 10;

/// Longest text message. There are three kinds, of which the longest has about 250 bytes.
pub const TEXT_MAX: usize = 2048;

/// How far the time of a challenge may lie back when the answer to it comes, in seconds.
pub const CHALLENGE_LIFE: u64 = 30;

/// The text messages at the start of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Greeting {
    /// Beacon: "sign this".
    AuthChallenge {
        /// 32 bytes in hexadecimal digits, never the same twice.
        nonce: String,
        /// The beacon's time, in seconds since 1970.
        ts: u64,
    },
    /// Node: its signature over [`signed_text`].
    AuthReply {
        /// Who it is.
        node_id: NodeId,
        /// Its key, which must be the one that the registry has for it.
        public_key: PublicKey,
        /// By that key.
        sig: Signature,
    },
    /// Beacon: "you are".
    AuthOk {},
}

/// Text that is no greeting.
#[derive(Debug, thiserror::Error)]
#[error("not a greeting: {0}")]
pub struct GreetingError(#[from] serde_json::Error);

impl Greeting {
    /// Parses the text of a message. Fields that are not known are ignored.
    pub fn parse(text: &str) -> Result<Self, GreetingError> {
        Ok(serde_json::from_str(text)?)
    }

    /// The text of the message.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

/// What a node signs to prove who it is.
#[must_use]
pub fn signed_text(node: NodeId, ts: u64, nonce: &str) -> String {
    format!("compat_auth:{node}:{ts}:{nonce}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_have_the_form_of_the_release() {
        let nonce = "ab".repeat(32);
        let key = PublicKey::from_bytes([1; 32]);
        let sig = Signature::from_bytes([2; 64]);
        for (greeting, text) in [
            (
                Greeting::AuthChallenge { nonce: nonce.clone(), ts: 1_770_000_000 },
                format!(r#"{{"type":"auth_challenge","nonce":"{nonce}","ts":1770000000}}"#),
            ),
            (
                Greeting::AuthReply { node_id: NodeId(7), public_key: key, sig },
                format!(r#"{{"type":"auth_reply","node_id":7,"public_key":"{key}","sig":"{sig}"}}"#),
            ),
            (Greeting::AuthOk {}, r#"{"type":"auth_ok"}"#.to_owned()),
        ] {
            assert_eq!(Greeting::parse(&text).unwrap(), greeting, "{text}");
            assert_eq!(Greeting::parse(&greeting.to_text()).unwrap(), greeting);
            assert!(text.len() < TEXT_MAX);
        }
        assert!(Greeting::parse(r#"{"type":"auth_ok","more":1}"#).is_ok());
        assert!(Greeting::parse(r#"{"type":"auth_reply","node_id":7,"public_key":"","sig":""}"#).is_err());
    }
}
