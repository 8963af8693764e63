//! The built-in services: handshake (444), data exchange (1001), event stream (1002), tasks (1003).
//!
//! They are applications of this daemon like any other: they listen and dial through a
//! [`Client`](pilot_client::Client) of the same process. Each service proper works on any
//! byte stream and is told who is at its other end; what is here accepts the streams, knows the peers, and keeps
//! each of them within bounds.

mod control;
mod disk;
mod events;
mod exchange;
pub(crate) mod handshake;
mod hooks;
mod inbox;
mod mailboxes;
mod outbox;
pub(crate) mod policy;
mod received;
mod serving;
mod store;
mod tasks;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pilot_client::{Client, Stream};
use pilot_wire::dataexchange::{ContentHash, Control, MessageId, Receipt, ReceiptState};
use pilot_wire::events::{Event, NOTHING};
use pilot_wire::ipc::{Call, Code, EventsStatus, Failure};
use pilot_wire::tasks::{A2aState, Category, State, TaskId};
use pilot_wire::{Addr, Endpoint, NodeId, Port, PublicKey, mailbox};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::control::Controls;
use self::events::{Broker, DialBroker, Side};
use self::exchange::Exchange;
use self::hooks::Hooks;
use self::inbox::ReadNotice;
use self::mailboxes::Mailboxes;
use self::outbox::Outbox;
use self::policy::Policy;
use self::received::Files;
use self::serving::Serving;
use self::store::Store;
use self::tasks::Tasks;
use crate::config::ReceivedLimits;
use crate::driver::ClientId;
use crate::handle::Handle;

/// Connections of one peer to one service. An agent needs one; a few more let it send while a file is under way.
const CONNECTIONS_PER_PEER: usize = 16;

/// Connections to one service in all, those of this node's own applications included.
const CONNECTIONS: usize = 512;

/// Notices on their way to log and webhook. Beyond, they are dropped: they must not slow a service down.
const NOTICES: usize = 256;

/// Senders that wait to be told that their messages were read. Beyond, they are not told.
const READINGS: usize = 4096;

/// Of these, in one word to one sender.
const READINGS_AT_ONCE: usize = 256;

/// Pause before listening again when the daemon's own socket refused.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Trusted nodes greeted at start. More would make a start expensive; the others notice by keepalive.
const GREETED_MAX: usize = 256;

/// Of these, at the same time.
const GREETED_AT_ONCE: usize = 8;

/// How often a node is greeted that does not answer: the registry may take a moment to be reached.
const GREETING_TRIES: u32 = 3;

/// How long an answer is awaited.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// Pause before the next try.
const GREETING_PAUSE: Duration = Duration::from_secs(2);

/// What is to run, and where.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// `~/.pilot`: the inbox and the received files lie in it.
    pub(crate) home: PathBuf,
    /// Where local programs reach the daemon.
    pub(crate) socket: PathBuf,
    /// Whether messages and files are accepted.
    pub(crate) data_exchange: bool,
    /// Whether there is an event broker.
    pub(crate) event_stream: bool,
    /// Whether there are tasks.
    pub(crate) tasks: bool,
    /// Longest data-exchange payload accepted, in bytes.
    pub(crate) max_frame: usize,
    /// How much peers may put here as files.
    pub(crate) received: ReceivedLimits,
}

/// The running services; they end when the last of these is dropped.
#[derive(Clone)]
pub(crate) struct Services {
    store: Store,
    files: Files,
    outbox: Outbox,
    serving: Serving,
    tasks: Option<Tasks>,
    hooks: Hooks,
    policy: Policy,
    mailboxes: Mailboxes,
    broker: Option<Broker>,
    _running: Arc<JoinSet<()>>,
}

/// What waits in the services' queues.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// Messages that are to be delivered.
    pub(crate) outbox_messages: u64,
    /// Their bytes.
    pub(crate) outbox_bytes: u64,
    /// Messages in the inbox, and how many of them no program has taken; `None` if it cannot be read.
    pub(crate) inbox: Option<(u64, u64)>,
    /// `None` without a broker.
    pub(crate) events: Option<EventsStatus>,
}

impl Services {
    /// What waits in queues.
    pub(crate) async fn backlog(&self) -> Backlog {
        let (outbox_messages, outbox_bytes) = self.outbox.pending();
        let counted = mailbox::Request::List(mailbox::List { limit: Some(0), ..mailbox::List::default() });
        let inbox = match self.store.mailbox(counted).await {
            mailbox::Reply::Messages { total, unread, .. } => Some((total, unread)),
            mailbox::Reply::Message { .. }
            | mailbox::Reply::TimedOut
            | mailbox::Reply::Marked { .. }
            | mailbox::Reply::Cleared { .. }
            | mailbox::Reply::Failed { .. } => None,
        };
        let events = match &self.broker {
            Some(broker) => Some(broker.status().await),
            None => None,
        };
        Backlog { outbox_messages, outbox_bytes, inbox, events }
    }

    /// Answers an application; a wait takes as long as the call says.
    pub(crate) async fn call(&self, caller: &Caller, call: Call) -> Result<serde_json::Value, Failure> {
        match call {
            Call::Mailbox(request) => json(&self.store.mailbox(request).await),
            Call::Received(request) => json(&self.files.call(request).await?),
            Call::Outbox(request) => json(&self.outbox.call(request).await?),
            Call::Serving(request) => json(&self.serving.call(caller, request).await?),
            Call::Tasks(request) => match &self.tasks {
                Some(tasks) => json(&tasks.call(request).await?),
                None => Err(Failure::new(Code::Unsupported, "this daemon has no tasks (`--no-tasks`)")),
            },
            Call::Hooks(request) => json(&self.hooks.call(request).await?),
            Call::Policy(request) => json(&self.policy.call(request).await?),
            Call::Mailboxes(request) => json(&self.mailboxes.call(request).await?),
            Call::Events => match &self.broker {
                Some(broker) => json(&broker.status().await),
                None => Err(Failure::new(Code::Unsupported, "this daemon has no event broker")),
            },
            Call::Status
            | Call::Shutdown
            | Call::Ping { .. }
            | Call::Why { .. }
            | Call::Netcheck { .. }
            | Call::Resolve { .. }
            | Call::Lookup { .. }
            | Call::Connections
            | Call::Disconnect { .. }
            | Call::Peers
            | Call::TrustList
            | Call::WaitTrust { .. }
            | Call::AutoApprove { .. }
            | Call::Networks(_)
            | Call::ClearAlarms { .. }
            | Call::Recovery { .. }
            | Call::Config
            | Call::Capture(_) => {
                Err(Failure::new(Code::Internal, "this is not a question for the services"))
            }
        }
    }
}

/// The program that asks something.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Its connection.
    pub(crate) id: ClientId,
    alive: watch::Receiver<()>,
}

impl Caller {
    /// The other half of `alive` is dropped when the connection ends.
    pub(crate) const fn new(id: ClientId, alive: watch::Receiver<()>) -> Self {
        Self { id, alive }
    }

    /// Whether the connection has ended.
    fn is_gone(&self) -> bool {
        self.alive.has_changed().is_err()
    }

    /// Waits until the connection has ended.
    async fn gone(&self) {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
    }
}

fn json<T: Serialize>(value: &T) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(value).map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

/// Starts the services. `deliveries` are the node's own handshake messages to be carried out.
///
/// # Errors
/// When the thread of the inbox, of the received files or of the outbox cannot be started.
pub(crate) fn spawn(
    config: Config,
    client: Client,
    handle: Handle,
    policy: Policy,
    deliveries: mpsc::Receiver<handshake::Delivery>,
) -> io::Result<Services> {
    let (readings, readings_out) = mpsc::channel(READINGS);
    let store = Store::start_telling(&config.home, Some(readings))?;
    let files = Files::start(&config.home, config.received.clone())?;
    let (hooks, hooking) = Hooks::start(&config.home, &config.socket, store.clone(), policy.clone(), &handle);
    let mailboxes = match config.data_exchange {
        true => Mailboxes::open_or_off(&config.home, &client, &handle, &policy),
        false => Mailboxes::default(),
    };
    let outbox = Outbox::start(&config.home, client.clone(), &handle, mailboxes.clone())?;
    let (serving, answered) = Serving::start(&config.home, store.clone(), outbox.clone(), policy.clone())?;
    let mut broker_way = None;
    let mut tasks = JoinSet::new();
    let (notices, notices_out) = Notices::new();
    policy.connect(notices.clone(), handle.clone());
    tasks.spawn(forward_notices(notices_out, handle.clone()));
    tasks.spawn(hooking);
    tasks.spawn(tell_readings(readings_out, outbox.clone()));
    tasks.spawn(serving.clone().run(answered));
    tasks.spawn(handshake::deliver_all(client.clone(), deliveries));
    tasks.spawn(mailboxes.clone().run());
    tasks.spawn(greet(client.clone(), handle.trusted().borrow().clone()));

    let receiving = handle.clone();
    tasks.spawn(accept(client.clone(), Port::HANDSHAKE, handle.clone(), move |stream, guest: Guest| {
        let handle = receiving.clone();
        async move {
            match handshake::receive(stream, &guest.remote).await {
                Ok(message) => handle.handshake_received(guest.remote.endpoint.addr.node, message).await,
                Err(error) => tracing::info!(from = %guest.remote.endpoint, %error, "no handshake message"),
            }
        }
    }));
    if config.data_exchange {
        let large_frames = Arc::new(Semaphore::new(exchange::LARGE_FRAMES));
        let exchange = Exchange {
            store: store.clone(),
            files: files.clone(),
            handle: Some(handle.clone()),
            notices: notices.clone(),
            controls: Controls {
                outbox: outbox.clone(),
                serving: serving.clone(),
                mailboxes: mailboxes.clone(),
            },
            policy: policy.clone(),
            max_frame: config.max_frame,
            large_frames,
        };
        tasks.spawn(accept(
            client.clone(),
            Port::DATA_EXCHANGE,
            handle.clone(),
            move |stream, guest: Guest| {
                let exchange = exchange.clone();
                async move {
                    if let Err(error) = exchange.serve(stream, &guest.remote, &guest.share.large).await {
                        tracing::info!(from = %guest.remote.endpoint, %error, "data exchange ended");
                    }
                }
            },
        ));
    }
    let mut tasks_way = None;
    if config.tasks {
        let service =
            Tasks::start(&config.home, client.clone(), &handle, policy.clone(), notices.clone(), &mut tasks)?;
        tasks_way = Some(service.clone());
        tasks.spawn(accept(client.clone(), Port::TASKS, handle.clone(), move |stream, guest: Guest| {
            let service = service.clone();
            async move {
                if let Err(error) = service.serve(stream, &guest.remote, &guest.share.large).await {
                    tracing::info!(from = %guest.remote.endpoint, %error, "a connection about tasks ended");
                }
            }
        }));
    }
    if config.event_stream {
        let (broker, task) = Broker::new(
            Overlay(client.clone(), handle.clone()),
            handle.trusted(),
            handle.signs(),
            policy.clone(),
            notices,
        );
        broker_way = Some(broker.clone());
        tasks.spawn(task);
        tasks.spawn(accept(client, Port::EVENT_STREAM, handle, move |stream, guest: Guest| {
            let broker = broker.clone();
            async move {
                if let Err(error) = broker.serve(stream, &guest.remote, guest.side, &guest.share.large).await
                {
                    tracing::info!(from = %guest.remote.endpoint, %error, "event connection ended");
                }
            }
        }));
    }
    Ok(Services {
        store,
        files,
        outbox,
        serving,
        tasks: tasks_way,
        hooks,
        policy,
        mailboxes,
        broker: broker_way,
        _running: Arc::new(tasks),
    })
}

/// Knocks once at the nodes that were trusted when the daemon started. Those who still hold streams of its earlier
/// life learn that it is over, and those who gave up on its broker that it is back: subscriptions are renewed now
/// instead of after a keepalive or a pause.
async fn greet(client: Client, trusted: Vec<NodeId>) {
    let mut knocking = JoinSet::new();
    for node in trusted.into_iter().take(GREETED_MAX) {
        while knocking.len() >= GREETED_AT_ONCE {
            knocking.join_next().await;
        }
        let client = client.clone();
        knocking.spawn(async move {
            for _ in 0..GREETING_TRIES {
                match timeout(GREETING_LIMIT, knock(&client, node)).await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => tracing::debug!(%node, %error, "a trusted node does not answer yet"),
                    Err(_) => tracing::debug!(%node, "a trusted node does not answer in time"),
                }
                sleep(GREETING_PAUSE).await;
            }
        });
    }
    while knocking.join_next().await.is_some() {}
}

/// Subscribes to nothing at a node's broker.
async fn knock(client: &Client, node: NodeId) -> Result<(), pilot_client::Error> {
    let mut stream = match client.dial(Addr::backbone(node).port(Port::EVENT_STREAM)).await {
        Ok(stream) => stream,
        // It runs no broker, and has heard from us.
        Err(error) if error.code() == Code::Refused => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut subscription = Vec::new();
    Event { topic: NOTHING.to_owned(), payload: Bytes::new() }.emit(&mut subscription);
    stream.write_all(&subscription).await?;
    stream.flush().await?;
    stream.drain().await
}

/// Who is at the other end of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// The address the tunnel proved, and the port.
    pub(crate) endpoint: Endpoint,
    /// Its name, when known without asking.
    pub(crate) hostname: Option<String>,
    /// Its key, when known without asking.
    pub(crate) key: Option<PublicKey>,
    /// The mailbox that brought what it says, sealed.
    pub(crate) via: Option<Addr>,
}

/// A stream's other end, and its share of the service.
struct Guest {
    remote: Remote,
    side: Side,
    share: Arc<Share>,
}

/// What one peer may use of one service.
struct Share {
    connections: Arc<Semaphore>,
    /// One permit: frames that take much memory are read one at a time.
    large: Semaphore,
}

impl Share {
    fn new(connections: usize) -> Arc<Self> {
        Arc::new(Self { connections: Arc::new(Semaphore::new(connections)), large: Semaphore::new(1) })
    }
}

/// Listens on a port for as long as the daemon runs, and serves each stream in a task of its own. A stream over
/// the limits is closed without a word, as one is whose service crashed: only itself suffers.
async fn accept<F, Served>(client: Client, port: Port, handle: Handle, serve: F)
where
    F: Fn(Stream, Guest) -> Served,
    Served: Future<Output = ()> + Send + 'static,
{
    let all = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shares: BTreeMap<NodeId, Arc<Share>> = BTreeMap::new();
    let mut connections = JoinSet::new();
    loop {
        let mut listener = match client.listen(port).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%port, %error, "a built-in service cannot listen");
                sleep(LISTEN_AGAIN).await;
                continue;
            }
        };
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::warn!(%port, %error, "a built-in service lost its port");
                        break;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%port, %error, "a connection of a built-in service crashed");
                    }
                    continue;
                }
            };
            let endpoint = stream.peer();
            let side = if endpoint.addr.node == handle.node() { Side::Own } else { Side::Other };
            shares.retain(|_, share| Arc::strong_count(share) > 1);
            let share = shares.entry(endpoint.addr.node).or_insert_with(|| match side {
                Side::Own => Share::new(CONNECTIONS),
                Side::Other => Share::new(CONNECTIONS_PER_PEER),
            });
            let share = Arc::clone(share);
            let permits = Arc::clone(&share.connections)
                .try_acquire_owned()
                .and_then(|of_peer| Arc::clone(&all).try_acquire_owned().map(|of_all| (of_peer, of_all)));
            let Ok(permits) = permits else {
                tracing::warn!(%port, from = %endpoint, "too many connections");
                continue;
            };
            let known = handle.describe(endpoint.addr.node).await;
            let remote = Remote { endpoint, hostname: known.hostname, key: known.key, via: None };
            let served = serve(stream, Guest { remote, side, share });
            connections.spawn(async move {
                served.await;
                drop(permits);
            });
        }
    }
}

/// Other nodes' brokers, through this daemon.
#[derive(Clone)]
struct Overlay(Client, Handle);

impl DialBroker for Overlay {
    type Stream = Stream;

    async fn dial(&self, node: NodeId) -> io::Result<Stream> {
        self.0.dial(Addr::backbone(node).port(Port::EVENT_STREAM)).await.map_err(io::Error::other)
    }

    async fn drain(stream: &mut Stream) -> io::Result<()> {
        stream.drain().await.map_err(io::Error::other)
    }

    async fn hostname(&self, node: NodeId) -> Option<String> {
        self.1.describe(node).await.hostname
    }
}

/// Something that the owner may want to hear of: for the log and the webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Notice {
    /// A message is in the inbox.
    MessageReceived {
        /// Who sent it.
        from: Addr,
        /// Its sender's id.
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<MessageId>,
        /// Its length in bytes.
        size: u64,
        /// `TEXT`, `JSON` or `BINARY`.
        #[serde(rename = "type")]
        kind: String,
    },
    /// A file or folder is among the received ones.
    FileReceived {
        /// Its name there.
        filename: String,
        /// Where it is.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
        /// Who sent it.
        from: Addr,
        /// Their name, when known.
        #[serde(skip_serializing_if = "Option::is_none")]
        from_hostname: Option<String>,
        /// Its SHA-256; of a folder, that of its manifest.
        sha256: ContentHash,
        /// How many files a folder has.
        #[serde(skip_serializing_if = "Option::is_none")]
        files: Option<u64>,
    },
    /// A message was refused for want of room.
    InboxFull {
        /// Whose.
        from: Addr,
    },
    /// A file was refused for want of room.
    ReceivedFull {
        /// Whose.
        from: Addr,
    },
    /// A peer gave this node a task.
    TaskReceived {
        /// Its name.
        task_id: TaskId,
        /// Whose it is.
        from: Addr,
        /// How its description begins.
        description: String,
    },
    /// A task is in another state.
    TaskStatus {
        /// Its name.
        task_id: TaskId,
        /// Whose it is.
        category: Category,
        /// Where it is.
        status: State,
        /// The same in the words of A2A.
        a2a_state: A2aState,
        /// Why.
        justification: String,
    },
    /// Somebody subscribed at this broker.
    EventSubscribed {
        /// To what.
        topic: String,
        /// Who.
        remote: Endpoint,
    },
    /// Such a subscription ended.
    EventUnsubscribed {
        /// To what.
        topic: String,
        /// Whose.
        remote: Endpoint,
    },
    /// Messages of a peer are not answered automatically for now, or that one is not at all.
    GuardTripped {
        /// Which.
        peer: NodeId,
        /// Why.
        reason: String,
        /// When answers go on, in milliseconds; none when this message is left to people.
        #[serde(skip_serializing_if = "Option::is_none")]
        resumes_ms: Option<u64>,
    },
    /// Somebody published at this broker.
    EventPublished {
        /// About what.
        topic: String,
        /// Length of the payload in bytes.
        size: u64,
        /// Who.
        from: Endpoint,
    },
}

impl Notice {
    /// The name webhooks know it by.
    pub(crate) fn event(&self) -> &'static str {
        match self {
            Self::MessageReceived { .. } => "message.received",
            Self::FileReceived { .. } => "file.received",
            Self::InboxFull { .. } => "inbox.full",
            Self::ReceivedFull { .. } => "received.full",
            Self::TaskReceived { .. } => "task.received",
            Self::TaskStatus { .. } => "task.status",
            Self::EventSubscribed { .. } => "pubsub.subscribed",
            Self::EventUnsubscribed { .. } => "pubsub.unsubscribed",
            Self::GuardTripped { .. } => "guard.tripped",
            Self::EventPublished { .. } => "pubsub.published",
        }
    }

    fn file_received(arrived: received::Arrived) -> Self {
        Self::FileReceived {
            filename: arrived.name,
            path: arrived.path,
            size: arrived.bytes,
            from: arrived.from,
            from_hostname: arrived.from_hostname,
            sha256: arrived.sha256,
            files: arrived.files,
        }
    }
}

/// Where the services drop their notices; never blocks.
#[derive(Debug, Clone)]
struct Notices(mpsc::Sender<Notice>);

impl Notices {
    fn new() -> (Self, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(NOTICES);
        (Self(sender), receiver)
    }

    fn send(&self, notice: Notice) {
        if let Err(mpsc::error::TrySendError::Full(notice)) = self.0.try_send(notice) {
            // There may be thousands of events in a second.
            if let Notice::EventPublished { .. } = notice {
                tracing::debug!(event = notice.event(), "a notice was dropped");
            } else {
                tracing::warn!(event = notice.event(), "a notice was dropped");
            }
        }
    }
}

/// Tells senders that their messages were read, those of one sender together.
async fn tell_readings(mut readings: mpsc::Receiver<ReadNotice>, outbox: Outbox) {
    let mut batch = Vec::new();
    while readings.recv_many(&mut batch, READINGS_AT_ONCE).await > 0 {
        let mut by_sender: BTreeMap<NodeId, Vec<Receipt>> = BTreeMap::new();
        for ReadNotice { to, id } in batch.drain(..) {
            by_sender.entry(to).or_default().push(Receipt { id, state: ReceiptState::Read });
        }
        for (to, receipts) in by_sender {
            outbox.tell(to, Control::Receipts { receipts }, Bytes::new()).await;
        }
    }
}

async fn forward_notices(mut notices: mpsc::Receiver<Notice>, handle: Handle) {
    while let Some(notice) = notices.recv().await {
        handle.notice(notice).await;
    }
}

#[cfg(test)]
impl Remote {
    fn of(node: NodeId) -> Self {
        Self { endpoint: Addr::backbone(node).port(Port(49_152)), hostname: None, key: None, via: None }
    }
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use pilot_wire::mailbox::StoredMessage;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    pub use super::mailboxes::fuzzing::letter_inside;
    pub use super::received::fuzzing::file_name;

    /// What is read from disk is what will be written to it.
    pub(super) fn reads_back<T: Serialize + DeserializeOwned>(json: &[u8]) {
        if let Ok(value) = serde_json::from_slice::<T>(json) {
            let once = serde_json::to_vec(&value).expect("what was read can be written");
            let value: T = serde_json::from_slice(&once).expect("what was written can be read");
            assert_eq!(serde_json::to_vec(&value).ok(), Some(once));
        }
    }

    /// What is on disk of messages, tasks, letters, answers, hooks and rules, which partly says what peers said.
    pub fn stored(bytes: &[u8]) {
        if let Ok(message) = serde_json::from_slice::<StoredMessage>(bytes) {
            let _ = message.body();
            let again = serde_json::to_vec(&message).expect("what was read can be written");
            assert_eq!(serde_json::from_slice::<StoredMessage>(&again).ok(), Some(message));
        }
        super::tasks::fuzz(bytes);
        super::mailboxes::fuzzing::shelf(bytes);
        super::serving::fuzz(bytes);
        super::hooks::fuzz(bytes);
        super::outbox::fuzz(bytes);
        super::policy::fuzz(bytes);
    }
}
