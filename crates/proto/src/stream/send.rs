//! The sending half: what goes out next, and what an acknowledgement means.
//!
//! Positions are 64-bit offsets from the first data byte; a FIN takes the offset after the last one. The window of
//! the peer, the congestion window, pacing, and the rule for short segments each may hold new data back; lost
//! segments are only held by the congestion window and pacing; probes by nothing.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pilot_wire::{
    Seq,
    packet::Header,
    sack::{self, SackBlock},
};

use super::{
    Config,
    congestion::{Ack, Cubic},
    options::Agreed,
    outbox::{MAX_PARTS, Outbox},
    pacing::{Pacer, Rate},
    recovery::{Prr, Rack, probe_timeout},
    rtt::Rtt,
    scoreboard::{Delivered, Fate, Scoreboard, Segment},
};

/// Short segments that may be unacknowledged before another one is held back (Minshall's rule has one). Towards
/// 1.18, whose window counts segments, it is one; among ourselves several, because a held message costs its
/// receiver a round trip.
const SHORT_LEGACY: usize = 1;
const SHORT_EXTENDED: usize = 16;

/// The longest announcement of a list is 5 + 8 * 32 bytes; more of a segment need not be looked at.
const LOOKALIKE_LEN: usize = 261;

/// What the next packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// Bytes of the stream.
    Data { start: u64, len: u32, again: bool },
    /// The end of the stream.
    Fin { at: u64, again: bool },
}

/// How far the end of our direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    /// The application may write.
    Open,
    /// It said that it is done, but the peer must not hear of it yet (1.18 would close at once).
    Held,
    /// To be sent after all data.
    Queued,
    /// Sent; takes this offset.
    Sent(u64),
}

/// Why a segment goes out whatever the windows say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forced {
    /// The first lost segment of a recovery or time-out.
    Lost,
    /// The end of a flight is probed (RFC 8985 7).
    Tail,
    /// A closed window is probed, with data, because the reference answers only that.
    Window,
}

#[derive(Debug)]
enum Phase {
    Open,
    /// Repairing losses until this offset is acknowledged.
    Recovering {
        until: u64,
        prr: Prr,
    },
    /// A time-out happened; everything up to this offset may have to be sent again.
    Lossy {
        until: u64,
        /// Transmissions up to the time-out.
        order: u64,
    },
}

#[derive(Clone, Copy, Debug)]
struct TailProbe {
    /// Sent so far when the probe went out.
    end: u64,
    again: bool,
}

/// What the acknowledgement of a packet said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// Something new.
    Progress,
    /// Nothing new.
    Nothing,
    /// More than we sent.
    Unsent,
}

/// Counts for `connections`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SendStats {
    pub(super) bytes_sent: u64,
    pub(super) segments_sent: u64,
    pub(super) retransmits: u64,
    pub(super) fast_retransmits: u64,
    pub(super) timeouts: u64,
    pub(super) duplicate_acks: u64,
    pub(super) sacks_received: u64,
}

/// The sending half of a stream.
#[derive(Debug)]
pub(super) struct Sender {
    /// Sequence number of offset zero.
    base: Seq,
    outbox: Outbox,
    board: Scoreboard,
    rtt: Rtt,
    cubic: Cubic,
    rack: Rack,
    pacer: Pacer,
    phase: Phase,
    next: u64,
    fin: Fin,
    agreed: Agreed,
    /// Payload bytes of a full segment.
    segment: u32,
    max_rto: Duration,
    /// The peer's window: up to which offset, and in how many segments.
    edge: u64,
    slots: u32,
    /// Sequence and acknowledgement of the packet that the window came with (RFC 9293 3.10.7.4).
    window_from: Option<(Seq, u64)>,
    /// Ends of short segments in flight.
    shorts: VecDeque<u64>,
    app_limited: bool,
    forced: Option<Forced>,
    tail_probe: Option<TailProbe>,
    probing_window: bool,
    reorder_at: Option<Instant>,
    pace_at: Option<Instant>,
    probe_window_at: Option<Instant>,
    /// Where the retransmission time-out counts from.
    waiting_since: Instant,
    last_sent: Instant,
    /// Since when the oldest segment waits without any progress.
    stuck_since: Instant,
    pub(super) stats: SendStats,
}

impl Sender {
    /// Sends from `initial + 1` on.
    pub(super) fn new(config: &Config, now: Instant, initial: Seq, agreed: Agreed) -> Self {
        let segment = config.path_segment.min(agreed.max_segment);
        Self {
            base: initial + 1,
            outbox: Outbox::default(),
            board: Scoreboard::default(),
            rtt: Rtt::default(),
            cubic: Cubic::new(u64::from(config.initial_window), u64::from(segment)),
            rack: Rack::default(),
            pacer: Pacer::new(now),
            phase: Phase::Open,
            next: 0,
            fin: Fin::Open,
            agreed,
            segment: u32::from(segment),
            max_rto: config.max_rto,
            edge: 0,
            slots: 0,
            window_from: None,
            shorts: VecDeque::new(),
            app_limited: true,
            forced: None,
            tail_probe: None,
            probing_window: false,
            reorder_at: None,
            pace_at: None,
            probe_window_at: None,
            waiting_since: now,
            last_sent: now,
            stuck_since: now,
            stats: SendStats::default(),
        }
    }

    /// The SYN of the peer told what it can take, and the first window.
    pub(super) fn agree(&mut self, agreed: Agreed, path_segment: u16, syn: &Header) {
        self.agreed = agreed;
        self.segment = u32::from(path_segment.min(agreed.max_segment));
        self.cubic.set_segment(u64::from(self.segment));
        self.set_window(syn.window);
        self.window_from = Some((syn.seq, 0));
    }

    /// The path carries segments of this size from now on.
    pub(super) fn set_path_segment(&mut self, bytes: u16) {
        let segment = u32::from(bytes.min(self.agreed.max_segment));
        if segment < self.segment && !self.agreed.is_legacy() {
            let (outbox, blocks) = (&self.outbox, usize::from(self.agreed.sack_blocks));
            self.board.recut(
                segment,
                |start, len| if looks_like_sack(outbox, start, len, blocks) { 1 } else { len },
            );
        }
        self.segment = segment;
        self.cubic.set_segment(u64::from(segment));
    }

    /// The number on the wire of an offset.
    pub(super) fn seq(&self, offset: u64) -> Seq {
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are offsets modulo 2^32")]
        let low = offset as u32;
        self.base + low
    }

    /// The next sequence number that was never sent.
    pub(super) fn next_seq(&self) -> Seq {
        self.seq(self.next)
    }

    /// How many numbers were sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.next
    }

    /// Appends to the stream.
    pub(super) fn write(&mut self, data: Bytes) {
        self.outbox.write(data);
    }

    /// Bytes written and not acknowledged.
    pub(super) fn buffered(&self) -> usize {
        self.outbox.len()
    }

    /// Bytes written and not acknowledged, for the report of what got lost.
    pub(super) fn unacknowledged(&self) -> u64 {
        self.outbox.end() - self.board.acked().min(self.outbox.end())
    }

    /// Nothing will be sent any more.
    pub(super) fn abandon(&mut self) {
        self.outbox.abandon();
        self.shorts = VecDeque::new();
    }

    /// True once everything written is acknowledged.
    pub(super) fn is_drained(&self) -> bool {
        self.outbox.len() == 0
    }

    /// How far the end of this direction is.
    pub(super) fn fin(&self) -> Fin {
        self.fin
    }

    /// Ends this direction, unless it has ended already.
    pub(super) fn end(&mut self, fin: Fin) {
        if matches!(self.fin, Fin::Open | Fin::Held) {
            self.fin = fin;
        }
    }

    /// True once the peer has acknowledged the end.
    pub(super) fn fin_acknowledged(&self) -> bool {
        matches!(self.fin, Fin::Sent(at) if self.board.acked() > at)
    }

    /// How often the end has been sent.
    pub(super) fn fin_copies(&self) -> u8 {
        match (self.fin, self.board.back()) {
            (Fin::Sent(at), Some((_, segment))) if segment.start == at => segment.copies,
            _ => 0,
        }
    }

    /// Since when data waits for an acknowledgement, if any does.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        (!self.board.is_empty()).then_some(self.stuck_since)
    }

    /// Time-outs since the peer last acknowledged something.
    pub(super) fn timeouts_in_a_row(&self) -> u32 {
        self.rtt.backoff()
    }

    /// Smoothed round trip, its deviation.
    pub(super) fn rtt(&self) -> (Duration, Duration) {
        (self.rtt.smoothed().unwrap_or_default(), self.rtt.variation())
    }

    /// A round trip measured by the handshake.
    pub(super) fn sample_rtt(&mut self, now: Instant, rtt: Duration) {
        self.rtt.sample(now, rtt);
    }

    /// Congestion window and slow-start threshold.
    pub(super) fn windows(&self) -> (u64, u64) {
        (self.cubic.window(), self.cubic.threshold())
    }

    /// Bytes in the network.
    pub(super) fn flying(&self) -> u64 {
        self.board.flying()
    }

    /// Segments without acknowledgement.
    pub(super) fn outstanding(&self) -> usize {
        self.board.outstanding()
    }

    /// What the peer still takes.
    pub(super) fn peer_window(&self) -> u64 {
        self.edge.saturating_sub(self.board.acked())
    }

    /// True while losses are repaired.
    pub(super) fn in_recovery(&self) -> bool {
        !matches!(self.phase, Phase::Open)
    }

    /// Takes the acknowledgement, the window, and the reported blocks of a packet. `pure`: it had no data.
    pub(super) fn on_ack(
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
        if ack > self.next {
            return Acknowledged::Unsent;
        }
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

    /// When [`on_timeout`](Self::on_timeout) wants to be called.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let tail = self.tail_timer().map(|(at, _)| at);
        [tail, self.reorder_at, self.pace_at, self.probe_window_at].into_iter().flatten().min()
    }

    /// Acts on every timer that is due. Says whether a retransmission time-out was among them.
    pub(super) fn on_timeout(&mut self, now: Instant) -> bool {
        if self.pace_at.is_some_and(|at| at <= now) {
            self.pace_at = None;
        }
        if self.probe_window_at.is_some_and(|at| at <= now) {
            self.probe_window_at = None;
            self.forced = Some(Forced::Window);
        }
        if self.reorder_at.is_some_and(|at| at <= now) {
            self.reorder_at = None;
            let flight = self.board.flying();
            let lost = self.detect_losses(now);
            self.on_losses(lost, flight, &Delivered::default());
        }
        match self.tail_timer() {
            Some((at, Tail::Probe)) if at <= now => {
                self.forced = Some(Forced::Tail);
                self.waiting_since = now;
                self.tail_probe = Some(TailProbe { end: self.next, again: false });
                false
            }
            Some((at, Tail::Timeout)) if at <= now => {
                self.retransmission_timeout(now);
                true
            }
            Some(_) | None => false,
        }
    }

    /// The peer can be reached again: do not wait for a timer that was backed off.
    pub(super) fn retry_now(&mut self, now: Instant) {
        self.rtt.forget_minimum();
        if self.rtt.backoff() > 0 && !self.board.is_empty() {
            self.rtt.reset_backoff();
            self.board.lose_front();
            self.forced = Some(Forced::Lost);
            self.waiting_since = now;
        }
    }

    /// The packet that goes out next, if one may.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Outgoing> {
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
    pub(super) fn payload(&self, start: u64, len: u32) -> ([&[u8]; MAX_PARTS], usize) {
        let (parts, count, found) = self.outbox.gather(start, len as usize);
        debug_assert_eq!(found, len as usize, "what is unacknowledged is kept");
        (parts, count)
    }

    // ----- acknowledgements -----

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

    fn set_window(&mut self, window: u16) {
        self.set_window_at(window, 0);
    }

    fn set_window_at(&mut self, window: u16, ack: u64) {
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
        // A window that was not in use must not grow (RFC 9002 7.8).
        let was_used = self.cubic.window() < 2 * flight && (!self.app_limited || self.cubic.in_slow_start());
        match &self.phase {
            Phase::Recovering { .. } => {}
            Phase::Open | Phase::Lossy { .. } => {
                if was_used {
                    self.cubic.on_ack(
                        now,
                        Ack {
                            bytes: delivered.bytes,
                            acked: self.board.acked(),
                            sent: self.next,
                            rtt: sample,
                            smoothed: self.rtt.smoothed().unwrap_or_default(),
                        },
                    );
                } else {
                    self.cubic.on_unused();
                }
            }
        }
    }

    /// What was sent before a time-out and never again has arrived after it (RFC 5682): packets were late, or only some
    /// were lost. Starting over from one segment is not called for.
    fn doubt_timeout(&mut self, delivered: &Delivered) {
        if let Phase::Lossy { order, .. } = self.phase
            && delivered.original.is_some_and(|original| original <= order)
        {
            self.phase = Phase::Open;
            self.cubic.set_window(self.cubic.window().max(self.cubic.threshold()));
            self.board.revive();
        }
    }

    fn leave_phase(&mut self) {
        let acked = self.board.acked();
        match &self.phase {
            Phase::Recovering { until, .. } if acked >= *until => {
                self.cubic.set_window(self.cubic.threshold());
                self.rack.on_recovered();
                self.phase = Phase::Open;
            }
            Phase::Lossy { until, .. } if acked >= *until => self.phase = Phase::Open,
            Phase::Open | Phase::Recovering { .. } | Phase::Lossy { .. } => {}
        }
    }

    fn detect_losses(&mut self, now: Instant) -> u64 {
        let Some(order) = self.rack.newest_order() else { return 0 };
        let patience = self.rack.patience(&self.rtt, self.in_recovery(), self.board.sacked_segments());
        let (lost, deadline) = self.board.expire(now, order, patience);
        self.reorder_at = deadline;
        lost
    }

    fn on_losses(&mut self, lost: u64, flight: u64, delivered: &Delivered) {
        if lost > 0 && matches!(self.phase, Phase::Open) {
            self.cubic.on_loss();
            self.phase = Phase::Recovering { until: self.next, prr: Prr::new(flight) };
            self.forced = Some(Forced::Lost);
            self.tail_probe = None;
        }
        if let Phase::Recovering { prr, .. } = &mut self.phase {
            let safe = delivered.advanced && lost == 0;
            let (flying, target) = (self.board.flying(), self.cubic.threshold());
            let allowance = prr.allowance(delivered.bytes, flying, target, u64::from(self.segment), safe);
            self.cubic.set_window(flying + allowance);
        }
    }

    /// Whether a tail probe repaired a loss (RFC 8985 7.4.2).
    fn end_tail_probe(&mut self, ack: u64, delivered: &Delivered, bare: bool) {
        let Some(probe) = self.tail_probe.filter(|probe| ack >= probe.end) else { return };
        if !probe.again || delivered.duplicate {
            self.tail_probe = None;
        } else if ack > probe.end {
            self.tail_probe = None;
            if matches!(self.phase, Phase::Open) {
                let window = self.cubic.on_loss();
                self.cubic.set_window(window);
            }
        } else if bare && !delivered.advanced {
            self.tail_probe = None;
        }
    }

    // ----- timers -----

    fn tail_timer(&self) -> Option<(Instant, Tail)> {
        if self.board.is_empty() || self.forced.is_some() {
            return None;
        }
        let timeout = self.waiting_since + self.rtt.timeout(self.max_rto);
        let probing_allowed = matches!(self.phase, Phase::Open)
            && self.tail_probe.is_none()
            && self.rtt.backoff() == 0
            && self.board.sacked_bytes() == 0
            && !self.probing_window;
        if probing_allowed && let Some(wait) = probe_timeout(&self.rtt, self.board.outstanding()) {
            let probe = self.last_sent.max(self.waiting_since) + wait;
            if probe < timeout {
                return Some((probe, Tail::Probe));
            }
        }
        Some((timeout, Tail::Timeout))
    }

    fn retransmission_timeout(&mut self, now: Instant) {
        self.stats.timeouts += 1;
        self.waiting_since = now;
        self.tail_probe = None;
        if self.probing_window {
            self.rtt.back_off();
            self.board.lose_front();
            self.forced = Some(Forced::Lost);
            return;
        }
        self.cubic.on_timeout(matches!(self.phase, Phase::Open));
        let order = self.board.transmissions();
        let patience = self.rack.patience_after_timeout(&self.rtt);
        self.board.lose_front();
        self.board.expire(now, u64::MAX, patience);
        self.rtt.back_off();
        self.reorder_at = None;
        self.phase = Phase::Lossy { until: self.next, order };
        self.forced = Some(Forced::Lost);
    }

    // ----- what goes out -----

    fn retransmit_lost(&mut self, now: Instant) -> Option<Outgoing> {
        let (id, segment) = self.board.next_lost()?;
        if !matches!(self.phase, Phase::Lossy { .. }) {
            self.stats.fast_retransmits += 1;
        }
        self.forced = None;
        Some(self.again(now, id, segment))
    }

    fn again(&mut self, now: Instant, id: u64, segment: Segment) -> Outgoing {
        self.board.sent_again(now, id);
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
            self.app_limited |= self.has_room(self.segment);
            return None;
        }
        self.age(now);
        let slots = self.slots.min(self.agreed.max_outstanding) as usize;
        let room = self.window_room();
        if room == 0 || self.board.outstanding() >= slots {
            self.app_limited |= self.has_room(self.segment);
            if self.board.is_empty() && self.forced.is_none() && self.probe_window_at.is_none() {
                self.probe_window_at = Some(now + self.rtt.timeout(self.max_rto));
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
        self.board.sent_new(now, at, 1);
        self.next += 1;
        self.account(now, 1);
        Some(Outgoing::Fin { at, again: false })
    }

    fn first_time(&mut self, now: Instant, len: u32) -> Outgoing {
        let start = self.next;
        self.start_waiting(now);
        self.board.sent_new(now, start, len);
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

    fn window_open(&self) -> bool {
        self.edge > self.next && self.slots > 0
    }

    fn has_room(&self, len: u32) -> bool {
        self.board.flying() + u64::from(len) <= self.cubic.window()
    }

    fn may_pace(&mut self, now: Instant) -> bool {
        let gain = if self.cubic.in_slow_start() { 8 } else { 5 };
        let rate = self.rtt.smoothed().map(|rtt| Rate {
            window: self.cubic.window() * gain / 4,
            rtt,
            segment: u64::from(self.segment),
        });
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
        let timeout = self.rtt.timeout(self.max_rto);
        if idle > timeout && self.rtt.smoothed().is_some() {
            let timeouts = idle.as_nanos() / timeout.as_nanos().max(1);
            self.cubic.on_idle(u32::try_from(timeouts).unwrap_or(u32::MAX));
            self.last_sent = now;
        }
    }
}

/// Whether a peer would take a segment for a selective acknowledgement (spec/dataplane.md 3.5).
fn looks_like_sack(outbox: &Outbox, start: u64, len: u32, max_blocks: usize) -> bool {
    let (parts, count, _) = outbox.gather(start, (len as usize).min(LOOKALIKE_LEN));
    let is_candidate = parts[0].first() == Some(&b'S');
    is_candidate && sack::is_lookalike(&parts[..count].concat(), max_blocks)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    Probe,
    Timeout,
}
