//! The network, which does what the script says, and the hostile node in it.

use std::net::SocketAddr;

use pilot_wire::beacon::Message;
use pilot_wire::tunnel::{Extension, KEY_EXCHANGE_LEN};

use super::World;
use super::flight::Flight;
use crate::node::puppet::Puppet;
use crate::node::{IDS, PORT, PUPPET, beacon, home, stranger};
use crate::script::Script;

/// Datagrams under way; beyond, the network loses what is sent.
const UNDER_WAY_MAX: usize = 512;

impl World {
    /// One datagram arrives: by its turn or earlier, once or more often, from where it was sent or from elsewhere.
    pub(super) fn deliver(&mut self, choice: u8) {
        if self.network.is_empty() {
            return;
        }
        let index = usize::from(choice >> 4) % self.network.len();
        let found =
            if choice & 1 == 0 { self.network.remove(index) } else { self.network.get(index).cloned() };
        let Some(mut flight) = found else { return };
        if choice & 0x0E == 0x0E {
            flight.from = stranger(choice >> 4);
        }
        self.arrive(flight);
    }

    pub(super) fn deliver_all(&mut self) {
        for _ in 0..self.network.len() {
            if let Some(flight) = self.network.pop_front() {
                self.arrive(flight);
            }
        }
    }

    pub(super) fn arrive(&mut self, mut flight: Flight) {
        self.watch_arrival(&flight);
        if flight.to == PUPPET {
            if let Some(from) = (0..2).find(|from| self.sides[*from].at == flight.from)
                && let Some(answer) = self.puppet.take(from, &flight.bytes)
            {
                self.puppet_says(from, answer);
            }
            return;
        }
        self.sides[flight.to].node.handle_datagram(self.now, flight.from, &mut flight.bytes);
    }

    /// What a participant says says where it is; and what it received says that it is there, once it says anything.
    fn watch_arrival(&mut self, flight: &Flight) {
        if !flight.is_genuine() {
            return;
        }
        if let (Some(by), Some(addr)) = (flight.by, flight.straight_to)
            && flight.is_sealed()
            && let Some(watch) = self.watches.get_mut(by)
        {
            watch.arrived(addr, flight.to);
        }
        if let Some(watch) = self.watches.get_mut(flight.to) {
            watch.received(flight.from, &flight.bytes);
            if let Some(by) = flight.by.filter(|_| flight.is_sealed()) {
                watch.heard(by);
            }
        }
    }

    /// The same datagram once more, later, from anywhere.
    pub(super) fn replay(&mut self, choice: u8) {
        let found = self.network.get(usize::from(choice >> 3) % self.network.len().max(1)).cloned();
        if let Some(mut flight) = found {
            if choice & 1 == 0 {
                flight.from = stranger(choice >> 1);
            }
            self.launch(flight);
        }
    }

    pub(super) fn tamper(&mut self, script: &mut Script<'_>) {
        let (position, value) = (usize::from(script.byte()), script.byte());
        let Some(flight) = self.network.front_mut() else { return };
        let bytes = &mut flight.bytes;
        if position == 255 && bytes.starts_with(b"PILA") {
            // What older nodes do not have is taken away.
            bytes.truncate(KEY_EXCHANGE_LEN);
            return;
        }
        let length = bytes.len();
        match bytes.get_mut(position) {
            Some(byte) => *byte ^= value,
            None => bytes.truncate(length.saturating_sub(usize::from(value))),
        }
    }

    /// Bytes that no node has sent; in clear with a checksum, so that they get far.
    pub(super) fn forge(&mut self, at: usize, script: &mut Script<'_>) {
        let shape = script.byte();
        let from = match shape & 0x30 {
            0 => self.sides[1 - at].at,
            0x10 => beacon(),
            _ => stranger(shape),
        };
        let mut datagram = script.piece().to_vec();
        if shape & 2 != 0 && datagram.len() >= 34 {
            datagram[0] = 0x10 | (datagram[0] & 0x0F);
            let payload = (datagram.len() - 34) as u16;
            datagram[2..4].copy_from_slice(&payload.to_be_bytes());
            if shape & 4 != 0 {
                datagram[4..10].copy_from_slice(&[0, 0, 0, 0, 0, IDS[1 - at].0 as u8]);
                datagram[10..16].copy_from_slice(&[0, 0, 0, 0, 0, IDS[at].0 as u8]);
                datagram[18..20].copy_from_slice(&PORT.0.to_be_bytes());
            }
            datagram[30..34].fill(0);
            let sum = crc32fast::hash(&datagram);
            datagram[30..34].copy_from_slice(&sum.to_be_bytes());
            datagram.splice(0..0, *b"PILT");
        }
        self.sides[at].node.handle_datagram(self.now, from, &mut datagram);
    }

    pub(super) fn puppet_shows(&mut self, at: usize, choice: u8) {
        let bytes = match choice % 3 {
            0 => Some(Puppet::exchange(&Extension::Absent)),
            1 => Some(Puppet::exchange(&Extension::Hello)),
            _ => self.puppet.begin(at),
        };
        if let Some(bytes) = bytes {
            self.puppet_says(at, bytes);
        }
    }

    pub(super) fn puppet_says(&mut self, to: usize, bytes: Vec<u8>) {
        let addr = self.sides[to].at;
        self.launch(Flight::direct(PUPPET, home(PUPPET, 0), to, addr, bytes));
    }

    pub(super) fn launch(&mut self, flight: Flight) {
        if self.network.len() < UNDER_WAY_MAX && flight.bytes.len() <= self.mtu {
            self.network.push_back(flight);
        }
    }

    pub(super) fn drain(&mut self) {
        for from in 0..2 {
            let mut sent = Vec::new();
            let (now, mtu, watch) = (self.now, self.mtu, &mut self.watches[from]);
            // Whoever has been dialled wants to answer.
            watch.wanting |= !self.sides[from].streams.is_empty();
            let mut refused = Vec::new();
            self.sides[from].drain(now, |to, datagram| {
                watch.sent(now, to, datagram);
                if datagram.len() > mtu {
                    refused.push((to, datagram.len()));
                } else if sent.len() < UNDER_WAY_MAX {
                    sent.push((to, datagram.to_vec()));
                }
            });
            if let Some((to, length)) = refused.pop() {
                self.sides[from].node.datagram_too_large(now, to, length);
                // What it says to that goes with the next.
            }
            for (to, bytes) in sent {
                self.dispatch(from, to, bytes);
            }
        }
    }

    pub(super) fn dispatch(&mut self, from: usize, to: SocketAddr, bytes: Vec<u8>) {
        let source = self.sides[from].at;
        if to == beacon() {
            return self.at_beacon(from, &bytes);
        }
        let receiver = if to == home(PUPPET, 0) {
            Some(PUPPET)
        } else {
            (0..2).find(|other| self.sides[*other].at == to)
        };
        if let Some(receiver) = receiver {
            self.launch(Flight::direct(from, source, receiver, to, bytes));
        }
    }

    /// The beacon answers and relays, as far as nodes need it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "of what a beacon knows, this one knows three")]
    pub(super) fn at_beacon(&mut self, from: usize, bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else { return };
        let (to, by, answer) = match message {
            Message::Relay { source, destination, frame } => {
                let Some(to) = (0..2).find(|other| IDS[*other] == destination) else { return };
                (to, Some(from), Message::RelayDeliver { source, frame })
            }
            Message::Discover { .. } | Message::DiscoverEx { .. } => {
                (from, None, Message::DiscoverReply(self.sides[from].at))
            }
            Message::PunchRequest { target, .. } => {
                let Some(to) = (0..2).find(|other| IDS[*other] == target) else { return };
                (to, None, Message::PunchCommand(self.sides[from].at))
            }
            _ => return,
        };
        let mut bytes = Vec::new();
        answer.emit(&mut bytes);
        self.launch(Flight::of_beacon(by, to, bytes));
    }
}
