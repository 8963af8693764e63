//! The state machines of registry and beacon.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, UNIX_EPOCH};

use pilot_crypto::Identity;
use pilot_rendezvous::Clock;
use pilot_rendezvous::beacon::{self, Ear, Introductions, WebId};
use pilot_rendezvous::registry::{self, ConnId};
use pilot_wire::beacon::NotifyKind;
use pilot_wire::registry::Envelope;
use pilot_wire::{NodeId, PublicKey};

/// Replies to one request: its own, and those of requests that waited for what it brought.
const REPLIES_MAX: usize = 64;

/// A registry that is asked anything by anybody. Requests are lines of the input; some are signed as they should be.
pub fn registry_state(script: &[u8]) {
    let start = Instant::now();
    let clock = Clock::new(start, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let config = || registry::Config {
        admin_token: Some("token".to_owned()),
        max_nodes: 16,
        ..registry::Config::default()
    };
    let mut state = registry::State::new(config(), clock);
    let mut now = start;
    for conn in 0..4 {
        state.open(ConnId(conn), (Ipv4Addr::LOCALHOST, 1000 + conn as u16).into(), None);
    }
    let mut next_conn = 4;
    let mut conns: Vec<u64> = (0..4).collect();
    let mut records = std::collections::BTreeMap::new();
    for line in script.split(|byte| *byte == b'\n').take(200) {
        let Some((&op, json)) = line.split_first() else { continue };
        let slot = usize::from(op & 3);
        match op >> 2 & 7 {
            0 => {
                now += Duration::from_secs(u64::from(json.first().copied().unwrap_or(0)) * 4);
                state.handle_timeout(now);
            }
            1 => {
                state.close(ConnId(conns[slot]));
                conns[slot] = next_conn;
                state.open(ConnId(next_conn), (Ipv4Addr::LOCALHOST, 2000).into(), None);
                next_conn += 1;
            }
            op => {
                let Ok(mut envelope) = Envelope::parse(json) else { continue };
                if op > 3 {
                    let identity = Identity::from_seed(&[op; 32]);
                    envelope.request = envelope.request.sign_with(|text| identity.sign(text));
                }
                state.handle(now, ConnId(conns[slot]), envelope);
            }
        }
        for (key, record) in state.take_changes() {
            match record {
                Some(record) => {
                    // As the store does it.
                    let stored = serde_json::to_vec(&record).expect("a record can be written");
                    let again =
                        serde_json::from_slice(&stored).expect("a record that was written can be read");
                    assert_eq!(record, again);
                    records.insert(key, record);
                }
                None => drop(records.remove(&key)),
            }
        }
        let mut replies = 0;
        while let Some((_, reply)) = state.poll_reply() {
            replies += 1;
            assert!(replies <= REPLIES_MAX, "the replies do not end");
            assert!(reply.to_json().len() < pilot_wire::registry::MAX_FRAME, "a reply that cannot be sent");
        }
        while state.poll_notice().is_some() {}
        while state.poll_endpoint().is_some() {}
    }
    let again = registry::State::restore(config(), clock, records).expect("what was written can be read");
    assert_eq!(again.node_counts().1, state.node_counts().1, "nodes are lost in the store");
}

/// A beacon that is sent anything by anybody.
pub fn beacon_state(script: &[u8]) {
    let mut now = Instant::now();
    let config =
        beacon::Config { max_nodes: 16, introductions: Introductions::Ask, ..beacon::Config::default() };
    let mut state = beacon::State::new(config);
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
}
