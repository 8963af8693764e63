//! Copies of a registry's records, for safe keeping and for moving from one kind of store to another.
//!
//! A copy is text, one JSON object on each line: first what it is and how many records follow, then the records, then
//! the SHA-256 of all lines before. So it can be looked at with common tools, and one that is cut short or damaged is
//! not taken for a whole one.

use crate::registry::{Key, Record};
use pilot_crypto::Sha256;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Write};

/// Of the copy. One with another number is not read.
const FORMAT: u32 = 1;
/// Longest line in bytes; an inbox that is full is about a fifth of it.
const LINE_MAX: u64 = 16 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    pilot_rendezvous_backup: u32,
    /// Seconds since 1970.
    created: u64,
    records: usize,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    key: Key,
    record: &'a Record,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnedLine {
    key: Key,
    record: Record,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    sha256: String,
}

/// Why something is not a copy that can be used.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// It cannot be read.
    #[error("the copy cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as copies do.
    #[error("this is not a copy of a rendezvous: {0}")]
    Head(serde_json::Error),
    /// Made by another version of this program.
    #[error("the copy has format {0}, this program reads {FORMAT}")]
    Format(u32),
    /// A record makes no sense.
    #[error("line {line} of the copy is unreadable: {source}")]
    Line {
        /// Counts from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A line is longer than any record.
    #[error("line {0} of the copy is too long")]
    Long(usize),
    /// It ends too early, or goes on after its end.
    #[error("the copy is not whole: it was cut short or something was appended")]
    Cut,
    /// It is not what was written.
    #[error("the copy is damaged: its checksum is wrong")]
    Checksum,
}

/// Writes a copy that was made at `created`, in seconds since 1970.
///
/// # Errors
/// Those of `out`.
pub fn write(records: &[(Key, Record)], created: u64, out: &mut impl Write) -> io::Result<()> {
    let mut hash = Sha256::new();
    let put = |line: Vec<u8>, out: &mut dyn Write, hash: Option<&mut Sha256>| {
        let mut line = line;
        line.push(b'\n');
        if let Some(hash) = hash {
            hash.update(&line);
        }
        out.write_all(&line)
    };
    let head = Head { pilot_rendezvous_backup: FORMAT, created, records: records.len() };
    put(serde_json::to_vec(&head)?, out, Some(&mut hash))?;
    for (key, record) in records {
        put(serde_json::to_vec(&Line { key: *key, record })?, out, Some(&mut hash))?;
    }
    put(serde_json::to_vec(&Tail { sha256: hex::encode(hash.finish()) })?, out, None)?;
    out.flush()
}

/// Reads a whole copy, and checks that it is one.
///
/// # Errors
/// [`DumpError`]; then nothing of it may be used.
pub fn read(mut from: impl BufRead) -> Result<Vec<(Key, Record)>, DumpError> {
    let mut hash = Sha256::new();
    let head = line(&mut from, 1)?;
    let Head { pilot_rendezvous_backup: format, records: count, .. } =
        serde_json::from_slice(&head).map_err(DumpError::Head)?;
    if format != FORMAT {
        return Err(DumpError::Format(format));
    }
    hash.update(&head);
    let mut records = Vec::new();
    for number in (2..).take(count) {
        let text = line(&mut from, number)?;
        let unreadable = |source| DumpError::Line { line: number, source };
        let OwnedLine { key, record } = serde_json::from_slice(&text).map_err(unreadable)?;
        hash.update(&text);
        records.push((key, record));
    }
    let tail = line(&mut from, count.saturating_add(2))?;
    let Tail { sha256 } = serde_json::from_slice(&tail).map_err(|_| DumpError::Cut)?;
    if !from.fill_buf()?.is_empty() {
        return Err(DumpError::Cut);
    }
    if sha256 != hex::encode(hash.finish()) {
        return Err(DumpError::Checksum);
    }
    Ok(records)
}

/// A whole line with its end.
fn line(from: &mut impl BufRead, number: usize) -> Result<Vec<u8>, DumpError> {
    let mut line = Vec::new();
    io::Read::take(&mut *from, LINE_MAX).read_until(b'\n', &mut line)?;
    match line.last() {
        Some(b'\n') => Ok(line),
        Some(_) if u64::try_from(line.len()).is_ok_and(|length| length >= LINE_MAX) => {
            Err(DumpError::Long(number))
        }
        Some(_) | None => Err(DumpError::Cut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::record::Counters;
    use pilot_wire::NodeId;
    use std::collections::BTreeSet;

    fn copy() -> (Vec<(Key, Record)>, Vec<u8>) {
        let peers = BTreeSet::from([NodeId(2), NodeId(3)]);
        let records = vec![
            (Key::Counters, Record::Counters(Counters { next_node: 4, next_network: 1 })),
            (Key::Consents(NodeId(1)), Record::Consents { peers }),
        ];
        let mut text = Vec::new();
        write(&records, 1_795_246_307, &mut text).unwrap();
        (records, text)
    }

    #[test]
    fn a_copy_reads_as_what_was_written() {
        let (records, text) = copy();
        assert_eq!(read(text.as_slice()).unwrap(), records);
    }

    #[test]
    fn a_copy_that_lacks_or_has_or_changes_anything_is_refused() {
        let (_, text) = copy();
        for length in 0..text.len() {
            assert!(read(&text[..length]).is_err(), "cut after {length} bytes");
        }
        for place in 0..text.len() {
            let mut other = text.clone();
            other[place] ^= 1;
            assert!(read(other.as_slice()).is_err(), "byte {place} is another");
        }
        let longer = [text.as_slice(), b"\n"].concat();
        assert!(matches!(read(longer.as_slice()), Err(DumpError::Cut)));
    }

    #[test]
    fn a_count_that_lies_is_no_reason_to_take_memory() {
        let text = b"{\"pilot_rendezvous_backup\":1,\"created\":0,\"records\":18446744073709551615}\n";
        assert!(matches!(read(text.as_slice()), Err(DumpError::Cut)));
    }
}
