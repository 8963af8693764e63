//! Is the peer still there? Silence is probed, and ends the stream once the probes stay unanswered.

use std::time::{Duration, Instant};

use super::{CloseReason, Stream};

/// Keepalive probes that a peer may leave unanswered before the stream ends.
const PROBES: u8 = 4;

/// When the peer was last heard and probed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Liveness {
    pub(super) heard: Instant,
    pub(super) spoken: Instant,
    pub(super) probed: Instant,
    /// When a packet without data was answered last.
    pub(super) challenged: Instant,
    pub(super) probes: u8,
    pub(super) probe_due: bool,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        let never = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        Self { heard: now, spoken: now, probed: now, challenged: never, probes: 0, probe_due: false }
    }
}

impl Stream {
    pub(super) fn first_probe_after(&self) -> Option<Duration> {
        let keepalive = self.limits.keepalive()?;
        Some(self.limits.idle_timeout().map_or(keepalive, |idle| keepalive.min(idle / 2)))
    }

    pub(super) fn probe_interval(&self, first: Duration) -> Duration {
        let rest = self.limits.idle_timeout().map_or(first, |idle| (idle - first) / u32::from(PROBES));
        rest.max(Duration::from_millis(100))
    }

    pub(super) fn liveness_timeout(&self) -> Option<Instant> {
        let Some(first) = self.first_probe_after() else {
            return self.limits.idle_timeout().map(|idle| self.liveness.heard + idle);
        };
        Some(if self.liveness.probes == 0 {
            self.liveness.heard.max(self.liveness.spoken) + first
        } else {
            self.liveness.probed + self.probe_interval(first)
        })
    }

    /// Silence alone is no reason to end, because the time may have passed while this machine slept: the peer must have
    /// left all probes unanswered.
    pub(super) fn check_liveness(&mut self, now: Instant) {
        if self.liveness_timeout().is_none_or(|at| at > now) {
            return;
        }
        let all_probed = self.limits.keepalive().is_none() || self.liveness.probes >= PROBES;
        if self.limits.idle_timeout().is_some() && all_probed {
            let silent = now.saturating_duration_since(self.liveness.heard);
            self.reset(CloseReason::IdleTimeout { silent });
            return;
        }
        self.liveness.probes = self.liveness.probes.saturating_add(1);
        self.liveness.probed = now;
        self.liveness.probe_due = true;
    }
}
