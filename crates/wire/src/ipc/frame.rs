//! The length prefix: cutting a byte stream into frames, with bounded memory.

use bytes::{Buf, Bytes, BytesMut};

use super::Command;
use crate::StreamId;

/// Largest frame, command and payload together. A longer one ends the connection (spec 1.1).
pub const MAX_FRAME: usize = 1 << 20;

/// Largest piece of stream data in one frame: what is left of [`MAX_FRAME`] after command and stream number.
pub const MAX_DATA: usize = MAX_FRAME - 5;

/// Bytes of the length prefix.
const PREFIX: usize = 4;

/// Room made for reads. Large enough that a busy stream moves many frames per system call.
const READ_CHUNK: usize = 64 * 1024;

/// Room that is still worth a read. Small frames share a chunk down to this, instead of each read having one of its own.
const READ_LEAST: usize = READ_CHUNK / 4;

/// The other side announced a frame longer than [`MAX_FRAME`]; the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes is over the limit of {MAX_FRAME}")]
pub struct FrameTooLong {
    /// The announced length in bytes.
    pub length: usize,
}

/// Cuts what arrives into frames. It never holds more than one largest frame and one read beyond it.
///
/// Read into [`Decoder::space`], then take frames with [`Decoder::next_frame`] until there is none.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where to append what was read; has room for a good read, or for the rest of a large frame.
    pub fn space(&mut self) -> &mut BytesMut {
        let missing = self
            .announced()
            .map_or(0, |length| (length.min(MAX_FRAME) + PREFIX).saturating_sub(self.buffer.len()));
        let room = self.buffer.capacity() - self.buffer.len();
        if room < missing.max(READ_LEAST) {
            self.buffer.reserve(missing.max(READ_CHUNK));
        }
        &mut self.buffer
    }

    /// The next whole frame (command and payload, without the prefix), or `None` until more arrives. Frames
    /// of length zero are skipped, as the reference does.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        loop {
            let Some(length) = self.announced() else { return Ok(None) };
            if length > MAX_FRAME {
                return Err(FrameTooLong { length });
            }
            if self.buffer.len() < PREFIX + length {
                return Ok(None);
            }
            self.buffer.advance(PREFIX);
            if length > 0 {
                return Ok(Some(self.buffer.split_to(length).freeze()));
            }
        }
    }

    /// True when nothing is left over: the other side ended between two frames, not inside one.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    fn announced(&self) -> Option<usize> {
        let prefix = self.buffer.first_chunk::<PREFIX>()?;
        Some(u32::from_be_bytes(*prefix) as usize)
    }
}

/// The nine bytes before stream data (`Send` or `Recv`), for writers that pass the data on without copying it.
/// `length` must be at most [`MAX_DATA`].
pub fn data_header(command: Command, stream: StreamId, length: usize) -> [u8; 9] {
    let mut header = [0; 9];
    header[..4].copy_from_slice(&(length as u32 + 5).to_be_bytes());
    header[4] = command.byte();
    header[5..].copy_from_slice(&stream.0.to_be_bytes());
    header
}

/// Appends one frame: the prefix, then whatever `body` appends (command first).
pub(super) fn frame(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    body(out);
    let length = (out.len() - start - PREFIX) as u32;
    out[start..start + PREFIX].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(decoder: &mut Decoder, bytes: &[u8]) {
        decoder.space().extend_from_slice(bytes);
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let wire = [&[0, 0, 0, 1, 0x0D][..], &[0, 0, 0, 0], &[0, 0, 0, 3, 0x01, 3, 0xE8]].concat();
        for cut in 0..wire.len() {
            let mut decoder = Decoder::new();
            let mut frames = Vec::new();
            for part in [&wire[..cut], &wire[cut..]] {
                feed(&mut decoder, part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push(frame.to_vec());
                }
            }
            assert_eq!(frames, [vec![0x0D], vec![0x01, 3, 0xE8]]);
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn the_largest_frame_passes_and_one_byte_more_does_not() {
        let mut decoder = Decoder::new();
        feed(&mut decoder, &(MAX_FRAME as u32).to_be_bytes());
        assert_eq!(decoder.next_frame(), Ok(None));
        feed(&mut decoder, &vec![6; MAX_FRAME]);
        assert_eq!(decoder.next_frame().unwrap().map(|frame| frame.len()), Some(MAX_FRAME));

        feed(&mut decoder, &(MAX_FRAME as u32 + 1).to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameTooLong { length: MAX_FRAME + 1 }));
    }

    #[test]
    fn an_impossible_length_reserves_no_memory_for_it() {
        let mut decoder = Decoder::new();
        feed(&mut decoder, &[0xFF; 4]);
        assert!(decoder.space().capacity() < 4 * MAX_FRAME);
    }
}
