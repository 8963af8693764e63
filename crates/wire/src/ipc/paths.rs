//! The JSON about the ways to peers, and about the network in front of this node.
//!
//! Ages are in milliseconds where they matter by the second, and in seconds where only people look at them. What is not
//! known is left out.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{LanStatus, PortMappingStatus, TrustState, WebLink};
use crate::{Addr, NetworkId, NodeId, path};

/// Why a peer is reached as it is, or is not: the answer to [`Call::Why`](super::Call::Why).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Why {
    /// The peer.
    pub node_id: NodeId,
    /// Its address in the backbone network.
    pub address: Addr,
    /// Its name, if known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// All of it in one sentence.
    pub summary: String,
    /// How it stands to us.
    pub trust: TrustState,
    /// Networks that are the only reason to trust it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkId>,
    /// Are keys agreed?
    pub encrypted: bool,
    /// The way in use.
    pub path: PathKind,
    /// Where frames go: an address of the peer, or the beacon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Milliseconds since this way came into use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Smoothed round trip of it in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Milliseconds since the peer was last heard, over any way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard_ms: Option<u64>,
    /// Seconds since the registry last heard of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_secs: Option<u64>,
    /// What the registry says of it.
    pub registry: Listing,
    /// What the registry said instead, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registry_error: String,
    /// What was said of it and is not believed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// What became of the try that this question made; left out if it made none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Every address of the peer, in the order in which they are tried.
    pub candidates: Vec<Candidate>,
    /// The way through the beacon.
    pub relay: Relay,
    /// Why frames go through the beacon, when they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relayed_because: Option<RelayCause>,
    /// Milliseconds until a better way is looked for, if that is planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try_ms: Option<u64>,
    /// The box in front of this node.
    pub our_nat: Nat,
    /// The box in front of the peer, as the peer says.
    pub their_nat: Nat,
}

/// The kind of way to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// None is known.
    #[default]
    Unknown,
    /// Straight to an address of the peer.
    Direct,
    /// Through the beacon.
    Relayed,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

/// What the registry says of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listing {
    /// It was not asked, or has not answered.
    #[default]
    NotAsked,
    /// It knows the node, and where it is.
    Listed,
    /// It knows the node, which does not let us see where it is.
    Private,
    /// It does not know the node.
    NotFound,
    /// It refuses to say.
    Refused,
    /// It cannot be reached.
    Unreachable,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

/// What became of a try.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// Did the peer answer?
    pub answered: bool,
    /// The round trip of the answer in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// How long was waited, in milliseconds.
    pub waited_ms: u64,
}

/// One address of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The address.
    pub address: SocketAddr,
    /// How it became known.
    #[serde(default)]
    pub source: Source,
    /// Milliseconds since it was last tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_ms: Option<u64>,
    /// How often it was tried since it last answered.
    #[serde(default)]
    pub tries: u32,
    /// Milliseconds since it last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_ms: Option<u64>,
    /// Smoothed round trip of its answers in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Frames go there.
    #[serde(default)]
    pub in_use: bool,
}

/// How an address of a peer became known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The peer says so in its signed record.
    Record,
    /// The peer says so in its signed record: an address in its own network.
    RecordLan,
    /// The registry has it.
    Registry,
    /// The registry has it among the addresses of the peer's own network.
    RegistryLan,
    /// The peer named it: an address of its own.
    PeerHost,
    /// The peer named it: where its beacon sees it.
    PeerObserved,
    /// The peer named it: a port that its gateway maps.
    PeerMapped,
    /// The beacon introduced us.
    Introduced,
    /// The peer announced itself in our network.
    Lan,
    /// Authentic frames came from there.
    Frames,
    /// The peer was reached there in an earlier life of this node.
    Remembered,
    /// The registry says so, and the peer's signed record does not.
    Unsigned,
    /// Something that a later version knows.
    #[default]
    #[serde(other)]
    Other,
}

impl Source {
    /// As people say it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Record => "its signed record",
            Self::RecordLan => "signed, its local network",
            Self::Registry => "registry",
            Self::RegistryLan => "registry, its local network",
            Self::PeerHost => "peer, its interface",
            Self::PeerObserved => "peer, seen by its beacon",
            Self::PeerMapped => "peer, mapped by its gateway",
            Self::Introduced => "introduced by the beacon",
            Self::Lan => "announced in our network",
            Self::Frames => "its frames came from there",
            Self::Remembered => "remembered",
            Self::Unsigned => "registry, unsigned",
            Self::Other => "other",
        }
    }
}

/// The way through the beacon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Relay {
    /// How it stands.
    pub state: RelayState,
    /// The beacon of this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon: Option<SocketAddr>,
    /// Milliseconds since the beacon last answered this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon_ms: Option<u64>,
    /// Milliseconds since a frame of the peer last came through it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard_ms: Option<u64>,
    /// Smoothed round trip through it in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
}

/// How the way through the beacon stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// Nobody has tried to reach the peer through it.
    #[default]
    Untried,
    /// This node has no beacon.
    NoBeacon,
    /// The beacon does not answer this node.
    BeaconSilent,
    /// The beacon says that it does not know the peer.
    NotRegistered,
    /// The beacon answers, and nothing has come from the peer through it.
    NoAnswer,
    /// Frames of the peer have come through it.
    Works,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

impl RelayState {
    /// As people say it, behind "relay: ".
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Untried => "not tried",
            Self::NoBeacon => "no beacon",
            Self::BeaconSilent => "the beacon does not answer",
            Self::NotRegistered => "not registered",
            Self::NoAnswer => "no answer",
            Self::Works => "works",
            Self::Other => "unknown",
        }
    }
}

/// Why frames go through the beacon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayCause {
    /// The peer asks for it.
    PeerWantsRelay,
    /// No other address of the peer is known.
    NoCandidates,
    /// The other addresses are being tried.
    Trying,
    /// No address answered, and with these two boxes none could.
    NatsDoNotFit,
    /// No address answered.
    NoAnswer,
    /// The direct way that was in use stopped answering.
    DirectLost,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

impl RelayCause {
    /// As people say it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::PeerWantsRelay => "the peer asks for it",
            Self::NoCandidates => "no other address of the peer is known",
            Self::Trying => "the direct addresses are being tried",
            Self::NatsDoNotFit => "the NATs on both sides let nothing through that was not asked for",
            Self::NoAnswer => "none of the direct addresses answers",
            Self::DirectLost => "the direct way stopped answering",
            Self::Other => "unknown",
        }
    }
}

/// The box in front of a node, in the words of RFC 4787.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nat {
    /// On what the outside address of a datagram depends.
    pub mapping: Behaviour,
    /// On what it depends whose datagrams are let in.
    pub filtering: Behaviour,
}

/// On what a behaviour depends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// There is no box.
    None,
    /// On nothing.
    EndpointIndependent,
    /// On the other side's address.
    AddressDependent,
    /// On the other side's address and port.
    AddressAndPortDependent,
    /// Not measured, not measurable, or something that a later version knows.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Behaviour {
    /// The name as the RFC writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address- and port-dependent",
            Self::Unknown => "unknown",
        }
    }
}

impl From<path::Behaviour> for Behaviour {
    fn from(behaviour: path::Behaviour) -> Self {
        match behaviour {
            path::Behaviour::Unknown => Self::Unknown,
            path::Behaviour::None => Self::None,
            path::Behaviour::EndpointIndependent => Self::EndpointIndependent,
            path::Behaviour::AddressDependent => Self::AddressDependent,
            path::Behaviour::AddressAndPortDependent => Self::AddressAndPortDependent,
        }
    }
}

impl From<path::Nat> for Nat {
    fn from(nat: path::Nat) -> Self {
        Self { mapping: nat.mapping.into(), filtering: nat.filtering.into() }
    }
}

/// The network in front of this node: the answer to [`Call::Netcheck`](super::Call::Netcheck).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Netcheck {
    /// Do datagrams get through to the beacon and back? Unknown without a beacon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<bool>,
    /// The beacon.
    pub beacon: Answering,
    /// The registry.
    pub registry: Answering,
    /// The local UDP address of the tunnels.
    pub listen: String,
    /// Where this node believes it can be reached.
    pub candidates: Vec<OwnCandidate>,
    /// Has it an IPv6 address that others could reach?
    pub ipv6: bool,
    /// The address the beacon sees this node at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<SocketAddr>,
    /// The box in front of it.
    pub nat: Nat,
    /// Was the mapping measured against two addresses of the beacon? With one, a box that is address-dependent cannot be
    /// told from one that is endpoint-independent.
    pub second_address: bool,
    /// Is the outside port the inside one?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_preserved: Option<bool>,
    /// Does the box send in again what goes to its own outside address?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hairpinning: Option<bool>,
    /// How tunnels are carried.
    pub transport: String,
    /// The way to the beacon over the web, while that is used or tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web: Option<WebLink>,
    /// What the gateway does for the node.
    pub port_mapping: PortMappingStatus,
    /// Whether peers in the same network find each other.
    pub lan_discovery: LanStatus,
}

/// Whether somebody answers, and how soon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answering {
    /// Who; empty if there is none.
    pub address: String,
    /// Does it answer?
    pub answers: bool,
    /// Round trip in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// An address of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnCandidate {
    /// The address.
    pub address: SocketAddr,
    /// How the node knows of it.
    #[serde(default)]
    pub kind: OwnKind,
}

/// How a node knows one of its own addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnKind {
    /// An interface has it.
    Host,
    /// The beacon sees it.
    Observed,
    /// A gateway maps it.
    Mapped,
    /// Something that a later version knows.
    #[default]
    #[serde(other)]
    Other,
}

impl OwnKind {
    /// As people say it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Host => "interface",
            Self::Observed => "seen by the beacon",
            Self::Mapped => "mapped by the gateway",
            Self::Other => "other",
        }
    }
}

impl From<path::Candidate> for OwnCandidate {
    fn from(candidate: path::Candidate) -> Self {
        let kind = match candidate.kind {
            path::Kind::Host => OwnKind::Host,
            path::Kind::Observed => OwnKind::Observed,
            path::Kind::Mapped => OwnKind::Mapped,
        };
        Self { address: candidate.addr, kind }
    }
}

/// What is known about a peer that does not answer; goes with a [`Failure`](super::Failure).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unreachable {
    /// The peer.
    pub node_id: NodeId,
    /// Its name, if known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Seconds since it was last heard, here or by the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_secs: Option<u64>,
    /// The addresses that were tried in vain.
    pub tried: Vec<SocketAddr>,
    /// The way through the beacon.
    pub relay: RelayState,
    /// Why the registry could not be asked, if it could not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registry_error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn what_is_not_known_is_left_out_and_read_back_as_such() {
        let nothing = Unreachable { node_id: NodeId(2), ..Unreachable::default() };
        assert_eq!(text(&nothing), r#"{"node_id":2,"tried":[],"relay":"untried"}"#);
        assert_eq!(serde_json::from_str::<Unreachable>(&text(&nothing)).unwrap(), nothing);
        assert_eq!(serde_json::from_str::<Why>("{}").unwrap(), Why::default());
        assert_eq!(serde_json::from_str::<Netcheck>("{}").unwrap(), Netcheck::default());
    }

    #[test]
    fn a_candidate_is_written_with_its_source_and_ages() {
        let candidate = Candidate {
            address: "192.0.2.7:4000".parse().unwrap(),
            source: Source::PeerObserved,
            tried_ms: Some(1500),
            tries: 2,
            answered_ms: None,
            rtt_us: None,
            in_use: false,
        };
        let expected = r#"{"address":"192.0.2.7:4000","source":"peer_observed","tried_ms":1500,"tries":2,"in_use":false}"#;
        assert_eq!(text(&candidate), expected);
        assert_eq!(serde_json::from_str::<Candidate>(expected).unwrap(), candidate);
    }

    #[test]
    fn words_of_a_later_version_are_read() {
        let why: Why = serde_json::from_str(
            r#"{"path":"carrier_pigeon","registry":"x","relayed_because":"x","relay":{"state":"x"},
                "our_nat":{"mapping":"x"},"candidates":[{"address":"[::1]:1","source":"x"}],"more":1}"#,
        )
        .unwrap();
        assert_eq!((why.path, why.registry), (PathKind::Other, Listing::Other));
        assert_eq!((why.relayed_because, why.relay.state), (Some(RelayCause::Other), RelayState::Other));
        assert_eq!((why.our_nat.mapping, why.candidates[0].source), (Behaviour::Unknown, Source::Other));
    }
}
