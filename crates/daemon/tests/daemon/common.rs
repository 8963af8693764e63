//! A rendezvous and daemons in one process, on loopback with free ports and temporary homes, and a local program that
//! speaks IPC frame by frame.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures,
    reason = "each test file uses its own part; what is not expected is a failure"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use pilot_daemon::{Config, Running};
use pilot_ports::Ports;
use pilot_rendezvous::{RunError, store::StoreError};
use pilot_wire::ipc::{
    ClientFrame, Command, DIALECT, DaemonFrame, Decoder, Failure, Handshake, INITIAL_CREDIT, Reply, Request,
};
use pilot_wire::{Addr, Endpoint, NodeId, Port, StreamId};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Nothing in these tests takes long; this only turns a hang into a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// A rendezvous that lives until it is dropped.
pub struct Rendezvous {
    pub registry: SocketAddr,
    pub beacon: SocketAddr,
    /// The beacon over the web.
    pub web: SocketAddr,
    tls: bool,
    directory: TempDir,
    task: JoinHandle<()>,
    ports: Option<Ports>,
}

impl Rendezvous {
    pub async fn start() -> Self {
        let ports = Ports::reserve();
        let [registry, beacon, _, web] = ports.all();
        Self::start_on(registry, beacon, web, false).await.with(ports)
    }

    /// One that is reached at another address than that of loopback.
    pub async fn start_at(any: SocketAddr) -> Self {
        Self::start_on(any, any, any, false).await
    }

    /// With TLS over the web, and a certificate of its own making.
    pub async fn start_with_tls() -> Self {
        let ports = Ports::reserve();
        let [registry, beacon, _, web] = ports.all();
        Self::start_on(registry, beacon, web, true).await.with(ports)
    }

    /// With the beacon over the web where nodes look for it, one port above the beacon.
    pub async fn start_with_web_beside() -> Self {
        let ports = Ports::reserve();
        Self::start_on(ports.registry(), ports.beacon(), ports.web(), false).await.with(ports)
    }

    fn with(mut self, ports: Ports) -> Self {
        self.ports = Some(ports);
        self
    }

    async fn start_on(registry: SocketAddr, beacon: SocketAddr, web: SocketAddr, tls: bool) -> Self {
        // `RUST_LOG=debug cargo nextest run ... --no-capture` shows what daemons think.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let directory = tempfile::tempdir().unwrap();
        let (bound, task) = run_rendezvous(directory.path(), registry, beacon, web, tls).await;
        let web = bound.web.unwrap().addr;
        Self { registry: bound.registry, beacon: bound.beacon, web, tls, directory, task, ports: None }
    }

    /// The process is gone, as after `kill -9`.
    pub async fn kill(&mut self) {
        self.task.abort();
        within("the end", async {
            while !self.task.is_finished() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Starts again with what is on disk.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.resume().await;
    }

    /// Starts again after it was killed.
    pub async fn resume(&mut self) {
        let (registry, beacon, web) = (self.registry, self.beacon, self.web);
        (_, self.task) = run_rendezvous(self.directory.path(), registry, beacon, web, self.tls).await;
    }

    /// Its certificate is lost; it makes another one at its next start.
    pub fn lose_certificate(&self) {
        std::fs::remove_file(self.directory.path().join("web-cert.der")).unwrap();
    }

    /// The fingerprint of its certificate.
    pub fn fingerprint(&self) -> pilot_daemon::Fingerprint {
        let certificate = std::fs::read(self.directory.path().join("web-cert.der")).unwrap();
        pilot_daemon::Fingerprint(pilot_crypto::Sha256::digest(&certificate))
    }

    /// The same of its registry's.
    pub fn lose_registry_certificate(&self) {
        std::fs::remove_file(self.directory.path().join("registry-cert.der")).unwrap();
    }

    pub fn registry_fingerprint(&self) -> pilot_daemon::Fingerprint {
        let certificate = std::fs::read(self.directory.path().join("registry-cert.der")).unwrap();
        pilot_daemon::Fingerprint(pilot_crypto::Sha256::digest(&certificate))
    }

    /// The URL of the beacon over the web.
    pub fn url(&self) -> String {
        format!("{}://{}/v1/compat", if self.tls { "wss" } else { "ws" }, self.web)
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run_rendezvous(
    directory: &Path,
    registry: SocketAddr,
    beacon: SocketAddr,
    web: SocketAddr,
    tls: bool,
) -> (pilot_rendezvous::Bound, JoinHandle<()>) {
    let mut config = pilot_rendezvous::Config::new(directory.join("store"));
    config.registry_addr = registry;
    config.beacon_addr = beacon;
    config.web = Some(pilot_rendezvous::Web {
        listen: pilot_rendezvous::WebListen::At(web),
        tls: match tls {
            false => pilot_rendezvous::WebTls::Off,
            true => pilot_rendezvous::WebTls::On(pilot_rendezvous::CertificateSource::Own {
                folder: directory.to_owned(),
            }),
        },
        limits: pilot_rendezvous::WebLimits::default(),
    });
    let (ready, bound) = oneshot::channel();
    let task = tokio::spawn(async move {
        let mut ready = Some(ready);
        loop {
            let announce = |bound| {
                if let Some(ready) = ready.take() {
                    let _ = ready.send(bound);
                }
            };
            match pilot_rendezvous::run(config.clone(), announce, std::future::pending()).await {
                // One that was killed in this process finishes the change that it is about to acknowledge.
                Err(RunError::Store(StoreError::Locked { .. })) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                ended => return ended.unwrap(),
            }
        }
    });
    (within("the rendezvous", bound).await.unwrap(), task)
}

/// A daemon that lives until it is dropped.
pub struct Daemon {
    pub running: Running,
    pub config: Config,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// The home of a daemon, which outlives it.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("pilot")
    }

    pub fn config(&self, rendezvous: &Rendezvous) -> Config {
        let mut config = Config::at(self.path());
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.registries = vec![rendezvous.registry.to_string()];
        config.beacons = vec![rendezvous.beacon.to_string()];
        config
    }
}

impl Daemon {
    pub async fn start(config: Config) -> Self {
        let (ready, running) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let given = config.clone();
        let task = tokio::spawn(async move {
            let announce = move |running| {
                let _ = ready.send(running);
            };
            let shutdown = async {
                let _ = stopped.await;
            };
            pilot_daemon::run(given, announce, shutdown).await.unwrap();
        });
        let running = within("the daemon", running).await.expect("the daemon started");
        Self { running, config, stop: Some(stop), task }
    }

    pub fn node(&self) -> NodeId {
        self.running.node_id
    }

    pub fn at(&self, port: Port) -> Endpoint {
        Addr::backbone(self.node()).port(port)
    }

    /// Waits until its file has `what` of a peer: it is written after the peer was met.
    pub async fn remembers(&self, peer: NodeId, what: &str) {
        let path = self.config.home.join("node.json");
        within(what, async {
            loop {
                let memory: serde_json::Value = std::fs::read(&path)
                    .ok()
                    .and_then(|text| serde_json::from_slice(&text).ok())
                    .unwrap_or_default();
                if !memory["peers"][peer.to_string()][what].is_null() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// The process is gone, as after `kill -9`.
    pub async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Asks for an orderly end and waits for it.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        within("the orderly end", &mut self.task).await.unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self) {
        within("the end", &mut self.task).await.unwrap();
    }

    /// A program of the released drivers' dialect.
    pub async fn reference(&self) -> Program {
        let stream = UnixStream::connect(&self.config.socket).await.unwrap();
        Program { stream, frames: Decoder::new(), put_back: Vec::new(), next_tag: 1 }
    }

    /// A program of the extended dialect.
    pub async fn program(&self) -> Program {
        let mut program = self.reference().await;
        program.say(&ClientFrame::Hello { version: DIALECT }).await;
        let hello = program.next().await;
        assert!(matches!(DaemonFrame::parse(&hello), Ok(DaemonFrame::HelloOk { version: DIALECT, .. })));
        program
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A local program, frame by frame.
pub struct Program {
    pub stream: UnixStream,
    frames: Decoder,
    put_back: Vec<Bytes>,
    next_tag: u32,
}

impl Program {
    pub async fn say(&mut self, frame: &ClientFrame<'_>) {
        let mut bytes = Vec::new();
        frame.emit(&mut bytes);
        self.raw(&bytes).await;
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame; panics at the end of the connection.
    pub async fn next(&mut self) -> Bytes {
        within("a frame of the daemon", self.next_or_end()).await.expect("the daemon closed the connection")
    }

    pub async fn next_or_end(&mut self) -> Option<Bytes> {
        if !self.put_back.is_empty() {
            return Some(self.put_back.remove(0));
        }
        loop {
            if let Some(frame) = self.frames.next_frame().unwrap() {
                return Some(frame);
            }
            if self.stream.read_buf(self.frames.space()).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// A request of the reference dialect and the frame that answers it.
    pub async fn ask(&mut self, request: Request<'_>) -> Bytes {
        self.say(&ClientFrame::Request(request)).await;
        self.next().await
    }

    /// A tagged request and its answer; what is pushed meanwhile is kept for `next`.
    pub async fn call(&mut self, request: Request<'_>) -> Result<Bytes, Failure> {
        let tag = self.tell(request).await;
        self.answer(tag).await
    }

    /// Sends a tagged request without waiting.
    pub async fn tell(&mut self, request: Request<'_>) -> u32 {
        let tag = self.next_tag;
        self.next_tag += 1;
        let mut inner = Vec::new();
        ClientFrame::Request(request).emit(&mut inner);
        self.say(&ClientFrame::Tagged { tag, request: &inner[4..] }).await;
        tag
    }

    pub async fn answer(&mut self, tag: u32) -> Result<Bytes, Failure> {
        let mut pushed = Vec::new();
        let answer = loop {
            let frame = self.next().await;
            match DaemonFrame::parse(&frame).unwrap() {
                DaemonFrame::Tagged { tag: got, reply } if got == tag => break frame.slice_ref(reply),
                _ => pushed.push(frame),
            }
        };
        pushed.append(&mut self.put_back);
        self.put_back = pushed;
        match Reply::parse(&answer).unwrap() {
            Reply::Failure(failure) => Err(failure),
            _ => Ok(answer),
        }
    }

    pub async fn json<T: serde::de::DeserializeOwned>(&mut self, request: Request<'_>) -> T {
        let answer = self.call(request).await.unwrap();
        serde_json::from_slice(&answer[1..]).unwrap()
    }

    pub async fn bind(&mut self, port: Port) {
        self.call(Request::Bind { port }).await.unwrap();
    }

    pub async fn dial(&mut self, to: Endpoint) -> Result<StreamId, Failure> {
        let answer = self.call(Request::Dial { to }).await?;
        match Reply::parse(&answer).unwrap() {
            Reply::Dialed { stream } => Ok(stream),
            other => panic!("{other:?}"),
        }
    }

    pub async fn accept(&mut self) -> (StreamId, Endpoint) {
        let frame = self.next().await;
        match DaemonFrame::parse(&frame).unwrap() {
            DaemonFrame::Accept { stream, from, .. } => (stream, from),
            other => panic!("{other:?}"),
        }
    }

    pub async fn send(&mut self, stream: StreamId, data: &[u8]) {
        self.say(&ClientFrame::Request(Request::Send { stream, data })).await;
    }

    /// Reads `count` bytes of a stream and grants them anew.
    pub async fn read(&mut self, stream: StreamId, count: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < count {
            let frame = self.next().await;
            match DaemonFrame::parse(&frame).unwrap() {
                DaemonFrame::Recv { stream: got, data: piece } if got == stream => {
                    data.extend_from_slice(piece);
                    self.say(&ClientFrame::Credit { stream, bytes: piece.len() as u32 }).await;
                }
                DaemonFrame::Credit { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        data
    }

    pub async fn handshake(&mut self, request: Handshake<'_>) -> Result<Bytes, Failure> {
        self.call(Request::Handshake(request)).await
    }
}

pub const CREDIT: usize = INITIAL_CREDIT as usize;

/// Both owners agree, as two people would do it.
pub async fn befriend(a: &Daemon, b: &Daemon) {
    let mut at_a = a.program().await;
    let mut at_b = b.program().await;
    let waiting = at_b.tell(Request::Handshake(Handshake::Wait { node: a.node(), timeout: PATIENCE })).await;
    at_a.handshake(Handshake::Send { node: b.node(), justification: "tests" }).await.unwrap();
    let _ = waiting;
    wait_pending(&mut at_b, a.node()).await;
    at_b.handshake(Handshake::Approve { node: a.node() }).await.unwrap();
    let waited: pilot_wire::ipc::Waited =
        at_a.json(Request::Handshake(Handshake::Wait { node: b.node(), timeout: PATIENCE })).await;
    assert!(waited.trusted, "the approval arrives");
}

/// Asks until the request has arrived. It comes by a path of its own, so there is nothing to wait on.
pub async fn wait_pending(program: &mut Program, from: NodeId) {
    within("the request for trust", async {
        loop {
            let list: pilot_wire::ipc::PendingList =
                program.json(Request::Handshake(Handshake::Pending)).await;
            if list.pending.iter().any(|pending| pending.node_id == from) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub fn command_of(frame: &[u8]) -> Command {
    Command::from_byte(frame[0]).unwrap()
}
