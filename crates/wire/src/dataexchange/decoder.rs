//! Cuts the byte stream of a data-exchange connection into frames.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::FrameType;

/// Bytes before the payload: type and length.
pub const HEADER_LEN: usize = 8;

/// Largest payload accepted when nothing else is configured: what release 1.18.0 accepts.
pub const DEFAULT_MAX_FRAME: usize = 64 << 20;

/// One frame as it lies on the wire: a type and bytes without meaning yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// What the payload is.
    pub kind: FrameType,
    /// The payload, without the header.
    pub payload: Bytes,
}

impl RawFrame {
    /// Appends header and payload, so that both leave in one write.
    pub fn emit(&self, out: &mut Vec<u8>) {
        emit_with(self.kind, &[&self.payload], out);
    }
}

/// Appends a frame whose payload is the concatenation of `parts`.
pub(super) fn emit_with(kind: FrameType, parts: &[&[u8]], out: &mut Vec<u8>) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(HEADER_LEN + length);
    out.put_u32(kind.0);
    // A payload of 4 GiB is refused by every receiver; a saturated length is refused by them too.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// A frame announced more bytes than the receiver takes. The connection cannot be resynchronised: close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {announced} bytes is over the limit of {limit}")]
pub struct FrameTooLarge {
    /// Length in the frame's header.
    pub announced: usize,
    /// What the receiver accepts.
    pub limit: usize,
}

/// Collects bytes in any segmentation and gives out whole frames.
///
/// Memory follows the bytes that really arrived, never the announced length: a header that promises 64 MiB
/// costs eight bytes. Call [`Decoder::feed`] with what was read, then [`Decoder::next_frame`] until `None`;
/// done so, at most one frame plus one read is held.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    max_frame: usize,
}

impl Decoder {
    /// A decoder that accepts payloads of up to `max_frame` bytes.
    #[must_use]
    pub fn new(max_frame: usize) -> Self {
        Self { buffer: BytesMut::new(), max_frame }
    }

    /// Adds bytes from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer behind the decoder, for a reader that can append to it without a copy in between.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The payload length the frame at the front announces, once its header is here.
    ///
    /// # Errors
    /// When it is over the limit.
    pub fn announced(&self) -> Result<Option<usize>, FrameTooLarge> {
        let Some(length) = self.buffer.get(4..HEADER_LEN).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
        else {
            return Ok(None);
        };
        let announced = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if announced > self.max_frame {
            return Err(FrameTooLarge { announced, limit: self.max_frame });
        }
        Ok(Some(announced))
    }

    /// The next whole frame, or `None` until more bytes are fed.
    ///
    /// # Errors
    /// When the frame at the front is over the limit, as soon as its header is here.
    pub fn next_frame(&mut self) -> Result<Option<RawFrame>, FrameTooLarge> {
        let Some(length) = self.announced()? else {
            return Ok(None);
        };
        if self.buffer.len() - HEADER_LEN < length {
            return Ok(None);
        }
        let kind = FrameType(self.buffer.get_u32());
        self.buffer.advance(HEADER_LEN - 4);
        let payload = self.buffer.split_to(length).freeze();
        Ok(Some(RawFrame { kind, payload }))
    }

    /// Whether no byte of an unfinished frame is held: the stream may end here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut decoder = Decoder::new(DEFAULT_MAX_FRAME);
        decoder.feed(&[0, 0, 0, 1, 0x04, 0, 0, 0]);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(decoder.buffer.capacity() < 1024);
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_at_its_header() {
        let mut decoder = Decoder::new(DEFAULT_MAX_FRAME);
        decoder.feed(&[0, 0, 0, 1, 0x04, 0, 0, 1]);
        assert_eq!(
            decoder.next_frame(),
            Err(FrameTooLarge { announced: DEFAULT_MAX_FRAME + 1, limit: DEFAULT_MAX_FRAME })
        );
    }

    #[test]
    fn frames_come_out_whole_in_any_segmentation() {
        let mut wire = Vec::new();
        RawFrame { kind: FrameType::TEXT, payload: Bytes::from_static(b"one") }.emit(&mut wire);
        RawFrame { kind: FrameType(99), payload: Bytes::new() }.emit(&mut wire);
        for step in 1..=wire.len() {
            let mut decoder = Decoder::new(16);
            let mut seen = Vec::new();
            for piece in wire.chunks(step) {
                decoder.feed(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push((frame.kind, frame.payload));
                }
            }
            assert_eq!(
                seen,
                [(FrameType::TEXT, Bytes::from_static(b"one")), (FrameType(99), Bytes::new())],
                "in steps of {step}"
            );
            assert!(decoder.is_empty());
        }
    }
}
