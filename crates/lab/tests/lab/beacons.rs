//! Two beacons, and nodes at each that only a relay brings together.

use std::net::SocketAddrV4;
use std::time::Duration;

use pilot_lab::Access::Symmetric;
use pilot_lab::Way::Relay;
use pilot_lab::{BEACON, Lab, Site, Transfer, agree, deliver, report};

/// What is moved, in megabytes, and when a beacon dies, in megabytes that have come.
const AMOUNT: u64 = 60;
const MIDDLE: u64 = 20;

/// What a test tolerates. The figures are printed; the goal is two seconds.
const TOLERATED: Duration = Duration::from_secs(10);

#[test]
fn nodes_at_two_beacons_are_relayed_across_and_go_on_when_one_of_the_two_dies() {
    let lab = Lab::open();
    let machine = lab.host("beacon");
    let second = SocketAddrV4::new(machine.address(), 9001);
    let mut dying = lab.start_beacon(&machine, second);
    let sites = [Site::build(&lab, "a", Symmetric), Site::build(&lab, "b", Symmetric)];
    let a = lab.ours_via(BEACON, &sites[0].host, "a", &[]);
    let b = lab.ours_via(second, &sites[1].host, "b", &["--trust-auto-approve"]);
    agree(&a, &b);
    deliver(&a, &b, "the first word");
    Relay.awaited([&a, &b]);
    let mut transfer = Transfer::start(&a, &b, AMOUNT);
    transfer.reaches(MIDDLE);
    transfer.watch();
    dying.kill();
    transfer.network_is_back();
    let interruption = transfer.finish();
    report(&format!("beacons: the receiver's beacon dies under a transfer across two: {interruption}"));
    assert!(interruption.length() < TOLERATED, "{interruption}");
    deliver(&b, &a, "and the other way");
}
