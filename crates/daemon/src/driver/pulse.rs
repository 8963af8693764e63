//! How the driver is: what it counted, for the metrics.

use std::time::{Duration, Instant, SystemTime};

use pilot_proto::node::{PathView, Stats};
use pilot_proto::stream::CloseReason;
use pilot_proto::{Closed, PeerEvent, TrustEvent};

use super::Driver;
use crate::registry::Report;
use crate::service::Services;

/// What happened so far. Only ever added to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Keys agreed with peers that had none, and with those that had.
    pub(crate) keys_agreed: u64,
    pub(crate) keys_renewed: u64,
    pub(crate) went_direct: u64,
    pub(crate) went_relayed: u64,
    pub(crate) went_silent: u64,
    pub(crate) wrong_key: u64,
    pub(crate) downgrades: u64,
    /// Peers that wait for the owner's word.
    pub(crate) trust_asked: u64,
    pub(crate) trust_agreed: u64,
    pub(crate) trust_rejected: u64,
    pub(crate) trust_revoked: u64,
    pub(crate) trust_undeliverable: u64,
    pub(crate) streams_dialed: u64,
    pub(crate) streams_accepted: u64,
    pub(crate) streams_finished: u64,
    pub(crate) streams_reset: u64,
    pub(crate) streams_timed_out: u64,
    pub(crate) dials_failed: u64,
    pub(crate) registry_losses: u64,
    /// When a registry last said something.
    pub(crate) registry_contact: Option<SystemTime>,
}

/// How the driver is at a moment.
pub(crate) struct Pulse {
    pub(crate) uptime: Duration,
    pub(crate) tally: Tally,
    pub(crate) stats: Stats,
    /// Of all streams, those that are over included.
    pub(crate) retransmits: u64,
    pub(crate) registered: bool,
    /// `None` without a beacon.
    pub(crate) beacon_answers: Option<bool>,
    pub(crate) policy_broken: bool,
    pub(crate) alarms: usize,
    /// Peers with a tunnel, by how they are reached.
    pub(crate) direct: u64,
    pub(crate) relayed: u64,
    pub(crate) web: u64,
    pub(crate) unknown: u64,
    /// To peers with a tunnel, the shortest first.
    pub(crate) round_trips: Vec<Duration>,
    pub(crate) trusted: usize,
    pub(crate) pending: usize,
    pub(crate) streams: usize,
    pub(crate) refused_streams: u64,
    pub(crate) programs: usize,
    pub(crate) ports: usize,
    pub(crate) webhook_dropped: u64,
    /// `None` if nothing is traced.
    pub(crate) spans_dropped: Option<u64>,
    /// `None` before they run.
    pub(crate) services: Option<Services>,
}

impl Tally {
    pub(super) fn on_peer(&mut self, event: &PeerEvent) {
        *match event {
            PeerEvent::Established { rekeyed: false, .. } => &mut self.keys_agreed,
            PeerEvent::Established { rekeyed: true, .. } => &mut self.keys_renewed,
            PeerEvent::Direct(_) => &mut self.went_direct,
            PeerEvent::Relayed => &mut self.went_relayed,
            PeerEvent::KeyMismatch(_) => &mut self.wrong_key,
            PeerEvent::Downgraded => &mut self.downgrades,
            PeerEvent::Agreed(_) => return,
            PeerEvent::Silent => &mut self.went_silent,
        } += 1;
    }

    pub(super) fn on_trust(&mut self, event: &TrustEvent) {
        *match event {
            TrustEvent::Changed | TrustEvent::Deliver { .. } => return,
            TrustEvent::Pending { .. } => &mut self.trust_asked,
            TrustEvent::Trusted { .. } => &mut self.trust_agreed,
            TrustEvent::Rejected { .. } => &mut self.trust_rejected,
            TrustEvent::Revoked { .. } => &mut self.trust_revoked,
            TrustEvent::Undeliverable { .. } => &mut self.trust_undeliverable,
        } += 1;
    }

    /// `came_about`: whether it had been open.
    pub(super) fn on_closed(&mut self, closed: &Closed, came_about: bool) {
        let reason = match closed {
            Closed::Stream(reason) if came_about => reason,
            Closed::Stream(_) | Closed::Dial(_) => {
                self.dials_failed += 1;
                return;
            }
        };
        *match reason {
            CloseReason::Finished => &mut self.streams_finished,
            CloseReason::Aborted
            | CloseReason::Refused
            | CloseReason::Reset
            | CloseReason::Discarded { .. } => &mut self.streams_reset,
            CloseReason::Silent { .. } | CloseReason::TimedOut { .. } | CloseReason::IdleTimeout { .. } => {
                &mut self.streams_timed_out
            }
        } += 1;
    }

    /// `connected`: whether there was a connection before.
    pub(super) fn on_report(&mut self, report: &Report, connected: bool) {
        match report {
            Report::Down { .. } => self.registry_losses += u64::from(connected),
            Report::Registered(..)
            | Report::Said(..)
            | Report::Reply(_, Ok(_), _)
            | Report::Handshakes(_)
            | Report::Heard
            | Report::KeyExpiry(_)
            | Report::News(_)
            | Report::Up { .. } => self.registry_contact = Some(SystemTime::now()),
            // Some of these also say that nobody was asked.
            Report::Answer(..)
            | Report::Reply(_, Err(_), _)
            | Report::NameRefused(_)
            | Report::Certificate(..) => {}
        }
    }
}

impl Driver {
    pub(super) fn pulse(&self, now: Instant) -> Pulse {
        let stats = self.node.stats().clone();
        let running: u64 = self.node.streams().map(|stream| stream.stats.retransmits).sum();
        let mut pulse = Pulse {
            uptime: now.saturating_duration_since(self.started),
            tally: self.tally.clone(),
            retransmits: stats.retransmits + running,
            stats,
            registered: self.registry.connected,
            beacon_answers: self.beacon_answers(),
            policy_broken: self.policy.broken().is_some(),
            alarms: self.memory.alarms.len(),
            direct: 0,
            relayed: 0,
            web: 0,
            unknown: 0,
            round_trips: Vec::new(),
            trusted: self.node.trust().trusted().count(),
            pending: self.node.trust().pending().count(),
            streams: self.streams.len(),
            refused_streams: self.refused_streams,
            programs: self.clients.len(),
            ports: self.ports.len(),
            webhook_dropped: self.webhook.dropped(),
            spans_dropped: self.waits.dropped(),
            services: self.services.clone(),
        };
        let over_web = self.web.is_up();
        for peer in self.node.peers().filter(|peer| peer.encrypted) {
            *match peer.path {
                PathView::Direct(_) => &mut pulse.direct,
                PathView::Relayed if over_web => &mut pulse.web,
                PathView::Relayed => &mut pulse.relayed,
                PathView::Unknown => &mut pulse.unknown,
            } += 1;
            pulse.round_trips.extend(peer.rtt);
        }
        pulse.round_trips.sort_unstable();
        pulse
    }
}
