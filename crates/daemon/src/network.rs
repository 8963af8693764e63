//! The daemon's edge towards the network it is in: its addresses and their changes, the gateway's port mapping, peers
//! in the same network.
//!
//! Each part is a task of its own that tells the driver what it found. A daemon that listens on loopback only has none
//! of them.

mod interfaces;
mod lan;
mod portmap;
mod routes;
mod suspend;
#[cfg(test)]
mod testing;
mod watch;

use std::net::{IpAddr, SocketAddr};

use pilot_wire::NodeId;
use pilot_wire::ipc::LanStatus;
use tokio::sync::mpsc;

use crate::driver::Command;

pub(crate) use interfaces::{Interface, is_private};
pub(crate) use lan::{Book, Lan};
pub(crate) use portmap::{Mapping, PortMap};
pub(crate) use routes::Routes;
pub(crate) use suspend::Pulse;
pub(crate) use watch::watch;

/// Addresses that the node is told of, at most. A router with thousands is no agent's laptop; peers are told of a dozen.
const LOCAL_MAX: usize = 32;

/// What the parts tell the driver.
#[derive(Debug)]
pub(crate) enum News {
    /// This host is connected otherwise than before.
    Surroundings(Surroundings),
    /// How the port mapping stands.
    Mapping(Mapping),
    /// Whether peers in the same network can be found.
    Lan(LanStatus),
    /// A peer whose key we know says that it is there. Anybody could say so.
    Sighted(NodeId, SocketAddr),
}

/// Where news go. The loop is gone only when the part is about to be, too.
async fn tell(driver: &mpsc::Sender<Command>, news: News) {
    let _ = driver.send(Command::Network(news)).await;
}

/// What this host is connected to at present.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) routes: Routes,
}

impl Surroundings {
    /// Looks. What the system does not tell is taken as not there.
    pub(crate) fn look() -> Self {
        let interfaces = interfaces::list().unwrap_or_else(|error| {
            tracing::warn!(%error, "the interfaces of this host cannot be listed");
            Vec::new()
        });
        Self { interfaces, routes: Routes::look() }
    }

    /// Where a socket bound to `bound` can be reached from outside this host, the likeliest first.
    pub(crate) fn reachable(&self, bound: SocketAddr) -> Vec<SocketAddr> {
        if !bound.ip().is_unspecified() {
            return vec![bound];
        }
        let mut found: Vec<&Interface> = self
            .interfaces
            .iter()
            .filter(|interface| interface.is_usable() && takes(bound, interface.ip))
            .collect();
        if found.is_empty() {
            found = self.interfaces.iter().filter(|interface| takes(bound, interface.ip)).collect();
            found.retain(|interface| interface.ip.is_loopback());
        }
        let default = self.routes.gateway.as_ref().map(|gateway| gateway.interface.as_str());
        found.sort_by_key(|interface| {
            (interface.is_container_bridge(), Some(interface.name.as_str()) != default)
        });
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for interface in found {
            let address = SocketAddr::new(interface.ip, bound.port());
            if !addresses.contains(&address) && addresses.len() < LOCAL_MAX {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Those of [`reachable`](Self::reachable) that the registry is told for peers in the same network: as 1.18.0,
    /// private IPv4 addresses; then IPv6 ones, which 1.18.0 passes over. The bridges that container software makes have
    /// the same address on every host, so a peer would look for us on its own.
    pub(crate) fn lan(&self, bound: SocketAddr) -> Vec<SocketAddr> {
        let bridge = |ip: IpAddr| self.interfaces.iter().any(|i| i.ip == ip && i.is_container_bridge());
        let mut found = self.reachable(bound);
        found.retain(|address| {
            let ip = address.ip();
            !ip.is_loopback() && !bridge(ip) && (ip.is_ipv6() || is_private(ip))
        });
        found.sort_by_key(SocketAddr::is_ipv6);
        found
    }
}

/// Whether a socket bound to an unspecified address gets what is sent to `ip`: the one of IPv6 is dual stack.
fn takes(bound: SocketAddr, ip: IpAddr) -> bool {
    bound.is_ipv6() || ip.is_ipv4()
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    pub use super::lan::fuzzing::lan;
    pub use super::portmap::fuzzing::gateway;
}

#[cfg(test)]
mod tests {
    use super::routes::Gateway;
    use super::*;

    fn surroundings(interfaces: &[(&str, &str, u8)], default: &str) -> Surroundings {
        let interfaces = interfaces.iter().zip(1..).map(|((name, ip, prefix), index)| Interface {
            name: (*name).to_owned(),
            index,
            ip: ip.parse().unwrap(),
            prefix: *prefix,
            point_to_point: false,
        });
        let gateway = Gateway { ip: [192, 168, 1, 1].into(), interface: default.to_owned() };
        Surroundings {
            interfaces: interfaces.collect(),
            routes: Routes { gateway: Some(gateway), ..Routes::default() },
        }
    }

    fn texts(addresses: &[SocketAddr]) -> Vec<String> {
        addresses.iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn the_interface_of_the_default_route_comes_first_and_what_nobody_reaches_not_at_all() {
        let here = surroundings(
            &[
                ("lo", "127.0.0.1", 8),
                ("docker0", "172.17.0.1", 16),
                ("eth0", "10.0.0.7", 24),
                ("wlan0", "192.168.1.5", 24),
                ("wlan0", "fe80::1", 64),
                ("wlan0", "2001:db8::5", 64),
                ("wlan0", "fd00::5", 64),
                ("wlan0", "192.168.1.5", 24),
            ],
            "wlan0",
        );
        assert_eq!(
            texts(&here.reachable("[::]:40".parse().unwrap())),
            ["192.168.1.5:40", "[2001:db8::5]:40", "[fd00::5]:40", "10.0.0.7:40", "172.17.0.1:40"]
        );
        assert_eq!(
            texts(&here.reachable("0.0.0.0:40".parse().unwrap())),
            ["192.168.1.5:40", "10.0.0.7:40", "172.17.0.1:40"]
        );
        assert_eq!(texts(&here.reachable("10.0.0.7:40".parse().unwrap())), ["10.0.0.7:40"]);
        assert_eq!(
            texts(&here.lan("[::]:40".parse().unwrap())),
            ["192.168.1.5:40", "10.0.0.7:40", "[2001:db8::5]:40", "[fd00::5]:40"]
        );
    }

    #[test]
    fn loopback_counts_where_there_is_nothing_else() {
        let here = surroundings(&[("lo", "127.0.0.1", 8), ("lo", "::1", 128)], "");
        assert_eq!(texts(&here.reachable("0.0.0.0:40".parse().unwrap())), ["127.0.0.1:40"]);
        assert!(here.lan("0.0.0.0:40".parse().unwrap()).is_empty());
        let here = surroundings(&[("lo", "127.0.0.1", 8), ("eth0", "203.0.113.7", 24)], "eth0");
        assert_eq!(texts(&here.reachable("0.0.0.0:40".parse().unwrap())), ["203.0.113.7:40"]);
        assert!(here.lan("0.0.0.0:40".parse().unwrap()).is_empty(), "the registry sees that one itself");
    }

    #[test]
    fn this_host_can_be_looked_at() {
        let here = Surroundings::look();
        assert!(here.interfaces.iter().any(|interface| interface.ip.is_loopback()), "{here:?}");
    }
}
