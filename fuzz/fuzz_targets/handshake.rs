//! Trust messages between nodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::handshake::Message;

fuzz_target!(|bytes: &[u8]| {
    let complete = Message::is_complete(bytes);
    if let Ok(message) = Message::parse(bytes) {
        assert!(complete, "a message that can be read is complete");
        let mut out = Vec::new();
        message.emit(&mut out);
        assert_eq!(Message::parse(&out).as_ref(), Ok(&message));
    }
});
