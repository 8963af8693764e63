//! What an operator does with a rendezvous: look at it, copy it, put it back, take over from the reference.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops, and says why")]

mod common;

use common::{Agent, Running, World, command};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const RUN: [&str; 7] =
    ["rendezvous", "run", "--json", "--registry-addr", "127.0.0.1:0", "--beacon-addr", "127.0.0.1:0"];

/// A rendezvous for this machine, and what it said when it was ready.
fn rendezvous(machine: &Agent) -> (Running, Value) {
    let mut running = Running::start(machine.command(&RUN));
    let ready = running.json_line();
    assert_eq!(ready["status"], "ok", "{ready}");
    (running, ready["data"].clone())
}

fn join(machine: &mut Agent, ready: &Value) -> u64 {
    let place = |name: &str| ready[name].as_str().unwrap().to_owned();
    let (registry, beacon) = (place("registry_addr"), place("beacon_addr"));
    let words = ["daemon", "start", "--hostname", "kept", "--registry", &registry, "--beacon", &beacon];
    machine.json(&words)["node_id"].as_u64().unwrap()
}

#[test]
fn a_rendezvous_is_looked_at_copied_and_put_back() {
    let world = World::new();
    let (mut node, keeper) = (world.machine("node"), world.machine("keeper"));
    let (running, ready) = rendezvous(&keeper);
    let id = join(&mut node, &ready);
    let status = keeper.json(&["rendezvous", "status"]);
    assert_eq!((&status["running"], &status["ready"]), (&true.into(), &true.into()), "{status}");
    assert!(status["process"]["memory_bytes"].as_u64().unwrap() > 0, "{status}");
    let text = keeper.ok(&["rendezvous", "status"]);
    assert!(text.contains("online") && text.contains("http://127.0.0.1:"), "{text}");

    let copy = keeper.home.join("copy.jsonl");
    let name = copy.to_str().unwrap();
    let report = keeper.json(&["rendezvous", "backup", name]);
    assert_eq!(report["nodes"], 1, "{report}");
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = keeper.run(&["rendezvous", "backup", name]);
    assert_eq!(again.status, 1, "a copy is not written over another: {again:?}");
    node.ok(&["daemon", "stop"]);
    drop(running);

    // Into a store with something in it: no. A damaged copy: no. Into an empty one: as it was.
    let full = keeper.run(&["rendezvous", "restore", name]);
    assert!(full.status == 1 && full.stderr.contains("not empty"), "{full:?}");
    let other = world.machine("other");
    std::fs::create_dir_all(&other.home).unwrap();
    let damaged = other.home.join("damaged.jsonl");
    std::fs::write(&damaged, std::fs::read_to_string(&copy).unwrap().replace("kept", "lost")).unwrap();
    let refused = other.run(&["rendezvous", "restore", damaged.to_str().unwrap()]);
    assert!(refused.status == 2 && refused.stderr.contains("checksum"), "{refused:?}");
    assert_eq!(other.json(&["rendezvous", "restore", name])["nodes"], 1);
    let (_running, ready) = rendezvous(&other);
    assert_eq!(join(&mut node, &ready), id, "the node is who it was");
    let found = node.json(&["lookup", &id.to_string()]);
    assert_eq!(found["hostname"], "kept", "{found}");
    node.ok(&["daemon", "stop"]);
}

#[test]
fn what_a_rendezvous_goes_without_because_its_port_is_taken_is_shown() {
    let world = World::new();
    let keeper = world.machine("keeper");
    let ports = pilot_ports::Ports::reserve();
    let [registry, beacon, web, pages] = ports.all().map(|address| address.to_string());
    let _others = [&web, &pages].map(|address| std::net::TcpListener::bind(address).unwrap());
    let words = ["rendezvous", "start", "--registry-addr", &registry, "--beacon-addr", &beacon];
    let started = keeper.ok(&words);
    let status = keeper.ok(&["rendezvous", "status"]);
    let known = keeper.json(&["rendezvous", "status"]);
    keeper.ok(&["rendezvous", "stop"]);
    for text in [started, status] {
        assert!(
            text.contains(&format!("web       none ({web}: address in use); `--web-listen` sets where")),
            "{text}"
        );
        assert!(
            text.contains(&format!("pages     none ({pages}: address in use); `--http-listen` sets")),
            "{text}"
        );
    }
    assert!(known["web_addr"].is_null() && known["http_addr"].is_null(), "{known}");
    assert!(known["web_missing"].as_str().unwrap().starts_with(&web), "{known}");
    assert!(known["http_missing"].as_str().unwrap().starts_with(&pages), "{known}");
}

#[test]
fn a_snapshot_of_the_reference_is_taken_over_once() {
    let world = World::new();
    let keeper = world.machine("keeper");
    std::fs::create_dir_all(&keeper.home).unwrap();
    let snapshot = keeper.home.join("registry.json");
    let key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let content = json!({
        "next_node": 5, "next_net": 1, "networks": {},
        "nodes": { "4": { "id": 4, "public_key": key, "hostname": "ann", "networks": [0], "last_seen": "" } },
        "trust_pairs": ["4:3"], "pub_key_idx": { key: 4 },
    });
    std::fs::write(&snapshot, content.to_string()).unwrap();
    let words = ["rendezvous", "import", snapshot.to_str().unwrap()];
    let report = keeper.json(&words);
    assert_eq!((&report["nodes"], &report["trust_links"]), (&1.into(), &0.into()), "{report}");
    assert!(report["left_out"][0].as_str().unwrap().contains("4:3"), "{report}");
    let again = keeper.run(&words);
    assert!(again.status == 1 && again.stderr.contains("not empty"), "{again:?}");
    let (_running, _) = rendezvous(&keeper);
    let status = keeper.json(&["rendezvous", "status"]);
    assert_eq!((&status["total_nodes"], &status["active_nodes"]), (&1.into(), &1.into()), "{status}");
}

#[test]
fn a_service_manager_is_told_when_rendezvous_and_daemon_are_ready() {
    let world = World::new();
    let machine = world.machine("machine");
    let place = world.directory.path().join("notify");
    let socket = UnixDatagram::bind(&place).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let told = || {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).expect("a notice");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let daemon = ["daemon", "run", "--json", "--registry", &world.registry, "--beacon", &world.beacon];
    for words in [&RUN[..], &daemon] {
        let mut command = command(&machine.home, &machine.socket, words);
        command.env("NOTIFY_SOCKET", &place);
        let _running = Running::start(command);
        assert_eq!(told(), "READY=1");
    }
}

/// Lines of the log of a rendezvous that two nodes met at.
fn log(machine: &Agent, node: &mut Agent, level: &str) -> Vec<Value> {
    let mut start = machine.command(&[&RUN[..], &["--log-format", "json", "--log-level", level]].concat());
    let file = machine.home.join(format!("{level}.log"));
    start.env("PILOT_ADMIN_TOKEN", "admin-secret").stderr(std::fs::File::create(&file).unwrap());
    let mut running = Running::start(start);
    let ready = running.json_line();
    let control = std::fs::read_to_string(machine.home.join("rendezvous.control")).unwrap();
    join(node, &ready["data"]);
    let address = node.address();
    for _ in 0..20 {
        node.json(&["lookup", &address]);
    }
    machine.json(&["rendezvous", "backup", &format!("{level}.jsonl")]);
    node.ok(&["daemon", "stop"]);
    drop(running);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("admin-secret") && !text.contains(&control), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn the_log_is_lines_of_json_without_secrets_and_quiet_about_requests() {
    let world = World::new();
    let (machine, mut node) = (world.machine("machine"), world.machine("node"));
    let debug = log(&machine, &mut node, "debug");
    for line in &debug {
        for field in ["timestamp", "level", "target", "fields"] {
            assert!(!line[field].is_null(), "{line}");
        }
        assert!(line["fields"]["message"].is_string(), "{line}");
    }
    let named = |name: &str| debug.iter().find(|line| line["fields"]["message"] == name);
    let ready = named("rendezvous is ready").expect("it is ready");
    assert!(ready["fields"]["registry"].is_string() && ready["fields"]["http"].is_string(), "{ready}");
    let ended = named("connection ended").expect("connections end");
    assert!(ended["fields"]["conn"].is_number() && ended["fields"]["end"].is_string(), "{ended}");
    let info = log(&machine, &mut node, "info");
    let of_its_life = ["attests to what it serves", "rendezvous is ready", "the rendezvous ends"];
    for line in info.iter().filter(|line| line["level"] == "INFO") {
        let message = line["fields"]["message"].as_str().unwrap();
        assert!(of_its_life.contains(&message), "{line}");
    }
}
