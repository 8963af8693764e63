//! Who gets which event: subscriptions, their queues and the history, without tasks or streams.
//!
//! Rules of release 1.18.0 for other nodes' connections: the topic or `*`, literally, and never one's own
//! publications. The owner's applications (connections from the own node) may subscribe to patterns, and get
//! what the brokers of trusted nodes deliver besides. What such a broker delivered goes to them only, so
//! events cannot run in circles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pilot_wire::events::{
    Ask, EVERYTHING, Event, NOTHING, Note, NoteToken, Overflow, Past, Pattern, Position, RESERVED_PREFIX,
    RESUME_MAX, Source, Wishes,
};
use pilot_wire::ipc::{EventCounters, HistoryStatus, SubscriptionStatus};
use pilot_wire::{Addr, NodeId};
use tokio::time::Instant;

use super::catch_up::{CatchUp, Replay};
use super::history::{Forgotten, History};
use super::link::LinkKey;
use super::published::{How, Published};
use super::queue::Queue;

/// Events queued for one subscriber that does not say how many it wants.
const QUEUE_EVENTS: usize = 4096;

/// The most a program of this node may ask for.
const QUEUE_MAX_OWN: usize = 1 << 16;

/// The most another node may ask for.
const QUEUE_MAX_OTHER: usize = QUEUE_EVENTS;

/// Literal topics asked of peers' brokers, each over a connection of its own. Further ones are served by
/// asking for everything. A broker serves 16 connections of a node.
const LINK_TOPICS: usize = 8;

/// How long publishers wait for a blocking subscriber of this node that takes nothing at all.
const STALL_OWN: Duration = Duration::from_secs(30);

/// The same for one of another node: longer, so that the program that does not read is found at its own broker first.
const STALL_OTHER: Duration = Duration::from_secs(60);

/// One subscription, that is, one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SubscriberId(pub(super) u64);

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) enum Side {
    /// An application of this node.
    Own,
    /// Another node.
    Other,
}

/// What a connection asks for.
pub(super) struct Subscription {
    pub(super) side: Side,
    pub(super) addr: Addr,
    pub(super) hostname: Option<String>,
    pub(super) topic: String,
    /// For notes, and what is wished besides.
    pub(super) asked: Option<(NoteToken, Wishes)>,
    /// Publishers wait for it if it wishes so.
    pub(super) may_block: bool,
}

/// An event that a peer's broker delivered.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) event: Event,
    /// As that broker says, with the name of the publisher as we know it.
    pub(super) source: Source,
    /// The Unix time at which it came, in nanoseconds.
    pub(super) received: u64,
}

/// An event was not taken: a blocking subscriber has no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held;

enum Wants {
    /// The topic, or everything.
    Literal(String),
    Pattern(Pattern),
    /// The first, narrowed down by the second.
    Both(String, Pattern),
}

impl Wants {
    fn matches(&self, topic: &str) -> bool {
        let literally = |wanted: &str| wanted == topic || wanted == EVERYTHING;
        match self {
            Self::Literal(wanted) => literally(wanted),
            Self::Pattern(pattern) => pattern.matches(topic),
            Self::Both(wanted, pattern) => literally(wanted) && pattern.matches(topic),
        }
    }

    /// What to ask other brokers for.
    fn as_pattern(&self) -> &str {
        match self {
            Self::Literal(text) => text,
            Self::Pattern(pattern) | Self::Both(_, pattern) => pattern.as_str(),
        }
    }

    fn is_everything(&self) -> bool {
        matches!(self.as_pattern(), EVERYTHING | "#" | ">")
    }
}

struct Subscriber {
    side: Side,
    addr: Addr,
    hostname: Option<String>,
    wants: Wants,
    /// What is asked of peers' brokers on its behalf.
    link: Option<LinkTopic>,
    token: Option<NoteToken>,
    queue: Queue,
    /// Its writer waits for a batch.
    writer_is_idle: bool,
    /// It was told that it is in force.
    is_confirmed: bool,
    /// Where the own broker stood when it subscribed, unless it is told otherwise.
    base: Option<Position>,
    /// It asked for the last events, and they are being gathered.
    replay: Option<Replay>,
    /// Brokers whose missed events are still to come.
    catch_up: BTreeMap<NodeId, CatchUp>,
    /// Events up to here came out of a history, and are not delivered again.
    floors: BTreeMap<Option<NodeId>, Position>,
}

/// What is asked of peers' brokers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkTopic {
    pub(super) topic: String,
    /// Publishers there wait for us.
    pub(super) blocks: bool,
}

/// How a link looks from here.
#[derive(Debug, Default)]
struct LinkFacts {
    is_live: bool,
    numbered: bool,
    at: Option<Position>,
    /// Who subscribed later has missed nothing when the link is renewed.
    newest_when_lost: u64,
    received: u64,
    lost: u64,
}

/// Counters of a link.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LinkCounters {
    pub(super) numbered: bool,
    pub(super) at: Option<Position>,
    pub(super) received: u64,
    pub(super) lost: u64,
}

/// Whether an event of a topic may go to a node.
pub(super) type MayHear = Box<dyn Fn(NodeId, &str) -> bool + Send>;

/// All subscriptions.
pub(super) struct Hub {
    may_hear: MayHear,
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    next: u64,
    history: History,
    links: BTreeMap<LinkKey, LinkFacts>,
    counters: EventCounters,
    ready: BTreeSet<SubscriberId>,
    asks: Vec<(LinkKey, Ask)>,
    has_room: bool,
}

impl Hub {
    /// A hub of a broker that starts at this Unix time in nanoseconds.
    pub(super) fn new(epoch: u64, may_hear: MayHear) -> Self {
        Self {
            may_hear,
            subscribers: BTreeMap::new(),
            next: 0,
            history: History::new(epoch),
            links: BTreeMap::new(),
            counters: EventCounters::default(),
            ready: BTreeSet::new(),
            asks: Vec::new(),
            has_room: false,
        }
    }

    /// Adds a subscription; its writer is taken to be idle.
    pub(super) fn subscribe(&mut self, asked: Subscription) -> SubscriberId {
        self.next += 1;
        let id = SubscriberId(self.next);
        let Subscription { side, addr, hostname, topic, asked, may_block } = asked;
        let (token, wishes) =
            asked.map_or((None, Wishes::default()), |(token, wishes)| (Some(token), wishes));
        let pattern = wishes.pattern.map(Pattern::new);
        let (wants, default_max) = match (side, pattern) {
            (Side::Own, None) => (Wants::Pattern(Pattern::new(topic.as_str())), QUEUE_MAX_OWN),
            (Side::Own, Some(pattern)) => (Wants::Pattern(pattern), QUEUE_MAX_OWN),
            (Side::Other, None) => (Wants::Literal(topic.clone()), QUEUE_MAX_OTHER),
            (Side::Other, Some(pattern)) => (Wants::Both(topic.clone(), pattern), QUEUE_MAX_OTHER),
        };
        let overflow = match wishes.overflow {
            Overflow::Block if !may_block => Overflow::DropOldest,
            wished => wished,
        };
        let limit = wishes.queue.map_or(QUEUE_EVENTS, |wished| usize::try_from(wished).unwrap_or(usize::MAX));
        let link = match side {
            Side::Own if topic != NOTHING => {
                let wire_topic = Pattern::new(topic.as_str()).wire_topic().to_owned();
                Some(self.choose_link_topic(wire_topic, overflow == Overflow::Block))
            }
            Side::Own | Side::Other => None,
        };
        let mut subscriber = Subscriber {
            side,
            addr,
            hostname,
            wants,
            link,
            token,
            queue: Queue::new(overflow, limit.min(default_max)),
            writer_is_idle: true,
            is_confirmed: false,
            base: None,
            replay: None,
            catch_up: BTreeMap::new(),
            floors: BTreeMap::new(),
        };
        let mut own = None;
        for reached in wishes.resume.into_iter().take(RESUME_MAX) {
            match reached.broker {
                None => own = Some(reached.at),
                Some(broker) => {
                    subscriber.catch_up.insert(broker.node, CatchUp::Waiting(reached.at));
                }
            }
        }
        if let Some(reached) = own {
            self.replay_own(&mut subscriber, id, Past::After(reached), None);
        } else if wishes.replay > 0 {
            subscriber.replay = Some(Replay::of_last(wishes.replay));
        } else {
            subscriber.base = Some(self.history.head());
        }
        let link = subscriber.link.clone();
        self.subscribers.insert(id, subscriber);
        self.ready.insert(id);
        // What it missed is asked for over the links that are there already.
        let live = self.links.iter().filter(|(_, facts)| facts.is_live && facts.numbered);
        let live: Vec<_> =
            live.map(|(key, _)| key.clone()).filter(|key| link.as_ref() == Some(&key.ask)).collect();
        for key in live {
            self.ask_missed(id, &key);
        }
        id
    }

    /// Queues what the own history has for a subscriber.
    fn replay_own(
        &self,
        subscriber: &mut Subscriber,
        id: SubscriberId,
        past: Past,
        answer: Option<(u64, &Pattern)>,
    ) {
        let wanted = |event: &Published| {
            event.origin != Some(id)
                && subscriber.is_for(&event.topic, &self.may_hear)
                && answer.is_none_or(|(_, pattern)| pattern.matches(&event.topic))
        };
        let (events, forgotten) = match past {
            Past::Last(count) => {
                (self.history.last(usize::try_from(count).unwrap_or(usize::MAX), wanted), None)
            }
            Past::After(position) => self.history.after(position, wanted),
        };
        let answer_id = answer.map(|(id, _)| id);
        let lost = forgotten.map(|Forgotten { events }| {
            let exact = subscriber.wants.is_everything()
                && answer.is_none_or(|(_, pattern)| pattern.wire_topic() == pattern.as_str());
            Note::Lost { events: if exact { events } else { 1 }, at_least: !exact, answer: answer_id }
        });
        let how = answer_id.map_or(How::Replayed, How::Answer);
        let end = Note::Replayed { answer: answer_id, at: self.history.head() };
        subscriber.queue.add_past(lost, events, how, vec![end]);
    }

    fn choose_link_topic(&self, topic: String, blocks: bool) -> LinkTopic {
        let wanted = LinkTopic { topic, blocks };
        let asked = self.link_topics();
        let may_ask = asked.contains(&wanted) || asked.len() < LINK_TOPICS;
        if may_ask { wanted } else { LinkTopic { topic: EVERYTHING.to_owned(), blocks } }
    }

    /// Removes a subscription.
    pub(super) fn unsubscribe(&mut self, id: SubscriberId) {
        self.ready.remove(&id);
        if let Some(subscriber) = self.subscribers.remove(&id) {
            self.counters.delivered += subscriber.queue.delivered;
            self.counters.dropped += subscriber.queue.dropped;
            self.has_room = true;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether a connection is that of a program of this node.
    pub(super) fn is_own(&self, id: SubscriberId) -> bool {
        self.subscribers.get(&id).is_some_and(|subscriber| subscriber.side == Side::Own)
    }

    /// What must be asked of peers' brokers.
    pub(super) fn link_topics(&self) -> BTreeSet<LinkTopic> {
        self.subscribers.values().filter_map(|subscriber| subscriber.link.clone()).collect()
    }

    /// What is asked of peers' brokers for this subscription.
    pub(super) fn link_topic(&self, id: SubscriberId) -> Option<&LinkTopic> {
        self.subscribers.get(&id)?.link.as_ref()
    }

    /// Takes an event that was published on a connection, for everybody it concerns and for the history.
    ///
    /// # Errors
    /// When publishers have to wait.
    pub(super) fn publish(
        &mut self,
        id: SubscriberId,
        event: &Event,
        time: u64,
        now: Instant,
    ) -> Result<(), Held> {
        if event.topic.starts_with(RESERVED_PREFIX) {
            return Ok(());
        }
        let concerned: Vec<_> = self
            .subscribers
            .iter()
            .filter(|(other, subscriber)| **other != id && subscriber.is_for(&event.topic, &self.may_hear))
            .map(|(id, _)| *id)
            .collect();
        self.may_add(&concerned, event, now)?;
        let publisher = self.subscribers.get(&id);
        let source = Source {
            publisher: publisher.map(|publisher| publisher.addr),
            hostname: publisher.and_then(|publisher| publisher.hostname.clone()),
            time: Some(time),
            at: Some(self.history.next()),
            ..Source::default()
        };
        self.counters.published += 1;
        let event = Arc::new(Published::new(event, source, Some(id), None));
        self.history.add(Arc::clone(&event));
        self.deliver(&concerned, &event, How::Live);
        Ok(())
    }

    /// Takes an event that came over a link; `is_past` when it was missed while the link was down.
    ///
    /// # Errors
    /// When the link has to wait.
    pub(super) fn delivered(
        &mut self,
        key: &LinkKey,
        delivered: &Delivered,
        is_past: bool,
        now: Instant,
    ) -> Result<(), Held> {
        let event = &delivered.event;
        let Some(facts) = self.links.get(key) else { return Ok(()) };
        let newest = if is_past { facts.newest_when_lost } else { u64::MAX };
        let concerned: Vec<_> = self
            .subscribers
            .iter()
            .filter(|(id, subscriber)| {
                id.0 <= newest
                    && subscriber.link.as_ref() == Some(&key.ask)
                    && subscriber.wants.matches(&event.topic)
            })
            .map(|(id, _)| *id)
            .collect();
        self.may_add(&concerned, event, now)?;
        if let Some(facts) = self.links.get_mut(key) {
            facts.received += 1;
            facts.at = delivered.source.at.or(facts.at);
        }
        self.counters.received += 1;
        if !concerned.is_empty() {
            let event = Arc::new(published_by_peer(key.node, delivered));
            self.deliver(&concerned, &event, if is_past { How::Replayed } else { How::Live });
        }
        Ok(())
    }

    fn may_add(&mut self, concerned: &[SubscriberId], event: &Event, now: Instant) -> Result<(), Held> {
        let length = event.wire_len();
        let mut held = Ok(());
        for id in concerned {
            if let Some(subscriber) = self.subscribers.get_mut(id)
                && subscriber.replay.is_none()
                && subscriber.queue.holds_up(length, now)
            {
                held = Err(Held);
            }
        }
        held
    }

    fn deliver(&mut self, concerned: &[SubscriberId], event: &Arc<Published>, how: How) {
        for id in concerned {
            if let Some(subscriber) = self.subscribers.get_mut(id)
                && subscriber.deliver(event, how)
            {
                self.finish_replay(*id);
            }
            self.ready.insert(*id);
        }
    }

    /// Everything that can be connected for this subscription is: tells so, and begins to gather the past it asked for.
    pub(super) fn confirm(&mut self, id: SubscriberId, brokers: u32) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        let link = subscriber.link.as_ref();
        let live: Vec<_> = self
            .links
            .iter()
            .filter(|(key, facts)| link == Some(&key.ask) && facts.is_live && facts.numbered)
            .map(|(key, facts)| (key.clone(), facts.at))
            .collect();
        let mut notes: Vec<_> =
            subscriber.base.take().map(|at| Note::At { broker: None, at }).into_iter().collect();
        notes.push(Note::Subscribed {
            brokers,
            overflow: subscriber.queue.overflow(),
            queue: u32::try_from(subscriber.queue.limit()).unwrap_or(u32::MAX),
        });
        subscriber.queue.tell_first(notes);
        subscriber.is_confirmed = true;
        if subscriber.replay.is_none() {
            let known = live.iter().filter(|(key, _)| !subscriber.catch_up.contains_key(&key.node));
            // Behind the events that are queued already: these lie before it.
            for (key, at) in known {
                if let Some(at) = at {
                    subscriber.queue.tell(note_at(key.node, *at));
                }
            }
        }
        self.ready.insert(id);
        if let Some(replay) = &mut subscriber.replay {
            let limit = replay.limit();
            let wants = &subscriber.wants;
            let may_hear = subscriber.side == Side::Own;
            let may_hear = |topic: &str| may_hear || (self.may_hear)(subscriber.addr.node, topic);
            let own = self.history.last(limit, |event| {
                event.origin != Some(id) && wants.matches(&event.topic) && may_hear(&event.topic)
            });
            replay.begin(own, self.history.head(), live.iter().map(|(key, _)| key.node));
            let ask = Ask {
                id: id.0,
                past: Past::Last(u32::try_from(limit).unwrap_or(u32::MAX)),
                pattern: wants.as_pattern().to_owned(),
            };
            self.asks.extend(live.into_iter().map(|(key, _)| (key, ask.clone())));
            if replay.is_complete() {
                self.finish_replay(id);
            }
        }
    }

    /// Whether the past that a subscription asked for is still awaited.
    pub(super) fn is_gathering(&self, id: SubscriberId) -> bool {
        self.subscribers.get(&id).is_some_and(|subscriber| subscriber.replay.is_some())
    }

    /// Delivers what was gathered for a subscription, and then what happened meanwhile.
    pub(super) fn finish_replay(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        let Some(replay) = subscriber.replay.take() else { return };
        let gathered = replay.finish();
        let ends = gathered
            .floors
            .iter()
            .map(|(broker, at)| Note::At { broker: broker.map(Addr::backbone), at: *at });
        subscriber.queue.add_past(None, gathered.past, How::Replayed, ends.collect());
        subscriber.floors.extend(gathered.floors);
        for event in gathered.meanwhile {
            subscriber.deliver(&event, How::Live);
        }
        self.ready.insert(id);
    }

    /// Another node asks about the past on its connection.
    pub(super) fn answer(&mut self, id: SubscriberId, ask: &Ask) {
        let Some(mut subscriber) = self.subscribers.remove(&id) else { return };
        let pattern = Pattern::new(ask.pattern.as_str());
        self.replay_own(&mut subscriber, id, ask.past, Some((ask.id, &pattern)));
        self.subscribers.insert(id, subscriber);
        self.ready.insert(id);
    }

    /// A broker answers a question with this event.
    pub(super) fn answered_with(&mut self, key: &LinkKey, ask: u64, delivered: &Delivered) {
        let Some(subscriber) = self.asked_by(key, ask) else { return };
        if !subscriber.wants.matches(&delivered.event.topic) {
            return;
        }
        let event = Arc::new(published_by_peer(key.node, delivered));
        if let Some(replay) = &mut subscriber.replay {
            replay.add(key.node, event);
        } else if let Some(catch_up) = subscriber.catch_up.get_mut(&key.node) {
            catch_up.add(event);
        }
    }

    /// A broker has answered a question; what it took up to `at` is covered.
    pub(super) fn answered(&mut self, key: &LinkKey, ask: u64, at: Position) {
        let Some(subscriber) = self.asked_by(key, ask) else { return };
        if let Some(replay) = &mut subscriber.replay {
            replay.answered(key.node, at);
            if replay.is_complete() {
                self.finish_replay(SubscriberId(ask));
            }
        } else if let Some(catch_up) = subscriber.catch_up.remove(&key.node) {
            let (past, meanwhile) = catch_up.finish();
            subscriber.queue.add_past(None, past, How::Replayed, vec![note_at(key.node, at)]);
            subscriber.floors.insert(Some(key.node), at);
            for event in meanwhile {
                subscriber.deliver(&event, How::Live);
            }
            self.ready.insert(SubscriberId(ask));
        }
    }

    fn asked_by(&mut self, key: &LinkKey, ask: u64) -> Option<&mut Subscriber> {
        self.subscribers.get_mut(&SubscriberId(ask)).filter(|asked| asked.link.as_ref() == Some(&key.ask))
    }

    /// A broker says that events for this node are lost, in general or in the answer to a question.
    pub(super) fn lost(&mut self, key: &LinkKey, events: u64, at_least: bool, answer: Option<u64>) {
        if let Some(facts) = self.links.get_mut(key) {
            facts.lost += events;
        }
        for (id, subscriber) in &mut self.subscribers {
            let is_concerned =
                subscriber.link.as_ref() == Some(&key.ask) && answer.is_none_or(|ask| ask == id.0);
            if is_concerned {
                // Of what was lost, some may not have been for a pattern.
                let all = answer.is_some() || subscriber.wants.as_pattern() == key.ask.topic;
                subscriber.queue.lose(if all { events } else { 1 }, at_least || !all);
            }
        }
    }

    /// A link is up, at this place if its broker numbers events.
    pub(super) fn link_up(&mut self, key: &LinkKey, numbered: bool, at: Option<Position>) {
        let facts = self.links.entry(key.clone()).or_default();
        (facts.is_live, facts.numbered) = (true, numbered);
        let is_new = facts.at.is_none();
        facts.at = facts.at.or(at);
        if !numbered {
            return;
        }
        let concerned = |subscriber: &Subscriber| subscriber.link.as_ref() == Some(&key.ask);
        let ids: Vec<_> = self.subscribers.iter().filter(|(_, s)| concerned(s)).map(|(id, _)| *id).collect();
        for id in ids {
            self.ask_missed(id, key);
            if let Some(subscriber) = self.subscribers.get_mut(&id)
                && is_new
                && subscriber.is_confirmed
                && let Some(at) = at
                && subscriber.replay.is_none()
                && !subscriber.catch_up.contains_key(&key.node)
            {
                subscriber.queue.tell(note_at(key.node, at));
                self.ready.insert(id);
            }
        }
    }

    fn ask_missed(&mut self, id: SubscriberId, key: &LinkKey) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        let Some(catch_up) = subscriber.catch_up.get_mut(&key.node) else { return };
        if let Some(after) = catch_up.ask() {
            let pattern = subscriber.wants.as_pattern().to_owned();
            self.asks.push((key.clone(), Ask { id: id.0, past: Past::After(after), pattern }));
        }
    }

    /// A link is down.
    pub(super) fn link_down(&mut self, key: &LinkKey) {
        if let Some(facts) = self.links.get_mut(key) {
            if facts.is_live {
                facts.newest_when_lost = self.next;
            }
            facts.is_live = false;
        }
        self.ask_failed(key);
    }

    /// Questions could not be put to a broker: nobody waits for its answers any longer.
    pub(super) fn ask_failed(&mut self, key: &LinkKey) {
        let mut complete = Vec::new();
        for (id, subscriber) in &mut self.subscribers {
            if subscriber.link.as_ref() != Some(&key.ask) {
                continue;
            }
            if let Some(replay) = &mut subscriber.replay {
                replay.give_up(key.node);
                if replay.is_complete() {
                    complete.push(*id);
                }
            }
            if subscriber.catch_up.get(&key.node).is_some_and(CatchUp::is_asked)
                && let Some(catch_up) = subscriber.catch_up.remove(&key.node)
            {
                let (past, meanwhile) = catch_up.finish();
                subscriber.queue.add_past(None, past, How::Replayed, Vec::new());
                subscriber.queue.lose(1, true);
                for event in meanwhile {
                    subscriber.deliver(&event, How::Live);
                }
                self.ready.insert(*id);
            }
        }
        for id in complete {
            self.finish_replay(id);
        }
    }

    /// A link is wanted no longer.
    pub(super) fn link_gone(&mut self, key: &LinkKey) {
        self.link_down(key);
        self.links.remove(key);
    }

    /// A renewed link has caught up to here.
    pub(super) fn link_reached(&mut self, key: &LinkKey, at: Position) {
        if let Some(facts) = self.links.get_mut(key) {
            facts.at = Some(at);
        }
    }

    /// A broker waits for this node no longer: blocking subscribers may lose events there.
    pub(super) fn link_demoted(&mut self, key: &LinkKey) {
        for (id, subscriber) in &mut self.subscribers {
            if subscriber.link.as_ref() == Some(&key.ask) && subscriber.queue.overflow() == Overflow::Block {
                subscriber.queue.tell(Note::Demoted);
                self.ready.insert(*id);
            }
        }
    }

    /// Queues a note for one subscriber, if it asked for notes.
    pub(super) fn tell(&mut self, id: SubscriberId, note: Note) {
        if let Some(subscriber) = self.subscribers.get_mut(&id)
            && subscriber.token.is_some()
        {
            subscriber.queue.tell(note);
            self.ready.insert(id);
        }
    }

    /// Counts a publication that the rules refused.
    pub(super) fn refused(&mut self) {
        self.counters.refused += 1;
    }

    /// Those for whom something was queued and whose writers are idle; each is named once.
    pub(super) fn take_ready(&mut self) -> Vec<SubscriberId> {
        let ready = std::mem::take(&mut self.ready);
        let is_idle = |id: &SubscriberId| self.subscribers.get(id).is_some_and(|s| s.writer_is_idle);
        ready.into_iter().filter(is_idle).collect()
    }

    /// Questions to be put to other brokers.
    pub(super) fn take_asks(&mut self) -> Vec<(LinkKey, Ask)> {
        std::mem::take(&mut self.asks)
    }

    /// Whether a blocking subscriber has had room since this was asked last.
    pub(super) fn take_room(&mut self) -> bool {
        std::mem::take(&mut self.has_room)
    }

    /// What the subscriber's writer writes next; it is busy until [`Hub::writer_idle`]. `None` when nothing is queued.
    pub(super) fn take(&mut self, id: SubscriberId, now: Instant) -> Option<Bytes> {
        let subscriber = self.subscribers.get_mut(&id)?;
        let taken = subscriber.queue.take(subscriber.token.as_ref(), now);
        self.has_room |= taken.events > 0 && subscriber.queue.overflow() == Overflow::Block;
        subscriber.writer_is_idle = taken.batch.is_none();
        taken.batch
    }

    /// The subscriber's writer has written what it took.
    pub(super) fn writer_idle(&mut self, id: SubscriberId) {
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            subscriber.writer_is_idle = true;
            self.ready.insert(id);
        }
    }

    /// When the patience with a blocking subscriber ends next.
    pub(super) fn next_stall(&self) -> Option<Instant> {
        self.subscribers.values().filter_map(Subscriber::stalls_at).min()
    }

    /// Blocking subscribers that have not read for too long block nobody from now on.
    pub(super) fn demote_stalled(&mut self, now: Instant) {
        for (id, subscriber) in &mut self.subscribers {
            if subscriber.stalls_at().is_some_and(|at| at <= now) {
                tracing::warn!(subscriber = %subscriber.addr, topic = subscriber.wants.as_pattern(), "a blocking subscriber does not read: its oldest events are dropped from now on");
                subscriber.queue.demote(now);
                self.counters.demoted += 1;
                self.has_room = true;
                self.ready.insert(*id);
            }
        }
    }

    /// Each subscription that wants something.
    pub(super) fn subscriptions(&self, now: Instant) -> Vec<SubscriptionStatus> {
        let wants_something =
            |(_, subscriber): &(&SubscriberId, &Subscriber)| subscriber.wants.as_pattern() != NOTHING;
        self.subscribers
            .iter()
            .filter(wants_something)
            .map(|(id, Subscriber { side, addr, wants, queue, .. })| {
                let waiting =
                    queue.stalled().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
                SubscriptionStatus {
                    id: id.0,
                    node: *addr,
                    own: *side == Side::Own,
                    topic: wants.as_pattern().to_owned(),
                    policy: queue.overflow(),
                    demoted: queue.demoted,
                    queue: u32::try_from(queue.limit()).unwrap_or(u32::MAX),
                    queued: queue.len() as u64,
                    delivered: queue.delivered,
                    dropped: queue.dropped,
                    blocked_ms: u64::try_from((queue.blocked + waiting).as_millis()).unwrap_or(u64::MAX),
                }
            })
            .collect()
    }

    /// How a link stands.
    pub(super) fn link_counters(&self, key: &LinkKey) -> LinkCounters {
        self.links.get(key).map_or_else(LinkCounters::default, |facts| LinkCounters {
            numbered: facts.numbered,
            at: facts.at,
            received: facts.received,
            lost: facts.lost,
        })
    }

    pub(super) fn history(&self) -> HistoryStatus {
        self.history.status()
    }

    /// What passed through, of living subscriptions too.
    pub(super) fn counters(&self) -> EventCounters {
        let mut counters = self.counters.clone();
        for subscriber in self.subscribers.values() {
            counters.delivered += subscriber.queue.delivered;
            counters.dropped += subscriber.queue.dropped;
        }
        counters
    }
}

impl Subscriber {
    /// Whether it wants and may have events of this topic that were published here.
    fn is_for(&self, topic: &str, may_hear: &MayHear) -> bool {
        self.wants.matches(topic)
            && match self.side {
                Side::Own => true,
                Side::Other => may_hear(self.addr.node, topic),
            }
    }

    /// Queues an event or holds it back; says whether it holds back so much that it must not wait any longer.
    fn deliver(&mut self, event: &Arc<Published>, how: How) -> bool {
        if let (Some(floor), Some(at)) = (self.floors.get(&event.broker), event.at())
            && floor.epoch == at.epoch
            && at.seq <= floor.seq
        {
            return false;
        }
        if let Some(replay) = &mut self.replay {
            return replay.hold(Arc::clone(event));
        }
        let catch_up = event.broker.and_then(|broker| self.catch_up.get_mut(&broker));
        match catch_up {
            Some(catch_up) if catch_up.is_asked() => {
                if !catch_up.hold(Arc::clone(event)) {
                    self.queue.dropped += 1;
                    self.queue.lose(1, false);
                }
            }
            Some(_) | None => self.queue.push(Arc::clone(event), how),
        }
        false
    }

    fn stalls_at(&self) -> Option<Instant> {
        let patience = match self.side {
            Side::Own => STALL_OWN,
            Side::Other => STALL_OTHER,
        };
        self.queue.stalled().map(|since| since + patience)
    }
}

fn note_at(node: NodeId, at: Position) -> Note {
    Note::At { broker: Some(Addr::backbone(node)), at }
}

fn published_by_peer(node: NodeId, delivered: &Delivered) -> Published {
    let source = Source {
        publisher: delivered.source.publisher,
        hostname: delivered.source.hostname.clone(),
        via: Some(Addr::backbone(node)),
        time: Some(delivered.source.time.unwrap_or(delivered.received)),
        at: delivered.source.at,
        ..Source::default()
    };
    Published::new(&delivered.event, source, None, Some(node))
}

#[cfg(test)]
mod tests;
