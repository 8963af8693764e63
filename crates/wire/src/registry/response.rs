//! What the registry answers.

use super::{AuditEntry, KeyInfo, Members, OwnNetwork, ProvisionedNetwork, PublishedCard, lenient};
use crate::{NetworkId, NodeId, PublicKey, record::RecordSeq};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Response {
    /// The node has an id.
    #[serde(rename = "register_ok")]
    Register(Registered),
    /// Noted.
    #[serde(rename = "heartbeat_ok")]
    Heartbeat {
        /// Seconds since 1970, by the registry.
        time: u64,
        /// Says so if the key of the node ends within a day.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_expiry_warning: Option<String>,
    },
    /// Gone, or was not there.
    #[serde(rename = "deregister_ok")]
    Deregister {},
    /// The public record.
    #[serde(rename = "lookup_ok")]
    Lookup(Lookup),
    /// Where the node is.
    #[serde(rename = "resolve_ok")]
    Resolve(Resolved),
    /// Which node it is.
    #[serde(rename = "resolve_hostname_ok")]
    ResolveHostname(ResolvedHostname),
    /// Changed.
    #[serde(rename = "set_visibility_ok")]
    SetVisibility {
        /// The node.
        node_id: NodeId,
        /// As it now is.
        visibility: Visibility,
    },
    /// Changed.
    #[serde(rename = "set_hostname_ok")]
    SetHostname {
        /// The node.
        node_id: NodeId,
        /// As it now is; empty for none.
        hostname: String,
    },
    /// Changed.
    #[serde(rename = "set_tags_ok")]
    SetTags {
        /// The node.
        node_id: NodeId,
        /// As they now are; `None` if there are none.
        #[serde(default)]
        tags: Option<Vec<String>>,
    },
    /// Changed.
    #[serde(rename = "set_task_exec_ok")]
    SetTaskExec {
        /// The node.
        node_id: NodeId,
        /// As it now is.
        task_exec: bool,
    },
    /// The score.
    #[serde(rename = "get_polo_score_ok")]
    GetPoloScore(Score),
    /// As it now is.
    #[serde(rename = "update_polo_score_ok")]
    UpdatePoloScore(Score),
    /// As it now is.
    #[serde(rename = "set_polo_score_ok")]
    SetPoloScore(Score),
    /// The scores of both, after the task was counted.
    #[serde(rename = "report_task_ok")]
    ReportTask {
        /// False if this task had been counted before.
        counted: bool,
        /// Of the submitter.
        submitter_score: i32,
        /// Of the worker.
        worker_score: i32,
    },
    /// Noted, and passed on from now on.
    #[serde(rename = "publish_record_ok")]
    PublishRecord {
        /// The node.
        node_id: NodeId,
        /// The number of the record that is passed on.
        seq: RecordSeq,
    },
    /// Changed.
    #[serde(rename = "rotate_key_ok")]
    RotateKey(RotatedKey),
    /// Noted. The pair counts once both sides have consented.
    #[serde(rename = "report_trust_ok")]
    ReportTrust {},
    /// The pair counts no longer.
    #[serde(rename = "revoke_trust_ok")]
    RevokeTrust {},
    /// Whether two nodes trust each other.
    #[serde(rename = "check_trust_ok")]
    CheckTrust {
        /// Whether they do.
        trusted: bool,
    },
    /// The request lies in the inbox of the peer.
    #[serde(rename = "request_handshake_ok")]
    RequestHandshake {
        /// `delivered`.
        status: String,
    },
    /// What lay in the inbox.
    #[serde(rename = "poll_handshakes_ok")]
    PollHandshakes(Handshakes),
    /// The answer lies in the inbox of the peer.
    #[serde(rename = "respond_handshake_ok")]
    RespondHandshake {
        /// Who had asked.
        peer_id: NodeId,
        /// The answer.
        accept: bool,
    },
    /// Answers [`AwaitNotices`](super::AwaitNotices).
    #[serde(rename = "await_notices_ok")]
    AwaitNotices(Notices),
    /// Both addresses.
    #[serde(rename = "punch_ok")]
    Punch(Punched),
    /// Announced for a minute.
    #[serde(rename = "beacon_register_ok")]
    BeaconRegister {
        /// The beacon.
        beacon_id: u32,
    },
    /// The beacons.
    #[serde(rename = "beacon_list_ok")]
    BeaconList {
        /// All of them.
        #[serde(default, deserialize_with = "lenient::or_default")]
        beacons: Vec<Beacon>,
    },
    /// What the beacon asked for.
    #[serde(rename = "beacon_link_ok")]
    BeaconLink(BeaconLinked),
    /// The networks.
    #[serde(rename = "list_networks_ok")]
    ListNetworks {
        /// Those the asker may see.
        #[serde(default, deserialize_with = "lenient::or_default")]
        networks: Vec<Network>,
    },
    /// The members of a network.
    #[serde(rename = "list_nodes_ok")]
    ListNodes {
        /// Its members.
        #[serde(default, deserialize_with = "lenient::or_default")]
        nodes: Vec<ListedNode>,
    },
    /// Created.
    #[serde(rename = "create_network_ok")]
    CreateNetwork {
        /// Its number.
        network_id: NetworkId,
        /// Its name.
        name: String,
        /// With enterprise features.
        enterprise: bool,
        /// With rules.
        #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "is_false")]
        managed: bool,
    },
    /// Removed.
    #[serde(rename = "delete_network_ok")]
    DeleteNetwork {
        /// The network.
        network_id: NetworkId,
    },
    /// Renamed.
    #[serde(rename = "rename_network_ok")]
    RenameNetwork {
        /// The network.
        network_id: NetworkId,
        /// Its name.
        name: String,
    },
    /// Switched.
    #[serde(rename = "set_network_enterprise_ok")]
    SetNetworkEnterprise {
        /// The network.
        network_id: NetworkId,
        /// As it now is.
        enterprise: bool,
    },
    /// Entered.
    #[serde(rename = "join_network_ok")]
    JoinNetwork(JoinedNetwork),
    /// Left.
    #[serde(rename = "leave_network_ok")]
    LeaveNetwork {
        /// The network.
        network_id: NetworkId,
    },
    /// Invited.
    #[serde(rename = "invite_to_network_ok")]
    InviteToNetwork {
        /// The network.
        network_id: NetworkId,
        /// Who was invited.
        target_node_id: NodeId,
        /// `already_invited` if so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<String>,
    },
    /// The invitations.
    #[serde(rename = "poll_invites_ok")]
    PollInvites {
        /// All that are open.
        #[serde(default, deserialize_with = "lenient::or_default")]
        invites: Vec<InviteNotice>,
    },
    /// Answered.
    #[serde(rename = "respond_invite_ok")]
    RespondInvite {
        /// The network.
        network_id: NetworkId,
        /// The answer.
        accepted: bool,
    },
    /// Removed.
    #[serde(rename = "kick_member_ok")]
    KickMember {
        /// The network.
        network_id: NetworkId,
        /// Who had to go.
        target_node_id: NodeId,
    },
    /// As it now is.
    #[serde(rename = "promote_member_ok")]
    PromoteMember(MemberRole),
    /// As it now is.
    #[serde(rename = "demote_member_ok")]
    DemoteMember(MemberRole),
    /// Handed over.
    #[serde(rename = "transfer_ownership_ok")]
    TransferOwnership {
        /// The network.
        network_id: NetworkId,
        /// Who is an admin now.
        old_owner: NodeId,
        /// Who owns it now.
        new_owner: NodeId,
    },
    /// The role.
    #[serde(rename = "get_member_role_ok")]
    GetMemberRole(MemberRole),
    /// As they now are.
    #[serde(rename = "set_member_tags_ok")]
    SetMemberTags(MemberTags),
    /// The labels.
    #[serde(rename = "get_member_tags_ok")]
    GetMemberTags(MemberTags),
    /// As it now is.
    #[serde(rename = "set_network_policy_ok")]
    SetNetworkPolicy(NetworkPolicy),
    /// The limits.
    #[serde(rename = "get_network_policy_ok")]
    GetNetworkPolicy(NetworkPolicy),
    /// Changed.
    #[serde(rename = "set_expr_policy_ok")]
    SetExprPolicy {
        /// The network.
        network_id: NetworkId,
        /// True if there is none any more.
        #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "is_false")]
        cleared: bool,
    },
    /// The expression policy.
    #[serde(rename = "get_expr_policy_ok")]
    GetExprPolicy {
        /// The network.
        network_id: NetworkId,
        /// The policy, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expr_policy: Option<serde_json::Value>,
    },
    /// The networks of the asker.
    #[serde(rename = "own_networks_ok")]
    OwnNetworks {
        /// All of them.
        #[serde(default, deserialize_with = "lenient::or_default")]
        networks: Vec<OwnNetwork>,
    },
    /// The members.
    #[serde(rename = "list_members_ok")]
    ListMembers(Members),
    /// Changed.
    #[serde(rename = "set_member_expiry_ok")]
    SetMemberExpiry {
        /// The network.
        network_id: NetworkId,
        /// The member.
        target_node_id: NodeId,
        /// When its membership ends, RFC 3339.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<String>,
    },
    /// Changed.
    #[serde(rename = "set_key_expiry_ok")]
    SetKeyExpiry {
        /// The node.
        node_id: NodeId,
        /// When its key ends, RFC 3339.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<String>,
    },
    /// The life of a key.
    #[serde(rename = "get_key_info_ok")]
    GetKeyInfo(KeyInfo),
    /// The audit log.
    #[serde(rename = "get_audit_log_ok")]
    GetAuditLog {
        /// Newest first.
        #[serde(default, deserialize_with = "lenient::or_default")]
        entries: Vec<AuditEntry>,
    },
    /// The network is as the blueprint says.
    #[serde(rename = "provision_network_ok")]
    ProvisionNetwork {
        /// The network.
        network_id: NetworkId,
        /// Its name.
        name: String,
        /// False if it was there.
        created: bool,
        /// What was done, for people to read.
        #[serde(default, deserialize_with = "lenient::or_default")]
        actions: Vec<String>,
    },
    /// The networks as provisioning sees them.
    #[serde(rename = "get_provision_status_ok")]
    GetProvisionStatus {
        /// All but the backbone.
        #[serde(default, deserialize_with = "lenient::or_default")]
        networks: Vec<ProvisionedNetwork>,
    },
    /// In the directory.
    #[serde(rename = "publish_card_ok")]
    PublishCard {
        /// The network.
        network_id: NetworkId,
        /// The name of the card.
        name: String,
        /// The number of the card that is in the directory now.
        seq: u64,
    },
    /// No longer in the directory.
    #[serde(rename = "remove_card_ok")]
    RemoveCard {
        /// The network.
        network_id: NetworkId,
        /// The name of the card.
        name: String,
    },
    /// Cards of the directory.
    #[serde(rename = "list_cards_ok")]
    ListCards {
        /// The network.
        network_id: NetworkId,
        /// How many match.
        #[serde(default, deserialize_with = "lenient::or_default")]
        total: u32,
        /// The best of them first.
        #[serde(default, deserialize_with = "lenient::or_default")]
        cards: Vec<PublishedCard>,
    },
    /// Refused.
    #[serde(rename = "error")]
    Error {
        /// For people to read.
        error: String,
    },
}

/// The outcome of a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The id of this key, for ever.
    pub node_id: NodeId,
    /// The overlay address.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub address: String,
    /// Always the backbone.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub network_id: NetworkId,
    /// As sent.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub public_key: String,
    /// What the registry stored as the address; may be empty.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub observed_addr: String,
    /// 1.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub protocol_version: u32,
    /// The name, if it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Why the name was not granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname_error: Option<String>,
}

/// The public record of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The node.
    pub node_id: NodeId,
    /// Its overlay address.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub address: String,
    /// Its identity.
    pub public_key: PublicKey,
    /// Whether everybody may see it.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub public: bool,
    /// Its networks, as far as the asker may know.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub networks: Vec<NetworkId>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its labels.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it is reached; of public nodes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_addr: Option<String>,
    /// Only to be reached through a beacon.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "is_false")]
    pub relay_only: bool,
    /// Its last sign of life, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_unix: Option<u64>,
    /// Verified by a provider; never with our registry.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "is_false")]
    pub verified: bool,
    /// What its tasks have earned it.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub polo_score: i32,
    /// Whether it takes tasks.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "is_false")]
    pub task_exec: bool,
    /// Ours: what the node says of itself, a [`SignedRecord`](crate::record::SignedRecord) as text; for those who may
    /// know where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Ours: how its key came to be this one, [`SignedChange`](crate::record::SignedChange)s as text, oldest first.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub key_changes: Vec<String>,
}

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The node.
    pub node_id: NodeId,
    /// `ip:port`; may be empty if the registry does not know.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub real_addr: String,
    /// Addresses in its local network.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub lan_addrs: Vec<String>,
    /// Only to be reached through a beacon.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "is_false")]
    pub relay_only: bool,
    /// Seconds since the registry last heard of the node. Ours; an age, because clocks differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_secs_ago: Option<u64>,
    /// Age of its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_age_days: Option<u32>,
    /// Its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
    /// Ours: what the node says of itself, a [`SignedRecord`](crate::record::SignedRecord) as text; for those who may
    /// know where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Ours: how its key came to be this one, [`SignedChange`](crate::record::SignedChange)s as text, oldest first.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub key_changes: Vec<String>,
}

/// What a node's tasks have earned it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// The node.
    pub node_id: NodeId,
    /// Its overlay address.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub address: String,
    /// Its score.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub polo_score: i32,
}

/// The node that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedHostname {
    /// The node.
    pub node_id: NodeId,
    /// Its overlay address.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub address: String,
    /// The name.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub hostname: String,
    /// Whether everybody may see it.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub public: bool,
}

/// The new key of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotatedKey {
    /// The node.
    pub node_id: NodeId,
    /// Its overlay address.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub address: String,
    /// Its key from now on.
    pub public_key: PublicKey,
}

/// What a node is told that has asked for notices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notices {
    /// True if a poll of the inbox would bring something. False alone: the time is over.
    pub waiting: bool,
    /// What it is about. Only for those that asked for details, as all that follows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<NoticeKind>,
    /// Peers in mutual trust that are elsewhere than before, or have another name or key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<NodeId>,
    /// Peers with whom trust began or ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trust: Vec<NodeId>,
    /// There are more than are listed: any peer may be meant.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A request for trust, or an answer to one, waits in the inbox.
    Handshake,
    /// An invitation to a network waits.
    Invite,
    /// Trust began or ended.
    Trust,
    /// Peers are elsewhere, or have another name or key.
    Peers,
    /// The own networks, or who is in them, have changed.
    Networks,
    /// Something newer than this program.
    #[serde(other)]
    Other,
}

/// What lay in the inbox of a node. It may come twice if a connection broke.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshakes {
    /// Requests for trust.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub requests: Vec<HandshakeNotice>,
    /// Answers to own requests.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub responses: Vec<HandshakeVerdict>,
}

/// A request for trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandshakeNotice {
    /// Who asks.
    pub from_node_id: NodeId,
    /// Why.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub justification: String,
    /// When, in seconds since 1970.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub timestamp: u64,
    /// Who asks, by key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
}

/// An answer to a request for trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandshakeVerdict {
    /// Who answers.
    pub from_node_id: NodeId,
    /// Yes or no.
    pub accept: bool,
    /// When, in seconds since 1970.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub timestamp: u64,
}

/// Two addresses for hole punching.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Punched {
    /// One side.
    pub node_a: NodeId,
    /// Its address.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub node_a_addr: String,
    /// The other side.
    pub node_b: NodeId,
    /// Its address.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub node_b_addr: String,
}

/// A beacon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// Its number.
    pub id: u32,
    /// `host:port` for UDP.
    pub addr: String,
}

/// What a beacon of the mesh needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeaconLinked {
    /// What the beacons of this registry know each other by.
    pub mesh_secret: MeshSecret,
    /// The others.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub beacons: Vec<Beacon>,
    /// Those of the nodes asked for that are registered.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub nodes: Vec<BeaconNode>,
    /// Those of the pairs asked for that may be introduced.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub pairs: Vec<(NodeId, NodeId)>,
}

/// What a beacon needs to know of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeaconNode {
    /// The node.
    pub node_id: NodeId,
    /// Its key.
    pub public_key: PublicKey,
    /// The address that it registered from.
    #[serde(default)]
    pub home: Option<std::net::IpAddr>,
}

/// What the beacons of one registry know each other by: whoever has it can deliver to all their nodes. In JSON
/// hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MeshSecret(#[serde(with = "hex::serde")] pub [u8; 32]);

impl std::fmt::Debug for MeshSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MeshSecret(..)")
    }
}

/// A network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Its number.
    pub id: NetworkId,
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
    /// When, in seconds since 1970.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub created: u64,
    /// The limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_members: Option<u32>,
    /// For people to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// With rules.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "is_false")]
    pub managed: bool,
    /// The rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<serde_json::Value>,
    /// With an expression policy.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "is_false")]
    pub has_expr_policy: bool,
}

/// A member of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedNode {
    /// The node.
    pub node_id: NodeId,
    /// Its address in this network.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub address: String,
    /// Whether everybody may see it; not told of offline members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its labels.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it is reached; of public nodes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_addr: Option<String>,
    /// Its last sign of life, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// Its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Its labels in this network.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub member_tags: Vec<String>,
    /// Not registered at the moment.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "is_false")]
    pub offline: bool,
}

/// A membership.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinedNetwork {
    /// The network.
    pub network_id: NetworkId,
    /// The address in it.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub address: String,
    /// Rules to carry out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<serde_json::Value>,
    /// Policy to carry out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expr_policy: Option<serde_json::Value>,
}

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteNotice {
    /// Into which network.
    pub network_id: NetworkId,
    /// By whom.
    pub inviter_id: NodeId,
    /// When, in seconds since 1970.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub timestamp: u64,
}

/// The role of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRole {
    /// The network.
    pub network_id: NetworkId,
    /// The member.
    pub target_node_id: NodeId,
    /// Its role.
    pub role: Role,
}

/// Labels of one member, or of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberTags {
    /// The network.
    pub network_id: NetworkId,
    /// The member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_node_id: Option<NodeId>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// The labels of all, by node number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<BTreeMap<String, Vec<String>>>,
}

/// The limits of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// The network.
    pub network_id: NetworkId,
    /// 0 for no limit.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub max_members: u32,
    /// Empty for all.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub allowed_ports: Vec<u16>,
    /// For people to read.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub description: String,
}

/// Who may see a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Everybody.
    Public,
    /// Trusted peers and members of the same networks.
    #[default]
    Private,
}

/// What a member may do in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything; one in each network.
    Owner,
    /// Invite, remove, rename, limit.
    Admin,
    /// Take part.
    Member,
}

/// A reply that means nothing.
#[derive(Debug, thiserror::Error)]
#[error("not a reply of a registry: {0}")]
pub struct ResponseError(serde_json::Error);

impl Response {
    /// Reads the content of a frame. Whatever carries an `error` is an [`Response::Error`].
    ///
    /// # Errors
    /// [`ResponseError`] if it is nothing this side knows.
    pub fn parse(json: &[u8]) -> Result<Self, ResponseError> {
        #[derive(Deserialize)]
        struct Head {
            error: Option<String>,
        }
        let head: Head = serde_json::from_slice(json).map_err(ResponseError)?;
        match head.error {
            Some(error) => Ok(Self::Error { error }),
            None => serde_json::from_slice(json).map_err(ResponseError),
        }
    }

    /// The content of a frame.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "no map has keys other than text, and no number is infinite")]
        serde_json::to_vec(self).expect("replies are plain JSON")
    }

    /// A refusal.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self::Error { error: text.into() }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}
