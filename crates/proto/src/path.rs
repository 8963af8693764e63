//! The ways to one peer: addresses that answered, addresses that might, and the relay.
//!
//! Addresses that somebody named are *candidates*: they get key exchanges and probes, which are small and counted
//! ([`ledger`]), and nothing else until an authentic answer has come from them. Of those that answered, the one with the
//! shortest round trip is the *route*. It is left when it stops answering or another is clearly nearer; an attacker who
//! forwards a captured frame from elsewhere moves nothing, because the answer to a probe never reaches us from there.
//! The relay is the route only while no address answers.

pub(crate) mod beacon;
pub(crate) mod candidate;
pub(crate) mod ledger;
pub(crate) mod mtu;
pub(crate) mod search;
pub(crate) mod survey;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilot_wire::path::{Candidates, Kind, Nat};

use candidate::{Candidate, CandidateSource, smoothed};
use search::Search;

use crate::Location;

/// Addresses kept for a peer: those of a few interfaces, as the registry and the peer name them, and some that frames
/// came from. When full, the oldest that never answered makes room.
pub(crate) const CANDIDATES_MAX: usize = 16;

/// Addresses tried in one shot.
const SHOT_MAX: usize = 10;

/// Another address is nearer if its round trip is shorter by a fifth and by this much.
const NEARER_BY: Duration = Duration::from_micros(200);

/// A busy host answers this much later than an idle one, wherever it is: what is measured once says no more.
const AT_HOME: Duration = Duration::from_millis(5);

/// An address that frames come from is asked for an answer this often. The last question may be under way.
const PROBE_APART: Duration = Duration::from_millis(750);

/// A relay from which something came within this time is trusted to work when a direct way is lost.
const RELAY_FRESH: Duration = Duration::from_secs(3);

/// An address that an authentic frame came from within this time is not planted by somebody who repeats old ones.
const COMES_NOW: Duration = Duration::from_secs(3);

/// How a frame came or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Via {
    /// In a datagram of its own.
    Direct(SocketAddr),
    /// Wrapped, through the beacon.
    Relay,
}

/// Frames go another way from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) to: Via,
    /// The way before does not work any more: what is under way on it will not arrive.
    pub(crate) lost: bool,
}

/// What is to be done after something came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reaction {
    /// Frames go another way from now on.
    pub(crate) moved: Option<Moved>,
    /// This address must answer before it is used: probe it.
    pub(crate) probe: Option<SocketAddr>,
    /// This address worked; ask whether it still does.
    pub(crate) check: Option<SocketAddr>,
}

/// The ways to one peer.
#[derive(Debug, Default)]
pub(crate) struct Path {
    candidates: Vec<Candidate>,
    pub(crate) relay: Relay,
    /// Where frames go, once something authentic has come.
    route: Option<Via>,
    /// Where our key was shown last.
    shown: Option<(Via, Instant)>,
    since: Option<Instant>,
    /// Where a signed key exchange came from. It may be a recorded one, so few frames go there, and only while nothing
    /// authentic has come from anywhere.
    provisional: Option<Via>,
    /// The peer asked to be reached through the beacon only.
    relay_only: bool,
    pub(crate) search: Search,
    /// The latest list of candidates that the peer sent in this life.
    generation: Option<u64>,
    pub(crate) their_nat: Nat,
    /// A direct way was lost and none has been found since.
    pub(crate) direct_lost: bool,
}

/// The way through the beacon.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    /// When a frame last came that way.
    pub(crate) heard: Option<Instant>,
    /// When the beacon last said that it does not know the peer.
    pub(crate) unknown: Option<Instant>,
    pub(crate) rtt: Option<Duration>,
    /// When our key was last shown that way.
    shown: Option<Instant>,
}

/// What is learned about addresses.
impl Path {
    /// Addresses that are known of the peer.
    pub(crate) fn known(&self) -> usize {
        self.candidates.len()
    }

    /// Somebody said the peer is at `addr`.
    pub(crate) fn learn(&mut self, now: Instant, addr: SocketAddr, source: CandidateSource) {
        if let Some(known) = self.candidate_mut(addr) {
            // A name says more than that something came from there once.
            if matches!(
                known.source,
                CandidateSource::Frames
                    | CandidateSource::Introduced
                    | CandidateSource::Remembered
                    | CandidateSource::Unsigned
            ) {
                known.source = source;
            }
            return;
        }
        if self.candidates.len() >= CANDIDATES_MAX && !self.make_room() {
            return;
        }
        self.candidates.push(Candidate::new(now, addr, source));
        self.candidates.sort_by_key(|candidate| candidate.source);
    }

    fn make_room(&mut self) -> bool {
        let route = self.route;
        let spare = |candidate: &&Candidate| route != Some(Via::Direct(candidate.addr));
        let oldest =
            self.candidates.iter().filter(spare).min_by_key(|c| (c.answered, c.added)).map(|c| c.addr);
        self.candidates.retain(|candidate| Some(candidate.addr) != oldest);
        oldest.is_some()
    }

    /// The registry said where the peer is. What it said before is forgotten, unless it answered. Where the peer says so
    /// itself, under its signature, the registry's own word comes last.
    pub(crate) fn located(&mut self, now: Instant, found: &Location) {
        self.relay_only = found.relay_only;
        let Location { signed, signed_lan, public, lan, .. } = found;
        let named =
            |addr| *public == Some(addr) || [signed, signed_lan, lan].iter().any(|list| list.contains(&addr));
        self.forget_unnamed(CandidateSource::is_registrys_word, named);
        for &addr in signed {
            self.learn(now, addr, CandidateSource::Record);
        }
        for &addr in signed_lan {
            self.learn(now, addr, CandidateSource::RecordLan);
        }
        let is_signed = !signed.is_empty() || !signed_lan.is_empty();
        let of = |source| if is_signed { CandidateSource::Unsigned } else { source };
        for &addr in lan {
            self.learn(now, addr, of(CandidateSource::RegistryLan));
        }
        if let Some(addr) = *public {
            self.learn(now, addr, of(CandidateSource::Registry));
        }
    }

    /// The peer said where it is. `true` if that is news.
    pub(crate) fn told(
        &mut self,
        now: Instant,
        candidates: &Candidates,
        plausible: impl Fn(SocketAddr) -> bool,
    ) -> bool {
        if self.generation.is_some_and(|known| known >= candidates.generation) {
            return false;
        }
        self.generation = Some(candidates.generation);
        self.their_nat = candidates.nat;
        let named = |addr| candidates.list.iter().any(|candidate| candidate.addr == addr);
        self.forget_unnamed(CandidateSource::is_peers_word, named);
        for candidate in candidates.list.iter().filter(|candidate| plausible(candidate.addr)) {
            let source = match candidate.kind {
                Kind::Host => CandidateSource::PeerHost,
                Kind::Observed => CandidateSource::PeerObserved,
                Kind::Mapped => CandidateSource::PeerMapped,
            };
            self.learn(now, candidate.addr, source);
        }
        true
    }

    /// Forgets what a source said before and does not say any more, unless it answered.
    fn forget_unnamed(&mut self, of: impl Fn(CandidateSource) -> bool, named: impl Fn(SocketAddr) -> bool) {
        let route = self.route;
        self.candidates.retain(|candidate| {
            !of(candidate.source)
                || named(candidate.addr)
                || candidate.answered.is_some()
                || route == Some(Via::Direct(candidate.addr))
        });
    }

    /// The peer began another life: what it said in the last one is void.
    pub(crate) fn peer_restarted(&mut self) {
        self.generation = None;
    }

    /// A key exchange with a good signature came this way.
    pub(crate) fn exchanged(&mut self, now: Instant, via: Via) {
        match via {
            Via::Direct(addr) => {
                let tried = self.candidate(addr).is_some_and(|candidate| candidate.tried.is_some());
                self.learn(now, addr, CandidateSource::Frames);
                // An address that we wrote to is a better guess than one that only writes to us.
                if tried || self.provisional.is_none() {
                    self.provisional = Some(via);
                }
            }
            Via::Relay => self.provisional = self.provisional.or(Some(via)),
        }
    }
}

/// What comes and what does not.
impl Path {
    /// An authentic frame came this way. `proof`: it proves a key that was agreed anew, so it answers the exchange that
    /// we sent there.
    pub(crate) fn heard(&mut self, now: Instant, via: Via, proof: bool) -> Reaction {
        let mut reaction = Reaction::default();
        match via {
            Via::Relay => {
                self.relay.heard = Some(now);
                self.relay.unknown = None;
            }
            Via::Direct(addr) => {
                if self.candidate(addr).is_none() {
                    self.learn(now, addr, CandidateSource::Frames);
                }
                if let Some(candidate) = self.candidate_mut(addr) {
                    candidate.heard = Some(now);
                    if proof && candidate.answered.is_none() && candidate.tried.is_some() {
                        candidate.answers(now, None);
                        candidate.confirm(now);
                        reaction.check = Some(addr);
                    } else if !candidate.is_usable()
                        && candidate.tried.is_none_or(|at| at + PROBE_APART <= now)
                    {
                        reaction.probe = Some(addr);
                    }
                }
            }
        }
        if let Some(Via::Direct(current)) = self.route
            && via != Via::Direct(current)
            && self.candidate_mut(current).is_some_and(|candidate| candidate.check(now))
        {
            reaction.check = Some(current);
        }
        reaction.moved = self.choose(now);
        reaction
    }

    /// The peer answered a probe of this way, over this way.
    pub(crate) fn answered(&mut self, now: Instant, via: Via, rtt: Duration) -> Reaction {
        match via {
            Via::Relay => {
                self.relay.heard = Some(now);
                self.relay.unknown = None;
                self.relay.rtt = Some(smoothed(self.relay.rtt, rtt));
            }
            Via::Direct(addr) => {
                if let Some(candidate) = self.candidate_mut(addr) {
                    candidate.answers(now, Some(rtt));
                }
            }
        }
        Reaction { moved: self.choose(now), ..Reaction::default() }
    }

    /// The peer answered another way what was sent to this address only: so that is where it is, though its own frames
    /// come another way. Release 1.18.0 stays on the relay until it hears us directly.
    pub(crate) fn confirmed(&mut self, now: Instant, addr: SocketAddr) -> Reaction {
        if let Some(candidate) = self.candidate_mut(addr) {
            candidate.answers_elsewhere(now);
        }
        Reaction { moved: self.choose(now), ..Reaction::default() }
    }

    /// Something came from this address, and nothing here is authentic: encryption is off.
    pub(crate) fn answered_unasked(&mut self, now: Instant, addr: SocketAddr) -> Reaction {
        if let Some(candidate) = self.candidate_mut(addr) {
            candidate.answers(now, None);
        }
        Reaction { moved: self.choose(now), ..Reaction::default() }
    }

    /// All addresses that worked must show whether they still do, because our own network is another one.
    pub(crate) fn recheck(&mut self, now: Instant) {
        for candidate in self.candidates.iter_mut().filter(|candidate| candidate.is_usable()) {
            candidate.confirm(now);
        }
    }

    /// Something that went the way in use got no answer, while the peer is heard another way. The address to ask whether it
    /// works, unless it is being asked.
    pub(crate) fn suspect_route(&mut self, now: Instant) -> Option<SocketAddr> {
        let Some(Via::Direct(addr)) = self.route else { return None };
        let here = self.candidate(addr)?.heard;
        let elsewhere =
            self.candidates.iter().filter_map(|candidate| candidate.heard).chain(self.relay.heard).max();
        (elsewhere > here && self.candidate_mut(addr)?.suspect(now)).then_some(addr)
    }

    /// Nothing is heard from the peer though something should be.
    pub(crate) fn doubt_direct(&mut self, now: Instant) -> Option<Moved> {
        if let Some(Via::Direct(addr)) = self.route
            && let Some(candidate) = self.candidate_mut(addr)
        {
            candidate.doubt(now);
        }
        self.choose(now)
    }

    /// Checks that are overdue.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Moved> {
        let mut any = false;
        for candidate in &mut self.candidates {
            any |= candidate.expire_check(now);
        }
        if any { self.choose(now) } else { None }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.candidates.iter().filter_map(Candidate::check_deadline).min()
    }

    /// Takes the best way that works. Returns it if it is another than before.
    fn choose(&mut self, now: Instant) -> Option<Moved> {
        let current = match self.route {
            Some(Via::Direct(addr)) => self.candidate(addr),
            Some(Via::Relay) | None => None,
        };
        let usable = self.candidates.iter().filter(|candidate| candidate.is_usable());
        let nearest = usable.reduce(|best, other| if is_nearer(other, best) { other } else { best });
        let best = match (current.filter(|candidate| candidate.is_usable()), nearest) {
            (Some(current), Some(nearest)) if !is_nearer(nearest, current) => Some(Via::Direct(current.addr)),
            (_, Some(nearest)) => Some(Via::Direct(nearest.addr)),
            (_, None) => {
                let doubted = current.and_then(|candidate| candidate.doubted);
                match (self.route, self.relay.heard) {
                    (Some(Via::Direct(_)), Some(heard))
                        if doubted.is_none_or(|since| heard >= since) || heard + RELAY_FRESH > now =>
                    {
                        Some(Via::Relay)
                    }
                    (None, Some(_)) => Some(Via::Relay),
                    (route, _) => route,
                }
            }
        };
        if best == self.route {
            return None;
        }
        let lost = current.is_some_and(|candidate| candidate.doubted.is_some());
        if let Some(Via::Direct(_)) = self.route {
            self.direct_lost = best == Some(Via::Relay);
        } else if best != Some(Via::Relay) {
            self.direct_lost = false;
        }
        self.route = best;
        self.since = Some(now);
        best.map(|to| Moved { to, lost })
    }
}

/// A round trip that was never measured is no reason to go or to stay. Between an address in the common network and
/// one that leads through a gateway the first is better until it is known well, and clearly farther: addresses of a
/// private network in between look alike.
fn is_nearer(other: &Candidate, current: &Candidate) -> bool {
    let (Some(there), Some(here)) = (other.rtt, current.rtt) else { return false };
    match (other.source.is_local(), current.source.is_local()) {
        (true, false) => !other.is_known_well() || there < here * 2 + AT_HOME,
        (false, true) => current.is_known_well() && there * 2 + AT_HOME < here,
        (true, true) | (false, false) => there * 5 / 4 + NEARER_BY < here,
    }
}

/// What is known.
impl Path {
    /// Where frames go.
    pub(crate) fn route(&self) -> Option<Via> {
        self.route.or(self.provisional)
    }

    /// Since when frames go there.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.route.and(self.since)
    }

    /// The smoothed round trip of the route.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        match self.route? {
            Via::Direct(addr) => self.candidate(addr)?.rtt,
            Via::Relay => self.relay.rtt,
        }
    }

    /// Whether an authentic frame ever came.
    pub(crate) fn is_proven(&self) -> bool {
        self.route.is_some()
    }

    /// Whether this address ever answered authentically.
    pub(crate) fn has_answered(&self, addr: SocketAddr) -> bool {
        self.candidate(addr).is_some_and(|candidate| candidate.answered.is_some())
    }

    /// Something was sent there to see whether it answers.
    pub(crate) fn was_tried(&mut self, now: Instant, addr: SocketAddr) {
        if let Some(candidate) = self.candidate_mut(addr) {
            candidate.was_tried(now);
        }
    }

    /// Our key is shown this way.
    pub(crate) fn shows_our_key(&mut self, now: Instant, via: Via) {
        self.shown = Some((via, now));
        match via {
            Via::Relay => self.relay.shown = Some(now),
            Via::Direct(addr) => {
                if let Some(candidate) = self.candidate_mut(addr) {
                    candidate.was_tried(now);
                    candidate.shown = Some(now);
                }
            }
        }
    }

    /// When our key was last shown this way. Of addresses that are no candidates the latest is known.
    pub(crate) fn our_key_shown(&self, via: Via) -> Option<Instant> {
        let known = match via {
            Via::Relay => self.relay.shown,
            Via::Direct(addr) => self.candidate(addr).and_then(|candidate| candidate.shown),
        };
        known.max(self.shown.filter(|(last, _)| *last == via).map(|(_, at)| at))
    }

    /// Whether there is any address to try.
    pub(crate) fn has_candidates(&self) -> bool {
        self.candidates.iter().any(|candidate| self.may_try(candidate))
    }

    /// Every address worth a key exchange.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.candidates.iter().filter(|candidate| self.may_try(candidate)).map(|c| c.addr).collect()
    }

    /// The addresses that our own side may try again and again: not those that anybody can plant, unless the peer's
    /// authentic frames come from there at this moment, as they do from behind a symmetric box.
    pub(crate) fn wishes(&self, now: Instant) -> Vec<SocketAddr> {
        let named = |candidate: &&Candidate| {
            let comes = candidate.heard.is_some_and(|heard| heard + COMES_NOW > now);
            self.may_try(candidate) && (comes || !candidate.source.is_anybodys_word())
        };
        self.candidates.iter().filter(named).map(|candidate| candidate.addr).collect()
    }

    /// The addresses that answered once: worth a ping when the peer falls silent.
    pub(crate) fn known_addresses(&self) -> Vec<SocketAddr> {
        self.candidates.iter().filter(|candidate| candidate.answered.is_some()).map(|c| c.addr).collect()
    }

    /// The addresses to shoot at in a search: those that are not known to work.
    pub(crate) fn targets(&self) -> Vec<SocketAddr> {
        let targets =
            self.candidates.iter().filter(|candidate| !candidate.is_usable() && self.may_try(candidate));
        targets.map(|candidate| candidate.addr).take(SHOT_MAX).collect()
    }

    /// All that is kept, for people.
    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    pub(crate) fn is_relay_only(&self) -> bool {
        self.relay_only
    }

    fn may_try(&self, candidate: &Candidate) -> bool {
        !(self.relay_only && candidate.source.is_registrys_word())
    }

    /// Whether a better way than the present one may exist: no address works.
    pub(crate) fn is_improvable(&self) -> bool {
        !self.candidates.iter().any(Candidate::is_usable)
    }

    fn candidate(&self, addr: SocketAddr) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.addr == addr)
    }

    fn candidate_mut(&mut self, addr: SocketAddr) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|candidate| candidate.addr == addr)
    }
}

#[cfg(test)]
mod tests;
