//! What a test does by hand, and what it can look at.

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use pilot_proto::{
    Closed, Event, Node, StreamEvent,
    node::{PathView, Table},
};
use pilot_wire::{Addr, Endpoint, NodeId, Port, StreamId};
use rand::RngExt;

use super::{
    Happening, Host, REGISTRY_DELAY, TransferId, World, beacon,
    network::{Arriving, Place, Target},
};
use crate::{History, Role, Script, Traffic, Transfer, transfer::Side, watch::Fault};

impl World {
    /// The machine of a host dies and comes back with its identity and whom it trusts, but without keys and streams.
    /// Its transfers end on this side without an error that anybody sees.
    pub fn restart(&mut self, host: Host) {
        self.restart_with(host, Memory::Trust);
    }

    /// The same with more or less of what it knew.
    pub fn restart_with(&mut self, host: Host, memory: Memory) {
        let machine = &self.hosts[host.0];
        let (identity, number) = (machine.identity.clone(), machine.number);
        let (visibility, configure) = (machine.visibility, Rc::clone(&machine.configure));
        tell!(self, "{} restarts", self.hosts[host.0].name);
        let mut node = self.birth(&identity, number, visibility, &configure);
        let machine = &mut self.hosts[host.0];
        if memory != Memory::Lost {
            node.restore_trust(machine.node.trust().clone());
        }
        if memory == Memory::All {
            for (&peer, &key) in &machine.agreed {
                node.remember_agreement(peer, key);
            }
        } else {
            machine.agreed.clear();
        }
        machine.node = node;
        machine.life += 1;
        machine.repeated.clear();
        self.notice_addresses(host);
        let machine = &mut self.hosts[host.0];
        for (id, role) in std::mem::take(&mut machine.streams).into_values() {
            if let Some(side) = self.transfers[id.0].sides.get_mut(&role) {
                side.died |= !side.is_over();
            }
        }
        let listening = self.transfers.iter().filter(|running| running.transfer.listener == host);
        for port in listening.map(|running| running.transfer.port) {
            let listened = self.hosts[host.0].node.listen(port);
            if let Err(error) = listened {
                self.watch.note(Fault::Setup(error.to_string()));
            }
        }
        self.drain(host);
    }

    /// The clock on the wall of a host jumps. Its other clock, which times are taken with, does not.
    pub fn step_clock(&mut self, host: Host, seconds: i64) {
        tell!(self, "the clock of {} jumps by {seconds} s", self.hosts[host.0].name);
        self.hosts[host.0].clock_off += seconds;
    }

    /// Whether somebody on the way takes from every key exchange what release 1.18.0 does not know.
    pub fn strip_exchanges(&mut self, on: bool) {
        tell!(self, "an attacker {} what is new from key exchanges", if on { "strips" } else { "leaves" });
        self.strips = on;
    }

    /// The registry comes back without what it only had in memory: where nodes are. Daemons see their connection break,
    /// and each tells it again after a time of its own.
    pub fn restart_registry(&mut self, spread: Duration) {
        tell!(self, "the registry restarts");
        self.directory.forget_places();
        for host in (0..self.hosts.len()).map(Host) {
            let after = self.chance.random_range(Duration::ZERO..=spread);
            self.plan(self.now + after, Happening::Registers(host));
        }
    }

    /// Lets a host use up so many of its ports, by streams to itself that end at once.
    pub fn use_up_ports(&mut self, host: Host, ports: u16) {
        let to = self.addr(host).port(Port(9));
        for _ in 0..ports {
            let result = self.with_node(host, |node, now| node.dial(now, to).map(|id| node.reset(now, id)));
            if let Err(error) = result {
                self.watch.note(Fault::Setup(error.to_string()));
                return;
            }
            self.hosts[host.0].events.clear();
        }
    }

    /// Looks whether a table of a node is fuller than it may be.
    pub fn check_tables(&mut self) {
        for (index, machine) in self.hosts.iter().enumerate().filter(|(_, machine)| !machine.asleep) {
            for Table { name, len, max } in machine.node.tables() {
                if len > max {
                    self.watch.note(Fault::Overfull { host: Host(index), table: name, len, max });
                }
            }
        }
    }

    /// The machine sleeps: nothing runs, and what comes is lost.
    pub fn suspend(&mut self, host: Host) {
        tell!(self, "{} falls asleep", self.hosts[host.0].name);
        self.hosts[host.0].asleep = true;
        self.set_timer(host, None);
    }

    /// It wakes up, and its daemon notices.
    pub fn resume(&mut self, host: Host) {
        let now = self.now;
        tell!(self, "{} wakes from its sleep", self.hosts[host.0].name);
        self.hosts[host.0].asleep = false;
        self.hosts[host.0].node.network_changed(now);
        self.hosts[host.0].node.handle_timeout(now);
        self.drain(host);
    }

    /// A transfer that starts now.
    pub fn converse(
        &mut self,
        dialer: Host,
        listener: Host,
        port: Port,
        dialing: Script,
        listening: Script,
    ) -> TransferId {
        let starts = self.elapsed();
        self.transfer(Transfer { dialer, listener, port, starts, dialing, listening })
    }

    /// Puts a datagram into the hands of a host, as if it came from `from`.
    pub fn inject(&mut self, to: Host, from: SocketAddr, datagram: &[u8]) {
        let now = self.now;
        let (target, datagram) = (Target::Hands(Place::Host(to)), datagram.to_vec());
        self.plan(now, Happening::Arrives(Arriving { target, from, datagram, author: None }));
    }

    /// Keeps a copy of everything that goes from one host to another, from now on.
    pub fn record_datagrams(&mut self, from: Host, to: Host) {
        self.recording = Some((from, to, Vec::new()));
    }

    /// Somebody on the path keeps what passes outside of homes, from now on.
    pub fn overhear(&mut self) {
        self.overheard = Some(Vec::new());
    }

    /// What he has so far.
    pub fn overheard(&self) -> &[Overheard] {
        self.overheard.as_deref().unwrap_or_default()
    }

    /// The registry says from now on that a node is there, and nothing else, though it is not true.
    pub fn lie_about(&mut self, host: Host, at: Option<SocketAddr>, lan: Vec<SocketAddr>) {
        let number = self.number(host);
        self.directory.moved(self.now, number, at, lan, false);
    }

    /// What was recorded. The recording ends.
    pub fn take_recorded(&mut self) -> Vec<Vec<u8>> {
        self.recording.take().map(|(_, _, datagrams)| datagrams).unwrap_or_default()
    }

    /// Lets a test call a node directly and then carries out what follows.
    pub fn with_node<T>(&mut self, host: Host, act: impl FnOnce(&mut Node, Instant) -> T) -> T {
        self.welcome();
        self.hosts[host.0].used = Some(self.now);
        let result = act(&mut self.hosts[host.0].node, self.now);
        self.drain(host);
        result
    }

    /// Events of a host that belong to no transfer, since the last call.
    pub fn take_events(&mut self, host: Host) -> Vec<Event> {
        std::mem::take(&mut self.hosts[host.0].events)
    }

    /// The stream that a host was told of last, if it belongs to no transfer, and where it comes from.
    pub fn take_incoming(&mut self, host: Host) -> Option<(StreamId, Endpoint)> {
        self.take_events(host).into_iter().rev().find_map(|event| match event {
            Event::Stream(stream, StreamEvent::Incoming { from, .. }) => Some((stream, from)),
            Event::Stream(..)
            | Event::Datagram { .. }
            | Event::Pong { .. }
            | Event::Observed(_)
            | Event::Beacon(_)
            | Event::Surveyed(_)
            | Event::HandshakeWaiting
            | Event::Trust(_)
            | Event::Peer(..) => None,
        })
    }

    /// The overlay address of a host.
    pub fn addr(&self, host: Host) -> Addr {
        Addr::backbone(self.number(host))
    }

    /// The node number of a host.
    pub fn number(&self, host: Host) -> NodeId {
        self.hosts[host.0].number
    }

    /// Where a host receives datagrams, in its own network.
    pub fn socket_addr(&self, host: Host) -> SocketAddr {
        self.topology.addresses(host)[0]
    }

    /// All addresses of a host, with its port.
    pub fn socket_addrs(&self, host: Host) -> Vec<SocketAddr> {
        self.topology.addresses(host)
    }

    /// The way from one host to another, as the node sees it.
    pub fn path(&self, from: Host, to: Host) -> PathView {
        let number = self.number(to);
        let mut peers = self.hosts[from.0].node.peers();
        peers.find(|peer| peer.node == number).map_or(PathView::Unknown, |peer| peer.path)
    }

    /// Whether both hosts send to each other directly.
    pub fn is_direct(&self, a: Host, b: Host) -> bool {
        [self.path(a, b), self.path(b, a)].iter().all(|path| matches!(path, PathView::Direct(_)))
    }

    /// The node of a host, to look at.
    pub fn look_at(&self, host: Host) -> &Node {
        &self.hosts[host.0].node
    }

    /// Time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Datagrams that were sent so far.
    pub fn datagrams(&self) -> u64 {
        self.watch.datagrams()
    }

    /// Bytes of these datagrams.
    pub fn bytes_sent(&self) -> u64 {
        self.watch.bytes()
    }

    /// What a host sent so far, to one address or in all.
    pub fn sent_by(&self, host: Host, addr: Option<SocketAddr>) -> Traffic {
        self.watch.sent_by(host, addr)
    }

    /// What a host said to the beacon itself so far, without the frames that it passes on.
    pub fn sent_for_beacon(&self, host: Host) -> Traffic {
        self.watch.sent_for_beacon(host)
    }

    /// Nobody has a reason to send anything to this address: more than three packets there are a fault, whoever wants
    /// whom.
    pub fn protect(&mut self, addr: SocketAddr) {
        self.watch.protect(addr);
    }

    /// How long the registry takes to answer.
    pub fn registry_delay(&self) -> Duration {
        REGISTRY_DELAY
    }

    /// Where the beacon is.
    pub fn beacon_addr(&self) -> SocketAddr {
        beacon::ADDRESS
    }

    /// Whether both streams of a transfer have ended, however.
    pub fn is_over(&self, id: TransferId) -> bool {
        self.transfers[id.0].sides.values().all(Side::is_over)
    }

    /// What happened.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The first thing that must not happen, if it happened.
    pub fn fault(&self) -> Option<&Fault> {
        self.watch.fault()
    }

    /// How a side of a transfer stands.
    pub fn progress(&self, id: TransferId, role: Role) -> Progress {
        let side = &self.transfers[id.0].sides[&role];
        Progress {
            began: side.stream.is_some(),
            written: side.written,
            read: side.read,
            ended: side.ended.clone(),
            complete: side.is_complete(),
        }
    }

    /// How many bytes a side of a transfer has to read.
    pub(crate) fn expects(&self, id: TransferId, role: Role) -> u64 {
        let transfer = &self.transfers[id.0].transfer;
        match role {
            Role::Dialer => transfer.listening.sends,
            Role::Listener => transfer.dialing.sends,
        }
    }

    /// All transfers.
    pub fn transfers(&self) -> impl Iterator<Item = TransferId> {
        (0..self.transfers.len()).map(TransferId)
    }

    pub(super) fn host_of(&self, id: TransferId, role: Role) -> Host {
        let transfer = &self.transfers[id.0].transfer;
        match role {
            Role::Dialer => transfer.dialer,
            Role::Listener => transfer.listener,
        }
    }
}

/// What a machine still has after it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// All that a daemon stores.
    All,
    /// Whom it trusts, but not who agrees on keys of the moment.
    Trust,
    /// Its identity.
    Lost,
}

/// How one side of a transfer stands.
#[derive(Clone, Debug)]
pub struct Progress {
    /// There is a stream, or was.
    pub began: bool,
    /// Bytes that the stream took from the application.
    pub written: u64,
    /// Bytes that the application read, each checked.
    pub read: u64,
    /// How the stream ended.
    pub ended: Option<Closed>,
    /// All was written and read, and the stream ended without an error.
    pub complete: bool,
}

/// A datagram that somebody on the path saw, with the addresses that it had there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overheard {
    /// Where it came from.
    pub from: SocketAddr,
    /// Where it went.
    pub to: SocketAddr,
    /// All of it.
    pub datagram: Vec<u8>,
}
