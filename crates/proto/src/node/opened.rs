//! Which SYNs of a peer opened a stream: a late copy of one must not open it, and deliver its data, a second time.
//!
//! The tunnel takes no frame twice, but a dialler repeats its SYN in a new frame, and the network, or somebody on the
//! path, may hold one of the copies back until the stream is over.

use std::collections::VecDeque;

use pilot_wire::{Port, Seq};

use crate::tunnel::replay;

/// SYNs remembered of one peer, of eight bytes each. Every one came in a frame of its own, so of the copies of those that
/// are forgotten the tunnel's window has seen too much to take them still.
pub(super) const OPENED_MAX: usize = replay::WINDOW as usize;

/// Those of one peer, the oldest first; forgotten with its keys.
#[derive(Debug, Default)]
pub(super) struct Opened(VecDeque<u64>);

impl Opened {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A SYN with this number from `theirs` to `ours` opened a stream.
    pub(super) fn remember(&mut self, ours: Port, theirs: Port, initial: Seq) {
        if self.0.len() >= OPENED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(pack(ours, theirs, initial));
    }

    /// Whether one did.
    pub(super) fn contains(&self, ours: Port, theirs: Port, initial: Seq) -> bool {
        self.0.contains(&pack(ours, theirs, initial))
    }
}

fn pack(ours: Port, theirs: Port, initial: Seq) -> u64 {
    u64::from(ours.0) << 48 | u64::from(theirs.0) << 32 | u64::from(initial.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_is_known_as_itself_until_as_many_came_as_the_window_of_the_tunnel_holds() {
        let mut opened = Opened::default();
        opened.remember(Port(7), Port(50_000), Seq(u32::MAX));
        for i in 0..replay::WINDOW as u32 {
            assert!(opened.contains(Port(7), Port(50_000), Seq(u32::MAX)));
            assert!(!opened.contains(Port(8), Port(50_000), Seq(u32::MAX)));
            assert!(!opened.contains(Port(7), Port(50_001), Seq(u32::MAX)));
            opened.remember(Port(7), Port(50_000), Seq(i));
        }
        assert!(!opened.contains(Port(7), Port(50_000), Seq(u32::MAX)));
        assert_eq!(opened.0.len(), OPENED_MAX);
    }
}
