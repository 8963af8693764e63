//! The book with its disk: one thread that does one thing after the other, and the way to it.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use pilot_wire::tasks::Category;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::super::{Notice, Notices};
use super::book::Book;
use super::folders::Folders;
use super::record::{Moment, Record};
use crate::files;

/// Jobs that wait for the thread. Whoever brings one more waits.
const JOBS: usize = 64;

/// Longest piece of a description in a notice, in bytes.
const NOTICE_MAX: usize = 256;

/// What this node does with tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    /// Tasks are taken even when no program waits for one.
    pub(super) enabled: bool,
    /// A submitter's score must not be below ours.
    pub(super) gate: bool,
}

/// The book, and what is on disk of it.
pub(super) struct Desk {
    pub(super) book: Book,
    pub(super) folders: Folders,
    pub(super) settings: Settings,
    notices: Option<Notices>,
    changed: watch::Sender<u64>,
}

impl Desk {
    fn open(home: &Path, notices: Option<Notices>, changed: watch::Sender<u64>) -> io::Result<Self> {
        let folders = Folders::open(home, SystemTime::now())?;
        let settings = files::read_json(&folders.settings())?.unwrap_or_default();
        let book = Book::restore(folders.load()?);
        Ok(Self { book, folders, settings, notices, changed })
    }

    /// Does something to the book; when this returns, it is on disk, or it has not happened.
    pub(super) fn act<T>(&mut self, act: impl FnOnce(&mut Book, Moment) -> T) -> io::Result<T> {
        let now = Moment::of(SystemTime::now());
        let outcome = act(&mut self.book, now);
        let changes = self.book.changes();
        match self.write(&changes) {
            Ok(told) => {
                self.book.keep();
                if let Some(notices) = &self.notices {
                    told.into_iter().for_each(|notice| notices.send(notice));
                }
                // Only a change wakes those who wait: they would wake each other for ever.
                if !changes.is_empty() {
                    self.changed.send_modify(|count| *count += 1);
                }
                Ok(outcome)
            }
            Err(error) => {
                tracing::error!(%error, "a task cannot be stored");
                self.book.undo();
                Err(error)
            }
        }
    }

    fn write(&self, changes: &[(Option<Record>, Option<Record>)]) -> io::Result<Vec<Notice>> {
        let mut told = Vec::new();
        for (before, after) in changes {
            match (before, after) {
                (_, Some(record)) => self.folders.write(record)?,
                (Some(record), None) => self.folders.remove(record),
                (None, None) => {}
            }
            if let (Some(before), Some(Record { outcome: None, .. })) = (before, after) {
                self.folders.remove_results(before);
            }
            told.extend(after.as_ref().and_then(|after| notice(before.as_ref(), after)));
        }
        Ok(told)
    }

    pub(super) fn set(&mut self, settings: Settings) -> io::Result<()> {
        if settings != self.settings {
            files::replace_json(&self.folders.settings(), &settings)?;
            self.settings = settings;
        }
        Ok(())
    }
}

/// What the owner may want to hear of.
fn notice(before: Option<&Record>, after: &Record) -> Option<Notice> {
    let task_id = after.key.id.clone();
    if before.is_none() && after.key.category == Category::Received {
        let end = after.description.floor_char_boundary(NOTICE_MAX);
        let description = after.description[..end].to_owned();
        return Some(Notice::TaskReceived { task_id, from: after.from, description });
    }
    let moved = before.is_some_and(|before| before.state != after.state);
    moved.then(|| Notice::TaskStatus {
        task_id,
        category: after.key.category,
        status: after.state,
        a2a_state: after.state.a2a(),
        justification: after.justification.clone(),
    })
}

type Job = Box<dyn FnOnce(&mut Desk) + Send>;

/// The way to the desk; cheap to clone.
#[derive(Clone)]
pub(super) struct Way {
    jobs: mpsc::Sender<Job>,
    changed: watch::Receiver<u64>,
}

impl Way {
    /// Starts the thread. It ends when the last of these is dropped.
    pub(super) fn start(home: &Path, notices: Option<Notices>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(JOBS);
        let (changed_in, changed) = watch::channel(0);
        let home = home.to_owned();
        std::thread::Builder::new()
            .name("tasks".to_owned())
            .spawn(move || work(&home, queue, &notices, &changed_in))?;
        Ok(Self { jobs, changed })
    }

    /// Has the thread do something; `None` if it cannot use its disk, or the daemon stops.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Desk) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |desk| drop(answer.send(job(desk))));
        self.jobs.send(job).await.ok()?;
        answered.await.ok()
    }

    /// Changes from now on.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        let mut changed = self.changed.clone();
        changed.mark_unchanged();
        changed
    }
}

fn work(
    home: &Path,
    mut queue: mpsc::Receiver<Job>,
    notices: &Option<Notices>,
    changed: &watch::Sender<u64>,
) {
    let open = || {
        Desk::open(home, notices.clone(), changed.clone())
            .inspect_err(|error| tracing::error!(%error, "cannot open the folder of tasks"))
            .ok()
    };
    let mut desk = open();
    while let Some(job) = queue.blocking_recv() {
        if desk.is_none() {
            desk = open();
        }
        // Dropped, it tells whoever brought it; the next one tries again.
        if let Some(desk) = &mut desk {
            job(desk);
        }
    }
}
