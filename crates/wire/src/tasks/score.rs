//! What both sides of a task sign, and what it is worth (spec/local.md 2.7).

use serde::{Deserialize, Serialize};

use super::TaskId;
use crate::{NodeId, Signature};

/// What the registry is told: how a task ended. Each side signs [`Statement::texts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The task.
    pub task_id: TaskId,
    /// Who gave it.
    pub submitter: NodeId,
    /// Who took it.
    pub worker: NodeId,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a task ended, as far as the score is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The submitter has the results.
    Done {
        /// From the beginning of the work to its end, in milliseconds.
        cpu_ms: u64,
        /// From arrival to acceptance, in milliseconds.
        idle_ms: u64,
        /// At the head of the worker's queue, in milliseconds.
        staged_ms: u64,
        /// When the work ended, seconds since 1970 by the worker's clock.
        at: u64,
    },
    /// The worker accepted it and never began.
    Expired {
        /// When it was accepted, seconds since 1970 by the worker's clock.
        accepted_at: u64,
    },
}

impl Statement {
    /// What the submitter signs, and what the worker signs.
    #[must_use]
    pub fn texts(&self) -> (String, String) {
        let Self { task_id, submitter, worker, outcome } = self;
        match outcome {
            Outcome::Done { cpu_ms, idle_ms, staged_ms, at } => {
                let text =
                    format!("task_done:{task_id}:{submitter}:{worker}:{cpu_ms}:{idle_ms}:{staged_ms}:{at}");
                (text.clone(), text)
            }
            Outcome::Expired { accepted_at } => (
                format!("task_expired:{task_id}:{submitter}:{worker}:{accepted_at}"),
                acceptance(task_id, *submitter, *worker, *accepted_at),
            ),
        }
    }
}

/// What a worker signs when it accepts a task: `task_accepted:<task>:<submitter>:<worker>:<seconds since 1970>`.
#[must_use]
pub fn acceptance(task_id: &TaskId, submitter: NodeId, worker: NodeId, accepted_at: u64) -> String {
    format!("task_accepted:{task_id}:{submitter}:{worker}:{accepted_at}")
}

/// A statement with both signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// What is stated.
    #[serde(flatten)]
    pub statement: Statement,
    /// By the submitter, over the first of [`Statement::texts`].
    pub submitter_signature: Signature,
    /// By the worker, over the second.
    pub worker_signature: Signature,
}

/// Longest work that counts: a day. It is the two sides' word alone that it took so long.
const CPU_MAX_MS: u64 = 24 * 3600 * 1000;

/// What the worker gets for a finished task: 1 to 12.
#[must_use]
pub fn reward(cpu_ms: u64, idle_ms: u64, staged_ms: u64) -> i32 {
    #[expect(clippy::cast_precision_loss, reason = "below a day after the limits, exactly representable")]
    let minutes = |ms: u64| ms.min(CPU_MAX_MS) as f64 / 60_000.0;
    let slowness = (0.3 * minutes(idle_ms)).min(0.3) + (0.3 * minutes(staged_ms) / 10.0).min(0.3);
    let full = 1.0 + (1.0 + minutes(cpu_ms)).log2();
    let earned = (full * (1.0 - slowness)).round().max(1.0);
    #[expect(clippy::cast_possible_truncation, reason = "between 1 and 12")]
    let earned = earned as i32;
    earned
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    #[test]
    fn the_reward_grows_with_the_work_and_falls_with_the_wait() {
        assert_eq!(reward(0, 0, 0), 1);
        assert_eq!(reward(MINUTE, 0, 0), 2);
        assert_eq!(reward(7 * MINUTE, 0, 0), 4);
        assert_eq!(reward(63 * MINUTE, 0, 0), 7);
        assert_eq!(reward(63 * MINUTE, MINUTE, 0), 5);
        assert_eq!(reward(63 * MINUTE, 10 * MINUTE, 100 * MINUTE), 3);
        assert_eq!(reward(0, u64::MAX, u64::MAX), 1);
        assert_eq!(reward(u64::MAX, 0, 0), 11);
    }

    #[test]
    fn both_sign_the_same_of_a_finished_task_and_each_its_part_of_an_expired_one() {
        let statement = |outcome| Statement {
            task_id: "t-1".parse().unwrap(),
            submitter: NodeId(1),
            worker: NodeId(2),
            outcome,
        };
        let done = statement(Outcome::Done { cpu_ms: 3, idle_ms: 4, staged_ms: 5, at: 6 });
        assert_eq!(done.texts(), ("task_done:t-1:1:2:3:4:5:6".into(), "task_done:t-1:1:2:3:4:5:6".into()));
        let expired = statement(Outcome::Expired { accepted_at: 9 });
        assert_eq!(expired.texts(), ("task_expired:t-1:1:2:9".into(), "task_accepted:t-1:1:2:9".into()));
    }
}
