//! What a rendezvous costs, with many nodes: `cargo run --release -p pilot-rendezvous --example load -- 10000 100000`.
//!
//! For each number it starts a rendezvous in a process of its own, registers that many nodes over some hundreds of
//! connections, lets all of them send heartbeats and polls at their usual rate, and looks up and registers as fast as it
//! is answered. It prints memory and processor time of the rendezvous, as the system counts them, so other programs on
//! the machine make rates lower but costs hardly higher. With `--` and nothing more it takes 10,000 nodes. The store is a
//! file in a temporary folder, or one that is named before the numbers (`postgres://...`: a database that may be filled);
//! `over=8` is another number of connections.
#![expect(clippy::print_stdout, reason = "the numbers are its output")]

use pilot_crypto::Identity;
use pilot_rendezvous::{Config, Http, registry::Rate, run, store::StoreUrl};
use pilot_wire::{
    NodeId,
    registry::{Decoder, Envelope, Register, Registered, Request, Resolve, Response, Signed, frame},
};
use std::{
    error::Error,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

type Failure = Box<dyn Error + Send + Sync>;

/// How long each kind of request is sent.
const SPAN: Duration = Duration::from_secs(5);
/// Between heartbeats of a node, each with a poll. What 1.18.0 does at its most eager.
const BEAT: Duration = Duration::from_secs(30);
/// Connections that the nodes share; each speaks for its share, one request at a time.
const CONNECTIONS: usize = 200;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, store] = words.as_slice()
        && word == "serve"
    {
        return serve(&store.parse()?);
    }
    let mut load = Load { named: None, connections: CONNECTIONS };
    let mut sizes = Vec::new();
    for word in words {
        if let Some(connections) = word.strip_prefix("over=") {
            load.connections = connections.parse()?;
        } else if let Ok(size) = word.parse() {
            sizes.push(size);
        } else {
            load.named = Some(word);
        }
    }
    let sizes = if sizes.is_empty() { vec![10_000] } else { sizes };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for nodes in sizes {
        runtime.block_on(measure(&load, nodes))?;
    }
    Ok(())
}

/// What was asked for.
struct Load {
    /// The store, if one was named.
    named: Option<String>,
    connections: usize,
}

/// A rendezvous on one thread, until it is killed.
fn serve(store: &StoreUrl) -> Result<(), Failure> {
    let mut config = Config::new(store.clone());
    config.registry_addr.set_port(0);
    config.beacon_addr.set_port(0);
    config.connections.requests = Rate { burst: u32::MAX, per_second: 1e9 };
    config.http = Some(Http::beside());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let announce = |bound: pilot_rendezvous::Bound| println!("{}", bound.registry);
    Ok(runtime.block_on(run(config, announce, std::future::pending()))?)
}

/// A rendezvous in a process of its own; killed when dropped.
struct Rendezvous {
    process: Child,
    registry: SocketAddr,
    took: Duration,
}

impl Rendezvous {
    fn start(store: &str) -> Result<Self, Failure> {
        let start = Instant::now();
        let mut process =
            Command::new(std::env::current_exe()?).arg("serve").arg(store).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let output = process.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        Ok(Self { process, registry: line.trim().parse()?, took: start.elapsed() })
    }

    /// Resident bytes.
    fn memory(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024.0)
    }

    /// Seconds of processor time of all its threads.
    fn cpu(&self) -> Result<f64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The name in parentheses may contain anything.
        let (_, fields) = stat.rsplit_once(')').ok_or("no stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn measure(load: &Load, nodes: usize) -> Result<(), Failure> {
    let folder = Folder(std::env::temp_dir().join(format!("pilot-load-{}-{nodes}", std::process::id())));
    std::fs::create_dir(&folder.0)?;
    let file = folder.0.join("registry.redb");
    // With its password, which its display leaves out.
    let store = load.named.clone().unwrap_or_else(|| file.display().to_string());
    let rendezvous = Rendezvous::start(&store)?;
    let empty = rendezvous.memory()?;
    println!("{nodes} nodes");

    // Everybody arrives. The clients' own keys and signatures are made before the clock runs.
    let mut conns = Vec::new();
    for share in shares(nodes, load.connections) {
        conns.push(Conn::open(rendezvous.registry, share).await?);
    }
    let lone = conns.len();
    let (took, cpu, mut conns) = timed(&rendezvous, conns, Conn::register_all).await?;
    report("registrations, durable", nodes, took, cpu);
    let memory = rendezvous.memory()?;
    println!(
        "  memory: {:.1} MB, {:.0} bytes a node over the {:.1} MB of an empty one ({lone} connections)",
        memory / 1e6,
        (memory - empty) / to_f64(nodes),
        empty / 1e6,
    );

    // Life at the usual rate: once with signatures that were never seen, then as it goes on.
    for turn in ["first", "every other"] {
        let before = rendezvous.cpu()?;
        let mut tasks = JoinSet::new();
        for mut conn in std::mem::take(&mut conns) {
            tasks.spawn(async move { conn.live(BEAT).await.map(|count| (count, conn)) });
        }
        let mut sent = 0;
        while let Some(done) = tasks.join_next().await {
            let (count, conn) = done??;
            sent += count;
            conns.push(conn);
        }
        let cpu = rendezvous.cpu()? - before;
        let seconds = BEAT.as_secs_f64();
        println!(
            "  {turn} heartbeat and poll, each node in {seconds} s: {:.0}/s of {:.0}/s, {:.1} % of a core, {:.1} us each",
            to_f64(sent) / seconds,
            2.0 * to_f64(nodes) / seconds,
            100.0 * cpu / seconds,
            1e6 * cpu / to_f64(sent.max(1)),
        );
    }
    println!("  memory: {:.1} MB", rendezvous.memory()? / 1e6);

    // As fast as it goes.
    for (name, kind) in [
        ("lookups", Kind::Lookup),
        ("resolves, signed", Kind::Resolve),
        ("heartbeats", Kind::Beat),
        ("known keys register", Kind::Register),
    ] {
        let end = Instant::now() + SPAN;
        let before = rendezvous.cpu()?;
        let mut tasks = JoinSet::new();
        for mut conn in std::mem::take(&mut conns) {
            tasks.spawn(async move { conn.hammer(kind, end).await.map(|count| (count, conn)) });
        }
        let mut sent = 0;
        while let Some(done) = tasks.join_next().await {
            let (count, conn) = done??;
            sent += count;
            conns.push(conn);
        }
        report(name, sent, SPAN, rendezvous.cpu()? - before);
    }
    println!("  memory: {:.1} MB", rendezvous.memory()? / 1e6);
    drop(conns);
    drop(rendezvous);
    let size = std::fs::metadata(&file).map_or(0, |file| file.len());
    let again = Rendezvous::start(&store)?;
    println!(
        "  start with {:.1} MB on disk: {:.2} s, {:.2} s of processor time, {:.1} MB of memory\n",
        to_f64(usize::try_from(size)?) / 1e6,
        again.took.as_secs_f64(),
        again.cpu()?,
        again.memory()? / 1e6,
    );
    Ok(())
}

fn report(name: &str, count: usize, took: Duration, cpu: f64) {
    let count = to_f64(count);
    println!(
        "  {name}: {:.0}/s, {:.1} us of a core each, so {:.0}/s on one core",
        count / took.as_secs_f64(),
        1e6 * cpu / count.max(1.0),
        count / cpu.max(1e-9),
    );
}

#[expect(clippy::cast_precision_loss, reason = "measurements are no more exact")]
fn to_f64(count: usize) -> f64 {
    count as f64
}

/// Numbers of the nodes of each connection.
fn shares(nodes: usize, connections: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let connections = connections.clamp(1, nodes.max(1));
    (0..connections).map(move |at| at * nodes / connections..(at + 1) * nodes / connections)
}

async fn timed<F, R>(
    rendezvous: &Rendezvous,
    conns: Vec<Conn>,
    work: F,
) -> Result<(Duration, f64, Vec<Conn>), Failure>
where
    F: Fn(Conn) -> R,
    R: Future<Output = Result<Conn, Failure>> + Send + 'static,
{
    let (start, before) = (Instant::now(), rendezvous.cpu()?);
    let mut tasks: JoinSet<Result<Conn, Failure>> = conns.into_iter().map(work).collect();
    let mut back = Vec::new();
    while let Some(conn) = tasks.join_next().await {
        back.push(conn??);
    }
    Ok((start.elapsed(), rendezvous.cpu()? - before, back))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Lookup,
    Resolve,
    Beat,
    Register,
}

/// A node: its requests are signed once, as those of 1.18.0 are, which signs the same text for each.
struct Node {
    id: NodeId,
    register: Arc<[u8]>,
    beat: Arc<[u8]>,
    poll: Arc<[u8]>,
    resolve: Arc<[u8]>,
    lookup: Arc<[u8]>,
    identity: Identity,
}

/// A connection that speaks for its share of the nodes.
struct Conn {
    stream: TcpStream,
    decoder: Decoder,
    nodes: Vec<Node>,
}

impl Conn {
    async fn open(registry: SocketAddr, share: std::ops::Range<usize>) -> Result<Self, Failure> {
        let stream = TcpStream::connect(registry).await?;
        stream.set_nodelay(true)?;
        let nodes = share.map(|number| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&u64::try_from(number)?.to_be_bytes());
            let identity = Identity::from_seed(&seed);
            let port = 1024 + number % 60_000;
            let request = Register {
                public_key: identity.public().into(),
                listen_addr: format!("127.0.0.1:{port}"),
                version: "v1.18.0".to_owned(),
                hostname: format!("node-{number}"),
                lan_addrs: vec![format!("192.168.{}.{}:{port}", number / 256 % 256, number % 256)],
                ..Register::default()
            };
            let register = signed(&identity, Request::Register(request))?;
            let none: Arc<[u8]> = Arc::from([]);
            let [beat, poll, resolve, lookup] = std::array::from_fn(|_| Arc::clone(&none));
            Ok(Node { id: NodeId::UNSET, register, beat, poll, resolve, lookup, identity })
        });
        let nodes = nodes.collect::<Result<Vec<_>, Failure>>()?;
        Ok(Self { stream, decoder: Decoder::new(), nodes })
    }

    async fn register_all(mut self) -> Result<Self, Failure> {
        for at in 0..self.nodes.len() {
            let request = Arc::clone(&self.nodes[at].register);
            let response = self.ask(&request).await?;
            let Response::Register(Registered { node_id, .. }) = response else {
                return Err(format!("{response:?}").into());
            };
            self.nodes[at].id = node_id;
        }
        for node in &mut self.nodes {
            let about = || Signed { node_id: node.id, ..Signed::default() };
            node.beat = signed(&node.identity, Request::Heartbeat(about()))?;
            node.poll = signed(&node.identity, Request::PollHandshakes(about()))?;
            node.lookup = signed(&node.identity, Request::Lookup(about()))?;
            let (node_id, requester_id) = (node.id, node.id);
            let resolve = Resolve { node_id, requester_id, ..Resolve::default() };
            node.resolve = signed(&node.identity, Request::Resolve(resolve))?;
        }
        Ok(self)
    }

    /// Heartbeats and polls of all its nodes, evenly over time.
    async fn live(&mut self, time: Duration) -> Result<usize, Failure> {
        let (start, mut sent) = (tokio::time::Instant::now(), 0);
        let Ok(count) = u32::try_from(self.nodes.len()) else { return Ok(0) };
        for turn in 0.. {
            let due = start + BEAT / count.max(1) * turn;
            if due >= start + time || count == 0 {
                return Ok(sent);
            }
            tokio::time::sleep_until(due).await;
            let node = &self.nodes[usize::try_from(turn % count)?];
            for request in [Arc::clone(&node.beat), Arc::clone(&node.poll)] {
                self.ask(&request).await?;
                sent += 1;
            }
        }
        Ok(sent)
    }

    async fn hammer(&mut self, kind: Kind, end: Instant) -> Result<usize, Failure> {
        for turn in 0.. {
            if Instant::now() >= end {
                return Ok(turn);
            }
            let node = &self.nodes[turn % self.nodes.len()];
            let request = Arc::clone(match kind {
                Kind::Lookup => &node.lookup,
                Kind::Resolve => &node.resolve,
                Kind::Beat => &node.beat,
                Kind::Register => &node.register,
            });
            self.ask(&request).await?;
        }
        Ok(0)
    }

    async fn ask(&mut self, request: &[u8]) -> Result<Response, Failure> {
        self.stream.write_all(request).await?;
        loop {
            if let Some(content) = self.decoder.next()? {
                let response = Response::parse(&content)?;
                if let Response::Error { error } = response {
                    return Err(error.into());
                }
                return Ok(response);
            }
            let mut buffer = [0; 2048];
            match self.stream.read(&mut buffer).await? {
                0 => return Err("closed".into()),
                length => self.decoder.feed(&buffer[..length]),
            }
        }
    }
}

fn signed(identity: &Identity, request: Request) -> Result<Arc<[u8]>, Failure> {
    let envelope = Envelope::from(request.sign_with(|text| identity.sign(text)));
    Ok(frame(&envelope.to_json())?.into())
}
