//! Which segment goes out next.

use std::time::Instant;

use pilot_wire::sack;

use super::{Fin, Forced, Outgoing, Phase, Sender};
use crate::stream::{
    outbox::{MAX_PARTS, Outbox},
    scoreboard::{Fate, Segment},
};

/// Short segments that may be unacknowledged before another one is held back (Minshall's rule has one). Towards
/// 1.18, whose window counts segments, it is one; among ourselves several, because a held message costs its
/// receiver a round trip.
const SHORT_LEGACY: usize = 1;
const SHORT_EXTENDED: usize = 16;

/// The longest announcement of a list is 5 + 8 * 32 bytes; more of a segment need not be looked at.
const LOOKALIKE_LEN: usize = 261;

impl Sender {
    /// The packet that goes out next, if one may.
    pub(in crate::stream) fn poll(&mut self, now: Instant) -> Option<Outgoing> {
        match self.forced {
            None => {}
            Some(Forced::Lost) => {
                if let Some(outgoing) = self.retransmit_lost(now) {
                    return Some(outgoing);
                }
                self.forced = None;
            }
            Some(Forced::Tail) => {
                self.forced = None;
                if let Some(outgoing) = self.probe_tail(now) {
                    return Some(outgoing);
                }
            }
            Some(Forced::Window) => {
                self.forced = None;
                if let Some(outgoing) = self.probe_window(now) {
                    return Some(outgoing);
                }
            }
        }
        if let Some((_, segment)) = self.board.next_lost() {
            if self.has_room(segment.len) && self.may_pace(now) {
                return self.retransmit_lost(now);
            }
            self.app_limited = false;
            return None;
        }
        self.new_data(now).or_else(|| self.new_fin(now))
    }

    /// The bytes of a data segment.
    pub(in crate::stream) fn payload(&self, start: u64, len: u32) -> ([&[u8]; MAX_PARTS], usize) {
        let (parts, count, found) = self.outbox.gather(start, len as usize);
        debug_assert_eq!(found, len as usize, "what is unacknowledged is kept");
        (parts, count)
    }

    fn retransmit_lost(&mut self, now: Instant) -> Option<Outgoing> {
        let (id, segment) = self.board.next_lost()?;
        if !matches!(self.phase, Phase::Lossy { .. }) {
            self.stats.fast_retransmits += 1;
        }
        self.forced = None;
        Some(self.again(now, id, segment))
    }

    fn again(&mut self, now: Instant, id: u64, segment: Segment) -> Outgoing {
        let stamp = self.control.on_sent(now, self.board.flying(), segment.len);
        self.board.sent_again(now, id, stamp);
        self.stats.retransmits += 1;
        self.account(now, segment.len);
        match self.fin {
            Fin::Sent(at) if at == segment.start => Outgoing::Fin { at, again: true },
            Fin::Sent(_) | Fin::Open | Fin::Held | Fin::Queued => {
                Outgoing::Data { start: segment.start, len: segment.len, again: true }
            }
        }
    }

    fn probe_tail(&mut self, now: Instant) -> Option<Outgoing> {
        if let Some(len) = self.next_len(self.window_room()) {
            return Some(self.first_time(now, len));
        }
        let (id, segment) = self.board.back().filter(|(_, segment)| segment.fate == Fate::Flying)?;
        if let Some(probe) = &mut self.tail_probe {
            probe.again = true;
        }
        Some(self.again(now, id, segment))
    }

    fn probe_window(&mut self, now: Instant) -> Option<Outgoing> {
        if self.window_open() || !self.board.is_empty() {
            return None;
        }
        let len = self.next_len(u64::MAX)?;
        self.probing_window = true;
        self.rtt.reset_backoff();
        Some(self.first_time(now, len))
    }

    fn new_data(&mut self, now: Instant) -> Option<Outgoing> {
        let pending = self.outbox.end().saturating_sub(self.next);
        if pending == 0 || matches!(self.fin, Fin::Sent(_)) {
            if self.has_room(self.segment) {
                self.app_limited = true;
                self.control.on_limited(self.board.flying());
            }
            return None;
        }
        self.age(now);
        let slots = self.slots.min(self.agreed.max_outstanding) as usize;
        let room = self.window_room();
        if room == 0 || self.board.outstanding() >= slots {
            self.app_limited |= self.has_room(self.segment);
            if self.board.is_empty() && self.forced.is_none() && self.probe_window_at.is_none() {
                self.probe_window_at = Some(now + self.rtt.persistence(self.max_rto()));
            }
            return None;
        }
        // A sliver of window is worth a segment only if nothing else will open it (RFC 9293 3.8.6.2.1).
        if room < pending.min(u64::from(self.segment)) && !self.board.is_empty() {
            return None;
        }
        let short = pending < u64::from(self.segment);
        let limit = if self.agreed.is_legacy() { SHORT_LEGACY } else { SHORT_EXTENDED };
        if short && matches!(self.fin, Fin::Open | Fin::Held) && self.shorts.len() >= limit {
            self.app_limited |= self.has_room(self.segment);
            return None;
        }
        let most = u32::try_from(pending.min(u64::from(self.segment))).unwrap_or(self.segment);
        if !self.has_room(most) {
            self.app_limited = false;
            return None;
        }
        if !self.may_pace(now) {
            return None;
        }
        let len = self.next_len(room)?;
        // A segment that is short because of what it says is no small write.
        if short && u64::from(len) == pending {
            self.shorts.push_back(self.next + u64::from(len));
        }
        Some(self.first_time(now, len))
    }

    fn new_fin(&mut self, now: Instant) -> Option<Outgoing> {
        let all_sent = self.next == self.outbox.end();
        // Old releases drop data that their FIN overtakes (spec/dataplane.md 3.9).
        let may = all_sent && (!self.agreed.is_legacy() || self.board.is_empty());
        if self.fin != Fin::Queued || !may {
            return None;
        }
        let at = self.next;
        self.fin = Fin::Sent(at);
        self.start_waiting(now);
        let stamp = self.control.on_sent(now, self.board.flying(), 1);
        self.board.sent_new(now, at, 1, stamp);
        self.next += 1;
        self.account(now, 1);
        Some(Outgoing::Fin { at, again: false })
    }

    fn first_time(&mut self, now: Instant, len: u32) -> Outgoing {
        let start = self.next;
        self.start_waiting(now);
        let stamp = self.control.on_sent(now, self.board.flying(), len);
        self.board.sent_new(now, start, len, stamp);
        self.next += u64::from(len);
        self.stats.bytes_sent += u64::from(len);
        self.account(now, len);
        Outgoing::Data { start, len, again: false }
    }

    fn start_waiting(&mut self, now: Instant) {
        if self.board.is_empty() {
            self.waiting_since = now;
            self.stuck_since = now;
        }
    }

    fn account(&mut self, now: Instant, len: u32) {
        self.stats.segments_sent += 1;
        self.last_sent = now;
        self.pacer.spend(u64::from(len));
        if let Phase::Recovering { prr, .. } = &mut self.phase {
            prr.sent(u64::from(len));
        }
    }

    /// The length of the next new segment, at most `room`.
    fn next_len(&mut self, room: u64) -> Option<u32> {
        let pending = self.outbox.end().saturating_sub(self.next);
        let most = pending.min(u64::from(self.segment)).min(room);
        if most == 0 {
            return None;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let (len, first) = self.outbox.measure(self.next, most)?;
        let len = u32::try_from(len).ok()?;
        let blocks = usize::from(self.agreed.sack_blocks);
        let cut = first == b'S' && looks_like_sack(&self.outbox, self.next, len, blocks);
        Some(if cut { 1 } else { len })
    }

    fn window_room(&self) -> u64 {
        self.edge.saturating_sub(self.next)
    }

    pub(super) fn window_open(&self) -> bool {
        self.edge > self.next && self.slots > 0
    }

    fn has_room(&self, len: u32) -> bool {
        self.board.flying() + u64::from(len) <= self.control.window()
    }

    fn may_pace(&mut self, now: Instant) -> bool {
        let rate = self.rtt.smoothed().map(|rtt| self.control.pace(rtt));
        match self.pacer.check(now, rate) {
            Ok(()) => {
                self.pace_at = None;
                true
            }
            Err(at) => {
                self.pace_at = Some(at);
                false
            }
        }
    }

    /// Forgets part of the window after an idle time.
    fn age(&mut self, now: Instant) {
        if !self.board.is_empty() {
            return;
        }
        let idle = now.saturating_duration_since(self.last_sent);
        let timeout = self.rtt.timeout(self.max_rto());
        if idle > timeout && self.rtt.smoothed().is_some() {
            let timeouts = idle.as_nanos() / timeout.as_nanos().max(1);
            self.control.on_idle(u32::try_from(timeouts).unwrap_or(u32::MAX));
            self.last_sent = now;
        }
    }
}

/// Whether a peer would take a segment for a selective acknowledgement (spec/dataplane.md 3.5).
pub(super) fn looks_like_sack(outbox: &Outbox, start: u64, len: u32, max_blocks: usize) -> bool {
    let (parts, count, _) = outbox.gather(start, (len as usize).min(LOOKALIKE_LEN));
    let is_candidate = parts[0].first() == Some(&b'S');
    is_candidate && sack::is_lookalike(&parts[..count].concat(), max_blocks)
}
