//! What local clients say to the daemon: frames in any segmentation, and requests that mean the same when sent on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::ipc::{ClientFrame, Decoder, Request};

fuzz_target!(|bytes: &[u8]| {
    frame(bytes);
    let mut decoder = Decoder::new();
    for piece in bytes.chunks(5) {
        decoder.space().extend_from_slice(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(content)) => frame(&content),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});

fn frame(bytes: &[u8]) {
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
