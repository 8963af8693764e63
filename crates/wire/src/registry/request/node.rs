//! What a node asks about itself and about others.

use super::is_false;
use crate::registry::{Sent, lenient};
use crate::{NodeId, PublicKey, Signature};
use serde::{Deserialize, Serialize};

/// Binds a key to a node id (spec/registry.md 5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Register {
    /// Who registers.
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub public_key: Sent<PublicKey>,
    /// Where the node believes to be reached, `host:port`; the registry believes only the port.
    #[serde(deserialize_with = "lenient::text")]
    pub listen_addr: String,
    /// Whose node it is, free text.
    #[serde(deserialize_with = "lenient::text", skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// A wish; refused without failing the registration.
    #[serde(deserialize_with = "lenient::text", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Version of the program.
    #[serde(deserialize_with = "lenient::text", skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Addresses in the local network, `ip:port`.
    #[serde(deserialize_with = "lenient::texts", skip_serializing_if = "Vec::is_empty")]
    pub lan_addrs: Vec<String>,
    /// Never to be reached directly.
    #[serde(deserialize_with = "lenient::flag", skip_serializing_if = "is_false")]
    pub relay_only: bool,
    /// Our extension: a key that is new is to get a number that follows from it, if one of those is free, and not the
    /// next one.
    #[serde(deserialize_with = "lenient::flag", skip_serializing_if = "is_false")]
    pub derived: bool,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// What the node says of itself. The record is signed; the request needs no signature of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishRecord {
    /// The node.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// A [`SignedRecord`](crate::record::SignedRecord) as text.
    #[serde(deserialize_with = "lenient::text")]
    pub record: String,
}

/// A request about the node alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Signed {
    /// The node.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// Where is the other node?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolve {
    /// Whose address is wanted.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// Who asks.
    #[serde(deserialize_with = "lenient::node")]
    pub requester_id: NodeId,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// Which node is called so?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResolveHostname {
    /// The name.
    #[serde(deserialize_with = "lenient::text")]
    pub hostname: String,
}

/// Makes a node public or private.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetVisibility {
    /// The node.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// True for public.
    #[serde(deserialize_with = "lenient::flag")]
    pub public: bool,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// Names a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetHostname {
    /// The node.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// The name; empty for none.
    #[serde(deserialize_with = "lenient::text")]
    pub hostname: String,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// Replaces the labels of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetTags {
    /// The node.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// The labels, each with or without `#`.
    #[serde(deserialize_with = "lenient::texts")]
    pub tags: Vec<String>,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// Says whether a node takes tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetTaskExec {
    /// The node.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// True if it does.
    #[serde(deserialize_with = "lenient::flag")]
    pub enabled: bool,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// Replaces the key of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RotateKey {
    /// The node.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// The key from now on.
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub new_public_key: Sent<PublicKey>,
    /// Our extension: a [`SignedChange`](crate::record::SignedChange) as text, which is passed on to those who know the
    /// old key. If the recovery key signed it, it stands for the signature.
    #[serde(deserialize_with = "lenient::text", skip_serializing_if = "String::is_empty")]
    pub change: String,
    /// By the node, over the text of [`signed_text`](crate::registry::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}
