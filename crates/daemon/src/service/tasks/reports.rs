//! Hands the registry what both sides of a task have signed.

use std::time::Duration;

use pilot_wire::registry::{ReportTask, Request, Response};
use pilot_wire::tasks::Category;
use pilot_wire::tasks::score::{Outcome, Proof, Statement};
use tokio::time::{Instant, sleep_until};

use super::desk::Way;
use super::record::{Key, Record, Report};
use crate::handle::{Handle, Sign};
use crate::registry::CallError;

/// Pause after the registry could not be asked; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(2);

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Reports for as long as the daemon runs.
pub(super) async fn run(handle: Handle, way: Way) {
    let mut changed = way.changed();
    let mut signs = handle.signs();
    let mut pause = PAUSE_MIN;
    let mut not_before = Instant::now();
    loop {
        let now = Instant::now();
        if not_before <= now {
            claim(&handle, &way).await;
            match report(&handle, &way).await {
                Ok(()) => pause = PAUSE_MIN,
                Err(reason) => {
                    tracing::debug!(reason, "the registry cannot be told of a task");
                    not_before = now + pause;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        let claim = way.run(|desk| desk.book.next_claim()).await.flatten();
        let claim = claim.map(|due| now + Duration::from_millis(due.since(super::now())));
        let again = (not_before > now).then_some(not_before);
        let next = claim.into_iter().chain(again).map(|next| next.max(not_before)).min();
        tokio::select! {
            open = changed.changed() => if open.is_err() { return },
            sign = signs.recv() => match sign {
                // The network is another one: the registry may be there again.
                Ok(Sign::Network) => not_before = Instant::now(),
                Ok(Sign::Peer(_)) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            },
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
        }
    }
}

/// Our tasks that expired with a worker that had signed for them.
async fn claim(handle: &Handle, way: &Way) {
    for task in way.run(|desk| desk.book.claims(super::now())).await.unwrap_or_default() {
        let report = match proof(handle, &task).await {
            Some(proof) => Report::Due(Box::new(proof)),
            None => Report::Told("a task that a node gives itself does not count".to_owned()),
        };
        set(way, task.key, report).await;
    }
}

async fn proof(handle: &Handle, task: &Record) -> Option<Proof> {
    let acceptance = task.acceptance?;
    let statement = Statement {
        task_id: task.key.id.clone(),
        submitter: handle.node(),
        worker: task.to.node,
        outcome: Outcome::Expired { accepted_at: acceptance.at },
    };
    if statement.submitter == statement.worker {
        return None;
    }
    let submitter_signature = handle.sign(statement.texts().0).await?;
    Some(Proof { statement, submitter_signature, worker_signature: acceptance.signature })
}

/// Tells everything there is to tell, until the registry does not answer.
async fn report(handle: &Handle, way: &Way) -> Result<(), String> {
    for (key, report) in way.run(|desk| desk.book.reports()).await.unwrap_or_default() {
        let Report::Due(proof) = report else { continue };
        let outcome = match handle.registry(Request::ReportTask(ReportTask::from(*proof))).await {
            Ok(reply) => match Response::parse(&reply) {
                Ok(Response::ReportTask { submitter_score, worker_score, .. }) => {
                    let own = match key.category {
                        Category::Submitted => submitter_score,
                        Category::Received => worker_score,
                    };
                    format!("counted: this node's score is {own}")
                }
                Ok(_) | Err(_) => "the registry keeps no scores".to_owned(),
            },
            Err(CallError::Refused(reason)) => format!("not counted: {reason}"),
            Err(CallError::Unreachable(reason)) => return Err(reason),
        };
        tracing::info!(task = %key.id, outcome, "the registry was told of a task");
        set(way, key, Report::Told(outcome)).await;
    }
    Ok(())
}

async fn set(way: &Way, key: Key, report: Report) {
    let _ = way.run(|desk| desk.act(move |book, _| book.set_report(&key, report))).await;
}
