//! Beacon messages: what parses is emitted as the same message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::beacon::Message;

fuzz_target!(|datagram: &[u8]| {
    if let Ok(message) = Message::parse(datagram) {
        let mut out = Vec::new();
        message.emit(&mut out);
        assert_eq!(Message::parse(&out).as_ref(), Ok(&message));
    }
});
