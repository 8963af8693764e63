//! Messages kept for peers that are away, and by peers while this node is.
//!
//! Three nodes take part. The *owner* names nodes that keep its messages and tells its trusted peers which they are. A
//! *sender* that cannot reach the owner seals the message to the owner's identity key and leaves it with one of them. The
//! *mailbox* keeps what it cannot read, for owners that its own owner has allowed, and brings it when they are there;
//! what it has brought it forgets. The owner checks the seal and treats what is in it as if the sender had brought it.
//!
//! - [`book`]: who keeps messages for whom; [`shelf`]: what is kept here; [`letter`]: what is sealed;
//! - [`rounds`] and [`postman`]: whom something is owed to, and bringing it;
//! - [`incoming`]: what peers say; [`leaving`]: leaving messages with mailboxes of others.

mod book;
mod incoming;
mod leaving;
pub(super) mod letter;
mod postman;
mod rounds;
mod shelf;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use pilot_client::Client;
use pilot_wire::dataexchange::{Control, Receipt};
use pilot_wire::ipc::{Code, Failure};
use pilot_wire::mailboxes::{
    BYTES_PER_OWNER, Kept, MESSAGES_PER_OWNER, Mine, Named, OfPeer, Reply, Request, State,
};
use pilot_wire::{Addr, NodeId};
use tokio::sync::Notify;
use tokio::time::timeout;

use self::book::{Book, BookError};
use self::rounds::Rounds;
use self::shelf::{Allowance, Shelf};
use self::way::{Lost, Said, Way};
use super::policy::Policy;
use crate::datetime;
use crate::handle::Handle;

pub(super) use self::incoming::Opened;
pub(super) use self::leaving::NotLeft;

/// Peers in one answer to a program: more would not fit into a frame of the local socket.
const SHOWN_MAX: usize = 500;

/// How long an application waits for the trusted peers to be told.
const ANNOUNCING: Duration = Duration::from_secs(2);

/// The service; cheap to clone.
#[derive(Clone)]
pub(super) struct Mailboxes(Result<Arc<Inner>, Arc<str>>);

/// None: this node neither keeps messages nor has others keep them.
impl Default for Mailboxes {
    fn default() -> Self {
        Self::off("this daemon runs without data exchange")
    }
}

struct Inner {
    client: Client,
    handle: Handle,
    policy: Policy,
    book: Mutex<Book>,
    shelf: Mutex<Shelf>,
    rounds: Mutex<Rounds>,
    standing: Mutex<Standing>,
    /// Wakes the postman.
    news: Notify,
    /// Rung when a visit has ended.
    visited: Notify,
}

/// What is known for as long as the daemon runs.
#[derive(Debug, Default)]
struct Standing {
    /// What mailboxes of this node said when they were last asked.
    agreed: BTreeMap<NodeId, Result<(), String>>,
    /// Mailboxes to be asked, and so told that this node is there.
    to_ask: BTreeSet<NodeId>,
    /// Receipts for peers that left messages, until they have them. When the daemon ends they are lost: their message
    /// comes again then, and is known by its id.
    receipts: BTreeMap<NodeId, Vec<Receipt>>,
    /// Peers that a mailbox will tell about the mailboxes of this node.
    told_by_letter: BTreeSet<NodeId>,
}

/// Peers that receipts wait for.
const RECEIPT_PEERS_MAX: usize = 1024;

/// Receipts that wait for one peer. Those beyond are not sent; the message comes again, and with it another chance.
const RECEIPTS_MAX: usize = 4096;

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked with it has left a consistent value: changes are made in one step.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mailboxes {
    /// Reads what is on disk; without that there are none. [`Mailboxes::run`] brings what is owed to others.
    pub(super) fn open_or_off(home: &Path, client: &Client, handle: &Handle, policy: &Policy) -> Self {
        let opened = Book::open(home).and_then(|book| Ok((book, Shelf::open(home, SystemTime::now())?)));
        let (book, shelf) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(%error, "the files of the mailboxes cannot be read: there are none until they can");
                return Self::off(&format!("the files of the mailboxes cannot be read: {error}"));
            }
        };
        Self(Ok(Arc::new(Inner {
            client: client.clone(),
            handle: handle.clone(),
            policy: policy.clone(),
            book: Mutex::new(book),
            shelf: Mutex::new(shelf),
            rounds: Mutex::default(),
            standing: Mutex::default(),
            news: Notify::new(),
            visited: Notify::new(),
        })))
    }

    /// None, for this reason.
    fn off(why: &str) -> Self {
        Self(Err(why.into()))
    }

    /// The postman; it ends with the daemon.
    pub(super) async fn run(self) {
        if let Ok(inner) = self.0 {
            postman::run(inner).await;
        }
    }

    /// Answers an application.
    pub(super) async fn call(&self, request: Request) -> Result<Reply, Failure> {
        let inner = self.0.as_ref().map_err(|why| Failure::new(Code::Unsupported, &**why))?;
        match request {
            Request::Show => {}
            Request::Use { node } => inner.begin_use(node).await?,
            Request::Stop { node } => {
                inner.book(move |book| book.remove_mine(node)).await?.map_err(book_failure)?;
                locked(&inner.standing).agreed.remove(&node);
                inner.announce().await?;
            }
            Request::Allow { node, max_bytes, max_messages } => {
                if node == inner.handle.node() {
                    return Err(Failure::new(
                        Code::InvalidArgument,
                        "a node keeps its own messages in its inbox",
                    ));
                }
                let allow = move |book: &mut Book| book.allow(node, max_bytes, max_messages);
                inner.book(allow).await?.map_err(book_failure)?;
            }
            Request::Deny { node, discard } => {
                inner.book(move |book| book.deny(node)).await?.map_err(book_failure)?;
                if discard {
                    inner.shelf(move |shelf| shelf.discard(node)).await?;
                }
            }
        }
        inner.state().await.map(|state| Reply::State(Box::new(state)))
    }
}

impl Inner {
    /// Does something with the book on a thread that may wait for the disk.
    async fn book<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Book) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let inner = Arc::clone(self);
        on_disk(move || work(&mut locked(&inner.book))).await
    }

    /// Does something with the shelf on a thread that may wait for the disk.
    async fn shelf<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Shelf) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let inner = Arc::clone(self);
        on_disk(move || work(&mut locked(&inner.shelf))).await
    }

    fn owe(&self, node: NodeId) {
        locked(&self.rounds).owe(node, Instant::now());
        self.news.notify_one();
    }

    fn heard_of(&self, node: NodeId) {
        locked(&self.rounds).heard_of(node, Instant::now());
        self.news.notify_one();
    }

    fn is_trusted(&self, node: NodeId) -> bool {
        self.handle.trusted().borrow().contains(&node)
    }

    /// Tells all trusted peers that do not know who keeps messages for this node. Those that are there know when this
    /// returns; the others will hear it when they are.
    async fn announce(self: &Arc<Self>) -> Result<(), Failure> {
        let trusted = self.handle.trusted().borrow().clone();
        let behind = self
            .book(move |book| trusted.into_iter().filter(|&peer| book.is_behind(peer)).collect::<Vec<_>>())
            .await?;
        locked(&self.standing).told_by_letter.clear();
        for &peer in &behind {
            self.owe(peer);
        }
        let told = async {
            loop {
                let visited = self.visited.notified();
                tokio::pin!(visited);
                // From now on no end of a visit is missed.
                visited.as_mut().enable();
                if !behind.iter().any(|&peer| locked(&self.rounds).is_tried(peer)) {
                    return;
                }
                visited.await;
            }
        };
        // It goes on without anybody waiting for it.
        let _ = timeout(ANNOUNCING, told).await;
        Ok(())
    }

    /// A node becomes a mailbox of this one if it agrees now.
    async fn begin_use(self: &Arc<Self>, node: NodeId) -> Result<(), Failure> {
        if node == self.handle.node() {
            return Err(Failure::new(Code::InvalidArgument, "a node cannot be its own mailbox"));
        }
        let name = self.name_of(node).await;
        let shown = name.hostname.clone().unwrap_or_else(|| name.address.to_string());
        let own = Addr::backbone(self.handle.node());
        let mut way = Way::open(&self.client, node).await.map_err(|lost| {
            let hint = format!("it must be there to be asked; see why it is not: pilotctl why {shown}");
            Failure::new(Code::Unreachable, format!("{shown} cannot be asked: {lost}")).with_hint(hint)
        })?;
        let said = way.say(&Control::Keeps, &Bytes::new()).await;
        match said {
            Ok(Said::Yes) => {}
            Ok(Said::No(reason) | Said::NotWanted(reason)) => {
                let hint = format!("its owner allows it there with: pilotctl mailbox allow {own}");
                return Err(Failure::new(
                    Code::PermissionDenied,
                    format!("{shown} does not agree: {reason}"),
                )
                .with_hint(hint));
            }
            Ok(Said::What) => {
                return Err(Failure::new(
                    Code::Unsupported,
                    format!("{shown} runs a release that keeps no messages for others"),
                ));
            }
            Err(lost @ (Lost::Unreachable(_) | Lost::Ended(_) | Lost::Silent)) => {
                return Err(Failure::new(Code::Unreachable, format!("{shown} has not answered: {lost}")));
            }
        }
        self.book(move |book| book.add_mine(node)).await?.map_err(book_failure)?;
        locked(&self.standing).agreed.insert(node, Ok(()));
        self.announce().await
    }

    async fn name_of(&self, node: NodeId) -> Named {
        let hostname = self.handle.describe(node).await.hostname;
        Named { node, address: Addr::backbone(node), hostname }
    }

    async fn state(self: &Arc<Self>) -> Result<State, Failure> {
        let trusted = self.handle.trusted().borrow().clone();
        let (mine, told, mut owners, allowances, known) = self
            .book(move |book| {
                let told = match book.mine() {
                    [] => 0,
                    _ => trusted.iter().filter(|&&peer| !book.is_behind(peer)).count() as u64,
                };
                let owners: BTreeSet<NodeId> = book.allowed().collect();
                let allowances: BTreeMap<NodeId, Allowance> =
                    owners.iter().filter_map(|&owner| Some((owner, book.allowance(owner)?))).collect();
                let known: Vec<(NodeId, Vec<NodeId>)> =
                    book.all_known().take(SHOWN_MAX).map(|(peer, nodes)| (peer, nodes.to_vec())).collect();
                (book.mine().to_vec(), told, owners, allowances, known)
            })
            .await?;
        let loads = self
            .shelf(|shelf| {
                shelf.expire(SystemTime::now());
                let owners: Vec<NodeId> = shelf.owners().collect();
                owners.into_iter().map(|owner| (owner, shelf.load(owner))).collect::<BTreeMap<_, _>>()
            })
            .await?;
        owners.extend(loads.keys());
        let mut state = State { told, ..State::default() };
        for node in mine {
            let agreed = locked(&self.standing).agreed.get(&node).cloned();
            let reason = agreed.clone().and_then(Result::err);
            let agrees = agreed.map(|agreed| agreed.is_ok());
            state.mine.push(Mine { node: self.name_of(node).await, agrees, reason });
        }
        for owner in owners {
            let load = loads.get(&owner);
            let allowance = allowances.get(&owner);
            state.kept.push(Kept {
                owner: self.name_of(owner).await,
                allowed: allowance.is_some(),
                messages: load.map_or(0, |load| load.messages),
                bytes: load.map_or(0, |load| load.bytes),
                max_messages: allowance.map_or(MESSAGES_PER_OWNER, |allowance| allowance.messages),
                max_bytes: allowance.map_or(BYTES_PER_OWNER, |allowance| allowance.bytes),
                oldest: load.and_then(|load| load.oldest).map(datetime::rfc3339),
            });
        }
        for (peer, nodes) in known {
            let mut mailboxes = Vec::new();
            // What this node keeps itself stands above.
            for node in nodes.into_iter().filter(|&node| node != self.handle.node()) {
                mailboxes.push(self.name_of(node).await);
            }
            if mailboxes.is_empty() {
                continue;
            }
            state.peers.push(OfPeer { peer: self.name_of(peer).await, mailboxes });
        }
        Ok(state)
    }
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

fn book_failure(error: BookError) -> Failure {
    let message = error.to_string();
    match error {
        BookError::TooManyMine => Failure::new(Code::Busy, message)
            .with_hint("give one up first: pilotctl mailbox stop NODE; see them: pilotctl mailbox"),
        BookError::TooManyAllowed => Failure::new(Code::Busy, message).with_hint(
            "take an allowance back first: pilotctl mailbox deny NODE; see them: pilotctl mailbox",
        ),
        BookError::Allowance { .. } => Failure::new(Code::InvalidArgument, message),
        BookError::Unknown => {
            Failure::new(Code::NotFound, message).with_hint("see what there is: pilotctl mailbox")
        }
        BookError::Disk(_) => Failure::new(Code::Internal, message),
    }
}

#[cfg(feature = "fuzzing")]
pub(in crate::service) mod fuzzing {
    use std::time::{Duration, UNIX_EPOCH};

    use pilot_crypto::{Identity, seal};
    use pilot_wire::NodeId;

    use super::letter::{Party, fuzz_head, read};

    /// The inside of a letter that its sender made as he liked, and sealed as it must be.
    pub fn letter_inside(body: &[u8]) {
        let [sender, receiver] = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]));
        let from = Party { node: NodeId(1), key: sender.public() };
        let to = Party { node: NodeId(2), key: receiver.public() };
        let Ok(id) = "0123456789abcdef".parse() else { return };
        let Ok(sealed) = seal(&sender, &fuzz_head(from, to, &id), body) else { return };
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let _ = read(&receiver, NodeId(2), from, &id, sealed, now);
    }

    pub(in crate::service) fn shelf(content: &[u8]) {
        super::shelf::fuzz(content);
    }
}
