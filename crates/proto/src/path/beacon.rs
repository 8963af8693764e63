//! Staying known to the beacon, which tells us our address and wraps frames for peers behind NAT.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How often the beacon hears from us: it also keeps the NAT binding towards it open.
const INTERVAL: Duration = Duration::from_secs(25);

/// The wait after an unanswered message doubles from this.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// The beacon of a node.
#[derive(Debug)]
pub(crate) struct Beacon {
    addr: SocketAddr,
    observed: Option<SocketAddr>,
    due: Instant,
    retry: Duration,
}

impl Beacon {
    pub(crate) fn new(now: Instant, addr: SocketAddr) -> Self {
        Self { addr, observed: None, due: now, retry: FIRST_RETRY }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address the beacon sees us at.
    pub(crate) fn observed(&self) -> Option<SocketAddr> {
        self.observed
    }

    /// Our number or address changed: the beacon should hear of it now.
    pub(crate) fn announce(&mut self, now: Instant) {
        self.due = now;
        self.retry = FIRST_RETRY;
    }

    /// If a discover message is due.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if self.due > now {
            return false;
        }
        self.due = now + self.retry;
        self.retry = (self.retry * 2).min(INTERVAL);
        true
    }

    /// It answered. Returns the address if it is news.
    pub(crate) fn replied(&mut self, now: Instant, observed: SocketAddr) -> Option<SocketAddr> {
        self.due = now + INTERVAL;
        self.retry = FIRST_RETRY;
        let news = self.observed.replace(observed) != Some(observed);
        news.then_some(observed)
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_beacon_is_asked_with_back_off_and_an_answering_one_at_leisure() {
        let start = crate::testing::start();
        let addr = SocketAddr::from(([127, 0, 0, 1], 9001));
        let mut beacon = Beacon::new(start, addr);
        let mut asked = Vec::new();
        while asked.len() < 5 {
            let now = beacon.poll_timeout();
            assert!(beacon.is_due(now));
            asked.push((now - start).as_millis());
        }
        assert_eq!(asked, [0, 500, 1500, 3500, 7500]);
        let now = start + Duration::from_secs(8);
        assert_eq!(beacon.replied(now, addr), Some(addr));
        assert_eq!(beacon.replied(now, addr), None);
        assert_eq!(beacon.poll_timeout(), now + INTERVAL);
    }
}
