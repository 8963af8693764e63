//! Nodes that keep messages for this one while it is away, and nodes this one keeps messages for.
//!
//! [`Request`] and [`Reply`] travel as JSON over the local socket. What is kept is sealed: a mailbox sees who leaves how
//! much for whom, and nothing of what it says.

use serde::{Deserialize, Serialize};

use crate::{Addr, NodeId};

/// Mailboxes that one node may have.
pub const MINE_MAX: usize = 3;

/// Nodes that one node keeps messages for at most.
pub const ALLOWED_MAX: usize = 256;

/// Bytes kept for one node, unless its allowance says otherwise.
pub const BYTES_PER_OWNER: u64 = 64 << 20;

/// Messages kept for one node, unless its allowance says otherwise.
pub const MESSAGES_PER_OWNER: u32 = 1_000;

/// Bytes kept for all nodes together; no allowance goes beyond.
pub const BYTES_TOTAL: u64 = 512 << 20;

/// Messages kept for all nodes together; no allowance goes beyond.
pub const MESSAGES_TOTAL: u32 = 16_384;

/// Longest time that a message is kept, in milliseconds: 30 days.
pub const TTL_MAX_MS: u64 = 30 * 24 * 3600 * 1000;

/// A question or order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// What there is. Answered with [`Reply::State`].
    Show,
    /// Have this node keep our messages, if it agrees now; trusted peers are told. Answered with [`Reply::State`].
    Use {
        /// Which.
        node: NodeId,
    },
    /// Have it keep them no more; trusted peers are told. Answered with [`Reply::State`].
    Stop {
        /// Which.
        node: NodeId,
    },
    /// Keep messages for this node. Answered with [`Reply::State`].
    Allow {
        /// Whom.
        node: NodeId,
        /// Bytes at most; [`BYTES_PER_OWNER`] when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_bytes: Option<u64>,
        /// Messages at most; [`MESSAGES_PER_OWNER`] when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_messages: Option<u32>,
    },
    /// Take no more messages for this node. Answered with [`Reply::State`].
    Deny {
        /// Whom.
        node: NodeId,
        /// Throw away what is kept for it, instead of keeping that until it is fetched or its time is over.
        #[serde(default)]
        discard: bool,
    },
}

/// The answer to a [`Request`]; failures come as [`Failure`](crate::ipc::Failure)s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    /// What there is.
    State(Box<State>),
}

/// Mailboxes as this node knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Nodes that keep messages for this one; the first is tried first.
    pub mine: Vec<Mine>,
    /// How many of the trusted peers know of them.
    pub told: u64,
    /// Nodes that this one keeps messages for, or has some of.
    pub kept: Vec<Kept>,
    /// Who keeps messages for peers of this node.
    pub peers: Vec<OfPeer>,
}

/// A node, and its name when known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its number.
    pub node: NodeId,
    /// Its address.
    pub address: Addr,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// A mailbox of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mine {
    /// Which node.
    #[serde(flatten)]
    pub node: Named,
    /// Whether it agreed when it was last asked; absent while it has not answered since the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agrees: Option<bool>,
    /// Why it does not, or why it could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What this node keeps for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// For whom.
    #[serde(flatten)]
    pub owner: Named,
    /// Whether new messages are taken for it.
    pub allowed: bool,
    /// Messages kept now.
    pub messages: u32,
    /// Bytes of these, sealed.
    pub bytes: u64,
    /// Messages at most.
    pub max_messages: u32,
    /// Bytes at most.
    pub max_bytes: u64,
    /// Since when the oldest of them waits, RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
}

/// Who keeps messages for a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfPeer {
    /// The peer.
    #[serde(flatten)]
    pub peer: Named,
    /// Its mailboxes.
    pub mailboxes: Vec<Named>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_read_back() {
        let request = Request::Allow { node: NodeId(2), max_bytes: Some(5), max_messages: None };
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(json, r#"{"op":"allow","node":2,"max_bytes":5}"#);
        assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request);
        let named = Named { node: NodeId(2), address: Addr::backbone(NodeId(2)), hostname: None };
        let reply = Reply::State(Box::new(State {
            mine: vec![Mine { node: named.clone(), agrees: Some(true), reason: None }],
            told: 1,
            kept: Vec::new(),
            peers: vec![OfPeer { peer: named.clone(), mailboxes: vec![named] }],
        }));
        let json = serde_json::to_string(&reply).unwrap();
        assert!(
            json.starts_with(
                r#"{"is":"state","mine":[{"node":2,"address":"0:0000.0000.0002","agrees":true}]"#
            )
        );
        assert_eq!(serde_json::from_str::<Reply>(&json).unwrap(), reply);
    }
}
