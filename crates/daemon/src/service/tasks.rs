//! Tasks, port 1003: given to peers, taken from peers (docs/messaging.md).
//!
//! | module | what |
//! |---|---|
//! | `record` | one task, and its file |
//! | `book` | all tasks and what may become of them; no disk, no network, no clock |
//! | `folders` | where tasks and results lie |
//! | `desk` | the book with its disk, on a thread of its own |
//! | `incoming` | what peers say on port 1003 |
//! | `courier` | what peers are told, for as long as it takes |
//! | `reports` | what the registry is told, for the scores |

mod book;
mod courier;
mod desk;
mod folders;
mod incoming;
mod record;
mod reports;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use pilot_client::Client;
use pilot_wire::ipc::{Code, Failure};
use pilot_wire::tasks::frame::{Acceptance, TEXT_MAX};
use pilot_wire::tasks::score::acceptance;
use pilot_wire::tasks::{Category, Reply, Request, State, Submission, Task, TaskId};
use pilot_wire::{Addr, NodeId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::book::{Book, Order, Wrong};
use self::desk::{Desk, Way};
use self::folders::Refused;
use self::record::{Key, Moment, Record};
use super::Notices;
use super::policy::Policy;
use crate::handle::Handle;

/// Longest wait of one request: a day. Whoever wants more asks again.
const WAIT_MAX_MS: u64 = 24 * 3600 * 1000;

/// Programs that wait for a task at the same time.
const WORKERS_MAX: u32 = 256;

/// Tasks in one list, and bytes of all descriptions in it: below the local socket's frame limit of 1 MiB.
const LIST_MAX: usize = 200;
const LIST_BYTES_MAX: usize = 512 << 10;

/// Longest description in a list in bytes; `show` has the whole.
const LISTED_DESCRIPTION: usize = 1 << 10;

/// The service; cheap to clone.
#[derive(Clone)]
pub(super) struct Tasks {
    way: Way,
    handle: Handle,
    policy: Policy,
    /// Programs that wait for a task: while there are any, tasks are taken.
    workers: Arc<AtomicU32>,
    large_frames: Arc<Semaphore>,
}

/// The wall clock.
fn now() -> Moment {
    Moment::of(SystemTime::now())
}

impl Tasks {
    /// Opens the folder of tasks, and begins to tell peers what they have not been told. `running` keeps that going.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        home: &Path,
        client: Client,
        handle: &Handle,
        policy: Policy,
        notices: Notices,
        running: &mut JoinSet<()>,
    ) -> io::Result<Self> {
        let way = Way::start(home, Some(notices))?;
        running.spawn(keep_time(way.clone()));
        running.spawn(courier::run(client, handle.clone(), way.clone()));
        running.spawn(reports::run(handle.clone(), way.clone()));
        running.spawn(announce(way.clone(), handle.clone()));
        Ok(Self::over(way, handle.clone(), policy))
    }

    fn over(way: Way, handle: Handle, policy: Policy) -> Self {
        Self { way, handle, policy, workers: Arc::default(), large_frames: incoming::large_frames() }
    }

    /// Programs that wait for a task.
    fn waiting(&self) -> u32 {
        self.workers.load(Ordering::SeqCst)
    }

    /// Answers an application.
    pub(super) async fn call(&self, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Submit(submission) => self.submit(submission).await,
            Request::List { category, limit } => self.list(category, limit).await,
            Request::Queue => self.queue().await,
            Request::Show { id } => self.show_name(id).await,
            Request::Wait { id, until, timeout_ms } => self.wait(id, until, timeout_ms).await,
            Request::Accept { id: Some(id), .. } => {
                let key = self.accept(&id).await?;
                self.show(key).await
            }
            Request::Accept { id: None, timeout_ms } => self.accept_next(timeout_ms).await,
            Request::Decline { id, justification } => {
                self.order(move |book, now| book.decline(now, &id, &justification)).await
            }
            Request::Execute { id, timeout_ms } => self.execute(id, timeout_ms).await,
            Request::Progress { id, text } => self.order(move |book, _| book.progress(&id, &text)).await,
            Request::Complete { id, text, files, any_type, wait_ms } => {
                let key = self.complete(id, text, files, any_type).await?;
                self.until_told(key, wait_ms).await
            }
            Request::Fail { id, reason } => self.order(move |book, now| book.fail(now, &id, &reason)).await,
            Request::Cancel { id, reason } => {
                self.order(move |book, now| book.cancel(now, &id, &reason)).await
            }
            Request::Settings { enabled, gate } => self.settings(enabled, gate).await,
        }
    }

    async fn desk<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Desk) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        self.way.run(job).await.ok_or_else(unusable)
    }

    /// Changes the book; when this returns, the change is on disk.
    async fn act<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Book, Moment) -> Result<T, Wrong> + Send + 'static,
    ) -> Result<T, Failure> {
        let acted = self.desk(|desk| desk.act(act)).await?;
        acted.map_err(|error| disk(&error))?.map_err(|wrong| Failure::from(&wrong))
    }

    async fn order(
        &self,
        act: impl FnOnce(&mut Book, Moment) -> Result<Key, Wrong> + Send + 'static,
    ) -> Result<Reply, Failure> {
        let key = self.act(act).await?;
        self.show(key).await
    }
}

/// Submitters.
impl Tasks {
    async fn submit(&self, submission: Submission) -> Result<Reply, Failure> {
        let own = self.handle.node();
        if own == NodeId::UNSET {
            return Err(Failure::new(Code::NotRegistered, "this node has no address yet")
                .with_hint("see why: pilotctl status"));
        }
        let Submission { to, description, id, deadline_ms, wait_ms } = submission;
        let id = match id {
            Some(id) => id,
            None => TaskId::from_random(random()?),
        };
        let order = Order { id, from: Addr::backbone(own), to, description, deadline_ms };
        let key = self.act(move |book, now| book.submit(now, order)).await?;
        self.until_told(key, wait_ms).await
    }

    async fn wait(&self, id: TaskId, until: Vec<State>, timeout_ms: u64) -> Result<Reply, Failure> {
        let deadline = in_time(timeout_ms);
        let mut changed = self.way.changed();
        loop {
            let wanted = id.clone();
            let found = self.desk(move |desk| desk.book.find(&wanted).map(|r| (r.key.clone(), r.state)));
            let (key, state) = found.await?.ok_or_else(|| Failure::from(&Wrong::NotFound(id.clone())))?;
            let there = if until.is_empty() { state.is_settled() } else { until.contains(&state) };
            if there {
                return self.show(key).await;
            }
            match timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(unusable()),
                Err(_) => {
                    let message = format!("task {id} is still {state} ({})", state.a2a());
                    return Err(Failure::new(Code::Timeout, message)
                        .with_hint(format!("wait longer: pilotctl task wait {id} --timeout 1h")));
                }
            }
        }
    }

    /// The task, once the other side knows of the last change, or the time is over.
    async fn until_told(&self, key: Key, wait_ms: u64) -> Result<Reply, Failure> {
        let deadline = in_time(wait_ms);
        let mut changed = self.way.changed();
        loop {
            let wanted = key.clone();
            let waits = self.desk(move |desk| desk.book.get(&wanted).is_some_and(|r| r.pending.is_some()));
            if !waits.await? || timeout_at(deadline, changed.changed()).await.is_err() {
                return self.show(key).await;
            }
        }
    }
}

/// Workers.
impl Tasks {
    async fn accept(&self, id: &TaskId) -> Result<Key, Failure> {
        let key = Key { category: Category::Received, id: id.clone() };
        let from = self.desk(move |desk| desk.book.get(&key).map(|task| task.from.node)).await?;
        let own = self.handle.node();
        let at = now().seconds();
        let signature = match from {
            Some(from) if from != own => self.handle.sign(acceptance(id, from, own, at)).await,
            Some(_) | None => None,
        };
        let word = signature.map(|signature| Acceptance { at, signature });
        let id = id.clone();
        self.act(move |book, now| book.accept(now, &id, word)).await
    }

    async fn accept_next(&self, timeout_ms: u64) -> Result<Reply, Failure> {
        let deadline = in_time(timeout_ms);
        let mut changed = self.way.changed();
        let _worker = Worker::join(&self.workers)?;
        loop {
            let next = self.desk(|desk| desk.book.next_new().map(|task| task.key.id.clone())).await?;
            if let Some(id) = next {
                match self.accept(&id).await {
                    Ok(key) => return self.show(key).await,
                    // Another program was faster, or the submitter took it back.
                    Err(failure) if matches!(failure.code, Code::Refused | Code::NotFound) => continue,
                    Err(failure) => return Err(failure),
                }
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(Failure::new(Code::Timeout, "no task came").with_hint(
                    "peers give one with: pilotctl task submit NODE --task TEXT (wait longer: --timeout 1h)",
                ));
            }
        }
    }

    async fn execute(&self, id: Option<TaskId>, timeout_ms: u64) -> Result<Reply, Failure> {
        let deadline = in_time(timeout_ms);
        let mut changed = self.way.changed();
        loop {
            let wanted = id.clone();
            let acted =
                self.desk(|desk| desk.act(move |book, now| book.execute(now, wanted.as_ref()))).await?;
            match acted.map_err(|error| disk(&error))? {
                Ok(key) => return self.show(key).await,
                Err(Wrong::NothingAccepted) => {}
                Err(wrong) => return Err(Failure::from(&wrong)),
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(Failure::from(&Wrong::NothingAccepted));
            }
        }
    }

    async fn complete(
        &self,
        id: TaskId,
        text: Option<String>,
        files: Vec<String>,
        any_type: bool,
    ) -> Result<Key, Failure> {
        if text.is_none() && files.is_empty() {
            return Err(Failure::new(Code::InvalidArgument, "a result needs a text or a file"));
        }
        if text.as_ref().is_some_and(|text| text.len() > TEXT_MAX) {
            return Err(Failure::new(Code::InvalidArgument, "a result in text has 512 KiB at most")
                .with_hint("put it into a file and hand that in"));
        }
        let finished = self.act(move |book, now| book.finishing(now, &id)).await?;
        let folders = self.desk(|desk| desk.folders.clone()).await?;
        let number = u64::from_be_bytes(random()?);
        let id = finished.key.id.clone();
        let copied = tokio::task::spawn_blocking(move || {
            folders.copy_out(&id, number, text.as_deref(), &files, any_type)
        });
        let copied = copied.await.map_err(|_| unusable())?;
        let mut outcome = copied.map_err(|refused| refused_file(&refused))?;
        let statement = courier::done(&finished, self.handle.node());
        if let Some(statement) = statement.filter(|statement| statement.submitter != statement.worker) {
            outcome.signature = self.handle.sign(statement.texts().1).await;
        }
        let copies = outcome.clone();
        let completed = self.act({
            let finished = finished.clone();
            move |book, _| book.complete(&finished, outcome)
        });
        let completed = completed.await;
        if completed.is_err() {
            let unused = Record { outcome: Some(copies), ..finished };
            self.desk(move |desk| desk.folders.remove_results(&unused)).await?;
        }
        completed
    }

    async fn settings(&self, enabled: Option<bool>, gate: Option<bool>) -> Result<Reply, Failure> {
        let set = self.desk(move |desk| {
            let mut settings = desk.settings;
            settings.enabled = enabled.unwrap_or(settings.enabled);
            settings.gate = gate.unwrap_or(settings.gate);
            desk.set(settings).map(|()| settings)
        });
        let settings = set.await?.map_err(|error| disk(&error))?;
        if enabled.is_some() {
            self.handle.set_task_exec(settings.enabled).await;
        }
        let score = self.score_of(self.handle.node()).await;
        Ok(Reply::Settings { enabled: settings.enabled, gate: settings.gate, waiting: self.waiting(), score })
    }
}

/// What there is.
impl Tasks {
    async fn show_name(&self, id: TaskId) -> Result<Reply, Failure> {
        let wanted = id.clone();
        let key = self.desk(move |desk| desk.book.find(&wanted).map(|task| task.key.clone())).await?;
        self.show(key.ok_or_else(|| Failure::from(&Wrong::NotFound(id)))?).await
    }

    async fn show(&self, key: Key) -> Result<Reply, Failure> {
        let id = key.id.clone();
        let view = self.desk(move |desk| {
            let record = desk.book.get(&key)?;
            let mut view = record.view(&desk.folders.results_of(key.category));
            view.result_text = desk.folders.text_of(record);
            Some((view, record.peer_node()))
        });
        let (mut view, peer) = view.await?.ok_or_else(|| Failure::from(&Wrong::NotFound(id)))?;
        view.peer_hostname = self.handle.describe(peer).await.hostname;
        Ok(Reply::Task(Box::new(view)))
    }

    async fn list(&self, category: Option<Category>, limit: Option<u32>) -> Result<Reply, Failure> {
        let limit = limit.map_or(LIST_MAX, |limit| usize::try_from(limit).unwrap_or(LIST_MAX).min(LIST_MAX));
        self.desk(move |desk| {
            let all = desk.book.all(category);
            let newest = all.get(all.len().saturating_sub(limit)..).unwrap_or_default();
            Reply::Tasks { tasks: rows(desk, newest), total: all.len() as u64 }
        })
        .await
    }

    async fn queue(&self) -> Result<Reply, Failure> {
        self.desk(|desk| {
            let queue = desk.book.queue();
            let next = queue.get(..queue.len().min(LIST_MAX)).unwrap_or_default();
            Reply::Tasks { tasks: rows(desk, next), total: queue.len() as u64 }
        })
        .await
    }
}

/// Tasks as lists show them: descriptions are cut.
fn rows(desk: &Desk, records: &[&Record]) -> Vec<Task> {
    let mut left = LIST_BYTES_MAX;
    let mut rows = Vec::new();
    for record in records {
        let mut row = record.view(&desk.folders.results_of(record.key.category));
        let end = row.description.floor_char_boundary(LISTED_DESCRIPTION);
        if end < row.description.len() {
            row.description.truncate(end);
            row.description.push('…');
        }
        let size = row.description.len() + row.justification.len() + 1024;
        left = left.saturating_sub(size);
        if left == 0 {
            break;
        }
        rows.push(row);
    }
    rows
}

/// A program that waits for a task; it is counted until it is dropped.
struct Worker(Arc<AtomicU32>);

impl Worker {
    fn join(workers: &Arc<AtomicU32>) -> Result<Self, Failure> {
        let one_more = |waiting: u32| (waiting < WORKERS_MAX).then_some(waiting + 1);
        match workers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more) {
            Ok(_) => Ok(Self(Arc::clone(workers))),
            Err(_) => Err(Failure::new(Code::Busy, "too many programs wait for a task")),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Lets time pass in the book.
async fn keep_time(way: Way) {
    let mut changed = way.changed();
    loop {
        let due = way.run(|desk| desk.book.next_due()).await.flatten();
        let at = due.map(|due| Instant::now() + Duration::from_millis(due.since(now())));
        tokio::select! {
            open = changed.changed() => if open.is_err() { return },
            () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {
                let ticked = way.run(|desk| desk.act(Book::tick)).await;
                if ticked.is_none_or(|ticked| ticked.is_err()) {
                    // The disk refuses; what is due stays due.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// The registry is told at the start what was set in an earlier life.
async fn announce(way: Way, handle: Handle) {
    if way.run(|desk| desk.settings.enabled).await == Some(true) {
        handle.set_task_exec(true).await;
    }
}

fn in_time(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms.min(WAIT_MAX_MS))
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    pilot_crypto::random_bytes().map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

fn unusable() -> Failure {
    Failure::new(Code::Internal, "the daemon cannot use its folder of tasks")
        .with_hint("see: pilotctl daemon logs")
}

fn disk(error: &io::Error) -> Failure {
    Failure::new(Code::Internal, format!("the task cannot be stored: {error}"))
}

fn refused_file(refused: &Refused) -> Failure {
    let message = refused.to_string();
    match refused {
        Refused::Type(_) => Failure::new(Code::InvalidArgument, message)
            .with_hint("documents, data, models and pictures go; anything else with --any-type"),
        Refused::NoFile(_) | Refused::Unreadable(..) => Failure::new(Code::NotFound, message),
        Refused::Name(_) | Refused::TooLarge | Refused::TooMany => {
            Failure::new(Code::InvalidArgument, message)
        }
        Refused::Full => Failure::new(Code::Busy, message),
        Refused::Mismatch | Refused::Disk(_) => Failure::new(Code::Internal, message),
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(json: &[u8]) {
    record::fuzz(json);
}
