//! The JSON of requests and replies. Reading is tolerant, because both older and newer daemons answer: what is
//! missing or `null` takes its default, what is unknown is passed over.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{INITIAL_CREDIT, NetworkStatus};
use crate::{Addr, NetworkId, NodeId, Port, PublicKey, StreamId};

/// What a daemon of the extended dialect offers (in `HelloOk`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Features {
    /// Version of the daemon's software.
    pub version: String,
    /// Bytes that may be sent on a new stream in each direction before more is granted.
    pub initial_credit: u32,
}

impl Default for Features {
    fn default() -> Self {
        Self { version: String::new(), initial_credit: INITIAL_CREDIT }
    }
}

/// About the node (spec 1.9). The field names are the reference's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Number in the registry; unset before registration.
    pub node_id: NodeId,
    /// Address in the backbone network; unset before registration.
    #[serde(deserialize_with = "addr_or_unset")]
    pub address: Addr,
    /// Name in the registry, or empty.
    #[serde(deserialize_with = "or_default")]
    pub hostname: String,
    /// Contact of the owner, or empty.
    #[serde(deserialize_with = "or_default")]
    pub email: String,
    /// UDP address that peers are told, `ip:port`.
    #[serde(deserialize_with = "or_default")]
    pub endpoint: String,
    /// UDP address of the beacon, `ip:port`.
    #[serde(deserialize_with = "or_default")]
    pub beacon_addr: String,
    /// Version of the daemon's software.
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    /// What the daemon can do beyond the base, by name.
    #[serde(deserialize_with = "or_default")]
    pub features: Vec<String>,
    /// How tunnels are carried.
    #[serde(deserialize_with = "or_default")]
    pub transport: String,
    /// Message of the day, or empty.
    #[serde(deserialize_with = "or_default")]
    pub motd: String,
    /// Seconds since the start of the daemon.
    pub uptime_secs: u64,
    /// Live streams.
    pub connections: u64,
    /// Claimed ports.
    pub ports: u64,
    /// Peers with a tunnel.
    pub peers: u64,
    /// Of those, with an encrypted one.
    pub encrypted_peers: u64,
    /// Of those, with a proven identity.
    pub authenticated_peers: u64,
    /// Of those, reached through the relay.
    pub relay_peer_count: u64,
    /// Are tunnels encrypted?
    pub encrypt: bool,
    /// Is the identity kept on disk?
    pub identity: bool,
    /// The identity key.
    #[serde(with = "maybe_key")]
    pub public_key: Option<PublicKey>,
    /// Networks beside the backbone.
    #[serde(deserialize_with = "or_default")]
    pub networks: Vec<NetworkAddress>,
    /// The peers.
    #[serde(deserialize_with = "or_default")]
    pub peer_list: Vec<PeerInfo>,
    /// The list of peers was cut to fit a frame.
    #[serde(skip_serializing_if = "is_false")]
    pub peer_list_truncated: bool,
    /// The streams.
    #[serde(deserialize_with = "or_default")]
    pub conn_list: Vec<ConnInfo>,
    /// The list of streams was cut to fit a frame.
    #[serde(skip_serializing_if = "is_false")]
    pub conn_list_truncated: bool,
    /// Payload bytes sent to peers.
    pub bytes_sent: u64,
    /// Payload bytes received from peers.
    pub bytes_recv: u64,
    /// Packets sent to peers.
    pub pkts_sent: u64,
    /// Packets received from peers.
    pub pkts_recv: u64,
    /// Requests for trust that wait for an answer.
    pub handshake_pending_count: u64,
    /// Incoming streams dropped because nobody accepted them.
    pub accept_queue_drops: u64,
    /// Webhook events dropped because the queue was full.
    pub webhook_queue_dropped: u64,
    /// Webhook events not sent because the receiver kept failing.
    pub webhook_circuit_skips: u64,
    /// The network around the node. The reference says nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStatus>,
    /// Packets sealed and opened.
    pub tunnel_encryption_success: u64,
    /// Packets that could not be opened.
    pub tunnel_encryption_failure: u64,
}

/// The node's address in one more network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkAddress {
    /// The network.
    pub network_id: NetworkId,
    /// The address in it.
    #[serde(deserialize_with = "addr_or_unset")]
    pub address: Addr,
    /// Its name. The reference does not say it, nor what follows.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub name: String,
    /// Whether its members are trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<bool>,
    /// When the membership ends, Unix time in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// One peer with a tunnel. What the reference does not know is left out when empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerInfo {
    /// The peer.
    pub node_id: NodeId,
    /// Where packets to it are sent, `ip:port`.
    #[serde(deserialize_with = "or_default")]
    pub endpoint: String,
    /// Is the tunnel encrypted?
    pub encrypted: bool,
    /// Did the peer prove its identity?
    pub authenticated: bool,
    /// Are the keys of the moment? With an earlier release they are not (docs/handshake.md).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_secret: Option<bool>,
    /// Is it reached through the relay?
    pub relay: bool,
    /// Its address in the backbone network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Addr>,
    /// Its name, if known.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub hostname: String,
    /// Smoothed round-trip time in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Milliseconds since it was last heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// Networks that are the only reason to trust it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkId>,
    /// Bytes sent to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_sent: Option<u64>,
    /// Bytes received from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_recv: Option<u64>,
    /// What was said of it and is not believed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
}

/// One stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnInfo {
    /// The stream.
    pub id: StreamId,
    /// Port at this end.
    pub local_port: Port,
    /// The other node.
    #[serde(deserialize_with = "addr_or_unset")]
    pub remote_addr: Addr,
    /// Port at the other end.
    pub remote_port: Port,
    /// As in TCP: `ESTABLISHED`, `FIN_WAIT`, ...
    #[serde(deserialize_with = "or_default")]
    pub state: String,
    /// Can the peer end one direction alone? One of 1.18 ends both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_close: Option<bool>,
    /// Congestion window in bytes.
    pub cong_win: u64,
    /// Slow-start threshold in bytes.
    pub ssthresh: u64,
    /// Bytes sent and not acknowledged.
    pub in_flight: u64,
    /// Smoothed round-trip time in milliseconds.
    pub srtt_ms: u64,
    /// Its variation in milliseconds.
    pub rttvar_ms: u64,
    /// Segments sent and not acknowledged.
    pub unacked: u64,
    /// Segments received out of order.
    pub ooo_buf: u64,
    /// Bytes the peer can take.
    pub peer_recv_win: u64,
    /// Bytes we can take.
    pub recv_win: u64,
    /// Is a loss being repaired?
    pub in_recovery: bool,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_recv: u64,
    /// Segments sent.
    pub segs_sent: u64,
    /// Segments received.
    pub segs_recv: u64,
    /// Segments sent again after a time-out.
    pub retransmits: u64,
    /// Segments sent again at once.
    pub fast_retx: u64,
    /// Selective acknowledgements received.
    pub sack_recv: u64,
    /// Selective acknowledgements sent.
    pub sack_sent: u64,
    /// Repeated acknowledgements received.
    pub dup_acks: u64,
}

/// Counters only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// `ok`, or what is wrong.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// Seconds since the start of the daemon.
    pub uptime_seconds: u64,
    /// Live streams.
    pub connections: u64,
    /// Peers with a tunnel.
    pub peers: u64,
    /// Of those, with an encrypted one.
    pub encrypted_peers: u64,
    /// Of those, with a proven identity.
    pub authenticated_peers: u64,
    /// Of those, reached through the relay.
    pub relay_peer_count: u64,
    /// Payload bytes sent to peers.
    pub bytes_sent: u64,
    /// Payload bytes received from peers.
    pub bytes_recv: u64,
    /// Requests for trust that wait for an answer.
    pub handshake_pending_count: u64,
    /// Incoming streams dropped because nobody accepted them.
    pub accept_queue_drops: u64,
    /// Webhook events dropped because the queue was full.
    pub webhook_queue_dropped: u64,
    /// Webhook events not sent because the receiver kept failing.
    pub webhook_circuit_skips: u64,
    /// UDP address of the beacon, `ip:port`.
    #[serde(deserialize_with = "or_default")]
    pub beacon_addr: String,
    /// How the beacon is reached: `udp` or `web`.
    #[serde(deserialize_with = "or_default")]
    pub transport: String,
    /// Local programs that are connected. The reference does not say it, nor what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub programs: Option<u64>,
    /// Packets that wait until keys are agreed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_packets: Option<u64>,
    /// Bytes that programs wrote and that wait for room in their streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_bytes: Option<u64>,
    /// Frames from the network that were of no use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped_frames: Option<u64>,
}

/// What became of a handshake request, approval or rejection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// The other node.
    pub node_id: NodeId,
    /// `sent`, `approved`, `rejected`; left out after a revocation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
}

/// Nodes that asked for trust.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PendingList {
    /// Oldest first.
    #[serde(deserialize_with = "or_default")]
    pub pending: Vec<Pending>,
}

/// A node that asked for trust.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pending {
    /// The node.
    pub node_id: NodeId,
    /// Its key; unknown when the request came through the registry.
    #[serde(with = "maybe_key")]
    pub public_key: Option<PublicKey>,
    /// Its reason, written by its owner: untrusted text.
    #[serde(deserialize_with = "or_default")]
    pub justification: String,
    /// Unix time in seconds.
    pub received_at: u64,
    /// Its name, if known.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub hostname: String,
}

/// Trusted nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrustedList {
    /// By number.
    #[serde(deserialize_with = "or_default")]
    pub trusted: Vec<Trusted>,
}

/// A trusted node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trusted {
    /// The node.
    pub node_id: NodeId,
    /// Its key, if known.
    #[serde(with = "maybe_key")]
    pub public_key: Option<PublicKey>,
    /// Did both sides say so?
    pub mutual: bool,
    /// The network it was met in.
    pub network: NetworkId,
    /// Unix time in seconds.
    pub approved_at: u64,
    /// Its name, if known.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub hostname: String,
    /// The name of `network`, if that is the reason for the trust.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub network_name: String,
    /// When its owner last replaced its key, and by whose signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_changed: Option<KeyChanged>,
}

/// A key was replaced by another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChanged {
    /// When this node learned of it, Unix time in seconds.
    pub at: u64,
    /// Whose signature said so.
    pub by: KeyChangedBy,
}

/// Whose signature replaced a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyChangedBy {
    /// That of the key before.
    OldKey,
    /// That of the recovery key.
    RecoveryKey,
}

impl KeyChangedBy {
    /// As people say it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::OldKey => "old key",
            Self::RecoveryKey => "recovery key",
        }
    }
}

/// The end of a wait for trust.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waited {
    /// The other node.
    pub node_id: NodeId,
    /// Is it trusted now?
    pub trusted: bool,
}

macro_rules! typed_replies {
    ($($(#[$doc:meta])* $name:ident = $tag:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "type", rename = $tag)]
        pub struct $name { $($(#[$field_doc])* #[serde(default)] pub $field: $type),* }
    )+};
}

typed_replies! {
    /// A hostname's owner.
    Resolved = "resolve_hostname_ok" {
        /// The node.
        node_id: NodeId,
        /// Its address.
        #[serde(deserialize_with = "addr_or_unset")]
        address: Addr,
        /// The name.
        hostname: String,
        /// Does it answer everyone?
        public: bool,
    }
    /// The name of this node was set.
    HostnameSet = "set_hostname_ok" {
        /// The new name.
        hostname: String,
        /// This node.
        node_id: NodeId,
    }
    /// The visibility of this node was set.
    VisibilitySet = "set_visibility_ok" {
        /// This node.
        node_id: NodeId,
        /// `public` or `private`.
        visibility: String,
    }
    /// This node left the registry.
    Deregistered = "deregister_ok" {}
    /// The tags of this node were set.
    TagsSet = "set_tags_ok" {
        /// This node.
        node_id: NodeId,
        /// The new tags.
        #[serde(deserialize_with = "or_default")]
        tags: Vec<String>,
    }
    /// A signed request of an application.
    SignedEnvelope = "sign_envelope_ok" {
        /// Who signed.
        #[serde(deserialize_with = "addr_or_unset")]
        address: Addr,
        /// The signed text.
        envelope: String,
        /// Base64.
        signature: String,
    }
    /// What is known about a signed request.
    EnvelopeCheck = "verify_envelope_ok" {
        /// Is the signature right and recent?
        valid: bool,
        /// Why not.
        #[serde(skip_serializing_if = "String::is_empty")]
        reason: String,
        /// Who signed.
        #[serde(skip_serializing_if = "Option::is_none")]
        node_id: Option<NodeId>,
        /// Its address.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<Addr>,
        /// Where the key was taken from.
        #[serde(skip_serializing_if = "String::is_empty")]
        verified_via: String,
        /// Is the signer trusted?
        #[serde(skip_serializing_if = "Option::is_none")]
        trusted: Option<bool>,
        /// Do we share a network with it?
        #[serde(skip_serializing_if = "Option::is_none")]
        network_member: Option<bool>,
    }
}

/// Where events are posted to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookSet {
    /// Empty when off.
    #[serde(deserialize_with = "or_default")]
    pub webhook: String,
}

/// A datagram went to a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Broadcasted {
    /// Members it was sent to.
    pub sent: u64,
}

/// What became of the wish to leave the relay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preferred {
    /// The peer.
    pub node_id: NodeId,
    /// Was there a tunnel?
    pub had_tunnel: bool,
    /// Did it run through the relay?
    pub was_relay_active: bool,
    /// Was it told to stay there?
    pub was_relay_pinned: bool,
    /// Was a new key exchange sent?
    pub pila_pushed: bool,
    /// Why the peer's address is not known; empty when it is.
    pub resolve_error: String,
}

/// A badge to present.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Badge {
    /// The badge.
    pub badge: String,
    /// Its signature.
    pub badge_sig: String,
}

/// An enrollment for recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Enrollment {
    /// The enrollment.
    pub enrollment: String,
    /// Its signature.
    pub enrollment_sig: String,
}

/// A request of an application to be signed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SignEnvelope {
    /// Whom it is for.
    pub audience: String,
    /// The body in base64, unless `body_hash` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_b64: Option<String>,
    /// SHA-256 of the body, 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_hash: Option<String>,
    /// 16 hexadecimal digits; chosen by the daemon when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

/// A signed request to be checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyEnvelope {
    /// Ask the registry, too, whether the signer is in good standing?
    pub check_standing: bool,
    /// The signed text.
    pub envelope: String,
    /// How far the clocks may differ, in seconds; 0 for the default.
    pub max_skew_secs: u64,
    /// Base64.
    pub signature: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

/// `null`, which the reference writes for empty lists, reads as the default.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An empty address, which the reference writes before registration, reads as unset.
fn addr_or_unset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Addr, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    match text.as_deref() {
        None | Some("") => Ok(Addr::UNSET),
        Some(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// A key that may be unknown: empty text.
mod maybe_key {
    use super::{Deserialize, Deserializer, PublicKey, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        key: &Option<PublicKey>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match key {
            Some(key) => key.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PublicKey>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        match text.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
        }
    }
}
