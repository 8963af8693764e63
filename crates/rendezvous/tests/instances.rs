//! Several rendezvous at once over one database.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{
    about,
    client::{Client, Server, at},
    identity, numbered, pair,
    postgres::{self, Database},
    register,
    victim::{self, Victim},
};
use pilot_wire::{
    NodeId,
    registry::{
        AwaitNotices, BeaconRegister, Handshake, Lookup, Notices, Request, ResolveHostname, Response,
        SetHostname,
    },
};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Not a test of its own: the process that another kills.
#[test]
fn a_process_to_be_killed() {
    victim::be_killed();
}

struct Two {
    database: Database,
    a: Server,
    b: Server,
}

impl Two {
    fn start() -> Self {
        let database = postgres::database();
        let (a, b) = (Server::start(at(database.store())), Server::start(at(database.store())));
        Self { database, a, b }
    }

    fn a(&self) -> SocketAddr {
        self.a.bound.registry
    }

    fn b(&self) -> SocketAddr {
        self.b.bound.registry
    }
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it takes too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn lookup(client: &mut Client, id: NodeId) -> Option<Lookup> {
    match client.ask(Request::Lookup(about(id))) {
        Response::Lookup(found) => Some(found),
        Response::Error { .. } => None,
        other => panic!("{other:?}"),
    }
}

fn named(id: NodeId, hostname: &str) -> Request {
    Request::SetHostname(SetHostname { node_id: id, hostname: hostname.to_owned(), ..SetHostname::default() })
}

fn find(client: &mut Client, hostname: &str) -> Option<NodeId> {
    match client.ask(Request::ResolveHostname(ResolveHostname { hostname: hostname.to_owned() })) {
        Response::ResolveHostname(found) => Some(found.node_id),
        Response::Error { .. } => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_registered_at_one_is_found_at_the_other() {
    let two = Two::start();
    let mut here = Client::registered(two.a(), identity(1));
    assert!(matches!(here.ask(named(here.id, "alpha")), Response::SetHostname { .. }));
    let mut there = Client::registered(two.b(), identity(2));
    wait_until(|| find(&mut there, "alpha") == Some(here.id));
    // And what is taken back is gone there too.
    assert!(matches!(here.ask(Request::Deregister(about(here.id))), Response::Deregister {}));
    wait_until(|| lookup(&mut there, here.id).is_none());
    assert_eq!(find(&mut there, "alpha"), None);
}

#[test]
fn a_node_that_comes_to_the_other_is_who_it_was() {
    let two = Two::start();
    let here = Client::registered(two.a(), identity(1));
    let there = Client::registered(two.b(), identity(1));
    assert_eq!(there.id, here.id);
}

#[test]
fn of_two_that_ask_for_a_name_at_once_one_gets_it() {
    let two = Two::start();
    let (mut a, mut b) = (Client::registered(two.a(), identity(1)), Client::registered(two.b(), identity(2)));
    for round in 0..30 {
        let name = format!("name-{round}");
        a.send(named(a.id, &name));
        b.send(named(b.id, &name));
        let got = [a.receive().unwrap(), b.receive().unwrap()]
            .map(|reply| matches!(reply, Response::SetHostname { .. }));
        assert!(got[0] != got[1], "{name}: {got:?}");
        let holder = if got[0] { a.id } else { b.id };
        wait_until(|| find(&mut a, &name) == Some(holder) && find(&mut b, &name) == Some(holder));
    }
}

#[test]
fn no_number_is_given_twice_by_two_at_once() {
    let two = Two::start();
    let ids: Vec<NodeId> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u32)
            .map(|thread| {
                let registry = if thread % 2 == 0 { two.a() } else { two.b() };
                scope.spawn(move || {
                    let register = |at| Client::registered(registry, numbered(thread * 1000 + at)).id;
                    (0..50).map(register).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let different: BTreeSet<NodeId> = ids.iter().copied().collect();
    assert_eq!(different.len(), 400);
    // Both know all of them.
    for registry in [two.a(), two.b()] {
        let mut client = Client::registered(registry, identity(1));
        wait_until(|| different.iter().all(|id| lookup(&mut client, *id).is_some()));
    }
}

#[test]
fn a_request_for_trust_at_one_wakes_the_node_that_waits_at_the_other() {
    let two = Two::start();
    let mut asker = Client::registered(two.a(), identity(1));
    let mut target = Client::registered(two.b(), identity(2));
    wait_until(|| lookup(&mut asker, target.id).is_some());
    let wait = AwaitNotices { node_id: target.id, timeout_ms: 240_000, ..AwaitNotices::default() };
    target.send(Request::AwaitNotices(wait));
    let (from_node_id, to_node_id) = (asker.id, target.id);
    let request = Handshake { from_node_id, to_node_id, ..Handshake::default() };
    assert!(matches!(asker.ask(Request::RequestHandshake(request)), Response::RequestHandshake { .. }));
    assert_eq!(
        target.receive(),
        Some(Response::AwaitNotices(Notices { waiting: true, ..Notices::default() }))
    );
    match target.ask(Request::PollHandshakes(about(target.id))) {
        Response::PollHandshakes(inbox) => assert_eq!(inbox.requests[0].from_node_id, asker.id),
        other => panic!("{other:?}"),
    }
    // Received at B, so A does not hand it out again.
    assert!(target.is_served());
    let mut at_a = Client::registered(two.a(), identity(2));
    match at_a.ask(Request::PollHandshakes(about(target.id))) {
        Response::PollHandshakes(inbox) => assert_eq!(inbox.requests, []),
        other => panic!("{other:?}"),
    }
}

#[test]
fn trust_that_was_made_at_both_holds_at_both() {
    let two = Two::start();
    let (mut a, mut b) = (Client::registered(two.a(), identity(1)), Client::registered(two.b(), identity(2)));
    wait_until(|| lookup(&mut a, b.id).is_some() && lookup(&mut b, a.id).is_some());
    assert!(matches!(a.ask(Request::ReportTrust(pair(a.id, b.id))), Response::ReportTrust {}));
    assert!(matches!(b.ask(Request::ReportTrust(pair(b.id, a.id))), Response::ReportTrust {}));
    let (a_id, b_id) = (a.id, b.id);
    for client in [&mut a, &mut b] {
        wait_until(|| match client.ask(Request::CheckTrust(pair(a_id, b_id))) {
            Response::CheckTrust { trusted } => trusted,
            other => panic!("{other:?}"),
        });
    }
}

#[test]
fn who_is_heard_of_at_one_is_not_silent_at_the_other() {
    let two = Two::start();
    let mut node = Client::registered(two.b(), identity(1));
    let mut other = Client::registered(two.a(), identity(2));
    let mut seen_at_a = |id| lookup(&mut other, id).and_then(|found| found.last_seen_unix);
    // Told to its acquaintances only.
    let public = pilot_wire::registry::SetVisibility { node_id: node.id, public: true, ..Default::default() };
    assert!(matches!(node.ask(Request::SetVisibility(public)), Response::SetVisibility { .. }));
    wait_until(|| seen_at_a(node.id).is_some());
    let first = seen_at_a(node.id);
    wait_until(|| {
        assert!(node.is_served());
        seen_at_a(node.id) > first
    });
}

#[test]
fn a_beacon_announced_at_one_is_listed_at_the_other() {
    let two = Two::start();
    let mut here = Client::connect(two.a());
    let beacon = BeaconRegister { beacon_id: 77, addr: "203.0.113.7:9001".to_owned() };
    assert!(matches!(here.ask(Request::BeaconRegister(beacon)), Response::BeaconRegister { .. }));
    let mut there = Client::connect(two.b());
    let expected: BTreeSet<String> =
        [two.a.bound.beacon.to_string(), two.b.bound.beacon.to_string(), "203.0.113.7:9001".to_owned()]
            .into();
    for client in [&mut here, &mut there] {
        wait_until(|| match client.ask(Request::BeaconList {}) {
            Response::BeaconList { beacons } => {
                beacons.into_iter().map(|beacon| beacon.addr).collect::<BTreeSet<_>>() == expected
            }
            other => panic!("{other:?}"),
        });
    }
}

#[test]
fn when_one_is_killed_the_other_serves_everything() {
    let database = postgres::database();
    let victim = Victim::start(&database.url);
    let b = Server::start(at(database.store()));
    let mut ids = Vec::new();
    for number in 0..20 {
        let mut client = Client::registered(victim.registry, numbered(number));
        let name = format!("agent-{number}");
        assert!(matches!(client.ask(named(client.id, &name)), Response::SetHostname { .. }));
        ids.push(client.id);
    }
    victim.kill();
    for (number, id) in (0..).zip(ids) {
        // Whoever writes knows everything.
        let mut client = Client::registered(b.bound.registry, numbered(number));
        assert_eq!(client.id, id);
        assert_eq!(lookup(&mut client, id).unwrap().hostname, Some(format!("agent-{number}")));
    }
    let mut newcomer = Client::registered(b.bound.registry, identity(99));
    assert_eq!(newcomer.id, NodeId(21));
    assert!(newcomer.is_served());
}

#[test]
fn one_that_lost_its_connections_catches_up() {
    let two = Two::start();
    let mut there = Client::registered(two.b(), identity(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for number in 0..3 {
        runtime.block_on(two.database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        ));
        let identity = numbered(number);
        let mut id = None;
        wait_until(|| {
            let mut client = Client::connect(two.a());
            client.identity = identity.clone();
            match client.ask(register(&identity, "127.0.0.1:4000")) {
                Response::Register(registered) => id = Some(registered.node_id),
                Response::Error { error } => assert!(error.contains("try again"), "{error}"),
                other => panic!("{other:?}"),
            }
            id.is_some()
        });
        wait_until(|| lookup(&mut there, id.unwrap()).is_some());
    }
}
