//! All tasks of this node, its own and those of others, and what may become of them.
//!
//! No disk and no network here. What an [order](orders) of an application or a [word](words) of a peer changes must be
//! on disk before either is answered: take the [changes](Book::changes), write them, and [keep](Book::keep) or
//! [undo](Book::undo) them. What is [pending](Book::pending) is to be told to the other side.

mod orders;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

use pilot_wire::NodeId;
use pilot_wire::tasks::frame::REASON_MAX;
use pilot_wire::tasks::{Category, State, TaskId};

pub(super) use self::orders::{Order, Wrong};
pub(super) use self::words::Told;
use super::record::{Key, Moment, Pending, Record, Report};

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// How long a task waits for a yes, if it has no deadline.
pub(super) const ACCEPT_WITHIN: u64 = 60 * SECOND;

/// How much longer the submitter waits for it: the worker's word is to come first.
const PATIENCE: u64 = 15 * SECOND;

/// How long a task is carried to a peer that is away, if it has no deadline.
const DELIVER_WITHIN: u64 = DAY;

/// How long an accepted task may wait at the head of the queue.
const BEGIN_WITHIN: u64 = HOUR;

/// How long a submitter waits for a worker that accepted and was not heard of since.
const SILENCE_MAX: u64 = DAY;

/// Longest deadline that is kept.
const DEADLINE_MAX: u64 = 30 * DAY;

/// How long the other side is tried to be told of an end.
const TELL_WITHIN: u64 = 7 * DAY;

/// The registry counts an expired task no earlier, and its clock may differ.
const CLAIM_AFTER: u64 = HOUR + 660 * SECOND;

/// Unfinished tasks of one category. Beyond, new ones are refused.
const OPEN_MAX: usize = 1000;

/// Of these, of one peer.
const OPEN_PER_PEER: usize = 100;

/// Bytes of descriptions of one category, finished or not. Beyond, new tasks are refused.
const BYTES_MAX: usize = 64 << 20;

/// Finished tasks kept of one category, the newest.
const SETTLED_MAX: usize = 1000;

/// For how long.
const SETTLED_LIFE: u64 = 30 * DAY;

/// Submissions to a peer at whose port nobody listens, before it is taken for one that has no tasks. A few, because a
/// daemon that starts listens at once but not at the same moment as it answers.
const REFUSALS_MAX: u32 = 4;

/// All tasks.
#[derive(Debug, Default)]
pub(super) struct Book {
    records: BTreeMap<Key, Record>,
    /// Those changed and not yet kept, as they were.
    before: BTreeMap<Key, Option<Record>>,
}

impl Book {
    pub(super) fn restore(records: impl IntoIterator<Item = Record>) -> Self {
        let records = records.into_iter().map(|record| (record.key.clone(), record)).collect();
        Self { records, before: BTreeMap::new() }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// A task by its name alone: ours before one of others.
    pub(super) fn find(&self, id: &TaskId) -> Option<&Record> {
        let key = |category| Key { category, id: id.clone() };
        self.get(&key(Category::Submitted)).or_else(|| self.get(&key(Category::Received)))
    }

    /// All of a category, or of both, oldest first.
    pub(super) fn all(&self, category: Option<Category>) -> Vec<&Record> {
        let of = |record: &&Record| category.is_none_or(|category| record.key.category == category);
        let mut found: Vec<&Record> = self.records.values().filter(of).collect();
        found.sort_by_key(|record| (record.created, &record.key));
        found
    }

    /// Accepted and not begun, next one first.
    pub(super) fn queue(&self) -> Vec<&Record> {
        let waits =
            |record: &&Record| record.key.category == Category::Received && record.state == State::Accepted;
        let mut queue: Vec<&Record> = self.records.values().filter(waits).collect();
        queue.sort_by_key(|record| (record.accepted, record.created, &record.key));
        queue
    }

    /// The received task that waits longest for a yes.
    pub(super) fn next_new(&self) -> Option<&Record> {
        let is_new =
            |record: &&Record| record.key.category == Category::Received && record.state == State::New;
        self.records.values().filter(is_new).min_by_key(|record| (record.created, &record.key))
    }

    /// What is to be told to whom; per peer in the order of creation.
    pub(super) fn pending(&self) -> Vec<(NodeId, Key, Pending)> {
        let mut waiting: Vec<&Record> =
            self.records.values().filter(|record| record.pending.is_some()).collect();
        waiting.sort_by_key(|record| (record.created, &record.key));
        let told = |record: &Record| Some((record.peer_node(), record.key.clone(), record.pending?));
        waiting.into_iter().filter_map(told).collect()
    }

    /// Tasks that the registry is to be told of.
    pub(super) fn reports(&self) -> Vec<(Key, Report)> {
        let due = |record: &&Record| matches!(record.report, Report::Due(_));
        self.records.values().filter(due).map(|record| (record.key.clone(), record.report.clone())).collect()
    }

    /// Our tasks that expired with a worker that had signed for them, and that the registry was not told of.
    pub(super) fn claims(&self, now: Moment) -> Vec<Record> {
        let ripe = |record: &&Record| claim_due(record).is_some_and(|due| due <= now);
        self.records.values().filter(ripe).cloned().collect()
    }

    pub(super) fn set_report(&mut self, key: &Key, report: Report) {
        if let Some(record) = self.edit(key) {
            record.report = report;
        }
    }

    /// Somebody sets out to tell the other side; gives what it is to be told.
    pub(super) fn set_out(&mut self, key: &Key) -> Option<Record> {
        let record = self.records.get_mut(key)?;
        record.tried = true;
        Some(record.clone())
    }

    /// When the next expired task can be claimed.
    pub(super) fn next_claim(&self) -> Option<Moment> {
        self.records.values().filter_map(claim_due).min()
    }

    /// The other side could not be told.
    pub(super) fn failed_to_tell(&mut self, key: &Key, reason: String) {
        // Not worth a write: it is true until the next try.
        if let Some(record) = self.records.get_mut(key) {
            record.last_error = Some(reason);
        }
    }

    /// When something is due without anybody saying anything.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.records.values().flat_map(dues).min()
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Moment) {
        let due: Vec<Key> = self
            .records
            .values()
            .filter(|record| dues(record).any(|due| due <= now))
            .map(|record| record.key.clone())
            .collect();
        for key in due {
            let Some(record) = self.edit(&key) else { continue };
            lapse(record, now);
        }
        self.forget_old(now);
        self.stage(now);
    }

    /// What has changed since the last [`Book::keep`], before and after: to be written, or removed where there is no
    /// after.
    pub(super) fn changes(&self) -> Vec<(Option<Record>, Option<Record>)> {
        self.before
            .iter()
            .map(|(key, before)| (before.clone(), self.records.get(key).cloned()))
            .filter(|(before, after)| before != after)
            .collect()
    }

    /// The changes are on disk.
    pub(super) fn keep(&mut self) {
        self.before.clear();
    }

    /// The changes could not be written: they have not happened.
    pub(super) fn undo(&mut self) {
        for (key, before) in std::mem::take(&mut self.before) {
            match before {
                Some(record) => drop(self.records.insert(key, record)),
                None => drop(self.records.remove(&key)),
            }
        }
    }

    fn edit(&mut self, key: &Key) -> Option<&mut Record> {
        let record = self.records.get_mut(key)?;
        if !self.before.contains_key(key) {
            self.before.insert(key.clone(), Some(record.clone()));
        }
        Some(record)
    }

    fn insert(&mut self, record: Record) {
        self.before.entry(record.key.clone()).or_insert(None);
        self.records.insert(record.key.clone(), record);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(record) = self.records.remove(key) {
            self.before.entry(key.clone()).or_insert(Some(record));
        }
    }

    /// Notes which task is the next one of the queue, and since when.
    fn stage(&mut self, now: Moment) {
        let head = self.queue().first().filter(|head| head.staged.is_none()).map(|head| head.key.clone());
        if let Some(record) = head.and_then(|head| self.edit(&head)) {
            record.staged = Some(now);
        }
    }

    /// Makes room among the finished tasks. What somebody must still be told stays.
    fn forget_old(&mut self, now: Moment) {
        for category in [Category::Submitted, Category::Received] {
            let mut old: Vec<(Moment, Key)> = self
                .records
                .values()
                .filter(|record| record.key.category == category && is_forgettable(record))
                .filter_map(|record| Some((record.settled?, record.key.clone())))
                .collect();
            old.sort();
            let too_many = old.len().saturating_sub(SETTLED_MAX);
            for (number, (settled, key)) in old.into_iter().enumerate() {
                if number < too_many || now.since(settled) > SETTLED_LIFE {
                    self.remove(&key);
                }
            }
        }
    }

    /// Whether another task fits. What is finished goes first.
    fn has_room(&mut self, category: Category, peer: NodeId, length: usize) -> bool {
        loop {
            let (mut open, mut of_peer, mut bytes) = (0, 0, 0);
            let mut oldest: Option<(Moment, &Key)> = None;
            for record in self.records.values().filter(|record| record.key.category == category) {
                bytes += record.description.len();
                if !record.state.is_settled() {
                    open += 1;
                    of_peer += usize::from(record.peer_node() == peer);
                }
                if let Some(settled) = record.settled.filter(|_| is_forgettable(record)) {
                    oldest = oldest.into_iter().chain([(settled, &record.key)]).min();
                }
            }
            let of_peer_max = if category == Category::Received { OPEN_PER_PEER } else { OPEN_MAX };
            if open >= OPEN_MAX || of_peer >= of_peer_max {
                return false;
            }
            if bytes + length <= BYTES_MAX {
                return true;
            }
            let Some((_, key)) = oldest else { return false };
            let key = key.clone();
            self.remove(&key);
        }
    }
}

fn is_forgettable(record: &Record) -> bool {
    record.state.is_settled()
        && record.pending.is_none()
        && !matches!(record.report, Report::Due(_))
        && claim_due(record).is_none()
}

/// When the registry can be told of an expired task.
fn claim_due(record: &Record) -> Option<Moment> {
    let claims = record.key.category == Category::Submitted
        && record.state == State::Expired
        && record.report == Report::None;
    let acceptance = record.acceptance.filter(|_| claims)?;
    Some(Moment(acceptance.at.saturating_mul(SECOND)).plus(CLAIM_AFTER))
}

/// The moments at which something becomes of a task by itself. Claims are not among them: they are the registry's.
fn dues(record: &Record) -> impl Iterator<Item = Moment> {
    let own = record.key.category == Category::Submitted;
    let open = !record.state.is_settled();
    let accepted = record.state == State::Accepted;
    let begin = record.staged.filter(|_| accepted && !own).map(|staged| staged.plus(BEGIN_WITHIN));
    let silence = record.accepted.filter(|_| accepted && own && record.deadline.is_none());
    let give_up = record.settled.filter(|_| record.pending.is_some());
    [
        (record.state == State::New).then_some(record.accept_by),
        record.deadline.filter(|_| open),
        begin,
        silence.map(|accepted| accepted.plus(SILENCE_MAX)),
        give_up.map(|settled| settled.plus(TELL_WITHIN)),
    ]
    .into_iter()
    .flatten()
}

/// What becomes of a task because its time is over.
fn lapse(record: &mut Record, now: Moment) {
    let own = record.key.category == Category::Submitted;
    if record.state.is_settled() {
        if record.settled.is_some_and(|settled| settled.plus(TELL_WITHIN) <= now) {
            record.pending = None;
            record.outcome = record.outcome.take().filter(|_| own);
            record.last_error = Some("the other side was away for too long to be told".to_owned());
        }
        return;
    }
    if record.deadline.is_some_and(|deadline| deadline <= now) {
        settle(record, now, State::Cancelled, "not finished before its deadline");
    } else if record.state == State::New && record.accept_by <= now {
        let undelivered = own && record.pending == Some(Pending::Submit);
        let why = if undelivered { "the worker could not be reached" } else { "not accepted in time" };
        settle(record, now, State::Cancelled, why);
    } else if record.state == State::Accepted {
        let why = if own { "the worker was not heard of for a day" } else { "not begun within an hour" };
        let over = |since: Option<Moment>, limit| since.is_some_and(|since| since.plus(limit) <= now);
        let expired =
            if own { over(record.accepted, SILENCE_MAX) } else { over(record.staged, BEGIN_WITHIN) };
        if expired {
            settle(record, now, State::Expired, why);
        }
    }
}

/// A task comes to its end, and the other side is to know.
fn settle(record: &mut Record, now: Moment, state: State, why: &str) {
    let never_left = record.pending == Some(Pending::Submit) && !record.tried;
    record.state = state;
    record.justification = cut(why);
    record.settled = Some(now);
    record.revision += 1;
    // A submission that was never begun to be carried needs no word after it. One that failed may have arrived all the
    // same.
    record.pending = if never_left { None } else { Some(Pending::Status) };
}

/// The other side is to know where the task is.
fn tell(record: &mut Record, pending: Pending) {
    record.pending = Some(pending);
    record.revision += 1;
}

/// The text as long as is kept.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(REASON_MAX)].to_owned()
}
