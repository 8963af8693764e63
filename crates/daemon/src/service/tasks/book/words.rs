//! What peers say, and what they answered to what was said to them.

use pilot_wire::NodeId;
use pilot_wire::tasks::frame::{Answer, StatusUpdate, Submit};
use pilot_wire::tasks::score::Proof;
use pilot_wire::tasks::{Category, State, TaskId};

use super::super::record::{Key, Moment, Outcome, PeerKind, Pending, Record, Report, Times};
use super::{ACCEPT_WITHIN, Book, Order, PATIENCE, REFUSALS_MAX, Wrong, cut, settle};

/// What became of telling the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Told {
    /// It answered.
    Answer(Answer),
    /// It took the words and closed the stream without one, as older releases do.
    Silent,
    /// Nobody listens on its port.
    NoService,
}

/// An answer to a peer.
fn answer(id: &TaskId, status: u16, message: impl Into<String>) -> Answer {
    Answer { task_id: id.to_string(), status, message: message.into(), pilot: Some(Default::default()) }
}

/// Words of peers. Who speaks was proven by the tunnel.
impl Book {
    /// A peer gives a task.
    pub(in super::super) fn on_submit(&mut self, now: Moment, from: NodeId, word: Submit) -> Answer {
        let id = word.task_id;
        if word.from_addr.node != from {
            return answer(&id, Answer::REFUSED, "the task says that it is of another node");
        }
        let peer = if word.pilot.is_some() { PeerKind::Ours } else { PeerKind::Older };
        let order = Order {
            id: id.clone(),
            from: word.from_addr,
            to: word.to_addr,
            description: word.task_description,
            deadline_ms: word.pilot.and_then(|extension| extension.deadline_ms),
        };
        match self.receive(now, order, peer) {
            Ok(_) => answer(&id, Answer::OK, "Task received with status NEW"),
            Err(wrong) => answer(&id, Answer::REFUSED, wrong.to_string()),
        }
    }

    /// A peer says where a task is: the worker of one of ours, or the submitter of one of its own.
    pub(in super::super) fn on_status(&mut self, now: Moment, from: NodeId, word: StatusUpdate) -> Answer {
        let id = word.task_id.clone();
        let key = |category| Key { category, id: id.clone() };
        let ours = self.of_peer(&key(Category::Submitted), from).map(|record| record.state);
        let theirs = self.of_peer(&key(Category::Received), from).map(|record| record.state);
        let takes_back = word.status == State::Cancelled && theirs.is_some_and(|state| !state.is_settled());
        let drops_results = word.status == State::Cancelled && theirs == Some(State::Completed);
        if takes_back || drops_results {
            if let Some(record) = self.edit(&key(Category::Received)) {
                settle(record, now, State::Cancelled, &word.justification);
                record.pending = None;
                record.outcome = None;
            }
            self.stage(now);
            // A task that a node gave itself is cancelled on both sides by one word.
            if ours.is_none_or(State::is_settled) {
                return answer(&id, Answer::OK, "cancelled");
            }
        }
        match (ours, theirs) {
            (Some(_), _) => self.of_worker(now, &key(Category::Submitted), word),
            (None, Some(state)) if state == word.status => answer(&id, Answer::OK, "known"),
            (None, Some(state)) => answer(&id, Answer::REFUSED, format!("the task is {state}")),
            (None, None) => answer(&id, Answer::UNKNOWN, "no such task of yours"),
        }
    }

    fn of_worker(&mut self, now: Moment, key: &Key, word: StatusUpdate) -> Answer {
        let Some(record) = self.edit(key) else { return answer(&key.id, Answer::UNKNOWN, "no such task") };
        let extension = word.pilot;
        if extension.is_some() {
            record.peer = PeerKind::Ours;
        }
        let is_news = is_after(word.status, record.state);
        let same = word.status == record.state;
        if record.state.is_settled() && !is_news && !same {
            return answer(&key.id, Answer::REFUSED, format!("the task is {}", record.state));
        }
        if is_news {
            record.state = word.status;
            record.justification = cut(&word.justification);
            if matches!(word.status, State::Accepted | State::Executing) {
                record.accepted = record.accepted.or(Some(now));
            }
            if word.status == State::Executing {
                record.started = Some(now);
            }
            if word.status.is_settled() {
                record.settled = Some(now);
            }
            // The worker knows the task, so its answer to the submission was only lost.
            record.pending = None;
            record.revision += 1;
            record.last_error = None;
        }
        // A word that was overtaken by a later one changes nothing.
        if let Some(extension) = extension.filter(|_| is_news || same) {
            record.progress = extension.progress.as_deref().map(cut).or(record.progress.take());
            record.acceptance = record.acceptance.or(extension.acceptance);
        }
        answer(&key.id, Answer::OK, "known")
    }

    /// Whether `from` may hand in results of a task of ours now; else what it is told.
    pub(in super::super) fn awaits_results(&self, from: NodeId, id: &TaskId) -> Result<&Record, Box<Answer>> {
        let key = Key { category: Category::Submitted, id: id.clone() };
        let Some(record) = self.of_peer(&key, from) else {
            return Err(Box::new(answer(id, Answer::UNKNOWN, "no such task of mine is with you")));
        };
        match record.state {
            State::New | State::Accepted | State::Executing | State::Completed | State::Succeeded => {
                Ok(record)
            }
            state @ (State::Declined | State::Cancelled | State::Expired | State::Failed) => {
                Err(Box::new(answer(id, Answer::REFUSED, format!("the task is {state}"))))
            }
        }
    }

    /// The results of a task of ours are here. Those that come again change nothing.
    pub(in super::super) fn on_results(
        &mut self,
        now: Moment,
        from: NodeId,
        id: &TaskId,
        times: Times,
        outcome: Outcome,
        ours: bool,
    ) -> Answer {
        let has_them = match self.awaits_results(from, id) {
            Ok(record) => record.state.has_results(),
            Err(refusal) => return *refusal,
        };
        let key = Key { category: Category::Submitted, id: id.clone() };
        if let Some(record) = self.edit(&key).filter(|_| !has_them) {
            // Older releases say SUCCEEDED in a word of its own.
            record.state = if ours { State::Succeeded } else { State::Completed };
            record.justification = "Task completed successfully".to_owned();
            record.peer = if ours { PeerKind::Ours } else { PeerKind::Older };
            record.times = times;
            record.completed = Some(now);
            record.settled = Some(now);
            record.outcome = Some(outcome);
            record.pending = None;
            record.last_error = None;
            record.revision += 1;
        }
        answer(id, Answer::OK, "results received")
    }

    fn of_peer(&self, key: &Key, peer: NodeId) -> Option<&Record> {
        self.get(key).filter(|record| record.peer_node() == peer)
    }
}

/// Whether a word about a task of ours moves it on.
fn is_after(word: State, now: State) -> bool {
    match now {
        State::New => !matches!(word, State::New | State::Completed | State::Succeeded),
        State::Accepted => matches!(
            word,
            State::Executing | State::Cancelled | State::Expired | State::Failed | State::Declined
        ),
        State::Executing => matches!(word, State::Cancelled | State::Expired | State::Failed),
        State::Completed => word == State::Succeeded,
        State::Declined | State::Cancelled | State::Expired | State::Succeeded | State::Failed => false,
    }
}

/// What peers answered.
impl Book {
    /// What became of telling the other side; `pending` and `revision` say what it was told. `proof` is what both have
    /// signed, if the answer completed it.
    pub(in super::super) fn told(
        &mut self,
        now: Moment,
        key: &Key,
        (pending, revision): (Pending, u64),
        told: &Told,
        proof: Option<Proof>,
    ) {
        let Some(record) = self.edit(key) else { return };
        // Something newer is to be told; but that the worker knows the task is worth knowing.
        let current = record.revision == revision && record.pending == Some(pending);
        match told {
            Told::Answer(answer) => {
                record.refusals = 0;
                let is_ours = answer.pilot.is_some();
                record.peer = if is_ours { PeerKind::Ours } else { PeerKind::Older };
                if answer.status == Answer::LATER {
                    record.last_error = Some(cut(&answer.message));
                    return;
                }
                record.last_error = None;
                if current {
                    answered(record, now, pending, answer, proof);
                }
            }
            Told::Silent if current && pending != Pending::Submit && record.peer != PeerKind::Ours => {
                record.last_error = None;
                record.pending = None;
                if pending == Pending::Results {
                    record.state = State::Succeeded;
                    record.outcome = None;
                }
            }
            Told::Silent => record.last_error = Some("the peer gave no answer".to_owned()),
            Told::NoService => {
                record.refusals += 1;
                record.last_error = Some("nobody listens on port 1003 of the peer".to_owned());
                if current && pending == Pending::Submit && record.refusals >= REFUSALS_MAX {
                    settle(record, now, State::Declined, "the peer's node takes no tasks (port 1003)");
                    record.pending = None;
                }
            }
        }
        self.stage(now);
    }

    /// What a peer is told where the book has no say.
    pub(in super::super) fn reply(id: &TaskId, status: u16, message: impl Into<String>) -> Answer {
        answer(id, status, message)
    }
}

fn answered(record: &mut Record, now: Moment, pending: Pending, answer: &Answer, proof: Option<Proof>) {
    let taken = answer.status == Answer::OK;
    record.pending = None;
    match pending {
        Pending::Submit if taken => {
            record.justification = cut(&answer.message);
            record.accept_by = record.deadline.unwrap_or(now.plus(ACCEPT_WITHIN + PATIENCE));
        }
        Pending::Submit => {
            settle(record, now, State::Declined, &answer.message);
            record.pending = None;
        }
        Pending::Results if taken => {
            record.state = State::Succeeded;
            record.outcome = None;
            record.report = proof.map_or(Report::None, |proof| Report::Due(Box::new(proof)));
        }
        Pending::Results => {
            settle(record, now, State::Cancelled, &answer.message);
            record.pending = None;
            record.outcome = None;
        }
        // The other side has another opinion of an end: each keeps its own.
        Pending::Status if taken || record.state.is_settled() => {}
        Pending::Status => {
            settle(record, now, State::Cancelled, &answer.message);
            record.pending = None;
        }
    }
}

impl From<&Wrong> for pilot_wire::ipc::Failure {
    fn from(wrong: &Wrong) -> Self {
        use pilot_wire::ipc::{Code, Failure};
        let message = wrong.to_string();
        match wrong {
            Wrong::NotFound(_) => {
                Failure::new(Code::NotFound, message).with_hint("see the names: pilotctl task list")
            }
            Wrong::NothingAccepted => Failure::new(Code::NotFound, message)
                .with_hint("accept one first: pilotctl task accept, or wait: --timeout 1m"),
            Wrong::Already(..) => Failure::new(Code::Refused, message),
            Wrong::State(..) => {
                Failure::new(Code::Refused, message).with_hint("see where it is: pilotctl task show ID")
            }
            Wrong::Empty | Wrong::TooLong(_) => Failure::new(Code::InvalidArgument, message)
                .with_hint("send what is long as a file beforehand: pilotctl send-file"),
            Wrong::Older(_) => Failure::new(Code::Unsupported, message),
            Wrong::Taken(_) => Failure::new(Code::AlreadyExists, message),
            Wrong::Full => Failure::new(Code::Busy, message).with_hint("see them: pilotctl task list"),
        }
    }
}
