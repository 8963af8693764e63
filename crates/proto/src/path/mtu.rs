//! How large datagrams may be on the way to one peer (RFC 8899, as a machine for one path at a time).
//!
//! Every path starts with datagrams that any path carries. Once a stream fills them, larger ones are tried, padded and
//! marked "do not fragment": a size that is answered is used at once, one that is not answered three times is too large.
//! Only direct ways are searched. The beacon must pass on datagrams of any size, in fragments where need be, so an
//! answer through it would prove nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Via;

/// Bytes of the largest datagram that any path is trusted to carry: 1152 bytes of a stream with what is around them,
/// which with the headers of IP is just below the least that IPv6 allows (1280).
pub(crate) const BASE: u16 = 1222;

/// What a frame adds to the payload of a packet: tunnel header, packet header, tag.
const OVERHEAD: u16 = BASE - 1152;

/// What the way through the beacon adds to a frame.
const RELAYED: u16 = 9;

/// Sizes at which paths end, less the headers of IP and UDP: tunnels and PPPoE over Ethernet in several wrappings,
/// Ethernet, large frames. Anything between two of them is not worth a probe (RFC 8899 5.3.2).
const SIZES: [u16; 13] = [1302, 1352, 1372, 1392, 1412, 1432, 1452, 1464, USUAL, 4052, 8152, 8952, 8972];

/// What Ethernet carries, with IPv4 around it.
const USUAL: u16 = 1472;

/// Full segments that a stream sends before larger ones are worth a search.
const FULL_BEFORE: u8 = 16;

/// Probes of one size (RFC 8899 5.1.2).
const TRIES: u8 = 3;

/// An answer is waited for during four round trips, as QUIC does, but this long at least. RFC 8899 5.1.1 has a second for
/// those who do not know the round trip.
const WAIT_MIN: Duration = Duration::from_millis(300);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A path that did not carry all we would send is tried again this much later (RFC 8899 5.1.1).
const RAISE_AFTER: Duration = Duration::from_secs(600);

/// After the first, second, later times that a path stopped carrying what it had carried, as it seemed: it may have
/// carried nothing at all for a while.
const HOLE_RESTS: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(60)];

/// After so long without that it is the first time again.
const HOLES_FORGOTTEN: Duration = RAISE_AFTER;

/// What is known of the path in use.
#[derive(Debug)]
pub(crate) struct Mtu {
    /// The address that all of it is about; `None` while frames go through the relay, or nowhere.
    addr: Option<SocketAddr>,
    /// The largest datagram that arrived.
    proven: u16,
    full: u8,
    /// How often the path stopped carrying what it had carried.
    holes: u8,
    hole_at: Option<Instant>,
    /// Not even the base arrives, as it seems: fragments are better than nothing.
    narrow: bool,
    rest_until: Option<Instant>,
    hunt: Option<Box<Hunt>>,
}

/// A search under way.
#[derive(Debug)]
struct Hunt {
    /// The largest size that would be of use.
    ceiling: u16,
    /// The least size that is known not to arrive.
    too_large: u16,
    /// Sizes tried so far.
    rounds: u8,
    size: u16,
    token: u64,
    tries: u8,
    deadline: Instant,
    /// Size and name of the probes before, which were given up.
    given_up: Option<(u16, u64)>,
}

/// A probe to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) to: SocketAddr,
    /// Bytes of the whole datagram.
    pub(crate) size: u16,
    pub(crate) token: u64,
}

impl Default for Mtu {
    fn default() -> Self {
        Self {
            addr: None,
            proven: BASE,
            full: 0,
            holes: 0,
            hole_at: None,
            narrow: false,
            rest_until: None,
            hunt: None,
        }
    }
}

impl Mtu {
    /// Frames go this way from now on: what was learned about another one is void. Whether the size fell.
    pub(crate) fn moved(&mut self, to: Via) -> bool {
        let addr = match to {
            Via::Direct(addr) => Some(addr),
            Via::Relay => None,
        };
        if self.addr == addr {
            return false;
        }
        let before = self.proven;
        *self = Self { addr, ..Self::default() };
        before > self.proven
    }

    /// Payload bytes of a segment that fills a datagram, sealed or not: in the clear the frame is a little smaller.
    pub(crate) fn segment(&self) -> u16 {
        self.proven - OVERHEAD
    }

    /// The largest datagram that is known to arrive, of those that are worth knowing.
    pub(crate) fn datagram(&self) -> u16 {
        self.proven
    }

    /// The largest datagram that a frame may be which goes this way without being cut.
    pub(crate) fn carried(&self, via: Via) -> usize {
        let proven = match via {
            Via::Direct(addr) if self.addr == Some(addr) => self.proven,
            Via::Direct(_) => BASE,
            Via::Relay => BASE + RELAYED,
        };
        if self.narrow { 0 } else { usize::from(proven) }
    }

    /// Whether what goes to the peer may be cut into fragments because the path carries less than the base.
    pub(crate) fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// A stream sent so many segments of full size, and its peer takes larger ones. Whether a search begins.
    pub(crate) fn filled(&mut self, now: Instant, segments: usize, ceiling: u16) -> bool {
        self.full = self.full.saturating_add(u8::try_from(segments).unwrap_or(u8::MAX));
        let worthwhile = self.full >= FULL_BEFORE && self.addr.is_some() && self.proven < ceiling;
        let begins = worthwhile && self.hunt.is_none() && self.rest_until.is_none_or(|until| until <= now);
        if begins {
            let too_large = ceiling.saturating_add(1);
            // The first size is chosen when the probe is asked for.
            let hunt = Hunt {
                ceiling,
                too_large,
                rounds: 0,
                size: 0,
                token: 0,
                tries: 0,
                deadline: now,
                given_up: None,
            };
            self.hunt = Some(Box::new(hunt));
            self.rest_until = Some(now + RAISE_AFTER);
        }
        begins
    }

    /// The probe that is due, if one is. `rtt` is the round trip of the path, `token` a fresh random number.
    pub(crate) fn poll(&mut self, now: Instant, rtt: Option<Duration>, token: u64) -> Option<Probe> {
        let to = self.addr?;
        let hunt = self.hunt.as_mut().filter(|hunt| hunt.deadline <= now)?;
        if hunt.tries >= TRIES {
            hunt.too_large = hunt.size;
            hunt.given_up = Some((hunt.size, hunt.token));
            hunt.tries = 0;
        }
        if hunt.tries == 0 {
            let Some(size) = hunt.next(self.proven) else {
                self.hunt = None;
                return None;
            };
            (hunt.size, hunt.token) = (size, token);
            hunt.rounds = hunt.rounds.saturating_add(1);
        }
        hunt.tries += 1;
        hunt.deadline = now + rtt.map_or(WAIT_MIN, |rtt| (rtt * 4).clamp(WAIT_MIN, WAIT_MAX));
        Some(Probe { to, size: hunt.size, token: hunt.token })
    }

    /// The peer got a probe. Whether larger datagrams may be sent from now on.
    pub(crate) fn answered(&mut self, now: Instant, token: u64) -> bool {
        let Some(hunt) = &mut self.hunt else { return false };
        if let Some((size, _)) = hunt.given_up.filter(|&(size, name)| name == token && size > self.proven) {
            // Late: the path has a longer queue than was thought. Larger ones have another chance.
            hunt.given_up = None;
            hunt.too_large = hunt.ceiling.saturating_add(1);
            hunt.size = size;
        } else if hunt.tries == 0 || hunt.token != token {
            return false;
        }
        self.proven = self.proven.max(hunt.size);
        self.narrow = false;
        hunt.tries = 0;
        hunt.deadline = now;
        true
    }

    /// This host itself refused to send a datagram of this size to this address. Whether the size in use falls.
    pub(crate) fn refused(&mut self, now: Instant, to: SocketAddr, size: usize) -> bool {
        if self.addr != Some(to) {
            return false;
        }
        if let Some(hunt) = self.hunt.as_mut().filter(|hunt| hunt.tries > 0 && usize::from(hunt.size) == size)
        {
            hunt.tries = TRIES;
            hunt.deadline = now;
            return false;
        }
        size <= usize::from(self.proven) && self.lost(now)
    }

    /// Datagrams of the present size do not arrive any more, as far as one can tell. Whether the size fell.
    pub(crate) fn lost(&mut self, now: Instant) -> bool {
        self.hunt = None;
        if self.hole_at.is_some_and(|at| at + HOLES_FORGOTTEN <= now) {
            self.holes = 0;
        }
        let rest = HOLE_RESTS[usize::from(self.holes).min(HOLE_RESTS.len() - 1)];
        self.rest_until = Some(now + rest);
        self.narrow |= self.proven == BASE;
        if self.proven == BASE {
            return false;
        }
        self.holes = self.holes.saturating_add(1);
        self.hole_at = Some(now);
        self.proven = BASE;
        true
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.hunt.as_ref().map(|hunt| hunt.deadline)
    }
}

impl Hunt {
    /// The next size to try: what most paths carry, then the most that would be of use, then halves of what is left.
    fn next(&self, proven: u16) -> Option<u16> {
        let ceiling = self.ceiling;
        let is_open = |size: &u16| proven < *size && *size < self.too_large;
        let usual = Some(USUAL.min(ceiling)).filter(is_open);
        match self.rounds {
            0 if usual.is_some() => usual,
            0 | 1 if proven >= USUAL && is_open(&ceiling) => Some(ceiling),
            _ => {
                let sizes =
                    || SIZES.into_iter().filter(|&size| size < ceiling).chain([ceiling]).filter(is_open);
                sizes().nth(sizes().count() / 2)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const CEILING: u16 = 16_454;

    fn searching(ceiling: u16) -> Mtu {
        let mut mtu = Mtu::default();
        mtu.moved(Via::Direct("192.0.2.1:4000".parse().unwrap()));
        assert!(!mtu.filled(start(), 15, ceiling));
        assert!(mtu.filled(start(), 1, ceiling));
        mtu
    }

    /// Searches a path that carries `limit` to the end; says how many probes and how much time that took.
    fn search(mtu: &mut Mtu, now: &mut Instant, limit: u16) -> (u32, Duration) {
        let (begun, mut probes) = (*now, 0);
        while let Some(at) = mtu.poll_timeout() {
            *now = at.max(*now);
            if let Some(probe) = mtu.poll(*now, Some(Duration::from_millis(20)), u64::from(probes)) {
                probes += 1;
                if probe.size <= limit {
                    *now += Duration::from_millis(20);
                    assert!(mtu.answered(*now, probe.token));
                }
            }
        }
        (probes, *now - begun)
    }

    #[test]
    fn every_path_is_found_in_a_few_probes_and_never_overestimated() {
        for ceiling in [CEILING, 9000, 1472, 1400, 1230] {
            for limit in (1222..1600).chain([4000, 8952, 8990, 16_453, 16_454, 65_535]) {
                let mut mtu = searching(ceiling);
                let (probes, _) = search(&mut mtu, &mut start(), limit);
                let best =
                    SIZES.into_iter().chain([ceiling]).filter(|&size| size <= limit.min(ceiling)).max();
                assert_eq!(mtu.datagram(), best.unwrap_or(BASE), "{limit} below {ceiling}");
                assert!(probes <= 16, "{probes} probes for {limit} below {ceiling}");
            }
        }
    }

    #[test]
    fn ethernet_and_loopback_are_known_after_one_and_two_round_trips() {
        let mut mtu = searching(1472);
        assert_eq!(search(&mut mtu, &mut start(), 1472), (1, Duration::from_millis(20)));
        let mut mtu = searching(CEILING);
        assert_eq!(search(&mut mtu, &mut start(), 65_535), (2, Duration::from_millis(40)));
        assert_eq!(mtu.segment(), 16_384);
    }

    #[test]
    fn what_the_host_refuses_costs_no_time() {
        let mut mtu = searching(CEILING);
        let (now, to) = (start(), "192.0.2.1:4000".parse().unwrap());
        let mut probes = 0;
        while let Some(probe) = mtu.poll(now, None, probes) {
            probes += 1;
            if probe.size > 1472 {
                mtu.refused(now, to, usize::from(probe.size));
            } else {
                mtu.answered(now, probe.token);
            }
        }
        assert_eq!((mtu.datagram(), mtu.poll_timeout()), (1472, None));
        assert!(!mtu.refused(now, "192.0.2.2:4000".parse().unwrap(), 1400), "somebody else's");
        assert!(mtu.refused(now, to, 1400), "the interface carries less now");
        assert_eq!(mtu.datagram(), BASE);
    }

    #[test]
    fn a_single_lost_probe_decides_nothing_and_a_wrong_answer_is_none() {
        let mut mtu = searching(1472);
        let mut now = start();
        let first = mtu.poll(now, None, 7).unwrap();
        assert_eq!(mtu.poll(now, None, 8), None);
        assert!(!mtu.answered(now, 8));
        now = mtu.poll_timeout().unwrap();
        assert_eq!(mtu.poll(now, None, 9), Some(first), "the same size and name, so a late answer counts");
        assert!(mtu.answered(now, 7));
        assert!(!mtu.answered(now, 7), "once");
        assert_eq!(mtu.datagram(), 1472);
    }

    #[test]
    fn an_answer_that_comes_late_still_counts() {
        let mut mtu = searching(1472);
        let mut now = start();
        let first = mtu.poll(now, None, 1).unwrap();
        let mut other = first;
        while other.size == first.size {
            now = mtu.poll_timeout().unwrap();
            other = mtu.poll(now, None, 2).unwrap();
        }
        assert!(other.size < first.size);
        assert!(mtu.answered(now, 1));
        assert_eq!(mtu.datagram(), 1472);
        assert!(!mtu.answered(now, 1));
        assert_eq!((mtu.poll(now, None, 3), mtu.poll_timeout()), (None, None), "the end");
    }

    #[test]
    fn a_path_that_stops_carrying_falls_back_at_once_and_is_tried_again_later_each_time() {
        let mut now = start();
        let mut mtu = searching(1472);
        search(&mut mtu, &mut now, 1472);
        assert!(!mtu.filled(now, 100, 1472), "there is nothing more to find");
        for rest in HOLE_RESTS {
            assert!(mtu.lost(now));
            assert_eq!(mtu.datagram(), BASE);
            assert!(!mtu.filled(now + rest - Duration::from_millis(1), 1, 1472));
            now += rest;
            assert!(mtu.filled(now, 1, 1472));
            search(&mut mtu, &mut now, 1472);
        }
        assert!(!mtu.is_narrow());
        mtu.lost(now);
        assert!(!mtu.lost(now) && mtu.is_narrow(), "not even the base arrives");
        assert!(!mtu.moved(Via::Relay) && !mtu.is_narrow(), "another path, another chance");
    }

    #[test]
    fn a_path_below_the_ceiling_is_tried_again_after_ten_minutes() {
        let mut now = start();
        let mut mtu = searching(CEILING);
        search(&mut mtu, &mut now, 1472);
        assert_eq!(mtu.datagram(), 1472);
        assert!(!mtu.filled(start() + RAISE_AFTER - Duration::from_secs(1), 1, CEILING));
        now = start() + RAISE_AFTER;
        assert!(mtu.filled(now, 1, CEILING));
        search(&mut mtu, &mut now, 65_535);
        assert_eq!(mtu.datagram(), CEILING);
    }

    #[test]
    fn the_relay_is_never_searched() {
        let mut mtu = Mtu::default();
        mtu.moved(Via::Relay);
        assert!(!mtu.filled(start(), 1000, CEILING));
        assert_eq!(mtu.segment(), 1152);
    }
}
