//! The routes that lead out of this host's own networks, and the default gateway among them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Bytes of a routing table that are read. A host with more routes is a router of the internet, where a change of one
/// route means nothing to us.
#[cfg(any(target_os = "linux", target_os = "android"))]
const TABLE_MAX: u64 = 256 << 10;

/// The IPv4 default gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gateway {
    pub(crate) ip: Ipv4Addr,
    /// The interface behind which it is, as far as the system tells.
    pub(crate) interface: String,
}

/// What is known of the routing tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    pub(crate) gateway: Option<Gateway>,
    /// Every route through a gateway, and every default route: whether they changed is all that matters.
    pub(crate) through: BTreeSet<Route>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    destination: IpAddr,
    prefix: u8,
    gateway: IpAddr,
    interface: String,
    metric: u32,
}

impl Route {
    /// Whether the route says how this host reaches the world. Those into its own networks come and go with interfaces
    /// and, on a host of containers, with each of them; halves of the world are how VPNs replace the default route.
    fn leads_out(&self) -> bool {
        !self.gateway.is_unspecified() || self.prefix <= 1
    }
}

impl Routes {
    fn of(routes: impl IntoIterator<Item = Route>) -> Self {
        let through: BTreeSet<Route> = routes.into_iter().filter(Route::leads_out).collect();
        let defaults = through.iter().filter_map(|route| match route.gateway {
            IpAddr::V4(ip) if route.prefix == 0 && !ip.is_unspecified() => Some((route, ip)),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        });
        let best = defaults.min_by_key(|(route, _)| route.metric);
        let gateway = best.map(|(route, ip)| Gateway { ip, interface: route.interface.clone() });
        Self { gateway, through }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Routes {
    /// Reads the kernel's tables.
    pub(super) fn look() -> Self {
        // Of this thread, not of the process: a test has threads in several networks.
        let table = |name: &str| {
            use std::io::Read as _;
            let mut text = String::new();
            let read = std::fs::File::open(format!("/proc/thread-self/net/{name}"))
                .and_then(|file| file.take(TABLE_MAX).read_to_string(&mut text));
            if let Err(error) = read {
                // A kernel without IPv6 has no such file.
                tracing::debug!(name, %error, "routing table");
            }
            text
        };
        Self::of(
            table("route")
                .lines()
                .filter_map(proc::v4)
                .chain(table("ipv6_route").lines().filter_map(proc::v6)),
        )
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Routes {
    /// Asks the system for its default route.
    pub(super) fn look() -> Self {
        Self::of(super::watch::default_gateway().map(|gateway| Route {
            destination: Ipv4Addr::UNSPECIFIED.into(),
            prefix: 0,
            gateway: gateway.into(),
            interface: String::new(),
            metric: 0,
        }))
    }
}

/// Lines of `/proc/net/route` and `/proc/net/ipv6_route`.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod proc {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::Route;

    /// `RTF_UP`.
    const UP: u32 = 0x1;
    /// `RTF_REJECT`.
    const REJECT: u32 = 0x200;
    /// `RTF_CACHE` and `RTF_LOCAL` of IPv6: what the kernel makes for itself.
    const KERNELS_OWN: u32 = 0x0100_0000 | 0x8000_0000;

    /// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`; `None` for what is no route.
    pub(super) fn v4(line: &str) -> Option<Route> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[interface, destination, gateway, flags, _, _, metric, mask, ..] = &fields[..] else {
            return None;
        };
        let hex = |text| u32::from_str_radix(text, 16).ok();
        // The kernel prints the bytes of an address as one number of this machine.
        let ip = |text| Some(Ipv4Addr::from(hex(text)?.to_ne_bytes()));
        let flags = hex(flags)?;
        (flags & UP != 0 && flags & REJECT == 0).then_some(Route {
            destination: ip(destination)?.into(),
            prefix: u8::try_from(hex(mask)?.count_ones()).ok()?,
            gateway: ip(gateway)?.into(),
            interface: interface.to_owned(),
            metric: metric.parse().ok()?,
        })
    }

    /// `destination prefix source prefix gateway metric refcnt use flags interface`.
    pub(super) fn v6(line: &str) -> Option<Route> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[destination, prefix, _, _, gateway, metric, _, _, flags, interface] = &fields[..] else {
            return None;
        };
        let ip = |text| Some(IpAddr::from(Ipv6Addr::from_bits(u128::from_str_radix(text, 16).ok()?)));
        let flags = u32::from_str_radix(flags, 16).ok()?;
        (flags & UP != 0 && flags & (REJECT | KERNELS_OWN) == 0).then_some(Route {
            destination: ip(destination)?,
            prefix: u8::from_str_radix(prefix, 16).ok()?,
            gateway: ip(gateway)?,
            interface: interface.to_owned(),
            metric: u32::from_str_radix(metric, 16).ok()?,
        })
    }

    #[cfg(test)]
    mod tests {
        use super::super::*;

        const V4: &str = "\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
wlan0	00000000	0101A8C0	0003	0	0	600	00000000	0	0	0
eth0	00000000	0100000A	0003	0	0	100	00000000	0	0	0
eth0	0000000A	00000000	0001	0	0	100	00FFFFFF	0	0	0
tun0	00000000	00000000	0001	0	0	0	00000080	0	0	0
eth1	00000000	FE00000A	0202	0	0	1	00000000	0	0	0";

        const V6: &str = "\
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000002 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000005 00000000 00450003     eth0
20010db8000000000000000000000005 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo";

        fn routes(v4: &str, v6: &str) -> Routes {
            Routes::of(v4.lines().filter_map(super::v4).chain(v6.lines().filter_map(super::v6)))
        }

        #[test]
        #[cfg(target_endian = "little")]
        fn the_default_gateway_is_the_one_of_the_lowest_metric() {
            let found = routes(V4, V6);
            let gateway = Gateway { ip: [10, 0, 0, 1].into(), interface: "eth0".to_owned() };
            assert_eq!(found.gateway, Some(gateway));
            let through: Vec<_> =
                found.through.iter().map(|route| (route.interface.as_str(), route.prefix)).collect();
            assert_eq!(through, [("eth0", 0), ("wlan0", 0), ("tun0", 1), ("eth0", 0)]);
        }

        #[test]
        fn a_route_into_an_own_network_is_no_change_and_one_through_a_gateway_is() {
            let before = routes(V4, V6);
            let container = "eth9	0000120A	00000000	0001	0	0	0	00FFFFFF	0	0	0";
            assert_eq!(routes(&format!("{V4}\n{container}"), V6), before);
            assert_ne!(routes(&V4.replace("0100000A", "0200000A"), V6), before);
            assert_ne!(
                routes(
                    V4,
                    &V6.replace("fe800000000000000000000000000001", "fe800000000000000000000000000002")
                ),
                before
            );
        }

        #[test]
        fn lines_that_are_no_routes_are_passed_over() {
            for line in
                ["", "eth0", "eth0 zz zz 0003 0 0 100 00000000", "eth0 00000000 0100000A 0003 0 0 -1 0"]
            {
                assert_eq!(super::v4(line), None, "{line}");
                assert_eq!(super::v6(line), None, "{line}");
            }
        }
    }
}
