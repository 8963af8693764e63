//! What the cables of the internet carry, for whoever has to find out why a pair did not meet.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

/// Every protocol, in the byte order of the network.
const ALL: i32 = 0x0003_u16.to_be() as i32;

/// Bytes of a datagram that are looked at.
const LOOKED_AT: usize = 128;

/// Datagrams that are kept. The beginning tells most, so what comes later is only counted.
const KEPT_MAX: usize = 2_000;

/// Packets that have come into the bridge and not gone out yet, of which there are never more than its queues hold.
const UNPAIRED_MAX: usize = 256;

/// How often the end of the recording is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A recording of the UDP datagrams of a bridge.
#[derive(Debug)]
pub(crate) struct Trace {
    lines: Arc<Mutex<Lines>>,
    ended: Arc<AtomicBool>,
    recording: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Lines {
    text: String,
    kept: usize,
    more: usize,
}

impl Trace {
    /// Starts recording.
    pub(crate) fn start(bridge: &Namespace) -> Self {
        let socket = bridge.enter(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(ALL))));
        let mut socket = socket.expect("the lab runs as root");
        socket.set_read_timeout(Some(LOOK_AGAIN)).expect("a socket takes a time-out");
        let (lines, ended) = (Arc::new(Mutex::new(Lines::default())), Arc::new(AtomicBool::new(false)));
        let (written, end) = (Arc::clone(&lines), Arc::clone(&ended));
        let recording = thread::spawn(move || record(&mut socket, &written, &end));
        Self { lines, ended, recording: Some(recording) }
    }

    /// What was recorded so far, a line for each datagram.
    pub(crate) fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{}and {} more\n", lines.text, lines.more)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(recording) = self.recording.take() {
            // A recording that failed has said so.
            let _ = recording.join();
        }
    }
}

fn record(socket: &mut Socket, lines: &Mutex<Lines>, ended: &AtomicBool) {
    let begin = Instant::now();
    let mut buffer = [0; LOOKED_AT];
    let mut unpaired: VecDeque<Vec<u8>> = VecDeque::new();
    while !ended.load(Ordering::Relaxed) {
        let Ok(len) = socket.read(&mut buffer) else { continue };
        let packet = &buffer[..len];
        // Each is seen twice, on its way in and on its way out.
        if let Some(twin) = unpaired.iter().position(|other| other == packet) {
            unpaired.remove(twin);
            continue;
        }
        unpaired.push_back(packet.to_vec());
        if unpaired.len() > UNPAIRED_MAX {
            unpaired.pop_front();
        }
        let Some((from, to, len)) = datagram(packet) else { continue };
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.kept == KEPT_MAX {
            lines.more += 1;
            continue;
        }
        lines.kept += 1;
        let first: String = packet[28..].iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        // Writing to a string does not fail.
        let _ = writeln!(
            lines.text,
            "{:>8.4} {from:>20} > {to:<20} {len:>5} {first}",
            begin.elapsed().as_secs_f64()
        );
    }
}

/// Sender, receiver and length of a UDP datagram in an IPv4 packet without options.
fn datagram(packet: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4, u16)> {
    let ([0x45, ..], 17) = (packet.get(..28)?, packet[9]) else { return None };
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let ip = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    Some((
        SocketAddrV4::new(ip(12), word(20)),
        SocketAddrV4::new(ip(16), word(22)),
        word(24).saturating_sub(8),
    ))
}
