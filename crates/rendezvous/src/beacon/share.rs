//! How much is relayed, for one node and for all.
//!
//! When all together come near the limit of the beacon, who is over its share, that of each of those active at the moment,
//! is held back before others are: it needs more to be left of what may be relayed at once, the more it is over it.

use crate::rate::{Bucket, Rate};
use std::time::{Duration, Instant};

/// Who relayed within this long is active.
const WINDOW: Duration = Duration::from_secs(1);

/// Over this long it is seen who is over its share: less than it takes one alone to use up what may come at once.
const LATELY: Duration = Duration::from_millis(100);

/// Limits of relaying.
#[derive(Clone, Copy, Debug)]
pub struct RelayLimits {
    /// Frames of one node.
    pub frames: Rate,
    /// Bytes of one node, frames only.
    pub bytes: Rate,
    /// Bytes of all together, frames only; none for no limit.
    pub total: Option<Rate>,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            frames: Rate { burst: 20_000, per_second: 20_000.0 },
            bytes: Rate { burst: 25_000_000, per_second: 25_000_000.0 },
            total: None,
        }
    }
}

impl RelayLimits {
    /// The same with a limit for all together, in bytes a second. A quarter of a second of it may come at once.
    #[must_use]
    pub fn with_total(self, per_second: u32) -> Self {
        let burst = (per_second / 4).max(1 << 17);
        Self { total: Some(Rate { burst, per_second: f64::from(per_second) }), ..self }
    }
}

/// What one node has used.
#[derive(Debug)]
pub(super) struct Meter {
    frames: Bucket,
    bytes: Bucket,
    /// Bytes relayed [`LATELY`], the older the fewer.
    used: f64,
    used_at: Instant,
    /// The window in which it was last active.
    window: u64,
}

impl Meter {
    pub(super) fn new(limits: &RelayLimits, now: Instant) -> Self {
        let (frames, bytes) = (Bucket::full(limits.frames, now), Bucket::full(limits.bytes, now));
        Self { frames, bytes, used: 0.0, used_at: now, window: 0 }
    }

    fn used(&mut self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.used_at).as_secs_f64() / LATELY.as_secs_f64();
        self.used *= (1.0 - passed).max(0.0);
        self.used_at = now;
        self.used
    }
}

/// Why a frame is not relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The node's own limit.
    Own,
    /// That of all together.
    Total,
}

/// What all have used.
#[derive(Debug, Default)]
pub(super) struct Total {
    bucket: Option<Bucket>,
    window: u64,
    began: Option<Instant>,
    active: u32,
    active_before: u32,
}

impl Total {
    /// Takes a frame of `bytes`.
    pub(super) fn take(
        &mut self,
        limits: &RelayLimits,
        now: Instant,
        meter: &mut Meter,
        bytes: usize,
    ) -> Result<(), Over> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        meter.frames.take(limits.frames, now).map_err(|_| Over::Own)?;
        meter.bytes.spend(limits.bytes, now, bytes).map_err(|_| Over::Own)?;
        let Some(rate) = limits.total else { return Ok(()) };
        self.pass_time(now);
        if meter.window != self.window {
            meter.window = self.window;
            self.active += 1;
        }
        let active = self.active.max(self.active_before).max(1);
        let share = rate.per_second * LATELY.as_secs_f64() / f64::from(active);
        let used = meter.used(now);
        let reserve = if used > share { f64::from(rate.burst) * (1.0 - share / used) } else { 0.0 };
        let bucket = self.bucket.get_or_insert_with(|| Bucket::full(rate, now));
        if bucket.left(rate, now) < reserve {
            return Err(Over::Total);
        }
        bucket.spend(rate, now, bytes).map_err(|_| Over::Total)?;
        meter.used += f64::from(bytes);
        Ok(())
    }

    /// Takes a frame that is another beacon's to charge to its sender.
    pub(super) fn pass(&mut self, limits: &RelayLimits, now: Instant, bytes: usize) -> Result<(), Over> {
        let Some(rate) = limits.total else { return Ok(()) };
        let bucket = self.bucket.get_or_insert_with(|| Bucket::full(rate, now));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        bucket.spend(rate, now, bytes).map_err(|_| Over::Total)
    }

    fn pass_time(&mut self, now: Instant) {
        let began = *self.began.get_or_insert_with(|| {
            self.window = 1;
            now
        });
        let passed = now.saturating_duration_since(began);
        if passed >= WINDOW {
            self.active_before = if passed < 2 * WINDOW { self.active } else { 0 };
            self.active = 0;
            self.window += 1;
            self.began = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 1000;

    /// Ten seconds in which each sends so many frames of 1000 bytes a millisecond. What each got through.
    fn relayed(limits: RelayLimits, per_ms: &[f64]) -> Vec<f64> {
        let mut now = Instant::now();
        let mut total = Total::default();
        let mut nodes: Vec<_> =
            per_ms.iter().map(|_| (Meter::new(&limits, now), 0.0, 0_u32, 0_u32)).collect();
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            for ((meter, due, sent, passed), rate) in nodes.iter_mut().zip(per_ms) {
                *due += rate;
                while *due >= 1.0 {
                    *due -= 1.0;
                    *sent += 1;
                    *passed += u32::from(total.take(&limits, now, meter, FRAME).is_ok());
                }
            }
        }
        nodes.iter().map(|(_, _, sent, passed)| f64::from(*passed) / f64::from(*sent)).collect()
    }

    #[test]
    fn who_is_over_its_share_is_held_back_and_nobody_else() {
        // Two that send 5 MB a second each, eight that send 250 kB, 8 MB for all.
        let limits = RelayLimits::default().with_total(8_000_000);
        let mut per_ms = vec![5.0, 5.0];
        per_ms.extend([0.25; 8]);
        let passed = relayed(limits, &per_ms);
        assert!(passed[2..].iter().all(|share| *share > 0.999), "{passed:?}");
        // They have the 6 MB that the others leave, and are equal.
        assert!(passed[..2].iter().all(|share| (0.5..0.7).contains(share)), "{passed:?}");
    }

    #[test]
    fn without_a_need_nobody_is_held_back() {
        let limits = RelayLimits::default().with_total(8_000_000);
        assert!(relayed(limits, &[6.0, 0.1]).iter().all(|share| *share > 0.999));
    }

    #[test]
    fn a_node_has_its_own_limit_of_bytes_and_frames() {
        let bytes = Rate { burst: 1_000_000, per_second: 1_000_000.0 };
        let by_bytes = RelayLimits { bytes, ..RelayLimits::default() };
        let passed = relayed(by_bytes, &[2.0]);
        assert!((0.5..0.6).contains(&passed[0]), "{passed:?}");
        let frames = Rate { burst: 500, per_second: 500.0 };
        let by_frames = RelayLimits { frames, ..RelayLimits::default() };
        let passed = relayed(by_frames, &[2.0]);
        assert!((0.24..0.3).contains(&passed[0]), "{passed:?}");
    }
}
