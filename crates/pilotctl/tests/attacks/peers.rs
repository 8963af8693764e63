//! A peer that is trusted, and abuses it.

use pilot_wire::packet::Flags;
use pilot_wire::{Addr, Port, Seq};

use crate::common::World;
use crate::puppet::Puppet;
use crate::target::{PACE, Target, ask_for_trust, befriend, beside};

/// Streams that the hostile peer wants at once: many times what is taken from one peer.
const DIALS: u16 = 6000;

/// One that trusts everybody who asks, a friend of it, and a peer that is none.
fn scene(world: &World, seed: u8) -> (Target, Target, Puppet) {
    let a = Target::start(world, "agent-a", &["--trust-auto-approve"]);
    let b = Target::start(world, "agent-b", &[]);
    ask_for_trust(&b, &a);
    let mut hostile = Puppet::register(world, seed);
    hostile.befriend(&a);
    hostile.agree(&a);
    (a, b, hostile)
}

#[test]
fn a_trusted_peer_speaks_for_nobody_but_itself() {
    let world = World::new();
    let (a, b, mut hostile) = scene(&world, 3);
    beside(&b.agent, "agent-a", || {
        let before = a.dropped("wrong_address");
        for port in 0..50 {
            // As the friend, to the node; as itself, to the friend through the node.
            let mut as_friend = hostile.header(&a, Port(49_200 + port), Port::ECHO, Flags::SYN);
            as_friend.src = Addr::backbone(b.node);
            hostile.say(&a, as_friend, b"in another's name");
            let mut through = hostile.header(&a, Port(49_200 + port), Port::ECHO, Flags::SYN);
            through.dst = Addr::backbone(b.node);
            hostile.say(&a, through, b"through it");
        }
        a.until_dropped("wrong_address", before, 100);
        // Its own words are heard, so it was not the tunnel that dropped those.
        hostile.dial(&a, Port(49_500), Port::ECHO);
    });
}

#[test]
fn a_peer_that_floods_a_node_with_dials_keeps_no_other_out() {
    let world = World::new();
    let (a, b, mut hostile) = scene(&world, 4);
    let before = a.dropped("too_many");
    beside(&b.agent, "agent-a", || {
        for number in 0..DIALS {
            let mut syn = hostile.header(&a, Port(50_000 + number), Port::ECHO, Flags::SYN);
            syn.seq = Seq(u32::from(number) * 1000);
            hostile.say(&a, syn, &[]);
            if number.is_multiple_of(64) {
                std::thread::sleep(PACE);
            }
            if number % 2000 == 1000 {
                let echoed = b.agent.pipe(&["connect", "agent-a", "7"], b"a new stream in the middle of it");
                assert_eq!(echoed.text(), "a new stream in the middle of it", "{echoed:?}");
            }
        }
    });
    a.until_dropped("too_many", before, 1);
}

#[test]
fn two_ends_that_disagree_about_an_end_do_not_answer_each_other_for_ever() {
    let world = World::new();
    let (a, b, mut hostile) = scene(&world, 5);
    // What made release 1.0 answer once more, and what asks for an answer as 1.18.0 does.
    for (port, flags) in [(Port(49_600), Flags::FIN | Flags::ACK), (Port(49_601), Flags::FIN)] {
        let (here, there) = hostile.dial(&a, port, Port::ECHO);
        let answers = beside(&b.agent, "agent-a", || {
            let mut answers = 0;
            let mut fin = hostile.header(&a, port, Port::ECHO, flags);
            (fin.seq, fin.ack) = (here, there);
            for _ in 0..500 {
                hostile.say(&a, fin, &[]);
                match hostile.hear() {
                    Some((header, _)) if header.dst_port == port => {
                        fin.ack = header.seq + u32::from(header.flags.contains(Flags::FIN));
                        answers += 1;
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            answers
        });
        assert!(answers < 50, "{answers} answers to {flags:?}");
    }
}

#[test]
fn bytes_that_look_like_a_report_of_the_protocol_arrive_as_they_are() {
    let world = World::new();
    let a = Target::start(&world, "agent-a", &[]);
    let b = Target::start(&world, "agent-b", &[]);
    befriend(&a, &b);
    // One block, from 0 to 4096, and what follows; alone, in a row, and with a byte in front.
    let report = b"SACK\x01\x00\x00\x00\x00\x00\x00\x10\x00".to_vec();
    for sent in [report.clone(), report.repeat(1000), [b"x", &report[..]].concat()] {
        let echoed = b.agent.pipe(&["connect", "agent-a", "7"], &sent);
        assert_eq!((echoed.status, echoed.stdout == sent), (0, true), "{}", echoed.stderr);
    }
    // One by one, so that each is a segment of its own.
    let mut running = b.agent.spawn_piped(&["connect", "agent-a", "7"]);
    let (mut stdin, mut stdout) = (running.take_stdin(), running.take_stdout());
    for _ in 0..20 {
        use std::io::{Read, Write};
        stdin.write_all(&report).unwrap();
        let mut back = vec![0; report.len()];
        stdout.read_exact(&mut back).unwrap();
        assert_eq!(back, report);
    }
    drop((stdin, stdout));
    assert_eq!(running.status(), Some(0));
}

#[test]
fn the_unauthenticated_channel_of_port_443_is_not_served() {
    let world = World::new();
    let (a, _b, mut hostile) = scene(&world, 7);
    let mut syn = hostile.header(&a, Port(49_700), Port::SECURE, Flags::SYN);
    syn.seq = Seq(1);
    hostile.say(&a, syn, &[]);
    let answer = hostile.hear_on(Port(49_700), |_| true);
    assert!(answer.flags.contains(Flags::RST), "{answer:?}");
}
