//! The dashboard in a real browser, on the numbers of a real rendezvous. It takes Chromium, which `.ci/run` installs.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{
    ADMIN,
    client::{Client, Server, local},
    identity,
};
use pilot_rendezvous::{Config, Http};
use pilot_wire::{
    NetworkId,
    registry::{
        CreateNetwork, Envelope, JoinNetwork, Pair, Request, Response, SetHostname, SetTags, SetVisibility,
        frame,
    },
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn with_pages(store: &std::path::Path) -> Config {
    let http = Http { step: Duration::from_secs(1), ..Http::beside() };
    Config { http: Some(http), ..local(store) }
}

/// Five nodes, of which two are public and one is named, two networks, one link of trust.
fn populate(server: &Server) -> Vec<Client> {
    let mut nodes: Vec<_> =
        (1..=5).map(|seed| Client::registered(server.bound.registry, identity(seed))).collect();
    let ids: Vec<_> = nodes.iter().map(|node| node.id).collect();
    for node in &mut nodes[..2] {
        let node_id = node.id;
        node.ask(Request::SetVisibility(SetVisibility { node_id, public: true, ..SetVisibility::default() }));
        node.ask(Request::SetTags(SetTags {
            node_id,
            tags: vec!["weather".to_owned()],
            ..SetTags::default()
        }));
    }
    let hidden =
        SetHostname { node_id: ids[3], hostname: "hidden-host".to_owned(), ..SetHostname::default() };
    nodes[3].ask(Request::SetHostname(hidden));
    let tags = SetTags { node_id: ids[3], tags: vec!["secret-tag".to_owned()], ..SetTags::default() };
    nodes[3].ask(Request::SetTags(tags));
    for (one, other) in [(0, 3), (3, 0)] {
        let pair = Pair { node_id: ids[one], peer_id: ids[other], ..Pair::default() };
        nodes[one].ask(Request::ReportTrust(pair));
    }
    for (name, rule) in [("market", "open"), ("cellar", "token")] {
        let network = CreateNetwork {
            node_id: ids[0],
            name: name.to_owned(),
            join_rule: rule.to_owned(),
            token: "t".to_owned(),
            ..CreateNetwork::default()
        };
        let envelope = Envelope::with_token(Request::CreateNetwork(network), ADMIN);
        nodes[0].send_raw(&frame(&envelope.to_json()).unwrap());
        assert!(matches!(nodes[0].receive(), Some(Response::CreateNetwork { .. })));
    }
    for at in 1..3 {
        let join = JoinNetwork { node_id: ids[at], network_id: NetworkId(1), ..JoinNetwork::default() };
        assert!(matches!(nodes[at].ask(Request::JoinNetwork(join)), Response::JoinNetwork(_)));
    }
    nodes
}

fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The page as it is after some seconds of the browser's own time, which stands still while it waits for an answer.
fn look(url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args([
            "--disable-dev-shm-usage",
            "--window-size=1280,1500",
            "--virtual-time-budget=6000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .output()
        .expect("Chromium is installed (apt-get install chromium)");
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains("</html>"), "{}", String::from_utf8_lossy(&output.stderr));
    page
}

/// The text of the element with this id, without the elements in it.
fn text(page: &str, id: &str) -> String {
    let element = page.split_once(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id} in {page}")).1;
    let mut text = String::new();
    let mut depth = 0;
    for piece in element.split_once('>').unwrap().1.split_inclusive('>') {
        let (words, tag) = piece.split_once('<').unwrap_or((piece, ""));
        text.push_str(words);
        if tag.starts_with('/') {
            if depth == 0 {
                return text;
            }
            depth -= 1;
        } else if !tag.ends_with("/>") && !tag.starts_with("br") {
            depth += 1;
            text.push(' ');
        }
    }
    panic!("{id} does not end")
}

#[test]
fn the_dashboard_shows_the_numbers_and_nothing_private() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_pages(&folder.path().join("r.redb")));
    let addr = server.bound.http.unwrap();
    let mut nodes = populate(&server);
    // Some traffic, until there are points to draw.
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(nodes.iter_mut().all(Client::is_served));
        let history: serde_json::Value = serde_json::from_str(&get(addr, "/api/history")).unwrap();
        let last = history["series"]["online"].as_array().unwrap().last().cloned();
        if history["at"].as_array().unwrap().len() >= 3 && last == Some(5.0.into()) {
            break;
        }
        assert!(Instant::now() < end, "{history}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let page = look(&format!("http://{addr}/"));
    assert_eq!(text(&page, "state"), "live");
    assert_eq!(text(&page, "online"), "5");
    assert_eq!(text(&page, "nodes"), "5");
    assert_eq!(text(&page, "links"), "1");
    assert_eq!(text(&page, "nets"), "2");
    assert_ne!(text(&page, "rate"), "–");
    let networks = text(&page, "networks");
    assert!(networks.contains("market") && networks.contains('3'), "{networks}");
    assert!(text(&page, "tags").contains("weather"), "{page}");
    for chart in ["chart-requests", "chart-online", "chart-registrations", "chart-relay", "chart-commit"] {
        let drawn = page.split_once(&format!("id=\"{chart}\"")).unwrap().1;
        let drawn = drawn.split_once("</figure>").unwrap().0;
        assert!(drawn.contains("<path"), "{chart}: {drawn}");
    }
    let key = identity(4).public().to_base64();
    for private in ["hidden-host", "secret-tag", "127.0.0.1:4000", "[::1]:4000", &key] {
        assert!(!page.contains(private), "{private} is on the page");
    }
}

/// Says what a rendezvous said whose registry is stuck since.
fn frozen(stats: &str) -> SocketAddr {
    let mut stats: serde_json::Value = serde_json::from_str(stats).unwrap();
    stats["age_ms"] = 60_000.into();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]);
            let (kind, body) = match request.split(' ').nth(1) {
                Some("/") => ("text/html", include_str!("../src/http/page/index.html").to_owned()),
                Some("/page.js") => ("text/javascript", include_str!("../src/http/page/page.js").to_owned()),
                Some("/page.css") => ("text/css", include_str!("../src/http/page/page.css").to_owned()),
                Some("/api/stats") => ("application/json", stats.to_string()),
                _ => ("text/plain", String::new()),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n");
            // A browser may have gone before its answer.
            let _ = write!(stream, "{head}Connection: close\r\n\r\n{body}");
        }
    });
    addr
}

#[test]
fn old_numbers_are_said_to_be_old() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_pages(&folder.path().join("r.redb")));
    let stats = get(server.bound.http.unwrap(), "/api/stats");
    let page = look(&format!("http://{}/", frozen(&stats)));
    assert_eq!(text(&page, "state"), "stale");
    assert!(text(&page, "notice").contains("silent"), "{page}");
}
