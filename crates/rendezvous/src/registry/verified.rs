//! Signatures that have been checked before.
//!
//! Released nodes sign the same text for every heartbeat and poll of their life, and Ed25519 signatures are
//! deterministic; remembering them turns most verifications into one hash.

use pilot_crypto::{Sha256, verify};
use pilot_wire::{PublicKey, Signature};
use std::collections::HashSet;

/// Signatures per generation, at least and for each node that is registered. What is used again before a whole generation
/// of others came is found. A node repeats one for its heartbeats and one for its polls, and has some others between them;
/// with less than what all nodes repeat none would be found again.
const GENERATION_MIN: usize = 65_536;
const PER_NODE: usize = 3;

/// As much of a digest as nobody finds two signatures for.
type Trace = [u8; 20];

#[derive(Debug, Default)]
pub(super) struct Verified {
    traces: Traces,
}

impl Verified {
    /// `nodes` are registered.
    pub(super) fn check(&mut self, key: &PublicKey, text: &str, signature: &Signature, nodes: usize) -> bool {
        let mut hash = Sha256::new();
        hash.update(key.as_bytes());
        hash.update(signature.as_bytes());
        hash.update(text.as_bytes());
        let digest = hash.finish();
        let trace: Trace = std::array::from_fn(|at| digest[at]);
        let is_right = self.traces.find(trace) || verify(key, text.as_bytes(), signature);
        if is_right {
            self.traces.keep(trace, nodes.saturating_mul(PER_NODE).max(GENERATION_MIN));
        }
        is_right
    }
}

/// Two generations, so that what is in use survives when the older one goes.
#[derive(Debug, Default)]
struct Traces {
    current: HashSet<Trace>,
    previous: HashSet<Trace>,
}

impl Traces {
    fn find(&mut self, trace: Trace) -> bool {
        self.current.contains(&trace) || self.previous.remove(&trace)
    }

    fn keep(&mut self, trace: Trace, generation: usize) {
        if self.current.len() >= generation && !self.current.contains(&trace) {
            self.previous = std::mem::take(&mut self.current);
        }
        self.current.insert(trace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(number: u32) -> Trace {
        let mut trace = Trace::default();
        trace[..4].copy_from_slice(&number.to_be_bytes());
        trace
    }

    #[test]
    fn what_all_nodes_repeat_is_found_again_and_the_rest_is_forgotten() {
        let mut traces = Traces::default();
        let generation = 300;
        // Each of a hundred nodes repeats two, and between them come others that are never repeated.
        let mut missed = 0;
        let mut others = 1_000_000;
        for _ in 0..20 {
            for repeated in 0..200 {
                if !traces.find(trace(repeated)) {
                    missed += 1;
                }
                traces.keep(trace(repeated), generation);
                if repeated % 2 == 0 {
                    others += 1;
                    traces.keep(trace(others), generation);
                }
            }
            assert!(traces.current.len() + traces.previous.len() <= 2 * generation);
        }
        assert_eq!(missed, 200, "only the first time");
    }
}
