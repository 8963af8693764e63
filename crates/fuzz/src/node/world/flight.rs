//! Datagrams under way.

use std::net::SocketAddr;

use pilot_wire::beacon::Message;
use pilot_wire::tunnel::{Extension, Frame};

use crate::node::beacon;

/// A datagram under way.
#[derive(Clone)]
pub(super) struct Flight {
    pub(super) to: usize,
    pub(super) from: SocketAddr,
    pub(super) bytes: Vec<u8>,
    /// The participant whose frame it is, if it is one's.
    pub(super) by: Option<usize>,
    /// The address of the receiver that the participant sent it to, unless the beacon brings it.
    pub(super) straight_to: Option<SocketAddr>,
    /// What of it proves who sent it, as it was sent.
    proof: Vec<u8>,
}

impl Flight {
    /// From one to another.
    pub(super) fn direct(by: usize, from: SocketAddr, to: usize, addr: SocketAddr, bytes: Vec<u8>) -> Self {
        let proof = proof_in(&bytes);
        Self { to, from, bytes, by: Some(by), straight_to: Some(addr), proof }
    }

    /// The beacon brings a frame of another, or says something itself.
    pub(super) fn of_beacon(by: Option<usize>, to: usize, bytes: Vec<u8>) -> Self {
        let proof = proof_in(&bytes);
        Self { to, from: beacon(), bytes, by, straight_to: None, proof }
    }

    /// Whether it proves what it proved when it was sent, whatever happened to the rest on the way.
    pub(super) fn is_genuine(&self) -> bool {
        self.proof == proof_in(&self.bytes)
    }

    /// Whether a sealed frame is in it, which only its receiver understands.
    pub(super) fn is_sealed(&self) -> bool {
        let frame = match Message::parse(&self.bytes) {
            Ok(Message::RelayDeliver { frame, .. }) => frame,
            Ok(_) | Err(_) => &self.bytes,
        };
        matches!(Frame::parse(frame), Ok(Frame::Sealed { .. }))
    }
}

/// What of a datagram says who sent it. Of an answer to keys of the moment it is not the signature, nor what that signs
/// (docs/handshake.md).
fn proof_in(datagram: &[u8]) -> Vec<u8> {
    match Frame::parse(datagram) {
        Ok(Frame::KeyExchange(exchange)) if is_answer(exchange.trailer) => {
            [exchange.identity.as_bytes(), exchange.trailer].concat()
        }
        _ => datagram.to_vec(),
    }
}

fn is_answer(trailer: &[u8]) -> bool {
    matches!(Extension::parse(trailer), Extension::Answer { .. })
}
