//! Messages of this node on their way to others.
//!
//! What is handed over is on disk before it is acknowledged, and is then tried until the peer has stored it, does not
//! want it, or its time is over. [`ledger`] decides, [`disk`] keeps, [`carrier`] carries; [`desk`] holds them together.
//! Messages for a peer that is away are also left with its mailboxes, if it has any: [`deposit`].

mod carrier;
mod deposit;
mod desk;
mod disk;
mod entry;
mod lane;
mod ledger;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use pilot_client::{Client, MAX_MESSAGE, new_message_id};
use pilot_wire::dataexchange::{Control, Delivery, Extension, MessageId, Receipt};
use pilot_wire::ipc::{Code, Failure};
use pilot_wire::outbox::{self as wire, Body, INLINE_MAX, Item, Kind, Reply, Request, State};
use pilot_wire::{Addr, NodeId};
use tokio::sync::{Semaphore, broadcast};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep_until, timeout, timeout_at};

use self::carrier::Carriers;
use self::desk::{Desk, forgotten, stopping};
use self::disk::{Disk, IN_DATABASE};
use self::entry::{Now, Place, Record, Seq, millis};
use self::ledger::{LIMITS, NotAdmitted, Taken};
use super::mailboxes::Mailboxes;
use crate::handle::{Handle, Sign};

/// How long a message is tried when its sender does not say.
const TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// The longest time a sender may ask for.
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest wait of one request: a day. Whoever wants more asks again.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Hand-overs under way. More wait for their turn.
const HAND_OVERS: usize = 256;

/// Of those with long bodies.
const LONG_HAND_OVERS: usize = 4;

/// Messages in one list. An entry takes up to 1.5 kB, and the reply must stay below the local socket's frame limit.
const LIST_MAX: usize = 500;

/// Longest name of a file, in bytes, as file systems have it; with folders in front.
const NAME_MAX: usize = 1024;

/// How long a live piece may wait for room.
const LIVE_PATIENCE: Duration = Duration::from_secs(5);

/// A message to be delivered.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) to: Addr,
    pub(super) kind: Kind,
    pub(super) body: Bytes,
    pub(super) message_id: Option<MessageId>,
    pub(super) reply_to: Option<MessageId>,
    pub(super) extension: Extension,
    /// How long it is tried; the longest that is allowed when absent.
    pub(super) ttl: Option<Duration>,
}

/// The way to the outbox; cheap to clone. It ends with the last of them.
#[derive(Clone)]
pub(super) struct Outbox {
    office: Option<Arc<Office>>,
}

struct Office {
    desk: Arc<Desk>,
    handle: Handle,
    hand_overs: Semaphore,
    long_hand_overs: Semaphore,
    pump: AbortHandle,
}

impl Drop for Office {
    fn drop(&mut self) {
        self.pump.abort();
        self.desk.end();
    }
}

/// Where the bytes of a message come from.
enum Source {
    Bytes(Bytes),
    File(PathBuf),
}

/// A message before its bytes are where they will be.
struct Draft {
    to: Addr,
    kind: Kind,
    name: Option<String>,
    id: MessageId,
    reply_to: Option<MessageId>,
    extension: Extension,
    ttl: Duration,
}

impl Outbox {
    /// Starts the outbox over `<home>/outbox.redb`.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub(super) fn start(
        home: &Path,
        client: Client,
        handle: &Handle,
        mailboxes: Mailboxes,
    ) -> io::Result<Self> {
        let seed = pilot_crypto::random_bytes().map_or(1, u32::from_be_bytes);
        let desk = Arc::new(Desk::new(Disk::at(home), seed).traced(handle.tracer().clone()));
        let disk = Arc::clone(&desk);
        std::thread::Builder::new().name("pilot-outbox".into()).spawn(move || disk.run_disk())?;
        let carriers =
            Carriers { desk: Arc::clone(&desk), client, mailboxes, large: Arc::new(Semaphore::new(1)) };
        let pump = tokio::spawn(pump(carriers, handle.signs())).abort_handle();
        let office = Office {
            desk,
            handle: handle.clone(),
            hand_overs: Semaphore::new(HAND_OVERS),
            long_hand_overs: Semaphore::new(LONG_HAND_OVERS),
            pump,
        };
        Ok(Self { office: Some(Arc::new(office)) })
    }

    /// One that leads nowhere, for tests of others.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self { office: None }
    }

    fn office(&self) -> Result<&Office, Failure> {
        self.office.as_deref().ok_or_else(stopping)
    }

    /// Messages that are to be delivered, and their bytes.
    pub(super) fn pending(&self) -> (u64, u64) {
        let waiting = self.office().map(|office| office.desk.with(|ledger, _| ledger.pending()));
        waiting.map_or((0, 0), |waiting| (waiting.count, waiting.bytes))
    }

    /// Answers an application.
    pub(super) async fn call(&self, request: Request) -> Result<Reply, Failure> {
        let office = self.office()?;
        office.desk.ready().await?;
        match request {
            Request::Send(send) => office.send(*send).await,
            Request::List { to, pending, limit } => {
                let limit = limit.map_or(LIST_MAX, |limit| usize::try_from(limit).unwrap_or(LIST_MAX));
                let (mut items, usage) = office.desk.with(|ledger, now| {
                    (ledger.list(to, pending, limit.min(LIST_MAX), now), ledger.pending())
                });
                office.name_all(&mut items).await;
                Ok(Reply::Items { items, pending: usage.count, pending_bytes: usage.bytes })
            }
            Request::Show { id } => office.item(office.find(&id)?).await,
            Request::Wait { id, until, timeout_ms } => {
                office.wait(office.find(&id)?, until, Duration::from_millis(timeout_ms)).await
            }
            Request::Cancel { id } => {
                let seq = office.find(&id)?;
                office.desk.with(|ledger, now| ledger.cancel(seq, now));
                office.item(seq).await
            }
        }
    }

    /// Takes a message over; when this returns, it survives a crash.
    pub(super) async fn enqueue(&self, letter: Letter) -> Result<MessageId, Failure> {
        let office = self.office()?;
        office.desk.ready().await?;
        let Letter { to, kind, body, message_id, reply_to, extension, ttl } = letter;
        let id = given_or_new(message_id)?;
        let ttl = ttl.unwrap_or(TTL_MAX).min(TTL_MAX);
        let draft = Draft { to, kind, name: None, id: id.clone(), reply_to, extension, ttl };
        office.hand_over(draft, Source::Bytes(body)).await?;
        Ok(id)
    }

    /// Sends something that is of use now or never: a piece of an answer, word of progress. In order with what was sent
    /// live before; dropped when the peer cannot be reached at once.
    pub(super) async fn send_live(&self, to: Addr, delivery: Delivery) {
        let Ok(office) = self.office() else { return };
        let mut piece = Some(delivery);
        let waiting = async {
            while let Some(delivery) = piece.take() {
                let room = office.desk.live_room.notified();
                let (taken, back) = office.desk.with(|ledger, _| ledger.live(to, delivery));
                piece = back;
                match taken {
                    Taken::Yes | Taken::Away => return,
                    Taken::Full => room.await,
                }
            }
        };
        if timeout(LIVE_PATIENCE, waiting).await.is_err() {
            tracing::debug!(%to, "a piece of an answer was dropped: the peer does not read");
        }
    }

    /// Has a word carried to a node of ours, as soon as it is there, for an hour. It survives no restart.
    pub(super) async fn tell(&self, to: NodeId, control: Control, body: Bytes) {
        if let Ok(office) = self.office() {
            office.desk.with(|ledger, now| ledger.tell(Addr::backbone(to), control, body, now));
        }
        std::future::ready(()).await;
    }

    /// A peer says what became of our messages.
    pub(super) async fn on_receipts(&self, from: NodeId, receipts: Vec<Receipt>) {
        if let Ok(office) = self.office() {
            office.desk.with(|ledger, now| ledger.on_receipts(from, &receipts, now));
        }
        std::future::ready(()).await;
    }

    /// An answer to one of our messages is in the inbox.
    pub(super) async fn on_answer(&self, from: NodeId, reply_to: &MessageId) {
        if let Ok(office) = self.office() {
            office.desk.with(|ledger, now| ledger.on_answer(from, reply_to, now));
        }
        std::future::ready(()).await;
    }
}

impl Office {
    async fn send(&self, send: wire::Send) -> Result<Reply, Failure> {
        let wire::Send { to, kind, body, name, message_id, reply_to, extension, ttl_ms, until, wait_ms } =
            send;
        let id = given_or_new(message_id)?;
        let (source, name) = match body {
            Body::Inline(text) => (Source::Bytes(inline(&text)?), name),
            Body::Path(path) => {
                let path = PathBuf::from(path);
                let last = path.file_name().map(|name| name.to_string_lossy().into_owned());
                (Source::File(path), name.or(last))
            }
        };
        let name = match kind {
            Kind::File => Some(file_name(name)?),
            Kind::Text | Kind::Json | Kind::Binary => None,
        };
        let mut extension = extension;
        // The receiver is told only of a time that somebody chose.
        extension.ttl_ms = extension.ttl_ms.or(ttl_ms);
        let ttl = ttl_ms.map_or(TTL, Duration::from_millis).min(TTL_MAX);
        let seq = self.hand_over(Draft { to, kind, name, id, reply_to, extension, ttl }, source).await?;
        match until {
            Some(until) => self.wait(seq, until, Duration::from_millis(wait_ms)).await,
            None => self.item(seq).await,
        }
    }

    /// Brings a message to disk.
    async fn hand_over(&self, draft: Draft, source: Source) -> Result<Seq, Failure> {
        if let Some(seq) =
            self.desk.with(|ledger, _| ledger.same(&draft.id, draft.to.node)).map_err(not_admitted)?
        {
            return self.written(|_, _| Ok((seq, false))).await.map(|(seq, _)| seq);
        }
        // The semaphores are never closed.
        let _turn = self.hand_overs.acquire().await.ok();
        let place = match &source {
            Source::Bytes(body) => {
                too_long(draft.kind, body.len() as u64)?;
                match draft.kind == Kind::File || body.len() as u64 > IN_DATABASE {
                    true => self.to_file(&draft, source).await?,
                    false => {
                        Brought { place: Place::Database, bytes: body.len() as u64, body: Some(body.clone()) }
                    }
                }
            }
            Source::File(_) => self.to_file(&draft, source).await?,
        };
        let Brought { place, bytes, body } = place;
        let admitted = self
            .written(|ledger, now| {
                let record = draft.record(place, bytes, now);
                ledger.admit(record, body)
            })
            .await;
        match (admitted, place) {
            (Ok((seq, true)), _) | (Ok((seq, false)), Place::Database) => Ok(seq),
            (Ok((seq, false)), Place::File(number)) => {
                self.desk.disk.remove_file(number);
                Ok(seq)
            }
            (Err(failure), Place::File(number)) => {
                self.desk.disk.remove_file(number);
                Err(failure)
            }
            (Err(failure), Place::Database) => Err(failure),
        }
    }

    async fn written(
        &self,
        change: impl FnOnce(&mut ledger::Ledger, Now) -> Result<(Seq, bool), NotAdmitted>,
    ) -> Result<(Seq, bool), Failure> {
        let (seq, is_new, told) = self.desk.write(change).map_err(not_admitted)?;
        match told.await {
            Ok(Ok(())) => Ok((seq, is_new)),
            Ok(Err(reason)) => {
                Err(Failure::new(Code::Internal, format!("the message cannot be written to disk: {reason}"))
                    .with_hint(
                        "is the disk full? `pilotctl send-message --now` sends without writing it down",
                    ))
            }
            Err(_) => Err(stopping()),
        }
    }

    /// Puts a long body into a file of the outbox.
    async fn to_file(&self, draft: &Draft, source: Source) -> Result<Brought, Failure> {
        let _turn = self.long_hand_overs.acquire().await.ok();
        let number = self.desk.file_number();
        let (desk, kind, node) = (Arc::clone(&self.desk), draft.kind, draft.to.node);
        let written = tokio::task::spawn_blocking(move || {
            let bytes = match source {
                Source::Bytes(body) => {
                    desk.with(|ledger, _| ledger.room(node, body.len() as u64)).map_err(not_admitted)?;
                    desk.disk.write_file(number, &body).map_err(|error| unwritable(&error))?;
                    body.len() as u64
                }
                Source::File(path) => copy(&desk, number, &path, kind, node)?,
            };
            Ok(Brought { place: Place::File(number), bytes, body: None })
        });
        let written =
            written.await.unwrap_or_else(|error| Err(Failure::new(Code::Internal, error.to_string())));
        if written.is_err() {
            self.desk.disk.remove_file(number);
        }
        written
    }

    fn find(&self, id: &MessageId) -> Result<Seq, Failure> {
        self.desk.with(|ledger, _| ledger.find(id)).ok_or_else(forgotten)
    }

    async fn item(&self, seq: Seq) -> Result<Reply, Failure> {
        let item = self.desk.with(|ledger, now| ledger.item(seq, now)).ok_or_else(forgotten)?;
        Ok(self.named(item).await)
    }

    /// Waits until a message has come as far as `until`, never will, or the time is over.
    async fn wait(&self, seq: Seq, until: State, limit: Duration) -> Result<Reply, Failure> {
        let deadline = tokio::time::Instant::now() + limit.min(WAIT_MAX);
        match self.desk.wait(seq, until)? {
            Ok(item) => Ok(self.named(item).await),
            Err(told) => match timeout_at(deadline, told).await {
                Ok(Ok(item)) => Ok(self.named(item).await),
                Ok(Err(_)) => Err(stopping()),
                Err(_) => self.item(seq).await,
            },
        }
    }

    async fn named(&self, item: Item) -> Reply {
        let mut items = [item];
        self.name_all(&mut items).await;
        let [item] = items;
        Reply::Item(Box::new(item))
    }

    async fn name_all(&self, items: &mut [Item]) {
        let mut names: BTreeMap<NodeId, Option<String>> = BTreeMap::new();
        for item in items {
            let node = item.to.node;
            let name = match names.entry(node) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(self.handle.describe(node).await.hostname),
            };
            item.to_hostname = name.clone().filter(|name| !name.is_empty());
        }
    }
}

/// A body that is where it will be.
struct Brought {
    place: Place,
    bytes: u64,
    /// For the database.
    body: Option<Bytes>,
}

impl Draft {
    fn record(&self, place: Place, bytes: u64, now: Now) -> Record {
        Record {
            id: self.id.clone(),
            to: self.to,
            kind: self.kind,
            bytes,
            name: self.name.clone(),
            reply_to: self.reply_to.clone(),
            extension: self.extension.clone(),
            place,
            state: State::Queued,
            created: now.wall,
            state_at: now.wall,
            expires: now.wall.saturating_add(millis(self.ttl)),
            reason: None,
            ack: None,
            tagged: None,
            left: None,
        }
    }
}

/// Starts carriers for the lanes that want one, when they want one.
async fn pump(carriers: Carriers, mut signs: broadcast::Receiver<Sign>) {
    let desk = Arc::clone(&carriers.desk);
    let mut running = JoinSet::new();
    let mut signs_can_come = true;
    loop {
        for key in desk.with(|ledger, now| ledger.look(now)) {
            running.spawn(carriers.clone().carry(key));
        }
        for peer in desk.with(|ledger, now| ledger.leave_due(now)) {
            running.spawn(carriers.clone().leave(peer));
        }
        let next =
            desk.with(|ledger, now| ledger.next_look(now).into_iter().chain(ledger.next_leaving(now)).min());
        tokio::select! {
            () = desk.look.notified() => {}
            () = sleep_until(next.unwrap_or_else(std::time::Instant::now).into()), if next.is_some() => {}
            sign = signs.recv(), if signs_can_come => match sign {
                Ok(Sign::Peer(node)) => desk.with(|ledger, _| ledger.on_sign(Some(node))),
                Ok(Sign::Network) | Err(broadcast::error::RecvError::Lagged(_)) => {
                    desk.with(|ledger, _| ledger.on_sign(None));
                }
                Err(broadcast::error::RecvError::Closed) => signs_can_come = false,
            },
            Some(ended) = running.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a carrier of the outbox crashed");
                }
            }
        }
    }
}

fn given_or_new(id: Option<MessageId>) -> Result<MessageId, Failure> {
    match id {
        Some(id) => Ok(id),
        None => new_message_id().map_err(|error| Failure::new(Code::Internal, error.to_string())),
    }
}

fn inline(text: &str) -> Result<Bytes, Failure> {
    let body = base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| {
        Failure::new(Code::InvalidArgument, format!("the message is not base64: {error}"))
    })?;
    if body.len() > INLINE_MAX {
        let message = format!("a message of {} bytes does not fit into a request", body.len());
        return Err(Failure::new(Code::InvalidArgument, message).with_hint("name a file that holds it"));
    }
    Ok(body.into())
}

fn file_name(name: Option<String>) -> Result<String, Failure> {
    match name {
        Some(name) if !name.is_empty() && name.len() <= NAME_MAX => Ok(name),
        Some(_) => Err(Failure::new(Code::InvalidArgument, format!("a name has 1 to {NAME_MAX} bytes"))),
        None => Err(Failure::new(Code::InvalidArgument, "the file has no name").with_hint("give it one")),
    }
}

fn too_long(kind: Kind, bytes: u64) -> Result<(), Failure> {
    if kind == Kind::File || bytes <= MAX_MESSAGE as u64 {
        return Ok(());
    }
    let message = format!("a message of {bytes} bytes is over the limit of {MAX_MESSAGE}");
    Err(Failure::new(Code::InvalidArgument, message).with_hint("send it as a file: `pilotctl send-file`"))
}

/// Copies a file that an application names.
fn copy(desk: &Desk, number: u64, path: &Path, kind: Kind, node: NodeId) -> Result<u64, Failure> {
    let unreadable = |error: &io::Error| {
        let code = match error.kind() == io::ErrorKind::NotFound {
            true => Code::NotFound,
            false => Code::InvalidArgument,
        };
        Failure::new(code, format!("the daemon cannot read {}: {error}", path.display()))
    };
    if !path.is_absolute() {
        let message = format!("{} is not an absolute path", path.display());
        return Err(Failure::new(Code::InvalidArgument, message));
    }
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        // A pipe would hold the copy up for ever.
        let message = format!("{} is not a regular file", path.display());
        return Err(
            Failure::new(Code::InvalidArgument, message).with_hint("queue the files of a folder one by one")
        );
    }
    too_long(kind, metadata.len())?;
    desk.with(|ledger, _| ledger.room(node, metadata.len())).map_err(not_admitted)?;
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let copied = desk.disk.copy_file(number, &file, metadata.len()).map_err(|error| unwritable(&error))?;
    if copied > metadata.len() {
        let message = format!("{} grows while it is copied", path.display());
        return Err(Failure::new(Code::InvalidArgument, message).with_hint("send it when it is complete"));
    }
    Ok(copied)
}

fn unwritable(error: &io::Error) -> Failure {
    Failure::new(Code::Internal, format!("the message cannot be written to disk: {error}"))
        .with_hint("is the disk full?")
}

fn not_admitted(refusal: NotAdmitted) -> Failure {
    match refusal {
        NotAdmitted::OtherPeer(id) => {
            Failure::new(Code::AlreadyExists, format!("the id {id} belongs to a message for another node"))
                .with_hint("an id names one message: choose another, or none")
        }
        NotAdmitted::Full { of_peer, usage } => {
            let (whose, limit) = match of_peer {
                true => ("the outbox for this node", LIMITS.of_peer),
                false => ("the outbox", LIMITS.all),
            };
            let message = format!(
                "{whose} is full: {} of {} messages and {} of {} MiB wait",
                usage.count,
                limit.count,
                usage.bytes >> 20,
                limit.bytes >> 20
            );
            Failure::new(Code::Busy, message).with_hint(
                "see `pilotctl outbox --pending`; wait until some are delivered, or take some back with `pilotctl outbox \
                 cancel ID`",
            )
        }
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(json: &[u8]) {
    super::fuzzing::reads_back::<Record>(json);
}
