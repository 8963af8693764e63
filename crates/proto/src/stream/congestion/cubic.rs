//! CUBIC (RFC 9438) with HyStart++ (RFC 9406).

use std::time::{Duration, Instant};

use super::{super::pacing::Rate, Ack};

/// Multiplicative decrease (RFC 9438 4.6).
const BETA: f64 = 0.7;

/// Aggressiveness of the cubic function (RFC 9438 4.1).
const C: f64 = 0.4;

/// HyStart++ (RFC 9406 4.3).
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: u32 = 8;
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u32 = 5;

/// The window never falls below this many segments except right after a time-out.
const MIN_SEGMENTS: u64 = 2;

/// The controller. All windows are in bytes.
#[derive(Debug)]
pub(in crate::stream) struct Cubic {
    window: u64,
    initial: u64,
    threshold: u64,
    segment: u64,
    start: SlowStart,
    /// The avoidance phase, from the first congestion on.
    epoch: Option<Epoch>,
    /// Window before the last reduction, after fast convergence.
    max: f64,
    /// Part of a segment that the window has grown by.
    fraction: f64,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    since: Instant,
    /// Time to reach `max` again.
    k: f64,
    /// What Reno would have (RFC 9438 4.3), in segments.
    reno: f64,
    origin: f64,
}

#[derive(Debug, Default)]
struct SlowStart {
    /// The round ends when this offset is acknowledged.
    round_end: u64,
    last_min: Option<Duration>,
    current_min: Option<Duration>,
    samples: u32,
    conservative: Option<Conservative>,
}

#[derive(Clone, Copy, Debug)]
struct Conservative {
    baseline: Duration,
    rounds: u32,
}

impl Cubic {
    /// Starts with a window of `initial` bytes, for segments of `segment` bytes.
    pub(super) fn new(initial: u64, segment: u64) -> Self {
        Self {
            window: initial.max(2 * segment),
            initial,
            threshold: u64::MAX,
            segment,
            start: SlowStart::default(),
            epoch: None,
            max: 0.0,
            fraction: 0.0,
        }
    }

    /// The congestion window.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// Where slow start ends.
    pub(super) fn threshold(&self) -> u64 {
        self.threshold
    }

    /// True while the window doubles each round trip.
    pub(super) fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// How fast to send: a window in less than a round trip, because acknowledgements do not come evenly.
    pub(super) fn pace(&self, rtt: Duration) -> Rate {
        let gain = if self.in_slow_start() { 8 } else { 5 };
        Rate { window: self.window * gain / 4, rtt, segment: self.segment }
    }

    /// Segments have another size from now on.
    pub(super) fn set_segment(&mut self, segment: u64) {
        self.segment = segment;
        self.window = self.window.max(MIN_SEGMENTS * segment);
    }

    /// Data arrived, and the window was in use.
    pub(super) fn on_ack(&mut self, now: Instant, ack: Ack) {
        if self.in_slow_start() {
            self.slow_start(ack);
        } else {
            self.avoid(now, ack);
        }
    }

    /// Loss was detected. Returns the window to converge to (PRR does that gradually).
    pub(super) fn on_loss(&mut self) -> u64 {
        let window = self.segments(self.window);
        // Fast convergence (RFC 9438 4.7): leave room for newcomers.
        self.max = if window < self.max { window * (1.0 + BETA) / 2.0 } else { window };
        self.epoch = None;
        self.fraction = 0.0;
        self.threshold = self.bytes(window * BETA).max(MIN_SEGMENTS * self.segment);
        self.threshold
    }

    /// Recovery is over.
    pub(super) fn set_window(&mut self, window: u64) {
        self.window = window.max(self.segment);
    }

    /// Nothing was acknowledged for a whole time-out: start anew (RFC 5681 3.1). `first` says whether it is the first
    /// of its episode.
    pub(super) fn on_timeout(&mut self, first: bool) {
        if first {
            self.on_loss();
        }
        self.window = self.segment;
        self.start = SlowStart::default();
    }

    /// The stream was idle for `timeouts` retransmission time-outs: what was learned grows old (RFC 2861).
    pub(super) fn on_idle(&mut self, timeouts: u32) {
        if self.in_slow_start() {
            self.threshold = self.threshold.max(self.window / 4 * 3);
        }
        self.window = self.window.min((self.window >> timeouts.min(32)).max(self.initial));
        self.epoch = None;
    }

    /// Data arrived, but the window was not in use: the time does not count (RFC 9438 5.8).
    pub(super) fn on_unused(&mut self) {
        self.epoch = None;
    }

    fn slow_start(&mut self, ack: Ack) {
        if ack.acked >= self.start.round_end {
            self.start.new_round(ack.sent);
        }
        if let Some(rtt) = ack.rtt {
            self.start.sample(rtt);
        }
        // ABC with L = 8 segments unless pacing spreads it; we pace, so no limit (RFC 9406 4.2).
        match &mut self.start.conservative {
            None => {
                self.window += ack.bytes;
                if self.start.delay_rises() {
                    let baseline = self.start.current_min.unwrap_or_default();
                    self.start.conservative = Some(Conservative { baseline, rounds: 0 });
                }
            }
            Some(css) => {
                self.window += ack.bytes / CSS_GROWTH_DIVISOR;
                if self.start.samples >= N_RTT_SAMPLE
                    && self.start.current_min.is_some_and(|current| current < css.baseline)
                {
                    self.start.conservative = None;
                } else if css.rounds >= CSS_ROUNDS {
                    self.threshold = self.window;
                }
            }
        }
    }

    fn avoid(&mut self, now: Instant, ack: Ack) {
        let window = self.segments(self.window);
        let max = self.max;
        let epoch = self.epoch.get_or_insert_with(|| {
            let origin = max.max(window);
            Epoch { since: now, k: ((origin - window) / C).cbrt(), reno: window, origin }
        });
        let acked = ack.bytes as f64 / self.segment as f64;
        let t = (now.saturating_duration_since(epoch.since) + ack.smoothed).as_secs_f64();
        let target = (C * (t - epoch.k).powi(3) + epoch.origin).clamp(window, 1.5 * window);
        // RFC 9438 4.3: at least what Reno would have; alpha is 1 once the old maximum is reached again.
        let alpha = if epoch.reno < epoch.origin { 3.0 * (1.0 - BETA) / (1.0 + BETA) } else { 1.0 };
        epoch.reno += alpha * acked / window;
        let growth = ((target - window) / window * acked).max(epoch.reno - window);
        self.fraction += growth.clamp(0.0, acked);
        let whole = self.fraction.floor();
        self.fraction -= whole;
        self.window += self.bytes(whole);
    }

    fn segments(&self, bytes: u64) -> f64 {
        bytes as f64 / self.segment as f64
    }

    fn bytes(&self, segments: f64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "windows are positive and far below 2^52"
        )]
        {
            (segments * self.segment as f64) as u64
        }
    }
}

impl SlowStart {
    fn new_round(&mut self, sent: u64) {
        self.round_end = sent;
        self.last_min = self.current_min.take();
        self.samples = 0;
        if let Some(css) = &mut self.conservative {
            css.rounds += 1;
        }
    }

    fn sample(&mut self, rtt: Duration) {
        self.current_min = Some(self.current_min.map_or(rtt, |min| min.min(rtt)));
        self.samples += 1;
    }

    fn delay_rises(&self) -> bool {
        let (Some(last), Some(current)) = (self.last_min, self.current_min) else { return false };
        let threshold = (last / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
        self.samples >= N_RTT_SAMPLE && current >= last + threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const SEGMENT: u64 = 1000;

    fn ack(bytes: u64, rtt: Duration) -> Ack {
        Ack { bytes, acked: 0, sent: 1, rtt: Some(rtt), smoothed: rtt, flight: 0, newest: None }
    }

    #[test]
    fn slow_start_doubles_and_loss_leaves_seven_tenths() {
        let now = start();
        let mut cubic = Cubic::new(10 * SEGMENT, SEGMENT);
        cubic.on_ack(now, ack(10 * SEGMENT, Duration::from_millis(20)));
        assert_eq!(cubic.window(), 20 * SEGMENT);
        let target = cubic.on_loss();
        assert_eq!(target, 14 * SEGMENT);
        cubic.set_window(target);
        assert!(!cubic.in_slow_start());
    }

    #[test]
    fn the_old_maximum_is_reached_again_after_k_seconds() {
        let mut now = start();
        let mut cubic = Cubic::new(1000 * SEGMENT, SEGMENT);
        let target = cubic.on_loss();
        cubic.set_window(target);
        let rtt = Duration::from_millis(100);
        let k = (300.0f64 / C).cbrt();
        let mut elapsed = 0.0;
        while elapsed < k {
            cubic.on_ack(now, ack(cubic.window(), rtt));
            now += rtt;
            elapsed += 0.1;
        }
        let window = cubic.window() / SEGMENT;
        assert!((960..1080).contains(&window), "{window} segments");
    }

    #[test]
    fn rising_delay_ends_slow_start_before_loss() {
        let now = start();
        let mut cubic = Cubic::new(10 * SEGMENT, SEGMENT);
        let mut sent = 0;
        for round in 0..20u64 {
            let rtt = Duration::from_millis(20 + 5 * round);
            for _ in 0..10 {
                cubic.on_ack(
                    now,
                    Ack {
                        bytes: SEGMENT,
                        acked: sent,
                        sent: sent + 10 * SEGMENT,
                        rtt: Some(rtt),
                        smoothed: rtt,
                        flight: 0,
                        newest: None,
                    },
                );
            }
            sent += 10 * SEGMENT;
        }
        assert!(!cubic.in_slow_start());
    }
}
