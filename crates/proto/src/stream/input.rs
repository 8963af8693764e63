//! What a packet from the peer does to a stream (RFC 9293 3.10.7, with the reference's closing in between).

use std::time::{Duration, Instant};

use pilot_wire::{
    packet::{Flags, Header},
    sack::{SackBlock, SackList},
};

use super::{
    CloseReason, Opening, Owed, Phase, STRAY_SYN, Stream, Verdict,
    options::{Agreed, data_of},
    receive::{Arrival, Receiver},
    send::{Acknowledged, Fin},
};

/// Repeated FINs of the reference that are answered at most. Only FINs without ACK are, so that two nodes cannot
/// answer each other for ever.
const MAX_FIN_ANSWERS: u8 = 3;

/// The reference closes a stream after three keepalives without any sign of life. We give one if we have been
/// quiet for this long.
const QUIET: Duration = Duration::from_secs(10);

/// A SYN of the reference that comes this soon after its stream ended is a late copy of the one that opened it.
const STRAY_COPY: Duration = Duration::from_secs(2);

/// Windows announced below this make an old peer stop, and it asks with empty packets.
const SMALL_WINDOW: usize = 2 * 1152;

/// Packets without data are answered at most this often.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(100);

impl Stream {
    /// Takes a packet of this stream.
    pub fn on_segment(&mut self, now: Instant, header: &Header, payload: &[u8]) -> Verdict {
        self.segments_received += 1;
        let flags = header.flags;
        if flags.contains(Flags::RST) {
            self.on_reset(header);
            return Verdict::Taken;
        }
        match &self.phase {
            Phase::Dialing(opening) => {
                let opening = **opening;
                self.while_dialing(now, opening, header, payload);
                Verdict::Taken
            }
            Phase::Closed => self.when_over(header),
            Phase::TimeWait { until } => self.in_time_wait(now, *until, header, payload),
            Phase::Answering(_) | Phase::Connected { .. } => {
                self.heard(now);
                if flags.contains(Flags::SYN) {
                    return self.on_syn(now, header, payload);
                }
                if flags.contains(Flags::ACK) {
                    self.confirm(now, header);
                }
                self.on_established(now, header, payload);
                Verdict::Taken
            }
        }
    }

    fn heard(&mut self, now: Instant) {
        self.sender.heard();
        self.liveness.heard = now;
        self.liveness.probes = 0;
        self.liveness.probe_due = false;
    }

    fn on_reset(&mut self, header: &Header) {
        let bare = header.seq.0 == 0 && header.ack.0 == 0;
        let reason = match &self.phase {
            Phase::Dialing(_) if bare || self.is_of_our_syn(header) => CloseReason::Refused,
            Phase::Answering(_) | Phase::Connected { .. } if bare || self.in_window(header) => {
                CloseReason::Reset
            }
            Phase::TimeWait { .. } if bare || self.in_window(header) => {
                self.phase = Phase::Closed;
                return;
            }
            Phase::Dialing(_)
            | Phase::Answering(_)
            | Phase::Connected { .. }
            | Phase::TimeWait { .. }
            | Phase::Closed => return,
        };
        // Everything that we wrote was taken, and the peer's end is here or nobody waits for it: the peer just did not
        // wait for our last words.
        let theirs = self.receiver.as_ref().is_some_and(Receiver::finished);
        let complete = self.sender.unacknowledged() == 0
            && matches!(self.sender.fin(), Fin::Sent(_))
            && (theirs || (self.orphaned && self.sender.fin_acknowledged()));
        self.owed = None;
        self.end(if complete { CloseReason::Finished } else { reason });
    }

    /// The one who refuses may have taken what our SYN brought along, or part of it.
    fn is_of_our_syn(&self, header: &Header) -> bool {
        u64::from(header.ack - (self.initial + 1)) <= self.sender.early()
    }

    /// An RST must lie where the peer may send, lest an old one ends a new stream (RFC 5961 3).
    fn in_window(&self, header: &Header) -> bool {
        self.receiver.as_ref().is_some_and(|receiver| {
            let distance = receiver.distance(header.seq);
            (0..=self.limits.receive_buffer as i64).contains(&distance)
        })
    }

    fn while_dialing(&mut self, now: Instant, opening: Opening, header: &Header, payload: &[u8]) {
        let flags = header.flags;
        let acknowledges = flags.contains(Flags::ACK);
        let taken = u64::from(header.ack - (self.initial + 1));
        if acknowledges && taken > self.sender.early() {
            // The peer still has an older connection on these ports: end that one (RFC 9293 3.5.1).
            self.owed = Some(Owed::StrayReset(header.ack));
            return;
        }
        if !flags.contains(Flags::SYN) {
            return;
        }
        self.heard(now);
        let agreed = Agreed::from_syn(&self.limits, payload);
        if acknowledges {
            self.learn_peer(header, agreed, taken);
            if let Some(rtt) = opening.rtt(now) {
                self.sender.sample_rtt(now, rtt);
            }
            self.phase = Phase::Connected { since: now };
            self.acks.demand();
            self.peer_took_early(now, header);
        } else {
            // Both dialled at once (RFC 9293 3.5).
            self.learn_peer(header, agreed, 0);
            self.take_early(now, header, payload);
            let answering = Opening { started: opening.started, ..Opening::new(now) };
            self.phase = Phase::Answering(Box::new(answering));
        }
        self.pending.established = true;
        self.settle(now, false);
    }

    /// The answer to our SYN says how much of its data the peer has.
    fn peer_took_early(&mut self, now: Instant, answer: &Header) {
        let taken = u64::from(answer.ack - (self.initial + 1));
        if self.sender.on_early_ack(now, taken) {
            self.on_progress(now);
        }
    }

    /// The data in a SYN of the peer, as far as it is new.
    pub(super) fn take_early(&mut self, now: Instant, syn: &Header, payload: &[u8]) {
        if self.agreed.is_legacy() || !self.limits.early_data {
            return;
        }
        let data = data_of(payload);
        let Some(receiver) = &self.receiver else { return };
        // A copy of the SYN is no repeated segment that the peer should hear of.
        if receiver.distance(syn.seq + 1) + data.len() as i64 > 0 {
            self.on_data(now, &Header { seq: syn.seq + 1, ..*syn }, &data);
        }
    }

    fn on_syn(&mut self, now: Instant, header: &Header, payload: &[u8]) -> Verdict {
        let same = self.receiver.as_ref().is_some_and(|receiver| receiver.initial() == header.seq);
        if header.flags.contains(Flags::ACK) {
            if same && u64::from(header.ack - (self.initial + 1)) <= self.sender.early() {
                // Our confirmation was lost, or this is the answer to a simultaneous dial.
                self.confirm(now, header);
                self.acks.demand();
                self.peer_took_early(now, header);
            }
            return Verdict::Taken;
        }
        let legacy = self.agreed.is_legacy();
        match &mut self.phase {
            Phase::Answering(opening) if same => {
                opening.due = true;
                self.take_early(now, header, payload);
                Verdict::Taken
            }
            // Only the reference starts from the same number again.
            Phase::Connected { since }
                if same && (!legacy || now.saturating_duration_since(*since) < STRAY_SYN) =>
            {
                self.acks.demand();
                self.take_early(now, header, payload);
                Verdict::Taken
            }
            Phase::Answering(_) | Phase::Connected { .. } => {
                self.end(CloseReason::Reset);
                Verdict::Reopen
            }
            Phase::Dialing(_) | Phase::TimeWait { .. } | Phase::Closed => Verdict::Taken,
        }
    }

    /// The peer has our SYN.
    fn confirm(&mut self, now: Instant, header: &Header) {
        let Phase::Answering(opening) = &self.phase else { return };
        if header.ack.is_at_or_after(self.initial + 1) {
            if let Some(rtt) = opening.rtt(now) {
                self.sender.sample_rtt(now, rtt);
            }
            self.phase = Phase::Connected { since: now };
        }
    }

    fn on_established(&mut self, now: Instant, header: &Header, payload: &[u8]) {
        if !header.flags.contains(Flags::ACK) {
            if header.flags.contains(Flags::FIN) {
                self.on_fin(now, header);
            }
            return;
        }
        let fin = header.flags.contains(Flags::FIN);
        let list = if fin { None } else { self.sack(header, payload) };
        let blocks: &[SackBlock] = list.as_ref().map_or(&[], SackList::blocks);
        let data = if list.is_none() && !fin { payload } else { &[] };
        let pure = data.is_empty();
        if !(fin && self.agreed.is_legacy()) || header.ack.0 != 0 {
            let window_counts = !(fin && self.agreed.is_legacy());
            let seen = if window_counts { *header } else { Header { window: u16::MAX, ..*header } };
            match self.sender.on_ack(now, &seen, blocks, pure) {
                Acknowledged::Progress => self.on_progress(now),
                Acknowledged::Nothing => {}
                Acknowledged::Unsent => {
                    self.challenge(now);
                    return;
                }
            }
        }
        if !data.is_empty() {
            self.on_data(now, header, data);
        } else if fin {
            self.on_fin(now, header);
        } else {
            self.on_pure(now, header);
        }
        self.settle(now, fin);
    }

    /// The payload as a selective acknowledgement, if it is one. One of ours never sends data of that shape. The reference
    /// does, so from it a list must also make sense: exact in length, and about bytes between what its own packet
    /// acknowledges and what we have sent. What is acknowledged by now does not count: a list that was overtaken, by
    /// however much, must not become data.
    fn sack(&self, header: &Header, payload: &[u8]) -> Option<SackList> {
        let list = SackList::parse(payload, usize::from(self.agreed.sack_blocks))?;
        let next = self.sender.next_seq();
        let acknowledges_ours = u64::from(next - header.ack) <= self.sender.sent();
        let plausible = |list: &SackList| {
            acknowledges_ours
                && payload.len() == list.wire_len()
                && list.blocks().iter().all(|block| {
                    block.left.is_after(header.ack)
                        && block.right.is_after(block.left)
                        && next.is_at_or_after(block.right)
                })
        };
        (!self.agreed.is_legacy() || plausible(&list)).then_some(list)
    }

    fn on_progress(&mut self, now: Instant) {
        let free = self.limits.send_buffer.saturating_sub(self.sender.buffered());
        if self.write_blocked && free >= self.limits.send_buffer / 4 {
            self.write_blocked = false;
            self.pending.writable = self.sender.fin() == Fin::Open;
        }
        if !self.drained_to && self.sender.is_drained() {
            self.drained_to = true;
            self.pending.drained = true;
        }
        self.settle(now, false);
    }

    fn on_data(&mut self, now: Instant, header: &Header, data: &[u8]) {
        let Some(receiver) = &mut self.receiver else { return };
        // The application is gone and the peer has all of ours: tell it that nobody listens.
        if self.orphaned && self.sender.fin_acknowledged() && receiver.distance(header.seq) >= 0 {
            self.owed = Some(Owed::Reset);
            self.end(CloseReason::Finished);
            return;
        }
        let had_holes = receiver.islands() > 0;
        match receiver.on_data(header.seq, data) {
            Arrival::InOrder => {
                if !receiver.is_deaf() && !self.told_readable {
                    self.told_readable = true;
                    self.pending.readable = true;
                }
                if had_holes {
                    self.acks.forget_steps();
                    self.acks.demand();
                } else if self.agreed.is_legacy() {
                    self.acks.on_legacy_segment(now, receiver.next());
                } else {
                    self.acks.on_segment(now);
                }
                if receiver.finished() {
                    self.peer_finished(now);
                }
            }
            Arrival::OutOfOrder | Arrival::Duplicate | Arrival::NoRoom => {
                self.acks.forget_steps();
                self.acks.demand();
            }
        }
    }

    fn on_fin(&mut self, now: Instant, header: &Header) {
        let Some(receiver) = &mut self.receiver else { return };
        let knew = receiver.finished();
        receiver.on_fin(header.seq);
        self.fin_asks |= !header.flags.contains(Flags::ACK);
        if receiver.finished() && !knew {
            self.peer_finished(now);
        } else {
            self.acks.demand();
            self.answer_fin();
        }
        self.settle(now, true);
    }

    /// The peer's FIN is in order.
    fn peer_finished(&mut self, now: Instant) {
        self.acks.demand();
        self.answer_fin();
        self.pending.peer_finished = !self.orphaned;
        self.settle(now, true);
    }

    /// A FIN of the reference without ACK asks for a FIN|ACK, once everything before it is there.
    fn answer_fin(&mut self) {
        let Some(receiver) = &self.receiver else { return };
        let in_order = receiver.finished() || receiver.is_deaf();
        if self.agreed.is_legacy() && self.fin_asks && in_order && self.fin_answers < MAX_FIN_ANSWERS {
            self.fin_asks = false;
            self.fin_answers += 1;
            self.owed = Some(Owed::FinAnswer);
        }
    }

    /// Packets without data: are they questions?
    fn on_pure(&mut self, now: Instant, header: &Header) {
        let Some(receiver) = &self.receiver else { return };
        let distance = receiver.distance(header.seq);
        if self.agreed.is_legacy() {
            let quiet = now.saturating_duration_since(self.liveness.spoken) >= QUIET;
            let stopped = receiver.announced_room() < SMALL_WINDOW;
            if distance == 0 && (quiet || stopped) {
                self.acks.demand();
            }
        } else if distance == -1 {
            // A keepalive probe asks by repeating a number (RFC 9293 3.8.4).
            self.challenge(now);
        }
    }

    /// Answers a packet without data, but not every one: two sides that disagree about their numbers must not answer
    /// each other for ever (RFC 5961 7).
    fn challenge(&mut self, now: Instant) {
        if now.saturating_duration_since(self.liveness.challenged) >= CHALLENGE_INTERVAL {
            self.liveness.challenged = now;
            self.acks.demand();
        }
    }

    fn in_time_wait(&mut self, now: Instant, until: Instant, header: &Header, payload: &[u8]) -> Verdict {
        if header.flags.contains(Flags::SYN) && !header.flags.contains(Flags::ACK) {
            let same = self.receiver.as_ref().is_some_and(|receiver| receiver.initial() == header.seq);
            // The reference starts from zero again when it restarts; but a copy of the old SYN may still be on its way.
            let copy =
                same && (!self.agreed.is_legacy() || now + self.limits.time_wait() < until + STRAY_COPY);
            if copy {
                return Verdict::Taken;
            }
            self.phase = Phase::Closed;
            return Verdict::Reopen;
        }
        if header.flags.contains(Flags::SYN) {
            // An answer to a dial that somebody repeated: the peer has a stream on these ports of which we know nothing.
            if self.receiver.as_ref().is_some_and(|receiver| receiver.initial() != header.seq) {
                self.owed = Some(Owed::StrayReset(header.ack));
            }
            return Verdict::Taken;
        }
        let fin = header.flags.contains(Flags::FIN);
        let repeats = self.receiver.as_ref().is_some_and(|receiver| receiver.distance(header.seq) < 0);
        if self.agreed.is_legacy() {
            if fin {
                self.fin_asks |= !header.flags.contains(Flags::ACK);
                self.answer_fin();
            }
        } else if repeats && (fin || !payload.is_empty()) {
            // Our last acknowledgements were lost.
            self.acks.demand();
            self.phase = Phase::TimeWait { until: now + self.limits.time_wait() };
        }
        Verdict::Taken
    }

    fn when_over(&self, header: &Header) -> Verdict {
        let opens = header.flags.contains(Flags::SYN) && !header.flags.contains(Flags::ACK);
        let same = self.receiver.as_ref().is_some_and(|receiver: &Receiver| receiver.initial() == header.seq);
        if opens && !same { Verdict::Reopen } else { Verdict::Taken }
    }
}
