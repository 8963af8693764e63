//! The way to the beacon where UDP does not pass: the daemon's WebSocket, as a pipe that loses and reorders nothing.
//!
//! Opened when the node says that its beacon is silent, and let go as the daemon does it: it asks over UDP now and then;
//! when the beacon answers it says over UDP where it is, and when that is answered the pipe is closed.

use std::time::{Duration, Instant};

use pilot_rendezvous::beacon::WebId;
use pilot_wire::{NodeId, beacon::Message};

use super::{
    Happening, Host, World, beacon,
    network::{Place, Reach, Target},
};
use crate::{Conditions, watch::Shape};

/// TCP, TLS, the upgrade, and the proof of identity: round trips until the pipe is open.
const OPENING_ROUND_TRIPS: u32 = 4;

/// How long a pipe that could not be opened is left alone.
const AGAIN: Duration = Duration::from_secs(2);

/// How often the beacon is asked over UDP whether it hears us (`daemon::config::Web::look_every`).
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// What a host has in place of UDP.
#[derive(Debug, Default)]
pub(super) enum Web {
    #[default]
    Closed,
    Opening,
    Open {
        id: WebId,
        /// Over UDP, the beacon was told where we are.
        returning: bool,
        up: Instant,
        down: Instant,
    },
}

impl World {
    /// The node says that its beacon is silent: the daemon opens a WebSocket.
    pub(super) fn beacon_is_silent(&mut self, host: Host) {
        if matches!(self.hosts[host.0].web, Web::Closed) && self.web {
            self.hosts[host.0].web = Web::Opening;
            let opening = self.web_delay(host) * 2 * OPENING_ROUND_TRIPS;
            self.plan(self.now + opening, Happening::WebOpens(host));
        }
    }

    pub(super) fn open_web(&mut self, host: Host) {
        if !matches!(self.hosts[host.0].web, Web::Opening) {
            return;
        }
        if self.beacon.is_none() {
            self.plan(self.now + AGAIN, Happening::WebOpens(host));
            return;
        }
        let (now, number) = (self.now, self.hosts[host.0].number);
        self.webs += 1;
        let id = WebId(self.webs);
        tell!(self, "{} has a web connection to the beacon", self.hosts[host.0].name);
        if let Some(beacon) = &mut self.beacon {
            // An earlier one of the same node is gone by itself: there is only one socket per host here.
            let _ = beacon.web_opened(now, id, number);
        }
        self.hosts[host.0].web = Web::Open { id, returning: false, up: now, down: now };
        self.plan(now + LOOK_EVERY, Happening::LooksForUdp(host));
        self.register(host);
        self.hosts[host.0].node.beacon_reachable_otherwise(now);
        self.drain(host);
    }

    /// The beacon is gone, and with it all connections to it.
    pub(super) fn break_webs(&mut self) {
        for machine in &mut self.hosts {
            if matches!(machine.web, Web::Open { .. }) {
                machine.web = Web::Opening;
            }
        }
        for host in (0..self.hosts.len()).map(Host) {
            if matches!(self.hosts[host.0].web, Web::Opening) {
                self.plan(self.now + AGAIN, Happening::WebOpens(host));
            }
        }
    }

    /// Whether the datagram went through the pipe.
    pub(super) fn send_over_web(&mut self, host: Host, datagram: &[u8]) -> bool {
        // Surveys find out about UDP.
        if let Ok(Message::Survey { .. }) = Message::parse(datagram) {
            return false;
        }
        let (now, delay) = (self.now, self.web_delay(host));
        let Web::Open { id, up, .. } = &mut self.hosts[host.0].web else { return false };
        let id = *id;
        *up = (*up).max(now + delay);
        let arrives = *up;
        tell!(self, "{} => the beacon {}", self.hosts[host.0].name, Shape(datagram));
        let author = Some(Place::Host(host));
        self.arrives(arrives, Target::Web(id), beacon::ADDRESS, datagram.to_vec(), author);
        true
    }

    /// The beacon's message goes through somebody's pipe.
    pub(super) fn answer_over_web(&mut self, to: WebId, datagram: &[u8]) {
        let owner = (0..self.hosts.len())
            .map(Host)
            .find(|host| matches!(self.hosts[host.0].web, Web::Open { id, .. } if id == to));
        let Some(host) = owner else { return };
        let (now, delay) = (self.now, self.web_delay(host));
        let Web::Open { down, .. } = &mut self.hosts[host.0].web else { return };
        *down = (*down).max(now + delay);
        let arrives = *down;
        tell!(self, "the beacon => {} {}", self.hosts[host.0].name, Shape(datagram));
        let target = Target::Hands(Place::Host(host));
        self.arrives(arrives, target, beacon::ADDRESS, datagram.to_vec(), Some(Place::Beacon));
    }

    /// The daemon asks over UDP whether the beacon hears it.
    pub(super) fn look_for_udp(&mut self, host: Host) {
        let Web::Open { returning, .. } = &mut self.hosts[host.0].web else { return };
        *returning = false;
        self.discover_over_udp(host, NodeId::UNSET);
        self.plan(self.now + LOOK_EVERY, Happening::LooksForUdp(host));
    }

    /// The beacon answered over UDP: it hears the host there.
    pub(super) fn answered_over_udp(&mut self, host: Host) {
        match &mut self.hosts[host.0].web {
            Web::Closed => {}
            Web::Opening => self.hosts[host.0].web = Web::Closed,
            Web::Open { returning: returning @ false, .. } => {
                *returning = true;
                let node = self.hosts[host.0].number;
                self.discover_over_udp(host, node);
            }
            Web::Open { returning: true, .. } => {
                let now = self.now;
                self.close_web(host);
                self.register(host);
                self.hosts[host.0].node.beacon_reachable_otherwise(now);
            }
        }
    }

    fn discover_over_udp(&mut self, host: Host, node: NodeId) {
        let mut message = Vec::new();
        let key = Some(self.hosts[host.0].identity.public());
        Message::Discover { node, key, proof: None }.emit(&mut message);
        self.send_udp(host, beacon::ADDRESS, &message, false);
    }

    /// The host is in another network, and the connection dead. Its daemon tries to open another.
    pub(super) fn reopen_web(&mut self, host: Host) {
        if matches!(self.hosts[host.0].web, Web::Open { .. }) {
            self.close_web(host);
            self.hosts[host.0].web = Web::Opening;
            self.plan(self.now + AGAIN, Happening::WebOpens(host));
        }
    }

    /// A host has no use for its connection any more, or it broke.
    pub(super) fn close_web(&mut self, host: Host) {
        let now = self.now;
        if let Web::Open { id, .. } = std::mem::take(&mut self.hosts[host.0].web)
            && let Some(beacon) = &mut self.beacon
        {
            tell!(self, "{} has no web connection any more", self.hosts[host.0].name);
            beacon.web_closed(now, id);
        }
    }

    /// One way. Losses are made good below.
    fn web_delay(&mut self, host: Host) -> Duration {
        let key = (Place::Host(host), Place::Beacon, Reach::Wide);
        let Conditions { delay, jitter, .. } = *self.link(key).conditions();
        delay + jitter
    }
}
