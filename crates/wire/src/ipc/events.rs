//! How the event broker stands.

use serde::{Deserialize, Serialize};

/// The broker's subscribers and counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventsStatus {
    /// Subscriptions at this broker, of this node's programs and of others.
    pub subscribers: u64,
}
