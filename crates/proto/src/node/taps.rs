//! Who watches the packets of a node.

use std::time::Instant;

use pilot_wire::NodeId;
use pilot_wire::capture::{Counts, Direction, Filter};

use super::{Node, Via};
use crate::path::beacon::Beacon;
use crate::tap::{Passing, Seen, TapId};

impl Node {
    /// Keeps copies of the packets that go to and come from peers, from now on, for [`next_seen`](Self::next_seen) to
    /// fetch. `None` if too many watch already.
    pub fn add_tap(&mut self, filter: Filter) -> Option<TapId> {
        self.taps.add(filter)
    }

    /// Keeps no more copies for this watcher, and throws away those it has not fetched.
    pub fn remove_tap(&mut self, tap: TapId) {
        self.taps.remove(tap);
    }

    /// The length of the packet that [`next_seen`](Self::next_seen) would give.
    #[must_use]
    pub fn next_seen_len(&self, tap: TapId) -> Option<usize> {
        self.taps.peek(tap).map(|seen| seen.packet.len())
    }

    /// The next packet that the watcher has not fetched.
    pub fn next_seen(&mut self, tap: TapId) -> Option<Seen> {
        self.taps.take(tap)
    }

    /// How many packets there were for this watcher, and how many of them it lost because it had not fetched the ones
    /// before.
    #[must_use]
    pub fn seen(&self, tap: TapId) -> Counts {
        self.taps.counts(tap)
    }

    /// Shows a packet in clear to those who watch.
    pub(super) fn show(
        &mut self,
        at: Instant,
        direction: Direction,
        peer: NodeId,
        (via, encrypted): (Option<Via>, bool),
        packet: &[u8],
    ) {
        if self.taps.is_open() {
            let beacon = self.beacon.as_ref().map(Beacon::addr);
            self.taps.show(Passing { at, direction, peer, via, beacon, encrypted }, packet);
        }
    }
}
