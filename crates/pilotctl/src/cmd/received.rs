//! `pilotctl received`.

use std::time::Duration;

#[derive(Debug, Default, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    before_help = "Examples:\n  pilotctl received\n  pilotctl received --from agent-a --since 1h\n  \
    pilotctl received wait --from agent-a --timeout 10m\n  pilotctl received rm report-20261126-211530.123-000001.pdf\n  \
    pilotctl received --clear --before 24h"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Files and folders that arrived, with their senders
    List(ListArgs),
    /// Wait until the next file or folder is here
    Wait(WaitArgs),
    /// Remove files or folders by their names
    Rm(RemoveArgs),
}

#[derive(Debug, Default, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl received list\n  pilotctl received list --from agent-a --limit 5"
)]
struct ListArgs {
    /// At most so many, newest first; 0 is all that the daemon lists (400)
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    limit: u32,
    /// Only what this node sent
    #[arg(long, value_name = "TARGET")]
    from: Option<String>,
    /// Only files younger than this
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    since: Option<Duration>,
    /// Remove instead of listing
    #[arg(long, conflicts_with_all = ["since", "limit"])]
    clear: bool,
    /// With `--clear`: only files older than this
    #[arg(long, requires = "clear", value_parser = crate::duration::parse, value_name = "DURATION")]
    before: Option<Duration>,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl received wait\n  pilotctl received wait --from agent-a --timeout 10m\n  \
    pilotctl received wait --since 1h"
)]
struct WaitArgs {
    /// Only what this node sends
    #[arg(long, value_name = "TARGET")]
    from: Option<String>,
    /// Also one that arrived within this time, the oldest of them [default: from now on]
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION", conflicts_with = "after")]
    since: Option<Duration>,
    /// The next after this one: its `received_ns`
    #[arg(long, value_name = "NANOSECONDS")]
    after: Option<u64>,
    /// How long to wait
    #[arg(long, default_value = "30s", value_parser = crate::duration::parse, value_name = "DURATION")]
    timeout: Duration,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl received rm report-20261126-211530.123-000001.pdf")]
struct RemoveArgs {
    /// Names as `pilotctl received` shows them
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

use std::fmt;
use std::path::{Path, PathBuf};

use pilot_wire::NodeId;
use pilot_wire::received::{ReceivedFile, Reply, Request};
use serde::Serialize;

use super::inbox::Cleared;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::mailbox::nanos_before_now;
use crate::output::Output;
use crate::received::{ask, unexpected};
use crate::target::{self, Target};
use crate::{duration, humane, style};

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
            writeln!(f, "{}", line(file))?;
        }
        write!(f, "{}", style::faint(format!("in {}", self.dir)))
    }
}

/// `name · 1.2 MB · 3s ago · from agent-a (0:0000.0000.0001) · sha256 0011aabb…`
fn line(file: &ReceivedFile) -> String {
    let mut parts = vec![style::strong(humane::printable(&file.name)), humane::bytes(file.bytes)];
    parts.extend(file.files.map(|files| humane::count(files, "file")));
    parts.extend(humane::from_rfc3339(&file.modified).map(humane::ago));
    parts.extend(file.from.map(|from| match &file.from_hostname {
        Some(name) => format!("from {} ({from})", humane::printable(name)),
        None => format!("from {from}"),
    }));
    parts.extend(file.sha256.map(|hash| format!("sha256 {}…", &hash.to_string()[..12])));
    parts.join(" · ")
}

/// `pilotctl received`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    match &args.action {
        None => list_or_clear(ctx, &args.list).await,
        Some(Action::List(list)) => list_or_clear(ctx, list).await,
        Some(Action::Wait(wait)) => wait_for(ctx, wait).await,
        Some(Action::Rm(remove)) => remove_all(ctx, remove).await,
    }
}

async fn node(ctx: &Context, target: Option<&str>) -> Result<Option<NodeId>, Failure> {
    Ok(match target.map(Target::parse).transpose()? {
        None => None,
        Some(Target::Address(addr)) => Some(addr.node),
        Some(Target::Number(node)) => Some(node),
        Some(name @ Target::Name(_)) => Some(name.resolve(&ctx.client().await?).await?.node),
    })
}

async fn list_or_clear(ctx: &Context, args: &ListArgs) -> Result<Output, Failure> {
    let from = node(ctx, args.from.as_deref()).await?;
    if args.clear {
        let before_ns = args.before.map(nanos_before_now);
        let reply = ask(ctx, Request::Clear { from, before_ns }).await?;
        let Reply::Cleared { cleared } = reply else { return Err(unexpected(&reply)) };
        return Ok(Output::of(Cleared { cleared }));
    }
    let (files, total, dir) = list(ctx, from, args.since.map(nanos_before_now), args.limit).await?;
    let shown = files.len();
    Ok(Output::of(Report { files, total, shown, dir }))
}

/// Newest first.
async fn list(
    ctx: &Context,
    from: Option<NodeId>,
    since_ns: Option<u64>,
    limit: u32,
) -> Result<(Vec<ReceivedFile>, u64, String), Failure> {
    let limit = (limit > 0).then_some(limit);
    let reply = ask(ctx, Request::List { from, since_ns, limit }).await?;
    let Reply::Files { mut files, total, dir } = reply else { return Err(unexpected(&reply)) };
    files.reverse();
    Ok((files, total, dir))
}

#[derive(Serialize)]
struct Waited {
    #[serde(flatten)]
    file: ReceivedFile,
}

/// The path alone on stdout: it is what a script wants.
impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.path)
    }
}

async fn wait_for(ctx: &Context, args: &WaitArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let from = match &args.from {
        Some(text) => Some(target::find(&client, text).await?.node),
        None => None,
    };
    let since_ns =
        args.after.or(args.since.map(nanos_before_now)).unwrap_or_else(|| nanos_before_now(Duration::ZERO));
    let since = std::time::UNIX_EPOCH + Duration::from_nanos(since_ns);
    match client.wait_file(from, since, args.timeout).await? {
        Some(file) => {
            ctx.note(style::faint(line(&file)));
            Ok(Output::of(Waited { file }))
        }
        None => Err(Failure::new(
            Code::Timeout,
            format!("no file arrived within {}", duration::show(args.timeout)),
        )
        .hint("wait longer with --timeout; what is here already: pilotctl received")),
    }
}

async fn remove_all(ctx: &Context, args: &RemoveArgs) -> Result<Output, Failure> {
    let mut cleared = 0;
    for name in &args.names {
        let reply = ask(ctx, Request::Remove { name: name.clone() }).await?;
        let Reply::Cleared { cleared: more } = reply else { return Err(unexpected(&reply)) };
        cleared += more;
    }
    Ok(Output::of(Cleared { cleared }))
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

/// `pilotctl data recv --output DIRECTORY`; a file that is there already is not replaced. Folders stay where they are.
pub(crate) async fn copy_to(ctx: &Context, directory: &Path) -> Result<Output, Failure> {
    let doing = || format!("writing into {}", directory.display());
    std::fs::create_dir_all(directory).map_err(|e| Failure::io(doing(), &e))?;
    let mut copied = Vec::new();
    for file in list(ctx, None, None, 0).await?.0.into_iter().filter(|file| file.files.is_none()) {
        let destination = directory.join(&file.name);
        if destination.exists() {
            return Err(Failure::new(Code::AlreadyExists, format!("{} exists", destination.display())));
        }
        std::fs::copy(&file.path, &destination).map_err(|e| Failure::io(doing(), &e))?;
        copied.push(destination);
    }
    Ok(Output::of(Copied { files: copied }))
}
