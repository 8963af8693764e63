//! Data exchange: frames in any segmentation, messages, files and answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::dataexchange::{Answer, Decoder, Frame};

fuzz_target!(|bytes: &[u8]| {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let mut decoder = Decoder::new(1 << 20);
    for piece in bytes.chunks(usize::from(step).max(1)) {
        decoder.feed(piece);
        loop {
            let raw = match decoder.next_frame() {
                Ok(Some(raw)) => raw,
                Ok(None) => break,
                Err(_) => return,
            };
            if let Ok(answer) = Answer::parse(&raw) {
                let _ = answer.text();
            }
            if let Ok(frame) = Frame::parse(raw) {
                let mut out = Vec::new();
                frame.emit(&mut out);
                let mut again = Decoder::new(usize::MAX);
                again.feed(&out);
                let raw = again.next_frame().expect("within the limit").expect("whole");
                assert_eq!(Frame::parse(raw).as_ref(), Ok(&frame));
            }
        }
    }
});
