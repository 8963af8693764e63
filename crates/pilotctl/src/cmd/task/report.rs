//! What the commands about tasks print. The keys are those of early 2026, and what is new stands behind them.

use std::fmt;

use pilot_client::{Category, Task, TaskId, TaskSettings, TaskState};
use pilot_wire::{Addr, NodeId};
use serde::Serialize;

use crate::failure::{Code, Failure};
use crate::humane::{self, preview, printable};
use crate::output::Output;
use crate::style;

/// Columns of a description in lists.
const WIDTH: usize = 72;

fn state(task: &Task) -> String {
    format!("{} · {}", task.status, task.a2a_state)
}

/// The other side, by name if it has one.
fn peer(task: &Task) -> String {
    let addr = match task.category {
        Category::Submitted => task.to,
        Category::Received => task.from,
    };
    match &task.peer_hostname {
        Some(name) => format!("{} ({addr})", printable(name)),
        None => addr.to_string(),
    }
}

/// `task submit`
#[derive(Serialize)]
pub(super) struct Submitted {
    target: Addr,
    task_id: TaskId,
    task: String,
    /// 200: the peer has it. 202: it is on its way. 400: the peer does not want it.
    status: u16,
    message: String,
    accepted: bool,
    state: TaskState,
    a2a_state: pilot_client::A2aState,
    queued: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Submitted {
    pub(super) fn of(target: Addr, task: Task) -> Self {
        let queued = task.undelivered.is_some() && !task.status.is_settled();
        let refused = task.status == TaskState::Declined;
        let status = if refused {
            400
        } else if queued {
            202
        } else {
            200
        };
        let message = if queued {
            "queued: it is carried to the peer as soon as that can be reached".to_owned()
        } else {
            task.justification
        };
        Self {
            target,
            task_id: task.task_id,
            task: task.description,
            status,
            message,
            accepted: !refused,
            state: task.status,
            a2a_state: task.a2a_state,
            queued,
            reason: task.last_error.filter(|_| queued),
        }
    }

    pub(super) fn output(self) -> Result<Output, Failure> {
        if self.accepted {
            return Ok(Output::of(self));
        }
        let message = format!("the task was refused: {}", printable(&self.message));
        let failure = Failure::new(Code::Refused, message);
        match serde_json::to_value(&self) {
            Ok(data) => Err(failure.with_data(data)),
            Err(_) => Err(failure),
        }
    }
}

impl fmt::Display for Submitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "task {} ({} · {})", style::strong(&self.task_id), self.state, self.a2a_state)?;
        writeln!(f, "  {}", printable(&self.message))?;
        if let Some(reason) = &self.reason {
            writeln!(f, "  not there yet: {}", printable(reason))?;
        }
        write!(f, "  see it: pilotctl task wait {}", self.task_id)
    }
}

/// `task list`
#[derive(Serialize)]
pub(super) struct List {
    pub(super) tasks: Vec<Task>,
    pub(super) total: u64,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tasks.is_empty() {
            return write!(f, "No tasks found");
        }
        for task in &self.tasks {
            let category = match task.category {
                Category::Submitted => "submitted",
                Category::Received => "received",
            };
            let what = preview(&task.description, WIDTH);
            writeln!(f, "[{category}] {} ({}) - {what}", style::strong(&task.task_id), state(task))?;
            writeln!(f, "  From: {} → To: {}", task.from, task.to)?;
            if let Some(word) = &task.undelivered {
                let why = task.last_error.as_deref().map(printable).unwrap_or_default();
                writeln!(f, "  the other side is still to be told: {word} {why}")?;
            }
        }
        let shown = self.tasks.len() as u64;
        if shown < self.total {
            writeln!(f, "{shown} of {}", humane::count(self.total, "task"))?;
        }
        Ok(())
    }
}

/// `task queue`
#[derive(Serialize)]
pub(super) struct Queue {
    pub(super) queue: Vec<Task>,
    pub(super) count: u64,
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.queue.is_empty() {
            return write!(f, "Queue is empty");
        }
        writeln!(f, "Queued tasks ({}):", self.count)?;
        for (number, task) in (1..).zip(&self.queue) {
            writeln!(
                f,
                "  {number}. {}: {}",
                style::strong(&task.task_id),
                preview(&task.description, WIDTH)
            )?;
            writeln!(f, "     From: {}", task.from)?;
        }
        Ok(())
    }
}

/// A command that moved a task on.
#[derive(Serialize)]
pub(super) struct Changed {
    pub(super) message: &'static str,
    #[serde(flatten, serialize_with = "with_task_description")]
    pub(super) task: Task,
}

/// The description under the name that early releases give it here, too.
fn with_task_description<S: serde::Serializer>(task: &Task, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Both<'a> {
        task_description: &'a str,
        #[serde(flatten)]
        task: &'a Task,
    }
    Both { task_description: &task.description, task }.serialize(serializer)
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = &self.task;
        writeln!(f, "{}: task {} ({})", self.message, style::strong(&task.task_id), state(task))?;
        let side = if task.category == Category::Submitted { "for" } else { "from" };
        writeln!(f, "  {side} {}", peer(task))?;
        write!(f, "  {}", printable(&task.description))
    }
}

/// `task show`, `task wait`
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Shown {
    #[serde(serialize_with = "with_task_description")]
    task: Task,
}

impl Shown {
    pub(super) const fn of(task: Task) -> Self {
        Self { task }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = &self.task;
        writeln!(f, "task {} ({})", style::strong(&task.task_id), state(task))?;
        let mut row = |name: &str, value: &str| writeln!(f, "  {name:<10} {}", printable(value));
        row("what", &preview(&task.description, 400))?;
        match task.category {
            Category::Submitted => row("for", &peer(task))?,
            Category::Received => row("from", &peer(task))?,
        }
        if !task.justification.is_empty() {
            row("because", &task.justification)?;
        }
        row("created", &task.created_at)?;
        let times = [
            ("accepted", &task.accepted_at),
            ("begun", &task.execute_started_at),
            ("ended", &task.completed_at),
            ("deadline", &task.deadline_at),
            ("progress", &task.progress),
            ("score", &task.score),
        ];
        for (name, value) in times {
            if let Some(value) = value {
                row(name, value)?;
            }
        }
        if let Some(word) = &task.undelivered {
            let why = task.last_error.as_deref().map(|error| format!(" ({error})")).unwrap_or_default();
            row("to tell", &format!("{word}{why}"))?;
        }
        for file in &task.result_files {
            row("file", &format!("{} · {}", file.path, humane::bytes(file.bytes)))?;
        }
        match &task.result_text {
            Some(text) => write!(f, "{}", printable_lines(text)),
            None => Ok(()),
        }
    }
}

/// A text of a peer, line by line.
fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// `task send-results`
#[derive(Serialize)]
pub(super) struct Sent {
    task_id: TaskId,
    sent_to: Addr,
    /// `text`, `file`, `files` or `text+files`
    sent_type: &'static str,
    status: TaskState,
    a2a_state: pilot_client::A2aState,
    /// Whether it is still on its way.
    queued: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Sent {
    pub(super) fn of(task: Task, has_text: bool, files: &[(String, u64)]) -> Self {
        let sent_type = match (has_text, files.len()) {
            (true, 0) => "text",
            (false, 0 | 1) => "file",
            (false, _) => "files",
            (true, _) => "text+files",
        };
        let only = files.first().filter(|_| files.len() == 1);
        Self {
            task_id: task.task_id,
            sent_to: task.from,
            sent_type,
            status: task.status,
            a2a_state: task.a2a_state,
            queued: task.undelivered.is_some(),
            filename: only.map(|file| file.0.clone()),
            file_size: only.map(|file| file.1),
            reason: task.last_error,
        }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sent = if self.queued { "on their way" } else { "delivered" };
        write!(
            f,
            "results of task {} {sent} to {} ({} · {})",
            style::strong(&self.task_id),
            self.sent_to,
            self.status,
            self.a2a_state
        )
    }
}

/// `task status`, `task gate`, `enable-tasks`, `disable-tasks`
#[derive(Serialize)]
pub(super) struct Settings {
    node_id: NodeId,
    task_exec: bool,
    #[serde(rename = "type")]
    kind: &'static str,
    gate: bool,
    waiting: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    polo_score: Option<i32>,
}

impl Settings {
    pub(super) const fn of(node_id: NodeId, settings: TaskSettings) -> Self {
        Self {
            node_id,
            task_exec: settings.enabled,
            kind: "set_task_exec_ok",
            gate: settings.gate,
            waiting: settings.waiting,
            polo_score: settings.score,
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = match (self.task_exec, self.waiting) {
            (true, _) => "taken from every node that is trusted",
            (false, 0) => "refused (pilotctl enable-tasks, or have a program wait: pilotctl task accept)",
            (false, _) => "taken while a program waits for one",
        };
        writeln!(f, "tasks    {taken}")?;
        if self.gate {
            writeln!(f, "gate     a submitter's score must not be below ours")?;
        }
        match self.polo_score {
            Some(score) => write!(f, "score    {score}"),
            None => write!(f, "score    the registry does not tell"),
        }
    }
}
