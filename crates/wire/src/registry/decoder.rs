//! Frames on a registry connection: a big-endian length, then a JSON object (spec/registry.md 2.1).

/// Longest frame either side takes, in bytes: what every released client stays far below, and the limit of the
/// oldest one.
pub const MAX_FRAME: usize = 1 << 20;

/// Length of the prefix.
const PREFIX: usize = 4;

/// Most memory kept between frames; a large frame's buffer is given back.
const IDLE_CAPACITY: usize = 4096;

/// The other side does not speak this protocol; the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is announced, {MAX_FRAME} is the most")]
    TooLong(u32),
    /// A frame without content.
    #[error("an empty frame")]
    Empty,
}

/// Puts the length in front of a message.
///
/// # Errors
/// [`FrameError`] if the other side would not take it.
pub fn frame(json: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
    check(length)?;
    let mut out = Vec::with_capacity(PREFIX + json.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(json);
    Ok(out)
}

/// Cuts a byte stream into frames.
///
/// It holds what arrived and no more: an announced length alone reserves nothing.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// An empty decoder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds received bytes. Take all frames with [`next`](Self::next) before adding more, and the decoder never holds
    /// more than one frame and one read.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame's content.
    ///
    /// # Errors
    /// [`FrameError`] when the stream cannot be followed any further.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and goes on after `None`")]
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix);
        check(length)?;
        let end = PREFIX + length as usize;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let content = self.buffer[PREFIX..end].to_vec();
        self.buffer.drain(..end);
        if self.buffer.is_empty() {
            self.buffer.shrink_to(IDLE_CAPACITY);
        }
        Ok(Some(content))
    }

    /// True between frames, where a connection may end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

fn check(length: u32) -> Result<(), FrameError> {
    match length {
        0 => Err(FrameError::Empty),
        length if length as usize > MAX_FRAME => Err(FrameError::TooLong(length)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let mut stream = frame(b"{\"type\":\"a\"}").unwrap();
        stream.extend(frame(b"null").unwrap());
        for step in 1..stream.len() {
            let mut decoder = Decoder::new();
            let mut frames = Vec::new();
            for chunk in stream.chunks(step) {
                decoder.feed(chunk);
                while let Some(content) = decoder.next().unwrap() {
                    frames.push(content);
                }
            }
            assert_eq!(frames, [b"{\"type\":\"a\"}".to_vec(), b"null".to_vec()], "in steps of {step}");
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn impossible_lengths_end_the_connection() {
        for (prefix, error) in [
            ([0, 0, 0, 0], FrameError::Empty),
            ([0, 0x10, 0, 1], FrameError::TooLong(0x10_0001)),
            (*b"PILT", FrameError::TooLong(0x5049_4C54)),
        ] {
            let mut decoder = Decoder::new();
            decoder.feed(&prefix);
            assert_eq!(decoder.next(), Err(error));
        }
    }

    #[test]
    fn the_longest_frame_is_taken() {
        let content = vec![b' '; MAX_FRAME];
        let mut decoder = Decoder::new();
        decoder.feed(&frame(&content).unwrap());
        assert_eq!(decoder.next().unwrap().map(|content| content.len()), Some(MAX_FRAME));
        assert_eq!(frame(&vec![b' '; MAX_FRAME + 1]), Err(FrameError::TooLong(0x10_0001)));
    }
}
