//! The task that owns the registry's state and its store.
//!
//! Requests that change something wait until we have the right to write and know what others have written. Then all that
//! wait are handled, their changes are committed together, and then their replies go out. So nothing is said that is not
//! on disk, nothing is decided on what is no longer true, and one sync of the disk serves as many as came during the one
//! before. Requests that only ask are answered from memory meanwhile, and heartbeats too.
//!
//! When a write fails, what it was to change is in doubt. Those who asked for it are told to try again, and the records are read
//! again as soon as that is possible. Then a record is written now and then, so that it is known when writing works again
//! also where nobody dares to ask.

use super::beacon::Order;
use crate::{
    beacon::Question,
    http::{self, RegistryPulse},
    meters::Meters,
    registry::{Change, ConnId, Key, Record, State},
    store::{Delta, Elsewhere, Store, StoreError, Word},
};
use pilot_wire::{
    NodeId, PublicKey,
    registry::{Beacon, Envelope, Request, Response},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

type Records = Vec<(Key, Record)>;

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
    /// A beacon of ours has a node whose key it does not know.
    Wanted(NodeId),
    /// Which other beacons are there?
    OtherBeacons(oneshot::Sender<Vec<Beacon>>),
    /// Somebody on the web says to be this node: which key has it?
    KeyOf(NodeId, oneshot::Sender<Option<PublicKey>>),
    /// The operator wants a copy of everything.
    Copy(oneshot::Sender<Records>),
}

/// Events taken at once, and requests whose changes are committed together. Bounds the time in which nobody is answered.
const BATCH: usize = 512;
/// Requests that wait for the right to write; more are refused. A connection has one at a time.
const WAITING_MAX: usize = 16_384;
/// Pause after a failure of the store before the next attempt.
const RETRY: Duration = Duration::from_millis(500);
/// Between two reports to the other instances of who was heard of.
const BEAT: Duration = Duration::from_secs(5);
/// To a client whose request would change something.
const NOT_NOW: &str = "the registry cannot store changes at the moment, try again";

/// By which others see how it is.
pub(super) struct Signs {
    pub(super) meters: Arc<Meters>,
    pub(super) pulse: watch::Sender<RegistryPulse>,
}

/// Runs until every sender of events is gone and what they asked is done.
pub(super) async fn serve(
    mut state: State,
    mut store: Box<dyn Store>,
    mut events: mpsc::Receiver<Event>,
    to_beacon: mpsc::Sender<Order>,
    signs: Signs,
) {
    let (mut heard, tell) = match store.others() {
        Some(others) => {
            state.has_company();
            (Some(others.heard), Some(Voice { tell: others.tell, beat_at: Instant::now() }))
        }
        None => (None, None),
    };
    let mut registry = Registry {
        state,
        to_beacon,
        voice: tell,
        replies: BTreeMap::new(),
        proven: BTreeMap::new(),
        copies: Vec::new(),
        waiting: VecDeque::new(),
        turn: Turn::Idle(store),
        doubtful: BTreeSet::new(),
        asked: BTreeSet::new(),
        must_catch_up: false,
        told: 0,
        told_before: 0,
        seen: 0,
        retry_at: None,
        failing: false,
        signs,
        show_at: Instant::now(),
    };
    let mut work: Option<Work> = None;
    let mut closing = false;
    loop {
        let now = Instant::now();
        if !registry.is_committing() {
            registry.flush().await;
        }
        if work.is_none() {
            work = registry.next_work(now);
        }
        registry.beat(now);
        if !registry.is_committing() {
            registry.show(now);
        }
        if closing && work.is_none() && registry.waiting.is_empty() {
            break;
        }
        let due = registry.due(now);
        let takes_events = !closing && !registry.is_committing();
        tokio::select! {
            biased;
            done = finished(&mut work) => {
                work = None;
                registry.finish(Instant::now(), done);
            }
            elsewhere = hear(&mut heard) => registry.hear(Instant::now(), elsewhere),
            event = events.recv(), if takes_events => match event {
                Some(event) => {
                    let now = Instant::now();
                    registry.take(now, event);
                    for _ in 1..BATCH {
                        let Ok(event) = events.try_recv() else { break };
                        registry.take(now, event);
                    }
                }
                None => closing = true,
            },
            () = sleep_until(due) => {}
        }
        registry.state.end_waits(Instant::now());
    }
}

/// What the store is doing; it comes back with the outcome.
type Work = Pin<Box<dyn Future<Output = (Box<dyn Store>, Outcome)> + Send>>;

enum Outcome {
    Begun(Result<Delta, StoreError>),
    Committed { keys: BTreeSet<Key>, took: Duration, result: Result<u64, StoreError> },
    CaughtUp(Result<Delta, StoreError>),
}

enum Turn {
    /// The store waits for work.
    Idle(Box<dyn Store>),
    /// The right to write was asked for, or news.
    Reading,
    /// It is ours, and the state was not changed yet.
    Ours(Box<dyn Store>),
    /// The state has what is not acknowledged yet; nothing is read from it.
    Committing,
}

struct Voice {
    tell: mpsc::Sender<Vec<Word>>,
    beat_at: Instant,
}

struct Registry {
    state: State,
    to_beacon: mpsc::Sender<Order>,
    /// Towards other instances, if there can be any.
    voice: Option<Voice>,
    replies: BTreeMap<ConnId, oneshot::Sender<Response>>,
    proven: BTreeMap<ConnId, Arc<AtomicBool>>,
    /// Copies that go out when what is in them is on disk.
    copies: Vec<(oneshot::Sender<Records>, Records)>,
    /// Events that need the right to write. Bounded by [`WAITING_MAX`].
    waiting: VecDeque<Event>,
    turn: Turn,
    /// Records of which the store may have another opinion than the state.
    doubtful: BTreeSet<Key>,
    /// Those of them that are being read.
    asked: BTreeSet<Key>,
    must_catch_up: bool,
    /// The last write of which others have told us.
    told: u64,
    /// The same when the reading began.
    told_before: u64,
    /// The last write that is in the state.
    seen: u64,
    retry_at: Option<Instant>,
    failing: bool,
    signs: Signs,
    show_at: Instant,
}

impl Registry {
    fn is_committing(&self) -> bool {
        matches!(self.turn, Turn::Committing)
    }

    /// Shows that it is alive, and what it holds. Once the store has failed, it counts as one that cannot be written until
    /// it was written.
    fn show(&mut self, now: Instant) {
        if now < self.show_at {
            return;
        }
        self.show_at = now + http::BEAT;
        let overview = self.state.overview(now);
        self.signs.pulse.send_replace(RegistryPulse { at: Some(now), overview, writable: !self.failing });
    }

    /// Handles an event, or lets it wait for the right to write.
    fn take(&mut self, now: Instant, event: Event) {
        if !self.needs_right(&event) {
            self.handle(now, event);
            self.doubt();
        } else if self.pauses(now) || self.waiting.len() >= WAITING_MAX {
            self.refuse(now, event);
        } else {
            self.waiting.push_back(event);
        }
    }

    fn needs_right(&self, event: &Event) -> bool {
        match event {
            Event::Asked { conn, envelope, .. } => {
                changes(&envelope.request) || self.state.owes_receipt(*conn)
            }
            // Not before what was asked on it.
            Event::Closed { conn } => self.state.owes_receipt(*conn) || self.waits(*conn),
            // It is to be what the store holds, also of what others have written.
            Event::Copy(_) => true,
            Event::Opened { .. }
            | Event::MayIntroduce(_)
            | Event::Wanted(_)
            | Event::OtherBeacons(_)
            | Event::KeyOf(..) => false,
        }
    }

    fn waits(&self, on: ConnId) -> bool {
        self.waiting.iter().any(|event| matches!(event, Event::Asked { conn, .. } if *conn == on))
    }

    /// True if the store failed a moment ago.
    fn pauses(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| now < at)
    }

    /// The store does not work: what only asks is answered all the same.
    fn refuse(&mut self, now: Instant, event: Event) {
        match event {
            Event::Asked { envelope, reply, .. } if changes(&envelope.request) => {
                // The client may be gone; then nobody is waiting for this.
                let _ = reply.send(Response::error(NOT_NOW));
            }
            // A copy of what may not be true is worse than none.
            Event::Copy(copy) => drop(copy),
            event @ (Event::Asked { .. }
            | Event::Opened { .. }
            | Event::Closed { .. }
            | Event::MayIntroduce(_)
            | Event::Wanted(_)
            | Event::OtherBeacons(_)
            | Event::KeyOf(..)) => {
                self.handle(now, event);
                // A receipt that cannot be written; what was received is handed out once more.
                self.doubt();
            }
        }
    }

    /// What was changed without the right to is read again.
    fn doubt(&mut self) {
        self.doubtful.extend(self.state.take_changes().into_iter().map(|(key, _)| key));
    }

    fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Opened { conn, peer, local, proven } => {
                self.state.open(conn, peer, local);
                self.proven.insert(conn, proven);
            }
            Event::Asked { conn, envelope, reply } => {
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
            Event::Wanted(node) => {
                if let Some(key) = self.state.key_of(node) {
                    self.order(Order::Registered(node, None, Some(key)));
                }
            }
            Event::OtherBeacons(answer) => {
                // Who asked may be gone.
                let _ = answer.send(self.state.other_beacons(now));
            }
            Event::KeyOf(node, answer) => {
                // Who asked may be gone.
                let _ = answer.send(self.state.key_of(node));
            }
            Event::Copy(copy) => {
                self.copies.push((copy, self.state.records()));
            }
            Event::MayIntroduce(question) => {
                let allowed = self.state.may_introduce(question.requester, question.target);
                self.order(Order::Introduce(question, allowed));
            }
        }
    }

    /// What the store should do now, if it has nothing to do.
    fn next_work(&mut self, now: Instant) -> Option<Work> {
        match std::mem::replace(&mut self.turn, Turn::Reading) {
            Turn::Idle(mut store) => {
                let expires = self.state.next_end().is_some_and(|due| due <= now);
                let writes = !self.waiting.is_empty() || expires || self.failing;
                if self.pauses(now) || !(writes || self.is_behind()) {
                    self.turn = Turn::Idle(store);
                    return None;
                }
                self.asked.append(&mut self.doubtful);
                self.told_before = self.told;
                self.must_catch_up = false;
                let doubtful = self.asked.clone();
                Some(Box::pin(async move {
                    let outcome = if writes {
                        Outcome::Begun(store.begin(doubtful).await)
                    } else {
                        Outcome::CaughtUp(store.catch_up(doubtful).await)
                    };
                    (store, outcome)
                }))
            }
            Turn::Ours(mut store) => {
                for _ in 0..BATCH {
                    let Some(event) = self.waiting.pop_front() else { break };
                    self.handle(now, event);
                }
                self.state.handle_timeout(now);
                if self.failing {
                    self.state.probe();
                }
                let changes: Vec<Change> = self.state.take_changes();
                let keys = changes.iter().map(|(key, _)| *key).collect();
                self.turn = Turn::Committing;
                Some(Box::pin(async move {
                    let start = Instant::now();
                    let result = store.commit(changes).await;
                    let outcome = Outcome::Committed { keys, took: start.elapsed(), result };
                    (store, outcome)
                }))
            }
            turn @ (Turn::Reading | Turn::Committing) => {
                self.turn = turn;
                None
            }
        }
    }

    fn is_behind(&self) -> bool {
        self.must_catch_up || self.told > self.seen || !(self.doubtful.is_empty() && self.asked.is_empty())
    }

    fn finish(&mut self, now: Instant, (store, outcome): (Box<dyn Store>, Outcome)) {
        self.turn = Turn::Idle(store);
        match outcome {
            Outcome::Begun(Ok(delta)) => {
                self.apply(now, delta);
                if let Turn::Idle(store) = std::mem::replace(&mut self.turn, Turn::Reading) {
                    self.turn = Turn::Ours(store);
                }
            }
            Outcome::CaughtUp(Ok(delta)) => self.apply(now, delta),
            Outcome::Committed { keys, took, result: Ok(revision) } => {
                if !keys.is_empty() {
                    self.signs.meters.committed(took, keys.len());
                }
                self.seen = revision;
                self.retry_at = None;
                if self.failing && !keys.is_empty() {
                    self.failing = false;
                    tracing::info!("the store can be written again");
                }
            }
            Outcome::Committed { keys, result: Err(error), .. } => {
                self.doubtful.extend(keys);
                self.failed(now, &error);
                self.take_back();
            }
            Outcome::Begun(Err(error)) => {
                self.failed(now, &error);
                for event in std::mem::take(&mut self.waiting) {
                    self.refuse(now, event);
                }
            }
            Outcome::CaughtUp(Err(error)) => self.failed(now, &error),
        }
    }

    /// The state becomes what the store says.
    fn apply(&mut self, now: Instant, delta: Delta) {
        self.state.apply(now, delta.changes, delta.whole);
        self.seen = delta.revision;
        if self.told == self.told_before {
            // Also when the store went back to an earlier state.
            self.told = self.seen;
        }
        self.asked.clear();
    }

    fn failed(&mut self, now: Instant, error: &StoreError) {
        self.signs.meters.store_failures.add(1);
        if !self.failing {
            self.failing = true;
            tracing::error!(%error, "changes are refused until the store works again");
        }
        self.retry_at = Some(now + RETRY);
        self.must_catch_up = true;
    }

    /// Nothing of what was decided in this turn is told to anybody.
    fn take_back(&mut self) {
        self.copies.clear();
        while self.state.poll_endpoint().is_some() {}
        while self.state.poll_notice().is_some() {}
        while let Some((conn, response)) = self.state.poll_reply() {
            let Some(reply) = self.replies.remove(&conn) else { continue };
            let is_true_anyway =
                matches!(response, Response::Heartbeat { .. } | Response::AwaitNotices { .. });
            // The client may be gone; then nobody is waiting for this.
            let _ = reply.send(if is_true_anyway { response } else { Response::error(NOT_NOW) });
        }
    }

    /// Replies and notices out.
    async fn flush(&mut self) {
        // Before the reply that lets the node go to the beacon. The beacon never waits for the registry.
        while let Some((node, addr)) = self.state.poll_endpoint() {
            let key = self.state.key_of(node);
            let _ = self.to_beacon.send(Order::Registered(node, Some(addr.ip()), key)).await;
        }
        while let Some((conn, response)) = self.state.poll_reply() {
            let Some(reply) = self.replies.remove(&conn) else { continue };
            // The client may be gone; then nobody is waiting for this.
            let _ = reply.send(response);
        }
        while let Some(node) = self.state.poll_notice() {
            self.order(Order::Notify(node));
        }
        for (copy, records) in self.copies.drain(..) {
            // Who asked may be gone.
            let _ = copy.send(records);
        }
    }

    // The other instances.

    fn hear(&mut self, now: Instant, elsewhere: Elsewhere) {
        match elsewhere {
            Elsewhere::Changed { revision } => self.told = self.told.max(revision),
            Elsewhere::Said(Word::Heard(nodes)) => self.state.heard_elsewhere(now, &nodes),
            Elsewhere::Said(Word::Beacon { id, addr }) => self.state.beacon_elsewhere(now, id, addr),
            Elsewhere::Lost => self.state.hears_others(now, false),
            Elsewhere::Back => {
                self.state.hears_others(now, true);
                self.must_catch_up = true;
            }
        }
    }

    /// Tells the others who was heard of here. While they cannot be told it is kept.
    fn beat(&mut self, now: Instant) {
        let Some(voice) = &mut self.voice else { return };
        if now < voice.beat_at {
            return;
        }
        voice.beat_at = now + BEAT;
        let Ok(permit) = voice.tell.try_reserve() else { return };
        self.state.announce_own_beacon(now);
        let beacons = self.state.take_announced().into_iter();
        let mut words: Vec<Word> = beacons.map(|(id, addr)| Word::Beacon { id, addr }).collect();
        let heard = self.state.take_heard();
        if !heard.is_empty() {
            words.push(Word::Heard(heard));
        }
        permit.send(words);
    }

    fn due(&self, now: Instant) -> Option<Instant> {
        // Those are late by the pause at most; without it a failing store would be asked without a pause.
        let written = self.state.next_end().map(|due| due.max(self.retry_at.unwrap_or(due)));
        let retry = self.retry_at.filter(|_| self.failing || self.is_behind() || !self.waiting.is_empty());
        let beat = self.voice.as_ref().map(|voice| voice.beat_at);
        let idle = matches!(self.turn, Turn::Idle(_));
        let of_store = [written, retry].into_iter().flatten().min().filter(|_| idle);
        let wait = self.state.next_wait_end();
        // Shown is what is on disk.
        let show = Some(self.show_at).filter(|_| !self.is_committing());
        [of_store, beat, wait, show].into_iter().flatten().min().map(|due| due.max(now))
    }

    /// Orders are hints: a beacon that is behind gets the next one.
    fn order(&self, order: Order) {
        if let Err(error) = self.to_beacon.try_send(order) {
            tracing::debug!(%error, "the beacon is busy");
        }
    }
}

async fn finished(work: &mut Option<Work>) -> (Box<dyn Store>, Outcome) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// When the listener is gone, nothing is heard any more.
async fn hear(heard: &mut Option<mpsc::Receiver<Elsewhere>>) -> Elsewhere {
    if let Some(from) = heard {
        if let Some(elsewhere) = from.recv().await {
            return elsewhere;
        }
        *heard = None;
        return Elsewhere::Lost;
    }
    std::future::pending().await
}

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
        | Request::BeaconLink(_)
        | Request::ListNetworks {}
        | Request::ListNodes(_)
        | Request::PollInvites(_)
        | Request::PollHandshakes(_)
        | Request::GetPoloScore(_)
        | Request::GetMemberRole(_)
        | Request::GetMemberTags(_)
        | Request::GetNetworkPolicy(_)
        | Request::GetExprPolicy(_)
        | Request::OwnNetworks(_)
        | Request::ListMembers(_)
        | Request::GetKeyInfo(_)
        | Request::GetAuditLog(_)
        | Request::GetProvisionStatus {}
        | Request::ListCards(_) => false,
        Request::Register(_)
        | Request::Deregister(_)
        | Request::SetVisibility(_)
        | Request::SetHostname(_)
        | Request::SetTags(_)
        | Request::SetTaskExec(_)
        | Request::UpdatePoloScore(_)
        | Request::SetPoloScore(_)
        | Request::ReportTask(_)
        | Request::PublishRecord(_)
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
        | Request::SetExprPolicy(_)
        | Request::SetMemberExpiry(_)
        | Request::SetKeyExpiry(_)
        | Request::ProvisionNetwork(_)
        | Request::PublishCard(_)
        | Request::RemoveCard(_) => true,
    }
}
