//! The JSON about the network that a daemon is in: what its gateway maps, what it announces around it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The network around a node, as far as the node deals with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkStatus {
    /// Addresses of this host's interfaces with the tunnel's port.
    pub addresses: Vec<SocketAddr>,
    /// What the gateway does for the node.
    pub port_mapping: PortMappingStatus,
    /// Whether peers in the same network find each other.
    pub lan_discovery: LanStatus,
}

/// What the gateway does for a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortMappingStatus {
    /// How it stands.
    pub state: MappingState,
    /// How the gateway was asked, if it granted something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<MappingProtocol>,
    /// What it maps to the node: datagrams that come there reach it, whoever sent them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<SocketAddr>,
    /// The gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Seconds until the mapping would end if it were not renewed; unset for one without an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_secs: Option<u64>,
    /// Why there is no mapping, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// How the mapping stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MappingState {
    /// It is switched off, or the daemon listens on one address only.
    #[default]
    Off,
    /// The host has an address that the world can reach, or no gateway.
    NotNeeded,
    /// The gateway is being asked.
    Asking,
    /// There is one.
    Mapped,
    /// The gateway grants none, or does not answer. It is asked again after a while.
    Failed,
    /// Something that a later version knows.
    #[serde(other)]
    Unknown,
}

/// How a gateway is asked for a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MappingProtocol {
    /// RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
    /// Something that a later version knows.
    #[serde(other)]
    Unknown,
}

impl MappingProtocol {
    /// The name as people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether peers in the same network find each other (mDNS).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LanStatus {
    /// Whether the node announces itself and listens for others.
    pub on: bool,
    /// Why not, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_written_in_words_and_what_is_missing_takes_its_default() {
        let status = PortMappingStatus {
            state: MappingState::Mapped,
            protocol: Some(MappingProtocol::NatPmp),
            external: Some("203.0.113.9:4000".parse().unwrap()),
            gateway: Some("192.168.1.1".parse().unwrap()),
            expires_secs: Some(1800),
            reason: String::new(),
        };
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(
            text,
            r#"{"state":"mapped","protocol":"nat-pmp","external":"203.0.113.9:4000","gateway":"192.168.1.1","expires_secs":1800}"#
        );
        assert_eq!(serde_json::from_str::<PortMappingStatus>(&text).unwrap(), status);
        let later = serde_json::from_str::<PortMappingStatus>(r#"{"state":"tunnelled","more":1}"#).unwrap();
        assert_eq!(later.state, MappingState::Unknown);
        assert_eq!(serde_json::from_str::<NetworkStatus>("{}").unwrap(), NetworkStatus::default());
    }
}
