//! What tasks earn their workers and cost their submitters (spec/local.md 2.7), on the word of both sides.
//!
//! The registry sees no task. It believes what both sides have signed, once per task: whoever wants a better score needs
//! somebody who pays for it. Two who agree to cheat are slowed down by a limit per day.

use super::{Key, Refusal, State, record::Counted};
use pilot_wire::{
    Addr, NodeId, Signature,
    registry::{ReportTask, Response, Score, ScoreUpdate, Sent},
    tasks::score::{Outcome, Statement, reward},
};
use std::time::Instant;

/// Scores stay between this and its negative, as in the reference.
const SCORE_MAX: i32 = 1_000_000;
/// For how long a task can be reported, in seconds from its end, or its acceptance if it expired.
const REPORT_WITHIN: u64 = 7 * 24 * 3600;
/// How far a worker's clock may be ahead of ours, in seconds.
const CLOCK_SLACK: u64 = 600;
/// After how many seconds an accepted task that was never begun has expired.
const EXPIRES_AFTER: u64 = 3600;
/// Tasks that count per day between a submitter and a worker.
const PER_DAY: usize = 24;
/// Tasks remembered of one worker, so that none counts twice. More within a week do not count.
const COUNTED_MAX: usize = 1000;
/// What a finished task costs its submitter, and an expired one its worker.
const PRICE: i32 = 1;

impl State {
    pub(super) fn polo_score(&self, node: NodeId) -> Result<Score, Refusal> {
        let polo_score = self.known(node).map_err(|_| Refusal::NoScore(node))?.score;
        Ok(Score { node_id: node, address: Addr::backbone(node).to_string(), polo_score })
    }

    /// The reference lets everybody change everybody's score.
    pub(super) fn update_polo_score(&mut self, request: &ScoreUpdate, token: &str) -> Result<Score, Refusal> {
        self.require_score_admin(token)?;
        let delta = request.delta.ok_or(Refusal::DeltaRequired)?;
        let delta = i32::try_from(delta).ok().filter(|delta| delta.abs() <= SCORE_MAX);
        let delta = delta.ok_or(Refusal::ScoreRange("polo score delta", SCORE_MAX))?;
        self.polo_score(request.node_id)?;
        self.credit(request.node_id, delta);
        self.polo_score(request.node_id)
    }

    pub(super) fn set_polo_score(&mut self, request: &ScoreUpdate, token: &str) -> Result<Score, Refusal> {
        self.require_score_admin(token)?;
        let score = request.polo_score.ok_or(Refusal::ScoreRequired)?;
        let score = i32::try_from(score).ok().filter(|score| score.abs() <= SCORE_MAX);
        let score = score.ok_or(Refusal::ScoreRange("polo score", SCORE_MAX))?;
        let before = self.polo_score(request.node_id)?.polo_score;
        self.credit(request.node_id, score - before);
        self.polo_score(request.node_id)
    }

    fn require_score_admin(&self, token: &str) -> Result<(), Refusal> {
        if self.is_admin(token) { Ok(()) } else { Err(Refusal::ScoreNeedsAdmin) }
    }

    pub(super) fn set_task_exec(&mut self, node: NodeId, enabled: bool) -> Result<Response, Refusal> {
        self.presence_mut(node)?.task_exec = enabled;
        self.touch(Key::Node(node));
        Ok(Response::SetTaskExec { node_id: node, task_exec: enabled })
    }

    /// Counts a task that both sides have signed for. The nodes need not be registered at the moment: a worker may have
    /// left after its work.
    pub(super) fn report_task(&mut self, now: Instant, request: &ReportTask) -> Result<Response, Refusal> {
        let statement = request.statement().ok_or(Refusal::ReportMalformed)?;
        let now = self.clock.unix(now);
        let (submitter, worker) = (statement.submitter, statement.worker);
        if submitter == worker {
            return Err(Refusal::ReportSelf);
        }
        let at = match statement.outcome {
            Outcome::Done { at, .. } if at <= now + CLOCK_SLACK => at,
            Outcome::Expired { accepted_at } if accepted_at.saturating_add(EXPIRES_AFTER) <= now => {
                accepted_at
            }
            Outcome::Done { .. } | Outcome::Expired { .. } => return Err(Refusal::ReportEarly),
        };
        if at.saturating_add(REPORT_WITHIN) < now {
            return Err(Refusal::ReportLate);
        }
        let (by_submitter, by_worker) = statement.texts();
        self.require_signature(submitter, &by_submitter, &request.submitter_signature)?;
        self.require_signature(worker, &by_worker, &request.worker_signature)?;
        let counted = self.count(&statement, now, at)?;
        if counted {
            match statement.outcome {
                Outcome::Done { cpu_ms, idle_ms, staged_ms, .. } => {
                    self.credit(submitter, -PRICE);
                    self.credit(worker, reward(cpu_ms, idle_ms, staged_ms));
                }
                Outcome::Expired { .. } => self.credit(worker, -PRICE),
            }
        }
        let score = |node| self.nodes.get(&node).map(|known| known.score).unwrap_or_default();
        Ok(Response::ReportTask { counted, submitter_score: score(submitter), worker_score: score(worker) })
    }

    fn require_signature(
        &mut self,
        node: NodeId,
        text: &str,
        signature: &Sent<Signature>,
    ) -> Result<(), Refusal> {
        let key = self.nodes.get(&node).ok_or(Refusal::UnknownNode(node))?.key;
        match signature {
            Sent::Missing => Err(Refusal::SignatureRequired),
            Sent::Malformed(why) => Err(Refusal::SignatureEncoding(why.clone())),
            Sent::Given(signature) if self.is_signed(&key, text, signature) => Ok(()),
            Sent::Given(_) => Err(Refusal::SignatureWrong),
        }
    }

    /// Remembers a task; false if it is remembered already.
    fn count(&mut self, statement: &Statement, now: u64, at: u64) -> Result<bool, Refusal> {
        let Statement { task_id, submitter, worker, .. } = statement;
        let counted = self.counted.entry(*worker).or_default();
        // What is older cannot be reported again.
        counted.retain(|task| task.at.saturating_add(REPORT_WITHIN) >= now);
        if counted.iter().any(|task| task.submitter == *submitter && task.task_id == *task_id) {
            return Ok(false);
        }
        let today =
            counted.iter().filter(|task| task.submitter == *submitter && task.counted_at + 86_400 > now);
        if today.count() >= PER_DAY {
            return Err(Refusal::ReportsPerDay { submitter: *submitter, worker: *worker, max: PER_DAY });
        }
        if counted.len() >= COUNTED_MAX {
            return Err(Refusal::ReportsFull(*worker));
        }
        let (task_id, submitter) = (task_id.clone(), *submitter);
        counted.push(Counted { task_id, submitter, at, counted_at: now });
        self.touch(Key::Tasks(*worker));
        Ok(true)
    }

    fn credit(&mut self, node: NodeId, amount: i32) {
        if let Some(known) = self.nodes.get_mut(&node)
            && amount != 0
        {
            known.score = known.score.saturating_add(amount).clamp(-SCORE_MAX, SCORE_MAX);
            self.touch(Key::Node(node));
        }
    }
}
