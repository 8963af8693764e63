//! The link of a beacon to a registry on another machine, which answers what the beacon asks.
//!
//! One request carries everything: that the beacon is there, whose keys it wants, and who may be introduced. It is made
//! every few seconds, and at once when there is something to ask. While the registry is away the beacon goes on with what
//! it knows.

mod secure;

use super::{
    beacon::{Membership, Order},
    mesh,
    registry::Event,
};
use crate::{beacon::Question, config::RegistryTrust};
use pilot_wire::{
    NodeId, PublicKey,
    registry::{BeaconLink, BeaconLinked, Decoder, Envelope, FrameError, Request, Response, frame},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_rustls::client::TlsStream;

/// Time for a connection, and for a reply.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause after a failure; doubled with each up to [`mesh::REFRESH`].
const PAUSE: Duration = Duration::from_millis(250);

/// Who waits for the key of one node, at most; and nodes and pairs that wait to be asked about.
const WAITING_MAX: usize = 64;
const ASKED_MAX: usize = 4096;

/// Why a registry did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Silent,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the reply is not understood: {0}")]
    Strange(String),
    #[error("{0}")]
    Refused(String),
}

/// The beacon as it is announced.
pub(super) struct Announced {
    pub(super) id: u32,
    pub(super) session: u64,
    /// Where it listens, or what is to be said instead.
    pub(super) addr: SocketAddr,
    pub(super) admin_token: String,
    /// How the registry is known.
    pub(super) trust: RegistryTrust,
}

/// The link.
pub(super) struct Link {
    registries: Vec<String>,
    current: usize,
    announced: Announced,
    connection: Option<Connection>,
    nodes: BTreeSet<NodeId>,
    pairs: BTreeSet<(NodeId, NodeId)>,
    waiting: BTreeMap<NodeId, Vec<oneshot::Sender<Option<PublicKey>>>>,
}

struct Connection {
    stream: TlsStream<TcpStream>,
    decoder: Decoder,
}

impl Link {
    /// `registries` must not be empty.
    pub(super) fn new(registries: Vec<String>, announced: Announced) -> Self {
        Self {
            registries,
            current: 0,
            announced,
            connection: None,
            nodes: BTreeSet::new(),
            pairs: BTreeSet::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// The registry that is asked at the moment.
    pub(super) fn registry(&self) -> &str {
        self.registries.get(self.current).map_or("", String::as_str)
    }

    /// Runs until the beacon is gone.
    pub(super) async fn serve(mut self, mut events: mpsc::Receiver<Event>, to_beacon: mpsc::Sender<Order>) {
        let mut pause = PAUSE;
        let mut next = Instant::now();
        let mut failing = false;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.note(event),
                    None => return,
                },
                () = tokio::time::sleep_until(next) => {}
            }
            while let Ok(event) = events.try_recv() {
                self.note(event);
            }
            if failing && Instant::now() < next {
                continue;
            }
            match self.exchange(&to_beacon).await {
                Ok(()) => {
                    if failing {
                        tracing::info!(registry = self.registry(), "the registry answers");
                    }
                    (failing, pause) = (false, PAUSE);
                    let more = !self.nodes.is_empty() || !self.pairs.is_empty();
                    next = Instant::now() + if more { Duration::ZERO } else { mesh::REFRESH };
                }
                Err(error) => {
                    tracing::warn!(registry = self.registry(), %error, "the registry does not help this beacon");
                    failing = true;
                    self.connection = None;
                    self.current = (self.current + 1) % self.registries.len().max(1);
                    next = Instant::now() + pause;
                    pause = (pause * 2).min(mesh::REFRESH);
                }
            }
        }
    }

    /// What the beacon wants. More than can be asked about is forgotten; it will ask again.
    fn note(&mut self, event: Event) {
        match event {
            Event::Wanted(node) if self.nodes.len() < ASKED_MAX => {
                self.nodes.insert(node);
            }
            Event::MayIntroduce(Question { requester, target }) if self.pairs.len() < ASKED_MAX => {
                self.pairs.insert((requester, target));
            }
            Event::KeyOf(node, answer) if self.waiting.len() < ASKED_MAX => {
                let waiting = self.waiting.entry(node).or_default();
                if waiting.len() < WAITING_MAX {
                    waiting.push(answer);
                    self.nodes.insert(node);
                }
            }
            // The others concern a registry in this process.
            Event::Wanted(_)
            | Event::MayIntroduce(_)
            | Event::KeyOf(..)
            | Event::OtherBeacons(_)
            | Event::Opened { .. }
            | Event::Asked { .. }
            | Event::Closed { .. } => {}
        }
    }

    /// One request and what follows from its reply.
    pub(super) async fn exchange(&mut self, to_beacon: &mpsc::Sender<Order>) -> Result<(), LinkError> {
        let nodes: Vec<NodeId> = self.nodes.iter().copied().take(BeaconLink::ITEMS_MAX).collect();
        let pairs: Vec<_> = self.pairs.iter().copied().take(BeaconLink::ITEMS_MAX).collect();
        let linked = timeout(PATIENCE, self.ask(nodes.clone(), pairs.clone()));
        let linked = linked.await.map_err(|_| LinkError::Silent)??;
        let membership =
            Membership { id: self.announced.id, secret: linked.mesh_secret, session: self.announced.session };
        // The beacon never waits for this.
        let _ = to_beacon.send(Order::Mesh(membership)).await;
        for known in &linked.nodes {
            let order = Order::Registered(known.node_id, known.home, Some(known.public_key));
            let _ = to_beacon.send(order).await;
        }
        for node in nodes {
            self.nodes.remove(&node);
            let key = linked.nodes.iter().find(|known| known.node_id == node).map(|known| known.public_key);
            for answer in self.waiting.remove(&node).unwrap_or_default() {
                // Who asked may be gone.
                let _ = answer.send(key);
            }
        }
        for pair in pairs {
            self.pairs.remove(&pair);
            let (requester, target) = pair;
            let allowed = linked.pairs.contains(&pair);
            let _ = to_beacon.send(Order::Introduce(Question { requester, target }, allowed)).await;
        }
        let peers = mesh::located(linked.beacons).await;
        let _ = to_beacon.send(Order::Peers(peers)).await;
        Ok(())
    }

    async fn ask(
        &mut self,
        nodes: Vec<NodeId>,
        pairs: Vec<(NodeId, NodeId)>,
    ) -> Result<BeaconLinked, LinkError> {
        // Taken out meanwhile: one on which a reply is still to come is of no use.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = secure::connect(self.registry(), &self.announced.trust).await?;
                Connection { stream, decoder: Decoder::new() }
            }
        };
        let mut addr = self.announced.addr;
        if addr.ip().is_unspecified() {
            addr.set_ip(connection.stream.get_ref().0.local_addr()?.ip());
        }
        let request = BeaconLink { beacon_id: self.announced.id, addr: addr.to_string(), nodes, pairs };
        let admin_token = self.announced.admin_token.clone();
        let envelope = Envelope::with_token(Request::BeaconLink(request), admin_token);
        connection.stream.write_all(&frame(&envelope.to_json())?).await?;
        connection.stream.flush().await?;
        let reply = connection.reply().await?;
        self.connection = Some(connection);
        match Response::parse(&reply) {
            Ok(Response::BeaconLink(linked)) => Ok(linked),
            Ok(Response::Error { error }) => Err(LinkError::Refused(error)),
            Ok(_) => Err(LinkError::Strange("it answers something else".to_owned())),
            Err(error) => Err(LinkError::Strange(error.to_string())),
        }
    }
}

impl Connection {
    async fn reply(&mut self) -> Result<Vec<u8>, LinkError> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(content) = self.decoder.next()? {
                return Ok(content);
            }
            match self.stream.read(&mut buffer).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                length => self.decoder.feed(&buffer[..length]),
            }
        }
    }
}
