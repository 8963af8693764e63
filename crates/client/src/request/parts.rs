//! Pieces of an answer, put in order: each is handed out once, and together they are the answer.
//!
//! Pieces may be lost on their way; the answer carries all of them again. After a gap nothing more is handed out until
//! the answer is there, and then what is missing.

use bytes::Bytes;
use pilot_crypto::Sha256;
use pilot_wire::dataexchange::InterimKind;

/// What is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// The next bytes of the answer.
    Part(Bytes),
    /// How far the work is.
    Progress(Bytes),
    /// The work was begun anew: the parts so far are not of the answer.
    Restarted,
}

/// One request's pieces.
pub(super) struct Parts {
    run: u64,
    last: u32,
    gap: bool,
    /// How many bytes were handed out in this run, and their hash.
    given: usize,
    hash: Sha256,
}

impl Default for Parts {
    fn default() -> Self {
        Self { run: 0, last: 0, gap: false, given: 0, hash: Sha256::new() }
    }
}

impl Parts {
    /// The run and number of the last piece that came.
    pub(super) const fn seen(&self) -> (u64, u32) {
        (self.run, self.last)
    }

    /// A piece came.
    pub(super) fn on_piece(&mut self, run: u64, number: u32, kind: InterimKind, data: Bytes) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if run > self.run {
            pieces.extend((self.given > 0).then_some(Piece::Restarted));
            *self = Self { run, ..Self::default() };
        }
        if run < self.run || number <= self.last {
            return pieces;
        }
        self.gap |= number != self.last + 1;
        self.last = number;
        match kind {
            InterimKind::Progress => pieces.push(Piece::Progress(data)),
            InterimKind::Part if self.gap || data.is_empty() => {}
            InterimKind::Part => {
                self.given += data.len();
                self.hash.update(&data);
                pieces.push(Piece::Part(data));
            }
        }
        pieces
    }

    /// The answer came: what of it has not been handed out.
    pub(super) fn on_answer(&mut self, body: &Bytes) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let begins_so =
            body.get(..self.given).is_some_and(|begin| Sha256::digest(begin) == self.hash.clone().finish());
        if !begins_so {
            pieces.push(Piece::Restarted);
            self.given = 0;
        }
        let rest = body.slice(self.given..);
        pieces.extend((!rest.is_empty()).then_some(Piece::Part(rest)));
        pieces
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(parts: &mut Parts, run: u64, number: u32, data: &'static str) -> Vec<Piece> {
        parts.on_piece(run, number, InterimKind::Part, Bytes::from_static(data.as_bytes()))
    }

    fn given(text: &'static str) -> Piece {
        Piece::Part(Bytes::from_static(text.as_bytes()))
    }

    fn end(parts: &mut Parts, answer: &'static str) -> Vec<Piece> {
        parts.on_answer(&Bytes::from_static(answer.as_bytes()))
    }

    #[test]
    fn parts_in_order_are_handed_out_and_nothing_is_left_at_the_end() {
        let mut parts = Parts::default();
        assert_eq!(part(&mut parts, 5, 1, "one "), [given("one ")]);
        assert_eq!(part(&mut parts, 5, 2, "two"), [given("two")]);
        assert_eq!(part(&mut parts, 5, 2, "two"), [], "a repetition");
        assert_eq!(end(&mut parts, "one two"), []);
    }

    #[test]
    fn after_a_gap_the_rest_comes_with_the_answer_and_progress_goes_on() {
        let mut parts = Parts::default();
        part(&mut parts, 5, 1, "one ");
        assert_eq!(part(&mut parts, 5, 3, "three "), []);
        let progress = Bytes::from_static(b"90 %");
        let shown = parts.on_piece(5, 4, InterimKind::Progress, progress.clone());
        assert_eq!(shown, [Piece::Progress(progress)]);
        assert_eq!(part(&mut parts, 5, 5, "four"), []);
        assert_eq!(end(&mut parts, "one two three four"), [given("two three four")]);
    }

    #[test]
    fn a_lost_first_part_is_a_gap_too() {
        let mut parts = Parts::default();
        assert_eq!(part(&mut parts, 5, 2, "two"), []);
        assert_eq!(end(&mut parts, "one two"), [given("one two")]);
    }

    #[test]
    fn work_that_was_begun_anew_begins_the_answer_anew() {
        let mut parts = Parts::default();
        part(&mut parts, 5, 1, "old");
        assert_eq!(part(&mut parts, 6, 1, "new"), [Piece::Restarted, given("new")]);
        assert_eq!(part(&mut parts, 5, 2, "late"), []);
        assert_eq!(end(&mut parts, "new!"), [given("!")]);
    }

    #[test]
    fn an_answer_that_begins_otherwise_than_its_parts_replaces_them() {
        let mut parts = Parts::default();
        part(&mut parts, 5, 1, "maybe");
        assert_eq!(end(&mut parts, "no"), [Piece::Restarted, given("no")]);
        let mut parts = Parts::default();
        part(&mut parts, 5, 1, "ab");
        assert_eq!(end(&mut parts, "ax"), [Piece::Restarted, given("ax")]);
    }

    proptest! {
        /// Whatever is lost, repeated or late: the parts since the last restart are the answer, exactly.
        #[test]
        fn the_parts_and_the_rest_are_the_answer(
            answer in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5), 0..12),
            fates in proptest::collection::vec(0..4_u8, 12),
            order in proptest::collection::vec(any::<usize>(), 6),
            runs in 1..3_u64,
        ) {
            let whole: Bytes = answer.concat().into();
            let mut arriving = Vec::new();
            for run in 1..=runs {
                for (at, data) in answer.iter().enumerate() {
                    for _ in 0..fates[at].min(2) {
                        arriving.push((run, u32::try_from(at).unwrap() + 1, Bytes::from(data.clone())));
                    }
                }
            }
            let length = arriving.len();
            for (at, other) in order.iter().enumerate().filter(|_| length > 0) {
                arriving.swap(at % length, other % length);
            }
            let mut parts = Parts::default();
            let mut got = Vec::new();
            let mut take = |pieces: Vec<Piece>| {
                for piece in pieces {
                    match piece {
                        Piece::Part(data) => got.extend_from_slice(&data),
                        Piece::Progress(_) => {}
                        Piece::Restarted => got.clear(),
                    }
                }
            };
            for (run, number, data) in arriving {
                take(parts.on_piece(run, number, InterimKind::Part, data));
            }
            take(parts.on_answer(&whole));
            prop_assert_eq!(got, whole.to_vec());
        }
    }
}
