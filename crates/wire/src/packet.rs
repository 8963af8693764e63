//! The overlay packet: a 34-byte header and a payload (spec/dataplane.md 1.3).

use crate::{Addr, Endpoint, ParseError, Port, Reader, Seq};
use std::ops::{BitOr, BitOrAssign};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 34;

/// The longest payload that the 16-bit length field can announce, in bytes.
pub const MAX_PAYLOAD: usize = u16::MAX as usize;

const VERSION: u8 = 1;
const CHECKSUM_OFFSET: usize = 30;

/// The four flags of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No flag: datagrams and pings.
    pub const NONE: Self = Self(0);
    /// Opens a stream.
    pub const SYN: Self = Self(1);
    /// The acknowledgement field counts.
    pub const ACK: Self = Self(2);
    /// The sender will send no more.
    pub const FIN: Self = Self(4);
    /// The stream is gone.
    pub const RST: Self = Self(8);

    /// True if all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The four bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Takes the low four bits.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 0x0F)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// What kind of packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A segment of a stream.
    Stream,
    /// A message on its own.
    Datagram,
    /// Pings and keepalives.
    Control,
}

impl Protocol {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Stream => 1,
            Self::Datagram => 2,
            Self::Control => 3,
        }
    }

    fn from_number(number: u8) -> Result<Self, ParseError> {
        match number {
            1 => Ok(Self::Stream),
            2 => Ok(Self::Datagram),
            3 => Ok(Self::Control),
            unknown => Err(ParseError::Protocol(unknown)),
        }
    }
}

/// Everything in front of the payload but its length and the checksum, which follow from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Kind of packet.
    pub protocol: Protocol,
    /// Flags; only streams and pongs use them.
    pub flags: Flags,
    /// Who sent it.
    pub src: Addr,
    /// Who shall have it.
    pub dst: Addr,
    /// Port of the sender.
    pub src_port: Port,
    /// Port of the receiver.
    pub dst_port: Port,
    /// Position of the first payload byte in the stream.
    pub seq: Seq,
    /// The next position that the sender of this packet expects.
    pub ack: Seq,
    /// Free receive slots (spec/dataplane.md 3.6).
    pub window: u16,
}

impl Header {
    /// A header between two services with everything else zero.
    pub const fn new(protocol: Protocol, flags: Flags, from: Endpoint, to: Endpoint) -> Self {
        Self {
            protocol,
            flags,
            src: from.addr,
            dst: to.addr,
            src_port: from.port,
            dst_port: to.port,
            seq: Seq(0),
            ack: Seq(0),
            window: 0,
        }
    }

    /// Address and port of the sender.
    pub const fn source(&self) -> Endpoint {
        Endpoint { addr: self.src, port: self.src_port }
    }

    /// Address and port of the receiver.
    pub const fn destination(&self) -> Endpoint {
        Endpoint { addr: self.dst, port: self.dst_port }
    }

    /// Appends a whole packet whose payload is the concatenation of `parts`.
    ///
    /// The payload is copied once, to its place, and the checksum is taken over what was written.
    ///
    /// # Panics
    /// If the parts are longer than [`MAX_PAYLOAD`] together: the caller cuts payloads long before that.
    pub fn emit_with(&self, parts: &[&[u8]], out: &mut Vec<u8>) {
        let payload_len: usize = parts.iter().map(|part| part.len()).sum();
        assert!(payload_len <= MAX_PAYLOAD, "a payload of {payload_len} bytes does not fit into a packet");
        let start = out.len();
        out.reserve(HEADER_LEN + payload_len);
        #[expect(clippy::cast_possible_truncation, reason = "checked against MAX_PAYLOAD above")]
        out.extend_from_slice(&self.to_bytes(payload_len as u16));
        for part in parts {
            out.extend_from_slice(part);
        }
        let packet = &mut out[start..];
        let checksum = crc32fast::hash(packet);
        packet[CHECKSUM_OFFSET..HEADER_LEN].copy_from_slice(&checksum.to_be_bytes());
    }

    /// The header with a checksum of zero, as the checksum is computed over it.
    fn to_bytes(self, payload_len: u16) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = VERSION << 4 | self.flags.bits();
        bytes[1] = self.protocol.number();
        bytes[2..4].copy_from_slice(&payload_len.to_be_bytes());
        bytes[4..10].copy_from_slice(&self.src.to_bytes());
        bytes[10..16].copy_from_slice(&self.dst.to_bytes());
        bytes[16..18].copy_from_slice(&self.src_port.0.to_be_bytes());
        bytes[18..20].copy_from_slice(&self.dst_port.0.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.seq.0.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.ack.0.to_be_bytes());
        bytes[28..30].copy_from_slice(&self.window.to_be_bytes());
        bytes
    }
}

/// A packet whose payload lies in somebody's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The header.
    pub header: Header,
    /// The payload, at most [`MAX_PAYLOAD`] bytes.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Parses a packet that came in clear, and checks its checksum. Bytes after the announced payload are ignored.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (packet, found) = Self::parse_unchecked(bytes)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..CHECKSUM_OFFSET]);
        hasher.update(&[0; HEADER_LEN - CHECKSUM_OFFSET]);
        hasher.update(packet.payload);
        let computed = hasher.finalize();
        if found == computed { Ok(packet) } else { Err(ParseError::Checksum { found, computed }) }
    }

    /// Parses a packet that came out of a sealed frame. Its checksum is not looked at, because the seal already
    /// proves that every bit is as the peer wrote it.
    pub fn parse_sealed(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_unchecked(bytes).map(|(packet, _)| packet)
    }

    /// Appends the packet.
    ///
    /// # Panics
    /// If the payload is longer than [`MAX_PAYLOAD`].
    pub fn emit(&self, out: &mut Vec<u8>) {
        self.header.emit_with(&[self.payload], out);
    }

    fn parse_unchecked(bytes: &'a [u8]) -> Result<(Self, u32), ParseError> {
        let mut reader = Reader::new(bytes);
        let version_and_flags = reader.u8()?;
        if version_and_flags >> 4 != VERSION {
            return Err(ParseError::Version(version_and_flags >> 4));
        }
        let protocol = Protocol::from_number(reader.u8()?)?;
        let payload_len = usize::from(reader.u16()?);
        let header = Header {
            protocol,
            flags: Flags::from_bits(version_and_flags),
            src: Addr::read(&mut reader)?,
            dst: Addr::read(&mut reader)?,
            src_port: Port(reader.u16()?),
            dst_port: Port(reader.u16()?),
            seq: Seq(reader.u32()?),
            ack: Seq(reader.u32()?),
            window: reader.u16()?,
        };
        let checksum = reader.u32()?;
        let payload = reader.take(payload_len)?;
        Ok((Self { header, payload }, checksum))
    }
}
