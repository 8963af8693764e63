//! Tasks: given to peers, taken from peers, through the daemon, which keeps them while either side is away.

use std::path::Path;
use std::time::Duration;

use pilot_wire::Addr;
use pilot_wire::ipc::{Call, Code, Failure};
use pilot_wire::tasks::{Category, Reply, Request, State, Submission, Task, TaskId};

use crate::{Client, Error};

/// A task for a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    description: String,
    id: Option<TaskId>,
    deadline: Option<Duration>,
    wait: Duration,
}

impl NewTask {
    /// A task described so, in 256 KiB at most.
    #[must_use]
    pub fn new(description: impl Into<String>) -> Self {
        Self { description: description.into(), id: None, deadline: None, wait: Duration::ZERO }
    }

    /// With a name chosen by the caller: submitted again under the same name, it is the same task.
    #[must_use]
    pub fn named(self, id: TaskId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// To be finished within this time, or to be cancelled on both sides. Without, the peer has a minute to accept it
    /// and any time to finish it.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// With the daemon's answer held back for up to this long, until the peer has answered.
    #[must_use]
    pub fn answered_within(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }
}

/// The result of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskResult {
    text: Option<String>,
    files: Vec<String>,
    any_type: bool,
    wait: Duration,
}

impl TaskResult {
    /// A result in words, in 512 KiB at most.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// A result in a file; more may follow.
    #[must_use]
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::default().with_file(path)
    }

    /// With a file more: 16 at most, of 1 GiB each. The daemon copies it before it answers, so the path must be one that
    /// the daemon can read.
    #[must_use]
    pub fn with_file(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.files.push(path.to_string_lossy().into_owned());
        self
    }

    /// With files of any type, programs too.
    #[must_use]
    pub fn of_any_type(self) -> Self {
        Self { any_type: true, ..self }
    }

    /// With the daemon's answer held back for up to this long, until the submitter has the result.
    #[must_use]
    pub fn delivered_within(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }
}

/// What a node does with tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskSettings {
    /// Tasks are taken even when no program waits for one.
    pub enabled: bool,
    /// A submitter's score must not be below ours.
    pub gate: bool,
    /// Programs that wait for a task now.
    pub waiting: u32,
    /// The node's score, if the registry tells it.
    pub score: Option<i32>,
}

/// Tasks for peers.
impl Client {
    /// Gives a peer a task. When this returns the daemon has it on disk, and carries it to the peer however long that
    /// takes; see [`Client::wait_task`] for what becomes of it.
    ///
    /// # Errors
    /// When there are too many, or the name is taken.
    pub async fn submit_task(&self, to: Addr, task: NewTask) -> Result<Task, Error> {
        let NewTask { description, id, deadline, wait } = task;
        let deadline_ms = deadline.map(millis);
        self.task(Request::Submit(Submission { to, description, id, deadline_ms, wait_ms: millis(wait) }))
            .await
    }

    /// Waits until a task is settled: done, declined, cancelled, failed or expired.
    ///
    /// # Errors
    /// Of class `timeout` when it is not, in this time.
    pub async fn wait_task(&self, id: &TaskId, timeout: Duration) -> Result<Task, Error> {
        self.wait_task_until(id, &[], timeout).await
    }

    /// Waits until a task is in one of these states.
    ///
    /// # Errors
    /// Of class `timeout` when it is not, in this time.
    pub async fn wait_task_until(
        &self,
        id: &TaskId,
        until: &[State],
        timeout: Duration,
    ) -> Result<Task, Error> {
        let (id, until) = (id.clone(), until.to_vec());
        self.task(Request::Wait { id, until, timeout_ms: millis(timeout) }).await
    }

    /// Takes a task back, or gives one back that was accepted.
    ///
    /// # Errors
    /// When there is none, or it is settled.
    pub async fn cancel_task(&self, id: &TaskId, reason: &str) -> Result<Task, Error> {
        self.task(Request::Cancel { id: id.clone(), reason: reason.to_owned() }).await
    }

    /// One task, with its results.
    ///
    /// # Errors
    /// When there is none.
    pub async fn show_task(&self, id: &TaskId) -> Result<Task, Error> {
        self.task(Request::Show { id: id.clone() }).await
    }

    /// The newest tasks, oldest of them first, and how many there are in all.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn tasks(&self, category: Option<Category>) -> Result<(Vec<Task>, u64), Error> {
        self.some_tasks(Request::List { category, limit: None }).await
    }
}

/// Tasks of peers.
impl Client {
    /// Accepts the next task, waiting for one to come. While somebody waits, the node takes tasks of all it trusts.
    ///
    /// # Errors
    /// Of class `timeout` when none came in this time.
    pub async fn accept_task(&self, timeout: Duration) -> Result<Task, Error> {
        self.task(Request::Accept { id: None, timeout_ms: millis(timeout) }).await
    }

    /// Accepts this task.
    ///
    /// # Errors
    /// When there is none, or it waits for no answer.
    pub async fn accept_this_task(&self, id: &TaskId) -> Result<Task, Error> {
        self.task(Request::Accept { id: Some(id.clone()), timeout_ms: 0 }).await
    }

    /// Refuses a task; the submitter reads why.
    ///
    /// # Errors
    /// When there is none, or it waits for no answer.
    pub async fn decline_task(&self, id: &TaskId, why: &str) -> Result<Task, Error> {
        self.task(Request::Decline { id: id.clone(), justification: why.to_owned() }).await
    }

    /// Begins the work on a task, or on the next of the queue, waiting for one to be accepted.
    ///
    /// # Errors
    /// When there is none in this time, or it is not an accepted one.
    pub async fn execute_task(&self, id: Option<&TaskId>, timeout: Duration) -> Result<Task, Error> {
        self.task(Request::Execute { id: id.cloned(), timeout_ms: millis(timeout) }).await
    }

    /// Accepted tasks that are not begun, next one first, and how many there are in all.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn task_queue(&self) -> Result<(Vec<Task>, u64), Error> {
        self.some_tasks(Request::Queue).await
    }

    /// Tells the submitter how far the work is, in 4 KiB at most.
    ///
    /// # Errors
    /// When the task is not worked on.
    pub async fn report_task_progress(&self, id: &TaskId, text: &str) -> Result<Task, Error> {
        self.task(Request::Progress { id: id.clone(), text: text.to_owned() }).await
    }

    /// Hands the result in. When this returns the daemon has it on disk, and carries it to the submitter.
    ///
    /// # Errors
    /// When the task is not worked on, or a file cannot be taken.
    pub async fn complete_task(&self, id: &TaskId, result: TaskResult) -> Result<Task, Error> {
        let TaskResult { text, files, any_type, wait } = result;
        self.task(Request::Complete { id: id.clone(), text, files, any_type, wait_ms: millis(wait) }).await
    }

    /// Gives the work up; the submitter reads why.
    ///
    /// # Errors
    /// When the task is not worked on.
    pub async fn fail_task(&self, id: &TaskId, reason: &str) -> Result<Task, Error> {
        self.task(Request::Fail { id: id.clone(), reason: reason.to_owned() }).await
    }

    /// Asks or changes what this node does with tasks.
    ///
    /// # Errors
    /// When the daemon cannot store it.
    pub async fn task_settings(
        &self,
        enabled: Option<bool>,
        gate: Option<bool>,
    ) -> Result<TaskSettings, Error> {
        match self.ask(Request::Settings { enabled, gate }).await? {
            Reply::Settings { enabled, gate, waiting, score } => {
                Ok(TaskSettings { enabled, gate, waiting, score })
            }
            Reply::Task(_) | Reply::Tasks { .. } => Err(unexpected()),
        }
    }

    async fn task(&self, request: Request) -> Result<Task, Error> {
        match self.ask(request).await? {
            Reply::Task(task) => Ok(*task),
            Reply::Tasks { .. } | Reply::Settings { .. } => Err(unexpected()),
        }
    }

    async fn some_tasks(&self, request: Request) -> Result<(Vec<Task>, u64), Error> {
        match self.ask(request).await? {
            Reply::Tasks { tasks, total } => Ok((tasks, total)),
            Reply::Task(_) | Reply::Settings { .. } => Err(unexpected()),
        }
    }

    async fn ask(&self, request: Request) -> Result<Reply, Error> {
        self.call(Call::Tasks(request)).await
    }
}

fn unexpected() -> Error {
    Failure::new(Code::Internal, "the daemon answered another question").into()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
