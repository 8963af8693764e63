//! Two nodes, a hostile network between them, hurried applications and a registry that may lie.
//!
//! The input is a script. Whatever it says: nobody panics, the outputs end, time always has somewhere to go, and with
//! encryption on what is read from a stream is what was written to it.
#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pilot_crypto::Identity;
use pilot_proto::{
    Answer, CandidateSource, Config, Encryption, Event, Location, Node, Query, QueryError, QueryId, Read,
    StreamEvent, Visibility,
};
use pilot_wire::{Addr, NodeId, Port, StreamId};

fuzz_target!(|script: &[u8]| {
    let mut script = Script(script);
    let mut world = World::new(script.byte());
    while !script.0.is_empty() {
        world.step(&mut script);
    }
    world.calm_down();
});

/// What is left of the input. An empty one reads as zeros.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

const IDS: [NodeId; 2] = [NodeId(1), NodeId(2)];
const PORT: Port = Port(1000);
/// Outputs after one input. Two full send buffers are a few thousand datagrams.
const OUTPUTS_MAX: usize = 100_000;
/// Reads until a stream has nothing more: byte by byte it may have a receive buffer full.
const READS_MAX: usize = 16 << 20;
/// Datagrams under way; beyond, the network loses what is sent.
const UNDER_WAY_MAX: usize = 512;

fn address(index: usize) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 4000 + index as u16).into()
}

fn beacon() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9001).into()
}

/// The byte that stands at a position of every stream.
fn expected(position: u64) -> u8 {
    (position.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

#[derive(Default)]
struct Ends {
    written: u64,
    read: u64,
}

struct Side {
    node: Node,
    streams: BTreeMap<StreamId, Ends>,
    queries: VecDeque<(QueryId, Query)>,
}

struct World {
    now: Instant,
    clear: bool,
    sides: [Side; 2],
    /// Datagrams under way: to which side, from where, what.
    network: VecDeque<(usize, SocketAddr, Vec<u8>)>,
}

impl World {
    fn new(settings: u8) -> Self {
        let now = Instant::now();
        let clear = settings & 1 != 0;
        let side = |index: usize| {
            let identity = Identity::from_seed(&[index as u8 + 1; 32]);
            let mut config = Config::new(identity, [index as u8 + 101; 32]);
            config.encryption = if clear { Encryption::Off } else { Encryption::Required };
            config.visibility = if settings & 2 != 0 { Visibility::Private } else { Visibility::Public };
            config.auto_approve = settings & 4 != 0;
            config.beacon = (settings & 8 != 0).then(beacon);
            let mut node = Node::new(config, now);
            node.set_node(now, IDS[index]);
            node.listen(PORT).expect("nobody listens yet");
            Side { node, streams: BTreeMap::new(), queries: VecDeque::new() }
        };
        let sides = [side(0), side(1)];
        Self { now, clear, sides, network: VecDeque::new() }
    }

    fn step(&mut self, script: &mut Script) {
        let op = script.byte();
        let at = usize::from(op >> 7);
        let now = self.now;
        match op & 0x1F {
            0..=5 => self.deliver(script.byte()),
            6 => {
                self.network.pop_front();
            }
            7 => self.tamper(script),
            8 => self.forge(at, script),
            9 => self.advance(Duration::from_millis(u64::from(script.byte()))),
            10 => self.advance(Duration::from_secs(u64::from(script.byte()))),
            11..=13 => self.answer(at, script.byte()),
            14 => {
                let to = Addr::backbone(self.peer_of(at, script.byte())).port(PORT);
                if let Ok(id) = self.sides[at].node.dial(now, to) {
                    self.sides[at].streams.insert(id, Ends::default());
                }
            }
            15..=17 => self.write(at, script),
            18..=20 => self.read_all(at, script.byte()),
            21 => self.end(at, script),
            22 => {
                let peer = self.peer_of(at, script.byte());
                self.sides[at].node.ping(now, peer, usize::from(script.byte()) * 8);
            }
            23 => {
                let to = Addr::backbone(self.peer_of(at, script.byte())).port(PORT);
                let length = usize::from(script.byte());
                // A full queue is an answer too.
                let _ = self.sides[at].node.send_datagram(now, to, None, script.take(length));
            }
            24..=26 => self.trust(at, script),
            27 => {
                let hint = address(usize::from(script.byte()));
                let peer = self.peer_of(at, script.byte());
                self.sides[at].node.hint(now, peer, hint, CandidateSource::Lan);
            }
            28 => {
                let visible = if script.byte() & 1 == 0 { Visibility::Private } else { Visibility::Public };
                self.sides[at].node.set_visibility(visible);
            }
            29 => self.sides[at].node.set_beacon(now, (script.byte() & 1 == 0).then(beacon)),
            30 => {
                let own = address(usize::from(script.byte()) % 8);
                self.sides[at].node.set_local(now, vec![own]);
            }
            31 => match script.byte() % 4 {
                0 => self.sides[at].node.network_changed(now),
                1 => self.sides[at].node.beacon_reachable_otherwise(now),
                2 => self.sides[at].node.survey(now),
                _ => {
                    let mapped = address(usize::from(script.byte()) % 8);
                    self.sides[at].node.set_mapped(now, Some(mapped));
                }
            },
            _ => self.advance(Duration::ZERO),
        }
        self.drain();
    }

    fn peer_of(&self, at: usize, choice: u8) -> NodeId {
        match choice & 0x0F {
            0 => IDS[at],
            1 => NodeId(77),
            2 => NodeId::BROADCAST,
            3 => NodeId::UNSET,
            _ => IDS[1 - at],
        }
    }

    fn deliver(&mut self, choice: u8) {
        if self.network.is_empty() {
            return;
        }
        let index = usize::from(choice >> 4) % self.network.len();
        let found =
            if choice & 1 == 0 { self.network.remove(index) } else { self.network.get(index).cloned() };
        let Some((to, mut from, mut datagram)) = found else { return };
        if choice & 0x0E == 0x0E {
            from.set_port(from.port() ^ 1);
        }
        self.sides[to].node.handle_datagram(self.now, from, &mut datagram);
    }

    fn tamper(&mut self, script: &mut Script) {
        let (position, value) = (usize::from(script.byte()), script.byte());
        if let Some((_, _, datagram)) = self.network.front_mut() {
            let length = datagram.len();
            match datagram.get_mut(position) {
                Some(byte) => *byte ^= value,
                None => datagram.truncate(length.saturating_sub(usize::from(value))),
            }
        }
    }

    /// Bytes that no node has sent; in clear with a checksum, so that they get far.
    fn forge(&mut self, at: usize, script: &mut Script) {
        let shape = script.byte();
        let from = if shape & 1 == 0 { address(1 - at) } else { beacon() };
        let length = usize::from(script.byte());
        let mut datagram = script.take(length).to_vec();
        if shape & 2 != 0 && datagram.len() >= 34 {
            datagram[0] = 0x10 | (datagram[0] & 0x0F);
            let payload = (datagram.len() - 34) as u16;
            datagram[2..4].copy_from_slice(&payload.to_be_bytes());
            if shape & 4 != 0 {
                datagram[4..10].copy_from_slice(&[0, 0, 0, 0, 0, IDS[1 - at].0 as u8]);
                datagram[10..16].copy_from_slice(&[0, 0, 0, 0, 0, IDS[at].0 as u8]);
                datagram[18..20].copy_from_slice(&PORT.0.to_be_bytes());
            }
            datagram[30..34].fill(0);
            let sum = crc32fast::hash(&datagram);
            datagram[30..34].copy_from_slice(&sum.to_be_bytes());
            datagram.splice(0..0, *b"PILT");
        }
        self.sides[at].node.handle_datagram(self.now, from, &mut datagram);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        for side in &mut self.sides {
            for turn in 0.. {
                assert!(turn < 10_000, "time stands still");
                match side.node.poll_timeout() {
                    Some(due) if due <= self.now => side.node.handle_timeout(self.now),
                    Some(_) | None => break,
                }
                if turn % 64 == 63 {
                    Self::take_outputs(side, self.now, |_, _| {});
                }
            }
        }
    }

    fn answer(&mut self, at: usize, choice: u8) {
        let Some((id, query)) = self.sides[at].queries.pop_front() else { return };
        let error = || match choice & 0x30 {
            0x00 => QueryError::NotFound,
            0x10 => QueryError::Denied,
            0x20 => QueryError::Already,
            _ => QueryError::Unreachable("away".to_owned()),
        };
        let honest = choice & 3 != 0;
        let answer = match query {
            Query::Resolve(peer) if honest => {
                let index = IDS.iter().position(|id| *id == peer).unwrap_or(5);
                let public = (choice & 4 == 0).then(|| address(index));
                let lan = if choice & 8 == 0 { Vec::new() } else { vec![address(index)] };
                let seen = (choice & 0x20 == 0).then_some(Duration::from_secs(u64::from(choice)));
                Answer::Resolved(Ok(Location { public, lan, relay_only: choice & 0xC0 == 0xC0, seen }))
            }
            Query::Resolve(_) => Answer::Resolved(Err(error())),
            Query::PeerKey(peer) if honest && self.clear => {
                Answer::PeerKey(Ok(Identity::from_seed(&[choice.max(peer.0 as u8); 32]).public()))
            }
            Query::PeerKey(peer) if honest => {
                Answer::PeerKey(Ok(Identity::from_seed(&[peer.0 as u8; 32]).public()))
            }
            Query::PeerKey(_) => Answer::PeerKey(Err(error())),
            Query::CheckTrust(_) if honest => Answer::Trusted(Ok(choice & 4 == 0)),
            Query::CheckTrust(_) => Answer::Trusted(Err(error())),
            Query::RequestHandshake { .. }
            | Query::RespondHandshake { .. }
            | Query::ReportTrust(_)
            | Query::RevokeTrust(_) => Answer::Done(if honest { Ok(()) } else { Err(error()) }),
        };
        self.sides[at].node.handle_answer(self.now, id, answer);
    }

    fn pick(&self, at: usize, choice: u8) -> Option<StreamId> {
        let streams = &self.sides[at].streams;
        streams.keys().nth(usize::from(choice) % streams.len().max(1)).copied()
    }

    fn write(&mut self, at: usize, script: &mut Script) {
        let Some(id) = self.pick(at, script.byte()) else { return };
        let length = 1_u64 << (script.byte() % 18);
        let Some(ends) = self.sides[at].streams.get(&id) else { return };
        let data: Bytes = (ends.written..ends.written + length).map(expected).collect();
        if let Ok(taken) = self.sides[at].node.write(self.now, id, data)
            && let Some(ends) = self.sides[at].streams.get_mut(&id)
        {
            ends.written += taken as u64;
        }
    }

    fn read_all(&mut self, at: usize, choice: u8) {
        let Some(id) = self.pick(at, choice) else { return };
        let max = 1 << (choice % 17);
        for _ in 0..READS_MAX {
            match self.sides[at].node.read(self.now, id, max) {
                Ok(Read::Data(data)) => {
                    assert!(!data.is_empty() && data.len() <= max, "{} bytes of {max}", data.len());
                    let Some(ends) = self.sides[at].streams.get_mut(&id) else { return };
                    if !self.clear {
                        for (offset, byte) in data.iter().enumerate() {
                            assert_eq!(
                                *byte,
                                expected(ends.read + offset as u64),
                                "at {}",
                                ends.read + offset as u64
                            );
                        }
                    }
                    ends.read += data.len() as u64;
                }
                Ok(Read::Blocked | Read::Finished) => return,
                Err(_) => {
                    self.sides[at].streams.remove(&id);
                    return;
                }
            }
        }
        panic!("reading does not end");
    }

    fn end(&mut self, at: usize, script: &mut Script) {
        let Some(id) = self.pick(at, script.byte()) else { return };
        let node = &mut self.sides[at].node;
        match script.byte() % 3 {
            0 => return node.finish(self.now, id),
            1 => node.close(self.now, id),
            _ => node.reset(self.now, id),
        }
        self.sides[at].streams.remove(&id);
    }

    fn trust(&mut self, at: usize, script: &mut Script) {
        let (what, wall) = (script.byte(), 1_800_000_000);
        let peer = self.peer_of(at, script.byte());
        let now = self.now;
        let node = &mut self.sides[at].node;
        // Refusals are answers.
        match what % 7 {
            0 | 1 => drop(node.request_trust(now, wall, peer, "please".to_owned())),
            2 => drop(node.approve(now, wall, peer)),
            3 => drop(node.reject(now, wall, peer, "no")),
            4 => drop(node.revoke(now, wall, peer)),
            5 => node.relayed_request(now, wall, peer, "let me in"),
            _ => node.relayed_response(now, wall, peer, what & 0x80 == 0, None),
        }
    }

    fn drain(&mut self) {
        let Self { now, sides, network, .. } = self;
        for (index, side) in sides.iter_mut().enumerate() {
            Self::take_outputs(side, *now, |destination, datagram| {
                let to = if destination == beacon() {
                    None
                } else {
                    (0..2).find(|to| address(*to) == destination)
                };
                if let Some(to) = to.filter(|_| network.len() < UNDER_WAY_MAX) {
                    network.push_back((to, address(index), datagram.to_vec()));
                }
            });
        }
    }

    fn take_outputs(side: &mut Side, now: Instant, mut send: impl FnMut(SocketAddr, &[u8])) {
        let mut outputs = 0;
        let mut counted = || {
            outputs += 1;
            assert!(outputs < OUTPUTS_MAX, "the outputs do not end");
        };
        let mut buffer = Vec::new();
        while let Some(transmit) = side.node.poll_transmit(now, &mut buffer, 16) {
            counted();
            assert!(!buffer.is_empty() && transmit.segment_size > 0, "an empty datagram");
            for datagram in buffer.chunks(transmit.segment_size) {
                send(transmit.destination, datagram);
            }
            buffer.clear();
        }
        while let Some(query) = side.node.poll_query() {
            counted();
            side.queries.push_back(query);
        }
        while let Some(event) = side.node.poll_event() {
            counted();
            if let Event::Stream(id, StreamEvent::Incoming { .. }) = event {
                side.streams.insert(id, Ends::default());
            }
        }
    }

    /// A quarter of an hour without anybody doing anything: every timer comes to rest or recurs at a human pace.
    fn calm_down(&mut self) {
        let end = self.now + Duration::from_secs(900);
        for turn in 0.. {
            assert!(turn < 50_000, "an idle quarter of an hour has too many deadlines");
            let due = self.sides.iter().filter_map(|side| side.node.poll_timeout()).min();
            match due {
                Some(due) if due <= end => self.now = self.now.max(due),
                Some(_) | None => return,
            }
            self.advance(Duration::ZERO);
            self.drain();
            self.network.clear();
        }
    }
}
