//! Under load, a stranger has to show that it receives what is sent to its address before anything is computed for it
//! (as WireGuard and DTLS have it). Nothing is remembered for that: a cookie is a tag over the address.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use pilot_crypto::MacKey;
use pilot_wire::NodeId;
use pilot_wire::tunnel::Cookie;
use rand::CryptoRng;

use crate::rate::{Bucket, Rate};

/// A key is used this long, and cookies under it are taken as long again.
const KEY_LIFE: Duration = Duration::from_secs(120);

/// Cookies given out, to all together: fewer bytes than what they answer, but each costs a datagram, which is what a flood
/// costs most.
const RATE: Rate = Rate { burst: 512, interval: Duration::from_micros(200) };

/// The same to one source, so that few sources that flood leave the rest to others.
const RATE_OF_SOURCE: Rate = Rate { burst: 8, interval: Duration::from_millis(100) };

/// Sources that are told apart. Which share a place is nothing that they can find out.
const PLACES: usize = 1024;

#[derive(Debug)]
pub(super) struct Cookies {
    key: MacKey,
    since: Instant,
    before: Option<MacKey>,
    rate: Bucket,
    /// By place. Empty until the first is given out.
    sources: Vec<Bucket>,
    /// Deals out the places.
    secret: u64,
}

impl Cookies {
    pub(super) fn new(now: Instant, rng: &mut impl CryptoRng) -> Self {
        let (rate, sources) = (Bucket::full(now), Vec::new());
        Self { key: draw(rng), since: now, before: None, rate, sources, secret: rng.next_u64() }
    }

    /// A cookie for whoever writes from `addr` as `node`, if one may be given out now.
    pub(super) fn give(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        node: NodeId,
        rng: &mut impl CryptoRng,
    ) -> Option<Cookie> {
        let place = self.place(addr.ip());
        self.sources.resize(PLACES, Bucket::full(now));
        if !self.sources.get_mut(place)?.take(now, RATE_OF_SOURCE) || !self.rate.take(now, RATE) {
            return None;
        }
        if self.since + KEY_LIFE <= now {
            let young = self.since + 2 * KEY_LIFE > now;
            let before = std::mem::replace(&mut self.key, draw(rng));
            self.before = young.then_some(before);
            self.since = now;
        }
        Some(cookie(&self.key, addr, node))
    }

    fn place(&self, source: IpAddr) -> usize {
        let mut hasher = DefaultHasher::new();
        (self.secret, source).hash(&mut hasher);
        #[expect(clippy::cast_possible_truncation, reason = "any bits of it will do")]
        let hash = hasher.finish() as usize;
        hash % PLACES
    }

    /// Whether a cookie was given to whoever writes from `addr` as `node`, lately.
    pub(super) fn holds(&self, now: Instant, addr: SocketAddr, node: NodeId, shown: Cookie) -> bool {
        let current = Some(&self.key).filter(|_| self.since + 2 * KEY_LIFE > now);
        let before = self.before.as_ref().filter(|_| self.since + KEY_LIFE > now);
        current.into_iter().chain(before).any(|key| cookie(key, addr, node) == shown)
    }
}

fn draw(rng: &mut impl CryptoRng) -> MacKey {
    let mut secret = [0; 32];
    rng.fill_bytes(&mut secret);
    MacKey::new(&secret)
}

fn cookie(key: &MacKey, addr: SocketAddr, node: NodeId) -> Cookie {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut text = [0; 22];
    text[..16].copy_from_slice(&ip.octets());
    text[16..18].copy_from_slice(&addr.port().to_be_bytes());
    text[18..].copy_from_slice(&node.0.to_be_bytes());
    let [a, b, c, d, ..] = key.tag(&text);
    Cookie([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn a_cookie_is_good_for_its_address_and_node_for_two_minutes_at_least() {
        let mut rng = StdRng::from_seed([1; 32]);
        let start = crate::testing::start();
        let mut cookies = Cookies::new(start, &mut rng);
        let cookie = cookies.give(start, addr(1), NodeId(2), &mut rng).unwrap();
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(cookies.holds(later(119), addr(1), NodeId(2), cookie));
        assert!(!cookies.holds(start, addr(2), NodeId(2), cookie));
        assert!(!cookies.holds(start, addr(1), NodeId(3), cookie));
        // Another key is drawn; the one before is good for as long again.
        cookies.give(later(121), addr(9), NodeId(9), &mut rng).unwrap();
        assert!(cookies.holds(later(122), addr(1), NodeId(2), cookie));
        assert!(!cookies.holds(later(242), addr(1), NodeId(2), cookie));
    }

    #[test]
    fn an_old_key_is_worth_nothing_though_nobody_asked_in_between() {
        let mut rng = StdRng::from_seed([1; 32]);
        let start = crate::testing::start();
        let mut cookies = Cookies::new(start, &mut rng);
        let cookie = cookies.give(start, addr(1), NodeId(2), &mut rng).unwrap();
        let late = start + Duration::from_secs(3600);
        assert!(!cookies.holds(late, addr(1), NodeId(2), cookie));
        cookies.give(late, addr(1), NodeId(2), &mut rng).unwrap();
        assert!(!cookies.holds(late, addr(1), NodeId(2), cookie));
    }

    #[test]
    fn no_more_are_given_out_than_stated() {
        let mut rng = StdRng::from_seed([1; 32]);
        let now = crate::testing::start();
        let mut cookies = Cookies::new(now, &mut rng);
        let from = |number: u32| SocketAddr::from((std::net::Ipv4Addr::from(number), 1));
        let given = (0..5000)
            .filter(|&number| cookies.give(now, from(number), NodeId(2), &mut rng).is_some())
            .count();
        assert_eq!(given, 512);
    }

    #[test]
    fn one_source_leaves_the_rest_to_others() {
        let mut rng = StdRng::from_seed([1; 32]);
        let now = crate::testing::start();
        let mut cookies = Cookies::new(now, &mut rng);
        let given =
            (0..5000).filter(|&port| cookies.give(now, addr(port), NodeId(2), &mut rng).is_some()).count();
        assert_eq!(given, 8);
        let other = SocketAddr::from(([10, 0, 0, 2], 1));
        assert!(cookies.give(now, other, NodeId(2), &mut rng).is_some());
    }
}
