//! What a rendezvous is told at its start.

use crate::{beacon, registry};
use pilot_crypto::RandomUnavailable;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// Settings of [`run`](crate::run).
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the registry listens (TCP). Port 0 picks a free one.
    pub registry_addr: SocketAddr,
    /// Where the beacon listens (UDP). Port 0 picks a free one.
    pub beacon_addr: SocketAddr,
    /// Another address of this host, with which nodes tell a NAT that depends on addresses from one that does not.
    pub second_beacon_ip: Option<IpAddr>,
    /// The file of the registry's records; made if it does not exist.
    pub store: PathBuf,
    /// Limits and rules of the registry.
    pub registry: registry::Config,
    /// Limits and rules of the beacon.
    pub beacon: beacon::Config,
    /// Limits of the registry's connections.
    pub connections: Connections,
    /// The beacon over the web, for nodes that datagrams do not reach.
    pub web: Option<Web>,
    /// Pages for those who look after it.
    pub http: Option<Http>,
}

/// Pages for those who look after a rendezvous: its state, its numbers, a copy of its records.
#[derive(Clone, Debug)]
pub struct Http {
    /// Where they are (TCP, without TLS).
    pub listen: HttpListen,
    /// Whoever has it sees what else only this machine sees.
    pub token: Option<String>,
    /// Whoever has it, on this machine, gets a copy of all records.
    pub control: Option<String>,
    /// How often a point of the charts is taken.
    pub step: Duration,
}

/// Where the pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpListen {
    /// There, or the rendezvous does not start.
    At(SocketAddr),
    /// On loopback, three ports above the registry's, if it is to be had; on any port if the registry is on any.
    Beside,
}

impl Http {
    /// Beside the registry, without any token.
    #[must_use]
    pub fn beside() -> Self {
        Self { listen: HttpListen::Beside, token: None, control: None, step: Duration::from_secs(10) }
    }

    /// A token that nobody guesses.
    ///
    /// # Errors
    /// [`RandomUnavailable`] if the system has no random bytes.
    pub fn random_token() -> Result<String, RandomUnavailable> {
        pilot_crypto::random_bytes::<32>().map(hex::encode)
    }
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
    /// With a certificate and its key in PEM files.
    Files {
        /// The certificate, and those that lead to a known authority.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// With a certificate of its own making, made once and kept in a folder.
    Own {
        /// Where.
        folder: PathBuf,
    },
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
            // What the reference's servers grant; nodes send a heartbeat at least every minute.
            idle: Duration::from_secs(300),
            write: Duration::from_secs(10),
            requests: registry::Rate { burst: 1000, per_second: 500.0 },
        }
    }
}

impl Config {
    /// The reference's ports on loopback, and a store; nothing for the web.
    #[must_use]
    pub fn new(store: PathBuf) -> Self {
        Self {
            registry_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 9000)),
            beacon_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 9001)),
            second_beacon_ip: None,
            store,
            registry: registry::Config::default(),
            beacon: beacon::Config::default(),
            connections: Connections::default(),
            web: None,
            http: None,
        }
    }
}
