//! Scores follow from what both sides of a task have signed, and from nothing else (spec/local.md 2.7).
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{Agent, START, World, about, identity, refusal};
use pilot_wire::{
    NodeId,
    registry::{ReportTask, Request, Response, ScoreUpdate, SetTaskExec},
    tasks::score::{Outcome, Proof, Statement},
};
use std::time::Duration;

const HOUR: u64 = 3600;

fn done(submitter: &Agent, worker: &Agent, id: &str, minutes: u64) -> ReportTask {
    let outcome = Outcome::Done { cpu_ms: minutes * 60_000, idle_ms: 0, staged_ms: 0, at: START };
    report(submitter, worker, id, outcome)
}

fn report(submitter: &Agent, worker: &Agent, id: &str, outcome: Outcome) -> ReportTask {
    let statement =
        Statement { task_id: id.parse().unwrap(), submitter: submitter.id, worker: worker.id, outcome };
    let (first, second) = statement.texts();
    Proof {
        statement,
        submitter_signature: submitter.identity.sign(first.as_bytes()),
        worker_signature: worker.identity.sign(second.as_bytes()),
    }
    .into()
}

fn score(world: &mut World, agent: &Agent) -> i32 {
    match world.by(agent, Request::GetPoloScore(about(agent.id))) {
        Response::GetPoloScore(score) => score.polo_score,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_finished_task_costs_its_submitter_one_and_earns_its_worker_the_reward() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    let reply = world.by(&b, Request::ReportTask(done(&a, &b, "t-1", 7)));
    assert_eq!(reply, Response::ReportTask { counted: true, submitter_score: -1, worker_score: 4 });
    assert_eq!((score(&mut world, &a), score(&mut world, &b)), (-1, 4));
    let Response::Lookup(found) = world.by(&a, Request::Lookup(about(a.id))) else { panic!() };
    assert_eq!(found.polo_score, -1);
}

#[test]
fn a_task_counts_once_whoever_reports_it_and_whatever_happens_to_the_registry() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.by(&b, Request::ReportTask(done(&a, &b, "t-1", 0)));
    world.restart();
    for (by, minutes) in [(&a, 0), (&b, 0), (&b, 9)] {
        let reply = world.by(by, Request::ReportTask(done(&a, &b, "t-1", minutes)));
        assert_eq!(reply, Response::ReportTask { counted: false, submitter_score: -1, worker_score: 1 });
    }
    let expired = report(&a, &b, "t-1", Outcome::Expired { accepted_at: START - HOUR });
    let reply = world.by(&a, Request::ReportTask(expired));
    assert!(matches!(reply, Response::ReportTask { counted: false, .. }), "{reply:?}");
    // Another submitter may have chosen the same name.
    let c = world.agent(3);
    let reply = world.by(&b, Request::ReportTask(done(&c, &b, "t-1", 0)));
    assert!(matches!(reply, Response::ReportTask { counted: true, worker_score: 2, .. }), "{reply:?}");
}

#[test]
fn an_expired_task_costs_its_worker_one_on_its_own_signed_word_that_it_accepted() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    let expired = report(&a, &b, "t-1", Outcome::Expired { accepted_at: START });
    assert_eq!(refusal(&world.by(&a, Request::ReportTask(expired.clone()))), "that is not over yet");
    world.pass(Duration::from_secs(HOUR));
    let (a, b) = (world.agent(1), world.agent(2));
    let reply = world.by(&a, Request::ReportTask(expired));
    assert_eq!(reply, Response::ReportTask { counted: true, submitter_score: 0, worker_score: -1 });
    let forged =
        ReportTask { at: START - HOUR, ..report(&a, &b, "t-2", Outcome::Expired { accepted_at: START }) };
    assert_eq!(refusal(&world.by(&a, Request::ReportTask(forged))), "signature verification failed");
}

#[test]
fn nothing_counts_without_both_signatures_under_the_very_statement() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    let good = done(&a, &b, "t-1", 0);
    let (a_signature, b_signature) = (good.submitter_signature.clone(), good.worker_signature.clone());
    let wrong = [
        ReportTask { submitter_signature: b_signature, ..good.clone() },
        ReportTask { worker_signature: a_signature, ..good.clone() },
        ReportTask { submitter_signature: Default::default(), ..good.clone() },
        ReportTask { worker_signature: Default::default(), ..good.clone() },
        ReportTask { task_id: "t-2".to_owned(), ..good.clone() },
        ReportTask { cpu_ms: 1_000_000, ..good.clone() },
        ReportTask { task_id: "../t".to_owned(), ..good.clone() },
        ReportTask { outcome: "rewarded".to_owned(), ..good.clone() },
        ReportTask { worker_id: a.id, ..good.clone() },
        ReportTask { worker_id: NodeId(77), ..good.clone() },
        report(
            &a,
            &Agent { identity: identity(9), ..b_like(&b) },
            "t-1",
            Outcome::Done { cpu_ms: 0, idle_ms: 0, staged_ms: 0, at: START },
        ),
        report(&a, &b, "t-1", Outcome::Done { cpu_ms: 0, idle_ms: 0, staged_ms: 0, at: START + HOUR }),
        report(&a, &b, "t-1", Outcome::Done { cpu_ms: 0, idle_ms: 0, staged_ms: 0, at: START - 200 * HOUR }),
    ];
    for request in wrong {
        let reply = world.by(&b, Request::ReportTask(request.clone()));
        assert!(matches!(reply, Response::Error { .. }), "{request:?}: {reply:?}");
    }
    assert_eq!((score(&mut world, &a), score(&mut world, &b)), (0, 0));
}

fn b_like(b: &Agent) -> Agent {
    Agent { identity: b.identity.clone(), conn: b.conn, id: b.id }
}

#[test]
fn two_who_agree_to_cheat_are_slowed_down() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    for number in 0..24 {
        world.by(&b, Request::ReportTask(done(&a, &b, &format!("t-{number}"), 0)));
    }
    let reply = world.by(&b, Request::ReportTask(done(&a, &b, "one-more", 0)));
    assert_eq!(refusal(&reply), "no more than 24 tasks of node 1 for node 2 count per day");
    assert_eq!((score(&mut world, &a), score(&mut world, &b)), (-24, 24));
    world.pass(Duration::from_secs(25 * HOUR));
    let (a, b) = (world.agent(1), world.agent(2));
    let reply = world.by(&b, Request::ReportTask(done(&a, &b, "next-day", 0)));
    assert!(matches!(reply, Response::ReportTask { counted: true, .. }), "{reply:?}");
}

#[test]
fn scores_are_set_by_nobody_but_the_operator_and_outlast_absence_and_restarts() {
    let mut world = World::new();
    let a = world.agent(1);
    let update = ScoreUpdate { node_id: a.id, delta: Some(5), polo_score: Some(7) };
    for request in [Request::UpdatePoloScore(update.clone()), Request::SetPoloScore(update.clone())] {
        assert!(refusal(&world.by(&a, request)).contains("invalid admin token"));
    }
    assert_eq!(score(&mut world, &a), 0);
    world.as_admin(a.conn, Request::SetPoloScore(update.clone()));
    let Response::UpdatePoloScore(now) = world.as_admin(a.conn, Request::UpdatePoloScore(update)) else {
        panic!()
    };
    assert_eq!(now.polo_score, 12);
    world.by(&a, Request::Deregister(about(a.id)));
    world.restart();
    let a = world.agent(1);
    assert_eq!(score(&mut world, &a), 12);
}

#[test]
fn a_node_says_itself_whether_it_takes_tasks() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    let enable = |node_id| Request::SetTaskExec(SetTaskExec { node_id, enabled: true, ..Default::default() });
    assert_eq!(refusal(&world.by(&b, enable(a.id))), "signature verification failed");
    let reply = world.by(&a, enable(a.id));
    assert_eq!(reply, Response::SetTaskExec { node_id: a.id, task_exec: true });
    let Response::Lookup(found) = world.by(&a, Request::Lookup(about(a.id))) else { panic!() };
    assert!(found.task_exec);
}
