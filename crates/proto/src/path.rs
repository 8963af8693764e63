//! Where one peer is reached: directly at an address that has proved itself, or through the beacon.
//!
//! Addresses that somebody merely told us are *hints*: they get key exchanges and probes, which are small, and
//! nothing else until an authentic frame has come from them. A working address is replaced only when the new one
//! has answered a probe, so an attacker who forwards a captured frame from elsewhere moves nothing.

pub(crate) mod beacon;
pub(crate) mod candidate;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Hints kept for a peer: the registry's address, a few of its own network, one from a punch.
const HINTS_MAX: usize = 6;

/// When frames come through the relay and none came directly for this long, the direct way is checked.
const DIRECT_GRACE: Duration = Duration::from_secs(3);

/// How long the answer to such a check may take.
const CHECK_TIME: Duration = Duration::from_secs(1);

/// Probes sent to an address that frames newly come from.
const VALIDATIONS_MAX: u8 = 3;

/// How a frame came or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Via {
    /// In a datagram of its own.
    Direct(SocketAddr),
    /// Wrapped, through the beacon.
    Relay,
}

/// What an authentic frame says about the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing new.
    Known,
    /// Our frames go another way from now on.
    Moved(Via),
    /// It came from an address that must prove itself first: probe it.
    Validate(SocketAddr),
}

/// The ways to one peer.
#[derive(Debug, Default)]
pub(crate) struct Path {
    direct: Option<Direct>,
    validating: Option<(SocketAddr, u8)>,
    relay_heard: Option<Instant>,
    /// Where a signed key exchange came from. It may be a recorded one, so frames go there only while nothing
    /// authentic has come from anywhere.
    provisional: Option<Via>,
    hints: Vec<SocketAddr>,
    /// The peer asked to be reached through the beacon only.
    relay_only: bool,
}

#[derive(Debug, Clone, Copy)]
struct Direct {
    addr: SocketAddr,
    heard: Instant,
    /// When it was asked whether it still works.
    checked: Option<Instant>,
    /// Since when it seems not to. A relayed frame after that moves the route.
    doubted: Option<Instant>,
}

impl Direct {
    fn new(addr: SocketAddr, heard: Instant) -> Self {
        Self { addr, heard, checked: None, doubted: None }
    }
}

impl Path {
    /// Somebody said the peer is at `addr`. The latest word comes first.
    pub(crate) fn hint(&mut self, addr: SocketAddr) {
        self.hints.retain(|known| *known != addr);
        self.hints.insert(0, addr);
        self.hints.truncate(HINTS_MAX);
    }

    /// A key exchange with a good signature came this way.
    pub(crate) fn exchanged(&mut self, via: Via) {
        self.provisional = Some(via);
        if let Via::Direct(addr) = via {
            self.hint(addr);
        }
    }

    pub(crate) fn set_relay_only(&mut self, relay_only: bool) {
        self.relay_only = relay_only;
    }

    /// An authentic frame came this way.
    pub(crate) fn heard(&mut self, now: Instant, via: Via) -> Heard {
        // A provisional way that proves itself is news, too.
        let before = self.route().filter(|_| self.is_proven());
        match (via, &mut self.direct) {
            (Via::Relay, direct) => {
                self.relay_heard = Some(now);
                // A peer may use the relay though the direct way works: that is no reason to leave it.
                if let Some(direct) = direct
                    && now > direct.heard + DIRECT_GRACE
                {
                    match direct.checked {
                        None => {
                            direct.checked = Some(now);
                            return Heard::Validate(direct.addr);
                        }
                        Some(at) if now > at + CHECK_TIME => direct.doubted = direct.doubted.or(Some(at)),
                        Some(_) => {}
                    }
                }
            }
            (Via::Direct(addr), Some(direct)) if direct.addr == addr => *direct = Direct::new(addr, now),
            (Via::Direct(addr), Some(_)) => return self.validate(addr),
            (Via::Direct(addr), direct @ None) => *direct = Some(Direct::new(addr, now)),
        }
        match self.route() {
            Some(after) if before != Some(after) => Heard::Moved(after),
            Some(_) | None => Heard::Known,
        }
    }

    /// Nothing is heard from the peer though something should be: the next relayed frame moves the route.
    pub(crate) fn doubt_direct(&mut self, now: Instant) {
        if let Some(direct) = &mut self.direct {
            direct.doubted = direct.doubted.or(Some(now));
        }
    }

    /// The peer answered, whichever way, what was sent to this address only: if it is the proven one, it works.
    pub(crate) fn confirmed(&mut self, now: Instant, addr: SocketAddr) {
        if let Some(direct) = &mut self.direct
            && direct.addr == addr
        {
            *direct = Direct::new(addr, now);
        }
    }

    fn validate(&mut self, addr: SocketAddr) -> Heard {
        let sent = match self.validating {
            Some((validating, sent)) if validating == addr => sent,
            Some(_) | None => 0,
        };
        if sent == VALIDATIONS_MAX {
            return Heard::Known;
        }
        self.validating = Some((addr, sent + 1));
        Heard::Validate(addr)
    }

    /// The peer answered our probe from this address.
    pub(crate) fn validated(&mut self, now: Instant, addr: SocketAddr) -> Heard {
        if self.direct.is_some_and(|direct| direct.addr == addr) {
            return Heard::Known;
        }
        self.direct = Some(Direct::new(addr, now));
        self.validating = None;
        Heard::Moved(Via::Direct(addr))
    }

    /// Where frames go: the direct address, unless it seems dead and the relay works.
    pub(crate) fn route(&self) -> Option<Via> {
        match (self.direct, self.relay_heard) {
            (Some(Direct { doubted: Some(since), .. }), Some(relay)) if relay > since => Some(Via::Relay),
            (Some(direct), _) => Some(Via::Direct(direct.addr)),
            (None, Some(_)) => Some(Via::Relay),
            (None, None) => self.provisional,
        }
    }

    /// Whether an authentic frame ever came.
    pub(crate) fn is_proven(&self) -> bool {
        self.direct.is_some() || self.relay_heard.is_some()
    }

    /// Whether there is any address to try.
    pub(crate) fn has_hints(&self) -> bool {
        !self.hints.is_empty() || self.direct.is_some()
    }

    /// Every way worth trying: the proven address, the hints, the relay (which the caller may not have).
    pub(crate) fn all(&self) -> impl Iterator<Item = Via> + '_ {
        let proven = self.direct.map(|direct| direct.addr);
        let hints = self.hints.iter().copied().filter(move |hint| Some(*hint) != proven && !self.relay_only);
        proven.into_iter().chain(hints).map(Via::Direct).chain([Via::Relay])
    }

    /// Whether a better way than the present one may exist.
    pub(crate) fn is_improvable(&self) -> bool {
        !self.relay_only && self.route() == Some(Via::Relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 4000))
    }

    #[test]
    fn a_relayed_peer_moves_to_the_direct_path_with_its_first_direct_frame() {
        let now = crate::testing::start();
        let mut path = Path::default();
        path.hint(addr(1));
        assert_eq!(path.route(), None, "a hint is not a route");
        assert_eq!(path.heard(now, Via::Relay), Heard::Moved(Via::Relay));
        assert!(path.is_improvable());
        assert_eq!(path.heard(now, Via::Direct(addr(1))), Heard::Moved(Via::Direct(addr(1))));
        assert_eq!(path.heard(now, Via::Relay), Heard::Known);
    }

    #[test]
    fn a_relay_that_was_only_assumed_is_left_once_it_is_sure() {
        let now = crate::testing::start();
        let mut path = Path::default();
        path.exchanged(Via::Relay);
        assert_eq!(path.route(), Some(Via::Relay));
        assert_eq!(
            path.heard(now, Via::Relay),
            Heard::Moved(Via::Relay),
            "the node looks for a better way now"
        );
    }

    #[test]
    fn a_direct_path_that_does_not_answer_gives_way_to_the_relay() {
        let start = crate::testing::start();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut path = Path::default();
        path.heard(at(0), Via::Direct(addr(1)));
        assert_eq!(path.heard(at(2), Via::Relay), Heard::Known);
        assert_eq!(path.heard(at(10), Via::Relay), Heard::Validate(addr(1)));
        assert_eq!(path.heard(at(12), Via::Relay), Heard::Moved(Via::Relay));
        assert_eq!(path.heard(at(13), Via::Direct(addr(1))), Heard::Moved(Via::Direct(addr(1))));
    }

    #[test]
    fn a_peer_that_prefers_the_relay_does_not_move_us_off_a_working_direct_path() {
        let start = crate::testing::start();
        let mut path = Path::default();
        path.heard(start, Via::Direct(addr(1)));
        for seconds in 1..100 {
            let now = start + Duration::from_secs(seconds);
            if path.heard(now, Via::Relay) == Heard::Validate(addr(1)) {
                path.confirmed(now, addr(1));
            }
            assert_eq!(path.route(), Some(Via::Direct(addr(1))));
        }
    }

    #[test]
    fn a_peer_that_falls_silent_is_followed_to_the_relay_at_once() {
        let start = crate::testing::start();
        let mut path = Path::default();
        path.heard(start, Via::Direct(addr(1)));
        path.doubt_direct(start + Duration::from_millis(250));
        assert_eq!(path.route(), Some(Via::Direct(addr(1))), "there is nothing better yet");
        let moved = path.heard(start + Duration::from_millis(251), Via::Relay);
        assert_eq!(moved, Heard::Moved(Via::Relay));
    }

    #[test]
    fn another_address_must_answer_a_probe_before_it_is_used() {
        let now = crate::testing::start();
        let mut path = Path::default();
        path.heard(now, Via::Direct(addr(1)));
        let frames = (0..10).map(|_| path.heard(now, Via::Direct(addr(2))));
        assert_eq!(frames.filter(|heard| *heard == Heard::Validate(addr(2))).count(), 3);
        assert_eq!(path.route(), Some(Via::Direct(addr(1))));
        assert_eq!(path.validated(now, addr(2)), Heard::Moved(Via::Direct(addr(2))));
        assert_eq!(path.route(), Some(Via::Direct(addr(2))));
    }
}
