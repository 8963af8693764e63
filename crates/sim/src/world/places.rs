//! Where hosts are: boxes in front of them, and moving from one network to another.

use std::{net::SocketAddr, time::Duration};

use rand::{SeedableRng as _, rngs::StdRng};

use super::{Happening, Host, REGISTRY_AGAIN, World, web::Web};
use crate::{BoxId, Nat, Net};

impl World {
    /// Adds a box on the internet or behind another one.
    pub fn add_box(&mut self, outer: Net, nat: Nat) -> BoxId {
        let chance = StdRng::from_rng(&mut self.chance);
        self.topology.add_box(outer, nat, false, chance)
    }

    /// Adds the box of a carrier, whose subscribers have boxes of their own behind it.
    pub fn add_carrier(&mut self, nat: Nat) -> BoxId {
        let chance = StdRng::from_rng(&mut self.chance);
        self.topology.add_box(Net::Internet, nat, true, chance)
    }

    /// Puts a host into a network before it has sent anything.
    pub fn place(&mut self, host: Host, net: Net) {
        self.topology.seat(host, net);
        // Behind a box, the beacon has to say how it looks from outside.
        self.hosts[host.0].reachable = (net == Net::Internet).then(|| self.socket_addr(host));
        self.register(host);
    }

    /// Puts a host behind a box of its own, before it has sent anything.
    pub fn set_nat(&mut self, host: Host, nat: Nat) -> BoxId {
        let id = self.add_box(Net::Internet, nat);
        self.place(host, Net::Behind(id));
        id
    }

    /// Gives a host an IPv6 address too, without a box in front of it, before it has sent anything.
    pub fn give_v6(&mut self, host: Host) {
        self.topology.give_v6(host);
    }

    /// Puts a host behind a firewall of its own that lets no UDP pass, before it has sent anything.
    pub fn set_udp_blocked(&mut self, host: Host) -> BoxId {
        let id = self.set_nat(host, Nat::HOME);
        self.block_udp(id, true);
        id
    }

    /// Whether a box lets no UDP pass.
    pub fn block_udp(&mut self, id: BoxId, blocks: bool) {
        tell!(self, "box {} {} UDP", id.0, if blocks { "blocks" } else { "lets pass" });
        self.topology.gateway(id).block_udp(blocks);
    }

    /// How long a box keeps a binding that nothing goes out through.
    pub fn set_binding_life(&mut self, id: BoxId, life: Duration) {
        self.topology.gateway(id).set_life(life);
    }

    /// The box in front of a host.
    pub fn box_of(&self, host: Host) -> Option<BoxId> {
        self.topology.box_of(host)
    }

    /// A box restarts with empty tables: nothing is let in that it does not see going out anew. A port that follows
    /// from the inside one comes out as it was, others do not.
    pub fn restart_box(&mut self, id: BoxId) {
        tell!(self, "box {} forgets everything", id.0);
        self.topology.gateway(id).forget();
    }

    /// A box gives everything another port, and lets nothing in that goes to the old ones.
    pub fn rebind(&mut self, id: BoxId) {
        tell!(self, "box {} gives everything another port", id.0);
        self.topology.gateway(id).rebind();
    }

    /// A host changes its network, and its address with it. Its node is told after `notice`, or never: then only
    /// what fails tells.
    pub fn move_host(&mut self, host: Host, net: Net, notice: Option<Duration>) {
        self.topology.seat(host, net);
        self.reopen_web(host);
        let addrs = self.topology.addresses(host);
        tell!(self, "{} is at {addrs:?} now", self.hosts[host.0].name);
        if let Some(notice) = notice {
            self.plan(self.now + notice, Happening::Notices(host));
        }
    }

    /// What a daemon does when it sees the addresses of its interfaces: the node is told, and the registry.
    pub(super) fn notice_addresses(&mut self, host: Host) {
        let now = self.now;
        let addrs = self.topology.addresses(host);
        tell!(self, "{} sees that its addresses are {addrs:?}", self.hosts[host.0].name);
        if self.topology.net_of(host) == Net::Internet {
            self.hosts[host.0].reachable = addrs.first().copied();
        }
        self.hosts[host.0].inside = addrs.iter().copied().filter(is_private).collect();
        self.register(host);
        self.hosts[host.0].node.set_local(now, addrs);
    }

    /// Tells the registry where the node is, as soon as it can be reached.
    pub(super) fn register(&mut self, host: Host) {
        let now = self.now;
        if self.directory.unreachable || self.hosts[host.0].asleep {
            return self.plan(now + REGISTRY_AGAIN, Happening::Registers(host));
        }
        let machine = &self.hosts[host.0];
        let (number, key) = (machine.number, machine.identity.public());
        let relay_only = matches!(machine.web, Web::Open { .. });
        self.directory.moved(now, number, machine.reachable, machine.inside.clone(), relay_only);
        // Registry and beacon are one process, and the registry sees where its connections come from.
        if let (Some(beacon), Some(ip)) = (&mut self.beacon, self.topology.outermost(host)) {
            beacon.registered(number, ip);
            beacon.has_key(now, number, key);
        }
    }

    /// Nodes that were added since time last went on learn their addresses.
    pub(super) fn welcome(&mut self) {
        for host in std::mem::take(&mut self.newcomers) {
            self.notice_addresses(host);
            self.set_timer(host, Some(self.now));
        }
    }
}

fn is_private(addr: &SocketAddr) -> bool {
    matches!(addr, SocketAddr::V4(addr) if addr.ip().is_private())
}
