//! What a daemon says to its clients, as the client library reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::ipc::{DaemonFrame, Decoder, Reply};

fuzz_target!(|bytes: &[u8]| {
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
});
