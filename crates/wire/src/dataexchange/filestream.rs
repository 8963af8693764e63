//! Resumable file transfer inside data-exchange frames of type FILESTREAM.
//!
//! ```text
//! sender                                   receiver
//! INIT size, sha256, chunk, name  ------>
//!                                 <------  INIT-ACK offset        bytes already held from an earlier try
//! CHUNK offset, data (up to 16)   ------>
//!                                 <------  ACK offset             bytes written so far
//! DONE                            ------>
//!                                 <------  COMPLETE 0             hash checked, file in place
//! ```
//! Either side may send ABORT.

use std::fmt;

use bytes::{Buf, BufMut, Bytes};

use super::FrameType;
use super::decoder::emit_with;

/// Bytes of file data in one CHUNK.
pub const CHUNK_LEN: u32 = 48 << 10;

/// Chunks a sender may have unacknowledged.
pub const WINDOW_CHUNKS: u64 = 16;

/// The same between our nodes: 6 MiB, so that the stream's own window is what limits a transfer.
pub const WIDE_WINDOW_CHUNKS: u64 = 128;

/// What a CHUNK before any INIT is answered with, as 1.18.0 words it.
pub const NO_ACTIVE_TRANSFER: &str = "no active transfer (send INIT first)";

/// Names a transfer: the first 16 bytes of the file's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub [u8; 16]);

impl TransferId {
    /// The id of a file with this SHA-256.
    #[must_use]
    pub fn of(sha256: &[u8; 32]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&sha256[..16]);
        Self(id)
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransferId({self})")
    }
}

/// The announcement of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// Names the transfer in all later steps.
    pub id: TransferId,
    /// Length of the file in bytes.
    pub size: u64,
    /// SHA-256 of the whole file.
    pub sha256: [u8; 32],
    /// Bytes of data in each chunk but the last.
    pub chunk: u32,
    /// The name the sender gives it; not checked, not even for UTF-8: it comes from a stranger.
    pub name: Bytes,
}

/// One step of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileStream {
    /// Sender: this file is coming.
    Init(Init),
    /// Sender: bytes from `offset` on.
    Chunk {
        /// The transfer.
        id: TransferId,
        /// Position of the first byte in the file.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// Receiver: everything before `offset` is written.
    Ack {
        /// The transfer.
        id: TransferId,
        /// Bytes written from the start.
        offset: u64,
    },
    /// Sender: all chunks are sent.
    Done(TransferId),
    /// Receiver: go on from `offset`.
    InitAck {
        /// The transfer.
        id: TransferId,
        /// Where to go on.
        offset: u64,
    },
    /// Receiver: the file is checked and in place, or why not.
    Complete {
        /// The transfer.
        id: TransferId,
        /// `Err` carries the receiver's message.
        outcome: Result<(), String>,
    },
    /// Either side: the transfer ends here.
    Abort {
        /// The transfer.
        id: TransferId,
        /// Why.
        message: String,
    },
}

const INIT: u8 = 1;
const CHUNK: u8 = 2;
const ACK: u8 = 3;
const DONE: u8 = 4;
const INIT_ACK: u8 = 5;
const COMPLETE: u8 = 6;
const ABORT: u8 = 7;

impl FileStream {
    /// The transfer this step belongs to.
    #[must_use]
    pub fn id(&self) -> TransferId {
        match self {
            Self::Init(init) => init.id,
            Self::Chunk { id, .. }
            | Self::Ack { id, .. }
            | Self::Done(id)
            | Self::InitAck { id, .. }
            | Self::Complete { id, .. }
            | Self::Abort { id, .. } => *id,
        }
    }

    /// Reads the payload of a FILESTREAM frame.
    ///
    /// # Errors
    /// When it is too short for its kind or the kind is unknown.
    pub fn parse(mut payload: Bytes) -> Result<Self, FileStreamError> {
        let kind = payload.try_get_u8()?;
        let mut id = [0; 16];
        payload.try_copy_to_slice(&mut id)?;
        let id = TransferId(id);
        match kind {
            INIT => parse_init(id, payload).map(Self::Init),
            CHUNK => Ok(Self::Chunk { id, offset: payload.try_get_u64()?, data: payload }),
            ACK => Ok(Self::Ack { id, offset: payload.try_get_u64()? }),
            DONE => Ok(Self::Done(id)),
            INIT_ACK => Ok(Self::InitAck { id, offset: payload.try_get_u64()? }),
            COMPLETE => {
                let status = payload.try_get_u8()?;
                let outcome = if status == 0 { Ok(()) } else { Err(text(&payload)) };
                Ok(Self::Complete { id, outcome })
            }
            ABORT => Ok(Self::Abort { id, message: text(&payload) }),
            other => Err(FileStreamError::UnknownKind(other)),
        }
    }

    /// Appends the whole frame, header included.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let mut head = Vec::with_capacity(96);
        let tail: &[u8] = match self {
            Self::Init(init) => {
                head.put_u8(INIT);
                head.put_slice(&init.id.0);
                head.put_u64(init.size);
                head.put_slice(&init.sha256);
                head.put_u32(init.chunk);
                head.put_u16(u16::try_from(init.name.len()).unwrap_or(u16::MAX));
                &init.name
            }
            Self::Chunk { id, offset, data } => {
                put_offset(&mut head, CHUNK, *id, *offset);
                data
            }
            Self::Ack { id, offset } => {
                put_offset(&mut head, ACK, *id, *offset);
                &[]
            }
            Self::InitAck { id, offset } => {
                put_offset(&mut head, INIT_ACK, *id, *offset);
                &[]
            }
            Self::Done(id) => {
                put_kind(&mut head, DONE, *id);
                &[]
            }
            Self::Complete { id, outcome } => {
                put_kind(&mut head, COMPLETE, *id);
                head.put_u8(u8::from(outcome.is_err()));
                outcome.as_ref().err().map_or(&[][..], String::as_bytes)
            }
            Self::Abort { id, message } => {
                put_kind(&mut head, ABORT, *id);
                message.as_bytes()
            }
        };
        emit_with(FrameType::FILESTREAM, &[&head, tail], out);
    }
}

fn put_kind(head: &mut Vec<u8>, kind: u8, id: TransferId) {
    head.put_u8(kind);
    head.put_slice(&id.0);
}

fn put_offset(head: &mut Vec<u8>, kind: u8, id: TransferId, offset: u64) {
    put_kind(head, kind, id);
    head.put_u64(offset);
}

fn parse_init(id: TransferId, mut payload: Bytes) -> Result<Init, FileStreamError> {
    let size = payload.try_get_u64()?;
    let mut sha256 = [0; 32];
    payload.try_copy_to_slice(&mut sha256)?;
    let chunk = payload.try_get_u32()?;
    let name_len = usize::from(payload.try_get_u16()?);
    if payload.len() < name_len {
        return Err(FileStreamError::TooShort);
    }
    Ok(Init { id, size, sha256, chunk, name: payload.split_to(name_len) })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A FILESTREAM frame without meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileStreamError {
    /// It ends before its fixed fields do.
    #[error("file transfer step too short")]
    TooShort,
    /// No such kind.
    #[error("unknown file transfer step {0}")]
    UnknownKind(u8),
}

impl From<bytes::TryGetError> for FileStreamError {
    fn from(_: bytes::TryGetError) -> Self {
        Self::TooShort
    }
}
