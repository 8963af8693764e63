//! The beacon's socket: trains of datagrams in and out with one call each.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::{io::Interest, net::UdpSocket};

/// Buffers offered to one receive call. Each may come back as a train of up to 64 KiB when the kernel coalesces; pages
/// that no traffic touches cost no memory.
const BUFFERS: usize = 16;
/// Largest train, and largest datagram.
const BUFFER_LEN: usize = 65_536;
/// Receive and send buffers of the socket in bytes: a burst of relayed frames is to wait, not to be lost.
const SOCKET_BUFFER: usize = 4 << 20;

/// What came with one call.
pub(super) struct Buffers {
    buffers: Vec<Box<[u8]>>,
    metas: [RecvMeta; BUFFERS],
    filled: usize,
}

impl Buffers {
    pub(super) fn new() -> Self {
        let buffers = (0..BUFFERS).map(|_| vec![0; BUFFER_LEN].into_boxed_slice()).collect();
        Self { buffers, metas: [RecvMeta::default(); BUFFERS], filled: 0 }
    }

    /// From whom, how long each datagram is, and the datagrams one after the other.
    pub(super) fn trains(&self) -> impl Iterator<Item = (SocketAddr, usize, &[u8])> {
        let filled = self.metas.iter().zip(&self.buffers).take(self.filled);
        filled.map(|(meta, buffer)| (meta.addr, meta.stride, &buffer[..meta.len]))
    }
}

/// The socket.
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl Socket {
    pub(super) fn new(io: UdpSocket) -> io::Result<Self> {
        enlarge_buffers(&io);
        let local = io.local_addr()?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        allow_fragments(&io, local);
        Ok(Self { io, state, local })
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.io.readable().await
    }

    /// Takes what there is into `buffers`; `false` if there is nothing.
    pub(super) fn receive(&self, buffers: &mut Buffers) -> io::Result<bool> {
        buffers.filled = 0;
        let mut slices = buffers.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer));
        let mut slices: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let receive = || self.state.recv(UdpSockRef::from(&self.io), &mut slices, &mut buffers.metas);
        match self.io.try_io(Interest::READABLE, receive) {
            Ok(count) => {
                buffers.filled = count;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            // An earlier datagram could not be delivered; the socket is fine.
            Err(error) if is_about_a_peer(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Sends datagrams of `segment` bytes each, the last may be shorter. Returns how many were not taken, and why.
    pub(super) fn send(&self, to: SocketAddr, segment: usize, train: &[u8]) -> Result<(), (u64, io::Error)> {
        let destination = self.reachable_form(to);
        let segment = segment.max(1);
        let mut outcome = Ok(());
        for part in train.chunks(segment * self.state.max_gso_segments().max(1)) {
            match self.send_one_call(destination, segment, part) {
                Ok(()) => {}
                // There will be no room for the others either.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    lost(&mut outcome, part.len().div_ceil(segment), error);
                }
                // The network takes no packets of this size: each may still go in pieces.
                Err(_) if part.len() > segment => {
                    for datagram in part.chunks(segment) {
                        if let Err(error) = self.send_one_call(destination, segment, datagram) {
                            lost(&mut outcome, 1, error);
                        }
                    }
                }
                Err(error) => lost(&mut outcome, 1, error),
            }
        }
        outcome
    }

    fn send_one_call(&self, destination: SocketAddr, segment: usize, contents: &[u8]) -> io::Result<()> {
        let segment_size = (contents.len() > segment).then_some(segment);
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
        self.io.try_io(Interest::WRITABLE, || self.state.try_send(UdpSockRef::from(&self.io), &transmit))
    }

    /// An IPv6 socket reaches IPv4 hosts by their mapped addresses.
    fn reachable_form(&self, to: SocketAddr) -> SocketAddr {
        match (self.local, to.ip()) {
            (SocketAddr::V6(_), IpAddr::V4(v4)) => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
            (SocketAddr::V4(_) | SocketAddr::V6(_), _) => to,
        }
    }
}

fn lost(outcome: &mut Result<(), (u64, io::Error)>, datagrams: usize, error: io::Error) {
    let before = match outcome {
        Ok(()) => 0,
        Err((count, _)) => *count,
    };
    *outcome = Err((before + datagrams as u64, error));
}

fn is_about_a_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

/// The system may grant less.
fn enlarge_buffers(socket: &UdpSocket) {
    let socket = socket2::SockRef::from(socket);
    for outcome in [socket.set_recv_buffer_size(SOCKET_BUFFER), socket.set_send_buffer_size(SOCKET_BUFFER)] {
        if let Err(error) = outcome {
            tracing::debug!(%error, "the socket keeps its small buffers");
        }
    }
}

/// Relayed datagrams may have 64 KiB, more than most links carry in one packet. `quinn-udp` forbids fragments.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn allow_fragments(io: &UdpSocket, local: SocketAddr) {
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
    use rustix::net::sockopt::{set_ip_mtu_discover, set_ipv6_mtu_discover};
    let mut outcome = set_ip_mtu_discover(io, Ipv4PathMtuDiscovery::DONT);
    if local.is_ipv6() {
        outcome = outcome.and(set_ipv6_mtu_discover(io, Ipv6PathMtuDiscovery::DONT));
    }
    if let Err(error) = outcome {
        tracing::info!(%error, "datagrams larger than a packet of the network will not arrive");
    }
}

/// Other systems fragment unless told not to, and are left as they are.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn allow_fragments(_io: &UdpSocket, _local: SocketAddr) {}
