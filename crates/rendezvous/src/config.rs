//! What a rendezvous is told at its start.

use crate::{beacon, registry, store::StoreUrl};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Settings of [`run`](crate::run).
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the registry listens (TCP). Port 0 picks a free one.
    pub registry_addr: SocketAddr,
    /// Where the beacon listens (UDP). Port 0 picks a free one.
    pub beacon_addr: SocketAddr,
    /// Number of the beacon among those of the registry, not 0. `None` draws one.
    pub beacon_id: Option<u32>,
    /// Where nodes and other beacons reach the beacon, if that is not where it listens.
    pub beacon_advertise: Option<SocketAddr>,
    /// Another address of this host, with which nodes tell a NAT that depends on addresses from one that does not.
    pub second_beacon_ip: Option<IpAddr>,
    /// Where the registry's records are; made if they do not exist.
    pub store: StoreUrl,
    /// Limits and rules of the registry.
    pub registry: registry::Config,
    /// Limits and rules of the beacon.
    pub beacon: beacon::Config,
    /// Limits of the registry's connections.
    pub connections: Connections,
    /// How they are protected.
    pub registry_tls: RegistryTls,
    /// The beacon over the web, for nodes that datagrams do not reach.
    pub web: Option<Web>,
}

/// Settings of [`run_beacon`](crate::run_beacon): a beacon without a registry of its own.
#[derive(Clone, Debug)]
pub struct BeaconConfig {
    /// The registries, `HOST:PORT` each, that it belongs to; they are one, and it asks the next when one does not answer.
    pub registries: Vec<String>,
    /// The registry's admin token; a beacon on the registry's machine needs none.
    pub admin_token: String,
    /// How it knows the registry. Its token and the mesh's secret pass there, over TLS.
    pub registry_trust: RegistryTrust,
    /// Where it listens (UDP). Port 0 picks a free one.
    pub beacon_addr: SocketAddr,
    /// Its number among the beacons of the registry, not 0. `None` draws one.
    pub beacon_id: Option<u32>,
    /// Where nodes and other beacons reach it. `None`: where it listens, and if that is on every address of this host,
    /// at the one from which it reaches the registry.
    pub beacon_advertise: Option<SocketAddr>,
    /// Another address of this host, with which nodes tell a NAT that depends on addresses from one that does not.
    pub second_beacon_ip: Option<IpAddr>,
    /// Limits and rules.
    pub beacon: beacon::Config,
    /// The beacon over the web, for nodes that datagrams do not reach.
    pub web: Option<Web>,
}

/// How a beacon knows its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryTrust {
    /// By the authorities that this system knows; one on this machine need not be known to any.
    Authorities,
    /// By the SHA-256 of its certificate, which is one of these.
    Fingerprints(Vec<[u8; 32]>),
}

/// The beacon over the web.
#[derive(Clone, Debug)]
pub struct Web {
    /// Where it listens (TCP).
    pub listen: WebListen,
    /// How its connections are protected.
    pub tls: WebTls,
    /// Limits of its connections.
    pub limits: WebLimits,
}

/// Where the beacon listens for the web.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebListen {
    /// There, or the rendezvous does not start.
    At(SocketAddr),
    /// One port above the beacon's, if it is to be had.
    Beside,
}

/// How connections over the web are protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebTls {
    /// Not at all: on loopback, or behind something that does it.
    Off,
    /// With this certificate.
    On(CertificateSource),
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM files.
    Files {
        /// The certificate, and those that lead to a known authority.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Of our own making, made once and kept in a folder.
    Own {
        /// Where.
        folder: PathBuf,
    },
}

/// How connections to the registry are protected. One port takes both kinds: a client that begins with TLS gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryTls {
    /// What the registry shows to clients that speak TLS.
    pub certificate: CertificateSource,
    /// Whether clients without TLS are served, as those of release 1.18.0 are by default. Where they are not, they are
    /// told so.
    pub plaintext: bool,
}

/// Limits of the connections over the web.
#[derive(Clone, Debug)]
pub struct WebLimits {
    /// Most connections at a time. When it is reached, the oldest on which nobody has proved to be anybody makes room;
    /// if there is none, newer ones are closed.
    pub max: usize,
    /// Most connections from one address; loopback is exempt. Newer ones are closed.
    pub max_per_ip: usize,
    /// How long a node may take to prove who it is; never longer than a challenge lives (spec/dataplane.md 2.10).
    pub auth: Duration,
    /// How long a node may be silent. Nodes send a ping every 30 s.
    pub idle: Duration,
    /// How long a node may read nothing while something waits for it.
    pub write: Duration,
}

impl Default for WebLimits {
    fn default() -> Self {
        Self {
            max: 4096,
            // Many nodes may be behind one company's proxy.
            max_per_ip: 256,
            auth: Duration::from_secs(10),
            idle: Duration::from_secs(90),
            write: Duration::from_secs(30),
        }
    }
}

/// Limits of the registry's connections.
#[derive(Clone, Debug)]
pub struct Connections {
    /// Most connections at a time. When it is reached, the connection that has been silent longest makes room, those
    /// that never proved an identity before the others.
    pub max: usize,
    /// Most connections from one address; loopback is exempt. Newer ones are closed.
    pub max_per_ip: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a client may take for its next whole request.
    pub idle: Duration,
    /// How long a client may take to read a reply.
    pub write: Duration,
    /// Requests on one connection; a client that sends more is read more slowly.
    pub requests: registry::Rate,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            max: 4096,
            max_per_ip: 256,
            handshake: Duration::from_secs(10),
            // What the reference's servers grant; nodes send a heartbeat at least every minute.
            idle: Duration::from_secs(300),
            write: Duration::from_secs(10),
            requests: registry::Rate { burst: 1000, per_second: 500.0 },
        }
    }
}

impl Config {
    /// The reference's ports on loopback, and a store with the registry's certificate beside it; nothing for the web.
    #[must_use]
    pub fn new(store: impl Into<StoreUrl>) -> Self {
        let store = store.into();
        let folder = store.file().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
        Self {
            registry_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 9000)),
            beacon_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 9001)),
            beacon_id: None,
            beacon_advertise: None,
            second_beacon_ip: None,
            store: store.into(),
            registry: registry::Config::default(),
            beacon: beacon::Config::default(),
            connections: Connections::default(),
            registry_tls: RegistryTls { certificate: CertificateSource::Own { folder }, plaintext: true },
            web: None,
        }
    }
}
