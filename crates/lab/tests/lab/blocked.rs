//! Networks that let no UDP through, or nothing but a proxy, at once or from some moment on.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use pilot_interop::{Node, until};
use pilot_lab::Access::{PortRestricted, Public};
use pilot_lab::Way::{Direct, Relay};
use pilot_lab::{
    Lab, Nat, Proxy, Site, Transfer, agree, deliver, echo, echo_by, endpoint, report, transport,
};

/// What is moved while UDP is blocked and unblocked, in megabytes.
const AMOUNT: u64 = 160;

/// Bytes per second that are offered: the transfer must outlast two changes of the way, each noticed in seconds.
const RATE: u64 = 4 << 20;

/// When UDP is blocked, in megabytes that have come.
const MIDDLE: u64 = 8;

/// How much must come over the new way before the next change.
const STRETCH: u64 = 8;

/// How long a transfer may stand still when its way is gone. It is printed.
const TOLERATED: Duration = Duration::from_secs(25);

#[track_caller]
fn uses(node: &Node, expected: &str) -> Duration {
    let begin = Instant::now();
    until(&format!("{} has its beacon over {expected}", node.name()), || {
        (transport(node) == expected).then_some(())
    });
    begin.elapsed()
}

/// The beacon is reached over the web, and the friend over the cable between them.
#[test]
fn two_friends_in_one_lan() {
    let lab = Lab::open();
    let mut home = lab.home("home", Nat::NoUdp);
    let hosts = [lab.host_behind(&mut home, "a"), lab.host_behind(&mut home, "b")];
    let a = lab.ours(&hosts[0], "a", &[]);
    let b = lab.ours(&hosts[1], "b", &["--trust-auto-approve"]);
    agree(&a, &b);
    let message = deliver(&a, &b, "the first word");
    let settled = Direct.awaited([&a, &b]);
    for node in [&a, &b] {
        uses(node, "web");
    }
    // Still, and again with the beacon over the web.
    Direct.awaited([&a, &b]);
    for (node, peer, address) in [(&a, &b, hosts[1].address()), (&b, &a, hosts[0].address())] {
        let used = endpoint(node, peer).and_then(|text| text.parse::<std::net::SocketAddr>().ok());
        assert_eq!(used.map(|addr| addr.ip()), Some(IpAddr::V4(address)), "{}", node.name());
    }
    let rate = echo_by(Direct, &lab, &a, &b, 2);
    report(&format!(
        "no UDP to the outside, one LAN: direct; first message {message:.0?}, this way {settled:.2?} later, echo \
         {rate:.1} MB/s"
    ));
}

#[test]
fn a_firewall_that_lets_nothing_through_but_a_proxy() {
    let lab = Lab::open();
    let proxy_host = lab.host("proxy");
    let proxy = Proxy::start(&proxy_host);
    let sites = [Site::build(&lab, "a", PortRestricted), Site::build(&lab, "b", Public)];
    sites[0].routers[0].let_through_only(proxy.place());
    let a = lab.ours_with(&[("HTTPS_PROXY", &proxy.url())], &sites[0].host, "a", &[]);
    let b = lab.ours(&sites[1].host, "b", &["--trust-auto-approve"]);
    agree(&a, &b);
    let there = deliver(&a, &b, "out through the proxy");
    let back = deliver(&b, &a, "and in");
    uses(&a, "web");
    uses(&b, "udp");
    Relay.awaited([&a, &b]);
    let rate = echo(&a, &b, 2);
    assert!(proxy.served() > 0);
    let check = a.ctl(&["netcheck"]);
    assert_eq!(check["udp"], false, "{check}");
    assert!(check["web"]["proxy"].as_str().is_some_and(|shown| shown.contains("3128")), "{check}");
    report(&format!(
        "nothing but a proxy: relay; messages {there:.0?} and {back:.0?}, echo {rate:.1} MB/s, {} connections through \
         the proxy",
        proxy.served()
    ));
}

#[test]
fn udp_is_blocked_and_unblocked_under_a_direct_transfer_of_the_blocked_side() {
    blocked_in_the_middle(0);
}

#[test]
fn udp_is_blocked_and_unblocked_under_a_direct_transfer_to_the_blocked_side() {
    blocked_in_the_middle(1);
}

/// The transfer goes on over the web and comes back to UDP, and every byte of it comes once.
fn blocked_in_the_middle(side: usize) {
    let lab = Lab::open();
    let sites = ["a", "b"].map(|name| Site::build(&lab, name, PortRestricted));
    let a = lab.ours(&sites[0].host, "a", &[]);
    let b = lab.ours(&sites[1].host, "b", &["--trust-auto-approve"]);
    agree(&a, &b);
    deliver(&a, &b, "the first word");
    Direct.awaited([&a, &b]);
    let (router, blocked) = (&sites[side].routers[0], [&a, &b][side]);
    let mut transfer = Transfer::start_at(RATE, &a, &b, AMOUNT);
    transfer.reaches(MIDDLE);
    transfer.watch();
    router.block_udp();
    let to_web = uses(blocked, "web");
    transfer.reaches(transfer.megabytes() + STRETCH);
    Relay.awaited([&a, &b]);
    let out = transfer.watch_again();
    router.unblock();
    transfer.network_is_back();
    let to_udp = uses(blocked, "udp");
    let to_direct = Direct.awaited([&a, &b]);
    let came = transfer.megabytes();
    assert!(came < AMOUNT, "the transfer was over before UDP was back");
    let back = transfer.finish();
    let whose = ["sender", "receiver"][side];
    report(&format!(
        "UDP is blocked at the {whose}: over the web after {to_web:.1?}, longest gap {:.1?}; unblocked: over UDP after \
         {to_udp:.1?}, direct {to_direct:.1?} later at {came} of {AMOUNT} MB, {back}",
        out.length()
    ));
    assert!(out.length() < TOLERATED, "{out}");
    assert!(back.length() < TOLERATED, "{back}");
}
