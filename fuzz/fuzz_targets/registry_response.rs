//! Replies of a registry as a node reads them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilot_wire::registry::Response;

fuzz_target!(|json: &[u8]| {
    if let Ok(response) = Response::parse(json) {
        let sent = response.to_json();
        // Not byte for byte: numbers of a policy that is passed through may lose their last digit.
        let again = Response::parse(&sent).expect("what was read can be read again");
        assert_eq!(std::mem::discriminant(&again), std::mem::discriminant(&response));
    }
});
