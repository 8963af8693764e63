//! The last events published at this broker, in memory: they end with the daemon.

use std::collections::VecDeque;
use std::sync::Arc;

use pilot_wire::events::Position;
use pilot_wire::ipc::HistoryStatus;

use super::published::Published;

/// Events kept. The oldest is forgotten first, whatever its topic, so that what is kept has no holes.
const HISTORY_EVENTS: usize = 1000;

/// Bytes of events kept, with the same effect.
const HISTORY_BYTES: usize = 4 << 20;

/// Events that were asked for and are not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forgotten {
    /// How many. Some may have been of other topics.
    pub(super) events: u64,
}

/// The numbers of this broker's events, and the last of them.
pub(super) struct History {
    epoch: u64,
    /// The number of the newest event.
    newest: u64,
    kept: VecDeque<Arc<Published>>,
    bytes: usize,
}

impl History {
    /// An empty one of a broker that started at this Unix time in nanoseconds.
    pub(super) fn new(epoch: u64) -> Self {
        Self { epoch, newest: 0, kept: VecDeque::new(), bytes: 0 }
    }

    /// Where the newest event stands.
    pub(super) fn head(&self) -> Position {
        Position { epoch: self.epoch, seq: self.newest }
    }

    /// The place of the next event, which is to be added.
    pub(super) fn next(&mut self) -> Position {
        self.newest += 1;
        self.head()
    }

    /// Adds the event that has the place given last.
    pub(super) fn add(&mut self, event: Arc<Published>) {
        self.bytes += event.frame.len();
        self.kept.push_back(event);
        while self.kept.len() > HISTORY_EVENTS || self.bytes > HISTORY_BYTES {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= oldest.frame.len();
        }
    }

    /// The last `count` events that `wanted` says yes to, oldest first.
    pub(super) fn last(&self, count: usize, wanted: impl Fn(&Published) -> bool) -> Vec<Arc<Published>> {
        let mut found: Vec<_> =
            self.kept.iter().rev().filter(|event| wanted(event)).take(count).cloned().collect();
        found.reverse();
        found
    }

    /// The events after `position` that `wanted` says yes to, and what is missing before the first of them. A place in
    /// another life of the broker lies before everything in this one.
    pub(super) fn after(
        &self,
        position: Position,
        wanted: impl Fn(&Published) -> bool,
    ) -> (Vec<Arc<Published>>, Option<Forgotten>) {
        let after = if position.epoch == self.epoch { position.seq } else { 0 };
        let oldest = self.oldest();
        let forgotten = oldest.saturating_sub(after.saturating_add(1));
        let is_after = |event: &Arc<Published>| event.at().is_some_and(|at| at.seq > after);
        let found = self.kept.iter().filter(|event| is_after(event) && wanted(event)).cloned().collect();
        (found, (forgotten > 0).then_some(Forgotten { events: forgotten }))
    }

    /// The number of the oldest event kept, or of the next one.
    fn oldest(&self) -> u64 {
        self.newest + 1 - self.kept.len() as u64
    }

    pub(super) fn status(&self) -> HistoryStatus {
        HistoryStatus {
            events: self.kept.len() as u64,
            bytes: self.bytes as u64,
            max_events: HISTORY_EVENTS as u64,
            max_bytes: HISTORY_BYTES as u64,
            oldest: (!self.kept.is_empty()).then(|| self.oldest()),
            newest: self.newest,
            epoch: self.epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilot_wire::events::{Event, Source};

    fn publish(history: &mut History, topic: &str, payload: Vec<u8>) {
        let source = Source { at: Some(history.next()), ..Source::default() };
        let event = Event::new(topic, payload).unwrap();
        history.add(Arc::new(Published::new(&event, source, None, None)));
    }

    fn numbers(events: &[Arc<Published>]) -> Vec<u64> {
        events.iter().map(|event| event.at().unwrap().seq).collect()
    }

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch, seq }
    }

    #[test]
    fn the_last_events_of_a_topic_come_oldest_first() {
        let mut history = History::new(7);
        for number in 0..10 {
            publish(&mut history, if number % 2 == 0 { "even" } else { "odd" }, vec![]);
        }
        assert_eq!(numbers(&history.last(2, |event| event.topic == "even")), [7, 9]);
        assert_eq!(numbers(&history.last(99, |event| event.topic == "odd")), [2, 4, 6, 8, 10]);
    }

    #[test]
    fn what_comes_after_a_place_is_complete_or_says_how_much_is_missing() {
        let mut history = History::new(7);
        assert_eq!(history.after(at(7, 0), |_| true).1, None);
        for _ in 0..HISTORY_EVENTS + 5 {
            publish(&mut history, "t", vec![]);
        }
        let (found, forgotten) = history.after(at(7, 5), |_| true);
        assert_eq!((found.len(), forgotten), (HISTORY_EVENTS, None));
        let (found, forgotten) = history.after(at(7, 2), |_| true);
        assert_eq!((found.len(), forgotten), (HISTORY_EVENTS, Some(Forgotten { events: 3 })));
        let (found, forgotten) = history.after(history.head(), |_| true);
        assert_eq!((found.len(), forgotten), (0, None));
    }

    #[test]
    fn a_place_in_an_earlier_life_is_before_everything() {
        let mut history = History::new(8);
        publish(&mut history, "t", vec![]);
        let (found, forgotten) = history.after(at(7, 500), |_| true);
        assert_eq!((numbers(&found), forgotten), (vec![1], None));
        assert_eq!(history.after(at(8, u64::MAX), |_| true).0.len(), 0);
    }

    #[test]
    fn an_event_larger_than_the_history_leaves_nothing_behind_and_is_missed() {
        let mut history = History::new(7);
        publish(&mut history, "t", vec![]);
        publish(&mut history, "t", vec![0; HISTORY_BYTES + 1]);
        assert_eq!(history.after(at(7, 0), |_| true).1, Some(Forgotten { events: 2 }));
        publish(&mut history, "t", vec![]);
        assert_eq!(numbers(&history.last(9, |_| true)), [3]);
        assert_eq!(history.status().oldest, Some(3));
    }
}
