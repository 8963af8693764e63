//! The ways in which a host may be connected, each built from its description.

use std::fmt;

use crate::host::Host;
use crate::lab::Lab;
use crate::router::{Nat, Router};

/// How a host is connected to the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A public address of its own.
    Public,
    /// Behind a full-cone NAT.
    FullCone,
    /// Behind an address-restricted NAT.
    AddressRestricted,
    /// Behind a port-restricted NAT.
    PortRestricted,
    /// Behind a symmetric NAT.
    Symmetric,
    /// Behind a port-restricted NAT at home, which is behind a port-restricted one of the carrier.
    Carrier,
    /// Behind a port-restricted NAT that sends back in what goes to its own outside address.
    Hairpin,
    /// Behind a firewall that lets TCP through and no UDP.
    NoUdp,
}

/// A host and the routers in front of it, the outermost first.
#[derive(Debug)]
pub struct Site {
    /// The host.
    pub host: Host,
    /// The routers.
    pub routers: Vec<Router>,
}

impl Site {
    /// Builds it. No two sites of a lab may have one name.
    pub fn build(lab: &Lab, name: &str, access: Access) -> Self {
        let behind = |nat| {
            let mut router = lab.home(&format!("{name}-home"), nat);
            let host = lab.host_behind(&mut router, name);
            Self { host, routers: vec![router] }
        };
        match access {
            Access::Public => Self { host: lab.host(name), routers: Vec::new() },
            Access::FullCone => behind(Nat::FullCone),
            Access::AddressRestricted => behind(Nat::AddressRestricted),
            Access::PortRestricted => behind(Nat::PortRestricted),
            Access::Symmetric => behind(Nat::Symmetric),
            Access::Hairpin => behind(Nat::Hairpin),
            Access::NoUdp => behind(Nat::NoUdp),
            Access::Carrier => {
                let mut carrier = lab.carrier(&format!("{name}-carrier"), Nat::PortRestricted);
                let mut home = lab.home_behind(&mut carrier, &format!("{name}-home"), Nat::PortRestricted);
                let host = lab.host_behind(&mut home, name);
                Self { host, routers: vec![carrier, home] }
            }
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::Carrier => "carrier over home",
            Self::Hairpin => "hairpin",
            Self::NoUdp => "no UDP",
        })
    }
}
