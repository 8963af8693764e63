//! What a node says of itself, in bytes that it signs: its record, and changes of its key.
//!
//! A registry passes both on and cannot alter them. A reader believes a record that is signed by the key it knows for
//! the node and whose sequence number is not below one it has seen; the registry believes it only when the number is
//! higher than the last. Signatures are made and checked by `pilot-crypto`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{NodeId, ParseError, PublicKey, Reader, Signature};

/// Stands in front of every record; no other signed text of the protocol begins like it.
const RECORD_MAGIC: &[u8; 16] = b"pilot-record-v1\n";
/// Stands in front of every change of a key.
const CHANGE_MAGIC: &[u8; 16] = b"pilot-rekeyed-1\n";

/// Most addresses of each kind in a record.
pub const RECORD_ADDRS_MAX: usize = 8;
/// Most labels in a record.
pub const RECORD_TAGS_MAX: usize = 10;
/// Longest text in a record, in bytes.
const TEXT_MAX: usize = 255;

/// A number that only rises: milliseconds since 1970 when it was made, or one more than the last if the clock went back.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct RecordSeq(pub u64);

impl RecordSeq {
    /// The next number at this time.
    #[must_use]
    pub fn next(self, now_ms: u64) -> Self {
        Self(now_ms.max(self.0.saturating_add(1)))
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its number.
    pub node: NodeId,
    /// Higher than in every record before.
    pub seq: RecordSeq,
    /// Its name; empty for none.
    pub hostname: String,
    /// Visible to everybody?
    pub public: bool,
    /// Never to be reached directly.
    pub relay_only: bool,
    /// Takes tasks?
    pub task_exec: bool,
    /// Where it is reached from anywhere, the likeliest first.
    pub endpoints: Vec<SocketAddr>,
    /// Where it is reached in its own network.
    pub lan: Vec<SocketAddr>,
    /// Its labels.
    pub tags: Vec<String>,
    /// The key whose signature may replace the node's own, if that is lost.
    pub recovery: Option<PublicKey>,
}

/// Whose signature changed a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangedBy {
    /// The key before.
    Old,
    /// The recovery key that a record named before.
    Recovery,
}

/// A node has another key from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The node.
    pub node: NodeId,
    /// Its key before.
    pub old: PublicKey,
    /// Its key from now on.
    pub new: PublicKey,
    /// Later than every record under the old key.
    pub seq: RecordSeq,
    /// Who says so.
    pub by: ChangedBy,
}

impl NodeRecord {
    /// The bytes to sign.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = RECORD_MAGIC.to_vec();
        out.extend_from_slice(&self.node.0.to_be_bytes());
        out.extend_from_slice(&self.seq.0.to_be_bytes());
        let flags = u8::from(self.public) | u8::from(self.relay_only) << 1 | u8::from(self.task_exec) << 2;
        out.push(flags);
        put_text(&mut out, &self.hostname);
        put_addrs(&mut out, &self.endpoints);
        put_addrs(&mut out, &self.lan);
        let tags = &self.tags[..self.tags.len().min(RECORD_TAGS_MAX)];
        put_count(&mut out, tags.len());
        for tag in tags {
            put_text(&mut out, tag);
        }
        match &self.recovery {
            Some(key) => {
                out.push(1);
                out.extend_from_slice(key.as_bytes());
            }
            None => out.push(0),
        }
        out
    }

    /// Reads signed bytes. What follows the known fields was added by a later version and is ignored.
    ///
    /// # Errors
    /// [`ParseError`] for anything else than a record.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        if &reader.array::<16>()? != RECORD_MAGIC {
            return Err(ParseError::Invalid { what: "record of a node: it does not begin like one" });
        }
        let node = NodeId(reader.u32()?);
        let seq = RecordSeq(reader.u64()?);
        let flags = reader.u8()?;
        Ok(Self {
            node,
            seq,
            hostname: text(&mut reader)?,
            public: flags & 1 != 0,
            relay_only: flags & 2 != 0,
            task_exec: flags & 4 != 0,
            endpoints: addrs(&mut reader)?,
            lan: addrs(&mut reader)?,
            tags: tags(&mut reader)?,
            recovery: match reader.u8()? {
                0 => None,
                _ => Some(PublicKey::from_bytes(reader.array()?)),
            },
        })
    }
}

impl KeyChange {
    /// The bytes that the old key or the recovery key signs, and the new key too.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = CHANGE_MAGIC.to_vec();
        out.extend_from_slice(&self.node.0.to_be_bytes());
        out.extend_from_slice(&self.seq.0.to_be_bytes());
        out.push(match self.by {
            ChangedBy::Old => 0,
            ChangedBy::Recovery => 1,
        });
        out.extend_from_slice(self.old.as_bytes());
        out.extend_from_slice(self.new.as_bytes());
        out
    }

    /// Reads signed bytes.
    ///
    /// # Errors
    /// [`ParseError`] for anything else than a change of a key.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        if &reader.array::<16>()? != CHANGE_MAGIC {
            return Err(ParseError::Invalid { what: "change of a key: it does not begin like one" });
        }
        let node = NodeId(reader.u32()?);
        let seq = RecordSeq(reader.u64()?);
        let by = match reader.u8()? {
            0 => ChangedBy::Old,
            1 => ChangedBy::Recovery,
            _ => return Err(ParseError::Invalid { what: "change of a key: who says so is not known" }),
        };
        let old = PublicKey::from_bytes(reader.array()?);
        let new = PublicKey::from_bytes(reader.array()?);
        Ok(Self { node, old, new, seq, by })
    }
}

/// Bytes with signatures over them, in the form in which registries pass them on: base64 of the signatures, one after
/// the other, and the bytes. A record has one signature, a change of a key two: of who says so, and of the new key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<const N: usize> {
    /// By whom, the kind of bytes says.
    pub signatures: [Signature; N],
    /// What was signed.
    pub bytes: Vec<u8>,
}

/// A signed [`NodeRecord`].
pub type SignedRecord = Signed<1>;
/// A signed [`KeyChange`]: by the old or the recovery key, then by the new key.
pub type SignedChange = Signed<2>;

/// Longest text of either, in bytes.
pub const SIGNED_TEXT_MAX: usize = 8192;

impl<const N: usize> Signed<N> {
    /// For a field of JSON.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut all = Vec::with_capacity(N * Signature::LEN + self.bytes.len());
        for signature in &self.signatures {
            all.extend_from_slice(signature.as_bytes());
        }
        all.extend_from_slice(&self.bytes);
        STANDARD.encode(all)
    }

    /// Reads what [`to_text`](Self::to_text) wrote.
    ///
    /// # Errors
    /// [`ParseError`] if it is not base64, too short or too long.
    pub fn from_text(text: &str) -> Result<Self, ParseError> {
        if text.len() > SIGNED_TEXT_MAX {
            return Err(ParseError::Invalid { what: "signed text: too long" });
        }
        let all =
            STANDARD.decode(text).map_err(|_| ParseError::Invalid { what: "signed text: not base64" })?;
        let mut reader = Reader::new(&all);
        let mut signatures = [Signature::from_bytes([0; Signature::LEN]); N];
        for signature in &mut signatures {
            *signature = Signature::from_bytes(reader.array()?);
        }
        Ok(Self { signatures, bytes: reader.rest().to_vec() })
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    #[expect(clippy::expect_used, reason = "callers cut to far less")]
    out.push(u8::try_from(count).expect("few"));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(TEXT_MAX)];
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_addrs(out: &mut Vec<u8>, addrs: &[SocketAddr]) {
    let addrs = &addrs[..addrs.len().min(RECORD_ADDRS_MAX)];
    put_count(out, addrs.len());
    for addr in addrs {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(16);
                out.extend_from_slice(&ip.octets());
            }
        }
        out.extend_from_slice(&addr.port().to_be_bytes());
    }
}

fn text(reader: &mut Reader<'_>) -> Result<String, ParseError> {
    let length = reader.u8()?.into();
    let bytes = reader.take(length)?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ParseError::Invalid { what: "text: not UTF-8" })
}

fn addrs(reader: &mut Reader<'_>) -> Result<Vec<SocketAddr>, ParseError> {
    let count = usize::from(reader.u8()?);
    if count > RECORD_ADDRS_MAX {
        return Err(ParseError::Invalid { what: "record of a node: too many addresses" });
    }
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        let ip = match reader.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(reader.array::<4>()?)),
            16 => IpAddr::V6(Ipv6Addr::from(reader.array::<16>()?)),
            _ => return Err(ParseError::Invalid { what: "address: neither of 4 nor of 16 bytes" }),
        };
        found.push(SocketAddr::new(ip, reader.u16()?));
    }
    Ok(found)
}

fn tags(reader: &mut Reader<'_>) -> Result<Vec<String>, ParseError> {
    let count = usize::from(reader.u8()?);
    if count > RECORD_TAGS_MAX {
        return Err(ParseError::Invalid { what: "record of a node: too many labels" });
    }
    (0..count).map(|_| text(reader)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> NodeRecord {
        NodeRecord {
            node: NodeId(7),
            seq: RecordSeq(1_700_000_000_123),
            hostname: "agent-a".to_owned(),
            public: true,
            relay_only: false,
            task_exec: true,
            endpoints: vec!["203.0.113.9:4000".parse().unwrap(), "[2001:db8::1]:4000".parse().unwrap()],
            lan: vec!["192.168.1.5:4000".parse().unwrap()],
            tags: vec!["gpu".to_owned(), "eu".to_owned()],
            recovery: Some(PublicKey::from_bytes([9; 32])),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_and_a_later_version_may_add_to_it() {
        let mut bytes = record().to_bytes();
        assert_eq!(NodeRecord::parse(&bytes).unwrap(), record());
        bytes.extend_from_slice(b"more");
        assert_eq!(NodeRecord::parse(&bytes).unwrap(), record());
    }

    #[test]
    fn every_cut_of_a_record_and_of_a_change_is_refused() {
        let bytes = record().to_bytes();
        for length in 0..bytes.len() {
            NodeRecord::parse(&bytes[..length]).unwrap_err();
        }
        let change = KeyChange {
            node: NodeId(7),
            old: PublicKey::from_bytes([1; 32]),
            new: PublicKey::from_bytes([2; 32]),
            seq: RecordSeq(5),
            by: ChangedBy::Recovery,
        };
        let bytes = change.to_bytes();
        assert_eq!(KeyChange::parse(&bytes).unwrap(), change);
        for length in 0..bytes.len() {
            KeyChange::parse(&bytes[..length]).unwrap_err();
        }
        NodeRecord::parse(&bytes).unwrap_err();
    }

    #[test]
    fn what_is_too_much_for_a_record_is_cut_and_stays_readable() {
        let mut long = record();
        long.hostname = "ä".repeat(200);
        long.endpoints = vec!["203.0.113.9:4000".parse().unwrap(); 20];
        long.tags = vec!["tag".to_owned(); 20];
        let read = NodeRecord::parse(&long.to_bytes()).unwrap();
        assert_eq!(read.hostname.len(), 254);
        assert_eq!((read.endpoints.len(), read.tags.len()), (RECORD_ADDRS_MAX, RECORD_TAGS_MAX));
    }

    #[test]
    fn signed_bytes_travel_as_text_and_a_long_text_is_not_decoded() {
        let signed = Signed { signatures: [Signature::from_bytes([3; 64])], bytes: record().to_bytes() };
        assert_eq!(SignedRecord::from_text(&signed.to_text()).unwrap(), signed);
        SignedChange::from_text("AAAA").unwrap_err();
        SignedRecord::from_text("not base64!").unwrap_err();
        SignedRecord::from_text(&"A".repeat(SIGNED_TEXT_MAX + 4)).unwrap_err();
    }

    #[test]
    fn numbers_rise_though_the_clock_goes_back() {
        assert_eq!(RecordSeq(10).next(20), RecordSeq(20));
        assert_eq!(RecordSeq(10).next(3), RecordSeq(11));
    }
}
