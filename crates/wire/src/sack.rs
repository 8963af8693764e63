//! Selective acknowledgements, carried as the payload of an acknowledgement (spec/dataplane.md 3.5).
//!
//! They travel in band: a receiver takes any payload of this shape for one. Whoever cuts a stream into segments
//! therefore asks [`is_lookalike`] about each segment and cuts elsewhere if it says yes.

use crate::{Reader, Seq};

/// Blocks that every peer understands: the lowest ones, ascending.
pub const MAX_BLOCKS: usize = 4;

/// Blocks between peers that agreed on it when the stream was opened: the most recent first.
pub const MAX_BLOCKS_EXTENDED: usize = 32;

const MAGIC: [u8; 4] = *b"SACK";
const PREFIX_LEN: usize = 5;
const BLOCK_LEN: usize = 8;

/// Bytes that have arrived out of order: `left` is the first, `right` the one after the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlock {
    /// Position of the first byte.
    pub left: Seq,
    /// Position after the last byte.
    pub right: Seq,
}

/// The blocks of one acknowledgement, at most [`MAX_BLOCKS_EXTENDED`], kept without allocating.
#[derive(Clone, Copy, Debug)]
pub struct SackList {
    blocks: [SackBlock; MAX_BLOCKS_EXTENDED],
    len: usize,
}

impl SackList {
    /// No blocks. An empty list has no form on the wire.
    pub const EMPTY: Self =
        Self { blocks: [SackBlock { left: Seq(0), right: Seq(0) }; MAX_BLOCKS_EXTENDED], len: 0 };

    /// The payload as a list, or nothing if it is not one. `max_blocks` is what was agreed with the peer.
    pub fn parse(payload: &[u8], max_blocks: usize) -> Option<Self> {
        let count = announced_blocks(payload, max_blocks)?;
        let mut reader = Reader::new(payload.get(PREFIX_LEN..)?);
        let mut list = Self::EMPTY;
        for _ in 0..count {
            list.push(SackBlock { left: Seq(reader.u32().ok()?), right: Seq(reader.u32().ok()?) });
        }
        Some(list)
    }

    /// Adds a block unless the list is full; says whether there was room.
    pub fn push(&mut self, block: SackBlock) -> bool {
        let Some(free) = self.blocks.get_mut(self.len) else { return false };
        *free = block;
        self.len += 1;
        true
    }

    /// The blocks in the order of the wire.
    pub fn blocks(&self) -> &[SackBlock] {
        &self.blocks[..self.len]
    }

    /// True without any block.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes [`emit`](Self::emit) appends.
    pub fn wire_len(&self) -> usize {
        if self.is_empty() { 0 } else { PREFIX_LEN + BLOCK_LEN * self.len }
    }

    /// Appends the list; an empty one appends nothing, which is a plain acknowledgement.
    pub fn emit(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        out.extend_from_slice(&MAGIC);
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_BLOCKS_EXTENDED")]
        out.push(self.len as u8);
        for block in self.blocks() {
            out.extend_from_slice(&block.left.0.to_be_bytes());
            out.extend_from_slice(&block.right.0.to_be_bytes());
        }
    }
}

impl PartialEq for SackList {
    fn eq(&self, other: &Self) -> bool {
        self.blocks() == other.blocks()
    }
}

impl Eq for SackList {}

/// True if a peer that takes up to `max_blocks` blocks would take this data for a selective acknowledgement.
pub fn is_lookalike(payload: &[u8], max_blocks: usize) -> bool {
    announced_blocks(payload, max_blocks).is_some()
}

fn announced_blocks(payload: &[u8], max_blocks: usize) -> Option<usize> {
    let (magic, rest) = payload.split_first_chunk::<4>()?;
    let (&count, blocks) = rest.split_first()?;
    let count = usize::from(count);
    let allowed = 1..=max_blocks.min(MAX_BLOCKS_EXTENDED);
    (*magic == MAGIC && allowed.contains(&count) && blocks.len() >= BLOCK_LEN * count).then_some(count)
}
