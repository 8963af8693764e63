//! What a bulk transfer takes from the allocator, counted. A program of its own, because the count is of the whole process.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it says")]

use std::alloc::System;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pilot_crypto::Identity;
use pilot_proto::trust::{Book, Trusted};
use pilot_proto::{Answer, Config, Event, Location, Node, Query, Read, StreamEvent};
use pilot_wire::{Addr, NodeId, Port, StreamId};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SERVICE: Port = Port(1000);

/// What a program hands over at a time.
static PIECE: [u8; 64 << 10] = [7; 64 << 10];

/// Datagrams per train, as the kernel takes them.
const SEGMENTS: usize = 64;

/// Allocations per train that are no scandal: pieces of 64 KiB for what arrived, handles on pieces, an acknowledgement.
const PER_TRAIN: usize = 4;

fn id(index: usize) -> NodeId {
    NodeId(index as u32 + 1)
}

fn addr(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 4000))
}

fn identity(index: usize) -> Identity {
    Identity::from_seed(&[index as u8 + 1; 32])
}

/// Some instant to count from; the only reading of the clock here.
#[expect(clippy::disallowed_methods, reason = "an `Instant` can be had from the clock only")]
fn start() -> Instant {
    let clock = Instant::now;
    clock()
}

/// Two nodes, and nothing between them but the buffer that one fills and the other reads.
struct Link {
    now: Instant,
    nodes: [Node; 2],
    train: Vec<u8>,
    trains: usize,
    segments: usize,
    incoming: Option<StreamId>,
    received: usize,
}

impl Link {
    fn new() -> Self {
        let now = start();
        let node = |index: usize| {
            let mut config = Config::new(identity(index), [index as u8 + 1; 32]);
            // As on an Ethernet: many segments to a train.
            config.tunnel.max_datagram = 1472;
            let mut node = Node::new(config, now);
            node.set_node(now, id(index));
            node.listen(SERVICE).unwrap();
            let other = 1 - index;
            let trusted = Trusted { key: Some(identity(other).public()), since: 0, mutual: true };
            node.restore_trust(Book::restore([(id(other), trusted)], [], [], []));
            node
        };
        let nodes = [node(0), node(1)];
        Self { now, nodes, train: Vec::new(), trains: 0, segments: 0, incoming: None, received: 0 }
    }

    /// Carries what there is, once in each direction; the clock moves on by what such a round takes.
    fn round(&mut self) {
        for from in 0..2 {
            while let Some(transmit) = self.nodes[from].poll_transmit(self.now, &mut self.train, SEGMENTS) {
                self.trains += 1;
                for datagram in self.train.chunks_mut(transmit.segment_size) {
                    self.segments += 1;
                    self.nodes[1 - from].handle_datagram(self.now, addr(from), datagram);
                }
                self.train.clear();
            }
            while let Some((query_id, query)) = self.nodes[from].poll_query() {
                let answer = answer(&query);
                self.nodes[from].handle_answer(self.now, query_id, answer);
            }
            while let Some(event) = self.nodes[from].poll_event() {
                if let Event::Stream(stream, StreamEvent::Incoming { .. }) = event {
                    self.incoming = Some(stream);
                }
            }
        }
        if let Some(stream) = self.incoming {
            while let Ok(Read::Data(data)) = self.nodes[1].read(self.now, stream, usize::MAX) {
                self.received += data.len();
            }
        }
        self.now += Duration::from_micros(200);
        for node in &mut self.nodes {
            if node.poll_timeout().is_some_and(|at| at <= self.now) {
                node.handle_timeout(self.now);
            }
        }
    }

    fn transfer(&mut self, stream: StreamId, bytes: usize) {
        let end = self.received + bytes;
        let mut written = self.received;
        for _ in 0..100_000 {
            while written < end {
                match self.nodes[0].write(self.now, stream, Bytes::from_static(&PIECE)).unwrap() {
                    0 => break,
                    count => written += count,
                }
            }
            self.round();
            if self.received >= end {
                return;
            }
        }
        panic!("{} of {end} bytes arrived", self.received);
    }
}

fn answer(query: &Query) -> Answer {
    match query {
        Query::Resolve(node) => {
            Answer::Resolved(Ok(Location { public: Some(addr(node.0 as usize - 1)), ..Location::default() }))
        }
        Query::PeerKey(node) => Answer::PeerKey(Ok(identity(node.0 as usize - 1).public())),
        Query::CheckTrust(_) => Answer::Trusted(Ok(true)),
        Query::RequestHandshake { .. }
        | Query::RespondHandshake { .. }
        | Query::ReportTrust(_)
        | Query::RevokeTrust(_) => Answer::Done(Ok(())),
    }
}

#[test]
fn a_bulk_transfer_allocates_per_train_and_not_per_segment() {
    let mut link = Link::new();
    let stream = link.nodes[0].dial(link.now, Addr::backbone(id(1)).port(SERVICE)).unwrap();
    for _ in 0..1000 {
        link.round();
    }
    // The windows open, the buffers grow to what they will need.
    link.transfer(stream, 32 << 20);
    (link.trains, link.segments) = (0, 0);
    let region = Region::new(ALLOCATOR);
    link.transfer(stream, 32 << 20);
    let change = region.change();
    let allocations = change.allocations + change.reallocations;
    assert!(link.segments > 10_000, "{} segments in {} trains", link.segments, link.trains);
    assert!(
        allocations * SEGMENTS <= link.segments * PER_TRAIN,
        "{allocations} allocations for {} segments in {} trains",
        link.segments,
        link.trains
    );
}
