//! A beacon that is sent anything by anybody.
#![no_main]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use pilot_rendezvous::beacon::{Config, Ear, Introductions, State, WebId};
use pilot_wire::beacon::NotifyKind;
use pilot_wire::{NodeId, PublicKey};

fuzz_target!(|script: &[u8]| {
    let mut now = Instant::now();
    let config = Config { max_nodes: 16, introductions: Introductions::Ask, ..Config::default() };
    let mut state = State::new(config);
    let mut rest = script;
    while let [op, length, tail @ ..] = rest {
        let (datagram, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let from: SocketAddr = (Ipv4Addr::new(127, 0, 0, op & 3), u16::from(op >> 2) + 1).into();
        match op & 0x0F {
            0 => now += Duration::from_secs(u64::from(*length)),
            1 => state.registered(NodeId(u32::from(*length)), from.ip()),
            2 => state.notify(now, NodeId(u32::from(*length)), NotifyKind::Handshake),
            3 => drop(state.web_opened(now, WebId(u64::from(op >> 4)), NodeId(u32::from(*length)))),
            4 => state.web_closed(now, WebId(u64::from(op >> 4))),
            5..8 => state.handle_web(now, WebId(u64::from(op >> 4)), datagram),
            8 => state.has_key(now, NodeId(u32::from(*length)), PublicKey::from_bytes([op >> 4; 32])),
            9 => state.handle_elsewhere(now, Ear::SecondPort, from, datagram),
            _ => state.handle_datagram(now, from, datagram),
        }
        while let Some(question) = state.poll_question() {
            state.handle_answer(now, question, op & 0x10 == 0);
        }
        let mut sent = 0;
        while let Some(train) = state.poll_transmit() {
            for out in train.datagrams() {
                sent += 1;
                assert!(
                    sent <= 8 && out.len() <= datagram.len() + 64,
                    "one datagram in, {sent} out of {}",
                    out.len()
                );
            }
        }
        // Those on the web are bounded by their connections, of which there are sixteen here.
        assert!(state.len() <= 16 + 16, "more nodes than the limit");
    }
});
