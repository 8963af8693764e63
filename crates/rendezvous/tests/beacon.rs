//! What the beacon tells whom.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

use pilot_rendezvous::{
    beacon::{Config, Ear, Ears, Introductions, RelayLimits, Route, State, WebId},
    registry::Rate,
};
use pilot_wire::{
    NodeId,
    beacon::{DiscoverProof, Message, NotifyKind, ReplyFrom},
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
/// From where a connection over the web comes.
const WEB: WebId = WebId(70);

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
        over_udp(self.send_any(from, message))
    }

    fn send_any(&mut self, from: &str, message: &Message<'_>) -> Vec<(Route, Vec<u8>)> {
        let mut datagram = Vec::new();
        message.emit(&mut datagram);
        self.state.handle_datagram(self.now, from.parse().unwrap(), &datagram);
        self.sent_any()
    }

    fn sent_any(&mut self) -> Vec<(Route, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some(train) = self.state.poll_transmit() {
            sent.extend(train.datagrams().map(|datagram| (train.to, datagram.to_vec())));
        }
        sent
    }

    fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        over_udp(self.sent_any())
    }

    /// The node comes over the web and proves who it is.
    fn open(&mut self, conn: WebId, node: NodeId) -> Option<WebId> {
        self.state.web_opened(self.now, conn, node)
    }

    fn say(&mut self, conn: WebId, message: &Message<'_>) -> Vec<(Route, Vec<u8>)> {
        self.state.handle_web(self.now, conn, &emitted(message));
        self.sent_any()
    }

    /// How frames for A go.
    fn route(&mut self) -> Option<Route> {
        let relay = Message::Relay { source: B, destination: A, frame: b"PILSframe" };
        self.send_any(HOME_B, &relay).iter().find(|(_, out)| !is_unknown(out)).map(|(route, _)| *route)
    }

    fn discover(&mut self, node: NodeId, from: &str) -> Vec<(SocketAddr, Vec<u8>)> {
        self.send(from, &Message::Discover { node, key: None, proof: None })
    }

    /// As nodes of ours do it.
    fn discover_with(
        &mut self,
        identity: &pilot_crypto::Identity,
        node: NodeId,
        from: &str,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        self.send(from, &Message::Discover { node, key: Some(identity.public()), proof: None })
    }

    fn relay(&mut self, from: &str, source: NodeId, destination: NodeId) -> Vec<(SocketAddr, Vec<u8>)> {
        let sent = self.send(from, &Message::Relay { source, destination, frame: b"PILSframe" });
        sent.into_iter().filter(|(_, out)| !is_unknown(out)).collect()
    }

    /// Where frames for the node go.
    fn home(&mut self, node: NodeId) -> Option<SocketAddr> {
        let (from, source) = if node == A { (HOME_B, B) } else { (HOME_A, A) };
        self.relay(from, source, node).first().map(|(to, _)| *to)
    }
}

fn is_unknown(out: &[u8]) -> bool {
    matches!(Message::parse(out), Ok(Message::Unknown { .. }))
}

fn over_udp(sent: Vec<(Route, Vec<u8>)>) -> Vec<(SocketAddr, Vec<u8>)> {
    sent.into_iter()
        .map(|(to, out)| match to {
            Route::Udp(to) => (to, out),
            Route::Web(_) | Route::Elsewhere(..) => panic!("{to} is told something"),
        })
        .collect()
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
        world.state.handle_answer(world.now, question, allowed);
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
    let mut world = World::new(Config {
        relay: RelayLimits { frames: rate, ..RelayLimits::default() },
        punch: rate,
        ..Config::default()
    });
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

// Over the web.

#[test]
fn frames_pass_between_the_web_and_udp_both_ways() {
    let mut world = World::new(Config::default());
    assert_eq!(world.open(WEB, A), None);
    let to_b = Message::Relay { source: A, destination: B, frame: b"PILSframe" };
    let expected = emitted(&Message::RelayDeliver { source: A, frame: b"PILSframe" });
    assert_eq!(world.say(WEB, &to_b), [(Route::Udp(addr(HOME_B)), expected.clone())]);
    let to_a = Message::Relay { source: B, destination: A, frame: b"PILSframe" };
    let deliver = emitted(&Message::RelayDeliver { source: B, frame: b"PILSframe" });
    assert_eq!(world.send_any(HOME_B, &to_a), [(Route::Web(WEB), deliver)]);
    // And between two on the web.
    world.open(WebId(71), B);
    assert_eq!(world.say(WEB, &to_b), [(Route::Web(WebId(71)), expected)]);
}

#[test]
fn a_discover_over_the_web_is_answered_there_with_no_address() {
    let mut world = World::new(Config::default());
    world.open(WEB, A);
    let reply = emitted(&Message::DiscoverReply(addr("0.0.0.0:0")));
    for node in [A, NodeId::UNSET] {
        assert_eq!(
            world.say(WEB, &Message::Discover { node, key: None, proof: None }),
            [(Route::Web(WEB), reply.clone())]
        );
    }
    world.say(WEB, &Message::DiscoverEx { node: A, key: None });
    let frame = Message::Relay { source: B, destination: A, frame: b"x" };
    let deliver = emitted(&Message::RelayDeliverTo { source: B, destination: A, frame: b"x" });
    assert_eq!(world.send_any(HOME_B, &frame), [(Route::Web(WEB), deliver)]);
}

#[test]
fn on_the_web_a_node_speaks_in_its_own_name_only() {
    let mut world = World::new(Config::default());
    world.open(WEB, A);
    let answered = world.say(WEB, &Message::Discover { node: B, key: None, proof: None });
    assert_eq!(answered.len(), 1, "it may hear where it comes from");
    assert_eq!(world.say(WEB, &Message::Relay { source: B, destination: A, frame: b"x" }), []);
    assert_eq!(world.say(WEB, &Message::PunchRequest { requester: B, target: A, grant: None }), []);
    assert_eq!(world.home(B), None, "A's own frames come over the web only");
    assert_eq!(world.say(WebId(99), &Message::Relay { source: A, destination: B, frame: b"x" }), []);
    assert_eq!(world.say(WebId(99), &Message::Discover { node: A, key: None, proof: None }), []);
    assert_eq!(world.state.stats().impostor, 6);
    assert_eq!(world.route(), Some(Route::Web(WEB)), "and B is still where it was");
}

#[test]
fn who_proved_to_be_the_node_is_not_displaced_by_who_only_says_so() {
    let mut world = World::new(Config::default());
    world.state.registered(A, addr(STRANGER).ip());
    world.open(WEB, A);
    for from in [HOME_A, STRANGER] {
        world.discover(A, from);
        assert_eq!(world.route(), Some(Route::Web(WEB)), "{from}");
        assert_eq!(world.relay(from, A, B), [], "{from}");
    }
    world.pass(3600);
    world.discover(B, HOME_B);
    assert_eq!(world.route(), Some(Route::Web(WEB)), "it is there as long as its connection");
}

#[test]
fn a_second_connection_of_a_node_replaces_the_first() {
    let mut world = World::new(Config::default());
    world.open(WEB, A);
    assert_eq!(world.open(WebId(71), A), Some(WEB));
    assert_eq!(world.route(), Some(Route::Web(WebId(71))));
    assert_eq!(world.say(WEB, &Message::Relay { source: A, destination: B, frame: b"x" }), []);
    world.state.web_closed(world.now, WEB);
    assert_eq!(world.route(), Some(Route::Web(WebId(71))), "the end of the first changes nothing");
}

#[test]
fn nobody_is_introduced_to_who_is_on_the_web() {
    for introductions in [Introductions::Everybody, Introductions::Ask] {
        let mut world = World::new(Config { introductions, ..Config::default() });
        world.open(WEB, A);
        assert_eq!(world.say(WEB, &Message::PunchRequest { requester: A, target: B, grant: None }), []);
        let ask = Message::PunchRequest { requester: B, target: A, grant: None };
        assert_eq!(world.send_any(HOME_B, &ask), []);
        assert_eq!(world.state.poll_question(), None);
        assert_eq!(world.state.stats().introduced, 0);
    }
}

#[test]
fn who_goes_over_to_the_web_while_a_question_is_open_is_not_introduced() {
    let mut world = World::new(Config { introductions: Introductions::Ask, ..Config::default() });
    world.send(HOME_B, &Message::PunchRequest { requester: B, target: A, grant: None });
    let question = world.state.poll_question().unwrap();
    world.open(WEB, A);
    world.state.handle_answer(world.now, question, true);
    assert_eq!(world.sent_any(), []);
}

#[test]
fn a_node_whose_datagrams_pass_again_is_never_out_of_reach() {
    let mut world = World::new(Config::default());
    world.open(WEB, A);
    world.pass(300);
    world.discover(B, HOME_B);
    world.discover(A, "192.0.2.77:4001");
    world.state.web_closed(world.now, WEB);
    assert_eq!(world.route(), Some(Route::Udp(addr("192.0.2.77:4001"))));
    assert_eq!(world.relay("192.0.2.77:4001", A, B).len(), 1);
}

#[test]
fn a_node_that_was_on_the_web_only_is_gone_with_its_connection() {
    let mut world = World::new(Config::default());
    world.pass(600);
    world.discover(B, HOME_B);
    world.open(WEB, A);
    world.state.web_closed(world.now, WEB);
    assert_eq!(world.route(), None);
    assert_eq!(world.state.len(), 1);
    // An address it had long ago is no place either.
    world.discover(A, HOME_A);
    world.open(WEB, A);
    world.pass(600);
    world.discover(B, HOME_B);
    world.state.web_closed(world.now, WEB);
    assert_eq!(world.route(), None);
}

#[test]
fn a_flood_of_claims_does_not_displace_who_is_on_the_web() {
    let mut world = World::new(Config { max_nodes: 3, ..Config::default() });
    world.open(WEB, A);
    world.state.registered(B, addr(HOME_B).ip());
    for claim in 100..200 {
        world.discover(NodeId(claim), STRANGER);
    }
    assert_eq!(world.route(), Some(Route::Web(WEB)));
    assert_eq!(world.state.len(), 3);
}

#[test]
fn a_notice_goes_over_the_web_to_who_is_there() {
    let mut world = World::new(Config::default());
    world.open(WEB, A);
    world.state.notify(world.now, A, NotifyKind::Handshake);
    assert_eq!(world.sent_any(), [(Route::Web(WEB), vec![0x0A, 0x01])]);
}

/// A node with a key, at home and known to the beacon.
fn known(node: NodeId, home: &str) -> (World, pilot_crypto::Identity) {
    let identity = pilot_crypto::Identity::from_seed(&[7; 32]);
    let mut world = World::new(Config::default());
    world.state.has_key(world.now, node, identity.public());
    world.discover(node, home);
    (world, identity)
}

fn challenge_in(sent: &[(SocketAddr, Vec<u8>)], to: &str) -> Option<pilot_wire::beacon::Nonce> {
    sent.iter().find_map(|(at, out)| match Message::parse(out) {
        Ok(Message::Challenge { nonce }) if *at == addr(to) => Some(nonce),
        Ok(_) | Err(_) => None,
    })
}

fn proof(
    identity: &pilot_crypto::Identity,
    node: NodeId,
    nonce: pilot_wire::beacon::Nonce,
) -> Message<'static> {
    let signature = identity.sign(&DiscoverProof::signed_bytes(node, &nonce));
    Message::Discover { node, key: Some(identity.public()), proof: Some(DiscoverProof { nonce, signature }) }
}

#[test]
fn a_node_that_proves_itself_moves_at_once_and_nobody_else_moves_it() {
    let elsewhere = "203.0.113.50:5000";
    let (mut world, identity) = known(A, HOME_A);
    world.discover(B, HOME_B);
    let asked = world.discover_with(&identity, A, elsewhere);
    let nonce = challenge_in(&asked, elsewhere).expect("a challenge");
    assert_eq!(world.home(A), Some(addr(HOME_A)), "a claim alone moves nothing");
    world.send(elsewhere, &proof(&identity, A, nonce));
    assert_eq!(world.home(A), Some(addr(elsewhere)));

    // From then on not even its old home, nor a neighbour behind the same box, is believed without a proof.
    world.state.registered(A, addr(HOME_A).ip());
    for claim in [HOME_A, "203.0.113.50:6000"] {
        world.discover(A, claim);
        assert_eq!(world.home(A), Some(addr(elsewhere)), "{claim}");
    }
    assert_eq!(world.relay("203.0.113.50:6000", A, B), [], "nor may it speak in its name");
}

#[test]
fn a_proof_is_worth_nothing_from_another_address_or_by_another_key_or_later() {
    let (elsewhere, thief) = ("203.0.113.50:5000", "198.51.100.66:6666");
    let (mut world, identity) = known(A, HOME_A);
    world.discover(B, HOME_B);
    let nonce = challenge_in(&world.discover_with(&identity, A, elsewhere), elsewhere).expect("a challenge");
    world.send(thief, &proof(&identity, A, nonce));
    let other = pilot_crypto::Identity::from_seed(&[8; 32]);
    world.send(elsewhere, &proof(&other, A, nonce));
    assert_eq!(world.home(A), Some(addr(HOME_A)));
    world.pass(30);
    world.send(elsewhere, &proof(&identity, A, nonce));
    assert_eq!(world.home(A), Some(addr(HOME_A)));
}

#[test]
fn who_relays_hears_that_the_receiver_or_itself_is_not_known() {
    let mut world = World::new(Config::default());
    world.discover(A, HOME_A);
    let frame = |source, destination| Message::Relay { source, destination, frame: b"PILS" };
    let unknown = |node| emitted(&Message::Unknown { node });
    let nobody = NodeId(99);
    assert_eq!(world.send(HOME_A, &frame(A, nobody)), [(addr(HOME_A), unknown(nobody))]);
    assert_eq!(world.send(STRANGER, &frame(nobody, A)), [(addr(STRANGER), unknown(nobody))]);
}

#[test]
fn surveys_are_answered_from_the_socket_that_is_asked_for() {
    let mut world = World::new(Config::default());
    let ears = Ears { second_port: Some(9002), second_addr: Some(addr("192.0.2.9:9001")) };
    let survey = |from| Message::Survey { token: 7, from };
    let reply = |second_port, second_addr| {
        emitted(&Message::SurveyReply { token: 7, observed: addr(HOME_A), second_port, second_addr })
    };
    let plain = world.send_any(HOME_A, &survey(ReplyFrom::Here));
    assert_eq!(plain, [(Route::Udp(addr(HOME_A)), reply(None, None))]);
    assert_eq!(world.send_any(HOME_A, &survey(ReplyFrom::OtherPort)), [], "there is none");

    world.state.set_ears(ears);
    let full = reply(ears.second_port, ears.second_addr);
    for (wanted, ear) in
        [(ReplyFrom::OtherPort, Ear::QuietPort), (ReplyFrom::OtherAddress, Ear::QuietAddress)]
    {
        let sent = world.send_any(HOME_A, &survey(wanted));
        assert_eq!(sent, [(Route::Elsewhere(ear, addr(HOME_A)), full.clone())]);
    }
    for ear in [Ear::SecondPort, Ear::SecondAddress] {
        world.state.handle_elsewhere(world.now, ear, addr(HOME_A), &emitted(&survey(ReplyFrom::Here)));
        assert_eq!(world.sent_any(), [(Route::Elsewhere(ear, addr(HOME_A)), full.clone())]);
        world.state.handle_elsewhere(world.now, ear, addr(HOME_A), &emitted(&survey(ReplyFrom::OtherPort)));
        assert_eq!(world.sent_any(), [], "only from where it was asked");
    }
    assert!(full.len() <= pilot_wire::beacon::SURVEY_LEN, "no lever for who writes other people's addresses");
}
