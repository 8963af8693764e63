//! The ways to peers: what this node is told about its own addresses, and what it can say about each way.

use std::net::SocketAddr;
use std::time::Instant;

use pilot_wire::NodeId;
use pilot_wire::path::{Candidate, Kind, Nat};

use super::peer::Peer;
use super::reports::{CandidateReport, PathReport, RelayReason, RelayReport, RelayState, Silence, Survey};
use super::{Beacon, Frame, Node, PathView, Timer, Via};
use crate::path::search::Why;
use crate::path::survey::{self, Reply};
use crate::{Event, Query, QueryError};

/// The network around this node changed, or it learned about it.
impl Node {
    /// The addresses of this host's interfaces with the tunnel's port. Call again whenever they change: peers are told,
    /// and all paths looked at anew.
    pub fn set_local(&mut self, now: Instant, addrs: Vec<SocketAddr>) {
        if self.local != addrs {
            let first = self.local.is_empty();
            self.local = addrs;
            if first && self.peers.is_empty() {
                self.survey_anew(now);
            } else {
                self.network_changed(now);
            }
        }
    }

    /// The address that a gateway maps to this node, if one does.
    pub fn set_mapped(&mut self, now: Instant, addr: Option<SocketAddr>) {
        if self.mapped != addr {
            self.mapped = addr;
            self.candidates_changed(now);
        }
    }

    /// Something about the network changed that cannot be seen in the addresses: another default route, waking up from
    /// a suspend. All paths are looked at anew.
    pub fn network_changed(&mut self, now: Instant) {
        self.ledger.clear_waits(now);
        if let Some(beacon) = &mut self.beacon {
            beacon.asked_from_elsewhere();
        }
        self.announce(now);
        self.survey_anew(now);
        self.candidates_changed(now);
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            if let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.tunnel.is_ready()) {
                let why = if peer.is_in_use(now) { Why::Wanted } else { Why::Told };
                peer.path.search.restart(now, why);
                peer.ask_now(now);
                self.tend(now, id);
            }
        }
    }

    /// The registry says that a peer is elsewhere than before. If it is one that we talk to, the registry is asked
    /// where, and the peer for a sign of life; `false` if it is not.
    pub fn relocate(&mut self, now: Instant, node: NodeId) -> bool {
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.tunnel.is_ready()) else {
            return false;
        };
        if peer.is_in_use(now) {
            peer.ask_now(now);
            self.tend(now, node);
        }
        self.directory.ask(Query::Resolve(node))
    }

    /// The beacon is reached another way than before, over the web or over UDP again, and nothing else changed. It hears
    /// of us at once, peers in use are told our addresses, and those that only the relay brings are asked for a sign of
    /// life.
    pub fn beacon_reachable_otherwise(&mut self, now: Instant) {
        if let Some(beacon) = &mut self.beacon {
            beacon.asked_from_elsewhere();
        }
        self.announce(now);
        self.candidates_changed(now);
        self.ask_peers(now, |peer| peer.path.is_improvable());
    }

    /// The addresses at which this node believes it can be reached, as peers are told.
    #[must_use]
    pub fn local_candidates(&self) -> Vec<Candidate> {
        let hosts = self.local.iter().filter(|addr| !addr.ip().is_loopback() || self.lives_on_loopback());
        let hosts = hosts.map(|&addr| Candidate { kind: Kind::Host, addr });
        let observed = self.observed().filter(|addr| !self.local.contains(addr));
        let observed = observed.map(|addr| Candidate { kind: Kind::Observed, addr });
        let mapped = self.mapped.filter(|addr| Some(*addr) != self.observed());
        let mapped = mapped.map(|addr| Candidate { kind: Kind::Mapped, addr });
        observed.into_iter().chain(mapped).chain(hosts).collect()
    }

    /// The beacon sees us at this address. If it is another than before, the box in front of us is another, or lost its
    /// bindings.
    pub(super) fn observed_at(&mut self, now: Instant, observed: Option<SocketAddr>) {
        let Some(beacon) = &mut self.beacon else { return };
        let first = beacon.observed().is_none();
        if !beacon.sees(observed) {
            return;
        }
        self.events.extend(observed.map(Event::Observed));
        if !self.surveyor.is_running() {
            self.surveyor.forget();
            self.start_survey(now);
        }
        self.candidates_changed(now);
        if !first {
            self.ask_peers(now, |_| true);
        }
    }

    /// The beacon answers again: what only the relay brings may go on.
    pub(super) fn beacon_is_back(&mut self, now: Instant) {
        self.ask_peers(now, |peer| peer.path.is_improvable());
    }

    /// Asks peers that somebody here uses for a sign of life, at once.
    fn ask_peers(&mut self, now: Instant, which: impl Fn(&Peer) -> bool) {
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            if let Some(peer) = self.peers.get_mut(&id)
                && peer.tunnel.is_ready()
                && peer.is_in_use(now)
                && which(peer)
            {
                peer.ask_now(now);
                self.tend(now, id);
            }
        }
    }

    /// Our addresses are others than before: peers in use should know.
    pub(super) fn candidates_changed(&mut self, now: Instant) {
        self.generation += 1;
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            if self.peers.get(&id).is_some_and(|peer| peer.tunnel.is_ready() && peer.is_in_use(now)) {
                self.tell_candidates(now, id);
            }
        }
    }
}

/// What kind of box this node is behind.
impl Node {
    /// Finds out what kind of box this node is behind. [`Event::Surveyed`] follows, within
    /// 3 seconds; also when a survey is under way already.
    pub fn survey(&mut self, now: Instant) {
        // A beacon that knows no surveys answers this at least.
        self.announce(now);
        self.start_survey(now);
    }

    /// The same of the node's own accord. The beacon is not asked anything else: its answer to that may be what began
    /// the survey.
    pub(super) fn start_survey(&mut self, now: Instant) {
        match self.beacon.as_ref().map(Beacon::addr) {
            Some(beacon) => self.surveyor.start(now, beacon, &mut self.rng),
            None => self.events.push_back(Event::Surveyed(Box::default())),
        }
        self.go_on_surveying(now);
    }

    /// What the last survey of the present network found out.
    #[must_use]
    pub fn last_survey(&self) -> Option<&Survey> {
        self.surveyor.last()
    }

    /// The network is another one: what was known of the box in front of it is void.
    fn survey_anew(&mut self, now: Instant) {
        let wanted = self.surveyor.is_running() || self.surveyor.last().is_some();
        self.surveyor.forget();
        if wanted || self.beacon.as_ref().is_some_and(Beacon::is_there) {
            self.start_survey(now);
        }
    }

    pub(super) fn on_survey_reply(&mut self, now: Instant, from: SocketAddr, reply: Reply) {
        if let Some(observed) = self.surveyor.replied(now, from, reply) {
            self.observed_at(now, Some(observed));
        }
        self.go_on_surveying(now);
    }

    /// Our own question came back: the box leads what is sent to its outside address back in.
    pub(super) fn on_survey_came_back(&mut self, now: Instant, from: SocketAddr, token: u64) -> bool {
        let expected = self.surveyor.came_back(from, token);
        self.go_on_surveying(now);
        expected
    }

    pub(super) fn go_on_surveying(&mut self, now: Instant) {
        let was_running = self.surveyor.is_running();
        for ask in self.surveyor.poll(now, &self.local, &mut self.rng) {
            // Where else it and we are is only the beacon's word.
            let known = self.beacon.as_ref().is_some_and(|beacon| beacon.addr().ip() == ask.to.ip());
            if known || self.ledger.take(now, ask.to) {
                self.outbox.push_back(Frame::whole(ask.to, survey::emit(ask)));
            }
        }
        self.timers.set(Timer::Survey, self.surveyor.poll_timeout());
        if was_running
            && !self.surveyor.is_running()
            && let Some(survey) = self.surveyor.last().cloned()
        {
            let nat_known = survey.nat != Nat::default();
            self.events.push_back(Event::Surveyed(Box::new(self.with_beacons_word(survey))));
            if nat_known {
                self.candidates_changed(now);
            }
        }
    }

    /// A beacon that knows no surveys still tells where it sees us.
    fn with_beacons_word(&self, survey: Survey) -> Survey {
        let since = self.surveyor.begun();
        let answers = |beacon: &&Beacon| !survey.udp && beacon.answered() >= since;
        let Some(beacon) = self.beacon.as_ref().filter(answers) else { return survey };
        // One that sees no address is reached over something else than datagrams.
        let Some(observed) = beacon.observed() else { return survey };
        let is_local = self.local.contains(&observed);
        let mapping = if is_local { pilot_wire::path::Behaviour::None } else { survey.nat.mapping };
        Survey {
            udp: true,
            rtt: beacon.rtt(),
            observed: Some(observed),
            nat: Nat { mapping, ..survey.nat },
            port_preserved: Some(self.local.iter().any(|own| own.port() == observed.port())),
            ..survey
        }
    }
}

/// Reports.
impl Node {
    /// What is known about the ways to a peer. `None` for a peer that nobody has tried to reach.
    #[must_use]
    pub fn path_report(&self, node: NodeId) -> Option<PathReport> {
        let peer = self.peers.get(&node)?;
        let path = &peer.path;
        let candidates = path.candidates().iter().map(|candidate| CandidateReport {
            addr: candidate.addr,
            source: candidate.source,
            tried: candidate.tried,
            tries: candidate.tries,
            answered: candidate.answered,
            rtt: candidate.rtt,
            in_use: path.is_proven() && path.route() == Some(Via::Direct(candidate.addr)),
        });
        let view = super::view::path_view(path);
        Some(PathReport {
            path: view,
            since: path.since(),
            rtt: path.rtt(),
            heard: peer.tunnel.heard(),
            seen: peer.location.as_ref().and_then(|location| Some((location.seen?, location.at))),
            candidates: candidates.collect(),
            relay: self.relay_report(node)?,
            relayed_because: (view == PathView::Relayed).then(|| self.relay_reason(node)),
            next_try: path.search.poll_timeout().or_else(|| peer.next_try()),
            our_nat: self.surveyor.nat(),
            their_nat: path.their_nat,
        })
    }

    fn relay_report(&self, node: NodeId) -> Option<RelayReport> {
        let relay = &self.peers.get(&node)?.path.relay;
        Some(RelayReport {
            beacon: self.beacon.as_ref().map(Beacon::addr),
            beacon_answered: self.beacon.as_ref().and_then(Beacon::answered),
            heard: relay.heard,
            unknown: relay.unknown,
            rtt: relay.rtt,
        })
    }

    fn relay_reason(&self, node: NodeId) -> RelayReason {
        let Some(path) = self.peers.get(&node).map(|peer| &peer.path) else {
            return RelayReason::NoCandidates;
        };
        if path.targets().is_empty() {
            return match path.is_relay_only() {
                true => RelayReason::PeerWantsRelay,
                false => RelayReason::NoCandidates,
            };
        }
        if path.search.is_on() && path.search.is_young() {
            return RelayReason::Trying;
        }
        if path.direct_lost {
            RelayReason::DirectLost
        } else if !can_meet(self.surveyor.nat(), path.their_nat) {
            RelayReason::NatsDoNotFit
        } else {
            RelayReason::NoAnswer
        }
    }

    /// What can be said of a peer that does not answer, for the one who dials it.
    #[must_use]
    pub fn silence(&self, now: Instant, node: NodeId) -> Silence {
        let peer = self.peers.get(&node);
        let heard = peer.and_then(|peer| peer.tunnel.heard()).map(|at| now.saturating_duration_since(at));
        let seen = peer
            .and_then(|peer| peer.location.as_ref())
            .and_then(|location| Some(location.seen? + now.saturating_duration_since(location.at)));
        let last_seen = match (heard, seen) {
            (Some(heard), Some(seen)) => Some(heard.min(seen)),
            (heard, seen) => heard.or(seen),
        };
        let relay = match (&self.beacon, peer.map(|peer| &peer.path.relay)) {
            (None, _) => RelayState::None,
            (Some(beacon), _) if !beacon.is_there() => RelayState::BeaconSilent,
            (Some(_), Some(relay)) if relay.unknown.is_some() => RelayState::NotRegistered,
            (Some(_), _) => RelayState::NoAnswer,
        };
        let tried = peer.map(|peer| {
            let tried = peer.path.candidates().iter().filter(|candidate| candidate.tried.is_some());
            tried.map(|candidate| candidate.addr).collect()
        });
        let registry =
            peer.and_then(|peer| peer.location.as_ref()).and_then(|location| match &location.found {
                Err(QueryError::Unreachable(reason)) => Some(reason.clone()),
                Ok(()) | Err(_) => None,
            });
        Silence { last_seen, tried: tried.unwrap_or_default(), relay, registry }
    }
}

/// Whether two boxes let their nodes meet, as far as they are known (RFC 5128): a box that gives each destination
/// another port needs one on the other side that does not look at ports.
fn can_meet(ours: Nat, theirs: Nat) -> bool {
    use pilot_wire::path::Behaviour::{AddressAndPortDependent, AddressDependent};
    let shifting = |nat: Nat| matches!(nat.mapping, AddressDependent | AddressAndPortDependent);
    let strict = |nat: Nat| nat.filtering == AddressAndPortDependent;
    !(shifting(ours) && (shifting(theirs) || strict(theirs)) || shifting(theirs) && strict(ours))
}
