//! Notices that this host slept.

use std::time::{Duration, Instant, SystemTime};

/// Time that passed unseen and is more than a clock being set right.
const SLEPT: Duration = Duration::from_secs(5);

/// Two clocks, one of which stands still while the host sleeps. It is asked whenever the loop runs anyway, so it keeps
/// nobody awake.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pulse {
    at: Instant,
    wall: SystemTime,
}

impl Pulse {
    pub(crate) fn new(at: Instant, wall: SystemTime) -> Self {
        Self { at, wall }
    }

    /// How long the host slept since the last call, if it did. A wall clock that is set forward looks the same; that
    /// costs a few probes.
    pub(crate) fn beat(&mut self, at: Instant, wall: SystemTime) -> Option<Duration> {
        let awake = at.saturating_duration_since(self.at);
        let passed = wall.duration_since(self.wall).unwrap_or_default();
        *self = Self { at, wall };
        passed.checked_sub(awake).filter(|slept| *slept > SLEPT)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_sleep_is_seen_once_and_a_long_wait_is_none() {
        let (start, wall) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(1_000_000));
        let after = |seconds| (start + Duration::from_secs(seconds), wall + Duration::from_secs(seconds));
        let mut pulse = Pulse::new(start, wall);
        let (at, then) = after(3600);
        assert_eq!(pulse.beat(at, then), None, "awake for an hour");
        let slept = Duration::from_secs(90);
        assert_eq!(pulse.beat(at, then + slept), Some(slept));
        assert_eq!(pulse.beat(at, then + slept), None);
    }

    #[test]
    fn a_wall_clock_that_is_corrected_is_no_sleep() {
        let (start, wall) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(1_000_000));
        let mut pulse = Pulse::new(start, wall);
        assert_eq!(pulse.beat(start, wall + Duration::from_secs(4)), None);
        assert_eq!(pulse.beat(start, wall - Duration::from_secs(7200)), None, "set back");
        assert_eq!(pulse.beat(start + Duration::from_secs(1), wall - Duration::from_secs(7199)), None);
    }
}
