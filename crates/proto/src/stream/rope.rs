//! Received bytes in order, in few large pieces whatever the sizes in which they arrived.

use std::{collections::VecDeque, fmt};

use bytes::{Bytes, BytesMut};

/// First piece of a rope: a short message needs no more, and neither does a lone segment out of order.
const SMALLEST_PIECE: usize = 64;

/// Largest piece: large enough that pieces cost nothing, small enough that a slow reader frees memory steadily.
const LARGEST_PIECE: usize = 64 << 10;

/// An empty rope keeps a piece of at most this capacity, so that ping-pong does not allocate and idle streams
/// hold next to nothing.
const KEPT_WHEN_EMPTY: usize = 1 << 10;

/// Neighbouring pieces up to this size are copied together when ropes are joined: a peer that sends single bytes
/// out of order must not make us hold a handle for each of them.
const JOINED_BY_COPY: usize = 4 << 10;

/// A queue of bytes.
#[derive(Default)]
pub(super) struct Rope {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
    /// Size of the next piece.
    grown: u32,
}

impl Rope {
    /// Bytes in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// True without bytes.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a copy.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            let needed = bytes.len().min(LARGEST_PIECE);
            if self.tail.capacity() - self.tail.len() < needed {
                self.new_tail(needed);
            }
            let (now, later) = bytes.split_at(needed);
            self.tail.extend_from_slice(now);
            bytes = later;
        }
    }

    /// Appends all of `other`.
    pub(super) fn append(&mut self, mut other: Self) {
        if other.pieces.is_empty() && other.tail.len() <= JOINED_BY_COPY {
            self.push(&other.tail);
            return;
        }
        self.spill();
        self.len += other.len;
        self.pieces.append(&mut other.pieces);
        self.tail = other.tail;
        self.grown = self.grown.max(other.grown);
    }

    /// Takes up to `max` bytes off the front, without copying. The piece may be shorter than what is there.
    pub(super) fn pop(&mut self, max: usize) -> Bytes {
        let bytes = match self.pieces.front_mut() {
            Some(front) if front.len() > max => front.split_to(max),
            Some(_) => self.pieces.pop_front().unwrap_or_default(),
            None => {
                let len = max.min(self.tail.len());
                self.tail.split_to(len).freeze()
            }
        };
        self.len -= bytes.len();
        if self.is_empty() {
            self.rest();
        }
        bytes
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn new_tail(&mut self, needed: usize) {
        self.spill();
        let piece = (self.grown as usize).clamp(SMALLEST_PIECE, LARGEST_PIECE).max(needed);
        #[expect(clippy::cast_possible_truncation, reason = "at most LARGEST_PIECE")]
        {
            self.grown = (piece * 2).min(LARGEST_PIECE) as u32;
        }
        // Once every handed out part was dropped, the old piece can be used again.
        if !self.tail.try_reclaim(needed) {
            self.tail = BytesMut::with_capacity(piece);
        }
    }

    fn spill(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    fn rest(&mut self) {
        if self.tail.capacity() > KEPT_WHEN_EMPTY {
            self.tail = BytesMut::new();
        }
        if self.pieces.capacity() > 64 {
            self.pieces = VecDeque::new();
        }
        self.grown /= 2;
    }
}

impl fmt::Debug for Rope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in {} pieces", self.len, self.pieces.len() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(rope: &mut Rope, max: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !rope.is_empty() {
            let bytes = rope.pop(max);
            assert!(!bytes.is_empty() && bytes.len() <= max);
            all.extend_from_slice(&bytes);
        }
        all
    }

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_the_sizes() {
        let mut rope = Rope::default();
        let mut expected = Vec::new();
        for size in [1usize, 700, 3, 70_000, 1152, 1, 1, 9000] {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 7 + size) as u8).collect();
            rope.push(&bytes);
            expected.extend_from_slice(&bytes);
        }
        let mut other = Rope::default();
        other.push(&[9; 100_000]);
        expected.extend_from_slice(&[9; 100_000]);
        rope.append(other);
        assert_eq!(rope.len(), expected.len());
        assert_eq!(drain(&mut rope, 5000), expected);
    }

    #[test]
    fn single_bytes_are_kept_together() {
        let mut rope = Rope::default();
        for _ in 0..10_000 {
            let mut one = Rope::default();
            one.push(b"x");
            rope.append(one);
        }
        assert!(rope.pieces.len() < 16, "{} pieces for 10,000 bytes", rope.pieces.len());
    }

    #[test]
    fn an_empty_rope_holds_next_to_nothing() {
        let mut rope = Rope::default();
        rope.push(&[0; 1 << 20]);
        drain(&mut rope, usize::MAX);
        assert!(rope.tail.capacity() <= KEPT_WHEN_EMPTY);
    }
}
