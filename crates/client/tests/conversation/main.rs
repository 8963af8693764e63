//! What client and daemon say to each other, with a daemon that the test plays.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod extended;
mod fake;
mod reference;
