//! A node that the test plays itself, as release 1.18.0 would: registered, with keys, and free to say what it likes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use pilot_crypto::{AgreementKey, Identity, SessionKey};
use pilot_wire::packet::{Flags, Header, Packet, Protocol};
use pilot_wire::registry::{Decoder, Envelope, Handshake, Register, Request, Response, frame};
use pilot_wire::tunnel::{Frame, KeyExchange, Nonce, SealedHeader, signed_bytes};
use pilot_wire::{Addr, NodeId, Port, Seq};

use crate::common::World;
use crate::target::{PATIENCE, Target};

/// How often what may have been lost is said again.
const AGAIN: Duration = Duration::from_millis(200);

pub(crate) struct Puppet {
    pub(crate) identity: Identity,
    pub(crate) node: NodeId,
    pub(crate) udp: UdpSocket,
    registry: TcpStream,
    decoder: Decoder,
    agreement: AgreementKey,
    session: Option<SessionKey>,
    counter: u64,
}

impl Puppet {
    /// A node that registered; `seed` makes it another one.
    pub(crate) fn register(world: &World, seed: u8) -> Self {
        let identity = Identity::from_seed(&[seed; 32]);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_read_timeout(Some(AGAIN)).unwrap();
        let registry = TcpStream::connect(&world.registry).unwrap();
        registry.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut puppet = Self {
            node: NodeId::UNSET,
            registry,
            decoder: Decoder::new(),
            agreement: AgreementKey::from_bytes(&[seed ^ 0x55; 32]),
            session: None,
            counter: 0,
            identity,
            udp,
        };
        let listen_addr = puppet.udp.local_addr().unwrap().to_string();
        let public_key = puppet.identity.public().into();
        let asked =
            puppet.ask(Request::Register(Register { public_key, listen_addr, ..Register::default() }));
        let Response::Register(registered) = asked else { panic!("{asked:?}") };
        puppet.node = registered.node_id;
        puppet
    }

    /// Asks the registry, signed.
    pub(crate) fn ask(&mut self, request: Request) -> Response {
        let envelope = Envelope::from(request.sign_with(|text| self.identity.sign(text)));
        self.registry.write_all(&frame(&envelope.to_json()).unwrap()).unwrap();
        let mut buffer = [0; 4096];
        loop {
            if let Some(content) = self.decoder.next().unwrap() {
                return Response::parse(&content).unwrap();
            }
            let length = self.registry.read(&mut buffer).unwrap();
            assert_ne!(length, 0, "the registry hung up");
            self.decoder.feed(&buffer[..length]);
        }
    }

    /// Asks for trust; the target approves of everybody.
    pub(crate) fn befriend(&mut self, target: &Target) {
        let asked = self.ask(Request::RequestHandshake(Handshake {
            from_node_id: self.node,
            to_node_id: target.node,
            justification: "for the test".to_owned(),
            ..Handshake::default()
        }));
        assert!(matches!(asked, Response::RequestHandshake { .. }), "{asked:?}");
    }

    /// Its signed key, as the first message to anybody.
    pub(crate) fn key_exchange(&self) -> Vec<u8> {
        let agreement = self.agreement.public();
        let mut bytes = Vec::new();
        Frame::KeyExchange(KeyExchange {
            sender: self.node,
            agreement,
            identity: self.identity.public(),
            signature: self.identity.sign(&signed_bytes(self.node, &agreement)),
            trailer: &[],
        })
        .emit(&mut bytes);
        bytes
    }

    /// Agrees on keys with the target, which may take until the target has approved.
    pub(crate) fn agree(&mut self, target: &Target) {
        let begun = Instant::now();
        let mut buffer = vec![0; 65_536];
        while self.session.is_none() {
            assert!(begun.elapsed() < PATIENCE, "{} does not agree on keys", target.agent.name);
            self.udp.send_to(&self.key_exchange(), target.udp).unwrap();
            while let Ok((length, from)) = self.udp.recv_from(&mut buffer) {
                if let Ok(Frame::KeyExchange(theirs)) = Frame::parse(&buffer[..length])
                    && from == target.udp
                {
                    let secret = self.agreement.agree(&theirs.agreement).unwrap();
                    self.session = Some(SessionKey::derive(&secret));
                    break;
                }
            }
        }
        // What was heard may have been the target's own beginning: it has the keys when it answers under them.
        let here = Addr::backbone(self.node).port(Port(49_151));
        let there = Addr::backbone(target.node).port(Port::PING);
        loop {
            assert!(begun.elapsed() < PATIENCE, "{} does not answer under the keys", target.agent.name);
            self.say(target, Header::new(Protocol::Control, Flags::NONE, here, there), b"are you there");
            if self.hear().is_some_and(|(header, _)| header.protocol == Protocol::Control) {
                return;
            }
            self.udp.send_to(&self.key_exchange(), target.udp).unwrap();
        }
    }

    /// A header of a stream between a port of its own and one of the target.
    pub(crate) fn header(&self, target: &Target, from: Port, to: Port, flags: Flags) -> Header {
        let here = Addr::backbone(self.node).port(from);
        let mut header = Header::new(Protocol::Stream, flags, here, Addr::backbone(target.node).port(to));
        header.window = 64;
        header
    }

    /// The packet in a sealed frame.
    pub(crate) fn seal(&mut self, header: Header, payload: &[u8]) -> Vec<u8> {
        self.counter += 1;
        let nonce = Nonce { prefix: *b"PUPP", counter: self.counter };
        let front = SealedHeader { sender: self.node, nonce };
        let (mut bytes, mut packet) = (Vec::new(), Vec::new());
        Packet { header, payload }.emit(&mut packet);
        let key = self.session.as_ref().unwrap();
        let tag = key.seal_in_place(nonce.to_bytes(), &front.associated_data(), &mut packet);
        front.emit(&mut bytes);
        bytes.extend_from_slice(&packet);
        bytes.extend_from_slice(&tag);
        bytes
    }

    /// Says it to the target, sealed.
    pub(crate) fn say(&mut self, target: &Target, header: Header, payload: &[u8]) {
        let datagram = self.seal(header, payload);
        let _ = self.udp.send_to(&datagram, target.udp);
    }

    /// The next packet that comes under the keys, if one comes soon.
    pub(crate) fn hear(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut buffer = vec![0; 65_536];
        loop {
            let (length, from) = self.udp.recv_from(&mut buffer).ok()?;
            let Ok(Frame::Sealed { sender, nonce, ciphertext }) = Frame::parse(&buffer[..length]) else {
                continue;
            };
            let mut ciphertext = ciphertext.to_vec();
            let key = self.session.as_ref().unwrap();
            let opened = key.open_in_place(nonce.to_bytes(), &sender.0.to_be_bytes(), &mut ciphertext);
            let Ok(packet) = Packet::parse_sealed(opened.unwrap_or(&mut [])) else { continue };
            let (header, payload) = (packet.header, packet.payload.to_vec());
            let is_ping = header.protocol == Protocol::Control && !header.flags.contains(Flags::ACK);
            if is_ping && header.dst_port == Port::PING && !payload.is_empty() {
                // Who does not answer gets three datagrams and no more.
                self.answer(&header, &payload, from);
                continue;
            }
            return Some((header, payload));
        }
    }

    fn answer(&mut self, ping: &Header, payload: &[u8], to: SocketAddr) {
        let mut pong = Header::new(Protocol::Control, Flags::ACK, ping.destination(), ping.source());
        (pong.seq, pong.ack) = (ping.seq, ping.seq + 1);
        let datagram = self.seal(pong, payload);
        let _ = self.udp.send_to(&datagram, to);
    }

    /// The next packet of this stream that fits.
    pub(crate) fn hear_on(&mut self, port: Port, fits: impl Fn(&Header) -> bool) -> Header {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "it never came");
            if let Some((header, _)) = self.hear()
                && header.dst_port == port
                && fits(&header)
            {
                return header;
            }
        }
    }

    /// Opens a stream to a port of the target; what comes next from here and from there.
    pub(crate) fn dial(&mut self, target: &Target, from: Port, to: Port) -> (Seq, Seq) {
        let mut syn = self.header(target, from, to, Flags::SYN);
        syn.seq = Seq(1000);
        let begun = Instant::now();
        let answer = loop {
            assert!(begun.elapsed() < PATIENCE, "no answer to the dial");
            self.say(target, syn, &[]);
            if let Some((header, _)) = self.hear()
                && header.dst_port == from
                && header.flags.contains(Flags::SYN)
            {
                break header;
            }
        };
        let (here, there) = (Seq(1001), Seq(answer.seq.0.wrapping_add(1)));
        let mut ack = self.header(target, from, to, Flags::ACK);
        (ack.seq, ack.ack) = (here, there);
        self.say(target, ack, &[]);
        (here, there)
    }
}
