//! Packets of one's own node, as the daemon hands them to a program that watches, and as they stand in a capture file.
//!
//! Neither is said between nodes. In front of each packet stands a [`Meta`] of [`META_LEN`] bytes, which tells what the
//! packet itself does not: the way it took.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{NodeId, ParseError, Port, Reader};

/// Length of a [`Meta`] in bytes.
pub const META_LEN: usize = 24;

/// The version of the [`Meta`] that is written.
pub const META_VERSION: u8 = 1;

const ENCRYPTED: u8 = 1;
const RECORD_HEADER_LEN: usize = 8 + META_LEN;

/// Which way a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To this node.
    Received,
    /// From this node.
    Sent,
}

/// What carried a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Nothing: it went from this node to itself.
    Own,
    /// A datagram between the two nodes.
    Direct,
    /// The beacon.
    Relay,
}

/// What is known of a packet besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// To or from this node.
    pub direction: Direction,
    /// What carried it.
    pub carrier: Carrier,
    /// It was sealed on its way.
    pub encrypted: bool,
    /// Where its datagram went to or came from; of a relayed one the beacon, if that has an address.
    pub endpoint: Option<SocketAddr>,
}

/// Which packets a program wants to see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Only those to and from this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<NodeId>,
    /// Only those with this port at either end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
}

/// One packet that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When, in nanoseconds of Unix time.
    pub time: u64,
    /// How it went.
    pub meta: Meta,
    /// The packet, with its header.
    pub packet: &'a [u8],
}

/// How many packets there were since the capture began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that the filter let through.
    pub seen: u64,
    /// Those of them that were lost, because the program did not fetch the earlier ones in time.
    pub dropped: u64,
}

impl Meta {
    /// Appends its bytes.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let direction = match self.direction {
            Direction::Received => 1,
            Direction::Sent => 2,
        };
        let carrier = match self.carrier {
            Carrier::Own => 0,
            Carrier::Direct => 1,
            Carrier::Relay => 2,
        };
        let (family, port, address) = match self.endpoint {
            None => (0, 0, [0; 16]),
            Some(endpoint) => match endpoint.ip() {
                IpAddr::V4(ip) => {
                    let mut address = [0; 16];
                    address[..4].copy_from_slice(&ip.octets());
                    (4, endpoint.port(), address)
                }
                IpAddr::V6(ip) => (6, endpoint.port(), ip.octets()),
            },
        };
        out.extend([META_VERSION, direction, carrier, u8::from(self.encrypted) * ENCRYPTED, family, 0]);
        out.extend(port.to_be_bytes());
        out.extend(address);
    }

    /// Takes one off the front.
    ///
    /// # Errors
    /// When it is too short, or of a later version.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let version = reader.u8()?;
        if version != META_VERSION {
            return Err(ParseError::Version(version));
        }
        let direction = match reader.u8()? {
            1 => Direction::Received,
            2 => Direction::Sent,
            unknown => {
                return Err(ParseError::UnknownType { what: "direction of a packet", value: unknown.into() });
            }
        };
        let carrier = match reader.u8()? {
            0 => Carrier::Own,
            1 => Carrier::Direct,
            2 => Carrier::Relay,
            unknown => {
                return Err(ParseError::UnknownType { what: "carrier of a packet", value: unknown.into() });
            }
        };
        let encrypted = reader.u8()? & ENCRYPTED != 0;
        let family = reader.u8()?;
        reader.u8()?;
        let port = reader.u16()?;
        let address: [u8; 16] = reader.array()?;
        let endpoint = match family {
            0 => None,
            4 => {
                let [a, b, c, d, ..] = address;
                Some(SocketAddr::from(([a, b, c, d], port)))
            }
            6 => Some(SocketAddr::from((address, port))),
            unknown => {
                return Err(ParseError::UnknownType {
                    what: "address family of a packet",
                    value: unknown.into(),
                });
            }
        };
        Ok(Self { direction, carrier, encrypted, endpoint })
    }
}

impl Filter {
    /// Whether a packet exchanged with `peer` is wanted.
    pub fn admits(&self, peer: NodeId, packet: &[u8]) -> bool {
        let port = |at: usize| Some(Port(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
        self.peer.is_none_or(|wanted| wanted == peer)
            && self.port.is_none_or(|wanted| port(16) == Some(wanted) || port(18) == Some(wanted))
    }
}

impl Record<'_> {
    /// Bytes that [`emit`](Self::emit) appends.
    pub const fn wire_len(packet: usize) -> usize {
        4 + RECORD_HEADER_LEN + packet
    }

    /// Appends it as it stands in a reply of the daemon: its length, the time, [`Meta`], the packet.
    pub fn emit(&self, out: &mut Vec<u8>) {
        // A packet has at most 65,569 bytes.
        let length = u32::try_from(RECORD_HEADER_LEN + self.packet.len()).unwrap_or(u32::MAX);
        out.extend(length.to_be_bytes());
        out.extend(self.time.to_be_bytes());
        self.meta.emit(out);
        out.extend_from_slice(self.packet);
    }
}

impl Counts {
    /// Appends its bytes.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend(self.seen.to_be_bytes());
        out.extend(self.dropped.to_be_bytes());
    }
}

/// Reads what the daemon replied: the counts, then the packets.
///
/// # Errors
/// When something is cut off.
pub fn parse(reply: &[u8]) -> Result<(Counts, Vec<Record<'_>>), ParseError> {
    let mut reader = Reader::new(reply);
    let counts = Counts { seen: reader.u64()?, dropped: reader.u64()? };
    let mut records = Vec::new();
    while !reader.is_empty() {
        let length = reader.u32()? as usize;
        let mut record = Reader::new(reader.take(length)?);
        records.push(Record { time: record.u64()?, meta: Meta::read(&mut record)?, packet: record.rest() });
    }
    Ok((counts, records))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(endpoint: Option<&str>) -> Meta {
        Meta {
            direction: Direction::Sent,
            carrier: Carrier::Relay,
            encrypted: true,
            endpoint: endpoint.map(|text| text.parse().unwrap()),
        }
    }

    #[test]
    fn what_stands_in_front_of_a_packet_has_a_fixed_form() {
        let mut out = Vec::new();
        meta(Some("192.0.2.7:513")).emit(&mut out);
        assert_eq!(out, [1, 2, 2, 1, 4, 0, 2, 1, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(out.len(), META_LEN);
    }

    #[test]
    fn a_reply_is_read_as_it_was_written() {
        let counts = Counts { seen: 9, dropped: 2 };
        let received = Meta { direction: Direction::Received, carrier: Carrier::Own, ..meta(None) };
        let records = [
            Record { time: 1, meta: meta(Some("[2001:db8::1]:9")), packet: b"first" },
            Record { time: u64::MAX, meta: received, packet: b"" },
        ];
        let mut out = Vec::new();
        counts.emit(&mut out);
        for record in &records {
            let before = out.len();
            record.emit(&mut out);
            assert_eq!(out.len() - before, Record::wire_len(record.packet.len()));
        }
        assert_eq!(parse(&out), Ok((counts, records.to_vec())));
        for cut in [8, 17, 20, 40, out.len() - 1] {
            assert!(parse(&out[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_filter_asks_for_the_peer_and_for_a_port_at_either_end() {
        let mut packet = [0; 34];
        packet[17] = 80;
        packet[18..20].copy_from_slice(&50_000_u16.to_be_bytes());
        let filter = |peer, port| Filter { peer, port };
        assert!(filter(None, None).admits(NodeId(3), b""));
        assert!(filter(Some(NodeId(3)), Some(Port(80))).admits(NodeId(3), &packet));
        assert!(filter(None, Some(Port(50_000))).admits(NodeId(3), &packet));
        assert!(!filter(None, Some(Port(81))).admits(NodeId(3), &packet));
        assert!(!filter(Some(NodeId(4)), None).admits(NodeId(3), &packet));
        assert!(!filter(None, Some(Port(0))).admits(NodeId(3), b"short"));
    }
}
