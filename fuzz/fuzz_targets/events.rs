//! Event stream: events in any segmentation, and topic patterns.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::events::{Decoder, Pattern};

fuzz_target!(|bytes: &[u8]| {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let mut decoder = Decoder::new();
    let mut pattern = None;
    for piece in bytes.chunks(usize::from(step).max(1)) {
        decoder.feed(piece);
        loop {
            let event = match decoder.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) => return,
            };
            let mut out = Vec::new();
            event.emit(&mut out);
            assert_eq!(out.len(), event.wire_len());
            let pattern = pattern.get_or_insert_with(|| Pattern::new(event.topic.clone()));
            let _ = pattern.matches(&event.topic);
        }
    }
});
