//! Streams that share one bottleneck: what each gets, how long the queue in front of it is, and how much is sent twice.
//!
//! There are no nodes here, only streams and one link, so that minutes of a fast line take seconds.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pilot_proto::{
    Read,
    stream::{Config, Congestion, Stream},
};
use pilot_wire::{
    Addr, NodeId, Port, Seq,
    packet::{Header, Packet},
};
use rand::{SeedableRng, rngs::StdRng};

use crate::{Conditions, Link};

/// What a tunnel adds to a packet.
const SEALED: usize = 36;

/// What an application writes at a time.
static CHUNK: [u8; 64 << 10] = [0; 64 << 10];

/// Buffers that no line here can fill, so that the controllers decide and not the windows.
const BUFFER: usize = 32 << 20;

/// One stream that always has something to send.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// How it finds its speed.
    pub congestion: Congestion,
    /// Payload bytes of a segment.
    pub segment: u16,
    /// When it is opened.
    pub starts: Duration,
}

/// Streams that start at the same or at different times and go through one link.
#[derive(Clone, Debug)]
pub struct Contest {
    /// The link from the senders. The way back has its delay, jitter, loss and reordering, and any bandwidth.
    pub conditions: Conditions,
    /// Who takes part.
    pub flows: Vec<Flow>,
    /// How long it lasts.
    pub lasts: Duration,
    /// What is before counts for nobody.
    pub counts_from: Duration,
}

/// What one stream got.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Bytes that its reader read, while they counted.
    pub bytes: u64,
    /// The same as megabits (10^6) per second.
    pub megabits: f64,
    /// Segments sent again, of all, from the start.
    pub repeated: f64,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// In the order of the flows.
    pub shares: Vec<Share>,
    /// How long datagrams waited in front of the link, in order.
    waits: Vec<Duration>,
}

impl Outcome {
    /// The wait that this share of the datagrams does not exceed, 0 to 1.
    pub fn wait(&self, share: f64) -> Duration {
        let last = self.waits.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index below the length"
        )]
        let index = (last as f64 * share.clamp(0.0, 1.0)) as usize;
        self.waits.get(index).copied().unwrap_or_default()
    }

    /// Jain's index: 1 if all got the same, one part of the number of flows if one got all.
    pub fn fairness(&self) -> f64 {
        let sum: f64 = self.shares.iter().map(|share| share.megabits).sum();
        let squares: f64 = self.shares.iter().map(|share| share.megabits * share.megabits).sum();
        if squares == 0.0 { 1.0 } else { sum * sum / (squares * self.shares.len() as f64) }
    }
}

struct Running {
    config: Config,
    starts: Instant,
    /// Sender and receiver.
    ends: [Option<Stream>; 2],
    back: Link,
    read: u64,
}

struct Arena {
    now: Instant,
    forward: Link,
    flows: Vec<Running>,
    /// Packets by arrival: whose they are, and to which end they go.
    flying: BTreeMap<(Instant, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    chance: StdRng,
    waits: Vec<Duration>,
    counts_from: Instant,
    buffer: Vec<u8>,
}

impl Contest {
    /// Runs it. The same seed gives the same outcome.
    pub fn run(&self, seed: u64) -> Outcome {
        let start = Instant::now();
        let back = Conditions { bandwidth: None, ..self.conditions };
        let flows = self.flows.iter().map(|flow| Running {
            config: Config {
                congestion: flow.congestion,
                path_segment: flow.segment,
                send_buffer: BUFFER,
                receive_buffer: BUFFER,
                ..Config::default()
            },
            starts: start + flow.starts,
            ends: [None, None],
            back: Link::new(back),
            read: 0,
        });
        let mut arena = Arena {
            now: start,
            forward: Link::new(self.conditions),
            flows: flows.collect(),
            flying: BTreeMap::new(),
            sent: 0,
            chance: StdRng::seed_from_u64(seed),
            waits: Vec::new(),
            counts_from: start + self.counts_from,
            buffer: Vec::new(),
        };
        arena.run(start + self.lasts);
        arena.waits.sort_unstable();
        let seconds = (self.lasts - self.counts_from).as_secs_f64();
        let shares = arena.flows.iter().map(|flow| {
            let stats = flow.ends[0].as_ref().map(Stream::stats);
            let (repeated, all) =
                stats.map_or((0, 1), |stats| (stats.retransmits, stats.segments_sent.max(1)));
            Share {
                bytes: flow.read,
                megabits: flow.read as f64 * 8.0 / 1e6 / seconds,
                repeated: repeated as f64 / all as f64,
            }
        });
        Outcome { shares: shares.collect(), waits: arena.waits }
    }
}

impl Arena {
    fn run(&mut self, end: Instant) {
        while let Some(next) = self.next().filter(|&next| next <= end) {
            self.now = next.max(self.now);
            for index in 0..self.flows.len() {
                let flow = &mut self.flows[index];
                if flow.starts <= self.now && flow.ends[0].is_none() {
                    flow.open(self.now, index);
                    self.move_on(index, 0);
                }
                for end in 0..2 {
                    let due = |stream: &&mut Stream| stream.poll_timeout().is_some_and(|at| at <= self.now);
                    if let Some(stream) = self.flows[index].ends[end].as_mut().filter(due) {
                        stream.handle_timeout(self.now);
                        self.move_on(index, end);
                    }
                }
            }
            // What arrives at one instant at one end is one batch, as a socket hands it over.
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (index, end, packet) = entry.remove();
                self.deliver(index, end, &packet);
                let more = self.flying.first_key_value().is_some_and(|(&(at, _), &(next, other, _))| {
                    at <= self.now && (next, other) == (index, end)
                });
                if !more {
                    self.move_on(index, end);
                }
            }
        }
    }

    /// When something happens next.
    fn next(&self) -> Option<Instant> {
        let arrival = self.flying.first_key_value().map(|(&(at, _), _)| at);
        let flows = self.flows.iter().flat_map(|flow| {
            let timers = flow.ends.iter().flatten().filter_map(Stream::poll_timeout);
            timers.chain(flow.ends[0].is_none().then_some(flow.starts))
        });
        arrival.into_iter().chain(flows).min()
    }

    fn deliver(&mut self, index: usize, end: usize, packet: &[u8]) {
        let Ok(Packet { header, payload }) = Packet::parse_sealed(packet) else { return };
        let flow = &mut self.flows[index];
        match &mut flow.ends[end] {
            Some(stream) => drop(stream.on_segment(self.now, &header, payload)),
            empty => *empty = Some(accept(&flow.config, self.now, &header, payload)),
        }
    }

    /// The application at one end does what it can, and what the stream has to send goes out.
    fn move_on(&mut self, index: usize, end: usize) {
        let Self { now, forward, flows, flying, sent, chance, waits, counts_from, buffer } = self;
        let flow = &mut flows[index];
        let Some(stream) = &mut flow.ends[end] else { return };
        while stream.poll_event().is_some() {}
        if end == 0 {
            while stream.write(*now, Bytes::from_static(&CHUNK)).is_ok_and(|taken| taken == CHUNK.len()) {}
        }
        while let Ok(Read::Data(data)) = stream.read(*now, usize::MAX) {
            flow.read += if *now >= *counts_from { data.len() as u64 } else { 0 };
        }
        buffer.clear();
        while let Some(packet) = stream.poll_segment(*now, buffer) {
            let len = packet.len + SEALED;
            let link = if end == 0 { &mut *forward } else { &mut flow.back };
            if end == 0 && *now >= *counts_from {
                waits.push(link.queue_delay(*now));
            }
            if let Ok((first, copy)) = link.send(*now, len, chance) {
                for arrival in [Some(first), copy].into_iter().flatten() {
                    *sent += 1;
                    flying.insert((arrival.at, *sent), (index, 1 - end, buffer.clone()));
                }
            }
            buffer.clear();
        }
    }
}

impl Running {
    fn open(&mut self, now: Instant, index: usize) {
        let port = Port(u16::try_from(50_000 + index).unwrap_or(u16::MAX));
        let [from, to] =
            [(1, port), (2, Port::STDIO)].map(|(node, port)| Addr::backbone(NodeId(node)).port(port));
        let initial = Seq(u32::try_from(index).unwrap_or(0).wrapping_mul(0x9e37_79b9));
        self.ends[0] = Some(Stream::connect(&self.config, now, from, to, initial));
    }
}

fn accept(config: &Config, now: Instant, syn: &Header, payload: &[u8]) -> Stream {
    Stream::accept(config, now, syn, payload, Seq(7))
}
