//! A task as this node keeps it: in memory, and in a file of its own whose first keys are those of released nodes.

use std::time::{Duration, SystemTime};

use pilot_wire::tasks::frame::{Acceptance, Digest};
use pilot_wire::tasks::score::Proof;
use pilot_wire::tasks::{Category, ResultFile, State, Task, TaskId};
use pilot_wire::{Addr, NodeId, Signature};
use serde::{Deserialize, Serialize};

use crate::datetime;

/// Milliseconds since 1970: tasks outlive the process, so their times are the wall clock's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) u64);

impl Moment {
    pub(super) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since then; none if the clock was set back.
    pub(super) const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    pub(super) const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    pub(super) fn text(self) -> String {
        // A file that somebody edited must not lead past the end of the clock.
        let ms = Duration::from_millis(self.0.min(END_OF_TIME));
        datetime::rfc3339(SystemTime::UNIX_EPOCH + ms)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        datetime::parse_rfc3339(text).map(Self::of)
    }
}

/// The year 9999.
const END_OF_TIME: u64 = 253_402_300_799_000;

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a time"))
    }
}

/// Names a task here: a node may give itself one, and then has it twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) category: Category,
    pub(super) id: TaskId,
}

/// What the other side runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PeerKind {
    /// It was not heard of yet.
    #[default]
    Unknown,
    /// It answers every word.
    Ours,
    /// It answers submissions only, and takes one text or one small file.
    Older,
}

/// What the other side is to be told next. A later one replaces an earlier one: each says all that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Pending {
    /// The task itself.
    Submit,
    /// Where it is now.
    Status,
    /// Its results.
    Results,
}

impl Pending {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Status => "status",
            Self::Results => "results",
        }
    }
}

/// What the registry makes of the task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// Nothing yet, or nothing ever.
    #[default]
    None,
    /// To be told.
    Due(Box<Proof>),
    /// Told; what came of it.
    Told(String),
}

/// A file of the result, in our folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Its name as shown, made safe.
    pub(super) name: String,
    /// Its name in the folder.
    pub(super) file: String,
    pub(super) size: u64,
    pub(super) sha256: Digest,
}

/// The result as this side has it: the worker until it is delivered, the submitter from then on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Outcome {
    /// The name of the file with the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) files: Vec<Kept>,
    /// The worker's word for the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signature: Option<Signature>,
}

/// Waits that count for the score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) idle_ms: Option<u64>,
    pub(super) staged_ms: Option<u64>,
    pub(super) cpu_ms: Option<u64>,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Key,
    pub(super) description: String,
    pub(super) from: Addr,
    pub(super) to: Addr,
    pub(super) state: State,
    pub(super) justification: String,
    pub(super) created: Moment,
    pub(super) accepted: Option<Moment>,
    pub(super) staged: Option<Moment>,
    pub(super) started: Option<Moment>,
    pub(super) completed: Option<Moment>,
    pub(super) times: Times,
    /// Until when somebody must say yes.
    pub(super) accept_by: Moment,
    /// Until when it must be finished.
    pub(super) deadline: Option<Moment>,
    /// When it came to its end.
    pub(super) settled: Option<Moment>,
    pub(super) peer: PeerKind,
    pub(super) pending: Option<Pending>,
    pub(super) progress: Option<String>,
    pub(super) outcome: Option<Outcome>,
    pub(super) acceptance: Option<Acceptance>,
    pub(super) report: Report,
    /// Counts changes of what is pending; not kept, because nothing is under way after a restart.
    pub(super) revision: u64,
    /// Why the last try to tell failed; not kept.
    pub(super) last_error: Option<String>,
    /// Whether the submission may have reached the other side; not kept, and taken for true after a restart.
    pub(super) tried: bool,
    /// How often in a row nobody listened at the peer's port; not kept.
    pub(super) refusals: u32,
}

impl Record {
    /// The node at the other side.
    pub(super) fn peer_node(&self) -> NodeId {
        match self.key.category {
            Category::Submitted => self.to.node,
            Category::Received => self.from.node,
        }
    }

    /// What applications see of it, without the text of the result.
    pub(super) fn view(&self, results: &std::path::Path) -> Task {
        let text = |moment: Option<Moment>| moment.map(Moment::text);
        let files = self.outcome.iter().flat_map(|outcome| &outcome.files);
        Task {
            task_id: self.key.id.clone(),
            description: self.description.clone(),
            status: self.state,
            a2a_state: self.state.a2a(),
            justification: self.justification.clone(),
            category: self.key.category,
            from: self.from,
            to: self.to,
            peer_hostname: None,
            created_at: self.created.text(),
            accepted_at: text(self.accepted),
            staged_at: text(self.staged),
            execute_started_at: text(self.started),
            completed_at: text(self.completed),
            deadline_at: text(self.deadline),
            time_idle_ms: self.times.idle_ms,
            time_staged_ms: self.times.staged_ms,
            time_cpu_ms: self.times.cpu_ms,
            progress: self.progress.clone(),
            result_text: None,
            result_files: files
                .map(|kept| ResultFile {
                    name: kept.name.clone(),
                    path: results.join(&kept.file).to_string_lossy().into_owned(),
                    bytes: kept.size,
                    sha256: kept.sha256.to_string(),
                })
                .collect(),
            undelivered: self.pending.map(|pending| pending.as_str().to_owned()),
            last_error: self.last_error.clone(),
            score: match &self.report {
                Report::None => None,
                Report::Due(_) => Some("the registry is being told".to_owned()),
                Report::Told(outcome) => Some(outcome.clone()),
            },
        }
    }
}

/// The file of a task. What released nodes do not know stands in `pilot`.
#[derive(Debug, Serialize, Deserialize)]
struct TaskFile {
    task_id: TaskId,
    task_description: String,
    created_at: Moment,
    status: State,
    #[serde(default)]
    status_justification: String,
    from: Addr,
    to: Addr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted_at: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    staged_at: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    execute_started_at: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    completed_at: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_idle_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_staged_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_cpu_ms: Option<u64>,
    #[serde(default)]
    pilot: Extra,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Extra {
    peer: PeerKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    undelivered: Option<Pending>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accept_by: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acceptance: Option<Acceptance>,
    report: Report,
}

impl Record {
    /// The content of its file.
    pub(super) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let record = self.clone();
        let file = TaskFile {
            task_id: record.key.id,
            task_description: record.description,
            created_at: record.created,
            status: record.state,
            status_justification: record.justification,
            from: record.from,
            to: record.to,
            accepted_at: record.accepted,
            staged_at: record.staged,
            execute_started_at: record.started,
            completed_at: record.completed,
            time_idle_ms: record.times.idle_ms,
            time_staged_ms: record.times.staged_ms,
            time_cpu_ms: record.times.cpu_ms,
            pilot: Extra {
                peer: record.peer,
                undelivered: record.pending,
                accept_by: Some(record.accept_by),
                deadline_at: record.deadline,
                settled_at: record.settled,
                progress: record.progress,
                outcome: record.outcome,
                acceptance: record.acceptance,
                report: record.report,
            },
        };
        let mut json = serde_json::to_vec_pretty(&file)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads what [`Record::to_json`] wrote, or a released node.
    pub(super) fn from_json(category: Category, json: &[u8]) -> serde_json::Result<Self> {
        let file: TaskFile = serde_json::from_slice(json)?;
        let extra = file.pilot;
        Ok(Self {
            key: Key { category, id: file.task_id },
            description: file.task_description,
            from: file.from,
            to: file.to,
            state: file.status,
            justification: file.status_justification,
            created: file.created_at,
            accepted: file.accepted_at,
            staged: file.staged_at,
            started: file.execute_started_at,
            completed: file.completed_at,
            times: Times {
                idle_ms: file.time_idle_ms,
                staged_ms: file.time_staged_ms,
                cpu_ms: file.time_cpu_ms,
            },
            accept_by: extra.accept_by.unwrap_or(file.created_at),
            deadline: extra.deadline_at,
            settled: extra.settled_at.or(file.status.is_settled().then_some(file.created_at)),
            peer: extra.peer,
            pending: extra.undelivered,
            progress: extra.progress,
            outcome: extra.outcome,
            acceptance: extra.acceptance,
            report: extra.report,
            revision: 0,
            last_error: None,
            tried: true,
            refusals: 0,
        })
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(json: &[u8]) {
    for category in [Category::Received, Category::Submitted] {
        if let Ok(record) = Record::from_json(category, json) {
            let again = record.to_json().expect("what was read can be written");
            Record::from_json(category, &again).expect("what was written can be read");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a node of early 2026 left it, with the keys of the specification.
    const OLDER: &str = r#"{"task_id":"5881e2ee-9fc6-c3d4-0982-6b7e73b3e951","task_description":"summarise X",
        "created_at":"2026-11-21T07:16:06Z","status":"ACCEPTED","status_justification":"Task accepted",
        "from":"0:0000.0000.0001","to":"0:0000.0000.0002","accepted_at":"2026-11-21T07:16:08Z","time_idle_ms":2109}"#;

    #[test]
    fn a_file_of_a_released_node_is_read_and_ours_begins_with_its_keys() {
        let record = Record::from_json(Category::Received, OLDER.as_bytes()).unwrap();
        assert_eq!((record.state, record.times.idle_ms), (State::Accepted, Some(2109)));
        let ours = record.to_json().unwrap();
        assert_eq!(Record::from_json(Category::Received, &ours).unwrap(), record);
        let (older, ours): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(OLDER).unwrap(), serde_json::from_slice(&ours).unwrap());
        for (name, value) in older.as_object().unwrap() {
            assert_eq!(&ours[name], value, "{name}");
        }
    }

    #[test]
    fn a_file_that_names_a_path_is_not_read() {
        let bad = OLDER.replace("5881e2ee-9fc6-c3d4-0982-6b7e73b3e951", "../../x");
        assert!(Record::from_json(Category::Received, bad.as_bytes()).is_err());
    }
}
