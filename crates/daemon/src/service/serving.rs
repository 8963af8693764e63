//! Requests and their answers: those of this node's programs, on their way to others, and those of others, for this
//! node's programs.
//!
//! A request is a message in the inbox; its answer is a message through the outbox. What is here knows which requests
//! have no answer yet and who works at each ([`desk`]), which were answered ([`book`], on [`disk`]), and what came
//! before the answers to our own ([`asked`]).

mod asked;
mod asking;
mod book;
mod desk;
mod disk;
mod mail;
mod working;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pilot_crypto::Sha256;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::{Extension, Interim, MessageId, Outcome};
use pilot_wire::ipc::{Code, Failure};
use pilot_wire::outbox::Kind;
use pilot_wire::serving::{DEADLINE_MAX_MS, Reply, Request};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use self::asked::Asked;
use self::book::{Book, Entry, Kept, Shelf};
use self::desk::{Action, Desk, Inquiry};
use self::disk::{Change, Disk, Loaded};
pub(super) use self::mail::Arrival;
use super::outbox::{Letter, Outbox};
use super::policy::Policy;
use super::store::Store;
use super::{Caller, Remote};

/// The service; cheap to clone.
#[derive(Clone)]
pub(super) struct Serving {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Counts up when there is something to take, or a request was withdrawn.
    changed: watch::Sender<u64>,
    /// What was answered before this daemon started is known.
    ready: watch::Sender<bool>,
    store: Store,
    outbox: Outbox,
    policy: Policy,
    disk: Disk,
}

#[derive(Default)]
struct State {
    desk: Desk,
    book: Book,
    asked: Asked,
}

/// What [`Serving::run`] needs.
pub(super) struct Beginning(oneshot::Receiver<Loaded>);

impl Serving {
    /// Begins with what is on the disk. [`Self::run`] must be run with the second value.
    pub(super) fn start(
        home: &Path,
        store: Store,
        outbox: Outbox,
        policy: Policy,
    ) -> std::io::Result<(Self, Beginning)> {
        let (disk, loading) = Disk::start(home)?;
        let shared = Shared {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            ready: watch::Sender::new(false),
            store,
            outbox,
            policy,
            disk,
        };
        Ok((Self { shared: Arc::new(shared) }, Beginning(loading)))
    }

    /// Finds the requests that have no answer, and then watches the inbox and the clock.
    pub(super) async fn run(self, beginning: Beginning) {
        // Without the disk's thread no answer can be remembered, and each will say so.
        let loaded = beginning.0.await.unwrap_or_default();
        let now = unix_ms();
        for (shelf, name, entry) in loaded {
            self.lock().book.insert(shelf, name, entry, now);
        }
        let mut arrivals = self.shared.store.arrivals();
        let Some((requests, mut seen)) = self.shared.store.inquiries(0, true).await else { return };
        for request in requests {
            if !self.was_answered_before(&request).await {
                self.admit(request);
            }
        }
        self.shared.ready.send_replace(true);
        let mut changed = self.shared.changed.subscribe();
        loop {
            let next = self.lock().desk.next_deadline();
            let due = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    let actions = self.lock().desk.on_time(Instant::now());
                    self.perform(actions);
                }
                changed = changed.changed() => if changed.is_err() { return },
                arrived = arrivals.changed() => {
                    let Some((new, until)) = self.shared.store.inquiries(seen, false).await else { return };
                    if arrived.is_err() {
                        return;
                    }
                    seen = until;
                    new.into_iter().for_each(|arrival| self.admit(arrival));
                }
            }
        }
    }

    /// The daemon may have died after the answer was with the outbox, and before that was written down.
    async fn was_answered_before(&self, arrival: &Arrival) -> bool {
        let Some(id) = arrival.message.clone() else { return false };
        let name = (arrival.from.node, id);
        if self.lock().book.is_answered(&name) {
            return true;
        }
        let show = pilot_wire::outbox::Request::Show { id: answer_id(name.0, &name.1) };
        let is_known = self.shared.outbox.call(show).await.is_ok();
        if is_known {
            let entry = Entry { at: unix_ms(), answer: None };
            self.lock().book.insert(Shelf::Answered, name, entry, unix_ms());
        }
        is_known
    }

    /// Answers an application; a wait takes as long as the request says.
    pub(super) async fn call(&self, caller: &Caller, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Ask(send) => self.ask(*send).await,
            Request::Next(next) => self.next(caller, next).await,
            Request::Cancel { id, to } => self.cancel(id, to).await,
            Request::Take { from, all, timeout_ms } => self.take(caller, from, all, timeout_ms).await,
            Request::Resume { held } => self.resume(caller, held).await,
            Request::Interim { id, kind, data } => self.interim(caller, id, kind, &data).await,
            Request::Answer(answer) => self.answer(caller, answer).await,
            Request::Release { id } => {
                let actions = self.lock().desk.release(caller.id, &id);
                self.perform(actions);
                Ok(Reply::Done {})
            }
            Request::Leave => {
                let actions = self.lock().desk.leave(caller.id);
                self.perform(actions);
                Ok(Reply::Done {})
            }
            Request::Watch { id, timeout_ms } => self.watch(caller, &id, timeout_ms).await,
            Request::Show => {
                let state = self.lock();
                let (waiting, held) = state.desk.counts();
                let (asked, remembered) = (state.asked.len() as u64, state.book.len() as u64);
                Ok(Reply::State { waiting, held, asked, remembered })
            }
        }
    }

    async fn ready(&self) {
        // It fails only when the service is gone, and this is a part of it.
        let _ = self.shared.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// A message is in the inbox.
    fn admit(&self, arrival: Arrival) {
        let is_plain = arrival.extension.request.is_none();
        if is_plain && (arrival.is_answer || arrival.extension.outcome.is_some()) {
            return;
        }
        let inquiry = inquiry(arrival);
        if inquiry.message.is_none() && !inquiry.plain {
            // Nothing could name it.
            return;
        }
        let mut state = self.lock();
        let name = inquiry.message.clone().map(|id| (inquiry.from.node, id));
        if name.is_some_and(|name| state.book.is_answered(&name)) {
            return;
        }
        let key = inquiry.key.clone().map(|key| (inquiry.from.node, key));
        let known = key.and_then(|key| state.book.under(&key, unix_ms()).cloned());
        match known {
            None => {
                let actions = state.desk.arrived(inquiry);
                drop(state);
                self.perform(actions);
            }
            Some(known) => {
                drop(state);
                let this = self.clone();
                tokio::spawn(async move { this.settle(inquiry, known).await });
            }
        }
    }

    /// A piece of an answer, or word of progress, for whoever waits for it here.
    pub(super) fn on_interim(&self, from: &Remote, reply_to: &MessageId, interim: Interim, data: Bytes) {
        let is_news = self.lock().asked.on_interim(from.endpoint.addr.node, reply_to, interim, data);
        if !is_news {
            tracing::debug!(from = %from.endpoint, %reply_to, "nobody waits for a piece of an answer");
        }
    }

    /// The requester no longer waits.
    pub(super) fn on_cancel(&self, from: &Remote, id: &MessageId) {
        let actions = self.lock().desk.cancel(from.endpoint.addr.node, id);
        self.perform(actions);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn perform(&self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Wake => self.shared.changed.send_modify(|count| *count = count.wrapping_add(1)),
                Action::Settle(inquiry, outcome, text) => {
                    let body = Bytes::from_static(text.as_bytes());
                    let hops = inquiry.hops.saturating_add(1);
                    let kept = Kept { outcome, kind: Kind::Text, body, hops };
                    let this = self.clone();
                    tokio::spawn(async move { this.settle(inquiry, kept).await });
                }
            }
        }
    }

    /// Answers without a program.
    async fn settle(&self, inquiry: Inquiry, answer: Kept) {
        let sent = self.send(&inquiry, answer.clone()).await;
        let remembered = match &sent {
            Ok(_) => self.remember(&inquiry, None).await,
            Err(_) => Ok(()),
        };
        if let Err(failure) = sent.and(remembered) {
            tracing::warn!(to = %inquiry.from, %failure, "a request could not be answered");
        }
    }

    /// Hands an answer to the outbox.
    async fn send(&self, inquiry: &Inquiry, answer: Kept) -> Result<MessageId, Failure> {
        let message_id = match &inquiry.message {
            // Whatever happens, a request has one answer.
            Some(id) if !inquiry.plain => Some(answer_id(inquiry.from.node, id)),
            Some(_) | None => None,
        };
        let says_how = !inquiry.plain || answer.outcome != Outcome::Done;
        let extension = Extension {
            hops: answer.hops,
            outcome: says_how.then_some(answer.outcome),
            ..Extension::default()
        };
        let letter = Letter {
            to: inquiry.from,
            kind: answer.kind,
            body: answer.body,
            message_id,
            reply_to: inquiry.message.clone(),
            extension,
            ttl: None,
        };
        self.shared.outbox.enqueue(letter).await
    }

    /// Writes down that a request was answered, and how if that is the answer to others under the same key too.
    async fn remember(&self, inquiry: &Inquiry, answer: Option<Kept>) -> Result<(), Failure> {
        if inquiry.plain {
            return Ok(());
        }
        let Some(id) = &inquiry.message else { return Ok(()) };
        let at = unix_ms();
        let node = inquiry.from.node;
        let mut entries = vec![(Shelf::Answered, (node, id.clone()), Entry { at, answer: None })];
        if let (Some(key), Some(answer)) = (&inquiry.key, answer) {
            entries.push((Shelf::Key, (node, key.clone()), Entry { at, answer: Some(answer) }));
        }
        let mut changes = Vec::new();
        {
            let mut state = self.lock();
            for (shelf, name, entry) in entries {
                let forgotten = state.book.insert(shelf, name.clone(), entry.clone(), at);
                changes.push(Change { shelf, name, entry: Some(entry) });
                changes.extend(forgotten.into_iter().map(|(shelf, name)| Change {
                    shelf,
                    name,
                    entry: None,
                }));
            }
        }
        self.shared.disk.write(changes).await.map_err(|error| {
            Failure::new(
                Code::Internal,
                format!("the answer is on its way, but it cannot be remembered: {error}"),
            )
        })
    }
}

/// What a message is to programs that answer.
fn inquiry(arrival: Arrival) -> Inquiry {
    let plain = arrival.extension.request.is_none();
    let tag = arrival.extension.request.unwrap_or_default();
    let given = match tag.deadline_ms {
        0 => DEADLINE_MAX_MS,
        given => given.min(DEADLINE_MAX_MS),
    };
    let passed = SystemTime::now().duration_since(arrival.received).unwrap_or_default();
    let left = Duration::from_millis(given).saturating_sub(passed);
    Inquiry {
        inbox: arrival.inbox,
        from: arrival.from,
        message: arrival.message,
        key: tag.key,
        parts: tag.parts,
        hops: arrival.extension.hops,
        plain,
        deadline: Instant::now() + left,
    }
}

/// The id of the answer to a request: the same whoever answers it, and however often that is begun.
fn answer_id(from: NodeId, request: &MessageId) -> MessageId {
    let digest = Sha256::digest(format!("answer {} {request}", from.0).as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    MessageId::from_random(id)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
impl Serving {
    /// One that answers nobody, for tests of others.
    pub(super) fn nowhere(home: &Path, store: Store) -> Self {
        let (this, beginning) = Self::start(home, store, Outbox::nowhere(), Policy::default()).unwrap();
        tokio::spawn(this.clone().run(beginning));
        this
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    disk::fuzz(bytes);
}
