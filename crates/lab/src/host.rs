//! A machine of the lab, with the programs that run on it.

use std::net::Ipv4Addr;

use crate::namespace::Namespace;

/// The interface that a host begins with.
const INTERFACE: &str = "net0";

/// A machine with one cable, which may get more.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    address: Ipv4Addr,
    interface: String,
    cables: u32,
}

impl Host {
    pub(crate) fn new(name: &str) -> Self {
        let namespace = Namespace::new(name);
        Self { namespace, address: Ipv4Addr::UNSPECIFIED, interface: INTERFACE.to_owned(), cables: 0 }
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its address in the network it is in.
    pub fn address(&self) -> Ipv4Addr {
        self.address
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
        self.namespace.ip(&format!(
            "address add {address}/24 dev {interface}\n\
             link set {interface} up"
        ));
        if let Some(gateway) = gateway {
            self.namespace.ip(&format!("route add default via {gateway}"));
        }
        self.address = address;
    }

    /// Takes the cable out. Addresses and routes are gone, as with a network that has been left.
    pub fn unplug(&mut self) {
        let interface = &self.interface;
        self.namespace.ip(&format!("address flush dev {interface}\nlink set {interface} down"));
    }
}
