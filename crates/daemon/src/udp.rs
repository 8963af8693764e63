//! The tunnel socket: trains of datagrams out with one call, batches in with one call, one owner.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Buffers offered to one receive call. Each may come back as a train of up to 64 KiB when the kernel coalesces,
/// so eight hold the window of a fast stream while pages that no traffic touches cost no memory.
const RECEIVE_BUFFERS: usize = 8;

/// Bytes received in one go before what they call for is done: as much as one batch of trains has.
const RECEIVED_PER_TURN: usize = RECEIVE_BUFFERS * BUFFER_LEN / 2;

/// Receive calls in one go. Small datagrams, of which a flood is made, cost least together.
const BATCHES_PER_TURN: usize = 8;

/// Largest coalesced train, and largest single UDP payload, that the kernel hands over.
const BUFFER_LEN: usize = 65_536;

/// Largest UDP payload over IPv4 (65,535 less IP and UDP headers); a train must not exceed it either.
const MAX_PAYLOAD: usize = 65_507;

/// Socket buffers asked of the kernel (it grants what its limits allow): room for a fast sender's window while this
/// process is not scheduled.
const KERNEL_BUFFER: usize = 4 << 20;

/// Whether a batch that is not full says that the socket is empty, so that no call is needed to find out. What comes
/// later makes the socket readable again. Elsewhere one datagram is received per call.
const EMPTIES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// What became of a train handed to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Taken, or dropped for a reason that waiting does not cure: UDP may lose it either way.
    Gone,
    /// The kernel's buffer is full: offer it again when the socket is writable.
    Blocked,
    /// The interface carries less, and fragments were forbidden.
    TooLarge,
}

/// The tunnel socket with its receive buffers.
pub(crate) struct UdpSocket {
    /// Registered for reading only: otherwise each datagram that the other side takes would wake the loop, for there is
    /// room for another one then.
    io: AsyncFd<std::net::UdpSocket>,
    /// Tells of room, while a send is blocked.
    room: Option<AsyncFd<std::net::UdpSocket>>,
    state: UdpSocketState,
    local: SocketAddr,
    /// Whether the kernel may cut what is sent now into fragments.
    fragments: AtomicBool,
    buffers: [Box<[u8]>; RECEIVE_BUFFERS],
}

impl UdpSocket {
    /// Binds `listen`. The unspecified IPv6 address, and the unspecified IPv4 address where IPv6 exists, are bound dual stack.
    pub(crate) fn bind(listen: SocketAddr) -> io::Result<Self> {
        let socket = bind_dual_stack(listen).or_else(|_| bind_plain(listen))?;
        socket.set_nonblocking(true)?;
        // The kernel's limit may be lower than the wish; smaller buffers work, only less smoothly.
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
        let io = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let local = io.local_addr()?;
        set_fragments(&io, local, false);
        let io = watch(io, Interest::READABLE)?;
        let buffers = std::array::from_fn(|_| vec![0; BUFFER_LEN].into_boxed_slice());
        Ok(Self { io, room: None, state, local, fragments: AtomicBool::new(false), buffers })
    }

    /// The bound address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Datagrams that one [`send`](Self::send) may carry: 1 where the system cannot cut trains.
    pub(crate) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Ready when a receive is worth trying.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_read_ready(cx).map_ok(drop)
    }

    /// Ready when a blocked send is worth trying again.
    pub(crate) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let room = match self.room.take() {
            Some(room) => room,
            None => watch(self.io.get_ref().try_clone()?, Interest::WRITABLE)?,
        };
        let polled = room.poll_write_ready(cx).map_ok(drop);
        if polled.is_pending() {
            self.room = Some(room);
        }
        polled
    }

    /// Receives a batch, or several of small datagrams, and hands each datagram to `each`, in place. Returns how many there
    /// were; 0 when none waits.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(SocketAddr, &mut [u8])) -> io::Result<usize> {
        let (mut count, mut bytes) = (0, 0);
        for _ in 0..BATCHES_PER_TURN {
            let full = self.receive_batch(|from, datagram| {
                count += 1;
                bytes += datagram.len();
                each(from, datagram);
            })?;
            if !full || bytes >= RECEIVED_PER_TURN {
                break;
            }
        }
        Ok(count)
    }

    /// Returns whether there may be more.
    fn receive_batch(&mut self, mut each: impl FnMut(SocketAddr, &mut [u8])) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); RECEIVE_BUFFERS];
        let received = {
            let mut slices = self.buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
            let (io, state) = (&self.io, &self.state);
            let mut received = 0;
            let outcome = io.try_io(Interest::READABLE, |io| {
                received = state.recv(UdpSockRef::from(io), &mut slices, &mut metas)?;
                if EMPTIES && received < RECEIVE_BUFFERS {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match outcome {
                Ok(()) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => received,
                Err(error) => return Err(error),
            }
        };
        for (meta, buffer) in metas.iter().zip(&mut self.buffers).take(received) {
            let from = canonical(meta.addr);
            for datagram in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                each(from, datagram);
            }
        }
        Ok(received == RECEIVE_BUFFERS)
    }

    /// Sends `train`, datagrams of `segment_size` bytes each (the last may be shorter), to `destination`, in fragments if
    /// they are larger than the network carries and `may_fragment` allows it.
    pub(crate) fn send(
        &self,
        destination: SocketAddr,
        segment_size: usize,
        may_fragment: bool,
        train: &[u8],
    ) -> Sent {
        // Few datagrams may be cut, so the option of the socket is mostly right already.
        if self.fragments.swap(may_fragment, Ordering::Relaxed) != may_fragment {
            set_fragments(self.io.get_ref(), self.local, may_fragment);
        }
        let destination = self.reachable_form(destination);
        let segment_size = segment_size.clamp(1, MAX_PAYLOAD);
        let per_call = (MAX_PAYLOAD / segment_size).clamp(1, self.max_segments()) * segment_size;
        let mut rest = train;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(per_call.min(rest.len()));
            match self.send_one_call(destination, segment_size, now) {
                Sent::Gone => {}
                // What this call already sent would be repeated; receivers drop repeats, and a part sent is rare.
                other @ (Sent::Blocked | Sent::TooLarge) => return other,
            }
            rest = later;
        }
        Sent::Gone
    }

    fn send_one_call(&self, destination: SocketAddr, segment_size: usize, contents: &[u8]) -> Sent {
        let segments_before = self.max_segments();
        let transmit =
            Transmit { destination, ecn: None, contents, segment_size: Some(segment_size), src_ip: None };
        match self.state.try_send(UdpSockRef::from(self.io.get_ref()), &transmit) {
            Ok(()) => Sent::Gone,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Blocked,
            // Some drivers refuse trains only when handed one; quinn-udp then turns the feature off for good.
            Err(_) if segments_before > 1 && self.max_segments() == 1 && contents.len() > segment_size => {
                for segment in contents.chunks(segment_size) {
                    match self.send_one_call(destination, segment_size, segment) {
                        Sent::Gone => {}
                        other @ (Sent::Blocked | Sent::TooLarge) => return other,
                    }
                }
                Sent::Gone
            }
            Err(error) if is_too_large(&error) => Sent::TooLarge,
            Err(error) => {
                tracing::debug!(%destination, len = contents.len(), %error, "datagram not sent");
                Sent::Gone
            }
        }
    }

    /// An IPv6 socket reaches IPv4 hosts by their mapped addresses.
    fn reachable_form(&self, destination: SocketAddr) -> SocketAddr {
        match (self.local, destination.ip()) {
            (SocketAddr::V6(_), IpAddr::V4(v4)) => {
                SocketAddr::new(v4.to_ipv6_mapped().into(), destination.port())
            }
            (SocketAddr::V4(_) | SocketAddr::V6(_), _) => destination,
        }
    }
}

#[expect(deprecated, reason = "what replaces it is unsafe, because of types whose descriptor is not theirs")]
fn watch(io: std::net::UdpSocket, interest: Interest) -> io::Result<AsyncFd<std::net::UdpSocket>> {
    AsyncFd::with_interest(io, interest)
}

/// Whether the kernel may cut datagrams that are larger than a packet of the network. Streams never need that, because the
/// node finds out what the path carries; but overlay datagrams may have 64 KiB (spec/dataplane.md 4). Otherwise they go
/// out marked "do not fragment", and routers' reports of what they carry are not believed (RFC 8899 4.6).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_fragments(io: &std::net::UdpSocket, local: SocketAddr, allowed: bool) {
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery as V4, Ipv6PathMtuDiscovery as V6};
    use rustix::net::sockopt::{set_ip_mtu_discover, set_ipv6_mtu_discover};
    let (v4, v6) = if allowed { (V4::DONT, V6::DONT) } else { (V4::PROBE, V6::PROBE) };
    let mut outcome = set_ip_mtu_discover(io, v4);
    if local.is_ipv6() {
        outcome = outcome.and(set_ipv6_mtu_discover(io, v6));
    }
    if let Err(error) = outcome {
        tracing::info!(%error, allowed, "fragments could not be allowed or forbidden");
    }
}

/// On other systems it stays as `quinn-udp` has it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn set_fragments(_io: &std::net::UdpSocket, _local: SocketAddr, _allowed: bool) {}

#[cfg(unix)]
fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

#[cfg(not(unix))]
fn is_too_large(_error: &io::Error) -> bool {
    false
}

/// Addresses as everybody else writes them: `127.0.0.1`, not `::ffff:127.0.0.1`.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn bind_dual_stack(listen: SocketAddr) -> io::Result<Socket> {
    if !listen.ip().is_unspecified() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), listen.port()).into())?;
    Ok(socket)
}

fn bind_plain(listen: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&listen.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn receive_all(socket: &mut UdpSocket, wanted: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut got = Vec::new();
        while got.len() < wanted {
            poll_fn(|cx| socket.poll_readable(cx)).await.unwrap();
            socket.receive(|from, datagram| got.push((from, datagram.to_vec()))).unwrap();
        }
        got
    }

    #[tokio::test]
    async fn a_train_arrives_as_the_datagrams_it_was_made_of() {
        let a = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut b = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let train: Vec<u8> = (0..2_500u32).map(|i| (i % 251) as u8).collect();
        assert_eq!(a.send(b.local(), 1000, false, &train), Sent::Gone);
        let got = receive_all(&mut b, 3).await;
        let datagrams: Vec<_> = got.iter().map(|(_, d)| d.clone()).collect();
        assert_eq!(datagrams, train.chunks(1000).map(<[u8]>::to_vec).collect::<Vec<_>>());
        assert!(got.iter().all(|(from, _)| *from == a.local()));
    }

    #[tokio::test]
    async fn a_dual_stack_socket_talks_to_an_ipv4_one_in_plain_addresses() {
        let any = UdpSocket::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let mut v4 = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(any.send(v4.local(), 5, false, b"hello"), Sent::Gone);
        let got = receive_all(&mut v4, 1).await;
        assert_eq!(got[0].1, b"hello");
        assert_eq!(got[0].0, SocketAddr::new([127, 0, 0, 1].into(), any.local().port()));
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn only_what_may_be_cut_is_sent_without_the_mark() {
        use rustix::net::sockopt::{Ipv4PathMtuDiscovery, ip_mtu_discover};
        for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
            let socket = UdpSocket::bind(listen.parse().unwrap()).unwrap();
            let to = SocketAddr::new([127, 0, 0, 1].into(), socket.local().port());
            let mode = || ip_mtu_discover(socket.io.get_ref()).unwrap();
            assert_eq!(mode(), Ipv4PathMtuDiscovery::PROBE);
            assert_eq!(socket.send(to, 60_000, true, &[1; 60_000]), Sent::Gone);
            assert_eq!(mode(), Ipv4PathMtuDiscovery::DONT);
            assert_eq!(socket.send(to, 5, false, b"hello"), Sent::Gone);
            assert_eq!(mode(), Ipv4PathMtuDiscovery::PROBE);
        }
    }

    #[tokio::test]
    async fn the_largest_datagram_passes_whole() {
        let a = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut b = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let big = vec![7; MAX_PAYLOAD];
        assert_eq!(a.send(b.local(), big.len(), true, &big), Sent::Gone);
        assert_eq!(receive_all(&mut b, 1).await[0].1, big);
    }
}
