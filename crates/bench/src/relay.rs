//! How many datagrams the beacon relays, one by one and in trains. The beacon is a process of its own, so that its share
//! of the processor is known; the two nodes are threads here. At most a window of datagrams is on its way, so that what is
//! lost is lost by the beacon.

use std::{
    io::IoSliceMut,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
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

use crate::{
    Failure, Options,
    process::Process,
    report::{Cell, Column, Table},
};

/// Bytes of the frame in each relayed datagram.
const FRAME: u32 = 1400;
/// Datagrams of a train: what fits into 64 KiB.
const TRAIN: u32 = 44;
/// Datagrams on their way at most.
const WINDOW: u64 = 256;
/// What is not there after this is lost.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long datagrams are sent.
const SPAN: Duration = Duration::from_millis(1500);

/// The role: a beacon without limits, until it is ended.
pub(crate) async fn play(words: &[&str]) -> Result<(), Failure> {
    let [store] = words else { return Err("a beacon has one word".into()) };
    let mut config = Config::new(PathBuf::from(store));
    config.registry_addr.set_port(0);
    config.beacon_addr.set_port(0);
    let unlimited = Rate { burst: u32::MAX, per_second: 1e12 };
    config.beacon.relay = RelayLimits { frames: unlimited, bytes: unlimited, total: None };
    let (ready, bound) = tokio::sync::oneshot::channel();
    let announce = |bound: pilot_rendezvous::Bound| {
        // Whoever waited has been told by an error.
        let _ = ready.send(bound.beacon);
    };
    let say = async {
        match bound.await {
            Ok(beacon) => crate::process::say(&beacon.to_string()),
            Err(_) => Ok(()),
        }
    };
    let (ended, said) = tokio::join!(pilot_rendezvous::run(config, announce, std::future::pending()), say);
    ended?;
    said
}

/// The table.
pub(crate) fn tables(options: &Options) -> Result<Vec<Table>, Failure> {
    let folder = tempfile::tempdir()?;
    let beacon = Process::role(&["beacon", &folder.path().join("store").display().to_string()])?;
    let address = beacon.line()?.parse()?;
    let span = if options.quick { SPAN / 5 } else { SPAN };
    let columns = vec![
        Column::new("datagrams", "per s"),
        Column::new("rate", "Gbit/s"),
        Column::new("CPU", "ns each"),
        Column::new("so on one core", "per s"),
        Column::new("that is", "Gbit/s"),
        Column::new("lost", "%"),
    ];
    let mut table = Table::new("relay", "Datagrams of 1400 bytes through the beacon", columns);
    table = table.about("sent").charted(&["so on one core"]);
    let ways = [("one by one", 1), ("in trains", TRAIN)];
    let mut figures = ways.map(|_| vec![Vec::new(); table.columns.len()]);
    for _ in 0..options.rounds() {
        for ((_, train), figures) in ways.iter().zip(&mut figures) {
            for (runs, figure) in figures.iter_mut().zip(measure(&beacon, address, *train, span)?) {
                runs.push(figure);
            }
        }
    }
    for ((name, _), runs) in ways.iter().zip(&figures) {
        table.row(*name, runs.iter().map(|runs| Cell::of(runs)).collect());
    }
    Ok(vec![table])
}

struct Node {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Node {
    fn new(node: NodeId, beacon: SocketAddr) -> Result<Self, Failure> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let raw = socket2::SockRef::from(&socket);
        raw.set_recv_buffer_size(4 << 20)?;
        raw.set_send_buffer_size(4 << 20)?;
        let mut message = Vec::new();
        Message::Discover { node, key: None, proof: None }.emit(&mut message);
        socket.send_to(&message, beacon)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.recv_from(&mut [0; 64])?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // quinn-udp makes it non-blocking; here two threads have nothing else to do.
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, state })
    }
}

/// One figure for each column.
fn measure(process: &Process, beacon: SocketAddr, train: u32, time: Duration) -> Result<[f64; 6], Failure> {
    let sender = Node::new(NodeId(1), beacon)?;
    let receiver = Node::new(NodeId(2), beacon)?;
    let got = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let counting = {
        let (got, over) = (Arc::clone(&got), Arc::clone(&over));
        std::thread::spawn(move || count(&receiver, &got, &over))
    };
    let mut datagrams = Vec::new();
    for _ in 0..train {
        emit_relay_header(NodeId(1), NodeId(2), &mut datagrams);
        datagrams.resize(datagrams.len() + FRAME as usize, 7);
    }
    let segment = datagrams.len() / train as usize;
    let begin = Instant::now();
    let (cpu, mut sent, mut lost) = (process.cpu(), 0, 0);
    while begin.elapsed() < time {
        let waits = Instant::now();
        while sent - lost - got.load(Ordering::Acquire) > WINDOW - u64::from(train) {
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
        sender.state.try_send(UdpSockRef::from(&sender.socket), &transmit)?;
        sent += u64::from(train);
    }
    let waits = Instant::now();
    while got.load(Ordering::Acquire) < sent && waits.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    let (elapsed, cpu) = (begin.elapsed().as_secs_f64(), process.cpu() - cpu);
    over.store(true, Ordering::Release);
    counting.join().map_err(|_| "the receiver has panicked")?;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let (arrived, sent) = (got.load(Ordering::Acquire) as f64, sent as f64);
    let gigabits = |datagrams: f64| datagrams * 8.0 * f64::from(FRAME) / 1e9;
    let (rate, per_core) = (arrived / elapsed, arrived / cpu);
    let lost = 100.0 * (1.0 - arrived / sent);
    Ok([rate, gigabits(rate), cpu / arrived * 1e9, per_core, gigabits(per_core), lost])
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
