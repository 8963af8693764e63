//! `pilotctl mcp`.

mod connect;
mod expose;
mod install;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl mcp                                      serve on stdin and stdout: a program starts it so\n  \
    pilotctl mcp install --client claude-code         show what would be written into its settings\n  \
    pilotctl mcp install --client claude-code --apply\n  \
    pilotctl mcp expose -- uvx some-mcp-server        offer a local server to trusted peers\n  \
    pilotctl mcp connect agent-b                      use it from another machine",
    after_help = "Speaks revisions 2025-11-25 and 2026-07-28 of the protocol, and older ones. The daemon may be down: the tools \
    say so, and work again when it is back. It ends when stdin ends.",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show how to make a program start this server, or with `--apply` write it into its settings
    Install(install::Args),
    /// Take it out of the settings of a program again
    Uninstall(install::UninstallArgs),
    /// Offer a local server to trusted peers: one process for each stream
    Expose(expose::Args),
    /// Use the server that a peer offers: a program starts this as if it were that server
    Connect(connect::Args),
}

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;

/// `pilotctl mcp`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    match &args.command {
        None => serve(ctx).await,
        Some(Command::Install(args)) => install::run(ctx, args),
        Some(Command::Uninstall(args)) => install::undo(ctx, args),
        Some(Command::Expose(args)) => expose::run(ctx, args).await,
        Some(Command::Connect(args)) => connect::run(ctx, args).await,
    }
}

/// Nothing but the protocol goes to stdout.
async fn serve(ctx: &Context) -> Result<Output, Failure> {
    pilot_mcp::serve(ctx.settings.socket(), tokio::io::stdin(), tokio::io::stdout())
        .await
        .map_err(|error| Failure::internal(error.to_string()))?;
    Ok(Output::streamed())
}
