//! Which of the registry's beacons is used: the one beside it, until that falls silent; then the next of the list.
//!
//! All beacons of a registry pass frames on to each other, so any of them will do. The list is asked for when this node
//! has registered and now and then after that, and kept: when a beacon dies the registry may be gone, too.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilot_wire::registry::{Request, Response};

use super::Driver;
use super::deadlines::{Deadline, Key};
use crate::registry::{CallError, CallId};

/// How often the list is asked for.
const REFRESH: Duration = Duration::from_secs(60);

/// How often another beacon is tried while none answers.
const RETRY: Duration = Duration::from_secs(5);

/// Beacons kept of the list. A registry announces as many.
const BEACONS_MAX: usize = 64;

/// The beacons.
#[derive(Debug, Default)]
pub(super) struct Beacons {
    /// The configured one.
    home: Option<SocketAddr>,
    /// As the registry tells them.
    listed: Vec<SocketAddr>,
    /// In use, if it is not the configured one.
    away: Option<SocketAddr>,
    /// Silent since one answered last.
    silent: Vec<SocketAddr>,
    asked: Option<CallId>,
    next_look: Option<Key>,
}

impl Beacons {
    pub(super) fn is_asked(&self, id: CallId) -> bool {
        self.asked == Some(id)
    }

    fn current(&self) -> Option<SocketAddr> {
        self.away.or(self.home)
    }

    /// All of them, those after the one in use first.
    fn others(&self) -> impl Iterator<Item = SocketAddr> {
        let all: Vec<SocketAddr> = self.home.into_iter().chain(self.listed.iter().copied()).collect();
        let current = self.current();
        let at = all.iter().position(|addr| Some(*addr) == current).map_or(0, |at| at + 1);
        let (before, after) = all.split_at(at.min(all.len()));
        let ring: Vec<SocketAddr> = after.iter().chain(before).copied().collect();
        ring.into_iter().filter(move |addr| Some(*addr) != current)
    }

    /// The one in use does not answer. The next that has not been found silent, too.
    fn next(&mut self) -> Option<SocketAddr> {
        let current = self.current()?;
        if !self.silent.contains(&current) {
            self.silent.push(current);
        }
        let next = self.others().find(|addr| !self.silent.contains(addr));
        if let Some(next) = next {
            self.away = (Some(next) != self.home).then_some(next);
        }
        next
    }

    fn set_listed(&mut self, addrs: impl Iterator<Item = SocketAddr>) {
        // Nobody else's loopback is ours.
        let on_loopback = self.home.is_some_and(|home| home.ip().is_loopback());
        let home = self.home;
        let usable = addrs.filter(|addr| {
            let ip = addr.ip();
            addr.port() != 0
                && !ip.is_unspecified()
                && !ip.is_multicast()
                && (on_loopback || !ip.is_loopback())
                && Some(*addr) != home
        });
        self.listed = usable.take(BEACONS_MAX).collect();
    }
}

impl Driver {
    /// The beacon beside the registry has this address.
    pub(super) fn set_home_beacon(&mut self, addr: SocketAddr) {
        if self.beacons.home.replace(addr) != Some(addr) {
            self.beacons.away = None;
            self.beacons.silent.clear();
        }
    }

    /// The beacon as it is shown: as it was configured, unless another is in use.
    pub(super) fn beacon_in_use(&self) -> String {
        let away = self.beacons.away.map(|addr| addr.to_string());
        away.unwrap_or_else(|| self.beacon())
    }

    /// None answers over UDP: over the web it is the configured one that is talked to.
    pub(super) fn return_to_home_beacon(&mut self, now: Instant) {
        if let (Some(_), Some(home)) = (self.beacons.away.take(), self.beacons.home) {
            self.set_beacon(now, home);
        }
    }

    /// This node has registered, or the list is old.
    pub(super) fn look_for_beacons(&mut self, now: Instant) {
        if let Some(planned) = self.beacons.next_look.take() {
            self.deadlines.cancel(planned);
        }
        if self.beacons.home.is_none() {
            return;
        }
        if self.beacons.asked.is_none() {
            self.beacons.asked = self.send_call(Request::BeaconList {}.into());
        }
        let mut again = REFRESH;
        if self.beacon_answers() == Some(false) && !self.web.is_up() {
            // All were silent; perhaps one is back.
            self.beacons.silent.clear();
            self.use_next_beacon(now);
            again = RETRY;
        }
        self.beacons.next_look = Some(self.deadlines.add(now + again, Deadline::Beacons));
    }

    pub(super) fn on_beacon_list(&mut self, outcome: Result<Vec<u8>, CallError>) {
        self.beacons.asked = None;
        let reply = outcome.ok().and_then(|reply| Response::parse(&reply).ok());
        if let Some(Response::BeaconList { beacons }) = reply {
            self.beacons.set_listed(beacons.iter().filter_map(|beacon| beacon.addr.parse().ok()));
        }
    }

    /// The beacon in use has answered.
    pub(super) fn beacon_is_in_order(&mut self) {
        self.beacons.silent.clear();
    }

    /// The beacon in use does not answer: goes over to another. `false` if none is left to try.
    pub(super) fn use_next_beacon(&mut self, now: Instant) -> bool {
        let Some(next) = self.beacons.next() else {
            // Looks for one that is back sooner than for news of the list.
            if let Some(planned) = self.beacons.next_look.take() {
                self.deadlines.cancel(planned);
            }
            self.beacons.next_look = Some(self.deadlines.add(now + RETRY, Deadline::Beacons));
            return false;
        };
        tracing::info!(beacon = %next, "going over to another beacon");
        self.set_beacon(now, next);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn beacons(listed: &[u16]) -> Beacons {
        let mut beacons = Beacons { home: Some(addr(1)), ..Beacons::default() };
        beacons.set_listed(listed.iter().map(|port| addr(*port)));
        beacons
    }

    #[test]
    fn each_beacon_is_tried_once_and_the_configured_one_is_one_of_them() {
        let mut beacons = beacons(&[1, 2, 3]);
        assert_eq!(beacons.next(), Some(addr(2)));
        assert_eq!(beacons.away, Some(addr(2)));
        assert_eq!(beacons.next(), Some(addr(3)));
        assert_eq!(beacons.next(), None);
        beacons.silent.clear();
        assert_eq!(beacons.next(), Some(addr(1)), "round again");
        assert_eq!(beacons.away, None);
    }

    #[test]
    fn a_beacon_that_is_not_in_the_list_any_more_is_left_for_one_that_is() {
        let mut beacons = beacons(&[2]);
        beacons.next();
        beacons.set_listed([addr(3)].into_iter());
        assert_eq!(beacons.next(), Some(addr(3)), "the first was silent, too");
    }

    #[test]
    fn what_cannot_be_reached_from_here_is_not_listed() {
        let mut beacons = beacons(&[]);
        let listed = ["127.0.0.1:9", "0.0.0.0:9", "198.51.100.1:0", "198.51.100.1:9"];
        beacons.set_listed(listed.iter().map(|text| text.parse().unwrap()));
        assert_eq!(beacons.listed, ["198.51.100.1:9".parse().unwrap()]);
        beacons.home = Some(SocketAddr::from(([127, 0, 0, 1], 1)));
        beacons.set_listed(listed.iter().map(|text| text.parse().unwrap()));
        assert_eq!(beacons.listed.len(), 2);
    }
}
