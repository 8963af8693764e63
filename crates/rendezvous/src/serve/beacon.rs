//! The task that owns the beacon's state and its socket.

use super::{
    ears::Sockets,
    registry::Event,
    web::{Full, Outbox, Said},
};
use crate::{
    beacon::{Question, Route, State, WebId},
    http::BeaconPulse,
};
use pilot_wire::{NodeId, PublicKey, beacon::NotifyKind};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

/// What the registry tells the beacon.
#[derive(Debug)]
pub(super) enum Order {
    /// Something waits for the node.
    Notify(NodeId),
    /// The node has registered from there.
    Registered(NodeId, IpAddr, Option<PublicKey>),
    /// May the two be introduced?
    Introduce(Question, bool),
}

/// Longest UDP datagram.
const DATAGRAM_MAX: usize = 65_535;
/// Longest datagram that the other sockets look at.
const SURVEY_MAX: usize = 256;
/// Datagrams taken before orders are looked at.
const BATCH: usize = 64;
/// Receive and send buffers of the socket in bytes: a burst of relayed frames is to wait, not to be lost.
const SOCKET_BUFFER: usize = 4 << 20;

/// Runs until the socket fails.
pub(super) async fn serve(
    socket: UdpSocket,
    ears: Sockets,
    mut state: State,
    mut orders: mpsc::Receiver<Order>,
    mut web: mpsc::Receiver<Said>,
    to_registry: mpsc::Sender<Event>,
    pulse: watch::Sender<BeaconPulse>,
) -> io::Error {
    enlarge_buffers(&socket);
    let mut beat = tokio::time::interval(crate::http::BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; DATAGRAM_MAX];
    state.set_ears(ears.ears());
    let mut elsewhere = vec![0; SURVEY_MAX];
    let mut beacon = Beacon { socket, ears, state, web: BTreeMap::new(), to_registry };
    loop {
        tokio::select! {
            // Orders first: a node that was just registered is known before its first discover is looked at.
            biased;
            Some(order) = orders.recv() => beacon.obey(order),
            _ = beat.tick() => {
                pulse.send_replace(beacon.pulse());
            }
            // Nobody is kept waiting by the others: who talks over the web waits for its turn in a queue that is short.
            ready = beacon.socket.readable() => {
                if let Err(error) = ready {
                    return error;
                }
                if let Err(error) = beacon.receive(&mut buffer) {
                    return error;
                }
                for _ in 0..BATCH {
                    let Ok(said) = web.try_recv() else { break };
                    beacon.hear(said);
                }
            }
            Some(said) = web.recv() => beacon.hear(said),
            (ear, length, from) = beacon.ears.receive(&mut elsewhere) => {
                beacon.state.handle_elsewhere(Instant::now(), ear, from, &elsewhere[..length]);
                beacon.settle();
            }
        }
    }
}

struct Beacon {
    socket: UdpSocket,
    ears: Sockets,
    state: State,
    /// The way to each connection over the web.
    web: BTreeMap<WebId, Outbox>,
    to_registry: mpsc::Sender<Event>,
}

impl Beacon {
    fn pulse(&self) -> BeaconPulse {
        BeaconPulse {
            at: Some(Instant::now()),
            stats: self.state.stats(),
            nodes: self.state.len(),
            web: self.web.len(),
        }
    }

    fn obey(&mut self, order: Order) {
        let now = Instant::now();
        match order {
            Order::Notify(node) => self.state.notify(now, node, NotifyKind::Handshake),
            Order::Registered(node, ip, key) => {
                self.state.registered(node, ip);
                if let Some(key) = key {
                    self.state.has_key(node, key);
                }
            }
            Order::Introduce(question, allowed) => self.state.handle_answer(question, allowed),
        }
        self.transmit();
    }

    fn hear(&mut self, said: Said) {
        let now = Instant::now();
        match said {
            Said::Opened { conn, node, outbox } => {
                self.web.insert(conn, outbox);
                if let Some(before) = self.state.web_opened(now, conn, node) {
                    self.web.remove(&before);
                }
            }
            Said::Message(conn, message) => self.state.handle_web(now, conn, &message),
            Said::Closed(conn) => {
                self.web.remove(&conn);
                self.state.web_closed(now, conn);
            }
        }
        self.settle();
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            let (length, from): (usize, SocketAddr) = match self.socket.try_recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // An earlier datagram could not be delivered; the socket is fine.
                Err(error) if is_about_a_peer(&error) => continue,
                Err(error) => return Err(error),
            };
            self.state.handle_datagram(Instant::now(), from, &buffer[..length]);
            self.settle();
        }
        Ok(())
    }

    fn settle(&mut self) {
        self.transmit();
        while let Some(question) = self.state.poll_question() {
            if self.to_registry.try_send(Event::MayIntroduce(question)).is_err() {
                tracing::debug!(?question, "the registry is busy; nobody is introduced");
            }
        }
    }

    /// What the socket or the connection does not take is lost, as datagrams may be.
    fn transmit(&mut self) {
        while let Some((to, message)) = self.state.poll_transmit() {
            let sent = match to {
                Route::Udp(addr) => self.socket.try_send_to(&message, addr).map(drop),
                Route::Elsewhere(ear, addr) => self.ears.send(ear, addr, &message),
                Route::Web(conn) => match self.web.get(&conn).map(|outbox| outbox.send(message)) {
                    Some(Ok(())) => Ok(()),
                    Some(Err(Full)) | None => Err(io::ErrorKind::WouldBlock.into()),
                },
            };
            if let Err(error) = sent {
                tracing::debug!(%to, %error, "a message is lost");
            }
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
