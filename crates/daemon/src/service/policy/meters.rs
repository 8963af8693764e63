//! What each peer has used up, without clock or lock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pilot_wire::NodeId;
use pilot_wire::policy::{Limit, PeerCount};

use super::bucket::{Bucket, Rate};

/// Peers that are counted at the same time. Beyond, the one that has been quiet longest is forgotten: its bucket has
/// most likely filled up again anyway.
const PEERS_MAX: usize = 4096;

/// Minutes' worth of messages and bytes that may come at once.
const BURST_MINUTES: u8 = 1;

/// Minutes' worth of automatic answers that may be given at once.
const ANSWER_BURST_MINUTES: u8 = 2;

/// The owner is told at most so often that one peer is held up.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The rates that hold for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) messages: Limit,
    pub(super) bytes: Limit,
}

#[derive(Debug)]
struct Meter {
    messages: Bucket,
    bytes: Bucket,
    answers: Bucket,
    refused: u64,
    slowed: u64,
    answers_held: u64,
    /// When automatic answers go on.
    answers_again: Option<Instant>,
    told: Option<Instant>,
    used: Instant,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self {
            messages: Bucket::full(),
            bytes: Bucket::full(),
            answers: Bucket::full(),
            refused: 0,
            slowed: 0,
            answers_held: 0,
            answers_again: None,
            told: None,
            used: now,
        }
    }
}

/// Whether an automatic answer may be given now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was counted.
    Now,
    /// Not before so long. The owner is to be told if `tell`.
    Later { wait: Duration, tell: bool },
}

/// All peers.
#[derive(Debug, Default)]
pub(super) struct Meters {
    peers: BTreeMap<NodeId, Meter>,
}

impl Meters {
    fn peer(&mut self, now: Instant, node: NodeId) -> &mut Meter {
        if !self.peers.contains_key(&node) && self.peers.len() >= PEERS_MAX {
            let quietest = self.peers.iter().min_by_key(|(_, meter)| meter.used).map(|(node, _)| *node);
            quietest.map(|node| self.peers.remove(&node));
        }
        let meter = self.peers.entry(node).or_insert_with(|| Meter::new(now));
        meter.used = now;
        meter
    }

    /// How long a peer has to wait for its next message or piece of a file.
    pub(super) fn wait(&mut self, now: Instant, node: NodeId, rates: Rates) -> Duration {
        let meter = self.peer(now, node);
        let wait_for = |bucket: &Bucket, limit| match limit {
            Limit::Unlimited => Duration::ZERO,
            Limit::Of(per_min) => bucket.wait(now, Rate::new(per_min, BURST_MINUTES)),
        };
        wait_for(&meter.messages, rates.messages).max(wait_for(&meter.bytes, rates.bytes))
    }

    /// The peer had to wait.
    pub(super) fn slowed(&mut self, now: Instant, node: NodeId) {
        self.peer(now, node).slowed += 1;
    }

    /// A message, the beginning of a file, or a piece of one.
    pub(super) fn count(&mut self, now: Instant, node: NodeId, rates: Rates, messages: u64, bytes: u64) {
        let meter = self.peer(now, node);
        if let Limit::Of(per_min) = rates.messages {
            meter.messages.take(now, Rate::new(per_min, BURST_MINUTES), messages);
        }
        if let Limit::Of(per_min) = rates.bytes {
            meter.bytes.take(now, Rate::new(per_min, BURST_MINUTES), bytes);
        }
    }

    /// Something was refused to the peer.
    pub(super) fn refused(&mut self, now: Instant, node: NodeId) {
        self.peer(now, node).refused += 1;
    }

    /// An automatic answer is about to be given. `per_min` is at least 1.
    pub(super) fn answer(&mut self, now: Instant, node: NodeId, limit: Limit) -> Answer {
        let Limit::Of(per_min) = limit else { return Answer::Now };
        let rate = Rate::new(per_min, ANSWER_BURST_MINUTES);
        let wait = self.peer(now, node).answers.wait(now, rate);
        if wait.is_zero() {
            let meter = self.peer(now, node);
            meter.answers.take(now, rate, 1);
            meter.answers_again = None;
            return Answer::Now;
        }
        let tell = self.hold_answer(now, node);
        self.peer(now, node).answers_again = Some(now + wait);
        Answer::Later { wait, tell }
    }

    /// An answer is held back. Says whether the owner is to be told.
    pub(super) fn hold_answer(&mut self, now: Instant, node: NodeId) -> bool {
        let meter = self.peer(now, node);
        meter.answers_held += 1;
        let tell = meter.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
        if tell {
            meter.told = Some(now);
        }
        tell
    }

    /// Peers that were kept from something.
    pub(super) fn counts(&self, now: Instant) -> Vec<PeerCount> {
        let count = |(node, meter): (&NodeId, &Meter)| PeerCount {
            node: *node,
            refused: meter.refused,
            slowed: meter.slowed,
            answers_held: meter.answers_held,
            answers_again_ms: meter
                .answers_again
                .map(|again| again.saturating_duration_since(now))
                .filter(|wait| !wait.is_zero())
                .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        };
        let noteworthy = |count: &PeerCount| count.refused + count.slowed + count.answers_held > 0;
        self.peers.iter().map(count).filter(noteworthy).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        Instant::now()
    }

    const PEER: NodeId = NodeId(2);

    #[test]
    fn two_agents_that_answer_each_other_for_ever_get_the_rate_and_the_owner_one_word_a_minute() {
        let (mut meters, start) = (Meters::default(), start());
        let (mut now, mut given, mut told) = (start, 0_u32, 0_u32);
        let end = start + Duration::from_secs(600);
        while now < end {
            match meters.answer(now, PEER, Limit::Of(60)) {
                Answer::Now => given += 1,
                Answer::Later { wait, tell } => {
                    told += u32::from(tell);
                    assert!(meters.counts(now)[0].answers_again_ms.is_some());
                    now += wait;
                }
            }
        }
        assert!((718..=721).contains(&given), "120 at once and 60 a minute: {given}");
        assert!((9..=10).contains(&told), "{told}");
        // It goes on by itself.
        assert_eq!(meters.answer(end + Duration::from_secs(60), PEER, Limit::Of(60)), Answer::Now);
        assert_eq!(meters.counts(end + Duration::from_secs(60))[0].answers_again_ms, None);
    }

    #[test]
    fn one_peer_does_not_use_up_anothers_allowance() {
        let (mut meters, now) = (Meters::default(), start());
        let rates = Rates { messages: Limit::Of(10), bytes: Limit::Unlimited };
        meters.count(now, PEER, rates, 10, 1 << 40);
        assert!(meters.wait(now, PEER, rates) > Duration::from_secs(5));
        assert_eq!(meters.wait(now, NodeId(3), rates), Duration::ZERO);
    }

    #[test]
    fn bytes_count_like_messages() {
        let (mut meters, now) = (Meters::default(), start());
        let rates = Rates { messages: Limit::Unlimited, bytes: Limit::Of(6000) };
        meters.count(now, PEER, rates, 1, 6000);
        let wait = meters.wait(now, PEER, rates);
        assert!(wait > Duration::ZERO && wait < Duration::from_millis(100), "{wait:?}");
        meters.count(now, PEER, rates, 1, 1000);
        assert!(meters.wait(now, PEER, rates) >= Duration::from_secs(10));
    }

    #[test]
    fn peers_without_number_take_no_memory_without_end_and_those_that_are_busy_stay() {
        let (mut meters, start) = (Meters::default(), start());
        let rates = Rates { messages: Limit::Of(10), bytes: Limit::Unlimited };
        meters.count(start, PEER, rates, 10, 0);
        for number in 0..2 * PEERS_MAX {
            let now = start + Duration::from_micros(number as u64);
            meters.wait(now, NodeId(10 + number as u32), rates);
            assert!(meters.wait(now, PEER, rates) > Duration::ZERO);
        }
        assert_eq!(meters.peers.len(), PEERS_MAX);
    }
}
