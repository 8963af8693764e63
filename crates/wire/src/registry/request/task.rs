//! Scores, and the tasks they come from.

use crate::registry::{Sent, lenient};
use crate::tasks::score::{Outcome, Proof, Statement};
use crate::{NodeId, Signature};
use serde::{Deserialize, Serialize};

/// Changes or sets a score. Fractions are cut off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScoreUpdate {
    /// The node.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// By how much, for `update_polo_score`.
    #[serde(deserialize_with = "lenient::whole", skip_serializing_if = "Option::is_none")]
    pub delta: Option<i64>,
    /// To what, for `set_polo_score`.
    #[serde(deserialize_with = "lenient::whole", skip_serializing_if = "Option::is_none")]
    pub polo_score: Option<i64>,
}

/// How a task ended: a [`Proof`] as fields of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportTask {
    /// The task.
    #[serde(deserialize_with = "lenient::text")]
    pub task_id: String,
    /// Who gave it.
    #[serde(deserialize_with = "lenient::node")]
    pub submitter_id: NodeId,
    /// Who took it.
    #[serde(deserialize_with = "lenient::node")]
    pub worker_id: NodeId,
    /// `done` or `expired`.
    #[serde(deserialize_with = "lenient::text")]
    pub outcome: String,
    /// Milliseconds of work.
    #[serde(deserialize_with = "lenient::or_default")]
    pub cpu_ms: u64,
    /// Milliseconds before acceptance.
    #[serde(deserialize_with = "lenient::or_default")]
    pub idle_ms: u64,
    /// Milliseconds at the head of the queue.
    #[serde(deserialize_with = "lenient::or_default")]
    pub staged_ms: u64,
    /// When it was done, or accepted if it expired: seconds since 1970.
    #[serde(deserialize_with = "lenient::or_default")]
    pub at: u64,
    /// By the submitter, over the first of [`Statement::texts`].
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub submitter_signature: Sent<Signature>,
    /// By the worker, over the second.
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub worker_signature: Sent<Signature>,
}

impl ReportTask {
    /// What is stated, if it makes sense.
    #[must_use]
    pub fn statement(&self) -> Option<Statement> {
        let Self { cpu_ms, idle_ms, staged_ms, at, .. } = *self;
        let outcome = match self.outcome.as_str() {
            "done" => Outcome::Done { cpu_ms, idle_ms, staged_ms, at },
            "expired" => Outcome::Expired { accepted_at: at },
            _ => return None,
        };
        let task_id = self.task_id.parse().ok()?;
        Some(Statement { task_id, submitter: self.submitter_id, worker: self.worker_id, outcome })
    }
}

impl From<Proof> for ReportTask {
    fn from(proof: Proof) -> Self {
        let Statement { task_id, submitter, worker, outcome } = proof.statement;
        let report = Self {
            task_id: task_id.to_string(),
            submitter_id: submitter,
            worker_id: worker,
            submitter_signature: proof.submitter_signature.into(),
            worker_signature: proof.worker_signature.into(),
            ..Self::default()
        };
        match outcome {
            Outcome::Done { cpu_ms, idle_ms, staged_ms, at } => {
                Self { outcome: "done".to_owned(), cpu_ms, idle_ms, staged_ms, at, ..report }
            }
            Outcome::Expired { accepted_at } => {
                Self { outcome: "expired".to_owned(), at: accepted_at, ..report }
            }
        }
    }
}
