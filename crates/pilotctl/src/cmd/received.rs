//! `pilotctl received`.

use std::time::Duration;

#[derive(Debug, Default, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl received\n  pilotctl received --since 1h\n  pilotctl received --clear --before 24h"
)]
pub(crate) struct Args {
    /// At most so many, newest first; 0 is all
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub(crate) limit: usize,
    /// Only files younger than this
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) since: Option<Duration>,
    /// Remove all files
    #[arg(long)]
    pub(crate) clear: bool,
    /// With `--clear`: only files older than this
    #[arg(long, requires = "clear", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) before: Option<Duration>,
}

use std::fmt;
use std::path::{Path, PathBuf};

use pilot_wire::mailbox::{ReceivedFile, Reply, Request};
use serde::Serialize;

use super::inbox::Cleared;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::mailbox::{ask, nanos_before_now, unexpected};
use crate::output::Output;
use crate::{humane, style};

#[derive(Serialize)]
struct Report {
    files: Vec<ReceivedFile>,
    total: u64,
    shown: usize,
    dir: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.files.is_empty() {
            return write!(f, "no files");
        }
        for file in &self.files {
            let when = humane::from_rfc3339(&file.modified).map_or_else(String::new, humane::ago);
            let from = file.from.map_or_else(String::new, |from| format!(" · from {from}"));
            writeln!(
                f,
                "{} · {} · {when}{from}",
                style::strong(humane::printable(&file.name)),
                humane::bytes(file.bytes)
            )?;
        }
        write!(f, "{}", style::faint(format!("in {}", self.dir)))
    }
}

/// `pilotctl received`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    if args.clear {
        let before_ns = args.before.map(nanos_before_now);
        let reply = ask(ctx, Request::ClearFiles { before_ns }).await?;
        let Reply::Cleared { cleared } = reply else { return Err(unexpected(&reply)) };
        return Ok(Output::of(Cleared { cleared }));
    }
    let (mut files, total, dir) = list(ctx, args.limit).await?;
    if let Some(since) = args.since {
        let oldest = nanos_before_now(since) / 1_000_000_000;
        files.retain(|file| humane::from_rfc3339(&file.modified).unwrap_or(0) >= oldest);
    }
    let shown = files.len();
    Ok(Output::of(Report { files, total, shown, dir }))
}

/// Newest first.
async fn list(ctx: &Context, limit: usize) -> Result<(Vec<ReceivedFile>, u64, String), Failure> {
    let limit = (limit > 0).then(|| u32::try_from(limit).unwrap_or(u32::MAX));
    let reply = ask(ctx, Request::ListFiles { limit }).await?;
    let Reply::Files { mut files, total, dir } = reply else { return Err(unexpected(&reply)) };
    files.reverse();
    Ok((files, total, dir))
}

#[derive(Serialize)]
struct Copied {
    files: Vec<PathBuf>,
}

impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files copied", self.files.len())
    }
}

/// `pilotctl data recv --output DIRECTORY`; a file that is there already is not replaced.
pub(crate) async fn copy_to(ctx: &Context, directory: &Path) -> Result<Output, Failure> {
    let doing = || format!("writing into {}", directory.display());
    std::fs::create_dir_all(directory).map_err(|e| Failure::io(doing(), &e))?;
    let mut copied = Vec::new();
    for file in list(ctx, 0).await?.0 {
        let destination = directory.join(&file.name);
        if destination.exists() {
            return Err(Failure::new(Code::AlreadyExists, format!("{} exists", destination.display())));
        }
        std::fs::copy(&file.path, &destination).map_err(|e| Failure::io(doing(), &e))?;
        copied.push(destination);
    }
    Ok(Output::of(Copied { files: copied }))
}
