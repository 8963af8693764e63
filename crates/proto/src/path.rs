//! Where one peer is reached: directly at an address that has proved itself, or through the beacon.
//!
//! Addresses that somebody merely told us are *hints*: they get key exchanges and probes, which are small, and
//! nothing else until an authentic frame has come from them. A working address is replaced only when the new one
//! has answered a probe, so an attacker who forwards a captured frame from elsewhere moves nothing.

pub(crate) mod beacon;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Hints kept for a peer: the registry's address, a few of its own network, one from a punch.
const HINTS_MAX: usize = 6;

/// The relay is preferred once frames arrive through it for this long and none directly.
const DIRECT_GRACE: Duration = Duration::from_secs(3);

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
            (Via::Relay, _) => self.relay_heard = Some(now),
            (Via::Direct(addr), Some(direct)) if direct.addr == addr => direct.heard = now,
            (Via::Direct(addr), Some(_)) => return self.validate(addr),
            (Via::Direct(addr), direct @ None) => *direct = Some(Direct { addr, heard: now }),
        }
        match self.route() {
            Some(after) if before != Some(after) => Heard::Moved(after),
            Some(_) | None => Heard::Known,
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
        self.direct = Some(Direct { addr, heard: now });
        self.validating = None;
        Heard::Moved(Via::Direct(addr))
    }

    /// Where frames go: the direct address, unless only the relay has been heard lately.
    pub(crate) fn route(&self) -> Option<Via> {
        match (self.direct, self.relay_heard) {
            (Some(direct), Some(relay)) if relay > direct.heard + DIRECT_GRACE => Some(Via::Relay),
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
    fn a_direct_path_that_falls_silent_gives_way_to_the_relay() {
        let now = crate::testing::start();
        let mut path = Path::default();
        path.heard(now, Via::Direct(addr(1)));
        path.heard(now + Duration::from_secs(2), Via::Relay);
        assert_eq!(path.route(), Some(Via::Direct(addr(1))));
        assert_eq!(path.heard(now + Duration::from_secs(4), Via::Relay), Heard::Moved(Via::Relay));
        let back = path.heard(now + Duration::from_secs(5), Via::Direct(addr(1)));
        assert_eq!(back, Heard::Moved(Via::Direct(addr(1))));
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
