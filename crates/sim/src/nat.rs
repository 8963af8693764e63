//! The box between a home and the network: it gives each inside address a port of its own outside, and lets in only
//! what answers. The words are those of RFC 4787.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// How a box behaves. The lifetime of a binding is the two minutes that RFC 4787 REQ-5 asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// One outside port for everything, and everybody may send to it ("full cone").
    Open,
    /// One outside port for everything, and only who was sent something may answer ("port-restricted cone").
    Restricted,
    /// Another outside port for each destination ("symmetric"). Two of these can talk through a relay only.
    Symmetric,
}

const BINDING_LIFE: Duration = Duration::from_secs(120);

/// The first outside port.
const FIRST_PORT: u16 = 20_000;

/// One box with its bindings.
#[derive(Debug)]
pub(crate) struct NatBox {
    kind: Nat,
    outside: IpAddr,
    bindings: BTreeMap<Key, Binding>,
    next_port: u16,
}

/// What has an outside port of its own: the one inside address, or that and a destination.
type Key = Option<SocketAddr>;

#[derive(Debug)]
struct Binding {
    port: u16,
    used: Instant,
    sent_to: BTreeSet<SocketAddr>,
}

impl NatBox {
    pub(crate) fn new(kind: Nat, outside: IpAddr) -> Self {
        Self { kind, outside, bindings: BTreeMap::new(), next_port: FIRST_PORT }
    }

    /// Something goes out: the address that it comes from, as seen outside.
    pub(crate) fn outbound(&mut self, now: Instant, to: SocketAddr) -> SocketAddr {
        self.expire(now);
        let key = match self.kind {
            Nat::Open | Nat::Restricted => None,
            Nat::Symmetric => Some(to),
        };
        let next_port = &mut self.next_port;
        let binding = self.bindings.entry(key).or_insert_with(|| {
            *next_port += 1;
            Binding { port: *next_port, used: now, sent_to: BTreeSet::new() }
        });
        binding.used = now;
        binding.sent_to.insert(to);
        SocketAddr::new(self.outside, binding.port)
    }

    /// Whether something that comes to an outside port goes in.
    pub(crate) fn admits(&mut self, now: Instant, port: u16, from: SocketAddr) -> bool {
        self.expire(now);
        let Some(binding) = self.bindings.values().find(|binding| binding.port == port) else { return false };
        match self.kind {
            Nat::Open => true,
            Nat::Restricted | Nat::Symmetric => binding.sent_to.contains(&from),
        }
    }

    pub(crate) fn is(&self, outside: IpAddr) -> bool {
        self.outside == outside
    }

    pub(crate) fn forget(&mut self) {
        self.bindings.clear();
    }

    fn expire(&mut self, now: Instant) {
        self.bindings.retain(|_, binding| binding.used + BINDING_LIFE > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn far(last: u8) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, last], 1000))
    }

    fn nat(kind: Nat) -> NatBox {
        NatBox::new(kind, IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)))
    }

    #[test]
    fn each_kind_lets_in_what_its_name_says() {
        let now = Instant::now();
        for (kind, stranger_gets_in, one_port) in
            [(Nat::Open, true, true), (Nat::Restricted, false, true), (Nat::Symmetric, false, false)]
        {
            let mut nat = nat(kind);
            let first = nat.outbound(now, far(1));
            let second = nat.outbound(now, far(2));
            assert_eq!(first == second, one_port, "{kind:?}");
            assert!(nat.admits(now, first.port(), far(1)));
            assert_eq!(nat.admits(now, first.port(), far(3)), stranger_gets_in, "{kind:?}");
        }
    }

    #[test]
    fn a_binding_that_is_not_used_goes_away() {
        let now = Instant::now();
        let mut nat = nat(Nat::Open);
        let port = nat.outbound(now, far(1)).port();
        assert!(nat.admits(now + Duration::from_secs(119), port, far(1)));
        assert!(!nat.admits(now + Duration::from_secs(120), port, far(1)));
        assert_ne!(nat.outbound(now + Duration::from_secs(121), far(1)).port(), port);
    }
}
