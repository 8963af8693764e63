//! What a node says about its paths, for people.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilot_wire::path::Nat;

use super::PathView;
use crate::path::candidate::CandidateSource;

/// Everything about the ways to one peer, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathReport {
    /// The way in use.
    pub path: PathView,
    /// Since when.
    pub since: Option<Instant>,
    /// Its smoothed round trip.
    pub rtt: Option<Duration>,
    /// When the last authentic frame came, over any way.
    pub heard: Option<Instant>,
    /// How long ago the registry last heard of the peer, when it was last asked, and when that was.
    pub seen: Option<(Duration, Instant)>,
    /// Every address, in the order in which they are tried.
    pub candidates: Vec<CandidateReport>,
    /// The way through the beacon.
    pub relay: RelayReport,
    /// Why frames go through the relay, when they do.
    pub relayed_because: Option<RelayReason>,
    /// When a better way is looked for next, if that is planned.
    pub next_try: Option<Instant>,
    /// The box in front of this node.
    pub our_nat: Nat,
    /// The box in front of the peer, as the peer says.
    pub their_nat: Nat,
}

/// One address of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateReport {
    /// The address.
    pub addr: SocketAddr,
    /// How it became known.
    pub source: CandidateSource,
    /// When something was last sent there to see whether it answers.
    pub tried: Option<Instant>,
    /// How many times so far, since it last answered.
    pub tries: u32,
    /// When it last gave an authentic answer.
    pub answered: Option<Instant>,
    /// Smoothed round trip of its answers.
    pub rtt: Option<Duration>,
    /// Frames go there.
    pub in_use: bool,
}

/// The way through the beacon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayReport {
    /// The beacon of this node, if it has one.
    pub beacon: Option<SocketAddr>,
    /// When the beacon last answered this node.
    pub beacon_answered: Option<Instant>,
    /// When a frame of the peer last came through it.
    pub heard: Option<Instant>,
    /// When the beacon last said that it does not know the peer, unless a frame came through it since.
    pub unknown: Option<Instant>,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
}

/// Why frames go through the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayReason {
    /// The peer asks for it.
    PeerWantsRelay,
    /// No other address of the peer is known.
    NoCandidates,
    /// The other addresses are being tried.
    Trying,
    /// None of the other addresses answered; both boxes give each destination another port, or let in only what
    /// answers, so that none could.
    NatsDoNotFit,
    /// None of the other addresses answered.
    NoAnswer,
    /// The direct way that was in use stopped answering.
    DirectLost,
}

/// What a survey found out about the network in front of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// The beacon that was asked.
    pub beacon: Option<SocketAddr>,
    /// Whether it answered over UDP.
    pub udp: bool,
    /// Round trip to it.
    pub rtt: Option<Duration>,
    /// The address it sees this node at.
    pub observed: Option<SocketAddr>,
    /// The box, in the words of RFC 4787.
    pub nat: Nat,
    /// Whether the outside port is the inside one. `None` if there is no outside address.
    pub port_preserved: Option<bool>,
    /// Whether the box sends what goes to its own outside address back in (RFC 4787 6).
    pub hairpinning: Option<bool>,
    /// Whether the answers from another address of the beacon could be asked for: without one, a box that is
    /// address-dependent cannot be told from one that is endpoint-independent.
    pub second_address: bool,
}

/// What is known of a peer that does not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Silence {
    /// How long ago it, or the registry, last heard of it.
    pub last_seen: Option<Duration>,
    /// The addresses that were tried in vain.
    pub tried: Vec<SocketAddr>,
    /// How it stands with the relay.
    pub relay: RelayState,
    /// Why the registry could not be asked, if it could not.
    pub registry: Option<String>,
}

/// How it stands with the relay to a peer that does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RelayState {
    /// This node has no beacon.
    #[default]
    None,
    /// The beacon does not answer this node.
    BeaconSilent,
    /// The beacon does not know the peer.
    NotRegistered,
    /// The beacon answers, the peer does not.
    NoAnswer,
}

/// For people: `last seen 3 min ago; no answer on 4 candidates; relay: not registered`.
impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ago) = self.last_seen {
            write!(f, "last seen {} ago; ", Ago(ago))?;
        }
        match self.tried.len() {
            0 => f.write_str("no address of it is known")?,
            1 => write!(f, "no answer on 1 candidate ({})", self.tried[0])?,
            count => write!(f, "no answer on {count} candidates")?,
        }
        match self.relay {
            RelayState::None => f.write_str("; no relay")?,
            RelayState::BeaconSilent => f.write_str("; relay: the beacon does not answer")?,
            RelayState::NotRegistered => f.write_str("; relay: not registered")?,
            RelayState::NoAnswer => f.write_str("; relay: no answer")?,
        }
        if let Some(reason) = &self.registry {
            write!(f, "; registry: {reason}")?;
        }
        Ok(())
    }
}

/// A time span in its largest unit.
struct Ago(Duration);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            secs @ 0..120 => write!(f, "{secs} s"),
            secs @ 120..7200 => write!(f, "{} min", secs / 60),
            secs @ 7200..172_800 => write!(f, "{} h", secs / 3600),
            secs => write!(f, "{} days", secs / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_in_one_line() {
        let silence = Silence {
            last_seen: Some(Duration::from_secs(185)),
            tried: (1..=4).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect(),
            relay: RelayState::NotRegistered,
            registry: None,
        };
        let expected = "last seen 3 min ago; no answer on 4 candidates; relay: not registered";
        assert_eq!(silence.to_string(), expected);
        assert_eq!(Silence::default().to_string(), "no address of it is known; no relay");
    }
}
