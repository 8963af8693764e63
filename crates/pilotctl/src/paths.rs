//! Ages, round trips and NATs as the commands about paths show them.

use pilot_wire::ipc::paths::{Behaviour, Nat};

/// How long ago: `0 s ago`, `3 min ago`, `2 h ago`.
pub(crate) fn ago_ms(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..60 => format!("{s} s ago"),
        s @ 60..3600 => format!("{} min ago", s / 60),
        s @ 3600..86_400 => format!("{} h ago", s / 3600),
        s => format!("{} days ago", s / 86_400),
    }
}

/// A round trip in microseconds: `41.20 ms`, or `-`.
pub(crate) fn rtt(us: Option<u64>) -> String {
    us.map_or_else(|| "-".to_owned(), |us| format!("{:.2} ms", us as f64 / 1e3))
}

/// A box in the words of RFC 4787.
pub(crate) fn nat(nat: Nat) -> String {
    match (nat.mapping, nat.filtering) {
        (Behaviour::Unknown, Behaviour::Unknown) => "not measured".to_owned(),
        (Behaviour::None, Behaviour::None | Behaviour::Unknown) => "none".to_owned(),
        (Behaviour::None, filtering) => format!("none, but a firewall: {} filtering", filtering.name()),
        (mapping, filtering) => format!("{} mapping · {} filtering", mapping.name(), filtering.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_have_the_names_of_the_rfc() {
        let shown = |mapping, filtering| nat(Nat { mapping, filtering });
        assert_eq!(shown(Behaviour::Unknown, Behaviour::Unknown), "not measured");
        assert_eq!(shown(Behaviour::None, Behaviour::None), "none");
        assert_eq!(
            shown(Behaviour::EndpointIndependent, Behaviour::AddressAndPortDependent),
            "endpoint-independent mapping · address- and port-dependent filtering"
        );
        assert_eq!(
            shown(Behaviour::None, Behaviour::AddressDependent),
            "none, but a firewall: address-dependent filtering"
        );
    }

    #[test]
    fn ages_and_round_trips_have_a_unit() {
        assert_eq!([ago_ms(999), ago_ms(61_000), ago_ms(7_200_000)], ["0 s ago", "1 min ago", "2 h ago"]);
        assert_eq!((rtt(Some(412)), rtt(None)), ("0.41 ms".to_owned(), "-".to_owned()));
    }
}
