//! A machine of the lab, with the programs that run on it.

use std::fs;
use std::net::Ipv4Addr;

use crate::namespace::Namespace;

/// The interface that a host begins with.
const INTERFACE: &str = "net0";

/// What has gone through the cables of a host, with all headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets received.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
}

impl Traffic {
    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            packets_in: self.packets_in - earlier.packets_in,
            bytes_in: self.bytes_in - earlier.bytes_in,
            packets_out: self.packets_out - earlier.packets_out,
            bytes_out: self.bytes_out - earlier.bytes_out,
        }
    }
}

/// A machine with one cable, which may get more.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    address: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    interface: String,
    cables: u32,
}

impl Host {
    pub(crate) fn new(name: &str) -> Self {
        let namespace = Namespace::new(name);
        Self {
            namespace,
            address: Ipv4Addr::UNSPECIFIED,
            gateway: None,
            interface: INTERFACE.to_owned(),
            cables: 0,
        }
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its address in the network it is in.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What has gone through its cables so far.
    pub fn traffic(&self) -> Traffic {
        // The list is that of the namespace of the thread that reads it.
        let list = self.namespace.enter(|| fs::read_to_string("/proc/thread-self/net/dev"));
        let list = list.expect("the kernel counts");
        let mut traffic = Traffic::default();
        for line in list.lines() {
            let Some((interface, counters)) = line.split_once(':') else { continue };
            let count: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            if interface.trim() != "lo" && count.len() > 9 {
                traffic.bytes_in += count[0];
                traffic.packets_in += count[1];
                traffic.bytes_out += count[8];
                traffic.packets_out += count[9];
            }
        }
        traffic
    }

    /// The name for the next cable.
    pub(crate) fn next_interface(&mut self) -> String {
        self.cables += 1;
        format!("net{}", self.cables - 1)
    }

    /// Uses this interface from now on, with this address and, where the network has one, this gateway. The one used
    /// so far goes down, as when a laptop leaves its network for another.
    pub(crate) fn attach(&mut self, interface: &str, address: Ipv4Addr, gateway: Option<Ipv4Addr>) {
        if self.address != Ipv4Addr::UNSPECIFIED {
            self.unplug();
        }
        self.interface = interface.to_owned();
        self.address = address;
        self.gateway = gateway;
        self.plug_again();
    }

    /// Gets another address in the same network, as when a lease ends.
    pub fn readdress(&mut self, last: u8) {
        let [a, b, c, _] = self.address.octets();
        self.unplug();
        self.address = Ipv4Addr::new(a, b, c, last);
        self.plug_again();
    }

    /// Takes the cable out. Addresses and routes are gone, as with a network that has been left.
    pub fn unplug(&mut self) {
        let interface = &self.interface;
        self.namespace.ip(&format!("address flush dev {interface}\nlink set {interface} down"));
    }

    /// Puts the cable back in.
    pub fn plug_again(&self) {
        let (interface, address) = (&self.interface, self.address);
        self.namespace.ip(&format!("address add {address}/24 dev {interface}\nlink set {interface} up"));
        if let Some(gateway) = self.gateway {
            self.namespace.ip(&format!("route add default via {gateway}"));
        }
    }
}
