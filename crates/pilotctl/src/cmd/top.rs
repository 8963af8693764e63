//! `pilotctl top`.

mod board;
mod reading;
mod screen;
mod view;

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl top                       live, until q\n  \
        pilotctl top --interval 5s\n  pilotctl top --once                one table, for scripts and logs\n  \
        pilotctl top --once --json\n\nKeys: q quits, s sorts by the next column, p pauses, arrows select a peer, Enter shows \
        its path.")]
pub(crate) struct Args {
    /// Print one table and end; needs no terminal
    #[arg(long)]
    pub(crate) once: bool,
    /// How often the daemon is asked; rates are taken between two answers
    #[arg(long, default_value = "1s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) interval: Duration,
}

use std::io::IsTerminal as _;
use std::time::Instant;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Format, Output};

use board::Snapshot;
use reading::Reading;

/// More often would show the daemon at work on the answers.
const SHORTEST: Duration = Duration::from_millis(100);

/// `pilotctl top`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    if args.interval < SHORTEST {
        return Err(Failure::usage("`--interval` is at least 100ms"));
    }
    if !args.once && (ctx.format == Format::Json || !std::io::stdout().is_terminal()) {
        return Err(Failure::usage("`top` draws on a terminal, and this is none")
            .hint("pilotctl top --once [--json]"));
    }
    let client = ctx.client().await?;
    let begun = Instant::now();
    let first = Reading::take(&client, begun.elapsed()).await?;
    if !args.once {
        screen::run(client, first, begun, args.interval).await?;
        return Ok(Output::streamed());
    }
    tokio::time::sleep(args.interval).await;
    let second = Reading::take(&client, begun.elapsed()).await?;
    Ok(Output::of(Snapshot::between(Some(&first), &second)))
}
