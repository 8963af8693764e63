//! Passing frames on: to nodes of this beacon, and once to the beacon where the node is.

use super::{
    Drop, Route, State, Stats,
    mesh::{Claim, Heard},
    outgoing::Outgoing,
    share::Over,
};
use pilot_wire::{
    NodeId,
    beacon::{Message, NotifyKind, RELAY_HEADER_LEN, emit_deliver_header},
    mesh::{Body, Located},
};
use std::time::{Duration, Instant};

/// First byte of a frame to relay.
const RELAY: u8 = 0x05;

/// Bytes at the beginning of a train that are frames to relay from one node to another; 0 if there are none.
pub(super) fn run_length(train: &[u8], segment: usize) -> usize {
    if train.len().min(segment) < RELAY_HEADER_LEN || train[0] != RELAY {
        return 0;
    }
    let header = &train[..RELAY_HEADER_LEN];
    train.chunks(segment).take_while(|datagram| datagram.starts_with(header)).map(<[u8]>::len).sum()
}

/// Where frames for a node go.
#[derive(Clone, Copy, Debug)]
enum Place {
    Here { route: Route, delivers_to: bool },
    There { beacon: u32 },
}

impl State {
    /// Frames to relay that all come from one node and go to another.
    pub(super) fn relay_run(&mut self, now: Instant, from: Route, segment: usize, run: &[u8]) {
        let mut header = run[1..].chunks_exact(4).map(|bytes| {
            let mut number = [0; 4];
            number.copy_from_slice(bytes);
            NodeId(u32::from_be_bytes(number))
        });
        let (Some(source), Some(destination)) = (header.next(), header.next()) else { return };
        let count = run.len().div_ceil(segment) as u64;
        if let Err(refused) = self.may_speak(now, from, source) {
            // Perhaps it is the node itself, and this beacon was restarted, or the node's box was.
            if matches!(from, Route::Udp(_)) {
                self.say_unknown(now, from, source);
            }
            return self.stats.count_dropped(refused, count);
        }
        let Some(place) = self.place(now, destination) else {
            self.say_unknown(now, from, destination);
            return self.stats.count_dropped(Drop::Unreachable, count);
        };
        let Self { entries, total, config, out, stats, mesh, .. } = self;
        let Some(entry) = entries.get_mut(&source) else { return };
        for datagram in run.chunks(segment) {
            let frame = &datagram[RELAY_HEADER_LEN..];
            let admitted = match total.take(&config.relay, now, &mut entry.meter, frame.len()) {
                Ok(()) if out.is_full() => Err(Drop::TooMany),
                Ok(()) => Ok(()),
                Err(Over::Own) => Err(Drop::TooMany),
                Err(Over::Total) => Err(Drop::Congested),
            };
            if let Err(reason) = admitted {
                stats.count_dropped(reason, 1);
                continue;
            }
            match place {
                Place::Here { route, delivers_to } => {
                    deliver(out, stats, (route, delivers_to), (source, destination), frame);
                }
                Place::There { beacon } => {
                    let body = Body::Relay { source, destination, frame };
                    if mesh.tell(beacon, &body, out) {
                        stats.forwarded += 1;
                    }
                }
            }
        }
    }

    /// Whether what came this way may be sent on in the node's name.
    fn may_speak(&mut self, now: Instant, from: Route, source: NodeId) -> Result<(), Drop> {
        let is_proven = self.entry_of(from, source)?.has_proof();
        // Who only says to be the node must not, while it is known to be elsewhere.
        if !is_proven && self.elsewhere(now, source).is_some() {
            return Err(Drop::Impostor);
        }
        Ok(())
    }

    /// The other beacon at which a node is rather than here.
    pub(super) fn elsewhere(&self, now: Instant, node: NodeId) -> Option<(u32, Claim)> {
        let (beacon, remote) = self.mesh.locate(now, node)?;
        let here = self.claim(node);
        here.is_none_or(|here| remote.beats(here, now)).then_some((beacon, remote))
    }

    fn place(&self, now: Instant, node: NodeId) -> Option<Place> {
        if let Some((beacon, _)) = self.elsewhere(now, node) {
            return Some(Place::There { beacon });
        }
        let (route, delivers_to) = self.entries.get(&node)?.seats.best()?;
        Some(Place::Here { route, delivers_to })
    }

    /// A message said to be from another beacon.
    pub(super) fn hear(&mut self, now: Instant, from: Route, message: &[u8]) -> Result<(), Drop> {
        if !matches!(from, Route::Udp(_)) {
            return Err(Drop::Unreadable);
        }
        match self.mesh.hear(now, &mut self.out, message)? {
            Heard::Done => Ok(()),
            Heard::Here(beacon, nodes) => {
                for located in nodes {
                    self.is_elsewhere(now, beacon, located);
                }
                Ok(())
            }
            Heard::Errand(beacon, Body::Relay { source, destination, frame }) => {
                self.stats.received += 1;
                let Some((route, delivers_to)) =
                    self.entries.get(&destination).and_then(|entry| entry.seats.best())
                else {
                    self.mesh.tell(beacon, &Body::Gone(vec![destination]), &mut self.out);
                    return Err(Drop::Unreachable);
                };
                // The node's own limits hold where it is.
                self.total.pass(&self.config.relay, now, frame.len()).map_err(|_| Drop::Congested)?;
                let (out, stats) = (&mut self.out, &mut self.stats);
                deliver(out, stats, (route, delivers_to), (source, destination), frame);
                Ok(())
            }
            Heard::Errand(beacon, Body::Introduce(introduction)) => {
                self.introduced_from(beacon, introduction)
            }
            Heard::Errand(_, Body::Introduced(introduction)) => self.introduction_done(introduction),
            Heard::Errand(_, Body::Notify(node)) => {
                self.notify_here(now, node, NotifyKind::Handshake);
                Ok(())
            }
            Heard::Errand(_, Body::Hello { .. } | Body::Here(_) | Body::Gone(_)) => Err(Drop::Unreadable),
        }
    }

    /// Another beacon says that a node is there.
    fn is_elsewhere(&mut self, now: Instant, beacon: u32, Located { node, standing, age }: Located) {
        if node == NodeId::UNSET || node == NodeId::BROADCAST {
            return;
        }
        // An age from before this host's start is as good as any other that is too old.
        let at = now.checked_sub(Duration::from_millis(age.into())).unwrap_or(now);
        let claim = Claim { standing, at };
        if let Some(here) = self.claim(node) {
            if !claim.beats(here, now) {
                return;
            }
            // It went over. One that only came here after that may be about to prove that it is back.
            if claim.at > here.at {
                self.let_go(node);
            }
        }
        self.mesh.learn(now, beacon, node, claim);
    }
}

/// Passes a frame to a node of this beacon; `delivers_to`: with the destination in front.
fn deliver(
    out: &mut Outgoing,
    stats: &mut Stats,
    (route, delivers_to): (Route, bool),
    (source, destination): (NodeId, NodeId),
    frame: &[u8],
) {
    out.push(route, |out| {
        if delivers_to {
            Message::RelayDeliverTo { source, destination, frame }.emit(out);
        } else {
            emit_deliver_header(source, out);
            out.extend_from_slice(frame);
        }
    });
    stats.relayed += 1;
    stats.relayed_bytes += frame.len() as u64;
}
