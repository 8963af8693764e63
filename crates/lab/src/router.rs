//! Routers, and what each kind does to datagrams, in rules of nftables.
//!
//! A kind is how the box behaves towards UDP in the words of RFC 4787; TCP gets out through all of them. The rules are
//! only a claim: `tests/routers.rs` measures every kind before anything else trusts it.

use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

/// How a router treats UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Endpoint-independent mapping, endpoint-independent filtering.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address- and port-dependent filtering.
    PortRestricted,
    /// Address- and port-dependent mapping, address- and port-dependent filtering.
    Symmetric,
    /// A port-restricted one that sends datagrams to its own outside address back in (RFC 4787 6).
    Hairpin,
    /// A firewall that lets no UDP through.
    NoUdp,
}

/// A router between one inside and one outside network.
#[derive(Debug)]
pub struct Router {
    namespace: Namespace,
    nat: Nat,
    inside: Ipv4Addr,
    outside: Ipv4Addr,
    /// The outside port that all datagrams get, where the router does not keep the inside one.
    forced_port: Option<u16>,
    /// Cables to the inside so far.
    cables: u32,
    /// Inside addresses given so far.
    given: u32,
}

/// How far the addresses that are given out lie above the router's own.
const FIRST_INSIDE: u32 = 8;

/// The interface towards the inside, a bridge with a port for each cable.
const INSIDE: &str = "inside";

/// The interface towards the outside.
pub(crate) const OUTSIDE: &str = "outside";

/// Whether the kernel shows the rules also what crosses a bridge.
const BRIDGED_THROUGH_RULES: &str = "net/bridge/bridge-nf-call-iptables";

/// A router without power: nothing passes.
const OFF: &str = "flush ruleset
table ip off {
    chain off {
        type filter hook prerouting priority raw; policy drop;
    }
}
";

impl Router {
    /// Makes a router that has these two addresses. The outside cable is
    /// plugged in by whoever owns that network, who then calls [`go_online`](Self::go_online).
    pub(crate) fn new(name: &str, nat: Nat, inside: Ipv4Addr, outside: Ipv4Addr) -> Self {
        let namespace = Namespace::new(name);
        namespace.ip(&format!(
            "link add {INSIDE} type bridge\n\
             address add {inside}/24 dev {INSIDE}\n\
             link set {INSIDE} up"
        ));
        namespace.set("net/ipv4/ip_forward", "1");
        // What only crosses the bridge is no matter of the rules. Some machines have a module that thinks otherwise.
        if namespace.has(BRIDGED_THROUGH_RULES) {
            namespace.set(BRIDGED_THROUGH_RULES, "0");
        }
        let router = Self { namespace, nat, inside, outside, forced_port: None, cables: 0, given: 0 };
        router.load();
        router
    }

    /// Its address on the outside.
    pub fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// Its address on the inside.
    pub(crate) fn inside(&self) -> Ipv4Addr {
        self.inside
    }

    /// Configures the outside interface, once its cable is plugged in.
    pub(crate) fn go_online(&self, gateway: Option<Ipv4Addr>) {
        self.namespace.ip(&format!("address add {}/24 dev {OUTSIDE}\nlink set {OUTSIDE} up", self.outside));
        if let Some(gateway) = gateway {
            self.namespace.ip(&format!("route add default via {gateway}"));
        }
    }

    /// An inside address that nobody has.
    pub(crate) fn next_inside(&mut self) -> Ipv4Addr {
        self.given += 1;
        Ipv4Addr::from(u32::from(self.inside) + FIRST_INSIDE + self.given)
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Plugs the interface `there` of another namespace into the inside network.
    pub(crate) fn connect(&mut self, other: &Namespace, there: &str) {
        let port = format!("port{}", self.cables);
        self.cables += 1;
        self.namespace.cable(&port, other, there);
        self.namespace.ip(&format!("link set {port} master {INSIDE} up"));
    }

    /// Forgets every mapping, as after a power cut.
    pub fn restart(&self) {
        // Rules first: a datagram between the two steps must not make an entry that was not there.
        self.namespace.nft(OFF);
        self.forget();
        self.load();
    }

    /// Gives all datagrams the outside port `port` from now on, and forgets the mappings that say otherwise.
    pub fn rebind(&mut self, port: u16) {
        assert_eq!(self.nat, Nat::PortRestricted, "kinds that let strangers in keep inside ports");
        self.forced_port = Some(port);
        self.restart();
    }

    /// Lets no UDP through any more, in neither direction. What was under way stands still.
    pub fn block_udp(&self) {
        self.namespace.nft(
            "table ip firewall {\nchain through { type filter hook forward priority 10; meta l4proto udp drop; }\n}\n",
        );
    }

    /// Lets nothing through any more but TCP to one place and back.
    pub fn let_through_only(&self, place: SocketAddrV4) {
        let (ip, port) = (place.ip(), place.port());
        self.namespace.nft(&format!(
            "table ip firewall {{\nchain through {{ type filter hook forward priority 10; policy drop;\n\
             ip daddr {ip} tcp dport {port} accept\n\
             ip saddr {ip} tcp sport {port} accept\n\
             }}\n}}\n"
        ));
    }

    /// Takes away what [`block_udp`](Self::block_udp) or [`let_through_only`](Self::let_through_only) began.
    pub fn unblock(&self) {
        self.namespace.nft("delete table ip firewall\n");
    }

    fn load(&self) {
        self.namespace.nft(&self.rules());
    }

    /// Empties the kernel's table of connections for this namespace: one netlink message, the same that
    /// `conntrack --flush` sends.
    fn forget(&self) {
        const NETLINK: i32 = 16;
        const NETFILTER: i32 = 12;
        const CONNTRACK_DELETE: u16 = (1 << 8) | 2;
        const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
        let mut message = Vec::with_capacity(20);
        message.extend_from_slice(&20_u32.to_ne_bytes());
        message.extend_from_slice(&CONNTRACK_DELETE.to_ne_bytes());
        message.extend_from_slice(&REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
        // Sequence number and sender, then: any address family, version 0, no resource.
        message.extend_from_slice(&[0; 12]);
        let flushed = self.namespace.enter(|| -> io::Result<[u8; 64]> {
            let socket = Socket::new(Domain::from(NETLINK), Type::RAW, Some(Protocol::from(NETFILTER)))?;
            socket.set_read_timeout(Some(crate::namespace::SOCKET_PATIENCE))?;
            socket.send(&message)?;
            let mut answer = [0; 64];
            io::Read::read(&mut &socket, &mut answer)?;
            Ok(answer)
        });
        let answer = flushed.unwrap_or_else(|error| panic!("flush connections: {error}"));
        let code = answer[16..20].try_into().map(i32::from_ne_bytes).expect("four bytes are four bytes");
        assert_eq!(code, 0, "the kernel does not flush its connections");
    }

    /// The rules. Learning comes before translating: a datagram that goes out makes its sender known inside `known`
    /// under its port, which all kinds but the symmetric one keep, and the receiver `met`.
    ///
    /// What is let in by nothing ends in `mine` and is dropped there, before the kernel remembers it: a remembered
    /// stranger would hold the port that the next mapping needs.
    fn rules(&self) -> String {
        let outside = self.outside;
        let inside = self.inside;
        let mut text = String::from("flush ruleset\ntable ip nat {\n");
        let mut line = |text_line: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{text_line}");
        };
        line("map known { type inet_service : ipv4_addr; flags dynamic; size 1024; }");
        line("set met { type inet_service . ipv4_addr . inet_service; flags dynamic; size 65535; }");
        line("set met_address { type inet_service . ipv4_addr; flags dynamic; size 65535; }");
        line("chain learn { type filter hook prerouting priority mangle;");
        line(&format!("iifname {INSIDE} ip daddr != {inside} meta l4proto udp jump learned; }}"));
        line("chain learned {");
        line("update @known { udp sport : ip saddr }");
        line("update @met { udp sport . ip daddr . udp dport }");
        line("update @met_address { udp sport . ip daddr }");
        line("}");
        line("chain let_in { type nat hook prerouting priority dstnat;");
        let to = "dnat ip to udp dport map @known";
        match self.nat {
            Nat::FullCone => line(&format!("iifname {OUTSIDE} meta l4proto udp {to}")),
            Nat::AddressRestricted => {
                line(&format!("iifname {OUTSIDE} udp dport . ip saddr @met_address {to}"));
            }
            Nat::Hairpin => {
                line(&format!(
                    "iifname {INSIDE} ip daddr {outside} udp dport . ip daddr . udp sport @met {to}"
                ));
            }
            Nat::PortRestricted | Nat::Symmetric | Nat::NoUdp => {}
        }
        line("}");
        line("chain translate { type nat hook postrouting priority srcnat;");
        match self.nat {
            Nat::Symmetric => line(&format!("oifname {OUTSIDE} meta l4proto udp masquerade fully-random")),
            Nat::Hairpin => {
                // Only what turns round is sent to somewhere else than it said and leaves on the inside.
                line(&format!("oifname {INSIDE} ct status dnat snat to {outside}"));
            }
            Nat::FullCone | Nat::AddressRestricted | Nat::PortRestricted | Nat::NoUdp => {}
        }
        if let Some(port) = self.forced_port {
            line(&format!("oifname {OUTSIDE} meta l4proto udp masquerade to :{port}"));
        }
        line(&format!("oifname {OUTSIDE} masquerade"));
        line("}");
        line("chain mine { type filter hook input priority filter;");
        line("iif != lo meta l4proto udp drop");
        line("}");
        line("chain through { type filter hook forward priority filter;");
        if self.nat == Nat::NoUdp {
            line("meta l4proto udp drop");
        }
        line("}");
        line("}");
        text
    }
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::Hairpin => "port-restricted with hairpinning",
            Self::NoUdp => "no UDP",
        })
    }
}
