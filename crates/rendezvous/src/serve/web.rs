//! The beacon over the web: accepts connections, and decides whose turn it is to go when there are too many.

mod connection;

use super::registry::Event;
use crate::{beacon::WebId, config::WebLimits};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{AbortHandle, Id, JoinSet},
};
use tokio_rustls::TlsAcceptor;

/// Pause when the system has no descriptors left, during which one is freed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Messages of all connections that wait for the beacon. Connections wait when it is full, each in its turn.
const INBOX: usize = 256;

/// Messages that wait for one connection to be written, and how many bytes they may have. A node that reads slowly
/// loses what comes then, as it would from a full buffer of a router; nobody waits for it.
const OUTBOX: usize = 1024;
const OUTBOX_BYTES: usize = 1 << 20;

/// What a connection tells the beacon.
#[derive(Debug)]
pub(super) enum Said {
    /// A node has proved who it is.
    Opened { conn: WebId, node: pilot_wire::NodeId, outbox: Outbox },
    /// One message of it.
    Message(WebId, Bytes),
    /// It is gone.
    Closed(WebId),
}

/// The way to one connection. When it is dropped, the connection is closed: another one has taken its place.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Outgoing>,
    room: Arc<Semaphore>,
}

/// A message that takes its room with it.
#[derive(Debug)]
struct Outgoing {
    message: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// The connection does not take more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Outbox {
    fn new() -> (Self, mpsc::Receiver<Outgoing>) {
        let (queue, outgoing) = mpsc::channel(OUTBOX);
        (Self { queue, room: Arc::new(Semaphore::new(OUTBOX_BYTES)) }, outgoing)
    }

    /// Hands a message over, or loses it.
    pub(super) fn send(&self, message: Vec<u8>) -> Result<(), Full> {
        let bytes = u32::try_from(message.len()).map_err(|_| Full)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| Full)?;
        self.queue.try_send(Outgoing { message, _room: room }).map_err(|_| Full)
    }
}

/// The channel through which connections talk to the beacon.
pub(super) fn inbox() -> (mpsc::Sender<Said>, mpsc::Receiver<Said>) {
    mpsc::channel(INBOX)
}

/// Runs until it is dropped, and ends all connections then.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    limits: WebLimits,
    to_registry: mpsc::Sender<Event>,
    to_beacon: mpsc::Sender<Said>,
) {
    let mut visitors = Visitors {
        acceptor,
        limits,
        to_registry,
        to_beacon,
        tasks: JoinSet::new(),
        visitors: BTreeMap::new(),
        next: 0,
        per_ip: HashMap::new(),
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => visitors.admit(stream, peer),
                Err(error) => visitors.accept_failed(&error).await,
            },
            Some(ended) = visitors.tasks.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => error.id(),
                };
                visitors.ended(id).await;
            }
        }
    }
}

struct Visitors {
    acceptor: Option<TlsAcceptor>,
    limits: WebLimits,
    to_registry: mpsc::Sender<Event>,
    to_beacon: mpsc::Sender<Said>,
    tasks: JoinSet<()>,
    visitors: BTreeMap<Id, Visitor>,
    next: u64,
    per_ip: HashMap<IpAddr, usize>,
}

struct Visitor {
    conn: WebId,
    ip: IpAddr,
    proven: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Visitors {
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        let ip = peer.ip().to_canonical();
        let from_here = self.per_ip.get(&ip).copied().unwrap_or_default();
        if from_here >= self.limits.max_per_ip && !ip.is_loopback() {
            tracing::debug!(%peer, "too many web connections from one address");
            return;
        }
        if self.visitors.len() >= self.limits.max && !self.shed() {
            tracing::debug!(%peer, "too many web connections");
            return;
        }
        let conn = WebId(self.next);
        self.next += 1;
        let proven = Arc::<AtomicBool>::default();
        let visit = connection::Visit {
            conn,
            peer: SocketAddr::new(ip, peer.port()),
            limits: self.limits.clone(),
            proven: Arc::clone(&proven),
            to_registry: self.to_registry.clone(),
            to_beacon: self.to_beacon.clone(),
        };
        let task = self.tasks.spawn(connection::serve(visit, stream, self.acceptor.clone()));
        *self.per_ip.entry(ip).or_default() += 1;
        self.visitors.insert(task.id(), Visitor { conn, ip, proven, task });
    }

    async fn accept_failed(&mut self, error: &io::Error) {
        tracing::warn!(%error, "a web connection could not be accepted");
        self.shed();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    /// Ends the oldest connection on which nobody has proved to be anybody. `false` if there is none: a node that is
    /// there has no other way, so the newcomer has to try again.
    fn shed(&self) -> bool {
        let strangers = self.visitors.values().filter(|visitor| !visitor.proven.load(Ordering::Relaxed));
        let oldest = strangers.min_by_key(|visitor| visitor.conn);
        oldest.map(|visitor| visitor.task.abort()).is_some()
    }

    async fn ended(&mut self, id: Id) {
        let Some(visitor) = self.visitors.remove(&id) else { return };
        if let Some(count) = self.per_ip.get_mut(&visitor.ip) {
            *count -= 1;
            if *count == 0 {
                self.per_ip.remove(&visitor.ip);
            }
        }
        if visitor.proven.load(Ordering::Relaxed) {
            // The beacon ends only when this task has.
            let _ = self.to_beacon.send(Said::Closed(visitor.conn)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_connection_is_bounded_in_bytes_and_in_number() {
        let (outbox, mut queue) = Outbox::new();
        let large = vec![0; 60_000];
        let taken = (0..100).take_while(|_| outbox.send(large.clone()).is_ok()).count();
        assert_eq!(taken, OUTBOX_BYTES / 60_000);
        drop(queue.try_recv());
        assert_eq!(outbox.send(large), Ok(()), "there is room again");
        let (outbox, _queue) = Outbox::new();
        let taken = (0..2 * OUTBOX).take_while(|_| outbox.send(vec![0]).is_ok()).count();
        assert_eq!(taken, OUTBOX);
    }
}
