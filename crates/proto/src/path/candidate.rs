//! One address at which a peer may be: how it is known, when it was tried, whether it answers.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How an address of a peer became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateSource {
    /// The peer says so in its signed record.
    Record,
    /// The peer says so in its signed record: an address in its own network.
    RecordLan,
    /// The registry has it as the peer's address.
    Registry,
    /// The registry has it among the addresses in the peer's own network.
    RegistryLan,
    /// The peer named it, inside the tunnel: an address of one of its interfaces.
    PeerHost,
    /// The peer named it: where its beacon sees it.
    PeerObserved,
    /// The peer named it: a port that its gateway maps.
    PeerMapped,
    /// The beacon introduced us.
    Introduced,
    /// The peer announced itself in our network (mDNS).
    Lan,
    /// Frames with its name came from there.
    Frames,
    /// The peer was reached there in an earlier life of this node.
    Remembered,
    /// The registry says so, and the peer's signed record does not.
    Unsigned,
}

impl CandidateSource {
    /// Whether the peer itself said so, inside the tunnel.
    pub(crate) fn is_peers_word(self) -> bool {
        matches!(self, Self::PeerHost | Self::PeerObserved | Self::PeerMapped)
    }

    /// Whether it is in a network that both may be in.
    pub(crate) fn is_local(self) -> bool {
        matches!(self, Self::RecordLan | Self::RegistryLan | Self::PeerHost | Self::Lan)
    }

    /// Whether anybody at all may have said so, by writing a source address on a datagram.
    pub(crate) fn is_anybodys_word(self) -> bool {
        matches!(self, Self::Introduced | Self::Frames)
    }

    /// Whether the registry said so, or passed it on.
    pub(crate) fn is_registrys_word(self) -> bool {
        matches!(self, Self::Record | Self::RecordLan | Self::Registry | Self::RegistryLan | Self::Unsigned)
    }
}

/// An answer to a check of an address that worked is waited for this long at least, and at most.
const CHECK_MIN: Duration = Duration::from_millis(100);
const CHECK_MAX: Duration = Duration::from_secs(1);

/// An address that was checked and answered is checked again after this long if the peer's frames go on coming another
/// way, and after twice as long each time up to the second: a peer may prefer the relay for ever. Any frame from there
/// starts over.
const RECHECK_MIN: Duration = Duration::from_millis(250);
const RECHECK_MAX: Duration = Duration::from_secs(8);

/// Measurements that say how far an address is.
const SAMPLES_MIN: u8 = 3;

/// One address of a peer.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) addr: SocketAddr,
    pub(crate) source: CandidateSource,
    pub(crate) added: Instant,
    /// When something was last sent there to see whether it answers.
    pub(crate) tried: Option<Instant>,
    /// When our key was last shown there.
    pub(crate) shown: Option<Instant>,
    /// How often, since it last answered.
    pub(crate) tries: u32,
    /// When it last gave an authentic answer.
    pub(crate) answered: Option<Instant>,
    /// When an authentic frame last came from there.
    pub(crate) heard: Option<Instant>,
    pub(crate) rtt: Option<Duration>,
    /// How often it was measured.
    samples: u8,
    /// Since when it seems not to work any more.
    pub(crate) doubted: Option<Instant>,
    /// When it was asked whether it still works, until it answers.
    checking: Option<Instant>,
    /// When it last answered such a question, and how long that is believed.
    checked: Option<Instant>,
    believed: Duration,
}

impl Candidate {
    pub(crate) fn new(now: Instant, addr: SocketAddr, source: CandidateSource) -> Self {
        Self {
            addr,
            source,
            added: now,
            tried: None,
            shown: None,
            tries: 0,
            answered: None,
            heard: None,
            rtt: None,
            samples: 0,
            doubted: None,
            checking: None,
            checked: None,
            believed: RECHECK_MIN,
        }
    }

    /// Frames may go there.
    pub(crate) fn is_usable(&self) -> bool {
        self.answered.is_some() && self.doubted.is_none()
    }

    /// Whether its round trip was measured so often that it says something of the way and not of a busy moment.
    pub(crate) fn is_known_well(&self) -> bool {
        self.samples >= SAMPLES_MIN
    }

    /// Something that asks for an answer was sent there.
    pub(crate) fn was_tried(&mut self, now: Instant) {
        self.tried = Some(now);
        self.tries = self.tries.saturating_add(1);
    }

    /// It gave an authentic answer. Without a measured time there is none to go by.
    pub(crate) fn answers(&mut self, now: Instant, rtt: Option<Duration>) {
        self.answered = Some(now);
        self.heard = Some(now);
        self.tries = 0;
        self.doubted = None;
        if rtt.is_some() {
            self.checked = Some(now);
            self.checking = None;
        }
        if let Some(sample) = rtt {
            self.rtt = Some(smoothed(self.rtt, sample));
            self.samples = self.samples.saturating_add(1);
        }
    }

    /// The peer answered, over another way, what was sent here only.
    pub(crate) fn answers_elsewhere(&mut self, now: Instant) {
        self.answered = Some(now);
        self.tries = 0;
        self.doubted = None;
        self.checked = Some(now);
        self.checking = None;
    }

    /// Frames of the peer come another way. If nothing came from here for a round trip, it is asked whether it still
    /// works; `true` then.
    pub(crate) fn check(&mut self, now: Instant) -> bool {
        let grace = self.rtt.unwrap_or(CHECK_MIN).clamp(CHECK_MIN / 2, CHECK_MAX);
        let silent = self.heard.is_none_or(|heard| heard + grace <= now);
        let quiet_since = self.checked.filter(|&checked| self.heard.is_none_or(|heard| heard <= checked));
        let believed = quiet_since.is_some_and(|at| at + self.believed > now);
        if !self.is_usable() || !silent || self.checking.is_some() || believed {
            return false;
        }
        self.believed = match quiet_since {
            Some(_) => (self.believed * 2).min(RECHECK_MAX),
            None => RECHECK_MIN,
        };
        self.confirm(now);
        true
    }

    /// What was sent there got no answer, so that it is not believed any longer; `true` if it is to be asked.
    pub(crate) fn suspect(&mut self, now: Instant) -> bool {
        self.believed = RECHECK_MIN;
        self.checked = None;
        self.check(now)
    }

    /// It is asked whether it works; without an answer it is doubted after a while.
    pub(crate) fn confirm(&mut self, now: Instant) {
        self.checking = self.checking.or(Some(now));
        self.was_tried(now);
    }

    /// When the answer to a check is overdue.
    pub(crate) fn check_deadline(&self) -> Option<Instant> {
        self.checking.filter(|_| self.doubted.is_none()).map(|at| at + self.patience())
    }

    /// Doubts it if the answer to a check is overdue.
    pub(crate) fn expire_check(&mut self, now: Instant) -> bool {
        let overdue = self.check_deadline().is_some_and(|at| at <= now);
        if overdue {
            self.doubt(now);
        }
        overdue
    }

    pub(crate) fn doubt(&mut self, now: Instant) {
        self.doubted = self.doubted.or(Some(now));
        self.checking = None;
    }

    fn patience(&self) -> Duration {
        self.rtt.map_or(CHECK_MAX, |rtt| (rtt * 3).clamp(CHECK_MIN, CHECK_MAX))
    }
}

/// As RFC 6298 smooths.
pub(crate) fn smoothed(before: Option<Duration>, sample: Duration) -> Duration {
    before.map_or(sample, |before| (before * 7 + sample) / 8)
}

/// Whether an address can be one of a peer at all. `loopback`: this node lives on loopback itself.
pub(crate) fn is_plausible(addr: SocketAddr, loopback: bool) -> bool {
    let ip = addr.ip().to_canonical();
    let sane = match ip {
        IpAddr::V4(v4) => !v4.is_broadcast(),
        // Without a scope a link-local address means nothing to anybody else.
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    sane && addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && (loopback || !ip.is_loopback())
}
