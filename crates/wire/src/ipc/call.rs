//! Our own calls: what the reference has no command for, as JSON in both directions.

use serde::{Deserialize, Serialize};

use super::paths::{Nat, OwnCandidate};
use crate::{
    Addr, NetworkId, NodeId, Port, PublicKey, StreamId, capture, hooks, mailbox, mailboxes, networks, outbox,
    policy, received, serving, tasks,
};

/// A question or order to the daemon. The result of each is named in its description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// How the daemon runs: [`Status`].
    Status,
    /// Ends the daemon in order: [`Done`], before it goes.
    Shutdown,
    /// One round trip to a peer's node, no application involved: [`Pong`].
    Ping {
        /// The peer.
        node: NodeId,
        /// Bytes of payload.
        #[serde(default)]
        size: u16,
        /// How long to wait.
        timeout_ms: u64,
    },
    /// Why a peer is reached as it is, or is not: [`Why`](super::paths::Why).
    Why {
        /// The peer.
        node: NodeId,
        /// How long a try to reach it may take; 0 tries nothing and asks nobody.
        timeout_ms: u64,
    },
    /// What the network in front of this node lets through: [`Netcheck`](super::paths::Netcheck).
    Netcheck {
        /// How long to wait for beacon and registry.
        timeout_ms: u64,
    },
    /// A node by hostname, address or number, as this node may see it: [`Resolved`](super::Resolved).
    Resolve {
        /// The text the user gave.
        target: String,
    },
    /// What the registry knows of a node: the registry's JSON.
    Lookup {
        /// The node.
        node: NodeId,
    },
    /// All streams: an array of [`ConnInfo`](super::ConnInfo).
    Connections,
    /// Ends a stream of any client: [`Done`].
    Disconnect {
        /// The stream.
        stream: StreamId,
    },
    /// Peers with a tunnel: an array of [`PeerInfo`](super::PeerInfo).
    Peers,
    /// Every relation to another node: [`TrustList`].
    TrustList,
    /// Waits until a peer has answered a handshake: [`TrustWait`]. Running out of time is no failure.
    WaitTrust {
        /// The peer.
        node: NodeId,
        /// How long to wait.
        timeout_ms: u64,
    },
    /// Whether requests for trust are agreed to without asking: [`AutoApprove`]. Asks only, if not given.
    AutoApprove {
        /// The new setting.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enabled: Option<bool>,
    },
    /// Forgets what [`Status::alarms`] lists, because the owner has read it: [`Done`].
    ClearAlarms {
        /// Also the keys of registries: those that they show next are believed.
        #[serde(default)]
        registry_keys: bool,
    },
    /// The key that may replace this node's own, if that is lost: [`Recovery`]. Asks only, if nothing is to change.
    Recovery {
        /// What to change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        change: Option<RecoveryChange>,
    },
    /// The settings in force: an object.
    Config,
    /// Delivered messages: [`mailbox::Reply`].
    Mailbox(mailbox::Request),
    /// Files that peers sent: [`received::Reply`].
    Received(received::Request),
    /// Messages to be delivered: [`outbox::Reply`].
    Outbox(outbox::Request),
    /// Requests and their answers: [`serving::Reply`].
    Serving(serving::Request),
    /// Tasks: [`tasks::Reply`].
    Tasks(tasks::Request),
    /// What happens when a message arrives: [`hooks::Reply`].
    Hooks(hooks::Request),
    /// What peers may do: [`policy::Reply`].
    Policy(policy::Request),
    /// Mailboxes of this node and for others: [`mailboxes::Reply`].
    Mailboxes(mailboxes::Request),
    /// Networks of this node, and requests about networks: [`networks::Reply`].
    Networks(networks::Request),
    /// How the event broker stands: [`EventsStatus`](super::EventsStatus).
    Events,
    /// Shows this client packets of the node from now on, which it fetches by
    /// [`Request::Packets`](super::Request::Packets), until its connection ends: [`Done`]. One capture for each client;
    /// a later call replaces it.
    Capture(capture::Filter),
}

impl Call {
    /// The name that tells it apart in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Shutdown => "shutdown",
            Self::Ping { .. } => "ping",
            Self::Why { .. } => "why",
            Self::Netcheck { .. } => "netcheck",
            Self::Resolve { .. } => "resolve",
            Self::Lookup { .. } => "lookup",
            Self::Connections => "connections",
            Self::Disconnect { .. } => "disconnect",
            Self::Peers => "peers",
            Self::TrustList => "trust_list",
            Self::WaitTrust { .. } => "wait_trust",
            Self::AutoApprove { .. } => "auto_approve",
            Self::ClearAlarms { .. } => "clear_alarms",
            Self::Recovery { .. } => "recovery",
            Self::Config => "config",
            Self::Mailbox(_) => "mailbox",
            Self::Received(_) => "received",
            Self::Outbox(_) => "outbox",
            Self::Serving(_) => "serving",
            Self::Tasks(_) => "tasks",
            Self::Hooks(_) => "hooks",
            Self::Policy(_) => "policy",
            Self::Mailboxes(_) => "mailboxes",
            Self::Networks(_) => "networks",
            Self::Events => "events",
            Self::Capture(_) => "capture",
        }
    }
}

/// A change of the recovery key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryChange {
    /// This one, from now on.
    Name(PublicKey),
    /// None.
    Remove,
}

/// The recovery key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recovery {
    /// What this node's record names.
    pub key: Option<PublicKey>,
}

/// Something that was said of a node, or in a registry's name, and is not believed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Alarm {
    /// About which node; left out if it is about a registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// What kind: `key`, `record`, `old_record`, `no_record`, `name` or `registry_key`.
    pub kind: String,
    /// In a sentence.
    pub text: String,
    /// When it was said first, Unix time in seconds.
    pub first: u64,
    /// When last.
    pub last: u64,
    /// How often.
    pub times: u64,
}

/// It is done; there is nothing to say about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// How the daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// Version of its software.
    pub version: String,
    /// Seconds since its start.
    pub uptime_secs: u64,
    /// Where its state is kept.
    pub home: String,
    /// Directory of delivered messages.
    pub inbox_dir: String,
    /// Directory of delivered files.
    pub received_dir: String,
    /// Where clients reach it.
    pub socket: String,
    /// Where peers reach it: the local UDP address.
    pub listen: String,
    /// Its number in the registry; unset before registration.
    pub node_id: NodeId,
    /// Its address; unset before registration.
    pub address: Addr,
    /// Its name, or empty.
    pub hostname: String,
    /// Its identity key.
    pub public_key: Option<PublicKey>,
    /// Does it answer everyone?
    pub public: bool,
    /// Are tunnels encrypted?
    pub encrypt: bool,
    /// Are requests for trust agreed to without asking?
    pub auto_approve: bool,
    /// The connection to the registry.
    pub registry: RegistryStatus,
    /// UDP address of the beacon; empty without one.
    pub beacon: String,
    /// How the beacon is reached: `udp` or `web`.
    pub transport: String,
    /// The way to it over the web, while that is used or tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web: Option<WebLink>,
    /// Does the beacon answer? Unknown until it did or was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon_answers: Option<bool>,
    /// Where this node believes it can be reached.
    pub candidates: Vec<OwnCandidate>,
    /// The box in front of it, as it was measured last.
    pub nat: Nat,
    /// The services that run inside the daemon.
    pub services: Vec<ServiceStatus>,
    /// Peers with a tunnel.
    pub peers: u64,
    /// Live streams.
    pub connections: u64,
    /// Requests for trust that wait for an answer.
    pub pending: u64,
    /// Why the owner's rules cannot be used. While there is a reason, nothing is allowed to other nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_broken: Option<String>,
    /// Says so if the key of this node ends within a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_expiry: Option<String>,
    /// What was said and is not believed, until the owner has read it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<Alarm>,
    /// Where the metrics are read, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
}

/// The connection to the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryStatus {
    /// `host:port`.
    pub address: String,
    /// Does it answer?
    pub connected: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What protects the connection, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RegistryTls>,
}

/// What protects the connection to the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryTls {
    /// Is it TLS?
    pub used: bool,
    /// SHA-256 of the registry's certificate, 64 hexadecimal digits; empty without TLS.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// Must the certificate stay the same? If not, an authority vouches for it, or the registry is on this machine.
    pub pinned: bool,
}

/// The way to the beacon over the web.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebLink {
    /// The URL that is or was last tried; empty before the first attempt has ended.
    pub url: String,
    /// Does it work?
    pub connected: bool,
    /// For how long, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_secs: Option<u64>,
    /// Through which proxy, `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Why it does not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A service that runs inside the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: Port,
}

/// The answer to a ping.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pong {
    /// The peer.
    pub node_id: NodeId,
    /// Round-trip time in microseconds.
    pub rtt_us: u64,
    /// Did it go through the relay?
    pub relay: bool,
    /// Where the peer is reached, `ip:port`.
    pub endpoint: String,
}

/// How a node stands to us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustState {
    /// No relation, or one that ended.
    #[default]
    None,
    /// It asked, and waits for our answer.
    Pending,
    /// We asked, and wait for its answer.
    Requested,
    /// Both agreed.
    Trusted,
    /// It declined.
    Rejected,
    /// It or we took trust back.
    Revoked,
}

/// Relations to other nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrustList {
    /// By number.
    pub nodes: Vec<TrustEntry>,
}

/// The relation to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustEntry {
    /// The node.
    pub node_id: NodeId,
    /// Its address in the backbone network.
    pub address: Addr,
    /// Its name, if known.
    #[serde(default)]
    pub hostname: String,
    /// How it stands to us.
    pub state: TrustState,
    /// Its key, if known.
    #[serde(default)]
    pub public_key: Option<PublicKey>,
    /// Since when, Unix time in seconds.
    #[serde(default)]
    pub since: u64,
    /// Its reason, or ours when we asked. Untrusted text.
    #[serde(default)]
    pub justification: String,
    /// Networks that are the only reason to trust it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkId>,
}

/// The end of a wait for trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustWait {
    /// The peer.
    pub node_id: NodeId,
    /// How it stands to us now.
    pub state: TrustState,
    /// What the peer said when it declined. Untrusted text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Whether requests for trust are agreed to without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoApprove {
    /// The setting in force.
    pub enabled: bool,
}
