//! What test applications send: endless streams of bytes that are known at every offset, so that a receiver can tell
//! that each byte is the right one without having seen the sender's.

/// A stream of bytes without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Looks random; the number tells streams apart.
    Noise(u64),
    /// The same thirteen bytes over and over, which a receiver takes for a selective acknowledgement if a segment
    /// begins with them (spec/dataplane.md 3.5).
    SackLookalikes,
}

const LOOKALIKE: [u8; 13] = *b"SACK\x01AAAABBBB";

impl Content {
    /// The bytes from `offset` on.
    pub fn bytes(self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        match self {
            Self::Noise(key) => {
                let mut block = offset / 8;
                let skip = (offset % 8) as usize;
                while bytes.len() < skip + len {
                    bytes.extend_from_slice(&mix(key, block).to_le_bytes());
                    block += 1;
                }
                bytes.truncate(skip + len);
                bytes.drain(..skip);
            }
            Self::SackLookalikes => {
                let start = (offset % LOOKALIKE.len() as u64) as usize;
                bytes.extend(LOOKALIKE.iter().copied().cycle().skip(start).take(len));
            }
        }
        bytes
    }

    /// The first of the bytes from `offset` on that is wrong, as its distance from `offset`.
    pub fn first_difference(self, offset: u64, found: &[u8]) -> Option<usize> {
        let expected = self.bytes(offset, found.len());
        if expected == found { None } else { expected.iter().zip(found).position(|(a, b)| a != b) }
    }
}

/// SplitMix64 over key and block.
fn mix(key: u64, block: u64) -> u64 {
    let mut z = key.wrapping_add(block.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_depend_only_on_their_offset() {
        for content in [Content::Noise(7), Content::SackLookalikes] {
            let whole = content.bytes(0, 1000);
            for offset in [0, 1, 7, 8, 13, 500] {
                assert_eq!(content.bytes(offset, 100), whole[offset as usize..][..100]);
                assert_eq!(content.first_difference(offset, &whole[offset as usize..]), None);
            }
        }
        assert_ne!(Content::Noise(1).bytes(0, 8), Content::Noise(2).bytes(0, 8));
    }

    #[test]
    fn a_missing_or_wrong_byte_is_found() {
        let content = Content::Noise(3);
        let mut found = content.bytes(100, 50);
        found[20] ^= 1;
        assert_eq!(content.first_difference(100, &found), Some(20));
        assert!(content.first_difference(101, &content.bytes(100, 50)).is_some());
    }
}
