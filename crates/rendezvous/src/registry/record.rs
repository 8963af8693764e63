//! What the registry keeps on disk: one record per key, each written whole.

use pilot_wire::{
    NetworkId, NodeId, PublicKey, Signature,
    record::RecordSeq,
    registry::{MeshSecret, Role, Visibility},
    tasks::TaskId,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
};
use zeroize::Zeroizing;

/// Names a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The next free numbers.
    Counters,
    /// A node, registered or not at the moment.
    Node(NodeId),
    /// Whom a node has consented to be found by.
    Consents(NodeId),
    /// What waits for a node, and what it was asked.
    Inbox(NodeId),
    /// Tasks of a worker that have been counted.
    Tasks(NodeId),
    /// A network.
    Network(NetworkId),
    /// The key with which the registry attests to what it serves.
    Authority,
    /// The life of a node's key, if there is something to say about it.
    KeyLife(NodeId),
    /// The cards that a node has published.
    Cards(NodeId),
    /// A place in the ring of the audit log.
    Audit(u32),
    /// What the beacons know each other by. All rendezvous over one store share it.
    Mesh,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// For [`Key::Counters`].
    Counters(Counters),
    /// For [`Key::Node`].
    Node(Node),
    /// For [`Key::Consents`].
    Consents {
        /// The peers.
        peers: BTreeSet<NodeId>,
    },
    /// For [`Key::Inbox`].
    Inbox(Inbox),
    /// For [`Key::Tasks`].
    Tasks {
        /// Oldest first.
        counted: Vec<Counted>,
    },
    /// For [`Key::Network`].
    Network(Network),
    /// For [`Key::KeyLife`].
    KeyLife(KeyLife),
    /// For [`Key::Cards`].
    Cards(Cards),
    /// For [`Key::Audit`].
    Audit(Audit),
    /// For [`Key::Mesh`].
    Mesh {
        /// Made at random by whoever opened the store first.
        secret: MeshSecret,
    },
    /// For [`Key::Authority`].
    Authority {
        /// The secret half.
        seed: Seed,
    },
}

/// The secret half of the registry's key. It is not printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Seed(pub Zeroizing<[u8; 32]>);

impl From<Seed> for String {
    fn from(seed: Seed) -> Self {
        hex::encode(*seed.0)
    }
}

impl TryFrom<String> for Seed {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, hex::FromHexError> {
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(&text, &mut *seed)?;
        Ok(Self(seed))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// The next free numbers. None is ever given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// For the next new key.
    pub next_node: u32,
    /// For the next network.
    pub next_network: u16,
}

/// A node. The record stays when the node goes, because the number belongs to the key for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its identity.
    pub key: PublicKey,
    /// True if it has ever registered with a signature; it must from then on.
    pub signs: bool,
    /// Seconds since 1970 at which it got the key.
    pub key_since: u64,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// What its tasks have earned it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub score: i32,
    /// What it said last of itself, signed by its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Published>,
    /// The number of the last request that it sealed. From the first one on it must seal what it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<RecordSeq>,
    /// How its key came to be this one, as text, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_changes: Vec<String>,
    /// What it says of itself while it is registered.
    pub presence: Option<Presence>,
}

impl Node {
    /// A node that has just got its number.
    #[must_use]
    pub fn new(key: PublicKey, key_since: u64) -> Self {
        Self {
            key,
            signs: false,
            key_since,
            owner: String::new(),
            score: 0,
            signed: None,
            sealed: None,
            key_changes: Vec::new(),
            presence: None,
        }
    }
}

/// What a node said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// A [`SignedRecord`](pilot_wire::record::SignedRecord) as text.
    pub text: String,
    /// Its number; the next one must be higher.
    pub seq: RecordSeq,
    /// The key that may replace the node's own, if the record names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<PublicKey>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero(score: &i32) -> bool {
    *score == 0
}

/// A task that has been counted, and must not be again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Its name, which its submitter chose.
    pub task_id: TaskId,
    /// Who gave it.
    pub submitter: NodeId,
    /// When it ended, or was accepted if it expired: seconds since 1970, by the worker's clock.
    pub at: u64,
    /// When it was counted, seconds since 1970.
    pub counted_at: u64,
}

/// What a node says of itself while it is registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Where it is reached, as far as the registry could see.
    pub endpoint: Option<SocketAddr>,
    /// Its name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Who may see it.
    pub visibility: Visibility,
    /// Its labels.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Its program.
    #[serde(default)]
    pub version: Option<String>,
    /// Its addresses in the local network.
    #[serde(default)]
    pub lan_addrs: Vec<SocketAddr>,
    /// Never to be reached directly.
    #[serde(default)]
    pub relay_only: bool,
    /// Takes tasks.
    #[serde(default)]
    pub task_exec: bool,
}

/// What waits for a node, and what it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbox {
    /// Requests for trust.
    pub requests: Vec<Request>,
    /// Answers to the node's own requests.
    pub verdicts: Vec<Verdict>,
    /// Invitations into networks.
    pub invites: Vec<Invite>,
    /// Requests that were delivered or still wait, and what became of them.
    pub asked: BTreeMap<NodeId, Asked>,
}

/// A request for trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks.
    pub from: NodeId,
    /// Why.
    pub justification: String,
    /// Seconds since 1970.
    pub at: u64,
}

/// An answer to a request for trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Who answers.
    pub from: NodeId,
    /// Yes or no.
    pub accept: bool,
    /// Seconds since 1970.
    pub at: u64,
}

/// An invitation into a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The network.
    pub network: NetworkId,
    /// Who invites.
    pub from: NodeId,
    /// Seconds since 1970.
    pub at: u64,
}

/// What became of a request for trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Seconds since 1970 at which it came.
    pub at: u64,
    /// The answer, once there is one.
    pub answer: Option<bool>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Unique.
    pub name: String,
    /// Who may enter.
    pub join_rule: JoinRule,
    /// With roles, invitations and limits.
    pub enterprise: bool,
    /// SHA-256 of the token that stands for the owner, in hexadecimal.
    pub admin_token: Option<String>,
    /// Seconds since 1970.
    pub created: u64,
    /// By node.
    pub members: BTreeMap<NodeId, Member>,
    /// Limits.
    pub policy: Policy,
    /// Rules that nodes carry out.
    pub rules: Option<serde_json::Value>,
    /// Expression policy that nodes carry out.
    pub expr_policy: Option<serde_json::Value>,
    /// Roles that wait for their nodes to join.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<NodeId, Role>,
}

/// Who may enter a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "lowercase")]
pub enum JoinRule {
    /// Everybody.
    Open,
    /// Who knows the token.
    Token {
        /// SHA-256 of the token, in hexadecimal.
        digest: String,
    },
    /// Who was invited.
    Invite,
}

/// A member of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it may do.
    pub role: Role,
    /// Its labels in this network.
    pub tags: Vec<String>,
    /// When its membership ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// Limits of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// 0 for no limit.
    pub max_members: u32,
    /// Empty for all.
    pub allowed_ports: Vec<u16>,
    /// For people to read.
    pub description: String,
}

/// The life of a node's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLife {
    /// When the node got its first key, in seconds since 1970; 0 for the one it has.
    #[serde(default)]
    pub created_at: u64,
    /// How often it got another one.
    #[serde(default)]
    pub rotations: u32,
    /// When the key ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// The cards that a node has published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cards {
    /// By network and name.
    pub cards: Vec<Card>,
    /// The highest number that was used in each network, so that no old card comes back.
    #[serde(default)]
    pub last: BTreeMap<NetworkId, u64>,
}

/// A card of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Where it is published.
    pub network: NetworkId,
    /// As it was signed.
    pub text: String,
    /// By the node.
    pub signature: Signature,
    /// The key that signed it.
    pub key: PublicKey,
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Rises by one with each entry.
    pub seq: u64,
    /// Seconds since 1970.
    pub at: u64,
    /// What was done.
    pub action: String,
    /// In which network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkId>,
    /// By or with which node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// `key=value, key=value`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}
