//! Text forms of addresses, ports and keys: what parses prints as something that parses to the same.
#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use pilot_wire::{Addr, Endpoint, PublicKey, Signature};

fuzz_target!(|text: &str| {
    round_trip::<Addr>(text);
    round_trip::<Endpoint>(text);
    round_trip::<PublicKey>(text);
    round_trip::<Signature>(text);
});

fn round_trip<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(value.to_string().parse::<T>().is_ok_and(|again| again == value), "{text:?} became {value}");
    }
}
