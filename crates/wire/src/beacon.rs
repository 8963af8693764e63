//! Messages between nodes and beacons, which share the node's UDP port with tunnel frames (spec/dataplane.md 6).

use crate::{NodeId, ParseError, PublicKey, Reader, Signature};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes in front of the frame in [`Message::Relay`] and [`Message::RelayDeliverTo`].
pub const RELAY_HEADER_LEN: usize = 9;

/// Bytes in front of the frame in [`Message::RelayDeliver`].
pub const DELIVER_HEADER_LEN: usize = 5;

/// Type numbers end here; a datagram that begins with a larger byte is a tunnel frame.
const TYPES_END: u8 = 0x10;

/// One datagram between a node and a beacon, or between beacons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Node: "here I am; from where do you see me?"
    Discover {
        /// The node, or [`NodeId::UNSET`] before it is registered.
        node: NodeId,
        /// The identity it claims; only newer nodes tell.
        key: Option<PublicKey>,
        /// The answer to a [`Message::Challenge`], behind the key. Ours.
        proof: Option<DiscoverProof>,
    },
    /// Beacon: where a discover came from.
    DiscoverReply(SocketAddr),
    /// Node: "let the two of us punch".
    PunchRequest {
        /// Who asks.
        requester: NodeId,
        /// Whom it wants to reach.
        target: NodeId,
        /// The target's permission, where a beacon demands it.
        grant: Option<PunchGrant>,
    },
    /// Beacon: "send a punch there".
    PunchCommand(SocketAddr),
    /// Node: "pass this frame on".
    Relay {
        /// Who sends.
        source: NodeId,
        /// Who shall have it.
        destination: NodeId,
        /// A tunnel frame, not looked at.
        frame: &'a [u8],
    },
    /// Beacon: a relayed frame.
    RelayDeliver {
        /// Who sent it, as far as the beacon knows.
        source: NodeId,
        /// A tunnel frame.
        frame: &'a [u8],
    },
    /// Beacon to beacon: the nodes that are found here.
    Sync {
        /// The beacon that tells.
        beacon: u32,
        /// All its nodes; at most 65535 have room.
        nodes: Vec<NodeId>,
    },
    /// As [`Message::Discover`], and asks for [`Message::RelayDeliverTo`].
    DiscoverEx {
        /// The node.
        node: NodeId,
        /// The identity it claims.
        key: Option<PublicKey>,
    },
    /// A relayed frame that says for whom it is.
    RelayDeliverTo {
        /// Who sent it.
        source: NodeId,
        /// Who shall have it.
        destination: NodeId,
        /// A tunnel frame.
        frame: &'a [u8],
    },
    /// Beacon: something waits for the node at the registry.
    Notify(NotifyKind),
    /// Node: "answer this, and from there": how a node finds out what kind of box it is behind (RFC 5780). Ours; older
    /// beacons ignore it.
    Survey {
        /// Comes back in the reply.
        token: u64,
        /// Where the reply shall come from.
        from: ReplyFrom,
    },
    /// Beacon: where a survey came from, and where else this beacon listens.
    SurveyReply {
        /// That of the question.
        token: u64,
        /// The address that the question came from.
        observed: SocketAddr,
        /// Another port of the address that was asked, which answers surveys too.
        second_port: Option<u16>,
        /// Another address of the beacon, which answers surveys too.
        second_addr: Option<SocketAddr>,
    },
    /// Beacon: a frame could not be relayed, because this node is not known here: its receiver, or its sender. Ours;
    /// older nodes ignore it.
    Unknown {
        /// Who is not known.
        node: NodeId,
    },
    /// Beacon: "somebody else is here under this number; prove that it is yours". Ours; older nodes ignore it.
    Challenge {
        /// To be signed. It belongs to the address that this goes to.
        nonce: Nonce,
    },
}

/// What a beacon asks a node to sign.
pub type Nonce = [u8; 16];

/// "This number is mine, and this is where I am now."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoverProof {
    /// That of the challenge.
    pub nonce: Nonce,
    /// By the node, over [`signed_bytes`](Self::signed_bytes).
    pub signature: Signature,
}

impl DiscoverProof {
    /// The bytes under the signature.
    #[must_use]
    pub fn signed_bytes(node: NodeId, nonce: &Nonce) -> Vec<u8> {
        let mut bytes = format!("pilot-discover:{node}:").into_bytes();
        bytes.extend_from_slice(nonce);
        bytes
    }
}

/// Which socket of a beacon shall answer a survey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyFrom {
    /// The one that was asked.
    Here,
    /// One with another port, to which nobody ever sends.
    OtherPort,
    /// One with another address and port, to which nobody ever sends.
    OtherAddress,
}

/// Bytes of a [`Message::Survey`]: no less than those of the reply, so that a spoofed one is no lever.
pub const SURVEY_LEN: usize = 64;

/// A target's permission for a punch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PunchGrant {
    /// Until when it holds, in seconds since 1970.
    pub expiry: u64,
    /// By the target, over [`signed_text`](Self::signed_text).
    pub signature: Signature,
}

impl PunchGrant {
    /// The text under the signature.
    pub fn signed_text(requester: NodeId, target: NodeId, expiry: u64) -> String {
        format!("punch-grant:{requester}:{target}:{expiry}")
    }
}

/// What waits at the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyKind {
    /// A request for trust, or an answer to one.
    Handshake,
    /// Something that this implementation does not know.
    Other(u8),
}

/// True if a datagram with this first byte is a beacon message and not a tunnel frame.
pub fn is_beacon(first_byte: u8) -> bool {
    first_byte < TYPES_END
}

/// True if a datagram with this first byte asks the beacon to pass a frame on.
pub fn is_relay(first_byte: u8) -> bool {
    first_byte == RELAY
}

/// Appends what stands in front of a frame that shall be relayed.
pub fn emit_relay_header(source: NodeId, destination: NodeId, out: &mut Vec<u8>) {
    out.push(RELAY);
    emit_nodes(&[source, destination], out);
}

/// Appends what stands in front of a relayed frame.
pub fn emit_deliver_header(source: NodeId, out: &mut Vec<u8>) {
    out.push(RELAY_DELIVER);
    emit_nodes(&[source], out);
}

const DISCOVER: u8 = 0x01;
const DISCOVER_REPLY: u8 = 0x02;
const PUNCH_REQUEST: u8 = 0x03;
const PUNCH_COMMAND: u8 = 0x04;
const RELAY: u8 = 0x05;
const RELAY_DELIVER: u8 = 0x06;
const SYNC: u8 = 0x07;
const DISCOVER_EX: u8 = 0x08;
const RELAY_DELIVER_TO: u8 = 0x09;
const NOTIFY: u8 = 0x0A;
const SURVEY: u8 = 0x0B;
const SURVEY_REPLY: u8 = 0x0C;
const UNKNOWN: u8 = 0x0D;
const CHALLENGE: u8 = 0x0E;

const NOTIFY_HANDSHAKE: u8 = 0x01;

impl<'a> Message<'a> {
    /// Parses the datagram. Bytes after the last field are ignored; an optional field that is cut short is absent.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(datagram);
        match reader.u8()? {
            DISCOVER => {
                let (node, key) = (node(&mut reader)?, optional_key(&mut reader));
                Ok(Self::Discover { node, key, proof: key.and_then(|_| optional_proof(&mut reader)) })
            }
            DISCOVER_REPLY => read_socket_addr(&mut reader).map(Self::DiscoverReply),
            PUNCH_REQUEST => Ok(Self::PunchRequest {
                requester: node(&mut reader)?,
                target: node(&mut reader)?,
                grant: optional_grant(&mut reader),
            }),
            PUNCH_COMMAND => read_socket_addr(&mut reader).map(Self::PunchCommand),
            RELAY => Ok(Self::Relay {
                source: node(&mut reader)?,
                destination: node(&mut reader)?,
                frame: reader.rest(),
            }),
            RELAY_DELIVER => Ok(Self::RelayDeliver { source: node(&mut reader)?, frame: reader.rest() }),
            SYNC => {
                let beacon = reader.u32()?;
                let count = usize::from(reader.u16()?);
                let mut list = Reader::new(reader.take(4 * count)?);
                let nodes = (0..count).map(|_| node(&mut list)).collect::<Result<_, _>>()?;
                Ok(Self::Sync { beacon, nodes })
            }
            DISCOVER_EX => Ok(Self::DiscoverEx { node: node(&mut reader)?, key: optional_key(&mut reader) }),
            RELAY_DELIVER_TO => Ok(Self::RelayDeliverTo {
                source: node(&mut reader)?,
                destination: node(&mut reader)?,
                frame: reader.rest(),
            }),
            NOTIFY => Ok(Self::Notify(match reader.u8()? {
                NOTIFY_HANDSHAKE => NotifyKind::Handshake,
                other => NotifyKind::Other(other),
            })),
            SURVEY if datagram.len() < SURVEY_LEN => {
                Err(ParseError::Truncated { need: SURVEY_LEN, have: datagram.len() })
            }
            SURVEY => Ok(Self::Survey { token: reader.u64()?, from: reply_from(reader.u8()?)? }),
            SURVEY_REPLY => Ok(Self::SurveyReply {
                token: reader.u64()?,
                observed: read_socket_addr(&mut reader)?,
                second_port: Some(reader.u16()?).filter(|&port| port != 0),
                second_addr: match reader.u8()? {
                    0 => None,
                    _ => Some(read_socket_addr(&mut reader)?),
                },
            }),
            UNKNOWN => Ok(Self::Unknown { node: node(&mut reader)? }),
            CHALLENGE => Ok(Self::Challenge { nonce: reader.array()? }),
            unknown => Err(ParseError::UnknownType { what: "beacon message", value: u32::from(unknown) }),
        }
    }

    /// Appends the message.
    ///
    /// # Panics
    /// If a [`Message::Sync`] lists more than 65535 nodes.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Discover { node, key, proof } => {
                out.push(DISCOVER);
                emit_nodes(&[*node], out);
                emit_key(key, out);
                // Without the key in front it would be taken for one.
                if let Some(proof) = proof.as_ref().filter(|_| key.is_some()) {
                    out.extend_from_slice(&proof.nonce);
                    out.extend_from_slice(proof.signature.as_bytes());
                }
            }
            Self::DiscoverReply(addr) => {
                out.push(DISCOVER_REPLY);
                emit_socket_addr(*addr, out);
            }
            Self::PunchRequest { requester, target, grant } => {
                out.push(PUNCH_REQUEST);
                emit_nodes(&[*requester, *target], out);
                if let Some(grant) = grant {
                    out.extend_from_slice(&grant.expiry.to_be_bytes());
                    out.extend_from_slice(grant.signature.as_bytes());
                }
            }
            Self::PunchCommand(addr) => {
                out.push(PUNCH_COMMAND);
                emit_socket_addr(*addr, out);
            }
            Self::Relay { source, destination, frame } => {
                emit_relay_header(*source, *destination, out);
                out.extend_from_slice(frame);
            }
            Self::RelayDeliver { source, frame } => {
                emit_deliver_header(*source, out);
                out.extend_from_slice(frame);
            }
            Self::Sync { beacon, nodes } => {
                assert!(nodes.len() <= usize::from(u16::MAX), "{} nodes do not fit into a sync", nodes.len());
                out.push(SYNC);
                out.extend_from_slice(&beacon.to_be_bytes());
                #[expect(clippy::cast_possible_truncation, reason = "checked above")]
                out.extend_from_slice(&(nodes.len() as u16).to_be_bytes());
                emit_nodes(nodes, out);
            }
            Self::DiscoverEx { node, key } => {
                out.push(DISCOVER_EX);
                emit_nodes(&[*node], out);
                emit_key(key, out);
            }
            Self::RelayDeliverTo { source, destination, frame } => {
                out.push(RELAY_DELIVER_TO);
                emit_nodes(&[*source, *destination], out);
                out.extend_from_slice(frame);
            }
            Self::Notify(kind) => {
                out.push(NOTIFY);
                out.push(match kind {
                    NotifyKind::Handshake => NOTIFY_HANDSHAKE,
                    NotifyKind::Other(other) => *other,
                });
            }
            Self::Survey { token, from } => {
                let start = out.len();
                out.push(SURVEY);
                out.extend_from_slice(&token.to_be_bytes());
                out.push(match from {
                    ReplyFrom::Here => 0,
                    ReplyFrom::OtherPort => 1,
                    ReplyFrom::OtherAddress => 2,
                });
                out.resize(start + SURVEY_LEN, 0);
            }
            Self::SurveyReply { token, observed, second_port, second_addr } => {
                out.push(SURVEY_REPLY);
                out.extend_from_slice(&token.to_be_bytes());
                emit_socket_addr(*observed, out);
                out.extend_from_slice(&second_port.unwrap_or(0).to_be_bytes());
                match second_addr {
                    None => out.push(0),
                    Some(addr) => {
                        out.push(1);
                        emit_socket_addr(*addr, out);
                    }
                }
            }
            Self::Unknown { node } => {
                out.push(UNKNOWN);
                emit_nodes(&[*node], out);
            }
            Self::Challenge { nonce } => {
                out.push(CHALLENGE);
                out.extend_from_slice(nonce);
            }
        }
    }
}

fn reply_from(byte: u8) -> Result<ReplyFrom, ParseError> {
    match byte {
        0 => Ok(ReplyFrom::Here),
        1 => Ok(ReplyFrom::OtherPort),
        2 => Ok(ReplyFrom::OtherAddress),
        other => Err(ParseError::UnknownType { what: "survey", value: u32::from(other) }),
    }
}

fn node(reader: &mut Reader<'_>) -> Result<NodeId, ParseError> {
    reader.u32().map(NodeId)
}

fn optional_key(reader: &mut Reader<'_>) -> Option<PublicKey> {
    reader.array().ok().map(PublicKey::from_bytes)
}

fn optional_proof(reader: &mut Reader<'_>) -> Option<DiscoverProof> {
    let nonce = reader.array().ok()?;
    Some(DiscoverProof { nonce, signature: Signature::from_bytes(reader.array().ok()?) })
}

fn optional_grant(reader: &mut Reader<'_>) -> Option<PunchGrant> {
    let expiry = reader.u64().ok()?;
    Some(PunchGrant { expiry, signature: Signature::from_bytes(reader.array().ok()?) })
}

/// An address length of 4 or 16, the address, the port. An IPv4 address in IPv6 clothing becomes plain IPv4, so that
/// one host has one address.
pub(crate) fn read_socket_addr(reader: &mut Reader<'_>) -> Result<SocketAddr, ParseError> {
    let ip = match reader.u8()? {
        4 => IpAddr::V4(Ipv4Addr::from(reader.array::<4>()?)),
        16 => IpAddr::V6(Ipv6Addr::from(reader.array::<16>()?)).to_canonical(),
        _ => return Err(ParseError::Invalid { what: "address length, must be 4 or 16" }),
    };
    Ok(SocketAddr::new(ip, reader.u16()?))
}

pub(crate) fn emit_socket_addr(addr: SocketAddr, out: &mut Vec<u8>) {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(16);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

fn emit_nodes(nodes: &[NodeId], out: &mut Vec<u8>) {
    for node in nodes {
        out.extend_from_slice(&node.0.to_be_bytes());
    }
}

fn emit_key(key: &Option<PublicKey>, out: &mut Vec<u8>) {
    if let Some(key) = key {
        out.extend_from_slice(key.as_bytes());
    }
}
