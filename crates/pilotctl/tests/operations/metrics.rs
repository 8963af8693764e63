//! `--metrics`: what Prometheus reads of a daemon.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::{Agent, World, befriend, noise};
use crate::open_metrics::{Samples, parse};

/// Long enough for a machine under load; nothing waits that long otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent that serves metrics, and where.
fn watched(world: &World, name: &str) -> (Agent, String) {
    let mut agent = world.machine(name);
    agent.start(&["--metrics", "127.0.0.1:0"]);
    let address = agent.json(&["status"])["metrics"].as_str().unwrap().to_owned();
    (agent, address)
}

/// Head and body of what is answered to these bytes.
fn ask(address: &str, request: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head.to_owned(), body.to_owned())
}

fn get(address: &str, path: &str) -> (String, String) {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
}

fn scrape(address: &str) -> Samples {
    let (head, body) = get(address, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    parse(&body)
}

/// The numbers as soon as they are as wanted.
fn scrape_until(address: &str, wanted: impl Fn(&Samples) -> bool) -> Samples {
    let begun = Instant::now();
    loop {
        let samples = scrape(address);
        if wanted(&samples) {
            return samples;
        }
        assert!(begun.elapsed() < PATIENCE, "never came: {samples:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn numbers_move_with_what_the_node_does() {
    let world = World::new();
    let ((a, at_a), (b, at_b)) = (watched(&world, "agent-a"), watched(&world, "agent-b"));
    let before = scrape(&at_a);
    assert_eq!(before["pilot_node_registered"], 1.0);
    assert_eq!(before[&format!("pilot_node_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);
    assert_eq!(
        (before["pilot_node_trusted"], before["pilot_node_streams_opened_total{by=\"ours\"}"]),
        (0.0, 0.0)
    );
    let contact = before["pilot_node_registry_last_contact_timestamp_seconds"];
    let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((since_1970 - contact).abs() < 300.0, "{contact}");
    #[cfg(target_os = "linux")]
    assert!(before["process_resident_memory_bytes"] > 1e6 && before["process_open_fds"] > 5.0);

    befriend(&a, &b);
    let sent = noise(1 << 20);
    let echoed = a.pipe(&["connect", "agent-b", "7"], &sent);
    assert_eq!((echoed.status, echoed.stdout == sent), (0, true), "{}", echoed.stderr);

    let after = scrape_until(&at_a, |now| now["pilot_node_streams_ended_total{how=\"finished\"}"] >= 1.0);
    let bytes = 1_048_576.0;
    for direction in ["in", "out"] {
        let name = format!("pilot_node_bytes_total{{direction=\"{direction}\"}}");
        assert!(after[&name] - before[&name] > bytes, "{name}: {} {}", before[&name], after[&name]);
        let name = format!("pilot_node_packets_total{{direction=\"{direction}\"}}");
        assert!(after[&name] > before[&name] + 10.0, "{name}: {} {}", before[&name], after[&name]);
    }
    assert_eq!(after["pilot_node_trusted"], 1.0);
    assert_eq!(after["pilot_node_peers{path=\"direct\"}"] + after["pilot_node_peers{path=\"relayed\"}"], 1.0);
    assert!(after["pilot_node_key_exchanges_total{kind=\"first\"}"] >= 1.0);
    assert!(after["pilot_node_streams_opened_total{by=\"ours\"}"] >= 1.0);
    assert!(after["pilot_node_handshakes_total{outcome=\"trusted\"}"] >= 1.0);
    assert!(scrape(&at_b)["pilot_node_streams_opened_total{by=\"theirs\"}"] >= 1.0);

    a.ok(&["send-message", "agent-b", "--data", "one", "--timeout", "30s"]);
    let unread = scrape_until(&at_b, |now| now["pilot_node_inbox_unread"] > 0.0);
    assert_eq!((unread["pilot_node_inbox_messages"], unread["pilot_node_inbox_unread"]), (1.0, 1.0));
    b.ok(&["inbox", "read", "last"]);
    scrape_until(&at_b, |now| now["pilot_node_inbox_unread"] == 0.0);
    scrape_until(&at_a, |now| now["pilot_node_outbox_messages"] == 0.0);
}

#[test]
fn a_lost_registry_shows() {
    let mut world = World::new();
    let (_agent, address) = watched(&world, "agent-a");
    assert_eq!(scrape(&address)["pilot_node_registry_losses_total"], 0.0);
    world.kill_rendezvous();
    let lost = scrape_until(&address, |now| now["pilot_node_registered"] == 0.0);
    assert_eq!(lost["pilot_node_registry_losses_total"], 1.0);
    // What waits for the registry waits on; the node itself is well.
    assert_eq!(get(&address, "/healthz").1, "ok\n");
}

#[test]
fn clients_that_are_slow_or_talk_nonsense_do_not_hold_the_daemon() {
    let world = World::new();
    let (agent, address) = watched(&world, "agent-a");
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        (b"\x16\x03\x01 tls\r\n\r\n", "400"),
        (&[b'x'; 9000], "431"),
    ] {
        let (head, _) = ask(&address, request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    assert_eq!(ask(&address, b"HEAD /metrics HTTP/1.1\r\n\r\n").1, "");
    // More than there are places: none of them ever says what it wants.
    let silent: Vec<TcpStream> = (0..12).map(|_| TcpStream::connect(&address).unwrap()).collect();
    assert_eq!(agent.json(&["status"])["running"], true);
    assert_eq!(get(&address, "/healthz").1, "ok\n");
    drop(silent);
}

#[test]
fn metrics_are_off_unless_asked_for_and_a_taken_port_is_said() {
    let world = World::new();
    let (_agent, address) = watched(&world, "agent-a");
    let mut other = world.machine("agent-b");
    let refused =
        other.run(&["daemon", "start", "--registry", &world.registry, "--metrics", &address, "--json"]);
    let message = refused.json()["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(refused.status, 2, "{refused:?}");
    assert!(message.contains(&address) && message.contains("for metrics"), "{message}");
    other.start(&["--metrics", "off"]);
    assert_eq!(other.json(&["status"])["metrics"], serde_json::Value::Null);
}
