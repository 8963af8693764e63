//! How many datagrams the beacon relays, one by one and in trains: `cargo run --release -p pilot-rendezvous --example
//! relay_bench [SECONDS]`. The beacon is a process of its own, so that its share of the processor is known; the two
//! nodes are threads here. At most a window of datagrams is on its way, so that what is lost is lost by the beacon.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement that fails says why")]

use std::{
    io::{self, BufRead, BufReader, IoSliceMut, Write},
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pilot_rendezvous::{Config, beacon::RelayLimits, registry::Rate};
use pilot_wire::{
    NodeId,
    beacon::{Message, emit_relay_header},
};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};

/// Bytes of the frame in each relayed datagram.
const FRAME: usize = 1400;
/// Datagrams of a train: what fits into 64 KiB.
const TRAIN: usize = 44;
/// Datagrams on their way at most.
const WINDOW: u64 = 256;
/// What is not there after this is lost.
const PATIENCE: Duration = Duration::from_millis(100);

fn main() {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("beacon") => beacon(),
        seconds => {
            let seconds = seconds.map_or(5, |text| text.parse().unwrap());
            println!(
                "{:>7} {:>14} {:>9} {:>9} {:>16} {:>14} {:>7}",
                "", "datagrams/s", "Gbit/s", "beacon %", "ns of beacon", "per core /s", "lost %"
            );
            for (name, train) in [("plain", 1), ("trains", TRAIN)] {
                measure(name, train, Duration::from_secs(seconds));
            }
        }
    }
}

/// The process that is measured: it ends with its input.
fn beacon() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new(folder.path().join("store"));
    config.registry_addr.set_port(0);
    config.beacon_addr.set_port(0);
    let unlimited = Rate { burst: u32::MAX, per_second: 1e12 };
    config.beacon.relay = RelayLimits { frames: unlimited, bytes: unlimited, total: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let end = async {
        let (gone, end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = io::stdin().lock().read_line(&mut String::new());
            let _ = gone.send(());
        });
        let _ = end.await;
    };
    let ready = |bound: pilot_rendezvous::Bound| {
        println!("{}", bound.beacon);
        io::stdout().flush().unwrap();
    };
    runtime.block_on(pilot_rendezvous::run(config, ready, end)).unwrap();
}

struct Node {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Node {
    fn new(node: NodeId, beacon: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let raw = socket2::SockRef::from(&socket);
        raw.set_recv_buffer_size(4 << 20).unwrap();
        raw.set_send_buffer_size(4 << 20).unwrap();
        let mut message = Vec::new();
        Message::Discover { node, key: None, proof: None }.emit(&mut message);
        socket.send_to(&message, beacon).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.recv_from(&mut [0; 64]).unwrap();
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).unwrap();
        // quinn-udp makes it non-blocking; here two threads have nothing else to do.
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, state }
    }
}

fn measure(name: &str, train: usize, time: Duration) {
    let (mut child, beacon) = start();
    let sender = Node::new(NodeId(1), beacon);
    let receiver = Node::new(NodeId(2), beacon);
    let got = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let counting = {
        let (got, over) = (Arc::clone(&got), Arc::clone(&over));
        std::thread::spawn(move || count(&receiver, &got, &over))
    };
    let mut datagrams = Vec::new();
    for _ in 0..train {
        emit_relay_header(NodeId(1), NodeId(2), &mut datagrams);
        datagrams.resize(datagrams.len() + FRAME, 7);
    }
    let segment = datagrams.len() / train;
    let begin = Instant::now();
    let (cpu, mut sent, mut lost) = (cpu_of(&child), 0, 0);
    while begin.elapsed() < time {
        let waits = Instant::now();
        while sent - lost - got.load(Ordering::Acquire) > WINDOW - train as u64 {
            std::thread::yield_now();
            if waits.elapsed() > PATIENCE {
                lost = sent - got.load(Ordering::Acquire);
            }
        }
        let transmit = Transmit {
            destination: beacon,
            ecn: None,
            contents: &datagrams,
            segment_size: (train > 1).then_some(segment),
            src_ip: None,
        };
        sender.state.try_send(UdpSockRef::from(&sender.socket), &transmit).unwrap();
        sent += train as u64;
    }
    let waits = Instant::now();
    while got.load(Ordering::Acquire) < sent && waits.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    let (elapsed, cpu) = (begin.elapsed().as_secs_f64(), cpu_of(&child) - cpu);
    over.store(true, Ordering::Release);
    counting.join().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let (arrived, sent) = (got.load(Ordering::Acquire) as f64, sent as f64);
    println!(
        "{name:>7} {:>14.0} {:>9.2} {:>9.0} {:>16.0} {:>14.0} {:>7.3}",
        arrived / elapsed,
        arrived * 8.0 * FRAME as f64 / elapsed / 1e9,
        100.0 * cpu / elapsed,
        cpu / arrived * 1e9,
        arrived / cpu,
        100.0 * (1.0 - arrived / sent)
    );
    drop(child.stdin.take());
    child.wait().unwrap();
}

fn start() -> (Child, SocketAddr) {
    let program: PathBuf = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    let mut child = command.arg("beacon").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().parse().unwrap())
}

fn count(receiver: &Node, got: &AtomicU64, over: &AtomicBool) {
    // One: a blocking call would wait until all are filled.
    let mut buffer = vec![0; 65_536];
    let mut metas = [RecvMeta::default()];
    while !over.load(Ordering::Acquire) {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let Ok(count) = receiver.state.recv(UdpSockRef::from(&receiver.socket), &mut slices, &mut metas)
        else {
            continue;
        };
        let datagrams: usize = metas[..count].iter().map(|meta| meta.len.div_ceil(meta.stride.max(1))).sum();
        got.fetch_add(datagrams as u64, Ordering::Release);
    }
}

/// Seconds of the processor that a process has had.
fn cpu_of(child: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
