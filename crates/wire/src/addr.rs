//! Addresses of nodes and of services on them (spec/dataplane.md 1.1).

use crate::{NetworkId, NodeId, ParseError, Port, Reader};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// Where a node is in the overlay: `N:NNNN.HHHH.LLLL` as text, six bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr {
    /// The network through which the node is addressed.
    pub network: NetworkId,
    /// The node.
    pub node: NodeId,
}

impl Addr {
    /// Length on the wire in bytes.
    pub const LEN: usize = 6;
    /// All zero: no address yet.
    pub const UNSET: Self = Self { network: NetworkId::BACKBONE, node: NodeId::UNSET };

    /// The address of a node in the network that everybody belongs to.
    pub const fn backbone(node: NodeId) -> Self {
        Self { network: NetworkId::BACKBONE, node }
    }

    /// Adds the port of a service.
    pub const fn port(self, port: Port) -> Endpoint {
        Endpoint { addr: self, port }
    }

    /// The six bytes on the wire.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let [n0, n1] = self.network.0.to_be_bytes();
        let [i0, i1, i2, i3] = self.node.0.to_be_bytes();
        [n0, n1, i0, i1, i2, i3]
    }

    /// Takes six bytes.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self { network: NetworkId(reader.u16()?), node: NodeId(reader.u32()?) })
    }

    /// Appends six bytes.
    pub fn emit(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (network, node) = (self.network.0, self.node.0);
        write!(f, "{network}:{network:04X}.{:04X}.{:04X}", node >> 16, node & 0xFFFF)
    }
}

impl FromStr for Addr {
    type Err = ParseAddrError;

    fn from_str(text: &str) -> Result<Self, ParseAddrError> {
        let (decimal, groups) = text.split_once(':').ok_or(ParseAddrError::Shape)?;
        let network = parse_decimal(decimal).ok_or(ParseAddrError::Network)?;
        let mut groups = groups.split('.').map(parse_group);
        let (Some(repeated), Some(high), Some(low), None) =
            (groups.next(), groups.next(), groups.next(), groups.next())
        else {
            return Err(ParseAddrError::Shape);
        };
        let (repeated, high, low) = (repeated?, high?, low?);
        if repeated != network {
            return Err(ParseAddrError::NetworksDiffer { decimal: network, hexadecimal: repeated });
        }
        Ok(Self { network: NetworkId(network), node: NodeId(u32::from(high) << 16 | u32::from(low)) })
    }
}

/// A service: a node and a port, `N:NNNN.HHHH.LLLL:port` as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The node.
    pub addr: Addr,
    /// The port on it.
    pub port: Port,
}

impl Endpoint {
    /// A service on a node.
    pub const fn new(addr: Addr, port: Port) -> Self {
        Self { addr, port }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.addr, self.port)
    }
}

impl FromStr for Endpoint {
    type Err = ParseAddrError;

    fn from_str(text: &str) -> Result<Self, ParseAddrError> {
        let (addr, port) = text.rsplit_once(':').ok_or(ParseAddrError::Shape)?;
        let addr = addr.parse()?;
        let port = parse_decimal(port).ok_or(ParseAddrError::Port)?;
        Ok(Self { addr, port: Port(port) })
    }
}

/// Text that is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddrError {
    /// Not of the form at all.
    #[error("an address looks like `0:0000.0000.0001`, with `:port` behind it for a service")]
    Shape,
    /// The part before the first colon.
    #[error("the network in front of the colon must be a decimal number from 0 to 65535")]
    Network,
    /// One of the three groups.
    #[error("each group of an address must be four hexadecimal digits")]
    Group,
    /// The network stands in an address twice, and must be the same.
    #[error("the network is {decimal} in front of the colon but {hexadecimal:04X} behind it")]
    NetworksDiffer {
        /// In front of the colon.
        decimal: u16,
        /// The first group behind it.
        hexadecimal: u16,
    },
    /// The part after the last colon.
    #[error("the port must be a decimal number from 0 to 65535")]
    Port,
}

/// Digits only: `u16::from_str` would also take a plus sign.
fn parse_decimal(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn parse_group(text: &str) -> Result<u16, ParseAddrError> {
    let is_group = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_group.then(|| u16::from_str_radix(text, 16).ok()).flatten().ok_or(ParseAddrError::Group)
}

macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(Addr, Endpoint);
