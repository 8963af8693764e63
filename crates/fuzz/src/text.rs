//! Text forms of small things: what parses prints as something that parses to the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use pilot_wire::dataexchange::{ContentHash, MessageId, RelativePath};
use pilot_wire::policy::{GroupName, KeyPrint, Limit, PortSet, Target, Who};
use pilot_wire::tasks::TaskId;
use pilot_wire::{Addr, Endpoint, NodeId, Port, PublicKey, Signature};

/// Addresses, ports, keys, names, rules.
pub fn text(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    round_trip::<Addr>(text);
    round_trip::<Endpoint>(text);
    round_trip::<NodeId>(text);
    round_trip::<Port>(text);
    round_trip::<PublicKey>(text);
    round_trip::<Signature>(text);
    round_trip::<ContentHash>(text);
    round_trip::<MessageId>(text);
    round_trip::<RelativePath>(text);
    round_trip::<TaskId>(text);
    round_trip::<PortSet>(text);
    round_trip::<Limit>(text);
    round_trip::<KeyPrint>(text);
    round_trip::<Who>(text);
    round_trip::<GroupName>(text);
    round_trip::<Target>(text);
    let _ = text.parse::<pilot_wire::tasks::State>();
    let _ = text.parse::<pilot_daemon::Fingerprint>();
    if let Ok(ports) = text.parse::<PortSet>() {
        ports_agree(&ports);
    }
}

fn round_trip<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(value.to_string().parse::<T>().is_ok_and(|again| again == value), "{text:?} became {value}");
    }
}

fn ports_agree(ports: &PortSet) {
    let mut rest = PortSet::all();
    rest.remove(ports);
    for (first, last) in ports.ranges() {
        assert!(first <= last && ports.contains(first) && ports.contains(last));
        assert!(
            !rest.contains(first) && !rest.contains(last),
            "{ports} without itself has {first} or {last}"
        );
    }
    rest.insert(ports);
    assert_eq!(rest, PortSet::all(), "{ports} and all the others are not all");
}
