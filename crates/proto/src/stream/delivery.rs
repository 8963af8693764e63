//! How fast data arrives at the peer: one sample of the delivery rate per acknowledgement
//! (draft-ietf-ccwg-bbr 4.1.2).

use std::time::{Duration, Instant};

/// What was known when a segment went out. Times and sums are kept modulo 2^32: microseconds for an hour, bytes for
/// 4 GiB, of which a round trip is a small part.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    delivered: u32,
    delivered_at: u32,
    first_sent: u32,
    /// Bytes that were under way, this segment among them.
    flight: u32,
    limited: bool,
}

/// What an acknowledgement says about the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Bytes per second.
    pub(super) rate: u64,
    /// Bytes delivered in all when the newest segment was sent.
    pub(super) prior: u64,
    /// Bytes that were under way then.
    pub(super) flight: u64,
    /// The application had less to send than the path would have carried.
    pub(super) limited: bool,
}

/// The sums that samples are made of.
#[derive(Debug)]
pub(super) struct Sampler {
    epoch: Instant,
    delivered: u64,
    delivered_at: u32,
    first_sent: u32,
    /// Samples of what was sent before so much was delivered say little about the path.
    limited_until: u64,
}

impl Sampler {
    /// Nothing was sent.
    pub(super) fn new(now: Instant) -> Self {
        Self { epoch: now, delivered: 0, delivered_at: 0, first_sent: 0, limited_until: 0 }
    }

    /// A segment of `len` bytes goes out while `flight` bytes are under way.
    pub(super) fn sent(&mut self, now: Instant, flight: u64, len: u64) -> Stamp {
        if flight == 0 {
            self.first_sent = self.micros(now);
            self.delivered_at = self.first_sent;
        }
        Stamp {
            delivered: low(self.delivered),
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            flight: u32::try_from(flight + len).unwrap_or(u32::MAX),
            limited: self.limited_until > self.delivered,
        }
    }

    /// The application has nothing more to send while `flight` bytes are under way and more could be.
    pub(super) fn limited(&mut self, flight: u64) {
        self.limited_until = self.delivered + flight.max(1);
    }

    /// Bytes delivered in all.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// So many bytes arrived; of the segments among them the one sent last was sent at `sent` with this stamp.
    pub(super) fn acknowledged(
        &mut self,
        now: Instant,
        bytes: u64,
        newest: Option<(Instant, Stamp)>,
    ) -> Option<Sample> {
        self.delivered += bytes;
        self.delivered_at = self.micros(now);
        let (sent, stamp) = newest?;
        let sent = self.micros(sent);
        let sending = sent.wrapping_sub(stamp.first_sent);
        let arriving = self.delivered_at.wrapping_sub(stamp.delivered_at);
        self.first_sent = sent;
        let interval = u64::from(sending.max(arriving)).max(1);
        let bytes = u64::from(low(self.delivered).wrapping_sub(stamp.delivered));
        Some(Sample {
            rate: bytes * 1_000_000 / interval,
            prior: self.delivered - bytes.min(self.delivered),
            flight: u64::from(stamp.flight),
            limited: stamp.limited,
        })
    }

    fn micros(&self, now: Instant) -> u32 {
        low64(now.saturating_duration_since(self.epoch))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "sums are kept modulo 2^32")]
fn low(sum: u64) -> u32 {
    sum as u32
}

#[expect(clippy::cast_possible_truncation, reason = "times are kept modulo 2^32")]
fn low64(time: Duration) -> u32 {
    time.as_micros() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn a_steady_flow_is_measured_exactly_also_when_the_sums_wrap() {
        let mut now = start();
        let mut sampler = Sampler::new(now);
        sampler.delivered = u64::from(u32::MAX) - 20_000;
        let mut flying = std::collections::VecDeque::new();
        for tick in 0..200u64 {
            now += Duration::from_millis(1);
            if tick >= 20 {
                let (sent, stamp) = flying.pop_front().unwrap();
                let sample = sampler.acknowledged(now, 1000, Some((sent, stamp))).unwrap();
                if tick >= 40 {
                    assert_eq!((sample.rate, sample.flight, sample.limited), (1_000_000, 20_000, false));
                    assert_eq!(sampler.delivered() - sample.prior, 20_000);
                }
            }
            let stamp = sampler.sent(now, flying.len() as u64 * 1000, 1000);
            flying.push_back((now, stamp));
        }
    }

    #[test]
    fn acknowledgements_in_one_heap_do_not_look_like_a_fast_path() {
        let start = start();
        let at = |millis| start + Duration::from_millis(millis);
        let mut sampler = Sampler::new(start);
        let stamps: Vec<_> = (0..10).map(|i| (at(i), sampler.sent(at(i), i * 1000, 1000))).collect();
        // All are acknowledged at once, 11 ms after the first was sent.
        let sample = sampler.acknowledged(at(11), 10_000, stamps.last().copied()).unwrap();
        assert!(sample.rate < 1_000_000, "{sample:?}");
        sampler.limited(5000);
        assert!(sampler.sent(at(12), 5000, 1000).limited);
    }
}
