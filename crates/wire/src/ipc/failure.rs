//! Failures of the extended dialect: a class for programs, a sentence for people, and what to do next.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::paths::Unreachable;

/// What kind of failure it is. Callers decide by this, never by the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request itself is wrong; repeating it cannot help.
    InvalidArgument,
    /// No such node, name, stream, message or network.
    NotFound,
    /// The peer has not agreed to talk to us, or we not to it.
    NotTrusted,
    /// Not allowed for this caller.
    PermissionDenied,
    /// Nothing happened within the time allowed.
    Timeout,
    /// The peer answered: nobody listens on that port.
    Refused,
    /// The peer cannot be reached at present.
    Unreachable,
    /// The registry cannot be reached at present.
    RegistryUnreachable,
    /// This node has no address from the registry yet.
    NotRegistered,
    /// The name or port is taken.
    AlreadyExists,
    /// A limit of the daemon or the peer is reached; later may work.
    Busy,
    /// The stream ended.
    Closed,
    /// The caller withdrew the request.
    Cancelled,
    /// A program of the peer tried, and it failed; the text is its own.
    Failed,
    /// The daemon or peer does not know how to do this.
    Unsupported,
    /// No daemon answers on the local socket.
    NotRunning,
    /// A fault of the daemon.
    Internal,
    /// A class that this version does not know.
    #[serde(other)]
    Other,
}

impl Code {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::NotFound => "not_found",
            Self::NotTrusted => "not_trusted",
            Self::PermissionDenied => "permission_denied",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::RegistryUnreachable => "registry_unreachable",
            Self::NotRegistered => "not_registered",
            Self::AlreadyExists => "already_exists",
            Self::Busy => "busy",
            Self::Closed => "closed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Unsupported => "unsupported",
            Self::NotRunning => "not_running",
            Self::Internal => "internal",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request failed, or a stream ended abnormally.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The class.
    pub code: Code,
    /// What happened, in one sentence without a full stop.
    pub message: String,
    /// What the user can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What is known about a peer that cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<Box<Unreachable>>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, unreachable: None }
    }

    /// The same failure, telling what to do.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_class_is_still_a_failure() {
        let failure: Failure = serde_json::from_str(r#"{"code":"quota","message":"m","more":1}"#).unwrap();
        assert_eq!(failure, Failure::new(Code::Other, "m"));
    }

    #[test]
    fn the_name_of_a_class_is_its_json() {
        for code in [Code::InvalidArgument, Code::RegistryUnreachable, Code::NotRunning, Code::Other] {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
        }
    }
}
