//! A daemon from start to end: state from disk, sockets, tasks, the loop.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pilot_client::local::{self, Door, Entrance};
use pilot_crypto::{Identity, KeyFileError, RandomUnavailable};
use pilot_proto::{Encryption, Node, Visibility};
use pilot_wire::ipc::LanStatus;
use pilot_wire::{Addr, NodeId, PublicKey};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

use crate::driver::{self, Command, Driver, Edge, Parts};
use crate::handle::{Handle, SIGNS};
use crate::ipc::listener::Listener;
use crate::network::{self, Book, Lan, Mapping, News, PortMap, Surroundings};
use crate::registry::{Link, Numbers, Profile, Settings};
use crate::service::{self, handshake::Delivery, policy::Policy};
use crate::state::NodeFile;
use crate::trace::Tracer;
use crate::udp::UdpSocket;
use crate::web::{self, Proxy};
use crate::webhook::{Target, TargetError, Webhook};
use crate::{Config, SocketError, StateError, files, metrics, state};

/// Handshake messages on their way to peers.
const DELIVERIES: usize = 64;

/// Longest data-exchange payload accepted, unless `PILOT_DATAEXCHANGE_MAX_FRAME` says otherwise: that of 1.18.0.
const MAX_FRAME: usize = 64 << 20;

/// What a daemon is once it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The number at the registry; unset if it was never registered.
    pub node_id: NodeId,
    /// The address.
    pub address: Addr,
    /// The name, or empty.
    pub hostname: String,
    /// The IPC socket.
    pub socket: PathBuf,
    /// The tunnel socket.
    pub listen: SocketAddr,
    /// Whether the registry has confirmed the number in this life.
    pub registered: bool,
    /// Why it has not.
    pub registry_error: Option<String>,
}

/// Why a daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another one uses the same state.
    #[error("another daemon is running with the state in {}", home.display())]
    AlreadyRunning {
        /// The folder.
        home: PathBuf,
    },
    /// The IPC socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] KeyFileError),
    /// The state files.
    #[error(transparent)]
    State(#[from] StateError),
    /// The tunnel socket.
    #[error("cannot listen on {listen} (UDP): {source}")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The address for metrics.
    #[error("cannot listen on {listen} (TCP) for metrics: {source}")]
    Metrics {
        /// The address asked for.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The webhook.
    #[error(transparent)]
    Webhook(#[from] TargetError),
    /// The collector of spans.
    #[error("`{url}` is no URL of a collector of traces")]
    Otlp {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: TargetError,
    },
    /// The beacon over the web.
    #[error(transparent)]
    BeaconWeb(#[from] web::TargetError),
    /// The proxy.
    #[error(transparent)]
    Proxy(#[from] web::ProxyError),
    /// No seed for the node.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// The home folder.
    #[error("cannot use {}: {source}", path.display())]
    Home {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl RunError {
    /// The class of the failure, in the words of the command line.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::AlreadyRunning { .. } | Self::Socket(SocketError::InUse { .. }) => "already_exists",
            Self::Socket(_)
            | Self::Listen { .. }
            | Self::Metrics { .. }
            | Self::Webhook(_)
            | Self::Otlp { .. }
            | Self::BeaconWeb(_)
            | Self::Proxy(_) => "invalid_argument",
            Self::Identity(_) | Self::State(_) | Self::Random(_) | Self::Home { .. } => "internal",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::AlreadyRunning { .. } | Self::Socket(SocketError::InUse { .. }) => Some(
                "see it with: pilotctl daemon status; for a second one give --socket and another PILOT_HOME",
            ),
            Self::Listen { .. } => Some("choose another address or port with --listen"),
            Self::Metrics { .. } => Some("choose another address or port with --metrics, or `--metrics off`"),
            Self::Otlp { .. } => Some("such as --otlp http://127.0.0.1:4318; --otlp off sends nothing"),
            Self::BeaconWeb(_) => Some("such as --beacon-web wss://beacon.example.com/v1/compat"),
            Self::Proxy(_) => Some("it comes from --proxy or HTTPS_PROXY; `--proxy off` goes without"),
            Self::Socket(_)
            | Self::Identity(_)
            | Self::State(_)
            | Self::Webhook(_)
            | Self::Random(_)
            | Self::Home { .. } => None,
        }
    }
}

/// Runs a daemon until `shutdown` is ready or a local program asks for its end. `ready` is called once, when the daemon
/// serves and the registry has answered or cannot be reached. Dropping the future is a crash: tasks end, files stay.
///
/// # Errors
/// [`RunError`] when it cannot start. A daemon that runs has no fatal errors.
pub async fn run(
    config: Config,
    ready: impl FnOnce(Running) + Send + 'static,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let (door, entrance) = local::door();
    run_behind(door, entrance, config, ready, shutdown).await
}

/// The same inside a program, which connects through the door.
///
/// # Errors
/// As [`run`].
pub async fn run_behind(
    door: Door,
    entrance: Entrance,
    config: Config,
    ready: impl FnOnce(Running) + Send + 'static,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let proxy = web_settings(&config)?;
    let home_error = |path: &Path, source| RunError::Home { path: path.to_owned(), source };
    files::create_private_dir(&config.home).map_err(|source| home_error(&config.home, source))?;
    let _lock = lock_home(&config.home)?;
    let identity = Identity::load_or_create(&config.identity)?;
    let memory = NodeFile::load(&config.node_file(), &identity.public())?;
    let book = state::load_trust(&config.trust_file())?;
    let memberships = state::load_networks(&config.networks_file())?;
    let listener = config.serve_socket.then(|| Listener::bind(&config.socket)).transpose()?;
    let socket = bind_tunnel(config.listen, memory.listen_port)
        .map_err(|source| RunError::Listen { listen: config.listen, source })?;
    let metrics = config
        .metrics
        .map(|listen| metrics::listen(listen).map_err(|source| RunError::Metrics { listen, source }));
    let metrics = metrics.transpose()?;
    let _pid = config.pid_file.then(|| PidFile::write(config.pid_path())).transpose();
    let _pid = _pid.map_err(|source| home_error(&config.pid_path(), source))?;

    let surroundings = Surroundings::look();
    let profile = Profile {
        hostname: config.hostname.clone().unwrap_or_else(|| memory.hostname.clone()),
        public: config.public.unwrap_or(memory.public),
        tags: memory.tags.clone(),
        task_exec: false,
        listen: Some(socket.local()),
        lan: surroundings.lan(socket.local()),
        observed: None,
        mapped: None,
        relay_only: false,
        recovery: memory.recovery,
        left: false,
    };
    let memory = NodeFile {
        listen_port: Some(socket.local().port()),
        public: profile.public,
        public_key: Some(identity.public()),
        ..memory
    };
    let numbers = Numbers::after(memory.numbers);
    let now = Instant::now();
    let mut node = Node::new(node_config(&config, &identity, profile.public)?, now);
    node.restore_trust(book);
    for (peer, remembered) in &memory.peers {
        if let Some(identity) = remembered.agrees {
            node.remember_agreement(*peer, identity);
        }
    }
    node.set_local(now, surroundings.reachable(socket.local()));
    if let Some(id) = memory.node_id {
        node.set_node(now, id);
    }

    let mut tasks = JoinSet::new();
    let (commands, inbox) = driver::inbox();
    let webhook_url = config.webhook.url.as_ref().or(memory.webhook.as_ref());
    let target = webhook_url.map(|url| Target::parse(url)).transpose()?;
    let (webhook, posting) = Webhook::new(target, config.webhook.secret.clone());
    tasks.spawn(posting);
    let reports = commands.clone();
    let settings = Settings {
        addresses: config.registries.clone(),
        identity: identity.clone(),
        profile: profile.clone(),
        numbers: numbers.clone(),
        keepalive: config.keepalive,
        proxy: proxy.clone(),
        tls: config.registry_tls.clone(),
        known: memory.registry_certificates.clone(),
    };
    let tracer = start_tracer(&config, &mut tasks)?;
    let (link, linking) = Link::new(settings, tracer.clone(), move |report| {
        let reports = reports.clone();
        async move {
            // The loop is gone only when this task is about to be, too.
            let _ = reports.send(Command::Registry(report)).await;
        }
    });
    tasks.spawn(linking);
    let (edge, outposts) =
        start_edge(&config, socket.local(), surroundings, identity.public(), &commands, &mut tasks)?;
    let (trusted, trusted_watch) = watch::channel(Vec::new());
    let (own, own_watch) = watch::channel(memory.node_id.unwrap_or_default());
    let (deliveries, to_deliver) = mpsc::channel(DELIVERIES);
    let (signs, _) = broadcast::channel(SIGNS);
    let policy = Policy::load(&config.home);
    let handle =
        Handle::new(commands.clone(), trusted_watch, own_watch, signs.clone()).traced(tracer.clone());
    let services = service_config(&config);
    tasks.spawn(start_services(services, door, handle, policy.clone(), to_deliver, commands.clone()));

    let scraped = metrics.as_ref().and_then(|listener| listener.local_addr().ok());
    if let Some(listener) = metrics {
        tasks.spawn(metrics::serve(listener, commands.clone()));
    }

    let driver = Driver::new(Parts {
        config,
        node,
        socket,
        listener,
        entrance,
        inbox,
        commands,
        link,
        proxy,
        webhook,
        deliveries,
        identity,
        memory,
        memberships,
        profile,
        numbers,
        trusted,
        own,
        signs,
        policy,
        edge,
        metrics: scraped,
        tracer,
        ready: Box::new(ready),
    });
    driver.run(shutdown).await;
    outposts.stop().await;
    Ok(())
}

/// What users wait for is told to a collector, if there is one.
fn start_tracer(config: &Config, tasks: &mut JoinSet<()>) -> Result<Tracer, RunError> {
    let Some(url) = &config.otlp else { return Ok(Tracer::default()) };
    let (tracer, exporting) =
        Tracer::to(url).map_err(|source| RunError::Otlp { url: url.clone(), source })?;
    tasks.spawn(exporting);
    Ok(tracer)
}

/// What has to be taken back from the network at the end.
struct Outposts {
    portmap: Option<PortMap>,
    lan: Option<Lan>,
}

impl Outposts {
    async fn stop(self) {
        let portmap = async {
            if let Some(portmap) = self.portmap {
                portmap.stop().await;
            }
        };
        let lan = async {
            if let Some(lan) = self.lan {
                lan.stop().await;
            }
        };
        tokio::join!(portmap, lan);
    }
}

/// Starts what deals with the network around this host. A daemon on loopback has none around it.
fn start_edge(
    config: &Config,
    listen: SocketAddr,
    surroundings: Surroundings,
    own: PublicKey,
    commands: &mpsc::Sender<Command>,
    tasks: &mut JoinSet<()>,
) -> Result<(Edge, Outposts), RandomUnavailable> {
    let (book, book_watch) = watch::channel(Book { own, peers: Vec::new() });
    let mut edge = Edge {
        surroundings,
        book,
        wish: None,
        doubt: None,
        mapping: Mapping::off("switched off"),
        lan: LanStatus { on: false, reason: "switched off".to_owned() },
    };
    let mut outposts = Outposts { portmap: None, lan: None };
    if listen.ip().is_loopback() {
        edge.mapping = Mapping::off("the daemon listens on loopback only");
        edge.lan.reason = "the daemon listens on loopback only".to_owned();
        return Ok((edge, outposts));
    }
    let (seen, watched) = watch::channel(edge.surroundings.clone());
    tasks.spawn(tell_of_changes(watched.clone(), commands.clone()));
    tasks.spawn(network::watch(seen));
    if config.port_mapping {
        let portmap = PortMap::start(listen, watched.clone(), commands.clone())?;
        edge.doubt = Some(portmap.doubt());
        outposts.portmap = Some(portmap);
    }
    if config.lan_discovery {
        let lan = Lan::start(listen, watched, book_watch, commands.clone());
        edge.wish = Some(lan.wish());
        outposts.lan = Some(lan);
    }
    Ok((edge, outposts))
}

/// Passes changes of the network on to the loop.
async fn tell_of_changes(mut seen: watch::Receiver<Surroundings>, commands: mpsc::Sender<Command>) {
    while seen.changed().await.is_ok() {
        let here = seen.borrow_and_update().clone();
        let _ = commands.send(Command::Network(News::Surroundings(here))).await;
    }
}

fn node_config(
    config: &Config,
    identity: &Identity,
    public: bool,
) -> Result<pilot_proto::Config, RandomUnavailable> {
    let mut node = pilot_proto::Config::new(identity.clone(), pilot_crypto::random_bytes()?);
    node.encryption = if config.encrypt { Encryption::Required } else { Encryption::Off };
    node.visibility = if public { Visibility::Public } else { Visibility::Private };
    node.auto_approve = config.trust_auto_approve;
    node.streams.idle_timeout = Some(config.idle_timeout);
    node.streams.congestion = config.congestion;
    node.tunnel.max_datagram = config.max_datagram;
    Ok(node)
}

/// What is said of the web: a URL that is one, and the proxy.
fn web_settings(config: &Config) -> Result<Option<Proxy>, RunError> {
    if let Some(url) = &config.web.url {
        url.parse::<web::Target>()?;
    }
    let proxy = config.web.proxy.as_ref().map(|proxy| Proxy::parse(&proxy.url, &proxy.except));
    Ok(proxy.transpose()?)
}

/// The port of the last life is taken again if it is free, so that peers find the node where it was.
fn bind_tunnel(listen: SocketAddr, last_port: Option<u16>) -> io::Result<UdpSocket> {
    if listen.port() == 0
        && let Some(port) = last_port
        && let Ok(socket) = UdpSocket::bind(SocketAddr::new(listen.ip(), port))
    {
        return Ok(socket);
    }
    UdpSocket::bind(listen)
}

fn service_config(config: &Config) -> service::Config {
    let limit = std::env::var("PILOT_DATAEXCHANGE_MAX_FRAME").ok().and_then(|text| text.parse().ok());
    service::Config {
        home: config.home.clone(),
        socket: config.socket.clone(),
        data_exchange: config.services.data_exchange,
        event_stream: config.services.event_stream,
        tasks: config.services.tasks,
        max_frame: limit.unwrap_or(MAX_FRAME),
        received: config.received.clone(),
    }
}

async fn start_services(
    config: service::Config,
    door: Door,
    handle: Handle,
    policy: Policy,
    deliveries: mpsc::Receiver<Delivery>,
    commands: mpsc::Sender<Command>,
) {
    let client = match door.connect().await {
        Ok(client) => client,
        Err(error) => return tracing::error!(%error, "the built-in services cannot reach the daemon"),
    };
    match service::spawn(config, client, handle, policy, deliveries) {
        Ok(services) => {
            let _ = commands.send(Command::Services(services)).await;
        }
        Err(error) => tracing::error!(%error, "the built-in services cannot start"),
    }
}

/// One daemon per state folder. The system releases the lock with the process, however it ends.
/// Nobody else uses the state in `home` while the file is held.
pub(crate) fn lock_home(home: &Path) -> Result<File, RunError> {
    let path = home.join("daemon.lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|source| RunError::Home { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RunError::AlreadyRunning { home: home.to_owned() }),
        Err(TryLockError::Error(source)) => Err(RunError::Home { path, source }),
    }
}

/// Whether a daemon runs with the state in `home`.
///
/// # Errors
/// When that cannot be found out.
pub fn is_in_use(home: &Path) -> io::Result<bool> {
    match OpenOptions::new().write(true).open(home.join("daemon.lock")).map(|file| file.try_lock()) {
        Ok(Ok(())) => Ok(false),
        Ok(Err(TryLockError::WouldBlock)) => Ok(true),
        Ok(Err(TryLockError::Error(error))) => Err(error),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Holds the process id while the daemon runs.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: PathBuf) -> io::Result<Self> {
        files::replace(&path, std::process::id().to_string().as_bytes())?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A file left behind names a process that is gone; readers check.
        let _ = std::fs::remove_file(&self.0);
    }
}
