//! What two nodes say to each other while they have nothing to say.

use std::thread::sleep;
use std::time::Duration;

use pilot_lab::Access::{self, PortRestricted, Public, Symmetric};
use pilot_lab::Way::{self, Direct, Relay};
use pilot_lab::{Lab, Meter, Site, agree, deliver, report};

/// How long is counted.
const MINUTE: Duration = Duration::from_secs(60);

/// What comes after the last word belongs to it: acknowledgements, the end of a stream, a last round of probes.
const SETTLING: Duration = Duration::from_secs(8);

/// In a minute, a probe every 25 s at most and an answer to each of the other side's.
const PACKETS_MAX: u64 = 6;

#[test]
fn two_public_nodes() {
    keep_quiet(Public, Public, Direct);
}

#[test]
fn two_nodes_behind_nats() {
    keep_quiet(PortRestricted, PortRestricted, Direct);
}

#[test]
fn two_relayed_nodes() {
    keep_quiet(Symmetric, Symmetric, Relay);
}

fn keep_quiet(first: Access, second: Access, way: Way) {
    let lab = Lab::open();
    let sites = [Site::build(&lab, "a", first), Site::build(&lab, "b", second)];
    let a = lab.ours(&sites[0].host, "a", &[]);
    let b = lab.ours(&sites[1].host, "b", &["--trust-auto-approve"]);
    agree(&a, &b);
    deliver(&a, &b, "the last word");
    way.awaited([&a, &b]);
    sleep(SETTLING);
    let outside = sites[1].routers.first().map_or(sites[1].host.address(), |router| router.outside());
    let meter = Meter::start(&sites[0].host, outside);
    sleep(MINUTE);
    let count = meter.read();
    let title = format!("idle for a minute, {first} and {second}, {way}");
    report(&format!("{title}: to the peer {}, from it {}", count.to_peer, count.from_peer));
    report(&format!("{title}: to the beacon {}, from it {}", count.to_beacon, count.from_beacon));
    report(&format!("{title}: to the registry {}, from it {}", count.to_registry, count.from_registry));
    way.awaited([&a, &b]);
    if way == Direct {
        let most = count.to_peer.packets.max(count.from_peer.packets);
        assert!(most <= PACKETS_MAX, "{count:?}");
    }
}
