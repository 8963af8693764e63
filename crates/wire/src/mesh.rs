//! Messages among beacons of one mesh (docs/protocol-notes.md). Ours; other beacons, and nodes, ignore the type.
//!
//! A message is `0F`, its kind, the number of the beacon that sends it, a counter, the body, and a tag over all that.
//! What the tag is made with, and which counters are fresh, is not decided here.

use crate::{
    NodeId, ParseError, Reader,
    beacon::{emit_socket_addr, read_socket_addr},
};
use std::net::SocketAddr;

/// The first byte of every message.
pub const TYPE: u8 = 0x0F;

/// Bytes of the tag at the end.
pub const TAG_LEN: usize = 16;

/// Bytes in front of the body.
pub const HEADER_LEN: usize = 14;

/// Nodes that one [`Body::Here`] or [`Body::Gone`] may name, so that it fits into any packet.
pub const NODES_MAX: usize = 140;

/// A message that says who sent it; whether that is true shows the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The beacon that is said to have sent it.
    pub beacon: u32,
    /// Grows with every message of a session.
    pub counter: u64,
    /// What the tag is over.
    pub covered: &'a [u8],
    /// The tag.
    pub tag: &'a [u8; TAG_LEN],
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// "I am here, in this life of mine, and know you in that life of yours."
    Hello {
        /// Of the sender; grows from life to life.
        session: u64,
        /// Of the receiver, as the sender knows it; 0 if it does not.
        echo: u64,
    },
    /// "These nodes are here."
    Here(Vec<Located>),
    /// "These nodes are not here."
    Gone(Vec<NodeId>),
    /// "Deliver this to a node of yours."
    Relay {
        /// Who sends; it is at the beacon that sends this.
        source: NodeId,
        /// Who shall have it.
        destination: NodeId,
        /// A tunnel frame, not looked at.
        frame: &'a [u8],
    },
    /// "Introduce a node of mine, which may know it, to one of yours."
    Introduce(Introduction),
    /// "I have; this is the address of the one you asked for."
    Introduced(Introduction),
    /// "Something waits for this node at the registry."
    Notify(NodeId),
}

/// A node at a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The node.
    pub node: NodeId,
    /// How sure the beacon is that it is the node.
    pub standing: Standing,
    /// How long ago it last said to be there, in milliseconds; at most [`AGE_MAX`].
    pub age: u32,
}

/// Longest age that a [`Located`] can tell, in milliseconds: more than four hours.
pub const AGE_MAX: u32 = 0x00FF_FFFF;

/// How sure a beacon is that somebody is the node that it says to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It says so.
    Claimed,
    /// It is where the node registered from.
    Registered,
    /// It has signed.
    Proven,
}

/// Two nodes that shall reach each other, and the address of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Who asked for it.
    pub requester: NodeId,
    /// Whom it wants to reach.
    pub target: NodeId,
    /// Where the one is that is at the beacon which sends this.
    pub addr: SocketAddr,
}

const HELLO: u8 = 0;
const HERE: u8 = 1;
const GONE: u8 = 2;
const RELAY: u8 = 3;
const INTRODUCE: u8 = 4;
const INTRODUCED: u8 = 5;
const NOTIFY: u8 = 6;

impl<'a> Sealed<'a> {
    /// Takes the datagram apart, without a look at the body.
    ///
    /// # Errors
    /// [`ParseError`] if it is no such message.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let (covered, tag) = datagram
            .split_last_chunk::<TAG_LEN>()
            .ok_or(ParseError::Truncated { need: HEADER_LEN + TAG_LEN, have: datagram.len() })?;
        let mut reader = Reader::new(covered);
        match reader.u8()? {
            TYPE => {}
            other => return Err(ParseError::UnknownType { what: "mesh message", value: u32::from(other) }),
        }
        reader.u8()?;
        Ok(Self { beacon: reader.u32()?, counter: reader.u64()?, covered, tag })
    }

    /// True if it is a [`Body::Hello`], which begins a session and is sealed with another key.
    #[must_use]
    pub fn is_hello(&self) -> bool {
        self.covered.get(1) == Some(&HELLO)
    }

    /// What it says. Look at it only when the tag is right.
    ///
    /// # Errors
    /// [`ParseError`] if it is unreadable or names too many nodes.
    pub fn body(&self) -> Result<Body<'a>, ParseError> {
        let mut reader = Reader::new(self.covered.get(HEADER_LEN..).unwrap_or_default());
        match self.covered.get(1).copied().unwrap_or_default() {
            HELLO => Ok(Body::Hello { session: reader.u64()?, echo: reader.u64()? }),
            HERE => {
                let mut nodes = Vec::new();
                while !reader.is_empty() {
                    if nodes.len() == NODES_MAX {
                        return Err(ParseError::Invalid { what: "number of nodes" });
                    }
                    let node = NodeId(reader.u32()?);
                    let word = reader.u32()?;
                    let standing = match word >> 24 {
                        0 => Standing::Claimed,
                        1 => Standing::Registered,
                        2 => Standing::Proven,
                        _ => return Err(ParseError::Invalid { what: "standing" }),
                    };
                    nodes.push(Located { node, standing, age: word & AGE_MAX });
                }
                Ok(Body::Here(nodes))
            }
            GONE => {
                let mut nodes = Vec::new();
                while !reader.is_empty() {
                    if nodes.len() == NODES_MAX {
                        return Err(ParseError::Invalid { what: "number of nodes" });
                    }
                    nodes.push(NodeId(reader.u32()?));
                }
                Ok(Body::Gone(nodes))
            }
            RELAY => Ok(Body::Relay {
                source: NodeId(reader.u32()?),
                destination: NodeId(reader.u32()?),
                frame: reader.rest(),
            }),
            INTRODUCE => introduction(&mut reader).map(Body::Introduce),
            INTRODUCED => introduction(&mut reader).map(Body::Introduced),
            NOTIFY => Ok(Body::Notify(NodeId(reader.u32()?))),
            other => Err(ParseError::UnknownType { what: "mesh message", value: u32::from(other) }),
        }
    }
}

fn introduction(reader: &mut Reader<'_>) -> Result<Introduction, ParseError> {
    let (requester, target) = (NodeId(reader.u32()?), NodeId(reader.u32()?));
    Ok(Introduction { requester, target, addr: read_socket_addr(reader)? })
}

impl Body<'_> {
    /// Appends the message, with the tag that `seal` makes of all that is in front of it.
    pub fn emit(
        &self,
        beacon: u32,
        counter: u64,
        seal: impl FnOnce(&[u8]) -> [u8; TAG_LEN],
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        out.push(TYPE);
        out.push(self.kind());
        out.extend_from_slice(&beacon.to_be_bytes());
        out.extend_from_slice(&counter.to_be_bytes());
        match self {
            Self::Hello { session, echo } => {
                out.extend_from_slice(&session.to_be_bytes());
                out.extend_from_slice(&echo.to_be_bytes());
            }
            Self::Here(nodes) => {
                for Located { node, standing, age } in nodes {
                    let standing: u32 = match standing {
                        Standing::Claimed => 0,
                        Standing::Registered => 1,
                        Standing::Proven => 2,
                    };
                    out.extend_from_slice(&node.0.to_be_bytes());
                    out.extend_from_slice(&(standing << 24 | (*age).min(AGE_MAX)).to_be_bytes());
                }
            }
            Self::Gone(nodes) => {
                for node in nodes {
                    out.extend_from_slice(&node.0.to_be_bytes());
                }
            }
            Self::Relay { source, destination, frame } => {
                out.extend_from_slice(&source.0.to_be_bytes());
                out.extend_from_slice(&destination.0.to_be_bytes());
                out.extend_from_slice(frame);
            }
            Self::Introduce(Introduction { requester, target, addr })
            | Self::Introduced(Introduction { requester, target, addr }) => {
                out.extend_from_slice(&requester.0.to_be_bytes());
                out.extend_from_slice(&target.0.to_be_bytes());
                emit_socket_addr(*addr, out);
            }
            Self::Notify(node) => out.extend_from_slice(&node.0.to_be_bytes()),
        }
        let tag = seal(&out[start..]);
        out.extend_from_slice(&tag);
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => HELLO,
            Self::Here(_) => HERE,
            Self::Gone(_) => GONE,
            Self::Relay { .. } => RELAY,
            Self::Introduce(_) => INTRODUCE,
            Self::Introduced(_) => INTRODUCED,
            Self::Notify(_) => NOTIFY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_emitted_is_read_again() {
        let both = Introduction {
            requester: NodeId(1),
            target: NodeId(2),
            addr: SocketAddr::from(([192, 0, 2, 1], 4000)),
        };
        let here = [
            Located { node: NodeId(7), standing: Standing::Claimed, age: 0 },
            Located { node: NodeId(8), standing: Standing::Registered, age: 1500 },
            Located { node: NodeId(u32::MAX), standing: Standing::Proven, age: AGE_MAX },
        ];
        for body in [
            Body::Hello { session: 5, echo: u64::MAX },
            Body::Here(here.into()),
            Body::Gone(vec![NodeId(9)]),
            Body::Relay { source: NodeId(1), destination: NodeId(2), frame: b"PILSframe" },
            Body::Introduce(both),
            Body::Introduced(both),
            Body::Notify(NodeId(3)),
        ] {
            let mut out = b"before".to_vec();
            body.emit(77, 12, |covered| [u8::try_from(covered.len()).unwrap(); TAG_LEN], &mut out);
            let sealed = Sealed::parse(&out[6..]).unwrap();
            assert_eq!((sealed.beacon, sealed.counter), (77, 12));
            assert_eq!(usize::from(sealed.tag[0]), sealed.covered.len());
            assert_eq!(sealed.is_hello(), matches!(body, Body::Hello { .. }));
            assert_eq!(sealed.body(), Ok(body));
        }
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let mut out = Vec::new();
        Body::Hello { session: 5, echo: 6 }.emit(1, 2, |_| [0; TAG_LEN], &mut out);
        for length in 0..out.len() {
            let read = Sealed::parse(&out[..length]).and_then(|sealed| sealed.body());
            assert!(read.is_err(), "{length} bytes");
        }
    }
}
