//! Which requests were answered, and the answers that are given again: to a second request under the same key.
//!
//! The rules are here, without a disk; [`Disk`](super::disk::Disk) keeps the entries.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::{MessageId, Outcome};
use pilot_wire::outbox::Kind;
use serde::{Deserialize, Serialize};

/// Answered requests remembered, as many as the inbox holds messages. Of more, the oldest is forgotten.
pub(super) const ENTRIES_MAX: usize = 10_000;

/// Bytes of the answers that are kept to be given again. Of more, the oldest ones are forgotten.
pub(super) const BYTES_MAX: usize = 64 << 20;

/// For how long an answer is remembered: longer than any request is worked at.
pub(super) const MEMORY: Duration = Duration::from_secs(25 * 3600);

/// What names an entry: a sender, and its id or key.
pub(super) type Name = (NodeId, MessageId);

/// An answer that is given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) outcome: Outcome,
    pub(super) kind: Kind,
    pub(super) body: Bytes,
    pub(super) hops: u8,
}

/// One answered request, or one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// When, in milliseconds since 1970.
    pub(super) at: u64,
    /// The answer, under a key only.
    pub(super) answer: Option<Kept>,
}

/// The two kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Shelf {
    /// By the id of the request.
    Answered,
    /// By the key of the request.
    Key,
}

/// Everything that is remembered.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<(Shelf, Name), Entry>,
    order: VecDeque<(u64, Shelf, Name)>,
    bytes: usize,
}

impl Book {
    /// Whether a request was answered.
    pub(super) fn is_answered(&self, name: &Name) -> bool {
        self.entries.contains_key(&(Shelf::Answered, name.clone()))
    }

    /// The answer under a key.
    pub(super) fn under(&self, key: &Name, now: u64) -> Option<&Kept> {
        let entry = self.entries.get(&(Shelf::Key, key.clone()))?;
        entry.answer.as_ref().filter(|_| !is_old(entry.at, now))
    }

    /// Remembers an entry; returns those that are forgotten for it.
    pub(super) fn insert(&mut self, shelf: Shelf, name: Name, entry: Entry, now: u64) -> Vec<(Shelf, Name)> {
        self.bytes += length(&entry);
        self.order.push_back((entry.at, shelf, name.clone()));
        if let Some(before) = self.entries.insert((shelf, name), entry) {
            self.bytes -= length(&before);
        }
        let mut forgotten = Vec::new();
        while let Some((at, _, _)) = self.order.front() {
            let is_too_many = self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX;
            if !is_too_many && !is_old(*at, now) {
                break;
            }
            let Some((at, shelf, name)) = self.order.pop_front() else { break };
            let key = (shelf, name);
            // An entry that was renewed stands in the order again, further behind.
            if self.entries.get(&key).is_some_and(|entry| entry.at == at)
                && let Some(entry) = self.entries.remove(&key)
            {
                self.bytes -= length(&entry);
                forgotten.push(key);
            }
        }
        forgotten
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

fn length(entry: &Entry) -> usize {
    entry.answer.as_ref().map_or(0, |answer| answer.body.len())
}

fn is_old(at: u64, now: u64) -> bool {
    u128::from(now.saturating_sub(at)) > MEMORY.as_millis()
}

/// Whether an answer is that of all requests under the same key. What was not begun, or taken back, may be tried again.
pub(super) const fn is_final(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Done | Outcome::Failed => true,
        Outcome::Cancelled | Outcome::Declined => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        (NodeId(1), text.parse().unwrap())
    }

    fn entry(at: u64, body: &'static [u8]) -> Entry {
        let body = Bytes::from_static(body);
        Entry { at, answer: Some(Kept { outcome: Outcome::Done, kind: Kind::Text, body, hops: 1 }) }
    }

    #[test]
    fn an_answer_is_found_under_its_key_of_its_sender_until_it_is_old() {
        let mut book = Book::default();
        book.insert(Shelf::Key, name("k"), entry(1000, b"42"), 1000);
        let memory = u64::try_from(MEMORY.as_millis()).unwrap();
        assert_eq!(&book.under(&name("k"), 1000 + memory).unwrap().body[..], b"42");
        assert_eq!(book.under(&name("k"), 1001 + memory), None);
        assert_eq!(book.under(&(NodeId(2), "k".parse().unwrap()), 1000), None);
        assert!(!book.is_answered(&name("k")), "a key is no request");
    }

    #[test]
    fn of_too_many_entries_the_oldest_is_forgotten() {
        let mut book = Book::default();
        for at in 0..ENTRIES_MAX {
            let entry = Entry { at: at as u64, answer: None };
            assert_eq!(book.insert(Shelf::Answered, name(&format!("m-{at}")), entry, 0), []);
        }
        let forgotten = book.insert(Shelf::Answered, name("more"), Entry { at: 20_000, answer: None }, 0);
        assert_eq!(forgotten, [(Shelf::Answered, name("m-0"))]);
        assert_eq!(book.len(), ENTRIES_MAX);
    }

    #[test]
    fn an_entry_that_was_renewed_is_as_young_as_its_renewal() {
        let mut book = Book::default();
        book.insert(Shelf::Key, name("k"), entry(1, b"one"), 1);
        book.insert(Shelf::Key, name("k"), entry(5000, b"two"), 5000);
        let memory = u64::try_from(MEMORY.as_millis()).unwrap();
        assert_eq!(book.insert(Shelf::Key, name("l"), entry(2000 + memory, b"x"), 2000 + memory), []);
        assert_eq!(&book.under(&name("k"), 2000 + memory).unwrap().body[..], b"two");
        assert_eq!(book.bytes, 4);
    }

    #[test]
    fn only_an_end_of_the_work_is_an_answer_for_all() {
        assert!(is_final(Outcome::Done) && is_final(Outcome::Failed));
        assert!(!is_final(Outcome::Cancelled) && !is_final(Outcome::Declined));
    }
}
