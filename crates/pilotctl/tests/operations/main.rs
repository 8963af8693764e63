//! What the person needs who keeps nodes running: metrics, and daemons under a service manager.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[path = "../common/mod.rs"]
mod common;

mod install;
mod metrics;
mod open_metrics;
mod traces;
