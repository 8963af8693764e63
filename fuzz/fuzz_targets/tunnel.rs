//! Tunnel frames: what parses is emitted as the same frame, and so is what follows a key exchange.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::tunnel::{Busy, Extension, Frame};

fuzz_target!(|datagram: &[u8]| {
    if let Ok(frame) = Frame::parse(datagram) {
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
});
