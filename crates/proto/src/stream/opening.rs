//! Repeating a SYN or SYN|ACK until it is answered.

use std::time::{Duration, Instant};

/// The first SYN is repeated after this, then after twice as long each time (spec/dataplane.md 7.2).
pub(super) const FIRST_SYN_WAIT: Duration = Duration::from_millis(250);

/// SYNs are repeated at least this often: a peer behind a NAT may become reachable at any moment.
const LONGEST_SYN_WAIT: Duration = Duration::from_secs(4);

/// Copies of a SYN that carry data. A path that loses large packets must still open (RFC 7413 4.1.3).
const COPIES_WITH_DATA: u32 = 3;

/// Repeating a SYN or SYN|ACK.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) started: Instant,
    pub(super) sent: Option<Instant>,
    pub(super) copies: u32,
    pub(super) wait: Duration,
    pub(super) due: bool,
}

impl Opening {
    pub(super) fn new(now: Instant) -> Self {
        Self { started: now, sent: None, copies: 0, wait: FIRST_SYN_WAIT, due: true }
    }

    /// None while a copy is due: it may be impossible to send for long, and nothing else is waited for.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.sent.filter(|_| !self.due).map(|sent| sent + self.wait)
    }

    pub(super) fn on_timeout(&mut self, now: Instant) {
        if self.timeout().is_some_and(|at| at <= now) {
            self.due = true;
            self.wait = (self.wait * 2).min(LONGEST_SYN_WAIT);
        }
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.due = false;
        self.sent = Some(now);
        self.copies += 1;
    }

    /// Whether the copy that was just sent carries data.
    pub(super) fn carries_data(&self) -> bool {
        self.copies <= COPIES_WITH_DATA
    }

    /// The handshake's round trip, if only one copy can have been answered (Karn).
    pub(super) fn rtt(&self, now: Instant) -> Option<Duration> {
        self.sent.filter(|_| self.copies == 1).map(|sent| now.saturating_duration_since(sent))
    }
}
