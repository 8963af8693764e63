//! `pilotctl completions`.

use clap::CommandFactory;

use crate::failure::Failure;
use crate::output::{self, Output};

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl completions bash > ~/.local/share/bash-completion/completions/pilotctl\n  \
    pilotctl completions zsh > ~/.zfunc/_pilotctl\n  pilotctl completions fish > ~/.config/fish/completions/pilotctl.fish"
)]
pub(crate) struct Args {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// The script itself is the output, with `--json` too: a shell reads it.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::args::Cli::command(), "pilotctl", &mut script);
    output::raw(&script)?;
    Ok(Output::streamed())
}
