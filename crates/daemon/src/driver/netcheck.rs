//! What the network in front of this node lets through: a survey by the node, and a question to the registry.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use pilot_proto::{BeaconEvent, Survey};
use pilot_wire::ipc::Command;
use pilot_wire::ipc::paths::{Answering, Nat, Netcheck, OwnCandidate, OwnKind};
use pilot_wire::registry::{self, Signed};

use super::Driver;
use super::clients::ClientId;
use super::deadlines::{self, Deadline, Deadlines};
use super::paths::micros;
use super::replies::ReplyTo;
use crate::registry::{CallError, CallId};

/// Names a check that a program waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CheckId(u64);

/// The checks under way, and what earlier ones found. Each holds a part of its program's budget, so there are not many.
#[derive(Debug, Default)]
pub(super) struct Checks {
    open: BTreeMap<CheckId, Check>,
    next: u64,
    calls: BTreeMap<CallId, CheckId>,
    surveyed: Option<Survey>,
    beacon_answers: Option<bool>,
}

#[derive(Debug)]
struct Check {
    to: ReplyTo,
    begun: Instant,
    deadline: deadlines::Key,
    survey: Option<Survey>,
    registry: Registry,
}

/// How far the question to the registry is.
#[derive(Debug)]
enum Registry {
    Asked,
    Answered(Duration),
    Silent(String),
}

impl Checks {
    /// The program is gone: nobody waits for its checks.
    pub(super) fn forget(&mut self, client: ClientId, deadlines: &mut Deadlines) {
        for (_, check) in self.open.extract_if(.., |_, check| check.to.client == client) {
            deadlines.cancel(check.deadline);
        }
        self.drop_orphans();
    }

    fn take(&mut self, id: CheckId, deadlines: &mut Deadlines) -> Option<Check> {
        let check = self.open.remove(&id)?;
        deadlines.cancel(check.deadline);
        self.drop_orphans();
        Some(check)
    }

    fn drop_orphans(&mut self) {
        let open = &self.open;
        self.calls.retain(|_, id| open.contains_key(id));
    }

    /// The check that a call at the registry belongs to, if it belongs to one.
    pub(super) fn answered(&mut self, call: CallId) -> Option<CheckId> {
        self.calls.remove(&call)
    }

    pub(super) fn on_beacon(&mut self, event: BeaconEvent) {
        match event {
            BeaconEvent::Answers => self.beacon_answers = Some(true),
            BeaconEvent::Silent => self.beacon_answers = Some(false),
            BeaconEvent::Late => {}
        }
    }
}

impl Driver {
    pub(super) fn on_netcheck(&mut self, now: Instant, to: ReplyTo, time: Duration) {
        let id = CheckId(self.checks.next);
        self.checks.next += 1;
        let deadline = self.deadlines.add(now + time.min(deadlines::LONGEST), Deadline::Netcheck(id));
        let registry = self.time_registry(id);
        self.checks.open.insert(id, Check { to, begun: now, deadline, survey: None, registry });
        self.node.survey(now);
    }

    /// Asks the registry something small, to see how long the answer takes.
    fn time_registry(&mut self, id: CheckId) -> Registry {
        if !self.registry.connected {
            let error = self.registry.error.clone();
            return Registry::Silent(error.unwrap_or_else(|| "there is no connection".to_owned()));
        }
        let request = registry::Request::Lookup(Signed { node_id: self.own_node(), ..Signed::default() });
        match self.send_call(request.into()) {
            Some(call) => {
                self.checks.calls.insert(call, id);
                Registry::Asked
            }
            None => Registry::Silent("too many requests to the registry are under way".to_owned()),
        }
    }

    /// The registry answered; what, does not matter.
    pub(super) fn on_timed(&mut self, now: Instant, id: CheckId, outcome: Result<Vec<u8>, CallError>) {
        if let Some(check) = self.checks.open.get_mut(&id) {
            check.registry = match outcome {
                Ok(_) | Err(CallError::Refused(_)) => {
                    Registry::Answered(now.saturating_duration_since(check.begun))
                }
                Err(CallError::Unreachable(reason)) => Registry::Silent(reason),
            };
        }
        self.settle_check(now, id);
    }

    pub(super) fn note_survey(&mut self, now: Instant, survey: Survey) {
        for check in self.checks.open.values_mut() {
            check.survey = Some(survey.clone());
        }
        self.checks.surveyed = Some(survey);
        for id in self.checks.open.keys().copied().collect::<Vec<_>>() {
            self.settle_check(now, id);
        }
    }

    fn settle_check(&mut self, now: Instant, id: CheckId) {
        let complete = self
            .checks
            .open
            .get(&id)
            .is_some_and(|check| check.survey.is_some() && !matches!(check.registry, Registry::Asked));
        if complete {
            self.end_check(now, id);
        }
    }

    /// Answers with what is known by now.
    pub(super) fn end_check(&mut self, now: Instant, id: CheckId) {
        let Some(check) = self.checks.take(id, &mut self.deadlines) else { return };
        let netcheck = self.netcheck(now, &check);
        self.answer(check.to, Command::CallOk, &netcheck);
    }

    fn netcheck(&self, now: Instant, check: &Check) -> Netcheck {
        let survey = check.survey.as_ref();
        let candidates = self.own_candidates();
        let network = self.network_status();
        let has_beacon = !self.config.beacons.is_empty() || survey.is_some_and(|s| s.beacon.is_some());
        let answers = survey.map_or(self.beacon_answers().unwrap_or(false), |survey| survey.udp);
        let (answered, error) = match &check.registry {
            Registry::Asked => (None, "no answer within the time of this check".to_owned()),
            Registry::Answered(rtt) => (Some(*rtt), String::new()),
            Registry::Silent(reason) => (None, reason.clone()),
        };
        Netcheck {
            udp: has_beacon.then_some(answers),
            beacon: Answering {
                address: self.beacon_in_use(),
                answers: answers || self.web.is_up(),
                rtt_us: survey.and_then(|survey| survey.rtt).map(micros),
                error: String::new(),
            },
            registry: Answering {
                address: self.registry.address.clone(),
                answers: answered.is_some(),
                rtt_us: answered.map(micros),
                error,
            },
            listen: self.socket.local().to_string(),
            ipv6: candidates.iter().any(|candidate| is_reachable_v6(candidate.address)),
            candidates,
            observed: survey
                .and_then(|survey| survey.observed)
                .or(self.node.observed())
                .filter(|observed| !observed.ip().is_unspecified()),
            nat: self.own_nat(),
            second_address: survey.is_some_and(|survey| survey.second_address),
            port_preserved: survey.and_then(|survey| survey.port_preserved),
            hairpinning: survey.and_then(|survey| survey.hairpinning),
            transport: self.transport().to_owned(),
            web: self.web_status(now),
            port_mapping: network.port_mapping,
            lan_discovery: network.lan_discovery,
        }
    }

    /// Where this node believes it can be reached; until it knows better, where its socket is and where the beacon sees it.
    pub(super) fn own_candidates(&self) -> Vec<OwnCandidate> {
        let told: Vec<OwnCandidate> = self.node.local_candidates().into_iter().map(Into::into).collect();
        if !told.is_empty() {
            return told;
        }
        let local = Some(self.socket.local()).filter(|local| !local.ip().is_unspecified());
        let host = local.map(|address| OwnCandidate { address, kind: OwnKind::Host });
        let seen = self.node.observed().filter(|seen| Some(*seen) != local);
        let seen = seen.map(|address| OwnCandidate { address, kind: OwnKind::Observed });
        host.into_iter().chain(seen).collect()
    }

    /// The box in front of this node, as it was measured last.
    pub(super) fn own_nat(&self) -> Nat {
        // The node forgets its survey when the network becomes another one.
        let surveyed = self.node.last_survey().and(self.checks.surveyed.as_ref());
        surveyed.map(|survey| survey.nat.into()).unwrap_or_default()
    }

    /// Whether the beacon answers, as far as it is known; nothing without one.
    pub(super) fn beacon_answers(&self) -> Option<bool> {
        self.checks.beacon_answers.or_else(|| self.node.observed().map(|_| true))
    }
}

/// An address that somebody elsewhere could use.
fn is_reachable_v6(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ipv6_address_of_a_network_counts() {
        for (address, counts) in [
            ("192.0.2.1:4000", false),
            ("[::1]:4000", false),
            ("[fe80::1]:4000", false),
            ("[2001:db8::1]:4000", true),
            ("[fd00::1]:4000", true),
        ] {
            assert_eq!(is_reachable_v6(address.parse().unwrap()), counts, "{address}");
        }
    }
}
