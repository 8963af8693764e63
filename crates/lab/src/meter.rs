//! What a host sends to and gets from a peer, the beacon and the registry, counted by its own firewall.

use std::fmt;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::host::Host;
use crate::lab::{BEACON, REGISTRY};

/// The counters, as they are named in the rules.
const COUNTERS: [&str; 6] =
    ["to_peer", "from_peer", "to_beacon", "from_beacon", "to_registry", "from_registry"];

/// Counters at a host's cable.
#[derive(Debug)]
pub struct Meter<'a> {
    host: &'a Host,
}

/// Packets and their bytes, IP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Datagrams to the peer's address.
    pub to_peer: Count,
    /// Datagrams from the peer's address.
    pub from_peer: Count,
    /// Datagrams to the beacon, also those for the peer.
    pub to_beacon: Count,
    /// Datagrams from the beacon, also those of the peer.
    pub from_beacon: Count,
    /// Packets of the connections to the registry.
    pub to_registry: Count,
    /// Packets of the connections to the registry.
    pub from_registry: Count,
}

impl<'a> Meter<'a> {
    /// Starts counting at zero. `peer` is the address at which the host sees the peer.
    pub fn start(host: &'a Host, peer: Ipv4Addr) -> Self {
        let counters: String = COUNTERS.iter().map(|name| format!("counter {name} {{ }}\n")).collect();
        let (beacon, registry) = (BEACON.ip(), REGISTRY.ip());
        host.namespace().nft(&format!(
            "table ip counted {{\n{counters}\
             chain outgoing {{ type filter hook output priority filter;\n\
             ip daddr {peer} meta l4proto udp counter name to_peer\n\
             ip daddr {beacon} udp dport {} counter name to_beacon\n\
             ip daddr {registry} tcp dport {} counter name to_registry\n\
             }}\n\
             chain incoming {{ type filter hook input priority filter;\n\
             ip saddr {peer} meta l4proto udp counter name from_peer\n\
             ip saddr {beacon} udp sport {} counter name from_beacon\n\
             ip saddr {registry} tcp sport {} counter name from_registry\n\
             }}\n}}\n",
            BEACON.port(),
            REGISTRY.port(),
            BEACON.port(),
            REGISTRY.port(),
        ));
        Self { host }
    }

    /// What was counted since the start.
    #[track_caller]
    pub fn read(&self) -> Reading {
        let text = self.host.namespace().nft_list("counters");
        let list: Value = serde_json::from_str(&text).expect("nft speaks JSON");
        let count = |name: &str| {
            let counters = list["nftables"].as_array().into_iter().flatten().map(|entry| &entry["counter"]);
            let counter = counters.into_iter().find(|counter| counter["name"] == name).expect("it was made");
            let number = |what: &str| counter[what].as_u64().expect("a counter counts");
            Count { packets: number("packets"), bytes: number("bytes") }
        };
        let [to_peer, from_peer, to_beacon, from_beacon, to_registry, from_registry] = COUNTERS.map(count);
        Reading { to_peer, from_peer, to_beacon, from_beacon, to_registry, from_registry }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets with {} bytes", self.packets, self.bytes)
    }
}
