//! What scripts rely on: exit statuses, one JSON document, errors with hints, text for people.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use common::{World, command};

/// A machine on which nothing runs.
fn alone(words: &[&str]) -> common::Done {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("h");
    common::Running::start(command(&home, &directory.path().join("no.sock"), words)).finish()
}

#[test]
fn every_kind_of_failure_has_its_exit_status_and_one_document() {
    for (words, status, code) in [
        (&["info"][..], 7, "not_running"),
        (&["why", "b"], 7, "not_running"),
        (&["netcheck"], 7, "not_running"),
        (&["why"], 2, "invalid_argument"),
        (&["send-message", "b", "x"], 7, "not_running"),
        (&["frobnicate"], 2, "invalid_argument"),
        (&["find"], 2, "invalid_argument"),
        (&["ping", "b", "--cuont", "1"], 2, "invalid_argument"),
        (&["publish", "topic-alone"], 2, "invalid_argument"),
        (&["config", "--set", "foo=1"], 2, "invalid_argument"),
        (&["task", "list"], 7, "not_running"),
        (&["task", "submit", "b"], 2, "invalid_argument"),
        (&["task", "decline", "--id", "x"], 2, "invalid_argument"),
        (&["task", "send-results", "--id", "x"], 2, "invalid_argument"),
        (&["task", "show", "../x"], 5, "not_found"),
        (&["port-policy"], 2, "invalid_argument"),
        (&["network", "kick", "1", "--node", "2"], 7, "not_running"),
        (&["network", "kick", "1"], 2, "invalid_argument"),
        (&["gateway", "start"], 7, "not_running"),
        (&["gateway", "list"], 7, "not_running"),
        (&["forward", "0", "agent-b:80"], 7, "not_running"),
        (&["forward", "0", "agent-b"], 2, "invalid_argument"),
        (&["proxy"], 2, "invalid_argument"),
        (&["proxy", "--http", "0"], 7, "not_running"),
        (&["serve", "80"], 2, "invalid_argument"),
        (&["serve", "80", "--to", "8080", "--exec", "x"], 2, "invalid_argument"),
        (&["serve", "--to", "8080"], 2, "invalid_argument"),
        (&["serve", "80", "--to", "8080"], 7, "not_running"),
        (&["daemon", "logs"], 5, "not_found"),
        (&["inbox", "read", "NO-SUCH"], 5, "not_found"),
        (&["rendezvous", "stop"], 7, "not_running"),
    ] {
        let done = alone(&[words, &["--json"]].concat());
        let document = done.json();
        let found = (done.status, document["status"].as_str(), document["code"].as_str());
        assert_eq!(found, (status, Some("error"), Some(code)), "{words:?}: {document}");
        assert!(document["message"].as_str().is_some_and(|message| !message.is_empty()), "{document}");
        let text = alone(words);
        assert_eq!((text.status, text.stdout.len()), (status, 0), "{words:?}: {text:?}");
        assert!(
            text.stderr.starts_with("error: ") || text.stderr.contains("\nerror: "),
            "{words:?}: {}",
            text.stderr
        );
    }
}

#[test]
fn an_error_says_what_to_do_next() {
    let down = alone(&["info"]);
    let (error, hint) = down.stderr.trim_end().split_once('\n').unwrap();
    assert!(error.starts_with("error: the daemon is not running (tried `"), "{error}");
    assert_eq!(hint, "hint: start it with `pilotctl daemon start`");
    let typo = alone(&["send-mesage", "b", "x", "--json"]).json();
    assert!(typo["hint"].as_str().unwrap().contains("'send-message'"), "{typo}");
}

#[test]
fn json_may_stand_anywhere_and_help_is_no_failure() {
    assert_eq!(alone(&["--json", "info"]).json()["code"], "not_running");
    for words in [
        &["--help"][..],
        &["send-message", "--help"],
        &["daemon", "start", "-h"],
        &["help", "ping"],
        &["--version"],
    ] {
        let done = alone(words);
        assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{words:?}");
    }
    assert!(
        alone(&["send-message", "--help"]).text().starts_with("Examples:\n  pilotctl send-message agent-b")
    );
    let nothing = alone(&[]);
    assert_eq!(nothing.status, 2);
    assert!(nothing.stderr.contains("Usage: pilotctl"), "{}", nothing.stderr);
}

#[test]
fn no_styles_reach_a_pipe() {
    let world = World::new();
    let a = world.agent("agent-a");
    for words in [
        &["info"][..],
        &["netcheck"],
        &["peers"],
        &["trust"],
        &["inbox"],
        &["config"],
        &["status"],
        &["health"],
    ] {
        assert!(!a.ok(words).contains('\x1b'), "{words:?}");
    }
}

#[test]
fn the_commands_that_need_no_daemon_work_without_one() {
    let context = alone(&["context", "--json"]).json()["data"].clone();
    assert!(context["commands"]["send-message"]["args"].as_array().unwrap().len() > 5);
    assert_eq!(context["error_codes"]["trust_required"]["exit_status"], 4);
    assert!(alone(&["completions", "bash"]).text().contains("complete "));
    assert_eq!(alone(&["version", "--json"]).json()["data"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(alone(&["inbox", "--json"]).json()["data"]["messages"], serde_json::json!([]));
    assert_eq!(alone(&["received", "--json"]).json()["data"]["files"], serde_json::json!([]));
    let config = alone(&["config", "--json"]).json()["data"].clone();
    assert_eq!(
        (config["origins"]["socket"].as_str(), config["origins"]["registry"].as_str()),
        (Some("environment"), Some("unset"))
    );
}

#[test]
fn init_and_config_keep_what_they_are_not_told_to_change() {
    let world = World::new();
    let a = world.machine("agent-a");
    a.ok(&["init", "--hostname", "one", "--registry", "r.example.com:9000"]);
    a.ok(&["init", "--hostname", "two"]);
    a.ok(&["config", "--set", "public=true"]);
    let config = a.json(&["config"]);
    assert_eq!(
        (&config["hostname"], &config["registry"], &config["public"]),
        (&"two".into(), &"r.example.com:9000".into(), &"true".into())
    );
    assert_eq!(config["origins"]["hostname"], "file");
}

#[test]
fn the_texts_of_a_new_node_are_as_they_were() {
    let world = World::new();
    let a = world.agent("agent-a");
    let place = world.directory.path().display().to_string();
    let settled = |text: String| {
        let mut text = text
            .replace(&place, "PLACE")
            .replace(&world.registry, "REGISTRY")
            .replace(&world.beacon, "BEACON");
        let info = a.json(&["info"]);
        text = text.replace(info["key_fingerprint"].as_str().unwrap(), "FINGERPRINT");
        text = text.replace(info["address"].as_str().unwrap(), "ADDRESS");
        text = text.replace(&info["node_id"].to_string(), "NUMBER");
        let lines = text.lines().map(|line| line.split(" · up ").next().unwrap_or(line).trim_end());
        lines.map(|line| line.split(" · pid ").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!("find", settled(a.ok(&["find", "agent-a"])));
    insta::assert_snapshot!("status", settled(a.ok(&["status"])));
    insta::assert_snapshot!("pending", settled(a.ok(&["pending"])));
    insta::assert_snapshot!("trust", settled(a.ok(&["trust"])));
    insta::assert_snapshot!("peers", settled(a.ok(&["peers"])));
    insta::assert_snapshot!("connections", settled(a.ok(&["connections"])));
    insta::assert_snapshot!("inbox", settled(a.ok(&["inbox"])));
    insta::assert_snapshot!("received", settled(a.ok(&["received"])));
    insta::assert_snapshot!("network-list", settled(a.ok(&["network", "list"])));
    insta::assert_snapshot!("set-tags", settled(a.ok(&["set-tags", "gpu", "ml"])));
    insta::assert_snapshot!("set-public", settled(a.ok(&["set-public"])));
    insta::assert_snapshot!("clear-hostname", settled(a.ok(&["clear-hostname"])));
    insta::assert_snapshot!("approve-nobody", a.run(&["approve", "agent-x"]).stderr);
    insta::assert_snapshot!("find-nobody", a.run(&["find", "agent-x"]).stderr);
}

#[test]
fn the_keys_of_the_json_documents_are_those_of_the_reference() {
    let world = World::new();
    let (a, b) = world.friends();
    let (address, number) = (b.address(), b.json(&["info"])["node_id"].to_string());
    for (words, keys) in [
        (
            vec!["info"],
            &[
                "node_id",
                "address",
                "hostname",
                "uptime_secs",
                "public_key",
                "peers",
                "encrypted_peers",
                "peer_list",
                "conn_list",
                "version",
            ][..],
        ),
        (vec!["find", "agent-b"], &["hostname", "node_id", "address", "public"]),
        (vec!["lookup", &number], &["node_id", "address", "hostname", "networks", "public", "public_key"]),
        (vec!["trust"], &["trusted", "total"]),
        (vec!["pending"], &["pending"]),
        (vec!["peers"], &["peers", "total", "encrypted"]),
        (
            vec!["why", "agent-b", "--timeout", "10s"],
            &[
                "node_id",
                "address",
                "hostname",
                "summary",
                "trust",
                "encrypted",
                "path",
                "registry",
                "probe",
                "candidates",
                "relay",
                "our_nat",
                "their_nat",
            ],
        ),
        (
            vec!["netcheck"],
            &[
                "udp",
                "beacon",
                "registry",
                "listen",
                "candidates",
                "ipv6",
                "observed",
                "nat",
                "second_address",
                "transport",
                "port_mapping",
                "lan_discovery",
            ],
        ),
        (vec!["connections"], &["connections", "total"]),
        (vec!["ping", &address, "--count", "1"], &["target", "results", "timeout"]),
        (vec!["traceroute", "agent-b"], &["target", "setup_ms", "rtt_samples"]),
        (
            vec!["bench", "agent-b", "0.1"],
            &["target", "sent_bytes", "recv_bytes", "send_mbps", "total_mbps", "complete"],
        ),
        (
            vec!["send-message", "agent-b", "x", "--until", "stored"],
            &["target", "to", "type", "bytes", "ack", "message_id", "state", "tagged"],
        ),
        (vec!["send", "agent-b", "7", "--data", "x"], &["target", "port", "sent", "response"]),
        (vec!["connect", "agent-b", "7", "--message", "x"], &["target", "port", "sent", "response"]),
        (vec!["publish", "agent-b", "t", "--data", "x"], &["target", "topic", "bytes"]),
        (
            vec!["status"],
            &["running", "responsive", "pid", "socket", "node_id", "address", "hostname", "uptime_secs"],
        ),
        (vec!["inbox"], &["messages", "total", "shown", "dir"]),
        (vec!["received"], &["files", "total", "shown", "dir"]),
        (vec!["network", "list"], &["networks"]),
        (vec!["health"], &["status", "uptime_seconds", "connections", "peers"]),
        (vec!["set-private"], &["node_id", "visibility", "type"]),
        (vec!["set-hostname", "x"], &["hostname", "node_id"]),
        (vec!["clear-hostname"], &["hostname"]),
        (vec!["set-tags", "a"], &["node_id", "tags"]),
        (vec!["clear-tags"], &["node_id", "tags"]),
    ] {
        let data = a.json(&words);
        let missing: Vec<_> = keys.iter().filter(|key| data.get(**key).is_none()).collect();
        assert!(missing.is_empty(), "{words:?} lacks {missing:?}: {data}");
    }
}

#[test]
fn a_peer_that_is_gone_is_reported_with_its_cause_and_a_status_for_scripts() {
    let world = World::new();
    let (a, mut b) = world.friends();
    let met = a.json(&["why", "agent-b", "--timeout", "10s"]);
    assert_eq!((&met["trust"], &met["probe"]["answered"]), (&"trusted".into(), &true.into()), "{met}");
    assert!(a.ok(&["why", "agent-b"]).starts_with("agent-b answers "));
    assert!(a.ok(&["ping", "agent-b", "--count", "1"]).contains(" 127.0.0.1:"));
    let number = &b.json(&["info"])["node_id"];
    b.kill();

    let why = a.run(&["why", "agent-b", "--json"]);
    let found = why.json()["data"].clone();
    assert_eq!((why.status, &found["probe"]["answered"]), (3, &false.into()), "{found}");
    let summary = found["summary"].as_str().unwrap().to_owned();
    assert!(summary.starts_with("agent-b last seen ") && summary.contains("; relay: "), "{summary}");
    let known = a.run(&["why", "agent-b", "--no-try"]);
    assert_eq!(known.status, 0, "nothing was tried: {known:?}");

    let sent = a.run(&["connect", "agent-b", "7", "--message", "x", "--json"]);
    let failure = sent.json();
    assert_eq!((sent.status, failure["code"].as_str()), (3, Some("unreachable")), "{failure}");
    assert!(failure["message"].as_str().unwrap().starts_with("agent-b last seen "), "{failure}");
    assert_eq!(failure["hint"], "see why: pilotctl why agent-b");
    let unreachable = &failure["data"]["unreachable"];
    assert_eq!((&unreachable["hostname"], &unreachable["node_id"]), (&"agent-b".into(), number));
    assert!(unreachable["last_seen_secs"].is_number() && unreachable["tried"].is_array(), "{failure}");

    let ping = a.run(&["ping", "agent-b", "--count", "1"]);
    assert_eq!(ping.status, 3, "{ping:?}");
    assert!(ping.stderr.contains("error: agent-b last seen "), "{ping:?}");
}

#[test]
fn who_was_never_met_is_explained_too() {
    let world = World::new();
    let (a, b) = (world.agent("agent-a"), world.agent("agent-b"));
    let stranger = a.run(&["why", &b.address()]);
    assert_eq!(stranger.status, 4, "{stranger:?}");
    let nobody = a.run(&["why", "4711", "--json"]);
    assert_eq!((nobody.status, &nobody.json()["data"]["registry"]), (5, &"not_found".into()), "{nobody:?}");
    let ourselves = a.run(&["why", &a.address()]);
    assert_eq!(ourselves.status, 2, "{ourselves:?}");
}

#[test]
fn a_check_of_the_network_fails_without_a_registry() {
    let mut world = World::new();
    let a = world.agent("agent-a");
    let check = a.json(&["netcheck"]);
    assert_eq!((&check["udp"], &check["registry"]["answers"]), (&true.into(), &true.into()), "{check}");
    world.kill_rendezvous();
    let mut last = a.run(&["netcheck"]);
    for _ in 0..20 {
        if last.status != 0 {
            break;
        }
        last = a.run(&["netcheck"]);
    }
    assert_eq!(last.status, 3, "{last:?}");
    let text = String::from_utf8(last.stdout).unwrap();
    assert!(text.contains("registry") && text.contains("does not answer"), "{text}");
}
