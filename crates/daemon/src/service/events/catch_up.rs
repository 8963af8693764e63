//! Events of the past on their way to one subscriber, and what happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilot_wire::NodeId;
use pilot_wire::events::{Position, REPLAY_MAX};

use super::published::Published;
use super::queue::QUEUE_BYTES;

/// Events held back for one subscriber while answers are awaited. With more, it waits no longer.
const HELD_EVENTS: usize = 4096;

/// A list with bounds.
#[derive(Default)]
struct Held {
    events: Vec<Arc<Published>>,
    bytes: usize,
}

impl Held {
    fn add(&mut self, event: Arc<Published>) {
        self.bytes += event.frame.len();
        self.events.push(event);
    }

    fn is_full(&self, events: usize) -> bool {
        self.events.len() >= events || self.bytes >= QUEUE_BYTES
    }
}

/// The last events of all brokers, being gathered for a new subscription.
pub(super) struct Replay {
    limit: u32,
    /// Whose answers are awaited; `None` until the questions are put.
    waiting: Option<BTreeSet<NodeId>>,
    past: Held,
    /// Events of each broker in `past`.
    counts: BTreeMap<NodeId, u32>,
    floors: BTreeMap<Option<NodeId>, Position>,
    meanwhile: Held,
}

/// What was gathered.
pub(super) struct Gathered {
    /// In the order of their times.
    pub(super) past: Vec<Arc<Published>>,
    /// Up to where each broker is covered by it.
    pub(super) floors: BTreeMap<Option<NodeId>, Position>,
    /// What happened while it was gathered; may repeat some of the past.
    pub(super) meanwhile: Vec<Arc<Published>>,
}

impl Replay {
    pub(super) fn of_last(count: u32) -> Self {
        Self {
            limit: count.min(REPLAY_MAX),
            waiting: None,
            past: Held::default(),
            counts: BTreeMap::new(),
            floors: BTreeMap::new(),
            meanwhile: Held::default(),
        }
    }

    pub(super) fn limit(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    /// The own history is here, and `asked` are.
    pub(super) fn begin(
        &mut self,
        own: Vec<Arc<Published>>,
        head: Position,
        asked: impl Iterator<Item = NodeId>,
    ) {
        own.into_iter().for_each(|event| self.past.add(event));
        self.floors.insert(None, head);
        self.waiting = Some(asked.collect());
    }

    /// One event of an answer. A broker that sends more than it was asked for is cut short.
    pub(super) fn add(&mut self, node: NodeId, event: Arc<Published>) {
        let is_awaited = self.waiting.as_ref().is_some_and(|waiting| waiting.contains(&node));
        let of_node = self.counts.entry(node).or_default();
        if is_awaited && *of_node < self.limit && self.past.bytes < QUEUE_BYTES {
            *of_node += 1;
            self.past.add(event);
        }
    }

    pub(super) fn answered(&mut self, node: NodeId, at: Position) {
        if self.waiting.as_mut().is_some_and(|waiting| waiting.remove(&node)) {
            self.floors.insert(Some(node), at);
        }
    }

    /// This broker will not answer.
    pub(super) fn give_up(&mut self, node: NodeId) {
        if let Some(waiting) = &mut self.waiting {
            waiting.remove(&node);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.waiting.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Keeps what happens now until the past is here; says whether it is too much.
    pub(super) fn hold(&mut self, event: Arc<Published>) -> bool {
        self.meanwhile.add(event);
        self.meanwhile.is_full(HELD_EVENTS)
    }

    pub(super) fn finish(mut self) -> Gathered {
        // Of a broker that did not come to the end of its answer nothing is covered.
        let floors = self.floors;
        self.past.events.retain(|event| floors.contains_key(&event.broker));
        self.past.events.sort_by_key(|event| event.source.time);
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let too_many = self.past.events.len().saturating_sub(limit);
        self.past.events.drain(..too_many);
        Gathered { past: self.past.events, floors, meanwhile: self.meanwhile.events }
    }
}

/// What one broker published while a subscription was interrupted.
pub(super) enum CatchUp {
    /// There is no link to ask over.
    Waiting(Position),
    /// The answer is awaited.
    Asked(Answer),
}

/// An answer as far as it is here.
#[derive(Default)]
pub(super) struct Answer {
    past: Held,
    meanwhile: Held,
}

impl CatchUp {
    /// After which event to ask, if that is still to be done.
    pub(super) fn ask(&mut self) -> Option<Position> {
        match self {
            Self::Waiting(after) => {
                let after = *after;
                *self = Self::Asked(Answer::default());
                Some(after)
            }
            Self::Asked(_) => None,
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        matches!(self, Self::Asked(_))
    }

    pub(super) fn add(&mut self, event: Arc<Published>) {
        if let Self::Asked(Answer { past, .. }) = self
            && !past.is_full(REPLAY_MAX as usize)
        {
            past.add(event);
        }
    }

    /// Keeps what happens now until the answer is here; says whether it fits. No honest answer takes so long that it
    /// does not.
    pub(super) fn hold(&mut self, event: Arc<Published>) -> bool {
        match self {
            Self::Asked(Answer { meanwhile, .. }) if !meanwhile.is_full(HELD_EVENTS) => {
                meanwhile.add(event);
                true
            }
            Self::Asked(_) | Self::Waiting(_) => false,
        }
    }

    /// What was missed, and what happened while it was asked for.
    pub(super) fn finish(self) -> (Vec<Arc<Published>>, Vec<Arc<Published>>) {
        match self {
            Self::Waiting(_) => (Vec::new(), Vec::new()),
            Self::Asked(Answer { past, meanwhile }) => (past.events, meanwhile.events),
        }
    }
}
