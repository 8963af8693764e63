//! The addresses of this host's interfaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    /// The system's number of the interface.
    pub(crate) index: u32,
    pub(crate) ip: IpAddr,
    /// Length of the network's prefix.
    pub(crate) prefix: u8,
    /// A tunnel, or a line to one other host: there is no network around it.
    pub(crate) point_to_point: bool,
}

/// The addresses of every interface that is up, in the order of the system.
pub(super) fn list() -> io::Result<Vec<Interface>> {
    let found = if_addrs::get_if_addrs()?.into_iter();
    Ok(found
        .filter(if_addrs::Interface::is_oper_up)
        .map(|interface| Interface {
            ip: interface.ip(),
            index: interface.index.unwrap_or_default(),
            prefix: match &interface.addr {
                if_addrs::IfAddr::V4(v4) => v4.prefixlen,
                if_addrs::IfAddr::V6(v6) => v6.prefixlen,
            },
            point_to_point: interface.is_p2p,
            name: interface.name,
        })
        .collect())
}

impl Interface {
    /// Whether others can send to this address. IPv6 link-local addresses are left out: they mean nothing without the
    /// number of an interface, which only the sender knows.
    pub(crate) fn is_usable(&self) -> bool {
        match self.ip {
            IpAddr::V4(v4) => {
                !v4.is_loopback() && !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast()
            }
            IpAddr::V6(v6) => {
                !v6.is_loopback() && !v6.is_unspecified() && !v6.is_multicast() && !v6.is_unicast_link_local()
            }
        }
    }

    /// Whether `ip` is in the network of this interface.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                ours.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
                ours.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// A bridge that container or virtual machine software made: the host's end of a network inside this host.
    pub(crate) fn is_container_bridge(&self) -> bool {
        let name = self.name.as_str();
        let numbered =
            |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.parse::<u16>().is_ok());
        let of_docker = |rest: &str| rest.len() == 12 && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
        ["docker", "virbr", "cni", "podman", "lxcbr", "lxdbr"].into_iter().any(numbered)
            || name.strip_prefix("br-").is_some_and(of_docker)
    }
}

/// Whether an address means something in one network only, so that a gateway stands between it and the world.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || is_shared(v4),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || is_site_local(v6),
    }
}

/// 100.64.0.0/10, between a carrier's NAT and its customers (RFC 6598).
fn is_shared(v4: Ipv4Addr) -> bool {
    let [first, second, ..] = v4.octets();
    first == 100 && second & 0xC0 == 64
}

/// fec0::/10, deprecated by RFC 3879 and still about.
fn is_site_local(v6: Ipv6Addr) -> bool {
    v6.segments()[0] & 0xFFC0 == 0xFEC0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, ip: &str, prefix: u8) -> Interface {
        Interface { name: name.to_owned(), index: 1, ip: ip.parse().unwrap(), prefix, point_to_point: false }
    }

    #[test]
    fn a_network_contains_what_shares_its_prefix() {
        let contains = |ours: &str, prefix, other: &str| {
            interface("eth0", ours, prefix).contains(other.parse().unwrap())
        };
        assert!(contains("192.168.1.5", 24, "192.168.1.200"));
        assert!(!contains("192.168.1.5", 24, "192.168.2.5"));
        assert!(contains("192.168.1.5", 0, "8.8.8.8"));
        assert!(!contains("192.168.1.5", 32, "192.168.1.6"));
        assert!(contains("fd00::5", 64, "fd00::abcd"));
        assert!(!contains("fd00::5", 64, "fd01::5"));
        assert!(!contains("fd00::5", 0, "10.0.0.1"));
        assert!(contains("fd00::5", 200, "fd00::5"), "nonsense from the system is no panic");
    }

    #[test]
    fn private_addresses_are_told_from_the_world() {
        for private in
            ["10.1.2.3", "172.31.0.1", "192.168.0.1", "169.254.3.4", "100.127.0.1", "fd12::1", "fec0::1"]
        {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for global in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:db8::1"] {
            assert!(!is_private(global.parse().unwrap()), "{global}");
        }
    }

    #[test]
    fn bridges_of_container_software_are_known_by_their_names() {
        for bridge in ["docker0", "br-0123456789ab", "virbr0", "podman12"] {
            assert!(interface(bridge, "172.17.0.1", 16).is_container_bridge(), "{bridge}");
        }
        for other in ["br0", "br-lan", "eth0", "docker", "wlan0"] {
            assert!(!interface(other, "172.17.0.1", 16).is_container_bridge(), "{other}");
        }
    }
}
