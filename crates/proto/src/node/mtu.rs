//! The size of datagrams on the ways in use: probes out, answers in, and streams told.

use std::net::SocketAddr;
use std::time::Instant;

use pilot_wire::packet::{Flags, HEADER_LEN, Header, Protocol};
use pilot_wire::path::{self, Mtu};
use pilot_wire::tunnel::{PLAIN_HEADER_LEN, SEALED_HEADER_LEN, TAG_LEN};
use pilot_wire::{Addr, NodeId, StreamId};
use rand::Rng;

use super::{Frame, Node, Via};
use crate::Encryption;
use crate::path::mtu::BASE;

impl Node {
    /// The system refused to send a datagram of this length there, because an interface of this host carries less.
    pub fn datagram_too_large(&mut self, now: Instant, to: SocketAddr, len: usize) {
        for node in self.peers.keys().copied().collect::<Vec<_>>() {
            if self.peers.get_mut(&node).is_some_and(|peer| peer.mtu.refused(now, to, len)) {
                self.size_streams(now, node);
            }
            self.probe_mtu(now, node);
        }
    }

    /// Sends the probe that is due, if one is.
    pub(super) fn probe_mtu(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.mtu.poll_timeout().is_some()) else {
            return;
        };
        let rtt = peer.path.rtt();
        if let Some(probe) = peer.mtu.poll(now, rtt, self.rng.next_u64()) {
            let around = match self.config.encryption {
                Encryption::Required => SEALED_HEADER_LEN + TAG_LEN,
                Encryption::Off => PLAIN_HEADER_LEN,
            };
            let mut payload = vec![0; usize::from(probe.size).saturating_sub(around + HEADER_LEN)];
            let message = Mtu::Probe { token: probe.token }.to_bytes();
            payload[..message.len()].copy_from_slice(&message);
            let packet = self.path_message(node, &payload);
            if let Some((to, frame)) = self.frame(now, node, Via::Direct(probe.to), &packet) {
                // It goes as one or not at all, whatever its size.
                self.outbox.push_back(Frame::whole(to, frame));
            }
        }
        self.arm_peer(node);
    }

    /// A probe came: its size passes.
    pub(super) fn on_mtu_probe(&mut self, now: Instant, node: NodeId, via: Via, token: u64) {
        let packet = self.path_message(node, &Mtu::Reply { token }.to_bytes());
        self.answer_ping(now, node, via, &packet);
    }

    /// A probe of ours arrived.
    pub(super) fn on_mtu_reply(&mut self, now: Instant, node: NodeId, token: u64) {
        if self.peers.get_mut(&node).is_some_and(|peer| peer.mtu.answered(now, token)) {
            self.size_streams(now, node);
            self.probe_mtu(now, node);
        }
    }

    /// Frames to a peer go another way from now on.
    pub(super) fn mtu_of_another_path(&mut self, now: Instant, node: NodeId, to: Via) {
        if self.peers.get_mut(&node).is_some_and(|peer| peer.mtu.moved(to)) {
            self.size_streams(now, node);
        }
    }

    /// Segments of a stream got lost as if the path did not carry their size.
    pub(super) fn path_lost_large(&mut self, now: Instant, node: NodeId) {
        if self.peers.get_mut(&node).is_some_and(|peer| peer.mtu.lost(now)) {
            self.size_streams(now, node);
        }
    }

    /// Tells a new stream what the path carries.
    pub(super) fn size_stream(&mut self, now: Instant, id: StreamId) {
        let Some(entry) = self.streams.get_mut(id) else { return };
        let known = self.peers.get(&entry.peer()).map(|peer| &peer.mtu).filter(|mtu| mtu.datagram() > BASE);
        if let Some(mtu) = known {
            entry.stream.set_path_segment(now, mtu.segment());
        }
    }

    fn size_streams(&mut self, now: Instant, node: NodeId) {
        let Some(mtu) = self.peers.get(&node).map(|peer| &peer.mtu) else { return };
        let segment = if mtu.datagram() > BASE { mtu.segment() } else { self.config.streams.path_segment };
        for id in self.streams.with(node) {
            self.with_stream(now, id, |stream| stream.set_path_segment(now, segment));
        }
    }

    /// A control packet that only our nodes know.
    fn path_message(&self, node: NodeId, payload: &[u8]) -> Vec<u8> {
        let from = Addr::backbone(self.id.unwrap_or_default()).port(path::PORT);
        let header = Header::new(Protocol::Control, Flags::NONE, from, Addr::backbone(node).port(path::PORT));
        let mut packet = Vec::with_capacity(HEADER_LEN + payload.len());
        header.emit_with(&[payload], &mut packet);
        packet
    }
}
