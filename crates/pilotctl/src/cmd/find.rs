//! `pilotctl find`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl find agent-b\n  pilotctl find agent-b --json")]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
}

use std::fmt;

use pilot_wire::{Addr, NodeId};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::target::Target;

#[derive(Serialize)]
struct Report {
    hostname: String,
    node_id: NodeId,
    address: Addr,
    public: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "hostname    {}", if self.hostname.is_empty() { "-" } else { &self.hostname })?;
        writeln!(f, "address     {}", self.address)?;
        writeln!(f, "node        {}", self.node_id)?;
        write!(f, "visibility  {}", if self.public { "public" } else { "private" })
    }
}

/// `pilotctl find`: always asks, also for an address, so that what is printed exists.
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let target = Target::parse(&args.target)?;
    let client = ctx.client().await?;
    let found = target.look_up(&client).await?;
    Ok(Output::of(Report {
        hostname: found.hostname,
        node_id: found.node_id,
        address: found.address,
        public: found.public,
    }))
}
