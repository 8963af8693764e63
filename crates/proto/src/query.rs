//! Questions a node has for the registry, and the answers.
//!
//! A node never waits: it puts a [`Query`] out, and whoever drives it brings the [`Answer`] back whenever it
//! comes. Each query is answered exactly once.

use std::net::SocketAddr;

use pilot_wire::{NodeId, PublicKey};

/// Names one [`Query`] until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// A question to the registry, or a change to be made there (spec/registry.md 7 and 9).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    /// Where is this node? (`resolve`)
    Resolve(NodeId),
    /// What is this node's identity key? (`lookup`)
    PeerKey(NodeId),
    /// Is this node trusted by us though it is not in our book: a network that we joined, for example? Whoever answers
    /// must not take the registry's word for it. (`check_trust`)
    CheckTrust(NodeId),
    /// Carry a handshake request. (`request_handshake`)
    RequestHandshake {
        /// To whom.
        to: NodeId,
        /// What the other owner reads.
        justification: String,
    },
    /// Carry the answer to a handshake request. (`respond_handshake`)
    RespondHandshake {
        /// Whose request.
        to: NodeId,
        /// Yes or no.
        accept: bool,
    },
    /// Record that we trust this node. (`report_trust`)
    ReportTrust(NodeId),
    /// Record that we no longer do. (`revoke_trust`)
    RevokeTrust(NodeId),
}

/// The answer to a [`Query`], of the variant that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Query::Resolve`].
    Resolved(Result<Location, QueryError>),
    /// To [`Query::PeerKey`].
    PeerKey(Result<PublicKey, QueryError>),
    /// To [`Query::CheckTrust`].
    Trusted(Result<bool, QueryError>),
    /// To the queries that change something.
    Done(Result<(), QueryError>),
}

/// Where a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Location {
    /// Addresses that the peer's signed record names, the likeliest first.
    pub signed: Vec<SocketAddr>,
    /// Addresses in the peer's own network that its signed record names.
    pub signed_lan: Vec<SocketAddr>,
    /// The address the registry has, if it has one.
    pub public: Option<SocketAddr>,
    /// Addresses in the node's own network, as the registry says.
    pub lan: Vec<SocketAddr>,
    /// The node asks to be reached through the beacon only.
    pub relay_only: bool,
    /// How long ago the registry last heard of the node, if it says.
    pub seen: Option<std::time::Duration>,
}

/// Why the registry gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It does not know the node.
    #[error("not found")]
    NotFound,
    /// It will not say, because there is no trust.
    #[error("denied")]
    Denied,
    /// It was asked before and has it already.
    #[error("already done")]
    Already,
    /// It refused, with these words.
    #[error("{0}")]
    Refused(String),
    /// It could not be asked.
    #[error("unreachable: {0}")]
    Unreachable(String),
}
