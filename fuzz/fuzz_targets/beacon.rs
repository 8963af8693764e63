//! Beacon messages: what parses is emitted as the same message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::beacon::Message;
use pilot_wire::mesh::{self, Sealed};

fuzz_target!(|datagram: &[u8]| {
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
});
