//! Two nodes in one network, or in two that share a router further out.

use std::net::IpAddr;
use std::time::Duration;

use pilot_interop::{Node, until};
use pilot_lab::Way::{Direct, Relay};
use pilot_lab::{Lab, Nat, Way, agree, deliver, echo_by, endpoint, report};

/// How long a way is watched that must not change.
const WATCHED: Duration = Duration::from_secs(3);

/// When a pair must have its way. The goal is two seconds, and it is printed; several pairs share the machine here.
const SETTLES: Duration = Duration::from_secs(20);

#[test]
fn one_lan_behind_a_full_cone_nat() {
    in_one_lan(Nat::FullCone);
}

#[test]
fn one_lan_behind_a_port_restricted_nat() {
    in_one_lan(Nat::PortRestricted);
}

#[test]
fn one_lan_behind_a_symmetric_nat() {
    in_one_lan(Nat::Symmetric);
}

#[test]
fn one_lan_behind_a_nat_with_hairpinning() {
    in_one_lan(Nat::Hairpin);
}

/// The frames of two neighbours stay in their network: they go to the other's own address.
fn in_one_lan(nat: Nat) {
    let lab = Lab::open();
    let mut home = lab.home("home", nat);
    let hosts = [lab.host_behind(&mut home, "a"), lab.host_behind(&mut home, "b")];
    let a = lab.ours(&hosts[0], "a", &[]);
    let b = lab.ours(&hosts[1], "b", &["--trust-auto-approve"]);
    meet(&lab, &a, &b, Direct, &format!("one LAN behind {nat}"));
    for (node, peer, address) in [(&a, &b, hosts[1].address()), (&b, &a, hosts[0].address())] {
        // Where the router hairpins, its outside may answer first.
        until(&format!("{} has {} at {address}", node.name(), peer.name()), || {
            let used = endpoint(node, peer)?.parse::<std::net::SocketAddr>().ok()?;
            (used.ip() == IpAddr::V4(address)).then_some(())
        });
    }
}

#[test]
fn two_homes_behind_one_carrier_with_hairpinning() {
    behind_one_carrier(Nat::Hairpin, Direct);
}

#[test]
fn two_homes_behind_one_carrier_without_hairpinning() {
    behind_one_carrier(Nat::PortRestricted, Relay);
}

#[test]
fn two_homes_behind_one_symmetric_carrier() {
    behind_one_carrier(Nat::Symmetric, Relay);
}

fn behind_one_carrier(nat: Nat, way: Way) {
    let lab = Lab::open();
    let mut carrier = lab.carrier("carrier", nat);
    let mut homes = ["ha", "hb"].map(|name| lab.home_behind(&mut carrier, name, Nat::PortRestricted));
    let [first, second] = &mut homes;
    let hosts = [lab.host_behind(first, "a"), lab.host_behind(second, "b")];
    let a = lab.ours(&hosts[0], "a", &[]);
    let b = lab.ours(&hosts[1], "b", &["--trust-auto-approve"]);
    meet(&lab, &a, &b, way, &format!("two homes behind a carrier, {nat}"));
}

/// Both have the same private address and the same port, so each knows the other by an address that is its own.
#[test]
fn two_homes_whose_hosts_have_one_address() {
    let lab = Lab::open();
    let mut homes = ["ha", "hb"].map(|name| lab.home(name, Nat::PortRestricted));
    let [first, second] = &mut homes;
    let hosts = [lab.host_behind(first, "a"), lab.host_behind(second, "b")];
    assert_eq!(hosts[0].address(), hosts[1].address());
    let a = lab.ours_at(4000, &hosts[0], "a", &[]);
    let b = lab.ours_at(4000, &hosts[1], "b", &["--trust-auto-approve"]);
    meet(&lab, &a, &b, Direct, "two homes, one private address");
}

/// A third machine has the address and port at which the peer lives in its own network.
#[test]
fn a_neighbour_with_the_peers_private_address_is_not_taken_for_it() {
    let lab = Lab::open();
    let mut homes = ["ha", "hb"].map(|name| lab.home(name, Nat::PortRestricted));
    let [first, second] = &mut homes;
    // In the first home: the neighbour, then a. In the second: b, with the neighbour's address.
    let hosts = [lab.host_behind(first, "c"), lab.host_behind(first, "a"), lab.host_behind(second, "b")];
    assert_eq!(hosts[0].address(), hosts[2].address());
    let _c = lab.ours_at(4000, &hosts[0], "c", &[]);
    let a = lab.ours_at(4001, &hosts[1], "a", &[]);
    let b = lab.ours_at(4000, &hosts[2], "b", &["--trust-auto-approve"]);
    meet(&lab, &a, &b, Direct, "a neighbour has the peer's private address");
    assert!(endpoint(&a, &b).is_some_and(|text| text.starts_with(&homes[1].outside().to_string())));
}

#[track_caller]
fn meet(lab: &Lab, a: &Node, b: &Node, way: Way, title: &str) {
    agree(a, b);
    let message = deliver(a, b, "the first word");
    let settled = way.awaited([a, b]);
    assert!(settled < SETTLES, "{settled:?} until the way was {way}");
    let rate = echo_by(way, lab, a, b, 2);
    way.stays([a, b], if way == Relay { WATCHED } else { Duration::from_millis(1) });
    report(&format!(
        "{title}: {way}; first message {message:.0?}, this way {settled:.2?} later, echo {rate:.1} MB/s"
    ));
}
