//! When to say something in the network, and when not to.

use std::time::Duration;

use tokio::time::Instant;

/// An announcement and a question go out at these times after a start or a change of network: datagrams to everybody are
/// lost easily (RFC 6762 8.3 asks for two at least, a second apart).
const ROUNDS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// The same announcement, or question, is not repeated sooner (RFC 6762 6): however often others ask, or our node
/// misses a peer.
const ANSWER_PAUSE: Duration = Duration::from_secs(1);
const QUESTION_PAUSE: Duration = Duration::from_secs(5);

/// How long one name is used.
const NAME_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What is to be said now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) announce: bool,
    pub(super) ask: bool,
    /// The name is old: begin anew.
    pub(super) renew: bool,
}

/// The plan of one stay in one network.
#[derive(Debug)]
pub(super) struct Schedule {
    begin: Instant,
    /// Rounds done.
    rounds: usize,
    announce: Option<Instant>,
    ask: Option<Instant>,
    announced: Option<Instant>,
    asked: Option<Instant>,
}

impl Schedule {
    /// `delay` is random, so that hosts that start together do not speak together.
    pub(super) fn new(now: Instant, delay: Duration) -> Self {
        Self { begin: now + delay, rounds: 0, announce: None, ask: None, announced: None, asked: None }
    }

    /// Somebody asks who is there.
    pub(super) fn on_question(&mut self, now: Instant, delay: Duration) {
        let earliest = self.announced.map_or(now, |announced| announced + ANSWER_PAUSE);
        self.announce.get_or_insert(earliest.max(now + delay));
    }

    /// Our node would like to know where its peers are.
    pub(super) fn on_wish(&mut self, now: Instant) {
        let earliest = self.asked.map_or(now, |asked| asked + QUESTION_PAUSE);
        self.ask.get_or_insert(earliest.max(now));
    }

    pub(super) fn next(&self) -> Instant {
        let round = ROUNDS.get(self.rounds).map(|round| self.begin + *round);
        let renew = self.begin + NAME_LIFE;
        [round, self.announce, self.ask].into_iter().flatten().fold(renew, Instant::min)
    }

    /// What is due; it counts as said.
    pub(super) fn take(&mut self, now: Instant) -> Due {
        let round = ROUNDS.get(self.rounds).is_some_and(|round| now >= self.begin + *round);
        let due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        let due = Due {
            announce: round || due(self.announce),
            ask: round || due(self.ask),
            renew: now >= self.begin + NAME_LIFE,
        };
        self.rounds += usize::from(round);
        if due.announce {
            (self.announce, self.announced) = (None, Some(now));
        }
        if due.ask {
            (self.ask, self.asked) = (None, Some(now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(50);

    /// Everything that is said up to `until`, with its time in milliseconds.
    fn said(schedule: &mut Schedule, start: Instant, until: Duration) -> Vec<(u128, Due)> {
        let mut said = Vec::new();
        while schedule.next() <= start + until {
            let now = schedule.next();
            let due = schedule.take(now);
            said.push(((now - start).as_millis(), due));
            if due.renew {
                break;
            }
        }
        said
    }

    #[test]
    fn a_start_is_told_three_times_and_then_there_is_silence_for_a_day() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, DELAY);
        let both = Due { announce: true, ask: true, renew: false };
        let expected = vec![(50, both), (1050, both), (3050, both)];
        assert_eq!(said(&mut schedule, start, Duration::from_secs(86_000)), expected);
        let renew = Due { renew: true, ..Due::default() };
        let (_, due) = said(&mut schedule, start, Duration::from_secs(86_401)).remove(0);
        assert_eq!(due, renew);
    }

    #[test]
    fn a_flood_of_questions_gets_one_answer_a_second() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, DELAY);
        said(&mut schedule, start, Duration::from_secs(4));
        let mut answers = 0;
        for millis in 0..10_000 {
            let now = start + Duration::from_millis(4_000 + millis);
            schedule.on_question(now, DELAY);
            if schedule.next() <= now {
                let due = schedule.take(now);
                assert!(due.announce && !due.ask);
                answers += 1;
            }
        }
        assert!((9..=11).contains(&answers), "{answers}");
    }

    #[test]
    fn a_node_that_misses_a_peer_asks_at_once_but_not_all_the_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, DELAY);
        said(&mut schedule, start, Duration::from_secs(60));
        let ask = Due { ask: true, ..Due::default() };
        let later = start + Duration::from_secs(60);
        schedule.on_wish(later);
        assert_eq!(schedule.next(), later);
        assert_eq!(schedule.take(later), ask);
        schedule.on_wish(later);
        assert_eq!(schedule.next(), later + QUESTION_PAUSE);
    }
}
