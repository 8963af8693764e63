//! Port Control Protocol (RFC 6887), as far as a mapping of one port needs it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Answer, Nonce};

const VERSION: u8 = 2;
/// Opcode MAP; with this bit it is an answer.
const MAP: u8 = 1;
const RESPONSE: u8 = 0x80;
const UDP: u8 = 17;
const LENGTH: usize = 60;

/// A question for a mapping, or, with a lifetime of 0, for its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// Our address as the gateway sees it: it refuses a request that came through another NAT.
    pub(super) client: IpAddr,
    pub(super) port: u16,
    /// What we would like, or had before.
    pub(super) external: Option<SocketAddr>,
    pub(super) lifetime: u32,
    /// Whoever knows it may change the mapping.
    pub(super) nonce: Nonce,
}

impl Request {
    pub(super) fn emit(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH);
        out.extend([VERSION, MAP, 0, 0]);
        out.extend(self.lifetime.to_be_bytes());
        out.extend(sixteen(self.client));
        out.extend(self.nonce);
        out.extend([UDP, 0, 0, 0]);
        out.extend(self.port.to_be_bytes());
        let any = if self.client.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let wish = self.external.unwrap_or(SocketAddr::new(any, self.port));
        out.extend(wish.port().to_be_bytes());
        out.extend(sixteen(wish.ip()));
        out
    }

    /// What a datagram of the gateway says to this question; `None` if it is no answer to it.
    pub(super) fn answer(&self, datagram: &[u8]) -> Option<Answer> {
        let (&[version, op, _, result], _) = datagram.split_first_chunk()?;
        if version != VERSION {
            // RFC 6887 9: an older server answers in its own version that it does not know ours.
            return (version < VERSION && op & RESPONSE != 0).then_some(Answer::OtherProtocol);
        }
        if op != RESPONSE | MAP {
            return None;
        }
        // A server that does not know the version or the opcode need not repeat the question (RFC 6887 8.2).
        if matches!(result, 1 | 4) {
            return Some(Answer::OtherProtocol);
        }
        let message: &[u8; LENGTH] = datagram.first_chunk()?;
        let two = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        let four = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| message[at + i]));
        if message[24..36] != self.nonce || message[36] != UDP || two(40) != self.port {
            return None;
        }
        if result != 0 {
            return Some(Answer::Refused(format!("PCP: {}", reason(result))));
        }
        let ip: [u8; 16] = std::array::from_fn(|i| message[44 + i]);
        let external = SocketAddr::new(IpAddr::from(ip).to_canonical(), two(42));
        Some(Answer::Granted { external, lifetime: four(4) })
    }
}

fn sixteen(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// RFC 6887 7.4.
fn reason(result: u8) -> String {
    let text = match result {
        2 => "not authorized",
        3 => "malformed request",
        5 => "unsupported option",
        6 => "malformed option",
        7 => "network failure",
        8 => "no resources",
        9 => "unsupported protocol",
        10 => "quota exceeded",
        11 => "cannot provide the external address",
        12 => "address mismatch: there is another NAT in between",
        13 => "excessive remote peers",
        other => return format!("result {other}"),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            client: [192, 168, 1, 5].into(),
            port: 4000,
            external: None,
            lifetime: 3600,
            nonce: [7; 12],
        }
    }

    /// What RFC 6887 11.1 says a server sends.
    fn granted() -> Vec<u8> {
        let mut answer = request().emit();
        answer[1] |= RESPONSE;
        answer[4..8].copy_from_slice(&1800u32.to_be_bytes());
        answer[8..12].copy_from_slice(&99u32.to_be_bytes());
        answer[42..44].copy_from_slice(&4711u16.to_be_bytes());
        answer[44..60].copy_from_slice(&std::net::Ipv4Addr::new(203, 0, 113, 9).to_ipv6_mapped().octets());
        answer
    }

    #[test]
    fn the_request_is_that_of_the_rfc() {
        let bytes = request().emit();
        assert_eq!(bytes.len(), 60);
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 14, 16]);
        assert_eq!(bytes[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 168, 1, 5]);
        assert_eq!(bytes[24..44], [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 17, 0, 0, 0, 15, 160, 15, 160]);
        assert_eq!(bytes[44..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0]);
    }

    #[test]
    fn a_grant_is_read_and_every_shorter_one_is_none() {
        let external = "203.0.113.9:4711".parse().unwrap();
        let expected = Answer::Granted { external, lifetime: 1800 };
        assert_eq!(request().answer(&granted()), Some(expected));
        for length in 0..granted().len() {
            assert_eq!(request().answer(&granted()[..length]), None, "{length}");
        }
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        for (at, what) in [(1, "no answer"), (24, "another nonce"), (36, "TCP"), (41, "another port")] {
            let mut answer = granted();
            answer[at] ^= 0x80;
            assert_eq!(request().answer(&answer), None, "{what}");
        }
    }

    #[test]
    fn refusals_say_why_and_old_servers_are_asked_otherwise() {
        let mut refused = granted();
        refused[3] = 2;
        assert_eq!(request().answer(&refused), Some(Answer::Refused("PCP: not authorized".to_owned())));
        assert_eq!(request().answer(&[0, 0x81, 0, 1, 0, 0, 0, 9]), Some(Answer::OtherProtocol), "NAT-PMP");
        assert_eq!(request().answer(&[2, 0x81, 0, 1]), Some(Answer::OtherProtocol));
        assert_eq!(request().answer(&[2, 1, 0, 0]), None, "a question");
    }
}
