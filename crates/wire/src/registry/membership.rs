//! What a node asks about the networks it is in, so that it can trust their members. Ours; other registries answer with
//! an error, and `list_nodes` is all there is.

use super::{Role, Sent, lenient};
use crate::{NetworkId, NodeId, PublicKey, Signature};
use serde::{Deserialize, Serialize};

/// One of the own networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnNetwork {
    /// The network.
    pub network_id: NetworkId,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub name: String,
    /// The own role.
    pub role: Role,
    /// `open`, `token` or `invite`.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub join_rule: String,
    /// Ports on which members may reach each other; empty for all.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub allowed_ports: Vec<u16>,
    /// How many members.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub members: u32,
    /// When the own membership ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Another one whenever a member comes, goes, or changes its key. For [`MembersQuery::since`].
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub version: String,
}

/// Who is in a network, and who has come and gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MembersQuery {
    /// Who asks; must be a member.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// The network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// A version that the asker knows; empty for none.
    #[serde(deserialize_with = "lenient::text", skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// For the next page: the last node of the one before; 0 for the first.
    #[serde(deserialize_with = "lenient::node", skip_serializing_if = "is_unset")]
    pub after: NodeId,
    /// By the node, over the text of [`signed_text`](super::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// Who is in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The network.
    pub network_id: NetworkId,
    /// As of this version.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub version: String,
    /// True if these are all; false if they are what changed.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub complete: bool,
    /// Those who are in.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub members: Vec<MemberKey>,
    /// True if there are more: ask again [after](MembersQuery::after) the last one. The version of the first page is the
    /// one to remember.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "is_false")]
    pub more: bool,
    /// Those who are not any more.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<NodeId>,
}

/// A member and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberKey {
    /// The node.
    pub node_id: NodeId,
    /// Its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// Says until when a node is a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetMemberExpiry {
    /// The network.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// In whose role.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// The member.
    #[serde(deserialize_with = "lenient::node")]
    pub target_node_id: NodeId,
    /// RFC 3339; empty or `never` for no end.
    #[serde(deserialize_with = "lenient::text")]
    pub expires_at: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_unset(node: &NodeId) -> bool {
    *node == NodeId::UNSET
}
