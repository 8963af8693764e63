//! What programs ask their daemon about networks: the members of which are trusted, and requests to the registry that
//! it makes in the node's name.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::registry::{Card, Role};
use crate::{Addr, NetworkId, NodeId};

/// A question or order. Named in JSON by `op`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// The networks of this node: [`Reply::Networks`].
    Show,
    /// Becomes a member: [`Reply::Registry`].
    Join {
        /// Which network.
        network: NetworkId,
        /// Empty when the network wants none.
        #[serde(default)]
        token: String,
        /// Whether its members are trusted.
        trust: bool,
    },
    /// Whether the members of a network are trusted from now on: [`Reply::Networks`] with that network.
    Trust {
        /// The network.
        network: NetworkId,
        /// Whether they are.
        on: bool,
    },
    /// A request to the registry about networks, in the name of this node and signed by it if it can be: its answer as
    /// [`Reply::Registry`]. Fields named `node_id` and `inviter_id` that are missing or 0 are this node's.
    Ask {
        /// As the registry reads it.
        request: Value,
        /// The token of the operator or of the network; empty for none. Without one the role of this node counts.
        #[serde(default)]
        token: String,
    },
    /// Searches the directory of a network, and checks what it finds: [`Reply::Cards`].
    Cards {
        /// As [`CardQuery`](crate::registry::CardQuery).
        query: Value,
        /// As in [`Request::Ask`].
        #[serde(default)]
        token: String,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Networks of this node.
    Networks {
        /// By number.
        networks: Vec<Membership>,
    },
    /// What the registry said.
    Registry {
        /// Its object.
        answer: Value,
    },
    /// Cards of the directory.
    Cards {
        /// How many match.
        total: u32,
        /// The best of them first. Each is signed with the key that this node knows of the publisher.
        cards: Vec<FoundCard>,
        /// How many were left out because they are not.
        refused: u32,
    },
}

/// The membership of this node in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Membership {
    /// The network.
    pub network_id: NetworkId,
    /// Its name; empty if the registry has not said it.
    pub name: String,
    /// The address of this node in it.
    pub address: Addr,
    /// Whether its members are trusted.
    pub trust: bool,
    /// The role of this node, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// How many are trusted for this reason.
    pub trusted_members: u64,
    /// Ports on which they reach this node; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_ports: Vec<u16>,
    /// When the membership ends, Unix time in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// A card of the directory, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundCard {
    /// What it says.
    #[serde(flatten)]
    pub card: Card,
    /// The publisher's name, if it is known here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Whether the publisher is registered now.
    #[serde(default)]
    pub online: bool,
}

impl FoundCard {
    /// The node that it runs on.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.card.node
    }
}
