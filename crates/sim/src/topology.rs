//! Who is where: the internet, boxes on it and behind each other, hosts in any of these networks, and the way of a
//! datagram up through the boxes of its sender and down through those of its receiver.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Instant,
};

use rand::rngs::StdRng;

use crate::{Host, Nat, nat::Gateway};

/// The port on which every node listens.
const PORT: u16 = 4000;

/// Addresses of beacons on the internet end here; those of hosts begin.
const BEACONS_END: u8 = 10;

/// Names a box, in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoxId(pub usize);

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Net {
    /// Where everybody has a public address.
    Internet,
    /// The inside of a box.
    Behind(BoxId),
}

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupant {
    Host(Host),
    Box(BoxId),
    Beacon,
}

/// Why a datagram ends on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nobody has that address.
    Nobody,
    /// A box does not let it in.
    Filtered(BoxId),
    /// A box lets no UDP out.
    Blocked(BoxId),
    /// It is for the box's own outside address, and the box sends nothing back in.
    NoHairpin(BoxId),
    /// The host has no address of that family.
    NoRoute,
}

/// A datagram in the network where its destination is looked up, with the sender's address as seen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OnTheWay {
    pub(crate) net: Net,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// It never leaves the sender's own network behind a box.
    pub(crate) local: bool,
}

/// Where a host is.
#[derive(Clone, Copy, Debug)]
struct Seat {
    net: Net,
    v4: Ipv4Addr,
    v6: Option<Ipv6Addr>,
}

#[derive(Debug, Default)]
pub(crate) struct Topology {
    boxes: Vec<Placed>,
    seats: BTreeMap<Host, Seat>,
    occupants: BTreeMap<(Net, IpAddr), Occupant>,
    /// Addresses handed out in each network.
    handed_out: BTreeMap<Net, u8>,
    v6_handed_out: u16,
    /// Every address that anybody ever had.
    ever: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Placed {
    gateway: Gateway,
    outer: Net,
    /// Its inside is a carrier's network.
    is_carrier: bool,
}

impl Topology {
    pub(crate) fn add_beacon(&mut self, ip: IpAddr) {
        self.occupants.insert((Net::Internet, ip), Occupant::Beacon);
    }

    pub(crate) fn add_box(&mut self, outer: Net, nat: Nat, is_carrier: bool, chance: StdRng) -> BoxId {
        let id = BoxId(self.boxes.len());
        let number = self.hand_out(outer);
        let outside = match outer {
            Net::Internet => Ipv4Addr::new(198, 51, 100, number),
            Net::Behind(_) => self.inside_address(outer, number),
        };
        self.occupy(outer, outside.into(), Occupant::Box(id));
        self.boxes.push(Placed { gateway: Gateway::new(nat, outside.into(), chance), outer, is_carrier });
        id
    }

    /// Gives a host an address in a network; the one it had goes. Its IPv6 address stays in the same network only.
    pub(crate) fn seat(&mut self, host: Host, net: Net) {
        let before = self.leave_seat(host);
        let number = self.hand_out(net);
        let v4 = self.inside_address(net, number);
        self.occupy(net, v4.into(), Occupant::Host(host));
        self.seats.insert(host, Seat { net, v4, v6: None });
        if before.is_some_and(|seat| seat.v6.is_some()) {
            self.give_v6(host);
        }
    }

    pub(crate) fn give_v6(&mut self, host: Host) {
        self.v6_handed_out += 1;
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, self.v6_handed_out, 0, 0, 0, 2);
        if let Some(seat) = self.seats.get_mut(&host) {
            seat.v6 = Some(ip);
            self.occupy(Net::Internet, ip.into(), Occupant::Host(host));
        }
    }

    fn occupy(&mut self, net: Net, ip: IpAddr, occupant: Occupant) {
        self.occupants.insert((net, ip), occupant);
        self.ever.insert(ip);
    }

    /// Whether anybody ever had this address, in any network.
    pub(crate) fn was_ever(&self, ip: IpAddr) -> bool {
        self.ever.contains(&ip)
    }

    fn leave_seat(&mut self, host: Host) -> Option<Seat> {
        let seat = self.seats.remove(&host)?;
        self.occupants.remove(&(seat.net, seat.v4.into()));
        if let Some(v6) = seat.v6 {
            self.occupants.remove(&(Net::Internet, v6.into()));
        }
        Some(seat)
    }

    fn hand_out(&mut self, net: Net) -> u8 {
        let number = self.handed_out.entry(net).or_insert(match net {
            Net::Internet => BEACONS_END,
            // The box itself is the first.
            Net::Behind(_) => 1,
        });
        *number = number.checked_add(1).expect("worlds are small");
        *number
    }

    /// Every home uses the same addresses, as homes do.
    fn inside_address(&self, net: Net, number: u8) -> Ipv4Addr {
        match net {
            Net::Internet => Ipv4Addr::new(203, 0, 113, number),
            Net::Behind(id) if self.boxes[id.0].is_carrier => Ipv4Addr::new(100, 64, 0, number),
            Net::Behind(_) => Ipv4Addr::new(192, 168, 1, number),
        }
    }

    /// The addresses of a host's interfaces, with the port it listens on.
    pub(crate) fn addresses(&self, host: Host) -> Vec<SocketAddr> {
        let Some(seat) = self.seats.get(&host) else { return Vec::new() };
        let v4 = IpAddr::from(seat.v4);
        [Some(v4), seat.v6.map(IpAddr::from)]
            .into_iter()
            .flatten()
            .map(|ip| SocketAddr::new(ip, PORT))
            .collect()
    }

    /// Where a host is.
    pub(crate) fn net_of(&self, host: Host) -> Net {
        self.seats.get(&host).map_or(Net::Internet, |seat| seat.net)
    }

    /// The box in front of a host.
    pub(crate) fn box_of(&self, host: Host) -> Option<BoxId> {
        match self.net_of(host) {
            Net::Internet => None,
            Net::Behind(id) => Some(id),
        }
    }

    pub(crate) fn gateway(&mut self, id: BoxId) -> &mut Gateway {
        &mut self.boxes[id.0].gateway
    }

    /// The address at which servers on the internet see a host's connections, without the port.
    pub(crate) fn outermost(&self, host: Host) -> Option<IpAddr> {
        let seat = self.seats.get(&host)?;
        let mut ip = IpAddr::from(seat.v4);
        let mut net = seat.net;
        while let Net::Behind(id) = net {
            ip = self.boxes[id.0].gateway.outside();
            net = self.boxes[id.0].outer;
        }
        Some(ip)
    }

    /// A datagram leaves a host: up through the boxes until somebody has the address, or to the internet.
    pub(crate) fn leave(&mut self, now: Instant, host: Host, to: SocketAddr) -> Result<OnTheWay, End> {
        let seat = *self.seats.get(&host).ok_or(End::NoRoute)?;
        if to.is_ipv6() {
            let from = SocketAddr::new(seat.v6.ok_or(End::NoRoute)?.into(), PORT);
            if let Some(id) = self.blocked_above(seat.net) {
                return Err(End::Blocked(id));
            }
            return Ok(OnTheWay { net: Net::Internet, from, to, local: false });
        }
        let mut from = SocketAddr::new(seat.v4.into(), PORT);
        let mut net = seat.net;
        while let Net::Behind(id) = net {
            if self.occupants.contains_key(&(net, to.ip())) {
                break;
            }
            let Placed { gateway, outer, .. } = &mut self.boxes[id.0];
            if gateway.blocks_udp() {
                return Err(End::Blocked(id));
            }
            from = gateway.outbound(now, from, to);
            if to.ip() == gateway.outside() && !gateway.nat().hairpinning {
                return Err(End::NoHairpin(id));
            }
            net = *outer;
        }
        Ok(OnTheWay { net, from, to, local: net == seat.net && net != Net::Internet })
    }

    fn blocked_above(&self, mut net: Net) -> Option<BoxId> {
        while let Net::Behind(id) = net {
            let placed = &self.boxes[id.0];
            if placed.gateway.blocks_udp() {
                return Some(id);
            }
            net = placed.outer;
        }
        None
    }

    /// A datagram arrives: down through the boxes that let it in. Says who has it, and the inside address it came to.
    pub(crate) fn enter(&mut self, now: Instant, way: OnTheWay) -> Result<Occupant, End> {
        let OnTheWay { mut net, from, mut to, .. } = way;
        loop {
            match self.occupants.get(&(net, to.ip())).copied() {
                None => return Err(End::Nobody),
                Some(Occupant::Beacon) => return Ok(Occupant::Beacon),
                Some(Occupant::Host(host)) => {
                    if to.is_ipv6()
                        && let Some(id) = self.blocked_above(self.net_of(host))
                    {
                        return Err(End::Filtered(id));
                    }
                    return if to.port() == PORT { Ok(Occupant::Host(host)) } else { Err(End::Nobody) };
                }
                Some(Occupant::Box(id)) => {
                    to = self.gateway(id).inbound(now, to.port(), from).ok_or(End::Filtered(id))?;
                    net = Net::Behind(id);
                }
            }
        }
    }

    /// Whose link a datagram takes: where it would arrive if every box let it in.
    pub(crate) fn heads_for(&self, way: OnTheWay) -> Option<Occupant> {
        let OnTheWay { mut net, mut to, .. } = way;
        loop {
            let occupant = self.occupants.get(&(net, to.ip())).copied()?;
            let Occupant::Box(id) = occupant else { return Some(occupant) };
            let Some(inside) = self.boxes[id.0].gateway.behind(to.port()) else { return Some(occupant) };
            to = inside;
            net = Net::Behind(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const A: Host = Host(0);
    const B: Host = Host(1);

    fn two_homes_behind_a_carrier(hairpinning: bool) -> Topology {
        let mut topology = Topology::default();
        let chance = || StdRng::seed_from_u64(1);
        let carrier = topology.add_box(Net::Internet, Nat::CARRIER.hairpinning(hairpinning), true, chance());
        for host in [A, B] {
            let home = topology.add_box(Net::Behind(carrier), Nat::FULL_CONE, false, chance());
            topology.seat(host, Net::Behind(home));
        }
        topology.add_beacon(beacon().ip());
        topology
    }

    fn beacon() -> SocketAddr {
        "203.0.113.1:9001".parse().unwrap()
    }

    #[test]
    fn a_datagram_goes_up_through_all_boxes_and_the_answer_comes_down() {
        let now = Instant::now();
        let mut topology = two_homes_behind_a_carrier(false);
        let way = topology.leave(now, A, beacon()).unwrap();
        assert_eq!((way.net, way.from.ip()), (Net::Internet, topology.outermost(A).unwrap()));
        assert_eq!(topology.enter(now, way), Ok(Occupant::Beacon));
        let back = OnTheWay { net: Net::Internet, from: beacon(), to: way.from, local: false };
        assert_eq!(topology.enter(now, back), Ok(Occupant::Host(A)));
        let stranger = OnTheWay { from: "203.0.113.9:1".parse().unwrap(), ..back };
        assert_eq!(topology.enter(now, stranger), Err(End::Filtered(BoxId(0))));
    }

    #[test]
    fn neighbours_behind_one_box_meet_at_its_outside_only_if_it_hairpins() {
        for hairpinning in [false, true] {
            let now = Instant::now();
            let mut topology = two_homes_behind_a_carrier(hairpinning);
            let [a, b] = [A, B].map(|host| topology.leave(now, host, beacon()).unwrap().from);
            // Each sends to where the beacon sees the other.
            let _ = topology.leave(now, B, a);
            let met = topology.leave(now, A, b).and_then(|way| topology.enter(now, way));
            let expected = if hairpinning { Ok(Occupant::Host(B)) } else { Err(End::NoHairpin(BoxId(0))) };
            assert_eq!(met, expected);
        }
    }

    #[test]
    fn hosts_of_one_network_meet_inside_though_the_box_blocks_everything() {
        let now = Instant::now();
        let mut topology = Topology::default();
        let home = topology.add_box(Net::Internet, Nat::SYMMETRIC, false, StdRng::seed_from_u64(1));
        topology.gateway(home).block_udp(true);
        topology.seat(A, Net::Behind(home));
        topology.seat(B, Net::Behind(home));
        let inside = topology.addresses(B)[0];
        let way = topology.leave(now, A, inside).unwrap();
        assert!(way.local);
        assert_eq!(topology.enter(now, way), Ok(Occupant::Host(B)));
        assert_eq!(topology.leave(now, A, beacon()), Err(End::Blocked(home)));
    }

    #[test]
    fn a_host_that_moved_is_not_found_where_it_was() {
        let now = Instant::now();
        let mut topology = Topology::default();
        topology.seat(A, Net::Internet);
        topology.seat(B, Net::Internet);
        topology.give_v6(B);
        let before = topology.addresses(B);
        let home = topology.add_box(Net::Internet, Nat::HOME, false, StdRng::seed_from_u64(1));
        topology.seat(B, Net::Behind(home));
        let way = topology.leave(now, A, before[0]).unwrap();
        assert_eq!(topology.enter(now, way), Err(End::Nobody));
        assert_eq!(topology.leave(now, A, before[1]), Err(End::NoRoute), "A has no IPv6");
        assert_ne!(topology.addresses(B)[1], before[1]);
    }
}
