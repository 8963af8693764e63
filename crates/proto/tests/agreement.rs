//! Keys of the moment between two nodes (docs/handshake.md), and whoever stands in between.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it says")]
#![expect(clippy::wildcard_enum_match_arm, reason = "of many events a test looks for one")]

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pilot_crypto::Identity;
use pilot_proto::node::Drop;
use pilot_proto::trust::{Book, Trusted};
use pilot_proto::{Answer, Config, Event, KeyAgreement, Location, Node, PeerEvent, Query, Read, StreamEvent};
use pilot_wire::tunnel::{Extension, Frame, KEY_EXCHANGE_LEN, KeyExchange, emit_key_request, signed_bytes};
use pilot_wire::{Addr, AgreementPublic, NodeId, Port, StreamId};

const A: usize = 0;
const B: usize = 1;
const SERVICE: Port = Port(1000);

fn id(index: usize) -> NodeId {
    NodeId(index as u32 + 1)
}

fn addr(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 4000))
}

fn identity(index: usize) -> Identity {
    Identity::from_seed(&[index as u8 + 1; 32])
}

/// Some instant to count from; the only reading of the clock here.
#[expect(clippy::disallowed_methods, reason = "an `Instant` can be had from the clock only")]
fn start() -> Instant {
    let clock = Instant::now;
    clock()
}

/// What the one in between does with a datagram: whose it is and what it is, and what arrives.
type Between = fn(usize, Vec<u8>) -> Option<Vec<u8>>;

fn honest(_: usize, datagram: Vec<u8>) -> Option<Vec<u8>> {
    Some(datagram)
}

/// Takes away what older nodes do not have.
fn strips(_: usize, mut datagram: Vec<u8>) -> Option<Vec<u8>> {
    if datagram.starts_with(b"PILA") {
        datagram.truncate(KEY_EXCHANGE_LEN);
    }
    Some(datagram)
}

/// Two friends, a registry that answers at once, and somebody in between.
struct World {
    now: Instant,
    nodes: Vec<Node>,
    events: Vec<VecDeque<Event>>,
    wire: Vec<(usize, Vec<u8>)>,
    between: Between,
    /// Where each is.
    places: [SocketAddr; 2],
    agreements: [KeyAgreement; 2],
}

impl World {
    fn new() -> Self {
        Self::of([KeyAgreement::OfTheMoment; 2])
    }

    fn of(agreements: [KeyAgreement; 2]) -> Self {
        let now = start();
        let mut world = Self {
            now,
            nodes: Vec::new(),
            events: vec![VecDeque::new(); 2],
            wire: Vec::new(),
            between: honest,
            places: [addr(A), addr(B)],
            agreements,
        };
        for (index, agreement) in agreements.into_iter().enumerate() {
            world.nodes.push(node(index, index as u8 + 1, now, agreement));
        }
        world
    }

    /// The process begins another life, and remembers what is written down.
    fn restart(&mut self, index: usize, seed: u8) {
        self.nodes[index] = node(index, seed, self.now, self.agreements[index]);
        let agreed = |event: &Event| match event {
            Event::Peer(peer, PeerEvent::Agreed(key)) => Some((*peer, *key)),
            _ => None,
        };
        let remembered: Vec<_> = self.events[index].iter().filter_map(agreed).collect();
        for (peer, key) in remembered {
            self.nodes[index].remember_agreement(peer, key);
        }
    }

    /// Everything that happens at this moment.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut idle = true;
            for index in [A, B] {
                let mut buffer = Vec::new();
                while let Some(transmit) = self.nodes[index].poll_transmit(self.now, &mut buffer, 16) {
                    idle = false;
                    for datagram in buffer.chunks(transmit.segment_size) {
                        self.wire.push((index, datagram.to_vec()));
                        let (from, other) = (self.places[index], 1 - index);
                        let arrives = (self.between)(index, datagram.to_vec());
                        if let Some(mut datagram) = arrives
                            && transmit.destination == self.places[other]
                        {
                            self.nodes[other].handle_datagram(self.now, from, &mut datagram);
                        }
                    }
                    buffer.clear();
                }
                while let Some((query_id, query)) = self.nodes[index].poll_query() {
                    idle = false;
                    self.nodes[index].handle_answer(self.now, query_id, answer(&query));
                }
                while let Some(event) = self.nodes[index].poll_event() {
                    idle = false;
                    self.events[index].push_back(event);
                }
            }
            if idle {
                return;
            }
        }
        panic!("the two keep each other busy");
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.settle();
            let next = self.nodes.iter().filter_map(Node::poll_timeout).min();
            let Some(next) = next.filter(|at| *at <= until) else { break };
            self.now = self.now.max(next);
            for node in &mut self.nodes {
                node.handle_timeout(self.now);
            }
        }
        self.now = until;
        self.settle();
    }

    fn dial(&mut self, from: usize, to: usize) -> StreamId {
        let to = Addr::backbone(id(to)).port(SERVICE);
        let stream = self.nodes[from].dial(self.now, to).unwrap();
        self.settle();
        stream
    }

    /// Whether a word of `from` reaches the other side on a new stream within a second.
    fn talks(&mut self, from: usize) -> bool {
        let (to, word) = (1 - from, Bytes::from_static(b"word"));
        let stream = self.dial(from, to);
        let _ = self.nodes[from].write(self.now, stream, word.clone());
        self.pass(Duration::from_secs(1));
        let incoming = self.events[to].iter().rev().find_map(|event| match event {
            Event::Stream(stream, StreamEvent::Incoming { .. }) => Some(*stream),
            _ => None,
        });
        self.events[to].retain(|event| !matches!(event, Event::Stream(..)));
        incoming.is_some_and(|stream| matches!(self.nodes[to].read(self.now, stream, 100), Ok(Read::Data(data)) if data == word))
    }

    fn saw(&self, index: usize, wanted: PeerEvent) -> bool {
        self.events[index].contains(&Event::Peer(id(1 - index), wanted))
    }

    /// What the nonces of a node's frames began with, in order.
    fn prefixes(&self, of: usize) -> Vec<[u8; 4]> {
        let mut seen = Vec::new();
        for (from, datagram) in &self.wire {
            if let (true, Ok(Frame::Sealed { nonce, .. })) = (*from == of, Frame::parse(datagram))
                && seen.last() != Some(&nonce.prefix)
            {
                seen.push(nonce.prefix);
            }
        }
        seen
    }

    fn exchanges(&self) -> usize {
        self.wire.iter().filter(|(_, datagram)| datagram.starts_with(b"PILA")).count()
    }
}

fn node(index: usize, seed: u8, now: Instant, agreement: KeyAgreement) -> Node {
    let mut node = Node::new(Config { agreement, ..Config::new(identity(index), [seed; 32]) }, now);
    node.set_node(now, id(index));
    node.listen(SERVICE).unwrap();
    let other = 1 - index;
    let trusted = Trusted { key: Some(identity(other).public()), since: 0, mutual: true };
    node.restore_trust(Book::restore([(id(other), trusted)], [], [], []));
    node
}

fn answer(query: &Query) -> Answer {
    let index = |node: &NodeId| node.0 as usize - 1;
    match query {
        Query::Resolve(node) => {
            let public = Some(addr(index(node)));
            Answer::Resolved(Ok(Location { public, ..Location::default() }))
        }
        Query::PeerKey(node) => Answer::PeerKey(Ok(identity(index(node)).public())),
        Query::CheckTrust(_) => Answer::Trusted(Ok(true)),
        Query::RequestHandshake { .. }
        | Query::RespondHandshake { .. }
        | Query::ReportTrust(_)
        | Query::RevokeTrust(_) => Answer::Done(Ok(())),
    }
}

fn said(datagram: &[u8]) -> Option<Extension> {
    match Frame::parse(datagram) {
        Ok(Frame::KeyExchange(exchange)) => Some(Extension::parse(exchange.trailer)),
        _ => None,
    }
}

#[test]
fn two_nodes_of_this_make_agree_in_two_messages_and_remember_it() {
    let mut world = World::new();
    assert!(world.talks(A));
    let said: Vec<_> = world.wire.iter().filter_map(|(_, datagram)| said(datagram)).collect();
    assert!(matches!(said[..], [Extension::Initiation { .. }, Extension::Answer { .. }]), "{said:?}");
    assert!(world.wire.iter().all(|(_, datagram)| !datagram.starts_with(b"PILA") || datagram.len() <= 200));
    for index in [A, B] {
        assert!(world.saw(index, PeerEvent::Agreed(identity(1 - index).public())));
    }
    assert!(world.talks(B));
    assert_eq!(world.exchanges(), 2, "once is enough");
}

#[test]
fn a_node_of_an_earlier_release_is_talked_to_as_it_wants_from_either_side() {
    for agreements in [
        [KeyAgreement::OfTheMoment, KeyAgreement::AsShown],
        [KeyAgreement::AsShown, KeyAgreement::OfTheMoment],
    ] {
        for from in [A, B] {
            let mut world = World::of(agreements);
            assert!(world.talks(from), "{agreements:?} from {from}");
            assert!(world.talks(1 - from), "{agreements:?} back to {from}");
            assert!(!world.events.iter().flatten().any(is_agreed));
        }
    }
}

fn is_agreed(event: &Event) -> bool {
    matches!(event, Event::Peer(_, PeerEvent::Agreed(_)))
}

#[test]
fn whoever_strips_the_agreement_gains_something_at_first_contact_only() {
    let mut world = World::new();
    world.between = strips;
    assert!(world.talks(A), "they take each other for nodes of an earlier release");
    assert!(!world.events.iter().flatten().any(is_agreed));

    // He looks away once, and both know.
    world.between = honest;
    world.restart(A, 11);
    world.restart(B, 12);
    assert!(world.talks(A));
    assert!(world.events.iter().all(|events| events.iter().any(is_agreed)));

    world.between = strips;
    world.restart(A, 21);
    world.restart(B, 22);
    assert!(!world.talks(A), "nothing goes under lesser keys");
    assert!(!world.talks(B));
    for index in [A, B] {
        assert!(world.saw(index, PeerEvent::Downgraded));
        assert!(world.nodes[index].stats().dropped(Drop::Downgraded) > 0);
    }
    world.between = honest;
    world.pass(Duration::from_secs(70));
    assert!(world.talks(A), "and all is well when he is gone");
}

#[test]
fn whoever_trusts_anew_may_meet_an_earlier_release() {
    let mut world = World::new();
    assert!(world.talks(A));
    let now = world.now;
    world.nodes[A].revoke(now, 1000, id(B)).unwrap();
    let trusted = Trusted { key: Some(identity(B).public()), since: 0, mutual: true };
    world.nodes[A].restore_trust(Book::restore([(id(B), trusted)], [], [], []));
    world.nodes[B] = node(B, 33, now, KeyAgreement::AsShown);
    assert!(world.talks(A));
}

#[test]
fn keys_that_are_used_are_replaced_after_two_minutes_and_nothing_is_lost() {
    let mut world = World::new();
    let stream = world.dial(A, B);
    let mut wrote = Vec::new();
    let mut got = Vec::new();
    let mut incoming = None;
    for second in 0..400_u32 {
        let text = Bytes::from(second.to_be_bytes().to_vec());
        wrote.extend_from_slice(&text);
        assert_eq!(world.nodes[A].write(world.now, stream, text), Ok(4));
        world.pass(Duration::from_secs(1));
        incoming = incoming.or_else(|| {
            world.events[B].iter().find_map(|event| match event {
                Event::Stream(stream, StreamEvent::Incoming { .. }) => Some(*stream),
                _ => None,
            })
        });
        while let Ok(Read::Data(data)) = world.nodes[B].read(world.now, incoming.unwrap(), 100) {
            got.extend_from_slice(&data);
        }
    }
    assert_eq!(got, wrote);
    let kinds: BTreeSet<_> = world.prefixes(A).into_iter().collect();
    assert_eq!(kinds.len(), 4, "400 seconds: three changes");
    assert_eq!(world.exchanges(), 8);
    let stats = world.nodes[A].streams().find(|view| view.id == stream).unwrap().stats;
    assert_eq!(stats.retransmits, 0);
    let established = |event: &&Event| matches!(event, Event::Peer(_, PeerEvent::Established { .. }));
    assert_eq!(world.events[A].iter().filter(established).count(), 1, "nobody need hear of a routine change");
}

#[test]
fn keys_that_nobody_uses_stay() {
    let mut world = World::new();
    assert!(world.talks(A));
    // What was said in the first minutes is closed off once; signs of life alone need no new keys.
    world.pass(Duration::from_secs(150));
    let after_use = world.exchanges();
    assert_eq!(after_use, 4);
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.exchanges(), after_use);
}

#[test]
fn a_recorded_initiation_changes_nothing() {
    let mut world = World::new();
    assert!(world.talks(A));
    let recorded: Vec<_> = world.wire.clone();
    let before = world.prefixes(A);
    for (from, datagram) in recorded.iter().filter(|(_, datagram)| datagram.starts_with(b"PILA")) {
        for _ in 0..50 {
            let (to, now) = (1 - from, world.now);
            world.nodes[to].handle_datagram(now, addr(*from), &mut datagram.clone());
            world.nodes[to].handle_datagram(now, SocketAddr::from(([6, 6, 6, 6], 6)), &mut datagram.clone());
        }
    }
    world.settle();
    assert!(world.talks(A) && world.talks(B));
    assert_eq!(world.prefixes(A), before, "the keys are those of before");
}

#[test]
fn a_recording_at_first_contact_does_not_keep_the_two_apart() {
    for victim in [A, B] {
        let mut world = World::new();
        assert!(world.talks(1 - victim));
        let recorded = world.wire.clone();
        // The victim starts anew and hears the recording first.
        world.restart(victim, 44);
        for (_, datagram) in recorded.iter().filter(|(from, _)| *from != victim) {
            let now = world.now;
            world.nodes[victim].handle_datagram(now, addr(1 - victim), &mut datagram.clone());
        }
        assert!(world.talks(victim), "victim {victim}");
        assert!(world.talks(1 - victim), "victim {victim}");
    }
}

#[test]
fn both_may_begin_at_once() {
    let mut world = World::new();
    let to = |index| Addr::backbone(id(index)).port(SERVICE);
    let now = world.now;
    world.nodes[A].dial(now, to(B)).unwrap();
    world.nodes[B].dial(now, to(A)).unwrap();
    world.pass(Duration::from_secs(1));
    let incoming = |event: &Event| matches!(event, Event::Stream(_, StreamEvent::Incoming { .. }));
    for index in [A, B] {
        assert!(world.events[index].iter().any(incoming));
        assert!(world.prefixes(index).len() <= 2, "{:?}", world.prefixes(index));
    }
    assert!(world.talks(A) && world.talks(B));
}

#[test]
fn forged_answers_cost_nothing_and_change_nothing() {
    let mut world = World::new();
    // B hears nothing, so what A begins stays without an answer.
    world.between = |_, _| None;
    world.dial(A, B);
    let begun = world.wire.iter().find_map(|(_, datagram)| match said(datagram)? {
        Extension::Initiation { message, .. } => Some(message),
        _ => None,
    });
    let to = begun.unwrap()[..4].try_into().unwrap();
    let signed_by_b = |extension: Extension| {
        let agreement = AgreementPublic::from_bytes([9; 32]);
        let signature = identity(B).sign(&signed_bytes(id(B), &agreement));
        let mut frame = Vec::new();
        let identity = identity(B).public();
        KeyExchange { sender: id(B), agreement, identity, signature, trailer: &[] }.emit(&mut frame);
        extension.emit(&mut frame);
        frame
    };
    let now = world.now;
    for guess in 0..=255 {
        let extension = Extension::Answer { to, message: [guess; 56] };
        world.nodes[A].handle_datagram(now, addr(B), &mut signed_by_b(extension));
    }
    world.settle();
    assert!(!world.events[A].iter().any(|event| matches!(event, Event::Peer(..))));
    world.between = honest;
    world.pass(Duration::from_secs(2));
    assert!(world.talks(A));
}

#[test]
fn under_a_flood_whoever_receives_what_is_sent_to_it_gets_through() {
    let mut world = World::new();
    // Initiations in A's name from everywhere: each would cost a signature and four agreements.
    let mut flood = Vec::new();
    let agreement = AgreementPublic::from_bytes([9; 32]);
    let signature = identity(A).sign(&signed_bytes(id(A), &agreement));
    KeyExchange { sender: id(A), agreement, identity: identity(A).public(), signature, trailer: &[] }
        .emit(&mut flood);
    Extension::Initiation { message: [7; 56], cookie: None }.emit(&mut flood);
    let mut number = 0_u32;
    let mut pour = |world: &mut World, count: u32| {
        for _ in 0..count {
            number += 1;
            let [_, b, c, d] = number.to_be_bytes();
            let from = SocketAddr::from(([11, b, c, d], 1000));
            // Each is new.
            let mut datagram = flood.clone();
            datagram[KEY_EXCHANGE_LEN + 4..KEY_EXCHANGE_LEN + 8].copy_from_slice(&number.to_be_bytes());
            let now = world.now;
            world.nodes[B].handle_datagram(now, from, &mut datagram);
            let mut buffer = Vec::new();
            while world.nodes[B]
                .poll_transmit(now, &mut buffer, 1)
                .is_some_and(|sent| sent.destination != addr(A))
            {
                assert!(buffer.len() <= flood.len(), "an answer is no longer than the question");
                buffer.clear();
            }
        }
    };
    // All the time that there is for strangers at this moment, and more.
    pour(&mut world, 600);
    let stream = world.dial(A, B);
    assert!(world.events[A].contains(&Event::Stream(stream, StreamEvent::Established)));
    let dropped = world.nodes[B].stats().dropped(Drop::TooMany);
    assert!(dropped > 300, "{dropped}");
    let cookies =
        |datagram: &[u8]| matches!(said(datagram), Some(Extension::Initiation { cookie: Some(_), .. }));
    assert!(world.wire.iter().any(|(from, datagram)| *from == A && cookies(datagram)));
}

/// Of what A sends, only its answers to exchanges arrive.
fn brings_answers_of_a(from: usize, datagram: Vec<u8>) -> Option<Vec<u8>> {
    let passes = from != A || matches!(said(&datagram), Some(Extension::Answer { .. }));
    passes.then_some(datagram)
}

#[test]
fn the_first_frame_under_renewed_keys_shows_that_its_sender_is_there() {
    let mut world = World::new();
    let stream = world.dial(B, A);
    let _ = world.nodes[B].write(world.now, stream, Bytes::from_static(b"word"));
    world.pass(Duration::from_secs(1));
    let elsewhere = SocketAddr::from(([10, 0, 0, 99], 4000));
    world.places[B] = elsewhere;
    // The few packets that an address may have which did not answer are lost, and all that would follow.
    world.between = brings_answers_of_a;
    let _ = world.nodes[B].write(world.now, stream, Bytes::from_static(b"another"));
    world.pass(Duration::from_secs(20));
    assert!(world.saw(A, PeerEvent::Direct(elsewhere)));
    world.between = honest;
    world.pass(Duration::from_secs(10));
    assert!(world.talks(A));
}

/// Both are killed at once. What was under way arrives at one that shows its key already.
#[test]
fn what_was_sealed_in_an_earlier_life_uses_up_none_of_the_few_packets() {
    let mut world = World::of([KeyAgreement::AsShown; 2]);
    assert!(world.talks(B));
    let late: Vec<Vec<u8>> =
        world.wire.drain(..).filter(|(from, _)| *from == B).map(|(_, sealed)| sealed).collect();
    let late = late.iter().filter(|datagram| datagram.starts_with(b"PILS")).take(2);
    world.restart(A, 11);
    world.restart(B, 12);
    world.between = |_, _| None;
    world.dial(A, B);
    for datagram in late {
        world.nodes[A].handle_datagram(world.now, addr(B), &mut datagram.clone());
        world.settle();
    }
    assert_eq!(world.exchanges(), 1);
    world.between = honest;
    assert!(world.talks(A));
}

#[test]
fn who_asks_in_a_peers_name_does_not_keep_the_peer_from_its_answer() {
    let mut world = World::new();
    assert!(world.talks(A));
    let mut request = Vec::new();
    emit_key_request(id(B), &AgreementPublic::from_bytes([9; 32]), &mut request);
    let mut asked = |from: SocketAddr| {
        world.nodes[A].handle_datagram(world.now, from, &mut request.clone());
        let mut shown = Vec::new();
        let mut buffer = Vec::new();
        while let Some(transmit) = world.nodes[A].poll_transmit(world.now, &mut buffer, 16) {
            if buffer.starts_with(b"PILA") {
                shown.push(transmit.destination);
            }
            buffer.clear();
        }
        shown
    };
    let elsewhere = SocketAddr::from(([10, 0, 0, 99], 4000));
    assert_eq!(asked(elsewhere), [elsewhere]);
    let everywhere = (0..100).flat_map(|last| asked(SocketAddr::from(([10, 0, 1, last], 4000))));
    assert!(everywhere.count() < 10, "to places that others name little is sent");
    assert_eq!(asked(addr(B)), [addr(B)]);
    assert_eq!(asked(addr(B)), [], "it was shown a moment ago");
}

/// An initiation in a node's name, signed by an identity, unlike any other.
fn initiation(sender: NodeId, identity: &Identity, number: u32) -> Vec<u8> {
    let agreement = AgreementPublic::from_bytes([9; 32]);
    let signature = identity.sign(&signed_bytes(sender, &agreement));
    let mut message = [7; 56];
    message[..4].copy_from_slice(&number.to_be_bytes());
    let mut frame = Vec::new();
    KeyExchange { sender, agreement, identity: identity.public(), signature, trailer: &[] }.emit(&mut frame);
    Extension::Initiation { message, cookie: None }.emit(&mut frame);
    frame
}

#[test]
fn a_flood_of_strangers_is_no_flood_of_questions() {
    let mut world = World::new();
    let (now, stranger) = (world.now, Identity::from_seed(&[77; 32]));
    let (mut asked, mut sent) = (0, 0);
    for number in 0..20_000_u32 {
        let [_, b, c, d] = number.to_be_bytes();
        let from = SocketAddr::from(([11, b, c, d], 1000));
        let mut datagram = initiation(NodeId(1000 + number), &stranger, number);
        world.nodes[B].handle_datagram(now, from, &mut datagram);
        // The registry is quick.
        while let Some((query, question)) = world.nodes[B].poll_query() {
            asked += 1;
            assert!(matches!(question, Query::CheckTrust(_)));
            world.nodes[B].handle_answer(now, query, Answer::Trusted(Ok(false)));
        }
        let mut buffer = Vec::new();
        while world.nodes[B].poll_transmit(now, &mut buffer, 1).is_some() {
            sent += 1;
        }
    }
    assert_eq!((asked, sent), (512, 512), "questions, and cookies");
    // Whoever is known is asked nothing about.
    assert!(world.talks(A));
}

#[test]
fn of_a_flood_in_a_friends_name_little_is_looked_into() {
    let mut world = World::new();
    let (now, stranger) = (world.now, Identity::from_seed(&[77; 32]));
    let mut events = 0;
    for number in 0..2_000_u32 {
        let [_, b, c, d] = number.to_be_bytes();
        let mut datagram = initiation(id(A), &stranger, number);
        world.nodes[B].handle_datagram(now, SocketAddr::from(([11, b, c, d], 1000)), &mut datagram);
        while let Some(event) = world.nodes[B].poll_event() {
            assert_eq!(event, Event::Peer(id(A), PeerEvent::KeyMismatch(stranger.public())));
            events += 1;
        }
    }
    assert_eq!(events, 4);
    assert!(world.nodes[B].stats().dropped(Drop::WrongKey) >= 2_000 - 4);
    assert!(world.talks(A));
}
