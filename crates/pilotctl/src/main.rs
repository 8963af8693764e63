//! `pilotctl`: the command line, the daemon and the rendezvous in one executable.

mod args;
#[cfg(test)]
mod article_forms;
mod bridge;
mod cmd;
mod completion;
mod context;
mod demo;
mod duration;
mod failure;
mod humane;
mod input;
mod local_rendezvous;
mod logging;
mod mailbox;
mod moment;
mod notify;
mod output;
mod pages;
mod paths;
mod pcapng;
mod process;
mod progress;
mod received;
mod reference;
mod settings;
mod size;
mod style;
mod target;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::Cli;
use context::Context;
use failure::Failure;
use output::{Format, Output};

fn main() -> ExitCode {
    if let Some(answer) = completion::answer() {
        return ExitCode::from(answer);
    }
    let words: Vec<OsString> = std::env::args_os().collect();
    let format = if words::wants_json(&words) { Format::Json } else { Format::Text };
    let cli = match words::normalise(words) {
        Ok(words) => Cli::try_parse_from(words),
        Err(failure) => return ExitCode::from(output::finish(format, Err(failure))),
    };
    match cli {
        Ok(cli) => ExitCode::from(output::finish(format, start(format, cli))),
        Err(error) => ExitCode::from(not_a_command(format, &error)),
    }
}

/// Help and version are answers; anything else that clap says is a usage error.
fn not_a_command(format: Format, error: &clap::Error) -> u8 {
    match (error.kind(), format) {
        (ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, _) => {
            drop(error.print());
            0
        }
        (_, Format::Text) => {
            drop(error.print());
            failure::Code::InvalidArgument.exit_status()
        }
        (_, Format::Json) => {
            let rendered = error.render().to_string();
            let message =
                rendered.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let tip = rendered.lines().find_map(|line| line.trim().strip_prefix("tip: "));
            let hint =
                tip.map_or_else(|| "run `pilotctl context` for all commands".to_owned(), str::to_owned);
            let message = if message.is_empty() { "a command is missing".to_owned() } else { message };
            output::finish(format, Err(Failure::usage(message).hint(hint)))
        }
    }
}

/// One thread is enough: the daemon has one owner loop, and commands wait for the daemon.
fn start(format: Format, cli: Cli) -> Result<Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("starting the runtime", &e))?;
    let result = runtime.block_on(async {
        let (mut flags, config) = cmd::flags(&cli.command);
        if let Some(socket) = cli.global.socket {
            flags.insert("socket", socket.display().to_string());
        }
        let context = Context::new(format, flags, config)?;
        Box::pin(cmd::run(&context, cli.command)).await
    });
    // A blocking read of stdin may still be waiting; nobody needs what it would bring.
    runtime.shutdown_background();
    result
}
