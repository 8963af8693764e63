//! Public keys and signatures as values. What they are good for is the business of `pilot-crypto`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, str::FromStr};

/// An Ed25519 public key: who a node is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature([u8; 64]);

/// An X25519 public key: what a session is agreed with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgreementPublic([u8; 32]);

impl PublicKey {
    /// Eighty bits of the key in five groups, for people to compare: `7776-e870-b938-54f2-a0b2`.
    pub fn fingerprint(&self) -> String {
        let groups: Vec<String> = self.0[..10]
            .chunks(2)
            .map(|pair| pair.iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        groups.join("-")
    }
}

/// Text that is no key or signature of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} bytes in canonical base64")]
pub struct ParseKeyError {
    /// How many bytes the text must encode.
    pub expected: usize,
}

macro_rules! fixed_bytes {
    ($($name:ident: $len:literal),*) => {$(
        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps the raw bytes. Any bytes are taken; use decides whether they are a point of the curve.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Standard base64 with padding.
            pub fn to_base64(&self) -> String {
                STANDARD.encode(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_base64())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.to_base64())
            }
        }

        impl FromStr for $name {
            type Err = ParseKeyError;

            /// Takes only the one canonical encoding of the right number of bytes: two texts for one key
            /// would let a node pass for two.
            fn from_str(text: &str) -> Result<Self, ParseKeyError> {
                let error = ParseKeyError { expected: $len };
                let bytes = STANDARD.decode(text).map_err(|_| error)?;
                bytes.try_into().map(Self).map_err(|_| error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

fixed_bytes!(PublicKey: 32, Signature: 64, AgreementPublic: 32);
