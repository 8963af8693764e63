//! What a daemon is told at start, already checked: flags, environment and file have been merged by the caller.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pilot_proto::{TunnelConfig, stream::Congestion};
use pilot_wire::NodeId;

use crate::tls::Fingerprint;

/// Time between two heartbeats to the registry and two Discovers to the beacon.
pub const KEEPALIVE: Duration = Duration::from_secs(30);

/// A stream without any traffic is given up after this long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Everything a daemon needs to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of all state, `~/.pilot` by default.
    pub home: PathBuf,
    /// Path of the IPC socket.
    pub socket: PathBuf,
    /// Whether there is one, for the programs of this machine. Off for a node that only its own process talks to.
    pub serve_socket: bool,
    /// Path of the identity file; trust is kept beside it.
    pub identity: PathBuf,
    /// Registries as `host:port`, in order of preference. Without any, only known peers can be reached.
    pub registries: Vec<String>,
    /// How registries are talked to.
    pub registry_tls: RegistryTls,
    /// Beacons as `host:port`, each beside the registry of the same position; where there are fewer, the last one stands
    /// for the rest. The one beside the registry that the node is at is used.
    pub beacons: Vec<String>,
    /// Local address of the tunnel socket; port 0 lets the system choose (the last one used is tried first).
    pub listen: SocketAddr,
    /// Hostname to claim at the registry; `None` keeps the last one.
    pub hostname: Option<String>,
    /// `Some` sets the visibility; `None` keeps the last one (private at first).
    pub public: Option<bool>,
    /// `false` sends and accepts packets in clear. For experiments only.
    pub encrypt: bool,
    /// Trust every node that asks.
    pub trust_auto_approve: bool,
    /// Trust these if they ask.
    pub approved: BTreeSet<NodeId>,
    /// Time between heartbeats.
    pub keepalive: Duration,
    /// Idle time-out of streams.
    pub idle_timeout: Duration,
    /// How streams find out how fast they may send.
    pub congestion: Congestion,
    /// The largest datagram, in bytes of UDP payload, that paths are searched for; 1222 or less: none.
    pub max_datagram: u16,
    /// Ask the gateway to map a port to the tunnel socket, if this host has private addresses only.
    pub port_mapping: bool,
    /// Let trusted peers in the same network find this node without a rendezvous, and find them.
    pub lan_discovery: bool,
    /// How the beacon is reached when datagrams do not pass.
    pub web: Web,
    /// How much peers may put here as files.
    pub received: ReceivedLimits,
    /// Where events are posted.
    pub webhook: Webhook,
    /// Where spans of what users wait for are sent: the base of the URLs of a collector that takes OTLP over HTTP.
    pub otlp: Option<String>,
    /// Where metrics are served over HTTP, to whoever reaches the address; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Which built-in services run.
    pub services: Services,
    /// Whether to write `pilot.pid` into the home folder. Off for daemons inside another process.
    pub pid_file: bool,
    /// How long an orderly end may take to deliver what was written to streams. What is left then is lost, and the peer sees
    /// its stream break.
    pub linger: Duration,
}

/// How much peers may put here as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedLimits {
    /// Bytes of all received files, finished or not.
    pub max_bytes: u64,
    /// Bytes of one file or folder.
    pub max_file: u64,
    /// Bytes of the disk that are left free.
    pub min_free: u64,
}

impl Default for ReceivedLimits {
    /// 2 GiB in all, as release 1.18.0 keeps; 256 MiB of the disk stay free.
    fn default() -> Self {
        Self { max_bytes: 2 << 30, max_file: u64::MAX, min_free: 256 << 20 }
    }
}

/// How registries are talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryTls {
    /// Over TLS, or not.
    pub mode: TlsMode,
    /// The only certificates that are right. Empty: one that a known authority vouches for, else the first that is seen
    /// at an address.
    pub fingerprints: Vec<Fingerprint>,
    /// Whether a certificate, once seen, has to stay. Not for the rendezvous of this machine, which is found or started
    /// without a question and belongs to whoever started it first; what could stand in between has the machine already.
    pub remembers: bool,
}

impl Default for RegistryTls {
    fn default() -> Self {
        Self { mode: TlsMode::Auto, fingerprints: Vec::new(), remembers: true }
    }
}

/// Whether a registry is talked to over TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// If it speaks TLS, or ever did at this address.
    #[default]
    Auto,
    /// Always.
    Require,
    /// Never.
    Off,
}

/// How the beacon is reached when datagrams do not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Whether it is.
    pub transport: Transport,
    /// Where the beacon is over the web: `wss://host[:port]/v1/compat`. `None`: what follows from its address.
    pub url: Option<String>,
    /// The only certificate of the beacon that is right. `None`: one that a known authority vouches for, else the first
    /// that is seen.
    pub fingerprint: Option<Fingerprint>,
    /// Through which proxy.
    pub proxy: Option<ProxySetting>,
    /// How often the beacon is asked over UDP whether it hears us, while it is reached over the web.
    pub look_every: Duration,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            transport: Transport::Auto,
            url: None,
            fingerprint: None,
            proxy: None,
            look_every: Duration::from_secs(20),
        }
    }
}

/// How the beacon is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// Over UDP; over the web while it does not answer there.
    #[default]
    Auto,
    /// Over UDP only.
    Udp,
    /// Over the web only.
    Web,
}

/// A proxy for connections to beacon and registry.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxySetting {
    /// `http://[user:password@]host:port`.
    pub url: String,
    /// Hosts that are reached without it, as in `NO_PROXY`.
    pub except: String,
}

impl std::fmt::Debug for ProxySetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProxySetting")
    }
}

/// Where the daemon posts its events (spec/local.md 2.9).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Webhook {
    /// `http://` URL; `None` keeps the one set by an earlier `set-webhook`.
    pub url: Option<String>,
    /// Key of the `X-Pilot-Signature-256` header.
    pub secret: Option<String>,
}

/// The built-in services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Services {
    /// Port 7.
    pub echo: bool,
    /// Port 1001.
    pub data_exchange: bool,
    /// Port 1002.
    pub event_stream: bool,
    /// Tasks, port 1003.
    pub tasks: bool,
}

impl Default for Services {
    fn default() -> Self {
        Self { echo: true, data_exchange: true, event_stream: true, tasks: true }
    }
}

impl Config {
    /// The defaults for a daemon whose state is in `home`: every service, private, encrypted, no registry.
    #[must_use]
    pub fn at(home: impl Into<PathBuf>) -> Self {
        let home = home.into();
        Self {
            socket: home.join("pilot.sock"),
            serve_socket: true,
            identity: home.join("identity.json"),
            registries: Vec::new(),
            registry_tls: RegistryTls::default(),
            beacons: Vec::new(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            hostname: None,
            public: None,
            encrypt: true,
            trust_auto_approve: false,
            approved: BTreeSet::new(),
            keepalive: KEEPALIVE,
            idle_timeout: IDLE_TIMEOUT,
            congestion: Congestion::default(),
            max_datagram: TunnelConfig::default().max_datagram,
            port_mapping: true,
            lan_discovery: true,
            web: Web::default(),
            received: ReceivedLimits::default(),
            webhook: Webhook::default(),
            otlp: None,
            metrics: None,
            services: Services::default(),
            pid_file: true,
            linger: Duration::ZERO,
            home,
        }
    }

    /// The beacon beside the registry of this position.
    pub(crate) fn beacon_of(&self, registry: usize) -> Option<&String> {
        self.beacons.get(registry).or(self.beacons.last())
    }

    /// `trust.json`, beside the identity as the reference keeps it.
    pub(crate) fn trust_file(&self) -> PathBuf {
        self.identity.parent().unwrap_or(Path::new("")).join("trust.json")
    }

    /// What this node is at its registry, and where its peers were last seen.
    pub(crate) fn node_file(&self) -> PathBuf {
        self.home.join("node.json")
    }

    /// The networks this node is in, and their members.
    pub(crate) fn networks_file(&self) -> PathBuf {
        self.home.join("networks.json")
    }

    /// The process id of the running daemon.
    #[must_use]
    pub fn pid_path(&self) -> PathBuf {
        self.home.join("pilot.pid")
    }
}
