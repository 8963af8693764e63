//! Finding out what kind of box this node is behind, in the manner of RFC 5780, with the beacon's help.
//!
//! Three steps, each ended by its answers or after [`STEP`]: where the beacon sees us; whether answers from sockets
//! that we never wrote to get in (filtering); whether other sockets of the beacon see us at the same address (mapping)
//! and whether what we send to our own outside address comes back in (hairpinning). Filtering is asked about before
//! mapping, because what the latter sends opens the box for what the former waits for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilot_wire::beacon::ReplyFrom;
use pilot_wire::path::{Behaviour, Nat};
use rand::{Rng, RngExt as _};

use crate::Survey;

/// How long a step may take.
const STEP: Duration = Duration::from_millis(900);

/// When the questions of a step are asked, from its start.
const ASKS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(500)];

/// For this long after the beacon's other sockets were written to, the box may let them in because of that, and whether
/// it would have otherwise cannot be seen (RFC 4787 REQ-5: at least two minutes).
const OPEN: Duration = Duration::from_secs(300);

/// A question and its answer.
#[derive(Debug, Clone, Copy)]
struct Probe {
    what: What,
    token: u64,
    to: SocketAddr,
    answer: Option<SocketAddr>,
}

/// What a question is to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Where the beacon sees us.
    Here,
    /// Whether an answer from another port gets in.
    FromOtherPort,
    /// Whether an answer from another address gets in.
    FromOtherAddress,
    /// Where another port of the beacon sees us.
    ToOtherPort,
    /// Where another address of the beacon sees us.
    ToOtherAddress,
    /// Whether our own outside address leads back to us.
    Hairpin,
}

/// The surveys of a node: the one under way, and what the last one found out.
#[derive(Debug, Default)]
pub(crate) struct Surveyor {
    running: Option<Running>,
    last: Option<Survey>,
    opened: Option<Opened>,
    /// It has answered, whatever became of it.
    answered: bool,
    /// When the last survey began.
    begun: Option<Instant>,
}

/// The box was opened for the beacon's other sockets, by the questions of the last step.
#[derive(Debug, Clone, Copy)]
struct Opened {
    at: Instant,
    /// Where the beacon saw us: behind another outside address is another box.
    observed: SocketAddr,
    /// What the box let in before.
    filtering: Behaviour,
}

#[derive(Debug)]
struct Running {
    beacon: SocketAddr,
    step: Step,
    begun: Instant,
    asked: usize,
    probes: Vec<Probe>,
    rtt: Option<Duration>,
    second_port: Option<SocketAddr>,
    second_addr: Option<SocketAddr>,
    /// The box is open from an earlier survey, which found this out about its filter.
    known: Option<Behaviour>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Observing,
    Filtering,
    Mapping,
}

/// A datagram of a survey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) to: SocketAddr,
    pub(crate) token: u64,
    pub(crate) from: ReplyFrom,
}

/// What the beacon said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) token: u64,
    pub(crate) observed: SocketAddr,
    pub(crate) second_port: Option<u16>,
    pub(crate) second_addr: Option<SocketAddr>,
}

/// The datagram of a question.
pub(crate) fn emit(ask: Ask) -> Vec<u8> {
    let mut message = Vec::new();
    pilot_wire::beacon::Message::Survey { token: ask.token, from: ask.from }.emit(&mut message);
    message
}

impl Surveyor {
    /// Begins a survey, unless one is under way.
    pub(crate) fn start(&mut self, now: Instant, beacon: SocketAddr, rng: &mut impl Rng) {
        if self.running.is_none() {
            self.begun = Some(now);
            self.running = Some(Running {
                beacon,
                step: Step::Observing,
                begun: now,
                asked: 0,
                probes: vec![probe(What::Here, beacon, rng)],
                rtt: None,
                second_port: None,
                second_addr: None,
                known: None,
            });
        }
    }

    /// The network is another one: what is under way or known is of no use.
    pub(crate) fn forget(&mut self) {
        self.running = None;
        self.last = None;
    }

    /// One is under way that will say where the beacon sees us.
    pub(crate) fn is_observing(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.step == Step::Observing)
    }

    /// When the last one began.
    pub(crate) fn begun(&self) -> Option<Instant> {
        self.begun
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// What the last survey found out.
    pub(crate) fn last(&self) -> Option<&Survey> {
        self.last.as_ref()
    }

    /// The box, as far as it is known.
    pub(crate) fn nat(&self) -> Nat {
        self.last.as_ref().map(|survey| survey.nat).unwrap_or_default()
    }

    /// An answer came, from whichever address: the token is secret enough. Returns where the beacon sees us, if it is
    /// the answer to that.
    pub(crate) fn replied(&mut self, now: Instant, from: SocketAddr, reply: Reply) -> Option<SocketAddr> {
        let running = self.running.as_mut()?;
        // What comes after its step may have been let in because of the questions of the next.
        let step = running.step;
        let asked = |probe: &&mut Probe| probe.token == reply.token && probe.what.step() == step;
        let probe = running.probes.iter_mut().find(asked)?;
        // Nobody but a socket of the beacon we never wrote to may answer for it, and the others only for themselves.
        let genuine = match probe.what {
            What::Here | What::ToOtherPort | What::ToOtherAddress => from == probe.to,
            What::FromOtherPort => from.ip() == running.beacon.ip() && from != running.beacon,
            What::FromOtherAddress => from.ip() != running.beacon.ip(),
            What::Hairpin => false,
        };
        if !genuine || probe.answer.is_some() {
            return None;
        }
        probe.answer = Some(reply.observed);
        if probe.what != What::Here {
            return None;
        }
        self.answered = true;
        running.rtt = Some(now.saturating_duration_since(running.begun));
        running.second_port = reply.second_port.map(|port| SocketAddr::new(running.beacon.ip(), port));
        running.second_addr = reply.second_addr;
        Some(reply.observed)
    }

    /// Whether this beacon answers surveys at all.
    pub(crate) fn is_answered(&self) -> bool {
        self.answered
    }

    /// A question of our own came back to us. `true` if it is one that was sent to see whether it does.
    pub(crate) fn came_back(&mut self, from: SocketAddr, token: u64) -> bool {
        let Some(running) = &mut self.running else { return false };
        let found =
            running.probes.iter_mut().find(|probe| probe.what == What::Hairpin && probe.token == token);
        if let Some(probe) = found {
            probe.answer = Some(from);
            return true;
        }
        false
    }

    /// What is due: datagrams to send, or the end. `local` are the addresses of this host.
    pub(crate) fn poll(&mut self, now: Instant, local: &[SocketAddr], rng: &mut impl Rng) -> Vec<Ask> {
        loop {
            let Some(running) = &mut self.running else { return Vec::new() };
            if running.is_over(now) {
                if running.step == Step::Observing {
                    running.known = running.filtering_known(now, self.opened);
                }
                match running.next_step(rng) {
                    Some(next) => {
                        running.go(next, now);
                        self.opened = running.opens(now).or(self.opened);
                    }
                    None => {
                        let survey = running.result(local);
                        self.last = Some(survey);
                        self.running = None;
                        return Vec::new();
                    }
                }
                continue;
            }
            let due = ASKS.get(running.asked).is_some_and(|&offset| running.begun + offset <= now);
            if !due {
                return Vec::new();
            }
            running.asked += 1;
            let open = running.probes.iter().filter(|probe| running.is_open(probe));
            return open.map(|probe| probe.ask(running.beacon)).collect();
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let running = self.running.as_ref()?;
        let ask = ASKS.get(running.asked).map(|&offset| running.begun + offset);
        let end = if running.is_waiting() { running.begun + STEP } else { running.begun };
        Some(ask.map_or(end, |ask| ask.min(end)))
    }
}

impl Running {
    fn is_over(&self, now: Instant) -> bool {
        !self.is_waiting() || self.begun + STEP <= now
    }

    /// Whether an answer of this step is missing.
    fn is_waiting(&self) -> bool {
        self.probes.iter().any(|probe| self.is_open(probe))
    }

    /// Whether this is a question of this step without an answer. Those of earlier steps are not asked again: the box
    /// may be open for their answers by now.
    fn is_open(&self, probe: &Probe) -> bool {
        probe.answer.is_none() && probe.what.step() == self.step
    }

    /// The questions of the next step; `None` at the end, or when there is nobody to ask.
    fn next_step(&self, rng: &mut impl Rng) -> Option<(Step, Vec<Probe>)> {
        let observed = self.answer(What::Here)?;
        match self.step {
            // The box is still open from the last time, so that everything would get in.
            Step::Observing if self.known.is_some() => Some((Step::Filtering, Vec::new())),
            Step::Observing => {
                let port = self.second_port.map(|_| probe(What::FromOtherPort, self.beacon, rng));
                let addr = self.second_addr.map(|_| probe(What::FromOtherAddress, self.beacon, rng));
                Some((Step::Filtering, port.into_iter().chain(addr).collect()))
            }
            Step::Filtering => {
                let port = self.second_port.map(|to| probe(What::ToOtherPort, to, rng));
                let addr = self.second_addr.map(|to| probe(What::ToOtherAddress, to, rng));
                let hairpin = Some(probe(What::Hairpin, observed, rng));
                Some((Step::Mapping, port.into_iter().chain(addr).chain(hairpin).collect()))
            }
            Step::Mapping => None,
        }
    }

    fn go(&mut self, (step, probes): (Step, Vec<Probe>), now: Instant) {
        self.step = step;
        self.begun = now;
        self.asked = 0;
        self.probes.retain(|probe| probe.answer.is_some() || probe.what.step() != step);
        self.probes.extend(probes);
    }

    fn answer(&self, what: What) -> Option<SocketAddr> {
        self.probes.iter().find(|probe| probe.what == what).and_then(|probe| probe.answer)
    }

    fn was_asked(&self, what: What) -> bool {
        self.probes.iter().any(|probe| probe.what == what)
    }

    /// What an earlier survey found out about the filter of this box, if asking again would show nothing.
    fn filtering_known(&self, now: Instant, opened: Option<Opened>) -> Option<Behaviour> {
        let observed = self.answer(What::Here);
        let opened = opened.filter(|opened| opened.at + OPEN > now && observed == Some(opened.observed))?;
        Some(opened.filtering)
    }

    /// If the questions of this step open the box for the beacon's other sockets.
    fn opens(&self, now: Instant) -> Option<Opened> {
        let observed = self.answer(What::Here)?;
        let opens = self.was_asked(What::ToOtherPort) || self.was_asked(What::ToOtherAddress);
        opens.then(|| Opened { at: now, observed, filtering: self.filtering() })
    }

    fn result(&self, local: &[SocketAddr]) -> Survey {
        let observed = self.answer(What::Here);
        let is_local = observed.is_some_and(|observed| local.contains(&observed));
        let mapping = match observed {
            None => Behaviour::Unknown,
            Some(_) if is_local => Behaviour::None,
            Some(observed) => self.mapping(observed),
        };
        Survey {
            beacon: Some(self.beacon),
            udp: observed.is_some(),
            rtt: self.rtt,
            observed,
            nat: Nat { mapping, filtering: self.filtering() },
            port_preserved: observed.map(|observed| local.iter().any(|own| own.port() == observed.port())),
            hairpinning: observed.filter(|_| !is_local).map(|_| self.answer(What::Hairpin).is_some()),
            second_address: self.second_addr.is_some(),
        }
    }

    fn mapping(&self, observed: SocketAddr) -> Behaviour {
        match (self.answer(What::ToOtherPort), self.answer(What::ToOtherAddress)) {
            (Some(port), _) if port != observed => Behaviour::AddressAndPortDependent,
            (Some(_), Some(addr)) if addr != observed => Behaviour::AddressDependent,
            (Some(_), _) | (None, Some(_)) => Behaviour::EndpointIndependent,
            (None, None) => Behaviour::Unknown,
        }
    }

    fn filtering(&self) -> Behaviour {
        let port = self.answer(What::FromOtherPort).is_some();
        let addr = self.answer(What::FromOtherAddress).is_some();
        if let Some(known) = self.known {
            return known;
        }
        if !self.was_asked(What::FromOtherPort) {
            return Behaviour::Unknown;
        }
        match (addr, port, self.was_asked(What::FromOtherAddress)) {
            (true, _, _) => Behaviour::EndpointIndependent,
            (false, false, _) => Behaviour::AddressAndPortDependent,
            (false, true, true) => Behaviour::AddressDependent,
            // Without a second address it cannot be told from one that looks at addresses.
            (false, true, false) => Behaviour::EndpointIndependent,
        }
    }
}

impl Probe {
    fn ask(&self, beacon: SocketAddr) -> Ask {
        let from = match self.what {
            What::FromOtherPort => ReplyFrom::OtherPort,
            What::FromOtherAddress => ReplyFrom::OtherAddress,
            What::Here | What::ToOtherPort | What::ToOtherAddress | What::Hairpin => ReplyFrom::Here,
        };
        let to = if from == ReplyFrom::Here { self.to } else { beacon };
        Ask { to, token: self.token, from }
    }
}

impl What {
    fn step(self) -> Step {
        match self {
            Self::Here => Step::Observing,
            Self::FromOtherPort | Self::FromOtherAddress => Step::Filtering,
            Self::ToOtherPort | Self::ToOtherAddress | Self::Hairpin => Step::Mapping,
        }
    }
}

fn probe(what: What, to: SocketAddr, rng: &mut impl Rng) -> Probe {
    Probe { what, token: rng.random(), to, answer: None }
}

#[cfg(test)]
mod tests;
