//! Host names that mean nodes, for programs that know nothing but host names.
//!
//! `agent-b.pilot` is the node of that hostname, `2.pilot` the node of that number, and `1-0001.0002.0003.pilot` the address
//! `1:0001.0002.0003` with its colon as a hyphen, which host names may contain. Case makes no difference, and a dot
//! may stand at the end. Everything else is somebody else's, and is never looked up anywhere.

use pilot_client::{Addr, NodeId};

use crate::settings::is_hostname;
use crate::target::Target;

/// What these names end with.
const HOST_SUFFIX: &str = ".pilot";

/// Why a host name means no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadName {
    /// It ends otherwise.
    NotOurs,
    /// It ends so, and what stands before is no node.
    Malformed,
}

/// Reads a host name.
pub(crate) fn host_name(host: &str) -> Result<Target, BadName> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let node = host.strip_suffix(HOST_SUFFIX).ok_or(BadName::NotOurs)?;
    if let Ok(number) = node.parse() {
        return Ok(Target::Number(NodeId(number)));
    }
    if is_hostname(node) {
        return Ok(Target::Name(node.to_owned()));
    }
    let address: Result<Addr, _> = node.replacen('-', ":", 1).parse();
    address.map(Target::Address).map_err(|_| BadName::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_addresses_have_a_form_as_host_name() {
        for (host, target) in [
            ("agent-b.pilot", "agent-b"),
            ("Agent-B.Pilot.", "agent-b"),
            ("2.pilot", "2"),
            ("1-0001.0002.0003.pilot", "1:0001.0002.0003"),
            ("0-0000.0000.00ff.pilot", "0:0000.0000.00FF"),
        ] {
            assert_eq!(host_name(host), Ok(Target::parse(target).unwrap()), "{host}");
        }
    }

    #[test]
    fn other_names_are_told_apart_from_wrong_ones() {
        for host in ["example.com", "agent-b", "pilot", "agent-b.pilot.com", "127.0.0.1", ""] {
            assert_eq!(host_name(host), Err(BadName::NotOurs), "{host}");
        }
        for host in [".pilot", "a.b.pilot", "-x.pilot", "1-0002.0000.0003.pilot", "a b.pilot", "ä.pilot"] {
            assert_eq!(host_name(host), Err(BadName::Malformed), "{host}");
        }
    }
}
