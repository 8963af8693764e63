//! The registry as the nodes of a world see it: who has which key, who is where, who trusts whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Instant,
};

use pilot_proto::{Answer, Location, Query, QueryError};
use pilot_wire::{NodeId, PublicKey};

/// What a registry knows.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    entries: BTreeMap<NodeId, Entry>,
    /// Consents: (who, to whom).
    consents: BTreeSet<(NodeId, NodeId)>,
    /// While it is out of reach every question fails.
    pub(crate) unreachable: bool,
}

#[derive(Debug)]
struct Entry {
    key: PublicKey,
    at: Option<SocketAddr>,
    /// Addresses in its own network.
    lan: Vec<SocketAddr>,
    /// It asks to be reached through the beacon only.
    relay_only: bool,
    /// When it last told where it is.
    told: Instant,
    public: bool,
}

/// What the registry does beyond answering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Carried {
    Request { from: NodeId, to: NodeId, justification: String },
    Verdict { from: NodeId, to: NodeId, accept: bool },
}

impl Directory {
    pub(crate) fn register(
        &mut self,
        now: Instant,
        node: NodeId,
        key: PublicKey,
        at: Option<SocketAddr>,
        public: bool,
    ) {
        self.entries.insert(node, Entry { key, at, lan: Vec::new(), relay_only: false, told: now, public });
    }

    /// The node tells where it is, as seen from outside and in its own network.
    pub(crate) fn moved(
        &mut self,
        now: Instant,
        node: NodeId,
        at: Option<SocketAddr>,
        lan: Vec<SocketAddr>,
        relay_only: bool,
    ) {
        if let Some(entry) = self.entries.get_mut(&node) {
            (entry.at, entry.lan, entry.relay_only, entry.told) = (at, lan, relay_only, now);
        }
    }

    /// It has lost where nodes are.
    pub(crate) fn forget_places(&mut self) {
        for entry in self.entries.values_mut() {
            (entry.at, entry.lan, entry.relay_only) = (None, Vec::new(), false);
        }
    }

    pub(crate) fn answer(&mut self, now: Instant, asker: NodeId, query: Query) -> (Answer, Option<Carried>) {
        if self.unreachable {
            return (refuse(&query), None);
        }
        match query {
            Query::Resolve(node) => (Answer::Resolved(self.locate(now, asker, node)), None),
            Query::PeerKey(node) => (
                Answer::PeerKey(self.entries.get(&node).map(|entry| entry.key).ok_or(QueryError::NotFound)),
                None,
            ),
            Query::CheckTrust(node) => (Answer::Trusted(Ok(self.is_mutual(asker, node))), None),
            Query::RequestHandshake { to, justification } => {
                self.consents.insert((asker, to));
                (Answer::Done(Ok(())), Some(Carried::Request { from: asker, to, justification }))
            }
            Query::RespondHandshake { to, accept } => {
                if accept {
                    self.consents.insert((asker, to));
                }
                (Answer::Done(Ok(())), Some(Carried::Verdict { from: asker, to, accept }))
            }
            Query::ReportTrust(node) => {
                self.consents.insert((asker, node));
                (Answer::Done(Ok(())), None)
            }
            Query::RevokeTrust(node) => {
                self.consents.remove(&(asker, node));
                self.consents.remove(&(node, asker));
                (Answer::Done(Ok(())), None)
            }
        }
    }

    fn locate(&self, now: Instant, asker: NodeId, node: NodeId) -> Result<Location, QueryError> {
        let entry = self.entries.get(&node).ok_or(QueryError::NotFound)?;
        if !entry.public && !self.is_mutual(asker, node) {
            return Err(QueryError::Denied);
        }
        let seen = now.saturating_duration_since(entry.told);
        // As the real one does: who is reached through the beacon only has its inside addresses kept back.
        let lan = if entry.relay_only { Vec::new() } else { entry.lan.clone() };
        let relay_only = entry.relay_only;
        Ok(Location { public: entry.at, lan, relay_only, seen: Some(seen), ..Location::default() })
    }

    pub(crate) fn is_mutual(&self, a: NodeId, b: NodeId) -> bool {
        self.consents.contains(&(a, b)) && self.consents.contains(&(b, a))
    }
}

fn refuse(query: &Query) -> Answer {
    let error = QueryError::Unreachable("the simulated registry is down".into());
    match query {
        Query::Resolve(_) => Answer::Resolved(Err(error)),
        Query::PeerKey(_) => Answer::PeerKey(Err(error)),
        Query::CheckTrust(_) => Answer::Trusted(Err(error)),
        Query::RequestHandshake { .. }
        | Query::RespondHandshake { .. }
        | Query::ReportTrust(_)
        | Query::RevokeTrust(_) => Answer::Done(Err(error)),
    }
}
