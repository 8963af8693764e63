//! Which counters of a session have been seen: one window for each nonce prefix, asked only about frames
//! that are authentic (spec/dataplane.md 2.5, RFC 6479).

use pilot_wire::tunnel::Nonce;

/// Counters a window looks back. A train of 64 datagrams may be overtaken by several others.
pub(crate) const WINDOW: u64 = 4096;
const WORDS: usize = (WINDOW / 64) as usize;

/// Prefixes remembered for one key. A peer draws a new prefix when it derives the same key again, which
/// 1.18.0 does when it lost its half of a session; a ninth asks for a fresh key instead.
const EPOCHS_MAX: usize = 8;

/// Why an authentic frame is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replay {
    /// The counter was seen, or is too old to tell.
    Seen,
    /// The prefix is new and there have been too many: the session needs a new key.
    TooManyEpochs,
}

/// The windows of one session key.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    epochs: Vec<Epoch>,
}

#[derive(Debug)]
struct Epoch {
    prefix: [u8; 4],
    window: Box<Window<WORDS>>,
}

impl Windows {
    /// Accepts the nonce of an authentic frame, once.
    pub(crate) fn accept(&mut self, nonce: Nonce) -> Result<(), Replay> {
        // The newest epoch is last, and nearly every frame is of it.
        if let Some(epoch) = self.epochs.iter_mut().rev().find(|epoch| epoch.prefix == nonce.prefix) {
            return if epoch.window.accept(nonce.counter) { Ok(()) } else { Err(Replay::Seen) };
        }
        if self.epochs.len() == EPOCHS_MAX {
            return Err(Replay::TooManyEpochs);
        }
        let mut window = Box::new(Window::new());
        window.accept(nonce.counter);
        self.epochs.push(Epoch { prefix: nonce.prefix, window });
        Ok(())
    }
}

/// A bitmap of the last `WORDS * 64` counters, indexed by counter modulo its size.
#[derive(Debug)]
struct Window<const WORDS: usize> {
    max: Option<u64>,
    bits: [u64; WORDS],
}

impl<const WORDS: usize> Window<WORDS> {
    const SIZE: u64 = (WORDS * 64) as u64;

    fn new() -> Self {
        Self { max: None, bits: [0; WORDS] }
    }

    fn accept(&mut self, counter: u64) -> bool {
        match self.max {
            None => self.max = Some(counter),
            Some(max) if counter > max => {
                self.clear(max, counter);
                self.max = Some(counter);
            }
            Some(max) if max - counter >= Self::SIZE => return false,
            Some(_) => {}
        }
        let (word, bit) = Self::position(counter);
        let seen = self.bits[word] & bit != 0;
        self.bits[word] |= bit;
        !seen
    }

    /// Forgets the counters that share a place with those after `max` up to `counter`.
    fn clear(&mut self, max: u64, counter: u64) {
        if counter - max >= Self::SIZE {
            self.bits = [0; WORDS];
            return;
        }
        for skipped in max + 1..=counter {
            let (word, bit) = Self::position(skipped);
            self.bits[word] &= !bit;
        }
    }

    fn position(counter: u64) -> (usize, u64) {
        let index = counter % Self::SIZE;
        ((index / 64) as usize, 1 << (index % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce(prefix: u8, counter: u64) -> Nonce {
        Nonce { prefix: [prefix; 4], counter }
    }

    #[test]
    fn the_reference_window_gives_the_recorded_verdicts() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../wire/tests/vectors/dataplane.json")).unwrap();
        let mut window = Window::<4>::new();
        for step in vectors["replay_window_256"].as_array().unwrap() {
            let counter = step["counter"].as_u64().unwrap();
            assert_eq!(window.accept(counter), step["accepted"].as_bool().unwrap(), "counter {counter}");
        }
    }

    #[test]
    fn every_counter_is_taken_once_in_any_order_within_the_window() {
        let mut windows = Windows::default();
        let order = (0..WINDOW).map(|i| 1 + (i * 1021) % WINDOW);
        for counter in order.clone() {
            assert_eq!(windows.accept(nonce(1, counter)), Ok(()), "{counter}");
        }
        for counter in order {
            assert_eq!(windows.accept(nonce(1, counter)), Err(Replay::Seen), "{counter}");
        }
        assert_eq!(windows.accept(nonce(1, u64::MAX)), Ok(()));
        assert_eq!(windows.accept(nonce(1, WINDOW + 1)), Err(Replay::Seen), "too old to tell");
    }

    #[test]
    fn an_old_epoch_stays_closed_to_replays_and_a_ninth_is_refused() {
        let mut windows = Windows::default();
        for prefix in 0..8 {
            assert_eq!(windows.accept(nonce(prefix, 1)), Ok(()));
        }
        assert_eq!(windows.accept(nonce(0, 1)), Err(Replay::Seen));
        assert_eq!(windows.accept(nonce(0, 2)), Ok(()));
        assert_eq!(windows.accept(nonce(8, 1)), Err(Replay::TooManyEpochs));
    }
}
