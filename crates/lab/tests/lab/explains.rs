//! What nodes say of their networks and of the ways to their peers is what was built.

use std::time::{Duration, Instant};

use pilot_interop::{Node, until};
use pilot_lab::Access::{self, NoUdp, PortRestricted, Public, Symmetric};
use pilot_lab::Way::{self, Direct, Relay};
use pilot_lab::{Lab, Site, agree, deliver, report};
use pilot_wire::ipc::paths::{Netcheck, PathKind, Probe, RelayCause, RelayState, Why};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::kinds::KINDS;

/// When a command to a peer that is gone must have failed. The goal is 2.5 s; several tests share the machine.
const FAILS: Duration = Duration::from_secs(8);

fn read<T: DeserializeOwned>(data: &Value) -> T {
    serde_json::from_value(data.clone()).unwrap_or_else(|error| panic!("{error}: {data}"))
}

#[test]
fn netcheck_names_every_kind() {
    let lab = Lab::open();
    for (index, (access, expected)) in KINDS.into_iter().enumerate() {
        let name = format!("n{index}");
        let site = Site::build(&lab, &name, access);
        let node = lab.ours(&site.host, &name, &[]);
        let begin = Instant::now();
        let data = node.ctl(&["netcheck"]);
        let took = begin.elapsed();
        let check: Netcheck = read(&data);
        report(&format!("netcheck of {access}: {took:.0?}, beacon {:?} us", check.beacon.rtt_us));
        assert_eq!(check.udp, Some(expected.is_some()), "{access}: {data}");
        assert!(check.registry.answers && check.registry.rtt_us.is_some(), "{access}: {data}");
        let Some(kind) = expected else { continue };
        assert!(check.beacon.answers && check.beacon.rtt_us.is_some(), "{access}: {data}");
        assert!(check.second_address, "{access}: {data}");
        assert_eq!(check.nat.mapping, kind.mapping.into(), "{access}: {data}");
        assert_eq!(check.nat.filtering, kind.filtering.into(), "{access}: {data}");
        assert_eq!(check.hairpinning, kind.hairpinning, "{access}: {data}");
        assert_eq!(check.port_preserved, Some(kind.port_preserved), "{access}: {data}");
        let seen = site.routers.first().map_or(site.host.address(), |router| router.outside());
        assert_eq!(check.observed.map(|at| at.ip()), Some(seen.into()), "{access}: {data}");
    }
}

/// A lab with a pair that has met.
struct Pair {
    a: Node,
    b: Node,
    sites: [Site; 2],
    _lab: Lab,
}

fn met(first: Access, second: Access, way: Way) -> Pair {
    let lab = Lab::open();
    let sites = [Site::build(&lab, "a", first), Site::build(&lab, "b", second)];
    let a = lab.ours(&sites[0].host, "a", &[]);
    let b = lab.ours(&sites[1].host, "b", &["--trust-auto-approve"]);
    agree(&a, &b);
    deliver(&a, &b, "the first word");
    way.awaited([&a, &b]);
    Pair { a, b, sites, _lab: lab }
}

#[test]
fn why_a_pair_is_direct() {
    let pair = met(PortRestricted, PortRestricted, Direct);
    let data = pair.a.ctl(&["why", &pair.b.address()]);
    let why: Why = read(&data);
    assert_eq!(why.path, PathKind::Direct, "{data}");
    assert!(why.probe.is_some_and(|probe| probe.answered), "{data}");
    assert_eq!(why.relayed_because, None, "{data}");
    assert_eq!(why.endpoint.map(|at| at.ip()), Some(pair.sites[1].routers[0].outside().into()), "{data}");
    let used: Vec<_> = why.candidates.iter().filter(|candidate| candidate.in_use).collect();
    assert_eq!(used.iter().map(|candidate| Some(candidate.address)).collect::<Vec<_>>(), [why.endpoint]);
    assert!(used[0].answered_ms.is_some() && used[0].rtt_us.is_some(), "{data}");
    assert!(why.since_ms.is_some() && why.rtt_us.is_some(), "{data}");
}

#[test]
fn why_a_pair_is_relayed() {
    for (first, second) in [(Symmetric, Symmetric), (PortRestricted, Symmetric)] {
        let pair = met(first, second, Relay);
        // The direct addresses are tried for a while first.
        let data = until("the NATs are given as the reason", || {
            let data = pair.a.ctl(&["why", &pair.b.address()]);
            (read::<Why>(&data).relayed_because == Some(RelayCause::NatsDoNotFit)).then_some(data)
        });
        let why: Why = read(&data);
        assert_eq!(why.path, PathKind::Relayed, "{data}");
        assert_eq!(why.relay.state, RelayState::Works, "{data}");
        assert!(why.probe.is_some_and(|probe| probe.answered), "{data}");
        assert!(why.next_try_ms.is_some(), "{data}");
        for (known, access) in [(why.our_nat, first), (why.their_nat, second)] {
            let kind = KINDS.into_iter().find(|(other, _)| *other == access).and_then(|(_, kind)| kind);
            let kind = kind.expect("it lets UDP through");
            assert_eq!(known.mapping, kind.mapping.into(), "{data}");
            assert_eq!(known.filtering, kind.filtering.into(), "{data}");
        }
        report(&format!("why, {first} and {second}: {}", why.summary));
    }
}

#[test]
fn why_a_peer_does_not_answer() {
    for (first, second, way) in [
        (Public, Public, Direct),
        (PortRestricted, PortRestricted, Direct),
        (Symmetric, Symmetric, Relay),
        (PortRestricted, NoUdp, Relay),
    ] {
        let mut pair = met(first, second, way);
        pair.b.crash();
        let to = pair.b.address();
        for words in
            [&["send-message", &to, "--data", "to nobody", "--now"][..], &["ping", &to, "--count", "1"]]
        {
            let begin = Instant::now();
            let failed = pair.a.try_ctl(words).expect_err("nobody is there");
            let took = begin.elapsed();
            let said = failed.document["message"].as_str().unwrap_or_default().to_owned();
            report(&format!(
                "{} to a dead peer, {first} and {second}: {took:.2?}, status {:?}, {said}",
                words[0], failed.status
            ));
            assert!(matches!(failed.status, Some(3 | 6)), "{failed:?}");
            for part in ["last seen", "no answer", "relay: "] {
                assert!(said.contains(part), "`{part}` is missing: {failed:?}");
            }
            assert!(took < FAILS, "{words:?} takes {took:?}");
        }
        let begin = Instant::now();
        let failed = pair.a.try_ctl(&["why", &to]).expect_err("nobody is there");
        let took = begin.elapsed();
        assert_eq!(failed.status, Some(3), "{failed:?}");
        let data = &failed.document["data"];
        let why: Why = read(data);
        assert!(matches!(why.probe, Some(Probe { answered: false, .. })), "{data}");
        assert!(why.summary.contains("last seen") && why.summary.contains("relay: "), "{data}");
        report(&format!("why of a dead peer, {first} and {second}: {took:.2?}, {}", why.summary));
        assert!(took < FAILS, "{took:?}");
    }
}
