//! Records of nodes and changes of their keys: signing them, and believing them.

use pilot_wire::{
    NodeId, ParseError, PublicKey,
    record::{ChangedBy, KeyChange, NodeRecord, Signed, SignedChange, SignedRecord},
};

use crate::{Identity, Sha256, verify};

/// Why a record or a change of a key is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// Not signed by the key that must have signed it.
    #[error("it is not signed by the key that it must be signed by ({})", .0.fingerprint())]
    Signature(PublicKey),
    /// It changes another key than the one that is known.
    #[error("it is about another key ({}) than the one known", .0.fingerprint())]
    OtherKey(PublicKey),
    /// No recovery key was named before.
    #[error("it is signed by a recovery key, and none was named before")]
    NoRecovery,
}

/// Signs a record.
#[must_use]
pub fn sign_record(identity: &Identity, record: &NodeRecord) -> SignedRecord {
    let bytes = record.to_bytes();
    Signed { signatures: [identity.sign(&bytes)], bytes }
}

/// The record, if `key` signed it.
///
/// # Errors
/// [`RecordError`].
pub fn open_record(signed: &SignedRecord, key: &PublicKey) -> Result<NodeRecord, RecordError> {
    let [signature] = &signed.signatures;
    if !verify(key, &signed.bytes, signature) {
        return Err(RecordError::Signature(*key));
    }
    Ok(NodeRecord::parse(&signed.bytes)?)
}

/// Signs a change of a key with the old key or the recovery key, whichever the change says, and with the new one.
#[must_use]
pub fn sign_change(by: &Identity, new: &Identity, change: &KeyChange) -> SignedChange {
    let bytes = change.to_bytes();
    Signed { signatures: [by.sign(&bytes), new.sign(&bytes)], bytes }
}

/// The change, if it is one of the key `known` and signed by it, or by the recovery key that was named before, and by
/// the new key.
///
/// # Errors
/// [`RecordError`].
pub fn open_change(
    signed: &SignedChange,
    known: &PublicKey,
    recovery: Option<&PublicKey>,
) -> Result<KeyChange, RecordError> {
    let change = KeyChange::parse(&signed.bytes)?;
    if change.old != *known {
        return Err(RecordError::OtherKey(change.old));
    }
    let by = match change.by {
        ChangedBy::Old => known,
        ChangedBy::Recovery => recovery.ok_or(RecordError::NoRecovery)?,
    };
    for (key, signature) in [by, &change.new].into_iter().zip(&signed.signatures) {
        if !verify(key, &signed.bytes, signature) {
            return Err(RecordError::Signature(*key));
        }
    }
    Ok(change)
}

/// Numbers that are tried for a key before a registry gives up.
const CANDIDATES: u32 = 64;

/// Numbers below are given out one after the other, to nodes that do not ask for one that follows from their key.
pub const DERIVED_FROM: u32 = 1 << 20;

/// The numbers that a node with this key may have, the first that is free. They follow from the key alone, so the node
/// gets its number back at any registry where that is free, and with the number goes its address.
pub fn derived_numbers(key: &PublicKey) -> impl Iterator<Item = NodeId> {
    let key = *key;
    (0..CANDIDATES).filter_map(move |attempt| {
        let mut hash = Sha256::new();
        hash.update(b"pilot-number-v1\n");
        hash.update(key.as_bytes());
        hash.update(&attempt.to_be_bytes());
        let [a, b, c, d, ..] = hash.finish();
        let number = NodeId(u32::from_be_bytes([a, b, c, d]));
        (number.0 >= DERIVED_FROM && number != NodeId::BROADCAST).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilot_wire::record::RecordSeq;

    fn identity(seed: u8) -> Identity {
        Identity::from_seed(&[seed; 32])
    }

    fn record() -> NodeRecord {
        NodeRecord {
            node: NodeId(7),
            seq: RecordSeq(5),
            hostname: "agent-a".to_owned(),
            public: false,
            relay_only: false,
            task_exec: false,
            endpoints: Vec::new(),
            lan: Vec::new(),
            tags: Vec::new(),
            recovery: None,
        }
    }

    fn change(by: ChangedBy) -> KeyChange {
        let (old, new) = (identity(1).public(), identity(2).public());
        KeyChange { node: NodeId(7), old, new, seq: RecordSeq(6), by }
    }

    #[test]
    fn a_record_is_believed_only_under_the_key_that_signed_it_and_unchanged() {
        let mut signed = sign_record(&identity(1), &record());
        assert_eq!(open_record(&signed, &identity(1).public()).unwrap(), record());
        assert!(matches!(open_record(&signed, &identity(2).public()), Err(RecordError::Signature(_))));
        signed.bytes[20] ^= 1;
        assert!(matches!(open_record(&signed, &identity(1).public()), Err(RecordError::Signature(_))));
    }

    #[test]
    fn a_key_is_changed_by_the_old_key_or_a_recovery_key_named_before_and_by_nobody_else() {
        let (old, recovery) = (identity(1).public(), identity(9).public());
        let by_old = sign_change(&identity(1), &identity(2), &change(ChangedBy::Old));
        assert_eq!(open_change(&by_old, &old, None).unwrap(), change(ChangedBy::Old));
        assert!(matches!(open_change(&by_old, &recovery, None), Err(RecordError::OtherKey(_))));

        let by_recovery = sign_change(&identity(9), &identity(2), &change(ChangedBy::Recovery));
        assert_eq!(open_change(&by_recovery, &old, Some(&recovery)).unwrap(), change(ChangedBy::Recovery));
        assert_eq!(open_change(&by_recovery, &old, None), Err(RecordError::NoRecovery));

        let by_thief = sign_change(&identity(8), &identity(2), &change(ChangedBy::Old));
        assert!(matches!(open_change(&by_thief, &old, None), Err(RecordError::Signature(_))));
        let without_the_new = sign_change(&identity(1), &identity(8), &change(ChangedBy::Old));
        assert!(matches!(open_change(&without_the_new, &old, None), Err(RecordError::Signature(_))));
    }

    #[test]
    fn numbers_follow_from_the_key_and_leave_room_for_those_in_order() {
        let key = identity(1).public();
        let numbers: Vec<_> = derived_numbers(&key).collect();
        assert_eq!(numbers, derived_numbers(&key).collect::<Vec<_>>());
        assert!(numbers.len() > 32);
        assert!(numbers.iter().all(|number| number.0 >= DERIVED_FROM && *number != NodeId::BROADCAST));
        assert_ne!(numbers.first(), derived_numbers(&identity(2).public()).next().as_ref());
        // Pinned: another derivation would give every node another address.
        assert_eq!(numbers[0], NodeId(2_560_682_663));
    }
}
