//! What an acknowledgement means for the sending half: windows, round trips, losses, and when a recovery is over.

use std::time::Instant;

use pilot_wire::{Seq, packet::Header, sack::SackBlock};

use super::{Acknowledged, Forced, Phase, Sender};
use crate::stream::{congestion::Ack, recovery::Prr, scoreboard::Delivered};

/// Large segments lost in a row, with smaller ones arriving, that are no coincidence.
const SUSPICIOUS_LOSSES: u16 = 8;

impl Sender {
    /// Takes the acknowledgement, the window, and the reported blocks of a packet. `pure`: it had no data.
    pub(in crate::stream) fn on_ack(
        &mut self,
        now: Instant,
        header: &Header,
        blocks: &[SackBlock],
        pure: bool,
    ) -> Acknowledged {
        let distance = (header.ack - self.seq(self.board.acked())).cast_signed();
        if distance < 0 {
            return Acknowledged::Nothing;
        }
        let ack = self.board.acked() + u64::from(distance.cast_unsigned());
        if ack > self.next.max(self.early()) {
            return Acknowledged::Unsent;
        }
        self.skip_to(ack);
        let acked_before = self.board.acked();
        let flight = self.board.flying();
        let reported = blocks.iter().map(|block| {
            let acked = header.ack;
            let offset = |seq: Seq| ack.saturating_add_signed(i64::from((seq - acked).cast_signed()));
            (offset(block.left), offset(block.right))
        });
        let delivered = self.board.acknowledge(ack, reported);
        self.stats.sacks_received += u64::from(!blocks.is_empty());
        self.update_window(now, header, ack, delivered.advanced, pure);
        if delivered.advanced {
            self.progress(now, ack);
        } else if pure && !self.board.is_empty() {
            self.stats.duplicate_acks += 1;
        }
        if delivered.bytes > 0 || delivered.duplicate {
            self.learn(now, &delivered, flight);
        }
        self.end_tail_probe(ack, &delivered, pure && blocks.is_empty());
        if ack > acked_before || delivered.sacked { Acknowledged::Progress } else { Acknowledged::Nothing }
    }

    /// The answer to our SYN says that the peer has the bytes up to `ack` from there. Whether that is news.
    pub(in crate::stream) fn on_early_ack(&mut self, now: Instant, ack: u64) -> bool {
        if ack > self.early() || ack <= self.board.acked() {
            return false;
        }
        self.skip_to(ack);
        let flight = self.board.flying();
        let delivered = self.board.acknowledge(ack, std::iter::empty());
        self.progress(now, ack);
        if delivered.bytes > 0 {
            self.learn(now, &delivered, flight);
        }
        true
    }

    /// What a SYN brought need not be sent in a segment.
    fn skip_to(&mut self, ack: u64) {
        if ack > self.next {
            self.stats.bytes_sent += ack - self.next;
            self.next = ack;
        }
    }

    fn update_window(&mut self, now: Instant, header: &Header, ack: u64, advanced: bool, pure: bool) {
        let newer = self.window_from.is_none_or(|(seq, acked)| {
            header.seq.is_after(seq) || (header.seq == seq && ack >= acked) || ack > acked
        });
        if !newer {
            return;
        }
        // A keepalive of an old release says 0 without meaning it (spec/dataplane.md 3.6): a window only closes
        // when data is acknowledged.
        if header.window == 0 && self.agreed.is_legacy() && pure && !advanced && self.board.is_empty() {
            return;
        }
        self.window_from = Some((header.seq, ack));
        let before = self.edge;
        self.set_window_at(header.window, ack);
        if self.edge > before && self.probing_window {
            self.probing_window = false;
            self.rtt.reset_backoff();
            self.board.lose_front();
            self.waiting_since = now;
        }
        if self.window_open() {
            self.probe_window_at = None;
        }
    }

    pub(in crate::stream::send) fn set_window_at(&mut self, window: u16, ack: u64) {
        self.edge = ack + u64::from(window) * u64::from(self.agreed.peer_unit);
        self.slots = if self.agreed.is_legacy() { u32::from(window) } else { u32::MAX };
    }

    fn progress(&mut self, now: Instant, ack: u64) {
        // Segments keep their boundaries, so a partly acknowledged one is still needed as a whole.
        let needed = self.board.front().map_or(ack, |segment| segment.start.min(ack));
        self.outbox.release(needed);
        while self.shorts.front().is_some_and(|&end| end <= ack) {
            self.shorts.pop_front();
        }
        self.waiting_since = now;
        self.stuck_since = now;
        self.rtt.reset_backoff();
        self.probing_window = false;
        if self.board.is_empty() {
            self.reorder_at = None;
        }
    }

    fn learn(&mut self, now: Instant, delivered: &Delivered, flight: u64) {
        let mut sample = None;
        if let Some(newest) = delivered.newest
            && newest.copies == 1
        {
            let rtt = now.saturating_duration_since(newest.sent);
            self.rtt.sample(now, rtt);
            sample = Some(rtt);
        }
        self.rack.on_ack(now, delivered, &self.rtt);
        if delivered.duplicate && !self.agreed.is_legacy() {
            self.rack.on_duplicate(self.board.acked(), self.next);
        }
        self.doubt_timeout(delivered);
        let lost = self.detect_losses(now);
        self.leave_phase();
        self.on_losses(lost, flight, delivered);
        self.fruitless = 0;
        self.watch_size(lost, delivered);
        // A window that was not in use must not grow (RFC 9002 7.8).
        let was_used =
            self.control.window() < 2 * flight && (!self.app_limited || self.control.in_slow_start());
        let newest = delivered.newest.map(|newest| (newest.sent, newest.stamp));
        let ack = Ack {
            bytes: delivered.bytes,
            acked: self.board.acked(),
            sent: self.next,
            rtt: sample,
            smoothed: self.rtt.smoothed().unwrap_or_default(),
            flight: self.board.flying(),
            newest,
        };
        let repairing = matches!(self.phase, Phase::Recovering { .. });
        self.control.on_ack(now, &ack, was_used, repairing);
    }

    /// What was sent before a time-out and never again has arrived after it (RFC 5682): packets were late, or only some
    /// were lost. Starting over from one segment is not called for.
    fn doubt_timeout(&mut self, delivered: &Delivered) {
        if let Phase::Lossy { order: Some(order), .. } = self.phase
            && delivered.original.is_some_and(|original| original <= order)
        {
            self.phase = Phase::Open;
            self.control.undo_timeout();
            self.board.revive();
        }
    }

    fn leave_phase(&mut self) {
        let acked = self.board.acked();
        match &self.phase {
            Phase::Recovering { until, .. } if acked >= *until => {
                self.control.set_window(self.control.threshold());
                self.rack.on_recovered();
                self.phase = Phase::Open;
            }
            Phase::Lossy { until, .. } if acked >= *until => self.phase = Phase::Open,
            Phase::Open | Phase::Recovering { .. } | Phase::Lossy { .. } => {}
        }
    }

    /// Large segments that get lost again and again while small ones arrive: the path does not carry them any more
    /// (RFC 8899 4.3).
    fn watch_size(&mut self, lost: u64, delivered: &Delivered) {
        if delivered.largest > u32::from(self.base_segment) {
            self.large_lost = 0;
        } else if lost > 0 && self.segment > u32::from(self.base_segment) {
            let segments = lost.div_ceil(u64::from(self.segment));
            self.large_lost = self.large_lost.saturating_add(u16::try_from(segments).unwrap_or(u16::MAX));
            self.suspicious |= self.large_lost >= SUSPICIOUS_LOSSES;
        }
    }

    pub(super) fn detect_losses(&mut self, now: Instant) -> u64 {
        let Some(order) = self.rack.newest_order() else { return 0 };
        let patience = self.rack.patience(&self.rtt, self.in_recovery(), self.board.sacked_segments());
        let (lost, deadline) = self.board.expire(now, order, patience);
        self.reorder_at = deadline;
        lost
    }

    pub(super) fn on_losses(&mut self, lost: u64, flight: u64, delivered: &Delivered) {
        self.control.on_lost(lost);
        if lost > 0 && matches!(self.phase, Phase::Open) {
            self.control.on_congestion();
            self.phase = Phase::Recovering { until: self.next, prr: Prr::new(flight) };
            self.forced = Some(Forced::Lost);
            self.tail_probe = None;
        }
        if let Phase::Recovering { prr, .. } = &mut self.phase {
            let safe = delivered.advanced && lost == 0;
            let (flying, target) = (self.board.flying(), self.control.threshold());
            let allowance = prr.allowance(delivered.bytes, flying, target, u64::from(self.segment), safe);
            self.control.set_window(flying + allowance);
        }
    }

    /// Whether a tail probe repaired a loss (RFC 8985 7.4.2).
    fn end_tail_probe(&mut self, ack: u64, delivered: &Delivered, bare: bool) {
        let Some(probe) = self.tail_probe.filter(|probe| ack >= probe.end) else { return };
        if !probe.again || delivered.duplicate {
            self.tail_probe = None;
        } else if ack > probe.end {
            self.tail_probe = None;
            if matches!(self.phase, Phase::Open)
                && let Some(window) = self.control.on_congestion()
            {
                self.control.set_window(window);
            }
        } else if bare && !delivered.advanced {
            self.tail_probe = None;
        }
    }
}
