//! Requests for trust, and what waits for a node.

use crate::registry::{Sent, lenient};
use crate::{NodeId, Signature};
use serde::{Deserialize, Serialize};

/// A request about the trust between two nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pair {
    /// Who speaks.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// About whom.
    #[serde(deserialize_with = "lenient::node")]
    pub peer_id: NodeId,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// A request for trust, to be left in the inbox of the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Handshake {
    /// Who asks.
    #[serde(deserialize_with = "lenient::node")]
    pub from_node_id: NodeId,
    /// Whom.
    #[serde(deserialize_with = "lenient::node")]
    pub to_node_id: NodeId,
    /// Why; for people to read.
    #[serde(deserialize_with = "lenient::text")]
    pub justification: String,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// The answer to a request for trust.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandshakeAnswer {
    /// Who answers.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// Who had asked.
    #[serde(deserialize_with = "lenient::node")]
    pub peer_id: NodeId,
    /// Yes or no. The signature does not cover it.
    #[serde(deserialize_with = "lenient::flag")]
    pub accept: bool,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// "Tell me when something waits."
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AwaitNotices {
    /// The node.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// How long to wait at most, in milliseconds; the registry may answer earlier.
    #[serde(deserialize_with = "lenient::number")]
    pub timeout_ms: u32,
    /// Wants to hear of more than the inbox, and what it is about ([`Notices`](crate::registry::Notices)). Daemons of ours before
    /// this existed take every notice for one about the inbox.
    #[serde(deserialize_with = "lenient::flag", skip_serializing_if = "std::ops::Not::not")]
    pub detailed: bool,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// Both addresses, for hole punching.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Punch {
    /// One of the two.
    #[serde(deserialize_with = "lenient::node")]
    pub requester_id: NodeId,
    /// One side.
    #[serde(deserialize_with = "lenient::node")]
    pub node_a: NodeId,
    /// The other side.
    #[serde(deserialize_with = "lenient::node")]
    pub node_b: NodeId,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}
