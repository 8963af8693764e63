//! What is left of a stream's throughput while others flood the node, from many addresses, with what costs it work:
//! key exchanges, dials, relayed frames. In each round the stream runs alone, beside the same flood towards a socket that
//! nobody reads, and under the flood, one after the other, so that what disturbs one disturbs the others. The second shows
//! what sending all that takes of this machine, which is no work of the node.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use pilot_client::NodeId;
use pilot_crypto::{AgreementKey, Identity};
use pilot_wire::{
    Addr, Port,
    beacon::Message,
    ipc::{Call, Status},
    packet::{Flags, Header, Packet, Protocol},
    tunnel::{Extension, Frame, KeyExchange, MESSAGE_LEN, Nonce, signed_bytes},
};
use serde::{Deserialize, Serialize};

use crate::{
    Failure, Options,
    process::{Process, cpu_of, say},
    report::{Cell, Column, Table},
    side::Side,
    stage::{Daemon, Stage},
    work::Task,
};

/// Datagrams a second.
const RATE: u32 = 50_000;

/// Addresses they come from.
const SOURCES: u32 = 500;

/// Different datagrams, sent again and again. A node has no memory that long of those it refused.
const DATAGRAMS: u32 = 20_000;

/// How often the sender looks at its clock.
const TICK: Duration = Duration::from_millis(1);

/// Bytes of the stream.
const BULK: Task = Task::Bulk(2_000_000_000);
const QUICK: Task = Task::Bulk(20_000_000);

/// How long a node is flooded that has nothing else to do.
const ONLY: Duration = Duration::from_secs(3);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    /// Initiations with good signatures, of nodes that there are not and in the name of the peer.
    KeyExchanges,
    /// First packets of streams in the peer's name, in clear and under keys that are none.
    Dials,
    /// Frames for the node, to the beacon in the peer's name and to the node in the beacon's.
    Relayed,
}

const KINDS: [(&str, Kind); 3] =
    [("key exchanges", Kind::KeyExchanges), ("dials", Kind::Dials), ("relayed frames", Kind::Relayed)];

/// What the role is to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Order {
    kind: Kind,
    /// In whose name.
    peer: u32,
    /// Who is flooded.
    node: u32,
    /// Its tunnels.
    tunnels: SocketAddr,
    beacon: SocketAddr,
}

/// The table.
pub(crate) async fn tables(options: &Options) -> Result<Vec<Table>, Failure> {
    let stage = Stage::open()?;
    let (a, b) = (stage.daemon("bench-a", &[]).await?, stage.daemon("bench-b", &[]).await?);
    a.befriend(&b).await?;
    let (peer, node, tunnels) = (a.node.0, b.node.0, listens(&b).await?);
    let beacon = stage.beacon().parse()?;
    let node_process = b.process.id();
    let mut side = Side::between(a, b)?;
    let task = if options.quick { QUICK } else { BULK };
    let Task::Bulk(bytes) = task else { return Err("the stream goes in one direction".into()) };
    #[expect(clippy::cast_precision_loss, reason = "measurements are no more exact")]
    let megabytes = bytes as f64 / 1e6;
    // Windows open, paths are probed.
    side.measure(QUICK)?;
    let nobody = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let elsewhere = nobody.local_addr()?;
    let mut figures = KINDS.map(|_| [const { Vec::new() }; 7]);
    for _ in 0..options.rounds() {
        for ((_, kind), runs) in KINDS.iter().zip(&mut figures) {
            let mut under = |tunnels, beacon| -> Result<_, Failure> {
                let flood = Flood::begin(Order { kind: *kind, peer, node, tunnels, beacon })?;
                Ok((megabytes / side.measure(task)?.done.seconds, flood.end()?))
            };
            let (beside, _) = under(elsewhere, elsewhere)?;
            let (under, sent) = under(tunnels, beacon)?;
            let alone = megabytes / side.measure(task)?.done.seconds;
            let cost = idle_cost(node_process, Order { kind: *kind, peer, node, tunnels, beacon }).await?;
            let figures = [alone, beside, under, 100.0 * under / beside, 100.0 * under / alone, cost, sent];
            runs.iter_mut().zip(figures).for_each(|(runs, figure)| runs.push(figure));
        }
    }
    let columns = vec![
        Column::new("alone", "MB/s"),
        Column::new("beside it", "MB/s"),
        Column::new("under it", "MB/s"),
        Column::new("kept", "%"),
        Column::new("of alone", "%"),
        Column::new("idle node", "µs/datagram"),
        Column::new("flood", "datagrams/s"),
    ];
    let title = format!("One stream while {RATE} datagrams a second come from {SOURCES} other addresses");
    let mut table = Table::new("floods", title, columns).about("flood").charted(&["kept"]);
    for ((name, _), runs) in KINDS.iter().zip(&figures) {
        table.row(*name, runs.iter().map(|runs| Cell::of(runs)).collect());
    }
    table.note("Beside it: the same flood goes to a socket that nobody reads, so that who floods takes as much of the machine.");
    table.note("Kept: under it, as a part of beside it.");
    table.note(
        "Idle node: processor time of the daemon for each datagram of the flood, when there is no stream.",
    );
    Ok(vec![table])
}

/// Microseconds of processor time that a node without a stream spends for each datagram of a flood, its kernel calls
/// included.
async fn idle_cost(process: u32, order: Order) -> Result<f64, Failure> {
    let flood = Flood::begin(order)?;
    let (begun, before) = (Instant::now(), cpu_of(process));
    tokio::time::sleep(ONLY).await;
    let (spent, took) = (cpu_of(process) - before, begun.elapsed().as_secs_f64());
    Ok(1e6 * spent / (flood.end()? * took))
}

/// Where the daemon's tunnels are.
async fn listens(daemon: &Daemon) -> Result<SocketAddr, Failure> {
    let status: Status = daemon.client().await?.call(Call::Status).await?;
    Ok(status.listen.parse()?)
}

/// A flood under way.
struct Flood {
    process: Process,
    begun: Instant,
}

impl Flood {
    fn begin(order: Order) -> Result<Self, Failure> {
        let process = Process::role(&["flood", &serde_json::to_string(&order)?])?;
        process.line()?;
        Ok(Self { process, begun: Instant::now() })
    }

    /// Datagrams a second that it had sent.
    fn end(mut self) -> Result<f64, Failure> {
        let sent: u32 = self.process.ask("enough")?;
        Ok(f64::from(sent) / self.begun.elapsed().as_secs_f64())
    }
}

/// The role: sends from the first moment until a line comes, and answers that with how many datagrams there were.
pub(crate) fn play(words: &[&str]) -> Result<(), Failure> {
    let [order] = words else { return Err("a flood has one order".into()) };
    let order: Order = serde_json::from_str(order)?;
    let datagrams: Vec<_> = (0..DATAGRAMS).map(|number| order.datagram(number)).collect();
    let sources: Vec<UdpSocket> = (0..SOURCES)
        .map(|number| {
            #[expect(clippy::cast_possible_truncation, reason = "both are below 256")]
            let at = [127, 1, (number / 250) as u8, (number % 250 + 1) as u8];
            UdpSocket::bind(SocketAddr::from((at, 0)))
        })
        .collect::<Result<_, _>>()?;
    sources.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
    let (enough, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        // At its end nobody listens any more.
        let _ = enough.send(());
    });
    say("ready")?;
    let (begun, mut sent) = (Instant::now(), 0_u32);
    let mut all = datagrams.iter().cycle().zip(sources.iter().cycle());
    while told.try_recv().is_err() {
        let due = begun.elapsed().as_secs_f64() * f64::from(RATE);
        while f64::from(sent) < due {
            if let Some(((to, bytes), source)) = all.next() {
                // What the system does not take is a datagram less, and seen in no count of ours: a full buffer is a flood.
                let _ = source.send_to(bytes, to);
            }
            sent = sent.saturating_add(1);
        }
        std::thread::sleep(TICK);
    }
    say(&sent.to_string())
}

impl Order {
    /// One datagram, and where it goes.
    fn datagram(&self, number: u32) -> (SocketAddr, Vec<u8>) {
        let peer = NodeId(self.peer);
        let mut bytes = Vec::new();
        let to = match self.kind {
            Kind::KeyExchanges => {
                let sender = if number.is_multiple_of(2) { peer } else { NodeId(1_000_000 + number) };
                key_exchange(number, sender, &mut bytes);
                self.tunnels
            }
            Kind::Dials => {
                if number.is_multiple_of(2) {
                    let packet = self.syn(number);
                    Frame::Plain { packet: &packet }.emit(&mut bytes);
                } else {
                    sealed(number, peer, &mut bytes);
                }
                self.tunnels
            }
            Kind::Relayed => {
                let mut frame = Vec::new();
                sealed(number, peer, &mut frame);
                if number.is_multiple_of(2) {
                    let destination = NodeId(self.node);
                    Message::Relay { source: peer, destination, frame: &frame }.emit(&mut bytes);
                    self.beacon
                } else {
                    Message::RelayDeliver { source: peer, frame: &frame }.emit(&mut bytes);
                    self.tunnels
                }
            }
        };
        (to, bytes)
    }

    /// The first packet of a stream from the peer.
    fn syn(&self, number: u32) -> Vec<u8> {
        let [.., high, low] = number.to_be_bytes();
        let from = Addr::backbone(NodeId(self.peer)).port(Port(u16::from_be_bytes([high, low])));
        let to = Addr::backbone(NodeId(self.node)).port(Port::ECHO);
        let mut packet = Vec::new();
        Packet { header: Header::new(Protocol::Stream, Flags::SYN, from, to), payload: b"" }
            .emit(&mut packet);
        packet
    }
}

/// Of a node with an identity of its own, so that nobody knows whether it is worth a look.
fn key_exchange(number: u32, sender: NodeId, out: &mut Vec<u8>) {
    let mut seed = [3; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let (identity, agreement) = (Identity::from_seed(&seed), AgreementKey::from_bytes(&seed).public());
    let mut message = [0x5A; MESSAGE_LEN];
    message[..32].copy_from_slice(&seed);
    let mut trailer = Vec::new();
    Extension::Initiation { message, cookie: None }.emit(&mut trailer);
    let signature = identity.sign(&signed_bytes(sender, &agreement));
    let identity = identity.public();
    Frame::KeyExchange(KeyExchange { sender, agreement, identity, signature, trailer: &trailer }).emit(out);
}

/// As long as a sealed SYN, under no key.
fn sealed(number: u32, sender: NodeId, out: &mut Vec<u8>) {
    let nonce = Nonce { prefix: number.to_be_bytes(), counter: u64::from(number) + 1 };
    Frame::Sealed { sender, nonce, ciphertext: &[0x5A; 66] }.emit(out);
}
