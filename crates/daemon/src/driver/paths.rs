//! Why a peer is reached as it is, or is not: what the node, the registry and one more try say about it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilot_proto::node::{
    self, CandidateReport, PathReport, PathView, PeerView, RelayReason, RelayReport, Silence,
};
use pilot_proto::{CandidateSource, Closed, DialError, PingId};
use pilot_wire::ipc::paths::{
    Candidate, Listing, PathKind, Probe, Relay, RelayCause, RelayState, Source, Unreachable, Why,
};
use pilot_wire::ipc::{Code, Command, TrustState};
use pilot_wire::registry::{self, Response};
use pilot_wire::{Addr, NodeId};

use super::Driver;
use super::clients::ClientId;
use super::deadlines::{self, Deadline, Deadlines};
use super::replies::{Refusal, ReplyTo};
use crate::registry::{CallError, CallId};

/// One lost ping is no verdict: as long as somebody waits another one follows.
const PING_AGAIN: Duration = Duration::from_millis(500);

/// Names a question of a program about paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InquiryId(u64);

/// The questions under way. Each holds a part of its program's budget, so there are not many.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    open: BTreeMap<InquiryId, Inquiry>,
    next: u64,
    pings: BTreeMap<PingId, InquiryId>,
    calls: BTreeMap<CallId, InquiryId>,
}

#[derive(Debug)]
struct Inquiry {
    node: NodeId,
    to: ReplyTo,
    begun: Instant,
    deadline: deadlines::Key,
    /// The registry has not answered yet.
    awaits_listing: bool,
    listing: Listed,
    /// The peer has not answered yet.
    awaits_pong: bool,
    rtt: Option<Duration>,
}

/// What the registry says of a node.
#[derive(Debug, Default)]
struct Listed {
    listing: Listing,
    error: String,
    addresses: Vec<(SocketAddr, Source)>,
    seen_secs: Option<u64>,
}

impl Inquiries {
    /// The program is gone: nobody waits for these answers.
    pub(super) fn forget(&mut self, client: ClientId, deadlines: &mut Deadlines) {
        let gone = self.open.extract_if(.., |_, inquiry| inquiry.to.client == client);
        for (_, inquiry) in gone {
            deadlines.cancel(inquiry.deadline);
        }
        self.drop_orphans();
    }

    fn take(&mut self, id: InquiryId, deadlines: &mut Deadlines) -> Option<Inquiry> {
        let inquiry = self.open.remove(&id)?;
        deadlines.cancel(inquiry.deadline);
        self.drop_orphans();
        Some(inquiry)
    }

    fn drop_orphans(&mut self) {
        let open = &self.open;
        self.pings.retain(|_, id| open.contains_key(id));
        self.calls.retain(|_, id| open.contains_key(id));
    }

    /// The node that a question is about, while it is open.
    pub(super) fn node(&self, id: InquiryId) -> Option<NodeId> {
        self.open.get(&id).map(|inquiry| inquiry.node)
    }

    /// The question that a call at the registry belongs to, if it belongs to one.
    pub(super) fn answered(&mut self, call: CallId) -> Option<InquiryId> {
        self.calls.remove(&call)
    }
}

/// Questions of local programs.
impl Driver {
    /// With a time, the peer is tried and the registry asked; the answer comes when both have answered, or then.
    pub(super) fn on_why(&mut self, now: Instant, to: ReplyTo, node: NodeId, time: Duration) {
        if self.node.id().is_none() {
            return self.refuse(to, Refusal::not_registered());
        }
        if self.node.id() == Some(node) {
            let refusal = Refusal::new(Code::InvalidArgument, format!("node {node} is this node itself"));
            return self.refuse(to, refusal.hint("about this node: pilotctl netcheck"));
        }
        let id = InquiryId(self.inquiries.next);
        self.inquiries.next += 1;
        let asks = !time.is_zero();
        let deadline = self.deadlines.add(now + time.min(deadlines::LONGEST), Deadline::Why(id));
        let mut inquiry = Inquiry {
            node,
            to,
            begun: now,
            deadline,
            awaits_listing: false,
            listing: Listed::default(),
            awaits_pong: asks,
            rtt: None,
        };
        if asks {
            self.inquiries.pings.insert(self.node.ping(now, node, 0), id);
            self.deadlines.add(now + PING_AGAIN, Deadline::WhyAgain(id));
            self.ask_where(id, &mut inquiry);
        }
        self.inquiries.open.insert(id, inquiry);
        self.settle_inquiry(now, id);
    }

    fn ask_where(&mut self, id: InquiryId, inquiry: &mut Inquiry) {
        if !self.registry.connected {
            inquiry.listing.listing = Listing::Unreachable;
            inquiry.listing.error = self.registry.error.clone().unwrap_or_default();
            return;
        }
        let request = registry::Resolve {
            node_id: inquiry.node,
            requester_id: self.own_node(),
            ..registry::Resolve::default()
        };
        if let Some(call) = self.send_call(registry::Request::Resolve(request).into()) {
            self.inquiries.calls.insert(call, id);
            inquiry.awaits_listing = true;
        }
    }

    /// The peer has not answered for a while: asks once more.
    pub(super) fn ping_again(&mut self, now: Instant, id: InquiryId) {
        let waiting = self.inquiries.open.get(&id).filter(|inquiry| inquiry.awaits_pong);
        if let Some(node) = waiting.map(|inquiry| inquiry.node) {
            self.inquiries.pings.insert(self.node.ping(now, node, 0), id);
            self.deadlines.add(now + PING_AGAIN, Deadline::WhyAgain(id));
        }
    }

    /// Whether the pong, or its absence, belonged to such a question.
    pub(super) fn on_inquiry_pong(&mut self, now: Instant, ping: PingId, rtt: Option<Duration>) -> bool {
        let Some(id) = self.inquiries.pings.remove(&ping) else { return false };
        if let Some(inquiry) = self.inquiries.open.get_mut(&id) {
            inquiry.awaits_pong &= rtt.is_none() && self.inquiries.pings.values().any(|other| *other == id);
            inquiry.rtt = inquiry.rtt.or(rtt);
        }
        self.settle_inquiry(now, id);
        true
    }

    pub(super) fn on_listing(&mut self, now: Instant, id: InquiryId, outcome: Result<Vec<u8>, CallError>) {
        if let Some(inquiry) = self.inquiries.open.get_mut(&id) {
            inquiry.awaits_listing = false;
            inquiry.listing = Listed::from_outcome(outcome);
        }
        self.settle_inquiry(now, id);
    }

    fn settle_inquiry(&mut self, now: Instant, id: InquiryId) {
        let Some(inquiry) = self.inquiries.open.get(&id) else { return };
        // A stranger that the registry does not show will not answer either.
        let hopeless = matches!(inquiry.listing.listing, Listing::Private | Listing::NotFound)
            && self.trust_state(inquiry.node) != TrustState::Trusted
            && !self.is_encrypted(inquiry.node);
        if !inquiry.awaits_listing && (hopeless || !inquiry.awaits_pong) {
            self.end_inquiry(now, id);
        }
    }

    /// Answers with what is known by now.
    pub(super) fn end_inquiry(&mut self, now: Instant, id: InquiryId) {
        let Some(inquiry) = self.inquiries.take(id, &mut self.deadlines) else { return };
        let why = self.why(now, &inquiry);
        self.answer(inquiry.to, Command::CallOk, &why);
    }

    fn why(&self, now: Instant, inquiry: &Inquiry) -> Why {
        let node = inquiry.node;
        let tried = inquiry.deadline.0 > inquiry.begun;
        let view = self.node.peers().find(|peer| peer.node == node);
        let report = self.node.path_report(node);
        let mut why = Why {
            node_id: node,
            address: Addr::backbone(node),
            hostname: self.hostname_of(node),
            trust: self.trust_state(node),
            networks: self.networks_behind(node),
            registry: inquiry.listing.listing,
            registry_error: inquiry.listing.error.clone(),
            alarms: self.alarms_of(node),
            probe: tried.then(|| Probe {
                answered: inquiry.rtt.is_some(),
                rtt_us: inquiry.rtt.map(micros),
                waited_ms: millis(now.saturating_duration_since(inquiry.begun)),
            }),
            ..Why::default()
        };
        if let Some(view) = &view {
            fill_from_view(&mut why, now, view);
        }
        if let Some(report) = &report {
            fill_from_report(&mut why, now, report);
        }
        if self.beacon_answers() == Some(false) {
            why.relay.state = RelayState::BeaconSilent;
        }
        // What came through it earlier does not count any more.
        if why.relay.state == RelayState::Works && why.probe.is_some_and(|probe| !probe.answered) {
            why.relay.state = RelayState::NoAnswer;
        }
        // Who answers directly was not asked through it.
        if why.relay.state == RelayState::NoAnswer && why.path == PathKind::Direct && inquiry.rtt.is_some() {
            why.relay.state = RelayState::Untried;
        }
        if why.candidates.is_empty() {
            why.candidates =
                inquiry.listing.addresses.iter().map(|&(a, source)| untried(a, source)).collect();
        }
        why.seen_secs = inquiry.listing.seen_secs.or(why.seen_secs);
        why.summary = summary(&why);
        why
    }

    fn is_encrypted(&self, node: NodeId) -> bool {
        self.node.peers().any(|peer| peer.node == node && peer.encrypted)
    }

    pub(super) fn called(&self, node: NodeId) -> Called {
        Called::new(self.hostname_of(node), node)
    }

    /// Tells of a peer that does not answer.
    pub(super) fn unreachable(&self, node: NodeId, silence: &Silence) -> Refusal {
        let Called { name, target } = self.called(node);
        let known = Unreachable {
            node_id: node,
            hostname: self.hostname_of(node),
            last_seen_secs: silence.last_seen.map(|ago| ago.as_secs()),
            tried: silence.tried.clone(),
            relay: relay_of(silence.relay),
            registry_error: silence.registry.clone().unwrap_or_default(),
        };
        Refusal::new(Code::Unreachable, words(&name, silence))
            .hint(format!("see why: pilotctl why {target}"))
            .knowing(known)
            .worded("dial timeout")
    }

    /// Why a stream did not come about, with what is known of the peer.
    pub(super) fn closed_refusal(&self, closed: Closed) -> Refusal {
        match closed {
            Closed::Dial(error) => self.dial_refusal(error),
            Closed::Stream(reason) => reason.into(),
        }
    }

    /// Why a dial failed, with what is known of the peer.
    pub(super) fn dial_refusal(&self, error: DialError) -> Refusal {
        let Some(node) = peer_of(&error) else { return error.into() };
        match error {
            DialError::Unreachable { silence, .. } => self.unreachable(node, &silence),
            error @ (DialError::NotRegistered
            | DialError::UnknownNode(_)
            | DialError::NotTrusted(_)
            | DialError::NoRegistry { .. }
            | DialError::Unanswered { .. }
            | DialError::KeyChanged(_)
            | DialError::NoPorts) => Refusal::of_dial(error, &self.called(node)),
        }
    }
}

impl Listed {
    fn from_outcome(outcome: Result<Vec<u8>, CallError>) -> Self {
        let reply = match outcome {
            Ok(reply) => reply,
            Err(error) => return Self::refused(error),
        };
        let Ok(Response::Resolve(found)) = Response::parse(&reply) else {
            let error = "the registry sent another reply than asked for".to_owned();
            return Self { listing: Listing::Refused, error, ..Self::default() };
        };
        let public = found.real_addr.parse().ok().map(|addr| (addr, Source::Registry));
        let local = found.lan_addrs.iter().filter_map(|addr| addr.parse().ok());
        Self {
            listing: Listing::Listed,
            error: String::new(),
            addresses: public.into_iter().chain(local.map(|addr| (addr, Source::RegistryLan))).collect(),
            seen_secs: found.seen_secs_ago,
        }
    }

    fn refused(error: CallError) -> Self {
        let unreachable = matches!(error, CallError::Unreachable(_));
        let refusal = Refusal::from(error);
        let listing = if unreachable {
            Listing::Unreachable
        } else if refusal.failure.code == Code::NotFound {
            Listing::NotFound
        } else if refusal.failure.code == Code::NotTrusted {
            Listing::Private
        } else {
            Listing::Refused
        };
        Self { listing, error: refusal.failure.message, ..Self::default() }
    }
}

/// The peer that a failed dial was to.
pub(super) fn peer_of(error: &DialError) -> Option<NodeId> {
    match error {
        DialError::UnknownNode(node)
        | DialError::NotTrusted(node)
        | DialError::KeyChanged(node)
        | DialError::NoRegistry { node, .. }
        | DialError::Unreachable { node, .. }
        | DialError::Unanswered { node, .. } => Some(*node),
        DialError::NotRegistered | DialError::NoPorts => None,
    }
}

fn fill_from_view(why: &mut Why, now: Instant, view: &PeerView) {
    why.encrypted = view.encrypted;
    why.heard_ms = view.heard.map(|at| age(now, at));
    (why.path, why.endpoint) = way(view.path);
}

fn fill_from_report(why: &mut Why, now: Instant, report: &PathReport) {
    (why.path, why.endpoint) = way(report.path);
    why.since_ms = report.since.map(|at| age(now, at));
    why.rtt_us = report.rtt.map(micros);
    why.heard_ms = report.heard.map(|at| age(now, at)).or(why.heard_ms);
    why.seen_secs = report.seen.map(|seen| seen_secs(now, seen));
    why.candidates = report.candidates.iter().map(|candidate| shown(now, candidate)).collect();
    why.relay = Relay {
        state: relay_state(&report.relay),
        beacon: report.relay.beacon,
        beacon_ms: report.relay.beacon_answered.map(|at| age(now, at)),
        heard_ms: report.relay.heard.map(|at| age(now, at)),
        rtt_us: report.relay.rtt.map(micros),
    };
    if why.path == PathKind::Relayed {
        why.endpoint = report.relay.beacon;
        why.relayed_because = report.relayed_because.map(cause);
    }
    why.next_try_ms = report.next_try.map(|at| millis(at.saturating_duration_since(now)));
    why.our_nat = report.our_nat.into();
    why.their_nat = report.their_nat.into();
}

fn way(path: PathView) -> (PathKind, Option<SocketAddr>) {
    match path {
        PathView::Unknown => (PathKind::Unknown, None),
        PathView::Direct(addr) => (PathKind::Direct, Some(addr)),
        PathView::Relayed => (PathKind::Relayed, None),
    }
}

fn shown(now: Instant, candidate: &CandidateReport) -> Candidate {
    Candidate {
        address: candidate.addr,
        source: source(candidate.source),
        tried_ms: candidate.tried.map(|at| age(now, at)),
        tries: candidate.tries,
        answered_ms: candidate.answered.map(|at| age(now, at)),
        rtt_us: candidate.rtt.map(micros),
        in_use: candidate.in_use,
    }
}

fn untried(address: SocketAddr, source: Source) -> Candidate {
    Candidate { address, source, tried_ms: None, tries: 0, answered_ms: None, rtt_us: None, in_use: false }
}

fn source(source: CandidateSource) -> Source {
    match source {
        CandidateSource::Record => Source::Record,
        CandidateSource::RecordLan => Source::RecordLan,
        CandidateSource::Registry => Source::Registry,
        CandidateSource::RegistryLan => Source::RegistryLan,
        CandidateSource::PeerHost => Source::PeerHost,
        CandidateSource::PeerObserved => Source::PeerObserved,
        CandidateSource::PeerMapped => Source::PeerMapped,
        CandidateSource::Introduced => Source::Introduced,
        CandidateSource::Lan => Source::Lan,
        CandidateSource::Frames => Source::Frames,
        CandidateSource::Remembered => Source::Remembered,
        CandidateSource::Unsigned => Source::Unsigned,
    }
}

fn cause(reason: RelayReason) -> RelayCause {
    match reason {
        RelayReason::PeerWantsRelay => RelayCause::PeerWantsRelay,
        RelayReason::NoCandidates => RelayCause::NoCandidates,
        RelayReason::Trying => RelayCause::Trying,
        RelayReason::NatsDoNotFit => RelayCause::NatsDoNotFit,
        RelayReason::NoAnswer => RelayCause::NoAnswer,
        RelayReason::DirectLost => RelayCause::DirectLost,
    }
}

fn relay_state(relay: &RelayReport) -> RelayState {
    match relay {
        RelayReport { beacon: None, .. } => RelayState::NoBeacon,
        RelayReport { beacon_answered: None, .. } => RelayState::BeaconSilent,
        RelayReport { unknown: Some(_), .. } => RelayState::NotRegistered,
        RelayReport { heard: None, .. } => RelayState::NoAnswer,
        RelayReport { heard: Some(_), .. } => RelayState::Works,
    }
}

/// How people call a node: by its name if that is remembered.
pub(super) struct Called {
    /// In a sentence: `agent-b`, `node 2`.
    pub(super) name: String,
    /// In a command: `agent-b`, `2`.
    pub(super) target: String,
}

impl Called {
    pub(super) fn new(hostname: String, node: NodeId) -> Self {
        match hostname.is_empty() {
            true => Self { name: format!("node {node}"), target: node.to_string() },
            false => Self { name: hostname.clone(), target: hostname },
        }
    }
}

/// Everything in one sentence.
fn summary(why: &Why) -> String {
    let called = Called::new(why.hostname.clone(), why.node_id).name;
    let answered = why.probe.is_some_and(|probe| probe.answered);
    let known = why.probe.is_none() && why.path != PathKind::Unknown;
    if answered || known {
        let rtt = why.probe.and_then(|probe| probe.rtt_us).or(why.rtt_us);
        let rtt = rtt.map_or_else(String::new, |us| format!(" in {:.1} ms", us as f64 / 1e3));
        let verb = if answered { "answers" } else { "was last reached" };
        let place = why.endpoint.map_or_else(String::new, |endpoint| format!(" at {endpoint}"));
        return match why.path {
            PathKind::Relayed => {
                let because =
                    why.relayed_because.map_or_else(String::new, |cause| format!(": {}", cause.words()));
                format!("{called} {verb} through the relay{rtt}{because}")
            }
            PathKind::Direct => format!("{called} {verb} directly{place}{rtt}"),
            PathKind::Unknown | PathKind::Other => format!("{called} {verb}{rtt}"),
        };
    }
    match (why.registry, why.trust) {
        (Listing::NotFound, _) => return format!("{called} is not known to the registry"),
        (Listing::Private, trust) if trust != TrustState::Trusted => {
            return format!("{called} is private and does not trust this node yet");
        }
        _ => {}
    }
    let silence = silence_of(why);
    if why.probe.is_none() && silence.tried.is_empty() {
        return format!("{called} was not tried since the daemon started");
    }
    words(&called, &silence)
}

/// What a peer's not answering looks like from here.
fn silence_of(why: &Why) -> Silence {
    let heard = why.heard_ms.map(|ms| ms / 1000);
    let tried = why.candidates.iter().filter(|candidate| candidate.tried_ms.is_some());
    Silence {
        last_seen: [heard, why.seen_secs].into_iter().flatten().min().map(Duration::from_secs),
        tried: tried.map(|candidate| candidate.address).collect(),
        relay: match why.relay.state {
            RelayState::NoBeacon => node::RelayState::None,
            RelayState::BeaconSilent => node::RelayState::BeaconSilent,
            RelayState::NotRegistered => node::RelayState::NotRegistered,
            RelayState::Untried | RelayState::NoAnswer | RelayState::Works | RelayState::Other => {
                node::RelayState::NoAnswer
            }
        },
        registry: Some(why.registry_error.clone()).filter(|_| why.registry == Listing::Unreachable),
    }
}

fn relay_of(relay: node::RelayState) -> RelayState {
    match relay {
        node::RelayState::None => RelayState::NoBeacon,
        node::RelayState::BeaconSilent => RelayState::BeaconSilent,
        node::RelayState::NotRegistered => RelayState::NotRegistered,
        node::RelayState::NoAnswer => RelayState::NoAnswer,
    }
}

/// `agent-b last seen 3 min ago; no answer on 4 candidates; relay: not registered`
fn words(called: &str, silence: &Silence) -> String {
    let colon = if silence.last_seen.is_some() { "" } else { ":" };
    format!("{called}{colon} {silence}")
}

/// How long ago the registry last heard of a peer: its answer has an age, too.
fn seen_secs(now: Instant, (ago, asked): (Duration, Instant)) -> u64 {
    (ago + now.saturating_duration_since(asked)).as_secs()
}

fn age(now: Instant, at: Instant) -> u64 {
    millis(now.saturating_duration_since(at))
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pilot_wire::path::{Behaviour, Nat};

    use super::*;

    fn node() -> NodeId {
        NodeId(2)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn relayed(now: Instant) -> PathReport {
        let earlier = |secs| now.checked_sub(Duration::from_secs(secs));
        let candidate = |text, source| CandidateReport {
            addr: addr(text),
            source,
            tried: earlier(3),
            tries: 2,
            answered: None,
            rtt: None,
            in_use: false,
        };
        PathReport {
            path: PathView::Relayed,
            since: earlier(60),
            rtt: Some(Duration::from_micros(41_200)),
            heard: earlier(2),
            seen: Some((Duration::from_secs(10), earlier(5).unwrap())),
            candidates: vec![
                candidate("192.168.1.5:4000", CandidateSource::PeerHost),
                candidate("198.51.100.7:40000", CandidateSource::Registry),
            ],
            relay: RelayReport {
                beacon: Some(addr("203.0.113.1:9001")),
                beacon_answered: earlier(4),
                heard: earlier(2),
                unknown: None,
                rtt: Some(Duration::from_micros(41_200)),
            },
            relayed_because: Some(RelayReason::NatsDoNotFit),
            next_try: Some(now + Duration::from_secs(12)),
            our_nat: Nat { mapping: Behaviour::AddressDependent, filtering: Behaviour::Unknown },
            their_nat: Nat::default(),
        }
    }

    fn why_of(now: Instant, report: &PathReport) -> Why {
        let mut why = Why { node_id: node(), hostname: "agent-b".to_owned(), ..Why::default() };
        fill_from_report(&mut why, now, report);
        why
    }

    #[test]
    fn a_report_of_the_node_becomes_ages_and_words() {
        let now = Instant::now();
        let why = why_of(now, &relayed(now));
        assert_eq!((why.path, why.endpoint), (PathKind::Relayed, Some(addr("203.0.113.1:9001"))));
        assert_eq!((why.since_ms, why.heard_ms, why.seen_secs), (Some(60_000), Some(2_000), Some(15)));
        assert_eq!((why.rtt_us, why.next_try_ms), (Some(41_200), Some(12_000)));
        assert_eq!((why.relay.state, why.relay.beacon_ms), (RelayState::Works, Some(4_000)));
        assert_eq!(why.relayed_because, Some(RelayCause::NatsDoNotFit));
        let first = &why.candidates[0];
        assert_eq!((first.source, first.tried_ms, first.tries), (Source::PeerHost, Some(3_000), 2));
    }

    #[test]
    fn a_direct_path_has_its_address_and_no_reason_for_a_relay() {
        let now = Instant::now();
        let direct = PathReport { path: PathView::Direct(addr("192.168.1.5:4000")), ..relayed(now) };
        let why = why_of(now, &direct);
        assert_eq!((why.endpoint, why.relayed_because), (Some(addr("192.168.1.5:4000")), None));
    }

    #[test]
    fn the_relay_stands_as_the_latest_word_about_it_says() {
        let now = Instant::now();
        let works = relayed(now).relay;
        assert_eq!(relay_state(&RelayReport { unknown: Some(now), ..works }), RelayState::NotRegistered);
        assert_eq!(relay_state(&RelayReport { heard: None, ..works }), RelayState::NoAnswer);
        let silent = RelayReport { heard: None, beacon_answered: None, ..works };
        assert_eq!(relay_state(&silent), RelayState::BeaconSilent);
        assert_eq!(relay_state(&RelayReport { beacon: None, ..silent }), RelayState::NoBeacon);
    }

    #[test]
    fn one_sentence_says_it_all() {
        let now = Instant::now();
        let mut why = why_of(now, &relayed(now));
        why.probe = Some(Probe { answered: true, rtt_us: Some(40_000), waited_ms: 41 });
        assert_eq!(
            summary(&why),
            "agent-b answers through the relay in 40.0 ms: the NATs on both sides let nothing through that was not asked for"
        );
        (why.path, why.endpoint) = (PathKind::Direct, Some(addr("192.168.1.5:4000")));
        assert_eq!(summary(&why), "agent-b answers directly at 192.168.1.5:4000 in 40.0 ms");
        why.probe = None;
        assert_eq!(summary(&why), "agent-b was last reached directly at 192.168.1.5:4000 in 41.2 ms");

        why.probe = Some(Probe::default());
        (why.heard_ms, why.seen_secs, why.relay.state) =
            (Some(240_000), Some(190), RelayState::NotRegistered);
        let gone = "agent-b last seen 3 min ago; no answer on 2 candidates; relay: not registered";
        assert_eq!(summary(&why), gone);
    }

    #[test]
    fn who_was_never_met_is_told_by_what_the_registry_says() {
        let asked = |listing, trust| {
            let probe = Some(Probe::default());
            summary(&Why { node_id: node(), registry: listing, trust, probe, ..Why::default() })
        };
        assert_eq!(asked(Listing::NotFound, TrustState::None), "node 2 is not known to the registry");
        assert_eq!(
            asked(Listing::Private, TrustState::Requested),
            "node 2 is private and does not trust this node yet"
        );
        assert_eq!(
            asked(Listing::Listed, TrustState::None),
            "node 2: no address of it is known; relay: no answer"
        );
        let nobody = Why { node_id: node(), ..Why::default() };
        assert_eq!(summary(&nobody), "node 2 was not tried since the daemon started");
    }

    #[test]
    fn what_the_registry_says_is_read() {
        let reply = br#"{"type":"resolve_ok","node_id":2,"real_addr":"198.51.100.7:40000","lan_addrs":["192.168.1.5:4000","nonsense"],"seen_secs_ago":7}"#;
        let listed = Listed::from_outcome(Ok(reply.to_vec()));
        assert_eq!((listed.listing, listed.seen_secs), (Listing::Listed, Some(7)));
        let expected =
            [(addr("198.51.100.7:40000"), Source::Registry), (addr("192.168.1.5:4000"), Source::RegistryLan)];
        assert_eq!(listed.addresses, expected);
        for (text, listing) in [
            ("node 2: node not found", Listing::NotFound),
            ("resolve denied: node 2 is private (establish mutual trust first)", Listing::Private),
            ("rate limited", Listing::Refused),
        ] {
            let listed = Listed::from_outcome(Err(CallError::Refused(text.to_owned())));
            assert_eq!(listed.listing, listing, "{text}");
        }
        let away = Listed::from_outcome(Err(CallError::Unreachable("timed out".to_owned())));
        assert_eq!(away.listing, Listing::Unreachable);
    }
}
