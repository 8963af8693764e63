//! What an attacker sends, from outside or through a tunnel of his own, must not stop a node.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pilot_crypto::{AgreementKey, Identity, SessionKey};
use pilot_proto::{Answer, Config, Location, Node, Query, Visibility};
use pilot_wire::{
    Addr, AgreementPublic, Endpoint, NodeId, Port, Seq,
    packet::{Flags, Header, Packet, Protocol},
    tunnel::{Frame, KeyExchange, Nonce, SealedHeader, signed_bytes},
};
use rand::{Rng as _, RngExt, SeedableRng, rngs::StdRng};

const VICTIM: NodeId = NodeId(1);
const ATTACKER: NodeId = NodeId(2);
const STARTS: [&[u8]; 9] =
    [b"PILT", b"PILS", b"PILK", b"PILA", b"PILP", b"\x02\x04", b"\x04\x10", b"\x06\x00\x00\x00\x02PILS", b""];

#[test]
fn random_datagrams_do_not_stop_a_node() {
    let mut chance = StdRng::seed_from_u64(1);
    let (mut node, now) = victim();
    for _ in 0..200_000 {
        let mut datagram = STARTS[chance.random_range(0..STARTS.len())].to_vec();
        let mut junk = vec![0; chance.random_range(0..120)];
        chance.fill_bytes(&mut junk);
        datagram.extend_from_slice(&junk);
        node.handle_datagram(now, attacker_addr(), &mut datagram);
        drain(&mut node, now, |_| {});
    }
    assert_eq!(node.id(), Some(VICTIM));
}

/// A peer with valid keys fills its tunnel with packets of every kind: random flags, numbers, windows, ports,
/// payloads that look like SACK lists and like stream options, aimed at streams that are really open.
#[test]
fn a_peer_that_sends_nonsense_through_its_tunnel_does_not_stop_a_node() {
    for seed in 0..20 {
        let mut chance = StdRng::seed_from_u64(seed);
        let (mut node, mut now) = victim();
        node.listen(Port(7)).unwrap();
        let mut attacker = Attacker::new();
        attacker.exchange_keys(&mut node, now);
        let mut streams = Vec::new();
        for _ in 0..4000 {
            let mut frame = attacker.seal(&nonsense(&mut chance, attacker.last_seen));
            node.handle_datagram(now, attacker_addr(), &mut frame);
            if chance.random_bool(0.1) {
                now += Duration::from_millis(chance.random_range(0..3000));
                node.handle_timeout(now);
            }
            if chance.random_bool(0.01)
                && let Ok(stream) = node.dial(now, Addr::backbone(ATTACKER).port(Port(7)))
            {
                streams.push(stream);
            }
            drain(&mut node, now, |frame| attacker.watch(frame));
            for event in std::iter::from_fn(|| node.poll_event()).collect::<Vec<_>>() {
                if let pilot_proto::Event::Stream(stream, _) = event {
                    streams.push(stream);
                }
            }
            if let Some(&stream) = streams.last() {
                let _ = node.write(now, stream, Bytes::from_static(&[7; 3000]));
                let _ = node.read(now, stream, 1000);
                match chance.random_range(0..40) {
                    0 => node.close(now, stream),
                    1 => node.finish(now, stream),
                    2 => node.reset(now, stream),
                    _ => {}
                }
            }
        }
        // It still answers.
        let ping = Header::new(Protocol::Control, Flags::NONE, from(Port(0)), to(Port(0)));
        let mut packet = Vec::new();
        ping.emit_with(&[b"alive?"], &mut packet);
        let mut frame = attacker.seal(&packet);
        node.handle_datagram(now, attacker_addr(), &mut frame);
        let mut pongs = 0;
        drain(&mut node, now, |frame| {
            pongs += u32::from(attacker.open(frame).is_some_and(|packet| packet.ends_with(b"alive?")));
        });
        assert_eq!(pongs, 1, "seed {seed}");
    }
}

fn victim() -> (Node, Instant) {
    let now = Instant::now();
    let mut config = Config::new(Identity::from_seed(&[1; 32]), [1; 32]);
    config.visibility = Visibility::Public;
    let mut node = Node::new(config, now);
    node.set_node(now, VICTIM);
    (node, now)
}

fn attacker_addr() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 66], 666))
}

fn from(port: Port) -> Endpoint {
    Addr::backbone(ATTACKER).port(port)
}

fn to(port: Port) -> Endpoint {
    Addr::backbone(VICTIM).port(port)
}

/// Carries out what the node wants; its registry knows the attacker only.
fn drain(node: &mut Node, now: Instant, mut sent: impl FnMut(&[u8])) {
    let mut buffer = Vec::new();
    let mut datagrams = 0;
    loop {
        buffer.clear();
        let Some(transmit) = node.poll_transmit(now, &mut buffer, 8) else {
            let Some((id, query)) = node.poll_query() else { return };
            node.handle_answer(now, id, answer(&query));
            continue;
        };
        datagrams += 1;
        assert!(datagrams < 100_000, "one event makes a node send without end");
        buffer.chunks(transmit.segment_size).for_each(&mut sent);
    }
}

fn answer(query: &Query) -> Answer {
    match query {
        Query::Resolve(_) => {
            Answer::Resolved(Ok(Location { public: Some(attacker_addr()), ..Location::default() }))
        }
        Query::PeerKey(_) => Answer::PeerKey(Ok(Identity::from_seed(&[2; 32]).public())),
        Query::CheckTrust(_) => Answer::Trusted(Ok(false)),
        Query::RequestHandshake { .. }
        | Query::RespondHandshake { .. }
        | Query::ReportTrust(_)
        | Query::RevokeTrust(_) => Answer::Done(Ok(())),
    }
}

/// The last packet that the victim sent on a stream: what an attacker aims at.
type Seen = Option<Header>;

fn nonsense(chance: &mut StdRng, seen: Seen) -> Vec<u8> {
    let protocol =
        [Protocol::Stream, Protocol::Stream, Protocol::Stream, Protocol::Datagram, Protocol::Control]
            [chance.random_range(0..5)];
    let near = |chance: &mut StdRng, seq: Seq| match chance.random_range(0..4) {
        0 => Seq(chance.random()),
        1 => seq + chance.random_range(0..3),
        2 => seq + chance.random_range(0..100_000),
        _ => seq - chance.random_range(0..100_000),
    };
    let mut header = Header {
        flags: Flags::from_bits(chance.random()),
        seq: Seq(chance.random()),
        ack: Seq(chance.random()),
        window: chance.random(),
        ..Header::new(protocol, Flags::NONE, from(Port(chance.random_range(0..3))), to(Port(7)))
    };
    if chance.random_bool(0.5) {
        header.flags = [Flags::SYN, Flags::ACK, Flags::ACK, Flags::ACK, Flags::FIN, Flags::FIN | Flags::ACK]
            [chance.random_range(0..6)];
    }
    if let Some(seen) = seen.filter(|_| chance.random_bool(0.7)) {
        header.src_port = seen.dst_port;
        header.dst_port = seen.src_port;
        header.seq = near(chance, seen.ack);
        header.ack = near(chance, seen.seq);
        if chance.random_bool(0.5) {
            header.window = [0, 1, 512, u16::MAX][chance.random_range(0..4)];
        }
    }
    let start = [&b""[..], b"SACK", b"SACK\x02", b"SACK\x20", b"PLTO\x01", b"PLTO\x01\x01\x02"]
        [chance.random_range(0..6)];
    let mut junk = vec![0; chance.random_range(0..300)];
    chance.fill_bytes(&mut junk);
    let mut packet = Vec::new();
    header.emit_with(&[start, &junk], &mut packet);
    packet
}

/// Holds keys, and no opinion on what to send with them.
struct Attacker {
    identity: Identity,
    agreement: AgreementKey,
    key: Option<SessionKey>,
    counter: u64,
    last_seen: Seen,
}

impl Attacker {
    fn new() -> Self {
        Self {
            identity: Identity::from_seed(&[2; 32]),
            agreement: AgreementKey::from_bytes(&[3; 32]),
            key: None,
            counter: 0,
            last_seen: None,
        }
    }

    fn exchange_keys(&mut self, node: &mut Node, now: Instant) {
        let agreement = self.agreement.public();
        let signature = self.identity.sign(&signed_bytes(ATTACKER, &agreement));
        let identity = self.identity.public();
        let mut frame = Vec::new();
        KeyExchange { sender: ATTACKER, agreement, identity, signature, trailer: b"" }.emit(&mut frame);
        node.handle_datagram(now, attacker_addr(), &mut frame);
        let mut theirs: Option<AgreementPublic> = None;
        drain(node, now, |frame| {
            if let Ok(Frame::KeyExchange(exchange)) = Frame::parse(frame) {
                theirs = Some(exchange.agreement);
            }
        });
        let secret =
            self.agreement.agree(&theirs.expect("an answer to the key exchange")).expect("an ordinary key");
        self.key = Some(SessionKey::derive(&secret));
    }

    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        self.counter += 1;
        let nonce = Nonce { prefix: *b"evil", counter: self.counter };
        let header = SealedHeader { sender: ATTACKER, nonce };
        let mut frame = Vec::new();
        header.emit(&mut frame);
        let start = frame.len();
        frame.extend_from_slice(packet);
        let key = self.key.as_ref().expect("keys were exchanged");
        let tag = key.seal_in_place(nonce.to_bytes(), &header.associated_data(), &mut frame[start..]);
        frame.extend_from_slice(&tag);
        frame
    }

    fn open(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let Ok(Frame::Sealed { sender, nonce, ciphertext }) = Frame::parse(frame) else { return None };
        let mut ciphertext = ciphertext.to_vec();
        let associated = SealedHeader { sender, nonce }.associated_data();
        let plain = self.key.as_ref()?.open_in_place(nonce.to_bytes(), &associated, &mut ciphertext).ok()?;
        Some(plain.to_vec())
    }

    fn watch(&mut self, frame: &[u8]) {
        if let Some(packet) = self.open(frame)
            && let Ok(Packet { header, .. }) = Packet::parse_sealed(&packet)
            && header.protocol == Protocol::Stream
        {
            self.last_seen = Some(header);
        }
    }
}
