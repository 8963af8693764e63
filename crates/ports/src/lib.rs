//! Ports of loopback that stay a test's own.
//!
//! A port that the system hands out is not like that: what was listening there ends, and the next client of any program
//! gets it as its own, and still has it for a minute after that connection has ended. Whoever wanted to listen there again
//! finds it taken.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Addresses that nobody else reserves or is handed out while this lives, whether something listens there or not.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    /// Whoever listens here has the ports below it. Nobody connects to it.
    _fence: TcpListener,
}

/// Below those that the system hands out: from 32768 on in Linux, from 49152 on in macOS and Windows.
const FIRST: u16 = 10_000;
/// Four ports and the fence.
const ROW: u16 = 5;
const ROWS: u16 = 4_000;

impl Ports {
    /// Finds four ports in a row that are free for TCP and UDP.
    ///
    /// # Panics
    ///
    /// If there are none among twenty thousand.
    #[must_use]
    pub fn reserve() -> Self {
        let somewhere = u16::try_from(RandomState::new().hash_one(()) % u64::from(ROWS)).unwrap_or_default();
        let mut rows = (0..ROWS).map(|row| FIRST + (somewhere + row) % ROWS * ROW);
        match rows.find_map(Self::at) {
            Some(ports) => ports,
            None => panic!("of twenty thousand ports no five in a row are free"),
        }
    }

    fn at(first: u16) -> Option<Self> {
        let fence = TcpListener::bind((Ipv4Addr::LOCALHOST, first + ROW - 1)).ok()?;
        let ports = Self { first, _fence: fence };
        for address in ports.all() {
            TcpListener::bind(address).ok()?;
            UdpSocket::bind(address).ok()?;
        }
        Some(ports)
    }

    /// The four of them.
    #[must_use]
    pub fn all(&self) -> [SocketAddr; 4] {
        [0, 1, 2, 3].map(|after| SocketAddr::from((Ipv4Addr::LOCALHOST, self.first + after)))
    }

    /// The first: of the registry of a rendezvous. Its pages are three ports above unless it is told otherwise.
    #[must_use]
    pub fn registry(&self) -> SocketAddr {
        self.all()[0]
    }

    /// The second: of its beacon.
    #[must_use]
    pub fn beacon(&self) -> SocketAddr {
        self.all()[1]
    }

    /// The third: of its beacon over the web, where nodes look for it.
    #[must_use]
    pub fn web(&self) -> SocketAddr {
        self.all()[2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_test_has_another_does_not_get() {
        let first = Ports::reserve();
        assert!(Ports::at(first.first).is_none());
        let others: Vec<Ports> = (0..50).map(|_| Ports::reserve()).collect();
        let mut all: Vec<SocketAddr> = others.iter().chain([&first]).flat_map(Ports::all).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4 * 51);
    }

    #[test]
    fn ports_where_something_listens_already_are_not_taken() {
        let free = Ports::reserve();
        let (first, beacon) = (free.first, free.beacon());
        drop(free);
        let _theirs = UdpSocket::bind(beacon);
        assert!(Ports::at(first).is_none());
    }
}
