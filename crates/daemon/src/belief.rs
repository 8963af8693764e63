//! What this node believes of what a registry says of another one.
//!
//! A registry passes on what nodes have signed and cannot alter it. It may still show another key, an old record or none
//! at all; what does not fit what is known of the node already is a [`Lie`], and nothing of it is used. Known is the key
//! that was pinned when the node was first trusted, and the last record under it.

use std::fmt;

use pilot_crypto::{RecordError, open_change, open_record};
use pilot_proto::Location;
use pilot_wire::record::{KeyChange, NodeRecord, RecordSeq, SignedChange, SignedRecord};
use pilot_wire::{NodeId, PublicKey};

/// What a registry says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) node: NodeId,
    /// Registries of old do not say it together with the address.
    pub(crate) key: Option<PublicKey>,
    /// A signed record as text.
    pub(crate) record: Option<String>,
    /// Signed changes of its key as text, the oldest first.
    pub(crate) changes: Vec<String>,
    /// Where it is; only if that was the question.
    pub(crate) location: Option<Location>,
}

/// What is known of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The key it must have.
    pub(crate) pinned: Option<PublicKey>,
    /// The highest number it signed anything with, as far as was seen.
    pub(crate) seq: RecordSeq,
    /// It published a record under this key, so there is one.
    pub(crate) publishes: bool,
    /// The recovery key that its last record named.
    pub(crate) recovery: Option<PublicKey>,
}

/// A statement that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Belief {
    /// The key of the node.
    pub(crate) key: Option<PublicKey>,
    /// How it came to be another than the pinned one; the last change.
    pub(crate) change: Option<KeyChange>,
    /// What the node says of itself.
    pub(crate) record: Option<Box<NodeRecord>>,
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Another key, without a change that leads to it.
    OtherKey { shown: PublicKey, pinned: PublicKey },
    /// A record that is not what it claims to be.
    Record(RecordError),
    /// The record of another node.
    OtherNode(NodeId),
    /// A record older than one that was seen.
    OldRecord { seq: RecordSeq, seen: RecordSeq },
    /// No record, of a node that publishes them.
    NoRecord,
}

impl fmt::Display for Lie {
    /// Goes on after "the registry ... for agent-b": a verb comes first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherKey { shown, pinned } => write!(
                f,
                "shows another key (fingerprint {}) than the pinned one ({})",
                shown.fingerprint(),
                pinned.fingerprint()
            ),
            Self::Record(error) => write!(f, "shows a record that is not genuine: {error}"),
            Self::OtherNode(node) => write!(f, "shows the record of another node ({node})"),
            Self::OldRecord { seq, seen } => {
                write!(f, "shows an old record (number {}, {} was seen before)", seq.0, seen.0)
            }
            Self::NoRecord => write!(f, "keeps the signed record back"),
        }
    }
}

/// Judges what a registry says.
pub(crate) fn judge(known: &Known, said: &Statement) -> Result<Belief, Lie> {
    let (mut seq, mut change) = (known.seq, None);
    if let (Some(pinned), Some(shown)) = (known.pinned, said.key)
        && pinned != shown
    {
        let last = follow(known, said, pinned);
        let last = last.filter(|last| last.new == shown).ok_or(Lie::OtherKey { shown, pinned })?;
        seq = last.seq;
        change = Some(last);
    }
    let key = said.key.or(known.pinned);
    let record = match (&said.record, key) {
        (Some(text), Some(key)) => Some(opened(said.node, text, &key, seq)?),
        // Where it is, is told to those only who may see the record too; its key is told to everybody.
        (None, _) if known.publishes && change.is_none() && said.location.is_some() => {
            return Err(Lie::NoRecord);
        }
        (Some(_) | None, _) => None,
    };
    Ok(Belief { key, change, record: record.map(Box::new) })
}

/// The last of the changes that lead on from the pinned key, each signed by the key before it or by the recovery key.
fn follow(known: &Known, said: &Statement, pinned: PublicKey) -> Option<KeyChange> {
    let mut last: Option<KeyChange> = None;
    for text in &said.changes {
        let (current, seq) = last.map_or((pinned, known.seq), |last| (last.new, last.seq));
        // Earlier ones are of keys before the pinned one.
        let found = SignedChange::from_text(text)
            .map_err(RecordError::from)
            .and_then(|signed| open_change(&signed, &current, known.recovery.as_ref()));
        if let Ok(change) = found
            && change.node == said.node
            && change.seq > seq
        {
            last = Some(change);
        }
    }
    last
}

fn opened(node: NodeId, text: &str, key: &PublicKey, seen: RecordSeq) -> Result<NodeRecord, Lie> {
    let signed = SignedRecord::from_text(text).map_err(|error| Lie::Record(error.into()))?;
    let record = open_record(&signed, key).map_err(Lie::Record)?;
    if record.node != node {
        return Err(Lie::OtherNode(record.node));
    }
    if record.seq < seen {
        return Err(Lie::OldRecord { seq: record.seq, seen });
    }
    Ok(record)
}

/// Where a node is by its record, with what the registry adds for the end of the list.
pub(crate) fn located(record: Option<&NodeRecord>, told: Location) -> Location {
    match record {
        None => told,
        Some(record) => Location {
            signed: record.endpoints.clone(),
            signed_lan: record.lan.clone(),
            relay_only: record.relay_only,
            ..told
        },
    }
}

impl Lie {
    /// Which kind of alarm it is.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::OtherKey { .. } => "key",
            Self::Record(_) | Self::OtherNode(_) => "record",
            Self::OldRecord { .. } => "old_record",
            Self::NoRecord => "no_record",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilot_crypto::{Identity, sign_change, sign_record};
    use pilot_wire::record::ChangedBy;

    const NODE: NodeId = NodeId(7);

    fn identity(seed: u8) -> Identity {
        Identity::from_seed(&[seed; 32])
    }

    fn key(seed: u8) -> PublicKey {
        identity(seed).public()
    }

    fn record(seq: u64) -> NodeRecord {
        NodeRecord {
            node: NODE,
            seq: RecordSeq(seq),
            hostname: "agent-b".to_owned(),
            public: false,
            relay_only: false,
            task_exec: false,
            endpoints: vec!["10.0.0.2:4000".parse().unwrap()],
            lan: Vec::new(),
            tags: Vec::new(),
            recovery: Some(key(9)),
        }
    }

    fn said(by: u8, seq: u64) -> Statement {
        Statement {
            node: NODE,
            key: Some(key(by)),
            record: Some(sign_record(&identity(by), &record(seq)).to_text()),
            changes: Vec::new(),
            location: Some(Location { public: Some("10.9.9.9:1".parse().unwrap()), ..Location::default() }),
        }
    }

    /// A friend whose key 1 is pinned and whose record 10 was seen.
    fn friend() -> Known {
        Known { pinned: Some(key(1)), seq: RecordSeq(10), publishes: true, recovery: Some(key(9)) }
    }

    fn change(by: u8, old: u8, new: u8, seq: u64) -> String {
        let kind = if by == old { ChangedBy::Old } else { ChangedBy::Recovery };
        let change = KeyChange { node: NODE, old: key(old), new: key(new), seq: RecordSeq(seq), by: kind };
        sign_change(&identity(by), &identity(new), &change).to_text()
    }

    #[test]
    fn a_record_under_the_pinned_key_that_is_not_older_is_believed() {
        for seq in [10, 11] {
            let belief = judge(&friend(), &said(1, seq)).unwrap();
            assert_eq!((belief.key, belief.change), (Some(key(1)), None));
            assert_eq!(*belief.record.unwrap(), record(seq));
        }
        let old = judge(&friend(), &said(1, 9));
        assert_eq!(old, Err(Lie::OldRecord { seq: RecordSeq(9), seen: RecordSeq(10) }));
    }

    #[test]
    fn another_key_a_missing_record_and_one_of_somebody_else_are_lies() {
        let other = judge(&friend(), &said(2, 11));
        assert_eq!(other, Err(Lie::OtherKey { shown: key(2), pinned: key(1) }));
        let without = Statement { record: None, ..said(1, 11) };
        assert_eq!(judge(&friend(), &without), Err(Lie::NoRecord));
        let forged = Statement { record: said(2, 11).record, ..said(1, 11) };
        assert!(matches!(judge(&friend(), &forged), Err(Lie::Record(RecordError::Signature(_)))));
        let of_another = Statement { node: NodeId(8), ..said(1, 11) };
        assert_eq!(judge(&friend(), &of_another), Err(Lie::OtherNode(NODE)));
    }

    #[test]
    fn a_node_that_never_published_and_a_question_about_the_key_alone_need_no_record() {
        let older = Known { publishes: false, ..friend() };
        let without = Statement { record: None, ..said(1, 11) };
        assert_eq!(judge(&older, &without).unwrap().record, None);
        let lookup = Statement { location: None, ..without };
        assert_eq!(judge(&friend(), &lookup).unwrap().key, Some(key(1)));
        let stranger = judge(&Known::default(), &said(3, 1)).unwrap();
        assert_eq!((stranger.key, stranger.record.is_some()), (Some(key(3)), true));
        let contradicting = Statement { key: Some(key(4)), ..said(3, 1) };
        assert!(matches!(judge(&Known::default(), &contradicting), Err(Lie::Record(_))));
    }

    #[test]
    fn a_key_changes_by_the_old_one_or_by_the_recovery_key_that_was_named_and_by_nothing_else() {
        let changed = |by, seq| Statement { changes: vec![change(by, 1, 2, seq)], ..said(2, 30) };
        let by_old = judge(&friend(), &changed(1, 20)).unwrap();
        assert_eq!((by_old.key, by_old.change.unwrap().by), (Some(key(2)), ChangedBy::Old));
        let by_recovery = judge(&friend(), &changed(9, 20)).unwrap();
        assert_eq!(by_recovery.change.unwrap().by, ChangedBy::Recovery);
        let by_thief = judge(&friend(), &changed(8, 20));
        assert_eq!(by_thief, Err(Lie::OtherKey { shown: key(2), pinned: key(1) }));
        let unnamed = Known { recovery: None, ..friend() };
        assert!(judge(&unnamed, &changed(9, 20)).is_err());
        assert!(judge(&friend(), &changed(1, 10)).is_err(), "older than what the old key signed later");
    }

    #[test]
    fn changes_are_followed_from_the_pinned_key_over_several_links() {
        let changes = vec![change(5, 5, 1, 4), change(1, 1, 2, 20), change(2, 2, 3, 30)];
        let whole = Statement { changes: changes.clone(), ..said(3, 40) };
        assert_eq!(judge(&friend(), &whole).unwrap().key, Some(key(3)));
        let broken = Statement { changes: vec![changes[0].clone(), changes[2].clone()], ..whole.clone() };
        assert!(judge(&friend(), &broken).is_err());
        let old_record = Statement { record: said(3, 25).record, ..whole.clone() };
        assert!(matches!(judge(&friend(), &old_record), Err(Lie::OldRecord { .. })), "before the change");
        // The registry drops the record of the old key and does not have one of the new key yet.
        let between = Statement { record: None, ..whole };
        assert_eq!(judge(&friend(), &between).unwrap().record, None);
    }

    #[test]
    fn what_the_registry_says_of_a_place_is_added_to_what_the_record_says() {
        let told = said(1, 11).location.unwrap();
        let found = located(Some(&record(11)), told.clone());
        assert_eq!(found.signed, record(11).endpoints);
        assert_eq!(found.public, told.public);
        assert_eq!(located(None, told.clone()), told);
    }
}
