//! `pilotctl send`.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl send agent-b 7 --data ping         one message on a stream, one answer\n  \
    pilotctl send agent-b \"report is ready\"     a message for the inbox\n  pilotctl send agent-b --file report.pdf     a file"
)]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Port for `--data`, else the text of a message
    #[arg(value_name = "PORT|TEXT")]
    pub(crate) what: Option<String>,
    /// What to send on the stream; `-` is stdin
    #[arg(long, value_name = "DATA", allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
    /// Send this file
    #[arg(long, value_name = "PATH", conflicts_with_all = ["data", "what"])]
    pub(crate) file: Option<PathBuf>,
    /// How long to wait for the answer
    #[arg(long, default_value = "30s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

use pilot_wire::Port;

use super::connect::{Patience, Source, dial, exchange};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::{input, target};

/// `pilotctl send`: which of the three it is follows from the line.
pub(crate) async fn run(ctx: &Context, args: Args) -> Result<Output, Failure> {
    let Args { target, what, data, file, timeout } = args;
    if let Some(path) = file {
        return super::send_file::run(ctx, &super::send_file::Args::of(target, path, timeout)).await;
    }
    match (what, data) {
        (Some(port), Some(data)) => {
            let port = port.parse().map_err(|_| Failure::usage(format!("`{port}` is not a port")))?;
            stream(ctx, &target, Port(port), input::data(&data)?, timeout).await
        }
        (Some(text), None) => {
            super::send_message::run(ctx, &super::send_message::Args::text(target, text)).await
        }
        (None, Some(data)) => {
            super::send_message::run(ctx, &super::send_message::Args::text(target, data)).await
        }
        (None, None) => {
            Err(Failure::usage("there is nothing to send").hint("pilotctl send NODE PORT --data TEXT"))
        }
    }
}

async fn stream(
    ctx: &Context,
    target: &str,
    port: Port,
    bytes: Vec<u8>,
    timeout: Duration,
) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let peer = target::find(&client, target).await?;
    let stream = dial(&client, &peer, port, timeout).await?;
    let patience = Patience { first: timeout, idle: Duration::from_secs(1), once: true };
    let report = exchange(&client, ctx.format, stream, &peer, port, Source::Message(bytes), patience).await?;
    Ok(if ctx.format == Format::Json { Output::of(report) } else { Output::streamed() })
}
