//! One of the two nodes with its application and its driver.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use pilot_proto::{
    Config, Encryption, Event, KeyAgreement, Node, PeerEvent, Query, QueryId, Read, StreamEvent, TrustEvent,
    Visibility,
};
use pilot_wire::handshake::Message;
use pilot_wire::{Addr, Endpoint, NodeId, PublicKey, StreamId};

use super::{IDS, PORT, PUPPET, beacon, expected, home, identity};

/// Outputs after one input. Two full send buffers are a few thousand datagrams.
const OUTPUTS_MAX: usize = 100_000;
/// Reads until a stream has nothing more: byte by byte it may have a receive buffer full.
const READS_MAX: usize = 16 << 20;
/// Words about trust that wait to be carried; beyond, the oldest is lost.
const WORDS_MAX: usize = 64;

/// How far both directions of a stream are.
pub(super) struct Ends {
    /// Names the stream and the direction that is written; the other one differs in the last bit. `None` with the hostile
    /// node, who may write what he likes.
    tag: Option<u64>,
    written: u64,
    read: u64,
}

pub(super) struct Side {
    pub(super) index: usize,
    pub(super) node: Node,
    pub(super) at: SocketAddr,
    pub(super) settings: Settings,
    pub(super) streams: BTreeMap<StreamId, Ends>,
    pub(super) queries: VecDeque<(QueryId, Query)>,
    pub(super) words: VecDeque<(NodeId, Message)>,
    /// What the driver writes down for the next life.
    agreed: BTreeMap<NodeId, PublicKey>,
    lives: u8,
}

/// How a node is set up. They stay for all its lives.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    pub(super) clear: bool,
    pub(super) as_shown: bool,
    pub(super) private: bool,
    pub(super) approves: bool,
    pub(super) beacon: bool,
}

impl Side {
    pub(super) fn new(index: usize, settings: Settings, now: Instant) -> Self {
        Self {
            index,
            node: born(index, settings, 0, now),
            at: home(index, 0),
            settings,
            streams: BTreeMap::new(),
            queries: VecDeque::new(),
            words: VecDeque::new(),
            agreed: BTreeMap::new(),
            lives: 0,
        }
    }

    /// The process ends and begins anew, with what is on disk.
    pub(super) fn restart(&mut self, now: Instant) {
        self.lives = self.lives.wrapping_add(1);
        let trust = self.node.trust().clone();
        self.node = born(self.index, self.settings, self.lives, now);
        self.node.restore_trust(trust);
        for (node, key) in &self.agreed {
            self.node.remember_agreement(*node, *key);
        }
        self.streams.clear();
        self.queries.clear();
        self.words.clear();
    }

    pub(super) fn dial(&mut self, now: Instant, peer: NodeId) -> Option<StreamId> {
        let id = self.node.dial(now, Addr::backbone(peer).port(PORT)).ok()?;
        let dialled = self.node.streams().find(|stream| stream.id == id);
        let local = dialled.map(|stream| stream.local.0).unwrap_or_default();
        let tag = self.tag(self.index, peer, local, 0);
        self.streams.insert(id, Ends { tag, written: 0, read: 0 });
        Some(id)
    }

    fn incoming(&mut self, id: StreamId, from: Endpoint) {
        let dialler = IDS.iter().position(|known| *known == from.addr.node);
        let tag = self.tag(dialler.unwrap_or(PUPPET), from.addr.node, from.port.0, 1);
        self.streams.insert(id, Ends { tag, written: 0, read: 0 });
    }

    fn tag(&self, dialler: usize, peer: NodeId, port: u16, direction: u64) -> Option<u64> {
        let honest = !self.settings.clear && peer == IDS[1 - self.index];
        honest.then_some(((dialler as u64) << 17) | (u64::from(port) << 1) | direction)
    }

    pub(super) fn pick(&self, choice: u8) -> Option<StreamId> {
        self.streams.keys().nth(usize::from(choice) % self.streams.len().max(1)).copied()
    }

    pub(super) fn write(&mut self, now: Instant, id: StreamId, length: u64) {
        let Some(ends) = self.streams.get_mut(&id) else { return };
        let tag = ends.tag.unwrap_or_default();
        let data: Bytes = (ends.written..ends.written + length).map(|at| expected(tag, at)).collect();
        if let Ok(taken) = self.node.write(now, id, data) {
            assert!(taken as u64 <= length, "{taken} bytes of {length} taken");
            ends.written += taken as u64;
        }
    }

    /// Reads what is there; true if it came to the end.
    pub(super) fn read(&mut self, now: Instant, id: StreamId, max: usize) -> u64 {
        let Some(ends) = self.streams.get_mut(&id) else { return 0 };
        let before = ends.read;
        for _ in 0..READS_MAX {
            match self.node.read(now, id, max) {
                Ok(Read::Data(data)) => {
                    assert!(!data.is_empty() && data.len() <= max, "{} bytes of {max}", data.len());
                    if let Some(tag) = ends.tag {
                        let good =
                            data.iter().zip(ends.read..).all(|(byte, at)| *byte == expected(tag ^ 1, at));
                        assert!(good, "other bytes than were written, after {}", ends.read);
                    }
                    ends.read += data.len() as u64;
                }
                Ok(Read::Blocked | Read::Finished) => return ends.read - before,
                Err(_) => {
                    let read = ends.read - before;
                    self.streams.remove(&id);
                    return read;
                }
            }
        }
        panic!("reading does not end");
    }

    /// Everything that the node has to say, and that its tables are within their bounds then.
    pub(super) fn drain(&mut self, now: Instant, mut send: impl FnMut(SocketAddr, &[u8])) {
        let mut outputs = 0;
        let mut counted = || {
            outputs += 1;
            assert!(outputs < OUTPUTS_MAX, "the outputs do not end");
        };
        let mut buffer = Vec::new();
        while let Some(transmit) = self.node.poll_transmit(now, &mut buffer, 16) {
            counted();
            assert!(!buffer.is_empty() && transmit.segment_size > 0, "an empty datagram");
            for datagram in buffer.chunks(transmit.segment_size) {
                send(transmit.destination, datagram);
            }
            buffer.clear();
        }
        while let Some(query) = self.node.poll_query() {
            counted();
            self.queries.push_back(query);
        }
        while let Some(event) = self.node.poll_event() {
            counted();
            self.happened(event);
        }
        for table in self.node.tables() {
            assert!(table.len <= table.max, "{}: {} of {}", table.name, table.len, table.max);
        }
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Stream(id, StreamEvent::Incoming { from, .. }) => self.incoming(id, from),
            Event::Trust(TrustEvent::Deliver { to, message }) => {
                self.words.push_back((to, message));
                if self.words.len() > WORDS_MAX {
                    self.words.pop_front();
                }
            }
            Event::Peer(node, PeerEvent::Agreed(key)) => drop(self.agreed.insert(node, key)),
            Event::Stream(..)
            | Event::Datagram { .. }
            | Event::Pong { .. }
            | Event::Observed(_)
            | Event::Beacon(_)
            | Event::Surveyed(_)
            | Event::HandshakeWaiting
            | Event::Trust(_)
            | Event::Peer(..) => {}
        }
    }
}

fn born(index: usize, settings: Settings, life: u8, now: Instant) -> Node {
    let mut seed = [index as u8 + 101; 32];
    seed[0] = life;
    let mut config = Config::new(identity(index), seed);
    config.encryption = if settings.clear { Encryption::Off } else { Encryption::Required };
    config.agreement = if settings.as_shown { KeyAgreement::AsShown } else { KeyAgreement::OfTheMoment };
    config.visibility = if settings.private { Visibility::Private } else { Visibility::Public };
    config.auto_approve = settings.approves;
    config.beacon = settings.beacon.then(beacon);
    let mut node = Node::new(config, now);
    node.set_node(now, IDS[index]);
    node.listen(PORT).expect("nobody listens yet");
    node
}
