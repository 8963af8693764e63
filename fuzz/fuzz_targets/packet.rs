//! Overlay packets: what parses is emitted as the same packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::packet::Packet;

fuzz_target!(|bytes: &[u8]| {
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
});
