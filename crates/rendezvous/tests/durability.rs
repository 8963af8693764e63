//! Rendezvous processes that are killed, disks that are full, databases that go away: what was acknowledged is there.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{
    about,
    client::{Client, Server, at},
    identity, numbered, postgres, register,
    victim::{self, Victim},
};
use pilot_rendezvous::{
    registry::{Key, Record},
    store,
};
use pilot_wire::{
    NodeId,
    registry::{CreateNetwork, Envelope, Handshake, HandshakeAnswer, Request, Response, SetHostname, frame},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test of its own: the process that the others kill.
#[test]
fn a_process_to_be_killed() {
    victim::be_killed();
}

fn handshake(from_node_id: NodeId, to_node_id: NodeId) -> Request {
    Request::RequestHandshake(Handshake { from_node_id, to_node_id, ..Handshake::default() })
}

// Kills.

#[test]
fn what_was_acknowledged_survives_a_kill_of_one_with_a_file() {
    let folder = tempfile::tempdir().unwrap();
    everything_survives_kills(folder.path().join("registry.redb").to_str().unwrap());
}

#[test]
fn what_was_acknowledged_survives_a_kill_of_one_with_a_database() {
    everything_survives_kills(&postgres::database().url);
}

fn everything_survives_kills(store: &str) {
    let mut acknowledged: Vec<(u8, NodeId, String)> = Vec::new();
    for round in 1..=10_u8 {
        let victim = Victim::start(store);
        let mut client = Client::registered(victim.registry, identity(round));
        let name = format!("agent-{round}");
        let request = SetHostname { node_id: client.id, hostname: name.clone(), ..SetHostname::default() };
        assert!(matches!(client.ask(Request::SetHostname(request)), Response::SetHostname { .. }));
        if let Some((_, earlier, _)) = acknowledged.last() {
            // Asked, and killed before the peer could fetch it.
            assert!(matches!(client.ask(handshake(client.id, *earlier)), Response::RequestHandshake { .. }));
        }
        victim.kill();
        acknowledged.push((round, client.id, name));
    }
    let victim = Victim::start(store);
    for (round, id, name) in &acknowledged {
        let mut client = Client::registered(victim.registry, identity(*round));
        assert_eq!(client.id, *id);
        match client.ask(Request::Lookup(about(*id))) {
            Response::Lookup(record) => assert_eq!(record.hostname.as_ref(), Some(name)),
            other => panic!("{other:?}"),
        }
        let expected = usize::from(*round < 10);
        match client.ask(Request::PollHandshakes(about(*id))) {
            Response::PollHandshakes(inbox) => assert_eq!(inbox.requests.len(), expected, "inbox of {name}"),
            other => panic!("{other:?}"),
        }
        if *round < 10 {
            let yes = HandshakeAnswer {
                node_id: *id,
                peer_id: NodeId(id.0 + 1),
                accept: true,
                ..Default::default()
            };
            assert!(matches!(client.ask(Request::RespondHandshake(yes)), Response::RespondHandshake { .. }));
        }
    }
    let mut stranger = Client::registered(victim.registry, identity(99));
    assert_eq!(stranger.id, NodeId(11), "no number is given twice");
    assert!(stranger.is_served());
    victim.kill();
}

/// Registers nodes over several connections while the rendezvous is killed again and again; `PILOT_TEST_REGISTRATIONS` sets
/// how many.
fn registrations_survive_kills(store: &str) {
    let wanted = std::env::var("PILOT_TEST_REGISTRATIONS").map_or(10_000, |text| text.parse().unwrap());
    let kills = 20;
    let first = Victim::start(store);
    let place = Mutex::new(first.registry);
    let next = AtomicU32::new(0);
    let acknowledged = Mutex::new(BTreeMap::new());
    let mut victim = Some(first);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= wanted {
                        break;
                    }
                    let id = register_somehow(&place, number);
                    acknowledged.lock().unwrap().insert(number, id);
                }
            });
        }
        for kill in 1..=kills {
            let enough = wanted as usize * kill / (kills + 1);
            wait_until(|| acknowledged.lock().unwrap().len() >= enough);
            victim.take().unwrap().kill();
            let reborn = Victim::start(store);
            *place.lock().unwrap() = reborn.registry;
            victim = Some(reborn);
        }
    });
    victim.unwrap().kill();
    let acknowledged = acknowledged.into_inner().unwrap();
    assert_eq!(acknowledged.len(), wanted as usize);
    are_kept(store, &acknowledged);
}

/// Asks until it is acknowledged, whoever is killed meanwhile.
fn register_somehow(place: &Mutex<SocketAddr>, number: u32) -> NodeId {
    let identity = numbered(number);
    let end = Instant::now() + PATIENCE;
    thread_local! {
        static CLIENT: std::cell::RefCell<Option<Client>> = const { std::cell::RefCell::new(None) };
    }
    CLIENT.with_borrow_mut(|client| {
        loop {
            assert!(Instant::now() < end, "no registration");
            let Some(open) = client else {
                *client = Client::try_connect(*place.lock().unwrap());
                continue;
            };
            open.identity = identity.clone();
            match open.try_ask(register(&identity, "127.0.0.1:4000")) {
                Some(Response::Register(registered)) => return registered.node_id,
                Some(Response::Error { error }) => assert!(error.contains("try again"), "{error}"),
                Some(other) => panic!("{other:?}"),
                None => *client = None,
            }
        }
    })
}

fn are_kept(store: &str, acknowledged: &BTreeMap<u32, NodeId>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_, records) = runtime.block_on(store::open(&store.parse().unwrap())).unwrap();
    let mut kept = BTreeMap::new();
    for (key, record) in records {
        if let (Key::Node(id), Record::Node(node)) = (key, record) {
            kept.insert(id, node.key);
        }
    }
    let mut by_id = BTreeMap::new();
    for (number, id) in acknowledged {
        assert_eq!(by_id.insert(*id, *number), None, "{id} was given twice");
        assert_eq!(kept.get(id), Some(&numbered(*number).public()), "registration {number}");
    }
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn ten_thousand_registrations_survive_kills_of_one_with_a_file() {
    let folder = tempfile::tempdir().unwrap();
    registrations_survive_kills(folder.path().join("registry.redb").to_str().unwrap());
}

#[test]
fn ten_thousand_registrations_survive_kills_of_one_with_a_database() {
    registrations_survive_kills(&postgres::database().url);
}

// A database that goes away.

#[test]
fn a_database_that_crashes_under_load_loses_nothing_and_service_resumes() {
    let postgres = postgres::Postgres::private();
    let database = postgres.database();
    let server = Server::start(at(database.store()));
    let place = Mutex::new(server.bound.registry);
    let acknowledged = Mutex::new(BTreeMap::new());
    let (next, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let id = register_somehow(&place, number);
                    acknowledged.lock().unwrap().insert(number, id);
                }
            });
        }
        for round in 1..=4 {
            let enough = acknowledged.lock().unwrap().len() + 50;
            wait_until(|| acknowledged.lock().unwrap().len() >= enough);
            if round < 4 {
                postgres.control("restart");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    drop(server);
    are_kept(&database.url, &acknowledged.into_inner().unwrap());
}

#[test]
fn while_the_database_is_away_changes_are_refused_and_the_rest_goes_on() {
    let postgres = postgres::Postgres::private();
    let database = postgres.database();
    let server = Server::start(at(database.store()));
    let mut known = Client::registered(server.bound.registry, identity(1));
    postgres.control("stop");
    let name = |id, hostname: &str| {
        Request::SetHostname(SetHostname {
            node_id: id,
            hostname: hostname.to_owned(),
            ..SetHostname::default()
        })
    };
    match known.ask(name(known.id, "alpha")) {
        Response::Error { error } => assert!(error.contains("cannot store changes"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(known.is_served(), "heartbeats go on");
    match known.ask(Request::Lookup(about(known.id))) {
        Response::Lookup(found) => assert_eq!(found.hostname, None),
        other => panic!("{other:?}"),
    }
    postgres.control("start");
    wait_until(|| matches!(known.ask(name(known.id, "alpha")), Response::SetHostname { .. }));
    drop(server);
    let server = Server::start(at(database.store()));
    let mut known = Client::registered(server.bound.registry, identity(1));
    match known.ask(Request::Lookup(about(known.id))) {
        Response::Lookup(found) => assert_eq!(found.hostname.as_deref(), Some("alpha")),
        other => panic!("{other:?}"),
    }
}

/// Nothing says that a server hangs but its silence.
#[test]
fn while_the_database_hangs_who_only_asks_is_answered() {
    let postgres = postgres::Postgres::private();
    let database = postgres.database();
    let server = Server::start(at(database.store()));
    let mut changes = Client::registered(server.bound.registry, identity(1));
    let mut asks = Client::registered(server.bound.registry, identity(2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let processes = runtime.block_on(database.numbers(
        "SELECT pid::bigint FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    ));
    let signal = |signal: &str| {
        let pids = processes.iter().map(i64::to_string);
        assert!(std::process::Command::new("kill").arg(signal).args(pids).status().unwrap().success());
    };
    signal("-STOP");
    let name = SetHostname { node_id: changes.id, hostname: "alpha".to_owned(), ..SetHostname::default() };
    changes.send(Request::SetHostname(name));
    // The registry has it once it answers a later one.
    for _ in 0..10 {
        assert!(asks.is_served());
    }
    changes.stream.set_nonblocking(true).unwrap();
    let early = changes.stream.peek(&mut [0]);
    changes.stream.set_nonblocking(false).unwrap();
    assert_eq!(early.map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock), "it hangs");
    match changes.receive() {
        Some(Response::Error { error }) => assert!(error.contains("cannot store changes"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(asks.is_served());
    signal("-CONT");
    wait_until(|| {
        let name = SetHostname { node_id: changes.id, hostname: "beta".to_owned(), ..SetHostname::default() };
        matches!(changes.ask(Request::SetHostname(name)), Response::SetHostname { .. })
    });
}

#[test]
fn a_registration_that_was_refused_leaves_nothing_behind() {
    let postgres = postgres::Postgres::private();
    let database = postgres.database();
    let server = Server::start(at(database.store()));
    let mut first = Client::registered(server.bound.registry, identity(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The turn begins, and the write fails.
    runtime
        .block_on(database.execute("ALTER TABLE pilot_records ADD CONSTRAINT full_disk CHECK (number < 2)"));
    let mut refused = Client::connect(server.bound.registry);
    refused.identity = identity(2);
    match refused.ask(register(&identity(2), "127.0.0.1:4000")) {
        Response::Error { error } => assert!(error.contains("try again"), "{error}"),
        other => panic!("{other:?}"),
    }
    wait_until(|| matches!(first.ask(Request::Lookup(about(NodeId(2)))), Response::Error { .. }));
    runtime.block_on(database.execute("ALTER TABLE pilot_records DROP CONSTRAINT full_disk"));
    let mut id = None;
    first.identity = identity(3);
    wait_until(|| match first.ask(register(&identity(3), "127.0.0.1:4000")) {
        Response::Register(registered) => {
            id = Some(registered.node_id);
            true
        }
        _ => false,
    });
    assert_eq!(id, Some(NodeId(2)), "the number is free");
    // Nothing was ever proven about the number on this connection.
    let mut sets = SetHostname { node_id: NodeId(2), hostname: "thief".to_owned(), ..SetHostname::default() };
    assert!(matches!(refused.ask(Request::SetHostname(sets.clone())), Response::Error { .. }));
    sets.hostname = "owner".to_owned();
    assert!(matches!(first.ask(Request::SetHostname(sets)), Response::SetHostname { .. }));
}

// A disk that is full.

#[cfg(target_os = "linux")]
#[test]
fn on_a_full_disk_nothing_is_acknowledged_and_when_there_is_room_everything_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("registry.redb").to_str().unwrap().to_owned();
    let victim = Victim::start_on_a_full_disk(&store);
    let mut client = Client::registered(victim.registry, identity(1));
    let create = |name: &str| {
        let policy = serde_json::json!({"version": 1, "rules": ["x".repeat(60_000)]});
        let network = CreateNetwork {
            node_id: NodeId(1),
            name: name.to_owned(),
            expr_policy: policy.into(),
            ..CreateNetwork::default()
        };
        let request = Request::CreateNetwork(network);
        frame(&Envelope::with_token(request, "adm").to_json()).unwrap()
    };
    let mut acknowledged = Vec::new();
    let refusal = loop {
        let name = format!("n{}", acknowledged.len());
        client.send_raw(&create(&name));
        match client.receive().unwrap() {
            Response::CreateNetwork { network_id, .. } => acknowledged.push((network_id, name)),
            Response::Error { error } => break error,
            other => panic!("{other:?}"),
        }
        assert!(acknowledged.len() < 100, "the limit has no effect");
    };
    assert!(refusal.contains("cannot store"), "{refusal}");
    assert!(client.is_served(), "what needs no room goes on");
    assert!(matches!(client.ask(Request::Lookup(about(NodeId(1)))), Response::Lookup(_)));
    let pid = victim.process.id().to_string();
    let raised = std::process::Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status();
    assert!(raised.unwrap().success());
    // It tries again every half second; each question lets the test wait for one turn of the registry.
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        client.send_raw(&create("later"));
        match client.receive().unwrap() {
            Response::CreateNetwork { network_id, .. } => {
                acknowledged.push((network_id, "later".to_owned()));
                break;
            }
            Response::Error { error } => assert!(Instant::now() < end, "{error}"),
            other => panic!("{other:?}"),
        }
    }
    victim.kill();
    let victim = Victim::start(&store);
    let mut client = Client::registered(victim.registry, identity(1));
    let Response::ListNetworks { networks } = client.ask(Request::ListNetworks {}) else { panic!() };
    for (id, name) in acknowledged {
        assert!(networks.iter().any(|network| network.id == id && network.name == name), "{name}");
    }
    victim.kill();
}
