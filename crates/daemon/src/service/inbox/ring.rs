//! The ids of messages that were stored, so that none is stored twice.
//!
//! A sender delivers in order and has at most 10,000 messages under way, so it repeats none that lies further back than
//! that. Twice as many are remembered of each sender, for as long as it takes; the oldest is forgotten first.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use pilot_crypto::Sha256;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::MessageId;

/// Ids remembered of one sender.
pub(super) const OF_SENDER_MAX: usize = 20_000;

/// Ids remembered in all.
pub(super) const ALL_MAX: usize = 200_000;

/// An id of a sender, in 16 bytes. Nobody can make two of one sender's ids alike but that sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Print(pub(super) u128);

impl Print {
    /// Of this id of this sender.
    pub(super) fn of(from: NodeId, id: &MessageId) -> Self {
        let mut text = from.0.to_be_bytes().to_vec();
        text.extend_from_slice(id.as_str().as_bytes());
        let digest = Sha256::digest(&text);
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self(u128::from_be_bytes(first))
    }
}

/// An id with its place in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) number: u64,
    pub(super) from: NodeId,
    pub(super) print: Print,
}

/// What is remembered.
#[derive(Debug)]
pub(super) struct Ring {
    prints: HashSet<Print>,
    /// Oldest first.
    of_sender: HashMap<NodeId, VecDeque<(u64, Print)>>,
    /// The oldest of each sender.
    oldest: BTreeMap<u64, NodeId>,
    next: u64,
    of_sender_max: usize,
    all_max: usize,
}

impl Ring {
    pub(super) fn new(of_sender_max: usize, all_max: usize) -> Self {
        Self {
            prints: HashSet::new(),
            of_sender: HashMap::new(),
            oldest: BTreeMap::new(),
            next: 0,
            of_sender_max,
            all_max,
        }
    }

    /// Whether this one was stored.
    pub(super) fn contains(&self, print: Print) -> bool {
        self.prints.contains(&print)
    }

    /// Takes over what was written down. Must be called in the order of numbers.
    pub(super) fn restore(&mut self, seen: Seen) {
        if self.prints.insert(seen.print) {
            let queue = self.of_sender.entry(seen.from).or_default();
            if queue.is_empty() {
                self.oldest.insert(seen.number, seen.from);
            }
            queue.push_back((seen.number, seen.print));
        }
        self.next = self.next.max(seen.number + 1);
    }

    /// Remembers one that is new, and says which are forgotten for it. `None` if it is known.
    pub(super) fn insert(&mut self, from: NodeId, print: Print) -> Option<(Seen, Vec<u64>)> {
        if self.contains(print) {
            return None;
        }
        let seen = Seen { number: self.next, from, print };
        self.restore(seen);
        let mut forgotten = Vec::new();
        if self.of_sender.get(&from).is_some_and(|queue| queue.len() > self.of_sender_max) {
            forgotten.extend(self.forget_oldest_of(from));
        }
        if self.prints.len() > self.all_max
            && let Some((_, &node)) = self.oldest.first_key_value()
        {
            forgotten.extend(self.forget_oldest_of(node));
        }
        Some((seen, forgotten))
    }

    fn forget_oldest_of(&mut self, node: NodeId) -> Option<u64> {
        let queue = self.of_sender.get_mut(&node)?;
        let (number, print) = queue.pop_front()?;
        self.prints.remove(&print);
        self.oldest.remove(&number);
        match queue.front() {
            Some((next, _)) => drop(self.oldest.insert(*next, node)),
            None => drop(self.of_sender.remove(&node)),
        }
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(from: u32, id: u32) -> Print {
        Print::of(NodeId(from), &format!("m-{id}").parse().unwrap())
    }

    #[test]
    fn the_oldest_of_a_sender_is_forgotten_first_and_others_are_left_alone() {
        let mut ring = Ring::new(3, 100);
        ring.insert(NodeId(2), print(2, 0));
        for id in 0..4 {
            ring.insert(NodeId(1), print(1, id));
        }
        let known: Vec<bool> = (0..4).map(|id| ring.contains(print(1, id))).collect();
        assert_eq!(known, [false, true, true, true]);
        assert!(ring.contains(print(2, 0)));
    }

    #[test]
    fn with_many_senders_the_oldest_of_all_goes() {
        let mut ring = Ring::new(10, 4);
        for sender in 0..6 {
            let (_, forgotten) = ring.insert(NodeId(sender), print(sender, 0)).unwrap();
            assert_eq!(forgotten, if sender < 4 { vec![] } else { vec![u64::from(sender) - 4] });
        }
        assert_eq!((ring.prints.len(), ring.of_sender.len(), ring.oldest.len()), (4, 4, 4));
    }

    #[test]
    fn what_is_restored_is_known_and_forgotten_in_the_same_order() {
        let mut first = Ring::new(3, 100);
        let mut written: Vec<Seen> =
            (0..3).filter_map(|id| first.insert(NodeId(1), print(1, id))).map(|(seen, _)| seen).collect();
        let mut again = Ring::new(3, 100);
        written.drain(..).for_each(|seen| again.restore(seen));
        assert!(again.insert(NodeId(1), print(1, 1)).is_none(), "known");
        let (seen, forgotten) = again.insert(NodeId(1), print(1, 9)).unwrap();
        assert_eq!((seen.number, forgotten), (3, vec![0]));
    }

    #[test]
    fn the_same_id_of_two_senders_is_two_messages() {
        assert_ne!(print(1, 7), print(2, 7));
        // The number has a fixed length, so no id can lend it a digit.
        assert_ne!(
            Print::of(NodeId(1), &"1m".parse().unwrap()),
            Print::of(NodeId(11), &"m".parse().unwrap())
        );
    }
}
