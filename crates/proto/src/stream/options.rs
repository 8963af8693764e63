//! What two of our nodes agree on when a stream opens: options in the payload of SYN and SYN|ACK.
//!
//! The reference ignores payload there, and its absence tells us that we talk to the reference.
//! Layout: magic `PLTO`, version 1, then `kind u8 | length u8 | value` until the end. Unknown kinds are skipped.
//!
//! A SYN may also carry the first bytes of its stream (as RFC 7413 does for TCP), cut into options of up to 255 bytes.
//! Who takes them acknowledges them in the SYN|ACK; what is not acknowledged there is sent again in segments.

use pilot_wire::{Reader, sack};

use super::config::Limits;

const MAGIC: [u8; 4] = *b"PLTO";
const VERSION: u8 = 1;

const KIND_MAX_SEGMENT: u8 = 1;
const KIND_SACK_BLOCKS: u8 = 2;
const KIND_HALF_CLOSE: u8 = 3;
const KIND_WINDOW_UNIT: u8 = 4;
const KIND_MAX_OUTSTANDING: u8 = 5;
/// The next bytes of the stream, the first option of this kind from offset zero on. In a SYN only.
const KIND_DATA: u8 = 6;

/// Bytes that one option holds, and what it costs beside them.
const VALUE_MAX: usize = u8::MAX as usize;
const OPTION_HEADER: usize = 2;

/// Bytes per window slot, and the largest segment, of the reference (spec/dataplane.md 3.6).
pub(super) const LEGACY_SEGMENT: u16 = 1152;

/// What 1.18 keeps out of order, and hence the most that may be unacknowledged towards it (spec/dataplane.md 3.3).
const LEGACY_OUTSTANDING: u32 = 128;

/// The window field has 16 bits.
const WINDOW_SLOTS: usize = u16::MAX as usize;

/// Window slots finer than this would gain nothing: no segment is worth sending for less.
const MIN_WINDOW_UNIT: usize = 256;

/// What one side can take, as it writes it into its SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Largest segment in payload bytes.
    pub(super) max_segment: u16,
    /// Blocks in a selective acknowledgement.
    pub(super) sack_blocks: u8,
    /// Whether one direction may end before the other.
    pub(super) half_close: bool,
    /// Bytes per slot in the windows that this side announces.
    pub(super) window_unit: u16,
    /// Segments that may be unacknowledged towards this side.
    pub(super) max_outstanding: u32,
}

impl Offer {
    /// What we take.
    pub(super) fn ours(limits: &Limits) -> Self {
        let unit = limits.receive_buffer.div_ceil(WINDOW_SLOTS).max(MIN_WINDOW_UNIT);
        Self {
            max_segment: limits.max_segment(),
            #[expect(clippy::cast_possible_truncation, reason = "the constant is 32")]
            sack_blocks: sack::MAX_BLOCKS_EXTENDED as u8,
            half_close: true,
            window_unit: u16::try_from(unit).unwrap_or(u16::MAX),
            max_outstanding: u32::MAX,
        }
    }

    /// The form for the payload of a SYN.
    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        option(out, KIND_MAX_SEGMENT, &self.max_segment.to_be_bytes());
        option(out, KIND_SACK_BLOCKS, &[self.sack_blocks]);
        if self.half_close {
            option(out, KIND_HALF_CLOSE, &[]);
        }
        option(out, KIND_WINDOW_UNIT, &self.window_unit.to_be_bytes());
        option(out, KIND_MAX_OUTSTANDING, &self.max_outstanding.to_be_bytes());
    }

    /// What the peer takes, or nothing if the payload is not ours. Options that are missing have the reference's
    /// value, as have values that make no sense.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(&MAGIC)?;
        let mut reader = Reader::new(rest);
        if reader.u8().ok()? != VERSION {
            return None;
        }
        let mut offer = Self::LEGACY;
        while let (Ok(kind), Ok(len)) = (reader.u8(), reader.u8()) {
            let value = reader.take(usize::from(len)).ok()?;
            offer.apply(kind, value);
        }
        Some(offer)
    }

    const LEGACY: Self = Self {
        max_segment: LEGACY_SEGMENT,
        #[expect(clippy::cast_possible_truncation, reason = "the constant is 4")]
        sack_blocks: sack::MAX_BLOCKS as u8,
        half_close: false,
        window_unit: LEGACY_SEGMENT,
        max_outstanding: LEGACY_OUTSTANDING,
    };

    fn apply(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            // A peer that takes less than the smallest path would make every write a crowd of packets.
            (KIND_MAX_SEGMENT, &[a, b]) => self.max_segment = u16::from_be_bytes([a, b]).max(512),
            (KIND_SACK_BLOCKS, &[blocks]) => {
                #[expect(clippy::cast_possible_truncation, reason = "the constant is 32")]
                let most = sack::MAX_BLOCKS_EXTENDED as u8;
                self.sack_blocks = blocks.clamp(1, most);
            }
            (KIND_HALF_CLOSE, &[]) => self.half_close = true,
            (KIND_WINDOW_UNIT, &[a, b]) => self.window_unit = u16::from_be_bytes([a, b]).max(1),
            (KIND_MAX_OUTSTANDING, &[a, b, c, d]) => {
                self.max_outstanding = u32::from_be_bytes([a, b, c, d]).max(LEGACY_OUTSTANDING);
            }
            _ => {}
        }
    }
}

fn option(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    #[expect(clippy::cast_possible_truncation, reason = "values are at most VALUE_MAX bytes")]
    out.extend_from_slice(&[kind, value.len() as u8]);
    out.extend_from_slice(value);
}

/// How many bytes of the stream fit into `room` bytes of options.
pub(super) fn data_room(room: usize) -> usize {
    let whole = VALUE_MAX + OPTION_HEADER;
    room / whole * VALUE_MAX + (room % whole).saturating_sub(OPTION_HEADER)
}

/// Appends the first bytes of the stream to the options.
pub(super) fn emit_data(data: &[u8], out: &mut Vec<u8>) {
    for value in data.chunks(VALUE_MAX) {
        option(out, KIND_DATA, value);
    }
}

/// The first bytes of the stream, as far as the payload of a SYN has them. Payload that [`Offer::parse`] does not
/// take has none.
pub(super) fn data_of(payload: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    let Some(rest) = payload.strip_prefix(&MAGIC) else { return data };
    let mut reader = Reader::new(rest);
    if reader.u8().ok() != Some(VERSION) {
        return data;
    }
    while let (Ok(kind), Ok(len)) = (reader.u8(), reader.u8()) {
        let Ok(value) = reader.take(usize::from(len)) else { return Vec::new() };
        if kind == KIND_DATA {
            data.extend_from_slice(value);
        }
    }
    data
}

/// Which dialect the peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// The reference, release 1.18: no options.
    Legacy,
    /// One of ours.
    Extended,
}

/// What holds for this stream once both SYNs are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    /// Who we talk to.
    pub(super) dialect: Dialect,
    /// Largest segment that the peer takes.
    pub(super) max_segment: u16,
    /// Blocks in the selective acknowledgements of both sides.
    pub(super) sack_blocks: u8,
    /// Bytes per slot of the windows that the peer announces.
    pub(super) peer_unit: u32,
    /// Bytes per slot of the windows that we announce.
    pub(super) our_unit: u32,
    /// Segments that may be unacknowledged towards the peer.
    pub(super) max_outstanding: u32,
}

impl Agreed {
    /// With a peer that sent no options.
    pub(super) fn legacy() -> Self {
        let offer = Offer::LEGACY;
        Self {
            dialect: Dialect::Legacy,
            max_segment: offer.max_segment,
            sack_blocks: offer.sack_blocks,
            peer_unit: u32::from(offer.window_unit),
            our_unit: u32::from(offer.window_unit),
            max_outstanding: offer.max_outstanding,
        }
    }

    /// From the payload of the peer's SYN or SYN|ACK.
    pub(super) fn from_syn(limits: &Limits, payload: &[u8]) -> Self {
        let Some(theirs) = Offer::parse(payload).filter(|offer| limits.options && offer.half_close) else {
            return Self::legacy();
        };
        let ours = Offer::ours(limits);
        Self {
            dialect: Dialect::Extended,
            max_segment: theirs.max_segment,
            sack_blocks: theirs.sack_blocks.min(ours.sack_blocks),
            peer_unit: u32::from(theirs.window_unit),
            our_unit: u32::from(ours.window_unit),
            max_outstanding: theirs.max_outstanding,
        }
    }

    /// True towards the reference.
    pub(super) fn is_legacy(&self) -> bool {
        self.dialect == Dialect::Legacy
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Config, *};

    #[test]
    fn an_offer_survives_the_wire_and_every_truncation_is_harmless() {
        let offer = Offer::ours(&Limits::of(&Config::default()));
        let mut bytes = Vec::new();
        offer.emit(&mut bytes);
        assert_eq!(Offer::parse(&bytes), Some(offer));
        for len in 0..bytes.len() {
            let _ = Offer::parse(&bytes[..len]);
        }
    }

    #[test]
    fn unknown_options_are_skipped_and_foreign_payload_is_no_offer() {
        let mut bytes = b"PLTO\x01\xc8\x03abc".to_vec();
        Offer::ours(&Limits::of(&Config::default())).emit(&mut Vec::new());
        option(&mut bytes, KIND_MAX_SEGMENT, &1400u16.to_be_bytes());
        assert_eq!(Offer::parse(&bytes).map(|offer| offer.max_segment), Some(1400));
        assert_eq!(Offer::parse(b"GET / HTTP/1.1"), None);
        assert_eq!(Offer::parse(b"PLTO\x02"), None);
    }

    #[test]
    fn data_fills_the_room_exactly_and_comes_back() {
        let offer = Offer::ours(&Limits::of(&Config::default()));
        for room in 0..1200 {
            let data: Vec<u8> = (0..data_room(room)).map(|i| i as u8).collect();
            let mut bytes = Vec::new();
            offer.emit(&mut bytes);
            let before = bytes.len();
            emit_data(&data, &mut bytes);
            let used = bytes.len() - before;
            assert!(used <= room && room - used <= OPTION_HEADER, "{used} of {room}");
            assert_eq!(data_of(&bytes), data);
            assert_eq!(Offer::parse(&bytes), Some(offer), "data is skipped by those who do not know it");
        }
    }

    #[test]
    fn data_of_a_payload_that_is_no_offer_is_none() {
        let mut bytes = b"PLTO\x01".to_vec();
        emit_data(&[7; 300], &mut bytes);
        for len in 0..bytes.len() {
            let cut = &bytes[..len];
            assert!(Offer::parse(cut).is_some() || data_of(cut).is_empty());
        }
        assert_eq!(data_of(b"\x06\x01x"), b"");
        assert_eq!(data_of(b"PLTO\x02\x06\x01x"), b"");
    }
}
