//! What a beacon does for whom, at most: trains, limits, floods and answers to forged addresses.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

use pilot_crypto::Identity;
use pilot_rendezvous::{
    beacon::{Config, Ear, Ears, RelayLimits, State, WebId},
    registry::Rate,
};
use pilot_wire::{
    NodeId,
    beacon::{DiscoverProof, Message, ReplyFrom, SURVEY_LEN, emit_relay_header},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const HOME_A: &str = "192.0.2.1:4001";
const HOME_B: &str = "192.0.2.2:4002";
const FORGED: &str = "203.0.113.9:9";
const FORGED_V6: &str = "[2001:db8::9]:9";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn emitted(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.emit(&mut out);
    out
}

fn discover(node: NodeId) -> Vec<u8> {
    emitted(&Message::Discover { node, key: None, proof: None })
}

/// All datagrams, to whom.
fn sent(state: &mut State) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(train) = state.poll_transmit() {
        let to = train.to.to_string();
        let to = to.parse().unwrap_or(addr("0.0.0.0:0"));
        all.extend(train.datagrams().map(|datagram| (to, datagram.to_vec())));
    }
    all
}

fn beacon(config: Config, now: Instant) -> State {
    let mut state = State::new(config);
    for (node, home) in [(A, HOME_A), (B, HOME_B)] {
        state.registered(node, addr(home).ip());
        state.handle_datagram(now, addr(home), &discover(node));
    }
    while state.poll_transmit().is_some() {}
    state
}

/// A train of relayed frames; the last one is shorter.
fn train(source: NodeId, destination: NodeId, frames: usize, length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for number in 0..frames {
        emit_relay_header(source, destination, &mut out);
        let length = if number + 1 == frames { length / 2 } else { length };
        out.resize(out.len() + length, u8::try_from(number).unwrap());
    }
    out
}

#[test]
fn a_train_of_frames_leaves_as_a_train() {
    let now = Instant::now();
    let mut state = beacon(Config::default(), now);
    state.handle_train(now, addr(HOME_A), 1009, &train(A, B, 40, 1000));
    let out = state.poll_transmit().unwrap();
    assert_eq!((out.to.to_string().as_str(), out.segment, out.datagrams().count()), (HOME_B, 1005, 40));
    for (number, datagram) in out.datagrams().enumerate() {
        let Ok(Message::RelayDeliver { source: A, frame }) = Message::parse(datagram) else {
            panic!("{number}")
        };
        assert_eq!(frame.len(), if number == 39 { 500 } else { 1000 });
        assert!(frame.iter().all(|byte| usize::from(*byte) == number), "in order");
    }
    assert!(state.poll_transmit().is_none());
    assert_eq!((state.stats().relayed, state.stats().relayed_bytes), (40, 39 * 1000 + 500));
}

#[test]
fn a_train_may_carry_anything_and_each_datagram_counts_for_itself() {
    let now = Instant::now();
    let mut state = beacon(Config::default(), now);
    let mut mixed = train(A, B, 1, 32);
    for datagram in [train(A, NodeId(77), 1, 32), train(B, A, 1, 32), train(A, B, 1, 32)] {
        mixed.extend_from_slice(&datagram);
    }
    let mut odd = discover(A);
    odd.resize(25, 0);
    mixed.extend_from_slice(&odd);
    state.handle_train(now, addr(HOME_A), 25, &mixed);
    let kinds: Vec<(SocketAddr, u8)> = sent(&mut state).iter().map(|(to, out)| (*to, out[0])).collect();
    let (a, b) = (addr(HOME_A), addr(HOME_B));
    // Not known; not B's address, nor known at it; and where A is.
    assert_eq!(kinds, [(b, 6), (a, 0x0D), (a, 0x0D), (b, 6), (a, 2)]);
}

#[test]
fn a_train_is_cut_at_the_limit_of_its_node() {
    let now = Instant::now();
    let frames = Rate { burst: 10, per_second: 10.0 };
    let relay = RelayLimits { frames, ..RelayLimits::default() };
    let mut state = beacon(Config { relay, ..Config::default() }, now);
    state.handle_train(now, addr(HOME_A), 109, &train(A, B, 40, 100));
    assert_eq!(sent(&mut state).len(), 10);
    assert_eq!(state.stats().too_many, 30);
    state.handle_train(now + Duration::from_secs(1), addr(HOME_B), 109, &train(B, A, 5, 100));
    assert_eq!(sent(&mut state).len(), 5, "the other has its own");
}

#[test]
fn under_the_limit_of_all_together_who_is_over_its_share_is_held_back_first() {
    let mut now = Instant::now();
    let config = Config { relay: RelayLimits::default().with_total(1_000_000), ..Config::default() };
    let mut state = beacon(config, now);
    let (mut heavy, mut light) = (0, 0);
    for _ in 0..3000 {
        now += Duration::from_millis(1);
        state.handle_train(now, addr(HOME_A), 1009, &train(A, B, 5, 1000));
        heavy += sent(&mut state).len();
        state.handle_train(now, addr(HOME_B), 109, &train(B, A, 2, 100));
        light += sent(&mut state).len();
    }
    assert_eq!(light, 6000, "it loses nothing");
    assert!((2000..4000).contains(&heavy), "it has what is left: {heavy}");
    assert!(state.stats().congested > 8000);
}

#[test]
fn no_answer_to_an_address_that_nothing_speaks_for_is_longer_than_the_question() {
    let identity = Identity::from_seed(&[3; 32]);
    let key = Some(identity.public());
    let proof = DiscoverProof { nonce: [1; 16], signature: identity.sign(b"nothing") };
    let unknown = NodeId(77);
    let frame = b"PILSframe";
    let mut survey = emitted(&Message::Survey { token: 1, from: ReplyFrom::Here });
    assert_eq!(survey.len(), SURVEY_LEN);
    survey[9] = 1;
    let mut questions: Vec<(&str, Vec<u8>)> = vec![
        ("discover of ours", emitted(&Message::Discover { node: A, key, proof: None })),
        (
            "discover of nobody, of ours",
            emitted(&Message::Discover { node: NodeId::UNSET, key, proof: None }),
        ),
        (
            "discover of one not known, of ours",
            emitted(&Message::Discover { node: unknown, key, proof: None }),
        ),
        ("discover with a wrong proof", emitted(&Message::Discover { node: A, key, proof: Some(proof) })),
        ("discover ex with a key", emitted(&Message::DiscoverEx { node: unknown, key })),
        ("punch request", emitted(&Message::PunchRequest { requester: A, target: B, grant: None })),
        (
            "punch by one not known",
            emitted(&Message::PunchRequest { requester: unknown, target: B, grant: None }),
        ),
        ("frame in another's name", emitted(&Message::Relay { source: A, destination: B, frame })),
        ("frame of one not known", emitted(&Message::Relay { source: unknown, destination: B, frame: b"" })),
        ("frame to oneself", emitted(&Message::Relay { source: unknown, destination: unknown, frame: b"" })),
        ("survey", emitted(&Message::Survey { token: 1, from: ReplyFrom::Here })),
        ("survey of the other port", survey),
        (
            "survey of the other address",
            emitted(&Message::Survey { token: 1, from: ReplyFrom::OtherAddress }),
        ),
        ("sync", emitted(&Message::Sync { beacon: 1, nodes: vec![A] })),
        ("mesh", vec![pilot_wire::mesh::TYPE; 46]),
        ("frame of the tunnel", b"PILS".to_vec()),
    ];
    for kind in 0..=u8::MAX {
        questions.push(("one byte", vec![kind]));
    }
    let released: Vec<(&str, Vec<u8>)> = vec![
        ("discover", discover(A)),
        ("discover of nobody", discover(NodeId::UNSET)),
        ("discover ex", emitted(&Message::DiscoverEx { node: unknown, key: None })),
    ];
    let now = Instant::now();
    let long_answers = Rate { burst: 10, per_second: 1.0 };
    for from in [FORGED, FORGED_V6] {
        for (name, question) in questions.iter().chain(&released) {
            let is_released = released.iter().any(|(other, _)| other == name);
            let mut state = beacon(Config { long_answers, ..Config::default() }, now);
            state.has_key(now, A, identity.public());
            state.set_ears(Ears { second_port: Some(9002), second_addr: Some(addr("[2001:db8::2]:9001")) });
            let (mut asked, mut answered) = (0, 0);
            for _ in 0..100 {
                asked += question.len();
                state.handle_datagram(now, addr(from), question);
                let out = sent(&mut state);
                assert!(out.iter().all(|(to, _)| *to == addr(from)), "{name}: others are told");
                answered += out.iter().map(|(_, out)| out.len()).sum::<usize>();
                if !is_released {
                    assert!(answered <= asked, "{name} from {from}: {answered} bytes for {asked}");
                }
            }
            // The discover of released nodes is shorter than the answer that it must have: a few are answered.
            assert!(answered <= asked, "{name} from {from}: {answered} bytes for {asked}");
        }
    }
    // The other sockets answer surveys only.
    let mut state = beacon(Config::default(), now);
    for (_, question) in questions.iter().chain(&released) {
        state.handle_elsewhere(now, Ear::SecondPort, addr(FORGED_V6), question);
        let answered: usize = sent(&mut state).iter().map(|(_, out)| out.len()).sum();
        assert!(answered <= question.len());
    }
}

#[test]
fn who_is_known_at_an_address_is_answered_there_however_often() {
    let now = Instant::now();
    let long_answers = Rate { burst: 1, per_second: 0.1 };
    let mut state = beacon(Config { long_answers, ..Config::default() }, now);
    for _ in 0..100 {
        state.handle_datagram(now, addr(HOME_A), &discover(A));
    }
    assert_eq!(sent(&mut state).len(), 100);
}

#[test]
fn a_flood_of_forged_numbers_and_addresses_leaves_nodes_and_relaying_alone() {
    let mut now = Instant::now();
    let identity = Identity::from_seed(&[4; 32]);
    let config = Config { max_nodes: 1000, ..Config::default() };
    let mut state = beacon(config, now);
    // One has proved who it is, from an address it did not register from; one is on the web.
    let (proven, web) = (NodeId(3), NodeId(4));
    let roaming = addr("198.51.100.30:3000");
    state.has_key(now, proven, identity.public());
    let key = Some(identity.public());
    state.handle_datagram(now, roaming, &emitted(&Message::Discover { node: proven, key, proof: None }));
    let nonce = sent(&mut state)
        .iter()
        .find_map(|(_, out)| match Message::parse(out) {
            Ok(Message::Challenge { nonce }) => Some(nonce),
            Ok(_) | Err(_) => None,
        })
        .expect("a challenge");
    let signature = identity.sign(&DiscoverProof::signed_bytes(proven, &nonce));
    let proof = Some(DiscoverProof { nonce, signature });
    state.handle_datagram(now, roaming, &emitted(&Message::Discover { node: proven, key, proof }));
    assert_eq!(state.web_opened(now, WebId(1), web), None);
    sent(&mut state);

    let mut relayed = 0;
    for number in 0..50_000_u32 {
        now += Duration::from_micros(20);
        let [_, high, middle, low] = number.to_be_bytes();
        let from = SocketAddr::from(([10 + high, middle, low, 1], 1000));
        let node = NodeId(100 + number);
        let forged = match number % 5 {
            0 | 1 => discover(node),
            2 => emitted(&Message::Discover { node, key, proof: None }),
            3 => emitted(&Message::PunchRequest { requester: node, target: A, grant: None }),
            _ => emitted(&Message::Relay {
                source: [A, proven][number as usize % 2],
                destination: B,
                frame: b"x",
            }),
        };
        state.handle_datagram(now, from, &forged);
        if number % 50 == 0 {
            sent(&mut state);
            state.handle_datagram(now, addr(HOME_A), &train(A, proven, 1, 100));
            let out = sent(&mut state);
            relayed += out.iter().filter(|(to, out)| *to == roaming && out[0] == 6).count();
        }
        assert!(state.len() <= 1000);
    }
    assert_eq!(relayed, 1000, "no frame is lost");
    for (from, source, to) in [(roaming, proven, B), (addr(HOME_B), B, A), (addr(HOME_A), A, web)] {
        sent(&mut state);
        state.handle_datagram(now, from, &train(source, to, 1, 100));
        assert!(sent(&mut state).iter().any(|(_, out)| out[0] == 6), "{source} to {to}");
    }
}

#[test]
fn a_table_full_of_nodes_that_something_speaks_for_takes_no_claims() {
    let now = Instant::now();
    let mut state = beacon(Config { max_nodes: 2, ..Config::default() }, now);
    state.handle_datagram(now, addr(FORGED), &discover(NodeId(9)));
    sent(&mut state);
    state.handle_datagram(now, addr(HOME_A), &train(A, B, 1, 100));
    assert_eq!(sent(&mut state).first().map(|(to, _)| *to), Some(addr(HOME_B)));
    // One that registered from where it is does.
    state.registered(NodeId(9), addr(FORGED).ip());
    state.handle_datagram(now, addr(FORGED), &discover(NodeId(9)));
    assert_eq!(state.len(), 2);
}

#[test]
fn a_beacon_that_is_told_no_keys_asks_for_them_within_bounds() {
    let now = Instant::now();
    let identity = Identity::from_seed(&[5; 32]);
    let key = Some(identity.public());
    let mut state = State::new(Config { asks_keys: true, ..Config::default() });
    let ask = |state: &mut State| std::iter::from_fn(|| state.poll_wanted()).collect::<Vec<_>>();
    for _ in 0..3 {
        state.handle_datagram(now, addr(HOME_A), &emitted(&Message::Discover { node: A, key, proof: None }));
    }
    assert_eq!(ask(&mut state), [A]);
    sent(&mut state);
    state.has_key(now, A, identity.public());
    assert_eq!(sent(&mut state).first().map(|(_, out)| out[0]), Some(0x0E), "then it is challenged");
    for number in 0..20_000 {
        state.handle_datagram(now, addr(FORGED), &discover(NodeId(1000 + number)));
    }
    assert!(ask(&mut state).len() <= 4096);
    state.handle_datagram(now + Duration::from_secs(11), addr(HOME_B), &discover(B));
    assert_eq!(ask(&mut state), [B], "and it goes on");
}
