//! What the registry holds, in numbers, for those who look after it.
//!
//! Totals are known at any moment. What takes a look at every node (versions, labels, who is public, who of a network is
//! there) is counted in rounds, some nodes at a time, so that no look costs more with more nodes: a small registry is
//! counted at each look, one of a hundred thousand nodes every half minute. A round cannot drift from the truth, as
//! counters kept beside it could.

use super::{State, record};
use pilot_wire::{NetworkId, NodeId, registry::Visibility};
use std::{collections::BTreeMap, sync::Arc, time::Instant};

/// Nodes counted at one look.
const STEP: usize = 4096;
/// Different versions, and labels, that a round tells apart; nodes choose them freely.
const VERSIONS_MAX: usize = 64;
const TAGS_MAX: usize = 4096;
/// Of each, the most frequent are kept.
const LISTED: usize = 24;
/// Networks that are kept, largest first.
const NETWORKS_LISTED: usize = 100;

/// A registry at a look.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Nodes that have ever registered.
    pub nodes: usize,
    /// Nodes that are registered.
    pub online: usize,
    /// Pairs of nodes that trust each other.
    pub trust_links: u64,
    /// Networks, without the backbone.
    pub networks: usize,
    /// Nodes for which something waits, or that remember what they were asked.
    pub inboxes: usize,
    /// Connections of which the registry knows.
    pub connections: usize,
    /// Requests for notices that are held.
    pub held: usize,
    /// Where the beacons are, as announced.
    pub beacons: Vec<String>,
    /// Requests that were refused.
    pub refused: Refused,
    /// The last whole round; never changes.
    pub round: Arc<Round>,
}

/// Requests refused since the start, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// A limit is reached, for now.
    pub limited: u64,
    /// A signature is missing, or wrong.
    pub unsigned: u64,
    /// Of something that is not there.
    pub unknown: u64,
    /// Not for who asks.
    pub denied: u64,
    /// Anything else.
    pub invalid: u64,
}

/// What a look at each node has shown. Of nodes that are registered, except for the networks' members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Public nodes.
    pub public: u64,
    /// Nodes that are reached by relay only.
    pub relay_only: u64,
    /// Nodes that take tasks.
    pub task_executors: u64,
    /// The most frequent versions.
    pub versions: Vec<(String, u64)>,
    /// The most frequent labels of public nodes.
    pub tags: Vec<(String, u64)>,
    /// Different labels of public nodes.
    pub unique_tags: usize,
    /// The largest networks.
    pub networks: Vec<NetworkSize>,
}

/// How large a network is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSize {
    /// Its number.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// True if anybody may enter, so that anybody may know of it.
    pub open: bool,
    /// Members.
    pub members: usize,
    /// Members that are registered.
    pub online: u64,
}

/// A round in the making.
#[derive(Debug, Default)]
pub(super) struct Census {
    next: Option<NodeId>,
    tally: Tally,
    last: Arc<Round>,
}

#[derive(Debug, Default)]
struct Tally {
    public: u64,
    relay_only: u64,
    task_executors: u64,
    versions: BTreeMap<String, u64>,
    tags: BTreeMap<String, u64>,
    members_online: BTreeMap<NetworkId, u64>,
}

impl Tally {
    fn count(&mut self, presence: &record::Presence, networks: impl Iterator<Item = NetworkId>) {
        self.relay_only += u64::from(presence.relay_only);
        self.task_executors += u64::from(presence.task_exec);
        if let Some(version) = &presence.version {
            bump(&mut self.versions, version, VERSIONS_MAX);
        }
        if presence.visibility == Visibility::Public {
            self.public += 1;
            for tag in &presence.tags {
                bump(&mut self.tags, tag, TAGS_MAX);
            }
        }
        for network in networks {
            *self.members_online.entry(network).or_default() += 1;
        }
    }
}

fn bump(counts: &mut BTreeMap<String, u64>, text: &str, max: usize) {
    if let Some(count) = counts.get_mut(text) {
        *count += 1;
    } else if counts.len() < max {
        counts.insert(text.to_owned(), 1);
    }
}

fn most_frequent(counts: BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
    counts.truncate(LISTED);
    counts
}

impl State {
    /// The registry in numbers. Each call also counts some nodes for the round in the making.
    pub fn overview(&mut self, now: Instant) -> Overview {
        self.count_some();
        let (online, nodes) = self.node_counts();
        Overview {
            nodes,
            online,
            trust_links: self.trust.links(),
            networks: self.networks.len(),
            inboxes: self.inboxes.len(),
            connections: self.sessions.len(),
            held: self.held(),
            beacons: self.beacons.known(now).map(|(_, addr)| addr.to_owned()).collect(),
            refused: self.refused,
            round: Arc::clone(&self.census.last),
        }
    }

    fn count_some(&mut self) {
        let from = self.census.next.unwrap_or(NodeId(0));
        let mut nodes = self.nodes.range(from..);
        for (id, node) in nodes.by_ref().take(STEP) {
            if let Some(presence) = &node.presence {
                self.census.tally.count(presence, self.networks.of(*id));
            }
        }
        self.census.next = nodes.next().map(|(id, _)| *id);
        if self.census.next.is_none() {
            let tally = std::mem::take(&mut self.census.tally);
            self.census.last = Arc::new(self.round(tally));
        }
    }

    fn round(&self, tally: Tally) -> Round {
        let sizes = self.networks.iter().map(|(id, network)| NetworkSize {
            id,
            name: network.name.clone(),
            open: network.join_rule == record::JoinRule::Open,
            members: network.members.len(),
            online: tally.members_online.get(&id).copied().unwrap_or_default(),
        });
        let mut networks: Vec<NetworkSize> = sizes.collect();
        networks.sort_by_key(|network| (std::cmp::Reverse(network.members), network.id));
        networks.truncate(NETWORKS_LISTED);
        Round {
            public: tally.public,
            relay_only: tally.relay_only,
            task_executors: tally.task_executors,
            unique_tags: tally.tags.len(),
            versions: most_frequent(tally.versions),
            tags: most_frequent(tally.tags),
            networks,
        }
    }
}
