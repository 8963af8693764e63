//! `pilotctl completions`.

use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::completion::VARIABLE;
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
    pub(crate) shell: Shell,
}

/// The script itself is the output, with `--json` too: a shell reads it. It asks the `pilotctl` that is in the
/// path at each tab, so that it knows the peers of that moment and never lags behind the program.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    let name = args.shell.to_string();
    let shells = Shells::builtins();
    let completer =
        shells.completer(&name).ok_or_else(|| Failure::usage(format!("no completions for `{name}`")))?;
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, "pilotctl", "pilotctl", "pilotctl", &mut script)
        .map_err(|e| Failure::io("writing the completions", &e))?;
    output::raw(&script)?;
    Ok(Output::streamed())
}
