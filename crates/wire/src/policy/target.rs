//! Whom a rule is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Addr, NodeId, PublicKey};

/// The first eighty bits of a node's key, as [`PublicKey::fingerprint`] shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPrint([u8; 10]);

impl From<&PublicKey> for KeyPrint {
    fn from(key: &PublicKey) -> Self {
        let mut print = [0; 10];
        print.copy_from_slice(&key.as_bytes()[..10]);
        Self(print)
    }
}

impl fmt::Display for KeyPrint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if at > 0 && at % 2 == 0 {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for KeyPrint {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, ParseTargetError> {
        let error = || ParseTargetError::Key(text.to_owned());
        let groups: Vec<&str> = text.split('-').collect();
        if groups.len() != 5 || groups.iter().any(|group| group.len() != 4) {
            return Err(error());
        }
        let mut print = [0; 10];
        for (group, bytes) in groups.iter().zip(print.chunks_exact_mut(2)) {
            if !group.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(error());
            }
            let value = u16::from_str_radix(group, 16).map_err(|_| error())?;
            bytes.copy_from_slice(&value.to_be_bytes());
        }
        Ok(Self(print))
    }
}

/// One node: by its address, or by its key wherever that has its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// The node with this number; as text its address, read also as the number alone.
    Node(NodeId),
    /// The trusted node with this key; as text `key:7776-e870-b938-54f2-a0b2`.
    Key(KeyPrint),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => Addr::backbone(*node).fmt(f),
            Self::Key(print) => write!(f, "key:{print}"),
        }
    }
}

impl FromStr for Who {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, ParseTargetError> {
        if let Some(print) = text.strip_prefix("key:") {
            return print.parse().map(Self::Key);
        }
        let node = text.parse::<Addr>().map(|addr| addr.node).or_else(|_| text.parse::<NodeId>());
        match node {
            Ok(node) if node != NodeId::UNSET && node != NodeId::BROADCAST => Ok(Self::Node(node)),
            Ok(_) | Err(_) => Err(ParseTargetError::Node(text.to_owned())),
        }
    }
}

/// The name of a group of nodes: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(String);

impl GroupName {
    /// Longest name.
    pub const MAX_LEN: usize = 64;
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GroupName {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, ParseTargetError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseTargetError::Group(text.to_owned()))
        }
    }
}

/// Whom a rule is for, from the least specific to the most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Every other node that reaches this one; as text `all`.
    All,
    /// Nodes without trust, which only a public node answers; as text `strangers`.
    Strangers,
    /// The nodes of a group; as text `group:NAME`.
    Group(GroupName),
    /// One node.
    Peer(Who),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Strangers => f.write_str("strangers"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Peer(who) => who.fmt(f),
        }
    }
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, ParseTargetError> {
        match (text, text.strip_prefix("group:")) {
            ("all" | "*", _) => Ok(Self::All),
            ("strangers", _) => Ok(Self::Strangers),
            (_, Some(name)) => name.parse().map(Self::Group),
            (_, None) => text.parse().map(Self::Peer),
        }
    }
}

/// Text that names nobody a rule could be for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTargetError {
    /// Not an address.
    #[error("`{0}` is no address (0:0000.0000.0002), node number or `key:` with a fingerprint")]
    Node(String),
    /// Not a fingerprint.
    #[error("`{0}` is no fingerprint of a key such as 7776-e870-b938-54f2-a0b2")]
    Key(String),
    /// Not a group's name.
    #[error(
        "`{0}` is no name of a group: 1 to {max} letters, digits and `. _ -`",
        max = GroupName::MAX_LEN
    )]
    Group(String),
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

as_text!(KeyPrint, Who, GroupName, Target);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_written() {
        let key = PublicKey::from_bytes([0xA7; 32]);
        assert_eq!(KeyPrint::from(&key).to_string(), key.fingerprint());
        for text in ["all", "strangers", "group:workers", "0:0000.0000.0002", "key:7776-e870-b938-54f2-a0b2"]
        {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("7".parse(), Ok(Target::Peer(Who::Node(NodeId(7)))));
        assert_eq!("*".parse(), Ok(Target::All));
        let long = format!("group:{}", "x".repeat(65));
        for bad in
            ["", "0", "group:", "group:a b", "agent-b", "key:12", "key:7776-e870-b938-54f2-a0zz", &long]
        {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
