//! Tasks between two daemons, from the command line: given, taken, done, refused, taken back, late, and while one side
//! is away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use common::{Agent, World, befriend};
use serde_json::Value;

/// Two agents that trust each other; the second one takes tasks.
fn office(world: &World) -> (Agent, Agent) {
    let (a, b) = world.friends();
    assert_eq!(b.json(&["enable-tasks"])["task_exec"], true);
    (a, b)
}

fn submit(from: &Agent, task: &str) -> String {
    let submitted = from.json(&["task", "submit", "agent-b", "--task", task]);
    assert_eq!((&submitted["status"], &submitted["accepted"]), (&200.into(), &true.into()), "{submitted}");
    submitted["task_id"].as_str().unwrap().to_owned()
}

fn state(agent: &Agent, id: &str) -> String {
    agent.json(&["task", "show", id])["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_task_goes_through_all_its_states_and_its_files_arrive() {
    let world = World::new();
    let (a, b) = office(&world);
    let id = submit(&a, "summarise X");
    let listed = b.json(&["task", "list", "--type", "received"]);
    assert_eq!(
        (&listed["tasks"][0]["task_id"], &listed["tasks"][0]["status"], &listed["tasks"][0]["a2a_state"]),
        (&Value::from(id.as_str()), &"NEW".into(), &"submitted".into())
    );
    assert_eq!(b.json(&["task", "accept", "--id", &id])["status"], "ACCEPTED");
    let again = b.run(&["task", "accept", &id, "--json"]);
    assert_eq!((again.status, again.json()["code"].as_str()), (1, Some("refused")), "{again:?}");
    assert_eq!(b.json(&["task", "queue"])["count"], 1);

    let begun = b.json(&["task", "execute"]);
    assert_eq!((&begun["task_description"], &begun["status"]), (&"summarise X".into(), &"EXECUTING".into()));
    b.ok(&["task", "progress", &id, "3 of 5"]);
    let seen = wait_for(&a, &id, "EXECUTING");
    assert_eq!(seen["a2a_state"], "working");

    let content = common::noise(1 << 20);
    std::fs::write(b.home.join("table.csv"), &content).unwrap();
    std::fs::write(b.home.join("notes.md"), "# notes").unwrap();
    let files = ["--file", "table.csv", "--file", "notes.md"];
    let sent =
        b.json(&[&["task", "send-results", "--id", &id, "--results", "the summary"], &files[..]].concat());
    assert_eq!(sent["sent_type"], "text+files");

    let done = a.json(&["task", "wait", &id, "--timeout", "60s"]);
    assert_eq!(
        (&done["status"], &done["a2a_state"], &done["result_text"], &done["progress"]),
        (&"SUCCEEDED".into(), &"completed".into(), &"the summary".into(), &"3 of 5".into())
    );
    assert_eq!(done["result_files"].as_array().unwrap().len(), 2, "{done}");
    let path = done["result_files"][0]["path"].as_str().unwrap();
    assert!(
        path.starts_with(a.home.to_str().unwrap()) && path.ends_with(&format!("{id}_table.csv")),
        "{path}"
    );
    assert!(std::fs::read(path).unwrap() == content);
    wait_for(&b, &id, "SUCCEEDED");
    let late = b.run(&["task", "send-results", "--id", &id, "--results", "again", "--json"]);
    assert_eq!((late.status, late.json()["code"].as_str()), (1, Some("refused")), "{late:?}");
}

/// The task, once it is in that state.
fn wait_for(agent: &Agent, id: &str, wanted: &str) -> Value {
    agent.json(&["task", "wait", id, "--until", wanted, "--timeout", "100s"])
}

fn score(agent: &Agent, of: &str) -> i64 {
    agent.json(&["lookup", of])["polo_score"].as_i64().unwrap()
}

#[test]
fn a_finished_task_changes_the_scores_at_the_registry_once() {
    let world = World::new();
    let (a, b) = office(&world);
    assert_eq!(a.json(&["lookup", "agent-b"])["task_exec"], true);
    for round in 1..=2 {
        let id = submit(&a, "work");
        b.ok(&["task", "accept"]);
        b.ok(&["task", "execute"]);
        b.ok(&["task", "complete", &id, "--results", "done"]);
        a.ok(&["task", "wait", &id]);
        let begin = std::time::Instant::now();
        while (score(&b, "agent-a"), score(&a, "agent-b")) != (-round, round) {
            let shown = b.json(&["task", "show", &id]);
            assert!(begin.elapsed().as_secs() < 60, "{shown}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    assert_eq!(b.json(&["task", "status"])["polo_score"], 2);
    assert_eq!(b.json(&["info"])["polo_score"], 2);
    assert_eq!(b.json(&["task", "list"])["total"], 2);

    b.ok(&["task", "gate", "on"]);
    let refused = a.run(&["task", "submit", "agent-b", "--task", "third", "--json"]);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (1, Some("refused")));
    assert_eq!(refused.json()["data"]["status"], 400);
    let why = "Polo score too low: submitter=-2, receiver=2";
    assert!(refused.json()["message"].as_str().unwrap().contains(why), "{refused:?}");
}

#[test]
fn a_node_takes_tasks_when_it_is_told_to_or_while_a_program_waits() {
    let world = World::new();
    let (a, b) = world.friends();
    let refused = a.run(&["task", "submit", "agent-b", "--task", "x", "--json"]);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (1, Some("refused")));
    assert!(refused.json()["message"].as_str().unwrap().contains("enable-tasks"), "{refused:?}");

    let waiting = b.spawn(&["task", "accept", "--timeout", "60s", "--json"]);
    let begin = std::time::Instant::now();
    while b.json(&["task", "status"])["waiting"] != 1 {
        assert!(begin.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let id = submit(&a, "for whoever waits");
    let accepted = waiting.finish();
    assert_eq!((accepted.status, &accepted.json()["data"]["task_id"]), (0, &Value::from(id)), "{accepted:?}");

    let nothing = b.run(&["task", "accept", "--timeout", "20ms", "--json"]);
    assert_eq!((nothing.status, nothing.json()["code"].as_str()), (6, Some("timeout")));
}

#[test]
fn a_declined_a_failed_and_a_cancelled_task_say_why_on_the_other_side() {
    let world = World::new();
    let (a, b) = office(&world);
    let declined = submit(&a, "no");
    b.ok(&["task", "decline", "--id", &declined, "--justification", "busy"]);
    let ended = a.run(&["task", "wait", &declined, "--json"]);
    assert_eq!((ended.status, ended.json()["data"]["status"].as_str()), (1, Some("DECLINED")));
    assert_eq!(ended.json()["data"]["a2a_state"], "rejected");
    assert!(ended.json()["message"].as_str().unwrap().ends_with("busy"), "{ended:?}");

    let failed = submit(&a, "impossible");
    b.ok(&["task", "accept"]);
    b.ok(&["task", "execute"]);
    b.ok(&["task", "fail", &failed, "--reason", "too hard"]);
    let ended = a.run(&["task", "wait", &failed, "--json"]);
    assert_eq!(ended.json()["data"]["justification"], "too hard");

    let cancelled = submit(&a, "never mind");
    b.ok(&["task", "accept"]);
    a.ok(&["task", "cancel", &cancelled, "--reason", "changed my mind"]);
    assert_eq!(wait_for(&b, &cancelled, "CANCELLED")["justification"], "changed my mind");
    assert_eq!(b.run(&["task", "execute", "--json"]).json()["code"], "not_found");
}

#[test]
fn a_task_with_a_deadline_is_over_on_both_sides_when_it_passes() {
    let world = World::new();
    let (a, b) = office(&world);
    let ended =
        a.run(&["task", "submit", "agent-b", "--task", "slow", "--deadline", "1s", "--wait", "--json"]);
    assert_eq!((ended.status, ended.json()["data"]["status"].as_str()), (1, Some("CANCELLED")), "{ended:?}");
    let id = ended.json()["data"]["task_id"].as_str().unwrap().to_owned();
    assert!(wait_for(&b, &id, "CANCELLED")["justification"].as_str().unwrap().contains("deadline"));
}

#[test]
fn a_program_does_the_task_and_what_it_prints_and_leaves_is_the_result() {
    let world = World::new();
    let (a, b) = office(&world);
    let line = "tr a-z A-Z; echo data > \"$PILOT_TASK_OUT/more.csv\"";
    let working = b.spawn(&["task", "execute", "--accept", "--exec", line, "--timeout", "60s", "--json"]);
    let done = a.json(&["task", "submit", "agent-b", "shout this", "--wait=60s"]);
    assert_eq!((&done["status"], &done["result_text"]), (&"SUCCEEDED".into(), &"SHOUT THIS".into()));
    assert_eq!(done["result_files"][0]["name"], "more.csv");
    assert_eq!(working.finish().status, 0);

    let working =
        b.spawn(&["task", "execute", "--accept", "--exec", "echo sorry >&2; exit 3", "--timeout", "60s"]);
    let failed = a.run(&["task", "submit", "agent-b", "x", "--wait=60s", "--json"]);
    assert_eq!(failed.json()["data"]["status"], "FAILED", "{failed:?}");
    assert!(failed.json()["message"].as_str().unwrap().contains("sorry"), "{failed:?}");
    assert_eq!(working.finish().status, 1);

    let working =
        b.spawn(&["task", "execute", "--accept", "--exec", "sleep 600", "--timeout", "60s", "--json"]);
    let id = submit(&a, "long");
    wait_for(&a, &id, "EXECUTING");
    a.ok(&["task", "cancel", &id]);
    assert_eq!(working.finish().json()["code"], "interrupted");
}

#[test]
fn a_worker_that_is_away_gets_the_task_later_and_so_does_a_submitter_its_result() {
    let world = World::new();
    let (mut a, mut b) = office(&world);
    let address = b.address();
    b.kill();
    let queued = a.json(&["task", "submit", &address, "--task", "when you are back"]);
    assert_eq!((&queued["status"], &queued["queued"]), (&202.into(), &true.into()), "{queued}");
    let id = queued["task_id"].as_str().unwrap().to_owned();
    a.kill();
    a.start(&[]);
    b.start(&[]);
    wait_for_arrival(&b, &id);
    b.ok(&["task", "accept", "--id", &id]);
    wait_for(&a, &id, "ACCEPTED");
    a.kill();
    b.ok(&["task", "execute"]);
    std::fs::write(b.home.join("answer.txt"), "42").unwrap();
    let sent = b.json(&["task", "send-results", "--id", &id, "--file", "answer.txt"]);
    assert_eq!((&sent["status"], &sent["queued"]), (&"COMPLETED".into(), &true.into()), "{sent}");
    std::fs::remove_file(b.home.join("answer.txt")).unwrap();
    b.kill();
    b.start(&[]);
    a.start(&[]);
    let done = a.json(&["task", "wait", &id, "--timeout", "100s"]);
    assert_eq!(done["status"], "SUCCEEDED");
    assert_eq!(std::fs::read(done["result_files"][0]["path"].as_str().unwrap()).unwrap(), b"42");
}

fn wait_for_arrival(agent: &Agent, id: &str) {
    let begin = std::time::Instant::now();
    while agent.run(&["task", "show", id]).status != 0 {
        assert!(begin.elapsed().as_secs() < 100, "the task does not arrive");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn programs_are_no_results_unless_that_is_said_and_foreign_nodes_give_no_tasks() {
    let world = World::new();
    let (a, b) = office(&world);
    let id = submit(&a, "code");
    b.ok(&["task", "accept"]);
    std::fs::write(b.home.join("x.py"), "print()").unwrap();
    let refused = b.run(&["task", "send-results", "--id", &id, "--file", "x.py", "--json"]);
    assert_eq!(
        (refused.status, refused.json()["message"].as_str()),
        (2, Some("file type \".py\" not allowed for results"))
    );
    let sent = b.json(&["task", "send-results", "--id", &id, "--file", "x.py", "--any-type"]);
    assert_eq!((&sent["filename"], &sent["file_size"]), (&"x.py".into(), &7.into()));
    a.ok(&["task", "wait", &id]);
    assert_eq!(state(&a, &id), "SUCCEEDED");

    b.ok(&["set-public"]);
    let c = world.agent("agent-c");
    let stranger = c.run(&["task", "submit", &b.address(), "--task", "x", "--json"]);
    assert_ne!(stranger.json()["data"]["status"], 200, "{stranger:?}");
    assert_eq!(b.json(&["task", "list"])["total"], 1);
    befriend(&c, &b);
    let friend = c.json(&["task", "submit", &b.address(), "--task", "y"]);
    assert_eq!(friend["status"], 200, "{friend}");
}
