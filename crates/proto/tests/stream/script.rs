//! A small packetdrill: scripts of packets, calls and times against one stream.
//!
//! A line is `time what`. Times are milliseconds since the start; a packet may be half a millisecond off. Numbers are
//! relative to the initial sequence numbers, which lie just before the wrap.
//! ```text
//! 0   > S 0              our SYN must go out
//! 10  < S. 0 ack 1 win 512
//! 10  write 100          the application writes (the pattern of `bytes_at`)
//! 0   > S 0 early 100    our SYN with the options of ours and 100 bytes of data in them
//! 10  > . 1(100) ack 1   a segment with 100 bytes from 1 on
//! 20  < . 1 ack 101 win 512 sack 201-301
//! 20  read 50            the application takes exactly this many bytes
//! 20  event Established  the next event
//! 20  state ESTABLISHED
//! ```
//! `call finish|close|abort|recovered`, `blocked`, `end` (read says finished), `gone`, `quiet` (nothing goes out before this
//! time). Packets that the script does not expect fail it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use pilot_proto::stream::{Config, Read, Stream, Verdict};
use pilot_wire::{
    Seq,
    packet::{Flags, Header, Packet, Protocol},
    sack::{SackBlock, SackList},
};

use crate::pair::{bytes_at, endpoint, start};

const OURS: Seq = Seq(u32::MAX - 300);
const THEIRS: Seq = Seq(u32::MAX - 90);
const TOLERANCE: Duration = Duration::from_micros(600);

/// Whether the peer in the script is one of ours or the reference.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Legacy,
    Extended,
}

pub(crate) struct Script {
    start: Instant,
    now: Instant,
    config: Config,
    peer: Peer,
    pub(crate) stream: Option<Stream>,
    emitted: VecDeque<(Instant, Vec<u8>)>,
    read: u64,
    written: u64,
    line: String,
}

impl Script {
    /// A stream that dials; the script plays the handshake.
    pub(crate) fn dialing(config: Config, peer: Peer) -> Self {
        let mut script = Self::new(config, peer);
        script.stream = Some(Stream::connect(&config, script.now, endpoint(1, 50_000), endpoint(2, 7), OURS));
        script
    }

    /// A stream that a SYN in the script opens.
    pub(crate) fn listening(config: Config, peer: Peer) -> Self {
        Self::new(config, peer)
    }

    /// A dialled stream, open since 0 ms after a round trip of 10 ms that ended there; both sides at number 1.
    pub(crate) fn open(config: Config, peer: Peer) -> Self {
        let mut script = Self::dialing(config, peer);
        script.start += Duration::from_millis(10);
        script.run(
            "-10 > S 0
             0 < S. 0 ack 1 win 512
             0 > . 1 ack 1
             0 event Established",
        );
        script
    }

    fn new(config: Config, peer: Peer) -> Self {
        let now = start();
        Self {
            start: now,
            now,
            config,
            peer,
            stream: None,
            emitted: VecDeque::new(),
            read: 0,
            written: 0,
            line: String::new(),
        }
    }

    pub(crate) fn run(&mut self, script: &str) {
        for line in script.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            self.line = line.to_owned();
            let (time, what) = line.split_once(' ').unwrap_or_else(|| self.fail("a line is `time what`"));
            let millis: f64 = time.parse().unwrap();
            let at = if millis < 0.0 {
                self.start - Duration::from_secs_f64(-millis / 1e3)
            } else {
                self.start + Duration::from_secs_f64(millis / 1e3)
            };
            self.step(at, what.trim());
        }
    }

    /// The application writes before the first packet.
    pub(crate) fn written_before_dialing(&mut self, bytes: usize) {
        let (now, data) = (self.now, bytes_at(0, bytes));
        assert_eq!(self.stream().write(now, data), Ok(bytes));
        self.written = bytes as u64;
    }

    /// Moves to `millis`; if something went out, forgets it, injects `answer` and says so.
    pub(crate) fn answer_probe(&mut self, millis: u64, answer: &str) -> bool {
        self.line = format!("{millis} {answer}");
        self.advance(self.start + Duration::from_millis(millis));
        if self.emitted.is_empty() {
            return false;
        }
        self.emitted.clear();
        self.inject(answer.trim_start_matches("< "));
        self.pump();
        true
    }

    /// Moves to `millis`, and takes everything that went out; returns the new payload bytes among it.
    pub(crate) fn drain(&mut self, millis: f64) -> u64 {
        self.advance(self.start + Duration::from_secs_f64(millis / 1e3));
        self.payloads().iter().map(|payload| payload.len() as u64).sum()
    }

    /// Lets time pass in which nobody looked at a timer; returns the milliseconds on the clock of the script.
    pub(crate) fn wake_after(&mut self, time: Duration) -> u128 {
        self.now += time;
        let now = self.now;
        self.stream().handle_timeout(now);
        self.pump();
        (self.now - self.start).as_millis()
    }

    /// Moves to `millis`, and says how many packets went out.
    pub(crate) fn drain_packets(&mut self, millis: u64) -> usize {
        self.advance(self.start + Duration::from_millis(millis));
        self.pump();
        self.emitted.drain(..).count()
    }

    /// Packets of any kind, with the application reading, writing and ending in between; says how many went out.
    pub(crate) fn hostile(&mut self, packets: &[(u8, i64, i64, u16, usize, u64, u8)]) -> usize {
        let mut millis = 0;
        let mut count = 0;
        for (i, &(flags, seq, ack, window, len, wait, choice)) in packets.iter().enumerate() {
            millis += wait;
            self.line = format!("packet {i}");
            self.advance(self.start + Duration::from_millis(millis));
            let now = self.now;
            let header = Header {
                seq: Seq(THEIRS.0.wrapping_add(seq as u32)),
                ack: Seq(OURS.0.wrapping_add(ack as u32)),
                window,
                ..Header::new(Protocol::Stream, Flags::from_bits(flags), endpoint(2, 7), endpoint(1, 50_000))
            };
            let mut payload = vec![choice; len];
            if choice > 200 && len > 45 {
                payload[..4].copy_from_slice(b"SACK");
                payload[4] = choice % 6;
            }
            let stream = self.stream();
            let _ = stream.on_segment(now, &header, &payload);
            match choice % 16 {
                0 => drop(stream.write(now, bytes_at(0, len))),
                1 | 2 => drop(stream.read(now, len + 1)),
                3 if i > 50 => stream.finish(now),
                4 if i > 80 => stream.close(now),
                5 if i > 90 => stream.abort(now),
                6 => stream.path_recovered(now),
                7 => stream.set_path_segment(now, window.clamp(100, 9000)),
                _ => {}
            }
            while stream.poll_event().is_some() {}
            self.pump();
            count += self.emitted.drain(..).count();
        }
        let mut rests = 0;
        while let Some(at) = self.stream().poll_timeout() {
            rests += 1;
            assert!(rests < 2000, "timers without end: {:?}", self.stream);
            self.advance(at + Duration::from_millis(1));
            self.pump();
            self.emitted.clear();
        }
        count
    }

    /// The payloads of everything that went out.
    pub(crate) fn payloads(&mut self) -> Vec<Vec<u8>> {
        self.pump();
        self.emitted.drain(..).map(|(_, bytes)| Packet::parse(&bytes).unwrap().payload.to_vec()).collect()
    }

    /// A data segment with this payload.
    pub(crate) fn inject_data(&mut self, millis: u64, seq: u32, payload: &[u8]) {
        let at = self.start + Duration::from_millis(millis);
        if at > self.now {
            self.advance(at);
        }
        let header = Header {
            seq: THEIRS + seq,
            ack: OURS + 1,
            window: 512,
            ..Header::new(Protocol::Stream, Flags::ACK, endpoint(2, 7), endpoint(1, 50_000))
        };
        let now = self.now;
        assert_eq!(self.stream().on_segment(now, &header, payload), Verdict::Taken);
    }

    /// A data segment of the pattern, without letting the stream answer.
    pub(crate) fn inject_pattern(&mut self, millis: u64, seq: u32, len: usize) {
        self.inject_data(millis, seq, &bytes_at(u64::from(seq) - 1, len));
    }

    /// Fails unless everything that went out was expected.
    pub(crate) fn done(mut self) {
        self.line = "the end".to_owned();
        self.pump();
        self.expect_silence();
    }

    fn fail(&self, why: impl std::fmt::Display) -> ! {
        panic!("{}: {why}\n{:?}", self.line, self.stream.as_ref().map(Stream::stats))
    }

    fn step(&mut self, at: Instant, what: &str) {
        let (verb, rest) = what.split_once(' ').unwrap_or((what, ""));
        if verb == ">" {
            return self.expect(at, rest);
        }
        self.advance(at);
        match verb {
            "<" => {
                self.expect_silence();
                self.inject(rest);
            }
            "write" => {
                self.expect_silence();
                let mut left: usize = rest.parse().unwrap();
                while left > 0 {
                    let data = bytes_at(self.written, left.min(50_000));
                    let taken = self.stream().write(at, data).unwrap();
                    assert!(taken > 0, "{}", self.line);
                    self.written += taken as u64;
                    left -= taken;
                }
            }
            "read" => self.expect_read(rest.parse().unwrap()),
            "blocked" => assert_eq!(self.stream().read(at, 1), Ok(Read::Blocked), "{}", self.line),
            "end" => assert_eq!(self.stream().read(at, 1), Ok(Read::Finished), "{}", self.line),
            "event" => {
                let event = self.stream().poll_event().map(|event| format!("{event:?}"));
                assert_eq!(event.as_deref().unwrap_or("none"), rest, "{}", self.line);
            }
            "state" => assert_eq!(self.stream().state().to_string(), rest, "{}", self.line),
            "gone" => assert!(self.stream().is_gone(), "{}", self.line),
            "call" => {
                self.expect_silence();
                match rest {
                    "finish" => self.stream().finish(at),
                    "close" => self.stream().close(at),
                    "abort" => self.stream().abort(at),
                    "recovered" => self.stream().path_recovered(at),
                    "segment 1500" => self.stream().set_path_segment(at, 1500),
                    other => self.fail(format!("no call {other}")),
                }
            }
            "quiet" => self.expect_silence(),
            other => self.fail(format!("no verb {other}")),
        }
        self.pump();
    }

    pub(crate) fn stream(&mut self) -> &mut Stream {
        match &mut self.stream {
            Some(stream) => stream,
            None => panic!("{}: no stream", self.line),
        }
    }

    fn advance(&mut self, to: Instant) {
        loop {
            self.pump();
            let Some(at) = self.stream.as_ref().and_then(Stream::poll_timeout).filter(|&at| at < to) else {
                break;
            };
            self.now = self.now.max(at);
            let now = self.now;
            self.stream().handle_timeout(now);
            self.pump();
        }
        self.now = self.now.max(to);
    }

    fn pump(&mut self) {
        let now = self.now;
        let Some(stream) = &mut self.stream else { return };
        for turn in 0.. {
            assert!(turn < 100_000, "packets without end");
            let mut out = Vec::new();
            if stream.poll_segment(now, &mut out).is_none() {
                break;
            }
            self.emitted.push_back((now, out));
        }
    }

    fn expect_silence(&self) {
        if let Some((at, bytes)) = self.emitted.front() {
            let packet = Packet::parse(bytes).unwrap();
            self.fail(format!("unexpected at {:?}: {}", *at - self.start, show(&packet)));
        }
    }

    fn expect(&mut self, at: Instant, what: &str) {
        if self.emitted.is_empty() {
            self.advance(at + TOLERANCE);
            self.pump();
        }
        let Some((sent, bytes)) = self.emitted.pop_front() else { self.fail("nothing went out") };
        let packet = Packet::parse(&bytes).unwrap();
        let shown = show(&packet);
        let off = sent.max(at) - sent.min(at);
        let late = format!("{:?}", sent.saturating_duration_since(self.start));
        assert!(off <= TOLERANCE, "{}: went out at {late}: {shown}", self.line);
        let expected = self.parse(what, OURS, THEIRS);
        let early = expected.early.is_none_or(|early| packet.payload == self.options(early));
        let same = early
            && packet.header.flags == expected.flags
            && packet.header.seq == expected.seq
            && (expected.any_ack || packet.header.ack == expected.ack)
            && expected.window.is_none_or(|window| window == packet.header.window)
            && (expected.any_payload || packet.payload == expected.payload);
        if !same {
            self.fail(format!("went out: {shown}"));
        }
    }

    fn inject(&mut self, what: &str) {
        let expected = self.parse(what, THEIRS, OURS);
        let header = Header {
            seq: expected.seq,
            ack: expected.ack,
            window: expected.window.unwrap_or(0),
            ..Header::new(Protocol::Stream, expected.flags, endpoint(2, 7), endpoint(1, 50_000))
        };
        let mut payload = expected.payload;
        if expected.flags.contains(Flags::SYN) && self.peer == Peer::Extended {
            payload = self.options(expected.early.unwrap_or(0));
        }
        let now = self.now;
        match &mut self.stream {
            Some(stream) => {
                assert_eq!(stream.on_segment(now, &header, &payload), Verdict::Taken, "{}", self.line)
            }
            None => self.stream = Some(Stream::accept(&self.config, now, &header, &payload, OURS)),
        }
    }

    /// What one of ours writes into its SYN.
    fn options(&self, early: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let config = Config { options: true, early_data: true, ..self.config };
        let mut stream = Stream::connect(&config, self.now, endpoint(2, 7), endpoint(1, 50_000), THEIRS);
        assert_eq!(stream.write(self.now, bytes_at(0, early)), Ok(early));
        let _ = stream.poll_segment(self.now, &mut out);
        Packet::parse(&out).unwrap().payload.to_vec()
    }

    fn expect_read(&mut self, len: usize) {
        let mut got = 0;
        while got < len {
            let now = self.now;
            match self.stream().read(now, len - got) {
                Ok(Read::Data(data)) => {
                    assert_eq!(data, bytes_at(self.read, data.len()), "{}", self.line);
                    self.read += data.len() as u64;
                    got += data.len();
                }
                other => self.fail(format!("read says {other:?} after {got}")),
            }
        }
    }

    fn parse(&self, what: &str, from: Seq, to: Seq) -> Expected {
        let mut words = what.split_whitespace();
        let flags = words.next().unwrap_or_default();
        let mut expected = Expected {
            flags: Flags::NONE,
            seq: from,
            ack: Seq(0),
            any_ack: flags.contains('S'),
            window: None,
            payload: Vec::new(),
            any_payload: flags.contains('S'),
            early: None,
        };
        for flag in flags.chars() {
            expected.flags |= match flag {
                'S' => Flags::SYN,
                'F' => Flags::FIN,
                'R' => Flags::RST,
                '.' => Flags::ACK,
                other => self.fail(format!("no flag {other}")),
            };
        }
        let place = words.next().unwrap_or("0");
        let (seq, len) = match place.split_once('(') {
            Some((seq, len)) => (seq, len.trim_end_matches(')').parse().unwrap()),
            None => (place, 0usize),
        };
        let seq: i64 = seq.parse().unwrap();
        expected.seq = Seq(from.0.wrapping_add(seq as u32));
        expected.payload = bytes_at(seq.max(1) as u64 - 1, len).to_vec();
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_default();
            match word {
                "ack" if value == "*" => expected.any_ack = true,
                "ack" => {
                    expected.any_ack = false;
                    expected.ack = to + value.parse::<u32>().unwrap();
                }
                "early" => expected.early = Some(value.parse().unwrap()),
                "win" => expected.window = Some(value.parse().unwrap()),
                "sack" => {
                    let mut list = SackList::EMPTY;
                    for block in value.split(',') {
                        let (left, right) = block.split_once('-').unwrap();
                        list.push(SackBlock {
                            left: to + left.parse::<u32>().unwrap(),
                            right: to + right.parse::<u32>().unwrap(),
                        });
                    }
                    expected.payload.clear();
                    list.emit(&mut expected.payload);
                }
                other => self.fail(format!("no word {other}")),
            }
        }
        expected
    }
}

struct Expected {
    flags: Flags,
    seq: Seq,
    ack: Seq,
    any_ack: bool,
    window: Option<u16>,
    payload: Vec<u8>,
    any_payload: bool,
    early: Option<usize>,
}

fn show(packet: &Packet<'_>) -> String {
    let header = &packet.header;
    let mut flags = String::new();
    for (flag, name) in [(Flags::SYN, 'S'), (Flags::FIN, 'F'), (Flags::RST, 'R'), (Flags::ACK, '.')] {
        if header.flags.contains(flag) {
            flags.push(name);
        }
    }
    let mut text = format!(
        "{flags} {}({}) ack {} win {}",
        (header.seq - OURS).cast_signed(),
        packet.payload.len(),
        (header.ack - THEIRS).cast_signed(),
        header.window
    );
    if let Some(list) = SackList::parse(packet.payload, 32) {
        for block in list.blocks() {
            text += &format!(" sack {}-{}", block.left - THEIRS, block.right - THEIRS);
        }
    }
    text
}
