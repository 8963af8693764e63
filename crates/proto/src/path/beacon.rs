//! Staying known to the beacon, which tells us our address and wraps frames for peers behind NAT.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How often the beacon hears from us: it also keeps the NAT binding towards it open.
const INTERVAL: Duration = Duration::from_secs(25);

/// The wait after an unanswered message doubles from this.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// While a stream depends on the relay, a beacon that does not answer is asked this often, so that the stream goes on
/// within a second of its coming back.
const NEEDED_RETRY: Duration = Duration::from_millis(700);

/// After this long without a word of a beacon that frames go through, it is asked whether it is there.
const DOUBT: Duration = Duration::from_millis(400);

/// A beacon in doubt that does not answer is asked again after this long, or twice the time its answers take.
const DOUBT_RETRY: Duration = Duration::from_millis(250);

/// After this long without an answer that is no use any more: a stream gives up before.
const NEEDED_FOR: Duration = Duration::from_secs(180);

/// When a message goes out and this many before it are unanswered, the beacon counts as silent: after 1.5 s.
const SILENT_AFTER: u32 = 2;

/// Our number or address may be announced out of turn this often.
const ANNOUNCE_APART: Duration = Duration::from_millis(250);

/// What is known of a beacon's answers, and was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing yet, or nothing since it is asked another way.
    Unknown,
    Answers,
    SilentSince(Instant),
}

/// The beacon of a node.
#[derive(Debug)]
pub(crate) struct Beacon {
    addr: SocketAddr,
    observed: Option<SocketAddr>,
    due: Instant,
    retry: Duration,
    asked: Option<Instant>,
    answered: Option<Instant>,
    unanswered: u32,
    standing: Standing,
    rtt: Option<Duration>,
    /// Since when frames go through it without a word from it.
    unheard_since: Option<Instant>,
    /// Its last message was one that doubt has sent, and nothing was heard since.
    doubted: bool,
}

impl Beacon {
    pub(crate) fn new(now: Instant, addr: SocketAddr) -> Self {
        Self {
            addr,
            observed: None,
            due: now,
            retry: FIRST_RETRY,
            asked: None,
            answered: None,
            unanswered: 0,
            standing: Standing::Unknown,
            rtt: None,
            unheard_since: None,
            doubted: false,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address the beacon sees us at.
    pub(crate) fn observed(&self) -> Option<SocketAddr> {
        self.observed
    }

    /// When it last answered.
    pub(crate) fn answered(&self) -> Option<Instant> {
        self.answered
    }

    /// How long its last answer took.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// It answered, and has not been silent since.
    pub(crate) fn is_there(&self) -> bool {
        self.standing == Standing::Answers
    }

    /// It has left so many messages unanswered that it counts as silent.
    fn is_silent(&self) -> bool {
        matches!(self.standing, Standing::SilentSince(_))
    }

    /// Our number or address changed: the beacon should hear of it now.
    pub(crate) fn announce(&mut self, now: Instant) {
        self.due = self.asked.map_or(now, |asked| now.max(asked + ANNOUNCE_APART));
        self.retry = FIRST_RETRY;
    }

    /// Our network is another one, or the way to it: if it was silent, whether it is from here is to be found out anew, and
    /// told anew.
    pub(crate) fn asked_from_elsewhere(&mut self) {
        self.unanswered = 0;
        if self.is_silent() {
            self.standing = Standing::Unknown;
        }
    }

    /// Our number is another than the beacon knows: it should hear of it at once.
    pub(crate) fn renamed(&mut self, now: Instant) {
        self.due = now;
        self.retry = FIRST_RETRY;
    }

    /// Frames leave through it. Whether that changes when it is asked next.
    pub(crate) fn relays(&mut self, now: Instant) -> bool {
        let is_first = self.unheard_since.is_none();
        self.unheard_since.get_or_insert(now);
        is_first
    }

    /// Something came from it.
    pub(crate) fn heard(&mut self) {
        self.unheard_since = None;
        self.doubted = false;
    }

    /// When it is to be asked because of what it owes to those who use it.
    fn doubt_at(&self) -> Option<Instant> {
        self.unheard_since.filter(|_| self.unanswered == 0).map(|since| since + DOUBT)
    }

    /// If a discover message is due. `needed`: a stream depends on the relay.
    pub(crate) fn is_due(&mut self, now: Instant, needed: bool) -> bool {
        if self.poll_timeout() > now {
            return false;
        }
        self.doubted |= self.doubt_at().is_some_and(|at| at <= now);
        let given_up = matches!(self.standing, Standing::SilentSince(since) if since + NEEDED_FOR <= now);
        let wait = if needed && !given_up { self.retry.min(NEEDED_RETRY) } else { self.retry };
        let wait = if self.doubted && !self.is_silent() {
            wait.min(DOUBT_RETRY.max(2 * self.rtt.unwrap_or_default()))
        } else {
            wait
        };
        self.due = now + wait;
        self.retry = (self.retry * 2).min(INTERVAL);
        self.asked = Some(now);
        self.unanswered += 1;
        true
    }

    /// If it counts as silent from now on.
    pub(crate) fn falls_silent(&mut self, now: Instant) -> bool {
        let falls = self.unanswered > SILENT_AFTER && !self.is_silent();
        if falls {
            self.standing = Standing::SilentSince(now);
        }
        falls
    }

    /// If a second message has just gone out for want of an answer to the first.
    pub(crate) fn is_late(&self) -> bool {
        self.unanswered == 2 && !self.is_silent()
    }

    /// Whether it owes an answer. What comes unasked in its name is not its own.
    pub(crate) fn owes_an_answer(&self) -> bool {
        self.unanswered > 0
    }

    /// It answered. Whether it had not before, or not lately.
    pub(crate) fn replied(&mut self, now: Instant) -> bool {
        let back = !self.is_there();
        self.due = now + INTERVAL;
        self.retry = FIRST_RETRY;
        if self.unanswered == 1 {
            self.rtt = self.asked.map(|asked| now.saturating_duration_since(asked));
        }
        self.unanswered = 0;
        self.answered = Some(now);
        self.standing = Standing::Answers;
        self.heard();
        back
    }

    /// It sees us at this address; at none, over a way that is not UDP. Whether that is news.
    pub(crate) fn sees(&mut self, observed: Option<SocketAddr>) -> bool {
        std::mem::replace(&mut self.observed, observed) != observed
    }

    /// A stream depends on the relay from now on: if the beacon owes an answer, ask again soon.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if self.unanswered > 0 {
            self.due = self.due.min(now + NEEDED_RETRY);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.doubt_at().map_or(self.due, |at| at.min(self.due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(beacon: &mut Beacon, start: Instant, count: usize, needed: bool) -> Vec<u128> {
        let mut asked = Vec::new();
        while asked.len() < count {
            let now = beacon.poll_timeout();
            assert!(beacon.is_due(now, needed));
            asked.push((now - start).as_millis());
        }
        asked
    }

    #[test]
    fn a_silent_beacon_is_asked_with_back_off_and_an_answering_one_at_leisure() {
        let start = crate::testing::start();
        let addr = SocketAddr::from(([127, 0, 0, 1], 9001));
        let mut beacon = Beacon::new(start, addr);
        assert_eq!(asked(&mut beacon, start, 5, false), [0, 500, 1500, 3500, 7500]);
        let now = start + Duration::from_secs(8);
        assert!(beacon.owes_an_answer());
        assert!(beacon.replied(now), "it is back");
        assert!(!beacon.replied(now));
        assert!(!beacon.owes_an_answer());
        assert!(beacon.sees(Some(addr)));
        assert!(!beacon.sees(Some(addr)));
        assert_eq!(beacon.poll_timeout(), now + INTERVAL);
    }

    #[test]
    fn a_beacon_that_a_stream_waits_for_is_asked_more_than_once_a_second() {
        let start = crate::testing::start();
        let mut beacon = Beacon::new(start, SocketAddr::from(([127, 0, 0, 1], 9001)));
        assert_eq!(asked(&mut beacon, start, 5, true), [0, 500, 1200, 1900, 2600]);
    }

    #[test]
    fn a_beacon_that_frames_go_through_and_nothing_comes_from_is_silent_within_a_second() {
        let start = crate::testing::start();
        let mut beacon = Beacon::new(start, SocketAddr::from(([127, 0, 0, 1], 9001)));
        assert!(beacon.is_due(start, false));
        beacon.replied(start);
        let relayed = start + Duration::from_secs(3);
        assert!(beacon.relays(relayed));
        assert!(!beacon.relays(relayed), "it is planned already");
        let mut now = relayed;
        for _ in 0..3 {
            now = beacon.poll_timeout();
            assert!(beacon.is_due(now, false));
        }
        assert!(beacon.falls_silent(now));
        assert_eq!(now - relayed, Duration::from_millis(900));
        // One that says anything at all is left in peace.
        beacon.replied(now);
        assert!(beacon.relays(now));
        beacon.heard();
        assert_eq!(beacon.poll_timeout(), now + INTERVAL);
    }

    #[test]
    fn a_beacon_without_an_answer_for_a_second_and_a_half_is_silent_once() {
        let start = crate::testing::start();
        let addr = SocketAddr::from(([127, 0, 0, 1], 9001));
        let mut beacon = Beacon::new(start, addr);
        let mut fell = Vec::new();
        for _ in 0..6 {
            let now = beacon.poll_timeout();
            beacon.is_due(now, false);
            if beacon.falls_silent(now) {
                fell.push((now - start).as_millis());
            }
        }
        assert_eq!(fell, [1500]);
        assert!(!beacon.is_there());
        beacon.replied(start + Duration::from_secs(60));
        assert!(beacon.is_there());
    }

    #[test]
    fn asked_another_way_a_silent_beacon_is_told_to_be_back_or_silent_again() {
        let start = crate::testing::start();
        let mut beacon = Beacon::new(start, SocketAddr::from(([127, 0, 0, 1], 9001)));
        let mut now = start;
        let mut falls = |beacon: &mut Beacon| {
            for _ in 0..3 {
                now = now.max(beacon.poll_timeout());
                assert!(beacon.is_due(now, false));
            }
            beacon.falls_silent(now)
        };
        assert!(falls(&mut beacon) && beacon.is_silent());
        beacon.asked_from_elsewhere();
        assert!(!beacon.is_silent() && !beacon.is_there());
        assert!(falls(&mut beacon), "nobody knew that it is silent there as well");
        beacon.asked_from_elsewhere();
        assert!(beacon.replied(start + Duration::from_secs(60)), "it is back");
        beacon.asked_from_elsewhere();
        assert!(beacon.is_there(), "nothing says that it is not");
    }
}
