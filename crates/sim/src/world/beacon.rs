//! The beacon of a world: the state machine of the real one behind its sockets, stopped and started at will.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use pilot_rendezvous::beacon::{self, Ear, Ears, Route};

use super::{
    World,
    network::{Place, Target},
};
use crate::{Net, topology::OnTheWay};

/// Where nodes find the beacon.
pub(super) const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 9001);

/// Its other address, with which nodes find out what box they are behind.
const SECOND_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));

/// The other ports: one that answers surveys, one to which nobody sends.
const SECOND_PORT: u16 = 9002;
const QUIET_PORT: u16 = 40_001;

/// Where each of its sockets is.
fn address_of(ear: Ear) -> SocketAddr {
    match ear {
        Ear::Main => ADDRESS,
        Ear::SecondPort => SocketAddr::new(ADDRESS.ip(), SECOND_PORT),
        Ear::QuietPort => SocketAddr::new(ADDRESS.ip(), QUIET_PORT),
        Ear::SecondAddress => SocketAddr::new(SECOND_IP, ADDRESS.port()),
        Ear::QuietAddress => SocketAddr::new(SECOND_IP, QUIET_PORT),
    }
}

impl World {
    /// Adds a beacon, for all nodes that are added after it.
    pub fn add_beacon(&mut self) {
        self.has_beacon = true;
        for ear in [Ear::Main, Ear::SecondPort, Ear::SecondAddress] {
            self.topology.add_beacon(address_of(ear).ip());
            self.watch.exempt(address_of(ear));
        }
        self.start_beacon();
    }

    /// The beacon stops: what is sent to it gets no answer, and it forgets everything.
    pub fn stop_beacon(&mut self) {
        tell!(self, "the beacon stops");
        self.beacon = None;
        self.break_webs();
    }

    /// The beacon starts with empty tables.
    pub fn start_beacon(&mut self) {
        tell!(self, "the beacon starts");
        let mut state = beacon::State::new(beacon::Config::default());
        state.set_ears(Ears {
            second_port: Some(SECOND_PORT),
            second_addr: Some(address_of(Ear::SecondAddress)),
        });
        for (number, key) in self.hosts.iter().map(|machine| (machine.number, machine.identity.public())) {
            state.has_key(self.now, number, key);
        }
        self.beacon = Some(state);
    }

    pub(super) fn tell_beacon(&mut self, target: Target, from: SocketAddr, datagram: &[u8]) {
        let now = self.now;
        let Some(beacon) = &mut self.beacon else { return };
        match target {
            Target::Address(way, _) if way.to != ADDRESS => {
                let others = [Ear::SecondPort, Ear::SecondAddress];
                if let Some(ear) = others.into_iter().find(|&ear| address_of(ear) == way.to) {
                    beacon.handle_elsewhere(now, ear, from, datagram);
                }
            }
            Target::Address(..) | Target::Hands(_) => beacon.handle_datagram(now, from, datagram),
            Target::Web(id) => beacon.handle_web(now, id, datagram),
        }
    }

    pub(super) fn drain_beacon(&mut self) {
        let mut sent = Vec::new();
        while let Some(train) = self.beacon.as_mut().and_then(beacon::State::poll_transmit) {
            sent.extend(train.datagrams().map(|datagram| (train.to, datagram.to_vec())));
        }
        for (to, datagram) in sent {
            match to {
                Route::Udp(to) => self.send_as_beacon(Ear::Main, to, &datagram),
                Route::Elsewhere(ear, to) => self.send_as_beacon(ear, to, &datagram),
                Route::Web(id) => self.answer_over_web(id, &datagram),
            }
        }
    }

    fn send_as_beacon(&mut self, ear: Ear, to: SocketAddr, datagram: &[u8]) {
        let way = OnTheWay { net: Net::Internet, from: address_of(ear), to, local: false };
        self.transmit(Place::Beacon, way, datagram, true);
    }
}
