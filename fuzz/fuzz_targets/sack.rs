//! SACK lists: parsing, the lookalike test and emitting agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::sack::{MAX_BLOCKS, MAX_BLOCKS_EXTENDED, SackList, is_lookalike};

fuzz_target!(|payload: &[u8]| {
    for max_blocks in [MAX_BLOCKS, MAX_BLOCKS_EXTENDED] {
        let parsed = SackList::parse(payload, max_blocks);
        assert_eq!(parsed.is_some(), is_lookalike(payload, max_blocks));
        if let Some(list) = parsed {
            let mut out = Vec::new();
            list.emit(&mut out);
            assert_eq!(out, payload[..list.wire_len()]);
        }
    }
});
