//! One stream: a reliable, ordered connection between two services, as a state machine without clock or socket.
//!
//! # How to drive it
//! [`connect`](Stream::connect) dials, [`accept`](Stream::accept) answers a SYN. From then on: give every packet of the
//! stream to [`on_segment`](Stream::on_segment), call [`handle_timeout`](Stream::handle_timeout) when
//! [`poll_timeout`](Stream::poll_timeout) has passed, and let the application [`write`](Stream::write),
//! [`read`](Stream::read), [`finish`](Stream::finish), [`close`](Stream::close) or [`abort`](Stream::abort). After any of
//! these, in this order: call [`poll_segment`](Stream::poll_segment) until it says `None`,
//! [`poll_event`](Stream::poll_event) until `None`, and look at `poll_timeout` again. Feed a whole received batch before
//! polling: acknowledgements are decided there. Drop the stream once [`is_gone`](Stream::is_gone).
//!
//! # States
//! ```text
//!  connect ─► SYN_SENT ──SYN|ACK──┐                    ┌─finish─► FIN_WAIT ──FIN──► TIME_WAIT ─► CLOSED
//!                                 ├─► ESTABLISHED ─────┤
//!  accept ──► SYN_RECV ──ACK──────┘                    └─FIN────► CLOSE_WAIT ──close, ACK──────► CLOSED
//! ```
//! Towards the reference (release 1.18), which answers a FIN by closing at once, `finish` only ends writing; the FIN
//! goes out with `close`, and a FIN of the peer ends both directions (spec/dataplane.md 3.9). Two of our nodes agree on
//! half-closing, larger segments and more SACK blocks by options in their SYNs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pilot_wire::{
    Endpoint, Seq,
    packet::{Flags, Header, Protocol},
};

mod ack;
mod config;
mod congestion;
mod delivery;
mod ending;
mod error;
mod input;
mod liveness;
mod opening;
mod options;
mod outbox;
mod output;
mod pacing;
mod receive;
mod recovery;
mod rope;
mod rtt;
mod scoreboard;
mod send;
mod state;
mod stats;

use ack::AckPlan;
pub use config::Config;
use config::Limits;
pub use congestion::Congestion;
pub use error::{CloseReason, StreamError};
use liveness::Liveness;
use opening::{FIRST_SYN_WAIT, Opening};
use options::{Agreed, Dialect};
use receive::Receiver;
use send::{Fin, Sender};
pub use state::State;
pub use stats::Stats;

/// A SYN with the peer's initial number that comes this late is not a stray copy: the peer restarted, and started
/// from zero again as the reference always does.
const STRAY_SYN: Duration = Duration::from_secs(60);

/// What a call to [`Stream::read`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes.
    Data(Bytes),
    /// Nothing yet; [`StreamEvent::Readable`] or [`StreamEvent::PeerFinished`] follows.
    Blocked,
    /// The peer finished, and everything was read.
    Finished,
}

/// What the application may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The stream is open.
    Established,
    /// There is something to read. Said once; again when more comes after everything was read.
    Readable,
    /// There is room to write again, after a write took less than offered.
    Writable,
    /// The peer will not send more than what can be read now.
    PeerFinished,
    /// Everything written so far was acknowledged.
    Drained,
    /// The stream is over. The last event. What arrived before can still be read.
    Closed(CloseReason),
}

/// What [`Stream::on_segment`] made of a packet.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It belonged to this stream.
    Taken,
    /// It is a SYN that opens a new connection on the same ports, because the old one is over or the peer forgot it.
    /// This stream has ended; accept the SYN as a new one.
    Reopen,
}

/// What kind of packet was emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentKind {
    /// Opening: SYN, SYN|ACK.
    Handshake,
    /// Data for the first time.
    Data,
    /// Data or FIN again.
    Retransmission,
    /// An acknowledgement without data, or a keepalive.
    Acknowledgement,
    /// FIN or the answer to one.
    Fin,
    /// RST.
    Reset,
}

impl SentKind {
    /// True if the peer answers such a packet when it gets it: silence means that it did not.
    pub const fn is_answered(self) -> bool {
        match self {
            Self::Handshake | Self::Data | Self::Retransmission | Self::Fin => true,
            Self::Acknowledgement | Self::Reset => false,
        }
    }
}

/// One emitted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Bytes appended, header included.
    pub len: usize,
    /// Payload bytes among them.
    pub payload: usize,
    /// What it was.
    pub kind: SentKind,
}

/// One connection.
#[derive(Debug)]
pub struct Stream {
    limits: Limits,
    local: Endpoint,
    remote: Endpoint,
    initial: Seq,
    phase: Phase,
    agreed: Agreed,
    sender: Sender,
    /// Exists once the peer's SYN is known.
    receiver: Option<Receiver>,
    acks: AckPlan,
    path_segment: u16,
    /// Payload that a SYN may have, where it goes at present.
    opening_max: usize,
    /// The application called `close`: nobody reads, and nobody waits for what comes.
    orphaned: bool,
    /// Our FIN, in every copy, acknowledges the peer's: whoever acknowledges ours knows that we have theirs.
    fin_confirms: bool,
    /// When the peer finishes last, the stream ends at the latest.
    orphan_deadline: Option<Instant>,
    ended: Option<CloseReason>,
    /// A packet that is owed once: RST, or the answer to a FIN.
    owed: Option<Owed>,
    /// A FIN of the reference has not been answered.
    fin_asks: bool,
    /// Answers to FINs of the reference so far.
    fin_answers: u8,
    pending: PendingEvents,
    write_blocked: bool,
    /// The application heard that there is something to read, and has not read it all.
    told_readable: bool,
    drained_to: bool,
    liveness: Liveness,
    segments_received: u64,
    sacks_sent: u64,
}

#[derive(Debug)]
enum Phase {
    /// The SYN was not answered yet.
    Dialing(Box<Opening>),
    /// The SYN|ACK was not confirmed yet.
    Answering(Box<Opening>),
    Connected {
        since: Instant,
    },
    TimeWait {
        until: Instant,
    },
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    /// FIN|ACK for a FIN of the reference.
    FinAnswer,
    /// The stream is aborted.
    Reset,
    /// An RST for a packet of a connection that we do not know; the stream itself goes on.
    StrayReset(Seq),
}

/// Events not yet polled. Each kind is kept once.
#[derive(Clone, Copy, Debug, Default)]
struct PendingEvents {
    established: bool,
    readable: bool,
    writable: bool,
    peer_finished: bool,
    drained: bool,
    closed: Option<CloseReason>,
}

impl Stream {
    /// Dials `remote`. `initial` should be unpredictable. What is written before the SYN goes out rides in it.
    pub fn connect(config: &Config, now: Instant, local: Endpoint, remote: Endpoint, initial: Seq) -> Self {
        Self::new(
            config,
            now,
            local,
            remote,
            initial,
            Phase::Dialing(Box::new(Opening::new(now))),
            Agreed::legacy(),
        )
    }

    /// Answers a SYN. The stream can be written to at once; what is written follows the SYN|ACK. What the SYN brought can
    /// be read at once.
    pub fn accept(config: &Config, now: Instant, syn: &Header, payload: &[u8], initial: Seq) -> Self {
        let agreed = Agreed::from_syn(&Limits::of(config), payload);
        let phase = Phase::Answering(Box::new(Opening::new(now)));
        let mut stream = Self::new(config, now, syn.destination(), syn.source(), initial, phase, agreed);
        stream.learn_peer(syn, agreed, 0);
        stream.take_early(now, syn, payload);
        stream.pending.established = true;
        stream
    }

    fn new(
        config: &Config,
        now: Instant,
        local: Endpoint,
        remote: Endpoint,
        initial: Seq,
        phase: Phase,
        agreed: Agreed,
    ) -> Self {
        Self {
            local,
            remote,
            initial,
            phase,
            agreed,
            sender: Sender::new(config, now, initial, agreed),
            receiver: None,
            acks: AckPlan::new(),
            path_segment: config.path_segment,
            opening_max: usize::MAX,
            orphaned: false,
            fin_confirms: false,
            orphan_deadline: None,
            ended: None,
            owed: None,
            fin_asks: false,
            fin_answers: 0,
            pending: PendingEvents::default(),
            write_blocked: false,
            told_readable: false,
            drained_to: true,
            liveness: Liveness::new(now),
            segments_received: 0,
            sacks_sent: 0,
            limits: Limits::of(config),
        }
    }

    /// Our end.
    pub fn local(&self) -> Endpoint {
        self.local
    }

    /// The peer's end.
    pub fn remote(&self) -> Endpoint {
        self.remote
    }

    /// True if the peer is release 1.18, as far as is known: no half-close, small segments.
    pub fn peer_is_legacy(&self) -> bool {
        self.agreed.is_legacy()
    }

    /// Takes a prefix of `data`, as much as fits into the send buffer. If that is less than all,
    /// [`StreamEvent::Writable`] follows once there is room.
    ///
    /// # Errors
    /// After `finish` or `close`, and once the stream is over.
    pub fn write(&mut self, _now: Instant, mut data: Bytes) -> Result<usize, StreamError> {
        if let Some(reason) = self.ended {
            return Err(StreamError::Closed(reason));
        }
        if self.sender.fin() != Fin::Open {
            return Err(StreamError::Finished);
        }
        let free = self.limits.send_buffer.saturating_sub(self.sender.buffered());
        let len = data.len().min(free);
        if len < data.len() {
            self.write_blocked = true;
            data.truncate(len);
        }
        if len > 0 {
            self.drained_to = false;
            self.sender.write(data);
        }
        Ok(len)
    }

    /// Takes up to `max` received bytes, and opens the window for as much.
    ///
    /// # Errors
    /// Once the stream has ended other than orderly and everything that arrived before was read.
    pub fn read(&mut self, _now: Instant, max: usize) -> Result<Read, StreamError> {
        let Some(receiver) = &mut self.receiver else {
            return self.ended.map_or(Ok(Read::Blocked), |reason| Err(StreamError::Closed(reason)));
        };
        if receiver.unread() > 0 {
            let data = receiver.read(max.max(1));
            self.told_readable = receiver.unread() > 0;
            if receiver.window_update_due() && !receiver.knows_end() {
                self.acks.demand();
            }
            return Ok(Read::Data(data));
        }
        if receiver.finished() {
            return Ok(Read::Finished);
        }
        self.ended.map_or(Ok(Read::Blocked), |reason| Err(StreamError::Closed(reason)))
    }

    /// Ends writing; what was written still goes out. Reading goes on.
    pub fn finish(&mut self, _now: Instant) {
        let known_half_close = self.agreed.dialect == Dialect::Extended;
        self.sender.end(if known_half_close { Fin::Queued } else { Fin::Held });
    }

    /// Ends both directions in order: what was written still goes out, what arrives is not kept.
    pub fn close(&mut self, now: Instant) {
        if self.ended.is_some() {
            self.orphan(now);
            return;
        }
        if matches!(self.phase, Phase::Dialing(_)) && self.sender.is_drained() {
            self.end(CloseReason::Aborted);
            self.orphan(now);
            return;
        }
        self.sender.end(Fin::Queued);
        self.orphan(now);
        self.settle(now, false);
    }

    /// Ends both directions at once; the peer is told.
    pub fn abort(&mut self, now: Instant) {
        self.orphan(now);
        if self.ended.is_none() {
            self.reset(CloseReason::Aborted);
        }
    }

    /// The peer's process restarted and knows nothing of this stream: ends it without a word.
    pub fn peer_restarted(&mut self, _now: Instant) {
        if self.ended.is_none() && !matches!(self.phase, Phase::Dialing(_)) {
            self.end(CloseReason::Reset);
        }
    }

    /// The path carries this many payload bytes per packet from now on.
    pub fn set_path_segment(&mut self, _now: Instant, bytes: u16) {
        self.path_segment = bytes.max(1);
        self.sender.set_path_segment(self.path_segment);
    }

    /// The largest segment that the peer takes, in payload bytes, whatever the path carries.
    pub fn max_segment(&self) -> u16 {
        self.agreed.max_segment
    }

    /// True, once, if nothing that was sent was acknowledged until its time-out.
    pub fn take_time_out(&mut self) -> bool {
        self.sender.take_time_out()
    }

    /// True, once, if segments got lost in a way that the size of the path explains: several in a row did not arrive
    /// though each was repeated, or only those larger than the first size of the path.
    pub fn take_suspicion(&mut self) -> bool {
        self.sender.take_suspicion()
    }

    /// A SYN has at most this much payload from now on, because nobody may be bothered by more where it goes.
    pub fn set_opening_max(&mut self, bytes: usize) {
        self.opening_max = bytes;
    }

    /// The peer can be reached again, or on another path: repeats at once what waits for a timer.
    pub fn path_recovered(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Dialing(opening) | Phase::Answering(opening) => {
                opening.wait = FIRST_SYN_WAIT;
                opening.due = true;
            }
            Phase::Connected { .. } => self.sender.retry_now(now),
            Phase::TimeWait { .. } | Phase::Closed => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Dialing(opening) | Phase::Answering(opening) => {
                let give_up = opening.started + self.limits.connect_timeout();
                Some(opening.timeout().map_or(give_up, |at| at.min(give_up)))
            }
            Phase::Connected { .. } => self.liveness_timeout(),
            Phase::TimeWait { until } => Some(*until),
            Phase::Closed => None,
        };
        if !self.state().is_live() {
            return own;
        }
        [own, self.sender.timeout(), self.acks.timeout(), self.orphan_deadline].into_iter().flatten().min()
    }

    /// Acts on everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Dialing(opening) | Phase::Answering(opening) => {
                opening.on_timeout(now);
                let waited = now.saturating_duration_since(opening.started);
                if waited >= self.limits.connect_timeout() {
                    self.reset(CloseReason::Silent { waited });
                    return;
                }
            }
            Phase::Connected { .. } => self.check_liveness(now),
            Phase::TimeWait { until } if *until <= now => self.phase = Phase::Closed,
            Phase::TimeWait { .. } | Phase::Closed => {}
        }
        if !self.state().is_live() {
            return;
        }
        self.acks.on_timeout(now);
        if self.sender.on_timeout(now) {
            self.check_progress(now);
        }
        if self.orphan_deadline.is_some_and(|at| at <= now) {
            // The peer took everything but does not end its side.
            self.owed = Some(Owed::Reset);
            self.end(CloseReason::Finished);
        }
    }

    /// The next event. Call until `None`.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        let pending = &mut self.pending;
        if std::mem::take(&mut pending.established) {
            return Some(StreamEvent::Established);
        }
        if std::mem::take(&mut pending.readable) {
            return Some(StreamEvent::Readable);
        }
        if std::mem::take(&mut pending.peer_finished) {
            return Some(StreamEvent::PeerFinished);
        }
        if std::mem::take(&mut pending.writable) {
            return Some(StreamEvent::Writable);
        }
        if std::mem::take(&mut pending.drained) {
            return Some(StreamEvent::Drained);
        }
        pending.closed.take().map(StreamEvent::Closed)
    }

    /// True if [`poll_event`](Self::poll_event) has something to say.
    pub fn has_events(&self) -> bool {
        let pending = &self.pending;
        pending.established
            || pending.readable
            || pending.writable
            || pending.peer_finished
            || pending.drained
            || pending.closed.is_some()
    }

    /// True once the peer's SYN is known: a peer process that starts anew does not know this stream.
    pub fn is_synchronized(&self) -> bool {
        self.receiver.is_some()
    }

    /// True once nothing is left to send, to wait for, or to read: drop it.
    pub fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Closed)
            && self.owed.is_none()
            && self.pending.closed.is_none()
            && (self.orphaned || self.unread() == 0)
    }

    /// Why the stream is over, once it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.ended
    }

    /// True if everything written so far was acknowledged.
    pub fn is_drained(&self) -> bool {
        self.sender.is_drained()
    }

    /// Bytes that can be read now.
    pub fn unread(&self) -> usize {
        self.receiver.as_ref().map_or(0, Receiver::unread)
    }

    /// Where the stream is in its life.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Dialing(_) => State::SynSent,
            Phase::Answering(_) => State::SynReceived,
            Phase::Connected { .. } => {
                let theirs_ended = self.receiver.as_ref().is_some_and(Receiver::finished);
                match self.sender.fin() {
                    Fin::Sent(_) => State::FinWait,
                    Fin::Open | Fin::Held | Fin::Queued if theirs_ended => State::CloseWait,
                    Fin::Open | Fin::Held | Fin::Queued => State::Established,
                }
            }
            Phase::TimeWait { .. } => State::TimeWait,
            Phase::Closed => State::Closed,
        }
    }

    /// Numbers for `connections`.
    pub fn stats(&self) -> Stats {
        let (congestion_window, slow_start_threshold) = self.sender.windows();
        let (smoothed_rtt, rtt_variation) = self.sender.rtt();
        let sent = self.sender.stats;
        let receiver = self.receiver.as_ref();
        Stats {
            state: self.state(),
            half_close: self.agreed.dialect == Dialect::Extended,
            congestion_window,
            slow_start_threshold,
            in_flight: self.sender.flying(),
            smoothed_rtt,
            rtt_variation,
            unacknowledged_segments: self.sender.outstanding() as u64,
            holes: receiver.map_or(0, |receiver| receiver.islands() as u64),
            peer_window: self.sender.peer_window(),
            receive_window: receiver.map_or(0, |receiver| receiver.announced_room() as u64),
            in_recovery: self.sender.in_recovery(),
            bytes_sent: sent.bytes_sent,
            bytes_received: receiver.map_or(0, Receiver::received),
            segments_sent: sent.segments_sent,
            segments_received: self.segments_received,
            retransmits: sent.retransmits,
            fast_retransmits: sent.fast_retransmits,
            timeouts: sent.timeouts.into(),
            sacks_received: sent.sacks_received,
            sacks_sent: self.sacks_sent,
            duplicate_acks: sent.duplicate_acks.into(),
        }
    }

    fn learn_peer(&mut self, syn: &Header, agreed: Agreed, taken: u64) {
        self.agreed = agreed;
        self.sender.agree(agreed, self.path_segment, syn, taken);
        if agreed.dialect == Dialect::Extended && self.sender.fin() == Fin::Held {
            self.sender.end(Fin::Queued);
        }
        self.receiver = Some(Receiver::new(syn.seq, self.limits.receive_buffer, agreed.our_unit));
        if self.orphaned
            && let Some(receiver) = &mut self.receiver
        {
            receiver.discard();
        }
    }
}

/// The RST that answers a packet for which there is no stream; an RST itself is not answered.
pub fn reset_for(header: &Header) -> Option<Header> {
    if header.flags.contains(Flags::RST) {
        return None;
    }
    let mut reset = Header::new(Protocol::Stream, Flags::RST, header.destination(), header.source());
    if header.flags.contains(Flags::ACK) {
        reset.seq = header.ack;
    }
    if header.flags.contains(Flags::SYN) {
        reset.ack = header.seq + 1;
    }
    Some(reset)
}
