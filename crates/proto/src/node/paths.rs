//! The ways to peers: what this node is told about its own addresses, and what it can say about each way.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilot_wire::NodeId;
use pilot_wire::path::{Candidate, Nat};

use super::{Node, PathView};
use crate::path::candidate::CandidateSource;

/// The network around this node changed, or it learned about it.
impl Node {
    /// The addresses of this host's interfaces with the tunnel's port. Call again whenever they change: peers are told,
    /// and all paths looked at anew.
    pub fn set_local(&mut self, now: Instant, addrs: Vec<SocketAddr>) {
        let _ = (now, addrs);
    }

    /// The address that a gateway maps to this node, if one does.
    pub fn set_mapped(&mut self, now: Instant, addr: Option<SocketAddr>) {
        let _ = (now, addr);
    }

    /// Something about the network changed that cannot be seen in the addresses: another default route, waking up from
    /// a suspend. All paths are looked at anew.
    pub fn network_changed(&mut self, now: Instant) {
        let _ = now;
    }

    /// The addresses at which this node believes it can be reached, as peers are told.
    #[must_use]
    pub fn local_candidates(&self) -> Vec<Candidate> {
        Vec::new()
    }

    /// Finds out what kind of box this node is behind. [`Event::Surveyed`](crate::Event::Surveyed) follows, within
    /// 3 seconds; also when a survey is under way already.
    pub fn survey(&mut self, now: Instant) {
        let _ = now;
    }

    /// What is known about the ways to a peer. `None` for a peer that nobody has tried to reach.
    #[must_use]
    pub fn path_report(&self, now: Instant, node: NodeId) -> Option<PathReport> {
        let _ = (now, node);
        None
    }
}

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
