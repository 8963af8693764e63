//! How much may be in the network, and how fast it goes there.
//!
//! Two controllers to choose from ([`Congestion`]). [`Cubic`] takes loss for congestion and shares a path with everybody
//! else's TCP; [`Bbr`] measures what the path delivers and takes loss for congestion only when there is more of it than
//! the path always has.

use std::time::{Duration, Instant};

mod bbr;
mod cubic;

use bbr::Bbr;
use cubic::Cubic;

use super::{delivery::Stamp, pacing::Rate};

/// How a stream finds out how fast it may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// CUBIC (RFC 9438) with HyStart++ (RFC 9406): until packets get lost.
    #[default]
    Cubic,
    /// After BBR (draft-ietf-ccwg-bbr): as fast as packets arrive, with short queues, and hardly slower for random loss.
    Bbr,
}

/// An acknowledgement as a controller sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    /// Bytes newly delivered.
    pub(super) bytes: u64,
    /// Offset acknowledged so far.
    pub(super) acked: u64,
    /// Offset sent so far.
    pub(super) sent: u64,
    /// Latest round trip, if this acknowledgement gave one.
    pub(super) rtt: Option<Duration>,
    /// Smoothed round trip.
    pub(super) smoothed: Duration,
    /// Bytes still under way.
    pub(super) flight: u64,
    /// When the segment was sent that was sent last of those that arrived, and what was known then.
    pub(super) newest: Option<(Instant, Stamp)>,
}

/// The controller of one stream. All windows are in bytes.
#[derive(Debug)]
pub(super) enum Controller {
    Cubic(Cubic),
    Bbr(Box<Bbr>),
}

impl Controller {
    /// Starts with a window of `initial` bytes, for segments of `segment` bytes. `seed` keeps streams out of step.
    pub(super) fn new(which: Congestion, now: Instant, initial: u64, segment: u64, seed: u32) -> Self {
        match which {
            Congestion::Cubic => Self::Cubic(Cubic::new(initial, segment)),
            Congestion::Bbr => Self::Bbr(Box::new(Bbr::new(now, initial, segment, seed))),
        }
    }

    /// The congestion window.
    pub(super) fn window(&self) -> u64 {
        match self {
            Self::Cubic(cubic) => cubic.window(),
            Self::Bbr(bbr) => bbr.window(),
        }
    }

    /// Where slow start ends; the maximum if that is not known.
    pub(super) fn threshold(&self) -> u64 {
        match self {
            Self::Cubic(cubic) => cubic.threshold(),
            Self::Bbr(_) => u64::MAX,
        }
    }

    /// How fast to send, on a path with this round trip.
    pub(super) fn pace(&self, rtt: Duration) -> Rate {
        match self {
            Self::Cubic(cubic) => cubic.pace(rtt),
            Self::Bbr(bbr) => bbr.pace(rtt),
        }
    }

    /// Segments have another size from now on.
    pub(super) fn set_segment(&mut self, segment: u64) {
        match self {
            Self::Cubic(cubic) => cubic.set_segment(segment),
            Self::Bbr(bbr) => bbr.set_segment(segment),
        }
    }

    /// Data arrived. `used`: all of the window was in use; `repairing`: proportional rate reduction has the window.
    pub(super) fn on_ack(&mut self, now: Instant, ack: &Ack, used: bool, repairing: bool) {
        match self {
            Self::Cubic(_) if repairing => {}
            Self::Cubic(cubic) if used => cubic.on_ack(now, *ack),
            Self::Cubic(cubic) => cubic.on_unused(),
            Self::Bbr(bbr) => bbr.on_ack(now, ack),
        }
    }

    /// A segment of `len` bytes goes out while `flight` bytes are under way.
    pub(super) fn on_sent(&mut self, now: Instant, flight: u64, len: u32) -> Stamp {
        match self {
            Self::Cubic(_) => Stamp::default(),
            Self::Bbr(bbr) => bbr.on_sent(now, flight, u64::from(len)),
        }
    }

    /// The application has nothing more to send while `flight` bytes are under way and more could be.
    pub(super) fn on_limited(&mut self, flight: u64) {
        match self {
            Self::Cubic(_) => {}
            Self::Bbr(bbr) => bbr.on_limited(flight),
        }
    }

    /// So many bytes are taken for lost.
    pub(super) fn on_lost(&mut self, bytes: u64) {
        match self {
            Self::Cubic(_) => {}
            Self::Bbr(bbr) => bbr.on_lost(bytes),
        }
    }

    /// A recovery begins. Returns the window to converge to by proportional rate reduction, if that is how this
    /// controller does it.
    pub(super) fn on_congestion(&mut self) -> Option<u64> {
        match self {
            Self::Cubic(cubic) => Some(cubic.on_loss()),
            Self::Bbr(_) => None,
        }
    }

    /// The window that recovery has arrived at.
    pub(super) fn set_window(&mut self, window: u64) {
        match self {
            Self::Cubic(cubic) => cubic.set_window(window),
            Self::Bbr(_) => {}
        }
    }

    /// Nothing was acknowledged for a whole time-out. `first` says whether it is the first of its episode.
    pub(super) fn on_timeout(&mut self, first: bool) {
        match self {
            Self::Cubic(cubic) => cubic.on_timeout(first),
            Self::Bbr(bbr) => bbr.on_timeout(),
        }
    }

    /// The time-out was wrong: what was sent before it arrives.
    pub(super) fn undo_timeout(&mut self) {
        match self {
            Self::Cubic(cubic) => cubic.set_window(cubic.window().max(cubic.threshold())),
            Self::Bbr(bbr) => bbr.undo_timeout(),
        }
    }

    /// Nothing was sent for `timeouts` retransmission time-outs.
    pub(super) fn on_idle(&mut self, timeouts: u32) {
        match self {
            Self::Cubic(cubic) => cubic.on_idle(timeouts),
            // It paces by what it measured, so there is no burst after a pause.
            Self::Bbr(_) => {}
        }
    }

    /// The path is another one.
    pub(super) fn on_path_change(&mut self, now: Instant) {
        match self {
            Self::Cubic(_) => {}
            Self::Bbr(bbr) => bbr.on_path_change(now),
        }
    }

    /// True while an unused part of the window may still grow: it was not known what the path carries.
    pub(super) fn in_slow_start(&self) -> bool {
        match self {
            Self::Cubic(cubic) => cubic.in_slow_start(),
            Self::Bbr(_) => false,
        }
    }
}
