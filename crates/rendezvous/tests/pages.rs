//! The pages of a rendezvous over real sockets: who sees what, and that slow visitors cost nobody anything.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{
    client::{Client, Server, fill, local},
    identity,
    pages::get,
};
use pilot_crypto::Identity;
use pilot_rendezvous::{Config, Http, HttpListen, dump, transfer::FillError};
use pilot_wire::registry::{CreateNetwork, Envelope, Request, SetHostname, SetTags, SetVisibility, frame};
use serde_json::Value;
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn with_pages(store: &Path) -> Config {
    let http = Http {
        token: Some("dashboard".to_owned()),
        control: Some("control".to_owned()),
        step: Duration::from_secs(1),
        ..Http::beside()
    };
    Config { http: Some(http), ..local(store) }
}

fn pages(server: &Server) -> SocketAddr {
    server.bound.http.expect("the pages are bound")
}

fn json(addr: SocketAddr, path: &str, headers: &[&str]) -> Value {
    let (status, _, body) = get(addr, path, headers);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Asks until `holds`, because what is published is a second old at most.
fn until(addr: SocketAddr, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = json(addr, path, &[]);
        if holds(&answer) {
            return answer;
        }
        assert!(Instant::now() < end, "{answer:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// As somebody from elsewhere whom a web server on this machine passes on.
const PASSED_ON: &str = "X-Forwarded-For: 203.0.113.7";

/// A public node with a tag, a private one with a name and another tag, a closed network with both.
fn populate(server: &Server) {
    let registry = server.bound.registry;
    let mut open = Client::registered(registry, identity(1));
    let mut private = Client::registered(registry, identity(2));
    let about = |client: &Client| client.id;
    let (a, b) = (about(&open), about(&private));
    open.ask(Request::SetVisibility(SetVisibility { node_id: a, public: true, ..SetVisibility::default() }));
    open.ask(Request::SetTags(SetTags {
        node_id: a,
        tags: vec!["weather".to_owned()],
        ..SetTags::default()
    }));
    private.ask(Request::SetHostname(SetHostname {
        node_id: b,
        hostname: "hidden-host".to_owned(),
        ..SetHostname::default()
    }));
    private.ask(Request::SetTags(SetTags {
        node_id: b,
        tags: vec!["secret-tag".to_owned()],
        ..SetTags::default()
    }));
    for (name, rule) in [("market", "open"), ("cellar", "token")] {
        let request = Request::CreateNetwork(CreateNetwork {
            node_id: b,
            name: name.to_owned(),
            join_rule: rule.to_owned(),
            token: "open-sesame".to_owned(),
            ..CreateNetwork::default()
        });
        let envelope = Envelope::with_token(request, common::ADMIN);
        private.send_raw(&frame(&envelope.to_json()).unwrap());
        let answer = private.receive();
        assert!(format!("{answer:?}").contains("CreateNetwork"), "{answer:?}");
    }
    assert!(open.is_served() && private.is_served());
}

#[test]
fn strangers_see_sums_and_nothing_of_private_nodes_or_closed_networks() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_pages(&folder.path().join("r.redb")));
    populate(&server);
    let addr = pages(&server);
    let all =
        until(addr, "/api/stats", |stats| stats["networks"].as_array().is_some_and(|all| all.len() == 2));
    assert_eq!(
        (&all["total_nodes"], &all["active_nodes"], &all["networks_total"]),
        (&2.into(), &2.into(), &2.into())
    );
    assert!(all["process"]["memory_bytes"].as_u64().unwrap() > 0);

    let (_, _, text) = get(addr, "/api/stats", &[PASSED_ON]);
    let seen: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(seen["total_nodes"], 2);
    assert_eq!(seen["networks"][0]["name"], "market");
    assert_eq!(seen["tags"][0]["name"], "weather");
    let keys = [identity(1).public().to_base64(), identity(2).public().to_base64()];
    for private in ["hidden-host", "secret-tag", "cellar", "127.0.0.1:4000", "process", &keys[0], &keys[1]] {
        assert!(!text.contains(private), "{private} is in {text}");
    }
    for path in ["/", "/api/history?span=day", "/healthz", "/readyz", "/api/badge/nodes"] {
        let (status, head, body) = get(addr, path, &[PASSED_ON]);
        assert_eq!(status, 200, "{path}");
        assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
        assert!(!body.contains("hidden-host") && !body.contains("cellar"), "{path}");
    }
}

#[test]
fn metrics_are_for_this_machine_or_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_pages(&folder.path().join("r.redb")));
    populate(&server);
    let addr = pages(&server);
    until(addr, "/api/stats", |stats| stats["active_nodes"] == 2);
    let (status, head, text) = get(addr, "/metrics", &[]);
    assert!(status == 200 && head.contains("openmetrics-text"), "{head}");
    for line in [
        "pilot_nodes_online 2",
        "pilot_requests_total{type=\"register\"} 2",
        "pilot_request_duration_seconds_count{type=\"register\"} 2",
        "pilot_networks_total 2",
        "pilot_store_writable 1",
        "pilot_ready 1",
        "pilot_registrations_total 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert!(!text.contains("hidden-host"));
    assert_eq!(get(addr, "/metrics", &[PASSED_ON]).0, 403);
    assert_eq!(get(addr, "/metrics", &["X-Real-IP: 127.0.0.1"]).0, 403, "headers are not believed");
    assert_eq!(get(addr, "/metrics", &[PASSED_ON, "Authorization: Bearer dashboard"]).0, 200);
    assert_eq!(get(addr, "/metrics", &[PASSED_ON, "Authorization: Bearer other"]).0, 403);
}

#[test]
fn a_copy_is_whole_and_only_for_who_has_the_control_token() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_pages(&folder.path().join("r.redb")));
    populate(&server);
    let addr = pages(&server);
    for headers in
        [&[][..], &["Authorization: Bearer dashboard"], &[PASSED_ON, "Authorization: Bearer control"]]
    {
        let (status, _, body) = get(addr, "/api/backup", headers);
        assert!(status == 403 && !body.contains("hidden-host"), "{headers:?}");
    }
    let (status, _, text) = get(addr, "/api/backup", &["Authorization: Bearer control"]);
    assert_eq!(status, 200);
    assert!(text.contains("hidden-host") && !text.contains("open-sesame"), "tokens are digests");
    let records = dump::read(text.as_bytes()).unwrap();

    // It makes the same rendezvous again.
    let store = folder.path().join("other.redb");
    fill(&store.clone().into(), records.clone()).unwrap();
    let again = fill(&store.clone().into(), records.clone());
    assert!(matches!(again, Err(FillError::NotEmpty { .. })), "{again:?}");
    let restored = Server::start(with_pages(&store));
    let mut client = Client::registered(restored.bound.registry, identity(2));
    assert_eq!(client.id.0, 2, "the number is the same");
    assert!(client.is_served());
    let stranger = Client::registered(restored.bound.registry, Identity::generate().unwrap());
    assert_eq!(stranger.id.0, 3, "and numbers go on where they were");
}

#[test]
fn slow_visitors_neither_hold_up_others_nor_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_pages(&folder.path().join("r.redb")));
    let addr = pages(&server);
    let mut slow: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET / HT").unwrap();
    }
    assert_eq!(json(addr, "/healthz", &[])["status"], "ok");
    // More than there is room for are closed, and those that are in go on.
    slow.extend((0..40).map(|_| TcpStream::connect(addr).unwrap()));
    let mut last = slow.pop().unwrap();
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(last.read(&mut [0]).ok(), Some(0), "closed");
    let mut client = Client::registered(server.bound.registry, identity(1));
    assert!(client.is_served());
    drop(slow);
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(addr)
        .and_then(|mut stream| {
            write!(stream, "GET /healthz HTTP/1.0\r\n\r\n")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.read(&mut [0; 1])
        })
        .map_or(true, |read| read == 0)
    {
        assert!(Instant::now() < end, "places are free again");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn who_serves_is_alive_and_ready() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_pages(&folder.path().join("r.redb")));
    let addr = pages(&server);
    assert_eq!(json(addr, "/readyz", &[])["status"], "ready");
    assert_eq!(json(addr, "/healthz", &[])["status"], "ok");
}

#[test]
fn history_grows_with_the_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_pages(&folder.path().join("r.redb")));
    let addr = pages(&server);
    let mut client = Client::registered(server.bound.registry, identity(1));
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(client.is_served());
        let history = json(addr, "/api/history?span=hour", &[]);
        let beats = history["series"]["heartbeats"].as_array().unwrap();
        let online = history["series"]["online"].as_array().unwrap();
        assert_eq!(beats.len(), history["at"].as_array().unwrap().len());
        if beats.iter().any(|rate| rate.as_f64().unwrap() > 0.0) && online.last() == Some(&1.0.into()) {
            break;
        }
        assert!(Instant::now() < end, "{history}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(get(addr, "/api/history?span=century", &[]).0, 400);
}

#[test]
fn a_busy_port_matters_only_if_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let ports = pilot_ports::Ports::reserve();
    let [registry, beacon, _, pages] = ports.all();
    let _taken = std::net::TcpListener::bind(pages).unwrap();
    let mut config = with_pages(&folder.path().join("r.redb"));
    (config.registry_addr, config.beacon_addr) = (registry, beacon);
    let listen = |listen| {
        let mut config = config.clone();
        config.http.as_mut().unwrap().listen = listen;
        config
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked = listen(HttpListen::At(pages));
    let ended =
        runtime.block_on(pilot_rendezvous::run(asked, |_| panic!("it starts"), std::future::pending()));
    assert!(ended.unwrap_err().to_string().contains("http"));
    assert!(!folder.path().join("r.redb").exists(), "nothing is touched");
    let missing = |bound: pilot_rendezvous::Bound| {
        let missing = bound.http_missing.unwrap();
        assert_eq!((bound.http, missing.addr, missing.why), (None, pages, ErrorKind::AddrInUse));
    };
    runtime.block_on(pilot_rendezvous::run(listen(HttpListen::Beside), missing, async {})).unwrap();
}
