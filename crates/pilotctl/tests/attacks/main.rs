//! Attacks on our daemon, registry and beacon: real processes, real sockets on loopback. Beside each of them goes something
//! that has to be right in the end, and what was attacked says in its counters that the attack arrived.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[path = "../common/mod.rs"]
mod common;

mod beacon;
mod files;
mod floods;
mod frames;
mod local;
mod middle;
mod page;
mod peers;
mod puppet;
mod registry;
mod strangers;
mod target;
