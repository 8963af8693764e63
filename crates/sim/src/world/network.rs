//! How datagrams get from one place to another: links, boxes in front of hosts, the beacon, and an attacker on the way.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Instant,
};

use pilot_rendezvous::beacon::Route;
use rand::RngExt;

use super::{Happening, Host, Machine, World};
use crate::{
    Link,
    attacker::{Forgery, forge},
    watch::Shape,
};

/// Where the beacon of a world is.
pub(super) const BEACON: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 9001);

/// Who receives datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Host(Host),
    Beacon,
}

/// A datagram on its way.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) place: Place,
    /// The address it was sent to, if a box may stand there.
    pub(super) to: Option<SocketAddr>,
    pub(super) from: SocketAddr,
    pub(super) datagram: Vec<u8>,
}

/// The outside address of the box in front of a host.
pub(super) fn outside_of(host: Host) -> IpAddr {
    let last = u8::try_from(host.0 + 1).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, last))
}

impl World {
    /// Puts a datagram of a node on the link to wherever its destination is.
    pub(super) fn send(&mut self, from: Host, to: SocketAddr, datagram: &[u8]) {
        let now = self.now;
        let machine = &mut self.hosts[from.0];
        let source = machine.nat.as_mut().map_or(machine.at, |nat| nat.outbound(now, to));
        self.watch.sent(machine.at, to, datagram);
        self.transmit(Place::Host(from), source, to, datagram);
    }

    fn transmit(&mut self, from: Place, source: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let Some(place) = self.place_of(to) else {
            tell!(self, "{} sends {} to nobody at {to}", called(&self.hosts, from), Shape(datagram));
            return;
        };
        if let (Some((sender, receiver, datagrams)), Place::Host(from), Place::Host(to)) =
            (&mut self.recording, from, place)
            && (*sender, *receiver) == (from, to)
        {
            datagrams.push(datagram.to_vec());
        }
        let now = self.now;
        let (conditions, len) = (self.conditions, datagram.len());
        let link = self.links.entry((from, place)).or_insert_with(|| Link::new(conditions));
        match link.send(now, len, &mut self.chance) {
            Err(loss) => {
                tell!(
                    self,
                    "{} -> {} {}: {loss:?}",
                    called(&self.hosts, from),
                    called(&self.hosts, place),
                    Shape(datagram)
                );
            }
            Ok((first, copy)) => {
                tell!(
                    self,
                    "{} -> {} {}",
                    called(&self.hosts, from),
                    called(&self.hosts, place),
                    Shape(datagram)
                );
                for arrival in [Some(first), copy].into_iter().flatten() {
                    let mut datagram = datagram.to_vec();
                    if let Some(bit) = arrival.flipped_bit {
                        datagram[bit / 8] ^= 1 << (bit % 8);
                    }
                    self.arrives(arrival.at, place, to, source, datagram);
                }
            }
        }
        if self.attacks > 0.0 && self.chance.random_bool(self.attacks) {
            let Forgery { after, from, datagram } = forge(&mut self.chance, source, datagram);
            self.arrives(now + after, place, to, from, datagram);
        }
    }

    fn arrives(&mut self, at: Instant, place: Place, to: SocketAddr, from: SocketAddr, datagram: Vec<u8>) {
        self.plan(at, Happening::Arrives(Arriving { place, to: Some(to), from, datagram }));
    }

    /// Hands a datagram over, with all others that arrive there at the same instant, as a socket would.
    pub(super) fn arrive(&mut self, first: Arriving) {
        let now = self.now;
        let place = first.place;
        let mut next = Some(first);
        while let Some(arriving) = next.take() {
            self.deliver(arriving);
            if let Some(entry) = self.queue.first_entry()
                && entry.key().0 == now
                && matches!(entry.get(), Happening::Arrives(same) if same.place == place)
                && let Happening::Arrives(arriving) = entry.remove()
            {
                next = Some(arriving);
            }
        }
        match place {
            Place::Host(host) => self.drain(host),
            Place::Beacon => self.drain_beacon(),
        }
    }

    fn deliver(&mut self, arriving: Arriving) {
        let Arriving { place, to, from, mut datagram } = arriving;
        let now = self.now;
        let shape = Shape(&datagram);
        match place {
            Place::Host(host) => {
                let machine = &mut self.hosts[host.0];
                if let (Some(nat), Some(to)) = (&mut machine.nat, to)
                    && !nat.admits(now, to.port(), from)
                {
                    tell!(self, "{} is spared {shape} from {from}", self.hosts[host.0].name);
                    return;
                }
                tell!(self, "{} receives {shape} from {from}", self.hosts[host.0].name);
                self.hosts[host.0].node.handle_datagram(now, from, &mut datagram);
            }
            Place::Beacon => {
                if let Some(beacon) = &mut self.beacon {
                    beacon.handle_datagram(now, from, &datagram);
                }
            }
        }
    }

    fn drain_beacon(&mut self) {
        while let Some((to, datagram)) = self.beacon.as_mut().and_then(|beacon| beacon.poll_transmit()) {
            // Nobody comes over the web in this world.
            if let Route::Udp(to) = to {
                self.transmit(Place::Beacon, BEACON, to, &datagram);
            }
        }
    }

    pub(super) fn link(&mut self, from: Place, to: Place) -> &mut Link {
        let conditions = self.conditions;
        self.links.entry((from, to)).or_insert_with(|| Link::new(conditions))
    }

    fn place_of(&self, at: SocketAddr) -> Option<Place> {
        if at == BEACON {
            return self.beacon.is_some().then_some(Place::Beacon);
        }
        let found = self.hosts.iter().position(|machine| match &machine.nat {
            Some(nat) => nat.is(at.ip()),
            None => machine.at == at,
        });
        found.map(|index| Place::Host(Host(index)))
    }
}

fn called(hosts: &[Machine], place: Place) -> &str {
    match place {
        Place::Host(host) => &hosts[host.0].name,
        Place::Beacon => "the beacon",
    }
}
