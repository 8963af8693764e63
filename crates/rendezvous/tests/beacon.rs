//! What the beacon tells whom.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

use pilot_rendezvous::{
    beacon::{Config, Introductions, State},
    registry::Rate,
};
use pilot_wire::{
    NodeId,
    beacon::{Message, NotifyKind},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

struct World {
    state: State,
    now: Instant,
}

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const HOME_A: &str = "192.0.2.1:4001";
const HOME_B: &str = "192.0.2.2:4002";
const STRANGER: &str = "203.0.113.9:9";

impl World {
    fn new(config: Config) -> Self {
        let mut world = Self { state: State::new(config), now: Instant::now() };
        world.discover(A, HOME_A);
        world.discover(B, HOME_B);
        world
    }

    fn pass(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
    }

    fn send(&mut self, from: &str, message: &Message<'_>) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut datagram = Vec::new();
        message.emit(&mut datagram);
        self.state.handle_datagram(self.now, from.parse().unwrap(), &datagram);
        self.sent()
    }

    fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::iter::from_fn(|| self.state.poll_transmit()).collect()
    }

    fn discover(&mut self, node: NodeId, from: &str) -> Vec<(SocketAddr, Vec<u8>)> {
        self.send(from, &Message::Discover { node, key: None })
    }

    fn relay(&mut self, from: &str, source: NodeId, destination: NodeId) -> Vec<(SocketAddr, Vec<u8>)> {
        self.send(from, &Message::Relay { source, destination, frame: b"PILSframe" })
    }

    /// Where frames for the node go.
    fn home(&mut self, node: NodeId) -> Option<SocketAddr> {
        let (from, source) = if node == A { (HOME_B, B) } else { (HOME_A, A) };
        self.relay(from, source, node).first().map(|(to, _)| *to)
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn emitted(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.emit(&mut out);
    out
}

#[test]
fn a_discover_is_answered_with_where_it_came_from() {
    let mut world = World::new(Config::default());
    let reply = world.discover(NodeId::UNSET, "[::ffff:203.0.113.9]:77");
    assert_eq!(reply, [(addr("203.0.113.9:77"), emitted(&Message::DiscoverReply(addr("203.0.113.9:77"))))]);
    assert_eq!(world.state.len(), 2, "number 0 is nobody");
}

#[test]
fn a_frame_is_passed_on_with_its_source() {
    let mut world = World::new(Config::default());
    let sent = world.relay(HOME_A, A, B);
    let expected = emitted(&Message::RelayDeliver { source: A, frame: b"PILSframe" });
    assert_eq!(sent, [(addr(HOME_B), expected)]);
    world.send(HOME_B, &Message::DiscoverEx { node: B, key: None });
    let expected = emitted(&Message::RelayDeliverTo { source: A, destination: B, frame: b"PILSframe" });
    assert_eq!(world.relay(HOME_A, A, B), [(addr(HOME_B), expected)]);
}

#[test]
fn frames_leave_in_the_order_in_which_they_came() {
    let mut world = World::new(Config::default());
    for number in 0..100_u8 {
        let mut datagram = Vec::new();
        Message::Relay { source: A, destination: B, frame: &[number] }.emit(&mut datagram);
        world.state.handle_datagram(world.now, addr(HOME_A), &datagram);
    }
    let order: Vec<u8> = world.sent().iter().map(|(_, out)| *out.last().unwrap()).collect();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
}

#[test]
fn nobody_relays_in_the_name_of_another_host() {
    let mut world = World::new(Config::default());
    assert_eq!(world.relay(STRANGER, A, B), []);
    assert_eq!(world.relay(STRANGER, NodeId(9), B), []);
    assert_eq!(world.state.stats().impostor, 2);
    assert_eq!(world.relay("192.0.2.1:5555", A, B).len(), 1, "a NAT may have given it another port");
}

#[test]
fn a_live_entry_is_not_displaced_from_elsewhere() {
    let mut world = World::new(Config::default());
    world.pass(60);
    world.discover(A, STRANGER);
    assert_eq!(world.home(A), Some(addr(HOME_A)));
    world.discover(A, "192.0.2.1:7777");
    assert_eq!(world.home(A), Some(addr("192.0.2.1:7777")), "its own host may move it");
    world.pass(90);
    world.discover(B, HOME_B);
    world.discover(A, STRANGER);
    assert_eq!(world.home(A), Some(addr(STRANGER)), "it had fallen silent");
}

#[test]
fn the_address_of_the_registration_displaces_and_is_not_displaced() {
    let mut world = World::new(Config::default());
    world.state.registered(A, addr(STRANGER).ip());
    world.discover(A, STRANGER);
    assert_eq!(world.home(A), Some(addr(STRANGER)), "the node has moved and registered from there");
    world.pass(500);
    world.discover(B, HOME_B);
    world.discover(A, HOME_A);
    assert_eq!(world.home(A), Some(addr(STRANGER)));
}

#[test]
fn two_nodes_are_told_each_others_address() {
    let mut world = World::new(Config::default());
    let sent = world.send(HOME_A, &Message::PunchRequest { requester: A, target: B, grant: None });
    assert_eq!(
        sent,
        [
            (addr(HOME_A), emitted(&Message::PunchCommand(addr(HOME_B)))),
            (addr(HOME_B), emitted(&Message::PunchCommand(addr(HOME_A)))),
        ]
    );
}

#[test]
fn nobody_is_introduced_without_permission() {
    let mut world = World::new(Config { introductions: Introductions::Ask, ..Config::default() });
    let ask = Message::PunchRequest { requester: A, target: B, grant: None };
    assert_eq!(world.send(STRANGER, &ask), []);
    assert_eq!(world.state.poll_question(), None, "not even a question for a stranger");
    for (allowed, told) in [(false, 0), (true, 2)] {
        assert_eq!(world.send(HOME_A, &ask), []);
        let question = world.state.poll_question().unwrap();
        world.state.handle_answer(question, allowed);
        assert_eq!(world.sent().len(), told);
    }
}

#[test]
fn an_entry_lasts_ten_minutes_after_the_last_discover() {
    let mut world = World::new(Config::default());
    world.pass(599);
    world.discover(A, HOME_A);
    assert_eq!(world.relay(HOME_A, A, B).len(), 1);
    world.pass(1);
    assert_eq!(world.relay(HOME_A, A, B), []);
    assert_eq!(world.state.stats().unreachable, 1);
}

#[test]
fn the_table_makes_room_for_newcomers() {
    let mut world = World::new(Config { max_nodes: 3, ..Config::default() });
    world.pass(1);
    world.discover(A, HOME_A);
    world.discover(NodeId(3), "192.0.2.3:1");
    world.discover(NodeId(4), "192.0.2.4:1");
    assert_eq!(world.state.len(), 3);
    assert_eq!(world.home(B), None, "it had been silent longest");
}

#[test]
fn a_flood_of_claims_does_not_displace_who_is_where_it_registered() {
    let mut world = World::new(Config { max_nodes: 8, ..Config::default() });
    world.state.registered(A, addr(HOME_A).ip());
    world.state.registered(B, addr(HOME_B).ip());
    world.pass(1);
    for claim in 100..200 {
        world.discover(NodeId(claim), STRANGER);
    }
    assert_eq!(world.home(A), Some(addr(HOME_A)));
    assert_eq!(world.home(B), Some(addr(HOME_B)));
    assert_eq!(world.state.len(), 8);
    world.pass(600);
    world.discover(A, HOME_A);
    assert_eq!(world.state.len(), 1, "both kinds expire");
}

#[test]
fn relaying_goes_on_over_a_restart() {
    let mut world = World::new(Config::default());
    world.state = State::new(Config::default());
    world.state.remembered(world.now, A, addr(HOME_A));
    world.state.remembered(world.now, B, addr("192.0.2.2:9999"));
    assert_eq!(world.home(B), Some(addr("192.0.2.2:9999")));
    world.discover(B, HOME_B);
    assert_eq!(world.home(B), Some(addr(HOME_B)), "where it really is");
    assert_eq!(world.home(A), Some(addr(HOME_A)));
}

#[test]
fn relaying_and_introducing_are_limited_for_each_node() {
    let rate = Rate { burst: 3, per_second: 1.0 };
    let mut world = World::new(Config { relay: rate, punch: rate, ..Config::default() });
    assert_eq!((0..10).map(|_| world.relay(HOME_A, A, B).len()).sum::<usize>(), 3);
    assert_eq!(world.relay(HOME_B, B, A).len(), 1, "the other has its own limit");
    let ask = Message::PunchRequest { requester: A, target: B, grant: None };
    assert_eq!((0..10).map(|_| world.send(HOME_A, &ask).len()).sum::<usize>(), 6);
    world.pass(1);
    assert_eq!(world.relay(HOME_A, A, B).len(), 1);
}

#[test]
fn a_notice_goes_to_where_the_node_is() {
    let mut world = World::new(Config::default());
    world.state.notify(world.now, A, NotifyKind::Handshake);
    assert_eq!(world.sent(), [(addr(HOME_A), vec![0x0A, 0x01])]);
    world.state.notify(world.now, NodeId(9), NotifyKind::Handshake);
    assert_eq!(world.sent(), []);
    for _ in 0..100 {
        world.state.notify(world.now, A, NotifyKind::Handshake);
    }
    assert_eq!(world.sent().len(), 4);
}

#[test]
fn what_is_no_request_to_a_beacon_is_counted_and_ignored() {
    let mut world = World::new(Config::default());
    for datagram in
        [&b""[..], &[0x01, 0], &[0x06, 0, 0, 0, 1], &[0x07, 0, 0, 0, 1, 0, 0], b"PILS", &[0x0A, 1]]
    {
        world.state.handle_datagram(world.now, addr(STRANGER), datagram);
    }
    assert_eq!(world.sent(), []);
    assert_eq!(world.state.stats().unreadable, 6);
}
