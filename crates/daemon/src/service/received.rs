//! Received files: finished ones in `~/.pilot/received`, unfinished ones in its `.partial`, to be resumed.
//!
//! A thread of its own decides what must be decided in one order: names, limits, who waits for what. The bulk of a file is
//! written and hashed by its connection, on the runtime's blocking threads.

mod folder;
mod name;
mod partial;
mod records;
mod shelf;
mod space;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pilot_wire::dataexchange::{ContentHash, Init, MessageId, TransferId};
use pilot_wire::ipc::{Code, Failure};
use pilot_wire::received::{ReceivedFile, Reply, Request};
use pilot_wire::{Addr, NodeId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use self::shelf::Shelf;
use super::disk::{Refusal, unix_ns};
use crate::config::ReceivedLimits;

pub(super) use self::folder::{Announced, Content, Folder};
pub(super) use self::name::{BadName, SafeName};
pub(super) use self::partial::{Partial, TransferError};
pub(super) use self::records::Origin;

/// Commands under way. A connection has one at a time, so this is about connections, not files.
const QUEUE: usize = 64;

/// Applications waiting for a file at the same time; one more is told so.
const WAITERS_MAX: usize = 1024;

/// Longest wait of one request: a day. Whoever wants more asks again.
const WAIT_MAX_MS: u64 = 24 * 3600 * 1000;

/// A transfer is named by its sender and the beginning of the file's hash.
pub(super) type TransferKey = (NodeId, TransferId);

/// A file being received: held by the connection that receives it, moved to a blocking thread to be written.
#[derive(Debug)]
pub(super) struct Transfer {
    key: TransferKey,
    origin: Origin,
    name: SafeName,
    announced: String,
    sha256: ContentHash,
    size: u64,
    /// What is written.
    pub(super) partial: Partial,
    /// Dropped with the transfer, which is how the table learns that it is over.
    alive: watch::Sender<()>,
}

impl Transfer {
    /// The id in its steps.
    pub(super) fn id(&self) -> TransferId {
        self.key.1
    }

    /// Checks the whole file and makes it durable where it is. Blocks on the disk.
    pub(super) fn complete(self) -> Result<Complete, TransferError> {
        Ok(Complete {
            path: self.partial.complete()?,
            key: self.key,
            origin: self.origin,
            name: self.name,
            announced: self.announced,
            sha256: self.sha256,
            bytes: self.size,
            files: None,
            message_id: None,
            remains: None,
            alive: self.alive,
        })
    }
}

/// A checked and synced file or folder that still lies among the unfinished ones.
#[derive(Debug)]
pub(super) struct Complete {
    key: TransferKey,
    origin: Origin,
    name: SafeName,
    announced: String,
    sha256: ContentHash,
    path: PathBuf,
    bytes: u64,
    files: Option<u64>,
    message_id: Option<MessageId>,
    /// To be removed once it is in its place.
    remains: Option<PathBuf>,
    #[expect(dead_code, reason = "its end tells the table that the transfer is over")]
    alive: watch::Sender<()>,
}

/// The answer to the beginning of a transfer.
#[derive(Debug)]
pub(super) enum Begun<T> {
    /// Go on from what it has.
    Ready(Box<T>),
    /// The same transfer runs on another connection, which was told to end; try again when this closes.
    Busy(watch::Receiver<()>),
    /// It arrived a moment ago, and the sender did not hear of it.
    Here,
}

/// Something that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) from: Addr,
    pub(super) from_hostname: Option<String>,
    /// Of the file, or of the folder's manifest.
    pub(super) sha256: ContentHash,
    /// How many files the folder has.
    pub(super) files: Option<u64>,
}

/// A file that came in one frame.
#[derive(Debug)]
pub(super) struct IncomingFile {
    pub(super) origin: Origin,
    pub(super) message_id: Option<MessageId>,
    pub(super) name: SafeName,
    pub(super) announced: String,
    pub(super) data: Bytes,
}

/// What a waiting application is looking for.
#[derive(Debug, Clone)]
struct Wanted {
    from: Option<NodeId>,
    since_ns: u64,
}

type Answered<T> = oneshot::Sender<Result<T, Refusal>>;

enum Command {
    Put(IncomingFile, Answered<Option<Arrived>>),
    Begin(Origin, Init, SafeName, watch::Sender<bool>, Answered<Begun<Transfer>>),
    BeginFolder(Origin, Announced, watch::Sender<bool>, Answered<Begun<Folder>>),
    Finish(Complete, Answered<Arrived>),
    Ask(Request, oneshot::Sender<Result<Reply, Failure>>),
    Find(Wanted, oneshot::Sender<ReceivedFile>),
}

/// The way to the received files; cheap to clone. The thread ends when the last one is gone.
#[derive(Clone)]
pub(super) struct Files {
    commands: mpsc::Sender<Command>,
}

impl Files {
    /// Starts the thread over `~/.pilot/received`.
    pub(super) fn start(home: &Path, limits: ReceivedLimits) -> std::io::Result<Self> {
        let (commands, queue) = mpsc::channel(QUEUE);
        let directory = home.join("received");
        std::thread::Builder::new()
            .name("pilot-received".into())
            .spawn(move || run(&directory, &limits, queue))?;
        Ok(Self { commands })
    }

    async fn order<T>(&self, command: impl FnOnce(Answered<T>) -> Command) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| Refusal::Stopped)?;
        answered.await.unwrap_or(Err(Refusal::Stopped))
    }

    /// Stores a file; when this returns it survives a crash. Nothing, when it is here already under its id.
    pub(super) async fn put(&self, file: IncomingFile) -> Result<Option<Arrived>, Refusal> {
        self.order(|answer| Command::Put(file, answer)).await
    }

    /// Begins or resumes a transfer. `cancel` is set when the same one is begun on another connection.
    pub(super) async fn begin(
        &self,
        origin: Origin,
        init: Init,
        name: SafeName,
        cancel: watch::Sender<bool>,
    ) -> Result<Begun<Transfer>, Refusal> {
        self.order(|answer| Command::Begin(origin, init, name, cancel, answer)).await
    }

    /// Begins or resumes a folder, in the same way.
    pub(super) async fn begin_folder(
        &self,
        origin: Origin,
        announced: Announced,
        cancel: watch::Sender<bool>,
    ) -> Result<Begun<Folder>, Refusal> {
        self.order(|answer| Command::BeginFolder(origin, announced, cancel, answer)).await
    }

    /// Puts a checked file or folder among the finished ones.
    pub(super) async fn finish(&self, complete: Complete) -> Result<Arrived, Refusal> {
        self.order(|answer| Command::Finish(complete, answer)).await
    }

    /// Answers an application; a [`Request::Wait`] may take as long as it says.
    pub(super) async fn call(&self, request: Request) -> Result<Reply, Failure> {
        let stopped = || Failure::new(Code::Closed, "the daemon is shutting down");
        if let Request::Wait { from, since_ns, timeout_ms } = request {
            let deadline = Instant::now() + Duration::from_millis(timeout_ms.min(WAIT_MAX_MS));
            let wanted = Wanted { from, since_ns: since_ns.unwrap_or_else(|| unix_ns(SystemTime::now())) };
            let (found, comes) = oneshot::channel();
            self.commands.send(Command::Find(wanted, found)).await.map_err(|_| stopped())?;
            return match timeout_at(deadline, comes).await {
                Ok(Ok(file)) => Ok(Reply::File(Box::new(file))),
                Ok(Err(_)) => Err(Failure::new(Code::Busy, "too many programs wait for a file")),
                Err(_) => Ok(Reply::TimedOut),
            };
        }
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Ask(request, answer)).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn run(directory: &Path, limits: &ReceivedLimits, mut queue: mpsc::Receiver<Command>) {
    let try_open = || {
        Shelf::open(directory.to_owned(), limits.clone(), SystemTime::now())
            .inspect_err(|error| tracing::error!(%error, "cannot open the folder of received files"))
            .ok()
    };
    let mut shelf = try_open();
    let mut waiters = Vec::new();
    while let Some(command) = queue.blocking_recv() {
        if shelf.is_none() {
            shelf = try_open();
        }
        // Without an answer the other side sees its channel close: the file is refused, and the next command tries again.
        if let Some(shelf) = &mut shelf {
            handle(shelf, &mut waiters, command, SystemTime::now());
        }
    }
}

type Waiters = Vec<(Wanted, oneshot::Sender<ReceivedFile>)>;

fn handle(shelf: &mut Shelf, waiters: &mut Waiters, command: Command, now: SystemTime) {
    // Whoever asked may have gone meanwhile; then nobody needs the answer.
    match command {
        Command::Put(file, answer) => {
            drop(answer.send(shelf.put(file, now)));
            wake(shelf, waiters);
        }
        Command::Begin(origin, init, name, cancel, answer) => {
            drop(answer.send(shelf.begin(origin, &init, name, cancel, now)));
        }
        Command::BeginFolder(origin, announced, cancel, answer) => {
            drop(answer.send(shelf.begin_folder(origin, announced, cancel, now)));
        }
        Command::Finish(complete, answer) => {
            drop(answer.send(shelf.finish(complete, now)));
            wake(shelf, waiters);
        }
        Command::Ask(request, answer) => drop(answer.send(answer_to(shelf, request))),
        Command::Find(wanted, found) => match shelf.find(&wanted) {
            Some(file) => drop(found.send(file)),
            None => {
                waiters.retain(|(_, waiter)| !waiter.is_closed());
                if waiters.len() < WAITERS_MAX {
                    waiters.push((wanted, found));
                }
            }
        },
    }
}

fn wake(shelf: &Shelf, waiters: &mut Waiters) {
    for (wanted, waiter) in std::mem::take(waiters) {
        match shelf.find(&wanted) {
            Some(file) => drop(waiter.send(file)),
            None if waiter.is_closed() => {}
            None => waiters.push((wanted, waiter)),
        }
    }
}

fn answer_to(shelf: &mut Shelf, request: Request) -> Result<Reply, Failure> {
    let answered = match request {
        Request::List { from, since_ns, limit } => shelf.list(from, since_ns, limit).map(|(files, total)| {
            Reply::Files { files, total, dir: shelf.directory().to_string_lossy().into_owned() }
        }),
        Request::Clear { from, before_ns } => {
            shelf.clear(from, before_ns).map(|cleared| Reply::Cleared { cleared })
        }
        Request::Remove { name } => match shelf.remove(&name) {
            Ok(true) => Ok(Reply::Cleared { cleared: 1 }),
            Ok(false) => {
                let failure = Failure::new(Code::NotFound, format!("no received file is called `{name}`"));
                return Err(failure.with_hint("see: pilotctl received"));
            }
            Err(error) => Err(error),
        },
        Request::Wait { .. } => Ok(Reply::TimedOut),
    };
    answered.map_err(|error| Failure::new(Code::Internal, format!("the received files: {error}")))
}

#[cfg(feature = "fuzzing")]
pub(in crate::service) mod fuzzing {
    use std::time::{Duration, UNIX_EPOCH};

    /// A name that a peer gives a file: what is kept is one component, and no other file is meant.
    pub fn file_name(name: &[u8]) {
        super::name::fuzz(name, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    }
}
