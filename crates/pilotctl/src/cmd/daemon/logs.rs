//! `pilotctl daemon logs`.

use std::fmt;

use serde::Serialize;

use super::LogsArgs;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::process;

#[derive(Serialize)]
struct Log {
    log_file: String,
    lines: Vec<String>,
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

pub(super) fn run(ctx: &Context, args: &LogsArgs) -> Result<Output, Failure> {
    let path = ctx.settings.home().join("pilot.log");
    let lines = process::tail(&path, 0, args.lines).map_err(|error| {
        Failure::io(format!("reading the log {}", path.display()), &error).advise(
            Code::NotFound,
            "a daemon in the foreground logs to its terminal; `pilotctl daemon start` writes this file",
        )
    })?;
    Ok(Output::of(Log { log_file: path.display().to_string(), lines }))
}
