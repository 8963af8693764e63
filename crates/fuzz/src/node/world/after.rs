//! What must hold when the script is over.

use std::time::{Duration, Instant};

use pilot_proto::Visibility;

use super::World;
use crate::node::IDS;

impl World {
    /// A quarter of an hour without anybody doing anything: every timer comes to rest or recurs at a human pace.
    pub(in crate::node) fn calm_down(&mut self) {
        let end = self.now + Duration::from_secs(900);
        for turn in 0.. {
            assert!(turn < 50_000, "an idle quarter of an hour has too many deadlines");
            match self.due() {
                Some(due) if due <= end => self.now = self.now.max(due),
                Some(_) | None => break,
            }
            self.advance(Duration::ZERO);
            self.drain();
            self.network.clear();
        }
        self.now = end;
        self.advance(Duration::ZERO);
        self.drain();
        self.network.clear();
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.sides.iter().filter_map(|side| side.node.poll_timeout()).min()
    }

    /// The network is honest and so is the registry: whatever was before, one reaches the other within two minutes.
    pub(in crate::node) fn meet_again(&mut self) {
        if self.estranged {
            return;
        }
        self.mtu = usize::MAX;
        let now = self.now;
        for (side, watch) in self.sides.iter_mut().zip(&mut self.watches) {
            side.node.set_beacon(now, None);
            side.node.set_visibility(Visibility::Public);
            // What was said before is not taken for what is said now.
            for (id, _) in std::mem::take(&mut side.streams) {
                side.node.reset(now, id);
            }
            watch.wanting = true;
            watch.elsewhere();
        }
        self.settle();
        let end = self.now + Duration::from_secs(120);
        let mut dialled = None;
        for _ in 0..20_000 {
            let open = dialled.filter(|id| self.sides[0].streams.contains_key(id));
            let id = match open {
                Some(id) => id,
                None => {
                    let Some(id) = self.sides[0].dial(self.now, IDS[1]) else { break };
                    dialled = Some(id);
                    self.sides[0].write(self.now, id, 1);
                    id
                }
            };
            self.settle();
            let arrived: Vec<_> = self.sides[1].streams.keys().copied().collect();
            for stream in arrived {
                if self.sides[1].read(self.now, stream, 100) > 0 {
                    return;
                }
            }
            // One that failed is tried again.
            self.sides[0].read(self.now, id, 1);
            match self.due() {
                Some(due) if due <= end => self.now = self.now.max(due),
                Some(_) | None => break,
            }
            self.advance(Duration::ZERO);
        }
        panic!("two honest nodes do not find each other again");
    }

    /// Everything that happens at this moment, without anybody in between.
    pub(super) fn settle(&mut self) {
        for _ in 0..1000 {
            self.drain();
            let mut idle = self.network.is_empty();
            self.deliver_all();
            for at in 0..2 {
                while let Some((id, query)) = self.sides[at].queries.pop_front() {
                    idle = false;
                    let answer = self.truth(&query);
                    self.sides[at].node.handle_answer(self.now, id, answer);
                }
            }
            if idle {
                return;
            }
        }
        panic!("two nodes keep each other busy");
    }
}
