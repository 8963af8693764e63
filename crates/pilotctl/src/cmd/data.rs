//! The article forms `pilotctl data send TARGET FILE` and `pilotctl data recv`.

use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// `send-file`
    Send(super::send_file::Args),
    /// `received`
    Recv {
        /// Copy the received files into this directory
        #[arg(long, value_name = "DIRECTORY")]
        output: Option<PathBuf>,
    },
}

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;

/// The article forms are the same as `send-file` and `received`.
pub(crate) async fn run(ctx: &Context, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Send(args) => super::send_file::run(ctx, &args).await,
        Command::Recv { output: None } => super::received::run(ctx, &super::received::Args::default()).await,
        Command::Recv { output: Some(directory) } => super::received::copy_to(ctx, &directory).await,
    }
}
