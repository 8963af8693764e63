//! What comes from the network: datagrams to frames, frames to packets, packets to streams.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use pilot_wire::capture::Direction;
use pilot_wire::packet::{Flags, Header, Packet, Protocol};
use pilot_wire::tunnel::{Frame, SEALED_HEADER_LEN, SealedHeader};
use pilot_wire::{Addr, NodeId, Port, Seq, beacon, path};

use super::{CHALLENGES, Drop, Frame as Outgoing, Lookup, Node, Purpose, Timer, Tuple, Via, streams};
use crate::path::candidate::CandidateSource;
use crate::path::survey::Reply;
use crate::stream::{Stream, Verdict, reset_for};
use crate::tunnel::{OpenFailure, Proof};
use crate::{BeaconEvent, Encryption, Event, PeerEvent, Side, StreamEvent};

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
        let Ok(message) = beacon::Message::parse(datagram) else { return self.drop_frame(Drop::Malformed) };
        if let Some(beacon) = self.beacon.as_mut().filter(|beacon| beacon.addr() == from) {
            beacon.heard();
        }
        // Answers to surveys come from sockets that we do not know; their tokens prove them.
        match message {
            beacon::Message::SurveyReply { token, observed, second_port, second_addr } => {
                self.on_survey_reply(now, from, Reply { token, observed, second_port, second_addr });
            }
            beacon::Message::Survey { token, .. } => {
                if !self.on_survey_came_back(now, from, token) {
                    self.drop_frame(Drop::NotTheBeacon);
                }
            }
            _ if self.beacon.as_ref().map(super::Beacon::addr) != Some(from) => {
                self.drop_frame(Drop::NotTheBeacon);
            }
            beacon::Message::DiscoverReply(addr) => self.on_discovered(now, addr),
            beacon::Message::PunchCommand(addr) => self.on_introduction(now, addr),
            beacon::Message::RelayDeliver { source, frame } => {
                let start = datagram.len() - frame.len();
                self.stats.relayed_bytes_received += datagram.len() as u64;
                self.on_frame(now, Via::Relay, Some(source), &mut datagram[start..]);
            }
            beacon::Message::RelayDeliverTo { source, destination, frame } => {
                let start = datagram.len() - frame.len();
                if Some(destination) == self.id {
                    self.stats.relayed_bytes_received += datagram.len() as u64;
                    self.on_frame(now, Via::Relay, Some(source), &mut datagram[start..]);
                } else {
                    self.drop_frame(Drop::WrongAddress);
                }
            }
            beacon::Message::Notify(beacon::NotifyKind::Handshake) => {
                self.events.push_back(Event::HandshakeWaiting)
            }
            beacon::Message::Notify(beacon::NotifyKind::Other(_)) => {}
            beacon::Message::Unknown { node } => self.on_unknown_to_beacon(now, node),
            beacon::Message::Challenge { nonce } => self.on_challenge(now, nonce),
            beacon::Message::Discover { .. }
            | beacon::Message::DiscoverEx { .. }
            | beacon::Message::PunchRequest { .. }
            | beacon::Message::Relay { .. }
            | beacon::Message::Sync { .. } => self.drop_frame(Drop::Malformed),
        }
    }

    /// The beacon answered, and says where it sees us.
    fn on_discovered(&mut self, now: Instant, observed: SocketAddr) {
        let Some(beacon) = self.beacon.as_mut().filter(|beacon| beacon.owes_an_answer()) else {
            return self.drop_frame(Drop::NotTheBeacon);
        };
        let before = beacon.observed();
        let back = beacon.replied(now);
        self.timers.set(Timer::Beacon, Some(beacon.poll_timeout()));
        // Over a way that has no such address it says nothing.
        let observed = Some(observed).filter(|addr| !addr.ip().is_unspecified());
        if observed == before || observed.is_none() || before.is_none() || !self.surveyor.is_answered() {
            self.observed_at(now, observed);
        } else if !self.surveyor.is_observing() {
            // Anybody may say so in the beacon's name. It answers surveys, and only it can.
            self.surveyor.forget();
            self.start_survey(now);
        }
        if back {
            self.events.push_back(Event::Beacon(BeaconEvent::Answers));
            self.beacon_is_back(now);
        }
    }

    /// The beacon has somebody else under our number, or us where we were before: prove that it is ours.
    fn on_challenge(&mut self, now: Instant, nonce: beacon::Nonce) {
        let (Some(us), Some(beacon)) = (self.id, &self.beacon) else { return };
        if !self.challenges.take(now, CHALLENGES) {
            return self.drop_frame(Drop::TooMany);
        }
        let signature = self.config.identity.sign(&beacon::DiscoverProof::signed_bytes(us, &nonce));
        let proof = Some(beacon::DiscoverProof { nonce, signature });
        let mut message = Vec::new();
        beacon::Message::Discover { node: us, key: Some(self.config.identity.public()), proof }
            .emit(&mut message);
        self.outbox.push_back(Outgoing::whole(beacon.addr(), message));
    }

    /// The beacon could not relay: it does not know the receiver, or us.
    fn on_unknown_to_beacon(&mut self, now: Instant, destination: NodeId) {
        if Some(destination) == self.id {
            self.announce(now);
        } else if let Some(peer) = self.peers.get_mut(&destination) {
            peer.path.relay.unknown = Some(now);
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
            Frame::KeyRequest { sender, trailer, .. } => self.on_key_request(now, via, sender, trailer),
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
                if opened.proof == Proof::Restarted {
                    peer.path.peer_restarted();
                }
                peer.bytes_received += (SEALED_HEADER_LEN + ciphertext.len()) as u64;
                if opened.proof != Proof::Known {
                    self.agrees_anew(node);
                }
                self.on_proof(now, node, via, opened.proof);
                self.show(now, Direction::Received, node, (Some(via), true), &ciphertext[..opened.len]);
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

    /// Something authentic came this way.
    pub(super) fn on_proof(&mut self, now: Instant, node: NodeId, via: Via, proof: Proof) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        // Nothing is lost when keys of the moment follow each other, and nobody need hear of it.
        let routine = proof == Proof::Renewed && peer.tunnel.is_agreed();
        let news = if routine { Proof::Known } else { proof };
        if peer.alive(now) || news != Proof::Known {
            self.proved(now, node, via, news);
        }
        self.heard(now, node, via, proof, news != Proof::Known);
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

    /// An authentic frame came this way. `is_news`: a tunnel came about, or the peer has another life; keys that only follow
    /// others prove no less that what we said in the exchange has arrived.
    fn heard(&mut self, now: Instant, node: NodeId, via: Via, proof: Proof, is_news: bool) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let answers = proof != Proof::Known;
        let reaction = peer.path.heard(now, via, answers);
        if answers
            && let Via::Direct(addr) = via
            && peer.path.has_answered(addr)
        {
            self.ledger.answered(addr);
        }
        self.react(now, node, reaction);
        if is_news {
            self.begin_search(now, node);
        }
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
        let peer = self.peer(now, node);
        peer.bytes_received += packet.len() as u64;
        if peer.alive(now) {
            self.proved(now, node, via, Proof::Known);
        }
        if let Via::Direct(addr) = via {
            // Nothing is authentic here anyway.
            let peer = self.peer(now, node);
            peer.path.learn(now, addr, CandidateSource::Frames);
            let reaction = peer.path.answered_unasked(now, addr);
            self.react(now, node, reaction);
        } else {
            self.heard(now, node, via, Proof::Known, false);
        }
        self.show(now, Direction::Received, node, (Some(via), false), packet);
        self.on_packet(now, node, via, packet);
        self.arm_peer(node);
    }

    /// A packet of this node to itself, which never leaves.
    pub(super) fn on_own_packet(&mut self, now: Instant, packet: &[u8]) {
        let Some(us) = self.id else { return };
        self.show(now, Direction::Received, us, (None, false), packet);
        self.on_packet(now, us, Via::Relay, packet);
    }

    /// A packet from `node`, whose word this is.
    fn on_packet(&mut self, now: Instant, node: NodeId, via: Via, packet: &[u8]) {
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
            self.answer_ping(now, node, via, &packet);
        } else if header.dst_port == path::PORT {
            match path::Mtu::parse(payload) {
                Ok(path::Mtu::Probe { token }) => self.on_mtu_probe(now, node, via, token),
                Ok(path::Mtu::Reply { token }) => self.on_mtu_reply(now, node, token),
                Err(_) => self.on_candidates(now, node, payload),
            }
        }
    }

    /// The way it came: the ping may be asking whether that way works. If that may not be written to, the relay says as
    /// much: that the ping arrived.
    pub(super) fn answer_ping(&mut self, now: Instant, node: NodeId, via: Via, pong: &[u8]) {
        let via = match via {
            Via::Direct(addr) if self.id != Some(node) && !self.may_write(now, node, addr) => Via::Relay,
            Via::Direct(_) | Via::Relay => via,
        };
        self.emit_packet(now, node, via, pong);
    }

    fn on_pong(&mut self, now: Instant, node: NodeId, via: Via, header: &Header, payload: &[u8]) {
        let Some(answered) = self.pings.answered(now, node, header.dst_port, payload) else { return };
        self.timers.set(Timer::Pings, self.pings.poll_timeout());
        let rtt = answered.rtt;
        if let Purpose::Application(ping) = answered.purpose {
            self.events.push_back(Event::Pong { ping, rtt: Some(rtt) });
        }
        // Whatever it was for, it tells of the way that it went: only the peer could answer it.
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let reaction = match answered.sent {
            Some(Via::Direct(addr)) => {
                self.ledger.answered(addr);
                if via == Via::Direct(addr) {
                    peer.path.answered(now, via, rtt)
                } else {
                    peer.path.confirmed(now, addr)
                }
            }
            Some(Via::Relay) if via == Via::Relay => peer.path.answered(now, via, rtt),
            Some(Via::Relay) | None => return,
        };
        self.react(now, node, reaction);
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
                        peer.wanted = Some(now);
                        if !payload.is_empty() {
                            peer.flows(now, payload.len());
                        }
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
        let is_copy = is_syn && self.is_copy(tuple, header.seq);
        if is_syn && !is_copy && self.streams.is_listening(header.dst_port) && self.has_stream_for(node) {
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
        let initial = self.first_sequence();
        let stream = Stream::accept(&self.config.streams, now, syn, payload, initial);
        let legacy = stream.peer_is_legacy();
        let id = self.streams.insert(tuple, stream, Side::Theirs);
        if let Some(peer) = self.peers.get_mut(&syn.src.node) {
            if !legacy {
                peer.opened.remember(tuple.local, tuple.remote.port, syn.seq);
            }
            peer.streams += 1;
            peer.used = now;
            peer.wanted = Some(now);
        }
        self.size_stream(now, id);
        let incoming = StreamEvent::Incoming { port: tuple.local, from: tuple.remote };
        self.events.push_back(Event::Stream(id, incoming));
        self.settle(now, id);
    }

    /// Whether the SYN has opened a stream already, which is over.
    fn is_copy(&self, tuple: Tuple, initial: Seq) -> bool {
        let peer = self.peers.get(&tuple.remote.addr.node);
        peer.is_some_and(|peer| peer.opened.contains(tuple.local, tuple.remote.port, initial))
    }

    fn has_stream_for(&self, node: NodeId) -> bool {
        let by_peer = self.peers.get(&node).map_or(0, |peer| peer.streams);
        self.streams.len() < streams::STREAMS_MAX && by_peer < streams::INCOMING_PER_PEER_MAX
    }

    fn has_room_for(&self, node: NodeId) -> bool {
        self.peers.contains_key(&node) || self.peers.len() < super::PEERS_MAX
    }
}
