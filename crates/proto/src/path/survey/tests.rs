use std::collections::HashSet;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const BEACON: &str = "203.0.113.1:9001";
const SECOND: &str = "203.0.113.2:9001";
const QUIET_PORT: &str = "203.0.113.1:51000";
const QUIET_ADDRESS: &str = "203.0.113.2:51000";
const OUTSIDE: &str = "198.51.100.7:4000";

#[expect(clippy::disallowed_methods, reason = "a test begins somewhere; all else is counted from there")]
fn start() -> Instant {
    Instant::now()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Surveys from behind a box that gives one port to all and lets in whom `lets_in` says, given the addresses that were
/// written to. Answers take `delay`.
fn surveyed(
    surveyor: &mut Surveyor,
    start: Instant,
    delay: Duration,
    lets_in: impl Fn(&HashSet<SocketAddr>, SocketAddr) -> bool,
) -> Survey {
    let mut rng = StdRng::seed_from_u64(7);
    let mut written = HashSet::new();
    let mut answers: Vec<(Instant, SocketAddr, u64)> = Vec::new();
    let mut now = start;
    surveyor.start(now, addr(BEACON), &mut rng);
    while surveyor.is_running() {
        for ask in surveyor.poll(now, &[], &mut rng) {
            written.insert(ask.to);
            let from = match ask.from {
                ReplyFrom::Here => ask.to,
                ReplyFrom::OtherPort => addr(QUIET_PORT),
                ReplyFrom::OtherAddress => addr(QUIET_ADDRESS),
            };
            if ask.to != addr(OUTSIDE) {
                answers.push((now + delay, from, ask.token));
            }
        }
        let next = answers.iter().map(|answer| answer.0).chain(surveyor.poll_timeout()).min();
        let Some(next) = next else { break };
        now = next.max(now);
        for (_, from, token) in answers.extract_if(.., |answer| answer.0 <= now) {
            if lets_in(&written, from) {
                let observed = addr(OUTSIDE);
                let reply =
                    Reply { token, observed, second_port: Some(9002), second_addr: Some(addr(SECOND)) };
                surveyor.replied(now, from, reply);
            }
        }
    }
    surveyor.last().cloned().unwrap()
}

fn by_address(written: &HashSet<SocketAddr>, from: SocketAddr) -> bool {
    written.iter().any(|to| to.ip() == from.ip())
}

#[test]
fn an_address_that_the_survey_itself_opens_later_is_not_taken_to_be_let_in() {
    // Also answers that come when the next step has begun.
    for delay in [1, 450, 700] {
        let delay = Duration::from_millis(delay);
        let survey = surveyed(&mut Surveyor::default(), start(), delay, by_address);
        let expected =
            Nat { mapping: Behaviour::EndpointIndependent, filtering: Behaviour::AddressDependent };
        assert_eq!(survey.nat, expected, "{delay:?}");
    }
}

#[test]
fn every_filtering_is_told_from_the_others_again_and_again() {
    let any = |_: &HashSet<SocketAddr>, _| true;
    let by_port = |written: &HashSet<SocketAddr>, from| written.contains(&from);
    let (mut open, mut address, mut port) = Default::default();
    let start = start();
    let delay = Duration::from_millis(20);
    for round in 0..3 {
        let now = start + Duration::from_secs(10) * round;
        let filtering = |survey: Survey| survey.nat.filtering;
        let found = surveyed(&mut open, now, delay, any);
        assert_eq!(filtering(found), Behaviour::EndpointIndependent, "{round}");
        let found = surveyed(&mut address, now, delay, by_address);
        assert_eq!(filtering(found), Behaviour::AddressDependent, "{round}");
        let found = surveyed(&mut port, now, delay, by_port);
        assert_eq!(filtering(found), Behaviour::AddressAndPortDependent, "{round}");
    }
}
