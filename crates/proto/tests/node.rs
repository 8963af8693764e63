//! Two or three nodes and nothing between them but a list of datagrams.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it says")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pilot_crypto::Identity;
use pilot_proto::tap::Seen;
use pilot_proto::trust::{Book, Trusted};
use pilot_proto::{
    Answer, Closed, Config, DialError, Event, KeyAgreement, Location, Node, PeerEvent, Query, QueryError,
    Read, StreamEvent, TrustEvent, Visibility, node,
};
use pilot_wire::capture::{Carrier, Direction, Filter};
use pilot_wire::packet::Packet;
use pilot_wire::{Addr, NodeId, Port, StreamId};

const A: usize = 0;
const B: usize = 1;
const SERVICE: Port = Port(1000);

/// Nodes that reach each other at once, and a registry that answers at once.
struct World {
    now: Instant,
    nodes: Vec<Node>,
    events: Vec<VecDeque<Event>>,
    /// Everything that was sent: from, to, bytes.
    wire: Vec<(usize, SocketAddr, Vec<u8>)>,
    resolvable: bool,
    /// Questions to the registry.
    queries: usize,
    /// Who hears nothing any more.
    dead: Option<usize>,
    agreement: KeyAgreement,
}

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

fn node(index: usize, seed: u8, now: Instant, agreement: KeyAgreement) -> Node {
    let mut node = Node::new(Config { agreement, ..Config::new(identity(index), [seed; 32]) }, now);
    node.set_node(now, id(index));
    node.listen(SERVICE).unwrap();
    node
}

impl World {
    fn new(count: usize) -> Self {
        Self::agreeing(count, KeyAgreement::OfTheMoment)
    }

    fn agreeing(count: usize, agreement: KeyAgreement) -> Self {
        let now = start();
        Self {
            now,
            nodes: (0..count).map(|index| node(index, index as u8 + 1, now, agreement)).collect(),
            events: vec![VecDeque::new(); count],
            wire: Vec::new(),
            resolvable: true,
            queries: 0,
            dead: None,
            agreement,
        }
    }

    fn trusting() -> Self {
        Self::new(2).befriended()
    }

    /// As two nodes of release 1.18.0.
    fn as_shown() -> Self {
        Self::agreeing(2, KeyAgreement::AsShown).befriended()
    }

    fn befriended(mut self) -> Self {
        let world = &mut self;
        world.trust(A, B);
        world.trust(B, A);
        self
    }

    fn trust(&mut self, who: usize, whom: usize) {
        let trusted = Trusted { key: Some(identity(whom).public()), since: 0, mutual: true };
        self.nodes[who].restore_trust(Book::restore([(id(whom), trusted)], [], [], []));
    }

    fn restart(&mut self, index: usize, seed: u8) {
        let book = self.nodes[index].trust().clone();
        self.nodes[index] = node(index, seed, self.now, self.agreement);
        self.nodes[index].restore_trust(book);
        self.events[index].clear();
    }

    fn answer(&self, query: &Query) -> Answer {
        match query {
            Query::Resolve(node) if self.resolvable => Answer::Resolved(Ok(Location {
                public: Some(addr(node.0 as usize - 1)),
                ..Location::default()
            })),
            Query::Resolve(_) => Answer::Resolved(Err(QueryError::Denied)),
            Query::PeerKey(node) => Answer::PeerKey(Ok(identity(node.0 as usize - 1).public())),
            Query::CheckTrust(_) => Answer::Trusted(Ok(false)),
            Query::RequestHandshake { .. }
            | Query::RespondHandshake { .. }
            | Query::ReportTrust(_)
            | Query::RevokeTrust(_) => Answer::Done(Ok(())),
        }
    }

    /// Carries datagrams and answers until nobody has any. Returns how many datagrams were sent.
    fn settle(&mut self) -> usize {
        let (before, asked) = (self.wire.len(), self.queries);
        let mut busy = true;
        while busy {
            busy = false;
            for index in 0..self.nodes.len() {
                let mut out = Vec::new();
                while let Some(transmit) = self.nodes[index].poll_transmit(self.now, &mut out, 16) {
                    busy = true;
                    for datagram in out.chunks(transmit.segment_size) {
                        self.wire.push((index, transmit.destination, datagram.to_vec()));
                        self.deliver(addr(index), transmit.destination, datagram);
                    }
                    out.clear();
                }
                while let Some((query_id, query)) = self.nodes[index].poll_query() {
                    busy = true;
                    self.queries += 1;
                    assert!(self.queries - asked < 10_000, "a storm of questions");
                    let answer = self.answer(&query);
                    self.nodes[index].handle_answer(self.now, query_id, answer);
                }
                while let Some(event) = self.nodes[index].poll_event() {
                    self.events[index].push_back(event);
                }
            }
            assert!(self.wire.len() - before < 100_000, "a storm");
        }
        self.wire.len() - before
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let receiver = (0..self.nodes.len()).find(|&index| addr(index) == to);
        if let Some(receiver) = receiver.filter(|&receiver| self.dead != Some(receiver)) {
            self.nodes[receiver].handle_datagram(self.now, from, &mut datagram.to_vec());
        }
    }

    fn sent_by(&self, index: usize) -> usize {
        self.wire.iter().filter(|(from, _, _)| *from == index).count()
    }

    /// What a node sends now, without delivering it.
    fn take_datagrams(&mut self, index: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut out = Vec::new();
        while let Some(transmit) = self.nodes[index].poll_transmit(self.now, &mut out, 16) {
            all.extend(out.chunks(transmit.segment_size).map(<[u8]>::to_vec));
            out.clear();
        }
        all
    }

    /// Lets time pass, with every timer at its moment.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let next = self.nodes.iter().filter_map(Node::poll_timeout).min();
            match next.filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => break,
            }
            for node in &mut self.nodes {
                node.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn dial(&mut self, from: usize, to: usize) -> StreamId {
        let now = self.now;
        self.nodes[from].dial(now, Addr::backbone(id(to)).port(SERVICE)).unwrap()
    }

    fn incoming(&mut self, index: usize) -> Option<StreamId> {
        self.events[index].iter().find_map(|event| {
            if let Event::Stream(stream, StreamEvent::Incoming { .. }) = event { Some(*stream) } else { None }
        })
    }

    fn closed(&self, index: usize, stream: StreamId) -> Option<&Closed> {
        self.events[index].iter().find_map(|event| {
            if let Event::Stream(id, StreamEvent::Closed(closed)) = event
                && *id == stream
            {
                Some(closed)
            } else {
                None
            }
        })
    }

    fn write(&mut self, index: usize, stream: StreamId, data: &'static [u8]) {
        let now = self.now;
        assert_eq!(self.nodes[index].write(now, stream, Bytes::from_static(data)), Ok(data.len()));
    }

    fn read(&mut self, index: usize, stream: StreamId) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok(Read::Data(data)) = self.nodes[index].read(self.now, stream, 1 << 20) {
            all.extend_from_slice(&data);
        }
        all
    }
}

#[test]
fn two_trusting_nodes_exchange_bytes_without_any_timer() {
    let mut world = World::trusting();
    let dialled = world.dial(A, B);
    world.write(A, dialled, b"hello");
    world.settle();
    let accepted = world.incoming(B).unwrap();
    assert_eq!(world.read(B, accepted), b"hello");
    world.write(B, accepted, b"hello to you");
    world.settle();
    assert_eq!(world.read(A, dialled), b"hello to you");
}

#[test]
fn whoever_watches_sees_what_goes_and_comes_in_clear_and_no_frame() {
    let mut world = World::trusting();
    let filter = Filter { peer: Some(id(B)), port: Some(SERVICE) };
    let tap = world.nodes[A].add_tap(filter).unwrap();
    let dialled = world.dial(A, B);
    world.write(A, dialled, b"hello");
    world.settle();
    let accepted = world.incoming(B).unwrap();
    assert_eq!(world.read(B, accepted), b"hello");
    world.write(B, accepted, b"hello to you");
    world.settle();
    assert_eq!(world.nodes[A].seen(tap).dropped, 0);
    let seen: Vec<Seen> = std::iter::from_fn(|| world.nodes[A].next_seen(tap)).collect();
    assert_eq!(seen.len() as u64, world.nodes[A].seen(tap).seen);
    for Seen { meta, packet, .. } in &seen {
        let header = Packet::parse(packet).unwrap().header;
        let sent = meta.direction == Direction::Sent;
        let service = if sent { header.destination() } else { header.source() };
        assert_eq!(service, Addr::backbone(id(B)).port(SERVICE));
        assert_eq!((meta.carrier, meta.encrypted), (Carrier::Direct, true));
        assert_eq!(meta.endpoint, Some(addr(B)));
    }
    let carries = |direction, data: &[u8]| {
        let mut all = seen.iter().filter(|seen| seen.meta.direction == direction);
        all.any(|seen| seen.packet.windows(data.len()).any(|part| part == data))
    };
    assert!(carries(Direction::Sent, b"hello") && carries(Direction::Received, b"hello to you"));

    world.nodes[A].remove_tap(tap);
    world.write(A, dialled, b"unseen");
    world.settle();
    assert!(world.nodes[A].next_seen(tap).is_none());
}

#[test]
fn bytes_are_counted_for_each_peer() {
    let mut world = World::trusting();
    let dialled = world.dial(A, B);
    world.write(A, dialled, &[7; 10_000]);
    world.settle();
    let view = |world: &World, index: usize| world.nodes[index].peers().next().unwrap();
    let (ours, theirs) = (view(&world, A), view(&world, B));
    assert!((10_000..12_000).contains(&ours.bytes_sent), "{ours:?}");
    assert_eq!((ours.bytes_sent, ours.bytes_received), (theirs.bytes_received, theirs.bytes_sent));
    assert!(ours.bytes_received > 0 && ours.queued == 0);
}

#[test]
fn the_first_bytes_travel_with_the_syn_and_a_repeated_one_does_not_bring_them_again() {
    let mut world = World::trusting();
    let dialled = world.dial(A, B);
    world.write(A, dialled, b"first");
    world.settle();
    let accepted = world.incoming(B).unwrap();
    assert_eq!(world.read(B, accepted), b"first");
    let now = world.now;
    world.nodes[A].reset(now, dialled);
    world.settle();
    assert!(world.closed(B, accepted).is_some());

    // A second stream, of which every frame is lost but two copies of the SYN; one comes when the stream is over.
    let dialled = world.dial(A, B);
    world.write(A, dialled, b"second");
    let mut copies = Vec::new();
    for _ in 0..2 {
        copies.push(world.take_datagrams(A));
        world.now += Duration::from_millis(250);
        let now = world.now;
        world.nodes[A].handle_timeout(now);
    }
    let late = copies.pop().unwrap();
    world.events[B].clear();
    for datagram in copies.pop().unwrap() {
        world.deliver(addr(A), addr(B), &datagram);
    }
    world.settle();
    let accepted = world.incoming(B).unwrap();
    assert_eq!(world.read(B, accepted), b"second");
    let now = world.now;
    world.nodes[B].reset(now, accepted);
    world.settle();
    world.events[B].clear();
    let before = world.nodes[B].stats().dropped(node::Drop::NoStream);
    for datagram in late {
        world.deliver(addr(A), addr(B), &datagram);
    }
    world.settle();
    assert_eq!(world.nodes[B].stats().dropped(node::Drop::NoStream), before + 1, "the second copy arrived");
    assert_eq!(world.incoming(B), None, "the second copy opened it again");
}

#[test]
fn no_byte_of_the_application_is_ever_sent_in_clear() {
    let mut world = World::trusting();
    let dialled = world.dial(A, B);
    world.write(A, dialled, b"a secret of the application");
    world.settle();
    assert!(world.incoming(B).is_some());
    for (_, _, datagram) in &world.wire {
        assert!(!datagram.windows(8).any(|window| window == b"a secret"));
        assert_ne!(&datagram[..4], b"PILT");
    }
}

#[test]
fn a_private_node_does_not_answer_a_stranger_at_all() {
    let mut world = World::new(2);
    world.trust(A, B);
    let dialled = world.dial(A, B);
    world.pass(Duration::from_secs(3));
    assert!(world.wire.iter().all(|(from, _, _)| *from == A), "B said something");
    assert!(matches!(world.closed(A, dialled), Some(Closed::Dial(DialError::Unreachable { .. }))));
}

#[test]
fn a_private_node_reaches_a_public_one_and_stays_silent_towards_it_otherwise() {
    let mut world = World::new(2);
    world.nodes[B].set_visibility(Visibility::Public);
    let dialled = world.dial(A, B);
    world.write(A, dialled, b"hello");
    world.settle();
    let accepted = world.incoming(B).unwrap();
    assert_eq!(world.read(B, accepted), b"hello");
    assert!(!world.nodes[A].is_trusted(id(B)));

    // The tunnel is there, but what B starts is not answered.
    let back = world.dial(B, A);
    let ours = world.sent_by(A);
    world.settle();
    assert_eq!(world.incoming(A), None);
    assert_eq!(world.sent_by(A), ours, "A answered a stranger's SYN");
    world.pass(Duration::from_secs(30));
    assert!(matches!(world.closed(B, back), Some(Closed::Dial(DialError::Unanswered { .. }))));

    // A restarted B shows a new key, and A takes it for as long as it has a use for it.
    world.restart(B, 77);
    world.nodes[B].set_visibility(Visibility::Public);
    let again = world.dial(A, B);
    world.pass(Duration::from_secs(5));
    assert!(world.incoming(B).is_some());
    assert_eq!(world.closed(A, again), None);
}

#[test]
fn a_dead_stranger_of_whom_the_registry_says_nothing_keeps_neither_it_nor_the_network_busy() {
    let mut world = World::new(2);
    world.nodes[A].set_visibility(Visibility::Public);
    let dialled = world.dial(B, A);
    world.write(B, dialled, b"hello");
    world.settle();
    let accepted = world.incoming(A).unwrap();
    world.resolvable = false;
    world.dead = Some(B);
    world.write(A, accepted, b"still there?");
    let (queries, sent) = (world.queries, world.sent_by(A));
    world.pass(Duration::from_secs(120));
    assert!(world.queries - queries < 60, "{} questions", world.queries - queries);
    assert!(world.sent_by(A) - sent < 500, "{} datagrams", world.sent_by(A) - sent);
    assert!(world.closed(A, accepted).is_some());
}

#[test]
fn a_dial_to_a_private_node_that_does_not_trust_us_says_so_at_once() {
    let mut world = World::new(2);
    world.resolvable = false;
    let dialled = world.dial(A, B);
    world.settle();
    assert_eq!(world.closed(A, dialled), Some(&Closed::Dial(DialError::NotTrusted(id(B)))));
}

#[test]
fn a_node_talks_to_itself_without_the_network() {
    let mut world = World::new(1);
    let dialled = world.dial(A, A);
    world.write(A, dialled, b"note to self");
    assert_eq!(world.settle(), 0);
    let accepted = world.incoming(A).unwrap();
    assert_eq!(world.read(A, accepted), b"note to self");
}

#[test]
fn a_restarted_peer_is_rekeyed_and_streams_of_its_earlier_life_end() {
    let mut world = World::trusting();
    let before = world.dial(A, B);
    world.settle();
    world.restart(B, 77);
    let after = world.dial(A, B);
    world.write(A, after, b"again");
    world.pass(Duration::from_secs(1));
    let accepted = world.incoming(B).unwrap();
    assert_eq!(world.read(B, accepted), b"again");
    assert!(world.closed(A, before).is_some());
    assert!(world.closed(A, after).is_none());
    assert!(
        world.events[A]
            .contains(&Event::Peer(id(B), PeerEvent::Established { rekeyed: true, relayed: false }))
    );
}

/// What a peer that has just restarted sends of its own accord, as release 1.18.0 does when it starts.
fn shown_by_a_restarted_peer(world: &mut World) -> Vec<u8> {
    world.dial(B, A);
    world.settle();
    world.restart(B, 77);
    world.dial(B, A);
    world.take_datagrams(B);
    let now = world.now;
    while let Some((query_id, query)) = world.nodes[B].poll_query() {
        let answer = world.answer(&query);
        world.nodes[B].handle_answer(now, query_id, answer);
    }
    let sent = world.take_datagrams(B);
    sent.into_iter().find(|frame| frame.starts_with(b"PILA")).unwrap()
}

#[test]
fn a_key_that_is_shown_again_without_having_been_used_is_asked_for_proof_again() {
    let mut world = World::as_shown();
    let shown = shown_by_a_restarted_peer(&mut world);
    let is_question = |frame: &Vec<u8>| frame.starts_with(b"PILS");
    world.deliver(addr(B), addr(A), &shown);
    let (lost, arrives): (Vec<_>, Vec<_>) = world.take_datagrams(A).into_iter().partition(is_question);
    assert!(!lost.is_empty());
    for frame in arrives {
        world.deliver(addr(A), addr(B), &frame);
    }
    world.take_datagrams(B);

    world.now += Duration::from_secs(4);
    world.deliver(addr(B), addr(A), &shown);
    let asked = world.take_datagrams(A);
    let question = asked.iter().find(|frame| is_question(frame)).unwrap();
    world.deliver(addr(A), addr(B), question);
    world.pass(Duration::from_millis(1));
    assert!(
        world.events[A]
            .contains(&Event::Peer(id(B), PeerEvent::Established { rekeyed: true, relayed: false }))
    );
}

#[test]
fn a_peer_that_uses_a_key_it_has_not_shown_is_asked_for_it() {
    let mut world = World::trusting();
    shown_by_a_restarted_peer(&mut world);
    // B has A's key by what A repeats now and then, and A has none of B's: only a question changes that.
    world.now += Duration::from_secs(4);
    let mut unknown = b"PILS".to_vec();
    unknown.extend_from_slice(&id(B).0.to_be_bytes());
    unknown.extend_from_slice(&[7; 60]);
    world.deliver(addr(B), addr(A), &unknown);
    let said = world.take_datagrams(A);
    assert!(said.iter().any(|frame| frame.starts_with(b"PILA")), "its own key");
    assert!(said.iter().any(|frame| frame.starts_with(b"PILK")), "and a question for the other");
}

#[test]
fn replayed_key_exchanges_neither_break_nor_move_a_session() {
    let mut world = World::trusting();
    world.dial(B, A);
    world.settle();
    let recorded: Vec<_> = world
        .wire
        .iter()
        .filter(|(from, _, frame)| *from == B && frame.starts_with(b"PILA"))
        .cloned()
        .collect();
    assert!(!recorded.is_empty());
    world.restart(B, 99);
    let dialled = world.dial(A, B);
    world.pass(Duration::from_secs(1));

    let elsewhere = SocketAddr::from(([6, 6, 6, 6], 666));
    let sent_before = world.wire.len();
    for (_, _, frame) in recorded {
        for _ in 0..5 {
            world.deliver(elsewhere, addr(A), &frame);
        }
    }
    world.write(A, dialled, b"still here");
    world.pass(Duration::from_millis(10));
    let accepted = world.incoming(B).unwrap();
    assert_eq!(world.read(B, accepted), b"still here");
    let to_attacker = world.wire[sent_before..].iter().filter(|(_, to, _)| *to == elsewhere).count();
    assert!(to_attacker <= 3, "{to_attacker} datagrams went to an address that never answered");
}

#[test]
fn a_frame_forwarded_from_elsewhere_does_not_move_the_path() {
    let mut world = World::trusting();
    let dialled = world.dial(A, B);
    world.settle();
    // The next frame of B reaches A first through somebody else.
    let accepted = world.incoming(B).unwrap();
    world.write(B, accepted, b"x");
    let mut out = Vec::new();
    let now = world.now;
    let transmit = world.nodes[B].poll_transmit(now, &mut out, 1).unwrap();
    let elsewhere = SocketAddr::from(([6, 6, 6, 6], 666));
    world.deliver(elsewhere, addr(A), &out);
    world.deliver(addr(B), transmit.destination, &out);
    let from = world.wire.len();
    world.write(A, dialled, b"answer");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.read(B, accepted), b"answer");
    assert!(world.wire[from..].iter().filter(|(_, to, _)| *to == elsewhere).count() <= 3);
    assert!(
        matches!(world.nodes[A].peers().next().unwrap().path, node::PathView::Direct(to) if to == addr(B))
    );
}

#[test]
fn a_pinned_key_is_not_replaced_by_what_the_registry_or_the_peer_says() {
    let mut world = World::new(2);
    let wrong = Trusted { key: Some(Identity::from_seed(&[200; 32]).public()), since: 0, mutual: true };
    world.nodes[A].restore_trust(Book::restore([(id(B), wrong)], [], [], []));
    world.trust(B, A);
    let dialled = world.dial(A, B);
    world.pass(Duration::from_secs(3));
    assert!(matches!(world.closed(A, dialled), Some(Closed::Dial(_))));
    assert!(world.events[A].iter().any(|event| matches!(event, Event::Peer(_, PeerEvent::KeyMismatch(_)))));
    assert!(world.incoming(B).is_none());
}

#[test]
fn a_handshake_through_the_registry_makes_both_sides_trust() {
    let mut world = World::new(2);
    let now = world.now;
    world.nodes[A].request_trust(now, 1000, id(B), "hello".into()).unwrap();
    world.settle();
    // The registry's part, by hand: the request to B, its answer to A.
    world.nodes[B].relayed_request(now, 1000, id(A), "hello");
    world.settle();
    assert!(world.events[B].iter().any(|event| matches!(event, Event::Trust(TrustEvent::Pending { .. }))));
    world.nodes[B].approve(now, 1001, id(A)).unwrap();
    world.nodes[A].relayed_response(now, 1001, id(B), true, Some(1001));
    world.settle();
    assert_eq!(world.nodes[A].trust().get(id(B)).unwrap().key, Some(identity(B).public()));
    assert_eq!(world.nodes[B].trust().get(id(A)).unwrap().key, Some(identity(A).public()));
    let dialled = world.dial(A, B);
    world.settle();
    assert!(world.closed(A, dialled).is_none() && world.incoming(B).is_some());
}

#[test]
fn a_ping_is_answered_with_its_time_and_an_unanswered_one_is_given_up() {
    let mut world = World::trusting();
    let now = world.now;
    let ping = world.nodes[A].ping(now, id(B), 64);
    world.settle();
    assert!(world.events[A].contains(&Event::Pong { ping, rtt: Some(Duration::ZERO) }));
    let lost = world.nodes[A].ping(now, NodeId(9), 64);
    world.resolvable = false;
    world.pass(Duration::from_secs(6));
    assert!(world.events[A].contains(&Event::Pong { ping: lost, rtt: None }));
}

#[test]
fn an_idle_pair_exchanges_little_and_sleeps_between() {
    let mut world = World::trusting();
    let dialled = world.dial(A, B);
    world.settle();
    let now = world.now;
    world.nodes[A].close(now, dialled);
    let accepted = world.incoming(B).unwrap();
    world.nodes[B].close(now, accepted);
    world.pass(Duration::from_secs(30));
    let before = world.wire.len();
    world.pass(Duration::from_secs(600));
    let bytes: usize = world.wire[before..].iter().map(|(_, _, datagram)| datagram.len()).sum();
    assert!(bytes < 2 * 10 * 1024, "{bytes} bytes in ten idle minutes, both ways");
    assert!(world.nodes[A].peers().next().unwrap().authenticated);
}

#[test]
fn a_flood_of_hostile_datagrams_leaves_a_working_stream_working() {
    let mut world = World::trusting();
    let dialled = world.dial(A, B);
    world.settle();
    let samples: Vec<Vec<u8>> = world.wire.iter().map(|(_, _, datagram)| datagram.clone()).collect();
    let elsewhere = SocketAddr::from(([6, 6, 6, 6], 666));
    for sample in &samples {
        for cut in 0..sample.len() {
            world.deliver(elsewhere, addr(A), &sample[..cut]);
        }
        for byte in 0..sample.len() {
            let mut changed = sample.clone();
            changed[byte] ^= 0x55;
            world.deliver(elsewhere, addr(A), &changed);
        }
    }
    let accepted = world.incoming(B).unwrap();
    world.write(A, dialled, b"alive");
    world.pass(Duration::from_millis(100));
    assert_eq!(world.read(B, accepted), b"alive");
}
