//! The task that owns the beacon's state and its socket.

use super::registry::Event;
use crate::beacon::{Question, Route, State};
use pilot_wire::{NodeId, beacon::NotifyKind};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};
use tokio::{net::UdpSocket, sync::mpsc};

/// What the registry tells the beacon.
#[derive(Debug)]
pub(super) enum Order {
    /// Something waits for the node.
    Notify(NodeId),
    /// The node has registered from there.
    Registered(NodeId, IpAddr),
    /// May the two be introduced?
    Introduce(Question, bool),
}

/// Longest UDP datagram.
const DATAGRAM_MAX: usize = 65_535;
/// Datagrams taken before orders are looked at.
const BATCH: usize = 64;
/// Receive and send buffers of the socket in bytes: a burst of relayed frames is to wait, not to be lost.
const SOCKET_BUFFER: usize = 4 << 20;

/// Runs until the socket fails.
pub(super) async fn serve(
    socket: UdpSocket,
    mut state: State,
    mut orders: mpsc::Receiver<Order>,
    to_registry: mpsc::Sender<Event>,
) -> io::Error {
    enlarge_buffers(&socket);
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        tokio::select! {
            // Orders first: a node that was just registered is known before its first discover is looked at.
            biased;
            Some(order) = orders.recv() => {
                let now = Instant::now();
                match order {
                    Order::Notify(node) => state.notify(now, node, NotifyKind::Handshake),
                    Order::Registered(node, ip) => state.registered(node, ip),
                    Order::Introduce(question, allowed) => state.handle_answer(question, allowed),
                }
                transmit(&socket, &mut state);
            }
            ready = socket.readable() => {
                if let Err(error) = ready {
                    return error;
                }
                if let Err(error) = receive(&socket, &mut state, &mut buffer, &to_registry) {
                    return error;
                }
            }
        }
    }
}

fn receive(
    socket: &UdpSocket,
    state: &mut State,
    buffer: &mut [u8],
    to_registry: &mpsc::Sender<Event>,
) -> io::Result<()> {
    for _ in 0..BATCH {
        let (length, from): (usize, SocketAddr) = match socket.try_recv_from(buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // An earlier datagram could not be delivered; the socket is fine.
            Err(error) if is_about_a_peer(&error) => continue,
            Err(error) => return Err(error),
        };
        state.handle_datagram(Instant::now(), from, &buffer[..length]);
        transmit(socket, state);
        while let Some(question) = state.poll_question() {
            if to_registry.try_send(Event::MayIntroduce(question)).is_err() {
                tracing::debug!(?question, "the registry is busy; nobody is introduced");
            }
        }
    }
    Ok(())
}

/// What the socket does not take is lost, as datagrams may be.
fn transmit(socket: &UdpSocket, state: &mut State) {
    while let Some((to, datagram)) = state.poll_transmit() {
        let Route::Udp(to) = to else { continue };
        if let Err(error) = socket.try_send_to(&datagram, to) {
            tracing::debug!(%to, %error, "a datagram is lost");
        }
    }
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
