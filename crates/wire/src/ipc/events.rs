//! How the event broker stands.

use serde::{Deserialize, Serialize};

use crate::Addr;
use crate::events::{Overflow, Position};

/// The broker's subscribers, links, history and counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventsStatus {
    /// Subscriptions at this broker, of this node's programs and of others. Connections that only publish count too.
    pub subscribers: u64,
    /// Each subscription that wants something.
    pub subscriptions: Vec<SubscriptionStatus>,
    /// Subscriptions of this broker at those of trusted nodes.
    pub links: Vec<LinkStatus>,
    /// The past it keeps.
    pub history: HistoryStatus,
    /// What passed through since it started.
    pub counters: EventCounters,
}

/// One subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionStatus {
    /// Its number in this life of the broker.
    pub id: u64,
    /// Who has it.
    pub node: Addr,
    /// It belongs to a program of this node.
    pub own: bool,
    /// Topic or pattern.
    pub topic: String,
    /// What happens when its queue is full.
    pub policy: Overflow,
    /// It asked for [`Overflow::Block`] and did not read for too long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub demoted: bool,
    /// Events its queue holds at most.
    pub queue: u32,
    /// Events in its queue now.
    pub queued: u64,
    /// Events handed to its connection.
    pub delivered: u64,
    /// Events dropped because its queue was full.
    pub dropped: u64,
    /// How long publishers waited for it, in milliseconds.
    pub blocked_ms: u64,
}

/// A subscription at a trusted node's broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The node.
    pub node: Addr,
    /// What was subscribed to there.
    pub topic: String,
    /// What is wished for when the queue there is full.
    pub policy: Overflow,
    /// How it stands.
    pub state: LinkState,
    /// The broker there is one of this implementation: it numbers its events and keeps a history.
    pub numbered: bool,
    /// The last event that came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Position>,
    /// Events that came over it.
    pub received: u64,
    /// Events of it that are known to be lost.
    pub lost: u64,
}

/// How a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// No try has ended yet.
    Connecting,
    /// Events come.
    Live,
    /// The last try failed, another follows.
    Down,
}

/// The events of the past that a broker keeps in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryStatus {
    /// How many.
    pub events: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// How many it keeps at most.
    pub max_events: u64,
    /// Bytes it keeps at most.
    pub max_bytes: u64,
    /// The oldest one kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u64>,
    /// The newest one published.
    pub newest: u64,
    /// Which life of the broker.
    pub epoch: u64,
}

/// What passed through a broker since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventCounters {
    /// Events published at this broker.
    pub published: u64,
    /// Events that came from the brokers of trusted nodes.
    pub received: u64,
    /// Events handed to connections, of subscriptions that ended too.
    pub delivered: u64,
    /// Events dropped because a queue was full, of subscriptions that ended too.
    pub dropped: u64,
    /// Publications that the rules refused.
    pub refused: u64,
    /// Blocking subscribers that were demoted because they did not read.
    pub demoted: u64,
}
