//! Services that know nothing of us, reached through us: `serve --to`, `forward`, `proxy`, `gateway`, all real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[path = "../common/mod.rs"]
mod common;

mod bytes;
mod crowds;
mod door;
mod gateways;
mod guide;
mod protocols;
mod proxies;
mod restarts;
mod web;
