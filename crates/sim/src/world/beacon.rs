//! The beacon of a world: the state machine of the real one behind its sockets, stopped and started at will.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use pilot_rendezvous::beacon::{self, Route};

use super::{
    World,
    network::{Place, Target},
};
use crate::{Net, topology::OnTheWay};

/// Where nodes find the beacon.
pub(super) const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 9001);

impl World {
    /// Adds a beacon, for all nodes that are added after it.
    pub fn add_beacon(&mut self) {
        self.has_beacon = true;
        self.topology.add_beacon(ADDRESS.ip());
        self.watch.exempt(ADDRESS);
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
        self.beacon = Some(beacon::State::new(beacon::Config::default()));
    }

    pub(super) fn tell_beacon(&mut self, target: Target, from: SocketAddr, datagram: &[u8]) {
        let now = self.now;
        let Some(beacon) = &mut self.beacon else { return };
        match target {
            Target::Address(way, _) if way.to != ADDRESS => {}
            Target::Address(..) | Target::Hands(_) => beacon.handle_datagram(now, from, datagram),
            Target::Web(id) => beacon.handle_web(now, id, datagram),
        }
    }

    pub(super) fn drain_beacon(&mut self) {
        while let Some((to, datagram)) = self.beacon.as_mut().and_then(beacon::State::poll_transmit) {
            match to {
                Route::Udp(to) => {
                    let way = OnTheWay { net: Net::Internet, from: ADDRESS, to, local: false };
                    self.transmit(Place::Beacon, way, &datagram);
                }
                Route::Web(id) => self.answer_over_web(id, &datagram),
            }
        }
    }
}
