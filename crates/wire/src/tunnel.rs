//! Tunnel frames: what one UDP datagram between two nodes carries (spec/dataplane.md 2).

mod extension;

pub use extension::{Busy, Cookie, Extension, MESSAGE_LEN};

use crate::{AgreementPublic, NodeId, ParseError, PublicKey, Reader, Signature};

/// Length in bytes of what stands before the ciphertext of a sealed frame: magic, sender, nonce.
pub const SEALED_HEADER_LEN: usize = 20;

/// Length of the authentication tag at the end of a sealed frame.
pub const TAG_LEN: usize = 16;

/// Length of what stands before the packet of a plain frame.
pub const PLAIN_HEADER_LEN: usize = 4;

/// Length of a key exchange frame without a trailer.
pub const KEY_EXCHANGE_LEN: usize = 136;

/// Length of the text that the signature of a key exchange covers.
pub const SIGNED_LEN: usize = 40;

const PLAIN: [u8; 4] = *b"PILT";
const SEALED: [u8; 4] = *b"PILS";
const KEY_REQUEST: [u8; 4] = *b"PILK";
const KEY_EXCHANGE: [u8; 4] = *b"PILA";
const PUNCH: [u8; 4] = *b"PILP";

/// The number that is used once under a key: a random prefix of the session and a counter that starts at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce {
    /// Drawn for each session and direction.
    pub prefix: [u8; 4],
    /// Rises by one with each frame.
    pub counter: u64,
}

impl Nonce {
    /// Length in bytes.
    pub const LEN: usize = 12;

    /// The twelve bytes, as the cipher takes them and as they stand in the frame.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.prefix);
        bytes[4..].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self { prefix: reader.array()?, counter: reader.u64()? })
    }
}

/// One datagram between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A packet in clear. Only daemons with encryption off send and accept it.
    Plain {
        /// The packet, not yet parsed.
        packet: &'a [u8],
    },
    /// A packet under the session key.
    Sealed {
        /// Who says to have sent it; authenticated as associated data.
        sender: NodeId,
        /// The nonce it is sealed with.
        nonce: Nonce,
        /// Ciphertext and tag, at least [`TAG_LEN`] bytes.
        ciphertext: &'a [u8],
    },
    /// "Send me your key exchange": a key without proof of who sent it.
    KeyRequest {
        /// Who asks.
        sender: NodeId,
        /// Its session key half.
        agreement: AgreementPublic,
        /// What follows, as behind a key exchange.
        trailer: &'a [u8],
    },
    /// A signed key.
    KeyExchange(KeyExchange<'a>),
    /// Opens the way through a NAT; has no content.
    Punch,
}

impl<'a> Frame<'a> {
    /// Parses the datagram. Key exchanges and key requests keep what follows them as a trailer.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(datagram);
        match reader.array()? {
            PLAIN => Ok(Self::Plain { packet: reader.rest() }),
            SEALED => {
                let header = SealedHeader::read(&mut reader)?;
                let ciphertext = reader.rest();
                if ciphertext.len() < TAG_LEN {
                    return Err(ParseError::Truncated { need: TAG_LEN, have: ciphertext.len() });
                }
                Ok(Self::Sealed { sender: header.sender, nonce: header.nonce, ciphertext })
            }
            KEY_REQUEST => {
                let sender = NodeId(reader.u32()?);
                let agreement = AgreementPublic::from_bytes(reader.array()?);
                Ok(Self::KeyRequest { sender, agreement, trailer: reader.rest() })
            }
            KEY_EXCHANGE => Ok(Self::KeyExchange(KeyExchange {
                sender: NodeId(reader.u32()?),
                agreement: AgreementPublic::from_bytes(reader.array()?),
                identity: PublicKey::from_bytes(reader.array()?),
                signature: Signature::from_bytes(reader.array()?),
                trailer: reader.rest(),
            })),
            PUNCH => Ok(Self::Punch),
            unknown => Err(ParseError::Magic(unknown)),
        }
    }

    /// Appends the frame. A sealed frame is written with the ciphertext it holds; to seal in place, use
    /// [`SealedHeader`].
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Plain { packet } => {
                emit_plain_header(out);
                out.extend_from_slice(packet);
            }
            Self::Sealed { sender, nonce, ciphertext } => {
                SealedHeader { sender: *sender, nonce: *nonce }.emit(out);
                out.extend_from_slice(ciphertext);
            }
            Self::KeyRequest { sender, agreement, trailer } => {
                emit_key_request(*sender, agreement, out);
                out.extend_from_slice(trailer);
            }
            Self::KeyExchange(exchange) => exchange.emit(out),
            Self::Punch => emit_punch(out),
        }
    }
}

/// What stands in front of the ciphertext. The ciphertext begins at [`SEALED_HEADER_LEN`] of the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedHeader {
    /// Who sends.
    pub sender: NodeId,
    /// The nonce the packet is sealed with.
    pub nonce: Nonce,
}

impl SealedHeader {
    /// Appends [`SEALED_HEADER_LEN`] bytes; the packet to be sealed goes behind them.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&SEALED);
        out.extend_from_slice(&self.sender.0.to_be_bytes());
        out.extend_from_slice(&self.nonce.to_bytes());
    }

    /// The bytes that are authenticated but not encrypted: the sender as it stands in the frame.
    pub fn associated_data(&self) -> [u8; 4] {
        self.sender.0.to_be_bytes()
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self { sender: NodeId(reader.u32()?), nonce: Nonce::read(reader)? })
    }
}

/// A session key half, signed by the identity of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyExchange<'a> {
    /// Who sends.
    pub sender: NodeId,
    /// Its session key half.
    pub agreement: AgreementPublic,
    /// Its identity.
    pub identity: PublicKey,
    /// Over [`signed_bytes`](Self::signed_bytes), by `identity`.
    pub signature: Signature,
    /// What follows the fixed part. Older nodes send nothing here and ignore it: the place for extensions.
    pub trailer: &'a [u8],
}

impl KeyExchange<'_> {
    /// The text under the signature: `auth`, sender, session key half.
    pub fn signed_bytes(&self) -> [u8; SIGNED_LEN] {
        signed_bytes(self.sender, &self.agreement)
    }

    /// Appends the frame with its trailer.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.reserve(KEY_EXCHANGE_LEN + self.trailer.len());
        out.extend_from_slice(&KEY_EXCHANGE);
        out.extend_from_slice(&self.sender.0.to_be_bytes());
        out.extend_from_slice(self.agreement.as_bytes());
        out.extend_from_slice(self.identity.as_bytes());
        out.extend_from_slice(self.signature.as_bytes());
        out.extend_from_slice(self.trailer);
    }
}

/// The text that the signature of a key exchange covers, for whoever signs one.
pub fn signed_bytes(sender: NodeId, agreement: &AgreementPublic) -> [u8; SIGNED_LEN] {
    let mut bytes = [0; SIGNED_LEN];
    bytes[..4].copy_from_slice(b"auth");
    bytes[4..8].copy_from_slice(&sender.0.to_be_bytes());
    bytes[8..].copy_from_slice(agreement.as_bytes());
    bytes
}

/// Appends what stands in front of a packet in clear.
pub fn emit_plain_header(out: &mut Vec<u8>) {
    out.extend_from_slice(&PLAIN);
}

/// Appends a key request.
pub fn emit_key_request(sender: NodeId, agreement: &AgreementPublic, out: &mut Vec<u8>) {
    out.extend_from_slice(&KEY_REQUEST);
    out.extend_from_slice(&sender.0.to_be_bytes());
    out.extend_from_slice(agreement.as_bytes());
}

/// Appends a punch.
pub fn emit_punch(out: &mut Vec<u8>) {
    out.extend_from_slice(&PUNCH);
}
