//! When the addresses of a peer are tried: in rounds of two shots, with longer and longer pauses between rounds.
//!
//! Both sides shoot at the same time, because whoever starts a round tells the other side inside the tunnel (or through
//! the beacon). A first shot may find the other side's box still closed; it opens the own one for what comes back. An
//! address that never answered may have three packets ([`ledger`](super::ledger)): the third is for the answer to the
//! other side's shot.

use std::time::{Duration, Instant};

/// The shots of a round, from its start. The time between them covers what the word to the other side, which goes by
/// the relay, takes longer than the shots themselves.
const SHOTS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(200)];

/// The pauses from the start of one round to the next.
const PAUSES: [Duration; 7] = [
    Duration::from_millis(1500),
    Duration::from_secs(4),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
];

/// A round that somebody asks for is put off to this long after the last one.
const APART: Duration = Duration::from_secs(1);

/// The search for a direct way to one peer.
#[derive(Debug, Default)]
pub(crate) struct Search {
    state: State,
    /// Rounds since the search began.
    rounds: usize,
    begun: Option<Instant>,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing is looked for.
    #[default]
    Off,
    /// The next shot of a round.
    Round { shot: usize, next: Instant, why: Why },
    /// Between rounds.
    Pause { until: Instant },
}

/// Who wants a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// The peer or the beacon said something. That allows no more packets than an address may have anyway.
    Told,
    /// Somebody here uses the peer.
    Wanted,
}

/// Addresses are to be tried now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shot {
    /// It is the first of its round: the other side should be told.
    pub(crate) first: bool,
    pub(crate) why: Why,
}

impl Search {
    /// Begins a round soon, unless one is under way.
    pub(crate) fn start(&mut self, now: Instant, why: Why) {
        let soonest = self.begun.map_or(now, |begun| now.max(begun + APART));
        match &mut self.state {
            State::Round { why: already, .. } => *already = why.max(*already),
            State::Pause { .. } | State::Off => self.state = State::Round { shot: 0, next: soonest, why },
        }
    }

    /// The pauses start from the shortest again: something changed.
    pub(crate) fn restart(&mut self, now: Instant, why: Why) {
        self.rounds = 0;
        self.begun = None;
        self.state = State::Round { shot: 0, next: now, why };
    }

    /// A direct way is found, or nobody wants one.
    pub(crate) fn stop(&mut self) {
        self.state = State::Off;
        self.rounds = 0;
    }

    /// If a shot is due. `goes_on`: somebody here uses the peer, so that another round follows.
    pub(crate) fn due(&mut self, now: Instant, goes_on: bool) -> Option<Shot> {
        if let State::Pause { until } = self.state
            && until <= now
        {
            self.state = match goes_on {
                true => State::Round { shot: 0, next: now, why: Why::Wanted },
                false => State::Off,
            };
        }
        let State::Round { shot, next, why } = self.state else { return None };
        if next > now {
            return None;
        }
        if shot == 0 {
            self.begun = Some(now);
        }
        let begun = self.begun.unwrap_or(now);
        self.state = match SHOTS.get(shot + 1) {
            Some(&offset) => State::Round { shot: shot + 1, next: begun + offset, why },
            None => {
                let pause = PAUSES[self.rounds.min(PAUSES.len() - 1)];
                self.rounds += 1;
                State::Pause { until: begun + pause }
            }
        };
        // Whoever began it: while somebody here uses the peer it is our own wish.
        Some(Shot { first: shot == 0, why: if goes_on { Why::Wanted } else { why } })
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Off => None,
            State::Round { next, .. } => Some(next),
            State::Pause { until } => Some(until),
        }
    }

    /// Whether the first round is not over yet.
    pub(crate) fn is_young(&self) -> bool {
        self.rounds == 0
    }

    pub(crate) fn is_on(&self) -> bool {
        !matches!(self.state, State::Off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shots(search: &mut Search, start: Instant, until: Duration, goes_on: bool) -> Vec<u128> {
        let mut at = Vec::new();
        while let Some(next) = search.poll_timeout().filter(|next| *next <= start + until) {
            if search.due(next, goes_on).is_some() {
                at.push((next - start).as_millis());
            }
        }
        at
    }

    #[test]
    fn rounds_of_two_shots_come_less_and_less_often() {
        let start = crate::testing::start();
        let mut search = Search::default();
        search.start(start, Why::Wanted);
        let at = shots(&mut search, start, Duration::from_secs(20), true);
        assert_eq!(at, [0, 200, 1500, 1700, 5500, 5700, 15_500, 15_700]);
    }

    #[test]
    fn a_search_for_a_peer_that_nobody_uses_ends_after_its_round() {
        let start = crate::testing::start();
        let mut search = Search::default();
        search.start(start, Why::Told);
        assert_eq!(shots(&mut search, start, Duration::from_secs(600), false), [0, 200]);
        assert!(!search.is_on());
    }

    #[test]
    fn being_told_again_and_again_makes_no_more_than_one_round_a_second() {
        let start = crate::testing::start();
        let mut search = Search::default();
        let mut count = 0;
        for millis in 0..3000 {
            let now = start + Duration::from_millis(millis);
            search.start(now, Why::Told);
            count += usize::from(search.due(now, false).is_some());
        }
        assert_eq!(count, 6);
    }
}
