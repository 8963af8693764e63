//! The only reading of the clock in this crate: an instant for tests to start from.

use std::time::Instant;

/// Some instant; tests count from it and never look at the clock again.
#[expect(clippy::disallowed_methods, reason = "an `Instant` can be had from the clock only")]
pub(crate) fn start() -> Instant {
    let clock = Instant::now;
    clock()
}
