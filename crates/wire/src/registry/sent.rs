//! A field of a request whose absence and whose nonsense get different answers.

use super::lenient::Loose;
use crate::{PublicKey, Signature};
use base64::{DecodeError, Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What was sent in a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sent<T> {
    /// Nothing, or something of another JSON type.
    #[default]
    Missing,
    /// A value that means nothing; the text says why.
    Malformed(String),
    /// A value.
    Given(T),
}

impl<T> Sent<T> {
    /// True if the field is not there; it is then not emitted either.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    /// The value, if there is one.
    pub fn given(&self) -> Option<&T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Missing | Self::Malformed(_) => None,
        }
    }
}

impl<T> From<T> for Sent<T> {
    fn from(value: T) -> Self {
        Self::Given(value)
    }
}

/// Emits the value; use with `skip_serializing_if = "Sent::is_missing"`.
impl<T: Serialize> Serialize for Sent<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Given(value) => value.serialize(serializer),
            Self::Missing => serializer.serialize_none(),
            Self::Malformed(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Sent<PublicKey> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_base64(deserializer, "public key", PublicKey::from_bytes)
    }
}

impl<'de> Deserialize<'de> for Sent<Signature> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_base64(deserializer, "signature", Signature::from_bytes)
    }
}

/// Only the canonical encoding is taken: a second spelling of a key must not pass for a second key.
fn from_base64<'de, D: Deserializer<'de>, T, const N: usize>(
    deserializer: D,
    what: &str,
    wrap: impl Fn([u8; N]) -> T,
) -> Result<Sent<T>, D::Error> {
    let text = super::lenient::text(deserializer)?;
    if text.is_empty() {
        return Ok(Sent::Missing);
    }
    Ok(match STANDARD.decode(&text) {
        Ok(bytes) => match <[u8; N]>::try_from(bytes) {
            Ok(bytes) => Sent::Given(wrap(bytes)),
            Err(bytes) => Sent::Malformed(format!("invalid {what} size: {}", bytes.len())),
        },
        Err(DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _)) => {
            Sent::Malformed(format!("decode {what}: illegal base64 data at input byte {at}"))
        }
        Err(DecodeError::InvalidLength(_) | DecodeError::InvalidPadding) => {
            Sent::Malformed(format!("decode {what}: base64 data is cut short or wrongly padded"))
        }
    })
}

impl<'de> Deserialize<'de> for Sent<u32> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Loose::deserialize(deserializer)?;
        Ok(value.exact().map_or_else(|| Self::Malformed("not a whole number".to_owned()), Self::Given))
    }
}

/// Numbers out of the range of a port, and values that are no numbers, are kept as 0, which is no port.
impl<'de> Deserialize<'de> for Sent<Vec<u16>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Loose::List(items) = Loose::deserialize(deserializer)? else { return Ok(Self::Missing) };
        let port = |item: &Loose| item.exact().and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        Ok(Self::Given(items.iter().map(port).collect()))
    }
}

impl<'de> Deserialize<'de> for Sent<String> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Loose::deserialize(deserializer)? {
            Loose::Text(text) => Self::Given(text),
            Loose::Number(_) | Loose::Bool(_) | Loose::List(_) | Loose::Other => Self::Missing,
        })
    }
}

/// A JSON object of the user's, either as such or as text. Empty text and `null` are `Given(Null)`: "no longer".
impl<'de> Deserialize<'de> for Sent<serde_json::Value> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let Some(text) = value.as_str() else { return Ok(Self::Given(value)) };
        if text.is_empty() {
            return Ok(Self::Given(serde_json::Value::Null));
        }
        Ok(match serde_json::from_str(text) {
            Ok(value) => Self::Given(value),
            Err(error) => Self::Malformed(format!("invalid JSON: {error}")),
        })
    }
}
