//! The name under which a node announces itself: one that only those who know its key recognise.
//!
//! It is a random salt and a keyed hash of it. Drawn anew at each start, in each network and each day, two such names
//! tell a stranger neither who the node is nor whether it is the one from before. Whoever has the key can recognise it,
//! and a registry shows keys to those who ask for a node by number or name: so this hides a node from those who do not
//! look for it, not from one who does.

use std::fmt;
use std::str::FromStr;

use pilot_wire::PublicKey;

const SALT: usize = 8;
const TAG: usize = 8;

/// Characters of a name, in hexadecimal.
pub(super) const INSTANCE_LEN: usize = 2 * (SALT + TAG);

/// Keeps these hashes apart from all others of the key.
const PURPOSE: &[u8] = b"pilot lan discovery 1";

/// The name of one announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instance {
    salt: [u8; SALT],
    tag: [u8; TAG],
}

impl Instance {
    pub(super) fn new(key: &PublicKey, salt: [u8; SALT]) -> Self {
        let hash = pilot_crypto::hmac_sha256(key.as_bytes(), &[PURPOSE, &salt].concat());
        Self { salt, tag: std::array::from_fn(|i| hash[i]) }
    }

    /// A fresh one.
    pub(super) fn draw(key: &PublicKey) -> Result<Self, pilot_crypto::RandomUnavailable> {
        Ok(Self::new(key, pilot_crypto::random_bytes()?))
    }

    /// Whether this is a name of the node with this key.
    pub(super) fn is_of(&self, key: &PublicKey) -> bool {
        Self::new(key, self.salt) == *self
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.salt.iter().chain(&self.tag).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A name that is none of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OtherName;

impl FromStr for Instance {
    type Err = OtherName;

    fn from_str(text: &str) -> Result<Self, OtherName> {
        if text.len() != INSTANCE_LEN || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(OtherName);
        }
        let bits = u128::from_str_radix(text, 16).map_err(|_| OtherName)?.to_be_bytes();
        Ok(Self { salt: std::array::from_fn(|i| bits[i]), tag: std::array::from_fn(|i| bits[SALT + i]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_recognised_with_the_key_and_never_the_same_twice() {
        let [ours, theirs] = [[1; 32], [2; 32]].map(PublicKey::from_bytes);
        let (first, second) = (Instance::draw(&ours).unwrap(), Instance::draw(&ours).unwrap());
        assert_ne!(first, second);
        assert!(first.is_of(&ours) && second.is_of(&ours));
        assert!(!first.is_of(&theirs));
        assert_eq!(first.to_string().parse(), Ok(first));
        assert_eq!(first.to_string().to_uppercase().parse(), Ok(first));
    }

    #[test]
    fn other_names_are_not_taken_for_ours() {
        for text in
            ["", "x", "+123456789abcdeffedcba9876543210", "0123456789abcdeffedcba98765432100", "My Printer"]
        {
            assert_eq!(text.parse::<Instance>(), Err(OtherName), "{text}");
        }
    }
}
