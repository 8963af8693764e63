//! Who gets which event: subscriptions and their queues, without time, tasks or streams.
//!
//! Rules of release 1.18.0 for other nodes' connections: the topic or `*`, literally, and never one's own
//! publications. The owner's applications (connections from the own node) may subscribe to patterns, and get
//! what the brokers of trusted nodes deliver besides. What such a broker delivered goes to them only, so
//! events cannot run in circles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use pilot_wire::events::{EVERYTHING, Event, NOTHING, Note, NoteToken, Pattern, RESERVED_PREFIX};
use pilot_wire::{Addr, NodeId};

/// Events queued for one subscriber. When it falls further behind, its oldest are dropped: events are news, and
/// the newest of them say most. The subscriber is told how many it lost.
const QUEUE_EVENTS: usize = 4096;

/// Bytes queued for one subscriber, with the same effect. Two of the longest events fit.
const QUEUE_BYTES: usize = 33 << 20;

/// Bytes handed to a writer at a time, so that many small events leave in one write.
const BATCH_LEN: usize = 64 << 10;

/// Literal topics asked of peers' brokers, each over a connection of its own. Further ones are served by
/// asking for everything.
const LINK_TOPICS: usize = 16;

/// One subscription, that is, one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SubscriberId(u64);

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) enum Side {
    /// An application of this node.
    Own,
    /// Another node.
    Other,
}

/// Where an event came in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// On the connection of a publisher.
    Connection(SubscriberId),
    /// From the broker of a trusted node, where this node subscribed to `topic`.
    Broker {
        /// The node.
        node: NodeId,
        /// What was subscribed to there.
        topic: &'a str,
        /// Who published it there, as that broker says.
        publisher: Option<Addr>,
    },
}

struct Subscriber {
    side: Side,
    addr: Addr,
    wants: Pattern,
    /// What is asked of peers' brokers on its behalf.
    link_topic: Option<String>,
    token: Option<NoteToken>,
    queue: VecDeque<Bytes>,
    queued: usize,
    lost: u64,
    /// Its writer waits for a batch.
    writer_is_idle: bool,
}

/// All subscriptions.
#[derive(Default)]
pub(super) struct Hub {
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    next: u64,
}

impl Hub {
    /// Adds a subscription; its writer is taken to be idle.
    pub(super) fn subscribe(
        &mut self,
        side: Side,
        addr: Addr,
        topic: &str,
        token: Option<NoteToken>,
    ) -> SubscriberId {
        self.next += 1;
        let id = SubscriberId(self.next);
        let wants = Pattern::new(topic);
        let link_topic = match side {
            Side::Own if topic != NOTHING => Some(self.choose_link_topic(wants.wire_topic())),
            Side::Own | Side::Other => None,
        };
        let subscriber = Subscriber {
            side,
            addr,
            wants,
            link_topic,
            token,
            queue: VecDeque::new(),
            queued: 0,
            lost: 0,
            writer_is_idle: true,
        };
        self.subscribers.insert(id, subscriber);
        id
    }

    fn choose_link_topic(&self, wire_topic: &str) -> String {
        let asked = self.link_topics();
        let may_ask = asked.contains(wire_topic) || asked.len() < LINK_TOPICS;
        if may_ask { wire_topic.to_owned() } else { EVERYTHING.to_owned() }
    }

    /// Removes a subscription.
    pub(super) fn unsubscribe(&mut self, id: SubscriberId) {
        self.subscribers.remove(&id);
    }

    pub(super) fn len(&self) -> usize {
        self.subscribers.len()
    }

    /// What must be asked of peers' brokers.
    pub(super) fn link_topics(&self) -> BTreeSet<&str> {
        self.subscribers.values().filter_map(|subscriber| subscriber.link_topic.as_deref()).collect()
    }

    /// What is asked of peers' brokers for this subscription.
    pub(super) fn link_topic(&self, id: SubscriberId) -> Option<&str> {
        self.subscribers.get(&id)?.link_topic.as_deref()
    }

    /// Queues an event for everybody it concerns, and names those whose writers can go on.
    pub(super) fn publish(&mut self, origin: Origin<'_>, event: &Event) -> Vec<SubscriberId> {
        if event.topic.starts_with(RESERVED_PREFIX) {
            return Vec::new();
        }
        let note = match origin {
            Origin::Connection(id) => {
                Note::From { publisher: self.subscribers.get(&id).map(|publisher| publisher.addr), via: None }
            }
            Origin::Broker { node, publisher, .. } => {
                Note::From { publisher, via: Some(Addr::backbone(node)) }
            }
        };
        let mut frame = Vec::new();
        event.emit(&mut frame);
        let frame = Bytes::from(frame);
        let mut ready = Vec::new();
        for (id, subscriber) in &mut self.subscribers {
            if !subscriber.is_concerned(*id, origin, &event.topic) {
                continue;
            }
            let frame = match &subscriber.token {
                Some(token) => {
                    let mut both = Vec::new();
                    token.note(&note).emit(&mut both);
                    both.extend_from_slice(&frame);
                    Bytes::from(both)
                }
                None => frame.clone(),
            };
            subscriber.push(frame);
            if subscriber.writer_is_idle {
                ready.push(*id);
            }
        }
        ready
    }

    /// Queues a note for one subscriber, if it asked for notes; says whether its writer can go on.
    pub(super) fn tell(&mut self, id: SubscriberId, note: &Note) -> bool {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return false };
        let Some(token) = &subscriber.token else { return false };
        let mut frame = Vec::new();
        token.note(note).emit(&mut frame);
        subscriber.push(Bytes::from(frame));
        subscriber.writer_is_idle
    }

    /// What the subscriber's writer writes next; it is busy until [`Hub::writer_idle`]. `None` when nothing is queued.
    pub(super) fn take(&mut self, id: SubscriberId) -> Option<Bytes> {
        let subscriber = self.subscribers.get_mut(&id)?;
        let batch = subscriber.take();
        subscriber.writer_is_idle = batch.is_none();
        batch
    }

    /// The subscriber's writer has written what it took.
    pub(super) fn writer_idle(&mut self, id: SubscriberId) {
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            subscriber.writer_is_idle = true;
        }
    }
}

impl Subscriber {
    fn is_concerned(&self, id: SubscriberId, origin: Origin<'_>, topic: &str) -> bool {
        match (self.side, origin) {
            (_, Origin::Connection(publisher)) if publisher == id => false,
            (Side::Own, Origin::Connection(_)) => self.wants.matches(topic),
            (Side::Own, Origin::Broker { topic: asked, .. }) => {
                self.link_topic.as_deref() == Some(asked) && self.wants.matches(topic)
            }
            (Side::Other, Origin::Connection(_)) => {
                self.wants.as_str() == topic || self.wants.as_str() == EVERYTHING
            }
            (Side::Other, Origin::Broker { .. }) => false,
        }
    }

    fn push(&mut self, frame: Bytes) {
        self.queued += frame.len();
        self.queue.push_back(frame);
        while self.queue.len() > QUEUE_EVENTS || self.queued > QUEUE_BYTES {
            let Some(oldest) = self.queue.pop_front() else { return };
            self.queued -= oldest.len();
            self.lost += 1;
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        if self.lost == 0 && (self.queue.len() == 1 || self.queue.front()?.len() >= BATCH_LEN) {
            let frame = self.queue.pop_front()?;
            self.queued -= frame.len();
            return Some(frame);
        }
        let mut batch = Vec::new();
        let lost = std::mem::take(&mut self.lost);
        if let Some(token) = self.token.as_ref().filter(|_| lost > 0) {
            token.note(&Note::Lost { events: lost }).emit(&mut batch);
        }
        while let Some(frame) = self.queue.front() {
            if !batch.is_empty() && batch.len() + frame.len() > BATCH_LEN {
                break;
            }
            batch.extend_from_slice(frame);
            self.queued -= frame.len();
            self.queue.pop_front();
        }
        (!batch.is_empty()).then(|| Bytes::from(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDR: Addr = Addr::backbone(NodeId(2));

    fn event(topic: &str) -> Event {
        Event::new(topic, &b"x"[..]).unwrap()
    }

    fn other(hub: &mut Hub, topic: &str) -> SubscriberId {
        hub.subscribe(Side::Other, ADDR, topic, None)
    }

    fn own(hub: &mut Hub, topic: &str) -> SubscriberId {
        hub.subscribe(Side::Own, ADDR, topic, None)
    }

    fn events_in(bytes: &[u8]) -> Vec<Event> {
        let mut decoder = pilot_wire::events::Decoder::new();
        decoder.feed(bytes);
        std::iter::from_fn(|| decoder.next_event().unwrap()).collect()
    }

    #[test]
    fn other_nodes_match_literally_and_the_owner_by_pattern() {
        let mut hub = Hub::default();
        let publisher = other(&mut hub, "a.b");
        let literal = other(&mut hub, "a.b");
        let everything = other(&mut hub, "*");
        let wild = other(&mut hub, "a.*");
        let mine = own(&mut hub, "a.*");
        let ready = hub.publish(Origin::Connection(publisher), &event("a.b"));
        assert_eq!(ready, [literal, everything, mine]);
        assert_eq!(hub.publish(Origin::Connection(publisher), &event("a.*")), [everything, wild, mine]);
    }

    #[test]
    fn what_a_peers_broker_delivered_goes_to_the_owner_only_and_once() {
        let mut hub = Hub::default();
        other(&mut hub, "*");
        let literal = own(&mut hub, "news");
        let everything = own(&mut hub, "*");
        let from = |topic| Origin::Broker { node: NodeId(3), topic, publisher: None };
        assert_eq!(hub.publish(from("news"), &event("news")), [literal]);
        assert_eq!(hub.publish(from("*"), &event("news")), [everything]);
    }

    #[test]
    fn a_slow_subscriber_loses_its_oldest_events_and_learns_how_many() {
        let mut hub = Hub::default();
        let publisher = own(&mut hub, NOTHING);
        let token = NoteToken::from_random([1; 16]);
        let slow = hub.subscribe(Side::Own, ADDR, "*", Some(token.clone()));
        for number in 0..QUEUE_EVENTS + 10 {
            hub.publish(Origin::Connection(publisher), &Event::new("n", number.to_string()).unwrap());
        }
        let first = events_in(&hub.take(slow).unwrap());
        assert_eq!(token.read(&first[0]), Some(Note::Lost { events: 10 }));
        assert_eq!(first[2].payload, "10");
    }

    #[test]
    fn small_events_are_written_together_and_a_lone_one_at_once() {
        let mut hub = Hub::default();
        let publisher = own(&mut hub, NOTHING);
        let reader = other(&mut hub, "t");
        assert_eq!(hub.publish(Origin::Connection(publisher), &event("t")), [reader]);
        assert_eq!(events_in(&hub.take(reader).unwrap()), [event("t")]);
        assert_eq!(hub.publish(Origin::Connection(publisher), &event("t")), [], "its writer is busy");
        hub.publish(Origin::Connection(publisher), &event("t"));
        hub.writer_idle(reader);
        assert_eq!(events_in(&hub.take(reader).unwrap()).len(), 2);
        assert_eq!(hub.take(reader), None);
    }

    #[test]
    fn many_topics_are_asked_for_together() {
        let mut hub = Hub::default();
        for number in 0..100 {
            own(&mut hub, &format!("topic-{number}"));
        }
        own(&mut hub, NOTHING);
        assert_eq!(hub.link_topics().len(), LINK_TOPICS + 1);
        assert!(hub.link_topics().contains(EVERYTHING));
    }

    #[test]
    fn reserved_topics_reach_nobody() {
        let mut hub = Hub::default();
        let publisher = own(&mut hub, "*");
        other(&mut hub, "*");
        assert_eq!(hub.publish(Origin::Connection(publisher), &event("\0pilot.governed.v1")), []);
    }
}
