//! Whom to visit next, and when: no input or output, no clock of its own.
//!
//! A node is visited when something is owed to it. A visit that failed is repeated after a pause, longer each time, or
//! as soon as the node is heard of; some nodes are waited for and not tried again until then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pilot_wire::NodeId;

/// Nodes that something is owed to. Those that come when the list is full are visited when they are heard of.
const OWED_MAX: usize = 8192;

/// Visits at the same time.
pub(super) const AT_ONCE: usize = 8;

/// First pause after a visit that failed. Also the least between two tries, however often the node is heard of.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing is owed to the node any more.
    Done,
    /// Something is, and it is worth trying again after a pause.
    Later,
    /// Something is, and it is not before the node is heard of.
    WhenHeardOf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// To be visited, not before this time.
    Due(Instant),
    /// Being visited; once more afterwards if something new came up.
    Visited { again: bool },
    /// Not before it is heard of.
    Awaited,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    standing: Standing,
    failures: u32,
    /// When the last visit failed.
    failed: Option<Instant>,
}

/// All nodes that something is owed to.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    nodes: BTreeMap<NodeId, Round>,
}

impl Rounds {
    /// Something new is owed to a node.
    pub(super) fn owe(&mut self, node: NodeId, now: Instant) {
        if self.nodes.len() >= OWED_MAX && !self.nodes.contains_key(&node) {
            return;
        }
        let round = self.nodes.entry(node).or_insert(Round {
            standing: Standing::Awaited,
            failures: 0,
            failed: None,
        });
        round.hurry(now);
    }

    /// A node was heard of, or the network around this host is another one. What is owed to it is brought now.
    pub(super) fn heard_of(&mut self, node: NodeId, now: Instant) {
        if let Some(round) = self.nodes.get_mut(&node) {
            round.failures = 0;
            round.hurry(now);
        }
    }

    /// The network around this host is another one: those who could not be reached may be reachable now.
    pub(super) fn network_changed(&mut self, now: Instant) {
        for round in self.nodes.values_mut() {
            round.failures = 0;
            round.hurry(now);
        }
    }

    /// Whom to visit now. The answer to it is [`Rounds::ended`].
    pub(super) fn next(&mut self, now: Instant) -> Option<NodeId> {
        let visited = |round: &Round| matches!(round.standing, Standing::Visited { .. });
        if self.nodes.values().filter(|round| visited(round)).count() >= AT_ONCE {
            return None;
        }
        let due = |round: &Round| match round.standing {
            Standing::Due(at) if at <= now => Some(at),
            Standing::Due(_) | Standing::Visited { .. } | Standing::Awaited => None,
        };
        let (node, round) = self
            .nodes
            .iter_mut()
            .filter_map(|(node, round)| due(round).map(|at| (at, node, round)))
            .min_by_key(|(at, node, _)| (*at, **node))
            .map(|(_, node, round)| (node, round))?;
        round.standing = Standing::Visited { again: false };
        Some(*node)
    }

    pub(super) fn ended(&mut self, node: NodeId, ended: Ended, now: Instant) {
        let Some(round) = self.nodes.get_mut(&node) else { return };
        let again = round.standing == Standing::Visited { again: true };
        match ended {
            Ended::Done if again => {
                *round = Round { standing: Standing::Due(now), failures: 0, failed: None }
            }
            Ended::Done => drop(self.nodes.remove(&node)),
            Ended::Later | Ended::WhenHeardOf => {
                round.failures = round.failures.saturating_add(1);
                round.failed = Some(now);
                round.standing = match ended {
                    Ended::WhenHeardOf if !again => Standing::Awaited,
                    Ended::WhenHeardOf | Ended::Later | Ended::Done => {
                        Standing::Due(now + round.pause(again))
                    }
                };
            }
        }
    }

    /// When somebody is due who is not yet. While as many are visited as may be, the end of a visit comes first.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.nodes
            .values()
            .filter_map(|round| match round.standing {
                Standing::Due(at) => Some(at),
                Standing::Visited { .. } | Standing::Awaited => None,
            })
            .min()
    }

    /// Whether a node is being visited, or about to be.
    pub(super) fn is_tried(&self, node: NodeId) -> bool {
        let tried = |round: &Round| round.standing != Standing::Awaited && round.failures == 0;
        self.nodes.get(&node).is_some_and(tried)
    }

    /// How often visits to a node have failed since it was last heard of.
    pub(super) fn failures(&self, node: NodeId) -> u32 {
        self.nodes.get(&node).map_or(0, |round| round.failures)
    }
}

impl Round {
    fn hurry(&mut self, now: Instant) {
        match &mut self.standing {
            Standing::Visited { again } => *again = true,
            Standing::Due(_) | Standing::Awaited => {
                let earliest = self.failed.map_or(now, |failed| now.max(failed + PAUSE_MIN));
                self.standing = match self.standing {
                    Standing::Due(at) => Standing::Due(at.min(earliest)),
                    Standing::Visited { .. } | Standing::Awaited => Standing::Due(earliest),
                };
            }
        }
    }

    fn pause(&self, again: bool) -> Duration {
        let doublings = if again { 0 } else { self.failures.saturating_sub(1).min(16) };
        PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_node_is_visited_once_for_all_that_is_owed_to_it() {
        let (mut rounds, now) = (Rounds::default(), Instant::now());
        rounds.owe(A, now);
        rounds.owe(A, now);
        assert_eq!(rounds.next(now), Some(A));
        assert_eq!(rounds.next(now), None);
        rounds.ended(A, Ended::Done, now);
        assert_eq!((rounds.next(now), rounds.wake_at()), (None, None));
        assert!(rounds.nodes.is_empty());
    }

    #[test]
    fn what_comes_up_during_a_visit_is_brought_by_another_one() {
        let (mut rounds, now) = (Rounds::default(), Instant::now());
        rounds.owe(A, now);
        assert_eq!(rounds.next(now), Some(A));
        rounds.owe(A, now);
        rounds.ended(A, Ended::Done, now);
        assert_eq!(rounds.next(now), Some(A));
    }

    #[test]
    fn pauses_grow_until_the_node_is_heard_of() {
        let (mut rounds, mut now) = (Rounds::default(), Instant::now());
        rounds.owe(A, now);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert_eq!(rounds.next(now), Some(A));
            rounds.ended(A, Ended::Later, now);
            assert_eq!(rounds.next(now), None);
            let at = rounds.wake_at().unwrap();
            pauses.push((at - now).as_secs());
            now = at;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert_eq!(rounds.next(now), Some(A));
        rounds.ended(A, Ended::Later, now);
        now += 5 * SECOND;
        rounds.heard_of(A, now);
        assert_eq!((rounds.failures(A), rounds.next(now)), (0, Some(A)));
    }

    #[test]
    fn a_node_that_is_heard_of_again_and_again_is_not_visited_more_than_once_a_second() {
        let (mut rounds, now) = (Rounds::default(), Instant::now());
        rounds.owe(A, now);
        rounds.next(now);
        rounds.heard_of(A, now);
        rounds.ended(A, Ended::Later, now);
        for _ in 0..10 {
            rounds.heard_of(A, now);
            assert_eq!(rounds.next(now), None);
        }
        assert_eq!(rounds.wake_at(), Some(now + SECOND));
    }

    #[test]
    fn some_are_not_tried_again_before_they_are_heard_of() {
        let (mut rounds, now) = (Rounds::default(), Instant::now());
        rounds.owe(A, now);
        rounds.next(now);
        rounds.ended(A, Ended::WhenHeardOf, now);
        let later = now + 3600 * SECOND;
        assert_eq!((rounds.next(later), rounds.wake_at()), (None, None));
        rounds.network_changed(later);
        assert_eq!(rounds.next(later), Some(A));
        rounds.heard_of(A, later);
        rounds.ended(A, Ended::WhenHeardOf, later);
        assert_eq!(rounds.next(later + SECOND), Some(A), "it was heard of meanwhile");
    }

    #[test]
    fn those_that_nothing_is_owed_to_are_not_visited() {
        let (mut rounds, now) = (Rounds::default(), Instant::now());
        rounds.heard_of(A, now);
        rounds.network_changed(now);
        assert_eq!(rounds.next(now), None);
    }

    #[test]
    fn few_are_visited_at_the_same_time_the_longest_due_first() {
        let (mut rounds, now) = (Rounds::default(), Instant::now());
        rounds.owe(B, now);
        rounds.owe(A, now + SECOND);
        assert_eq!(rounds.next(now + SECOND), Some(B));
        for node in 10..30 {
            rounds.owe(NodeId(node), now + 2 * SECOND);
        }
        let begun = std::iter::from_fn(|| rounds.next(now + 2 * SECOND)).count();
        assert_eq!(begun, AT_ONCE - 1);
        rounds.ended(B, Ended::Done, now + 2 * SECOND);
        assert!(rounds.next(now + 2 * SECOND).is_some());
    }

    #[test]
    fn the_list_of_those_to_visit_has_an_end() {
        let (mut rounds, now) = (Rounds::default(), Instant::now());
        for node in 0..=OWED_MAX as u32 {
            rounds.owe(NodeId(node), now);
        }
        assert_eq!(rounds.nodes.len(), OWED_MAX);
    }
}
