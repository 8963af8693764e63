//! Copies of the packets that a node sends and receives, for whoever watches it.
//!
//! A packet is looked at where it is in clear and not in a frame: before it is sealed, after it was opened. While nobody
//! watches this costs a comparison for each packet, and nothing else.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use pilot_wire::NodeId;
use pilot_wire::capture::{Carrier, Counts, Direction, Filter, Meta};

use crate::path::Via;

/// Watchers at one time.
pub const TAPS_MAX: usize = 8;

/// Bytes that wait for one watcher. What comes when it is full is dropped and counted: a watcher that is slow misses
/// packets, and holds up nothing.
const QUEUE_MAX: usize = 8 << 20;

/// Bytes of a packet that waits, besides its own.
const OVERHEAD: usize = 128;

/// Names a watcher. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TapId(u64);

/// A packet that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// How it went.
    pub meta: Meta,
    /// The packet.
    pub packet: Box<[u8]>,
}

/// A packet that passes, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passing {
    pub(crate) at: Instant,
    pub(crate) direction: Direction,
    pub(crate) peer: NodeId,
    /// None if it goes from this node to itself.
    pub(crate) via: Option<Via>,
    pub(crate) beacon: Option<SocketAddr>,
    pub(crate) encrypted: bool,
}

/// Those who watch.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    taps: Vec<Tap>,
    next: u64,
}

#[derive(Debug)]
struct Tap {
    id: TapId,
    filter: Filter,
    queue: VecDeque<Seen>,
    /// Bytes in `queue`.
    queued: usize,
    counts: Counts,
}

impl Taps {
    pub(crate) fn add(&mut self, filter: Filter) -> Option<TapId> {
        if self.taps.len() >= TAPS_MAX {
            return None;
        }
        let id = TapId(self.next);
        self.next += 1;
        let (queue, counts) = (VecDeque::new(), Counts::default());
        self.taps.push(Tap { id, filter, queue, queued: 0, counts });
        Some(id)
    }

    pub(crate) fn remove(&mut self, id: TapId) {
        self.taps.retain(|tap| tap.id != id);
    }

    /// Whether anybody watches.
    pub(crate) const fn is_open(&self) -> bool {
        !self.taps.is_empty()
    }

    /// Shows a packet to those who want it.
    pub(crate) fn show(&mut self, passing: Passing, packet: &[u8]) {
        for tap in self.taps.iter_mut().filter(|tap| tap.filter.admits(passing.peer, packet)) {
            tap.counts.seen += 1;
            let cost = packet.len() + OVERHEAD;
            if tap.queued + cost > QUEUE_MAX {
                tap.counts.dropped += 1;
                continue;
            }
            tap.queued += cost;
            tap.queue.push_back(Seen { at: passing.at, meta: passing.meta(), packet: packet.into() });
        }
    }

    pub(crate) fn peek(&self, id: TapId) -> Option<&Seen> {
        self.get(id)?.queue.front()
    }

    pub(crate) fn take(&mut self, id: TapId) -> Option<Seen> {
        let tap = self.taps.iter_mut().find(|tap| tap.id == id)?;
        let seen = tap.queue.pop_front()?;
        tap.queued -= seen.packet.len() + OVERHEAD;
        Some(seen)
    }

    pub(crate) fn counts(&self, id: TapId) -> Counts {
        self.get(id).map(|tap| tap.counts).unwrap_or_default()
    }

    fn get(&self, id: TapId) -> Option<&Tap> {
        self.taps.iter().find(|tap| tap.id == id)
    }
}

impl Passing {
    fn meta(&self) -> Meta {
        let (carrier, endpoint) = match self.via {
            None => (Carrier::Own, None),
            Some(Via::Direct(addr)) => (Carrier::Direct, Some(addr)),
            Some(Via::Relay) => (Carrier::Relay, self.beacon),
        };
        // Over the web the beacon has a made-up address.
        let endpoint = endpoint.filter(|addr| !addr.ip().is_unspecified());
        Meta { direction: self.direction, carrier, encrypted: self.encrypted, endpoint }
    }
}

#[cfg(test)]
mod tests {
    use pilot_wire::Port;

    use super::*;

    fn passing(at: Instant, peer: u32) -> Passing {
        Passing {
            at,
            direction: Direction::Sent,
            peer: NodeId(peer),
            via: Some(Via::Relay),
            beacon: Some("192.0.2.1:9001".parse().unwrap()),
            encrypted: true,
        }
    }

    #[test]
    fn a_watcher_that_does_not_fetch_loses_what_comes_last_and_learns_how_many() {
        let now = crate::testing::start();
        let mut taps = Taps::default();
        let id = taps.add(Filter::default()).unwrap();
        let packet = vec![7; 60_000];
        for _ in 0..200 {
            taps.show(passing(now, 2), &packet);
        }
        let counts = taps.counts(id);
        assert_eq!(counts.seen, 200);
        let kept = QUEUE_MAX / (packet.len() + OVERHEAD);
        assert_eq!(counts.dropped, 200 - kept as u64);
        let mut fetched = 0;
        while let Some(seen) = taps.take(id) {
            assert_eq!(seen.packet[..], packet[..]);
            fetched += 1;
        }
        assert_eq!(fetched, kept);
        taps.show(passing(now, 2), b"there is room again");
        assert_eq!(&taps.take(id).unwrap().packet[..], b"there is room again");
    }

    #[test]
    fn each_watcher_sees_what_its_filter_lets_through() {
        let now = crate::testing::start();
        let mut taps = Taps::default();
        assert!(!taps.is_open());
        let all = taps.add(Filter::default()).unwrap();
        let two = taps.add(Filter { peer: Some(NodeId(2)), port: None }).unwrap();
        let none = taps.add(Filter { peer: None, port: Some(Port(9)) }).unwrap();
        taps.show(passing(now, 2), &[0; 34]);
        taps.show(passing(now, 3), &[0; 34]);
        let seen = |id| taps.counts(id).seen;
        assert_eq!([seen(all), seen(two), seen(none)], [2, 1, 0]);
        taps.remove(two);
        assert!(taps.take(two).is_none() && taps.is_open());
    }

    #[test]
    fn there_are_only_so_many_watchers() {
        let mut taps = Taps::default();
        let ids: Vec<_> = (0..TAPS_MAX).map(|_| taps.add(Filter::default()).unwrap()).collect();
        assert!(taps.add(Filter::default()).is_none());
        taps.remove(ids[3]);
        assert!(taps.add(Filter::default()).is_some());
    }
}
