//! Changes inputs the same way each time, for tests that need no fuzzer.

/// A generator whose numbers follow from its seed alone (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// A generator that starts there.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0 if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % (end.max(1) as u64)) as usize
    }
}

/// Numbers at which lengths and counters go wrong.
const EDGES: [u8; 7] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF, b'"'];

/// Makes another input of these, never longer than `max`.
#[must_use]
pub fn changed(dice: &mut Dice, inputs: &[Vec<u8>], max: usize) -> Vec<u8> {
    let pick = |dice: &mut Dice| inputs.get(dice.below(inputs.len())).cloned().unwrap_or_default();
    let mut input = pick(dice);
    for _ in 0..=dice.below(4) {
        let at = dice.below(input.len());
        match dice.below(7) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = EDGES[dice.below(EDGES.len())];
                }
            }
            2 => input.truncate(at),
            3 => input.insert(at, dice.roll() as u8),
            4 => {
                let end = (at + 1 + dice.below(8)).min(input.len());
                input.drain(at.min(end)..end);
            }
            5 => {
                // Its head, and the tail of another one.
                let other = pick(dice);
                let from = dice.below(other.len());
                input.truncate(at);
                input.extend_from_slice(other.get(from..).unwrap_or_default());
            }
            _ => {
                // A part of itself once more.
                let end = (at + 1 + dice.below(64)).min(input.len());
                let part = input.get(at..end).unwrap_or_default().to_vec();
                input.extend_from_slice(&part);
            }
        }
    }
    input.truncate(max);
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_changes_inputs_the_same_way_each_time_and_each_turn_in_another_way() {
        let inputs = [b"one input".to_vec(), b"and another one".to_vec()];
        let row = |seed| {
            let mut dice = Dice::new(seed);
            (0..50).map(|_| changed(&mut dice, &inputs, 20)).collect::<Vec<_>>()
        };
        assert_eq!(row(1), row(1));
        assert_ne!(row(1), row(2));
        assert!(row(1).iter().all(|input| input.len() <= 20));
        let different: std::collections::BTreeSet<_> = row(1).into_iter().collect();
        assert!(different.len() > 30, "{}", different.len());
    }
}
