//! What local programs wait for only so long.

use std::collections::BTreeMap;
use std::time::Instant;

use pilot_proto::PingId;
use pilot_wire::NodeId;

/// What is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// A program has waited long enough for a pong.
    Ping(PingId),
    /// The waits for trust in this node are to be looked at.
    Trust(NodeId),
    /// A handshake request has been under way for long.
    Request(NodeId),
    /// Whoever started the daemon has waited long enough for the registry.
    Ready,
}

/// A table of deadlines, in order of time. Each belongs to a request that a program waits for, and those are bounded.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeMap<(Instant, u64), Deadline>,
    next: u64,
}

impl Deadlines {
    pub(super) fn add(&mut self, at: Instant, deadline: Deadline) {
        self.by_time.insert((at, self.next), deadline);
        self.next += 1;
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first_key_value().map(|((at, _), _)| *at)
    }

    /// The first deadline that has passed.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Deadline> {
        let entry = self.by_time.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}
