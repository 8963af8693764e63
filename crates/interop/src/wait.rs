//! Waiting for a condition.

use std::time::{Duration, Instant};

/// How long a test waits for something that must happen. Far more than it takes, so that a busy machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Pause between two looks at a condition that nobody announces.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Asks until there is an answer, and panics with `what` when [`PATIENCE`] is at its end.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}
