//! Programs that answer each other stop by themselves, with real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use common::{Agent, PILOTCTL, World};
use serde_json::{Value, json};

/// Asks until it is so: a hook tells nobody that it has run.
fn hook_until(agent: &Agent, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..1200 {
        let hook = agent.json(&["hook", "list"])["hooks"][0].clone();
        if fits(&hook) {
            return hook;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    panic!("waited too long for {what}: {}", agent.json(&["hook", "list"]))
}

/// The hops of what is in the inbox, sorted.
fn hops(agent: &Agent) -> Vec<u64> {
    let list = agent.json(&["inbox", "list", "--limit", "0"]);
    let ids = list["messages"].as_array().unwrap().iter().map(|message| message["id"].as_str().unwrap());
    let mut hops: Vec<u64> = ids
        .map(|id| agent.json(&["inbox", "read", id, "--peek"])["pilot"]["hops"].as_u64().unwrap_or(0))
        .collect();
    hops.sort_unstable();
    hops
}

fn answers_held(agent: &Agent, peer: &Agent) -> u64 {
    let (policy, peer_node) = (agent.json(&["policy"]), &peer.json(&["info"])["node_id"]);
    let peers = policy["peers"].as_array().unwrap();
    let of_peer = peers.iter().find(|peer| &peer["node"] == peer_node);
    of_peer.map_or(0, |peer| peer["answers_held"].as_u64().unwrap())
}

#[test]
fn hooks_that_answer_each_other_stop_at_the_limit_of_hops_and_the_owner_is_told() {
    let world = World::new();
    let (a, b) = world.friends();
    let answer = format!("{PILOTCTL} send-message \"$PILOT_FROM\" \"and again\"");
    for agent in [&a, &b] {
        agent.ok(&["policy", "set", "all", "max_hops=3"]);
        agent.ok(&["hook", "add", "--exec", &answer]);
    }
    a.ok(&["send-message", "agent-b", "begin", "--now"]);
    // 0 to b, 1 to a, 2 to b, 3 to a: that one is not answered.
    let stopped = hook_until(&a, "the limit", |hook| hook["skipped"] == 1 && hook["pending"] == 0);
    assert_eq!(
        (&stopped["done"], &stopped["pending"], &stopped["failed"]),
        (&json!(2), &json!(0), &json!(0))
    );
    assert!(stopped["last_skip"].as_str().unwrap().contains("refused by policy"), "{stopped}");
    let other = hook_until(&b, "the end of its programs", |hook| hook["done"] == 2 && hook["pending"] == 0);
    assert_eq!((&other["skipped"], &other["failed"]), (&json!(0), &json!(0)));
    assert_eq!((hops(&a), hops(&b)), (vec![1, 3], vec![0, 2]), "nothing is on its way any more");
    assert_eq!(a.json(&["inbox"])["unread"], 1, "the one that was not answered is left to people");
    assert_eq!((answers_held(&a, &b), answers_held(&b, &a)), (1, 0));
    let told = a.ok(&["policy"]);
    assert!(told.contains("agent-b") && told.contains("1 automatic answer held back"), "{told}");
    let listed = a.ok(&["hook", "list"]);
    assert!(
        listed.contains("2 done · 1 of them skipped · 0 waiting") && listed.contains("skipped: "),
        "{listed}"
    );
    // The next conversation is its own.
    a.ok(&["send-message", "agent-b", "begin anew", "--now"]);
    hook_until(&a, "the limit again", |hook| hook["skipped"] == 2);
    assert_eq!((hops(&a), hops(&b)), (vec![1, 1, 3, 3], vec![0, 0, 2, 2]));
}

#[test]
fn programs_that_ask_each_other_for_ever_are_declined_at_the_limit_and_all_of_them_end() {
    let world = World::new();
    let (a, b) = world.friends();
    let ask =
        format!("cat >/dev/null; exec {PILOTCTL} send-message \"$PILOT_FROM\" \"you first\" --wait=60s");
    let mut serving = Vec::new();
    for agent in [&a, &b] {
        agent.ok(&["policy", "set", "all", "max_hops=3"]);
        serving.push(agent.spawn(&["serve", "--exec", &ask, "--jobs", "8", "--json"]));
    }
    let asked = a.run(&["send-message", "agent-b", "after you", "--wait=60s", "--json"]);
    assert_eq!((asked.status, asked.json()["code"].as_str()), (1, Some("failed")), "{asked:?}");
    // Four requests were made, two of them to each, and each has one answer: the last that it is declined.
    let outcomes = |running: &mut common::Running, count: usize| -> Vec<String> {
        (0..count).map(|_| running.json_line()["outcome"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(outcomes(&mut serving[0], 1), ["failed"]);
    assert_eq!(outcomes(&mut serving[1], 2), ["failed", "failed"]);
    for agent in [&a, &b] {
        assert_eq!(agent.json(&["inbox", "list", "--limit", "0"])["total"], 4);
    }
    assert_eq!((answers_held(&a, &b), answers_held(&b, &a)), (1, 0));
}
