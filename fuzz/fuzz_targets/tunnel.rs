//! Tunnel frames: what parses is emitted as the same frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::tunnel::Frame;

fuzz_target!(|datagram: &[u8]| {
    if let Ok(frame) = Frame::parse(datagram) {
        let mut out = Vec::new();
        frame.emit(&mut out);
        assert_eq!(Frame::parse(&out).as_ref(), Ok(&frame));
        assert!(datagram.starts_with(&out), "only bytes after the frame may be lost");
    }
});
