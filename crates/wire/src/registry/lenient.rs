//! Reading of JSON fields as the reference does it: what has the wrong type is not there (spec/registry.md 2.2).

use crate::{NetworkId, NodeId};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::fmt;

/// Any JSON value, as far as fields need it.
pub(super) enum Loose {
    Number(f64),
    Text(String),
    Bool(bool),
    List(Vec<Loose>),
    Other,
}

impl Loose {
    /// The fraction is cut off; what does not fit is zero.
    fn whole(&self, max: u32) -> u32 {
        let Self::Number(number) = *self else { return 0 };
        let whole = number.trunc();
        if !(0.0..=f64::from(max)).contains(&whole) {
            return 0;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range is checked above"
        )]
        let whole = whole as u32;
        whole
    }

    /// The number, if it is a whole one in the range of the type.
    pub(super) fn exact(&self) -> Option<u32> {
        match *self {
            Self::Number(number) if number == f64::from(self.whole(u32::MAX)) => Some(self.whole(u32::MAX)),
            Self::Number(_) | Self::Text(_) | Self::Bool(_) | Self::List(_) | Self::Other => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(_) | Self::Bool(_) | Self::List(_) | Self::Other => String::new(),
        }
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Loose, E> {
        Ok(Loose::Bool(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers beyond 2^53 are out of every field's range")]
    fn visit_i64<E: Error>(self, value: i64) -> Result<Loose, E> {
        Ok(Loose::Number(value as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers beyond 2^53 are out of every field's range")]
    fn visit_u64<E: Error>(self, value: u64) -> Result<Loose, E> {
        Ok(Loose::Number(value as f64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Loose, E> {
        Ok(Loose::Number(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Loose, E> {
        Ok(Loose::Text(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Loose, E> {
        Ok(Loose::Text(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_none<E: Error>(self) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Loose, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Loose::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Loose, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Loose::Other)
    }
}

pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    Ok(Loose::deserialize(deserializer)?.whole(u32::MAX))
}

/// A number without its fraction; what is none is not there.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let Loose::Number(number) = Loose::deserialize(deserializer)? else { return Ok(None) };
    #[expect(clippy::cast_possible_truncation, reason = "a number out of the range becomes its end")]
    let whole = number.trunc() as i64;
    Ok(Some(whole))
}

pub(super) fn node<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
    number(deserializer).map(NodeId)
}

pub(super) fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NetworkId, D::Error> {
    #[expect(clippy::cast_possible_truncation, reason = "limited to 16 bits")]
    let number = Loose::deserialize(deserializer)?.whole(u32::from(u16::MAX)) as u16;
    Ok(NetworkId(number))
}

pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Loose::deserialize(deserializer)?.text())
}

pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(matches!(Loose::deserialize(deserializer)?, Loose::Bool(true)))
}

/// Members that are no text are left out.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let Loose::List(items) = Loose::deserialize(deserializer)? else { return Ok(Vec::new()) };
    Ok(items.into_iter().filter(|item| matches!(item, Loose::Text(_))).map(Loose::text).collect())
}

/// `null` is the default; for replies, where an empty list may come as `null`.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
