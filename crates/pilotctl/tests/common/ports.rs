//! Ports of loopback that stay a test's own.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// Addresses for one rendezvous, which nobody else takes while this lives: neither before it starts, nor between its end and
/// its next start.
///
/// A port that the system hands out is not like that. The next client of any program gets it as its own, and still has it
/// for a minute after that connection has ended.
pub(crate) struct Ports {
    first: u16,
    /// Whoever listens here has the ports below it. Nobody connects to it.
    _fence: TcpListener,
}

/// Below those that the system hands out (`ip_local_port_range`), in rows of five.
const FIRST: u16 = 10_000;
const ROW: u16 = 5;
const ROWS: u16 = 4_000;

impl Ports {
    pub(crate) fn reserve() -> Self {
        let somewhere = u16::try_from(RandomState::new().hash_one(()) % u64::from(ROWS)).unwrap();
        let rows = (0..ROWS).map(|row| FIRST + (somewhere + row) % ROWS * ROW);
        rows.into_iter().find_map(Self::at).expect("of twenty thousand ports five in a row are free")
    }

    fn at(first: u16) -> Option<Self> {
        let tcp = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let fence = tcp(first + ROW - 1).ok()?;
        let ports = Self { first, _fence: fence };
        // The beacon over the web is one port above the beacon, the pages are three above the registry.
        for port in [ports.first, ports.first + 2, ports.first + 3] {
            tcp(port).ok()?;
        }
        UdpSocket::bind((Ipv4Addr::LOCALHOST, ports.first + 1)).ok()?;
        Some(ports)
    }

    pub(crate) fn registry(&self) -> String {
        format!("127.0.0.1:{}", self.first)
    }

    pub(crate) fn beacon(&self) -> String {
        format!("127.0.0.1:{}", self.first + 1)
    }
}
