//! The task that owns the beacon's state and its socket.

use super::{
    ears::Sockets,
    registry::Event,
    udp::{Buffers, Socket},
    web::{Full, Outbox, Said},
};
use crate::{
    beacon::{Question, Route, State, Stats, Transmit, WebId},
    http::{BEAT, BeaconPulse},
};
use pilot_wire::{NodeId, PublicKey, beacon::NotifyKind, registry::MeshSecret};
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

/// What the registry, or the link to it, tells the beacon.
#[derive(Debug)]
pub(super) enum Order {
    /// Something waits for the node.
    Notify(NodeId),
    /// The node has registered, from there, with this key.
    Registered(NodeId, Option<IpAddr>, Option<PublicKey>),
    /// May the two be introduced?
    Introduce(Question, bool),
    /// What the beacons know each other by.
    Mesh(Membership),
    /// The other beacons.
    Peers(Vec<(u32, SocketAddr)>),
}

/// A beacon's place in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) id: u32,
    pub(super) secret: MeshSecret,
    /// Of this life.
    pub(super) session: u64,
}

/// Longest datagram that the other sockets look at.
const SURVEY_MAX: usize = 256;
/// Receive calls, and messages over the web, before orders are looked at.
const BATCH: usize = 16;

/// Runs until the socket fails. What it does is to be seen in `pulse`, renewed with each [`BEAT`].
pub(super) async fn serve(
    socket: UdpSocket,
    ears: Sockets,
    mut state: State,
    mut orders: mpsc::Receiver<Order>,
    mut web: mpsc::Receiver<Said>,
    to_registry: mpsc::Sender<Event>,
    pulse: watch::Sender<BeaconPulse>,
) -> io::Error {
    let socket = match Socket::new(socket) {
        Ok(socket) => socket,
        Err(error) => return error,
    };
    let mut buffers = Buffers::new();
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    state.set_ears(ears.ears());
    let mut elsewhere = vec![0; SURVEY_MAX];
    let mut beacon = Beacon { socket, ears, state, web: BTreeMap::new(), to_registry, unsent: 0 };
    loop {
        // Not with the others below: there is always something to receive while the beacon is busy.
        let now = Instant::now();
        let due = beacon.state.poll_timeout();
        if due.is_some_and(|due| due <= now) {
            beacon.state.handle_timeout(now);
            beacon.settle();
        }
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
                if let Err(error) = beacon.receive(&mut buffers) {
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
            () = sleep_until(due) => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

struct Beacon {
    socket: Socket,
    ears: Sockets,
    state: State,
    /// The way to each connection over the web.
    web: BTreeMap<WebId, Outbox>,
    to_registry: mpsc::Sender<Event>,
    /// Datagrams that were not taken.
    unsent: u64,
}

impl Beacon {
    fn pulse(&self) -> BeaconPulse {
        BeaconPulse {
            at: Some(Instant::now()),
            stats: Stats { unsent: self.unsent, ..self.state.stats() },
            web: self.web.len(),
        }
    }

    fn obey(&mut self, order: Order) {
        let now = Instant::now();
        match order {
            Order::Notify(node) => self.state.notify(now, node, NotifyKind::Handshake),
            Order::Registered(node, ip, key) => {
                if let Some(ip) = ip {
                    self.state.registered(node, ip);
                }
                if let Some(key) = key {
                    self.state.has_key(now, node, key);
                }
            }
            Order::Introduce(question, allowed) => self.state.handle_answer(now, question, allowed),
            Order::Mesh(Membership { id, secret, session }) => {
                self.state.join_mesh(now, id, secret, session);
            }
            Order::Peers(peers) => self.state.set_peers(now, &peers),
        }
        self.settle();
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

    fn receive(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        for _ in 0..BATCH {
            if !self.socket.receive(buffers)? {
                return Ok(());
            }
            let now = Instant::now();
            for (from, segment, train) in buffers.trains() {
                self.state.handle_train(now, from, segment, train);
            }
            self.settle();
        }
        Ok(())
    }

    fn settle(&mut self) {
        self.transmit();
        self.ask();
    }

    fn ask(&mut self) {
        while let Some(question) = self.state.poll_question() {
            if self.to_registry.try_send(Event::MayIntroduce(question)).is_err() {
                tracing::debug!(?question, "the registry is busy; nobody is introduced");
            }
        }
        while let Some(node) = self.state.poll_wanted() {
            if self.to_registry.try_send(Event::Wanted(node)).is_err() {
                tracing::debug!(%node, "the registry is busy; the node's key is asked for later");
            }
        }
    }

    /// What the socket or the connection does not take is lost, as datagrams may be.
    fn transmit(&mut self) {
        while let Some(train) = self.state.poll_transmit() {
            let to = train.to;
            let sent = match to {
                Route::Udp(addr) => self.socket.send(addr, train.segment, train.content),
                Route::Elsewhere(ear, addr) => each(&train, |datagram| self.ears.send(ear, addr, datagram)),
                Route::Web(conn) => match self.web.get(&conn) {
                    Some(outbox) => each(&train, |message| {
                        outbox.send(message.to_vec()).map_err(|Full| io::ErrorKind::WouldBlock.into())
                    }),
                    None => Err((train.datagrams().count() as u64, io::ErrorKind::NotConnected.into())),
                },
            };
            if let Err((datagrams, error)) = sent {
                self.unsent += datagrams;
                tracing::debug!(%to, datagrams, %error, "messages are lost");
            }
        }
    }
}

fn each(train: &Transmit<'_>, mut send: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), (u64, io::Error)> {
    let mut lost = Ok(());
    for datagram in train.datagrams() {
        if let Err(error) = send(datagram) {
            let before = lost.as_ref().err().map_or(0, |(count, _): &(u64, io::Error)| *count);
            lost = Err((before + 1, error));
        }
    }
    lost
}
