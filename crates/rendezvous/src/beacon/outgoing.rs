//! What waits to be sent: one buffer for all of it, in which datagrams of one length to one address stand together, so
//! that they leave as one train.

use super::Route;
use std::collections::VecDeque;

/// Datagrams to one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// By which way.
    pub to: Route,
    /// Length of each datagram; the last may be shorter.
    pub segment: usize,
    /// One datagram after the other.
    pub content: &'a [u8],
}

impl<'a> Transmit<'a> {
    /// Each datagram.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.content.chunks(self.segment.max(1))
    }
}

#[derive(Debug)]
struct Train {
    to: Route,
    start: usize,
    end: usize,
    segment: usize,
    datagrams: usize,
    /// Nothing shorter has ended it.
    open: bool,
}

#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    trains: VecDeque<Train>,
}

/// Trains and bytes that wait. The shell drains after each batch that it received, so this is reached only by a test.
const TRAINS_MAX: usize = 2048;
const BYTES_MAX: usize = 4 << 20;

/// Datagrams and bytes of a train: what systems cut with one call.
const DATAGRAMS_MAX: usize = 64;
const TRAIN_BYTES_MAX: usize = 65_507;

/// Longest datagram that travels in trains: systems refuse to cut any that do not fit into packets.
const SEGMENT_MAX: usize = 1472;

impl Outgoing {
    pub(super) fn is_full(&self) -> bool {
        self.trains.len() >= TRAINS_MAX || self.bytes.len() >= BYTES_MAX
    }

    /// Adds a datagram, which `write` appends. What does not fit is lost.
    pub(super) fn push(&mut self, to: Route, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_full() {
            return;
        }
        let start = self.bytes.len();
        write(&mut self.bytes);
        let end = self.bytes.len();
        let length = end - start;
        if let Some(last) = self.trains.back_mut()
            && last.open
            && last.to == to
            && length <= last.segment
            && last.segment <= SEGMENT_MAX
            && last.datagrams < DATAGRAMS_MAX
            && end - last.start <= TRAIN_BYTES_MAX
        {
            last.end = end;
            last.datagrams += 1;
            last.open = length == last.segment;
        } else {
            let open = length > 0;
            self.trains.push_back(Train { to, start, end, segment: length, datagrams: 1, open });
        }
    }

    pub(super) fn poll(&mut self) -> Option<Transmit<'_>> {
        let Some(train) = self.trains.pop_front() else {
            // Keeps the memory for the next batch.
            self.bytes.clear();
            return None;
        };
        let content = &self.bytes[train.start..train.end];
        Some(Transmit { to: train.to, segment: train.segment, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn push(outgoing: &mut Outgoing, port: u16, length: usize) {
        let to = Route::Udp(SocketAddr::from(([192, 0, 2, 1], port)));
        outgoing.push(to, |out| out.resize(out.len() + length, 0));
    }

    fn trains(outgoing: &mut Outgoing) -> Vec<(usize, usize)> {
        let mut trains = Vec::new();
        while let Some(train) = outgoing.poll() {
            trains.push((train.segment, train.content.len()));
        }
        trains
    }

    #[test]
    fn datagrams_of_one_length_to_one_place_stand_together() {
        let mut outgoing = Outgoing::default();
        for (port, length) in [(1, 1000), (1, 1000), (1, 400), (1, 400), (2, 400), (1, 500), (1, 501)] {
            push(&mut outgoing, port, length);
        }
        assert_eq!(trains(&mut outgoing), [(1000, 2400), (400, 400), (400, 400), (500, 500), (501, 501)]);
        assert!(outgoing.bytes.is_empty(), "the memory is used again");
    }

    #[test]
    fn a_train_ends_where_systems_end_it_and_what_waits_is_bounded() {
        let mut outgoing = Outgoing::default();
        for _ in 0..65 {
            push(&mut outgoing, 1, 10);
        }
        assert_eq!(trains(&mut outgoing), [(10, 640), (10, 10)]);
        for _ in 0..100 {
            push(&mut outgoing, 1, 1400);
        }
        assert!(trains(&mut outgoing).iter().all(|(_, bytes)| *bytes <= TRAIN_BYTES_MAX));
        for port in 0..3000 {
            push(&mut outgoing, port, 65_000);
        }
        assert!(outgoing.bytes.len() <= BYTES_MAX + 65_507);
    }
}
