//! Why a command failed: a code that scripts can match, a sentence for people, and what to do next.

use serde::Serialize;

/// The class of a failure. The text form is the `code` of the JSON error; [`Code::exit_status`] is the one
/// place where classes become exit statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Code {
    /// Something went wrong inside Pilot or the operating system.
    Internal,
    /// The thing to be created exists, or the name is taken.
    AlreadyExists,
    /// The command is known, but this version cannot carry it out.
    Unsupported,
    /// The other side understood and said no.
    Refused,
    /// A program of the other side tried, and it failed.
    Failed,
    /// Stopped by a signal before it was done.
    Interrupted,
    /// The command line itself is wrong.
    InvalidArgument,
    /// Something that may work in a moment: network, registry, a busy peer.
    ConnectionFailed,
    /// The peer cannot be reached by any path at present.
    Unreachable,
    /// This node is not (yet) known to the registry.
    NotRegistered,
    /// The peer has not agreed to talk to us.
    TrustRequired,
    /// This user or node may not do that.
    PermissionDenied,
    /// Nothing has this name, number, id or path.
    NotFound,
    /// The time given for it has passed.
    Timeout,
    /// No daemon answers on the socket.
    NotRunning,
}

impl Code {
    /// Every code with its exit status; also the source of `pilotctl context`.
    pub(crate) const TABLE: [(Code, &'static str, u8); 15] = [
        (Code::Internal, "internal", 1),
        (Code::AlreadyExists, "already_exists", 1),
        (Code::Unsupported, "unsupported", 1),
        (Code::Refused, "refused", 1),
        (Code::Failed, "failed", 1),
        (Code::Interrupted, "interrupted", 1),
        (Code::InvalidArgument, "invalid_argument", 2),
        (Code::ConnectionFailed, "connection_failed", 3),
        (Code::Unreachable, "unreachable", 3),
        (Code::NotRegistered, "not_registered", 3),
        (Code::TrustRequired, "trust_required", 4),
        (Code::PermissionDenied, "permission_denied", 4),
        (Code::NotFound, "not_found", 5),
        (Code::Timeout, "timeout", 6),
        (Code::NotRunning, "not_running", 7),
    ];

    fn row(self) -> (&'static str, u8) {
        Self::TABLE.iter().find(|row| row.0 == self).map_or(("internal", 1), |row| (row.1, row.2))
    }

    /// The text that scripts match on.
    pub(crate) fn name(self) -> &'static str {
        self.row().0
    }

    /// What the process exits with.
    pub(crate) fn exit_status(self) -> u8 {
        self.row().1
    }

    /// Reads the code of a daemon's or a client's failure; their words for some classes differ from ours.
    pub(crate) fn from_name(name: &str) -> Code {
        match name {
            "not_trusted" => Code::TrustRequired,
            "usage" => Code::InvalidArgument,
            "cancelled" => Code::Interrupted,
            "unavailable" | "busy" | "closed" | "registry_unreachable" => Code::ConnectionFailed,
            known => Self::TABLE.iter().find(|row| row.1 == known).map_or(Code::Internal, |row| row.0),
        }
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A failed command: printed as `error:` and `hint:` on stderr, or as the JSON error document on stdout.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Failure {
    /// Its class.
    pub(crate) code: Code,
    /// What happened, and why if that is known.
    pub(crate) message: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    /// What had been achieved before it failed, so that a script need not guess (JSON only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<serde_json::Value>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Failure { code, message: message.into(), hint: None, data: None }
    }

    /// The command line is wrong: exit status 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds advice for one class of failure, unless whoever failed gave better advice already.
    #[must_use]
    pub(crate) fn advise(self, code: Code, hint: impl Into<String>) -> Self {
        if self.code == code && self.hint.is_none() { self.hint(hint) } else { self }
    }

    #[must_use]
    pub(crate) fn with_data(mut self, data: serde_json::Value) -> Self {
        self.data = Some(data);
        self
    }

    /// An operating system error while `doing` something ("reading `x`").
    pub(crate) fn io(doing: impl std::fmt::Display, error: &std::io::Error) -> Self {
        let kind = error.kind();
        let code = if kind == std::io::ErrorKind::NotFound {
            Code::NotFound
        } else if kind == std::io::ErrorKind::PermissionDenied {
            Code::PermissionDenied
        } else {
            Code::Internal
        };
        Failure::new(code, format!("{doing}: {error}"))
    }

    /// No daemon answers on `socket`.
    pub(crate) fn not_running(socket: &std::path::Path) -> Self {
        Failure::new(Code::NotRunning, format!("the daemon is not running (tried `{}`)", socket.display()))
            .hint("start it with `pilotctl daemon start`")
    }
}

/// A refusal of the daemon keeps its class, its words and its advice.
impl From<pilot_client::Error> for Failure {
    fn from(error: pilot_client::Error) -> Self {
        Failure {
            code: Code::from_name(error.code().as_str()),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
            data: error.unreachable().map(|known| serde_json::json!({ "unreachable": known })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_its_name_and_has_a_status_of_the_contract() {
        for (code, name, status) in Code::TABLE {
            assert_eq!(Code::from_name(name), code);
            assert_eq!((code.name(), code.exit_status()), (name, status));
            assert!((1..=7).contains(&status), "{name} exits {status}");
        }
    }

    #[test]
    fn a_code_we_do_not_know_is_an_internal_failure() {
        assert_eq!(Code::from_name("something_new"), Code::Internal);
    }
}
