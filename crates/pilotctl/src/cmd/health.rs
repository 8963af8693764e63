//! `pilotctl health`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl health\n  pilotctl health --json")]
pub(crate) struct Args {}

use std::fmt;

use pilot_wire::ipc::Health;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Serialize)]
#[serde(transparent)]
struct Report(Health);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let health = &self.0;
        writeln!(f, "status                {}", health.status)?;
        let counters = [
            ("uptime seconds", health.uptime_seconds),
            ("streams", health.connections),
            ("peers", health.peers),
            ("  encrypted", health.encrypted_peers),
            ("  authenticated", health.authenticated_peers),
            ("  relayed", health.relay_peer_count),
            ("bytes sent", health.bytes_sent),
            ("bytes received", health.bytes_recv),
            ("handshakes waiting", health.handshake_pending_count),
            ("streams not accepted", health.accept_queue_drops),
            ("webhooks dropped", health.webhook_queue_dropped),
            ("webhooks skipped", health.webhook_circuit_skips),
        ];
        let more = [
            ("local programs", health.programs),
            ("packets waiting", health.queued_packets),
            ("bytes waiting", health.queued_bytes),
            ("frames dropped", health.dropped_frames),
        ];
        let more = more.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (name, value) in counters.into_iter().chain(more) {
            writeln!(f, "{name:<21} {value}")?;
        }
        Ok(())
    }
}

/// `pilotctl health`
pub(crate) async fn run(ctx: &Context, _: &Args) -> Result<Output, Failure> {
    let health = ctx.client().await?.health().await?;
    Ok(Output::of(Report(health)))
}
