//! What holds for one node after all rules are considered.

use serde::{Deserialize, Serialize};

use super::{Limit, Target, Topics};
use crate::Port;

/// A value and the targets whose rules it comes from; none means that it is so by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Whose rules say so.
    pub from: Vec<Target>,
}

/// Ports next to each other about which the same is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpan {
    /// The first.
    pub first: Port,
    /// The last.
    pub last: Port,
    /// Whether they may be reached.
    pub allowed: bool,
    /// Whose rules say so.
    pub from: Vec<Target>,
}

/// What holds for one node. The meaning of each field is that of [`Rules`](super::Rules).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the field of the same name")]
pub struct Effective {
    /// All ports, in order.
    pub ports: Vec<PortSpan>,
    /// Lists of topics: an event must be in each. No list: every topic.
    pub publish: Vec<Sourced<Topics>>,
    /// The same.
    pub subscribe: Vec<Sourced<Topics>>,
    pub messages_per_min: Sourced<Limit>,
    pub bytes_per_min: Sourced<Limit>,
    pub max_message: Sourced<Limit>,
    pub max_file: Sourced<Limit>,
    pub requests: Sourced<bool>,
    pub tasks: Sourced<bool>,
    pub mailbox: Sourced<bool>,
    pub max_hops: Sourced<u8>,
    pub auto_answers_per_min: Sourced<Limit>,
}
