//! What local programs and the daemon say to each other.

use std::fmt::Debug;

use pilot_wire::capture::{self, Filter};
use pilot_wire::ipc::{Call, ClientFrame, DaemonFrame, Decoder, Reply, Request};
use pilot_wire::{hooks, mailbox, mailboxes, networks, outbox, policy, received, serving, tasks};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Frames in any segmentation, and requests that mean the same when sent on.
pub fn ipc_client_frame(bytes: &[u8]) {
    client_frame(bytes);
    let mut decoder = Decoder::new();
    for piece in bytes.chunks(5) {
        decoder.space().extend_from_slice(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(content)) => client_frame(&content),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn client_frame(bytes: &[u8]) {
    let Ok(parsed) = ClientFrame::parse(bytes) else { return };
    if let ClientFrame::Tagged { request, .. } = &parsed {
        let _ = Request::parse(request);
    }
    let mut out = Vec::new();
    parsed.emit(&mut out);
    let mut decoder = Decoder::new();
    decoder.space().extend_from_slice(&out);
    if let Ok(Some(content)) = decoder.next_frame() {
        assert_eq!(ClientFrame::parse(&content).as_ref(), Ok(&parsed));
    }
}

/// What a daemon says to its clients, as the client library reads it.
pub fn ipc_daemon_frame(bytes: &[u8]) {
    let Ok(parsed) = DaemonFrame::parse(bytes) else { return };
    if let DaemonFrame::Tagged { reply, .. } = &parsed {
        let _ = Reply::parse(reply);
    }
    let mut out = Vec::new();
    parsed.emit(&mut out);
    let mut decoder = Decoder::new();
    decoder.space().extend_from_slice(&out);
    if let Ok(Some(content)) = decoder.next_frame() {
        assert_eq!(DaemonFrame::parse(&content).as_ref(), Ok(&parsed));
    }
}

/// Packets that a daemon captured, as a program reads them.
pub fn capture(reply: &[u8]) {
    let Ok((counts, records)) = capture::parse(reply) else { return };
    let mut out = Vec::new();
    counts.emit(&mut out);
    for record in &records {
        record.emit(&mut out);
        let filter = Filter { peer: None, port: Some(pilot_wire::Port(1)) };
        let _ = filter.admits(pilot_wire::NodeId(1), record.packet);
    }
    assert_eq!(capture::parse(&out), Ok((counts, records)));
}

/// Calls of the built-in services and their replies. The first byte says which.
pub fn calls(bytes: &[u8]) {
    let Some((&which, json)) = bytes.split_first() else { return };
    match which % 20 {
        0 => round_trip::<mailbox::Request>(json),
        1 => round_trip::<mailbox::Reply>(json),
        2 => round_trip::<mailboxes::Request>(json),
        3 => round_trip::<mailboxes::Reply>(json),
        4 => round_trip::<outbox::Request>(json),
        5 => round_trip::<outbox::Reply>(json),
        6 => round_trip::<received::Request>(json),
        7 => round_trip::<received::Reply>(json),
        8 => round_trip::<serving::Request>(json),
        9 => round_trip::<serving::Reply>(json),
        10 => round_trip::<networks::Request>(json),
        11 => round_trip::<networks::Reply>(json),
        12 => round_trip::<hooks::Request>(json),
        13 => round_trip::<hooks::Reply>(json),
        14 => round_trip::<policy::Request>(json),
        15 => round_trip::<policy::Reply>(json),
        16 => round_trip::<tasks::Request>(json),
        17 => round_trip::<tasks::Reply>(json),
        18 => round_trip::<Call>(json),
        _ => round_trip::<policy::Book>(json),
    }
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(json: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(json) {
        let text = serde_json::to_vec(&value).expect("what was read can be written");
        let again = serde_json::from_slice::<T>(&text);
        assert_eq!(again.expect("what was written can be read"), value);
    }
}
