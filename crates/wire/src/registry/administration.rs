//! What an operator asks besides networks themselves: the audit log, provisioning, and for how long keys are valid
//! (spec/registry.md 12).

use super::{Sent, lenient};
use crate::{NetworkId, NodeId, Signature};
use serde::{Deserialize, Serialize};

/// The last entries of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditQuery {
    /// Only of this network; 0 for all.
    #[serde(deserialize_with = "lenient::network", skip_serializing_if = "is_backbone")]
    pub network_id: NetworkId,
    /// At most so many: 1000; 100 if 0.
    #[serde(deserialize_with = "lenient::number", skip_serializing_if = "is_zero")]
    pub limit: u32,
}

/// An entry of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When, RFC 3339.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub timestamp: String,
    /// What was done, such as `network.joined`.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub action: String,
    /// In which network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_id: Option<NetworkId>,
    /// By or with which node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// `key=value, key=value`.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// Makes a network as a blueprint says, or brings it in line with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provision {
    /// A [`Blueprint`].
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub blueprint: Sent<serde_json::Value>,
}

/// How a network is to be. What is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blueprint {
    /// Its name, by which it is found again.
    pub name: String,
    /// `open` (also if empty), `token` or `invite`.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub join_rule: String,
    /// What members of a `token` network must know.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub join_token: String,
    /// With roles, invitations and limits.
    #[serde(deserialize_with = "lenient::or_default")]
    pub enterprise: bool,
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<BlueprintPolicy>,
    /// Expression policy that nodes carry out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expr_policy: Option<serde_json::Value>,
    /// Roles that nodes get when they join.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<BlueprintRole>,
    /// A token that stands for the owner's role.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub network_admin_token: String,
    /// Of the reference; this registry has none and says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<serde_json::Value>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhooks: Option<serde_json::Value>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_export: Option<serde_json::Value>,
}

/// Limits in a [`Blueprint`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlueprintPolicy {
    /// 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_members: Option<u32>,
    /// Empty for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_ports: Option<Vec<u16>>,
    /// For people to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A role in a [`Blueprint`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlueprintRole {
    /// Whose, by number.
    #[serde(skip_serializing_if = "is_unset")]
    pub node_id: NodeId,
    /// Whose, by the name that an identity provider gives; of the reference.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub external_id: String,
    /// `owner`, `admin` or `member`.
    pub role: String,
}

/// A network as provisioning sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionedNetwork {
    /// Its number.
    pub network_id: NetworkId,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub name: String,
    /// How many.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub members: u32,
    /// `open`, `token` or `invite`.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub join_rule: String,
    /// With enterprise features.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub enterprise: bool,
    /// The limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_members: Option<u32>,
    /// Where members may reach each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_ports: Option<Vec<u16>>,
    /// Roles that wait for their nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rbac_pre_assignments: Option<u32>,
}

/// Says until when the key of a node is valid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetKeyExpiry {
    /// The node.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// RFC 3339; empty or `never` for no end.
    #[serde(deserialize_with = "lenient::text")]
    pub expires_at: String,
    /// By the node, over the text of [`signed_text`](super::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// The life of a node's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// The node.
    pub node_id: NodeId,
    /// When the node was first seen, RFC 3339.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub created_at: String,
    /// How often its key was replaced.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub rotate_count: u32,
    /// When last, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<String>,
    /// When the key ends, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Days since it got the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_age_days: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_backbone(network: &NetworkId) -> bool {
    *network == NetworkId::BACKBONE
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_unset(node: &NodeId) -> bool {
    *node == NodeId::UNSET
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
