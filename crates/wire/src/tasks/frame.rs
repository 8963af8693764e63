//! What goes over port 1003: `u32 type | u32 length | JSON`, cut by the
//! [`Decoder`](crate::dataexchange::Decoder) of port 1001, whose frames have the same form.
//!
//! Released nodes write one frame per connection and are answered for a submission only. Ours answer every frame, say
//! more in the object `pilot`, which released nodes ignore, and send files in frames of their own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{State, TaskId};
use crate::dataexchange::{FrameType, RawFrame};
use crate::{Addr, Signature};

/// Longest frame that is taken, in bytes: what released nodes take.
pub const MAX_FRAME: usize = 16 << 20;

/// Longest description of a task in bytes.
pub const DESCRIPTION_MAX: usize = 256 << 10;

/// Longest word of explanation in bytes; longer ones are cut.
pub const REASON_MAX: usize = 4 << 10;

/// Longest result in text in bytes; more goes into a file.
pub const TEXT_MAX: usize = 512 << 10;

/// Longest file that fits into a frame of results, as released nodes know them.
pub const INLINE_FILE_MAX: usize = 8 << 20;

/// Files in one result.
pub const FILES_MAX: usize = 16;

/// Bytes of a file in one frame.
pub const CHUNK: usize = 60 << 10;

const SUBMIT: u32 = 1;
const OLDER_RESULT: u32 = 2;
const STATUS: u32 = 3;
const RESULTS: u32 = 4;
/// Ours, with room for numbers that released nodes may come to use.
const FILE: u32 = 80;
const DATA: u32 = 81;

/// What one side says to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Do this.
    Submit(Submit),
    /// How far the task is.
    Status(StatusUpdate),
    /// The task is done.
    Results(Results),
    /// A file of the results follows.
    File(FileStart),
    /// A piece of it.
    Data(Bytes),
}

/// Bytes that are no word of a task.
#[derive(Debug, thiserror::Error)]
pub enum WordError {
    /// A type that is unknown, or no longer used.
    #[error("no word of a task has type {0}")]
    Type(u32),
    /// Not the JSON that belongs to the type.
    #[error("malformed: {0}")]
    Json(#[from] serde_json::Error),
}

/// Do this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    /// Chosen by the submitter.
    pub task_id: TaskId,
    /// What is to be done.
    pub task_description: String,
    /// Who wants it.
    pub from_addr: Addr,
    /// Who is to do it.
    pub to_addr: Addr,
    /// Present if the submitter is one of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pilot: Option<SubmitExtension>,
}

/// What our nodes add to a submission.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubmitExtension {
    /// When it must be finished, in milliseconds from the arrival of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// How far the task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusUpdate {
    /// The task.
    pub task_id: TaskId,
    /// Where it is.
    pub status: State,
    /// Why, or how far.
    #[serde(default)]
    pub justification: String,
    /// Present if the sender is one of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pilot: Option<StatusExtension>,
}

/// What our nodes add to a status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusExtension {
    /// How far the work is, in the worker's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// That the worker accepted the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acceptance: Option<Acceptance>,
}

/// A worker's signed word that it accepted a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// Seconds since 1970.
    pub at: u64,
    /// Over [`acceptance`](super::score::acceptance).
    pub signature: Signature,
}

/// The task is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// The task.
    pub task_id: TaskId,
    /// `text` or `file`.
    pub result_type: ResultType,
    /// The text, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_text: Option<String>,
    /// The name of the file, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Its content.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "in_base64")]
    pub file_data: Option<Bytes>,
    /// RFC 3339.
    #[serde(default)]
    pub completed_at: String,
    /// From arrival to acceptance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_idle_ms: Option<u64>,
    /// At the head of the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_staged_ms: Option<u64>,
    /// From the beginning of the work to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_cpu_ms: Option<u64>,
    /// Present if the sender is one of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pilot: Option<ResultsExtension>,
}

/// What a result is to released nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultType {
    /// `result_text` has it.
    Text,
    /// `filename` and `file_data` have it.
    File,
}

/// What our nodes add to results.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResultsExtension {
    /// The files that were sent before, all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileNote>,
    /// When the work ended, seconds since 1970.
    pub at: u64,
    /// By the worker, over the [`Statement`](super::score::Statement) made of this and the times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// A file of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileNote {
    /// Its name, as the worker has it.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its hash.
    pub sha256: Digest,
}

/// A file follows, in [`Word::Data`]s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStart {
    /// The task.
    pub task_id: TaskId,
    /// Which of its files, from 0.
    pub index: u8,
    /// What it is.
    #[serde(flatten)]
    pub file: FileNote,
}

impl Word {
    /// Reads a frame.
    ///
    /// # Errors
    /// When it is none of these words; released nodes close the connection then.
    pub fn parse(frame: &RawFrame) -> Result<Self, WordError> {
        let json = &frame.payload;
        match frame.kind.0 {
            SUBMIT => Ok(Self::Submit(serde_json::from_slice(json)?)),
            STATUS => Ok(Self::Status(serde_json::from_slice(json)?)),
            RESULTS => Ok(Self::Results(serde_json::from_slice(json)?)),
            FILE => Ok(Self::File(serde_json::from_slice(json)?)),
            DATA => Ok(Self::Data(frame.payload.clone())),
            OLDER_RESULT => Err(WordError::Type(OLDER_RESULT)),
            other => Err(WordError::Type(other)),
        }
    }

    /// The number of its frame.
    #[must_use]
    pub const fn kind(&self) -> FrameType {
        FrameType(match self {
            Self::Submit(_) => SUBMIT,
            Self::Status(_) => STATUS,
            Self::Results(_) => RESULTS,
            Self::File(_) => FILE,
            Self::Data(_) => DATA,
        })
    }

    /// Appends the frame.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let json = match self {
            Self::Submit(word) => serde_json::to_vec(word),
            Self::Status(word) => serde_json::to_vec(word),
            Self::Results(word) => serde_json::to_vec(word),
            Self::File(word) => serde_json::to_vec(word),
            Self::Data(data) => Ok(data.to_vec()),
        };
        #[expect(clippy::expect_used, reason = "plain JSON without maps")]
        let payload = json.expect("a word is plain JSON").into();
        RawFrame { kind: self.kind(), payload }.emit(out);
    }
}

/// What is said to a word. Released nodes answer submissions only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The task.
    pub task_id: String,
    /// One of the constants here.
    pub status: u16,
    /// For people to read.
    #[serde(default)]
    pub message: String,
    /// Present if the one who answers is one of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pilot: Option<AnswerExtension>,
}

/// What our nodes add to an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswerExtension {
    /// To a [`Word::File`]: how much of it is here already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// To [`Word::Results`]: the submitter's signature under the same statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

impl Answer {
    /// Taken in, and on disk.
    pub const OK: u16 = 200;
    /// No, and asking again does not help.
    pub const REFUSED: u16 = 400;
    /// There is no such task of yours here.
    pub const UNKNOWN: u16 = 404;
    /// Not now.
    pub const LATER: u16 = 503;

    /// Reads the answer to a word.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(frame: &RawFrame) -> Result<Self, WordError> {
        match frame.kind.0 {
            SUBMIT | STATUS | RESULTS | FILE => Ok(serde_json::from_slice(&frame.payload)?),
            other => Err(WordError::Type(other)),
        }
    }

    /// Appends the frame; its type is that of the word it answers.
    pub fn emit(&self, kind: FrameType, out: &mut Vec<u8>) {
        #[expect(clippy::expect_used, reason = "plain JSON without maps")]
        let payload = serde_json::to_vec(self).expect("an answer is plain JSON").into();
        RawFrame { kind, payload }.emit(out);
    }
}

/// A SHA-256, in hexadecimal as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let malformed = || serde::de::Error::custom("a SHA-256 has 64 hexadecimal digits");
        if text.len() != 64 || !text.is_ascii() {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| malformed())?;
        }
        Ok(Self(bytes))
    }
}

mod in_base64 {
    use super::{Bytes, Engine, STANDARD};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(data: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
        match data {
            Some(data) => serializer.serialize_str(&STANDARD.encode(data)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let decoded = text.map(|text| STANDARD.decode(text)).transpose();
        decoded.map(|data| data.map(Bytes::from)).map_err(serde::de::Error::custom)
    }
}
