//! One box with its bindings.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng};

use super::{Dependence, Nat, PortChoice};

/// How long a binding lives that nothing goes out through: the two minutes that RFC 4787 REQ-5 asks for.
const BINDING_LIFE: Duration = Duration::from_secs(120);

/// The first outside port that is not chosen by an inside one.
const FIRST_PORT: u16 = 20_000;

/// How far preserved ports are moved by a rebinding.
const REBOUND_BY: u16 = 1000;

#[derive(Debug)]
pub(crate) struct Gateway {
    nat: Nat,
    outside: IpAddr,
    /// No UDP passes, in either direction.
    blocks_udp: bool,
    life: Duration,
    bindings: BTreeMap<Key, Binding>,
    next_port: u16,
    rebound: u16,
    chance: StdRng,
}

/// What has an outside port of its own: an inside address, and as much of the destination as the mapping depends on.
type Key = (SocketAddr, Option<IpAddr>, Option<u16>);

#[derive(Debug)]
struct Binding {
    inside: SocketAddr,
    port: u16,
    used: Instant,
    sent_to: BTreeSet<SocketAddr>,
}

impl Gateway {
    pub(crate) fn new(nat: Nat, outside: IpAddr, chance: StdRng) -> Self {
        Self {
            nat,
            outside,
            blocks_udp: false,
            life: BINDING_LIFE,
            bindings: BTreeMap::new(),
            next_port: FIRST_PORT,
            rebound: 0,
            chance,
        }
    }

    pub(crate) fn nat(&self) -> Nat {
        self.nat
    }

    pub(crate) fn outside(&self) -> IpAddr {
        self.outside
    }

    pub(crate) fn blocks_udp(&self) -> bool {
        self.blocks_udp
    }

    pub(crate) fn block_udp(&mut self, blocks: bool) {
        self.blocks_udp = blocks;
    }

    pub(crate) fn set_life(&mut self, life: Duration) {
        self.life = life;
    }

    /// Something goes out: the address that it comes from, as seen outside.
    pub(crate) fn outbound(&mut self, now: Instant, inside: SocketAddr, to: SocketAddr) -> SocketAddr {
        self.expire(now);
        let key = match self.nat.mapping {
            Dependence::EndpointIndependent => (inside, None, None),
            Dependence::AddressDependent => (inside, Some(to.ip()), None),
            Dependence::AddressAndPortDependent => (inside, Some(to.ip()), Some(to.port())),
        };
        if !self.bindings.contains_key(&key) {
            let port = self.choose_port(inside.port());
            let binding = Binding { inside, port, used: now, sent_to: BTreeSet::new() };
            self.bindings.insert(key, binding);
        }
        let port = self.bindings.get_mut(&key).map_or(0, |binding| {
            binding.used = now;
            binding.sent_to.insert(to);
            binding.port
        });
        SocketAddr::new(self.outside, port)
    }

    /// The inside address that something goes to which comes to an outside port, if it is let in.
    pub(crate) fn inbound(&mut self, now: Instant, port: u16, from: SocketAddr) -> Option<SocketAddr> {
        self.expire(now);
        if self.blocks_udp {
            return None;
        }
        let binding = self.binding(port)?;
        let admitted = match self.nat.filtering {
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => binding.sent_to.iter().any(|to| to.ip() == from.ip()),
            Dependence::AddressAndPortDependent => binding.sent_to.contains(&from),
        };
        admitted.then_some(binding.inside)
    }

    /// The inside address behind an outside port, whoever asks.
    pub(crate) fn behind(&self, port: u16) -> Option<SocketAddr> {
        self.binding(port).map(|binding| binding.inside)
    }

    /// The box restarts with empty tables. Ports that follow from inside ports come out as they were.
    pub(crate) fn forget(&mut self) {
        self.bindings.clear();
    }

    /// Everything that goes out gets another port.
    pub(crate) fn rebind(&mut self) {
        self.forget();
        self.rebound = self.rebound.wrapping_add(REBOUND_BY);
    }

    fn binding(&self, port: u16) -> Option<&Binding> {
        self.bindings.values().find(|binding| binding.port == port)
    }

    fn choose_port(&mut self, inside: u16) -> u16 {
        if self.nat.port == PortChoice::Preserving {
            let same = inside.wrapping_add(self.rebound);
            if self.binding(same).is_none() {
                return same;
            }
        }
        loop {
            let port = if self.nat.port == PortChoice::Random {
                self.chance.random_range(1024..=u16::MAX)
            } else {
                self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
                self.next_port
            };
            if self.binding(port).is_none() {
                return port;
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        self.bindings.retain(|_, binding| binding.used + self.life > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn gateway(nat: Nat) -> Gateway {
        Gateway::new(nat, addr("198.51.100.1:0").ip(), StdRng::seed_from_u64(1))
    }

    #[test]
    fn each_kind_lets_in_what_its_name_says() {
        let now = Instant::now();
        let (inside, friend) = (addr("192.168.1.2:4000"), addr("203.0.113.7:1000"));
        let (other_port, stranger) = (addr("203.0.113.7:1001"), addr("203.0.113.8:1000"));
        for (nat, port_gets_in, stranger_gets_in, one_port) in [
            (Nat::FULL_CONE, true, true, true),
            (Nat::ADDRESS_RESTRICTED, true, false, true),
            (Nat::PORT_RESTRICTED, false, false, true),
            (Nat::SYMMETRIC, false, false, false),
        ] {
            let mut gateway = gateway(nat);
            let outside = gateway.outbound(now, inside, friend);
            let mut admits = |from| gateway.inbound(now, outside.port(), from) == Some(inside);
            assert!(admits(friend), "{nat:?}");
            assert_eq!(admits(other_port), port_gets_in, "{nat:?}");
            assert_eq!(admits(stranger), stranger_gets_in, "{nat:?}");
            assert_eq!(gateway.outbound(now, inside, stranger) == outside, one_port, "{nat:?}");
        }
    }

    #[test]
    fn two_hosts_behind_one_box_have_two_ports_even_if_both_would_be_preserved() {
        let now = Instant::now();
        let mut gateway = gateway(Nat::HOME);
        let [first, second] = ["192.168.1.2:4000", "192.168.1.3:4000"].map(addr);
        let to = addr("203.0.113.7:1000");
        assert_eq!(gateway.outbound(now, first, to).port(), 4000);
        let other = gateway.outbound(now, second, to).port();
        assert_ne!(other, 4000);
        assert_eq!(gateway.inbound(now, other, to), Some(second));
        assert_eq!(gateway.inbound(now, 4000, to), Some(first));
    }

    #[test]
    fn a_binding_that_is_not_used_goes_away() {
        let now = Instant::now();
        let mut gateway = gateway(Nat::FULL_CONE);
        let (inside, to) = (addr("192.168.1.2:4000"), addr("203.0.113.7:1000"));
        let port = gateway.outbound(now, inside, to).port();
        assert!(gateway.inbound(now + Duration::from_secs(119), port, to).is_some());
        assert!(gateway.inbound(now + Duration::from_secs(120), port, to).is_none());
        assert_ne!(gateway.outbound(now + Duration::from_secs(121), inside, to).port(), port);
    }

    #[test]
    fn a_restart_keeps_a_preserved_port_and_a_rebinding_does_not() {
        let now = Instant::now();
        let mut gateway = gateway(Nat::HOME);
        let (inside, to) = (addr("192.168.1.2:4000"), addr("203.0.113.7:1000"));
        let before = gateway.outbound(now, inside, to);
        gateway.forget();
        assert_eq!(gateway.inbound(now, before.port(), to), None);
        assert_eq!(gateway.outbound(now, inside, to), before);
        gateway.rebind();
        assert_ne!(gateway.outbound(now, inside, to), before);
    }
}
