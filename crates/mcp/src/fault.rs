//! Why a tool did not do what it was asked to: in the words and classes of `pilotctl`, for a model to read.

use pilot_client::Error;
use pilot_client::ipc::Code;
use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde_json::json;

use crate::words::printable;

/// A failed call. It is the result of the tool, not a fault of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: class(code), message: message.into(), hint: None }
    }

    /// The arguments cannot be right.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The client took the call back.
    pub(crate) fn cancelled() -> Self {
        Self::new(Code::Cancelled, "the call was cancelled")
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Says what to do if this is a failure of that class, and nothing was said yet.
    pub(crate) fn advise(self, code: Code, hint: impl FnOnce() -> String) -> Self {
        if self.code == class(code) && self.hint.is_none() { self.hint(hint()) } else { self }
    }

    /// The daemon is down, or went away.
    pub(crate) fn is_not_running(&self) -> bool {
        self.code == class(Code::NotRunning)
    }

    /// Nobody is there, as far as this node may see.
    pub(crate) fn is_absence(&self) -> bool {
        let absent = [Code::NotFound, Code::NotTrusted, Code::PermissionDenied, Code::InvalidArgument];
        absent.iter().any(|code| self.code == class(*code))
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code == class(Code::NotFound)
    }

    /// All of it on one line.
    pub(crate) fn message(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message.clone(),
        }
    }

    pub(crate) fn into_result(self) -> CallToolResult {
        // Words of peers and of the registry may be in it.
        let message = printable(&self.message);
        let mut text = format!("error: {message}\n");
        if let Some(hint) = &self.hint {
            text += &format!("hint: {}\n", printable(hint));
        }
        text += &format!("code: {}", self.code);
        let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
        let mut meta = MetaObject::new();
        let about = json!({ "code": self.code, "message": message, "hint": self.hint });
        meta.insert("pilot/error".to_owned(), about);
        result.meta = Some(meta);
        result
    }
}

/// The names that `pilotctl` has for the classes.
const fn class(code: Code) -> &'static str {
    match code {
        Code::NotTrusted => "trust_required",
        Code::Cancelled => "interrupted",
        Code::Busy | Code::Closed | Code::RegistryUnreachable => "connection_failed",
        Code::Other => "internal",
        Code::InvalidArgument
        | Code::NotFound
        | Code::PermissionDenied
        | Code::Timeout
        | Code::Refused
        | Code::Unreachable
        | Code::NotRegistered
        | Code::AlreadyExists
        | Code::Failed
        | Code::Unsupported
        | Code::NotRunning
        | Code::Internal => code.as_str(),
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self { code: class(error.code()), message: error.to_string(), hint }
            .advise(Code::NotTrusted, || "ask for trust first: the tool `trust`, action `request`".to_owned())
            .advise(Code::Unreachable, || "the tool `why` tells what was tried".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_its_class_and_what_to_do() {
        let error = pilot_client::ConnectError::NotRunning { socket: "/tmp/x".into() };
        let result = Fault::from(Error::from(error)).into_result();
        let text = result.content[0].as_text().unwrap().text.clone();
        assert_eq!(
            text,
            "error: no daemon answers at /tmp/x\nhint: start it with `pilotctl daemon start`\ncode: not_running"
        );
        assert_eq!(result.is_error, Some(true));
    }

    #[test]
    fn words_of_others_in_a_failure_cannot_move_the_cursor() {
        let result = Fault::new(Code::Refused, "no \u{1b}[2J").into_result();
        assert!(!result.content[0].as_text().unwrap().text.contains('\u{1b}'));
    }
}
