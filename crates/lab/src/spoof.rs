//! Datagrams with a sender's address that is not the sender's.

use std::net::{SocketAddr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};

use crate::host::Host;

/// A raw socket, which sends whole IP packets as they are given.
const RAW: i32 = 255;

/// A host that lies about who it is.
#[derive(Debug)]
pub struct Spoofer {
    socket: Socket,
}

impl Spoofer {
    /// Opens a raw socket on a host.
    #[track_caller]
    pub fn open(host: &Host) -> Self {
        let socket =
            host.namespace().enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW))));
        Self { socket: socket.expect("the lab runs as root") }
    }

    /// Sends a datagram that claims to come from `from`.
    #[track_caller]
    pub fn send(&self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let datagram = u16::try_from(8 + payload.len()).expect("a datagram is not longer than 64 KiB");
        let mut packet = Vec::with_capacity(20 + usize::from(datagram));
        // Version and length of the header, service, length of the packet.
        packet.extend_from_slice(&[0x45, 0]);
        packet.extend_from_slice(&(20 + datagram).to_be_bytes());
        // The kernel fills in the number and the checksum; no fragments, 64 hops, UDP.
        packet.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
        packet.extend_from_slice(&from.ip().octets());
        packet.extend_from_slice(&to.ip().octets());
        packet.extend_from_slice(&from.port().to_be_bytes());
        packet.extend_from_slice(&to.port().to_be_bytes());
        packet.extend_from_slice(&datagram.to_be_bytes());
        // No checksum, which IPv4 allows.
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(payload);
        self.socket.send_to(&packet, &SocketAddr::V4(to).into()).expect("the internet takes packets");
    }
}
