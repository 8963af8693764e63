//! Runs the applications of transfers, and sees what their nodes tell.

use pilot_proto::{BeaconEvent, Event, PeerEvent, Read, StreamEvent};
use pilot_wire::{Port, StreamId};

use super::{Happening, Host, REGISTRY_DELAY, TransferId, World};
use crate::{
    Role, Violation,
    watch::{Fault, Seen},
};

impl World {
    pub(super) fn start_transfer(&mut self, id: TransferId) {
        let now = self.now;
        let transfer = &self.transfers[id.0].transfer;
        let (dialer, port) = (transfer.dialer, transfer.port);
        let to = self.addr(transfer.listener).port(port);
        tell!(self, "{} dials {to}", self.hosts[dialer.0].name);
        match self.hosts[dialer.0].node.dial(now, to) {
            Ok(stream) => {
                self.hosts[dialer.0].streams.insert(stream, (id, Role::Dialer));
                if let Some(side) = self.transfers[id.0].sides.get_mut(&Role::Dialer) {
                    side.stream = Some(stream);
                }
            }
            Err(error) => self.watch.note(Fault::Setup(error.to_string())),
        }
        self.pump(id, Role::Dialer);
    }

    pub(super) fn on_event(&mut self, host: Host, event: Event) {
        tell!(self, "{} sees {}", self.hosts[host.0].name, Seen(&event));
        match &event {
            Event::Observed(at) => {
                // As the daemon does: the registry is told where we are seen.
                self.hosts[host.0].reachable = Some(*at);
                self.plan(self.now + REGISTRY_DELAY, Happening::Registers(host));
            }
            Event::Peer(node, PeerEvent::Agreed(key)) => {
                self.hosts[host.0].agreed.insert(*node, *key);
            }
            Event::Beacon(BeaconEvent::Silent) => self.beacon_is_silent(host),
            Event::Stream(..)
            | Event::Datagram { .. }
            | Event::Pong { .. }
            | Event::Beacon(BeaconEvent::Answers | BeaconEvent::Late)
            | Event::Surveyed(_)
            | Event::HandshakeWaiting
            | Event::Trust(_)
            | Event::Peer(..) => {}
        }
        let Event::Stream(stream, stream_event) = &event else {
            self.hosts[host.0].events.push(event);
            return;
        };
        if let StreamEvent::Incoming { port, .. } = stream_event {
            self.adopt(host, *stream, *port);
        }
        if let Some(&id) = self.hosts[host.0].repeated.get(stream) {
            self.watch_repeated(host, *stream, id);
            return;
        }
        let Some(&(id, role)) = self.hosts[host.0].streams.get(stream) else {
            self.hosts[host.0].events.push(event);
            return;
        };
        let now = self.now;
        let Some(side) = self.transfers[id.0].sides.get_mut(&role) else { return };
        let result = side.on_event(now, &mut self.hosts[host.0].node, stream_event);
        self.after_pump(id, role, result);
    }

    /// Gives a stream that came in to the transfer that waits on its port.
    fn adopt(&mut self, host: Host, stream: StreamId, port: Port) {
        let waiting = self
            .transfers
            .iter_mut()
            .enumerate()
            .find(|(_, running)| running.transfer.listener == host && running.transfer.port == port);
        let Some((index, running)) = waiting else { return };
        let id = TransferId(index);
        let Some(side) = running.sides.get_mut(&Role::Listener) else { return };
        if side.died {
            // The dial outlived the application that it was for.
            let now = self.now;
            self.hosts[host.0].node.reset(now, stream);
            return;
        }
        if side.stream.is_some() {
            self.hosts[host.0].repeated.insert(stream, id);
            return;
        }
        side.stream = Some(stream);
        self.hosts[host.0].streams.insert(stream, (id, Role::Listener));
    }

    fn watch_repeated(&mut self, host: Host, stream: StreamId, id: TransferId) {
        let now = self.now;
        if let Ok(Read::Data(_)) = self.hosts[host.0].node.read(now, stream, 1) {
            self.watch.note(Fault::Observed(id, Role::Listener, Violation::Repeated));
        }
    }

    pub(super) fn pump(&mut self, id: TransferId, role: Role) {
        let now = self.now;
        let host = self.host_of(id, role);
        let Some(side) = self.transfers[id.0].sides.get_mut(&role) else { return };
        let result = side.pump(now, &mut self.hosts[host.0].node);
        self.after_pump(id, role, result);
        self.drain(host);
    }

    fn after_pump(&mut self, id: TransferId, role: Role, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.watch.note(Fault::Observed(id, role, violation));
        }
        let now = self.now;
        let Some(side) = self.transfers[id.0].sides.get_mut(&role) else { return };
        if let Some(at) = side.plan(now) {
            self.plan(at, Happening::Acts(id, role));
        }
    }
}
