//! Tests of one stream: scripts in the manner of packetdrill, and two streams over an imaginary link.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and measurements are for reading"
)]

mod blocked;
mod closing;
mod early;
mod goodput;
mod lossy;
mod pair;
mod resources;
mod script;
mod scripts;
