//! The sockets of multicast DNS, shared with whoever else on this host speaks it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::super::Interface;

const PORT: u16 = 5353;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 0xFB);

/// Networks in which a node speaks, at most.
const LINKS_MAX: usize = 16;

/// Longest datagram that is read (RFC 6762 17 allows up to this on Ethernet with large frames).
pub(super) const DATAGRAM_MAX: usize = 9000;

/// One network to speak in, over IPv4 or IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    index: u32,
    /// The address of ours that is spoken from; only its family matters over IPv6.
    from: IpAddr,
    /// Addresses of ours there that peers may use.
    pub(super) addresses: Vec<IpAddr>,
}

/// The networks around this host in which everybody hears what one says, with what of `reachable` is there.
pub(super) fn links(interfaces: &[Interface], reachable: &[SocketAddr]) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    for interface in interfaces {
        let speaks = !interface.point_to_point && !interface.ip.is_loopback() && interface.index != 0;
        let known =
            |link: &Link| link.index == interface.index && link.from.is_ipv4() == interface.ip.is_ipv4();
        if !speaks || links.len() >= LINKS_MAX || links.iter().any(known) {
            continue;
        }
        let of_interface =
            interfaces.iter().filter(|other| other.index == interface.index).map(|other| other.ip);
        let told = |ip: &IpAddr| reachable.iter().any(|address| address.ip() == *ip);
        let addresses = of_interface.filter(told).collect();
        links.push(Link { index: interface.index, from: interface.ip, addresses });
    }
    // One without an address to tell is of no use.
    links.retain(|link| !link.addresses.is_empty());
    links
}

/// Both sockets, as far as they exist.
#[derive(Debug)]
pub(super) struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    pub(super) links: Vec<Link>,
}

impl Sockets {
    /// Joins every network there is. Fails with a reason for people when none can be joined.
    pub(super) fn open(links: Vec<Link>) -> Result<Self, String> {
        let mut sockets = Self { v4: None, v6: None, links: Vec::new() };
        let mut trouble = None;
        for link in links {
            match sockets.join(&link) {
                Ok(()) => sockets.links.push(link),
                Err(error) => trouble = Some(error),
            }
        }
        match trouble {
            _ if !sockets.links.is_empty() => Ok(sockets),
            Some(error) => Err(format!("multicast is not possible: {error}")),
            None => Err("this host is in no network with others".to_owned()),
        }
    }

    fn join(&mut self, link: &Link) -> io::Result<()> {
        match link.from {
            IpAddr::V4(from) => {
                let socket = match self.v4.take() {
                    Some(socket) => self.v4.insert(socket),
                    None => self.v4.insert(open(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into())?),
                };
                socket2::SockRef::from(&*socket).join_multicast_v4(&GROUP_V4, &from)
            }
            IpAddr::V6(_) => {
                let socket = match self.v6.take() {
                    Some(socket) => self.v6.insert(socket),
                    None => self.v6.insert(open(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into())?),
                };
                socket2::SockRef::from(&*socket).join_multicast_v6(&GROUP_V6, link.index)
            }
        }
    }

    /// Says it in one network. What cannot be sent is lost, as on the way.
    pub(super) async fn say(&self, link: &Link, datagram: &[u8]) {
        let outcome = match (link.from, &self.v4, &self.v6) {
            (IpAddr::V4(from), Some(socket), _) => {
                let chosen = socket2::SockRef::from(socket).set_multicast_if_v4(&from);
                let to = SocketAddr::from((GROUP_V4, PORT));
                match chosen {
                    Ok(()) => socket.send_to(datagram, to).await,
                    Err(error) => Err(error),
                }
            }
            (IpAddr::V6(_), _, Some(socket)) => {
                let chosen = socket2::SockRef::from(socket).set_multicast_if_v6(link.index);
                let to = SocketAddr::from((GROUP_V6, PORT));
                match chosen {
                    Ok(()) => socket.send_to(datagram, to).await,
                    Err(error) => Err(error),
                }
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _, _) => return,
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, ?link, "not said");
        }
    }

    /// The next datagram and its sender.
    pub(super) async fn hear(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let socket = tokio::select! {
                socket = readable(self.v4.as_ref()) => socket?,
                socket = readable(self.v6.as_ref()) => socket?,
            };
            match socket.try_recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    }
}

/// Whether a datagram came from somebody who speaks multicast DNS in a network of ours (RFC 6762 11): the port is reserved
/// for those, and what comes from elsewhere was not meant for this network.
pub(super) fn is_from_around(interfaces: &[Interface], from: SocketAddr) -> bool {
    let ip = from.ip();
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    from.port() == PORT && (link_local || is_around(interfaces, ip))
}

/// Whether an address belongs to a network that this host is in.
pub(super) fn is_around(interfaces: &[Interface], ip: IpAddr) -> bool {
    let mut around = interfaces.iter().filter(|interface| !interface.point_to_point && interface.is_usable());
    around.any(|interface| interface.contains(ip))
}

async fn readable(socket: Option<&UdpSocket>) -> io::Result<&UdpSocket> {
    match socket {
        Some(socket) => socket.readable().await.map(|()| socket),
        None => std::future::pending().await,
    }
}

fn open(domain: Domain, any: IpAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // RFC 6762 11: 255, so that receivers could tell that no router passed it on.
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        socket.set_multicast_hops_v6(255)?;
    } else {
        socket.set_multicast_ttl_v4(255)?;
    }
    socket.bind(&SocketAddr::new(any, PORT).into())?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::super::super::Surroundings;
    use super::*;

    fn interface(name: &str, index: u32, ip: &str, prefix: u8) -> Interface {
        Interface {
            name: name.to_owned(),
            index,
            ip: ip.parse().unwrap(),
            prefix,
            point_to_point: name == "tun0",
        }
    }

    fn host() -> Vec<Interface> {
        vec![
            interface("lo", 1, "127.0.0.1", 8),
            interface("eth0", 2, "192.168.1.5", 24),
            interface("eth0", 2, "192.168.7.5", 24),
            interface("eth0", 2, "fd00::5", 64),
            interface("eth0", 2, "fe80::5", 64),
            interface("tun0", 3, "10.9.0.2", 24),
            interface("eth1", 4, "fe80::6", 64),
        ]
    }

    #[test]
    fn a_node_speaks_once_in_each_network_that_has_others_in_it() {
        let here = Surroundings { interfaces: host(), ..Surroundings::default() };
        let links = links(&here.interfaces, &here.reachable("[::]:40".parse().unwrap()));
        let families: Vec<_> = links.iter().map(|link| (link.index, link.from.is_ipv4())).collect();
        assert_eq!(families, [(2, true), (2, false)]);
        let addresses: Vec<_> = links[0].addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(addresses, ["192.168.1.5", "192.168.7.5", "fd00::5"]);
        let bound = here.reachable("192.168.7.5:40".parse().unwrap());
        let links = super::links(&here.interfaces, &bound);
        assert!(links.iter().all(|link| link.addresses == [IpAddr::from([192, 168, 7, 5])]), "{links:?}");
    }

    #[test]
    fn only_neighbours_are_heard() {
        let heard = |from: &str| is_from_around(&host(), from.parse().unwrap());
        assert!(heard("192.168.1.9:5353") && heard("[fe80::9]:5353") && heard("[fd00::9]:5353"));
        assert!(!heard("192.168.1.9:5354"), "a program that does not speak it");
        assert!(!heard("8.8.8.8:5353") && !heard("10.9.0.1:5353") && !heard("127.0.0.1:5353"));
    }
}
