//! What comes from the network: datagrams to frames, frames to packets, packets to streams.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use pilot_wire::packet::{Flags, Header, Packet, Protocol};
use pilot_wire::tunnel::{Frame, SEALED_HEADER_LEN, SealedHeader};
use pilot_wire::{Addr, NodeId, Port, Seq, beacon};
use rand::Rng;

use super::{Drop, Lookup, Node, Purpose, Timer, Tuple, Via, streams};
use crate::path::Heard;
use crate::stream::{Stream, Verdict, reset_for};
use crate::tunnel::{OpenFailure, Proof};
use crate::{Encryption, Event, PeerEvent, Side, StreamEvent};

/// Punch frames sent for one punch command.
const PUNCHES: usize = 2;

impl Node {
    /// A datagram came. It is opened where it lies.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.stats.datagrams_received += 1;
        self.stats.bytes_received += datagram.len() as u64;
        if datagram.first().is_some_and(|&first| beacon::is_beacon(first)) {
            self.on_beacon(now, from, datagram);
        } else {
            self.on_frame(now, Via::Direct(from), None, datagram);
        }
    }

    fn on_beacon(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        if self.beacon.as_ref().map(super::Beacon::addr) != Some(from) {
            return self.drop_frame(Drop::NotTheBeacon);
        }
        let Ok(message) = beacon::Message::parse(datagram) else { return self.drop_frame(Drop::Malformed) };
        match message {
            beacon::Message::DiscoverReply(addr) => {
                if let Some(beacon) = &mut self.beacon {
                    let news = beacon.replied(now, addr);
                    self.timers.set(Timer::Beacon, Some(beacon.poll_timeout()));
                    self.events.extend(news.map(Event::Observed));
                }
            }
            beacon::Message::PunchCommand(addr) => {
                for _ in 0..PUNCHES {
                    let mut punch = Vec::new();
                    pilot_wire::tunnel::emit_punch(&mut punch);
                    self.outbox.push_back((addr, punch));
                }
            }
            beacon::Message::RelayDeliver { source, frame } => {
                let start = datagram.len() - frame.len();
                self.on_frame(now, Via::Relay, Some(source), &mut datagram[start..]);
            }
            beacon::Message::RelayDeliverTo { source, destination, frame } => {
                let start = datagram.len() - frame.len();
                if Some(destination) == self.id {
                    self.on_frame(now, Via::Relay, Some(source), &mut datagram[start..]);
                } else {
                    self.drop_frame(Drop::WrongAddress);
                }
            }
            beacon::Message::Notify(beacon::NotifyKind::Handshake) => {
                self.events.push_back(Event::HandshakeWaiting)
            }
            beacon::Message::Notify(beacon::NotifyKind::Other(_)) => {}
            beacon::Message::SurveyReply { .. } | beacon::Message::Unknown { .. } => {}
            beacon::Message::Discover { .. }
            | beacon::Message::DiscoverEx { .. }
            | beacon::Message::PunchRequest { .. }
            | beacon::Message::Relay { .. }
            | beacon::Message::Sync { .. }
            | beacon::Message::Survey { .. } => self.drop_frame(Drop::Malformed),
        }
    }

    /// `relayed_from` is the sender that the beacon named; the frame must name the same.
    fn on_frame(&mut self, now: Instant, via: Via, relayed_from: Option<NodeId>, frame: &mut [u8]) {
        let Ok(parsed) = Frame::parse(frame) else { return self.drop_frame(Drop::Malformed) };
        let sender = match &parsed {
            Frame::Sealed { sender, .. } | Frame::KeyRequest { sender, .. } => Some(*sender),
            Frame::KeyExchange(exchange) => Some(exchange.sender),
            Frame::Plain { .. } | Frame::Punch => None,
        };
        if relayed_from.is_some() && sender.is_some() && sender != relayed_from {
            return self.drop_frame(Drop::WrongAddress);
        }
        match parsed {
            Frame::Sealed { sender, nonce, .. } => {
                self.on_sealed(now, via, SealedHeader { sender, nonce }, &mut frame[SEALED_HEADER_LEN..]);
            }
            Frame::KeyExchange(exchange) => self.on_offer(now, via, exchange.into()),
            Frame::KeyRequest { sender, .. } => self.on_key_request(now, via, sender),
            Frame::Plain { packet } => self.on_plain(now, via, packet),
            Frame::Punch => {}
        }
    }

    fn on_sealed(&mut self, now: Instant, via: Via, header: SealedHeader, ciphertext: &mut [u8]) {
        let node = header.sender;
        let Some(peer) = self.peers.get_mut(&node) else {
            self.drop_frame(Drop::NotAuthentic);
            return self.request_key(now, node, via);
        };
        match peer.tunnel.open(now, header, ciphertext, &mut self.scratch) {
            Ok(opened) => {
                if peer.alive() || opened.proof != Proof::Known {
                    self.proved(now, node, via, opened.proof);
                }
                self.heard(now, node, via);
                self.on_packet(now, node, via, &ciphertext[..opened.len]);
                self.arm_peer(node);
            }
            Err(OpenFailure::NotAuthentic) => {
                self.drop_frame(Drop::NotAuthentic);
                self.request_key(now, node, via);
            }
            Err(OpenFailure::Replayed) => self.drop_frame(Drop::Replayed),
            Err(OpenFailure::Worn) => {
                self.drop_frame(Drop::Replayed);
                if self.request_limits.take(now, node) {
                    self.replace_key(now, node);
                }
            }
        }
    }

    /// The peer is back after a silence, or proved a key.
    fn proved(&mut self, now: Instant, node: NodeId, via: Via, proof: Proof) {
        match proof {
            Proof::Known => {}
            Proof::First | Proof::Renewed | Proof::Restarted => {
                let rekeyed = proof != Proof::First;
                let event = PeerEvent::Established { rekeyed, relayed: via == Via::Relay };
                self.events.push_back(Event::Peer(node, event));
            }
        }
        for id in self.streams.with(node) {
            // Another process knows nothing of these streams.
            self.with_stream(now, id, |stream| {
                if proof == Proof::Restarted {
                    stream.peer_restarted(now);
                }
                stream.path_recovered(now);
            });
        }
    }

    /// An authentic frame came this way.
    fn heard(&mut self, now: Instant, node: NodeId, via: Via) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        match peer.path.heard(now, via) {
            Heard::Known => {}
            Heard::Moved(to) => self.moved(now, node, to),
            Heard::Validate(addr) => self.validate(now, node, addr),
        }
    }

    fn moved(&mut self, now: Instant, node: NodeId, to: Via) {
        let event = match to {
            Via::Direct(addr) => PeerEvent::Direct(addr),
            Via::Relay => PeerEvent::Relayed,
        };
        self.events.push_back(Event::Peer(node, event));
        if to == Via::Relay {
            self.look_for_better_path(now, node);
        }
    }

    fn validate(&mut self, now: Instant, node: NodeId, addr: SocketAddr) {
        let packet = self.start_ping(now, node, 0, Purpose::Validate(addr));
        self.send_packet_via(now, node, Via::Direct(addr), &packet);
    }

    fn on_plain(&mut self, now: Instant, via: Via, packet: &[u8]) {
        if self.config.encryption == Encryption::Required {
            return self.drop_frame(Drop::Plaintext);
        }
        let Ok(Packet { header, .. }) = Packet::parse(packet) else {
            return self.drop_frame(Drop::Malformed);
        };
        let node = header.src.node;
        if node == NodeId::UNSET || Some(node) == self.id || !self.has_room_for(node) {
            return self.drop_frame(Drop::WrongAddress);
        }
        let back = self.peer(now, node).alive();
        if back {
            self.proved(now, node, via, Proof::Known);
        }
        self.heard(now, node, via);
        self.on_packet(now, node, via, packet);
        self.arm_peer(node);
    }

    /// A packet from `node`, whose word this is.
    pub(super) fn on_packet(&mut self, now: Instant, node: NodeId, via: Via, packet: &[u8]) {
        let Ok(Packet { header, payload }) = Packet::parse_sealed(packet) else {
            return self.drop_frame(Drop::Malformed);
        };
        // Keepalives of releases before 1.12.1 name nobody (spec/dataplane.md 2.9).
        let is_keepalive = header.protocol == Protocol::Control && payload.is_empty();
        if is_keepalive && header.src == Addr::UNSET {
            return;
        }
        let for_us = Some(header.dst.node) == self.id || (is_keepalive && header.dst == Addr::UNSET);
        if header.src.node != node || !for_us {
            return self.drop_frame(Drop::WrongAddress);
        }
        match header.protocol {
            Protocol::Control => self.on_control(now, node, via, &header, payload),
            Protocol::Datagram => self.on_datagram(now, node, &header, payload),
            Protocol::Stream => self.on_segment(now, node, &header, payload),
        }
    }

    fn on_control(&mut self, now: Instant, node: NodeId, via: Via, header: &Header, payload: &[u8]) {
        if header.flags.contains(Flags::ACK) {
            self.on_pong(now, node, via, header, payload);
        } else if header.dst_port == Port::PING && !payload.is_empty() {
            let mut pong = Header::new(Protocol::Control, Flags::ACK, header.destination(), header.source());
            pong.seq = header.seq;
            pong.ack = header.seq + 1;
            let mut packet = Vec::new();
            pong.emit_with(&[payload], &mut packet);
            // The way it came: the ping may be asking whether that way works.
            self.send_packet_via(now, node, via, &packet);
        }
    }

    fn on_pong(&mut self, now: Instant, node: NodeId, via: Via, header: &Header, payload: &[u8]) {
        let Some((purpose, rtt)) = self.pings.answered(now, node, header.dst_port, payload) else { return };
        self.timers.set(Timer::Pings, self.pings.poll_timeout());
        match purpose {
            Purpose::Application(ping) => self.events.push_back(Event::Pong { ping, rtt: Some(rtt) }),
            Purpose::Validate(addr) if via == Via::Direct(addr) => {
                if let Some(peer) = self.peers.get_mut(&node)
                    && let Heard::Moved(to) = peer.path.validated(now, addr)
                {
                    self.moved(now, node, to);
                }
            }
            Purpose::Validate(addr) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.path.confirmed(now, addr);
                }
            }
            Purpose::Life => {}
        }
    }

    fn on_datagram(&mut self, now: Instant, node: NodeId, header: &Header, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        if self.admits(now, node, Some(header.dst_port)) != Lookup::Known(true) {
            return self.drop_frame(Drop::NotAdmitted);
        }
        let data = Bytes::copy_from_slice(payload);
        self.events.push_back(Event::Datagram { from: header.source(), to: header.dst_port, data });
    }

    fn on_segment(&mut self, now: Instant, node: NodeId, header: &Header, payload: &[u8]) {
        let tuple = Tuple { local: header.dst_port, remote: header.source() };
        if let Some(id) = self.streams.find(&tuple)
            && let Some(entry) = self.streams.get_mut(id)
        {
            match entry.stream.on_segment(now, header, payload) {
                Verdict::Taken => {
                    if let Some(peer) = self.peers.get_mut(&node) {
                        peer.used = now;
                    }
                    return self.settle(now, id);
                }
                Verdict::Reopen => {
                    self.settle(now, id);
                    self.forget_stream(now, id);
                }
            }
        }
        if self.admits(now, node, Some(header.dst_port)) != Lookup::Known(true) {
            return self.drop_frame(Drop::NotAdmitted);
        }
        let is_syn = header.flags.contains(Flags::SYN) && !header.flags.contains(Flags::ACK);
        if is_syn && !self.syn_limits.take(now, node) {
            return self.drop_frame(Drop::TooMany);
        }
        if is_syn && self.streams.is_listening(header.dst_port) && self.has_stream_for(node) {
            return self.accept(now, tuple, header, payload);
        }
        self.drop_frame(Drop::NoStream);
        if let Some(reset) = reset_for(header) {
            let mut packet = Vec::new();
            reset.emit_with(&[], &mut packet);
            self.send_packet(now, node, packet);
        }
    }

    fn accept(&mut self, now: Instant, tuple: Tuple, syn: &Header, payload: &[u8]) {
        let initial = Seq(self.rng.next_u32());
        let stream = Stream::accept(&self.config.streams, now, syn, payload, initial);
        let id = self.streams.insert(tuple, stream, Side::Theirs);
        if let Some(peer) = self.peers.get_mut(&syn.src.node) {
            peer.streams += 1;
            peer.used = now;
        }
        let incoming = StreamEvent::Incoming { port: tuple.local, from: tuple.remote };
        self.events.push_back(Event::Stream(id, incoming));
        self.settle(now, id);
    }

    fn has_stream_for(&self, node: NodeId) -> bool {
        let by_peer = self.peers.get(&node).map_or(0, |peer| peer.streams);
        self.streams.len() < streams::STREAMS_MAX && by_peer < streams::INCOMING_PER_PEER_MAX
    }

    fn has_room_for(&self, node: NodeId) -> bool {
        self.peers.contains_key(&node) || self.peers.len() < super::PEERS_MAX
    }
}
