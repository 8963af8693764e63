//! Formats of datagrams: what parses is emitted as the same.

use pilot_wire::beacon::Message;
use pilot_wire::mesh::{self, Sealed};
use pilot_wire::packet::Packet;
use pilot_wire::path::{Candidates, Mtu};
use pilot_wire::record::{KeyChange, NodeRecord, Signed};
use pilot_wire::sack::{MAX_BLOCKS, MAX_BLOCKS_EXTENDED, SackList, is_lookalike};
use pilot_wire::tunnel::{Busy, Extension, Frame};

/// Overlay packets.
pub fn packet(bytes: &[u8]) {
    let checked = Packet::parse(bytes);
    let Ok(packet) = Packet::parse_sealed(bytes) else {
        assert!(checked.is_err(), "the checked parser takes more than the one behind the cipher");
        return;
    };
    let mut out = Vec::new();
    packet.emit(&mut out);
    assert_eq!(Packet::parse(&out).as_ref(), Ok(&packet));
    if checked.is_ok() {
        assert_eq!(out, bytes[..out.len()], "a packet with the right checksum has one form");
    }
}

/// SACK lists: parsing, the lookalike test and emitting agree.
pub fn sack(payload: &[u8]) {
    for max_blocks in [MAX_BLOCKS, MAX_BLOCKS_EXTENDED] {
        let parsed = SackList::parse(payload, max_blocks);
        assert_eq!(parsed.is_some(), is_lookalike(payload, max_blocks));
        if let Some(list) = parsed {
            let mut out = Vec::new();
            list.emit(&mut out);
            assert_eq!(out, payload[..list.wire_len()]);
        }
    }
}

/// Tunnel frames, and what follows a key exchange.
pub fn tunnel(datagram: &[u8]) {
    let Ok(frame) = Frame::parse(datagram) else { return };
    let mut out = Vec::new();
    frame.emit(&mut out);
    assert_eq!(Frame::parse(&out).as_ref(), Ok(&frame));
    assert!(datagram.starts_with(&out), "only bytes after the frame may be lost");
    match frame {
        Frame::KeyExchange(exchange) => {
            let said = Extension::parse(exchange.trailer);
            let mut trailer = Vec::new();
            said.emit(&mut trailer);
            assert_eq!(Extension::parse(&trailer), said);
            assert!(trailer.len() <= 64);
        }
        Frame::KeyRequest { trailer, .. } => {
            if let Some(busy) = Busy::parse(trailer) {
                let mut again = Vec::new();
                busy.emit(&mut again);
                assert!(trailer.starts_with(&again));
            }
        }
        Frame::Plain { .. } | Frame::Sealed { .. } | Frame::Punch => {}
    }
}

/// Beacon messages, and those between beacons.
pub fn beacon(datagram: &[u8]) {
    if let Ok(message) = Message::parse(datagram) {
        let mut out = Vec::new();
        message.emit(&mut out);
        assert_eq!(Message::parse(&out).as_ref(), Ok(&message));
    }
    if let Ok(sealed) = Sealed::parse(datagram)
        && let Ok(body) = sealed.body()
    {
        let mut out = Vec::new();
        body.emit(sealed.beacon, sealed.counter, |_| [0; mesh::TAG_LEN], &mut out);
        assert_eq!(Sealed::parse(&out).and_then(|again| again.body()).as_ref(), Ok(&body));
    }
}

/// What peers tell each other of the ways between them.
pub fn path(payload: &[u8]) {
    if let Ok(candidates) = Candidates::parse(payload) {
        let mut out = Vec::new();
        candidates.emit(&mut out);
        assert_eq!(Candidates::parse(&out).as_ref(), Ok(&candidates));
    }
    if let Ok(mtu) = Mtu::parse(payload) {
        assert_eq!(Mtu::parse(&mtu.to_bytes()).as_ref(), Ok(&mtu));
    }
}

/// Signed records of nodes and changes of keys, as bytes and as text.
pub fn record(bytes: &[u8]) {
    if let Ok(record) = NodeRecord::parse(bytes) {
        assert_eq!(NodeRecord::parse(&record.to_bytes()).as_ref(), Ok(&record));
    }
    if let Ok(change) = KeyChange::parse(bytes) {
        assert_eq!(KeyChange::parse(&change.to_bytes()).as_ref(), Ok(&change));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        signed::<1>(text);
        signed::<2>(text);
    }
}

fn signed<const N: usize>(text: &str) {
    if let Ok(signed) = Signed::<N>::from_text(text) {
        assert_eq!(Signed::from_text(&signed.to_text()).as_ref(), Ok(&signed));
    }
}
