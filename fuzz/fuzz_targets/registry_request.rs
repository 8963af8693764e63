//! Requests as a registry reads them: frames in any segmentation, and what was read can be sent on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::registry::{Decoder, Envelope};

fuzz_target!(|bytes: &[u8]| {
    request(bytes);
    let mut decoder = Decoder::new();
    for piece in bytes.chunks(7) {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(content)) => request(&content),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});

fn request(json: &[u8]) {
    if let Ok(envelope) = Envelope::parse(json) {
        // A field that could not be read is kept as the reason why, so only the kind of request must be the same.
        let again = Envelope::parse(&envelope.to_json()).expect("what was read can be read again");
        assert_eq!(std::mem::discriminant(&again.request), std::mem::discriminant(&envelope.request));
    }
}
