//! Every segment that is not yet acknowledged: when it was sent, and what became of it.
//!
//! Segments keep their boundaries for life, because a peer may take a retransmission only if it starts exactly
//! where it expects one (spec/dataplane.md 3.3).

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use super::delivery::Stamp;

/// A board that was larger than this gives its memory back when it is empty.
const KEPT_WHEN_EMPTY: usize = 64;

/// The timeline may hold so many times more entries than there are segments before stale ones are thrown out.
const STALE_FACTOR: usize = 4;

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// On its way, as far as we know.
    Flying,
    /// Taken for lost; to be sent again.
    Lost,
    /// Reported by a selective acknowledgement.
    Sacked,
}

/// One segment in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Offset of its first byte.
    pub(super) start: u64,
    /// Sequence numbers that it takes: its bytes, or one for a FIN.
    pub(super) len: u32,
    /// When it was sent last.
    pub(super) sent: Instant,
    /// Position of that transmission among all of this stream.
    pub(super) order: u64,
    /// How often it was sent.
    pub(super) copies: u8,
    pub(super) fate: Fate,
    /// What was known when it was sent last.
    pub(super) stamp: Stamp,
}

impl Segment {
    /// Offset after its last byte.
    pub(super) fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }
}

/// The most recently sent segment that an acknowledgement reported (RFC 8985 6.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    pub(super) order: u64,
    pub(super) sent: Instant,
    pub(super) copies: u8,
    pub(super) stamp: Stamp,
}

/// What one acknowledgement changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivered {
    /// Sequence numbers that are known to have arrived and were not before.
    pub(super) bytes: u64,
    /// The longest segment among them.
    pub(super) largest: u32,
    /// The acknowledgement position moved.
    pub(super) advanced: bool,
    /// A segment was newly reported behind a hole.
    pub(super) sacked: bool,
    /// A segment that was never retransmitted arrived after ones sent later.
    pub(super) reordered: bool,
    /// The oldest transmission among segments that were sent only once.
    pub(super) original: Option<u64>,
    /// A copy arrived that was not needed (RFC 2883).
    pub(super) duplicate: bool,
    /// The latest transmission among them.
    pub(super) newest: Option<Newest>,
}

/// The segments in flight.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    segments: VecDeque<Segment>,
    /// Number of the first segment; each later one has the next number.
    first: u64,
    /// Acknowledged up to here.
    acked: u64,
    /// Highest offset ever reported as arrived.
    highest: u64,
    /// Bytes thought to be in the network.
    flying: u64,
    sacked_bytes: u64,
    sacked_segments: usize,
    /// Ranges reported beyond `acked`, merged.
    sacked: BTreeMap<u64, u64>,
    /// Transmissions in their order: number of the segment, number of the transmission.
    timeline: VecDeque<(u64, u64)>,
    /// Segments to send again, in order. Entries that are no longer lost are skipped.
    lost: VecDeque<u64>,
    transmissions: u64,
}

impl Scoreboard {
    /// Offset up to which all is acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// Bytes thought to be in the network.
    pub(super) fn flying(&self) -> u64 {
        self.flying
    }

    /// Bytes that the peer holds behind holes.
    pub(super) fn sacked_bytes(&self) -> u64 {
        self.sacked_bytes
    }

    /// Segments not acknowledged in order.
    pub(super) fn outstanding(&self) -> usize {
        self.segments.len()
    }

    /// True if nothing waits for an acknowledgement.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Segments that the peer holds behind holes.
    pub(super) fn sacked_segments(&self) -> usize {
        self.sacked_segments
    }

    /// The oldest one.
    pub(super) fn front(&self) -> Option<&Segment> {
        self.segments.front()
    }

    /// How many transmissions there were.
    pub(super) fn transmissions(&self) -> u64 {
        self.transmissions
    }

    /// The one with the highest offset.
    pub(super) fn back(&self) -> Option<(u64, Segment)> {
        let segment = *self.segments.back()?;
        Some((self.first + self.segments.len() as u64 - 1, segment))
    }

    /// A segment goes out for the first time.
    pub(super) fn sent_new(&mut self, now: Instant, start: u64, len: u32, stamp: Stamp) {
        let order = self.transmission(self.first + self.segments.len() as u64);
        self.segments.push_back(Segment {
            start,
            len,
            sent: now,
            order,
            copies: 1,
            fate: Fate::Flying,
            stamp,
        });
        self.flying += u64::from(len);
    }

    /// A segment goes out again.
    pub(super) fn sent_again(&mut self, now: Instant, id: u64, stamp: Stamp) {
        let order = self.transmission(id);
        let Some(segment) = self.get_mut(id) else { return };
        segment.sent = now;
        segment.stamp = stamp;
        segment.order = order;
        segment.copies = segment.copies.saturating_add(1);
        if segment.fate == Fate::Lost {
            segment.fate = Fate::Flying;
            let len = u64::from(segment.len);
            self.flying += len;
        }
    }

    /// The next segment to send again.
    pub(super) fn next_lost(&mut self) -> Option<(u64, Segment)> {
        while let Some(&id) = self.lost.front() {
            match self.get(id) {
                Some(segment) if segment.fate == Fate::Lost => return Some((id, *segment)),
                Some(_) | None => self.lost.pop_front(),
            };
        }
        None
    }

    /// Takes a cumulative acknowledgement and the reported ranges.
    pub(super) fn acknowledge(&mut self, ack: u64, blocks: impl Iterator<Item = (u64, u64)>) -> Delivered {
        let mut delivered = Delivered { advanced: ack > self.acked, ..Delivered::default() };
        if delivered.advanced {
            self.advance(ack, &mut delivered);
        }
        for (left, right) in blocks {
            if right <= self.acked {
                delivered.duplicate = true;
            } else if left >= self.acked {
                self.mark_sacked(left, right, &mut delivered);
            }
        }
        delivered
    }

    /// Marks as lost what was sent before the transmission `order`, and has had `patience` since it was sent. Returns
    /// the bytes newly marked, and when the next segment will have run out of patience (RFC 8985 6.2 step 5).
    pub(super) fn expire(&mut self, now: Instant, order: u64, patience: Duration) -> (u64, Option<Instant>) {
        let mut lost = 0;
        while let Some(&(id, transmission)) = self.timeline.front() {
            let current = self.get(id).copied().filter(|s| s.order == transmission && s.fate == Fate::Flying);
            let Some(segment) = current else {
                self.timeline.pop_front();
                continue;
            };
            if segment.order >= order {
                break;
            }
            let deadline = segment.sent + patience;
            if deadline > now {
                return (lost, Some(deadline));
            }
            self.timeline.pop_front();
            lost += self.lose(id);
        }
        (lost, None)
    }

    /// Marks the oldest segment as lost; returns its bytes if it was not lost before.
    pub(super) fn lose_front(&mut self) -> u64 {
        match self.segments.front().map(|segment| segment.fate) {
            // The peer reported it but does not acknowledge it: it dropped what it held (RFC 2018 8).
            Some(Fate::Sacked) => {
                self.forget_sacks();
                self.lose(self.first)
            }
            Some(Fate::Flying) => self.lose(self.first),
            Some(Fate::Lost) | None => 0,
        }
    }

    /// Takes back that segments were lost, as far as they were not sent again: what is still under way will tell.
    pub(super) fn revive(&mut self) {
        self.lost.clear();
        for segment in &mut self.segments {
            if segment.fate == Fate::Lost {
                segment.fate = Fate::Flying;
                self.flying += u64::from(segment.len);
            }
        }
        self.rebuild_timeline();
    }

    /// Cuts what is unacknowledged anew, in pieces of at most `max` bytes, all of it to be sent again: the path
    /// does not carry the old sizes any more. `fit` may shorten a piece of some length from some offset on.
    pub(super) fn recut(&mut self, max: u32, fit: impl Fn(u64, u32) -> u32) {
        let old = std::mem::take(&mut self.segments);
        self.timeline.clear();
        self.lost.clear();
        self.flying = 0;
        self.sacked_segments = 0;
        for segment in old {
            let mut start = segment.start;
            while start < segment.end() {
                let len = fit(start, u32::try_from(segment.end() - start).unwrap_or(max).min(max));
                let fate = if segment.fate == Fate::Sacked { Fate::Sacked } else { Fate::Lost };
                if fate == Fate::Sacked {
                    self.sacked_segments += 1;
                } else {
                    self.lost.push_back(self.first + self.segments.len() as u64);
                }
                self.segments.push_back(Segment { start, len, fate, ..segment });
                start += u64::from(len);
            }
        }
    }

    fn rebuild_timeline(&mut self) {
        let flying = self.segments.iter().enumerate().filter(|(_, segment)| segment.fate == Fate::Flying);
        let mut timeline: Vec<_> =
            flying.map(|(index, segment)| (self.first + index as u64, segment.order)).collect();
        timeline.sort_unstable_by_key(|&(_, order)| order);
        self.timeline = timeline.into();
    }

    fn transmission(&mut self, id: u64) -> u64 {
        self.transmissions += 1;
        if self.timeline.len() > STALE_FACTOR * self.segments.len() + KEPT_WHEN_EMPTY {
            self.rebuild_timeline();
        }
        self.timeline.push_back((id, self.transmissions));
        self.transmissions
    }

    fn get(&self, id: u64) -> Option<&Segment> {
        self.segments.get(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }

    fn get_mut(&mut self, id: u64) -> Option<&mut Segment> {
        self.segments.get_mut(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }

    fn lose(&mut self, id: u64) -> u64 {
        let Some(segment) = self.get_mut(id).filter(|segment| segment.fate == Fate::Flying) else { return 0 };
        segment.fate = Fate::Lost;
        let len = u64::from(segment.len);
        self.flying -= len;
        self.lost.push_back(id);
        len
    }

    fn forget_sacks(&mut self) {
        self.sacked.clear();
        self.sacked_bytes = 0;
        self.sacked_segments = 0;
        for (index, segment) in self.segments.iter_mut().enumerate() {
            if segment.fate == Fate::Sacked {
                segment.fate = Fate::Lost;
                self.lost.push_back(self.first + index as u64);
            }
        }
    }

    fn advance(&mut self, ack: u64, delivered: &mut Delivered) {
        while let Some(segment) = self.segments.front().copied().filter(|segment| segment.end() <= ack) {
            self.segments.pop_front();
            self.first += 1;
            match segment.fate {
                Fate::Sacked => {
                    self.sacked_bytes -= u64::from(segment.len);
                    self.sacked_segments -= 1;
                }
                Fate::Flying => {
                    self.flying -= u64::from(segment.len);
                    self.note(segment, delivered);
                }
                Fate::Lost => self.note(segment, delivered),
            }
        }
        self.acked = ack;
        while let Some((&left, &right)) = self.sacked.first_key_value()
            && left < ack
        {
            self.sacked.pop_first();
            if right > ack {
                self.sacked.insert(ack, right);
            }
        }
        if self.segments.is_empty() {
            self.timeline.clear();
            self.lost.clear();
            if self.segments.capacity() > KEPT_WHEN_EMPTY {
                self.segments = VecDeque::new();
                self.timeline = VecDeque::new();
                self.lost = VecDeque::new();
            }
        }
    }

    /// A segment is known to have arrived.
    fn note(&mut self, segment: Segment, delivered: &mut Delivered) {
        delivered.bytes += u64::from(segment.len);
        delivered.largest = delivered.largest.max(segment.len);
        delivered.reordered |= segment.copies == 1 && segment.end() < self.highest;
        self.highest = self.highest.max(segment.end());
        if segment.copies == 1 {
            let oldest = delivered.original.unwrap_or(u64::MAX);
            delivered.original = Some(oldest.min(segment.order));
        }
        if delivered.newest.is_none_or(|newest| newest.order < segment.order) {
            delivered.newest = Some(Newest {
                order: segment.order,
                sent: segment.sent,
                copies: segment.copies,
                stamp: segment.stamp,
            });
        }
    }

    fn mark_sacked(&mut self, left: u64, right: u64, delivered: &mut Delivered) {
        let Some(highest) = self.segments.back().map(Segment::end) else { return };
        if left >= right || right > highest {
            return;
        }
        // An honest peer reports whole segments, so there cannot be more ranges than those.
        if self.sacked.len() > self.segments.len() {
            return;
        }
        // Most reports repeat earlier ones: only the parts that are news are looked at.
        if self.sacked.range(..=left).next_back().is_some_and(|(_, &end)| end >= right) {
            return;
        }
        let (mut start, mut end) = (left, right);
        let mut known = Vec::new();
        while let Some((&l, &r)) = self.sacked.range(..=end).next_back()
            && r >= start
        {
            self.sacked.remove(&l);
            known.push((l, r));
            start = start.min(l);
            end = end.max(r);
        }
        self.sacked.insert(start, end);
        let mut at = left;
        for &(l, r) in known.iter().rev() {
            self.mark_segments(at, l, (start, end), delivered);
            at = at.max(r);
        }
        self.mark_segments(at, right, (start, end), delivered);
    }

    /// Marks the segments that overlap `from..to` and lie wholly inside `whole`.
    fn mark_segments(&mut self, from: u64, to: u64, whole: (u64, u64), delivered: &mut Delivered) {
        if from >= to {
            return;
        }
        let mut index = self.segments.partition_point(|segment| segment.end() <= from);
        while let Some(segment) = self.segments.get_mut(index).filter(|segment| segment.start < to) {
            index += 1;
            if segment.start < whole.0 || segment.end() > whole.1 || segment.fate == Fate::Sacked {
                continue;
            }
            let len = u64::from(segment.len);
            if segment.fate == Fate::Flying {
                self.flying -= len;
            }
            segment.fate = Fate::Sacked;
            self.sacked_bytes += len;
            self.sacked_segments += 1;
            delivered.sacked = true;
            let segment = *segment;
            self.note(segment, delivered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn board(segments: u64) -> (Scoreboard, Instant) {
        let now = start();
        let mut board = Scoreboard::default();
        for i in 0..segments {
            board.sent_new(now, i * 100, 100, Stamp::default());
        }
        (board, now)
    }

    #[test]
    fn selective_reports_count_each_segment_once() {
        let (mut board, _) = board(10);
        let first = board.acknowledge(0, [(200, 300), (500, 700)].into_iter());
        assert_eq!(first.bytes, 300);
        assert_eq!(board.acknowledge(0, [(500, 700), (200, 300)].into_iter()).bytes, 0);
        let more = board.acknowledge(100, [(200, 700)].into_iter());
        assert_eq!(more.bytes, 100 + 200);
        assert_eq!(board.flying(), 1000 - 600);
        let all = board.acknowledge(1000, std::iter::empty());
        assert_eq!(all.bytes, 400);
        assert_eq!(board.flying(), 0);
        assert!(board.is_empty());
    }

    #[test]
    fn a_segment_is_lost_when_later_ones_arrived_and_its_patience_is_over() {
        let (mut board, now) = board(4);
        let delivered = board.acknowledge(0, [(300, 400)].into_iter());
        let order = delivered.newest.unwrap().order;
        let patience = Duration::from_millis(10);
        assert_eq!(board.expire(now, order, patience), (0, Some(now + patience)));
        assert_eq!(board.expire(now + patience, order, patience), (300, None));
        let (id, lost) = board.next_lost().unwrap();
        assert_eq!(lost.start, 0);
        board.sent_again(now + patience, id, Stamp::default());
        assert_eq!(board.next_lost().unwrap().1.start, 100);
        assert_eq!(board.flying(), 100);
    }

    #[test]
    fn a_report_that_does_not_cover_a_whole_segment_marks_nothing() {
        let (mut board, _) = board(4);
        assert_eq!(board.acknowledge(0, [(150, 250)].into_iter()).bytes, 0);
        assert_eq!(board.acknowledge(0, [(100, 150)].into_iter()).bytes, 100);
        assert_eq!(board.acknowledge(0, [(250, 300)].into_iter()).bytes, 100);
    }

    #[test]
    fn what_is_cut_anew_is_all_sent_again() {
        let (mut board, _) = board(3);
        board.acknowledge(0, [(100, 200)].into_iter());
        board.recut(40, |_, len| len);
        assert_eq!(board.flying(), 0);
        let mut starts = Vec::new();
        while let Some((id, segment)) = board.next_lost() {
            starts.push(segment.start);
            board.sent_again(start(), id, Stamp::default());
        }
        assert_eq!(starts, [0, 40, 80, 200, 240, 280]);
        assert_eq!(board.acknowledge(300, std::iter::empty()).bytes, 200);
        assert_eq!(board.flying(), 0);
    }
}
