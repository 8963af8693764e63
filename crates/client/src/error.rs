//! What can go wrong, told by class, with what to do about it.

use std::io;
use std::path::PathBuf;

use pilot_wire::ipc::paths::Unreachable;
use pilot_wire::ipc::{Code, Failure};

/// No connection to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens on the socket.
    #[error("no daemon answers at {}", .socket.display())]
    NotRunning {
        /// The socket tried.
        socket: PathBuf,
    },
    /// The socket belongs to another user.
    #[error("the daemon at {} belongs to another user", .socket.display())]
    Denied {
        /// The socket tried.
        socket: PathBuf,
    },
    /// The socket cannot be used.
    #[error("cannot connect to {}: {reason}", .socket.display())]
    Unusable {
        /// The socket tried.
        socket: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Whoever listens there said nothing, or something else than a daemon would.
    #[error("no Pilot daemon on the connection: {reason}")]
    Strange {
        /// What happened.
        reason: String,
    },
    /// The node in this process was shut down.
    #[error("the node in this process has ended")]
    Ended,
}

impl ConnectError {
    /// The class of the error.
    pub const fn code(&self) -> Code {
        match self {
            Self::NotRunning { .. } | Self::Ended => Code::NotRunning,
            Self::Denied { .. } => Code::PermissionDenied,
            Self::Unusable { .. } | Self::Strange { .. } => Code::Internal,
        }
    }

    /// What to do about it.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotRunning { .. } => Some("start it with `pilotctl daemon start`"),
            Self::Denied { .. } => Some("run as that user, or start a daemon of your own with `--socket`"),
            Self::Unusable { .. } | Self::Strange { .. } => {
                Some("is PILOT_SOCKET the socket of a Pilot daemon?")
            }
            Self::Ended => Some("start a node again and take a client of that one"),
        }
    }
}

/// A request failed, or a stream did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection to the daemon.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The daemon or the peer refused, in its own words.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The daemon ended the connection: it stopped, or dropped this client.
    #[error("the daemon ended the connection")]
    Disconnected,
    /// The node in this process has ended. Unlike a daemon that was reached through a socket, it does not come back:
    /// another one has clients of its own.
    #[error("the node in this process has ended")]
    Ended,
    /// The daemon said something that no daemon should.
    #[error("the daemon broke the protocol: {0}")]
    Protocol(String),
    /// The daemon on the socket speaks the reference dialect only, which has no word for this.
    #[error("a reference daemon runs here, and it does not know `{0}`")]
    Unsupported(&'static str),
    /// The argument cannot be right.
    #[error("{0}")]
    Invalid(String),
    /// The stream was closed, by the peer or here, or this side has finished it.
    #[error("the stream is closed for writing")]
    Closed,
    /// The system failed us, not Pilot: a file cannot be read, for instance.
    #[error("{0}")]
    Io(String),
}

impl Error {
    /// The class of the error.
    pub const fn code(&self) -> Code {
        match self {
            Self::Connect(error) => error.code(),
            Self::Failed(failure) => failure.code,
            Self::Disconnected | Self::Ended => Code::NotRunning,
            Self::Protocol(_) | Self::Io(_) => Code::Internal,
            Self::Unsupported(_) => Code::Unsupported,
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Closed => Code::Closed,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Connect(error) => error.hint(),
            Self::Failed(failure) => failure.hint.as_deref(),
            Self::Disconnected => Some("see `pilotctl daemon status`"),
            Self::Ended => ConnectError::Ended.hint(),
            Self::Unsupported(_) => Some("stop it and start `pilotctl daemon start` in its place"),
            Self::Protocol(_) | Self::Invalid(_) | Self::Closed | Self::Io(_) => None,
        }
    }
}

impl Error {
    /// What is known about the peer, when the failure is that it does not answer.
    pub fn unreachable(&self) -> Option<&Unreachable> {
        match self {
            Self::Failed(failure) => failure.unreachable.as_deref(),
            Self::Connect(_)
            | Self::Disconnected
            | Self::Ended
            | Self::Protocol(_)
            | Self::Unsupported(_)
            | Self::Invalid(_)
            | Self::Closed
            | Self::Io(_) => None,
        }
    }
}

/// Streams are read and written through the traits of tokio, whose errors are these. [`Error::from`] finds the
/// original inside again.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.code() {
            Code::Closed if matches!(error, Error::Closed) => io::ErrorKind::BrokenPipe,
            Code::Timeout => io::ErrorKind::TimedOut,
            Code::Refused => io::ErrorKind::ConnectionRefused,
            Code::NotTrusted | Code::PermissionDenied => io::ErrorKind::PermissionDenied,
            Code::NotFound => io::ErrorKind::NotFound,
            Code::InvalidArgument => io::ErrorKind::InvalidInput,
            Code::Unsupported => io::ErrorKind::Unsupported,
            Code::Unreachable
            | Code::RegistryUnreachable
            | Code::NotRegistered
            | Code::AlreadyExists
            | Code::Busy
            | Code::Closed
            | Code::Cancelled
            | Code::Failed
            | Code::NotRunning
            | Code::Internal
            | Code::Other => io::ErrorKind::ConnectionReset,
        };
        Self::new(kind, error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(original) => original,
            Err(error) => Self::Io(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_through_the_io_traits() {
        let error = Error::Failed(Failure::new(Code::Timeout, "no answer").with_hint("wait"));
        let io = io::Error::from(error.clone());
        assert_eq!(io.kind(), io::ErrorKind::TimedOut);
        assert_eq!(Error::from(io), error);
    }
}
