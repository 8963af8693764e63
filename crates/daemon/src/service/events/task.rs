//! The task that owns the [`Hub`]: it carries commands in and batches, questions and links out, and keeps publishers
//! waiting.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use pilot_wire::events::{Event, NOTHING, Note, Overflow, RESERVED_PREFIX};
use pilot_wire::ipc::{EventsStatus, LinkState, LinkStatus};
use pilot_wire::{Addr, Endpoint, NodeId};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::hub::{Hub, Side, SubscriberId, Subscription};
use super::link::{self, Arrival, DialBroker, Link, LinkKey};
use super::{Command, Connected, LINK_ASKS, SUBSCRIBED_WITHIN, SUBSCRIBERS_MAX, unix_ns};
use crate::handle::Sign;
use crate::service::policy::Policy;
use crate::service::{Notice, Notices};

/// A subscription that is to be told that everything it can hear is connected, or whose past is being gathered.
struct Confirmation {
    id: SubscriberId,
    deadline: Instant,
    is_confirmed: bool,
}

struct Writer {
    batches: mpsc::Sender<Bytes>,
    remote: Endpoint,
    topic: String,
}

/// Who waits because a blocking subscriber has no room.
enum Waiting {
    Publisher { id: SubscriberId, from: Endpoint, events: VecDeque<Event>, done: oneshot::Sender<()> },
    Link { key: LinkKey, arrivals: VecDeque<Arrival>, done: oneshot::Sender<()> },
}

pub(super) struct Task<D> {
    hub: Hub,
    writers: BTreeMap<SubscriberId, Writer>,
    dial: D,
    trusted: watch::Receiver<Vec<NodeId>>,
    signs: broadcast::Receiver<Sign>,
    policy: Policy,
    /// For the links.
    commands: mpsc::Sender<Command>,
    links: BTreeMap<LinkKey, Link>,
    link_tasks: JoinSet<()>,
    confirmations: Vec<Confirmation>,
    waiting: VecDeque<Waiting>,
    notices: Notices,
}

impl<D: DialBroker> Task<D> {
    pub(super) fn new(
        dial: D,
        trusted: watch::Receiver<Vec<NodeId>>,
        signs: broadcast::Receiver<Sign>,
        policy: Policy,
        notices: Notices,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        let rules = policy.clone();
        let may_hear = Box::new(move |node, topic: &str| rules.may_hear(node, topic).is_ok());
        Self {
            hub: Hub::new(unix_ns(), may_hear),
            writers: BTreeMap::new(),
            dial,
            trusted,
            signs,
            policy,
            commands,
            links: BTreeMap::new(),
            link_tasks: JoinSet::new(),
            confirmations: Vec::new(),
            waiting: VecDeque::new(),
            notices,
        }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut trust_can_change = true;
        let mut signs_can_come = true;
        loop {
            let deadline = self.confirmations.iter().map(|waiting| waiting.deadline).min();
            let deadline = deadline.into_iter().chain(self.hub.next_stall()).min();
            let next_deadline = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.handle(command),
                    None => return,
                },
                changed = self.trusted.changed(), if trust_can_change => {
                    trust_can_change = changed.is_ok();
                    self.update_links();
                }
                sign = self.signs.recv(), if signs_can_come => match sign {
                    Ok(Sign::Peer(node)) => self.wake_links(node),
                    Ok(Sign::Network) | Err(broadcast::error::RecvError::Lagged(_)) => self.wake_all_links(),
                    Err(broadcast::error::RecvError::Closed) => signs_can_come = false,
                },
                Some(_) = self.link_tasks.join_next() => {}
                () = next_deadline => {}
            }
            self.hub.demote_stalled(Instant::now());
            self.confirm();
            self.carry_out();
        }
    }

    /// Everything that follows from what has changed.
    fn carry_out(&mut self) {
        loop {
            self.put_asks();
            for id in self.hub.take_ready() {
                self.write(id);
            }
            if !self.hub.take_room() {
                return;
            }
            for waiting in std::mem::take(&mut self.waiting) {
                self.go_on(waiting);
            }
        }
    }

    fn write(&mut self, id: SubscriberId) {
        let Some(writer) = self.writers.get(&id) else { return };
        // A writer is asked only while it is idle, so the one place in its channel is free.
        let Ok(place) = writer.batches.try_reserve() else { return };
        if let Some(batch) = self.hub.take(id, Instant::now()) {
            place.send(batch);
        }
    }

    fn put_asks(&mut self) {
        for (key, ask) in self.hub.take_asks() {
            let put = self.links.get(&key).is_some_and(|link| link.asks.try_send(ask).is_ok());
            if !put {
                tracing::warn!(node = %key.node, "too many questions about missed events at once");
                self.hub.ask_failed(&key);
            }
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Subscribe { asked, remote, answer } => self.subscribe(asked, remote, answer),
            Command::Unsubscribe(id) => self.unsubscribe(id),
            Command::Publish { id, from, events, done } => {
                self.go_on(Waiting::Publisher { id, from, events, done });
            }
            Command::Ask(id, ask) => self.hub.answer(id, &ask),
            Command::WriterIdle(id) => self.hub.writer_idle(id),
            Command::FromBroker { key, arrivals, done } => {
                self.go_on(Waiting::Link { key, arrivals, done });
            }
            Command::Status(answer) => {
                let _ = answer.send(self.status());
            }
            // An aborted task's last words may still be in the queue.
            Command::LinkUp { key, numbered, at } => {
                if let Some(link) = self.links.get_mut(&key) {
                    link.state = LinkState::Live;
                    self.hub.link_up(&key, numbered, at);
                }
            }
            Command::LinkDown(key) => {
                if let Some(link) = self.links.get_mut(&key) {
                    link.state = LinkState::Down;
                    self.hub.link_down(&key);
                }
            }
        }
    }

    /// Takes what a publisher or a link has brought, until a blocking subscriber has no room for it.
    fn go_on(&mut self, waiting: Waiting) {
        let now = Instant::now();
        match waiting {
            Waiting::Publisher { id, from, mut events, done } => {
                if done.is_closed() {
                    return;
                }
                while let Some(event) = events.front() {
                    if let Err(refused) = self.may_publish(id, from, &event.topic) {
                        self.hub.refused();
                        self.hub.tell(id, Note::Refused { reason: refused });
                    } else {
                        if self.hub.publish(id, event, unix_ns(), now).is_err() {
                            self.waiting.push_back(Waiting::Publisher { id, from, events, done });
                            return;
                        }
                        if !event.topic.starts_with(RESERVED_PREFIX) {
                            let size = event.payload.len() as u64;
                            let topic = event.topic.clone();
                            self.notices.send(Notice::EventPublished { topic, size, from });
                        }
                    }
                    events.pop_front();
                }
                let _ = done.send(());
            }
            Waiting::Link { key, mut arrivals, done } => {
                if done.is_closed() {
                    return;
                }
                while let Some(arrival) = arrivals.front() {
                    let taken = match arrival {
                        Arrival::Live(delivered) => self.hub.delivered(&key, delivered, false, now),
                        Arrival::Missed(delivered) => self.hub.delivered(&key, delivered, true, now),
                        Arrival::Answer(ask, delivered) => {
                            self.hub.answered_with(&key, *ask, delivered);
                            Ok(())
                        }
                        Arrival::Answered(ask, at) => {
                            self.hub.answered(&key, *ask, *at);
                            Ok(())
                        }
                        Arrival::Reached(at) => {
                            self.hub.link_reached(&key, *at);
                            Ok(())
                        }
                        Arrival::Lost { events, at_least, answer } => {
                            self.hub.lost(&key, *events, *at_least, *answer);
                            Ok(())
                        }
                        Arrival::Demoted => {
                            self.hub.link_demoted(&key);
                            Ok(())
                        }
                    };
                    if taken.is_err() {
                        self.waiting.push_back(Waiting::Link { key, arrivals, done });
                        return;
                    }
                    arrivals.pop_front();
                }
                let _ = done.send(());
            }
        }
    }

    fn may_publish(&self, id: SubscriberId, from: Endpoint, topic: &str) -> Result<(), String> {
        if self.hub.is_own(id) {
            return Ok(());
        }
        self.policy.may_publish(from.addr.node, topic).map_err(|forbidden| forbidden.to_string())
    }

    fn subscribe(&mut self, mut asked: Subscription, remote: Endpoint, answer: oneshot::Sender<Connected>) {
        self.wake_links(remote.addr.node);
        if self.hub.len() >= SUBSCRIBERS_MAX {
            return;
        }
        let node = remote.addr.node;
        asked.may_block = asked.side == Side::Own || self.trusted.borrow().contains(&node);
        let forbidden = match asked.side {
            Side::Other if asked.topic != NOTHING => self.policy.may_subscribe(node, &asked.topic).err(),
            Side::Own | Side::Other => None,
        };
        if let Some(forbidden) = forbidden {
            let _ = answer.send(Connected::Refused(forbidden.to_string()));
            return;
        }
        let topic = asked.topic.clone();
        let wants_confirmation = asked.asked.is_some();
        let id = self.hub.subscribe(asked);
        let (batches, batches_out) = mpsc::channel(1);
        if answer.send(Connected::As { id, batches: batches_out }).is_err() {
            self.hub.unsubscribe(id);
            return;
        }
        if !topic.starts_with(RESERVED_PREFIX) {
            self.notices.send(Notice::EventSubscribed { topic: topic.clone(), remote });
        }
        self.writers.insert(id, Writer { batches, remote, topic });
        self.update_links();
        if wants_confirmation {
            let deadline = Instant::now() + SUBSCRIBED_WITHIN;
            self.confirmations.push(Confirmation { id, deadline, is_confirmed: false });
        }
    }

    fn unsubscribe(&mut self, id: SubscriberId) {
        self.hub.unsubscribe(id);
        self.confirmations.retain(|waiting| waiting.id != id);
        if let Some(Writer { topic, remote, .. }) = self.writers.remove(&id)
            && !topic.starts_with(RESERVED_PREFIX)
        {
            self.notices.send(Notice::EventUnsubscribed { topic, remote });
        }
        self.update_links();
    }

    /// Starts the links that are wanted and ends those that are not.
    fn update_links(&mut self) {
        let trusted = self.trusted.borrow_and_update().clone();
        let topics = self.hub.link_topics();
        let mut gone = Vec::new();
        self.links.retain(|key, link| {
            let keep = trusted.contains(&key.node) && topics.contains(&key.ask);
            if !keep {
                link.task.abort();
                gone.push(key.clone());
            }
            keep
        });
        for key in gone {
            self.hub.link_gone(&key);
        }
        for node in &trusted {
            for ask in &topics {
                let key = LinkKey { node: *node, ask: ask.clone() };
                if self.links.contains_key(&key) {
                    continue;
                }
                let awake = Arc::new(Notify::new());
                let (asks, asks_out) = mpsc::channel(LINK_ASKS);
                let run = link::run(
                    key.clone(),
                    self.dial.clone(),
                    self.commands.clone(),
                    Arc::clone(&awake),
                    asks_out,
                );
                let task = self.link_tasks.spawn(run);
                self.links.insert(key, Link { state: LinkState::Connecting, task, awake, asks });
            }
        }
    }

    /// A node was heard of: links to it that wait for their next try need not wait.
    fn wake_links(&self, node: NodeId) {
        self.links.iter().filter(|(key, _)| key.node == node).for_each(|(_, link)| link.wake());
    }

    fn wake_all_links(&self) {
        self.links.values().for_each(Link::wake);
    }

    /// Tells subscribers that everything they can hear is connected, and lets go of those that waited long enough
    /// for the past.
    fn confirm(&mut self) {
        let now = Instant::now();
        for mut confirmation in std::mem::take(&mut self.confirmations) {
            let Confirmation { id, deadline, is_confirmed } = confirmation;
            if is_confirmed {
                if !self.hub.is_gathering(id) {
                    continue;
                }
                if deadline > now {
                    self.confirmations.push(confirmation);
                } else {
                    self.hub.finish_replay(id);
                }
                continue;
            }
            let topic = self.hub.link_topic(id).cloned();
            let states = || {
                let of_topic = self.links.iter().filter(|(key, _)| Some(&key.ask) == topic.as_ref());
                of_topic.map(|(_, link)| link.state)
            };
            if states().any(|state| state == LinkState::Connecting) && deadline > now {
                self.confirmations.push(confirmation);
                continue;
            }
            let brokers = states().filter(|state| *state == LinkState::Live).count();
            self.hub.confirm(id, u32::try_from(brokers).unwrap_or(u32::MAX));
            if self.hub.is_gathering(id) {
                confirmation.is_confirmed = true;
                confirmation.deadline = now + SUBSCRIBED_WITHIN;
                self.confirmations.push(confirmation);
            }
        }
    }

    fn status(&self) -> EventsStatus {
        let link = |(key, link): (&LinkKey, &Link)| {
            let counters = self.hub.link_counters(key);
            LinkStatus {
                node: Addr::backbone(key.node),
                topic: key.ask.topic.clone(),
                policy: if key.ask.blocks { Overflow::Block } else { Overflow::DropOldest },
                state: link.state,
                numbered: counters.numbered,
                at: counters.at,
                received: counters.received,
                lost: counters.lost,
            }
        };
        EventsStatus {
            subscribers: self.hub.len() as u64,
            subscriptions: self.hub.subscriptions(Instant::now()),
            links: self.links.iter().map(link).collect(),
            history: self.hub.history(),
            counters: self.hub.counters(),
        }
    }
}
