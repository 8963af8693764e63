//! `pilotctl connections` and `disconnect`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl connections\n  pilotctl connections --json")]
pub(crate) struct Args {}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl disconnect 34\n\nThe number is the ID of `pilotctl connections`."
)]
pub(crate) struct DisconnectArgs {
    /// Number of the stream
    #[arg(value_name = "ID")]
    pub(crate) id: u32,
}

use std::fmt;

use pilot_wire::StreamId;
use pilot_wire::ipc::{Call, ConnInfo};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{humane, style};

#[derive(Serialize)]
struct Report {
    connections: Vec<ConnInfo>,
    total: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.connections.is_empty() {
            return write!(f, "no streams");
        }
        let heading = format!(
            "{:<6} {:<28} {:<12} {:>8} {:>10} {:>10} {:>10} {:>6}",
            "ID", "STREAM", "STATE", "RTT", "IN FLIGHT", "SENT", "RECEIVED", "RESENT"
        );
        writeln!(f, "{}", style::faint(heading))?;
        for c in &self.connections {
            let ends = format!("{} → {}:{}", c.local_port, c.remote_addr, c.remote_port);
            let rtt = format!("{} ms", c.srtt_ms);
            let [flight, sent, received] = [c.in_flight, c.bytes_sent, c.bytes_recv].map(humane::bytes);
            let resent = c.retransmits + c.fast_retx;
            writeln!(
                f,
                "{:<6} {ends:<28} {:<12} {rtt:>8} {flight:>10} {sent:>10} {received:>10} {resent:>6}",
                c.id, c.state
            )?;
        }
        Ok(())
    }
}

/// `pilotctl connections`
pub(crate) async fn run(ctx: &Context, _: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let connections = match client.call::<Vec<ConnInfo>>(Call::Connections).await.map_err(Failure::from) {
        Ok(connections) => connections,
        Err(failure) if failure.code == Code::Unsupported => client.info().await?.conn_list,
        Err(failure) => return Err(failure),
    };
    let total = connections.len();
    Ok(Output::of(Report { connections, total }))
}

#[derive(Serialize)]
struct Disconnected {
    conn_id: u32,
}

impl fmt::Display for Disconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} closed", self.conn_id)
    }
}

/// `pilotctl disconnect`
pub(crate) async fn disconnect(ctx: &Context, args: &DisconnectArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    client
        .disconnect(StreamId(args.id))
        .await
        .map_err(|error| Failure::from(error).advise(Code::NotFound, "see `pilotctl connections`"))?;
    Ok(Output::of(Disconnected { conn_id: args.id }))
}
