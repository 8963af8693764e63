//! What happens, as the script says.

mod after;
mod flight;
mod network;
mod owners;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pilot_proto::CandidateSource;
use pilot_wire::{Addr, NodeId};

use super::puppet::Puppet;
use super::side::{Settings, Side};
use super::watch::Watch;
use super::{IDS, PORT, PUPPET, home};
use crate::script::Script;
use flight::Flight;

pub(super) struct World {
    now: Instant,
    clear: bool,
    sides: [Side; 2],
    watches: [Watch; 2],
    puppet: Puppet,
    network: VecDeque<Flight>,
    /// Longer datagrams are lost.
    mtu: usize,
    /// Owners turned away from each other, or the registry lied: nothing says that they find each other again.
    estranged: bool,
}

impl World {
    pub(super) fn new(first: u8, second: u8) -> Self {
        let now = Instant::now();
        let clear = first & 0x0F == 1;
        let settings = |bits: u8| Settings {
            clear,
            as_shown: bits & 1 != 0,
            private: bits & 2 != 0,
            approves: bits & 4 != 0,
            beacon: bits & 8 != 0,
        };
        Self {
            now,
            clear,
            sides: [Side::new(0, settings(second), now), Side::new(1, settings(second >> 4), now)],
            watches: [Watch::new(clear), Watch::new(clear)],
            puppet: Puppet::default(),
            network: VecDeque::new(),
            mtu: usize::MAX,
            estranged: false,
        }
    }

    pub(super) fn step(&mut self, script: &mut Script<'_>) {
        let op = script.byte();
        let at = usize::from(op >> 7);
        let now = self.now;
        match op & 0x3F {
            0..=7 => self.deliver(script.byte()),
            8..=10 => self.deliver_all(),
            11 => drop(self.network.pop_front()),
            12 => self.tamper(script),
            13 => self.forge(at, script),
            14 => self.advance(Duration::from_millis(u64::from(script.byte()))),
            15 => self.advance(Duration::from_secs(u64::from(script.byte()))),
            16..=19 => self.answer(at, script.byte()),
            20 | 21 => {
                let peer = self.wanted(at, script.byte());
                self.sides[at].dial(now, peer);
            }
            22..=25 => {
                let (choice, length) = (script.byte(), 1 << (script.byte() % 18));
                if let Some(id) = self.sides[at].pick(choice) {
                    self.sides[at].write(now, id, length);
                }
            }
            26..=29 => {
                let (choice, max) = (script.byte(), 1 << (script.byte() % 17));
                if let Some(id) = self.sides[at].pick(choice) {
                    self.sides[at].read(now, id, max);
                }
            }
            30 => self.end(at, script),
            31 => {
                let peer = self.wanted(at, script.byte());
                self.sides[at].node.ping(now, peer, usize::from(script.byte()) * 8);
            }
            32 => {
                let to = Addr::backbone(self.wanted(at, script.byte())).port(PORT);
                // A full queue is an answer too.
                let _ = self.sides[at].node.send_datagram(now, to, None, script.piece());
            }
            33..=35 => self.trust(at, script),
            36 => self.carry(at, script.byte()),
            37 => {
                let peer = self.wanted(at, script.byte());
                let from = home(usize::from(script.byte()) % 3, script.byte());
                self.sides[at].node.hint(now, peer, from, CandidateSource::Lan);
            }
            38 => self.surroundings(at, script),
            39 => self.move_to(at, script.byte()),
            40 => self.restart(at),
            41 => self.mtu = [usize::MAX, 1222, 1300, 1452][usize::from(script.byte() & 3)],
            42..=44 => self.puppet_shows(at, script.byte()),
            45..=52 => {
                if let Some(bytes) = self.puppet.say(at, self.clear, script) {
                    self.puppet_says(at, bytes);
                }
            }
            53 => self.replay(script.byte()),
            _ => self.advance(Duration::ZERO),
        }
        self.drain();
    }

    fn peer_of(&self, at: usize, choice: u8) -> NodeId {
        match choice & 0x0F {
            0 => IDS[at],
            1 => NodeId(77),
            2 => NodeId::BROADCAST,
            3 => NodeId::UNSET,
            4..8 => IDS[PUPPET],
            _ => IDS[1 - at],
        }
    }

    /// The same, and the owner wants it.
    fn wanted(&mut self, at: usize, choice: u8) -> NodeId {
        self.watches[at].wanting = true;
        self.peer_of(at, choice)
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        for side in 0..2 {
            for turn in 0.. {
                assert!(turn < 10_000, "time stands still");
                match self.sides[side].node.poll_timeout() {
                    Some(due) if due <= self.now => self.sides[side].node.handle_timeout(self.now),
                    Some(_) | None => break,
                }
                if turn % 64 == 63 {
                    self.drain();
                }
            }
        }
    }
}
