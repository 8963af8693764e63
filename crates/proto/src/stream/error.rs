//! How a stream ends and why a call on it fails.

use std::time::Duration;

/// Why a stream is over. Each reason says whose decision it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Both sides finished, and everything that we wrote was acknowledged.
    #[error("both sides finished")]
    Finished,
    /// Our application aborted it.
    #[error("aborted by this side")]
    Aborted,
    /// Nothing listens on the port, or the listener does not take more streams.
    #[error("the peer refused the connection")]
    Refused,
    /// The dial was never answered.
    #[error("no answer within {waited:?}")]
    Silent {
        /// How long we tried.
        waited: Duration,
    },
    /// The peer aborted it, or does not know it (it restarted).
    #[error("the peer reset the connection")]
    Reset,
    /// The peer stopped acknowledging what we sent.
    #[error("the peer acknowledged nothing for {waited:?}")]
    TimedOut {
        /// How long the oldest byte had been waiting.
        waited: Duration,
    },
    /// Nothing was exchanged, and the peer did not answer the keepalive probes either.
    #[error("the peer was silent for {silent:?}")]
    IdleTimeout {
        /// How long nothing had been heard.
        silent: Duration,
    },
    /// The peer closed both directions before it had taken all of what we wrote.
    #[error("the peer closed before it took the last {unacknowledged} bytes")]
    Discarded {
        /// Bytes that the peer never acknowledged.
        unacknowledged: u64,
    },
}

impl CloseReason {
    /// True if every byte of both directions arrived.
    pub const fn is_orderly(self) -> bool {
        matches!(self, Self::Finished)
    }
}

/// Why a call on a stream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// `finish` or `close` was called before: there is nothing more to write.
    #[error("this side has finished writing")]
    Finished,
    /// The stream is over.
    #[error("the connection is closed: {0}")]
    Closed(CloseReason),
}
