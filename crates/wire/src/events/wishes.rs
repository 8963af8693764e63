//! What a subscriber asks of a broker of this implementation besides a topic.
//!
//! It rides behind the token in the payload of the subscription ([`NoteToken`](super::NoteToken)), which other
//! brokers ignore.

use serde::{Deserialize, Serialize};

use crate::Addr;

/// Brokers a resubscription may name in [`Wishes::resume`]; further ones are ignored.
pub const RESUME_MAX: usize = 512;

/// Most events of the past one subscription may ask for.
pub const REPLAY_MAX: u32 = 10_000;

/// What becomes of an event for which a subscriber's queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// The oldest in the queue makes room: events are news, and the newest say most.
    #[default]
    DropOldest,
    /// It is dropped itself: what is queued stays as it is.
    DropNewest,
    /// Its publisher waits until there is room, so that nothing is lost while the subscriber reads.
    Block,
}

impl Overflow {
    /// Its name in options and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DropOldest => "drop-oldest",
            Self::DropNewest => "drop-newest",
            Self::Block => "block",
        }
    }
}

/// A place in the order in which one broker took its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which life of the broker: the Unix time of its start in nanoseconds. Only equality says anything.
    pub epoch: u64,
    /// The number of the event in that life, from 1. A broker that has none yet stands at 0.
    pub seq: u64,
}

/// How far the events of one broker have come to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Whose broker; `None` is the one that is spoken to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<Addr>,
    /// The last event of it that came.
    pub at: Position,
}

/// What a subscriber wants besides the topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wishes {
    /// What happens when its queue is full. A broker may grant less than [`Overflow::Block`].
    pub overflow: Overflow,
    /// How many events its queue is to hold; brokers have an upper limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// Deliver up to so many of the last matching events first, at most [`REPLAY_MAX`].
    #[serde(skip_serializing_if = "is_zero")]
    pub replay: u32,
    /// This subscription goes on with an earlier one, which came so far: deliver what was missed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resume: Vec<Reached>,
    /// A pattern that narrows the topic of the subscription down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Which events of the past are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Past {
    /// The last so many.
    Last(u32),
    /// All after this one.
    After(Position),
}

/// A question about the past on a connection that has subscribed. The answer is tagged with `id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Comes back with each event of the answer.
    pub id: u64,
    /// Which events.
    pub past: Past,
    /// Of which topics.
    pub pattern: String,
}
