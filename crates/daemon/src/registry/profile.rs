//! What the registry is told about this node.

use std::net::{IpAddr, SocketAddr};

use pilot_wire::PublicKey;

use crate::network::is_private;

/// Addresses in the local network that the registry is told, which keeps as many (`LAN_ADDRS_MAX` there).
const LAN_ADDRS_MAX: usize = 8;

/// What the registry is told about this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Name, empty for none.
    pub(crate) hostname: String,
    /// Visible to everybody?
    pub(crate) public: bool,
    /// Labels.
    pub(crate) tags: Vec<String>,
    /// Takes tasks?
    pub(crate) task_exec: bool,
    /// Local address of the tunnel socket.
    pub(crate) listen: Option<SocketAddr>,
    /// Addresses for peers in the same network, the likeliest first.
    pub(crate) lan: Vec<SocketAddr>,
    /// Where the beacon sees our datagrams come from.
    pub(crate) observed: Option<SocketAddr>,
    /// What the gateway maps to the tunnel socket.
    pub(crate) mapped: Option<SocketAddr>,
    /// Reached through a beacon only: no datagrams come through to it.
    pub(crate) relay_only: bool,
    /// The key that may replace this node's own, if that is lost.
    pub(crate) recovery: Option<PublicKey>,
    /// The user took the node out of the registry: no signs of life, no new registration.
    pub(crate) left: bool,
}

impl Profile {
    /// What of it says where the node is.
    pub(super) fn addresses(
        &self,
    ) -> (Option<SocketAddr>, &[SocketAddr], Option<SocketAddr>, Option<SocketAddr>, bool) {
        (self.listen, &self.lan, self.observed, self.mapped, self.relay_only)
    }

    /// Where peers are told to reach this node: at the address that the gateway maps, which takes datagrams from
    /// everybody; else at the one that the beacon sees; else at the tunnel's port of the address that the registry sees.
    pub(super) fn advertised(&self, reached_from: Option<IpAddr>) -> Option<String> {
        if let Some(mapped) = self.mapped.filter(|mapped| self.leads_to_the_world(*mapped)) {
            return Some(mapped.to_string());
        }
        if let Some(observed) = self.observed {
            return Some(observed.to_string());
        }
        let listen = self.listen?;
        let ip = if listen.ip().is_unspecified() { reached_from? } else { listen.ip() };
        Some(SocketAddr::new(ip, listen.port()).to_string())
    }

    /// A gateway behind a second one maps an address that only its own network knows.
    fn leads_to_the_world(&self, mapped: SocketAddr) -> bool {
        match self.observed {
            Some(observed) => observed.ip() == mapped.ip(),
            None => !is_private(mapped.ip()),
        }
    }

    /// The addresses in private networks, for peers in the same ones: first that of the network through which the
    /// registry is reached.
    pub(super) fn lan(&self, reached_from: Option<IpAddr>) -> Vec<SocketAddr> {
        let Some(listen) = self.listen else { return Vec::new() };
        let ip = if listen.ip().is_unspecified() { reached_from } else { Some(listen.ip()) };
        let private = ip.map(|ip| ip.to_canonical()).filter(|ip| match ip {
            IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
            IpAddr::V6(_) => false,
        });
        let mut found: Vec<_> = private.map(|ip| SocketAddr::new(ip, listen.port())).into_iter().collect();
        found.extend(self.lan.iter().filter(|address| Some(address.ip()) != private));
        found.truncate(LAN_ADDRS_MAX);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn profile(listen: &str) -> Profile {
        Profile { listen: Some(addr(listen)), ..Profile::default() }
    }

    #[test]
    fn the_mapped_address_is_told_where_it_is_that_of_the_outermost_gateway() {
        let reached_from = Some("192.168.1.5".parse().unwrap());
        let mut profile = profile("0.0.0.0:40");
        assert_eq!(profile.advertised(reached_from).unwrap(), "192.168.1.5:40");
        profile.mapped = Some(addr("100.64.0.9:40"));
        assert_eq!(
            profile.advertised(reached_from).unwrap(),
            "192.168.1.5:40",
            "a carrier's NAT is behind it"
        );
        profile.mapped = Some(addr("203.0.113.9:40"));
        assert_eq!(profile.advertised(reached_from).unwrap(), "203.0.113.9:40");
        profile.observed = Some(addr("198.51.100.1:999"));
        assert_eq!(profile.advertised(reached_from).unwrap(), "198.51.100.1:999", "there is another NAT");
        profile.observed = Some(addr("203.0.113.9:999"));
        assert_eq!(profile.advertised(reached_from).unwrap(), "203.0.113.9:40");
    }

    #[test]
    fn addresses_for_the_own_network_begin_with_that_of_the_registrys_side_and_have_an_end() {
        let mut profile = profile("[::]:40");
        profile.lan = ["10.0.0.7:40", "192.168.1.5:40", "[fd00::5]:40"].map(addr).to_vec();
        let told = profile.lan(Some("192.168.1.5".parse().unwrap()));
        assert_eq!(told, ["192.168.1.5:40", "10.0.0.7:40", "[fd00::5]:40"].map(addr));
        let told = profile.lan(Some("203.0.113.7".parse().unwrap()));
        assert_eq!(told, profile.lan);
        profile.lan = (1..100).map(|last| addr(&format!("10.0.0.{last}:40"))).collect();
        assert_eq!(profile.lan(None).len(), LAN_ADDRS_MAX);
    }
}
