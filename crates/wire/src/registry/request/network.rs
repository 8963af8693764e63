//! Networks, their members and rules.

use super::{is_backbone, is_false};
use crate::registry::{Sent, lenient};
use crate::{NetworkId, NodeId, Signature};
use serde::{Deserialize, Serialize};

/// A question about a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkQuery {
    /// The network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
}

/// Creates a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateNetwork {
    /// Its first owner.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// Unique.
    #[serde(deserialize_with = "lenient::text")]
    pub name: String,
    /// Our extension: a number that was never used; 0 for the next one.
    #[serde(deserialize_with = "lenient::network", skip_serializing_if = "is_backbone")]
    pub network_id: NetworkId,
    /// `open` (also if empty), `token` or `invite`.
    #[serde(deserialize_with = "lenient::text", skip_serializing_if = "String::is_empty")]
    pub join_rule: String,
    /// What members of a `token` network must know.
    #[serde(deserialize_with = "lenient::text")]
    pub token: String,
    /// With roles, invitations and limits.
    #[serde(deserialize_with = "lenient::flag", skip_serializing_if = "is_false")]
    pub enterprise: bool,
    /// A token that stands for the owner's role.
    #[serde(deserialize_with = "lenient::text", skip_serializing_if = "String::is_empty")]
    pub network_admin_token: String,
    /// Rules that nodes carry out, not looked at.
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub rules: Sent<serde_json::Value>,
    /// Expression policy that nodes carry out.
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub expr_policy: Sent<serde_json::Value>,
}

/// Removes or renames a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkUpdate {
    /// The network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// In whose role.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// The new name.
    #[serde(deserialize_with = "lenient::text", skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Switches the enterprise features.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetEnterprise {
    /// The network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// On or off.
    #[serde(deserialize_with = "lenient::flag")]
    pub enterprise: bool,
}

/// Enters a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinNetwork {
    /// Who enters.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// Which.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// For a `token` network.
    #[serde(deserialize_with = "lenient::text")]
    pub token: String,
    /// Ignored, but always sent by 1.18.0.
    #[serde(deserialize_with = "lenient::node")]
    pub inviter_id: NodeId,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// A request about one node in one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Membership {
    /// The node.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// The network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// Invites a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Invite {
    /// Who invites.
    #[serde(deserialize_with = "lenient::node")]
    pub inviter_id: NodeId,
    /// Into which network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// Whom.
    #[serde(deserialize_with = "lenient::node")]
    pub target_node_id: NodeId,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// Answers an invitation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InviteAnswer {
    /// Who was invited.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// Into which network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// Yes or no.
    #[serde(deserialize_with = "lenient::flag")]
    pub accept: bool,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// A question about, or a change of, a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberQuery {
    /// The network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// In whose role, for changes.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// The member; 0 for all where that makes sense.
    #[serde(deserialize_with = "lenient::node")]
    pub target_node_id: NodeId,
}

/// Hands a network over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransferOwnership {
    /// The network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// In whose role.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// The new owner.
    #[serde(deserialize_with = "lenient::node")]
    pub new_owner_id: NodeId,
}

/// Replaces the labels of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberTagsUpdate {
    /// The network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// In whose role.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// The member.
    #[serde(deserialize_with = "lenient::node")]
    pub target_node_id: NodeId,
    /// The labels.
    #[serde(deserialize_with = "lenient::texts")]
    pub tags: Vec<String>,
}

/// Changes the limits of a network; what is missing stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyUpdate {
    /// The network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// In whose role.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// At most 10,000; 0 for no limit.
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub max_members: Sent<u32>,
    /// Empty for all.
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub allowed_ports: Sent<Vec<u16>>,
    /// For people to read.
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub description: Sent<String>,
}

/// Sets or clears the expression policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExprPolicyUpdate {
    /// The network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// In whose role.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// The policy; null clears.
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub expr_policy: Sent<serde_json::Value>,
}
