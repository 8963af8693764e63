//! Whole daemons on real sockets, with a real rendezvous, in one process.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, clippy::large_futures, reason = "tests")]

mod common;
mod driver;
mod hostile;
mod programs;
mod registry;
mod restarts;
mod streams;
mod web;
