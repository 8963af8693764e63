//! What the applications of this node want.

use pilot_wire::Addr;
use pilot_wire::tasks::frame::{Acceptance, DESCRIPTION_MAX};
use pilot_wire::tasks::{Category, State, TaskId};

use super::super::record::{Key, Moment, Outcome, PeerKind, Pending, Record, Report, Times};
use super::{ACCEPT_WITHIN, Book, DEADLINE_MAX, DELIVER_WITHIN, cut, settle, tell};

/// A task for a peer.
#[derive(Debug, Clone)]
pub(in super::super) struct Order {
    pub(in super::super) id: TaskId,
    pub(in super::super) from: Addr,
    pub(in super::super) to: Addr,
    pub(in super::super) description: String,
    /// In milliseconds from now.
    pub(in super::super) deadline_ms: Option<u64>,
}

/// Why an order cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Wrong {
    #[error("task not found: {0}")]
    NotFound(TaskId),
    #[error("task {0} is already {1}")]
    Already(TaskId, State),
    #[error("task {0} {2} (status: {1})")]
    State(TaskId, State, &'static str),
    #[error("no accepted tasks to execute")]
    NothingAccepted,
    #[error("a task needs a description")]
    Empty,
    #[error("a task's description has {0} bytes, and {DESCRIPTION_MAX} at most")]
    TooLong(usize),
    #[error("there is another task called {0}")]
    Taken(TaskId),
    #[error("too many tasks are under way")]
    Full,
    #[error(
        "the node that gave task {0} runs an older release, which takes one text or one file of 8 MiB as a result"
    )]
    Older(TaskId),
}

/// The deadline, no later than what is kept.
fn deadline(now: Moment, ms: Option<u64>) -> Option<Moment> {
    ms.map(|ms| now.plus(ms.min(DEADLINE_MAX)))
}

/// A task that has just come up.
fn new_record(now: Moment, category: Category, order: Order, accept_by: Moment) -> Record {
    Record {
        key: Key { category, id: order.id },
        description: order.description,
        from: order.from,
        to: order.to,
        state: State::New,
        justification: String::new(),
        created: now,
        accepted: None,
        staged: None,
        started: None,
        completed: None,
        times: Times::default(),
        accept_by,
        deadline: deadline(now, order.deadline_ms),
        settled: None,
        peer: PeerKind::Unknown,
        pending: None,
        progress: None,
        outcome: None,
        acceptance: None,
        report: Report::None,
        revision: 0,
        last_error: None,
        tried: false,
        refusals: 0,
    }
}

/// Orders of submitters.
impl Book {
    /// Gives a peer a task. The same again is no second one.
    pub(in super::super) fn submit(&mut self, now: Moment, order: Order) -> Result<Key, Wrong> {
        check_description(&order.description)?;
        let key = Key { category: Category::Submitted, id: order.id.clone() };
        if let Some(known) = self.get(&key) {
            let same = known.to == order.to && known.description == order.description;
            return if same { Ok(key) } else { Err(Wrong::Taken(order.id)) };
        }
        if !self.has_room(Category::Submitted, order.to.node, order.description.len()) {
            return Err(Wrong::Full);
        }
        let accept_by = deadline(now, order.deadline_ms).unwrap_or(now.plus(DELIVER_WITHIN));
        let mut record = new_record(now, Category::Submitted, order, accept_by);
        record.pending = Some(Pending::Submit);
        self.insert(record);
        Ok(key)
    }

    /// A peer's task, after everything that speaks against it was asked.
    pub(super) fn receive(&mut self, now: Moment, order: Order, peer: PeerKind) -> Result<Key, Wrong> {
        check_description(&order.description)?;
        let key = Key { category: Category::Received, id: order.id.clone() };
        if let Some(known) = self.get(&key) {
            let same = known.from.node == order.from.node && known.description == order.description;
            return if same { Ok(key) } else { Err(Wrong::Taken(order.id)) };
        }
        if !self.has_room(Category::Received, order.from.node, order.description.len()) {
            return Err(Wrong::Full);
        }
        let accept_by = deadline(now, order.deadline_ms).unwrap_or(now.plus(ACCEPT_WITHIN));
        let mut record = new_record(now, Category::Received, order, accept_by);
        record.peer = peer;
        self.insert(record);
        Ok(key)
    }

    /// Takes a task of ours back, or gives one of others back that was accepted.
    pub(in super::super) fn cancel(&mut self, now: Moment, id: &TaskId, reason: &str) -> Result<Key, Wrong> {
        let key = |category| Key { category, id: id.clone() };
        let known = |key: &Key| self.get(key).map(|record| record.state);
        let open = |key: &Key| known(key).is_some_and(|state| !state.is_settled());
        let (ours, theirs) = (key(Category::Submitted), key(Category::Received));
        let key = match () {
            () if open(&ours) => ours,
            () if known(&theirs) == Some(State::New) => {
                return Err(Wrong::State(id.clone(), State::New, "is declined, not cancelled"));
            }
            () if open(&theirs) => theirs,
            () => {
                let state = known(&ours).or_else(|| known(&theirs));
                return Err(state
                    .map_or_else(|| Wrong::NotFound(id.clone()), |state| Wrong::Already(id.clone(), state)));
            }
        };
        let reason = match (reason, key.category) {
            ("", Category::Submitted) => "taken back by its submitter",
            ("", Category::Received) => "given back by its worker",
            (reason, Category::Submitted | Category::Received) => reason,
        };
        if let Some(record) = self.edit(&key) {
            settle(record, now, State::Cancelled, reason);
        }
        self.stage(now);
        Ok(key)
    }
}

/// Orders of workers.
impl Book {
    /// Says yes to a task. The acceptance is the node's signed word for it.
    pub(in super::super) fn accept(
        &mut self,
        now: Moment,
        id: &TaskId,
        acceptance: Option<Acceptance>,
    ) -> Result<Key, Wrong> {
        let record = self.received(id)?;
        if record.state != State::New {
            return Err(Wrong::Already(id.clone(), record.state));
        }
        record.state = State::Accepted;
        record.justification = "Task accepted".to_owned();
        record.accepted = Some(now);
        record.times.idle_ms = Some(now.since(record.created));
        record.acceptance = acceptance;
        tell(record, Pending::Status);
        let key = record.key.clone();
        self.stage(now);
        Ok(key)
    }

    /// Says no to a task.
    pub(in super::super) fn decline(&mut self, now: Moment, id: &TaskId, why: &str) -> Result<Key, Wrong> {
        let record = self.received(id)?;
        if record.state != State::New {
            return Err(Wrong::Already(id.clone(), record.state));
        }
        settle(record, now, State::Declined, why);
        Ok(record.key.clone())
    }

    /// Begins the work: on that task, or the next of the queue.
    pub(in super::super) fn execute(&mut self, now: Moment, id: Option<&TaskId>) -> Result<Key, Wrong> {
        let next = self.queue().first().map(|record| record.key.id.clone());
        let id = id.cloned().or(next).ok_or(Wrong::NothingAccepted)?;
        let record = self.received(&id)?;
        match record.state {
            State::Accepted => {}
            State::New => return Err(Wrong::State(id, State::New, "must be accepted first")),
            state @ (State::Executing
            | State::Declined
            | State::Cancelled
            | State::Expired
            | State::Completed
            | State::Succeeded
            | State::Failed) => return Err(Wrong::Already(id, state)),
        }
        record.state = State::Executing;
        record.justification = "Task execution started".to_owned();
        record.started = Some(now);
        record.times.staged_ms = Some(record.staged.map_or(0, |staged| now.since(staged)));
        tell(record, Pending::Status);
        let key = record.key.clone();
        self.stage(now);
        Ok(key)
    }

    /// Says how far the work is.
    pub(in super::super) fn progress(&mut self, id: &TaskId, text: &str) -> Result<Key, Wrong> {
        let record = self.at_work(id, "is not worked on")?;
        record.progress = Some(cut(text));
        tell(record, Pending::Status);
        Ok(record.key.clone())
    }

    /// Gives the work up.
    pub(in super::super) fn fail(&mut self, now: Moment, id: &TaskId, reason: &str) -> Result<Key, Wrong> {
        let record = self.at_work(id, "is not worked on")?;
        record.completed = Some(now);
        settle(record, now, State::Failed, reason);
        let key = record.key.clone();
        self.stage(now);
        Ok(key)
    }

    /// The waits of a task that is done now, and whose submitter it is; fails where [`Book::complete`] would.
    pub(in super::super) fn finishing(&mut self, now: Moment, id: &TaskId) -> Result<Record, Wrong> {
        let record = self.at_work(id, "cannot receive results")?;
        let mut finished = record.clone();
        finished.completed = Some(now);
        finished.times.staged_ms = finished.times.staged_ms.or(Some(0));
        finished.times.cpu_ms = Some(finished.started.map_or(0, |started| now.since(started)));
        Ok(finished)
    }

    /// The results are here, to be carried to the submitter. `finished` is what [`Book::finishing`] gave.
    pub(in super::super) fn complete(&mut self, finished: &Record, outcome: Outcome) -> Result<Key, Wrong> {
        let id = &finished.key.id;
        let record = self.at_work(id, "cannot receive results")?;
        let older_takes = outcome.text.is_none() || outcome.files.is_empty();
        if record.peer == PeerKind::Older && (!older_takes || outcome.files.len() > 1) {
            return Err(Wrong::Older(id.clone()));
        }
        let now = finished.completed.unwrap_or_default();
        record.times = finished.times;
        record.completed = finished.completed;
        settle(record, now, State::Completed, "Task completed successfully");
        tell(record, Pending::Results);
        record.outcome = Some(outcome);
        let key = record.key.clone();
        self.stage(now);
        Ok(key)
    }

    fn received(&mut self, id: &TaskId) -> Result<&mut Record, Wrong> {
        let key = Key { category: Category::Received, id: id.clone() };
        self.edit(&key).ok_or_else(|| Wrong::NotFound(id.clone()))
    }

    fn at_work(&mut self, id: &TaskId, otherwise: &'static str) -> Result<&mut Record, Wrong> {
        let record = self.received(id)?;
        match record.state {
            State::Accepted | State::Executing => Ok(record),
            state @ (State::New
            | State::Declined
            | State::Cancelled
            | State::Expired
            | State::Completed
            | State::Succeeded
            | State::Failed) => Err(Wrong::State(id.clone(), state, otherwise)),
        }
    }
}

fn check_description(description: &str) -> Result<(), Wrong> {
    match description.len() {
        0 => Err(Wrong::Empty),
        length if length > DESCRIPTION_MAX => Err(Wrong::TooLong(length)),
        _ => Ok(()),
    }
}
