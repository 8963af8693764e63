//! NAT-PMP (RFC 6886): one question for the gateway's address, one for a mapping.

use std::net::Ipv4Addr;

const VERSION: u8 = 0;
const ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;
const RESPONSE: u8 = 0x80;

/// Asks for the address that the world sees.
pub(super) const ADDRESS_REQUEST: [u8; 2] = [VERSION, ADDRESS];

/// Asks for a mapping, or, with a lifetime of 0, for its end.
pub(super) fn map_request(port: u16, external: u16, lifetime: u32) -> [u8; 12] {
    let ([a, b], [c, d], [e, f, g, h]) = (port.to_be_bytes(), external.to_be_bytes(), lifetime.to_be_bytes());
    [VERSION, MAP_UDP, 0, 0, a, b, c, d, e, f, g, h]
}

/// What a gateway says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply<T> {
    /// This.
    Ok(T),
    /// No, for this reason.
    Refused(String),
}

/// A mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) external_port: u16,
    pub(super) lifetime: u32,
}

/// The answer to [`ADDRESS_REQUEST`]; `None` if the datagram is none.
pub(super) fn address(datagram: &[u8]) -> Option<Reply<Ipv4Addr>> {
    Some(match result(datagram, ADDRESS)? {
        0 => {
            let ip: [u8; 4] = *datagram.get(8..)?.first_chunk()?;
            Reply::Ok(ip.into())
        }
        result => Reply::Refused(reason(result)),
    })
}

/// The answer to [`map_request`] for `port`; `None` if the datagram is none.
pub(super) fn mapped(datagram: &[u8], port: u16) -> Option<Reply<Mapped>> {
    let result = result(datagram, MAP_UDP)?;
    if result != 0 {
        return Some(Reply::Refused(reason(result)));
    }
    let &[a, b, c, d, e, f, g, h] = datagram.get(8..)?.first_chunk()?;
    let value =
        Mapped { external_port: u16::from_be_bytes([c, d]), lifetime: u32::from_be_bytes([e, f, g, h]) };
    (u16::from_be_bytes([a, b]) == port).then_some(Reply::Ok(value))
}

/// The result code of an answer to `question`. Seconds since the gateway's start follow it: a mapping that it forgot is
/// made anew by asking for more time, so they tell us nothing.
fn result(datagram: &[u8], question: u8) -> Option<u16> {
    let &[version, op, high, low] = datagram.first_chunk()?;
    (version == VERSION && op == RESPONSE | question).then_some(u16::from_be_bytes([high, low]))
}

/// RFC 6886 3.5.
fn reason(result: u16) -> String {
    let text = match result {
        1 => "unsupported version",
        2 => "not authorized, mappings are switched off",
        3 => "network failure, it has no address itself",
        4 => "out of resources",
        5 => "unsupported opcode",
        other => return format!("NAT-PMP: result {other}"),
    };
    format!("NAT-PMP: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS_REPLY: [u8; 12] = [0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 9];
    const MAP_REPLY: [u8; 16] = [0, 129, 0, 0, 0, 0, 0, 9, 15, 160, 18, 103, 0, 0, 7, 8];

    #[test]
    fn requests_are_those_of_the_rfc() {
        assert_eq!(map_request(4000, 4001, 7200), [0, 1, 0, 0, 15, 160, 15, 161, 0, 0, 28, 32]);
    }

    #[test]
    fn replies_are_read_and_cut_ones_are_none() {
        let expected = Reply::Ok(Ipv4Addr::new(203, 0, 113, 9));
        assert_eq!(address(&ADDRESS_REPLY), Some(expected));
        let value = Mapped { external_port: 4711, lifetime: 1800 };
        assert_eq!(mapped(&MAP_REPLY, 4000), Some(Reply::Ok(value)));
        for length in 0..12 {
            assert_eq!(address(&ADDRESS_REPLY[..length]), None, "{length}");
        }
        for length in 0..16 {
            assert_eq!(mapped(&MAP_REPLY[..length], 4000), None, "{length}");
        }
    }

    #[test]
    fn what_answers_another_question_is_none() {
        assert_eq!(mapped(&MAP_REPLY, 4001), None, "of another port");
        assert_eq!(mapped(&ADDRESS_REPLY, 4000), None);
        assert_eq!(address(&MAP_REPLY), None);
        assert_eq!(address(&[2, 128, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4]), None, "of another version");
        let refused = Reply::Refused("NAT-PMP: not authorized, mappings are switched off".to_owned());
        assert_eq!(mapped(&[0, 129, 0, 2], 4000), Some(refused));
    }
}
