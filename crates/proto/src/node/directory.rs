//! What the registry said, for as long as it is believed, and what it has been asked.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use pilot_wire::{NodeId, PublicKey};

use crate::{Query, QueryId};

/// Questions without an answer at one time. Strangers can cause some (whose key is this?), so beyond this new
/// ones are dropped; those who need the answer ask again.
pub(super) const ASKED_MAX: usize = 512;

/// Nodes about which something is remembered. Beyond this the oldest entries go.
pub(super) const KNOWN_MAX: usize = 8192;

/// How long a key is believed without asking again. A node that changed its key is noticed at once, because
/// its exchange does not fit.
const KEY_LIFE: Duration = Duration::from_secs(30 * 60);

/// How long the registry's word about trust is believed.
const TRUST_LIFE: Duration = Duration::from_secs(60);

/// How long a refusal is believed, so that a stranger who keeps knocking does not keep the registry busy.
const REFUSAL_LIFE: Duration = Duration::from_secs(3);

/// How long a question that the registry did not answer is not asked again: well below the time that a dial has.
const SILENCE_LIFE: Duration = Duration::from_millis(250);

/// An answer that may not be there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup<T> {
    Known(T),
    Asking,
    Refused,
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    next: u64,
    asked: BTreeMap<Query, QueryId>,
    by_id: BTreeMap<QueryId, Query>,
    outbox: VecDeque<(QueryId, Query)>,
    keys: Memory<PublicKey>,
    trusted: Memory<bool>,
}

impl Directory {
    /// Open questions, and what is remembered of the larger kind of answers.
    pub(super) fn lens(&self) -> (usize, usize) {
        (self.asked.len(), self.keys.by_node.len().max(self.trusted.by_node.len()))
    }

    /// Asks, unless the same question is open. `false` when too much is open.
    pub(super) fn ask(&mut self, query: Query) -> bool {
        if self.asked.contains_key(&query) {
            return true;
        }
        if self.asked.len() >= ASKED_MAX {
            return false;
        }
        self.next += 1;
        let id = QueryId(self.next);
        self.asked.insert(query.clone(), id);
        self.by_id.insert(id, query.clone());
        self.outbox.push_back((id, query));
        true
    }

    /// Whether it takes a question to the registry to find out who a node is, and whether it is trusted unless it is
    /// `admitted` anyway.
    pub(super) fn would_ask(&self, now: Instant, node: NodeId, admitted: bool) -> bool {
        let open = |query: Query| !self.asked.contains_key(&query);
        match self.trusted.get(now, node) {
            None if !admitted => open(Query::CheckTrust(node)),
            Some(None | Some(false)) if !admitted => false,
            None | Some(_) => self.keys.get(now, node).is_none() && open(Query::PeerKey(node)),
        }
    }

    /// Whether the answer to a question is awaited.
    pub(super) fn is_asking(&self, query: &Query) -> bool {
        self.asked.contains_key(query)
    }

    pub(super) fn poll(&mut self) -> Option<(QueryId, Query)> {
        self.outbox.pop_front()
    }

    /// Which question this was. `None` for an id that was never given out or is answered already.
    pub(super) fn answered(&mut self, id: QueryId) -> Option<Query> {
        let query = self.by_id.remove(&id)?;
        self.asked.remove(&query);
        Some(query)
    }

    pub(super) fn key(&mut self, now: Instant, node: NodeId) -> Lookup<PublicKey> {
        match self.keys.get(now, node) {
            Some(Some(key)) => Lookup::Known(key),
            Some(None) => Lookup::Refused,
            None if self.ask(Query::PeerKey(node)) => Lookup::Asking,
            None => Lookup::Refused,
        }
    }

    /// The key, if it is believed at present; nothing is asked.
    pub(super) fn known_key(&self, now: Instant, node: NodeId) -> Option<PublicKey> {
        self.keys.get(now, node).flatten()
    }

    pub(super) fn learned_key(&mut self, now: Instant, node: NodeId, key: Option<PublicKey>) {
        self.keys.put(now, node, key, if key.is_some() { KEY_LIFE } else { REFUSAL_LIFE });
    }

    /// The registry could not be asked. It may be back any moment, and somebody is waiting.
    pub(super) fn key_unanswered(&mut self, now: Instant, node: NodeId) {
        self.keys.put(now, node, None, SILENCE_LIFE);
    }

    /// Forgets a key that does not fit, unless it is so fresh that asking again would give the same.
    pub(super) fn doubt_key(&mut self, now: Instant, node: NodeId) -> bool {
        self.keys.forget_older_than(now, node, REFUSAL_LIFE)
    }

    /// Whether the registry counts the node as trusted. An answer that just expired is believed while the next
    /// is on its way.
    pub(super) fn is_trusted(&mut self, now: Instant, node: NodeId) -> Lookup<bool> {
        match self.trusted.get(now, node) {
            Some(Some(trusted)) => Lookup::Known(trusted),
            Some(None) => Lookup::Refused,
            None if self.ask(Query::CheckTrust(node)) => match self.trusted.get_stale(node) {
                Some(true) => Lookup::Known(true),
                Some(false) | None => Lookup::Asking,
            },
            None => Lookup::Refused,
        }
    }

    pub(super) fn learned_trust(&mut self, now: Instant, node: NodeId, trusted: Option<bool>) {
        let life = if trusted == Some(true) { TRUST_LIFE } else { REFUSAL_LIFE };
        self.trusted.put(now, node, trusted, life);
    }

    pub(super) fn forget_trust(&mut self, node: NodeId) {
        self.trusted.by_node.remove(&node);
    }
}

/// Answers by node. `None` as a value means that there was no answer.
#[derive(Debug)]
struct Memory<T> {
    by_node: BTreeMap<NodeId, Remembered<T>>,
}

#[derive(Debug)]
struct Remembered<T> {
    value: Option<T>,
    learned: Instant,
    expires: Instant,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { by_node: BTreeMap::new() }
    }
}

impl<T: Copy> Memory<T> {
    fn get(&self, now: Instant, node: NodeId) -> Option<Option<T>> {
        self.by_node.get(&node).filter(|known| known.expires > now).map(|known| known.value)
    }

    fn get_stale(&self, node: NodeId) -> Option<T> {
        self.by_node.get(&node).and_then(|known| known.value)
    }

    fn put(&mut self, now: Instant, node: NodeId, value: Option<T>, life: Duration) {
        if self.by_node.len() >= KNOWN_MAX && !self.by_node.contains_key(&node) {
            self.make_room(now);
        }
        self.by_node.insert(node, Remembered { value, learned: now, expires: now + life });
    }

    /// Forgets what is not believed any more, and the oldest if that is little: each search makes room for many.
    fn make_room(&mut self, now: Instant) {
        self.by_node.retain(|_, known| known.expires > now);
        let too_many = self.by_node.len().saturating_sub(KNOWN_MAX - KNOWN_MAX / 8);
        if too_many > 0 {
            let mut ages: Vec<_> = self.by_node.iter().map(|(&node, known)| (known.learned, node)).collect();
            let (oldest, ..) = ages.select_nth_unstable(too_many);
            for (_, node) in oldest {
                self.by_node.remove(node);
            }
        }
    }

    fn forget_older_than(&mut self, now: Instant, node: NodeId, age: Duration) -> bool {
        let old = self.by_node.get(&node).is_some_and(|known| known.learned + age <= now);
        if old {
            self.by_node.remove(&node);
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);
    const KEY: PublicKey = PublicKey::from_bytes([1; 32]);

    #[test]
    fn a_question_is_asked_once_until_it_is_answered() {
        let now = crate::testing::start();
        let mut directory = Directory::default();
        assert_eq!(directory.key(now, NODE), Lookup::Asking);
        assert_eq!(directory.key(now, NODE), Lookup::Asking);
        let (id, query) = directory.poll().unwrap();
        assert_eq!(directory.poll(), None);
        assert_eq!(directory.answered(id), Some(query));
        assert_eq!(directory.answered(id), None);
        directory.learned_key(now, NODE, Some(KEY));
        assert_eq!(directory.key(now, NODE), Lookup::Known(KEY));
        assert_eq!(directory.key(now + KEY_LIFE, NODE), Lookup::Asking);
    }

    #[test]
    fn a_refusal_is_believed_for_a_while() {
        let now = crate::testing::start();
        let mut directory = Directory::default();
        directory.learned_key(now, NODE, None);
        assert_eq!(directory.key(now, NODE), Lookup::Refused);
        assert_eq!(directory.key(now + REFUSAL_LIFE, NODE), Lookup::Asking);
        directory.key_unanswered(now, NODE);
        assert_eq!(directory.key(now, NODE), Lookup::Refused);
        let later = now + SILENCE_LIFE;
        assert_eq!(directory.key(later, NODE), Lookup::Asking, "a registry that was away may be back");
    }

    #[test]
    fn strangers_cannot_grow_the_memory_without_bound() {
        let now = crate::testing::start();
        let mut directory = Directory::default();
        for node in 0..20_000 {
            directory.key(now, NodeId(node));
            directory.learned_trust(now + Duration::from_millis(node.into()), NodeId(node), Some(false));
        }
        assert_eq!(directory.by_id.len(), ASKED_MAX);
        assert!((KNOWN_MAX / 2..=KNOWN_MAX).contains(&directory.trusted.by_node.len()));
        let kept = directory.trusted.by_node.keys().next();
        assert!(kept > Some(&NodeId(20_000 - 8192)), "the oldest went: {kept:?}");
    }
}
