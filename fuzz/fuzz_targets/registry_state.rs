//! A registry that is asked anything by anybody. Requests are lines of the input; some are signed as they should be.
#![no_main]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use pilot_crypto::Identity;
use pilot_rendezvous::Clock;
use pilot_rendezvous::registry::{Config, ConnId, State};
use pilot_wire::registry::Envelope;

/// Replies to one request: its own, and those of requests that waited for what it brought.
const REPLIES_MAX: usize = 64;

fuzz_target!(|script: &[u8]| {
    let start = Instant::now();
    let clock = Clock::new(start, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let config = || Config { admin_token: Some("token".to_owned()), max_nodes: 16, ..Config::default() };
    let mut state = State::new(config(), clock);
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
                    let again = serde_json::from_slice(&stored).expect("a record that was written can be read");
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
    let again = State::restore(config(), clock, records).expect("what was written can be read");
    assert_eq!(again.node_counts().1, state.node_counts().1, "nodes are lost in the store");
});
