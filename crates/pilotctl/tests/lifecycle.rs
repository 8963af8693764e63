//! Starting, stopping and looking at daemon and rendezvous in the background.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use common::World;

#[test]
fn a_daemon_starts_once_answers_and_stops() {
    let world = World::new();
    let a = world.machine("agent-a");
    assert_eq!(a.run(&["status"]).status, 7);
    assert_eq!(a.run(&["daemon", "status", "--check"]).status, 7);
    let words = [
        "daemon",
        "start",
        "--registry",
        &world.registry,
        "--beacon",
        &world.beacon,
        "--hostname",
        "agent-a",
    ];
    let ready = a.json(&words);
    assert_eq!((ready["hostname"].as_str(), ready["registered"].as_bool()), (Some("agent-a"), Some(true)));
    let again = a.run(&[&words[..], &["--json"]].concat());
    assert_eq!((again.status, again.json()["code"].as_str()), (1, Some("already_exists")));
    assert_eq!(a.json(&["status"])["pid"], ready["pid"]);
    assert_eq!(a.run(&["daemon", "status", "--check"]).stdout, b"");
    assert!(a.ok(&["daemon", "logs"]).contains("registered"));
    let restarted = a.json(&[&["daemon", "restart"], &words[2..]].concat());
    assert_ne!(restarted["pid"], ready["pid"]);
    assert_eq!(restarted["address"], ready["address"]);
    assert_eq!(a.json(&["daemon", "stop"])["pid"], restarted["pid"]);
    assert_eq!(a.run(&["daemon", "stop"]).status, 7);
}

#[test]
fn a_daemon_that_cannot_start_says_why_at_once() {
    let world = World::new();
    let a = world.machine("agent-a");
    std::fs::create_dir_all(&a.home).unwrap();
    std::fs::write(a.home.join("identity.json"), "no key").unwrap();
    let failed = a.run(&["daemon", "start", "--registry", &world.registry, "--json"]);
    assert_eq!(failed.status, 1, "{failed:?}");
    assert!(failed.json()["message"].as_str().unwrap().contains("identity.json"), "{failed:?}");
}

#[test]
fn without_a_registry_several_daemons_share_one_rendezvous_of_this_machine() {
    let world = World::new();
    // Free ports: those of a rendezvous that has just gone.
    let other = World::new();
    let (registry, beacon) = (other.registry.clone(), other.beacon.clone());
    drop(other);
    let machines = ["agent-a", "agent-b", "agent-c"].map(|name| world.machine(name));
    let starting = machines.each_ref().map(|machine| {
        let mut command = machine.command(&["daemon", "start", "--json"]);
        command.env("PILOT_REGISTRY_ADDR", &registry).env("PILOT_BEACON_ADDR", &beacon);
        common::Running::start(command)
    });
    let ready = starting.map(|running| running.finish().json());
    let mut nodes: Vec<_> = ready.iter().map(|ready| ready["data"]["node_id"].as_u64().unwrap()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    assert_eq!(nodes.len(), 3, "{ready:?}");
    assert!(ready.iter().all(|one| one["data"]["registry"] == ready[0]["data"]["registry"]), "{ready:?}");
    let stopped = machines.each_ref().map(|machine| {
        machine.ok(&["daemon", "stop"]);
        machine.run(&["rendezvous", "stop"]).status
    });
    assert_eq!(
        stopped.iter().filter(|status| **status == 0).count(),
        1,
        "one of them had started it: {stopped:?}"
    );
}

// Elsewhere loopback has one address only.
#[cfg(target_os = "linux")]
#[test]
fn a_beacon_with_a_second_address_answers_surveys_from_there() {
    let world = World::new();
    for (name, second) in [("agent-a", &[][..]), ("agent-b", &["--beacon-second-ip", "127.0.0.2"])] {
        let machine = world.machine(name);
        let words = ["rendezvous", "start", "--registry-addr", "127.0.0.1:0", "--beacon-addr", "127.0.0.1:0"];
        let ready = machine.json(&[&words, second].concat());
        let place = |name: &str| ready[name].as_str().unwrap().to_owned();
        let (registry, beacon) = (place("registry_addr"), place("beacon_addr"));
        machine.json(&["daemon", "start", "--registry", &registry, "--beacon", &beacon]);
        let check = machine.json(&["netcheck"]);
        machine.ok(&["daemon", "stop"]);
        machine.ok(&["rendezvous", "stop"]);
        assert_eq!((&check["udp"], &check["second_address"]), (&true.into(), &(!second.is_empty()).into()));
    }
}

#[test]
fn the_name_pilot_daemon_takes_the_flags_of_the_reference() {
    let world = World::new();
    let a = world.machine("agent-a");
    let link = world.directory.path().join("pilot-daemon");
    std::os::unix::fs::symlink(common::PILOTCTL, &link).unwrap();
    let mut command = std::process::Command::new(&link);
    command
        .args(["-registry", &world.registry, "-beacon", &world.beacon, "-listen", "127.0.0.1:0", "-no-echo"])
        .args(["-hostname", "ref1", "-telemetry-url", "", "-no-skillinject", "-transport", "udp", "-socket"])
        .arg(&a.socket)
        .arg("--json")
        .env("HOME", &a.home)
        .env_remove("PILOT_HOME")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut daemon = common::Running::start(command);
    assert_eq!(daemon.json_line()["data"]["hostname"], "ref1");
    let info = a.json(&["info"]);
    let ports: Vec<_> =
        info["services"].as_array().unwrap().iter().map(|s| s["port"].as_u64().unwrap()).collect();
    assert!(!ports.contains(&7) && ports.contains(&1001), "{ports:?}");
    assert!(a.home.join(".pilot/identity.json").exists());
}

#[test]
fn the_demo_plays_to_its_end_and_leaves_nothing_behind() {
    let world = World::new();
    let a = world.machine("nobody");
    let mut command = a.command(&["demo", "--json"]);
    command.env("TMPDIR", world.directory.path());
    let done = common::Running::start(command).finish();
    assert_eq!(done.status, 0, "{done:?}");
    let report = done.json();
    let entries = report["data"]["story"].as_array().unwrap();
    assert!(entries.iter().filter(|entry| entry["checked"].is_string()).count() >= 8, "{report}");
    let left: Vec<_> = std::fs::read_dir(world.directory.path())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with("pilot-demo"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn an_interrupted_demo_ends_what_it_started_and_cleans_up() {
    use std::io::BufRead;
    let directory = tempfile::Builder::new().prefix("pilot").tempdir_in("/tmp").unwrap();
    let mut command = common::command(&directory.path().join("h"), &directory.path().join("s"), &["demo"]);
    command.env("TMPDIR", directory.path());
    let mut child = command.spawn().unwrap();
    let mut pids = Vec::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    while pids.len() < 2 {
        let line = lines.next().unwrap().unwrap();
        let pid = line.split_once("(pid ").and_then(|(_, rest)| rest.strip_suffix(')')?.parse::<i32>().ok());
        pids.extend(pid);
    }
    let demo = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(demo, rustix::process::Signal::INT).unwrap();
    lines.by_ref().for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let gone = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    assert!(pids.iter().all(gone), "{pids:?} are still there");
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["h"]);
}

#[test]
fn the_password_of_a_database_is_shown_nowhere() {
    let world = World::new();
    let a = world.machine("agent-a");
    // Nobody listens on this port.
    let url = "postgres://pilot:s3cret@127.0.0.1:1/pilot";
    let shown = "postgres://pilot:***@127.0.0.1:1/pilot";
    let config = a.ok(&["config", "--set", &format!("store={url}")]);
    assert!(config.contains(shown) && !config.contains("s3cret"), "{config}");
    assert_eq!(a.json(&["config"])["store"], shown);
    let addresses = ["--registry-addr", "127.0.0.1:0", "--beacon-addr", "127.0.0.1:0"];
    for store in [&["--store", url][..], &[]] {
        for action in ["start", "run"] {
            let words = [&["rendezvous", action][..], &addresses, store].concat();
            let failed = a.run(&words);
            let text = format!("{failed:?}");
            assert_eq!(failed.status, 3, "{text}");
            assert!(text.contains(shown) && !text.contains("s3cret"), "{text}");
        }
    }
    let log = std::fs::read_to_string(a.home.join("rendezvous.log")).unwrap_or_default();
    assert!(!log.contains("s3cret"), "{log}");
    let failed = a.run(&["rendezvous", "run", "--store", "postgres://pilot:s3cret@host:port/x"]);
    assert_eq!(failed.status, 2, "{failed:?}");
    assert!(!format!("{failed:?}").contains("s3cret"), "{failed:?}");
}

#[test]
fn the_doctor_finds_nothing_on_a_healthy_machine_and_each_fault_on_others() {
    let finding = |report: &serde_json::Value, check: &str| {
        let findings = report["data"]["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["check"] == check).cloned().unwrap()
    };
    let mut world = World::new();
    let a = world.agent("agent-a");
    let healthy = a.run(&["doctor", "--json"]);
    assert_eq!((healthy.status, healthy.json()["data"]["faults"].as_u64()), (0, Some(0)), "{healthy:?}");
    assert_eq!(finding(&healthy.json(), "registry")["verdict"], "ok");

    let identity = a.home.join("identity.json");
    std::fs::set_permissions(&identity, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let open = a.run(&["doctor", "--json"]);
    assert_eq!((open.status, &finding(&open.json(), "key")["verdict"]), (4, &"fault".into()), "{open:?}");
    std::fs::set_permissions(&identity, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    world.kill_rendezvous();
    let alone = world.machine("agent-b");
    let down = alone.run(&["doctor"]);
    assert_eq!(down.status, 7, "{down:?}");
    let text = String::from_utf8_lossy(&down.stdout).into_owned();
    assert!(text.contains("✗ daemon") && text.contains("→ pilotctl daemon start"), "{text}");
    let started = alone.run(&["daemon", "start", "--registry", &world.registry, "--beacon", &world.beacon]);
    let cut_off = alone.run(&["doctor", "--json"]);
    assert_eq!(cut_off.status, 3, "{started:?} {cut_off:?}");
    assert_eq!(finding(&cut_off.json(), "registry")["verdict"], "fault");
    alone.ok(&["daemon", "stop"]);
}
