//! The receiving half: puts segments in order, keeps what the application has not read, and says how much more
//! may come.
//!
//! Positions are 64-bit offsets from the first data byte; sequence numbers exist only at the edge, so nothing in
//! here can wrap. Memory is bounded by `capacity`: bytes beyond `read + capacity` are not taken, in order or not.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pilot_wire::{Seq, sack::SackBlock, sack::SackList};

use super::rope::Rope;

/// Holes that may be open at once. Each costs a few hundred bytes beside its data. A window of 4 MiB at 30 % loss
/// has about 1,000; beyond the limit segments that would open one more are dropped and come again.
const MAX_ISLANDS: usize = 2048;

/// Arrivals out of order that are remembered for the most-recent-first form of the acknowledgement.
const MAX_RECENT: usize = 64;

/// Windows are kept closed until this much is free, so that the peer does not send crumbs (RFC 9293 3.8.6.2.2).
const SILLY: usize = 1152;

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It extends what the application can read.
    InOrder,
    /// It was kept behind a hole.
    OutOfOrder,
    /// Nothing of it was new.
    Duplicate,
    /// New bytes, for which there is no room.
    NoRoom,
}

/// The bytes behind a hole: contiguous, with a gap on both sides.
#[derive(Debug, Default)]
struct Island {
    end: u64,
    data: Rope,
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Sequence number of offset zero.
    base: Seq,
    /// The next byte that is missing.
    next: u64,
    ready: Rope,
    islands: BTreeMap<u64, Island>,
    /// Bytes in the islands.
    behind: usize,
    /// Where segments out of order arrived, the latest first.
    recent: VecDeque<u64>,
    /// A segment that arrived twice, reported once (RFC 2883).
    duplicate: Option<(u64, u64)>,
    fin_at: Option<u64>,
    capacity: usize,
    unit: u32,
    /// The right edge of the last window that was sent.
    announced: u64,
    /// The application wants nothing more: what arrives is not kept.
    deaf: bool,
}

impl Receiver {
    /// For a peer whose SYN carried `syn`.
    pub(super) fn new(syn: Seq, capacity: usize, unit: u32) -> Self {
        Self {
            base: syn + 1,
            next: 0,
            ready: Rope::default(),
            islands: BTreeMap::new(),
            behind: 0,
            recent: VecDeque::new(),
            duplicate: None,
            fin_at: None,
            capacity,
            unit,
            announced: 0,
            deaf: false,
        }
    }

    /// The peer's initial sequence number.
    pub(super) fn initial(&self) -> Seq {
        self.base - 1
    }

    /// The next offset that is missing, the FIN included once it is in order.
    pub(super) fn next(&self) -> u64 {
        self.next + u64::from(self.finished())
    }

    /// What goes into the acknowledgement field.
    pub(super) fn ack(&self) -> Seq {
        self.seq(self.next())
    }

    /// The number on the wire of an offset.
    pub(super) fn seq(&self, offset: u64) -> Seq {
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are offsets modulo 2^32")]
        let low = offset as u32;
        self.base + low
    }

    /// The offset of a number on the wire, taken as the one nearest to what is expected; negative before the start.
    fn offset(&self, seq: Seq) -> i64 {
        let distance = (seq - self.seq(self.next)).cast_signed();
        self.next.cast_signed() + i64::from(distance)
    }

    /// How far `seq` lies behind (negative) or before (positive) what is expected.
    pub(super) fn distance(&self, seq: Seq) -> i64 {
        self.offset(seq) - self.next().cast_signed()
    }

    /// True once everything up to the peer's FIN has arrived.
    pub(super) fn finished(&self) -> bool {
        self.fin_at == Some(self.next)
    }

    /// True once the peer said where its data ends.
    pub(super) fn knows_end(&self) -> bool {
        self.fin_at.is_some()
    }

    /// Bytes that can be read.
    pub(super) fn unread(&self) -> usize {
        self.ready.len()
    }

    /// Holes in front of data that has arrived.
    pub(super) fn islands(&self) -> usize {
        self.islands.len()
    }

    /// Takes a data segment.
    pub(super) fn on_data(&mut self, seq: Seq, payload: &[u8]) -> Arrival {
        let start = self.offset(seq);
        let end = start + payload.len() as i64;
        let limit = self.limit().min(self.fin_at.unwrap_or(u64::MAX));
        if end <= self.next.cast_signed() {
            self.duplicate = self.span(start, end);
            return Arrival::Duplicate;
        }
        let skip = (self.next.cast_signed() - start).max(0);
        let start = (start + skip).cast_unsigned();
        let data = payload.get(usize::try_from(skip).unwrap_or(usize::MAX)..).unwrap_or_default();
        let room = usize::try_from(limit.saturating_sub(start)).unwrap_or(usize::MAX);
        let data = &data[..data.len().min(room)];
        if data.is_empty() {
            return Arrival::NoRoom;
        }
        if start == self.next {
            self.in_order(data);
            Arrival::InOrder
        } else {
            self.out_of_order(start, data)
        }
    }

    /// The peer's data ends at `seq`. The first word counts; a FIN before data that arrived already is ignored.
    pub(super) fn on_fin(&mut self, seq: Seq) {
        let offset = self.offset(seq);
        let arrived = self.islands.last_key_value().map_or(self.next, |(_, island)| island.end);
        if self.fin_at.is_none() && offset >= arrived.cast_signed() {
            self.fin_at = Some(offset.cast_unsigned());
        }
    }

    /// Takes up to `max` bytes for the application.
    pub(super) fn read(&mut self, max: usize) -> Bytes {
        self.ready.pop(max)
    }

    /// From now on nothing is kept.
    pub(super) fn discard(&mut self) {
        self.deaf = true;
        self.ready.clear();
    }

    /// True after [`discard`](Self::discard).
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Drops what waits behind holes that nobody will fill any more.
    pub(super) fn forget_islands(&mut self) {
        self.islands.clear();
        self.recent = VecDeque::new();
        self.behind = 0;
    }

    /// The window for the next packet, in slots.
    pub(super) fn window(&self) -> u16 {
        let free = self.capacity.saturating_sub(self.ready.len());
        if free < SILLY.min(self.capacity / 2) {
            return 0;
        }
        u16::try_from(free / self.unit as usize).unwrap_or(u16::MAX)
    }

    /// Notes that `window` was sent.
    pub(super) fn announce(&mut self, window: u16) {
        self.announced = self.announced.max(self.next + u64::from(window) * u64::from(self.unit));
    }

    /// Notes that `window` was sent in a SYN, whose slots have `unit` bytes.
    pub(super) fn announce_syn(&mut self, window: u16, unit: u16) {
        self.announced = self.announced.max(self.next + u64::from(window) * u64::from(unit));
    }

    /// Bytes received in order.
    pub(super) fn received(&self) -> u64 {
        self.next
    }

    /// How much the peer may still send by what it was told last.
    pub(super) fn announced_room(&self) -> usize {
        usize::try_from(self.announced.saturating_sub(self.next)).unwrap_or(usize::MAX)
    }

    /// True when reading opened the window so far that the peer should hear of it: by half the buffer, or from
    /// next to nothing by a quarter.
    pub(super) fn window_update_due(&self) -> bool {
        let edge = self.next + u64::from(self.window()) * u64::from(self.unit);
        let gain = usize::try_from(edge.saturating_sub(self.announced)).unwrap_or(usize::MAX);
        let was_small = self.announced_room() < self.capacity / 4;
        gain >= self.capacity / 2 || (was_small && gain >= (self.capacity / 4).max(1))
    }

    /// The lowest blocks that arrived out of order, ascending: the form that every peer understands.
    pub(super) fn lowest_blocks(&self, max: usize) -> SackList {
        let mut list = SackList::EMPTY;
        for (&start, island) in self.islands.iter().take(max) {
            list.push(self.block(start, island.end));
        }
        list
    }

    /// Blocks with the latest arrivals first (RFC 2018 4), a duplicate before all (RFC 2883 4).
    pub(super) fn recent_blocks(&mut self, max: usize) -> SackList {
        let mut list = SackList::EMPTY;
        if let Some((start, end)) = self.duplicate.take() {
            list.push(self.block(start, end));
        }
        let mut told = [u64::MAX; MAX_RECENT];
        let mut count = 0;
        for &offset in &self.recent {
            if list.blocks().len() >= max {
                break;
            }
            let Some((&start, island)) = self.islands.range(..=offset).next_back() else { continue };
            if island.end <= offset || told[..count].contains(&start) {
                continue;
            }
            told[count] = start;
            count += 1;
            list.push(self.block(start, island.end));
        }
        list
    }

    /// True if the peer should be told of a segment that came twice.
    pub(super) fn has_duplicate(&self) -> bool {
        self.duplicate.is_some()
    }

    fn block(&self, start: u64, end: u64) -> SackBlock {
        SackBlock { left: self.seq(start), right: self.seq(end) }
    }

    fn span(&self, start: i64, end: i64) -> Option<(u64, u64)> {
        (start >= 0 && end > start).then(|| (start.cast_unsigned(), end.cast_unsigned()))
    }

    fn limit(&self) -> u64 {
        self.next + self.capacity.saturating_sub(self.ready.len()) as u64
    }

    fn in_order(&mut self, mut data: &[u8]) {
        loop {
            let hole = self.islands.first_key_value().map_or(u64::MAX, |(&start, _)| start - self.next);
            let take = usize::try_from(hole).unwrap_or(usize::MAX).min(data.len());
            let (now, later) = data.split_at(take);
            self.keep(now);
            data = later;
            if hole > take as u64 {
                return;
            }
            let Some((_, island)) = self.islands.pop_first() else { return };
            let overlap = island.end - self.next;
            data = data.get(usize::try_from(overlap).unwrap_or(usize::MAX)..).unwrap_or_default();
            self.next = island.end;
            self.behind -= island.data.len();
            if !self.deaf {
                self.ready.append(island.data);
            }
            if self.islands.is_empty() {
                self.recent = VecDeque::new();
            }
        }
    }

    fn keep(&mut self, data: &[u8]) {
        self.next += data.len() as u64;
        if !self.deaf {
            self.ready.push(data);
        }
    }

    fn out_of_order(&mut self, mut start: u64, mut data: &[u8]) -> Arrival {
        let first = start;
        let before = self.behind;
        while !data.is_empty() {
            if let Some((_, island)) = self.islands.range(..=start).next_back()
                && island.end > start
            {
                let known = usize::try_from(island.end - start).unwrap_or(usize::MAX).min(data.len());
                data = &data[known..];
                start += known as u64;
                continue;
            }
            let gap = self.islands.range(start..).next().map_or(u64::MAX, |(&next, _)| next - start);
            let take = usize::try_from(gap).unwrap_or(usize::MAX).min(data.len());
            let (now, later) = data.split_at(take);
            if !self.settle(start, now) {
                break;
            }
            start += take as u64;
            data = later;
        }
        if self.behind == before {
            if data.is_empty() {
                self.duplicate = Some((first, start));
                return Arrival::Duplicate;
            }
            return Arrival::NoRoom;
        }
        self.recent.retain(|&other| other != first);
        self.recent.push_front(first);
        self.recent.truncate(MAX_RECENT);
        Arrival::OutOfOrder
    }

    /// Puts bytes into a gap: behind the island on the left, onto the island on the right, or on their own.
    fn settle(&mut self, start: u64, data: &[u8]) -> bool {
        let end = start + data.len() as u64;
        let right = self.islands.remove(&end);
        let left =
            self.islands.range_mut(..start).next_back().map(|(_, island)| island).filter(|i| i.end == start);
        if let Some(left) = left {
            left.data.push(data);
            left.end = end;
            if let Some(right) = right {
                left.end = right.end;
                left.data.append(right.data);
            }
        } else {
            if right.is_none() && self.islands.len() >= MAX_ISLANDS {
                return false;
            }
            let mut island = Island { end, data: Rope::default() };
            island.data.push(data);
            if let Some(right) = right {
                island.end = right.end;
                island.data.append(right.data);
            }
            self.islands.insert(start, island);
        }
        self.behind += data.len();
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn receiver(capacity: usize) -> Receiver {
        Receiver::new(Seq(u32::MAX - 50), capacity, 1)
    }

    fn put(receiver: &mut Receiver, offset: u64, data: &[u8]) -> Arrival {
        receiver.on_data(receiver.seq(offset), data)
    }

    fn read_all(receiver: &mut Receiver) -> Vec<u8> {
        let mut all = Vec::new();
        while receiver.unread() > 0 {
            all.extend_from_slice(&receiver.read(100));
        }
        all
    }

    fn text(range: std::ops::Range<u64>) -> Vec<u8> {
        range.map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn blocks_are_those_of_the_reference() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../wire/tests/vectors/dataplane.json")).unwrap();
        let vector = &vectors["sack_blocks_from_ooo"];
        let expected = u32::try_from(vector["expected_seq"].as_u64().unwrap()).unwrap();
        let mut receiver = Receiver::new(Seq(expected) - 1, 1 << 20, 1);
        for segment in vector["ooo"].as_array().unwrap() {
            let seq = u32::try_from(segment[0].as_u64().unwrap()).unwrap();
            let len = usize::try_from(segment[1].as_u64().unwrap()).unwrap();
            let _ = receiver.on_data(Seq(seq), &vec![7; len]);
        }
        let mut wire = Vec::new();
        receiver.lowest_blocks(4).emit(&mut wire);
        assert_eq!(hex::encode(wire), vector["wire"].as_str().unwrap());
    }

    #[test]
    fn a_hole_holds_everything_back_until_it_is_filled() {
        let mut receiver = receiver(1000);
        assert_eq!(put(&mut receiver, 10, &text(10..20)), Arrival::OutOfOrder);
        assert_eq!(put(&mut receiver, 10, &text(10..20)), Arrival::Duplicate);
        assert_eq!(receiver.unread(), 0);
        assert_eq!(put(&mut receiver, 0, &text(0..15)), Arrival::InOrder);
        assert_eq!(read_all(&mut receiver), text(0..20));
        assert_eq!(receiver.islands(), 0);
    }

    #[test]
    fn nothing_beyond_the_buffer_is_kept() {
        let mut receiver = receiver(100);
        assert_eq!(put(&mut receiver, 90, &text(90..120)), Arrival::OutOfOrder);
        assert_eq!(put(&mut receiver, 100, &text(100..120)), Arrival::NoRoom);
        assert_eq!(put(&mut receiver, 0, &text(0..100)), Arrival::InOrder);
        assert_eq!(receiver.unread(), 100);
        assert_eq!(put(&mut receiver, 100, b"x"), Arrival::NoRoom);
        assert_eq!(receiver.window(), 0);
        assert_eq!(read_all(&mut receiver), text(0..100));
        assert_eq!(receiver.window(), 100);
    }

    #[test]
    fn the_fin_counts_only_once_everything_before_it_is_there() {
        let mut receiver = receiver(100);
        receiver.on_fin(receiver.seq(10));
        assert!(!receiver.finished());
        put(&mut receiver, 5, &text(5..10));
        put(&mut receiver, 0, &text(0..5));
        assert!(receiver.finished());
        assert_eq!(receiver.next(), 11);
    }

    #[test]
    fn holes_are_bounded() {
        let mut receiver = receiver(1 << 20);
        for i in 0..20_000u64 {
            let _ = put(&mut receiver, 1 + 2 * i, b"x");
        }
        assert_eq!(receiver.islands(), MAX_ISLANDS);
    }

    #[test]
    fn the_latest_arrival_is_reported_first() {
        let mut receiver = receiver(1000);
        put(&mut receiver, 10, &text(10..20));
        put(&mut receiver, 50, &text(50..60));
        put(&mut receiver, 20, &text(20..30));
        let blocks = receiver.recent_blocks(32);
        assert_eq!(blocks.blocks()[0], receiver.block(10, 30));
        assert_eq!(blocks.blocks()[1], receiver.block(50, 60));
        assert_eq!(blocks.blocks().len(), 2);
    }

    proptest! {
        #[test]
        fn every_byte_comes_out_once_and_in_order(
            cuts in proptest::collection::vec((0u64..3000, 1usize..400), 1..200),
            reads in proptest::collection::vec(0usize..500, 1..50),
        ) {
            let mut receiver = receiver(1500);
            let mut out = Vec::new();
            for (i, &(start, len)) in cuts.iter().enumerate() {
                let _ = put(&mut receiver, start, &text(start..start + len as u64));
                let max = reads[i % reads.len()];
                if max > 0 {
                    out.extend_from_slice(&receiver.read(max));
                }
                prop_assert!(receiver.unread() + receiver.behind <= 1500);
            }
            // A sender repeats from the acknowledged position until all is through.
            while receiver.next() < 3000 {
                let next = receiver.next();
                let _ = put(&mut receiver, next, &text(next..(next + 100).min(3000)));
                out.extend_from_slice(&read_all(&mut receiver));
            }
            out.extend_from_slice(&read_all(&mut receiver));
            let len = out.len() as u64;
            prop_assert_eq!(out, text(0..len));
            prop_assert!(len >= 3000);
        }
    }
}
