//! The task that owns the registry's state and its store.
//!
//! Requests are taken in batches: all that wait are handled, then their changes are committed together, then their
//! replies go out. So nothing is said that is not on disk, and one sync of the disk serves as many as came during the
//! one before.

use super::beacon::Order;
use crate::{
    beacon::Question,
    http::{BEAT, RegistryPulse},
    meters::Meters,
    registry::{Change, ConnId, Key, Record, State},
    store::Store,
};
use pilot_wire::{
    NodeId, PublicKey,
    registry::{Envelope, Request, Response},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

/// What happens to the registry.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client connected.
    Opened {
        conn: ConnId,
        peer: SocketAddr,
        /// By which address of ours it came.
        local: Option<IpAddr>,
        /// To be set once the client has proven an identity.
        proven: Arc<AtomicBool>,
    },
    /// It asks something. One request of a connection is on its way at a time.
    Asked { conn: ConnId, envelope: Box<Envelope>, reply: oneshot::Sender<Response> },
    /// It is gone.
    Closed { conn: ConnId },
    /// The beacon asks.
    MayIntroduce(Question),
    /// Somebody on the web says to be this node: which key has it?
    KeyOf(NodeId, oneshot::Sender<Option<PublicKey>>),
    /// The operator wants a copy of everything.
    Copy(oneshot::Sender<Vec<(Key, Record)>>),
}

/// Events handled before the changes are committed. Bounds the time in which nobody is answered.
const BATCH: usize = 512;
/// Pause after a failed commit before the next attempt.
const RETRY: Duration = Duration::from_millis(500);

/// Runs until every sender of events is gone.
pub(super) async fn serve(
    state: State,
    store: Store,
    mut events: mpsc::Receiver<Event>,
    to_beacon: mpsc::Sender<Order>,
    meters: Arc<Meters>,
    pulse: watch::Sender<RegistryPulse>,
) {
    let mut registry = Registry {
        state,
        store_path: store.path().to_owned(),
        store: Some(store),
        to_beacon,
        replies: BTreeMap::new(),
        proven: BTreeMap::new(),
        unsaved: BTreeMap::new(),
        retry_at: None,
        meters,
        pulse,
        beat_at: Instant::now(),
    };
    registry.flush().await;
    loop {
        let due = registry.due();
        let event = tokio::select! {
            event = events.recv() => match event {
                Some(event) => Some(event),
                None => break,
            },
            () = sleep_until(due) => None,
        };
        let now = Instant::now();
        if registry.beat_at <= now {
            registry.beat(now);
        }
        if let Some(event) = event {
            registry.handle(now, event);
            for _ in 1..BATCH {
                let Ok(event) = events.try_recv() else { break };
                registry.handle(now, event);
            }
        }
        registry.state.handle_timeout(now);
        registry.flush().await;
    }
}

struct Registry {
    state: State,
    /// Away while it writes.
    store: Option<Store>,
    store_path: PathBuf,
    to_beacon: mpsc::Sender<Order>,
    replies: BTreeMap<ConnId, oneshot::Sender<Response>>,
    proven: BTreeMap<ConnId, Arc<AtomicBool>>,
    /// Changes that could not be written. While there are some, nothing else is changed.
    unsaved: BTreeMap<Key, Option<Record>>,
    retry_at: Option<Instant>,
    meters: Arc<Meters>,
    pulse: watch::Sender<RegistryPulse>,
    beat_at: Instant,
}

impl Registry {
    /// Shows that it is alive, and what it holds.
    fn beat(&mut self, now: Instant) {
        self.beat_at = now + BEAT;
        let overview = self.state.overview();
        self.pulse.send_replace(RegistryPulse { at: Some(now), overview, writable: self.retry_at.is_none() });
    }

    fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Opened { conn, peer, local, proven } => {
                self.state.open(conn, peer, local);
                self.proven.insert(conn, proven);
            }
            Event::Asked { conn, envelope, reply } => {
                if !self.unsaved.is_empty() && changes(&envelope.request) {
                    // The client may be gone; then nobody is waiting for this.
                    let _ = reply
                        .send(Response::error("the registry cannot store changes at the moment, try again"));
                    return;
                }
                self.replies.insert(conn, reply);
                self.state.handle(now, conn, *envelope);
                if self.state.has_proven(conn)
                    && let Some(proven) = self.proven.get(&conn)
                {
                    proven.store(true, Ordering::Relaxed);
                }
            }
            Event::Closed { conn } => {
                self.state.close(conn);
                self.replies.remove(&conn);
                self.proven.remove(&conn);
            }
            Event::KeyOf(node, answer) => {
                // Who asked may be gone.
                let _ = answer.send(self.state.key_of(node));
            }
            Event::Copy(copy) => {
                // Who asked may be gone.
                let _ = copy.send(self.state.records());
            }
            Event::MayIntroduce(question) => {
                let allowed = self.state.may_introduce(question.requester, question.target);
                self.order(Order::Introduce(question, allowed));
            }
        }
    }

    /// Changes to disk, then replies and notices out.
    async fn flush(&mut self) {
        let fresh = self.state.take_changes();
        let saved = self.save(fresh).await;
        // Before the reply that lets the node go to the beacon. The beacon never waits for the registry.
        while let Some((node, addr)) = self.state.poll_endpoint() {
            let key = self.state.key_of(node);
            let _ = self.to_beacon.send(Order::Registered(node, addr.ip(), key)).await;
        }
        while let Some((conn, response)) = self.state.poll_reply() {
            let Some(reply) = self.replies.remove(&conn) else { continue };
            let response = match saved {
                Ok(()) => response,
                Err(Unsaved) => Response::error("the registry cannot store changes at the moment, try again"),
            };
            // The client may be gone; then nobody is waiting for this.
            let _ = reply.send(response);
        }
        while let Some(node) = self.state.poll_notice() {
            self.order(Order::Notify(node));
        }
    }

    /// An error means that what this batch changed is not on disk.
    async fn save(&mut self, fresh: Vec<Change>) -> Result<(), Unsaved> {
        let now = Instant::now();
        let nothing_new = fresh.is_empty();
        self.unsaved.extend(fresh);
        if self.unsaved.is_empty() {
            return Ok(());
        }
        let outcome = if nothing_new { Ok(()) } else { Err(Unsaved) };
        if self.retry_at.is_some_and(|at| now < at) {
            return outcome;
        }
        let changes: Vec<Change> = self.unsaved.clone().into_iter().collect();
        let (records, start) = (changes.len(), Instant::now());
        let mut store = self.store.take().unwrap_or_else(|| Store::reopening(self.store_path.clone()));
        let written = tokio::task::spawn_blocking(move || {
            let written = store.commit(&changes);
            (store, written)
        });
        let failure = match written.await {
            Ok((store, Ok(()))) => {
                self.meters.committed(start.elapsed(), records);
                self.store = Some(store);
                self.unsaved.clear();
                if self.retry_at.take().is_some() {
                    tracing::info!("the store can be written again");
                }
                return Ok(());
            }
            Ok((store, Err(error))) => {
                self.store = Some(store);
                error.to_string()
            }
            Err(error) => error.to_string(),
        };
        self.meters.commit_failures.add(1);
        if self.retry_at.is_none() {
            tracing::error!(error = failure, "changes are refused until the store can be written");
        }
        self.retry_at = Some(now + RETRY);
        outcome
    }

    fn due(&self) -> Option<Instant> {
        [self.state.poll_timeout(), self.retry_at, Some(self.beat_at)].into_iter().flatten().min()
    }

    /// Orders are hints: a beacon that is behind gets the next one.
    fn order(&self, order: Order) {
        if let Err(error) = self.to_beacon.try_send(order) {
            tracing::debug!(%error, "the beacon is busy");
        }
    }
}

struct Unsaved;

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// False for requests that only ask. Heartbeats change nothing on disk.
fn changes(request: &Request) -> bool {
    match request {
        Request::Heartbeat(_)
        | Request::Lookup(_)
        | Request::Resolve(_)
        | Request::ResolveHostname(_)
        | Request::CheckTrust(_)
        | Request::AwaitNotices(_)
        | Request::Punch(_)
        | Request::BeaconRegister(_)
        | Request::BeaconList {}
        | Request::ListNetworks {}
        | Request::ListNodes(_)
        | Request::PollInvites(_)
        | Request::PollHandshakes(_)
        | Request::GetPoloScore(_)
        | Request::GetMemberRole(_)
        | Request::GetMemberTags(_)
        | Request::GetNetworkPolicy(_)
        | Request::GetExprPolicy(_) => false,
        Request::Register(_)
        | Request::Deregister(_)
        | Request::SetVisibility(_)
        | Request::SetHostname(_)
        | Request::SetTags(_)
        | Request::SetTaskExec(_)
        | Request::UpdatePoloScore(_)
        | Request::SetPoloScore(_)
        | Request::ReportTask(_)
        | Request::RotateKey(_)
        | Request::ReportTrust(_)
        | Request::RevokeTrust(_)
        | Request::RequestHandshake(_)
        | Request::RespondHandshake(_)
        | Request::CreateNetwork(_)
        | Request::DeleteNetwork(_)
        | Request::RenameNetwork(_)
        | Request::SetNetworkEnterprise(_)
        | Request::JoinNetwork(_)
        | Request::LeaveNetwork(_)
        | Request::InviteToNetwork(_)
        | Request::RespondInvite(_)
        | Request::KickMember(_)
        | Request::PromoteMember(_)
        | Request::DemoteMember(_)
        | Request::TransferOwnership(_)
        | Request::SetMemberTags(_)
        | Request::SetNetworkPolicy(_)
        | Request::SetExprPolicy(_) => true,
    }
}
