//! What an application is told when it cannot have what it asked for.

use std::time::Duration;

use pilot_wire::{NodeId, Port};

use crate::node::Silence;

/// Why a stream to a peer did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// This node has no number yet: the registry has not been reached since the first start.
    #[error("this node is not registered yet")]
    NotRegistered,
    /// The registry does not know the node.
    #[error("node {0} is not known to the registry")]
    UnknownNode(NodeId),
    /// The node is private and has not agreed to talk to us.
    #[error("node {0} is private and does not trust this node yet")]
    NotTrusted(NodeId),
    /// The registry could not be asked, and nothing is remembered of the node.
    #[error("cannot find node {node}: the registry does not answer ({reason})")]
    NoRegistry {
        /// The node looked for.
        node: NodeId,
        /// What went wrong with the registry.
        reason: String,
    },
    /// No sign of life over any path.
    #[error("no answer from node {node} in {} ms: {silence}", waited.as_millis())]
    Unreachable {
        /// The node dialled.
        node: NodeId,
        /// How long was waited.
        waited: Duration,
        /// What is known about it.
        silence: Box<Silence>,
    },
    /// The node lives, but let the dial pass without an answer.
    #[error("node {node} is alive but does not answer on port {port}: it may not trust this node")]
    Unanswered {
        /// The node dialled.
        node: NodeId,
        /// The port dialled.
        port: Port,
    },
    /// The key the node shows is not the one that was pinned when it was trusted.
    #[error("node {0} shows another key than the one it was trusted with")]
    KeyChanged(NodeId),
    /// All ephemeral ports towards the peer are in use.
    #[error("too many streams are open")]
    NoPorts,
}

/// Why a port cannot be listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("port {0} already bound")]
pub struct PortInUse(pub Port);

/// Why a datagram was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// This node has no number yet.
    #[error("this node is not registered yet")]
    NotRegistered,
    /// More than fits into a packet.
    #[error("payload too large: {0} bytes (max 65535)")]
    TooLarge(usize),
    /// The peer's key is being agreed and enough is waiting for it.
    #[error("too many datagrams wait for a tunnel to node {0}")]
    QueueFull(NodeId),
}
