use std::collections::BTreeSet;

use Behaviour::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const LOCAL: ([u8; 4], u16) = ([192, 168, 1, 5], 4000);
const BEACON: ([u8; 4], u16) = ([198, 51, 100, 1], 9001);
const SECOND_PORT: ([u8; 4], u16) = ([198, 51, 100, 1], 9002);
const SECOND_ADDR: ([u8; 4], u16) = ([198, 51, 100, 2], 9003);
const STRANGER: ([u8; 4], u16) = ([203, 0, 113, 66], 666);

/// The box in front of the node: how it maps and what it lets in, in the words of RFC 4787.
struct NatBox {
    nat: Nat,
    outside: [u8; 4],
    preserves_ports: bool,
    hairpins: bool,
    /// Where something was sent, from which outside port.
    sent: BTreeSet<(SocketAddr, u16)>,
}

impl NatBox {
    fn new(mapping: Behaviour, filtering: Behaviour) -> Self {
        let nat = Nat { mapping, filtering };
        Self {
            nat,
            outside: [203, 0, 113, 1],
            preserves_ports: false,
            hairpins: false,
            sent: BTreeSet::new(),
        }
    }

    /// Where a datagram to `to` seems to come from.
    fn out(&mut self, to: SocketAddr) -> SocketAddr {
        let host = match to {
            SocketAddr::V4(v4) => u16::from(v4.ip().octets()[3]),
            SocketAddr::V6(_) => 0,
        };
        let port = match self.nat.mapping {
            Behaviour::None => return SocketAddr::from(LOCAL),
            _ if self.preserves_ports => LOCAL.1,
            AddressDependent => 20_000 + host,
            AddressAndPortDependent => 30_000 + host * 100 + to.port() % 100,
            EndpointIndependent | Behaviour::Unknown => 50_000,
        };
        self.sent.insert((to, port));
        SocketAddr::from((self.outside, port))
    }

    fn lets_in(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let mut through = self.sent.iter().filter(|(_, port)| *port == to.port());
        match self.nat.filtering {
            Behaviour::None | EndpointIndependent | Behaviour::Unknown => true,
            AddressDependent => through.any(|(sent, _)| sent.ip() == from.ip()),
            AddressAndPortDependent => through.any(|(sent, _)| *sent == from),
        }
    }
}

/// A surveyor, its box, and a beacon that answers in no time.
struct World {
    now: Instant,
    surveyor: Surveyor,
    rng: StdRng,
    nat_box: NatBox,
    second_addr: Option<SocketAddr>,
    silent: bool,
    /// Questions that get lost before any is answered.
    lose: usize,
    asked: Vec<Ask>,
    /// Where answers seem to come from, if somebody forges them.
    forged_from: Option<SocketAddr>,
}

impl World {
    fn new(mapping: Behaviour, filtering: Behaviour) -> Self {
        Self {
            now: crate::testing::start(),
            surveyor: Surveyor::default(),
            rng: StdRng::from_seed([7; 32]),
            nat_box: NatBox::new(mapping, filtering),
            second_addr: Some(SECOND_ADDR.into()),
            silent: false,
            lose: 0,
            asked: Vec::new(),
            forged_from: None,
        }
    }

    fn with_one_address(mapping: Behaviour, filtering: Behaviour) -> Self {
        Self { second_addr: None, ..Self::new(mapping, filtering) }
    }

    /// Runs one survey to its end and returns what it says, and how long it took.
    fn survey(&mut self) -> (Survey, Duration) {
        let begun = self.now;
        self.surveyor.start(self.now, BEACON.into(), &mut self.rng);
        while self.surveyor.is_running() {
            for ask in self.surveyor.poll(self.now, &[LOCAL.into()], &mut self.rng) {
                self.asked.push(ask);
                self.carry(ask);
            }
            if let Some(next) = self.surveyor.poll_timeout() {
                self.now = self.now.max(next);
            }
        }
        (self.surveyor.last().unwrap().clone(), self.now - begun)
    }

    fn nat(&mut self) -> Nat {
        self.survey().0.nat
    }

    fn carry(&mut self, ask: Ask) {
        let observed = self.nat_box.out(ask.to);
        if self.lose > 0 {
            self.lose -= 1;
            return;
        }
        let beacon: SocketAddr = BEACON.into();
        let second_port: SocketAddr = SECOND_PORT.into();
        if ask.to == observed || ask.to.ip() == observed.ip() {
            if self.nat_box.hairpins {
                assert!(self.surveyor.came_back(observed, ask.token));
            }
            return;
        }
        assert!([Some(beacon), Some(second_port), self.second_addr].contains(&Some(ask.to)), "{}", ask.to);
        let from = match ask.from {
            ReplyFrom::Here => Some(ask.to),
            ReplyFrom::OtherPort => Some(second_port),
            ReplyFrom::OtherAddress => self.second_addr,
        };
        let Some(from) = from.filter(|from| !self.silent && self.nat_box.lets_in(*from, observed)) else {
            return;
        };
        let reply = Reply {
            token: ask.token,
            observed,
            second_port: Some(second_port.port()),
            second_addr: self.second_addr,
        };
        self.surveyor.replied(self.now, self.forged_from.unwrap_or(from), reply);
    }
}

#[test]
fn each_kind_of_box_is_told_from_the_others() {
    let kinds = [
        (Behaviour::None, EndpointIndependent),
        (EndpointIndependent, EndpointIndependent),
        (EndpointIndependent, AddressDependent),
        (EndpointIndependent, AddressAndPortDependent),
        (AddressDependent, AddressDependent),
        (AddressDependent, AddressAndPortDependent),
        (AddressAndPortDependent, AddressAndPortDependent),
        (AddressAndPortDependent, EndpointIndependent),
    ];
    for (mapping, filtering) in kinds {
        let mut world = World::new(mapping, filtering);
        let (survey, took) = world.survey();
        assert_eq!(survey.nat, Nat { mapping, filtering });
        assert!(survey.udp && survey.second_address);
        assert_eq!(survey.observed, Some(world.nat_box.out(BEACON.into())));
        assert!(took <= 3 * STEP, "{took:?}");
    }
}

#[test]
fn a_host_without_a_box_keeps_its_port_and_has_nothing_to_lead_back() {
    let (survey, _) = World::new(Behaviour::None, EndpointIndependent).survey();
    assert_eq!(survey.port_preserved, Some(true));
    assert_eq!(survey.hairpinning, None);
}

#[test]
fn a_host_behind_a_firewall_without_translation_is_seen_as_such() {
    let mut world = World::new(Behaviour::None, AddressAndPortDependent);
    world.nat_box.sent = [BEACON, SECOND_PORT, SECOND_ADDR].map(|addr| (addr.into(), LOCAL.1)).into();
    world.nat_box.sent.retain(|(to, _)| *to == BEACON.into());
    assert_eq!(world.nat(), Nat { mapping: Behaviour::None, filtering: AddressAndPortDependent });
}

#[test]
fn a_box_that_keeps_ports_is_seen_to() {
    let mut world = World::new(EndpointIndependent, AddressAndPortDependent);
    assert_eq!(world.survey().0.port_preserved, Some(false));
    let mut world = World::new(EndpointIndependent, AddressAndPortDependent);
    world.nat_box.preserves_ports = true;
    assert_eq!(world.survey().0.port_preserved, Some(true));
}

#[test]
fn a_box_that_leads_its_own_outside_address_back_is_seen_to() {
    for hairpins in [false, true] {
        let mut world = World::new(EndpointIndependent, AddressAndPortDependent);
        world.nat_box.hairpins = hairpins;
        assert_eq!(world.survey().0.hairpinning, Some(hairpins));
    }
}

#[test]
fn without_a_second_address_a_box_that_looks_at_addresses_cannot_be_told_from_an_open_one() {
    for filtering in [EndpointIndependent, AddressDependent] {
        let (survey, _) = World::with_one_address(EndpointIndependent, filtering).survey();
        assert_eq!(survey.nat, Nat { mapping: EndpointIndependent, filtering: EndpointIndependent });
        assert!(!survey.second_address, "so that people are told");
    }
    let mut world = World::with_one_address(AddressAndPortDependent, AddressAndPortDependent);
    assert_eq!(world.nat(), Nat { mapping: AddressAndPortDependent, filtering: AddressAndPortDependent });
}

#[test]
fn a_beacon_that_does_not_answer_ends_the_survey_within_a_second() {
    let mut world = World::new(EndpointIndependent, EndpointIndependent);
    world.silent = true;
    let (survey, took) = world.survey();
    assert_eq!(took, STEP);
    assert_eq!(world.asked.len(), ASKS.len());
    assert_eq!(survey, Survey { beacon: Some(BEACON.into()), ..Survey::default() });
    assert!(!world.surveyor.is_answered());
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    let mut world = World::new(EndpointIndependent, EndpointIndependent);
    world.lose = 2;
    let (survey, _) = world.survey();
    assert_eq!(survey.nat, Nat { mapping: EndpointIndependent, filtering: EndpointIndependent });
}

#[test]
fn an_answer_from_an_address_that_was_not_asked_says_nothing() {
    // Not even one that has the token, from the beacon's other port.
    for forged_from in [STRANGER, SECOND_PORT, SECOND_ADDR] {
        let mut world = World::new(EndpointIndependent, EndpointIndependent);
        world.forged_from = Some(forged_from.into());
        let (survey, _) = world.survey();
        assert!(!survey.udp);
        assert_eq!(survey.observed, None);
    }
}

#[test]
fn an_answer_without_the_token_says_nothing() {
    let mut world = World::new(EndpointIndependent, EndpointIndependent);
    world.surveyor.start(world.now, BEACON.into(), &mut world.rng);
    let asks = world.surveyor.poll(world.now, &[LOCAL.into()], &mut world.rng);
    let forged = Reply {
        token: asks[0].token ^ 1,
        observed: STRANGER.into(),
        second_port: None,
        second_addr: Some(STRANGER.into()),
    };
    assert_eq!(world.surveyor.replied(world.now, BEACON.into(), forged), None);
    assert!(!world.surveyor.came_back(STRANGER.into(), asks[0].token), "nothing was sent to ourselves");
    assert_eq!(world.nat(), Nat { mapping: EndpointIndependent, filtering: EndpointIndependent });
}

#[test]
fn an_answer_that_comes_twice_counts_once() {
    let mut world = World::new(EndpointIndependent, EndpointIndependent);
    world.surveyor.start(world.now, BEACON.into(), &mut world.rng);
    let token = world.surveyor.poll(world.now, &[LOCAL.into()], &mut world.rng)[0].token;
    let reply = |observed: ([u8; 4], u16)| Reply {
        token,
        observed: observed.into(),
        second_port: None,
        second_addr: None,
    };
    let first = world.surveyor.replied(world.now, BEACON.into(), reply(LOCAL));
    assert_eq!(first, Some(LOCAL.into()));
    assert_eq!(world.surveyor.replied(world.now, BEACON.into(), reply(STRANGER)), None);
}

#[test]
fn a_survey_soon_after_another_does_not_take_the_opened_box_for_an_open_one() {
    for filtering in [EndpointIndependent, AddressDependent, AddressAndPortDependent] {
        for second_addr in [None, Some(SECOND_ADDR.into())] {
            let mut world = World::new(EndpointIndependent, filtering);
            world.second_addr = second_addr;
            let first = world.nat();
            for _ in 0..3 {
                world.now += Duration::from_secs(60);
                assert_eq!(world.nat(), first);
                // Another route, a sleep: but it is the same box.
                world.surveyor.forget();
            }
        }
    }
}

#[test]
fn another_box_is_asked_anew_at_once() {
    let mut world = World::new(EndpointIndependent, AddressAndPortDependent);
    assert_eq!(world.nat().filtering, AddressAndPortDependent);
    world.nat_box = NatBox::new(EndpointIndependent, EndpointIndependent);
    world.nat_box.outside = [203, 0, 113, 9];
    assert_eq!(world.nat().filtering, EndpointIndependent);
}

#[test]
fn a_box_whose_bindings_are_long_closed_is_asked_anew() {
    let mut world = World::new(EndpointIndependent, AddressAndPortDependent);
    assert_eq!(world.nat().filtering, AddressAndPortDependent);
    world.now += OPEN;
    world.nat_box = NatBox::new(EndpointIndependent, AddressDependent);
    assert_eq!(world.nat().filtering, AddressDependent);
}

#[test]
fn a_survey_under_way_is_not_begun_again() {
    let mut world = World::new(EndpointIndependent, EndpointIndependent);
    for _ in 0..10 {
        world.surveyor.start(world.now, BEACON.into(), &mut world.rng);
        let asks = world.surveyor.poll(world.now, &[LOCAL.into()], &mut world.rng);
        world.asked.extend(asks);
    }
    assert_eq!(world.asked.len(), 1);
}
