//! Connections, and who has proven to be behind them.
//!
//! Lookups carry no signature, but the connections they come on do carry signed requests of the same node. What a
//! connection may see is decided by the nodes that have proven themselves on it (spec/registry.md 23 P2). 1.18.0 spreads
//! its requests over four connections, and the first on each may be an unsigned one, also after a restart of the
//! registry; a connection on which nothing was proven yet is judged by the nodes that have registered from its address.

use super::notices::Wait;
use pilot_wire::NodeId;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

/// A connection to the registry, numbered by whoever accepts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// Nodes remembered per connection. A daemon is one; tools and tests speak for a few.
const PROVEN_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: SocketAddr,
    /// The address of ours by which it came.
    pub(super) local: Option<IpAddr>,
    pub(super) proven: BTreeSet<NodeId>,
    /// Nodes whose inbox was last handed out on this connection; the next request on it shows that it arrived.
    pub(super) handed_out: BTreeSet<NodeId>,
    /// What a request for notices waits for.
    pub(super) waiting: Option<Wait>,
    /// The node for which it has asked for notices in detail, and will again.
    pub(super) listens: Option<NodeId>,
}

impl Session {
    pub(super) fn new(peer: SocketAddr, local: Option<IpAddr>) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let local = local.map(|ip| ip.to_canonical());
        Self {
            peer,
            local,
            proven: BTreeSet::new(),
            handed_out: BTreeSet::new(),
            waiting: None,
            listens: None,
        }
    }

    pub(super) fn prove(&mut self, node: NodeId) {
        if self.proven.len() < PROVEN_MAX {
            self.proven.insert(node);
        }
    }
}
