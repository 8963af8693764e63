//! Tasks, port 1003: given to peers, taken from peers. What travels between nodes is in [`frame`], what both sides
//! sign in [`score`]; what applications ask their daemon is here.

pub mod frame;
mod id;
pub mod score;
mod state;

use serde::{Deserialize, Serialize};

pub use self::id::{TaskId, TaskIdError};
pub use self::state::{A2aState, State, UnknownState};
use crate::Addr;

/// A question or order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Gives a peer a task. Answered with [`Reply::Task`] once it is on disk, and the peer has answered or `wait_ms` is
    /// over.
    Submit(Submission),
    /// The newest tasks, oldest of them first. Answered with [`Reply::Tasks`].
    List {
        /// Only ours, or only those of others.
        #[serde(default)]
        category: Option<Category>,
        /// How many at most; the daemon has a ceiling of its own.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// Accepted tasks that are not begun, next one first. Answered with [`Reply::Tasks`].
    Queue,
    /// One task. Answered with [`Reply::Task`].
    Show {
        /// Which.
        id: TaskId,
    },
    /// Waits until a task has come to an end. Answered with [`Reply::Task`], or a failure of class `timeout`.
    Wait {
        /// Which.
        id: TaskId,
        /// Any of these is an end; the settled ones when empty.
        #[serde(default)]
        until: Vec<State>,
        /// How long, in milliseconds.
        timeout_ms: u64,
    },
    /// Accepts a task: that one, or the next that is there or comes. Answered with [`Reply::Task`].
    Accept {
        /// Which.
        #[serde(default)]
        id: Option<TaskId>,
        /// How long to wait for one, in milliseconds.
        #[serde(default)]
        timeout_ms: u64,
    },
    /// Refuses a task. Answered with [`Reply::Task`].
    Decline {
        /// Which.
        id: TaskId,
        /// Why; the submitter reads it.
        justification: String,
    },
    /// Begins the work: on that task, or the next of the queue. Answered with [`Reply::Task`].
    Execute {
        /// Which.
        #[serde(default)]
        id: Option<TaskId>,
        /// How long to wait for one to be accepted, in milliseconds.
        #[serde(default)]
        timeout_ms: u64,
    },
    /// Says how far the work is. Answered with [`Reply::Task`].
    Progress {
        /// Which.
        id: TaskId,
        /// In words.
        text: String,
    },
    /// Hands the results in. Answered with [`Reply::Task`] once they are on disk, and the submitter has them or
    /// `wait_ms` is over.
    Complete {
        /// Which.
        id: TaskId,
        /// In words.
        #[serde(default)]
        text: Option<String>,
        /// Files that the daemon can read; it takes copies before it answers.
        #[serde(default)]
        files: Vec<String>,
        /// Whether files of any type may go; else only those that are no programs.
        #[serde(default)]
        any_type: bool,
        /// How long the answer may be held until the submitter has them, in milliseconds.
        #[serde(default)]
        wait_ms: u64,
    },
    /// Gives the work up. Answered with [`Reply::Task`].
    Fail {
        /// Which.
        id: TaskId,
        /// Why; the submitter reads it.
        reason: String,
    },
    /// Takes a task back, or gives an accepted one back. Answered with [`Reply::Task`].
    Cancel {
        /// Which.
        id: TaskId,
        /// Why; the other side reads it.
        #[serde(default)]
        reason: String,
    },
    /// Asks or changes what this node does with tasks. Answered with [`Reply::Settings`].
    Settings {
        /// Whether tasks are taken when no program waits for one.
        #[serde(default)]
        enabled: Option<bool>,
        /// Whether a submitter's score must not be below ours.
        #[serde(default)]
        gate: Option<bool>,
    },
}

/// A task for a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Who is to do it.
    pub to: Addr,
    /// What.
    pub description: String,
    /// Its name; chosen by the daemon when absent. The same again is the same task.
    #[serde(default)]
    pub id: Option<TaskId>,
    /// When it must be finished, in milliseconds from now. Without, it must be accepted within a minute of its arrival,
    /// and may then take as long as it takes.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// How long the answer may be held until the peer has answered, in milliseconds.
    #[serde(default)]
    pub wait_ms: u64,
}

/// Whose a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Of this node, for another.
    Submitted,
    /// Of another node, for this one.
    Received,
}

/// A task as the daemon knows it. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub task_id: TaskId,
    /// What is to be done.
    pub description: String,
    /// Where it is.
    pub status: State,
    /// The same in the words of A2A.
    pub a2a_state: A2aState,
    /// Why it is there.
    pub justification: String,
    /// Whose it is.
    pub category: Category,
    /// Who wants it.
    pub from: Addr,
    /// Who is to do it.
    pub to: Addr,
    /// The name of the other side, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_hostname: Option<String>,
    /// When it came to this daemon.
    pub created_at: String,
    /// When it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<String>,
    /// When it was the next one of the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_at: Option<String>,
    /// When the work began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execute_started_at: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// When it must be finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<String>,
    /// From arrival to acceptance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_idle_ms: Option<u64>,
    /// At the head of the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_staged_ms: Option<u64>,
    /// From the beginning of the work to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_cpu_ms: Option<u64>,
    /// How far the work is, in the worker's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// The result in words; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_text: Option<String>,
    /// The result in files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub result_files: Vec<ResultFile>,
    /// What the other side has not been told yet: `submit`, `status` or `results`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered: Option<String>,
    /// Why the last try to tell it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What the registry made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
}

/// A file of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultFile {
    /// Its name, as the worker had it, made safe.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its hash, in hexadecimal.
    pub sha256: String,
}

/// The answer to a [`Request`]; failures come as [`Failure`](crate::ipc::Failure)s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    /// One task.
    Task(Box<Task>),
    /// Several.
    Tasks {
        /// As asked for.
        tasks: Vec<Task>,
        /// How many there are in all.
        total: u64,
    },
    /// What this node does with tasks.
    Settings {
        /// Whether tasks are taken when no program waits for one.
        enabled: bool,
        /// Whether a submitter's score must not be below ours.
        gate: bool,
        /// Programs that wait for a task now.
        waiting: u32,
        /// This node's score, if the registry tells.
        #[serde(default)]
        score: Option<i32>,
    },
}
