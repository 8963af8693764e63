//! How far a task came.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a task came, in the words of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Submitted; the worker has not said yes or no.
    New,
    /// In the worker's queue.
    Accepted,
    /// The worker does not want it.
    Declined,
    /// Taken back, or not accepted or finished in time.
    Cancelled,
    /// The worker is at it.
    Executing,
    /// Accepted, and not begun within an hour at the head of the queue.
    Expired,
    /// The results are there, but one side does not know that the other knows.
    Completed,
    /// The results are there, and both sides know.
    Succeeded,
    /// The worker tried and could not.
    Failed,
}

impl State {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Accepted => "ACCEPTED",
            Self::Declined => "DECLINED",
            Self::Cancelled => "CANCELLED",
            Self::Executing => "EXECUTING",
            Self::Expired => "EXPIRED",
            Self::Completed => "COMPLETED",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
        }
    }

    /// What A2A calls it.
    #[must_use]
    pub const fn a2a(self) -> A2aState {
        match self {
            Self::New => A2aState::Submitted,
            Self::Accepted | Self::Executing => A2aState::Working,
            Self::Declined => A2aState::Rejected,
            Self::Cancelled => A2aState::Canceled,
            Self::Completed | Self::Succeeded => A2aState::Completed,
            Self::Expired | Self::Failed => A2aState::Failed,
        }
    }

    /// Whether nobody will change it any more, except from COMPLETED to SUCCEEDED.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        !matches!(self, Self::New | Self::Accepted | Self::Executing)
    }

    /// Whether there are results.
    #[must_use]
    pub const fn has_results(self) -> bool {
        matches!(self, Self::Completed | Self::Succeeded)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [
            Self::New,
            Self::Accepted,
            Self::Declined,
            Self::Cancelled,
            Self::Executing,
            Self::Expired,
            Self::Completed,
            Self::Succeeded,
            Self::Failed,
        ];
        all.into_iter().find(|state| text.eq_ignore_ascii_case(state.as_str())).ok_or(UnknownState)
    }
}

/// A word that is no state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the states of a task are NEW, ACCEPTED, EXECUTING, COMPLETED, SUCCEEDED, DECLINED, CANCELLED, EXPIRED and FAILED"
)]
pub struct UnknownState;

/// The states of the A2A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "A2A's own words")]
pub enum A2aState {
    Submitted,
    Working,
    InputRequired,
    Completed,
    Canceled,
    Failed,
    Rejected,
}

impl fmt::Display for A2aState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Submitted => "submitted",
            Self::Working => "working",
            Self::InputRequired => "input-required",
            Self::Completed => "completed",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_read_back() {
        for text in ["NEW", "ACCEPTED", "EXECUTING", "CANCELLED", "SUCCEEDED"] {
            let state: State = text.parse().unwrap();
            assert_eq!(state.as_str(), text);
            assert_eq!(serde_json::to_value(state).unwrap(), text);
        }
        assert_eq!("nonsense".parse::<State>(), Err(UnknownState));
    }
}
