//! All rules: the content of `policy.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{GroupName, Rules, Target, Who};

/// Longest file, in bytes. It bounds everything inside: groups, members, rules.
pub const BOOK_BYTES_MAX: usize = 256 << 10;

/// The format of the file, so that a later one is not misread. There is one so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FormatVersion;

impl FormatVersion {
    const NUMBER: u64 = 1;
}

impl Serialize for FormatVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(Self::NUMBER)
    }
}

impl<'de> Deserialize<'de> for FormatVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            Self::NUMBER => Ok(Self),
            other => Err(de::Error::custom(format!(
                "version {other} of the format is not known here, only {}",
                Self::NUMBER
            ))),
        }
    }
}

/// All rules. Unknown keys are errors, so that a rule with a slip of the pen is not silently no rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// The format of the file.
    pub version: FormatVersion,
    /// For every other node.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub all: Rules,
    /// For nodes without trust.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub strangers: Rules,
    /// Groups with their members and rules.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "each_once")]
    pub groups: BTreeMap<GroupName, Group>,
    /// For single nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "each_once")]
    pub nodes: BTreeMap<Who, Rules>,
}

/// A group of nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Who is in it.
    #[serde(default)]
    pub members: BTreeSet<Who>,
    /// What holds for them.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub rules: Rules,
}

impl Book {
    /// The rules of a target.
    #[must_use]
    pub fn rules(&self, target: &Target) -> Option<&Rules> {
        match target {
            Target::All => Some(&self.all),
            Target::Strangers => Some(&self.strangers),
            Target::Group(name) => self.groups.get(name).map(|group| &group.rules),
            Target::Peer(who) => self.nodes.get(who),
        }
    }

    /// Every target with its rules, from the least specific to the most.
    pub fn targets(&self) -> impl Iterator<Item = (Target, &Rules)> {
        let general = [(Target::All, &self.all), (Target::Strangers, &self.strangers)];
        let groups = self.groups.iter().map(|(name, group)| (Target::Group(name.clone()), &group.rules));
        let nodes = self.nodes.iter().map(|(who, rules)| (Target::Peer(*who), rules));
        general.into_iter().chain(groups).chain(nodes)
    }
}

/// JSON allows one name twice, and readers differ in which counts. Two rules for one node are an error.
fn each_once<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + std::fmt::Display,
    V: Deserialize<'de>,
{
    struct Visitor<K, V>(std::marker::PhantomData<(K, V)>);

    impl<'de, K, V> de::Visitor<'de> for Visitor<K, V>
    where
        K: Deserialize<'de> + Ord + std::fmt::Display,
        V: Deserialize<'de>,
    {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object with each name once")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some(key) = map.next_key::<K>()? {
                if all.contains_key(&key) {
                    return Err(de::Error::custom(format!("`{key}` stands there twice")));
                }
                all.insert(key, map.next_value()?);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_map(Visitor(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_what_was_written_and_nothing_is_overlooked() {
        let text = r#"{"version":1,"all":{"max_message":1048576},
            "groups":{"workers":{"members":["0:0000.0000.0002","key:7776-e870-b938-54f2-a0b2"],
                                 "rules":{"publish":["jobs.*"]}}},
            "nodes":{"0:0000.0000.0007":{"ports":{"allow":[80],"others":"deny"}}}}"#;
        let book: Book = serde_json::from_str(text).unwrap();
        let again: Book = serde_json::from_str(&serde_json::to_string(&book).unwrap()).unwrap();
        assert_eq!(again, book);
        assert_eq!(book.targets().count(), 4);
        for bad in [
            r"{}",
            r#"{"version":2}"#,
            r#"{"version":1,"al":{}}"#,
            r#"{"version":1,"all":{"max_mesage":1}}"#,
            r#"{"version":1,"groups":{"w":{"rule":{}}}}"#,
            r#"{"version":1,"groups":{"w w":{}}}"#,
            r#"{"version":1,"nodes":{"nobody":{}}}"#,
            r#"{"version":1,"nodes":{"7":{},"0:0000.0000.0007":{}}}"#,
            r#"{"version":1,"all":{"ports":{"allow":"80","other":"deny"}}}"#,
            r#"{"version":1,"all":{"max_message":-1}}"#,
        ] {
            assert!(serde_json::from_str::<Book>(bad).is_err(), "{bad}");
        }
    }
}
