//! `pilotctl outbox`.

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl outbox")]
pub(crate) struct Args {}

/// `pilotctl outbox`
#[expect(clippy::unused_async, reason = "filled in with the command")]
pub(crate) async fn run(_ctx: &Context, _args: &Args) -> Result<Output, Failure> {
    Err(Failure::usage("this command is not there yet"))
}
