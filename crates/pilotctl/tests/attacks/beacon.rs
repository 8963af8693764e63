//! Lies to the beacon, and in the beacon's name.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use pilot_wire::beacon::{DiscoverProof, Message, ReplyFrom};
use pilot_wire::{NodeId, Signature};

use crate::common::World;
use crate::middle::Middle;
use crate::puppet::Puppet;
use crate::target::{PATIENCE, Target, assert_hardly_shot_at, befriend, beside, shoot, socket_at};

/// What the frames of the puppet end with, so that they are told from others.
const MARK: [u8; 40] = [0xA7; 40];

fn emitted(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.emit(&mut bytes);
    bytes
}

/// A sealed frame that nobody can open.
fn junk(source: NodeId) -> Vec<u8> {
    [b"PILS", &source.0.to_be_bytes()[..], &MARK].concat()
}

/// Its place at the beacon, as release 1.18.0 takes one.
fn discover(puppet: &Puppet, beacon: SocketAddr) {
    let begun = Instant::now();
    let mut buffer = [0; 2048];
    loop {
        assert!(begun.elapsed() < PATIENCE, "the beacon does not answer");
        let here = Message::Discover { node: puppet.node, key: None, proof: None };
        puppet.udp.send_to(&emitted(&here), beacon).unwrap();
        if let Ok(length) = puppet.udp.recv(&mut buffer)
            && matches!(Message::parse(&buffer[..length]), Ok(Message::DiscoverReply(_)))
        {
            return;
        }
    }
}

/// Whether something that was meant for somebody else has come here.
fn stolen(socket: &UdpSocket) -> bool {
    let mut buffer = [0; 2048];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|length| buffer[..length].ends_with(&MARK)))
        .any(|is_stolen| is_stolen)
}

#[test]
fn neither_claims_nor_gossip_bring_anybody_the_frames_of_another() {
    let world = World::new();
    let a = Target::start(&world, "agent-a", &[]);
    let b = Target::start(&world, "agent-b", &[]);
    befriend(&a, &b);
    let beacon: SocketAddr = world.beacon.parse().unwrap();
    let sender = Puppet::register(&world, 6);
    discover(&sender, beacon);
    let relayed = || b.count("pilot_node_relay_bytes_total{direction=\"in\"}");
    let frame = junk(sender.node);
    let relay = emitted(&Message::Relay { source: sender.node, destination: b.node, frame: &frame });
    // The honest way works before.
    let before = relayed();
    let begun = Instant::now();
    while relayed() == before {
        assert!(begun.elapsed() < PATIENCE, "the beacon does not relay");
        sender.udp.send_to(&relay, beacon).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    // From the node's own host, and from another.
    let thieves = [socket_at([127, 0, 0, 1]), socket_at([127, 0, 0, 68])];
    beside(&a.agent, "agent-b", || {
        let key = b.key();
        let proof = DiscoverProof { nonce: [1; 16], signature: Signature::from_bytes([2; 64]) };
        let gossip: Vec<NodeId> = (1..500).map(NodeId).collect();
        let mesh = [&[0x0F, 0, 0, 0, 7][..], &[0; 8], &[2], &b.node.0.to_be_bytes(), &[0; 24]].concat();
        let lies = [
            emitted(&Message::Discover { node: b.node, key: None, proof: None }),
            emitted(&Message::Discover { node: b.node, key: Some(key), proof: None }),
            emitted(&Message::Discover { node: b.node, key: Some(key), proof: Some(proof) }),
            emitted(&Message::DiscoverEx { node: b.node, key: None }),
            emitted(&Message::DiscoverEx { node: b.node, key: Some(key) }),
            emitted(&Message::Sync { beacon: 4711, nodes: vec![b.node] }),
            emitted(&Message::Sync { beacon: 4712, nodes: gossip }),
            mesh,
            emitted(&Message::RelayDeliver { source: b.node, frame: b"PILS" }),
            vec![0x07; 1400],
            vec![0x0F; 1400],
        ];
        let (mut sent, begun) = (0, relayed());
        for _ in 0..20 {
            for thief in &thieves {
                for lie in &lies {
                    shoot(thief, beacon, &mut sent, lie);
                }
            }
            shoot(&sender.udp, beacon, &mut sent, &relay);
        }
        // Frames of the honest sender come to the node still, and those in its name from elsewhere do not.
        let waits = Instant::now();
        while relayed() < begun + 10 * frame.len() as u64 {
            assert!(waits.elapsed() < PATIENCE, "frames do not come any more");
            shoot(&sender.udp, beacon, &mut sent, &relay);
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!thieves.iter().any(stolen), "frames for another came to whoever said to be it");
    });
}

#[test]
fn nobody_relays_in_the_name_of_another_host() {
    let world = World::new();
    let a = Target::start(&world, "agent-a", &[]);
    let b = Target::start(&world, "agent-b", &[]);
    befriend(&a, &b);
    let beacon: SocketAddr = world.beacon.parse().unwrap();
    let spoofer = socket_at([127, 0, 0, 69]);
    beside(&a.agent, "agent-b", || {
        let (before, renewals) = (a.count("pilot_node_relay_bytes_total{direction=\"in\"}"), a.renewals());
        let mut sent = 0;
        for source in [b.node, a.node, NodeId(77_777)] {
            let frame = junk(source);
            let relay = emitted(&Message::Relay { source, destination: a.node, frame: &frame });
            for _ in 0..50 {
                shoot(&spoofer, beacon, &mut sent, &relay);
            }
        }
        // Answered only behind all of that.
        spoofer.set_nonblocking(false).unwrap();
        spoofer.set_read_timeout(Some(PATIENCE)).unwrap();
        let survey = emitted(&Message::Survey { token: 1, from: ReplyFrom::Here });
        spoofer.send_to(&survey, beacon).unwrap();
        let mut buffer = [0; 2048];
        loop {
            let length = spoofer.recv(&mut buffer).unwrap();
            if matches!(Message::parse(&buffer[..length]), Ok(Message::SurveyReply { token: 1, .. })) {
                break;
            }
        }
        // Whatever a relayed itself is counted in the same place: forged frames would be more than all of that.
        let came = a.count("pilot_node_relay_bytes_total{direction=\"in\"}") - before;
        assert!(came < 50 * junk(a.node).len() as u64, "{came} bytes came through the beacon");
        a.assert_unmoved(renewals, 1);
    });
}

#[test]
fn words_in_the_beacons_name_move_no_way_that_works_and_shoot_at_nobody() {
    let world = World::new();
    let middle = Middle::before(&world.beacon);
    let a = Target::start_behind(&world, middle.address, "agent-a");
    let b = Target::start_behind(&world, middle.address, "agent-b");
    befriend(&a, &b);
    let (victim, stranger) = (socket_at([127, 0, 0, 70]), socket_at([127, 0, 0, 71]));
    // Named by the stranger only.
    let another = socket_at([127, 0, 0, 72]);
    beside(&a.agent, "agent-b", || {
        let (before, renewals) = (a.dropped("not_the_beacon"), [a.renewals(), b.renewals()]);
        let frame = junk(b.node);
        let lies = |victim: &UdpSocket| {
            let at_victim = victim.local_addr().unwrap();
            [
                Message::PunchCommand(at_victim),
                Message::DiscoverReply(at_victim),
                Message::RelayDeliver { source: b.node, frame: &frame },
                Message::RelayDeliverTo { source: b.node, destination: a.node, frame: &frame },
                Message::Unknown { node: b.node },
                Message::Challenge { nonce: [5; 16] },
                Message::SurveyReply {
                    token: 5,
                    observed: at_victim,
                    second_port: None,
                    second_addr: Some(at_victim),
                },
            ]
        };
        let mut sent = 0;
        for _ in 0..30 {
            for lie in &lies(&another) {
                shoot(&stranger, a.udp, &mut sent, &emitted(lie));
            }
            // From exactly the beacon's address, as somebody on the way there can.
            for lie in &lies(&victim) {
                middle.say(a.udp, lie);
            }
        }
        a.until_dropped("not_the_beacon", before, 30);
        a.assert_unmoved(renewals[0], 1);
        b.assert_unmoved(renewals[1], 1);
    });
    assert_hardly_shot_at(&victim, 1);
    assert_hardly_shot_at(&stranger, 0);
    assert_hardly_shot_at(&another, 0);
}
