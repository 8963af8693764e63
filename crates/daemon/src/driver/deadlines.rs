//! What local programs wait for only so long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pilot_proto::PingId;
use pilot_wire::NodeId;

use super::netcheck::CheckId;
use super::paths::InquiryId;

/// What is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// A program has waited long enough for a pong.
    Ping(PingId),
    /// A program has waited long enough to hear why a peer is reached as it is.
    Why(InquiryId),
    /// The peer that such a question is about should be asked once more.
    WhyAgain(InquiryId),
    /// A program has waited long enough for a check of the network.
    Netcheck(CheckId),
    /// The waits for trust in this node are to be looked at.
    Trust(NodeId),
    /// A handshake request has been under way for long.
    Request(NodeId),
    /// Whoever started the daemon has waited long enough for the registry.
    Ready,
    /// Trust could not be written to disk: try again.
    Store,
    /// What was learned of others is to be written.
    Memory,
    /// The beacon is asked over UDP whether it hears us.
    LookForUdp,
    /// The registry is asked again who the members of networks are.
    Networks,
    /// The registry is asked for its beacons.
    Beacons,
}

/// Longest time that a program may wait in one request. More is as good as for ever, and must not overflow the clock.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Names one entry, so that it can be taken out.
pub(super) type Key = (Instant, u64);

/// A table of deadlines, in order of time. Each belongs to a request that a program waits for, and those are bounded.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeMap<Key, Deadline>,
    next: u64,
}

impl Deadlines {
    pub(super) fn add(&mut self, at: Instant, deadline: Deadline) -> Key {
        let key = (at, self.next);
        self.by_time.insert(key, deadline);
        self.next += 1;
        key
    }

    /// What was waited for has happened.
    pub(super) fn cancel(&mut self, key: Key) {
        self.by_time.remove(&key);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_up_in_order_and_cancelled_ones_do_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        deadlines.add(at(3), Deadline::Trust(NodeId(3)));
        let cancelled = deadlines.add(at(2), Deadline::Trust(NodeId(2)));
        deadlines.add(at(1), Deadline::Ready);
        deadlines.cancel(cancelled);
        assert_eq!(deadlines.next(), Some(at(1)));
        assert_eq!(deadlines.pop(start), None);
        assert_eq!(deadlines.pop(at(9)), Some(Deadline::Ready));
        assert_eq!(deadlines.pop(at(9)), Some(Deadline::Trust(NodeId(3))));
        assert_eq!(deadlines.next(), None);
    }
}
