//! Nobody hears of a node but those that its owner has configured, and its peers.

use std::net::Ipv4Addr;

use pilot_interop::Node;
use pilot_lab::{
    BEACON, Host, Lab, Nat, REGISTRY, RENDEZVOUS, Router, Unexpected, Watch, agree, deliver, echo, report,
};

/// An address that is nobody's, behind the gateway (RFC 5737).
const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// The rendezvous with the ports at which it looks at NATs and takes those without UDP, and every address that the peer has.
/// A node's own outside address is among them: that is how it learns whether its router brings back what is meant for it.
fn configured(own_router: &Router, peer: &Host, router_of_peer: &Router) -> Vec<String> {
    let [first, second] = RENDEZVOUS;
    let beacon = format!("{{ {}, {} }}", BEACON.port(), BEACON.port() + 1);
    let peer = format!("{}, {}", peer.address(), router_of_peer.outside());
    vec![
        format!("ip daddr {} tcp dport {}", REGISTRY.ip(), REGISTRY.port()),
        format!("ip daddr {{ {first}, {second} }} udp dport {beacon}"),
        format!("ip daddr {first} tcp dport {}", BEACON.port() + 1),
        format!("ip daddr {{ {}, {peer} }} meta l4proto udp", own_router.outside()),
        // The kernel says that a port is closed, once the daemon has stopped.
        format!("ip daddr {{ {first}, {second}, {peer} }} meta l4proto icmp"),
    ]
}

/// What a daemon says in its own network unless told not to (docs/operations.md): it asks the gateway for a port, and
/// neighbours whether they are peers. The groups are joined by IGMP.
fn neighbourhood(gateway: Ipv4Addr) -> Vec<String> {
    vec![
        format!("ip daddr {gateway} udp dport {{ 5351, 1900 }}"),
        "ip daddr 239.255.255.250 udp dport 1900".to_owned(),
        "ip daddr 224.0.0.251 udp dport 5353".to_owned(),
        "ip6 daddr ff02::fb udp dport 5353".to_owned(),
        "ip protocol igmp".to_owned(),
    ]
}

/// From the start to the stop, with trust, messages, streams and names: the only packets are those to the rendezvous and
/// to the peer, and none asks a nameserver. One that is told to leave its neighbours alone does.
#[test]
fn a_daemon_speaks_to_its_rendezvous_and_its_peers_and_to_nobody_else() {
    let lab = Lab::open();
    let mut homes = ["ha", "hb"].map(|name| lab.home(name, Nat::PortRestricted));
    let hosts = {
        let [first, second] = &mut homes;
        [lab.host_behind(first, "a"), lab.host_behind(second, "b")]
    };
    let mut of_a = configured(&homes[0], &hosts[1], &homes[1]);
    of_a.extend(neighbourhood(Ipv4Addr::new(192, 168, 1, 1)));
    let of_b = configured(&homes[1], &hosts[0], &homes[0]);
    let watches = [Watch::start(&hosts[0], &of_a), Watch::start(&hosts[1], &of_b)];

    let a = lab.ours(&hosts[0], "a", &[]);
    let alone = ["--trust-auto-approve", "--no-port-mapping", "--no-lan-discovery"];
    let b = lab.ours(&hosts[1], "b", &alone);
    agree(&a, &b);
    deliver(&a, &b, "there");
    deliver(&b, &a, "and back");
    echo(&a, &b, 2);
    for node in [&a, &b] {
        node.ctl(&["netcheck"]);
        node.ctl(&["ping", other(node, [&a, &b]).name()]);
    }
    for node in [&a, &b] {
        node.ctl(&["daemon", "stop"]);
    }
    for (watch, name) in watches.iter().zip(["a", "b"]) {
        assert_eq!(watch.read(), Unexpected::default(), "{name}");
    }
    report("two daemons from start to stop: 0 packets to anybody else, 0 questions to nameservers");

    // The rules see who writes elsewhere.
    for (watch, host) in watches.iter().zip(&hosts) {
        let socket = host.namespace().udp(Ipv4Addr::UNSPECIFIED, 0);
        socket.send_to(b"is there anybody?", (STRANGER, 53)).expect("there is a way to the gateway");
        let seen = watch.read();
        assert_eq!((seen.packets, seen.questions), (1, 1), "{seen:?}");
        assert!(seen.to.iter().any(|to| to.contains("198.51.100.7")), "{seen:?}");
    }
}

fn other<'n>(node: &Node, both: [&'n Node; 2]) -> &'n Node {
    let [a, b] = both;
    if node.id() == a.id() { b } else { a }
}
