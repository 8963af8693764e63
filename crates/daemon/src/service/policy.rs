//! What peers may do here.
//!
//! The rules stand in `policy.json` ([`file`]); what they make of a peer is worked out by the [`engine`], what the peer
//! has used up is kept by the [`meters`]. All of it answers at once, so that the driver and the services may ask from
//! anywhere. A file that cannot be used closes the node to all others until it is mended: a rule that is not understood
//! might be the one that mattered.
//!
//! Never asked are: handshakes (port 444), without which trust could be neither given nor taken back, and this node's own
//! programs.

mod bucket;
mod change;
mod engine;
mod file;
mod meters;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use pilot_wire::ipc::{Code, Failure};
use pilot_wire::policy::{
    Book, Effective, KeyPrint, Limit, Overview, Question, Reply, Request, Sourced, Target, Tested,
};
use pilot_wire::{NodeId, Port, PublicKey};
use tokio::time::{Instant, sleep};

use self::change::Changed;
use self::engine::{Engine, Peer};
use self::meters::{Answer, Meters, Rates};
use super::{Notice, Notices};
use crate::handle::Handle;
use crate::memberships::PortLimit;

/// Longest wait of a sender for its turn. Longer ones would look like a peer that hangs: it is told to come back.
const PATIENCE: Duration = Duration::from_secs(20);

/// When to come back to a node whose rules are broken: the owner has to look.
const BROKEN_RETRY: Duration = Duration::from_secs(60);

/// The rules in force; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The file; none for rules that live in memory only (tests).
    path: Option<PathBuf>,
    state: RwLock<Arc<State>>,
    nodes: RwLock<Nodes>,
    meters: Mutex<Meters>,
    /// One change at a time; held while the file is written.
    changing: tokio::sync::Mutex<()>,
    listeners: OnceLock<(Notices, Handle)>,
}

#[derive(Debug)]
enum State {
    InForce(Box<Engine>),
    /// The file cannot be used, and why.
    Broken(String),
}

impl Default for State {
    fn default() -> Self {
        Self::InForce(Box::default())
    }
}

/// What the rules have to know of nodes.
#[derive(Debug, Default)]
struct Nodes {
    own: Option<NodeId>,
    trusted: BTreeMap<NodeId, Standing>,
}

/// How a trusted node stands to this one.
#[derive(Debug, Clone, Default)]
struct Standing {
    key: Option<KeyPrint>,
    /// Where it may go, if a network is the only reason to trust it and says so.
    limit: Option<Arc<PortLimit>>,
}

/// Why the rules refuse something. Its text goes to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forbidden {
    reason: String,
    retry_after: Option<Duration>,
    from: Vec<Target>,
}

impl Forbidden {
    fn because(reason: impl Into<String>, from: Vec<Target>) -> Self {
        Self { reason: reason.into(), retry_after: None, from }
    }

    fn for_now(reason: impl Into<String>, wait: Duration, from: Vec<Target>) -> Self {
        Self { reason: reason.into(), retry_after: Some(wait), from }
    }

    /// After what time it may be allowed; `None` when it will not be, unless the owner changes the rules.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// Senders take `refused by policy:` for final and `busy:` for a reason to try again.
impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry_after {
            None => write!(f, "refused by policy: {}", self.reason),
            Some(_) => write!(f, "busy: {}", self.reason),
        }
    }
}

impl std::error::Error for Forbidden {}

impl Policy {
    /// The rules of the node at home in this folder.
    pub(crate) fn load(home: &Path) -> Self {
        let path = home.join("policy.json");
        let state = read(&path);
        Self(Arc::new(Shared { path: Some(path), state: RwLock::new(Arc::new(state)), ..Shared::default() }))
    }

    /// Whom to tell of what: notices to the owner, and changes to the driver, which ends streams that are not allowed any
    /// more.
    pub(super) fn connect(&self, notices: Notices, handle: Handle) {
        // It is done once, at the start of the services.
        let _ = self.0.listeners.set((notices, handle));
    }

    /// Who this node is, and whom it trusts, with the keys that are known and the ports that are open to members of a
    /// network.
    pub(crate) fn set_nodes(
        &self,
        own: NodeId,
        trusted: impl Iterator<Item = (NodeId, Option<PublicKey>, Option<Arc<PortLimit>>)>,
    ) {
        let standing =
            |key: Option<PublicKey>, limit| Standing { key: key.as_ref().map(KeyPrint::from), limit };
        let trusted = trusted.map(|(node, key, limit)| (node, standing(key, limit))).collect();
        let own = Some(own).filter(|node| *node != NodeId::UNSET);
        *self.0.nodes.write().unwrap_or_else(PoisonError::into_inner) = Nodes { own, trusted };
    }

    /// Why the file of rules cannot be used. While there is a reason, nothing is allowed to other nodes.
    pub(crate) fn broken(&self) -> Option<String> {
        match &*self.state() {
            State::InForce(_) => None,
            State::Broken(reason) => Some(reason.clone()),
        }
    }

    /// Whether a node may open a stream, or send a datagram, to a port of ours.
    pub(crate) fn may_open(&self, node: NodeId, port: Port) -> Result<(), Forbidden> {
        if port == Port::HANDSHAKE {
            return Ok(());
        }
        self.ask(node, |engine, peer| {
            let Sourced { value, from } = engine.port(peer, port);
            if !value {
                return Err(Forbidden::because(format!("port {port}"), from));
            }
            self.network_allows(node, port)
        })
    }

    /// Whether the network for which alone a node is trusted lets its members reach a port. What the owner's rules allow
    /// does not count here: a network's limit is a condition of the trust.
    fn network_allows(&self, node: NodeId, port: Port) -> Result<(), Forbidden> {
        let nodes = self.nodes();
        match nodes.trusted.get(&node).and_then(|standing| standing.limit.as_ref()) {
            Some(limit) if !limit.ports.contains(&port) && port != Port::HANDSHAKE => {
                let reason =
                    format!("port {port} is not among those that {} opens to its members", limit.networks);
                Err(Forbidden::because(reason, Vec::new()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Waits until a node may send its next message or piece of a file.
    ///
    /// # Errors
    /// When that would take long.
    pub(super) async fn turn(&self, node: NodeId) -> Result<(), Forbidden> {
        let deadline = Instant::now() + PATIENCE;
        let mut waited = false;
        loop {
            let Some(wait) = self.wait(node)? else { return Ok(()) };
            let now = Instant::now();
            if !std::mem::replace(&mut waited, true) {
                self.meters().slowed(now.into_std(), node);
            }
            if now + wait > deadline {
                let reason =
                    format!("more messages or bytes than are taken, come back in {} s", wait.as_secs() + 1);
                return Err(self.refused(node, Forbidden::for_now(reason, wait, Vec::new())));
            }
            sleep(wait).await;
        }
    }

    /// Whether a node has to wait for its turn.
    pub(super) fn must_wait(&self, node: NodeId) -> bool {
        !matches!(self.wait(node), Ok(None))
    }

    /// How long a node has to wait for its turn.
    fn wait(&self, node: NodeId) -> Result<Option<Duration>, Forbidden> {
        let mut rates = None;
        self.ask(node, |engine, peer| {
            rates = Some(rates_of(engine, peer));
            Ok(())
        })?;
        // Own programs are not asked.
        let Some(rates) = rates else { return Ok(None) };
        let wait = self.meters().wait(Instant::now().into_std(), node, rates);
        Ok(Some(wait).filter(|wait| !wait.is_zero()))
    }

    /// Whether a message of this length may come in; counts it. Rates are kept by [`Policy::turn`], before.
    pub(super) fn admit_message(&self, node: NodeId, bytes: u64) -> Result<(), Forbidden> {
        self.ask(node, |engine, peer| message_allowed(engine, peer, bytes))?;
        self.count(node, 1, bytes);
        Ok(())
    }

    /// Whether a piece of something larger may come in; counts its bytes only.
    pub(super) fn admit_piece(&self, node: NodeId, bytes: u64) -> Result<(), Forbidden> {
        self.ask(node, |engine, peer| message_allowed(engine, peer, bytes))?;
        self.count(node, 0, bytes);
        Ok(())
    }

    /// Whether a file of this length may come in; counts it as one message without its bytes, which are counted as they
    /// come ([`Policy::count_bytes`]).
    pub(super) fn admit_file(&self, node: NodeId, bytes: u64) -> Result<(), Forbidden> {
        self.ask(node, |engine, peer| file_allowed(engine, peer, bytes))?;
        self.count(node, 1, 0);
        Ok(())
    }

    /// A piece of a file came in.
    pub(super) fn count_bytes(&self, node: NodeId, bytes: u64) {
        self.count(node, 0, bytes);
    }

    fn count(&self, node: NodeId, messages: u64, bytes: u64) {
        // The rules cannot have been broken between the two questions without the answer being the safe one.
        let _ = self.ask(node, |engine, peer| {
            let rates = rates_of(engine, peer);
            self.meters().count(Instant::now().into_std(), node, rates, messages, bytes);
            Ok(())
        });
    }

    /// Whether a node may publish an event about this topic here.
    pub(super) fn may_publish(&self, node: NodeId, topic: &str) -> Result<(), Forbidden> {
        self.ask(node, |engine, peer| topic_allowed(engine.publish(peer, topic), "publish", topic))
    }

    /// Whether a node may subscribe here. A pattern is let in when it may hear anything at all: what it hears is decided
    /// for each event by [`Policy::may_hear`].
    pub(super) fn may_subscribe(&self, node: NodeId, topic: &str) -> Result<(), Forbidden> {
        let pattern = pilot_wire::events::Pattern::new(topic);
        if !pattern.is_wild() && !topic.starts_with(pilot_wire::events::RESERVED_PREFIX) {
            return self.may_hear(node, topic);
        }
        self.ask(node, |engine, peer| {
            if engine.hears_something(peer) || topic.starts_with(pilot_wire::events::RESERVED_PREFIX) {
                return Ok(());
            }
            topic_allowed(engine.hear(peer, topic), "subscribe to", topic)
        })
    }

    /// Whether an event about this topic may go to a node.
    pub(super) fn may_hear(&self, node: NodeId, topic: &str) -> Result<(), Forbidden> {
        self.ask(node, |engine, peer| topic_allowed(engine.hear(peer, topic), "subscribe to", topic))
    }

    /// Whether a node may ask for an answer with a deadline.
    pub(super) fn may_ask(&self, node: NodeId) -> Result<(), Forbidden> {
        self.ask(node, |engine, peer| flag_allowed(engine.requests(peer), "requests are not taken"))
    }

    /// Whether a node may give tasks to this one.
    pub(super) fn may_task(&self, node: NodeId) -> Result<(), Forbidden> {
        self.ask(node, |engine, peer| flag_allowed(engine.tasks(peer), "tasks are not taken"))
    }

    /// Whether messages from or for a node may be kept here.
    pub(super) fn may_use_mailbox(&self, node: NodeId) -> Result<(), Forbidden> {
        self.ask(node, |engine, peer| flag_allowed(engine.mailbox(peer), "messages are not kept"))
    }

    /// Whether a message of `node` that so many automatic answers led to may be answered automatically now; counts the
    /// answer. A refusal that is over after a time ([`Forbidden::retry_after`]) holds the answer back, one that is not
    /// leaves the message to people. Own programs are subject to it, too: a node can talk to itself for ever.
    pub(super) fn may_answer(&self, node: NodeId, hops: u8) -> Result<(), Forbidden> {
        let state = self.state();
        let State::InForce(engine) = &*state else {
            return self.ask(node, |_, _| Ok(()));
        };
        let peer = self.peer(node);
        let now = Instant::now().into_std();
        if let Err(forbidden) = hops_allowed(engine, &peer, hops) {
            let tell = self.meters().hold_answer(now, node);
            self.tell_held(tell, node, &forbidden);
            return Err(forbidden);
        }
        let Sourced { value: limit, from } = engine.auto_answers_per_min(&peer);
        if limit == Limit::Of(0) {
            return Err(Forbidden::because("nothing is answered automatically", from));
        }
        let answer = self.meters().answer(now, node, limit);
        match answer {
            Answer::Now => Ok(()),
            Answer::Later { wait, tell } => {
                let reason = format!("{limit} automatic answers a minute are given, no more");
                let forbidden = Forbidden::for_now(reason, wait, from);
                self.tell_held(tell, node, &forbidden);
                Err(forbidden)
            }
        }
    }

    fn tell_held(&self, tell: bool, node: NodeId, forbidden: &Forbidden) {
        if !tell {
            return;
        }
        let resumes_ms =
            forbidden.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        if let Some((notices, _)) = self.0.listeners.get() {
            notices.send(Notice::GuardTripped { peer: node, reason: forbidden.reason.clone(), resumes_ms });
        }
    }

    /// Asks the rules about another node. Own programs may do everything.
    fn ask(
        &self,
        node: NodeId,
        question: impl FnOnce(&Engine, &Peer) -> Result<(), Forbidden>,
    ) -> Result<(), Forbidden> {
        if self.nodes().own == Some(node) {
            return Ok(());
        }
        let answer = match &*self.state() {
            State::InForce(engine) => question(engine, &self.peer(node)),
            State::Broken(_) => Err(closed()),
        };
        answer.map_err(|forbidden| self.refused(node, forbidden))
    }

    fn refused(&self, node: NodeId, forbidden: Forbidden) -> Forbidden {
        self.meters().refused(Instant::now().into_std(), node);
        tracing::debug!(%node, reason = forbidden.reason, "refused by policy");
        forbidden
    }

    fn peer(&self, node: NodeId) -> Peer {
        let nodes = self.nodes();
        let trusted = nodes.trusted.get(&node);
        Peer { node, trusted: trusted.is_some(), key: trusted.and_then(|standing| standing.key) }
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.0.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn nodes(&self) -> std::sync::RwLockReadGuard<'_, Nodes> {
        self.0.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn meters(&self) -> MutexGuard<'_, Meters> {
        self.0.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Questions and orders of the owner.
impl Policy {
    /// Answers an application.
    pub(super) async fn call(&self, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Show => Ok(self.overview()),
            Request::Peer { node } => {
                Ok(Reply::Effective(Box::new(self.in_force()?.effective(&self.peer(node)))))
            }
            Request::Test { node, question } => Ok(self.test(node, &question)),
            Request::Reload => self.reload().await,
            change @ (Request::Set { .. }
            | Request::Unset { .. }
            | Request::Ports { .. }
            | Request::Audience { .. }
            | Request::AddMember { .. }
            | Request::RemoveMember { .. }
            | Request::Reset) => self.change(change).await,
        }
    }

    fn in_force(&self) -> Result<Engine, Failure> {
        match &*self.state() {
            State::InForce(engine) => Ok((**engine).clone()),
            State::Broken(reason) => Err(self.is_broken(reason)),
        }
    }

    fn is_broken(&self, reason: &str) -> Failure {
        let message =
            format!("{} cannot be used, and nothing is allowed to other nodes: {reason}", self.path());
        Failure::new(Code::PermissionDenied, message).with_hint(
            "mend it and run `pilotctl policy reload`, or drop all rules with `pilotctl policy reset`",
        )
    }

    fn path(&self) -> String {
        self.0.path.as_deref().map(|path| path.display().to_string()).unwrap_or_default()
    }

    fn overview(&self) -> Reply {
        let (broken, engine) = match &*self.state() {
            State::InForce(engine) => (None, (**engine).clone()),
            State::Broken(reason) => (Some(reason.clone()), Engine::default()),
        };
        let anybody = Peer { node: NodeId::UNSET, trusted: true, key: None };
        Reply::Overview(Box::new(Overview {
            path: self.path(),
            broken,
            everybody: engine.effective(&anybody),
            book: engine.book().clone(),
            peers: self.meters().counts(Instant::now().into_std()),
        }))
    }

    fn test(&self, node: NodeId, question: &Question) -> Reply {
        let allowed = |from| Reply::Tested(Tested { allowed: true, reason: None, from });
        if self.nodes().own == Some(node) {
            return allowed(Vec::new());
        }
        let answer = match &*self.state() {
            State::Broken(_) => Err(closed()),
            State::InForce(engine) => judge(engine, &self.peer(node), question).and_then(|from| {
                if let Question::Port { port } = question {
                    self.network_allows(node, *port)?;
                }
                Ok(from)
            }),
        };
        match answer {
            Ok(from) => allowed(from),
            Err(forbidden) => Reply::Tested(Tested {
                allowed: false,
                reason: Some(forbidden.to_string()),
                from: forbidden.from,
            }),
        }
    }

    async fn reload(&self) -> Result<Reply, Failure> {
        let _one_at_a_time = self.0.changing.lock().await;
        if let Some(path) = self.0.path.clone() {
            let state = on_disk(move || read(&path)).await?;
            self.put_in_force(state).await;
        }
        Ok(self.overview())
    }

    /// Validates, stores and then puts in force: what is answered is on disk.
    async fn change(&self, request: Request) -> Result<Reply, Failure> {
        let _one_at_a_time = self.0.changing.lock().await;
        let is_reset = matches!(request, Request::Reset);
        let (mut book, was_broken) = match &*self.state() {
            State::InForce(engine) => (engine.book().clone(), false),
            State::Broken(_) if is_reset => (Book::default(), true),
            State::Broken(reason) => return Err(self.is_broken(reason)),
        };
        let Some(changed) = change::apply(&mut book, request) else {
            return Err(Failure::new(Code::Internal, "this is not a change of the rules"));
        };
        let changed = changed?;
        if let Some(path) = self.0.path.clone() {
            let shown = self.path();
            let stored = book.clone();
            let result = on_disk(move || {
                if was_broken {
                    file::keep_broken(&path).map_err(|error| error.to_string())?;
                }
                file::store(&path, &stored)
            });
            result.await?.map_err(|reason| {
                Failure::new(Code::Internal, format!("{shown} is not changed: {reason}"))
            })?;
        }
        let reply = match changed {
            Changed::Rules(target) => {
                let rules = Box::new(book.rules(&target).cloned().unwrap_or_default());
                Some(Reply::Rules { target, rules })
            }
            Changed::Members(group) => {
                let members = book.groups.get(&group).map(|group| group.members.iter().copied().collect());
                Some(Reply::Members { group, members: members.unwrap_or_default() })
            }
            Changed::Much => None,
        };
        self.put_in_force(State::InForce(Box::new(Engine::new(book)))).await;
        Ok(reply.unwrap_or_else(|| self.overview()))
    }

    async fn put_in_force(&self, state: State) {
        *self.0.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        if let Some((_, handle)) = self.0.listeners.get() {
            handle.policy_changed().await;
        }
    }
}

fn read(path: &Path) -> State {
    match file::load(path) {
        Ok(book) => State::InForce(Box::new(Engine::new(book))),
        Err(reason) => {
            tracing::error!(
                path = %path.display(),
                reason,
                "the rules cannot be used: nothing is allowed to other nodes until they are mended"
            );
            State::Broken(reason)
        }
    }
}

/// Disks may be slow; other tasks go on meanwhile.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

fn closed() -> Forbidden {
    Forbidden::for_now("nothing is taken until the owner has mended the rules", BROKEN_RETRY, Vec::new())
}

fn rates_of(engine: &Engine, peer: &Peer) -> Rates {
    Rates { messages: engine.messages_per_min(peer).value, bytes: engine.bytes_per_min(peer).value }
}

fn message_allowed(engine: &Engine, peer: &Peer, bytes: u64) -> Result<(), Forbidden> {
    nothing_at_all(engine, peer)?;
    size_allowed(engine.max_message(peer), "message", bytes)
}

fn file_allowed(engine: &Engine, peer: &Peer, bytes: u64) -> Result<(), Forbidden> {
    nothing_at_all(engine, peer)?;
    let longest = engine.max_file(peer);
    if longest.value == Limit::Of(0) {
        return Err(Forbidden::because("files are not taken", longest.from));
    }
    size_allowed(longest, "file", bytes)
}

/// A rate of nothing is a refusal, not a wait for ever.
fn nothing_at_all(engine: &Engine, peer: &Peer) -> Result<(), Forbidden> {
    for rate in [engine.messages_per_min(peer), engine.bytes_per_min(peer)] {
        if rate.value == Limit::Of(0) {
            return Err(Forbidden::because("messages and files are not taken", rate.from));
        }
    }
    Ok(())
}

fn size_allowed(longest: Sourced<Limit>, what: &str, bytes: u64) -> Result<(), Forbidden> {
    if longest.value.allows(bytes) {
        return Ok(());
    }
    let reason = format!("a {what} of {bytes} bytes, longer than {}", longest.value);
    Err(Forbidden::because(reason, longest.from))
}

fn topic_allowed(answer: Sourced<bool>, doing: &str, topic: &str) -> Result<(), Forbidden> {
    match answer.value {
        true => Ok(()),
        false => Err(Forbidden::because(format!("may not {doing} `{topic}`"), answer.from)),
    }
}

fn flag_allowed(answer: Sourced<bool>, reason: &str) -> Result<(), Forbidden> {
    if answer.value { Ok(()) } else { Err(Forbidden::because(reason, answer.from)) }
}

fn hops_allowed(engine: &Engine, peer: &Peer, hops: u8) -> Result<(), Forbidden> {
    let Sourced { value: most, from } = engine.max_hops(peer);
    if hops < most {
        return Ok(());
    }
    Err(Forbidden::because(format!("{hops} automatic answers in a row led to it, {most} are allowed"), from))
}

/// The answer to a question of the owner, with the targets whose rules decided. Nothing is counted.
fn judge(engine: &Engine, peer: &Peer, question: &Question) -> Result<Vec<Target>, Forbidden> {
    let effective: Effective = engine.effective(peer);
    Ok(match question {
        Question::Port { port } => {
            let Sourced { value, from } = engine.port(peer, *port);
            if !value && *port != Port::HANDSHAKE {
                return Err(Forbidden::because(format!("port {port}"), from));
            }
            from
        }
        Question::Publish { topic } => {
            let answer = engine.publish(peer, topic);
            topic_allowed(answer.clone(), "publish", topic)?;
            answer.from
        }
        Question::Subscribe { topic } => {
            let answer = engine.hear(peer, topic);
            topic_allowed(answer.clone(), "subscribe to", topic)?;
            answer.from
        }
        Question::Message { bytes } => {
            message_allowed(engine, peer, *bytes)?;
            effective.max_message.from
        }
        Question::File { bytes } => {
            file_allowed(engine, peer, *bytes)?;
            effective.max_file.from
        }
        Question::Request => {
            flag_allowed(effective.requests.clone(), "requests are not taken")?;
            effective.requests.from
        }
        Question::Task => {
            flag_allowed(effective.tasks.clone(), "tasks are not taken")?;
            effective.tasks.from
        }
        Question::Mailbox => {
            flag_allowed(effective.mailbox.clone(), "messages are not kept")?;
            effective.mailbox.from
        }
        Question::Answer { hops } => {
            hops_allowed(engine, peer, *hops)?;
            if effective.auto_answers_per_min.value == Limit::Of(0) {
                let from = effective.auto_answers_per_min.from;
                return Err(Forbidden::because("nothing is answered automatically", from));
            }
            effective.max_hops.from
        }
    })
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(json: &[u8]) {
    super::fuzzing::reads_back::<Book>(json);
}

#[cfg(test)]
impl Policy {
    /// These rules, in memory only.
    pub(super) fn of(text: &str) -> Self {
        let book = serde_json::from_str(text).unwrap();
        let state = RwLock::new(Arc::new(State::InForce(Box::new(Engine::new(book)))));
        Self(Arc::new(Shared { state, ..Shared::default() }))
    }
}

#[cfg(test)]
mod tests;
