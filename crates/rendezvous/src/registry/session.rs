//! Connections, and who has proven to be behind them.
//!
//! Lookups carry no signature, but the connections they come on do carry signed requests of the same node. What a
//! connection may see is decided by the nodes that have proven themselves on it (spec/registry.md 23 P2).

use pilot_wire::NodeId;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// A connection to the registry, numbered by whoever accepts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// Nodes remembered per connection. A daemon is one; tools and tests speak for a few.
const PROVEN_MAX: usize = 16;
/// Nodes remembered per address, and addresses. Oldest are forgotten first.
const PROVEN_PER_IP_MAX: usize = 64;
const IPS_MAX: usize = 16_384;
/// How long a proof speaks for other connections from the same address.
const IP_PROOF_LIFETIME: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: SocketAddr,
    pub(super) proven: BTreeSet<NodeId>,
    /// Nodes whose inbox was last handed out on this connection; the next request on it shows that it arrived.
    pub(super) handed_out: BTreeSet<NodeId>,
    /// What a request for notices waits for.
    pub(super) waiting: Option<(NodeId, Instant)>,
}

impl Session {
    pub(super) fn new(peer: SocketAddr) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Self { peer, proven: BTreeSet::new(), handed_out: BTreeSet::new(), waiting: None }
    }

    pub(super) fn prove(&mut self, node: NodeId) {
        if self.proven.len() < PROVEN_MAX {
            self.proven.insert(node);
        }
    }
}

/// Who has lately proven an identity from which address.
///
/// 1.18.0 spreads its requests over four connections, and the first on each may be an unsigned one. A connection on
/// which nothing was proven yet is judged by its address.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    proofs: BTreeMap<IpAddr, VecDeque<(NodeId, Instant)>>,
}

impl Addresses {
    pub(super) fn prove(&mut self, now: Instant, ip: IpAddr, node: NodeId) {
        if self.proofs.len() >= IPS_MAX && !self.proofs.contains_key(&ip) {
            self.proofs.retain(|_, nodes| nodes.back().is_some_and(|(_, at)| is_fresh(now, *at)));
            if self.proofs.len() >= IPS_MAX {
                return;
            }
        }
        let nodes = self.proofs.entry(ip).or_default();
        nodes.retain(|(other, at)| *other != node && is_fresh(now, *at));
        if nodes.len() >= PROVEN_PER_IP_MAX {
            nodes.pop_front();
        }
        nodes.push_back((node, now));
    }

    pub(super) fn proven(&self, now: Instant, ip: IpAddr) -> impl Iterator<Item = NodeId> {
        let nodes = self.proofs.get(&ip).into_iter().flatten();
        nodes.filter(move |(_, at)| is_fresh(now, *at)).map(|(node, _)| *node)
    }
}

fn is_fresh(now: Instant, at: Instant) -> bool {
    now.saturating_duration_since(at) < IP_PROOF_LIFETIME
}
