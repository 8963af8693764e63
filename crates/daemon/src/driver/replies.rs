//! Replies: to whom, in which order, and how failures are worded in either dialect.

use pilot_proto::stream::CloseReason;
use pilot_proto::{Closed, DatagramError, DialError, PortInUse, StreamError};
use pilot_wire::ipc::paths::Unreachable;
use pilot_wire::ipc::{Code, Failure};

use super::clients::ClientId;
use super::paths::{Called, peer_of};
use crate::ipc::budget::Charge;
use crate::registry::CallError;

/// Where a reply belongs in the conversation with a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// Behind the replies to earlier requests.
    InOrder(u64),
    /// Under the number that the program chose.
    Tagged(u32),
}

/// A reply that is owed.
#[derive(Debug)]
#[must_use = "a program waits for it"]
pub(super) struct ReplyTo {
    pub(super) client: ClientId,
    pub(super) slot: Slot,
    /// The request counts against the program's budget until it is answered.
    pub(super) _charge: Option<Charge>,
}

/// A failure, with the text of 1.18.0 where programs may know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) failure: Failure,
    reference: Option<String>,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { failure: Failure::new(code, message), reference: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { failure: self.failure.with_hint(hint), ..self }
    }

    /// What a program of the reference reads.
    pub(super) fn worded(self, text: impl Into<String>) -> Self {
        Self { reference: Some(text.into()), ..self }
    }

    /// With what is known of a peer that does not answer.
    pub(super) fn knowing(mut self, unreachable: Unreachable) -> Self {
        self.failure.unreachable = Some(Box::new(unreachable));
        self
    }

    /// Puts the operation in front for programs of the reference: `set_hostname: registry: ...`.
    pub(super) fn within(self, operation: &str) -> Self {
        let text = format!("{operation}: {}", self.text());
        self.worded(text)
    }

    pub(super) fn text(&self) -> &str {
        self.reference.as_deref().unwrap_or(&self.failure.message)
    }

    pub(super) fn not_registered() -> Self {
        Self::new(Code::NotRegistered, "this node is not registered yet")
            .hint("check that the registry is running: pilotctl status")
    }

    pub(super) fn no_stream(stream: pilot_wire::StreamId) -> Self {
        Self::new(Code::NotFound, format!("connection {stream} not found"))
    }
}

impl Refusal {
    /// A dial that failed, to a peer that people call so.
    pub(super) fn of_dial(error: DialError, Called { name, target }: &Called) -> Self {
        let message = match &error {
            DialError::NotRegistered | DialError::NoPorts | DialError::Unreachable { .. } => {
                error.to_string()
            }
            DialError::UnknownNode(_) => format!("{name} is not known to the registry"),
            DialError::NotTrusted(_) => format!("{name} is private and does not trust this node yet"),
            DialError::NoRegistry { reason, .. } => {
                format!("cannot find {name}: the registry does not answer ({reason})")
            }
            DialError::Unanswered { port, .. } => {
                format!("{name} is alive but does not answer on port {port}: it may not trust this node")
            }
            DialError::KeyChanged(_) => format!("{name} shows another key than the one it was trusted with"),
        };
        match error {
            DialError::NotRegistered => Self::not_registered(),
            DialError::UnknownNode(node) => Self::new(Code::NotFound, message)
                .worded(format!("resolve node {node}: registry: node {node}: node not found")),
            DialError::NotTrusted(node) => Self::new(Code::NotTrusted, message)
                .hint(format!("ask for trust: pilotctl handshake {target}"))
                .worded(format!(
                    "resolve node {node}: registry: resolve denied: node {node} is private (establish mutual trust first)"
                )),
            DialError::NoRegistry { node, reason } => Self::new(Code::RegistryUnreachable, message)
                .hint("check that the registry is running: pilotctl status")
                .worded(format!("resolve node {node}: registry: {reason}")),
            DialError::Unreachable { .. } => Self::new(Code::Unreachable, message)
                .hint(format!("see why: pilotctl why {target}"))
                .worded("dial timeout"),
            DialError::Unanswered { .. } => Self::new(Code::Timeout, message)
                .hint(format!("it may not trust this node: pilotctl handshake {target}"))
                .worded("dial timeout"),
            DialError::KeyChanged(_) => Self::new(Code::NotTrusted, message)
                .hint(format!("if its owner changed the key, run: pilotctl untrust {target}; pilotctl handshake {target}")),
            DialError::NoPorts => Self::new(Code::Busy, message),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, reference: None }
    }
}

impl From<DialError> for Refusal {
    fn from(error: DialError) -> Self {
        let node = peer_of(&error).unwrap_or_default();
        Self::of_dial(error, &Called::new(String::new(), node))
    }
}

impl From<CloseReason> for Refusal {
    fn from(reason: CloseReason) -> Self {
        let message = reason.to_string();
        match reason {
            CloseReason::Refused => Self::new(Code::Refused, message).worded("connection refused"),
            CloseReason::Silent { .. } => Self::new(Code::Timeout, message).worded("dial timeout"),
            CloseReason::TimedOut { .. } | CloseReason::IdleTimeout { .. } => {
                Self::new(Code::Timeout, message)
            }
            CloseReason::Finished
            | CloseReason::Aborted
            | CloseReason::Reset
            | CloseReason::Discarded { .. } => Self::new(Code::Closed, message),
        }
    }
}

impl From<Closed> for Refusal {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Dial(error) => error.into(),
            Closed::Stream(reason) => reason.into(),
        }
    }
}

impl From<StreamError> for Refusal {
    fn from(error: StreamError) -> Self {
        Self::new(Code::Closed, error.to_string()).worded("send: connection not established")
    }
}

impl From<DatagramError> for Refusal {
    fn from(error: DatagramError) -> Self {
        let message = error.to_string();
        let text = format!("sendto: marshal: {message}");
        match error {
            DatagramError::NotRegistered => Self::not_registered().within("sendto"),
            DatagramError::TooLarge(_) => Self::new(Code::InvalidArgument, message).worded(text),
            DatagramError::QueueFull(_) => Self::new(Code::Busy, message).within("sendto"),
        }
    }
}

impl From<PortInUse> for Refusal {
    fn from(error: PortInUse) -> Self {
        Self::new(Code::AlreadyExists, error.to_string())
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(text) => {
                let code = code_of_registry_text(&text);
                Self::new(code, text.clone()).worded(format!("registry: {text}"))
            }
            CallError::Unreachable(reason) => {
                Self::new(Code::RegistryUnreachable, format!("the registry cannot be reached: {reason}"))
                    .hint("check that the registry is running: pilotctl status")
                    .worded(format!("registry: {reason}"))
            }
        }
    }
}

/// Registries answer in words; these are the ones of spec/registry.md 2.3.
fn code_of_registry_text(text: &str) -> Code {
    const WORDS: &[(&str, Code)] = &[
        ("not found", Code::NotFound),
        ("already", Code::AlreadyExists),
        ("is private", Code::NotTrusted),
        ("not a member", Code::PermissionDenied),
        ("token", Code::PermissionDenied),
        ("denied", Code::PermissionDenied),
        ("rate limited", Code::Busy),
        ("too many", Code::Busy),
        ("unknown message type", Code::Unsupported),
        ("invalid", Code::InvalidArgument),
        ("too long", Code::InvalidArgument),
        ("required", Code::InvalidArgument),
        ("must be", Code::InvalidArgument),
        ("reserved", Code::InvalidArgument),
    ];
    WORDS.iter().find(|(word, _)| text.contains(word)).map_or(Code::Other, |(_, code)| *code)
}
