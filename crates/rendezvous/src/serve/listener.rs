//! Accepts connections, and decides whose turn it is to go when there are too many.

use super::{
    connection::{self, Activity, Visit},
    entrance::Entrance,
    registry::Event,
};
use crate::{config::Connections, meters::Meters, registry::ConnId};
use pilot_crypto::Identity;
use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{AbortHandle, Id, JoinSet},
};

/// Pause when the system has no descriptors left, during which one is freed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Runs until it is dropped, and ends all connections then.
pub(super) async fn serve(
    listener: TcpListener,
    entrance: Entrance,
    authority: Arc<Identity>,
    limits: Connections,
    to_registry: mpsc::Sender<Event>,
    meters: Arc<Meters>,
) {
    let mut clients = Clients {
        entrance,
        limits,
        authority,
        to_registry,
        meters,
        tasks: JoinSet::new(),
        clients: BTreeMap::new(),
        next: 0,
        per_ip: HashMap::new(),
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => clients.admit(stream, peer).await,
                Err(error) => clients.accept_failed(&error).await,
            },
            Some(ended) = clients.tasks.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => error.id(),
                };
                clients.ended(id).await;
            }
        }
    }
}

struct Clients {
    entrance: Entrance,
    limits: Connections,
    authority: Arc<Identity>,
    to_registry: mpsc::Sender<Event>,
    meters: Arc<Meters>,
    tasks: JoinSet<()>,
    clients: BTreeMap<Id, Client>,
    next: u64,
    per_ip: HashMap<IpAddr, usize>,
}

struct Client {
    conn: ConnId,
    ip: IpAddr,
    activity: Arc<Activity>,
    task: AbortHandle,
}

impl Clients {
    async fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        self.meters.accepted.add(1);
        let ip = peer.ip().to_canonical();
        let from_here = self.per_ip.get(&ip).copied().unwrap_or_default();
        if from_here >= self.limits.max_per_ip && !ip.is_loopback() {
            self.meters.turned_away.add(1);
            tracing::debug!(%peer, "too many connections from one address");
            return;
        }
        if self.clients.len() >= self.limits.max {
            self.shed();
        }
        let conn = ConnId(self.next);
        self.next += 1;
        let activity = Arc::new(Activity::new());
        let local = stream.local_addr().ok().map(|addr| addr.ip());
        let opened = Event::Opened { conn, peer, local, proven: activity.proven() };
        if self.to_registry.send(opened).await.is_err() {
            return;
        }
        let visit = Visit {
            conn,
            from: ip,
            entrance: self.entrance.clone(),
            authority: Arc::clone(&self.authority),
            limits: self.limits.clone(),
            activity: Arc::clone(&activity),
            to_registry: self.to_registry.clone(),
            meters: Arc::clone(&self.meters),
        };
        let task = self.tasks.spawn(connection::serve(visit, stream));
        *self.per_ip.entry(ip).or_default() += 1;
        self.clients.insert(task.id(), Client { conn, ip, activity, task });
    }

    /// Out of descriptors or memory: one connection is given up for the next one. Other errors are about a client that
    /// has gone already.
    async fn accept_failed(&mut self, error: &io::Error) {
        tracing::warn!(%error, "a connection could not be accepted");
        self.shed();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    /// Ends the connection that has been silent longest; those that never proved an identity go first.
    fn shed(&self) {
        let oldest = self.clients.values().min_by_key(|client| client.activity.worth());
        if let Some(client) = oldest {
            client.task.abort();
        }
    }

    async fn ended(&mut self, id: Id) {
        let Some(client) = self.clients.remove(&id) else { return };
        if let Some(count) = self.per_ip.get_mut(&client.ip) {
            *count -= 1;
            if *count == 0 {
                self.per_ip.remove(&client.ip);
            }
        }
        // The registry ends only when this task has.
        let _ = self.to_registry.send(Event::Closed { conn: client.conn }).await;
    }
}
