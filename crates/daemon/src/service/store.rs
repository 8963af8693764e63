//! The owner of inbox and received files: a thread of its own, because disks block.
//!
//! Everything that must be decided in one order (duplicates, limits, names, who waits for what) is decided here.
//! The bulk of a large file is not: its connection writes that on the runtime's blocking threads.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pilot_wire::dataexchange::{Init, MessageId};
use pilot_wire::mailbox::{Reply, Request};
use pilot_wire::{Addr, NodeId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::disk::Refusal;
use super::inbox::{Found, Inbox, Letter, Wanted};
use super::received::{Begun, Complete, Received, ReceivedPath, SafeName};
use super::serving::Arrival;

/// Commands under way. A connection has one at a time, so this is about connections, not messages.
const QUEUE: usize = 64;

/// Applications waiting for a message at the same time.
const WAITERS_MAX: usize = 1024;

/// How long an answer that names no question waits for one that does, from senders who usually name it.
const DOUBT: Duration = Duration::from_millis(750);

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome<T> {
    /// It is stored.
    Stored(T),
    /// It was stored before, under the same id.
    Duplicate,
}

type Answered<T> = oneshot::Sender<Result<T, Refusal>>;

enum Command {
    PutMessage(Letter, Answered<Outcome<String>>),
    PutFile(IncomingFile, Answered<Outcome<ReceivedPath>>),
    Begin(Addr, Init, SafeName, watch::Sender<bool>, Answered<Begun>),
    Finish(Complete, Answered<ReceivedPath>),
    Mailbox(Request, oneshot::Sender<Reply>),
    Find(Wanted, Option<oneshot::Sender<Found>>, oneshot::Sender<Option<Found>>),
    Open(String, oneshot::Sender<Reply>),
    Requests(oneshot::Sender<Vec<Arrival>>),
}

/// A file that came in one frame.
pub(super) struct IncomingFile {
    pub(super) from: Addr,
    pub(super) message_id: Option<MessageId>,
    pub(super) name: SafeName,
    pub(super) data: bytes::Bytes,
}

/// The way to the store; cheap to clone. The thread ends when the last one is gone.
#[derive(Clone)]
pub(super) struct Store {
    commands: mpsc::Sender<Command>,
}

impl Store {
    /// Starts the thread over `~/.pilot/inbox` and `~/.pilot/received`.
    pub(super) fn start(home: &Path) -> std::io::Result<Self> {
        let (commands, queue) = mpsc::channel(QUEUE);
        let home = home.to_owned();
        std::thread::Builder::new().name("pilot-store".into()).spawn(move || run(home, queue))?;
        Ok(Self { commands })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    }

    async fn order<T>(&self, command: impl FnOnce(Answered<T>) -> Command) -> Result<T, Refusal> {
        self.ask(command).await.unwrap_or(Err(Refusal::Stopped))
    }

    /// Stores a message; when this returns `Stored`, with its id in the inbox, it survives a crash.
    pub(super) async fn put_message(&self, letter: Letter) -> Result<Outcome<String>, Refusal> {
        self.order(|answer| Command::PutMessage(letter, answer)).await
    }

    /// Stores a file; when this returns `Stored` it survives a crash.
    pub(super) async fn put_file(&self, file: IncomingFile) -> Result<Outcome<ReceivedPath>, Refusal> {
        self.order(|answer| Command::PutFile(file, answer)).await
    }

    /// Begins or resumes a transfer. `cancel` is set when the same one is begun on another connection.
    pub(super) async fn begin(
        &self,
        from: Addr,
        init: Init,
        name: SafeName,
        cancel: watch::Sender<bool>,
    ) -> Result<Begun, Refusal> {
        self.order(|answer| Command::Begin(from, init, name, cancel, answer)).await
    }

    /// Puts a checked file among the finished ones.
    pub(super) async fn finish(&self, complete: Complete) -> Result<ReceivedPath, Refusal> {
        self.order(|answer| Command::Finish(complete, answer)).await
    }

    /// The messages of the inbox that wait for an answer, or waited for one, in the order of their arrival.
    pub(super) async fn requests(&self) -> Vec<Arrival> {
        self.ask(Command::Requests).await.unwrap_or_default()
    }

    /// Waits for the answer to one of our messages. With `loose`, a message that answers nothing by name will do.
    pub(super) async fn wait_answer(
        &self,
        from: NodeId,
        reply_to: MessageId,
        since_ns: u64,
        loose: bool,
        deadline: Instant,
    ) -> Reply {
        let (from, reply_to, since_ns) = (Some(from), Some(reply_to), Some(since_ns));
        let wanted = Wanted { from, reply_to, since_ns, after: None, exact_only: !loose };
        let reply = self.wait(wanted, deadline).await;
        reply.unwrap_or_else(|| failed("unavailable", "the daemon is shutting down"))
    }

    /// Answers an application's question; a [`Request::Wait`] may take as long as it says.
    pub(super) async fn mailbox(&self, request: Request) -> Reply {
        let reply = match request {
            Request::Wait { from, reply_to, since_ns, after, timeout_ms } => {
                let deadline = Instant::now() + Duration::from_millis(timeout_ms.min(WAIT_MAX_MS));
                self.wait(Wanted { from, reply_to, since_ns, after, exact_only: false }, deadline).await
            }
            Request::List { .. }
            | Request::Read { .. }
            | Request::Clear { .. }
            | Request::ListFiles { .. }
            | Request::ClearFiles { .. } => self.ask(|answer| Command::Mailbox(request, answer)).await,
        };
        reply.unwrap_or_else(|| failed("unavailable", "the daemon is shutting down"))
    }

    async fn wait(&self, mut wanted: Wanted, deadline: Instant) -> Option<Reply> {
        let Some(found) = self.wait_for(wanted.clone(), deadline).await? else {
            return Some(Reply::TimedOut);
        };
        let mut id = found.id;
        if found.doubtful {
            wanted.exact_only = true;
            let patience = deadline.min(Instant::now() + DOUBT);
            if let Some(better) = self.wait_for(wanted, patience).await? {
                id = better.id;
            }
        }
        self.ask(|answer| Command::Open(id, answer)).await
    }

    /// `None` when the store is gone, `Some(None)` when the time is up.
    async fn wait_for(&self, wanted: Wanted, deadline: Instant) -> Option<Option<Found>> {
        let (later, comes_later) = oneshot::channel();
        if let Some(found) = self.ask(|answer| Command::Find(wanted, Some(later), answer)).await? {
            return Some(Some(found));
        }
        match timeout_at(deadline, comes_later).await {
            Ok(Ok(found)) => Some(Some(found)),
            Ok(Err(_)) => None,
            Err(_) => Some(None),
        }
    }
}

/// Longest wait of one request: a day. Whoever wants more asks again.
const WAIT_MAX_MS: u64 = 24 * 3600 * 1000;

fn failed(code: &str, message: impl Into<String>) -> Reply {
    Reply::Failed { code: code.to_owned(), message: message.into() }
}

struct Shelves {
    inbox: Inbox,
    received: Received,
    waiters: Vec<(Wanted, oneshot::Sender<Found>)>,
}

#[expect(clippy::needless_pass_by_value, reason = "the thread owns the path it was started for")]
fn run(home: PathBuf, mut queue: mpsc::Receiver<Command>) {
    let try_open = || open(&home).inspect_err(|error| tracing::error!(%error, "cannot open the inbox")).ok();
    let mut shelves = try_open();
    while let Some(command) = queue.blocking_recv() {
        if shelves.is_none() {
            shelves = try_open();
        }
        // Without an answer the other side sees its channel close: the message is refused, and the next
        // command tries again.
        if let Some(shelves) = &mut shelves {
            shelves.handle(command, SystemTime::now());
        }
    }
}

fn open(home: &Path) -> std::io::Result<Shelves> {
    Ok(Shelves {
        inbox: Inbox::open(home.join("inbox"))?,
        received: Received::open(home.join("received"), SystemTime::now())?,
        waiters: Vec::new(),
    })
}

impl Shelves {
    fn handle(&mut self, command: Command, now: SystemTime) {
        // Whoever asked may have gone meanwhile; then nobody needs the answer.
        match command {
            Command::PutMessage(letter, answer) => drop(answer.send(self.put_message(letter, now))),
            Command::PutFile(file, answer) => drop(answer.send(self.put_file(file, now))),
            Command::Begin(from, init, name, cancel, answer) => {
                drop(answer.send(self.received.begin(from, &init, name, cancel)));
            }
            Command::Finish(complete, answer) => drop(answer.send(self.received.finish(complete, now))),
            Command::Mailbox(request, answer) => drop(answer.send(self.answer(request))),
            Command::Find(wanted, later, answer) => {
                let found = self.inbox.find(&wanted);
                if let (None, Some(later)) = (&found, later) {
                    self.wait(wanted, later);
                }
                let _ = answer.send(found);
            }
            Command::Requests(answer) => drop(answer.send(self.inbox.requests())),
            Command::Open(id, answer) => {
                let opened = self.inbox.open_message(&id);
                let _ = answer.send(opened.unwrap_or_else(|error| failed("internal", error.to_string())));
            }
        }
    }

    fn put_message(&mut self, letter: Letter, now: SystemTime) -> Result<Outcome<String>, Refusal> {
        if self.is_duplicate(letter.from.node, letter.message_id.as_ref(), now) {
            return Ok(Outcome::Duplicate);
        }
        let id = self.inbox.put(letter, now)?;
        self.wake();
        Ok(Outcome::Stored(id))
    }

    fn put_file(&mut self, file: IncomingFile, now: SystemTime) -> Result<Outcome<ReceivedPath>, Refusal> {
        if self.is_duplicate(file.from.node, file.message_id.as_ref(), now) {
            return Ok(Outcome::Duplicate);
        }
        let stored = self.received.put(&file.name, &file.data, now)?;
        if let Some(id) = file.message_id {
            self.inbox.remember(file.from.node, id, now);
        }
        Ok(Outcome::Stored(stored))
    }

    fn is_duplicate(&mut self, from: NodeId, id: Option<&MessageId>, now: SystemTime) -> bool {
        id.is_some_and(|id| self.inbox.is_duplicate(from, id, now))
    }

    fn wait(&mut self, wanted: Wanted, later: oneshot::Sender<Found>) {
        self.waiters.retain(|(_, waiter)| !waiter.is_closed());
        if self.waiters.len() < WAITERS_MAX {
            self.waiters.push((wanted, later));
        }
    }

    fn wake(&mut self) {
        let waiters = std::mem::take(&mut self.waiters);
        for (wanted, waiter) in waiters {
            match self.inbox.find(&wanted) {
                Some(found) => drop(waiter.send(found)),
                None if waiter.is_closed() => {}
                None => self.waiters.push((wanted, waiter)),
            }
        }
    }

    fn answer(&mut self, request: Request) -> Reply {
        let answered = match request {
            Request::List { from, since_ns, limit } => self.inbox.list(from, since_ns, limit),
            Request::Read { id } => self.inbox.read(id.as_deref()).map(|found| {
                found.unwrap_or_else(|| match id {
                    Some(id) => failed("not_found", format!("no message `{id}` in the inbox")),
                    None => failed("not_found", "the inbox is empty"),
                })
            }),
            Request::Clear { before_ns } => {
                self.inbox.clear(before_ns).map(|cleared| Reply::Cleared { cleared })
            }
            Request::ListFiles { limit } => self.received.list(limit),
            Request::ClearFiles { before_ns } => {
                self.received.clear(before_ns).map(|cleared| Reply::Cleared { cleared })
            }
            Request::Wait { .. } => Ok(failed("internal", "a wait is not a question for the thread")),
        };
        answered.unwrap_or_else(|error| failed("internal", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(body: &'static [u8], id: &str, reply_to: Option<&str>) -> Letter {
        Letter {
            kind: "TEXT".into(),
            binary: false,
            body: bytes::Bytes::from_static(body),
            from: Addr::backbone(NodeId(1)),
            from_hostname: None,
            from_key: None,
            message_id: Some(id.parse().unwrap()),
            reply_to: reply_to.map(|id| id.parse().unwrap()),
            extension: pilot_wire::dataexchange::Extension::default(),
        }
    }

    fn wait_for_reply(id: &str) -> Request {
        Request::Wait {
            from: Some(NodeId(1)),
            reply_to: Some(id.parse().unwrap()),
            since_ns: Some(0),
            after: None,
            timeout_ms: 30_000,
        }
    }

    #[tokio::test]
    async fn a_waiting_application_gets_the_answer_the_moment_it_is_stored() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::start(home.path()).unwrap();
        let waiting = store.clone();
        let waiter = tokio::spawn(async move { waiting.mailbox(wait_for_reply("q")).await });
        store.put_message(letter(b"the answer", "m-1", Some("q"))).await.unwrap();
        let Reply::Message { message: Some(message), .. } = waiter.await.unwrap() else { panic!() };
        assert_eq!(message.body().unwrap(), b"the answer");
    }

    #[tokio::test]
    async fn nothing_to_wait_for_ends_in_time() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::start(home.path()).unwrap();
        let request =
            Request::Wait { from: None, reply_to: None, since_ns: None, after: None, timeout_ms: 1 };
        assert_eq!(store.mailbox(request).await, Reply::TimedOut);
    }

    #[tokio::test]
    async fn a_repeated_message_is_stored_once_even_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::start(home.path()).unwrap();
        assert!(matches!(store.put_message(letter(b"x", "m-1", None)).await, Ok(Outcome::Stored(_))));
        assert_eq!(store.put_message(letter(b"x", "m-1", None)).await, Ok(Outcome::Duplicate));
        let store = Store::start(home.path()).unwrap();
        assert_eq!(store.put_message(letter(b"x", "m-1", None)).await, Ok(Outcome::Duplicate));
    }
}
