//! What beacons ask.

use crate::NodeId;
use crate::registry::lenient;
use serde::{Deserialize, Serialize};

/// Announces a beacon for a minute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BeaconRegister {
    /// The beacon; not 0.
    #[serde(deserialize_with = "lenient::number")]
    pub beacon_id: u32,
    /// `host:port` for UDP.
    #[serde(deserialize_with = "lenient::text")]
    pub addr: String,
}

/// Announces a beacon as [`BeaconRegister`] does, joins it to the mesh of the registry's beacons, and asks what it needs
/// to know of nodes. For the same who may announce one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BeaconLink {
    /// The beacon; not 0.
    #[serde(deserialize_with = "lenient::number")]
    pub beacon_id: u32,
    /// `host:port` for UDP.
    #[serde(deserialize_with = "lenient::text")]
    pub addr: String,
    /// Nodes that it wants to know the keys of; at most [`BeaconLink::ITEMS_MAX`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeId>,
    /// Pairs, requester first, of which it wants to know whether they may be introduced; at most
    /// [`BeaconLink::ITEMS_MAX`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<(NodeId, NodeId)>,
}

impl BeaconLink {
    /// Nodes, and pairs, in one request.
    pub const ITEMS_MAX: usize = 256;
}
