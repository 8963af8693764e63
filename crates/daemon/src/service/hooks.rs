//! What the owner wants done when a message arrives: programs that are run, URLs that are posted to.
//!
//! A message counts as handed over when the program has ended with status 0, or the URL has answered with 2xx; until
//! then it is tried again, for a day. That is at least once: a daemon that is killed between the end of a program and
//! the note of it runs the program again.

mod book;
mod exec;
mod queue;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pilot_wire::dataexchange::MessageId;
use pilot_wire::hooks::{Action, Arrival, Hook, Reply, Request};
use pilot_wire::ipc::{Code, Failure};
use pilot_wire::mailbox::{Filter, Reply as MailboxReply, Request as MailboxRequest, StoredMessage};
use pilot_wire::{Addr, NodeId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use self::book::{Book, Definition};
use self::exec::{Program, Ran};
use self::queue::{Changes, Ending, Key, Now, Queue};
use self::table::Table;
use super::disk::unix_ns;
use super::policy::Policy;
use super::store::Store;
use crate::datetime;
use crate::handle::Handle;
use crate::webhook::{self, Target, Tls};

/// Questions of applications on their way.
const COMMANDS: usize = 16;

/// Programs that run at the same time; as many posts are under way beside them.
const AT_ONCE: usize = 4;

/// How long a program may run that was given no limit.
const EXEC_LIMIT: Duration = Duration::from_secs(300);

/// The longest that may be given.
const EXEC_LIMIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long a URL may take to answer.
const POST_LIMIT: Duration = Duration::from_secs(10);

/// A message whose file is longer is handed over without its body; a program finds it in the file.
const DOCUMENT_MAX: u64 = 16 << 20;

/// Pause before the files are tried again that could not be opened.
const OPEN_AGAIN: Duration = Duration::from_secs(10);

type Asked = (Request, oneshot::Sender<Result<Reply, Failure>>);

/// The service; cheap to clone.
#[derive(Clone)]
pub(super) struct Hooks {
    commands: mpsc::Sender<Asked>,
}

impl Hooks {
    /// The service over `home`, and the task that does its work.
    pub(super) fn new(
        home: &Path,
        socket: &Path,
        store: Store,
        policy: Policy,
        own: Box<dyn Fn() -> NodeId + Send + Sync>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (commands, asked) = mpsc::channel(COMMANDS);
        let place = Arc::new(Place {
            home: home.to_owned(),
            socket: socket.to_owned(),
            store,
            policy,
            tls: Tls::default(),
            own,
        });
        (Self { commands }, serve(place, asked))
    }

    /// The same with the driver's knowledge of this node.
    pub(super) fn start(
        home: &Path,
        socket: &Path,
        store: Store,
        policy: Policy,
        handle: &Handle,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let handle = handle.clone();
        Self::new(home, socket, store, policy, Box::new(move || handle.node()))
    }

    /// Answers an application.
    pub(super) async fn call(&self, request: Request) -> Result<Reply, Failure> {
        let stopping = || Failure::new(Code::Closed, "the daemon is stopping");
        let (answer, answered) = oneshot::channel();
        self.commands.send((request, answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }
}

/// What every try needs.
struct Place {
    home: PathBuf,
    socket: PathBuf,
    store: Store,
    policy: Policy,
    tls: Tls,
    own: Box<dyn Fn() -> NodeId + Send + Sync>,
}

/// Runs for as long as the daemon does.
async fn serve(place: Arc<Place>, mut asked: mpsc::Receiver<Asked>) {
    loop {
        let home = place.home.clone();
        let opened =
            tokio::task::spawn_blocking(move || open(&home)).await.map_err(io::Error::other).flatten();
        let error = match opened {
            Ok((book, table, queue)) => {
                let arrivals = place.store.arrivals();
                let keeper = Keeper {
                    place,
                    arrivals,
                    book,
                    queue,
                    table: Some(table),
                    running: JoinSet::new(),
                    tries: HashMap::new(),
                    tests: JoinSet::new(),
                    busy: Busy::default(),
                };
                return keeper.run(asked).await;
            }
            Err(error) => error,
        };
        tracing::error!(%error, "the hooks cannot be read; nothing is done when a message arrives");
        let refusal = Failure::new(Code::Internal, format!("the hooks cannot be read: {error}"))
            .with_hint("see hooks.json in the home folder of the daemon");
        let again = tokio::time::sleep(OPEN_AGAIN);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = &mut again => break,
                command = asked.recv() => match command {
                    Some((_, answer)) => drop(answer.send(Err(refusal.clone()))),
                    None => return,
                },
            }
        }
    }
}

fn open(home: &Path) -> io::Result<(Book, Arc<Table>, Queue)> {
    let book = Book::open(home)?;
    let path = home.join("hooks.redb");
    // The database takes some damage for its own mistake and panics; here it is the file's.
    let opened =
        panic::catch_unwind(|| Table::open(&path)).unwrap_or_else(|_| Err(io::ErrorKind::InvalidData.into()));
    let (table, (accounts, jobs)) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!(%error, "what waits for hooks cannot be read; it is put aside, and what waited in it is not handed over");
            std::fs::rename(&path, home.join("hooks.redb.damaged"))?;
            Table::open(&path)?
        }
    };
    let queue = Queue::restore(accounts, jobs, now());
    Ok((book, Arc::new(table), queue))
}

fn now() -> Now {
    Now { instant: Instant::now(), wall_ns: unix_ns(SystemTime::now()) }
}

/// Tries under way.
#[derive(Debug, Default)]
struct Busy {
    programs: usize,
    posts: usize,
}

impl Busy {
    fn of(&mut self, action: &Action) -> &mut usize {
        match action {
            Action::Exec { .. } => &mut self.programs,
            Action::Post { .. } => &mut self.posts,
        }
    }

    fn has_room(&self, action: &Action) -> bool {
        let busy = match action {
            Action::Exec { .. } => self.programs,
            Action::Post { .. } => self.posts,
        };
        busy < AT_ONCE
    }
}

/// A try under way.
struct Try {
    key: Key,
    action: Action,
    message: String,
}

/// The owner of all hooks.
struct Keeper {
    place: Arc<Place>,
    arrivals: watch::Receiver<u64>,
    book: Book,
    queue: Queue,
    /// `None` after a failed write: then it is opened again, and everything written anew.
    table: Option<Arc<Table>>,
    running: JoinSet<Ending>,
    tries: HashMap<tokio::task::Id, Try>,
    /// Tests that programs asked for.
    tests: JoinSet<()>,
    busy: Busy,
}

impl Keeper {
    async fn run(mut self, mut asked: mpsc::Receiver<Asked>) {
        self.agree().await;
        loop {
            self.look().await;
            self.begin_due();
            let next_due = self.queue.next_due(|hook| self.may(hook));
            tokio::select! {
                command = asked.recv() => match command {
                    Some((request, answer)) => self.answer(request, answer).await,
                    None => return,
                },
                changed = self.arrivals.changed() => if changed.is_err() { return },
                Some(tried) = self.running.join_next_with_id() => match tried {
                    Ok((id, ending)) => self.ended(id, ending).await,
                    Err(error) => self.ended(error.id(), Ending::Failed(format!("it crashed: {error}"))).await,
                },
                Some(_) = self.tests.join_next() => {}
                () = until(next_due) => {}
            }
        }
    }

    /// Makes what is written in the two files agree: a kill may have come between them.
    async fn agree(&mut self) {
        let strangers: Vec<u64> = self.queue.hooks().filter(|hook| self.book.get(*hook).is_none()).collect();
        for hook in strangers {
            let changes = self.queue.remove(hook);
            self.commit(changes).await;
        }
        let missing: Vec<u64> = self
            .book
            .all()
            .iter()
            .map(|hook| hook.id)
            .filter(|id| self.queue.account(*id).is_none())
            .collect();
        for hook in missing {
            let here = self.here().await;
            let changes = self.queue.add(hook, here);
            self.commit(changes).await;
        }
    }

    /// The end of the inbox at this moment.
    async fn here(&mut self) -> u64 {
        // The answer to anything shows that the inbox is open, and its last arrival known.
        let _ = self.place.store.scan(Filter { since_ns: Some(u64::MAX), ..Filter::default() }).await;
        *self.arrivals.borrow()
    }

    fn may(&self, hook: u64) -> bool {
        self.book.get(hook).is_some_and(|hook| self.busy.has_room(&hook.action))
    }

    /// Looks for messages that are for a hook.
    async fn look(&mut self) {
        self.arrivals.mark_unchanged();
        let hooks: Vec<Definition> = self.book.all().to_vec();
        for hook in hooks {
            while let Some(since_ns) = self.queue.wants_from(hook.id) {
                let filter = Filter {
                    from: hook.matching.from,
                    unread: false,
                    since_ns: Some(since_ns),
                    kind: hook.matching.kind.clone(),
                    text: hook.matching.text.clone(),
                };
                let Some(scan) = self.place.store.scan(filter).await else { return };
                if scan.until_ns == since_ns {
                    break;
                }
                let found = scan.entries.into_iter().map(|entry| (entry.arrived_ns, entry.id)).collect();
                let changes = self.queue.found(hook.id, found, scan.until_ns, now());
                self.commit(changes).await;
                if !scan.more {
                    break;
                }
            }
        }
    }

    fn begin_due(&mut self) {
        loop {
            let (book, busy) = (&self.book, &self.busy);
            let may = |hook| book.get(hook).is_some_and(|hook| busy.has_room(&hook.action));
            let Some((key, job)) = self.queue.take_due(now(), may) else { return };
            let Some(hook) = self.book.get(key.0).cloned() else { continue };
            *self.busy.of(&hook.action) += 1;
            let place = Arc::clone(&self.place);
            let tried = Try { key, action: hook.action.clone(), message: job.message.clone() };
            let running = self.running.spawn(async move { place.hand_over(&hook, key, &job.message).await });
            self.tries.insert(running.id(), tried);
        }
    }

    async fn ended(&mut self, id: tokio::task::Id, ending: Ending) {
        let Some(Try { key, action, message }) = self.tries.remove(&id) else { return };
        let busy = self.busy.of(&action);
        *busy = busy.saturating_sub(1);
        match &ending {
            Ending::Failed(reason) => {
                tracing::warn!(hook = key.0, message, reason, "a hook failed; it is tried again");
            }
            Ending::Held(pause, reason) => {
                tracing::debug!(hook = key.0, message, reason, ?pause, "a hook is held back");
            }
            Ending::Skipped(reason) => {
                tracing::warn!(hook = key.0, message, reason, "a hook is not run for a message");
            }
            Ending::Done | Ending::Gone => {}
        }
        // A program that took a message has read it.
        if ending == Ending::Done && matches!(action, Action::Exec { .. }) {
            self.place.store.mailbox(MailboxRequest::Mark { ids: vec![message], read: true }).await;
        }
        let changes = self.queue.ended(key, ending, now());
        self.commit(changes).await;
    }

    /// Writes down what changed. What cannot be written is done all the same; after a kill it is done again.
    async fn commit(&mut self, changes: Changes) {
        if changes == Changes::default() {
            return;
        }
        let (home, table) = (self.place.home.clone(), self.table.take());
        let all = self.queue.everything();
        let written = tokio::task::spawn_blocking(move || match table {
            Some(table) => table.commit(&changes).map(|()| table),
            None => {
                let (table, _) = Table::open(&home.join("hooks.redb"))?;
                table.rewrite(&all).map(|()| Arc::new(table))
            }
        });
        match written.await.map_err(io::Error::other).flatten() {
            Ok(table) => self.table = Some(table),
            Err(error) => tracing::error!(%error, "cannot write down what waits for hooks"),
        }
    }

    async fn answer(&mut self, request: Request, answer: oneshot::Sender<Result<Reply, Failure>>) {
        let answered = match request {
            Request::Add { action, matching, secret } => {
                let created_at = datetime::rfc3339(SystemTime::now());
                match self.book.draft(action, matching, secret, created_at) {
                    Ok(hook) => self.add(hook).await,
                    Err(unfit) => Err(Failure::new(Code::InvalidArgument, unfit.to_string())),
                }
            }
            Request::List => {
                Ok(Reply::Hooks { hooks: self.book.all().iter().map(|hook| self.shown(hook)).collect() })
            }
            Request::Remove { id } => self.remove(id).await,
            Request::Test { id } => match self.book.get(id).cloned() {
                Some(_) if self.tests.len() >= AT_ONCE => {
                    Err(Failure::new(Code::Busy, "other tests are running; try again when they are over"))
                }
                Some(hook) => {
                    // It may take long; the others go on.
                    let place = Arc::clone(&self.place);
                    self.tests.spawn(async move { drop(answer.send(Ok(place.test(&hook).await))) });
                    return;
                }
                None => Err(no_such(id)),
            },
        };
        // Whoever asked may have gone meanwhile.
        let _ = answer.send(answered);
    }

    async fn add(&mut self, hook: Definition) -> Result<Reply, Failure> {
        let failed =
            |error: io::Error| Failure::new(Code::Internal, format!("the hook cannot be kept: {error}"));
        let here = self.here().await;
        let changes = self.queue.add(hook.id, here);
        self.commit(changes).await;
        let id = hook.id;
        if let Err(error) = self.book.add(hook) {
            let changes = self.queue.remove(id);
            self.commit(changes).await;
            return Err(failed(error));
        }
        self.book.get(id).map(|hook| Reply::Hook(Box::new(self.shown(hook)))).ok_or_else(|| no_such(id))
    }

    async fn remove(&mut self, id: u64) -> Result<Reply, Failure> {
        let failed =
            |error: io::Error| Failure::new(Code::Internal, format!("the hook cannot be removed: {error}"));
        let shown = self.book.get(id).map(|hook| self.shown(hook)).ok_or_else(|| no_such(id))?;
        self.book.remove(id).map_err(failed)?;
        let changes = self.queue.remove(id);
        self.commit(changes).await;
        Ok(Reply::Hook(Box::new(shown)))
    }

    fn shown(&self, hook: &Definition) -> Hook {
        let account = self.queue.account(hook.id).cloned().unwrap_or_default();
        Hook {
            id: hook.id,
            action: hook.action.clone(),
            matching: hook.matching.clone(),
            created_at: hook.created_at.clone(),
            done: account.done,
            skipped: account.skipped,
            pending: self.queue.pending(hook.id) as u64,
            failed: account.failed,
            last_error: account.last_error,
            last_skip: account.last_skip,
            held: account.held,
        }
    }
}

fn no_such(id: u64) -> Failure {
    Failure::new(Code::NotFound, format!("there is no hook {id}")).with_hint("see `pilotctl hook list`")
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

impl Place {
    /// One try with a message of the inbox.
    async fn hand_over(&self, hook: &Definition, key: Key, id: &str) -> Ending {
        let read = MailboxRequest::Read { id: Some(id.to_owned()), peek: true };
        let (path, message) = match self.store.mailbox(read).await {
            MailboxReply::Message { path, message, .. } => (path, message),
            MailboxReply::Failed { code, .. } if code == "not_found" => return Ending::Gone,
            other @ (MailboxReply::Messages { .. }
            | MailboxReply::TimedOut
            | MailboxReply::Marked { .. }
            | MailboxReply::Cleared { .. }
            | MailboxReply::Failed { .. }) => {
                return Ending::Failed(format!("the message cannot be read: {other:?}"));
            }
        };
        let message = match message {
            Some(message) => *message,
            None => match read_long(&path).await {
                Ok(message) => message,
                Err(error) => return Ending::Failed(format!("the message cannot be read: {error}")),
            },
        };
        // What a program does is an automatic answer; each run of it is one, whatever comes of it.
        if matches!(hook.action, Action::Exec { .. })
            && let Err(forbidden) = self.policy.may_answer(message.from.node, hops(&message))
        {
            return match forbidden.retry_after() {
                Some(pause) => Ending::Held(pause, forbidden.to_string()),
                None => Ending::Skipped(forbidden.to_string()),
            };
        }
        let event_id = format!("{}-{}", key.0, key.1);
        let event = "message.received".to_owned();
        let ran =
            self.act(hook, Arrival { event_id, event, id: id.to_owned(), path: Some(path), message }).await;
        tracing::info!(hook = hook.id, message = id, outcome = ran.outcome, output = ?ran.output, "hook");
        if ran.ok { Ending::Done } else { Ending::Failed(ran.outcome) }
    }

    /// One try with a message that is made up.
    async fn test(&self, hook: &Definition) -> Reply {
        let begun = Instant::now();
        let mut message = StoredMessage {
            bytes: 0,
            data: None,
            data_b64: None,
            data_encoding: None,
            from: Addr::backbone((self.own)()),
            from_hostname: None,
            from_key: None,
            message_id: "hook-test".parse::<MessageId>().ok(),
            received_at: datetime::rfc3339(SystemTime::now()),
            reply_to: None,
            pilot: None,
            provenance: None,
            kind: "TEXT".to_owned(),
        };
        message.set_body(b"a test of this hook", false);
        let event_id = format!("{}-test-{}", hook.id, unix_ns(SystemTime::now()));
        let event = "hook.test".to_owned();
        let Ran { ok, outcome, output } = self
            .act(hook, Arrival { event_id, event, id: "hook-test".to_owned(), path: None, message })
            .await;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Reply::Tested { ok, outcome, output, took_ms }
    }

    async fn act(&self, hook: &Definition, arrival: Arrival) -> Ran {
        match &hook.action {
            Action::Exec { command, timeout_ms } => {
                let limit = timeout_ms.map_or(EXEC_LIMIT, Duration::from_millis).min(EXEC_LIMIT_MAX);
                let environment = environment(&arrival, self);
                let program = Program { command, environment, directory: &self.home, limit };
                match serde_json::to_vec(&arrival) {
                    Ok(document) => exec::run(program, document).await,
                    Err(error) => failed(error),
                }
            }
            Action::Post { url, .. } => {
                // Where a file lies here is nobody's business elsewhere.
                let arrival = Arrival { path: None, ..arrival };
                match (Target::parse(url), serde_json::to_vec(&arrival)) {
                    (Ok(target), Ok(body)) => {
                        post(&target, &body, hook.secret.as_deref(), &arrival, &self.tls).await
                    }
                    (Err(error), _) => failed(error),
                    (_, Err(error)) => failed(error),
                }
            }
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Ran {
    Ran { ok: false, outcome: error.to_string(), output: String::new() }
}

async fn post(target: &Target, body: &[u8], secret: Option<&str>, arrival: &Arrival, tls: &Tls) -> Ran {
    let headers =
        [("X-Pilot-Event", arrival.event.as_str()), ("X-Pilot-Event-Id", arrival.event_id.as_str())];
    let request = webhook::request(target, body, secret, &headers);
    match tokio::time::timeout(POST_LIMIT, webhook::post(target, &request, tls)).await {
        Ok(Ok(status)) => {
            let hint = if (300..400).contains(&status) { " (redirects are not followed)" } else { "" };
            Ran {
                ok: (200..300).contains(&status),
                outcome: format!("HTTP status {status}{hint}"),
                output: String::new(),
            }
        }
        Ok(Err(error)) => failed(error),
        Err(_) => failed(format!("no answer within {} s", POST_LIMIT.as_secs())),
    }
}

/// A message that does not fit into a reply of the store, without its body if it is too long for a document.
async fn read_long(path: &str) -> io::Result<StoredMessage> {
    let path = path.to_owned();
    let read = move || {
        let mut message: StoredMessage = serde_json::from_slice(&std::fs::read(&path)?)?;
        if std::fs::metadata(&path)?.len() > DOCUMENT_MAX {
            (message.data, message.data_b64) = (None, None);
        }
        Ok(message)
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

/// How many automatic answers in a row led to a message.
fn hops(message: &StoredMessage) -> u8 {
    message.pilot.as_ref().map_or(0, |pilot| pilot.hops)
}

/// What a program finds in its environment. Nothing a peer can choose freely is in it but a hostname and an id, whose
/// letters are restricted.
fn environment(arrival: &Arrival, place: &Place) -> Vec<(&'static str, String)> {
    let message = &arrival.message;
    let mut environment = vec![
        ("PILOT_EVENT", arrival.event.clone()),
        ("PILOT_EVENT_ID", arrival.event_id.clone()),
        ("PILOT_INBOX_ID", arrival.id.clone()),
        ("PILOT_FROM", message.from.to_string()),
        ("PILOT_FROM_HOSTNAME", message.from_hostname.as_deref().map(hostname).unwrap_or_default()),
        ("PILOT_TYPE", message.kind.clone()),
        // What `pilotctl` sends inside is one automatic answer further.
        ("PILOT_HOPS", hops(message).to_string()),
        ("PILOT_MESSAGE_ID", message.message_id.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("PILOT_REPLY_TO", message.reply_to.as_ref().map(ToString::to_string).unwrap_or_default()),
    ];
    // So that `pilotctl` inside speaks to this daemon.
    environment.push(("PILOT_SOCKET", place.socket.to_string_lossy().into_owned()));
    environment.push(("PILOT_HOME", place.home.to_string_lossy().into_owned()));
    environment
}

fn hostname(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')).collect()
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(json: &[u8]) {
    use super::fuzzing::reads_back;

    reads_back::<queue::Job>(json);
    reads_back::<queue::Account>(json);
    book::fuzz(json);
}
