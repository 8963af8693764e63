//! Small numbers with a meaning: nodes, networks, ports, streams.

use serde::{Deserialize, Serialize};
use std::{fmt, num::ParseIntError, ops::RangeInclusive, str::FromStr};

/// A node, as numbered by the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

impl NodeId {
    /// Not registered yet; in a destination, nobody.
    pub const UNSET: Self = Self(0);
    /// Every node of a network.
    pub const BROADCAST: Self = Self(u32::MAX);
}

/// An overlay network, as numbered by the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetworkId(pub u16);

impl NetworkId {
    /// The network that every node belongs to.
    pub const BACKBONE: Self = Self(0);
}

/// A port of a node. Stream and datagram ports with the same number are unrelated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Port(pub u16);

impl Port {
    /// Pings, answered by the node itself.
    pub const PING: Self = Self(0);
    /// Reserved for control.
    pub const CONTROL: Self = Self(1);
    /// Sends back every byte.
    pub const ECHO: Self = Self(7);
    /// Name service.
    pub const NAMESERVER: Self = Self(53);
    /// HTTP.
    pub const HTTP: Self = Self(80);
    /// A second layer of encryption inside the tunnel.
    pub const SECURE: Self = Self(443);
    /// Requests for trust.
    pub const HANDSHAKE: Self = Self(444);
    /// Plain input and output of `connect` and `listen`.
    pub const STDIO: Self = Self(1000);
    /// Messages and files.
    pub const DATA_EXCHANGE: Self = Self(1001);
    /// Publish and subscribe.
    pub const EVENT_STREAM: Self = Self(1002);
    /// Tasks.
    pub const TASKS: Self = Self(1003);
    /// Ports handed out to dialers.
    pub const EPHEMERAL: RangeInclusive<u16> = 49152..=65535;

    /// True for the ports handed out to dialers.
    pub fn is_ephemeral(self) -> bool {
        Self::EPHEMERAL.contains(&self.0)
    }
}

/// A stream of the local daemon, the "conn id" of the IPC protocol. It means nothing to other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u32);

macro_rules! decimal_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<Self, ParseIntError> {
                text.parse().map(Self)
            }
        }
    )*};
}

decimal_text!(NodeId, NetworkId, Port, StreamId);
