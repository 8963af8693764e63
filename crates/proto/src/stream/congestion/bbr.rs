//! Congestion control by a model of the path, after BBR (draft-ietf-ccwg-bbr): the rate at which data arrives and the
//! round trip without queues say how much belongs under way.
//!
//! The states and gains are those of the draft. The bounds are fewer (one ceiling for what is under way, one floor for the
//! rate between two probes), and loss is judged differently: the draft takes more than 2 % of loss for congestion,
//! which leaves little of a radio link that always loses more. Here loss that goes on while the queue is empty is taken
//! for a property of the path, up to [`BACKGROUND_MAX`]; only what exceeds it by more than chance explains is congestion.

use std::time::{Duration, Instant};

use super::{
    super::{
        delivery::{Sampler, Stamp},
        pacing::Rate,
    },
    Ack,
};

/// Loss in one round trip that is congestion, beyond what the path always loses (draft 2.5, LossThresh).
const LOSS_THRESHOLD: f64 = 0.02;

/// The most that is taken for a property of the path.
const BACKGROUND_MAX: f64 = 0.10;

/// What is left after congestion (draft 2.5, Beta).
const BETA: f64 = 0.7;

/// Room that is left below the ceiling for others (draft 2.5, Headroom).
const HEADROOM: f64 = 0.85;

/// How long the shortest round trip is believed, and how long it is measured again with little under way.
const RTT_LIFE: Duration = Duration::from_secs(10);
const RTT_PROBE: Duration = Duration::from_millis(200);

/// More bandwidth is looked for after this long, or after as many rounds as Reno would need to fill the path.
const CRUISE: Duration = Duration::from_secs(2);
const CRUISE_ROUNDS_MAX: u64 = 63;

/// A queue that is not gone after so many rounds is somebody else's.
const DOWN_ROUNDS_MAX: u64 = 3;

/// Growth of the rate in a round below which the path is full, and rounds without it.
const GROWTH: f64 = 1.25;
const FULL_ROUNDS: u8 = 3;

/// Segments that are always allowed (draft 2.7).
const MIN_SEGMENTS: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Startup,
    Drain,
    /// A queue that a probe made goes away.
    Down,
    Cruise,
    /// The pipe is filled, so that the probe that follows starts from a full one.
    Refill,
    Up,
    /// The shortest round trip is measured, with little under way, from when there is little until then.
    Rtt {
        until: Option<Instant>,
        least: Option<Duration>,
    },
}

/// The controller.
#[derive(Debug)]
pub(in crate::stream) struct Bbr {
    state: State,
    sampler: Sampler,
    window: u64,
    initial: u64,
    segment: u64,
    /// The highest rate since the last probe began, and between that and the one before, in bytes per second.
    rates: [u64; 2],
    min_rtt: Option<Duration>,
    min_rtt_at: Instant,
    round: u64,
    /// The round ends when a segment is acknowledged that was sent after so much had been delivered.
    round_end: u64,
    round_delivered: u64,
    round_lost: u64,
    round_rtt: Option<Duration>,
    /// What the path loses at all times.
    background: Option<f64>,
    full_rate: u64,
    full_rounds: u8,
    filled: bool,
    /// More than this was too much under way.
    ceiling: u64,
    /// Not more than this until the next probe.
    rate_bound: u64,
    since: Instant,
    since_round: u64,
    seed: u32,
    /// The window before a time-out.
    before_timeout: u64,
}

impl Bbr {
    /// Starts with a window of `initial` bytes, for segments of `segment` bytes.
    pub(super) fn new(now: Instant, initial: u64, segment: u64, seed: u32) -> Self {
        Self {
            state: State::Startup,
            sampler: Sampler::new(now),
            window: initial.max(MIN_SEGMENTS * segment),
            initial,
            segment,
            rates: [0; 2],
            min_rtt: None,
            min_rtt_at: now,
            round: 0,
            round_end: 0,
            round_delivered: 0,
            round_lost: 0,
            round_rtt: None,
            background: None,
            full_rate: 0,
            full_rounds: 0,
            filled: false,
            ceiling: u64::MAX,
            rate_bound: u64::MAX,
            since: now,
            since_round: 0,
            seed,
            before_timeout: 0,
        }
    }

    /// The congestion window.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// How fast to send.
    pub(super) fn pace(&self, rtt: Duration) -> Rate {
        let (rate, round_trip) = match (self.rate(), self.min_rtt) {
            (0, _) | (_, None) => {
                return Rate { window: scaled(self.window, self.pacing_gain()), rtt, segment: self.segment };
            }
            (rate, Some(min_rtt)) => (rate, min_rtt),
        };
        // One part in a hundred less, so that queues go away (draft 2.6).
        let window = scaled(in_time(rate, round_trip), self.pacing_gain() * 0.99).max(1);
        Rate { window, rtt: round_trip, segment: self.segment }
    }

    /// Segments have another size from now on.
    pub(super) fn set_segment(&mut self, segment: u64) {
        self.segment = segment;
        self.window = self.window.max(MIN_SEGMENTS * segment);
    }

    /// A segment goes out.
    pub(super) fn on_sent(&mut self, now: Instant, flight: u64, len: u64) -> Stamp {
        self.sampler.sent(now, flight, len)
    }

    /// What is under way is less than it could be.
    pub(super) fn on_limited(&mut self, flight: u64) {
        self.sampler.limited(flight);
    }

    /// So many bytes are taken for lost.
    pub(super) fn on_lost(&mut self, bytes: u64) {
        self.round_lost += bytes;
    }

    /// Nothing was acknowledged for a whole time-out.
    pub(super) fn on_timeout(&mut self) {
        self.before_timeout = self.before_timeout.max(self.window);
        self.window = MIN_SEGMENTS * self.segment;
    }

    /// The time-out was wrong.
    pub(super) fn undo_timeout(&mut self) {
        self.window = self.window.max(self.before_timeout);
    }

    /// Nothing measured so far holds for another path.
    pub(super) fn on_path_change(&mut self, now: Instant) {
        let window = self.window.min(self.initial);
        // Segments under way have stamps of this sampler.
        let sampler = std::mem::replace(&mut self.sampler, Sampler::new(now));
        let round_end = sampler.delivered();
        *self = Self { window, sampler, round_end, ..Self::new(now, self.initial, self.segment, self.seed) };
    }

    /// Data arrived.
    pub(super) fn on_ack(&mut self, now: Instant, ack: &Ack) {
        self.before_timeout = 0;
        self.round_delivered += ack.bytes;
        if let Some(rtt) = ack.rtt {
            self.round_rtt = Some(self.round_rtt.map_or(rtt, |least| least.min(rtt)));
            self.measure_rtt(now, rtt);
        }
        if let Some(sample) = self.sampler.acknowledged(now, ack.bytes, ack.newest) {
            if !sample.limited || sample.rate >= self.highest() {
                self.rates[0] = self.rates[0].max(sample.rate);
            }
            if sample.prior >= self.round_end {
                self.round_end = self.sampler.delivered();
                self.end_round(now, sample.limited, sample.rate, sample.flight);
            }
        }
        self.proceed(now, ack);
        self.set_window(ack);
    }

    fn measure_rtt(&mut self, now: Instant, rtt: Duration) {
        if self.min_rtt.is_none_or(|least| rtt <= least) {
            self.min_rtt = Some(rtt);
            self.min_rtt_at = now;
        }
        match &mut self.state {
            State::Rtt { until: Some(_), least } => *least = Some(least.map_or(rtt, |least| least.min(rtt))),
            State::Drain | State::Down | State::Cruise | State::Refill | State::Up
                if self.min_rtt_at + RTT_LIFE < now =>
            {
                self.enter(now, State::Rtt { until: None, least: None });
            }
            State::Startup
            | State::Drain
            | State::Down
            | State::Cruise
            | State::Refill
            | State::Up
            | State::Rtt { .. } => {}
        }
    }

    fn end_round(&mut self, now: Instant, limited: bool, rate: u64, flight: u64) {
        self.round += 1;
        let congested = self.judge_losses();
        let grew = rate as f64 >= self.full_rate as f64 * GROWTH;
        match self.state {
            State::Startup if !limited => {
                if grew {
                    self.full_rate = rate;
                    self.full_rounds = 0;
                } else {
                    self.full_rounds += 1;
                    if congested {
                        self.full_rounds = FULL_ROUNDS;
                        self.ceiling = self.bdp().max(scaled(flight, BETA));
                    }
                }
                if self.full_rounds >= FULL_ROUNDS {
                    self.filled = true;
                    self.enter(now, State::Drain);
                }
            }
            State::Up if congested => {
                self.ceiling = flight.max(scaled(self.bdp(), BETA));
                self.enter(now, State::Down);
            }
            State::Up => {
                // It went well up to here, so there is room for that much.
                if self.ceiling < u64::MAX {
                    self.ceiling = self.ceiling.max(scaled(flight, 1.25));
                }
                let grows = rate as f64 >= self.full_rate as f64 * 1.1;
                self.full_rate = self.full_rate.max(rate);
                if !grows && !limited && flight >= scaled(self.bdp(), 1.2) {
                    self.enter(now, State::Down);
                }
            }
            State::Refill => {
                self.full_rate = self.rate();
                self.enter(now, State::Up);
            }
            State::Cruise | State::Down if congested => {
                self.rate_bound = rate.max(scaled(self.rate(), BETA));
            }
            State::Startup | State::Drain | State::Down | State::Cruise | State::Rtt { .. } => {}
        }
        self.round_delivered = 0;
        self.round_lost = 0;
        self.round_rtt = None;
    }

    /// Whether more was lost in the last round than the path loses at all times.
    fn judge_losses(&mut self) -> bool {
        let segments = (self.round_delivered + self.round_lost) as f64 / self.segment as f64;
        let lost = self.round_lost as f64 / self.segment as f64;
        if segments < 1.0 {
            return false;
        }
        let share = lost / segments;
        let queue_is_empty =
            self.min_rtt.zip(self.round_rtt).is_some_and(|(least, now)| now <= least + least / 8);
        if matches!(self.state, State::Cruise | State::Drain | State::Down) && queue_is_empty {
            let before = self.background.unwrap_or(share);
            // A round of few segments says little.
            let weight = (segments / 400.0).clamp(0.01, 0.25);
            self.background = Some((before + (share - before) * weight).min(BACKGROUND_MAX));
        }
        let expected = self.background.unwrap_or(0.0) * segments;
        // Three standard deviations of a number of chance losses.
        lost > expected + 3.0 * expected.sqrt() + LOSS_THRESHOLD * segments + 1.0
    }

    fn proceed(&mut self, now: Instant, ack: &Ack) {
        let flight = ack.flight;
        let lasted = now.saturating_duration_since(self.since);
        match self.state {
            State::Drain if flight <= self.bdp() => self.enter(now, State::Cruise),
            State::Down if flight <= self.bdp() || self.round - self.since_round >= DOWN_ROUNDS_MAX => {
                self.enter(now, State::Cruise);
            }
            State::Cruise => {
                let reno = (self.bdp() / self.segment).clamp(4, CRUISE_ROUNDS_MAX);
                // Streams that start together need not probe together.
                let spread =
                    Duration::from_millis(u64::from(self.seed.rotate_left((self.round & 31) as u32) % 1000));
                if lasted >= CRUISE + spread || self.round - self.since_round >= reno {
                    self.rate_bound = u64::MAX;
                    // What was measured before the last probe is forgotten, if anything was since (draft 4.5.2.4).
                    if self.rates[0] > 0 {
                        self.rates = [0, self.rates[0]];
                    }
                    self.round_end = self.sampler.delivered();
                    self.enter(now, State::Refill);
                }
            }
            State::Rtt { until: None, least } if flight <= self.little() => {
                let long = RTT_PROBE.max(self.min_rtt.unwrap_or_default());
                self.state = State::Rtt { until: Some(now + long), least };
            }
            State::Rtt { until: Some(until), least } if until <= now => {
                self.min_rtt = least.or(self.min_rtt);
                self.min_rtt_at = now;
                let next = if self.filled { State::Cruise } else { State::Startup };
                self.enter(now, next);
            }
            State::Startup | State::Drain | State::Down | State::Refill | State::Up | State::Rtt { .. } => {}
        }
    }

    fn enter(&mut self, now: Instant, state: State) {
        self.state = state;
        self.since = now;
        self.since_round = self.round;
    }

    fn set_window(&mut self, ack: &Ack) {
        if matches!(self.state, State::Rtt { .. }) {
            self.window = (self.window + ack.bytes).min(self.little());
            return;
        }
        let gain = if self.state == State::Up { 2.25 } else { 2.0 };
        let bound = match self.state {
            State::Down | State::Cruise => scaled(self.ceiling, HEADROOM),
            State::Startup | State::Drain | State::Refill | State::Up | State::Rtt { .. } => self.ceiling,
        };
        // Acknowledgements and datagrams come in trains; the window must bridge them.
        let target = (scaled(self.bdp(), gain) + 2 * self.trains()).min(bound.max(self.bdp()));
        let grown = self.window + ack.bytes;
        if self.filled {
            self.window = grown.min(target);
        } else if self.window < target {
            self.window = grown;
        }
        self.window = self.window.max(MIN_SEGMENTS * self.segment);
    }

    /// What is under way while the shortest round trip is measured.
    fn little(&self) -> u64 {
        (self.bdp() / 2).max(MIN_SEGMENTS * self.segment)
    }

    fn trains(&self) -> u64 {
        in_time(self.rate(), Duration::from_millis(1)).clamp(2 * self.segment, 64 << 10)
    }

    fn pacing_gain(&self) -> f64 {
        match self.state {
            State::Startup => 2.77,
            State::Drain => 0.5,
            State::Down => 0.9,
            State::Cruise | State::Refill | State::Rtt { .. } => 1.0,
            State::Up => 1.25,
        }
    }

    fn highest(&self) -> u64 {
        self.rates[0].max(self.rates[1])
    }

    /// Bytes per second that the path is believed to carry for us.
    fn rate(&self) -> u64 {
        self.highest().min(self.rate_bound)
    }

    /// Bytes that fill the path without a queue.
    fn bdp(&self) -> u64 {
        match self.min_rtt {
            Some(rtt) if self.rate() > 0 => in_time(self.rate(), rtt).max(MIN_SEGMENTS * self.segment),
            Some(_) | None => self.initial,
        }
    }
}

fn in_time(rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(rate) * time.as_nanos() / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn scaled(bytes: u64, gain: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "gains are positive, and what is too large becomes the largest"
    )]
    {
        (bytes as f64 * gain) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const SEGMENT: u64 = 1000;
    const RTT: Duration = Duration::from_millis(20);

    /// A path that carries `rate` bytes a second, as acknowledgements show it: every round trip one.
    struct Path {
        now: Instant,
        rate: u64,
        lossy: f64,
    }

    impl Path {
        fn round(&mut self, bbr: &mut Bbr) {
            let (bdp, window) = (in_time(self.rate, RTT), bbr.window());
            let paced = bbr.pace(RTT);
            let flight = (paced.window as u128 * RTT.as_nanos() / paced.rtt.as_nanos()) as u64;
            let flight = flight.min(window);
            let queue = flight.saturating_sub(bdp);
            let rtt = RTT + Duration::from_nanos(queue * 1_000_000_000 / self.rate);
            let lost = scaled(flight, self.lossy);
            let bytes = flight - lost;
            let sent = self.now;
            let stamp = bbr.on_sent(sent, 0, flight);
            self.now += rtt;
            bbr.on_lost(lost);
            let newest = Some((sent, stamp));
            let ack = Ack { bytes, acked: 0, sent: 0, rtt: Some(rtt), smoothed: rtt, flight: 0, newest };
            bbr.on_ack(self.now, &ack);
        }
    }

    fn settled(rate: u64, lossy: f64, rounds: u32) -> (Bbr, Path) {
        let now = start();
        let mut bbr = Bbr::new(now, 40 * SEGMENT, SEGMENT, 7);
        let mut path = Path { now, rate, lossy };
        for _ in 0..rounds {
            path.round(&mut bbr);
        }
        (bbr, path)
    }

    #[test]
    fn the_rate_of_the_path_is_found_and_the_window_is_about_two_of_its_products() {
        for rate in [200_000, 12_500_000, 125_000_000] {
            let (bbr, _) = settled(rate, 0.0, 60);
            assert!(bbr.filled && bbr.state != State::Startup);
            let found = bbr.rate() as f64 / rate as f64;
            assert!((0.85..1.05).contains(&found), "{found} of {rate}");
            assert!(bbr.window() <= 3 * in_time(rate, RTT) + (200 << 10), "{} at {rate}", bbr.window());
        }
    }

    #[test]
    fn loss_that_is_always_there_does_not_slow_it_down() {
        for lossy in [0.01, 0.05] {
            let (bbr, _) = settled(12_500_000, lossy, 600);
            assert!(bbr.rate() > 11_000_000, "{lossy}: {bbr:?}");
        }
    }

    #[test]
    fn a_time_out_leaves_little_and_a_wrong_one_nothing_changed() {
        let (mut bbr, mut path) = settled(12_500_000, 0.0, 60);
        let before = bbr.window();
        bbr.on_timeout();
        assert_eq!(bbr.window(), MIN_SEGMENTS * SEGMENT);
        bbr.undo_timeout();
        assert_eq!(bbr.window(), before);
        bbr.on_timeout();
        path.round(&mut bbr);
        bbr.undo_timeout();
        assert!(bbr.window() < before, "what was known before is not used after new acknowledgements");
    }

    #[test]
    fn another_path_is_measured_from_the_start() {
        let (mut bbr, path) = settled(12_500_000, 0.0, 60);
        bbr.on_path_change(path.now);
        assert_eq!((bbr.state, bbr.rate()), (State::Startup, 0));
        assert!(bbr.window() <= 40 * SEGMENT);
    }
}
