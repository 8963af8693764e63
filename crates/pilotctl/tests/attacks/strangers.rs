//! A node that is registered and that nobody trusts.

use pilot_wire::beacon::Message;
use pilot_wire::packet::{Flags, Packet};
use pilot_wire::registry::{Handshake, HandshakeAnswer, Pair, Punch, Request, Resolve, Response};
use pilot_wire::tunnel::Frame;
use pilot_wire::{NodeId, Port};

use crate::common::World;
use crate::puppet::Puppet;
use crate::target::{Target, befriend, beside, caught, shoot};

#[test]
fn a_stranger_hears_nothing_whatever_it_says_and_to_whichever_port() {
    let world = World::new();
    let a = Target::start(&world, "agent-a", &[]);
    let b = Target::start(&world, "agent-b", &[]);
    befriend(&a, &b);
    let stranger = Puppet::register(&world, 1);
    beside(&b.agent, "agent-a", || {
        let (refused, plain) = (a.dropped("not_admitted"), a.dropped("plaintext"));
        let mut sent = 0;
        // Open ports, closed ones, and keys: it is all the same.
        for _ in 0..10 {
            shoot(&stranger.udp, a.udp, &mut sent, &stranger.key_exchange());
            for port in [Port::PING, Port::ECHO, Port::HANDSHAKE, Port::DATA_EXCHANGE, Port(9), Port(50_000)]
            {
                let (mut packet, mut bytes) = (Vec::new(), Vec::new());
                let header = stranger.header(&a, Port(49_300), port, Flags::SYN);
                Packet { header, payload: b"" }.emit(&mut packet);
                Frame::Plain { packet: &packet }.emit(&mut bytes);
                shoot(&stranger.udp, a.udp, &mut sent, &bytes);
            }
        }
        a.until_dropped("not_admitted", refused, 1);
        a.until_dropped("plaintext", plain, 60);
        stranger.udp.set_nonblocking(true).unwrap();
        assert!(caught(&stranger.udp).is_empty(), "the node answered a stranger");
    });
    assert_eq!(a.agent.json(&["pending"])["pending"].as_array().map(Vec::len), Some(0));
}

#[test]
fn the_registry_opens_no_node_to_who_only_says_that_it_is_trusted() {
    let world = World::new();
    let a = Target::start(&world, "agent-a", &[]);
    let b = Target::start(&world, "agent-b", &[]);
    befriend(&a, &b);
    let mut stranger = Puppet::register(&world, 2);
    beside(&b.agent, "agent-a", || {
        let (node_id, peer_id) = (stranger.node, a.node);
        let pair = || Pair { node_id, peer_id, ..Pair::default() };
        // An acceptance of what was never asked, in its own name and in that of the other.
        for (node_id, peer_id) in [(node_id, peer_id), (peer_id, node_id)] {
            let answer = HandshakeAnswer { node_id, peer_id, accept: true, ..HandshakeAnswer::default() };
            let answered = stranger.ask(Request::RespondHandshake(answer));
            assert!(matches!(answered, Response::Error { .. }), "{answered:?}");
        }
        stranger.ask(Request::ReportTrust(pair()));
        let punch = Punch { requester_id: node_id, node_a: node_id, node_b: peer_id, ..Punch::default() };
        let punched = stranger.ask(Request::Punch(punch));
        assert!(matches!(punched, Response::Error { .. }), "{punched:?}");
        let resolve = Resolve { node_id: peer_id, requester_id: node_id, ..Resolve::default() };
        let resolved = stranger.ask(Request::Resolve(resolve));
        assert!(matches!(resolved, Response::Error { .. }), "{resolved:?}");
        // The beacon neither introduces the two nor tells where the node is.
        let mut bytes = Vec::new();
        Message::Discover { node: node_id, key: None, proof: None }.emit(&mut bytes);
        let beacon: std::net::SocketAddr = world.beacon.parse().unwrap();
        stranger.udp.send_to(&bytes, beacon).unwrap();
        bytes.clear();
        Message::PunchRequest { requester: node_id, target: peer_id, grant: None }.emit(&mut bytes);
        stranger.udp.send_to(&bytes, beacon).unwrap();
        let mut buffer = [0; 2048];
        while let Ok(length) = stranger.udp.recv(&mut buffer) {
            let said = Message::parse(&buffer[..length]);
            assert!(!matches!(said, Ok(Message::PunchCommand(_))), "it was introduced");
        }
        // A request without a signature, in the name of the friend.
        let forged = Handshake { from_node_id: b.node, to_node_id: a.node, ..Handshake::default() };
        let asked = stranger.ask(Request::RequestHandshake(forged));
        assert!(matches!(asked, Response::Error { .. }), "{asked:?}");
    });
    let trusted = a.agent.json(&["trusted"]);
    let nodes: Vec<NodeId> = trusted["trusted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| NodeId(u32::try_from(entry["node_id"].as_u64().unwrap()).unwrap()))
        .collect();
    assert_eq!(nodes, [b.node]);
}
