//! What the application wrote and the peer has not acknowledged, found again by offset.

use std::{collections::VecDeque, fmt};

use bytes::{Bytes, BytesMut};

/// Writes shorter than this are copied together; longer ones are kept as they are, by reference.
const COPIED_BELOW: usize = 4 << 10;

/// Copied writes are collected up to this size.
const COLLECTED: usize = 16 << 10;

/// An empty outbox keeps a collecting buffer of at most this capacity.
const KEPT_WHEN_EMPTY: usize = 1 << 10;

/// Pieces that one segment may be gathered from. With [`COPIED_BELOW`] this allows the largest segments.
pub(super) const MAX_PARTS: usize = 10;

/// The unacknowledged part of the outgoing stream.
#[derive(Default)]
pub(super) struct Outbox {
    /// Pieces with the offset of their first byte.
    pieces: VecDeque<(u64, Bytes)>,
    /// Short writes, behind all pieces.
    tail: BytesMut,
    end: u64,
    released: u64,
    /// Which piece was looked at last: the next segment mostly starts in it or in the one behind.
    hint: usize,
}

impl Outbox {
    /// The offset after the last byte written.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes held.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.end - self.released).unwrap_or(usize::MAX)
    }

    /// Appends.
    pub(super) fn write(&mut self, data: Bytes) {
        let len = data.len();
        if len < COPIED_BELOW {
            if self.tail.len() + len > COLLECTED {
                self.spill();
            }
            self.tail.extend_from_slice(&data);
        } else {
            self.spill();
            self.pieces.push_back((self.end, data));
        }
        self.end += len as u64;
    }

    /// Forgets everything before `offset`.
    pub(super) fn release(&mut self, offset: u64) {
        self.released = self.released.max(offset.min(self.end));
        while let Some((start, piece)) = self.pieces.front()
            && start + piece.len() as u64 <= self.released
        {
            self.pieces.pop_front();
            self.hint = self.hint.saturating_sub(1);
        }
        if self.released == self.end {
            if self.tail.capacity() > KEPT_WHEN_EMPTY {
                self.tail = BytesMut::new();
            } else {
                self.tail.clear();
            }
            if self.pieces.capacity() > 64 {
                self.pieces = VecDeque::new();
            }
        }
    }

    /// Gives the memory back; what was held is still counted.
    pub(super) fn abandon(&mut self) {
        self.pieces = VecDeque::new();
        self.tail = BytesMut::new();
    }

    /// The bytes from `offset` on, at most `max`, in up to [`MAX_PARTS`] parts. Returns parts, their number, and the
    /// number of bytes, which is less than `max` at the end of the stream or where it is cut into many pieces.
    pub(super) fn gather(&self, offset: u64, max: usize) -> ([&[u8]; MAX_PARTS], usize, usize) {
        let mut parts: [&[u8]; MAX_PARTS] = [&[]; MAX_PARTS];
        let (mut count, mut len, mut at) = (0, 0, offset);
        for (start, piece) in self.pieces.range(self.find(offset)..) {
            if len == max || count == MAX_PARTS {
                return (parts, count, len);
            }
            let part = slice(piece, at - start, max - len);
            parts[count] = part;
            count += 1;
            len += part.len();
            at += part.len() as u64;
        }
        if len < max && count < MAX_PARTS {
            let tail_start = self.end - self.tail.len() as u64;
            if at >= tail_start {
                let part = slice(&self.tail, at - tail_start, max - len);
                if !part.is_empty() {
                    parts[count] = part;
                    count += 1;
                    len += part.len();
                }
            }
        }
        (parts, count, len)
    }

    /// How long a segment from `offset` on can be, at most `max`, and its first byte.
    pub(super) fn measure(&mut self, offset: u64, max: usize) -> Option<(usize, u8)> {
        self.hint = self.find(offset);
        if let Some((start, piece)) = self.pieces.get(self.hint)
            && piece.len() as u64 - (offset - start) >= max as u64
        {
            return slice(piece, offset - start, max).first().map(|&byte| (max, byte));
        }
        let (parts, _, len) = self.gather(offset, max);
        parts[0].first().map(|&byte| (len, byte))
    }

    /// The first piece that ends after `offset`.
    fn find(&self, offset: u64) -> usize {
        let holds = |(start, piece): &(u64, Bytes)| (*start..start + piece.len() as u64).contains(&offset);
        for index in [self.hint, self.hint + 1] {
            if self.pieces.get(index).is_some_and(holds) {
                return index;
            }
        }
        self.pieces.partition_point(|(start, piece)| start + piece.len() as u64 <= offset)
    }

    fn spill(&mut self) {
        if !self.tail.is_empty() {
            let start = self.end - self.tail.len() as u64;
            self.pieces.push_back((start, self.tail.split().freeze()));
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes up to {} in {} pieces", self.len(), self.end, self.pieces.len() + 1)
    }
}

fn slice(bytes: &[u8], skip: u64, max: usize) -> &[u8] {
    let rest = bytes.get(usize::try_from(skip).unwrap_or(usize::MAX)..).unwrap_or_default();
    &rest[..rest.len().min(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_can_be_found_again_until_it_is_released() {
        let mut outbox = Outbox::default();
        let mut all = Vec::new();
        for (i, size) in [10usize, 5000, 1, 2, 30_000, 900, 16_000, 3, 4096].into_iter().enumerate() {
            let data: Vec<u8> = (0..size).map(|j| (i * 31 + j) as u8).collect();
            all.extend_from_slice(&data);
            outbox.write(data.into());
        }
        assert_eq!(outbox.len(), all.len());
        for released in [0usize, 10, 6000, 40_000] {
            outbox.release(released as u64);
            let mut at = released;
            while at < all.len() {
                let (parts, count, len) = outbox.gather(at as u64, 1152);
                assert!(len > 0);
                assert_eq!(parts[..count].concat(), all[at..at + len]);
                at += len;
            }
        }
        outbox.release(all.len() as u64);
        assert_eq!(outbox.len(), 0);
        assert_eq!(outbox.gather(all.len() as u64, 10).2, 0);
    }
}
