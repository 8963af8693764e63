//! What a data-exchange frame means: a message, a named file, or a step of a file transfer.

use std::fmt;

use bytes::{Buf, Bytes};

use super::control::{Control, ControlError};
use super::decoder::{RawFrame, emit_with};
use super::filestream::{FileStream, FileStreamError};
use super::tag::Tag;

/// The number of a frame's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameType(pub u32);

impl FrameType {
    /// Text.
    pub const TEXT: Self = Self(1);
    /// Bytes.
    pub const BINARY: Self = Self(2);
    /// JSON; receivers do not validate it.
    pub const JSON: Self = Self(3);
    /// A file in one frame.
    pub const FILE: Self = Self(4);
    /// A message that carries its sending time and is answered with the receiver's times.
    pub const TRACE: Self = Self(5);
    /// A step of a resumable file transfer.
    pub const FILESTREAM: Self = Self(7);
    /// Of development builds; every release refuses it, by this name.
    pub const GOVERNED: Self = Self(8);
    /// A message with ids.
    pub const TAGGED: Self = Self(10);
    /// A word between our nodes about messages; every release refuses it.
    pub const CONTROL: Self = Self(80);

    /// Reads the name that [`FrameType`]'s `Display` writes.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        const NAMED: [FrameType; 9] = [
            FrameType::TEXT,
            FrameType::BINARY,
            FrameType::JSON,
            FrameType::FILE,
            FrameType::TRACE,
            FrameType::FILESTREAM,
            FrameType::GOVERNED,
            FrameType::TAGGED,
            FrameType::CONTROL,
        ];
        if let Some(kind) = NAMED.into_iter().find(|kind| kind.to_string() == name) {
            return Some(kind);
        }
        let number = name.strip_prefix("UNKNOWN(")?.strip_suffix(')')?;
        number.parse().ok().map(Self)
    }
}

impl fmt::Display for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TEXT => f.write_str("TEXT"),
            Self::BINARY => f.write_str("BINARY"),
            Self::JSON => f.write_str("JSON"),
            Self::FILE => f.write_str("FILE"),
            Self::TRACE => f.write_str("TRACE"),
            Self::FILESTREAM => f.write_str("FILESTREAM"),
            Self::GOVERNED => f.write_str("GOVERNED"),
            Self::TAGGED => f.write_str("TAGGED"),
            Self::CONTROL => f.write_str("CONTROL"),
            Self(other) => write!(f, "UNKNOWN({other})"),
        }
    }
}

/// A file in one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The name the sender gives it; not checked, not even for UTF-8: it comes from a stranger.
    pub name: Bytes,
    /// The whole file.
    pub data: Bytes,
}

/// What is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text, in whatever encoding the sender believes in.
    Text(Bytes),
    /// Bytes.
    Binary(Bytes),
    /// JSON, not validated.
    Json(Bytes),
    /// A file in one frame.
    File(NamedFile),
    /// The payload of a FILE frame whose name does not fit into it.
    MalformedFile(Bytes),
    /// A type that nobody handles (here, or inside a TAGGED or TRACE frame), with its payload.
    Unsupported {
        /// Its number.
        kind: FrameType,
        /// Its payload.
        payload: Bytes,
    },
}

impl Content {
    /// The type that appears in the answer.
    #[must_use]
    pub fn kind(&self) -> FrameType {
        match self {
            Self::Text(_) => FrameType::TEXT,
            Self::Binary(_) => FrameType::BINARY,
            Self::Json(_) => FrameType::JSON,
            Self::File(_) | Self::MalformedFile(_) => FrameType::FILE,
            Self::Unsupported { kind, .. } => *kind,
        }
    }

    fn parse(kind: FrameType, payload: Bytes) -> Self {
        match kind {
            FrameType::TEXT => Self::Text(payload),
            FrameType::BINARY => Self::Binary(payload),
            FrameType::JSON => Self::Json(payload),
            FrameType::FILE => parse_file(payload),
            FrameType(_) => Self::Unsupported { kind, payload },
        }
    }
}

fn parse_file(payload: Bytes) -> Content {
    let mut rest = payload.clone();
    match rest.try_get_u16().map(usize::from) {
        Ok(name_len) if name_len <= rest.len() => {
            let name = rest.split_to(name_len);
            Content::File(NamedFile { name, data: rest })
        }
        Ok(_) | Err(_) => Content::MalformedFile(payload),
    }
}

/// Something for the inbox or the received files, with what the sender says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Ids, when it came in a TAGGED frame.
    pub tag: Option<Tag>,
    /// The sender's clock in nanoseconds since 1970, when it came in a TRACE frame.
    pub sent_at_ns: Option<u64>,
    /// The message or file itself.
    pub content: Content,
}

/// One frame, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message or a small file; answered by one [`Answer`](super::Answer).
    Delivery(Delivery),
    /// A step of a file transfer; answered by such steps.
    FileStream(FileStream),
    /// A word about messages and what belongs to it; answered by one [`Answer`](super::Answer).
    Control(Control, Bytes),
}

impl Frame {
    /// Gives a frame its meaning.
    ///
    /// # Errors
    /// When the envelope (not the content) is malformed; [`FrameError`] says what each case is answered with.
    pub fn parse(raw: RawFrame) -> Result<Self, FrameError> {
        let delivery = |tag, (sent_at_ns, content)| Self::Delivery(Delivery { tag, sent_at_ns, content });
        match raw.kind {
            FrameType::FILESTREAM => Ok(Self::FileStream(FileStream::parse(raw.payload)?)),
            FrameType::CONTROL => {
                let (control, body) = Control::parse(raw.payload)?;
                Ok(Self::Control(control, body))
            }
            FrameType::TAGGED => {
                let (tag, kind, payload) = parse_tagged(raw.payload)?;
                Ok(delivery(Some(tag), parse_traced(kind, payload)?))
            }
            FrameType(_) => Ok(delivery(None, parse_traced(raw.kind, raw.payload)?)),
        }
    }

    /// Appends the frame, header and payload, so that both leave in one write.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::FileStream(step) => step.emit(out),
            Self::Delivery(delivery) => delivery.emit(out),
            Self::Control(control, body) => control.emit(body, out),
        }
    }
}

impl Delivery {
    /// Appends the frame, header and payload, so that both leave in one write.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let mut kind = self.content.kind();
        let mut prefix = Vec::new();
        if let Some(tag) = &self.tag {
            let header = serde_json::to_vec(tag).unwrap_or_default();
            // Two ids of at most 128 bytes each are far below 64 KiB.
            prefix.extend_from_slice(&u16::try_from(header.len()).unwrap_or(u16::MAX).to_be_bytes());
            prefix.extend_from_slice(&header);
            let inner = if self.sent_at_ns.is_some() { FrameType::TRACE } else { kind };
            prefix.extend_from_slice(&inner.0.to_be_bytes());
        }
        if let Some(sent_at_ns) = self.sent_at_ns {
            prefix.extend_from_slice(&kind.0.to_be_bytes());
            prefix.extend_from_slice(&sent_at_ns.to_be_bytes());
            kind = FrameType::TRACE;
        }
        if self.tag.is_some() {
            kind = FrameType::TAGGED;
        }
        match &self.content {
            Content::Text(data)
            | Content::Binary(data)
            | Content::Json(data)
            | Content::MalformedFile(data)
            | Content::Unsupported { payload: data, .. } => emit_with(kind, &[&prefix, data], out),
            Content::File(file) => {
                let name_len = u16::try_from(file.name.len()).unwrap_or(u16::MAX).to_be_bytes();
                emit_with(kind, &[&prefix, &name_len, &file.name, &file.data], out);
            }
        }
    }
}

fn parse_traced(kind: FrameType, mut payload: Bytes) -> Result<(Option<u64>, Content), FrameError> {
    if kind != FrameType::TRACE {
        return Ok((None, Content::parse(kind, payload)));
    }
    let length = payload.len();
    let too_short = |_| FrameError::TraceTooShort(length);
    let inner = FrameType(payload.try_get_u32().map_err(too_short)?);
    let sent_at_ns = payload.try_get_u64().map_err(too_short)?;
    Ok((Some(sent_at_ns), Content::parse(inner, payload)))
}

fn parse_tagged(mut payload: Bytes) -> Result<(Tag, FrameType, Bytes), FrameError> {
    let header_len = usize::from(payload.try_get_u16().map_err(|_| FrameError::TaggedTooShort)?);
    if payload.len() < header_len {
        return Err(FrameError::TaggedTooShort);
    }
    let header = payload.split_to(header_len);
    let tag = serde_json::from_slice(&header).map_err(|error| FrameError::TagMalformed(error.to_string()))?;
    let kind = FrameType(payload.try_get_u32().map_err(|_| FrameError::TaggedTooShort)?);
    if kind == FrameType::TAGGED {
        return Err(FrameError::TaggedNested);
    }
    Ok((tag, kind, payload))
}

/// A frame without meaning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// TRACE without room for type and time; answered `ERR trace parse: …`.
    #[error("trace payload too short: {0} bytes")]
    TraceTooShort(usize),
    /// TAGGED without room for its header and inner type; the connection is closed.
    #[error("tagged payload too short")]
    TaggedTooShort,
    /// TAGGED with a header that is not an object with legal ids; the connection is closed.
    #[error("tagged header: {0}")]
    TagMalformed(String),
    /// TAGGED inside TAGGED; the connection is closed.
    #[error("tagged frame inside a tagged frame")]
    TaggedNested,
    /// A malformed file transfer step; the connection is closed.
    #[error(transparent)]
    FileStream(#[from] FileStreamError),
    /// A control frame of a later release, or none at all; answered `ERR TEXT save failed: …`.
    #[error(transparent)]
    Control(#[from] ControlError),
}
