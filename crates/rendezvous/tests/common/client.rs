//! A client of a registry over a real socket, and a rendezvous to connect to.

use super::{about, identity, register};
use pilot_crypto::Identity;
use pilot_rendezvous::{
    Bound, CertificateSource, Config, RunError,
    registry::{Key, Record},
    run,
    store::StoreUrl,
    transfer::{self, FillError},
};
use pilot_wire::{
    NodeId,
    beacon::Message,
    registry::{Decoder, Envelope, Request, Response, frame},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::Path,
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;

/// How long a reply may take before the test fails; machines under load are slow.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn local(store: &Path) -> Config {
    at(store.to_owned())
}

/// On free ports, over this store.
pub(crate) fn at(store: impl Into<StoreUrl>) -> Config {
    let mut config = Config::new(store);
    config.registry_addr.set_port(0);
    config.beacon_addr.set_port(0);
    config.registry.admin_token = Some(super::ADMIN.to_owned());
    if config.store.file().is_none() {
        // Beside a database there is no place for a certificate.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
        std::fs::create_dir_all(&folder).unwrap();
        config.registry_tls.certificate = CertificateSource::Own { folder };
    }
    config
}

/// Fills a store that nobody serves.
pub(crate) fn fill(store: &StoreUrl, records: Vec<(Key, Record)>) -> Result<(), FillError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(transfer::fill(store, records))
}

/// A rendezvous in a thread of its own, stopped when dropped.
pub(crate) struct Server {
    pub(crate) bound: Bound,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl Server {
    pub(crate) fn start(config: Config) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, bound) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let shutdown = async {
                let _ = stopped.await;
            };
            runtime.block_on(run(config, |bound| ready.send(bound).unwrap(), shutdown))
        });
        let bound = bound.recv().expect("it starts");
        Self { bound, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    decoder: Decoder,
    pub(crate) identity: Identity,
    pub(crate) id: NodeId,
}

impl Client {
    pub(crate) fn connect(registry: SocketAddr) -> Self {
        let stream = TcpStream::connect(registry).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, decoder: Decoder::new(), identity: identity(0), id: NodeId::UNSET }
    }

    pub(crate) fn registered(registry: SocketAddr, identity: Identity) -> Self {
        let mut client = Self { identity, ..Self::connect(registry) };
        match client.ask(register(&client.identity, "127.0.0.1:4000")) {
            Response::Register(registered) => client.id = registered.node_id,
            other => panic!("{other:?}"),
        }
        client
    }

    pub(crate) fn send(&mut self, request: Request) {
        let envelope = Envelope::from(request.sign_with(|text| self.identity.sign(text)));
        self.send_raw(&frame(&envelope.to_json()).unwrap());
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Option<Response> {
        self.receive_raw().map(|content| Response::parse(&content).unwrap())
    }

    /// The content of the next frame.
    pub(crate) fn receive_raw(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(content) = self.decoder.next().unwrap() {
                return Some(content);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => self.decoder.feed(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    pub(crate) fn ask(&mut self, request: Request) -> Response {
        self.send(request);
        self.receive().expect("the connection is open")
    }

    /// None if the connection is lost before the answer.
    pub(crate) fn try_ask(&mut self, request: Request) -> Option<Response> {
        let envelope = Envelope::from(request.sign_with(|text| self.identity.sign(text)));
        self.stream.write_all(&frame(&envelope.to_json()).unwrap()).ok()?;
        self.receive()
    }

    /// None if nobody listens there.
    pub(crate) fn try_connect(registry: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(registry).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { stream, decoder: Decoder::new(), identity: identity(0), id: NodeId::UNSET })
    }

    pub(crate) fn is_served(&mut self) -> bool {
        self.send(Request::Heartbeat(about(self.id)));
        matches!(self.receive(), Some(Response::Heartbeat { .. }))
    }
}

/// A node's UDP socket.
pub(crate) fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The next datagram. These nodes are as those of the release, which do not answer when they are asked for a proof.
pub(crate) fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    loop {
        let length = socket.recv(&mut buffer).unwrap();
        if !matches!(Message::parse(&buffer[..length]), Ok(Message::Challenge { .. })) {
            return buffer[..length].to_vec();
        }
    }
}
