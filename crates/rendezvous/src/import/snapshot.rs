//! The reference's snapshot as JSON. What is left out or `null` is empty, what is not known is ignored.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

fn or_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

#[derive(Debug, Deserialize)]
pub(super) struct Snapshot {
    pub(super) next_node: u32,
    #[serde(default)]
    pub(super) next_net: u16,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) nodes: BTreeMap<String, Node>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) networks: BTreeMap<String, Network>,
    /// `1:2`.
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) trust_pairs: Vec<String>,
    /// Numbers by key in base64; also of nodes that are away.
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) pub_key_idx: BTreeMap<String, u32>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) handshake_inbox: BTreeMap<String, Vec<Request>>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) handshake_responses: BTreeMap<String, Vec<Verdict>>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) invite_inbox: BTreeMap<String, Vec<Invite>>,
    #[serde(default)]
    pub(super) checksum: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub(super) id: u32,
    pub(super) owner: String,
    pub(super) public_key: String,
    pub(super) real_addr: String,
    pub(super) public: bool,
    pub(super) hostname: String,
    #[serde(deserialize_with = "or_empty")]
    pub(super) tags: Vec<String>,
    pub(super) polo_score: i32,
    pub(super) task_exec: bool,
    #[serde(deserialize_with = "or_empty")]
    pub(super) lan_addrs: Vec<String>,
    pub(super) version: String,
    pub(super) relay_only: bool,
    /// RFC 3339, as all times here.
    pub(super) key_created: String,
    pub(super) key_rotated: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Network {
    pub(super) id: u16,
    pub(super) name: String,
    pub(super) join_rule: String,
    pub(super) token: String,
    #[serde(deserialize_with = "or_empty")]
    pub(super) members: Vec<u32>,
    pub(super) created: String,
    pub(super) enterprise: bool,
    pub(super) admin_token: String,
    /// By number of the node.
    #[serde(deserialize_with = "or_empty")]
    pub(super) member_roles: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_empty")]
    pub(super) member_tags: BTreeMap<String, Vec<String>>,
    pub(super) policy: Option<Policy>,
    pub(super) rules: Option<Value>,
    pub(super) expr_policy: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Policy {
    pub(super) max_members: u32,
    #[serde(deserialize_with = "or_empty")]
    pub(super) allowed_ports: Vec<u16>,
    pub(super) description: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    pub(super) from_node_id: u32,
    pub(super) justification: String,
    pub(super) timestamp: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Verdict {
    pub(super) from_node_id: u32,
    pub(super) accept: bool,
    pub(super) timestamp: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Invite {
    pub(super) network_id: u16,
    pub(super) inviter_id: u32,
    pub(super) timestamp: String,
}
