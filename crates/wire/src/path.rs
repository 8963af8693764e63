//! What two of our nodes tell each other about the ways between them: a control packet to port 4 inside the
//! tunnel, which release 1.18.0 ignores (spec/dataplane.md 10.3).

use std::net::SocketAddr;

use crate::beacon::{emit_socket_addr, read_socket_addr};
use crate::{ParseError, Port, Reader};

/// Where path messages go.
pub const PORT: Port = Port(4);

/// Addresses in one message. More than a host with several networks has.
pub const CANDIDATES_MAX: usize = 12;

/// Every address at which the sender may be reached, the best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Grows with each change of the list, and from one life of the sender to the next.
    pub generation: u64,
    /// The box in front of the sender, as far as it knows.
    pub nat: Nat,
    /// At most [`CANDIDATES_MAX`].
    pub list: Vec<Candidate>,
}

/// An address of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// How the sender knows of it.
    pub kind: Kind,
    /// The address.
    pub addr: SocketAddr,
}

/// How a node knows one of its own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An interface of its own has it.
    Host,
    /// The beacon sees its datagrams come from there.
    Observed,
    /// A gateway maps it, on request (PCP, NAT-PMP, UPnP).
    Mapped,
}

/// How a box in front of a node behaves, in the words of RFC 4787.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// Which outside address the datagrams of one inside address get (RFC 4787 4.1).
    pub mapping: Behaviour,
    /// Whose datagrams are let in (RFC 4787 5).
    pub filtering: Behaviour,
}

/// On what a behaviour depends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    /// Not measured, or not measurable.
    #[default]
    Unknown,
    /// There is no box: the outside address is the inside one.
    None,
    /// Endpoint-independent.
    EndpointIndependent,
    /// Address-dependent.
    AddressDependent,
    /// Address- and port-dependent.
    AddressAndPortDependent,
}

const CANDIDATES: u8 = 1;
const MTU_PROBE: u8 = 2;
const MTU_REPLY: u8 = 3;

/// A question whether datagrams of some size arrive, or its answer (RFC 8899 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mtu {
    /// The message is as long as what is asked about; zeros fill it.
    Probe {
        /// Random; names the probe.
        token: u64,
    },
    /// A probe arrived. Never longer than [`Mtu::LEN`].
    Reply {
        /// That of the probe.
        token: u64,
    },
}

impl Mtu {
    /// Bytes of a reply, and of a probe without padding.
    pub const LEN: usize = 9;

    /// Parses the payload of a path message. What follows is padding.
    ///
    /// # Errors
    /// [`ParseError`] for another message or one that is cut short.
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(payload);
        match reader.u8()? {
            MTU_PROBE => Ok(Self::Probe { token: reader.u64()? }),
            MTU_REPLY => Ok(Self::Reply { token: reader.u64()? }),
            other => Err(ParseError::UnknownType { what: "path message", value: u32::from(other) }),
        }
    }

    /// The message without padding.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let (kind, token) = match self {
            Self::Probe { token } => (MTU_PROBE, token),
            Self::Reply { token } => (MTU_REPLY, token),
        };
        let mut bytes = [kind; Self::LEN];
        bytes[1..].copy_from_slice(&token.to_be_bytes());
        bytes
    }
}

impl Candidates {
    /// Parses the payload of a path message. Bytes after the list are ignored.
    ///
    /// # Errors
    /// [`ParseError`] for another message or a malformed one.
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(payload);
        let kind = reader.u8()?;
        if kind != CANDIDATES {
            return Err(ParseError::UnknownType { what: "path message", value: u32::from(kind) });
        }
        let generation = reader.u64()?;
        let nat = Nat { mapping: behaviour(reader.u8()?), filtering: behaviour(reader.u8()?) };
        let count = usize::from(reader.u8()?);
        if count > CANDIDATES_MAX {
            return Err(ParseError::TooLong {
                what: "list of path candidates",
                limit: CANDIDATES_MAX,
                found: count,
            });
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = match reader.u8()? {
                0 => Kind::Host,
                1 => Kind::Observed,
                2 => Kind::Mapped,
                other => {
                    return Err(ParseError::UnknownType { what: "path candidate", value: u32::from(other) });
                }
            };
            list.push(Candidate { kind, addr: read_socket_addr(&mut reader)? });
        }
        Ok(Self { generation, nat, list })
    }

    /// Appends the payload. Candidates beyond [`CANDIDATES_MAX`] are left out.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(CANDIDATES);
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.push(self.nat.mapping as u8);
        out.push(self.nat.filtering as u8);
        let list = &self.list[..self.list.len().min(CANDIDATES_MAX)];
        out.push(u8::try_from(list.len()).unwrap_or(0));
        for candidate in list {
            out.push(candidate.kind as u8);
            emit_socket_addr(candidate.addr, out);
        }
    }
}

/// A behaviour that a later version knows and this one does not is unknown.
fn behaviour(byte: u8) -> Behaviour {
    match byte {
        1 => Behaviour::None,
        2 => Behaviour::EndpointIndependent,
        3 => Behaviour::AddressDependent,
        4 => Behaviour::AddressAndPortDependent,
        _ => Behaviour::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Candidates {
        let addr = |text: &str| text.parse().unwrap();
        Candidates {
            generation: 7,
            nat: Nat {
                mapping: Behaviour::EndpointIndependent,
                filtering: Behaviour::AddressAndPortDependent,
            },
            list: vec![
                Candidate { kind: Kind::Host, addr: addr("192.168.1.5:4000") },
                Candidate { kind: Kind::Host, addr: addr("[fd00::5]:4000") },
                Candidate { kind: Kind::Observed, addr: addr("203.0.113.9:40000") },
                Candidate { kind: Kind::Mapped, addr: addr("203.0.113.9:4000") },
            ],
        }
    }

    #[test]
    fn what_is_emitted_is_parsed_and_every_prefix_is_refused() {
        let mut bytes = Vec::new();
        example().emit(&mut bytes);
        assert_eq!(Candidates::parse(&bytes).unwrap(), example());
        for len in 0..bytes.len() {
            assert!(Candidates::parse(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_probe_survives_its_padding_and_no_other_message_is_one() {
        let probe = Mtu::Probe { token: 0x0102_0304_0506_0708 };
        let mut bytes = probe.to_bytes().to_vec();
        bytes.resize(1400, 0);
        assert_eq!(Mtu::parse(&bytes).unwrap(), probe);
        assert!(Candidates::parse(&bytes).is_err());
        let reply = Mtu::Reply { token: 7 };
        assert_eq!(Mtu::parse(&reply.to_bytes()).unwrap(), reply);
        for len in 0..Mtu::LEN {
            assert!(Mtu::parse(&bytes[..len]).is_err(), "{len}");
        }
        let mut candidates = Vec::new();
        example().emit(&mut candidates);
        assert!(Mtu::parse(&candidates).is_err());
    }

    #[test]
    fn a_list_that_is_too_long_is_neither_sent_nor_taken() {
        let mut long = example();
        while long.list.len() < CANDIDATES_MAX + 5 {
            long.list.push(long.list[0]);
        }
        let mut bytes = Vec::new();
        long.emit(&mut bytes);
        assert_eq!(Candidates::parse(&bytes).unwrap().list.len(), CANDIDATES_MAX);
        bytes[11] = 200;
        assert!(Candidates::parse(&bytes).is_err());
    }
}
