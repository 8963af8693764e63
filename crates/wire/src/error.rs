//! Why bytes were not what they claimed to be.

/// A message that could not be parsed. Nothing of it was used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The input ends before the field that is being read.
    #[error("truncated: {need} bytes needed, {have} left")]
    Truncated {
        /// Bytes the next field takes.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// The first four bytes name no tunnel frame.
    #[error("unknown magic {0:02x?}")]
    Magic([u8; 4]),
    /// A version that this implementation does not speak.
    #[error("unknown version {0}")]
    Version(u8),
    /// A packet of an unknown transport protocol.
    #[error("unknown protocol number {0}")]
    Protocol(u8),
    /// The checksum does not match the content: damaged on the way.
    #[error("checksum {found:#010x} does not match the content ({computed:#010x})")]
    Checksum {
        /// The value in the message.
        found: u32,
        /// The value of the bytes that arrived.
        computed: u32,
    },
    /// A type or command number without a meaning.
    #[error("unknown {what} {value:#04x}")]
    UnknownType {
        /// What kind of number it is, for example `beacon message`.
        what: &'static str,
        /// The number.
        value: u32,
    },
    /// A length or count above what the format or we allow.
    #[error("{what} of {found} is above the limit of {limit}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// The largest value allowed.
        limit: usize,
        /// The value announced or found.
        found: usize,
    },
    /// A field with a value that the format does not allow.
    #[error("invalid {what}")]
    Invalid {
        /// Which field, and what would be valid where that helps.
        what: &'static str,
    },
    /// Text that is not UTF-8.
    #[error("{what} is not UTF-8")]
    NotUtf8 {
        /// Which field.
        what: &'static str,
    },
    /// A JSON document that does not have the expected shape.
    #[error("invalid JSON in {what}: {reason}")]
    Json {
        /// Which message.
        what: &'static str,
        /// What the JSON parser says.
        reason: String,
    },
}
