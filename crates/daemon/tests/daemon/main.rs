//! Whole daemons on real sockets, with a real rendezvous, in one process.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, clippy::large_futures, reason = "tests")]

mod common;
mod driver;
mod driver_examples;
mod failover;
mod files;
mod gate;
mod hostile;
#[cfg(target_os = "linux")]
mod hosts;
mod inbox;
#[cfg(target_os = "linux")]
mod lan;
mod lies;
mod mailboxes;
#[cfg(target_os = "linux")]
#[path = "../../src/network/testing.rs"]
mod namespace;
mod outbox;
mod paths;
mod policy;
mod programs;
mod push;
mod records;
mod registry;
mod registry_tls;
mod requests;
mod restarts;
#[cfg(target_os = "linux")]
mod roaming;
mod streams;
mod web;
