//! How datagrams get from one place to another: links, boxes in front of hosts, and an attacker on the way.

use std::{net::SocketAddr, time::Instant};

use pilot_rendezvous::beacon::WebId;
use pilot_wire::{beacon::Message, tunnel::KEY_EXCHANGE_LEN};
use rand::RngExt;

use super::{Happening, Host, Machine, Overheard, World, beacon};
use crate::{
    Link, Net,
    attacker::{Forgery, forge},
    topology::{BoxId, Occupant, OnTheWay},
    watch::Shape,
};

/// Datagrams that somebody on the path keeps: the key exchanges and the first data of a small world.
const OVERHEARD_MAX: usize = 2000;

/// How a key exchange begins.
const KEY_EXCHANGE: &[u8] = b"PILA";

/// Where one begins at the latest, if it goes through the beacon.
const RELAYED_WITHIN: usize = 32;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Host(Host),
    Beacon,
    /// A box that has nobody behind the port in question.
    Box(BoxId),
    /// Where an attacker sits.
    Attacker,
}

/// A link has a direction, and there may be one inside a home and another on the outside.
pub(super) type LinkKey = (Place, Place, Reach);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    Local,
    Wide,
}

/// A datagram on its way.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) target: Target,
    pub(super) from: SocketAddr,
    pub(super) datagram: Vec<u8>,
    /// Who really sent it, unchanged. Nobody, if an attacker had a hand in it.
    pub(super) author: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Wherever the boxes on the way let it go.
    Address(OnTheWay, Place),
    /// In the hands of a host, or of the beacon.
    Hands(Place),
    /// The beacon, on a connection over the web.
    Web(WebId),
}

impl Target {
    fn place(&self) -> Place {
        match self {
            Self::Address(_, place) | Self::Hands(place) => *place,
            Self::Web(_) => Place::Beacon,
        }
    }
}

impl World {
    /// Puts a datagram of a node on the link to wherever its destination is.
    pub(super) fn send(&mut self, from: Host, to: SocketAddr, datagram: &[u8], may_fragment: bool) {
        let now = self.now;
        let machine = &self.hosts[from.0];
        // Nobody's own side wants what never belonged to anybody, unless a peer of its said so.
        let wanting = || machine.is_used(now) || self.topology.was_ever(to.ip());
        self.watch.sent(now, from, to, datagram, wanting);
        if to == beacon::ADDRESS && self.send_over_web(from, datagram) {
            return;
        }
        self.send_udp(from, to, datagram, may_fragment);
    }

    /// Puts a datagram of a host on the network, whatever else there is.
    pub(super) fn send_udp(&mut self, from: Host, to: SocketAddr, datagram: &[u8], may_fragment: bool) {
        let now = self.now;
        match self.topology.leave(now, from, to) {
            Ok(way) => self.transmit(Place::Host(from), way, datagram, may_fragment),
            Err(end) => {
                tell!(
                    self,
                    "{} sends {} to {to}: {end:?}",
                    called(&self.hosts, Place::Host(from)),
                    Shape(datagram)
                );
            }
        }
    }

    /// Puts a datagram on the internet as if it came from `from`, whoever that is.
    pub fn spoof(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let way = OnTheWay { net: Net::Internet, from, to, local: false };
        self.transmit(Place::Attacker, way, datagram, true);
    }

    pub(super) fn transmit(&mut self, from: Place, way: OnTheWay, datagram: &[u8], may_fragment: bool) {
        let now = self.now;
        let place = match self.topology.heads_for(way) {
            Some(Occupant::Host(host)) => Place::Host(host),
            Some(Occupant::Beacon) => Place::Beacon,
            Some(Occupant::Box(id)) => Place::Box(id),
            None => {
                tell!(
                    self,
                    "{} sends {} to nobody at {}",
                    called(&self.hosts, from),
                    Shape(datagram),
                    way.to
                );
                return;
            }
        };
        if let (Some((sender, receiver, datagrams)), Place::Host(from), Place::Host(to)) =
            (&mut self.recording, from, place)
            && (*sender, *receiver) == (from, to)
        {
            datagrams.push(datagram.to_vec());
        }
        if let Some(overheard) = &mut self.overheard
            && from != Place::Attacker
            && !way.local
            && overheard.len() < OVERHEARD_MAX
        {
            overheard.push(Overheard { from: way.from, to: way.to, datagram: datagram.to_vec() });
        }
        let reach = if way.local { Reach::Local } else { Reach::Wide };
        let defaults = self.defaults(reach);
        let link = self.links.entry((from, place, reach)).or_insert_with(|| Link::new(defaults));
        match link.carry(now, datagram.len(), may_fragment, &mut self.chance) {
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
                    let mut author = Some(from).filter(|&from| from != Place::Attacker);
                    if let Some(bit) = arrival.flipped_bit {
                        datagram[bit / 8] ^= 1 << (bit % 8);
                        author = None;
                    }
                    if self.strips && strip(&mut datagram) {
                        author = None;
                    }
                    self.arrives(arrival.at, Target::Address(way, place), way.from, datagram, author);
                }
            }
        }
        if self.attacks > 0.0 && self.chance.random_bool(self.attacks) {
            let Forgery { after, from, datagram } = forge(&mut self.chance, way.from, datagram);
            let way = OnTheWay { from, ..way };
            self.arrives(now + after, Target::Address(way, place), from, datagram, None);
        }
    }

    pub(super) fn arrives(
        &mut self,
        at: Instant,
        target: Target,
        from: SocketAddr,
        datagram: Vec<u8>,
        author: Option<Place>,
    ) {
        self.plan(at, Happening::Arrives(Arriving { target, from, datagram, author }));
    }

    /// Hands a datagram over, with all others that arrive there at the same instant, as a socket would.
    pub(super) fn arrive(&mut self, first: Arriving) {
        let now = self.now;
        let place = first.target.place();
        let mut touched = Vec::new();
        let mut next = Some(first);
        while let Some(arriving) = next.take() {
            let reached = self.deliver(arriving);
            touched.extend(reached.filter(|reached| !touched.contains(reached)));
            if let Some(entry) = self.queue.first_entry()
                && entry.key().0 == now
                && matches!(entry.get(), Happening::Arrives(same) if same.target.place() == place)
                && let Happening::Arrives(arriving) = entry.remove()
            {
                next = Some(arriving);
            }
        }
        for place in touched {
            match place {
                Place::Host(host) => self.drain(host),
                Place::Beacon => self.drain_beacon(),
                Place::Box(_) | Place::Attacker => {}
            }
        }
    }

    /// Who got it.
    fn deliver(&mut self, arriving: Arriving) -> Option<Place> {
        let Arriving { target, from, mut datagram, author } = arriving;
        let now = self.now;
        let place = match target {
            Target::Hands(place) => place,
            Target::Web(_) => Place::Beacon,
            Target::Address(way, heading) => match self.topology.enter(now, way) {
                Ok(Occupant::Host(host)) => Place::Host(host),
                Ok(Occupant::Beacon) => Place::Beacon,
                Ok(Occupant::Box(_)) => return None,
                Err(end) => {
                    let shape = Shape(&datagram);
                    tell!(self, "{} is spared {shape} from {from}: {end:?}", called(&self.hosts, heading));
                    return None;
                }
            },
        };
        match place {
            Place::Host(host) if self.hosts[host.0].asleep => return None,
            Place::Host(host) => {
                tell!(self, "{} receives {} from {from}", self.hosts[host.0].name, Shape(&datagram));
                if let Some(Place::Host(sender)) = author {
                    self.watch.received(host, from, &datagram);
                    if let Target::Address(way, _) = target {
                        self.watch.reached(sender, way.to);
                    }
                }
                let answers = matches!(Message::parse(&datagram), Ok(Message::DiscoverReply(_)));
                self.hosts[host.0].node.handle_datagram(now, from, &mut datagram);
                if answers && from == beacon::ADDRESS && matches!(target, Target::Address(..)) {
                    self.answered_over_udp(host);
                }
            }
            Place::Beacon => self.tell_beacon(target, from, &datagram),
            Place::Box(_) | Place::Attacker => {}
        }
        Some(place)
    }

    pub(super) fn link(&mut self, key: LinkKey) -> &mut Link {
        let defaults = self.defaults(key.2);
        self.links.entry(key).or_insert_with(|| Link::new(defaults))
    }

    fn defaults(&self, reach: Reach) -> crate::Conditions {
        match reach {
            Reach::Local => self.local_conditions.unwrap_or(self.conditions),
            Reach::Wide => self.conditions,
        }
    }
}

/// Takes from a key exchange what release 1.18.0 does not know, and says whether there was anything.
fn strip(datagram: &mut Vec<u8>) -> bool {
    let len = datagram.len();
    let begins =
        datagram.windows(KEY_EXCHANGE.len()).take(RELAYED_WITHIN).position(|bytes| bytes == KEY_EXCHANGE);
    if let Some(begins) = begins {
        datagram.truncate(begins + KEY_EXCHANGE_LEN);
    }
    datagram.len() < len
}

fn called(hosts: &[Machine], place: Place) -> &str {
    match place {
        Place::Host(host) => &hosts[host.0].name,
        Place::Beacon => "the beacon",
        Place::Box(_) => "a box",
        Place::Attacker => "an attacker",
    }
}
