//! `pilotctl policy` and `port-policy` with two daemons.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use common::World;

#[test]
fn a_port_is_denied_tested_and_allowed_again() {
    let world = World::new();
    let (a, b) = world.friends();
    b.ok(&["policy", "deny", "agent-a", "--port", "7,1001,3000-3010"]);
    let refused = a.run(&["send-message", "agent-b", "hello", "--now", "--json"]);
    assert_ne!(refused.status, 0, "{refused:?}");
    let test = b.run(&["policy", "test", "agent-a", "--port", "3005", "--json"]);
    assert_eq!(test.status, 4, "{test:?}");
    let tested = &test.json()["data"];
    assert_eq!((tested["allowed"].as_bool(), tested["from"][0].as_str()), (Some(false), Some(&*a.address())));
    assert_eq!(b.run(&["policy", "test", "agent-a", "--port", "3011"]).status, 0);
    b.ok(&["policy", "allow", "agent-a", "--port", "1001"]);
    a.ok(&["send-message", "agent-b", "hello", "--now"]);
    let shown = b.ok(&["policy", "show", "agent-a"]);
    assert!(shown.contains("not 3000-3010") && shown.contains("1001 "), "{shown}");
    assert!(b.ok(&["policy", "unset", "agent-a"]).contains("has no rules of its own"));
    assert_eq!(b.run(&["policy", "test", "agent-a", "--port", "3005"]).status, 0);
}

#[test]
fn rules_of_groups_and_nodes_are_shown_with_where_they_come_from() {
    let world = World::new();
    let (a, b) = world.friends();
    b.ok(&["policy", "group", "add", "workers", "agent-a"]);
    b.ok(&["policy", "set", "group:workers", "publish=jobs.*,status.>", "tasks=no", "max_message=1MB"]);
    b.ok(&["policy", "set", "agent-a", "max_message=2MB"]);
    b.ok(&["policy", "set", "all", "messages_per_min=600", "max_hops=3"]);
    let effective = b.json(&["policy", "show", "agent-a"]);
    assert_eq!(effective["max_message"]["value"], 2 << 20);
    assert_eq!(effective["max_message"]["from"][0], a.address());
    assert_eq!(effective["tasks"]["from"][0], "group:workers");
    assert_eq!(effective["max_hops"]["from"][0], "all");
    assert_eq!(effective["requests"]["from"], serde_json::json!([]));
    let everything = b.ok(&["policy"]);
    for line in ["group:workers · agent-a", "publish               jobs.*,status.>", "600", "2.0 MB"] {
        assert!(everything.contains(line), "{line}:\n{everything}");
    }
    for (words, status) in [
        (&["--topic", "jobs.one"][..], 0),
        (&["--topic", "news"], 4),
        (&["--subscribe", "news"], 0),
        (&["--message", "3MB"], 4),
        (&["--file", "3GB"], 0),
        (&["--task"], 4),
        (&["--request"], 0),
        (&["--mailbox"], 0),
        (&["--hops", "3"], 4),
    ] {
        let done = b.run(&[&["policy", "test", "agent-a"], words].concat());
        assert_eq!(done.status, status, "{words:?}: {done:?}");
    }
    assert!(b.ok(&["policy", "group", "remove", "workers", "agent-a"]).contains("no members"));
    assert_eq!(b.run(&["policy", "test", "agent-a", "--task"]).status, 0);
    b.ok(&["policy", "group", "remove", "workers"]);
    let reset = b.json(&["policy", "reset"]);
    assert_eq!(reset["book"], serde_json::json!({ "version": 1 }));
}

#[test]
fn slips_of_the_pen_change_nothing() {
    let world = World::new();
    let (_, b) = world.friends();
    for (words, status) in [
        (&["set", "all", "max_mesage=1"][..], 2),
        (&["set", "all", "max_message"], 2),
        (&["set", "all", "ports=99999"], 2),
        (&["set", "group:none", "tasks=no"], 5),
        (&["set", "nobody-of-this-name", "tasks=no"], 5),
        (&["set", "key:12", "tasks=no"], 2),
        (&["unset", "all", "nothing"], 2),
        (&["deny", "all", "--port", "x"], 2),
        (&["group", "add", "a name", "agent-a"], 2),
        (&["group", "remove", "none"], 5),
        (&["test", "agent-a"], 2),
        (&["test", "agent-a", "--task", "--request"], 2),
    ] {
        let done = b.run(&[&["policy"], words, &["--json"]].concat());
        assert_eq!(
            (done.status, done.json()["status"].as_str()),
            (status, Some("error")),
            "{words:?}: {done:?}"
        );
    }
    assert_eq!(b.json(&["policy"])["book"], serde_json::json!({ "version": 1 }));
}

#[test]
fn the_lines_of_the_articles_say_who_may_reach_a_port() {
    let world = World::new();
    let (a, b) = world.friends();
    let may = |port| b.run(&["policy", "test", "agent-a", "--port", port]).status == 0;
    b.ok(&["port-policy", "7", "--allow-trusted"]);
    b.ok(&["port-policy", "1000", "--deny-all"]);
    b.ok(&["port-policy", "1003", "--allow", "agent-b"]);
    assert!(may("7") && !may("1000") && !may("1003"));
    b.ok(&["port-policy", "1003", "--allow", "agent-b,agent-a"]);
    assert!(may("1003"));
    b.ok(&["port-policy", "1000", "--allow-all"]);
    assert!(may("1000"));
    let refused = b.run(&["port-policy", "1000"]);
    assert_eq!(refused.status, 2, "{refused:?}");
    drop(a);
}

#[test]
fn a_broken_file_is_told_everywhere_and_can_be_mended_or_dropped() {
    let world = World::new();
    let (a, b) = world.friends();
    let path = b.home.join("policy.json");
    std::fs::write(&path, "{\"version\":1,\n \"al\":{}}").unwrap();
    let reload = b.run(&["policy", "reload"]);
    assert_eq!(reload.status, 1, "{reload:?}");
    assert!(reload.text().contains("unknown field `al`") && reload.text().contains("line 2"), "{reload:?}");
    assert!(b.ok(&["status"]).contains("nothing is allowed to other nodes"));
    assert_eq!(b.json(&["status"])["policy_broken"].as_str().map(str::is_empty), Some(false));
    assert_eq!(b.json(&["health"])["status"], "policy_broken");
    let set = b.run(&["policy", "set", "all", "tasks=no", "--json"]);
    assert_eq!((set.status, set.json()["code"].as_str()), (4, Some("permission_denied")));
    assert_ne!(a.run(&["send-message", "agent-b", "x", "--now"]).status, 0);
    std::fs::write(&path, r#"{"version":1,"all":{"tasks":false}}"#).unwrap();
    b.ok(&["policy", "reload"]);
    a.ok(&["send-message", "agent-b", "x", "--now"]);
    std::fs::write(&path, "x").unwrap();
    b.run(&["policy", "reload"]);
    b.ok(&["policy", "reset"]);
    a.ok(&["send-message", "agent-b", "y", "--now"]);
    assert!(path.with_extension("json.broken").exists());
}
