//! What is to be delivered, in which order and when it is tried, and what became of it: a state machine without disk,
//! network or clock.
//!
//! Whatever it wants done it leaves in [`Effects`]: what is to be written down, which carriers to start or nudge, and
//! which messages came further.

pub(super) mod carrying;
pub(super) mod leaving;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use pilot_wire::dataexchange::{Control, Delivery, MessageId, Receipt, ReceiptState};
use pilot_wire::outbox::{Item, State};
use pilot_wire::{Addr, NodeId};

use crate::trace::Span;

use super::entry::{Entry, Now, Place, Record, Seq, is_final, millis};
use super::lane::{
    LIVE_MAX, Lane, LaneKey, RECEIPTS_MAX, Run, Track, WORD_BYTES_MAX, WORD_LIFE, WORDS_MAX, Word,
};

/// What the outbox may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Messages that wait, and their bytes.
    pub(super) all: Usage,
    /// The same for one peer.
    pub(super) of_peer: Usage,
    /// Settled messages that can still be asked for; the oldest go first.
    pub(super) history: usize,
    /// For how long.
    pub(super) history_age: Duration,
    /// Bytes of messages that are kept in memory, too.
    pub(super) cached: usize,
    /// Carriers at the same time.
    pub(super) carriers: usize,
}

/// What a daemon allows itself.
pub(super) const LIMITS: Limits = Limits {
    all: Usage { count: 20_000, bytes: 1 << 30 },
    of_peer: Usage { count: 10_000, bytes: 256 << 20 },
    history: 10_000,
    history_age: Duration::from_secs(7 * 24 * 3600),
    cached: 4 << 20,
    carriers: 64,
};

/// Messages and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) count: u64,
    pub(super) bytes: u64,
}

impl Usage {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: u64) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn has_room(self, bytes: u64, limit: Self) -> bool {
        self.count < limit.count && self.bytes.saturating_add(bytes) <= limit.bytes
    }
}

/// Nodes of which is remembered what they are. Of more, it is found out again.
const KNOWN_MAX: usize = 4096;

/// What kind of receiver a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// One of our nodes: it stores in order, and tells what is read.
    Ours,
    /// It knows ids, and nothing else.
    Tagged,
    /// It does not know ids.
    Untagged,
}

/// Why a message was not taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// There is no room.
    Full {
        /// Whether only for this peer.
        of_peer: bool,
        /// What is there.
        usage: Usage,
    },
    /// The id belongs to a message for somebody else.
    OtherPeer(MessageId),
}

/// What is to be written down of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A new message, with its bytes when they go into the database.
    New(Box<Record>, Option<Bytes>),
    /// It came further; the bytes are needed no more when it is settled.
    Update(Box<Record>),
    /// It is forgotten.
    Remove(Place),
}

/// What the state machine wants done.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// To be written down, in the order of the messages.
    pub(super) changes: BTreeMap<Seq, Change>,
    /// Carriers that have something new to do.
    pub(super) nudged: BTreeSet<LaneKey>,
    /// Messages that came further.
    pub(super) moved: BTreeSet<Seq>,
    /// Messages that wait no more: delivered, or never to be.
    pub(super) over: BTreeSet<Seq>,
    /// A lane may want a carrier, or the next time to look has changed.
    pub(super) look: bool,
    /// There is room for live pieces again.
    pub(super) live_room: bool,
}

/// Where a live piece went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// To its carrier.
    Yes,
    /// Nowhere: too many wait.
    Full,
    /// Nowhere: the peer cannot be reached at once.
    Away,
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Ledger {
    limits: Limits,
    entries: BTreeMap<Seq, Entry>,
    ids: HashMap<MessageId, Seq>,
    lanes: BTreeMap<LaneKey, Lane>,
    usage: BTreeMap<NodeId, Usage>,
    in_all: Usage,
    /// By the time at which they expire.
    deadlines: BTreeSet<(u64, Seq)>,
    /// By the time at which they were settled.
    settled: BTreeSet<(u64, Seq)>,
    known: BTreeMap<NodeId, Known>,
    next: Seq,
    /// Everything up to here is on disk, and may be sent.
    durable: Seq,
    cached: usize,
    carriers: usize,
    /// Spreads the pauses.
    random: u32,
    pub(super) effects: Effects,
}

impl Ledger {
    pub(super) fn new(limits: Limits, seed: u32) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            ids: HashMap::new(),
            lanes: BTreeMap::new(),
            usage: BTreeMap::new(),
            in_all: Usage::default(),
            deadlines: BTreeSet::new(),
            settled: BTreeSet::new(),
            known: BTreeMap::new(),
            next: Seq(1),
            durable: Seq(0),
            cached: 0,
            carriers: 0,
            random: seed | 1,
            effects: Effects::default(),
        }
    }

    /// A message that was on disk when the daemon started.
    pub(super) fn load(&mut self, seq: Seq, record: Record) {
        self.next = self.next.max(Seq(seq.0 + 1));
        self.durable = self.durable.max(seq);
        self.insert(seq, Entry::new(record, None));
    }

    fn insert(&mut self, seq: Seq, entry: Entry) {
        let record = &entry.record;
        self.ids.insert(record.id.clone(), seq);
        if entry.is_pending() {
            self.in_all.add(record.bytes);
            self.usage.entry(record.to.node).or_default().add(record.bytes);
            self.deadlines.insert((record.expires, seq));
            let key = (record.to.node, Track::of(record.kind));
            let lane = self.lanes.entry(key).or_insert_with(|| Lane::new(record.to));
            lane.queue.insert(seq);
            lane.was_left(seq, record.left);
            self.effects.look = true;
        } else {
            self.settled.insert((record.state_at, seq));
        }
        self.entries.insert(seq, entry);
    }

    /// Whether a message of this length could be taken over now.
    pub(super) fn room(&self, node: NodeId, bytes: u64) -> Result<(), NotAdmitted> {
        let of_peer = self.usage.get(&node).copied().unwrap_or_default();
        if !of_peer.has_room(bytes, self.limits.of_peer) {
            return Err(NotAdmitted::Full { of_peer: true, usage: of_peer });
        }
        if !self.in_all.has_room(bytes, self.limits.all) {
            return Err(NotAdmitted::Full { of_peer: false, usage: self.in_all });
        }
        Ok(())
    }

    /// The message that has this id and goes to this node, if it was handed over before.
    pub(super) fn same(&self, id: &MessageId, to: NodeId) -> Result<Option<Seq>, NotAdmitted> {
        match self.ids.get(id).and_then(|seq| self.entries.get(seq).map(|entry| (*seq, entry))) {
            None => Ok(None),
            Some((seq, entry)) if entry.record.to.node == to => Ok(Some(seq)),
            Some(_) => Err(NotAdmitted::OtherPeer(id.clone())),
        }
    }

    /// Takes a message over. It is sent once [`Ledger::committed`] has heard of it. The same id again is the same
    /// message: `false` then.
    pub(super) fn admit(&mut self, record: Record, body: Option<Bytes>) -> Result<(Seq, bool), NotAdmitted> {
        if let Some(seq) = self.same(&record.id, record.to.node)? {
            return Ok((seq, false));
        }
        self.room(record.to.node, record.bytes)?;
        let seq = self.next;
        self.next = Seq(seq.0 + 1);
        let cached = body.clone().filter(|body| self.cached + body.len() <= self.limits.cached);
        self.cached += cached.as_ref().map_or(0, Bytes::len);
        self.effects.changes.insert(seq, Change::New(Box::new(record.clone()), body));
        self.insert(seq, Entry::new(record, cached));
        Ok((seq, true))
    }

    /// These changes are on disk.
    pub(super) fn committed(&mut self, changes: &BTreeMap<Seq, Change>) {
        for (seq, change) in changes {
            if !matches!(change, Change::New(..)) {
                continue;
            }
            self.durable = self.durable.max(*seq);
            if let Some(entry) = self.entries.get(seq) {
                let key = (entry.record.to.node, Track::of(entry.record.kind));
                self.attend(key);
            }
        }
    }

    /// These changes could not be written: new messages are forgotten, the rest is to be written again.
    pub(super) fn not_committed(&mut self, changes: BTreeMap<Seq, Change>) {
        for (seq, change) in changes {
            match change {
                Change::New(..) => self.forget(seq),
                Change::Update(_) | Change::Remove(_) => {
                    self.effects.changes.entry(seq).or_insert(change);
                }
            }
        }
    }

    /// Whether the message is on disk.
    pub(super) fn is_durable(&self, seq: Seq) -> bool {
        seq <= self.durable
    }

    /// The lane has something to do: its carrier is told, or one is looked for.
    fn attend(&mut self, key: LaneKey) {
        match self.lanes.get(&key).is_some_and(Lane::is_running) {
            true => drop(self.effects.nudged.insert(key)),
            false => self.effects.look = true,
        }
    }

    /// The entry is gone, as if it had never been.
    fn forget(&mut self, seq: Seq) {
        let Some(entry) = self.entries.get(&seq) else { return };
        if entry.is_pending() {
            self.leave_queue(seq);
        }
        let Some(entry) = self.entries.remove(&seq) else { return };
        self.settled.remove(&(entry.record.state_at, seq));
        self.ids.remove(&entry.record.id);
    }

    /// Frees what a pending message takes.
    fn leave_queue(&mut self, seq: Seq) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        let record = &entry.record;
        let node = record.to.node;
        self.in_all.remove(record.bytes);
        if let Some(usage) = self.usage.get_mut(&node) {
            usage.remove(record.bytes);
            if usage.count == 0 {
                self.usage.remove(&node);
            }
        }
        self.deadlines.remove(&(record.expires, seq));
        if let Some(lane) = self.lanes.get_mut(&(node, Track::of(record.kind))) {
            lane.queue.remove(&seq);
        }
        self.cached -= entry.cached.take().map_or(0, |body| body.len());
        entry.under_way = false;
    }

    /// A message comes as far as `state`, if it was not further already.
    fn settle(&mut self, seq: Seq, state: State, now: Now, change: impl FnOnce(&mut Record)) {
        let Some(entry) = self.entries.get(&seq) else { return };
        let before = entry.record.state;
        if is_final(before) || (!is_final(state) && state <= before) {
            return;
        }
        match entry.is_pending() {
            true => {
                self.leave_queue(seq);
                self.effects.over.insert(seq);
            }
            false => drop(self.settled.remove(&(entry.record.state_at, seq))),
        }
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        entry.record.state = state;
        entry.record.state_at = now.wall;
        change(&mut entry.record);
        self.settled.insert((now.wall, seq));
        let record = Box::new(entry.record.clone());
        self.effects.moved.insert(seq);
        match self.effects.changes.get_mut(&seq) {
            // Not even written yet: it is written as it is now, and whoever handed it over is told of that.
            Some(Change::New(new, _)) => *new = record,
            Some(_) | None => drop(self.effects.changes.insert(seq, Change::Update(record))),
        }
        self.trim(now);
    }

    /// Forgets settled messages that are too many or too old.
    fn trim(&mut self, now: Now) {
        let oldest = now.wall.saturating_sub(millis(self.limits.history_age));
        while let Some((at, seq)) = self.settled.first().copied()
            && (self.settled.len() > self.limits.history || at < oldest)
        {
            let place = self.entries.get(&seq).map_or(Place::Database, |entry| entry.record.place);
            self.forget(seq);
            self.effects.changes.insert(seq, Change::Remove(place));
        }
    }

    /// Lets time pass: what is over is settled, and the lanes that want a carrier are named. Each gets one.
    pub(super) fn look(&mut self, now: Now) -> Vec<LaneKey> {
        while let Some((at, seq)) = self.deadlines.first().copied()
            && at <= now.wall
        {
            self.deadlines.remove(&(at, seq));
            // One that is under way gets the answer that is to come, or ends with its connection.
            if self.entries.get(&seq).is_some_and(|entry| !entry.under_way) {
                self.expire(seq, now);
            }
        }
        self.trim(now);
        let durable = self.durable;
        for ((node, _), lane) in &mut self.lanes {
            lane.words.retain(|word| word.until > now.instant);
            // Words for a node of another make are never said; they must not call for a carrier either.
            if matches!(self.known.get(node), Some(Known::Tagged | Known::Untagged)) {
                lane.words.clear();
                lane.receipts.clear();
            }
        }
        self.lanes.retain(|_, lane| !lane.is_empty());
        let mut wanting: Vec<LaneKey> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.has_work(durable))
            .filter_map(|(key, lane)| match lane.run {
                Run::Idle(None) => Some((0, *key)),
                // Those that failed least come first, when not all can be tried at once.
                Run::Idle(Some(at)) if at <= now.instant => Some((lane.failures, *key)),
                Run::Idle(Some(_)) | Run::Dialing { .. } | Run::Connected => None,
            })
            .collect::<BTreeSet<(u32, LaneKey)>>()
            .into_iter()
            .map(|(_, key)| key)
            .collect();
        wanting.truncate(self.limits.carriers.saturating_sub(self.carriers));
        for key in &wanting {
            self.carriers += 1;
            if let Some(lane) = self.lanes.get_mut(key) {
                lane.run = Run::Dialing { again: false };
                lane.stopping = false;
                lane.written = None;
                lane.proven = false;
                lane.suspect_under_way = false;
            }
        }
        wanting
    }

    /// When to [`Ledger::look`] next, if nothing happens before.
    pub(super) fn next_look(&self, now: Now) -> Option<Instant> {
        let at_once = self.carriers < self.limits.carriers;
        let pauses =
            self.lanes.values().filter(|lane| at_once && lane.has_work(self.durable)).filter_map(|lane| {
                match lane.run {
                    Run::Idle(at) => Some(at.unwrap_or(now.instant)),
                    Run::Dialing { .. } | Run::Connected => None,
                }
            });
        let deadline = self
            .deadlines
            .first()
            .map(|(at, _)| now.instant + Duration::from_millis(at.saturating_sub(now.wall)));
        pauses.chain(deadline).min()
    }

    fn expire(&mut self, seq: Seq, now: Now) {
        let reason = self.lane_of(seq).and_then(|lane| lane.reason.clone());
        self.settle(seq, State::Expired, now, |record| {
            record.reason = record.left.map(leaving::perhaps).or(reason);
        });
    }

    fn lane_of(&self, seq: Seq) -> Option<&Lane> {
        let record = &self.entries.get(&seq)?.record;
        self.lanes.get(&(record.to.node, Track::of(record.kind)))
    }

    /// A peer was heard of (or, without one, all may be reachable now): pauses are over.
    pub(super) fn on_sign(&mut self, peer: Option<NodeId>) {
        for ((node, _), lane) in &mut self.lanes {
            lane.on_sign_of_mailbox(peer);
            if peer.is_some_and(|peer| peer != *node) {
                continue;
            }
            match &mut lane.run {
                Run::Idle(at) => *at = None,
                Run::Dialing { again } => *again = true,
                Run::Connected => {}
            }
        }
        self.effects.look = true;
    }

    /// What a peer says became of messages of ours. Only those that are for it count.
    pub(super) fn on_receipts(&mut self, from: NodeId, receipts: &[Receipt], now: Now) {
        self.know(from, Known::Ours);
        for receipt in receipts {
            let state = match receipt.state {
                ReceiptState::Stored => State::Stored,
                ReceiptState::Read => State::Read,
            };
            self.learn(from, &receipt.id, state, now);
        }
    }

    /// An answer to a message of ours came from this peer.
    pub(super) fn on_answer(&mut self, from: NodeId, id: &MessageId, now: Now) {
        self.learn(from, id, State::Answered, now);
    }

    fn learn(&mut self, from: NodeId, id: &MessageId, state: State, now: Now) {
        if let Ok(Some(seq)) = self.same(id, from)
            && self.is_durable(seq)
        {
            self.settle(seq, state, now, |_| {});
        }
    }

    fn know(&mut self, node: NodeId, known: Known) {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&node) {
            self.known.clear();
        }
        self.known.insert(node, known);
    }

    /// Takes a message back, if it is not stored yet. One that is under way may still arrive: its state tells.
    pub(super) fn cancel(&mut self, seq: Seq, now: Now) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        if !entry.is_pending() {
            return;
        }
        match entry.under_way {
            true => entry.cancelled = true,
            false => self.settle(seq, State::Cancelled, now, |record| {
                record.reason = record.left.map(leaving::perhaps);
            }),
        }
    }

    /// A word for a peer. It is dropped when too many wait.
    pub(super) fn tell(&mut self, to: Addr, control: Control, body: Bytes, now: Now) {
        if matches!(self.known.get(&to.node), Some(Known::Tagged | Known::Untagged)) {
            return;
        }
        let key = (to.node, Track::Messages);
        let lane = self.lanes.entry(key).or_insert_with(|| Lane::new(to));
        match control {
            Control::Receipts { receipts } => {
                let room = RECEIPTS_MAX.saturating_sub(lane.receipts.len());
                lane.receipts.extend(receipts.into_iter().take(room));
            }
            control @ (Control::Cancel { .. }
            | Control::Keeps
            | Control::Mailboxes { .. }
            | Control::Deposit { .. }
            | Control::Forward { .. }
            | Control::Transfer { .. }) => {
                let waiting: usize = lane.words.iter().map(|word| word.body.len()).sum();
                if lane.words.len() < WORDS_MAX && (waiting + body.len() <= WORD_BYTES_MAX || waiting == 0) {
                    lane.words.push_back(Word { control, body, until: now.instant + WORD_LIFE });
                }
            }
        }
        self.attend(key);
    }

    /// A live piece for a peer.
    pub(super) fn live(&mut self, to: Addr, delivery: Delivery) -> (Taken, Option<Delivery>) {
        let key = (to.node, Track::Messages);
        let lane = self.lanes.entry(key).or_insert_with(|| Lane::new(to));
        if lane.stopping || matches!(lane.run, Run::Idle(Some(_))) {
            return (Taken::Away, None);
        }
        if lane.live.len() >= LIVE_MAX {
            return (Taken::Full, Some(delivery));
        }
        lane.live.push_back(delivery);
        self.attend(key);
        (Taken::Yes, None)
    }

    /// Where a lane leads.
    pub(super) fn address(&self, key: LaneKey) -> Addr {
        self.lanes.get(&key).map_or(Addr::backbone(key.0), |lane| lane.to)
    }

    /// The message with this id.
    pub(super) fn find(&self, id: &MessageId) -> Option<Seq> {
        self.ids.get(id).copied().filter(|seq| self.is_durable(*seq))
    }

    /// A message as applications see it.
    pub(super) fn item(&self, seq: Seq, now: Now) -> Option<Item> {
        let entry = self.entries.get(&seq)?;
        let lane = self.lane_of(seq);
        let next_try = lane.and_then(|lane| match lane.run {
            Run::Idle(at) => Some(at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now.instant))),
            Run::Dialing { .. } | Run::Connected => None,
        });
        Some(entry.item(is_connected(lane), lane.and_then(|lane| lane.reason.as_deref()), next_try))
    }

    /// Whether it came as far as `until`, or never will.
    pub(super) fn has_reached(&self, seq: Seq, until: State) -> bool {
        let Some(entry) = self.entries.get(&seq) else { return true };
        if until == State::Sent && entry.is_pending() && entry.record.left.is_none() {
            // What goes out with the dial is on its way once there is a connection.
            return entry.under_way && self.lane_of(seq).is_some_and(|lane| lane.run == Run::Connected);
        }
        let silent = match self.known.get(&entry.record.to.node) {
            // It never tells what is read, ...
            Some(Known::Tagged) => until == State::Read,
            // ... nor can an answer of it name the message.
            Some(Known::Untagged) => until > State::Stored,
            Some(Known::Ours) | None => false,
        };
        let state = entry.state(is_connected(self.lane_of(seq)));
        is_final(state) || state >= until || (silent && state >= State::Stored)
    }

    /// The newest messages, oldest of them first.
    pub(super) fn list(&self, to: Option<NodeId>, pending: bool, limit: usize, now: Now) -> Vec<Item> {
        let wanted = |entry: &Entry| {
            to.is_none_or(|node| entry.record.to.node == node) && (!pending || entry.is_pending())
        };
        let durable = self.entries.range(..=self.durable);
        let newest = durable.rev().filter(|(_, entry)| wanted(entry)).take(limit);
        let mut items: Vec<Item> = newest.filter_map(|(seq, _)| self.item(*seq, now)).collect();
        items.reverse();
        items
    }

    /// How the delivery of a message went that is over.
    pub(super) fn delivery(&self, seq: Seq) -> Option<Span> {
        let Entry { record, attempts, .. } = self.entries.get(&seq)?;
        let failed = matches!(record.state, State::Expired | State::Refused | State::Cancelled);
        let why = failed.then(|| record.reason.clone().unwrap_or_else(|| "it was taken back".to_owned()));
        let created = UNIX_EPOCH + Duration::from_millis(record.created);
        let span = Span::between("pilot.message", created)
            .with("pilot.peer", record.to.to_string())
            .with("pilot.message_id", record.id.to_string())
            .with("pilot.bytes", record.bytes)
            .with("pilot.attempts", u64::from(*attempts));
        Some(span.failed(why))
    }

    /// Messages that wait, and their bytes.
    pub(super) fn pending(&self) -> Usage {
        self.in_all
    }

    /// Numbers of the body files that are still needed.
    pub(super) fn files(&self) -> BTreeSet<u64> {
        self.entries
            .values()
            .filter(|entry| entry.is_pending())
            .filter_map(|entry| match entry.record.place {
                Place::File(number) => Some(number),
                Place::Database => None,
            })
            .collect()
    }

    /// What a peer was found to be.
    #[cfg(test)]
    pub(super) fn known(&self, node: NodeId) -> Option<Known> {
        self.known.get(&node).copied()
    }

    /// For pauses: xorshift, which needs no more quality than that.
    fn random(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random
    }
}

fn is_connected(lane: Option<&Lane>) -> bool {
    lane.is_some_and(|lane| lane.run == Run::Connected)
}
