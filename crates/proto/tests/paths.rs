//! Two nodes and a beacon: what they tell each other about where they are, and what they say when that is of no use.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it says")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pilot_crypto::Identity;
use pilot_proto::trust::{Book, Trusted};
use pilot_proto::{
    Answer, CandidateSource, Closed, Config, DialError, Encryption, Event, KeyAgreement, Location, Node,
    Query, Read, RelayState, StreamEvent, Visibility, node::PathView,
};
use pilot_wire::beacon::{DiscoverProof, Message};
use pilot_wire::tunnel::Frame;
use pilot_wire::{Addr, NodeId, Port, StreamId};

const A: usize = 0;
const B: usize = 1;
const SERVICE: Port = Port(1000);
const BEACON: ([u8; 4], u16) = ([203, 0, 113, 1], 9001);

/// A datagram on its way: from which node, or the beacon; to where; what.
type Sent = (Option<usize>, SocketAddr, Vec<u8>);

/// Two nodes, a beacon of the old kind that knows no surveys, and a registry. Everything arrives at once or never.
struct World {
    now: Instant,
    nodes: Vec<Node>,
    events: Vec<Vec<Event>>,
    wire: Vec<Sent>,
    /// Whom the beacon knows.
    registered: BTreeMap<NodeId, SocketAddr>,
    /// What the registry says about B.
    location: Location,
    /// Whether datagrams go from node to node.
    direct: bool,
    /// Nodes whose next datagrams are lost, and how many.
    lossy: BTreeMap<usize, usize>,
}

fn id(index: usize) -> NodeId {
    NodeId(index as u32 + 1)
}

fn addr(index: usize) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, index as u8 + 1], 4000))
}

/// Where a node is in its own network.
fn host(index: usize) -> SocketAddr {
    SocketAddr::from(([192, 168, 1, index as u8 + 1], 4000))
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

impl World {
    fn new(visibility: Visibility, beacon: Option<SocketAddr>) -> Self {
        Self::of(Config { visibility, beacon, ..Config::new(identity(A), [0; 32]) })
    }

    /// As nodes of release 1.18.0: a key that is shown proves nothing about the address that it comes from.
    fn as_shown() -> Self {
        Self::of(Config { agreement: KeyAgreement::AsShown, ..Config::new(identity(A), [0; 32]) }).trusting()
    }

    fn in_clear() -> Self {
        Self::of(Config { encryption: Encryption::Off, ..Config::new(identity(A), [0; 32]) }).trusting()
    }

    /// Two nodes with the same settings, and each with an identity of its own.
    fn of(settings: Config) -> Self {
        let Config { visibility, beacon, agreement, encryption, .. } = settings;
        let now = start();
        let node = |index: usize| {
            let config = Config {
                visibility,
                beacon,
                agreement,
                encryption,
                ..Config::new(identity(index), [index as u8 + 1; 32])
            };
            let mut node = Node::new(config, now);
            node.set_node(now, id(index));
            node.set_local(now, vec![host(index)]);
            node.listen(SERVICE).unwrap();
            node
        };
        let mut world = Self {
            now,
            nodes: vec![node(A), node(B)],
            events: vec![Vec::new(); 2],
            wire: Vec::new(),
            registered: BTreeMap::new(),
            location: Location { public: Some(addr(B)), ..Location::default() },
            direct: true,
            lossy: BTreeMap::new(),
        };
        world.pass(Duration::from_secs(1));
        world.wire.clear();
        world
    }

    fn with_beacon() -> Self {
        Self::new(Visibility::Private, Some(BEACON.into())).trusting()
    }

    fn without_beacon() -> Self {
        Self::new(Visibility::Private, None).trusting()
    }

    fn trusting(mut self) -> Self {
        for (who, whom) in [(A, B), (B, A)] {
            let trusted = Trusted { key: Some(identity(whom).public()), since: 0, mutual: true };
            self.nodes[who].restore_trust(Book::restore([(id(whom), trusted)], [], [], []));
        }
        self
    }

    fn answer(&self, query: &Query) -> Answer {
        match query {
            Query::Resolve(node) if *node == id(B) => Answer::Resolved(Ok(self.location.clone())),
            Query::Resolve(_) => {
                Answer::Resolved(Ok(Location { public: Some(addr(A)), ..Location::default() }))
            }
            Query::PeerKey(node) => Answer::PeerKey(Ok(identity(node.0 as usize - 1).public())),
            Query::CheckTrust(_) => Answer::Trusted(Ok(false)),
            Query::RequestHandshake { .. }
            | Query::RespondHandshake { .. }
            | Query::ReportTrust(_)
            | Query::RevokeTrust(_) => Answer::Done(Ok(())),
        }
    }

    /// Carries datagrams and answers until nobody has any.
    fn settle(&mut self) {
        let before = self.wire.len();
        let mut busy = true;
        while busy {
            busy = false;
            for index in [A, B] {
                for (to, datagram) in self.take(index) {
                    busy = true;
                    self.carry(index, to, &datagram);
                }
                while let Some((query_id, query)) = self.nodes[index].poll_query() {
                    busy = true;
                    let answer = self.answer(&query);
                    self.nodes[index].handle_answer(self.now, query_id, answer);
                }
                while let Some(event) = self.nodes[index].poll_event() {
                    self.events[index].push(event);
                }
            }
            assert!(self.wire.len() - before < 100_000, "a storm");
        }
    }

    /// What a node sends now.
    fn take(&mut self, index: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let (mut all, mut out) = (Vec::new(), Vec::new());
        while let Some(transmit) = self.nodes[index].poll_transmit(self.now, &mut out, 16) {
            all.extend(out.chunks(transmit.segment_size).map(|one| (transmit.destination, one.to_vec())));
            out.clear();
        }
        all
    }

    fn carry(&mut self, from: usize, to: SocketAddr, datagram: &[u8]) {
        self.wire.push((Some(from), to, datagram.to_vec()));
        if let Some(left) = self.lossy.get_mut(&from).filter(|left| **left > 0) {
            *left -= 1;
        } else if to == BEACON.into() {
            self.beacon(from, datagram);
        } else if let Some(receiver) = [A, B].into_iter().find(|&index| addr(index) == to)
            && self.direct
        {
            self.nodes[receiver].handle_datagram(self.now, addr(from), &mut datagram.to_vec());
        }
    }

    fn beacon(&mut self, from: usize, datagram: &[u8]) {
        match Message::parse(datagram).unwrap() {
            Message::Discover { node, .. } => {
                self.registered.insert(node, addr(from));
                self.say(addr(from), &Message::DiscoverReply(addr(from)));
            }
            Message::PunchRequest { requester, target, .. } => {
                if let (Some(&one), Some(&other)) =
                    (self.registered.get(&requester), self.registered.get(&target))
                {
                    self.say(one, &Message::PunchCommand(other));
                    self.say(other, &Message::PunchCommand(one));
                }
            }
            Message::Relay { source, destination, frame } => match self.registered.get(&destination) {
                Some(&to) => self.say(to, &Message::RelayDeliver { source, frame }),
                None => self.say(addr(from), &Message::Unknown { node: destination }),
            },
            // A beacon of release 1.18.0 knows nothing else.
            Message::DiscoverReply(_)
            | Message::PunchCommand(_)
            | Message::RelayDeliver { .. }
            | Message::Sync { .. }
            | Message::DiscoverEx { .. }
            | Message::RelayDeliverTo { .. }
            | Message::Notify(_)
            | Message::Survey { .. }
            | Message::SurveyReply { .. }
            | Message::Unknown { .. }
            | Message::Challenge { .. } => {}
        }
    }

    fn say(&mut self, to: SocketAddr, message: &Message<'_>) {
        let mut datagram = Vec::new();
        message.emit(&mut datagram);
        self.wire.push((None, to, datagram.clone()));
        let receiver = [A, B].into_iter().find(|&index| addr(index) == to).unwrap();
        self.nodes[receiver].handle_datagram(self.now, BEACON.into(), &mut datagram);
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

    /// What A says first arrives, and the first of what B says to that.
    fn deliver_one_answer(&mut self) {
        while let Some((query_id, query)) = self.nodes[A].poll_query() {
            let answer = self.answer(&query);
            self.nodes[A].handle_answer(self.now, query_id, answer);
        }
        for (from, until) in [(A, usize::MAX), (B, 1)] {
            for (to, datagram) in self.take(from).into_iter().take(until) {
                self.carry(from, to, &datagram);
            }
        }
    }

    fn dial(&mut self) -> StreamId {
        self.nodes[A].dial(self.now, Addr::backbone(id(B)).port(SERVICE)).unwrap()
    }

    /// A stream that is open, and the way it goes.
    fn talk(&mut self) -> PathView {
        let stream = self.dial();
        self.pass(Duration::from_millis(500));
        assert!(self.events[A].contains(&Event::Stream(stream, StreamEvent::Established)));
        self.nodes[A].path_report(id(B)).unwrap().path
    }

    /// What came of the stream that A dialled.
    fn received(&mut self) -> Vec<u8> {
        let stream = self.events[B].iter().find_map(|event| {
            if let Event::Stream(stream, StreamEvent::Incoming { .. }) = event { Some(*stream) } else { None }
        });
        let mut all = Vec::new();
        while let Ok(Read::Data(data)) = self.nodes[B].read(self.now, stream.unwrap(), 1 << 20) {
            all.extend_from_slice(&data);
        }
        all
    }

    /// The addresses of B that A knows, and from whom.
    fn candidates(&self) -> BTreeSet<(SocketAddr, CandidateSource)> {
        let report = self.nodes[A].path_report(id(B)).unwrap();
        report.candidates.iter().map(|candidate| (candidate.addr, candidate.source)).collect()
    }

    /// The lengths of what A sent to where B is, before B said anything that only the owner of its key can say.
    fn sent_to_a_stranger(&self) -> Vec<usize> {
        let is_proof =
            |sent: &&Sent| sent.0 == Some(B) && matches!(Frame::parse(&sent.2), Ok(Frame::Sealed { .. }));
        let until = self.wire.iter().take_while(|sent| !is_proof(sent));
        until.filter(|sent| sent.0 == Some(A) && sent.1 == addr(B)).map(|sent| sent.2.len()).collect()
    }
}

#[test]
fn friends_tell_each_other_their_addresses_inside_the_tunnel() {
    let mut world = World::with_beacon();
    assert_eq!(world.talk(), PathView::Direct(addr(B)));
    assert!(world.candidates().contains(&(host(B), CandidateSource::PeerHost)), "{:?}", world.candidates());
    let ip = [192, 168, 1, 2];
    let in_clear = |sent: &Sent| sent.2.windows(4).any(|window| window == ip);
    assert!(!world.wire.iter().any(in_clear), "nobody else can read them");
}

#[test]
fn strangers_are_told_where_the_beacon_sees_us_and_nothing_of_our_own_network() {
    let mut world = World::new(Visibility::Public, Some(BEACON.into()));
    // The registry does not say where B is, so only B can.
    world.location = Location::default();
    world.talk();
    let known = world.candidates();
    assert!(known.contains(&(addr(B), CandidateSource::PeerObserved)), "{known:?}");
    assert!(!known.iter().any(|(addr, _)| *addr == host(B)), "{known:?}");
}

#[test]
fn a_friend_hears_of_a_new_address_while_a_stream_is_open() {
    let mut world = World::with_beacon();
    world.talk();
    let moved = SocketAddr::from(([192, 168, 7, 7], 4000));
    let now = world.now;
    world.nodes[B].set_local(now, vec![moved]);
    world.settle();
    let known = world.candidates();
    assert!(known.contains(&(moved, CandidateSource::PeerHost)), "{known:?}");
    assert!(!known.contains(&(host(B), CandidateSource::PeerHost)), "where it is no more: {known:?}");
}

#[test]
fn a_dial_to_a_dead_peer_fails_with_all_that_is_known_about_it() {
    let mut world = World::with_beacon();
    let lan = SocketAddr::from(([192, 168, 9, 9], 4000));
    world.direct = false;
    world.registered.remove(&id(B));
    world.location.lan = vec![lan];
    world.location.seen = Some(Duration::from_secs(180));
    let stream = world.dial();
    world.pass(Duration::from_millis(1999));
    assert!(!world.events[A].iter().any(|event| matches!(event, Event::Stream(..))));
    world.pass(Duration::from_millis(1));
    let closed = world.events[A].iter().find_map(|event| {
        if let Event::Stream(id, StreamEvent::Closed(Closed::Dial(error))) = event
            && *id == stream
        {
            Some(error)
        } else {
            None
        }
    });
    let error = closed.unwrap();
    let DialError::Unreachable { node, silence, .. } = error else { panic!("{error}") };
    assert_eq!(*node, id(B));
    assert_eq!(silence.last_seen, Some(Duration::from_secs(182)));
    assert_eq!(silence.tried.iter().copied().collect::<BTreeSet<_>>(), [addr(B), lan].into());
    assert_eq!(silence.relay, RelayState::NotRegistered);
    let text = error.to_string();
    assert!(text.contains("last seen 3 min ago; no answer on 2 candidates; relay: not registered"), "{text}");
}

#[test]
fn the_beacon_that_knows_the_peer_but_brings_no_answer_is_told_apart() {
    let mut world = World::with_beacon();
    world.direct = false;
    world.lossy.insert(B, usize::MAX);
    world.dial();
    world.pass(Duration::from_secs(2));
    let now = world.now;
    assert_eq!(world.nodes[A].silence(now, id(B)).relay, RelayState::NoAnswer);
}

#[test]
fn a_challenge_of_the_beacon_is_answered_with_a_good_signature_and_one_of_somebody_else_is_not() {
    let mut world = World::with_beacon();
    let nonce = *b"sixteen bytes :)";
    let mut challenge = Vec::new();
    Message::Challenge { nonce }.emit(&mut challenge);
    let now = world.now;
    world.nodes[A].handle_datagram(now, addr(B), &mut challenge.clone());
    assert_eq!(world.take(A), []);
    world.nodes[A].handle_datagram(now, BEACON.into(), &mut challenge);
    let sent = world.take(A);
    let [(to, datagram)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(*to, BEACON.into());
    let Ok(Message::Discover { node, key: Some(key), proof: Some(proof) }) = Message::parse(datagram) else {
        panic!("{datagram:?}")
    };
    assert_eq!((node, key, proof.nonce), (id(A), identity(A).public(), nonce));
    assert!(pilot_crypto::verify(&key, &DiscoverProof::signed_bytes(id(A), &nonce), &proof.signature));
}

#[test]
fn a_flood_of_challenges_does_not_make_a_node_sign_for_ever() {
    let mut world = World::with_beacon();
    for count in 0..1000_u16 {
        let mut nonce = [0; 16];
        nonce[..2].copy_from_slice(&count.to_be_bytes());
        let mut challenge = Vec::new();
        Message::Challenge { nonce }.emit(&mut challenge);
        let now = world.now;
        world.nodes[A].handle_datagram(now, BEACON.into(), &mut challenge);
    }
    let answers = world.take(A).len();
    assert!((1..=8).contains(&answers), "{answers}");
}

#[test]
fn after_a_change_of_the_network_the_peer_and_the_beacon_hear_of_us_at_once() {
    let mut world = World::with_beacon();
    world.talk();
    world.pass(Duration::from_secs(5));
    world.wire.clear();
    let now = world.now;
    world.nodes[A].network_changed(now);
    world.settle();
    let ours: BTreeSet<_> = world.wire.iter().filter(|sent| sent.0 == Some(A)).map(|sent| sent.1).collect();
    assert!(ours.contains(&addr(B)) && ours.contains(&BEACON.into()), "{ours:?}");
    assert!(world.wire.iter().any(|sent| sent.0 == Some(B) && sent.1 == addr(A)), "and it answers");
}

#[test]
fn a_change_of_the_way_to_the_beacon_gives_no_address_more_packets() {
    let mut world = World::with_beacon();
    world.direct = false;
    assert_eq!(world.talk(), PathView::Relayed);
    world.pass(Duration::from_secs(20));
    let sent_to =
        |world: &World, to| world.wire.iter().filter(|sent| sent.0 == Some(A) && sent.1 == to).count();
    let direct = |world: &World| sent_to(world, addr(B));
    let relayed = |world: &World| sent_to(world, BEACON.into());
    let (before, relayed_before) = (direct(&world), relayed(&world));
    for _ in 0..10 {
        let now = world.now;
        world.nodes[A].beacon_reachable_otherwise(now);
        world.pass(Duration::from_millis(100));
    }
    assert_eq!(direct(&world), before);
    assert!(relayed(&world) > relayed_before, "what only the relay brings is looked after");
}

#[test]
fn early_data_goes_to_an_address_that_proved_nothing_in_small_packets_only() {
    let mut world = World::as_shown();
    let stream = world.dial();
    let now = world.now;
    let text = Bytes::from(vec![7; 1000]);
    assert_eq!(world.nodes[A].write(now, stream, text.clone()), Ok(1000));
    world.settle();
    let sent = world.sent_to_a_stranger();
    assert!(!sent.is_empty() && sent.iter().all(|len| *len <= 200), "{sent:?}");
    assert!(sent.iter().any(|len| *len > 190), "as much as may: {sent:?}");
    assert_eq!(world.received(), text, "the rest follows at once");
}

#[test]
fn of_the_packets_that_a_stranger_may_have_none_is_counted_that_was_not_sent() {
    let mut world = World::as_shown();
    world.dial();
    world.deliver_one_answer();
    world.lossy.insert(B, usize::MAX);
    world.pass(Duration::from_millis(900));
    let sent = world.wire.iter().filter(|sent| sent.0 == Some(A) && sent.1 == addr(B)).count();
    assert_eq!(sent, 3, "and no more before somebody here may wish for it again");
}

#[test]
fn where_there_is_a_relay_it_brings_what_an_address_may_not_have_twice() {
    let agreement = KeyAgreement::AsShown;
    let settings = Config { agreement, beacon: Some(BEACON.into()), ..Config::new(identity(A), [0; 32]) };
    let mut world = World::of(settings).trusting();
    world.dial();
    world.deliver_one_answer();
    world.lossy.insert(B, usize::MAX);
    let now = world.now;
    let to = Addr::backbone(id(B)).port(SERVICE);
    for word in [b"one", b"two"] {
        world.nodes[A].send_datagram(now, to, None, word).unwrap();
    }
    world.settle();
    let straight = world.wire.iter().filter(|sent| sent.0 == Some(A) && sent.1 == addr(B));
    assert_eq!(straight.count(), 2, "an exchange and a word, and one more may follow");
    let came = world.events[B].iter().filter(|event| matches!(event, Event::Datagram { .. })).count();
    assert_eq!(came, 2);
}

#[test]
fn a_large_datagram_waits_for_an_address_to_prove_itself() {
    let mut world = World::as_shown();
    let now = world.now;
    let to = Addr::backbone(id(B)).port(SERVICE);
    world.nodes[A].send_datagram(now, to, None, &[7; 1000]).unwrap();
    world.settle();
    let sent = world.sent_to_a_stranger();
    assert!(!sent.is_empty() && sent.iter().all(|len| *len <= 200), "{sent:?}");
    let came = |event: &Event| matches!(event, Event::Datagram { data, .. } if data.len() == 1000);
    assert!(world.events[B].iter().any(came));
}

#[test]
fn without_encryption_an_address_that_somebody_planted_is_left() {
    let mut earlier = World::in_clear();
    earlier.talk();
    let of_b = |sent: &&Sent| sent.0 == Some(B) && sent.1 == addr(A);
    let (_, _, recorded) = earlier.wire.iter().find(of_b).unwrap();

    let mut world = World::in_clear();
    let stranger = SocketAddr::from(([192, 0, 2, 66], 6666));
    world.nodes[A].handle_datagram(world.now, stranger, &mut recorded.clone());
    let stream = world.dial();
    world.pass(Duration::from_secs(5));
    assert!(world.wire.iter().any(|sent| sent.1 == stranger), "it had been believed");
    assert!(world.events[A].contains(&Event::Stream(stream, StreamEvent::Established)));
    assert_eq!(world.nodes[A].path_report(id(B)).unwrap().path, PathView::Direct(addr(B)));
}

#[test]
fn an_answer_to_a_key_exchange_that_gets_lost_is_repeated() {
    // With the third exchange three packets have gone there, and the next wish comes a second after the first.
    for (lost, millis) in [(1, 300), (2, 1100)] {
        let mut world = World::without_beacon();
        world.lossy.insert(B, lost);
        let stream = world.dial();
        world.pass(Duration::from_millis(millis));
        let established = Event::Stream(stream, StreamEvent::Established);
        assert!(world.events[A].contains(&established), "{lost} lost");
    }
}
