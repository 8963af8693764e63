//! The owner of the inbox: a thread of its own, because disks block.
//!
//! Everything that must be decided in one order (duplicates, limits, names, who waits for what) is decided here.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pilot_wire::NodeId;
use pilot_wire::dataexchange::MessageId;
use pilot_wire::mailbox::{Filter, Reply, Request, Wait};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::disk::Refusal;
use super::inbox::{Found, Inbox, Letter, Put, ReadNotice, Scan, Wanted};
use super::serving::Arrival;

/// Commands under way. A connection has a few at a time, so this is about connections, not messages.
const QUEUE: usize = 64;

/// Messages that are made safe together at most.
const BATCH_MAX: usize = 64;

/// Applications waiting for a message at the same time. Beyond, a wait ends at once with nothing.
const WAITERS_MAX: usize = 1024;

/// How long an answer that names no question waits for one that does, from senders who usually name it.
const DOUBT: Duration = Duration::from_millis(750);

/// Longest wait of one request: a day. Whoever wants more asks again.
const WAIT_MAX_MS: u64 = 24 * 3600 * 1000;

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
    PutMessage(Letter, Answered<Outcome<()>>),
    Mailbox(Request, oneshot::Sender<Reply>),
    Find(Waiter, oneshot::Sender<Option<Found>>),
    /// The flag: mark it as read.
    Open(String, bool, oneshot::Sender<Option<Reply>>),
    Scan(Filter, oneshot::Sender<Scan>),
    /// The flag: only requests.
    Inquiries(u64, bool, oneshot::Sender<(Vec<Arrival>, u64)>),
}

/// A program that waits for a message.
struct Waiter {
    wanted: Wanted,
    /// It takes the message: nobody else who waits for unread ones gets it.
    takes: bool,
    found: oneshot::Sender<Found>,
}

/// The way to the store; cheap to clone. The thread ends when the last one is gone.
#[derive(Clone)]
pub(super) struct Store {
    commands: mpsc::Sender<Command>,
    arrivals: watch::Receiver<u64>,
}

/// An answer that is on its way.
pub(super) struct Storing(Option<oneshot::Receiver<Result<Outcome<()>, Refusal>>>);

impl Storing {
    /// When this is `Stored`, the message survives a crash.
    pub(super) async fn done(self) -> Result<Outcome<()>, Refusal> {
        let Some(answered) = self.0 else { return Err(Refusal::Stopped) };
        answered.await.unwrap_or(Err(Refusal::Stopped))
    }
}

impl Store {
    /// Starts the thread over `~/.pilot/inbox`.
    #[cfg(test)]
    pub(super) fn start(home: &Path) -> std::io::Result<Self> {
        Self::start_telling(home, None)
    }

    /// The same; whom to tell that their messages were read goes to `readings`.
    pub(super) fn start_telling(
        home: &Path,
        readings: Option<mpsc::Sender<ReadNotice>>,
    ) -> std::io::Result<Self> {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (arrived, arrivals) = watch::channel(0);
        let clerk = Clerk { home: home.to_owned(), shelves: None, waiters: Vec::new(), arrived, readings };
        std::thread::Builder::new().name("pilot-store".into()).spawn(move || clerk.run(queue))?;
        Ok(Self { commands, arrivals })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Stores a message alone, and waits until it is safe. Connections do the two apart, so that many are made safe together.
    #[cfg(test)]
    pub(super) async fn put_message(&self, letter: Letter) -> Result<Outcome<()>, Refusal> {
        self.begin_message(letter).await.done().await
    }

    /// Hands a message over and does not wait until it is stored: those handed over meanwhile are made safe with it.
    /// They are stored in the order of these calls.
    pub(super) async fn begin_message(&self, letter: Letter) -> Storing {
        let (answer, answered) = oneshot::channel();
        Storing(self.commands.send(Command::PutMessage(letter, answer)).await.ok().map(|()| answered))
    }

    pub(super) fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.clone()
    }

    /// What arrived after `filter.since_ns`, piece by piece. `None` when the store is gone.
    pub(super) async fn scan(&self, filter: Filter) -> Option<Scan> {
        self.ask(|answer| Command::Scan(filter, answer)).await
    }

    /// What arrived after this time, as programs that answer see it, and the latest time of arrival. `None` when the store
    /// is gone.
    pub(super) async fn inquiries(&self, since_ns: u64, requests_only: bool) -> Option<(Vec<Arrival>, u64)> {
        self.ask(|answer| Command::Inquiries(since_ns, requests_only, answer)).await
    }

    /// Waits for the message that answers one of ours by its name.
    pub(super) async fn wait_answer(&self, from: NodeId, reply_to: MessageId, deadline: Instant) -> Reply {
        let filter = Filter { from: Some(from), ..Filter::default() };
        let wanted = Wanted { filter, reply_to: Some(reply_to), exact_only: true };
        let answer = async {
            loop {
                let Some(found) = self.wait_for(wanted.clone(), false, deadline).await? else {
                    return Some(Reply::TimedOut);
                };
                if let Some(reply) = self.ask(|answer| Command::Open(found.id, true, answer)).await? {
                    return Some(reply);
                }
            }
        };
        answer.await.unwrap_or_else(|| failed("unavailable", "the daemon is shutting down"))
    }

    /// Answers an application's question; a [`Request::Wait`] may take as long as it says.
    pub(super) async fn mailbox(&self, request: Request) -> Reply {
        let reply = match request {
            Request::Wait(wait) => self.wait(wait).await,
            Request::List(_)
            | Request::Read { .. }
            | Request::Mark { .. }
            | Request::Remove { .. }
            | Request::Clear { .. } => self.ask(|answer| Command::Mailbox(request, answer)).await,
        };
        reply.unwrap_or_else(|| failed("unavailable", "the daemon is shutting down"))
    }

    async fn wait(&self, wait: Wait) -> Option<Reply> {
        let deadline = Instant::now() + Duration::from_millis(wait.timeout_ms.min(WAIT_MAX_MS));
        let mut wanted = Wanted { filter: wait.filter, reply_to: wait.reply_to, exact_only: false };
        // Which answer it is may not be decided by the first one that fits.
        let takes = !wait.peek && wanted.reply_to.is_none();
        loop {
            let Some(found) = self.wait_for(wanted.clone(), takes, deadline).await? else {
                return Some(Reply::TimedOut);
            };
            let mut id = found.id;
            if found.doubtful {
                wanted.exact_only = true;
                let patience = deadline.min(Instant::now() + DOUBT);
                if let Some(better) = self.wait_for(wanted.clone(), takes, patience).await? {
                    id = better.id;
                }
                wanted.exact_only = false;
            }
            // A file that was removed meanwhile was not meant.
            if let Some(reply) = self.ask(|answer| Command::Open(id, !wait.peek, answer)).await? {
                return Some(reply);
            }
        }
    }

    /// `None` when the store is gone, `Some(None)` when the time is up.
    async fn wait_for(&self, wanted: Wanted, takes: bool, deadline: Instant) -> Option<Option<Found>> {
        let (later, mut comes_later) = oneshot::channel();
        let waiter = Waiter { wanted, takes, found: later };
        if let Some(found) = self.ask(|answer| Command::Find(waiter, answer)).await? {
            return Some(Some(found));
        }
        match timeout_at(deadline, &mut comes_later).await {
            Ok(Ok(found)) => Some(Some(found)),
            // Turned away, or the store is gone.
            Ok(Err(_)) => (!self.commands.is_closed()).then_some(None),
            Err(_) => {
                // What came in the last moment is taken already.
                comes_later.close();
                Some(comes_later.try_recv().ok())
            }
        }
    }
}

fn failed(code: &str, message: impl Into<String>) -> Reply {
    Reply::Failed { code: code.to_owned(), message: message.into() }
}

/// The thread's own.
struct Clerk {
    home: PathBuf,
    shelves: Option<Shelves>,
    waiters: Vec<Waiter>,
    arrived: watch::Sender<u64>,
    readings: Option<mpsc::Sender<ReadNotice>>,
}

struct Shelves {
    inbox: Inbox,
}

impl Clerk {
    fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        self.open();
        let mut next = queue.blocking_recv();
        while let Some(command) = next.take() {
            self.open();
            if let Command::PutMessage(letter, answer) = command {
                // What waits behind it is made safe together with it, up to the first command of another kind.
                let mut letters = vec![letter];
                let mut answers = vec![answer];
                while letters.len() < BATCH_MAX {
                    match queue.try_recv() {
                        Ok(Command::PutMessage(letter, answer)) => {
                            letters.push(letter);
                            answers.push(answer);
                        }
                        other => {
                            next = other.ok();
                            break;
                        }
                    }
                }
                self.put(letters, answers);
            } else {
                self.handle(command, SystemTime::now());
            }
            self.wake();
            self.tell();
            if next.is_none() {
                next = queue.blocking_recv();
            }
        }
    }

    /// Opens the shelves if they are not. Without them nobody gets an answer: the other side sees its channel close, a
    /// message is refused, and the next command tries again.
    fn open(&mut self) {
        if self.shelves.is_some() {
            return;
        }
        match open(&self.home) {
            Ok(shelves) => {
                self.arrived.send_replace(shelves.inbox.last_ns());
                self.shelves = Some(shelves);
            }
            Err(error) => tracing::error!(%error, "cannot open the inbox"),
        }
    }

    fn put(&mut self, letters: Vec<Letter>, answers: Vec<Answered<Outcome<()>>>) {
        let Some(shelves) = &mut self.shelves else { return };
        let verdicts = shelves.inbox.put_all(letters, SystemTime::now());
        // Whoever asked may have gone meanwhile; then nobody needs the answer.
        for (verdict, answer) in verdicts.into_iter().zip(answers) {
            let _ = answer.send(verdict.map(|put| match put {
                Put::Stored => Outcome::Stored(()),
                Put::Duplicate => Outcome::Duplicate,
            }));
        }
    }

    fn handle(&mut self, command: Command, now: SystemTime) {
        let Some(shelves) = &mut self.shelves else { return };
        match command {
            Command::PutMessage(letter, answer) => self.put(vec![letter], vec![answer]),
            Command::Mailbox(request, answer) => drop(answer.send(shelves.answer(request, now))),
            Command::Find(waiter, answer) => {
                let found = shelves.inbox.find(&waiter.wanted);
                match &found {
                    None => self.wait(waiter),
                    Some(found) if waiter.takes => shelves.take(&found.id, now),
                    Some(_) => {}
                }
                let _ = answer.send(found);
            }
            Command::Open(id, takes, answer) => {
                let opened = shelves.inbox.open_message(&id);
                if takes && matches!(opened, Ok(Some(_))) {
                    shelves.take(&id, now);
                } else if matches!(opened, Ok(None)) && shelves.inbox.refresh().is_err() {
                    return;
                }
                let answered = opened.unwrap_or_else(|error| Some(failed("internal", error.to_string())));
                let _ = answer.send(answered);
            }
            Command::Inquiries(since_ns, requests_only, answer) => {
                drop(answer.send(shelves.inbox.inquiries(since_ns, requests_only)));
            }
            Command::Scan(filter, answer) => drop(answer.send(shelves.inbox.scan(&filter))),
        }
    }

    fn wait(&mut self, waiter: Waiter) {
        self.waiters.retain(|waiter| !waiter.found.is_closed());
        if self.waiters.len() < WAITERS_MAX {
            self.waiters.push(waiter);
        }
    }

    /// Gives new messages to those who wait for them, in the order in which they came.
    fn wake(&mut self) {
        let Some(shelves) = &mut self.shelves else { return };
        let new = shelves.inbox.take_new();
        if new.is_empty() {
            return;
        }
        let now = SystemTime::now();
        for waiter in std::mem::take(&mut self.waiters) {
            let found = new.iter().find_map(|place| shelves.inbox.find_at(*place, &waiter.wanted));
            match found {
                Some(found) => {
                    let id = found.id.clone();
                    if waiter.found.send(found).is_ok() && waiter.takes {
                        shelves.take(&id, now);
                    }
                }
                None if waiter.found.is_closed() => {}
                None => self.waiters.push(waiter),
            }
        }
        self.arrived.send_replace(shelves.inbox.last_ns());
    }

    /// Passes on whose messages were read.
    fn tell(&mut self) {
        let Some(shelves) = &mut self.shelves else { return };
        for notice in shelves.inbox.take_notices() {
            if let Some(readings) = &self.readings
                && readings.try_send(notice).is_err()
            {
                tracing::warn!("word of a message that was read is dropped: too many at once");
            }
        }
    }
}

fn open(home: &Path) -> std::io::Result<Shelves> {
    Ok(Shelves { inbox: Inbox::open(home.join("inbox"))? })
}

impl Shelves {
    /// A message that cannot be marked is handed out all the same; it stays unread.
    fn take(&mut self, id: &str, now: SystemTime) {
        if let Err(error) = self.inbox.mark(&[id.to_owned()], true, now) {
            tracing::warn!(id, %error, "cannot mark a message as read");
        }
    }

    fn answer(&mut self, request: Request, now: SystemTime) -> Reply {
        let answered = match request {
            Request::List(list) => self.inbox.list(&list),
            Request::Read { id, peek } => self.inbox.read(id.as_deref()).map(|found| match (found, id) {
                (Some(reply), _) => {
                    if let (Reply::Message { id, .. }, false) = (&reply, peek) {
                        self.take(id, now);
                    }
                    reply
                }
                (None, Some(id)) => failed("not_found", format!("no message `{id}` in the inbox")),
                (None, None) => failed("not_found", "the inbox is empty"),
            }),
            Request::Mark { ids, read } => {
                self.inbox.mark(&ids, read, now).map(|marked| Reply::Marked { marked })
            }
            Request::Remove { ids } => self.inbox.remove(&ids).map(|cleared| Reply::Cleared { cleared }),
            Request::Clear { before_ns, read } => {
                self.inbox.clear(before_ns, read).map(|cleared| Reply::Cleared { cleared })
            }
            Request::Wait(_) => Ok(failed("internal", "a wait is not a question for the thread")),
        };
        answered.unwrap_or_else(|error| failed("internal", error.to_string()))
    }
}
