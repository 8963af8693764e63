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
use pilot_wire::{Seq, packet::Header};

mod acknowledged;
mod timers;
mod transmit;

use transmit::looks_like_sack;

use super::{
    Config,
    congestion::Controller,
    options::Agreed,
    outbox::Outbox,
    pacing::Pacer,
    recovery::{Prr, Rack},
    rtt::Rtt,
    scoreboard::Scoreboard,
};

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
        order: Option<u64>,
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
    pub(super) timeouts: u32,
    pub(super) duplicate_acks: u32,
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
    control: Controller,
    rack: Rack,
    pacer: Pacer,
    phase: Phase,
    next: u64,
    /// Bytes that SYNs carried: the peer may acknowledge them although no segment did.
    early: u32,
    fin: Fin,
    agreed: Agreed,
    /// Payload bytes of a full segment.
    segment: u32,
    /// The same on any path, and how many larger ones got lost while smaller ones arrived.
    base_segment: u16,
    large_lost: u16,
    /// Time-outs and renewed tries since the peer last acknowledged something.
    fruitless: u8,
    /// The path may not carry what it carried.
    suspicious: bool,
    /// A time-out passed, until somebody asked.
    timed_out: bool,
    /// In milliseconds.
    max_rto: u32,
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
            control: Controller::new(
                config.congestion,
                now,
                u64::from(config.initial_window),
                u64::from(segment),
                initial.0,
            ),
            rack: Rack::default(),
            pacer: Pacer::new(now),
            phase: Phase::Open,
            next: 0,
            early: 0,
            fin: Fin::Open,
            agreed,
            segment: u32::from(segment),
            base_segment: config.path_segment,
            large_lost: 0,
            fruitless: 0,
            suspicious: false,
            timed_out: false,
            max_rto: u32::try_from(config.max_rto.as_millis()).unwrap_or(u32::MAX),
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

    /// The SYN of the peer told what it can take, and the first window, from offset `taken` on.
    pub(super) fn agree(&mut self, agreed: Agreed, path_segment: u16, syn: &Header, taken: u64) {
        self.agreed = agreed;
        self.segment = u32::from(path_segment.min(agreed.max_segment));
        self.control.set_segment(u64::from(self.segment));
        self.set_window_at(syn.window, taken);
        self.window_from = Some((syn.seq, taken));
    }

    /// The first bytes of the stream, at most `max`, for a SYN.
    pub(super) fn beginning(&self, max: usize) -> Vec<u8> {
        let (parts, count, _) = self.outbox.gather(0, max);
        parts[..count].concat()
    }

    /// A SYN carried this many.
    pub(super) fn sent_early(&mut self, bytes: u64) {
        self.early = self.early.max(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// The most that a SYN carried.
    pub(super) fn early(&self) -> u64 {
        u64::from(self.early)
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
        self.large_lost = 0;
        self.fruitless = 0;
        self.control.set_segment(u64::from(segment));
    }

    /// Whether losses since the last call look as if the path carried less than it did.
    pub(super) fn take_suspicion(&mut self) -> bool {
        std::mem::take(&mut self.suspicious)
    }

    fn max_rto(&self) -> Duration {
        Duration::from_millis(u64::from(self.max_rto))
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

    /// Something of the peer came, whatever it acknowledges.
    pub(super) fn heard(&mut self) {
        self.rtt.heard();
    }

    pub(super) fn take_time_out(&mut self) -> bool {
        std::mem::take(&mut self.timed_out)
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
        (self.control.window(), self.control.threshold())
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
}
