//! Capture files: pcapng (draft-ietf-opsawg-pcapng) with one interface of the link type for private use.

use std::io::{self, Write};

use pilot_wire::capture::{Counts, Direction, META_LEN, Record};

/// LINKTYPE_USER0: what is in it, only we know, and the dissector of `packaging/wireshark`.
const LINK_TYPE: u16 = 147;

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// Tells the byte order. We write little-endian on every machine.
const BYTE_ORDER: u32 = 0x1A2B_3C4D;

const OPT_END: u16 = 0;
const SHB_USER_APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TIME_RESOLUTION: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_START: u16 = 2;
const ISB_END: u16 = 3;
const ISB_RECEIVED: u16 = 4;
const ISB_DROPPED: u16 = 5;

/// Nanoseconds: ten to the power of minus nine.
const NANOSECONDS: u8 = 9;

const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Writes a capture file. After each [`flush`](Self::flush) what has been written is a valid file.
pub(crate) struct Writer<W> {
    out: W,
    /// Whole blocks that are not written yet.
    pending: Vec<u8>,
    begun: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file for a node with this address, at a time in nanoseconds of Unix time.
    pub(crate) fn begin(out: W, address: &str, hostname: &str, begun: u64) -> io::Result<Self> {
        let mut writer = Self { out, pending: Vec::new(), begun };
        block(&mut writer.pending, SECTION_HEADER, |body| {
            body.extend(BYTE_ORDER.to_le_bytes());
            // Version 1.0, and a section whose length is not known before it ends.
            body.extend([1, 0, 0, 0]);
            body.extend(u64::MAX.to_le_bytes());
            let application = concat!("pilotctl ", env!("CARGO_PKG_VERSION"));
            option(body, SHB_USER_APPLICATION, application.as_bytes());
            option(body, OPT_END, &[]);
        });
        block(&mut writer.pending, INTERFACE_DESCRIPTION, |body| {
            body.extend(LINK_TYPE.to_le_bytes());
            // Reserved, and no limit of what is kept of a packet.
            body.extend([0; 6]);
            option(body, IF_NAME, address.as_bytes());
            if !hostname.is_empty() {
                option(body, IF_DESCRIPTION, hostname.as_bytes());
            }
            option(body, IF_TIME_RESOLUTION, &[NANOSECONDS]);
            option(body, OPT_END, &[]);
        });
        writer.flush()?;
        Ok(writer)
    }

    /// Adds a packet.
    pub(crate) fn packet(&mut self, record: &Record<'_>) {
        block(&mut self.pending, ENHANCED_PACKET, |body| {
            body.extend(0_u32.to_le_bytes());
            timestamp(body, record.time);
            let length = u32::try_from(META_LEN + record.packet.len()).unwrap_or(u32::MAX).to_le_bytes();
            body.extend(length);
            body.extend(length);
            record.meta.emit(body);
            body.extend_from_slice(record.packet);
            pad(body);
            let flags = match record.meta.direction {
                Direction::Received => INBOUND,
                Direction::Sent => OUTBOUND,
            };
            option(body, EPB_FLAGS, &flags.to_le_bytes());
            option(body, OPT_END, &[]);
        });
    }

    /// Writes what was added.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.pending)?;
        self.pending.clear();
        self.out.flush()
    }

    /// Ends the file with what was counted.
    pub(crate) fn finish(mut self, ended: u64, counts: Counts) -> io::Result<()> {
        let begun = self.begun;
        block(&mut self.pending, INTERFACE_STATISTICS, |body| {
            body.extend(0_u32.to_le_bytes());
            timestamp(body, ended);
            for (code, time) in [(ISB_START, begun), (ISB_END, ended)] {
                let mut value = Vec::new();
                timestamp(&mut value, time);
                option(body, code, &value);
            }
            option(body, ISB_RECEIVED, &counts.seen.to_le_bytes());
            option(body, ISB_DROPPED, &counts.dropped.to_le_bytes());
            option(body, OPT_END, &[]);
        });
        self.flush()
    }
}

/// A block: its type, its length, the body, the length again.
fn block(out: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    out.extend(kind.to_le_bytes());
    let length_at = out.len();
    out.extend([0; 4]);
    fill(out);
    let length = u32::try_from(out.len() - length_at + 8).unwrap_or(u32::MAX).to_le_bytes();
    out[length_at..length_at + 4].copy_from_slice(&length);
    out.extend(length);
}

/// An option, padded to four bytes.
fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Ours are an address, a hostname or numbers.
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend(code.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend_from_slice(&value[..usize::from(length)]);
    pad(out);
}

/// Times are written as two halves, the upper one first.
fn timestamp(out: &mut Vec<u8>, time: u64) {
    let [upper, lower] = [time >> 32, time & 0xFFFF_FFFF].map(|half| u32::try_from(half).unwrap_or(u32::MAX));
    out.extend(upper.to_le_bytes());
    out.extend(lower.to_le_bytes());
}

/// Every block begins at a multiple of four, and so does everything in it that is padded.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use pilot_wire::capture::{Carrier, Meta};

    use super::*;

    /// The blocks of a file: type and body, checked for their lengths.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let mut found = Vec::new();
        while !file.is_empty() {
            let length = word(&file[4..]) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(&file[length - 4..]) as usize, length, "the length stands at both ends");
            found.push((word(file), file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        found
    }

    fn record(direction: Direction, packet: &[u8]) -> Record<'_> {
        let endpoint = Some("192.0.2.7:513".parse().unwrap());
        let meta = Meta { direction, carrier: Carrier::Direct, encrypted: true, endpoint };
        Record { time: 0x0102_0304_0506_0708, meta, packet }
    }

    #[test]
    fn a_file_begins_with_the_program_and_an_interface_that_counts_in_nanoseconds() {
        let mut file = Vec::new();
        Writer::begin(&mut file, "0:0000.0000.0001", "agent-a", 1).unwrap();
        let blocks = blocks(&file);
        let [(SECTION_HEADER, section), (INTERFACE_DESCRIPTION, interface)] = &blocks[..] else {
            panic!("{blocks:?}");
        };
        assert_eq!(
            section[..16],
            [0x4D, 0x3C, 0x2B, 0x1A, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]
        );
        let application = concat!("pilotctl ", env!("CARGO_PKG_VERSION"));
        assert_eq!(section[16..20], [4, 0, application.len() as u8, 0]);
        assert!(section[20..].starts_with(application.as_bytes()));
        assert_eq!(interface[..8], [147, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(interface[8..12], [2, 0, 16, 0]);
        assert_eq!(interface[12..28], *b"0:0000.0000.0001");
        assert_eq!(interface[28..32], [3, 0, 7, 0]);
        assert_eq!(interface[32..40], *b"agent-a\0");
        assert_eq!(interface[40..], [9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_packet_has_its_time_its_lengths_and_its_direction() {
        let mut file = Vec::new();
        let mut writer = Writer::begin(&mut file, "0:0000.0000.0001", "", 1).unwrap();
        writer.packet(&record(Direction::Received, b"packet"));
        writer.packet(&record(Direction::Sent, b"even"));
        writer.flush().unwrap();
        let blocks = blocks(&file);
        let [_, _, (ENHANCED_PACKET, first), (ENHANCED_PACKET, second)] = &blocks[..] else {
            panic!("{blocks:?}");
        };
        assert_eq!(first[..12], [0, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5]);
        assert_eq!(first[12..20], [30, 0, 0, 0, 30, 0, 0, 0]);
        assert_eq!(first[20..28], [1, 1, 1, 1, 4, 0, 2, 1]);
        assert_eq!(first[44..52], *b"packet\0\0");
        assert_eq!(first[52..], [2, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(second[44..48], *b"even");
        assert_eq!(second[48..], [2, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn the_end_tells_how_many_there_were_and_how_many_were_lost() {
        let mut file = Vec::new();
        let writer = Writer::begin(&mut file, "0:0000.0000.0001", "", 0x0000_0001_0000_0002).unwrap();
        writer.finish(0x0000_0003_0000_0004, Counts { seen: 9, dropped: 2 }).unwrap();
        let blocks = blocks(&file);
        let Some((INTERFACE_STATISTICS, body)) = blocks.last() else { panic!("{blocks:?}") };
        let words: Vec<u32> =
            body.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        let long = |code: u32| code | 8 << 16;
        assert_eq!(
            words,
            [0, 3, 4, long(2), 1, 2, long(3), 3, 4, long(4), 9, 0, long(5), 2, 0, 0],
            "interface, time, start, end, received, dropped, end of options"
        );
    }
}
