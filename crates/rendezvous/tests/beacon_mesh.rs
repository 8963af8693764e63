//! Beacons among themselves: which nodes are where, what is passed on, and whom they believe.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

use pilot_crypto::Identity;
use pilot_rendezvous::beacon::{Config, Introductions, Route, Secret, State};
use pilot_wire::{
    NodeId,
    beacon::{DiscoverProof, Message, NotifyKind},
    mesh,
    registry::MeshSecret,
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const HOME_A: &str = "192.0.2.1:4001";
const HOME_B: &str = "198.51.100.2:4002";
const SECRET: MeshSecret = MeshSecret([5; 32]);
const FRAME: &[u8] = b"PILSframe";

/// Some beacons, and what they sent to nodes.
struct World {
    now: Instant,
    beacons: Vec<State>,
    /// What each beacon sent to nodes.
    sent: Vec<(usize, SocketAddr, Vec<u8>)>,
    /// What beacons sent each other: to which, from which.
    among: Vec<(usize, usize, Vec<u8>)>,
}

fn place(beacon: usize) -> SocketAddr {
    format!("203.0.113.{}:9001", beacon + 1).parse().unwrap()
}

fn id(beacon: usize) -> u32 {
    u32::try_from(beacon).unwrap() + 100
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn emitted(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.emit(&mut out);
    out
}

fn config(beacon: usize) -> Config {
    Config { secret: Secret([u8::try_from(beacon).unwrap(); 32]), ..Config::default() }
}

impl World {
    fn new(count: usize) -> Self {
        let mut world = Self {
            now: Instant::now(),
            beacons: (0..count).map(|beacon| State::new(config(beacon))).collect(),
            sent: Vec::new(),
            among: Vec::new(),
        };
        for beacon in 0..count {
            world.join(beacon, SECRET, 1);
        }
        world.pass(Duration::from_millis(100));
        world.sent.clear();
        world
    }

    fn join(&mut self, beacon: usize, secret: MeshSecret, session: u64) {
        let peers: Vec<_> = (0..self.beacons.len()).map(|peer| (id(peer), place(peer))).collect();
        self.beacons[beacon].join_mesh(self.now, id(beacon), secret, session);
        self.beacons[beacon].set_peers(self.now, &peers);
    }

    /// Time goes on, in small steps, and what beacons send each other arrives.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while self.now < end {
            self.now += Duration::from_millis(10);
            for state in &mut self.beacons {
                if state.poll_timeout().is_some_and(|due| due <= self.now) {
                    state.handle_timeout(self.now);
                }
            }
            self.settle();
        }
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            let mut quiet = true;
            for from in 0..self.beacons.len() {
                let mut out = Vec::new();
                while let Some(train) = self.beacons[from].poll_transmit() {
                    let Route::Udp(to) = train.to else { panic!("{}", train.to) };
                    out.extend(train.datagrams().map(|datagram| (to, datagram.to_vec())));
                }
                for (to, datagram) in out {
                    match (0..self.beacons.len()).find(|beacon| place(*beacon) == to) {
                        Some(beacon) => {
                            quiet = false;
                            self.among.push((beacon, from, datagram.clone()));
                            self.beacons[beacon].handle_datagram(self.now, place(from), &datagram);
                        }
                        None => self.sent.push((from, to, datagram)),
                    }
                }
            }
            if quiet {
                return;
            }
        }
        panic!("they never stop talking");
    }

    /// A node sends something to a beacon; what that makes beacons send to nodes.
    fn send(
        &mut self,
        beacon: usize,
        from: &str,
        message: &Message<'_>,
    ) -> Vec<(usize, SocketAddr, Vec<u8>)> {
        self.sent.clear();
        self.beacons[beacon].handle_datagram(self.now, addr(from), &emitted(message));
        self.pass(Duration::from_millis(50));
        std::mem::take(&mut self.sent)
    }

    fn discover(&mut self, beacon: usize, node: NodeId, from: &str) {
        self.send(beacon, from, &Message::Discover { node, key: None, proof: None });
    }

    /// The node proves at this beacon that it is there.
    fn prove(&mut self, beacon: usize, node: NodeId, identity: &Identity, from: &str) {
        let key = Some(identity.public());
        let answered = self.send(beacon, from, &Message::Discover { node, key, proof: None });
        let nonce = answered.iter().find_map(|(_, _, out)| match Message::parse(out) {
            Ok(Message::Challenge { nonce }) => Some(nonce),
            Ok(_) | Err(_) => None,
        });
        let nonce = nonce.expect("a challenge");
        let signature = identity.sign(&DiscoverProof::signed_bytes(node, &nonce));
        let proof = Some(DiscoverProof { nonce, signature });
        self.send(beacon, from, &Message::Discover { node, key, proof });
    }

    /// Where a frame from one node to another arrives: at which address, by which beacon.
    fn relay(
        &mut self,
        beacon: usize,
        from: &str,
        source: NodeId,
        destination: NodeId,
    ) -> Option<(usize, SocketAddr)> {
        let sent = self.send(beacon, from, &Message::Relay { source, destination, frame: FRAME });
        let delivered = emitted(&Message::RelayDeliver { source, frame: FRAME });
        let mut arrived: Vec<_> = sent.into_iter().filter(|(_, _, out)| *out == delivered).collect();
        assert!(arrived.len() <= 1, "once: {arrived:?}");
        arrived.pop().map(|(by, at, _)| (by, at))
    }
}

fn identity() -> Identity {
    Identity::from_seed(&[7; 32])
}

#[test]
fn a_frame_for_a_node_of_another_beacon_goes_there_once_and_arrives_as_from_its_source() {
    let mut world = World::new(3);
    world.discover(0, A, HOME_A);
    world.discover(2, B, HOME_B);
    world.among.clear();
    assert_eq!(world.relay(0, HOME_A, A, B), Some((2, addr(HOME_B))));
    assert_eq!(world.relay(2, HOME_B, B, A), Some((0, addr(HOME_A))));
    let relayed = world.among.iter().filter(|(_, _, out)| out.windows(FRAME.len()).any(|part| part == FRAME));
    assert_eq!(relayed.map(|(to, from, _)| (*from, *to)).collect::<Vec<_>>(), [(0, 2), (2, 0)]);
    let stats = world.beacons[0].stats();
    assert_eq!((stats.forwarded, stats.received, stats.relayed), (1, 1, 1));
    assert_eq!(stats.relayed_bytes, FRAME.len() as u64);
    assert_eq!(stats.beacons, 2);
}

#[test]
fn a_source_must_be_known_where_it_sends() {
    let mut world = World::new(2);
    world.discover(0, A, HOME_A);
    world.discover(1, B, HOME_B);
    assert_eq!(world.relay(1, HOME_A, A, B), None, "A is at the other one");
    assert_eq!(world.relay(0, "203.0.113.99:9", A, B), None);
    assert_eq!(world.beacons[0].stats().impostor, 1);
}

#[test]
fn who_went_over_to_another_beacon_is_found_there_and_forgotten_where_it_was() {
    let mut world = World::new(3);
    let identity = identity();
    for state in &mut world.beacons {
        state.has_key(world.now, B, identity.public());
    }
    world.discover(0, A, HOME_A);
    world.prove(1, B, &identity, HOME_B);
    assert_eq!(world.relay(0, HOME_A, A, B), Some((1, addr(HOME_B))));
    world.pass(Duration::from_secs(10));
    let elsewhere = "198.51.100.77:5000";
    world.prove(2, B, &identity, elsewhere);
    assert_eq!(world.relay(0, HOME_A, A, B), Some((2, addr(elsewhere))));
    assert!(world.beacons[1].is_empty(), "the old one forgets it");
    // And back.
    world.pass(Duration::from_secs(10));
    world.prove(1, B, &identity, HOME_B);
    assert_eq!(world.relay(0, HOME_A, A, B), Some((1, addr(HOME_B))));
    assert!(world.beacons[2].is_empty());
}

#[test]
fn a_node_that_cannot_prove_anything_moves_with_its_newest_word() {
    let mut world = World::new(2);
    world.discover(0, A, HOME_A);
    world.discover(0, B, HOME_B);
    world.pass(Duration::from_secs(10));
    world.discover(1, B, HOME_B);
    assert_eq!(world.relay(0, HOME_A, A, B), Some((1, addr(HOME_B))));
    assert_eq!(world.relay(1, HOME_B, B, A), Some((0, addr(HOME_A))));
}

#[test]
fn a_claim_at_another_beacon_takes_nothing_from_who_has_proved_who_it_is() {
    let mut world = World::new(2);
    let identity = identity();
    world.beacons[0].has_key(world.now, B, identity.public());
    world.prove(0, B, &identity, HOME_B);
    world.discover(1, A, HOME_A);
    world.pass(Duration::from_secs(20));
    let thief = "203.0.113.66:6";
    world.discover(1, B, thief);
    assert_eq!(world.relay(1, HOME_A, A, B), Some((0, addr(HOME_B))), "also where the thief is");
    assert_eq!(world.relay(1, thief, B, A), None, "nor does it speak in its name");
    assert_eq!(world.relay(0, HOME_B, B, A), Some((1, addr(HOME_A))));
}

#[test]
fn two_nodes_at_two_beacons_are_introduced_with_permission_only() {
    let mut world = World::new(0);
    for beacon in 0..2 {
        let state = State::new(Config { introductions: Introductions::Ask, ..config(beacon) });
        world.beacons.push(state);
    }
    world.join(0, SECRET, 1);
    world.join(1, SECRET, 1);
    world.pass(Duration::from_millis(100));
    world.discover(0, A, HOME_A);
    world.discover(1, B, HOME_B);
    let ask = Message::PunchRequest { requester: A, target: B, grant: None };
    for allowed in [false, true] {
        assert_eq!(world.send(0, HOME_A, &ask), []);
        let question = world.beacons[0].poll_question().expect("a question");
        let now = world.now;
        world.beacons[0].handle_answer(now, question, allowed);
        world.settle();
        let told = std::mem::take(&mut world.sent);
        let command = |to| emitted(&Message::PunchCommand(addr(to)));
        match allowed {
            false => assert_eq!(told, []),
            true => {
                assert_eq!(told, [(1, addr(HOME_B), command(HOME_A)), (0, addr(HOME_A), command(HOME_B))])
            }
        }
    }
    assert_eq!(world.beacons[1].poll_question(), None);
}

#[test]
fn a_notice_reaches_a_node_at_another_beacon() {
    let mut world = World::new(2);
    world.discover(1, B, HOME_B);
    let now = world.now;
    world.beacons[0].notify(now, B, NotifyKind::Handshake);
    world.settle();
    assert_eq!(world.sent, [(1, addr(HOME_B), vec![0x0A, 0x01])]);
}

#[test]
fn the_nodes_of_a_beacon_that_died_are_reached_where_they_go() {
    let mut world = World::new(3);
    world.discover(0, A, HOME_A);
    world.discover(1, B, HOME_B);
    // It falls silent: another is in its place, in no mesh.
    world.beacons[1] = State::new(config(1));
    world.pass(Duration::from_millis(200));
    world.discover(2, B, HOME_B);
    assert_eq!(world.relay(0, HOME_A, A, B), Some((2, addr(HOME_B))));
    world.pass(Duration::from_secs(4));
    assert_eq!(world.beacons[0].stats().beacons, 1);
}

#[test]
fn a_beacon_that_was_started_again_is_company_again_and_old_messages_are_not_believed() {
    let mut world = World::new(2);
    world.discover(0, A, HOME_A);
    world.discover(1, B, HOME_B);
    assert_eq!(world.relay(0, HOME_A, A, B), Some((1, addr(HOME_B))));
    let recorded: Vec<_> = world.among.clone();

    world.beacons[1] = State::new(config(1));
    world.join(1, SECRET, 2);
    world.pass(Duration::from_secs(1));
    world.discover(1, B, HOME_B);
    assert_eq!(world.relay(0, HOME_A, A, B), Some((1, addr(HOME_B))));
    assert_eq!(world.relay(1, HOME_B, B, A), Some((0, addr(HOME_A))), "and was told of all nodes again");

    let before: Vec<_> = world.beacons.iter().map(State::stats).collect();
    world.sent.clear();
    for (to, from, datagram) in recorded {
        world.beacons[to].handle_datagram(world.now, place(from), &datagram);
    }
    world.settle();
    assert_eq!(world.sent, [], "nothing of it reaches a node");
    for (state, before) in world.beacons.iter().zip(before) {
        assert_eq!(state.stats().received, before.received);
    }
    assert_eq!(world.relay(0, HOME_A, A, B), Some((1, addr(HOME_B))));
    assert_eq!(world.relay(1, HOME_B, B, A), Some((0, addr(HOME_A))));
}

#[test]
fn whoever_does_not_have_the_secret_is_not_believed() {
    let mut world = World::new(2);
    world.discover(0, A, HOME_A);
    world.discover(1, B, HOME_B);
    // A third one in the list with another secret.
    world.beacons.push(State::new(config(2)));
    for beacon in 0..2 {
        world.join(beacon, SECRET, 1);
    }
    world.join(2, MeshSecret([6; 32]), 1);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.beacons[0].stats().beacons, 1);
    assert_eq!(world.beacons[2].stats().beacons, 0);
    world.discover(2, B, "203.0.113.66:6");
    assert_eq!(world.relay(0, HOME_A, A, B), Some((1, addr(HOME_B))));
    // The gossip of the reference's beacons, which says of itself who sent it.
    let gossip = emitted(&Message::Sync { beacon: id(1), nodes: vec![A, B] });
    let before = world.beacons[0].stats().unreadable;
    world.beacons[0].handle_datagram(world.now, place(1), &gossip);
    assert_eq!(world.beacons[0].stats().unreadable, before + 1);
}

#[test]
fn a_message_counts_once_and_only_whole() {
    let mut world = World::new(2);
    world.discover(0, A, HOME_A);
    world.discover(1, B, HOME_B);
    world.among.clear();
    world.relay(0, HOME_A, A, B);
    let (_, _, datagram) =
        world.among.iter().find(|(_, _, out)| out.windows(FRAME.len()).any(|part| part == FRAME)).unwrap();
    let datagram = datagram.clone();
    let received = world.beacons[1].stats().received;
    world.beacons[1].handle_datagram(world.now, place(0), &datagram);
    for at in 0..datagram.len() {
        let mut forged = datagram.clone();
        forged[at] ^= 1;
        world.beacons[1].handle_datagram(world.now, place(0), &forged);
    }
    world.settle();
    assert_eq!(world.beacons[1].stats().received, received);
}

#[test]
fn a_beacon_that_comes_later_is_told_of_all_nodes() {
    let mut world = World::new(1);
    let many: u32 = 1000;
    for node in 1..=many {
        let [_, _, high, low] = node.to_be_bytes();
        world.beacons[0].handle_datagram(
            world.now,
            SocketAddr::from(([198, 18, high, low], 4000)),
            &emitted(&Message::Discover { node: NodeId(node), key: None, proof: None }),
        );
    }
    world.settle();
    world.beacons.push(State::new(config(1)));
    world.join(0, SECRET, 1);
    world.join(1, SECRET, 1);
    world.pass(Duration::from_secs(2));
    let late = NodeId(many + 1);
    world.discover(1, late, HOME_A);
    for node in [1, 500, many] {
        assert!(world.relay(1, HOME_A, late, NodeId(node)).is_some(), "{node}");
    }
    let largest = world.among.iter().map(|(_, _, out)| out.len()).max().unwrap();
    assert!(largest <= mesh::HEADER_LEN + 8 * mesh::NODES_MAX + mesh::TAG_LEN, "{largest}");
    assert!(largest <= 1200, "fits into any packet");
}

#[test]
fn a_node_that_expired_is_told_of_as_gone() {
    let mut world = World::new(2);
    world.discover(0, A, HOME_A);
    world.discover(1, B, HOME_B);
    for _ in 0..11 {
        world.pass(Duration::from_secs(60));
        world.discover(0, A, HOME_A);
    }
    assert!(world.beacons[1].is_empty() || world.beacons[1].len() == 1);
    let sent = world.send(0, HOME_A, &Message::Relay { source: A, destination: B, frame: FRAME });
    assert_eq!(sent, [(0, addr(HOME_A), emitted(&Message::Unknown { node: B }))]);
}
