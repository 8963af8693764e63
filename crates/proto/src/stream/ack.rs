//! When to acknowledge: lone segments at once as long as that helps a peer to start, otherwise every second one or
//! after a short while (spec/dataplane.md 3.4). The decision falls when packets are polled, so that a batch of
//! segments that arrived together costs one acknowledgement.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Lone segments that are acknowledged at once; restored whenever the timer had to fire.
const QUICK: u8 = 32;

/// The longest that an acknowledgement waits for company.
const DELAY: Duration = Duration::from_millis(5);

/// The reference's slow start grows by at most 8 KiB (seven segments) per acknowledgement, so towards it a batch is
/// acknowledged in steps.
const LEGACY_STRIDE: u32 = 6;

/// Steps kept for one batch; beyond it the batch was large enough that growth is no concern.
const MAX_STEPS: usize = 64;

/// What is owed to the peer.
#[derive(Debug)]
pub(super) struct AckPlan {
    segments: u32,
    at_once: bool,
    deadline: Option<Instant>,
    quick: u8,
    stride: u32,
    /// Positions to acknowledge on their own; only towards the reference, hence apart.
    #[expect(clippy::box_collection, reason = "absent on most streams, and every byte counts there")]
    steps: Option<Box<VecDeque<u64>>>,
}

impl AckPlan {
    /// Nothing owed.
    pub(super) fn new() -> Self {
        Self { segments: 0, at_once: false, deadline: None, quick: QUICK, stride: 0, steps: None }
    }

    /// An in-order segment arrived.
    pub(super) fn on_segment(&mut self, now: Instant) {
        self.segments += 1;
        if self.segments == 1 {
            if self.quick > 0 {
                self.quick -= 1;
                self.at_once = true;
            } else {
                self.deadline = Some(now + DELAY);
            }
        } else {
            self.at_once = true;
        }
    }

    /// The same from the reference, with the position to acknowledge.
    pub(super) fn on_legacy_segment(&mut self, now: Instant, next: u64) {
        self.on_segment(now);
        self.stride += 1;
        if self.stride == LEGACY_STRIDE {
            self.stride = 0;
            let steps = self.steps.get_or_insert_default();
            if steps.len() < MAX_STEPS {
                steps.push_back(next);
            }
        }
    }

    /// Something happened that the peer must learn now.
    pub(super) fn demand(&mut self) {
        self.at_once = true;
    }

    /// A position below the current one that is acknowledged on its own.
    pub(super) fn take_step(&mut self, next: u64) -> Option<u64> {
        let steps = self.steps.as_mut()?;
        while let Some(step) = steps.pop_front() {
            if step < next {
                return Some(step);
            }
        }
        None
    }

    /// Holes make steps meaningless.
    pub(super) fn forget_steps(&mut self) {
        self.steps = None;
    }

    /// Whether an acknowledgement must go out.
    pub(super) fn is_due(&self) -> bool {
        self.at_once
    }

    /// A packet carried the acknowledgement.
    pub(super) fn sent(&mut self) {
        self.segments = 0;
        self.stride = 0;
        self.at_once = false;
        self.deadline = None;
        self.steps = self.steps.take().filter(|steps| !steps.is_empty());
    }

    /// When [`on_timeout`](Self::on_timeout) wants to be called.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// No company came.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.at_once = true;
            self.quick = QUICK;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn lone_segments_are_acknowledged_at_once_until_the_budget_is_used() {
        let now = start();
        let mut plan = AckPlan::new();
        for _ in 0..QUICK {
            plan.on_segment(now);
            assert!(plan.is_due());
            plan.sent();
        }
        plan.on_segment(now);
        assert!(!plan.is_due());
        plan.on_timeout(now + DELAY);
        assert!(plan.is_due());
    }
}
