//! What goes to the network: segments of streams in trains, and single packets and frames.

use std::net::SocketAddr;
use std::time::Instant;

use pilot_wire::capture::Direction;
use pilot_wire::packet::{Flags, HEADER_LEN, Header, Packet, Protocol};
use pilot_wire::tunnel::{SEALED_HEADER_LEN, TAG_LEN, emit_plain_header};
use pilot_wire::{Addr, NodeId, Port, StreamId, beacon};
use rand::Rng;

use super::{Frame, Node, Purpose, Timer, Transmit, Via};
use crate::Encryption;
use crate::tap::Passing;

/// Bytes of one train of datagrams: what a segmented send of the kernel takes at most (65,507).
const TRAIN_MAX: usize = 60_000;

/// Bytes of a datagram to an address that has not answered: a key exchange has 136, and nobody is to be bothered by more
/// than a few of that size.
const STRANGER_BYTES_MAX: usize = 200;

/// Payload of a packet that fits into such a datagram.
const STRANGER_PAYLOAD_MAX: usize = STRANGER_BYTES_MAX - SEALED_HEADER_LEN - TAG_LEN - HEADER_LEN;

impl Node {
    /// The next datagrams to send, appended to the empty `out`: at most `max_segments` to one destination, all
    /// of the same length but the last.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        max_segments: usize,
    ) -> Option<Transmit> {
        let transmit = self.next_transmit(now, out, max_segments)?;
        self.stats.bytes_sent += out.len() as u64;
        self.stats.datagrams_sent += out.len().div_ceil(transmit.segment_size.max(1)) as u64;
        if out.first().is_some_and(|&first| beacon::is_relay(first)) {
            self.stats.relayed_bytes_sent += out.len() as u64;
        }
        Some(transmit)
    }

    fn next_transmit(&mut self, now: Instant, out: &mut Vec<u8>, max_segments: usize) -> Option<Transmit> {
        loop {
            if let Some(Frame { destination, bytes, may_fragment }) = self.outbox.pop_front() {
                out.extend_from_slice(&bytes);
                return Some(Transmit { destination, segment_size: bytes.len(), may_fragment });
            }
            let id = self.streams.next_ready()?;
            if self.streams.get(id).map(super::streams::Entry::peer) == self.id {
                self.loop_back(now, id);
            } else if let Some(transmit) = self.fill(now, id, out, max_segments) {
                return Some(transmit);
            }
        }
    }

    /// Fills a train with segments of one stream.
    fn fill(
        &mut self,
        now: Instant,
        id: StreamId,
        out: &mut Vec<u8>,
        max_segments: usize,
    ) -> Option<Transmit> {
        let us = self.id?;
        let node = self.streams.get(id)?.peer();
        let clear = self.config.encryption == Encryption::Off;
        if !clear && !self.peers.get(&node)?.tunnel.is_ready() {
            return None;
        }
        let via = self.way_to(now, node)?;
        let entry = self.streams.get_mut(id)?;
        let peer = self.peers.get_mut(&node)?;
        // Each datagram to an address that has not answered is counted, and small: what more a SYN could bring follows
        // when there is an answer.
        let counted = match via {
            Via::Direct(addr) if !clear && !peer.path.has_answered(addr) => Some(addr),
            Via::Direct(_) | Via::Relay => None,
        };
        let (max_segments, opening_max) = match counted {
            Some(_) => (1, STRANGER_PAYLOAD_MAX),
            None => (max_segments, usize::MAX),
        };
        entry.stream.set_opening_max(opening_max);
        let destination = match via {
            Via::Direct(addr) => addr,
            Via::Relay => self.beacon.as_ref()?.addr(),
        };
        let may_fragment = peer.mtu.is_narrow();
        let full = usize::from(peer.mtu.segment());
        let taps = &mut self.taps;
        let passing = Passing {
            at: now,
            direction: Direction::Sent,
            peer: node,
            via: Some(via),
            beacon: Some(destination),
            encrypted: !clear,
        };
        let mut segment_size = 0;
        let mut segments = 0;
        let mut full_segments = 0;
        let mut expects_answer = false;
        let mut exhausted = false;
        while segments < max_segments && out.len() + segment_size <= TRAIN_MAX {
            let start = out.len();
            if via == Via::Relay {
                beacon::emit_relay_header(us, node, out);
            }
            let mut sent = None;
            let mut write = |out: &mut Vec<u8>| {
                let clear_at = out.len();
                sent = entry.stream.poll_segment(now, out);
                if taps.is_open() && sent.is_some() {
                    taps.show(passing, &out[clear_at..]);
                }
            };
            if clear {
                emit_plain_header(out);
                write(out);
            } else {
                peer.tunnel.seal(us, out, write);
            }
            let Some(sent) = sent else {
                out.truncate(start);
                exhausted = true;
                break;
            };
            expects_answer |= sent.kind.is_answered();
            full_segments += usize::from(sent.payload >= full);
            if sent.payload > 0 {
                peer.tunnel.carries();
            }
            let len = out.len() - start;
            peer.bytes_sent += len as u64;
            if segments == 0 {
                segment_size = len;
            } else if len > segment_size {
                // Trains hold one size; a longer segment behind a short one starts the next train.
                self.outbox.push_back(Frame { destination, bytes: out.split_off(start), may_fragment });
                break;
            }
            segments += 1;
            if len < segment_size {
                break;
            }
        }
        let search_begins = full_segments > 0
            && usize::from(entry.stream.max_segment()) > full
            && peer.mtu.filled(now, full_segments, self.config.tunnel.max_datagram);
        if let Some(addr) = counted.filter(|_| segments == 0) {
            self.ledger.put_back(addr);
        }
        if segments > 0 {
            peer.sent = now;
            if expects_answer && !peer.is_awaited() {
                peer.expect_answer(now);
                self.arm_peer(node);
            }
            if via == Via::Relay
                && let Some(beacon) = &mut self.beacon
                && beacon.relays(now)
            {
                self.timers.set(Timer::Beacon, Some(beacon.poll_timeout()));
            }
        }
        if search_begins {
            self.probe_mtu(now, node);
        }
        self.collect(now, id);
        if !exhausted {
            self.streams.wake(id);
        }
        (segments > 0).then_some(Transmit { destination, segment_size, may_fragment })
    }

    /// A stream to this node itself: its packets never leave.
    fn loop_back(&mut self, now: Instant, id: StreamId) {
        let mut packets = Vec::new();
        if let Some(entry) = self.streams.get_mut(id) {
            loop {
                let mut packet = Vec::new();
                if entry.stream.poll_segment(now, &mut packet).is_none() {
                    break;
                }
                packets.push(packet);
            }
        }
        self.collect(now, id);
        for packet in packets {
            self.on_own_packet(now, &packet);
        }
    }

    /// Sends one packet to a node, when there is a key: now or later. `false` if too much waits for the key.
    pub(super) fn send_packet(&mut self, now: Instant, node: NodeId, packet: Vec<u8>) -> bool {
        if self.id == Some(node) {
            self.on_own_packet(now, &packet);
            return true;
        }
        let clear = self.config.encryption == Encryption::Off;
        let ready = clear || self.peer(now, node).tunnel.is_ready();
        if ready && let Some(via) = self.way_to(now, node) {
            match via {
                Via::Direct(addr) if !clear && !self.may_be_sent(node, addr, packet.len()) => {
                    if self.beacon.is_some() {
                        self.ledger.put_back(addr);
                        self.emit_packet(now, node, Via::Relay, &packet);
                        return true;
                    }
                    // A small one that is answered opens the way for it.
                    let question = self.start_ping(now, node, 0, Purpose::Way);
                    self.emit_packet(now, node, via, &question);
                    return self.peer(now, node).enqueue(packet);
                }
                Via::Direct(_) | Via::Relay => self.emit_packet(now, node, via, &packet),
            }
            return true;
        }
        let kept = self.peer(now, node).enqueue(packet);
        self.want(now, node);
        kept
    }

    /// Whether a packet of this length may go to an address.
    fn may_be_sent(&self, node: NodeId, addr: SocketAddr, len: usize) -> bool {
        len <= HEADER_LEN + STRANGER_PAYLOAD_MAX
            || self.peers.get(&node).is_some_and(|peer| peer.path.has_answered(addr))
    }

    /// Sends one packet a given way, if there is a key. That it may go there has been seen to.
    pub(super) fn emit_packet(&mut self, now: Instant, node: NodeId, via: Via, packet: &[u8]) {
        if self.id == Some(node) {
            return self.on_own_packet(now, packet);
        }
        let Some((destination, bytes)) = self.frame(now, node, via, packet) else { return };
        if let Some(port) = ping_port(packet) {
            self.pings.went(node, port, via);
        }
        let carried = self.peers.get(&node).map_or(0, |peer| peer.mtu.carried(via));
        let may_fragment = bytes.len() > carried;
        self.outbox.push_back(Frame { destination, bytes, may_fragment });
        self.arm_peer(node);
    }

    /// A packet to a peer as a datagram, and where it goes, if there is a key and a way.
    pub(super) fn frame(
        &mut self,
        now: Instant,
        node: NodeId,
        via: Via,
        packet: &[u8],
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let us = self.id?;
        let mut frame = Vec::with_capacity(packet.len() + 64);
        let destination = self.open_frame(node, via, &mut frame)?;
        let peer = self.peers.get_mut(&node)?;
        if self.config.encryption == Encryption::Off {
            emit_plain_header(&mut frame);
            frame.extend_from_slice(packet);
        } else if !peer.tunnel.seal(us, &mut frame, |out| out.extend_from_slice(packet)) {
            return None;
        }
        peer.sent = now;
        peer.bytes_sent += frame.len() as u64;
        let encrypted = self.config.encryption != Encryption::Off;
        self.show(now, Direction::Sent, node, (Some(via), encrypted), packet);
        Some((destination, frame))
    }

    /// Where a frame that goes this way is sent, after writing the relay header if it needs one. `None` when
    /// there is no beacon for it.
    pub(super) fn open_frame(&self, node: NodeId, via: Via, frame: &mut Vec<u8>) -> Option<SocketAddr> {
        match via {
            Via::Direct(addr) => Some(addr),
            Via::Relay => {
                let beacon = self.beacon.as_ref()?.addr();
                beacon::emit_relay_header(self.id?, node, frame);
                Some(beacon)
            }
        }
    }

    /// A ping packet of at least 8 bytes of payload, registered as waiting for its answer.
    pub(super) fn start_ping(
        &mut self,
        now: Instant,
        node: NodeId,
        payload: usize,
        purpose: Purpose,
    ) -> Vec<u8> {
        let mut token = [0; 8];
        self.rng.fill_bytes(&mut token);
        let (port, displaced) = self.pings.start(now, node, token, purpose);
        if let Some(displaced) = displaced {
            self.ping_failed(displaced);
        }
        self.timers.set(Timer::Pings, self.pings.poll_timeout());
        let from = Addr::backbone(self.id.unwrap_or_default()).port(port);
        let to = Addr::backbone(node).port(Port::PING);
        let mut header = Header::new(Protocol::Control, Flags::NONE, from, to);
        header.seq = pilot_wire::Seq(u32::from(port.0));
        let padding = vec![0; payload.min(pilot_wire::packet::MAX_PAYLOAD).saturating_sub(token.len())];
        let mut packet = Vec::with_capacity(HEADER_LEN + token.len() + padding.len() + TAG_LEN);
        header.emit_with(&[&token, &padding], &mut packet);
        packet
    }
}

/// The port that a ping comes from, if the packet is one.
fn ping_port(packet: &[u8]) -> Option<Port> {
    let Packet { header, payload } = Packet::parse_sealed(packet).ok()?;
    let is_ping = header.protocol == Protocol::Control
        && !header.flags.contains(Flags::ACK)
        && header.dst_port == Port::PING
        && !payload.is_empty();
    is_ping.then_some(header.src_port)
}
