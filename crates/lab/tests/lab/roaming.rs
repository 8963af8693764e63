//! The ground moves under a running transfer: addresses change, NATs forget, beacons and peers die.

use std::thread::sleep;
use std::time::Duration;

use pilot_interop::Node;
use pilot_lab::Access::{self, PortRestricted, Public, Symmetric};
use pilot_lab::Way::{self, Direct, Relay};
use pilot_lab::{Lab, Nat, Site, Transfer, agree, deliver, report};

/// What is moved, in megabytes.
const AMOUNT: u64 = 100;

/// When the ground moves, in megabytes that have come.
const MIDDLE: u64 = 30;

/// What a test tolerates. The figures are printed; the goal is a second.
const TOLERATED: Duration = Duration::from_secs(10);

/// Two nodes that trust each other, with their way found.
struct Pair {
    // Before the lab, so that they are gone when their networks go.
    a: Node,
    b: Node,
    sites: [Site; 2],
    lab: Lab,
}

impl Pair {
    fn settled(first: Access, second: Access, way: Way) -> Self {
        let lab = Lab::open();
        let sites = [Site::build(&lab, "a", first), Site::build(&lab, "b", second)];
        let a = lab.ours(&sites[0].host, "a", &[]);
        let b = lab.ours(&sites[1].host, "b", &["--trust-auto-approve"]);
        agree(&a, &b);
        deliver(&a, &b, "the first word");
        way.awaited([&a, &b]);
        Self { a, b, sites, lab }
    }

    /// Moves data from a to b, and lets something happen in the middle.
    #[track_caller]
    fn transfer(&mut self, title: &str, event: impl FnOnce(&mut Lab, &mut [Site; 2])) {
        let mut transfer = Transfer::start(&self.a, &self.b, AMOUNT);
        transfer.reaches(MIDDLE);
        transfer.watch();
        event(&mut self.lab, &mut self.sites);
        transfer.network_is_back();
        let interruption = transfer.finish();
        report(&format!("roaming: {title}: {interruption}"));
        assert!(interruption.length() < TOLERATED, "{title}: {interruption}");
    }
}

#[test]
fn the_sender_gets_another_address() {
    let mut pair = Pair::settled(Public, Public, Direct);
    pair.transfer("the sender gets another public address, the peer is public", |_, sites| {
        sites[0].host.readdress(200);
    });
    Direct.awaited([&pair.a, &pair.b]);
}

#[test]
fn the_receiver_gets_another_address() {
    let mut pair = Pair::settled(Public, Public, Direct);
    pair.transfer("the receiver gets another public address, the peer is public", |_, sites| {
        sites[1].host.readdress(200);
    });
    Direct.awaited([&pair.a, &pair.b]);
}

#[test]
fn the_sender_gets_another_address_at_home() {
    let mut pair = Pair::settled(PortRestricted, PortRestricted, Direct);
    pair.transfer("the sender gets another private address, both port-restricted", |_, sites| {
        sites[0].host.readdress(77);
    });
    Direct.awaited([&pair.a, &pair.b]);
}

#[test]
fn the_sender_moves_to_another_network() {
    let mut pair = Pair::settled(PortRestricted, PortRestricted, Direct);
    let mut other = pair.lab.home("other", Nat::PortRestricted);
    pair.transfer("the sender moves to another home, both port-restricted", |lab, sites| {
        lab.move_behind(&mut other, &mut sites[0].host);
        sites[0].routers.push(other);
    });
    Direct.awaited([&pair.a, &pair.b]);
}

#[test]
fn the_receiver_moves_to_another_network() {
    let mut pair = Pair::settled(PortRestricted, PortRestricted, Direct);
    let mut other = pair.lab.home("other", Nat::PortRestricted);
    pair.transfer("the receiver moves to another home, both port-restricted", |lab, sites| {
        lab.move_behind(&mut other, &mut sites[1].host);
        sites[1].routers.push(other);
    });
    Direct.awaited([&pair.a, &pair.b]);
}

#[test]
fn both_move_to_other_networks_at_once() {
    let mut pair = Pair::settled(PortRestricted, PortRestricted, Direct);
    let others = ["other-a", "other-b"].map(|name| pair.lab.home(name, Nat::PortRestricted));
    pair.transfer("both move to other homes at once, all port-restricted", |lab, sites| {
        for (site, mut other) in sites.iter_mut().zip(others) {
            lab.move_behind(&mut other, &mut site.host);
            site.routers.push(other);
        }
    });
    Direct.awaited([&pair.a, &pair.b]);
}

#[test]
fn the_sender_moves_to_a_network_where_only_the_relay_works() {
    let mut pair = Pair::settled(PortRestricted, PortRestricted, Direct);
    let mut other = pair.lab.home("other", Nat::Symmetric);
    pair.transfer("the sender moves from a port-restricted to a symmetric home", |lab, sites| {
        lab.move_behind(&mut other, &mut sites[0].host);
        sites[0].routers.push(other);
    });
    Relay.awaited([&pair.a, &pair.b]);
}

#[test]
fn a_relayed_sender_moves_to_where_it_is_reached_directly() {
    let mut pair = Pair::settled(Symmetric, PortRestricted, Relay);
    pair.transfer("the sender moves from a symmetric home to the open internet", |lab, sites| {
        lab.plug_in(&mut sites[0].host);
    });
    Direct.awaited([&pair.a, &pair.b]);
}

#[test]
fn the_cable_is_out_for_two_seconds() {
    let mut pair = Pair::settled(PortRestricted, PortRestricted, Direct);
    pair.transfer("the sender's cable is out for 2 s", |_, sites| {
        sites[0].host.unplug();
        sleep(Duration::from_secs(2));
        sites[0].host.plug_again();
    });
    Direct.awaited([&pair.a, &pair.b]);
}

#[test]
fn the_senders_nat_gives_another_port() {
    for peer in [Public, PortRestricted] {
        let mut pair = Pair::settled(PortRestricted, peer, Direct);
        pair.transfer(&format!("the sender's NAT gives another port, the peer is {peer}"), |_, sites| {
            sites[0].routers[0].rebind(33_333);
        });
        Direct.awaited([&pair.a, &pair.b]);
    }
}

#[test]
fn the_receivers_nat_gives_another_port() {
    for peer in [Public, PortRestricted] {
        let mut pair = Pair::settled(peer, PortRestricted, Direct);
        pair.transfer(&format!("the receiver's NAT gives another port, the peer is {peer}"), |_, sites| {
            sites[1].routers[0].rebind(33_333);
        });
        Direct.awaited([&pair.a, &pair.b]);
    }
}

#[test]
fn a_nat_restarts_with_empty_tables() {
    for side in [0, 1] {
        let mut pair = Pair::settled(PortRestricted, PortRestricted, Direct);
        let whose = ["sender", "receiver"][side];
        pair.transfer(&format!("the {whose}'s NAT restarts, both port-restricted"), |_, sites| {
            sites[side].routers[0].restart();
        });
        Direct.awaited([&pair.a, &pair.b]);
    }
}

#[test]
fn a_symmetric_nat_restarts_under_a_relayed_transfer() {
    let mut pair = Pair::settled(Symmetric, Symmetric, Relay);
    pair.transfer("the sender's NAT restarts, both symmetric", |_, sites| sites[0].routers[0].restart());
    let mut pair = Pair::settled(Symmetric, Symmetric, Relay);
    pair.transfer("the receiver's NAT restarts, both symmetric", |_, sites| sites[1].routers[0].restart());
}

#[test]
fn the_rendezvous_stops_under_a_direct_transfer() {
    let mut pair = Pair::settled(PortRestricted, PortRestricted, Direct);
    pair.transfer("the rendezvous is gone, both port-restricted", |lab, _| lab.stop_rendezvous());
    Direct.awaited([&pair.a, &pair.b]);
}

#[test]
fn the_rendezvous_restarts_under_a_relayed_transfer() {
    let mut pair = Pair::settled(Symmetric, Symmetric, Relay);
    pair.transfer("the rendezvous is killed and comes back, both symmetric", |lab, _| {
        lab.stop_rendezvous();
        lab.start_rendezvous();
    });
}

#[test]
fn a_killed_peer_is_reached_again_as_soon_as_it_is_up() {
    for (first, second, way) in
        [(Public, Public, Direct), (PortRestricted, PortRestricted, Direct), (Symmetric, Symmetric, Relay)]
    {
        let mut pair = Pair::settled(first, second, way);
        let mut transfer = Transfer::start(&pair.a, &pair.b, AMOUNT);
        transfer.reaches(MIDDLE);
        pair.sites[1].host.namespace().enter(|| pair.b.crash_and_restart());
        let took = deliver(&pair.a, &pair.b, "after the crash");
        drop(transfer);
        report(&format!(
            "roaming: the peer is killed and is up again, both {first}: a new message takes {took:.0?}"
        ));
        assert!(took < TOLERATED, "{took:?}");
        way.awaited([&pair.a, &pair.b]);
    }
}
