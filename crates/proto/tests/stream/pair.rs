//! Two streams, a link with faults between them, and virtual time.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::OnceLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pilot_proto::stream::{CloseReason, Config, Read, Sent, Stream, StreamEvent, Verdict};
use pilot_wire::{Addr, Endpoint, NodeId, Port, Seq, packet::Packet};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Some instant to count from; the only reading of the clock here.
#[expect(clippy::disallowed_methods, reason = "an `Instant` can be had from the clock only")]
pub(crate) fn start() -> Instant {
    let clock = Instant::now;
    clock()
}

/// One direction of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    /// A flipped bit; the receiver's checksum drops the packet.
    pub(crate) corrupt: f64,
    /// Bytes per second; nothing is unlimited.
    pub(crate) rate: Option<u64>,
    /// Bytes that may wait for the rate.
    pub(crate) queue: u64,
}

impl Link {
    pub(crate) fn perfect(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            rate: None,
            queue: u64::MAX,
        }
    }
}

/// The pattern of every test stream repeats after this many bytes, a prime, so that no segment size divides it.
const PERIOD: u64 = 65_521;

/// `len` bytes of the pattern from `offset` on; at most [`PERIOD`].
pub(crate) fn bytes_at(offset: u64, len: usize) -> Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        let byte = |i: u64| ((i % PERIOD).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
        (0..2 * PERIOD).map(byte).collect::<Vec<_>>().into()
    });
    let start = (offset % PERIOD) as usize;
    pattern.slice(start..start + len)
}

/// What an application writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// [`bytes_at`].
    Mixed,
    /// Nothing but what looks like selective acknowledgements, at every fourth place.
    Lists,
}

impl Pattern {
    fn bytes(self, offset: u64, len: usize) -> Bytes {
        let lists = |i: u64| b"SACKSACK\x01ACK\x02SACK"[(i % 16) as usize];
        match self {
            Self::Mixed => bytes_at(offset, len),
            Self::Lists => (offset..offset + len as u64).map(lists).collect::<Vec<_>>().into(),
        }
    }
}

/// How an application behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct App {
    /// What it writes, and expects of the other.
    pub(crate) pattern: Pattern,
    /// Bytes that it writes.
    pub(crate) sends: u64,
    /// Bytes per write.
    pub(crate) chunk: usize,
    /// It finishes after its last write.
    pub(crate) finishes: bool,
    /// It closes once it wrote everything and either read this many bytes or saw the peer finish.
    pub(crate) closes_after: Option<u64>,
    /// It reads at most this much per virtual millisecond; nothing is at once.
    pub(crate) reads_per_ms: Option<usize>,
}

impl App {
    pub(crate) fn sender(sends: u64) -> Self {
        Self {
            pattern: Pattern::Mixed,
            sends,
            chunk: 60_000,
            finishes: true,
            closes_after: Some(0),
            reads_per_ms: None,
        }
    }

    /// Reads everything, and closes when the peer finished.
    pub(crate) fn reader() -> Self {
        Self {
            pattern: Pattern::Mixed,
            sends: 0,
            chunk: 1,
            finishes: false,
            closes_after: Some(u64::MAX),
            reads_per_ms: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) stream: Option<Stream>,
    pub(crate) app: App,
    pub(crate) written: u64,
    pub(crate) received: u64,
    pub(crate) saw_end: bool,
    pub(crate) finished: bool,
    pub(crate) closed: bool,
    pub(crate) reason: Option<CloseReason>,
    pub(crate) events: Vec<StreamEvent>,
    pub(crate) emitted: u64,
    pub(crate) emitted_bytes: u64,
    link: Link,
    free_at: Instant,
    read_credit: usize,
    credit_at: Instant,
}

/// When, which of those at the same time, at which side, and what.
type Arrival = (Instant, u64, usize, Vec<u8>);

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) sides: [Side; 2],
    pub(crate) rng: StdRng,
    /// When nothing gets through.
    pub(crate) outage: Option<(Duration, Duration)>,
    /// Nothing arrives before.
    held_until: Instant,
    config: [Config; 2],
    initial: [Seq; 2],
    flight: BinaryHeap<Reverse<Arrival>>,
    serial: u64,
    /// Packets that a stream which is gone would have got.
    pub(crate) strays: u64,
}

pub(crate) fn endpoint(node: u32, port: u16) -> Endpoint {
    Endpoint::new(Addr::backbone(NodeId(node)), Port(port))
}

impl Pair {
    pub(crate) fn new(seed: u64, links: [Link; 2], apps: [App; 2], config: [Config; 2]) -> Self {
        let now = start();
        let mut rng = StdRng::seed_from_u64(seed);
        // Half of the runs start right before the wrap.
        let mut initial = || {
            if rng.random_bool(0.5) { Seq(u32::MAX - rng.random_range(0..20_000)) } else { Seq(rng.random()) }
        };
        let initial = [initial(), initial()];
        let side = |app, link| Side {
            stream: None,
            app,
            written: 0,
            received: 0,
            saw_end: false,
            finished: false,
            closed: false,
            reason: None,
            events: Vec::new(),
            emitted: 0,
            emitted_bytes: 0,
            link,
            free_at: now,
            read_credit: 0,
            credit_at: now,
        };
        let mut sides = [side(apps[0], links[0]), side(apps[1], links[1])];
        sides[0].stream =
            Some(Stream::connect(&config[0], now, endpoint(1, 50_000), endpoint(2, 7), initial[0]));
        Self {
            now,
            start: now,
            sides,
            rng,
            outage: None,
            held_until: now,
            config,
            initial,
            flight: BinaryHeap::new(),
            serial: 0,
            strays: 0,
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// What a failure should show.
    pub(crate) fn show(&self) -> String {
        let mut text = String::new();
        for side in &self.sides {
            text += &format!(
                "\n{:?} wrote {} of {} read {} emitted {} ended {:?}, {:?}",
                side.stream.as_ref().map(Stream::state),
                side.written,
                side.app.sends,
                side.received,
                side.emitted,
                side.reason,
                side.stream
            );
        }
        text
    }

    pub(crate) fn both_gone(&self) -> bool {
        self.sides
            .iter()
            .all(|side| side.reason.is_some() && side.stream.as_ref().is_none_or(Stream::is_gone))
    }

    /// Runs until `done`, or nothing is left to happen, or `limit` of virtual time has passed. Says whether `done`.
    pub(crate) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.start + limit;
        self.pump(0);
        self.pump(1);
        loop {
            if done(self) {
                return true;
            }
            let Some(next) = self.next_time().filter(|&next| next <= end) else { return false };
            assert!(next >= self.now, "time runs backwards");
            self.now = next;
            self.turn();
        }
    }

    /// Nothing arrives before this much from now; then everything does, in its order.
    pub(crate) fn hold_up(&mut self, time: Duration) {
        let until = self.now + time;
        self.held_until = until;
        let flight = std::mem::take(&mut self.flight);
        let held = |Reverse((at, n, to, bytes)): Reverse<Arrival>| Reverse((at.max(until), n, to, bytes));
        self.flight = flight.into_iter().map(held).collect();
    }

    fn next_time(&self) -> Option<Instant> {
        let packet = self.flight.peek().map(|Reverse((at, ..))| *at);
        let timers = self.sides.iter().filter_map(|side| side.stream.as_ref()?.poll_timeout());
        let readers = self.sides.iter().filter_map(|side| {
            let waits = side.app.reads_per_ms.is_some() && side.stream.as_ref()?.unread() > 0;
            waits.then_some(side.credit_at + Duration::from_millis(1))
        });
        packet.into_iter().chain(timers).chain(readers).map(|at| at.max(self.now)).min()
    }

    fn turn(&mut self) {
        let mut progressed = false;
        // Everything that arrives at one instant is one batch.
        let mut touched = [false; 2];
        while let Some(Reverse((at, ..))) = self.flight.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, to, bytes))) = self.flight.pop() else { break };
            self.deliver(to, &bytes);
            touched[to] = true;
            progressed = true;
        }
        for (index, touched) in touched.into_iter().enumerate() {
            let now = self.now;
            let side = &mut self.sides[index];
            if let Some(stream) = &mut side.stream
                && stream.poll_timeout().is_some_and(|at| at <= now)
            {
                let before = stream.poll_timeout();
                stream.handle_timeout(now);
                self.pump(index);
                let after = self.sides[index].stream.as_ref().and_then(Stream::poll_timeout);
                assert!(
                    after != before,
                    "the timer of side {index} fires without end: {:?}",
                    self.sides[index]
                );
                progressed = true;
            } else if touched || side.app.reads_per_ms.is_some() {
                self.pump(index);
                progressed = true;
            }
        }
        assert!(progressed, "a turn without progress");
    }

    fn deliver(&mut self, to: usize, bytes: &[u8]) {
        let packet = Packet::parse(bytes).unwrap();
        let side = &mut self.sides[to];
        match &mut side.stream {
            Some(stream) if !stream.is_gone() => {
                assert_eq!(stream.on_segment(self.now, &packet.header, packet.payload), Verdict::Taken);
            }
            Some(_) => self.strays += 1,
            None => {
                let is_syn = packet.header.flags == pilot_wire::packet::Flags::SYN;
                if is_syn {
                    side.stream = Some(Stream::accept(
                        &self.config[to],
                        self.now,
                        &packet.header,
                        packet.payload,
                        self.initial[to],
                    ));
                }
            }
        }
    }

    /// Lets the application of a side act, and sends what it has.
    pub(crate) fn pump(&mut self, index: usize) {
        self.application(index);
        let mut out = Vec::new();
        loop {
            out.clear();
            let side = &mut self.sides[index];
            let Some(stream) = &mut side.stream else { return };
            let Some(sent) = stream.poll_segment(self.now, &mut out) else { break };
            let Sent { len, .. } = sent;
            assert_eq!(len, out.len());
            side.emitted += 1;
            side.emitted_bytes += len as u64;
            self.transmit(index, &out);
        }
        let side = &mut self.sides[index];
        let Some(stream) = &mut side.stream else { return };
        while let Some(event) = stream.poll_event() {
            assert!(side.reason.is_none(), "{event:?} after the end");
            if let StreamEvent::Closed(reason) = event {
                side.reason = Some(reason);
            }
            side.events.push(event);
        }
    }

    fn application(&mut self, index: usize) {
        let now = self.now;
        let side = &mut self.sides[index];
        let Some(stream) = &mut side.stream else { return };
        if let Some(per_ms) = side.app.reads_per_ms {
            if now >= side.credit_at + Duration::from_millis(1) {
                side.read_credit = per_ms;
                side.credit_at = now;
            }
        } else {
            side.read_credit = usize::MAX;
        }
        while !side.closed && side.read_credit > 0 {
            match stream.read(now, side.read_credit.min(16 << 10)) {
                Ok(Read::Data(data)) => {
                    let same = data == side.app.pattern.bytes(side.received, data.len());
                    assert!(same, "wrong bytes at {}", side.received);
                    side.received += data.len() as u64;
                    side.read_credit = side.read_credit.saturating_sub(data.len());
                }
                Ok(Read::Finished) => {
                    side.saw_end = true;
                    break;
                }
                Ok(Read::Blocked) | Err(_) => break,
            }
        }
        while side.written < side.app.sends && !side.finished && !side.closed {
            let len = side.app.chunk.min((side.app.sends - side.written) as usize);
            match stream.write(now, side.app.pattern.bytes(side.written, len)) {
                Ok(0) | Err(_) => break,
                Ok(taken) => side.written += taken as u64,
            }
        }
        let wrote_all = side.written == side.app.sends;
        if side.app.finishes && wrote_all && !side.finished {
            side.finished = true;
            stream.finish(now);
        }
        if let Some(after) = side.app.closes_after
            && wrote_all
            && !side.closed
            && (side.received >= after || side.saw_end)
        {
            side.closed = true;
            stream.close(now);
        }
    }

    fn transmit(&mut self, from: usize, bytes: &[u8]) {
        let link = self.sides[from].link;
        if self.outage.is_some_and(|(from, to)| (from..to).contains(&self.elapsed())) {
            return;
        }
        let copies = 1 + usize::from(self.rng.random_bool(link.duplicate));
        for _ in 0..copies {
            let mut leaves = self.now;
            if let Some(rate) = link.rate {
                let size = bytes.len() as u64 + 36 + 28;
                let busy = self.sides[from].free_at.max(self.now);
                let waiting = (busy - self.now).as_nanos() as u64 * rate / 1_000_000_000;
                if waiting > link.queue {
                    continue;
                }
                leaves = busy + Duration::from_nanos(size * 1_000_000_000 / rate);
                self.sides[from].free_at = leaves;
            }
            if self.rng.random_bool(link.loss) || self.rng.random_bool(link.corrupt) {
                continue;
            }
            let jitter = link.jitter.mul_f64(self.rng.random());
            self.serial += 1;
            let arrives = (leaves + link.delay + jitter).max(self.held_until);
            self.flight.push(Reverse((arrives, self.serial, 1 - from, bytes.to_vec())));
        }
    }
}
