//! Messages for a peer that cannot be reached are left with a mailbox of that peer, too.
//!
//! They stay here and are tried directly as before, until the peer has them from either. A mailbox always has a beginning
//! of what waits for the peer, and gets the rest in order: so whatever comes from it, and whatever comes directly, comes in
//! order, and what comes second is known by its id. When another mailbox takes over, it gets everything that waits.

use std::time::{Duration, Instant};

use pilot_wire::{Addr, NodeId};

use super::super::entry::{Left, Now, Seq, millis};
use super::super::lane::{Lane, Letter, Track};
use super::carrying::letter;
use super::{Change, Known, Ledger};

/// Peers whose messages are brought to mailboxes at the same time.
const LEAVING_AT_ONCE: usize = 8;

/// First pause after no mailbox took anything.
const PAUSE_MIN: Duration = Duration::from_secs(2);

/// Longest such pause; a sign of life of a mailbox ends it.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// If the peer has said nothing for so long, the mailbox may have lost what it had, and is given it once more.
const ONCE_MORE: Duration = Duration::from_secs(24 * 3600);

/// What is said of a message that was left with a mailbox and not heard of again.
pub(super) fn perhaps(left: Left) -> String {
    format!("it was left with mailbox {}, and may arrive or have arrived", Addr::backbone(left.mailbox))
}

/// How an attempt to leave messages of one peer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum LeftOff {
    /// There is nothing left to leave, or the peer is there.
    Done,
    /// None of these mailboxes, if there are any, takes the next message.
    Stuck(Vec<NodeId>),
}

impl Lane {
    /// A message that was loaded from disk.
    pub(super) fn was_left(&mut self, seq: Seq, left: Option<Left>) {
        if let Some(left) = left
            && self.leaving.last.is_none_or(|(mailbox, _)| mailbox == left.mailbox)
        {
            self.leaving.last = Some((left.mailbox, seq));
        }
    }

    /// A mailbox that took nothing may do so now.
    pub(super) fn on_sign_of_mailbox(&mut self, node: Option<NodeId>) {
        if node.is_none_or(|node| self.leaving.tried.contains(&node)) {
            self.leaving.not_before = None;
        }
    }

    /// The first message that this mailbox does not have.
    fn next_for(&self, mailbox: NodeId, durable: Seq) -> Option<Seq> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = match self.leaving.last {
            Some((has_some, last)) if has_some == mailbox => Excluded(last),
            Some(_) | None => Unbounded,
        };
        self.queue.range((after, Unbounded)).next().copied().filter(|seq| *seq <= durable)
    }

    fn has_to_leave(&self, durable: Seq) -> bool {
        match self.leaving.last {
            Some((mailbox, _)) => self.next_for(mailbox, durable).is_some(),
            None => self.queue.first().is_some_and(|first| *first <= durable),
        }
    }
}

impl Ledger {
    /// Peers whose messages are to be brought to mailboxes now. Each ends with [`Ledger::on_left_off`].
    pub(in super::super) fn leave_due(&mut self, now: Now) -> Vec<NodeId> {
        let mut room = LEAVING_AT_ONCE.saturating_sub(self.leaving());
        let mut peers = Vec::new();
        for (node, due) in self.leaves(now) {
            if due.is_none_or(|due| due <= now.instant) && room > 0 {
                room -= 1;
                peers.push(node);
            }
        }
        for node in &peers {
            if let Some(lane) = self.lanes.get_mut(&(*node, Track::Messages)) {
                lane.leaving.busy = true;
            }
        }
        peers
    }

    /// When to ask for [`Ledger::leave_due`] next, if nothing happens before.
    pub(in super::super) fn next_leaving(&self, now: Now) -> Option<Instant> {
        if self.leaving() >= LEAVING_AT_ONCE {
            return None;
        }
        self.leaves(now).map(|(_, due)| due.unwrap_or(now.instant)).min()
    }

    fn leaving(&self) -> usize {
        self.lanes.values().filter(|lane| lane.leaving.busy).count()
    }

    /// Peers that are away and have messages for a mailbox, and when these are to be brought there.
    fn leaves(&self, now: Now) -> impl Iterator<Item = (NodeId, Option<Instant>)> {
        let away = self.lanes.iter().filter(|(key, lane)| {
            // A receiver of another make could not open them.
            let other_make = matches!(self.known.get(&key.0), Some(Known::Tagged | Known::Untagged));
            key.1 == Track::Messages && lane.away && !lane.leaving.busy && !other_make
        });
        away.filter_map(move |(key, lane)| {
            let not_before = lane.leaving.not_before;
            if lane.has_to_leave(self.durable) {
                return Some((key.0, not_before));
            }
            let at = self.once_more(lane)?;
            let due = now.instant + Duration::from_millis(at.saturating_sub(now.wall));
            Some((key.0, Some(not_before.map_or(due, |not_before| not_before.max(due)))))
        })
    }

    /// When what a mailbox has already is to be brought there once more.
    fn once_more(&self, lane: &Lane) -> Option<u64> {
        let first = self.entries.get(lane.queue.first()?)?;
        Some(first.record.left?.at.saturating_add(millis(ONCE_MORE)))
    }

    /// The mailboxes of a peer in the order in which they are tried: first the one that has messages already.
    pub(in super::super) fn in_order(
        &mut self,
        peer: NodeId,
        mut mailboxes: Vec<NodeId>,
        now: Now,
    ) -> Vec<NodeId> {
        let key = (peer, Track::Messages);
        let once_more = self.lanes.get(&key).and_then(|lane| self.once_more(lane));
        let Some(lane) = self.lanes.get_mut(&key) else { return Vec::new() };
        if once_more.is_some_and(|at| at <= now.wall) {
            lane.leaving.last = None;
        }
        if let Some((has_some, _)) = lane.leaving.last {
            mailboxes.sort_by_key(|mailbox| *mailbox != has_some);
        }
        mailboxes
    }

    /// The next message for a mailbox of a peer that is away, and for how long it is of use.
    pub(in super::super) fn next_to_leave(
        &mut self,
        peer: NodeId,
        mailbox: NodeId,
        now: Now,
    ) -> Option<(Box<Letter>, Duration)> {
        loop {
            let lane = self.lanes.get(&(peer, Track::Messages)).filter(|lane| lane.away)?;
            let seq = lane.next_for(mailbox, self.durable)?;
            let entry = self.entries.get(&seq)?;
            if entry.cancelled {
                // It is settled when its connection ends.
                return None;
            }
            let ttl = entry.record.expires.saturating_sub(now.wall);
            if ttl == 0 {
                // One that is under way ends with its connection.
                if entry.under_way {
                    return None;
                }
                self.expire(seq, now);
                continue;
            }
            let mut letter = letter(seq, entry, true, now);
            // What a mailbox brings is no row on one connection.
            letter.extension.ordered = false;
            return Some((Box::new(letter), Duration::from_millis(ttl)));
        }
    }

    /// The mailbox has it.
    pub(in super::super) fn on_left(&mut self, peer: NodeId, seq: Seq, mailbox: NodeId, now: Now) {
        if let Some(lane) = self.lanes.get_mut(&(peer, Track::Messages)) {
            lane.leaving.last = Some((mailbox, seq));
            lane.leaving.failures = 0;
        }
        let Some(entry) = self.entries.get_mut(&seq).filter(|entry| entry.is_pending()) else { return };
        if entry.record.left.is_none() {
            entry.record.state_at = now.wall;
        }
        entry.record.left = Some(Left { mailbox, at: now.wall });
        let record = Box::new(entry.record.clone());
        self.effects.moved.insert(seq);
        match self.effects.changes.get_mut(&seq) {
            Some(Change::New(new, _)) => *new = record,
            Some(_) | None => drop(self.effects.changes.insert(seq, Change::Update(record))),
        }
    }

    /// Nothing more is brought to mailboxes of this peer for now.
    pub(in super::super) fn on_left_off(&mut self, peer: NodeId, left_off: LeftOff, now: Now) {
        self.effects.look = true;
        let Some(lane) = self.lanes.get_mut(&(peer, Track::Messages)) else { return };
        let leaving = &mut lane.leaving;
        leaving.busy = false;
        match left_off {
            LeftOff::Done => {
                leaving.failures = 0;
                leaving.not_before = None;
                leaving.tried.clear();
            }
            LeftOff::Stuck(tried) => {
                leaving.failures = leaving.failures.saturating_add(1);
                let doublings = leaving.failures.saturating_sub(1).min(16);
                let pause = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
                leaving.not_before = Some(now.instant + pause);
                leaving.tried = tried;
            }
        }
    }
}
