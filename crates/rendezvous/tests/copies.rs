//! Copies of a registry over either kind of store, and what is said while a store does not work.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{
    ADMIN,
    client::{Client, Server, at, fill},
    identity,
    pages::get,
    postgres,
};
use pilot_crypto::Identity;
use pilot_rendezvous::{
    Config, Http, dump,
    registry::{
        Key, Record,
        record::{Counters, Node},
    },
    store::{self, StoreUrl},
    transfer::FillError,
};
use pilot_wire::{
    NodeId,
    registry::{CreateNetwork, Envelope, Pair, Request, Response, SetHostname, frame},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

fn with_pages(store: impl Into<StoreUrl>) -> Config {
    Config { http: Some(Http { control: Some("control".to_owned()), ..Http::beside() }), ..at(store) }
}

fn pages(server: &Server) -> SocketAddr {
    server.bound.http.expect("the pages are bound")
}

fn copy(server: &Server) -> (u16, String) {
    let (status, _, text) = get(pages(server), "/api/backup", &["Authorization: Bearer control"]);
    (status, text)
}

fn records(server: &Server) -> BTreeMap<Key, Record> {
    let (status, text) = copy(server);
    assert_eq!(status, 200, "{text}");
    dump::read(text.as_bytes()).unwrap().into_iter().collect()
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it takes too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn name(client: &Client, hostname: &str) -> Request {
    let hostname = hostname.to_owned();
    Request::SetHostname(SetHostname { node_id: client.id, hostname, ..SetHostname::default() })
}

#[test]
fn a_copy_of_a_file_becomes_a_database_and_a_copy_of_that_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_pages(folder.path().join("r.redb")));
    let mut nodes: Vec<_> =
        (1..=2).map(|seed| Client::registered(server.bound.registry, identity(seed))).collect();
    for (one, other) in [(0, 1), (1, 0)] {
        let pair = Pair { node_id: nodes[one].id, peer_id: nodes[other].id, ..Pair::default() };
        nodes[one].ask(Request::ReportTrust(pair));
    }
    let network =
        CreateNetwork { node_id: nodes[0].id, name: "market".to_owned(), ..CreateNetwork::default() };
    nodes[0]
        .send_raw(&frame(&Envelope::with_token(Request::CreateNetwork(network), ADMIN).to_json()).unwrap());
    assert!(matches!(nodes[0].receive(), Some(Response::CreateNetwork { .. })));
    let kept = records(&server);
    for key in [Key::Authority, Key::Mesh, Key::Counters, Key::Consents(nodes[1].id)] {
        assert!(kept.contains_key(&key), "{key:?}");
    }
    assert!(kept.keys().any(|key| matches!(key, Key::Audit(_))), "what was done is remembered");
    drop(server);

    let database = postgres::database();
    fill(&database.store(), kept.clone().into_iter().collect()).unwrap();
    let again = fill(&database.store(), kept.clone().into_iter().collect());
    assert!(matches!(&again, Err(FillError::NotEmpty { .. })), "{again:?}");
    assert!(!again.unwrap_err().to_string().contains(postgres::PASSWORD));
    let server = Server::start(with_pages(database.store()));
    assert_eq!(records(&server), kept);
    assert_eq!(Client::registered(server.bound.registry, identity(2)).id, nodes[1].id);
}

/// More than fit into one statement, and more than a usual commit has time for.
#[test]
fn a_large_registry_is_put_into_a_database_whole() {
    let nodes = 20_000;
    let counters = Counters { next_node: nodes + 1, next_network: 1 };
    let mut records = vec![(Key::Counters, Record::Counters(counters))];
    records.extend((1..=nodes).map(|number| {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let node = Node::new(Identity::from_seed(&seed).public(), common::START);
        (Key::Node(NodeId(number)), Record::Node(node))
    }));
    let database = postgres::database();
    fill(&database.store(), records.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_, kept) = runtime.block_on(store::open(&database.store())).unwrap();
    assert_eq!(BTreeMap::from_iter(kept), BTreeMap::from_iter(records));
}

#[test]
fn records_that_contradict_each_other_go_nowhere() {
    let database = postgres::database();
    let mislabelled = vec![(Key::Mesh, Record::Counters(Counters { next_node: 1, next_network: 1 }))];
    let refused = fill(&database.store(), mislabelled);
    assert!(matches!(refused, Err(FillError::Records(_))), "{refused:?}");
    fill(&database.store(), Vec::new()).unwrap();
}

#[test]
fn a_copy_of_one_instance_has_what_another_has_acknowledged() {
    let database = postgres::database();
    let writes = Server::start(with_pages(database.store()));
    let copies = Server::start(with_pages(database.store()));
    let mut node = Client::registered(writes.bound.registry, identity(1));
    for number in 0..10 {
        let hostname = format!("name-{number}");
        assert!(matches!(node.ask(name(&node, &hostname)), Response::SetHostname { .. }));
        assert!(copy(&copies).1.contains(&hostname), "{hostname}");
    }
}

#[test]
fn who_cannot_write_is_not_ready_and_says_so_until_it_can_though_nobody_asks_for_a_change() {
    let postgres = postgres::Postgres::private();
    let database = postgres.database();
    let server = Server::start(with_pages(database.store()));
    let mut node = Client::registered(server.bound.registry, identity(1));
    let addr = pages(&server);
    assert_eq!(get(addr, "/readyz", &[]).0, 200);
    postgres.control("stop");
    let refused = node.ask(name(&node, "alpha"));
    assert!(matches!(refused, Response::Error { .. }), "{refused:?}");
    wait_until(|| get(addr, "/readyz", &[]).0 == 503);
    assert!(get(addr, "/readyz", &[]).2.contains("store cannot be written"));
    let (status, why) = copy(&server);
    assert!(status == 503 && why.contains("no copy"), "what may not be true is not handed out: {why}");
    assert_eq!(get(addr, "/healthz", &[]).0, 200, "it lives");
    let failures = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("pilot_store_failures_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    assert!(failures(&get(addr, "/metrics", &[]).2) > 0);
    postgres.control("start");
    wait_until(|| get(addr, "/readyz", &[]).0 == 200);
    assert_eq!(copy(&server).0, 200);
    assert!(node.is_served());
}
