//! What a daemon remembers: `trust.json` beside the identity, and `node.json` with what it is at its registry.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilot_proto::trust::{Book, Outgoing, Pending, Trusted, UnixTime};
use pilot_wire::ipc::{Alarm, KeyChanged};
use pilot_wire::record::RecordSeq;
use pilot_wire::{NetworkId, NodeId, PublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::memberships::Memberships;
use crate::tls::{Known, KnownCertificates};
use crate::{datetime, files};

/// Peers of whom name and last address are remembered: those we trust, and those our user looked up by name. Beyond this
/// the oldest nodes of the network make room; a forgotten one costs a look-up.
const PEERS_MAX: usize = 4096;

/// Registries, and beacons, whose certificates are remembered. A node has a few at a time.
const CERTIFICATES_MAX: usize = 16;

/// Registries whose keys are remembered.
const REGISTRIES_MAX: usize = 64;

/// A state file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; restore it from a backup or move it away", path.display())]
pub struct StateError {
    path: PathBuf,
    source: io::Error,
}

/// What this node is at its registry, and where its peers were last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NodeFile {
    /// The number that the registry gave to `public_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node_id: Option<NodeId>,
    /// The key that has the number: with another identity the number is not ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) public_key: Option<PublicKey>,
    pub(crate) hostname: String,
    pub(crate) public: bool,
    pub(crate) tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) webhook: Option<String>,
    /// The port of the tunnel socket, so that peers find the node where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen_port: Option<u16>,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    /// A number at or above the last one that this node signed something with.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) numbers: RecordSeq,
    /// The key that may replace this node's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recovery: Option<PublicKey>,
    /// The keys with which registries vouch for what they say, by `host:port`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) registry_keys: BTreeMap<String, PublicKey>,
    /// What was said and is not believed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) alarms: Vec<Alarm>,
    /// What is known of the certificates of beacons over the web, by `host:port`.
    #[serde(skip_serializing_if = "KnownCertificates::is_empty")]
    pub(crate) web_certificates: KnownCertificates,
    /// The same of registries.
    #[serde(skip_serializing_if = "KnownCertificates::is_empty")]
    pub(crate) registry_certificates: KnownCertificates,
    /// The registry that was last told whom we trust.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) registry: String,
}

/// What is remembered of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) public_key: Option<PublicKey>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) hostname: String,
    /// The highest number that it signed anything with, as far as was seen.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) seq: RecordSeq,
    /// Its last signed record, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<String>,
    /// When its key last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_changed: Option<KeyChanged>,
    /// The identity under which it agreed on keys of the moment: less is not taken of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agrees: Option<PublicKey>,
}

impl NodeFile {
    /// Reads the file; what belongs to another identity than `key` is forgotten.
    pub(crate) fn load(path: &Path, key: &PublicKey) -> Result<Self, StateError> {
        let stored: Self = read(path)?;
        if stored.public_key.as_ref().is_some_and(|stored| stored != key) {
            let Self { web_certificates, registry_certificates, registry_keys, .. } = stored;
            return Ok(Self { web_certificates, registry_certificates, registry_keys, ..Self::default() });
        }
        Ok(stored)
    }

    /// A registry vouches with this key, and none is known for it. The addresses are those of the settings, so few.
    pub(crate) fn pin_registry(&mut self, address: String, key: PublicKey) {
        if self.registry_keys.len() >= REGISTRIES_MAX {
            self.registry_keys.pop_first();
        }
        self.registry_keys.insert(address, key);
    }

    /// What is known of a peer, to be changed.
    pub(crate) fn peer_mut(&mut self, node: NodeId) -> &mut Peer {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&node) {
            // What was signed cannot be had again from a registry that shows something older.
            let spare = self.peers.iter().find(|(_, peer)| peer.record.is_none()).map(|(node, _)| *node);
            match spare {
                Some(spare) => drop(self.peers.remove(&spare)),
                None => drop(self.peers.pop_first()),
            }
        }
        self.peers.entry(node).or_default()
    }
}

/// Reads the networks of this node.
pub(crate) fn load_networks(path: &Path) -> Result<Memberships, StateError> {
    Memberships::load(path).map_err(|source| StateError { path: path.to_owned(), source })
}

/// Keeps what became known of the certificate at `host:port`.
pub(crate) fn remember(certificates: &mut KnownCertificates, host: String, known: Known) {
    if certificates.len() >= CERTIFICATES_MAX && !certificates.contains_key(&host) {
        certificates.pop_first();
    }
    certificates.insert(host, known);
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(seq: &RecordSeq) -> bool {
    seq.0 == 0
}

/// Where a new identity lies until the registry has taken it.
pub(crate) fn next_identity(identity: &Path) -> PathBuf {
    let mut name = identity.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

/// Reads the trust book; an empty one if there is no file.
pub(crate) fn load_trust(path: &Path) -> Result<Book, StateError> {
    Ok(book_of(read(path)?))
}

fn book_of(file: TrustFile) -> Book {
    Book::restore(
        file.trusted.into_iter().map(|entry| {
            (
                entry.node_id,
                Trusted { key: entry.public_key, since: entry.approved_at.0, mutual: entry.mutual },
            )
        }),
        file.pending.into_iter().map(|entry| {
            let PendingEntry { node_id, public_key, justification, received_at, relayed } = entry;
            (node_id, Pending { key: public_key, justification, received: received_at.0, relayed })
        }),
        file.outgoing.into_iter().map(|entry| {
            (entry.node_id, Outgoing { justification: entry.justification, sent: entry.sent_at.0 })
        }),
        file.revoked.into_iter().map(|entry| (entry.node_id, entry.revoked_at.0)),
    )
}

/// Writes the trust book; when this returns, it survives a crash.
pub(crate) fn store_trust(path: &Path, book: &Book) -> io::Result<()> {
    files::replace_json(path, &file_of(book))
}

fn file_of(book: &Book) -> TrustFile {
    let trusted = book.trusted().map(|(node_id, trusted)| TrustedEntry {
        node_id,
        public_key: trusted.key,
        approved_at: Moment(trusted.since),
        mutual: trusted.mutual,
        network: NetworkId::BACKBONE,
    });
    let pending = book.pending().map(|(node_id, pending)| PendingEntry {
        node_id,
        public_key: pending.key,
        justification: pending.justification.clone(),
        received_at: Moment(pending.received),
        relayed: pending.relayed,
    });
    let outgoing = book.outgoing().map(|(node_id, outgoing)| OutgoingEntry {
        node_id,
        justification: outgoing.justification.clone(),
        sent_at: Moment(outgoing.sent),
    });
    let revoked = book.revoked().map(|(node_id, at)| RevokedEntry { node_id, revoked_at: Moment(at) });
    TrustFile {
        trusted: trusted.collect(),
        pending: pending.collect(),
        outgoing: outgoing.collect(),
        revoked: revoked.collect(),
    }
}

fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T, StateError> {
    match files::read_json(path) {
        Ok(found) => Ok(found.unwrap_or_default()),
        Err(source) => Err(StateError { path: path.to_owned(), source }),
    }
}

/// The reference's file (spec/local.md 2.2) with our additions.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct TrustFile {
    #[serde(deserialize_with = "list_or_null")]
    trusted: Vec<TrustedEntry>,
    #[serde(deserialize_with = "list_or_null")]
    pending: Vec<PendingEntry>,
    #[serde(deserialize_with = "what_is_readable")]
    outgoing: Vec<OutgoingEntry>,
    #[serde(deserialize_with = "what_is_readable")]
    revoked: Vec<RevokedEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TrustedEntry {
    node_id: NodeId,
    #[serde(default, with = "key_or_empty")]
    public_key: Option<PublicKey>,
    #[serde(default)]
    approved_at: Moment,
    #[serde(default)]
    mutual: bool,
    #[serde(default, skip_serializing_if = "is_backbone")]
    network: NetworkId,
}

#[derive(Debug, Serialize, Deserialize)]
struct PendingEntry {
    node_id: NodeId,
    #[serde(default, with = "key_or_empty")]
    public_key: Option<PublicKey>,
    #[serde(default)]
    justification: String,
    #[serde(default)]
    received_at: Moment,
    #[serde(default)]
    relayed: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct OutgoingEntry {
    node_id: NodeId,
    #[serde(default)]
    justification: String,
    #[serde(default)]
    sent_at: Moment,
}

#[derive(Debug, Serialize, Deserialize)]
struct RevokedEntry {
    node_id: NodeId,
    #[serde(default)]
    revoked_at: Moment,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_backbone(network: &NetworkId) -> bool {
    *network == NetworkId::BACKBONE
}

/// Seconds since 1970, as RFC 3339 text.
#[derive(Debug, Clone, Copy, Default)]
struct Moment(UnixTime);

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&datetime::rfc3339(UNIX_EPOCH + Duration::from_secs(self.0)))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: SystemTime = datetime::parse_rfc3339(&text)
            .ok_or_else(|| serde::de::Error::custom(format_args!("`{text}` is not a time")))?;
        Ok(Self(datetime::unix_seconds(time)))
    }
}

mod key_or_empty {
    use pilot_wire::PublicKey;
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(clippy::ref_option, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: Serializer>(
        key: &Option<PublicKey>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&key.map(|key| key.to_string()).unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PublicKey>, D::Error> {
        match Option::<String>::deserialize(deserializer)?.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(de::Error::custom),
        }
    }
}

fn list_or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The reference has these lists too, in a form of its own. Losing an unanswered request costs a second one; refusing
/// to start would cost more.
fn what_is_readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let serde_json::Value::Array(entries) = serde_json::Value::deserialize(deserializer)? else {
        return Ok(Vec::new());
    };
    Ok(entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect())
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::{NodeFile, TrustFile, book_of, file_of};
    use crate::memberships::Memberships;

    /// `node.json`, the trust book and the memberships.
    pub fn state_file(json: &[u8]) {
        if let Ok(file) = serde_json::from_slice::<NodeFile>(json) {
            let again = serde_json::to_vec(&file).expect("what was read can be written");
            assert_eq!(serde_json::from_slice::<NodeFile>(&again).ok(), Some(file));
        }
        if let Ok(file) = serde_json::from_slice::<TrustFile>(json) {
            let book = book_of(file);
            let again = serde_json::to_vec(&file_of(&book)).expect("a book can be written");
            let again = book_of(serde_json::from_slice(&again).expect("what was written can be read"));
            let lines = |book: &super::Book| serde_json::to_string(&file_of(book)).ok();
            assert_eq!(lines(&again), lines(&book));
        }
        let _ = serde_json::from_slice::<Memberships>(json);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        let key = PublicKey::from_bytes([7; 32]);
        Book::restore(
            [(NodeId(2), Trusted { key: Some(key), since: 1_795_247_165, mutual: true })],
            [(NodeId(3), Pending { key: None, justification: "hi".into(), received: 5, relayed: true })],
            [(NodeId(4), Outgoing { justification: "please".into(), sent: 6 })],
            [(NodeId(5), 7)],
        )
    }

    #[test]
    fn a_stored_book_reads_back_and_has_the_form_of_the_reference() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trust.json");
        store_trust(&path, &book()).unwrap();
        assert_eq!(load_trust(&path).unwrap(), book());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"approved_at\": \"2026-11-21T07:46:05Z\""), "{text}");
    }

    #[test]
    fn a_file_of_the_reference_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trust.json");
        let text = r#"{"trusted":[{"node_id":9,"public_key":"","approved_at":"2026-11-21T07:46:05.5+01:00","mutual":false,"network":0}],
            "pending":null,"revoked":{"3":"x"},"outgoing":[3]}"#;
        std::fs::write(&path, text).unwrap();
        let book = load_trust(&path).unwrap();
        let since = 1_795_247_165 - 3600;
        assert_eq!(book.get(NodeId(9)), Some(&Trusted { key: None, since, mutual: false }));
    }

    #[test]
    fn a_damaged_trust_file_is_an_error_and_a_missing_one_is_an_empty_book() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trust.json");
        assert_eq!(load_trust(&path).unwrap(), Book::default());
        std::fs::write(&path, r#"{"trusted":[{"node_"#).unwrap();
        let error = load_trust(&path).unwrap_err();
        assert!(error.to_string().contains("move it away"));
    }

    #[test]
    fn a_number_that_belongs_to_another_key_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.json");
        let [ours, theirs] = [[1; 32], [2; 32]].map(PublicKey::from_bytes);
        let stored = NodeFile { node_id: Some(NodeId(4)), public_key: Some(theirs), ..NodeFile::default() };
        files::replace_json(&path, &stored).unwrap();
        assert_eq!(NodeFile::load(&path, &theirs).unwrap(), stored);
        assert_eq!(NodeFile::load(&path, &ours).unwrap(), NodeFile::default());
    }
}
