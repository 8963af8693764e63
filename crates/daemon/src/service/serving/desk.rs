//! The requests that this node was asked and has not answered, and who works at each.
//!
//! It does nothing by itself: it is told what happened and when, and what it returns is to be carried out. A request is
//! held by a connection of a local program; when that ends, the next program that asks for work gets it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pilot_wire::dataexchange::{MessageId, Outcome};
use pilot_wire::serving::{Held, Why};
use pilot_wire::{Addr, NodeId};
use tokio::time::Instant;

use crate::driver::ClientId;

/// Requests that wait or are worked at. The inbox holds as many messages; one more is declined.
pub(super) const INQUIRIES_MAX: usize = 10_000;

/// Requests that one program holds at the same time; beyond, it gets no more.
pub(super) const HELD_MAX: usize = 256;

/// Requests taken back before they arrived. Of more, the oldest is forgotten, and then worked at in vain.
const EARLY_MAX: usize = 256;

/// A request, or a plain message that programs may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inquiry {
    /// Its id in the inbox.
    pub(super) inbox: String,
    pub(super) from: Addr,
    /// The sender's id of it. Only plain messages may lack one.
    pub(super) message: Option<MessageId>,
    /// The key under which it is carried out once.
    pub(super) key: Option<MessageId>,
    pub(super) parts: bool,
    pub(super) hops: u8,
    /// A message that says nothing of an answer.
    pub(super) plain: bool,
    pub(super) deadline: Instant,
}

impl Inquiry {
    fn name(&self) -> Option<(NodeId, MessageId)> {
        self.message.clone().map(|id| (self.from.node, id))
    }

    fn once(&self) -> Option<(NodeId, MessageId)> {
        self.key.clone().map(|key| (self.from.node, key))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Held(ClientId),
    /// An answer of this program, or of nobody in particular, is being handed to the outbox.
    Answering(Option<ClientId>),
}

#[derive(Debug)]
struct Entry {
    inquiry: Inquiry,
    stage: Stage,
    /// The owner's rules hold its answer back until then.
    not_before: Option<Instant>,
    run: u64,
    sent: u32,
}

/// Something to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Answer this by ourselves.
    Settle(Inquiry, Outcome, &'static str),
    /// Tell whoever waits that there is something to take, or that a request was withdrawn.
    Wake,
}

/// Work that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) inquiry: Inquiry,
    pub(super) run: u64,
}

/// Why a program may not do something with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It was taken away.
    Withdrawn(Why),
    /// Somebody is answering it this very moment.
    Busy,
}

/// The number of a request here, in the order of arrival.
type Place = u64;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Desk {
    next: Place,
    entries: BTreeMap<Place, Entry>,
    by_inbox: BTreeMap<String, Place>,
    by_name: BTreeMap<(NodeId, MessageId), Place>,
    deadlines: BTreeSet<(Instant, Place)>,
    /// When requests that are held back may be taken.
    held_back: BTreeSet<(Instant, Place)>,
    early: VecDeque<(NodeId, MessageId)>,
    /// The programs that take work, and what was taken away from each and why. A program holds at most [`HELD_MAX`], and
    /// what it lets go of is removed.
    programs: BTreeMap<ClientId, Program>,
    /// The last run that was begun; later ones are greater.
    run: u64,
}

#[derive(Debug, Default)]
struct Program {
    /// Takes plain messages too.
    all: bool,
    /// How often it ended its waiting.
    turns: u64,
    held: usize,
    withdrawn: BTreeMap<String, Why>,
}

impl Desk {
    /// A program takes work from now on; says whether it is new here.
    pub(super) fn register(&mut self, by: ClientId) -> bool {
        let is_new = !self.programs.contains_key(&by);
        self.programs.entry(by).or_default();
        is_new
    }

    /// A message arrived. Whether its answer is known already, or it has too many hops, was asked before.
    pub(super) fn arrived(&mut self, inquiry: Inquiry) -> Vec<Action> {
        if self.by_inbox.contains_key(&inquiry.inbox) {
            return Vec::new();
        }
        if inquiry.plain && !self.programs.values().any(|program| program.all) {
            return Vec::new();
        }
        let name = inquiry.name();
        if let Some(at) = name.as_ref().and_then(|name| self.early.iter().position(|early| early == name)) {
            self.early.remove(at);
            return vec![Action::Settle(inquiry, Outcome::Cancelled, "taken back by the requester")];
        }
        if self.entries.len() >= INQUIRIES_MAX {
            return match inquiry.plain {
                true => Vec::new(),
                false => vec![Action::Settle(inquiry, Outcome::Declined, "too many requests wait here")],
            };
        }
        let place = self.next;
        self.next += 1;
        self.by_inbox.insert(inquiry.inbox.clone(), place);
        if let Some(name) = name {
            self.by_name.insert(name, place);
        }
        self.deadlines.insert((inquiry.deadline, place));
        self.entries
            .insert(place, Entry { inquiry, stage: Stage::Waiting, not_before: None, run: 0, sent: 0 });
        vec![Action::Wake]
    }

    /// A program asks for work. `clock` is the time in milliseconds since 1970: it makes the runs of this daemon greater
    /// than those of the one before it.
    pub(super) fn take(
        &mut self,
        by: ClientId,
        from: Option<NodeId>,
        all: bool,
        now: Instant,
        clock: u64,
    ) -> Option<Grant> {
        let program = self.programs.entry(by).or_default();
        program.all |= all;
        if program.held >= HELD_MAX {
            return None;
        }
        // Of the requests under one key only one is worked at; the others wait for its answer.
        let mut keys: BTreeSet<_> = self.busy_keys().collect();
        let place = self.entries.iter().find_map(|(place, entry)| {
            let inquiry = &entry.inquiry;
            let is_first = inquiry.once().is_none_or(|key| keys.insert(key));
            let fits = entry.stage == Stage::Waiting
                && inquiry.deadline > now
                && entry.not_before.is_none_or(|at| at <= now)
                && from.is_none_or(|node| inquiry.from.node == node)
                && (all || !inquiry.plain);
            (fits && is_first).then_some(*place)
        })?;
        self.hold(place, by);
        self.run = clock.max(self.run + 1);
        let entry = self.entries.get_mut(&place)?;
        (entry.run, entry.sent) = (self.run, 0);
        Some(Grant { inquiry: entry.inquiry.clone(), run: entry.run })
    }

    fn busy_keys(&self) -> impl Iterator<Item = (NodeId, MessageId)> {
        self.entries
            .values()
            .filter(|entry| entry.stage != Stage::Waiting)
            .filter_map(|entry| entry.inquiry.once())
    }

    fn hold(&mut self, place: Place, by: ClientId) {
        let Some(entry) = self.entries.get_mut(&place) else { return };
        entry.stage = Stage::Held(by);
        let program = self.programs.entry(by).or_default();
        program.held += 1;
        program.withdrawn.remove(&entry.inquiry.inbox);
    }

    /// A program goes on with work that it began with an earlier daemon; says what it may not go on with.
    pub(super) fn resume(&mut self, by: ClientId, held: Vec<Held>, now: Instant) -> Vec<(String, Why)> {
        let mut lost = Vec::new();
        for Held { id, run, sent } in held.into_iter().take(HELD_MAX) {
            let place = self.by_inbox.get(&id).copied();
            let Some((place, entry)) = place.and_then(|place| Some((place, self.entries.get_mut(&place)?)))
            else {
                lost.push((id, Why::Lost));
                continue;
            };
            match entry.stage {
                Stage::Waiting if entry.inquiry.deadline <= now => lost.push((id, Why::Deadline)),
                Stage::Waiting => {
                    (entry.run, entry.sent) = (run, sent);
                    self.run = self.run.max(run);
                    self.hold(place, by);
                }
                Stage::Held(holder) if holder == by => {}
                Stage::Held(_) | Stage::Answering(_) => lost.push((id, Why::Lost)),
            }
        }
        lost
    }

    /// A program waits for no more work, for now.
    pub(super) fn leave(&mut self, by: ClientId) -> Vec<Action> {
        if let Some(program) = self.programs.get_mut(&by) {
            program.turns += 1;
        }
        vec![Action::Wake]
    }

    /// Counts how often a program ended its waiting.
    pub(super) fn turns(&self, by: ClientId) -> u64 {
        self.programs.get(&by).map_or(0, |program| program.turns)
    }

    /// Whether a program holds a request; if not, why.
    pub(super) fn holds(&self, by: ClientId, id: &str) -> Result<(), Why> {
        let entry = self.by_inbox.get(id).and_then(|place| self.entries.get(place));
        match entry.map(|entry| entry.stage) {
            Some(Stage::Held(holder)) if holder == by => Ok(()),
            Some(Stage::Answering(Some(holder))) if holder == by => Ok(()),
            Some(_) | None => Err(self.why(by, id)),
        }
    }

    fn why(&self, by: ClientId, id: &str) -> Why {
        let program = self.programs.get(&by);
        program.and_then(|program| program.withdrawn.get(id)).copied().unwrap_or(Why::Lost)
    }

    /// Gives the next interim message of a request its run and number, and says whether anybody wants it.
    pub(super) fn interim(&mut self, by: ClientId, id: &str) -> Result<(Inquiry, u64, u32), Why> {
        self.holds(by, id)?;
        let entry = self.by_inbox.get(id).and_then(|place| self.entries.get_mut(place)).ok_or(Why::Lost)?;
        entry.sent += 1;
        Ok((entry.inquiry.clone(), entry.run, entry.sent))
    }

    /// Somebody of this node, who holds nothing, says something about a request that nobody holds.
    pub(super) fn remark(&mut self, id: &str, clock: u64) -> Result<(Inquiry, u64, u32), Refused> {
        let entry = self.by_inbox.get(id).and_then(|place| self.entries.get_mut(place));
        let entry = entry.ok_or(Refused::Withdrawn(Why::Lost))?;
        if entry.stage != Stage::Waiting {
            return Err(Refused::Busy);
        }
        if entry.run == 0 {
            self.run = clock.max(self.run + 1);
            entry.run = self.run;
        }
        entry.sent += 1;
        Ok((entry.inquiry.clone(), entry.run, entry.sent))
    }

    /// A program gives a request back.
    pub(super) fn release(&mut self, by: ClientId, id: &str) -> Vec<Action> {
        if let Some(program) = self.programs.get_mut(&by) {
            program.withdrawn.remove(id);
        }
        let Some(place) = self.by_inbox.get(id).copied() else { return Vec::new() };
        let Some(entry) = self.entries.get_mut(&place) else { return Vec::new() };
        if entry.stage != Stage::Held(by) {
            return Vec::new();
        }
        entry.stage = Stage::Waiting;
        self.let_go(by);
        vec![Action::Wake]
    }

    /// What was handed out this moment must wait.
    pub(super) fn hold_back(&mut self, by: ClientId, id: &str, until: Instant) -> Vec<Action> {
        let actions = self.release(by, id);
        let Some(place) = self.by_inbox.get(id).copied() else { return actions };
        if let Some(entry) = self.entries.get_mut(&place) {
            entry.not_before = Some(until);
            self.held_back.insert((until, place));
        }
        actions
    }

    /// What was handed out this moment is not to be answered by programs.
    pub(super) fn refuse(&mut self, by: ClientId, id: &str) -> Option<Inquiry> {
        self.remove(id, Some(by), Why::Answered).map(|entry| entry.inquiry)
    }

    fn let_go(&mut self, by: ClientId) {
        if let Some(program) = self.programs.get_mut(&by) {
            program.held = program.held.saturating_sub(1);
        }
    }

    /// The connection of a program ended.
    pub(super) fn gone(&mut self, by: ClientId) -> Vec<Action> {
        self.programs.remove(&by);
        for entry in self.entries.values_mut() {
            if entry.stage == Stage::Held(by) {
                entry.stage = Stage::Waiting;
            }
        }
        vec![Action::Wake]
    }

    /// Begins an answer: by whoever holds the request (`by`), or by somebody else of this node. No other answer is
    /// possible until it is [finished](Self::finish) or [failed](Self::unanswered).
    pub(super) fn answering(&mut self, by: Option<ClientId>, id: &str) -> Result<Inquiry, Refused> {
        if let Some(by) = by {
            self.holds(by, id).map_err(Refused::Withdrawn)?;
        }
        let place = self.by_inbox.get(id).copied();
        let entry = place.and_then(|place| self.entries.get_mut(&place));
        let entry = entry.ok_or(Refused::Withdrawn(Why::Lost))?;
        let holder = match entry.stage {
            Stage::Waiting => None,
            Stage::Held(holder) => Some(holder),
            Stage::Answering(_) => return Err(Refused::Busy),
        };
        entry.stage = Stage::Answering(holder);
        Ok(entry.inquiry.clone())
    }

    /// The answer could not be handed over.
    pub(super) fn unanswered(&mut self, id: &str) -> Vec<Action> {
        let Some(place) = self.by_inbox.get(id).copied() else { return Vec::new() };
        let Some(entry) = self.entries.get_mut(&place) else { return Vec::new() };
        self.deadlines.insert((entry.inquiry.deadline, place));
        if let Stage::Answering(holder) = entry.stage {
            entry.stage = match holder.filter(|holder| self.programs.contains_key(holder)) {
                Some(holder) => Stage::Held(holder),
                None => Stage::Waiting,
            };
        }
        vec![Action::Wake]
    }

    /// The answer is on its way. With `again`, it is that of all requests under the same key: they are returned.
    pub(super) fn finish(
        &mut self,
        by: Option<ClientId>,
        id: &str,
        again: bool,
    ) -> (Vec<Inquiry>, Vec<Action>) {
        let Some(entry) = self.remove(id, by, Why::Answered) else { return (Vec::new(), Vec::new()) };
        let mut same = Vec::new();
        if let Some(key) = entry.inquiry.once().filter(|_| again) {
            let others: Vec<String> = self
                .entries
                .values()
                .filter(|entry| entry.inquiry.once().as_ref() == Some(&key))
                .map(|entry| entry.inquiry.inbox.clone())
                .collect();
            for id in others {
                same.extend(self.remove(&id, by, Why::Answered).map(|entry| entry.inquiry));
            }
        }
        (same, vec![Action::Wake])
    }

    /// The requester does not wait any more.
    pub(super) fn cancel(&mut self, from: NodeId, id: &MessageId) -> Vec<Action> {
        let name = (from, id.clone());
        let Some(place) = self.by_name.get(&name).copied() else {
            while self.early.len() >= EARLY_MAX {
                self.early.pop_front();
            }
            self.early.push_back(name);
            return Vec::new();
        };
        let Some(entry) = self.entries.get(&place) else { return Vec::new() };
        if matches!(entry.stage, Stage::Answering(_)) {
            // Too late: the answer is on its way.
            return Vec::new();
        }
        let inbox = entry.inquiry.inbox.clone();
        match self.remove(&inbox, None, Why::Cancelled) {
            Some(Entry { inquiry, .. }) => {
                vec![Action::Settle(inquiry, Outcome::Cancelled, "taken back by the requester"), Action::Wake]
            }
            None => Vec::new(),
        }
    }

    /// When something is due next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let due = |times: &BTreeSet<(Instant, Place)>| times.first().map(|(at, _)| *at);
        [due(&self.deadlines), due(&self.held_back)].into_iter().flatten().min()
    }

    /// Work that was begun is stopped when its time is over, and answered so. What nobody took is not begun any more;
    /// it stays in the inbox for whoever reads it.
    pub(super) fn on_time(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        while self.held_back.first().is_some_and(|(at, _)| *at <= now) {
            self.held_back.pop_first();
            actions.push(Action::Wake);
        }
        while let Some((at, place)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let Some(entry) = self.entries.get(&place) else {
                self.deadlines.remove(&(at, place));
                continue;
            };
            if matches!(entry.stage, Stage::Answering(_)) {
                self.deadlines.remove(&(at, place));
                continue;
            }
            let (inbox, was_held) = (entry.inquiry.inbox.clone(), matches!(entry.stage, Stage::Held(_)));
            let Some(entry) = self.remove(&inbox, None, Why::Deadline) else { continue };
            if was_held {
                let text = "stopped: the time for it was over before it was done";
                actions.push(Action::Settle(entry.inquiry, Outcome::Failed, text));
                actions.push(Action::Wake);
            }
        }
        actions
    }

    fn remove(&mut self, id: &str, except: Option<ClientId>, why: Why) -> Option<Entry> {
        let place = self.by_inbox.remove(id)?;
        let entry = self.entries.remove(&place)?;
        if let Some(name) = entry.inquiry.name() {
            self.by_name.remove(&name);
        }
        self.deadlines.remove(&(entry.inquiry.deadline, place));
        if let Some(at) = entry.not_before {
            self.held_back.remove(&(at, place));
        }
        if let Stage::Held(holder) | Stage::Answering(Some(holder)) = entry.stage {
            self.let_go(holder);
            if except != Some(holder)
                && let Some(program) = self.programs.get_mut(&holder)
            {
                while program.withdrawn.len() >= HELD_MAX {
                    program.withdrawn.pop_first();
                }
                program.withdrawn.insert(id.to_owned(), why);
            }
        }
        Some(entry)
    }

    /// Forgets a message that is not in the inbox any more.
    pub(super) fn vanished(&mut self, id: &str) {
        self.remove(id, None, Why::Lost);
    }

    /// How many wait, and how many are worked at.
    pub(super) fn counts(&self) -> (u64, u64) {
        let waiting = self.entries.values().filter(|entry| entry.stage == Stage::Waiting).count();
        (waiting as u64, (self.entries.len() - waiting) as u64)
    }
}

#[cfg(test)]
mod tests;
