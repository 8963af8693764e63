//! The same job in six ways: polling, webhook, WebSocket, MQTT, gRPC, Pilot.

use crate::{Failure, Options, report::Table};

/// Measures all ways.
pub(crate) fn run(_options: &Options) -> Result<Vec<Table>, Failure> {
    Ok(Vec::new())
}

/// A part in a process of its own.
pub(crate) fn play(part: &[String]) -> Result<(), Failure> {
    Err(format!("no such role: {part:?}").into())
}
