//! Which peer has which address, and the listeners there.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use pilot_client::{Addr, Port};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::address::{Held, is_ours};
use super::subnet::Subnet;
use crate::bridge::{Daemon, Listener, Place, Reach, Socket, To};
use crate::failure::{Code, Failure};
use crate::target::Target;

/// Addresses given at the same time: each has a listener per port.
const MAPPINGS_MAX: usize = 256;

/// An address and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Given {
    pub(super) local_ip: Ipv4Addr,
    pub(super) pilot_addr: Addr,
    /// As it was asked for.
    pub(super) target: String,
    pub(super) ports: Vec<u16>,
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.local_ip, self.target)?;
        if self.target != self.pilot_addr.to_string() {
            write!(f, " ({})", self.pilot_addr)?;
        }
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        write!(f, " on {}", ports.join(", "))
    }
}

struct Mapping {
    given: Given,
    target: Target,
    // In this order: nobody listens on an address that is gone.
    _listeners: JoinSet<()>,
    _address: Held,
}

/// The addresses given.
pub(super) struct Table {
    daemon: Daemon,
    subnet: Subnet,
    ports: Vec<u16>,
    connections: mpsc::Sender<(Socket, To)>,
    mappings: BTreeMap<Ipv4Addr, Mapping>,
}

impl Table {
    pub(super) fn new(
        daemon: Daemon,
        subnet: Subnet,
        mut ports: Vec<u16>,
        connections: mpsc::Sender<(Socket, To)>,
    ) -> Self {
        let mut seen = std::collections::BTreeSet::new();
        ports.retain(|port| seen.insert(*port));
        Self { daemon, subnet, ports, connections, mappings: BTreeMap::new() }
    }

    pub(super) fn list(&self) -> Vec<Given> {
        self.mappings.values().map(|mapping| mapping.given.clone()).collect()
    }

    /// Gives a peer an address: this one, or one that is free. A peer that has the address already keeps it.
    pub(super) async fn map(&mut self, text: &str, ip: Option<Ipv4Addr>) -> Result<Given, Failure> {
        let target = Target::parse(text)?;
        let peer = target.resolve(&self.daemon.client().await?).await?;
        if let Some(known) = self
            .mappings
            .values()
            .find(|known| known.target == target && ip.is_none_or(|ip| ip == known.given.local_ip))
        {
            return Ok(known.given.clone());
        }
        let ip = self.free(ip)?;
        let address = Held::new(ip)?;
        let mut listeners = JoinSet::new();
        for port in &self.ports {
            // Who may come is asked of each connection; the address is no loopback address.
            let listener = Listener::bind(&Place::Tcp(format!("{ip}:{port}")), Reach::Network)
                .await
                .map_err(|failure| failure.advise(Code::Internal, "choose other ports with --ports"))?;
            let to = To { target: target.clone(), port: Port(*port) };
            listeners.spawn(take(listener, to, self.connections.clone()));
        }
        let given = Given {
            local_ip: ip,
            pilot_addr: peer.addr,
            target: target.to_string(),
            ports: self.ports.clone(),
        };
        let mapping = Mapping { given: given.clone(), target, _listeners: listeners, _address: address };
        self.mappings.insert(ip, mapping);
        Ok(given)
    }

    fn free(&self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, Failure> {
        if self.mappings.len() >= MAPPINGS_MAX {
            return Err(Failure::new(Code::Refused, format!("{MAPPINGS_MAX} addresses are given"))
                .hint("take one back: pilotctl gateway unmap IP"));
        }
        let Some(ip) = wanted else {
            return self.subnet.addresses().find(|ip| !self.mappings.contains_key(ip)).ok_or_else(|| {
                Failure::new(Code::Refused, format!("no address of {} is free", self.subnet))
                    .hint("take one back: pilotctl gateway unmap IP")
            });
        };
        if !self.subnet.has(ip) {
            return Err(Failure::usage(format!("{ip} is not in {}", self.subnet))
                .hint("the network is chosen with `gateway start --subnet`"));
        }
        match self.mappings.get(&ip) {
            Some(taken) => Err(Failure::new(Code::AlreadyExists, taken.given.to_string())
                .hint(format!("take it back: pilotctl gateway unmap {ip}"))),
            None => Ok(ip),
        }
    }

    /// Takes an address back. Connections that are open go on.
    pub(super) fn unmap(&mut self, ip: Ipv4Addr) -> Result<Ipv4Addr, Failure> {
        let known = self.mappings.remove(&ip).map(|_| ip);
        known.ok_or_else(|| {
            Failure::new(Code::NotFound, format!("{ip} is nobody's")).hint("see pilotctl gateway list")
        })
    }
}

async fn take(listener: Listener, to: To, connections: mpsc::Sender<(Socket, To)>) {
    loop {
        let socket = listener.accept().await;
        match socket.peer_ip() {
            Some(ip) if is_ours(ip) => {
                if connections.send((socket, to.clone())).await.is_err() {
                    return;
                }
            }
            Some(_) | None => socket.reset(),
        }
    }
}
