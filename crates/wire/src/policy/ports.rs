//! Sets of ports.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Port;

/// Ports, as ranges that neither touch nor overlap, in order. As text `80,443,1000-1010`, `all` or `none`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    /// Every port.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![(0, u16::MAX)])
    }

    /// Whether there is no port in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this port is in it.
    #[must_use]
    pub fn contains(&self, port: Port) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= port.0);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| port.0 <= *last)
    }

    /// First and last port of each range, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (Port, Port)> + '_ {
        self.0.iter().map(|(first, last)| (Port(*first), Port(*last)))
    }

    /// Adds the ports of another set.
    pub fn insert(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
        self.0.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(self.0.len());
        for &(first, last) in &self.0 {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                Some(_) | None => merged.push((first, last)),
            }
        }
        self.0 = merged;
    }

    /// Takes the ports of another set away.
    pub fn remove(&mut self, other: &Self) {
        for &(gone_first, gone_last) in &other.0 {
            let mut left = Vec::with_capacity(self.0.len() + 1);
            for &(first, last) in &self.0 {
                if gone_last < first || gone_first > last {
                    left.push((first, last));
                    continue;
                }
                if first < gone_first {
                    left.push((first, gone_first - 1));
                }
                if gone_last < last {
                    left.push((gone_last + 1, last));
                }
            }
            self.0 = left;
        }
    }

    fn add_item(&mut self, text: &str) -> Result<(), ParsePortsError> {
        let bad = || ParsePortsError(text.to_owned());
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| bad());
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err(bad());
        }
        self.0.push((first, last));
        Ok(())
    }
}

impl From<Port> for PortSet {
    fn from(port: Port) -> Self {
        Self(vec![(port.0, port.0)])
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("none"),
            [(0, u16::MAX)] => f.write_str("all"),
            ranges => {
                for (at, range) in ranges.iter().enumerate() {
                    if at > 0 {
                        f.write_str(",")?;
                    }
                    match range {
                        (first, last) if first == last => write!(f, "{first}")?,
                        (first, last) => write!(f, "{first}-{last}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl FromStr for PortSet {
    type Err = ParsePortsError;

    fn from_str(text: &str) -> Result<Self, ParsePortsError> {
        match text {
            "all" => return Ok(Self::all()),
            "none" => return Ok(Self::default()),
            _ => {}
        }
        let mut set = Self::default();
        for item in text.split(',') {
            set.add_item(item)?;
        }
        set.insert(&Self::default());
        Ok(set)
    }
}

impl Serialize for PortSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Text, or a list of numbers and texts, whichever an owner finds natural.
impl<'de> Deserialize<'de> for PortSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Item {
            Number(u16),
            Text(String),
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            One(Item),
            Many(Vec<Item>),
        }
        let items = match Form::deserialize(deserializer)? {
            Form::One(Item::Text(text)) => return text.parse().map_err(de::Error::custom),
            Form::One(item) => vec![item],
            Form::Many(items) => items,
        };
        let mut set = Self::default();
        for item in items {
            match item {
                Item::Number(port) => set.0.push((port, port)),
                Item::Text(text) => set.add_item(&text).map_err(de::Error::custom)?,
            }
        }
        set.insert(&Self::default());
        Ok(set)
    }
}

/// Text that is no port and no range of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no port (0 to 65535) and no range such as 1000-1010")]
pub struct ParsePortsError(String);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_are_read_as_people_and_files_write_them() {
        for (text, shown) in [
            ("80", "80"),
            ("443,80", "80,443"),
            ("1-5,4-9,10", "1-10"),
            ("0-65535", "all"),
            ("none", "none"),
            ("all", "all"),
            ("80, 443", "80,443"),
        ] {
            assert_eq!(text.parse::<PortSet>().unwrap().to_string(), shown, "{text}");
        }
        for bad in ["", "x", "70000", "9-1", "1-", "80,,81", "-5"] {
            assert!(bad.parse::<PortSet>().is_err(), "{bad}");
        }
        let from_list: PortSet = serde_json::from_str(r#"[80, "443", "1000-1010"]"#).unwrap();
        assert_eq!(from_list.to_string(), "80,443,1000-1010");
        let from_number: PortSet = serde_json::from_str("7").unwrap();
        assert_eq!(from_number, PortSet::from(Port::ECHO));
    }

    fn ranges() -> impl Strategy<Value = Vec<(u16, u16)>> {
        let edge = prop_oneof![0..40_u16, (u16::MAX - 5)..=u16::MAX];
        proptest::collection::vec((edge.clone(), edge), 0..6)
            .prop_map(|pairs| pairs.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect())
    }

    fn set(ranges: &[(u16, u16)]) -> PortSet {
        let mut set = PortSet::default();
        for range in ranges {
            set.insert(&PortSet(vec![*range]));
        }
        set
    }

    proptest! {
        #[test]
        fn sets_are_what_adding_and_taking_away_makes_of_them(added in ranges(), taken in ranges()) {
            let mut result = set(&added);
            result.remove(&set(&taken));
            for port in (0..60).chain(u16::MAX - 8..=u16::MAX) {
                let is_in = |ranges: &[(u16, u16)]| ranges.iter().any(|(a, b)| (*a..=*b).contains(&port));
                prop_assert_eq!(result.contains(Port(port)), is_in(&added) && !is_in(&taken), "{}", port);
            }
            prop_assert_eq!(&result, &result.to_string().parse().unwrap());
        }
    }
}
