//! `pilotctl rendezvous backup|restore|import`: the records of a rendezvous as files.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilot_rendezvous::registry::{Key, Record};
use pilot_rendezvous::store::StoreUrl;
use pilot_rendezvous::transfer::FillError;
use pilot_rendezvous::{dump, import, transfer};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{pages, settings, style};

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl rendezvous backup /var/backups/pilot-2026-11-27.jsonl")]
pub(crate) struct BackupArgs {
    /// The file to make, with mode 0600; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How long it may take
    #[arg(long, default_value = "60s", value_parser = crate::duration::parse, value_name = "DURATION")]
    timeout: Duration,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl rendezvous restore /var/backups/pilot-2026-11-27.jsonl\n  \
    pilotctl rendezvous restore copy.jsonl --store /var/lib/pilot/rendezvous.redb")]
pub(crate) struct RestoreArgs {
    /// A copy that `backup` made
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The store to fill, a file or a PostgreSQL database (postgres://..., or in PILOT_STORE); it must be empty, or not
    /// exist if it is a file [default: rendezvous.redb of the state directory]
    #[arg(long, value_name = "PATH|URL")]
    pub(crate) store: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl rendezvous import registry.json --store /var/lib/pilot/rendezvous.redb"
)]
pub(crate) struct ImportArgs {
    /// The snapshot of the reference's rendezvous
    #[arg(value_name = "SNAPSHOT")]
    file: PathBuf,
    /// The store to fill, a file or a PostgreSQL database (postgres://..., or in PILOT_STORE); it must be empty, or not
    /// exist if it is a file [default: rendezvous.redb of the state directory]
    #[arg(long, value_name = "PATH|URL")]
    pub(crate) store: Option<String>,
    /// Take it although its checksum is wrong
    #[arg(long)]
    ignore_checksum: bool,
}

#[derive(Serialize)]
struct BackedUp {
    file: String,
    records: usize,
    nodes: usize,
    networks: usize,
    bytes: usize,
}

impl fmt::Display for BackedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, nodes, networks, bytes, .. } = self;
        write!(f, "{} {file}: {nodes} nodes, {networks} networks, {bytes} bytes", style::good("copied to"))
    }
}

/// `http` is where the running rendezvous has its pages.
pub(super) async fn backup(ctx: &Context, args: &BackupArgs, http: Option<&str>) -> Result<Output, Failure> {
    let file = &args.file;
    if file.exists() {
        return Err(Failure::new(Code::AlreadyExists, format!("{} exists", file.display()))
            .hint("a copy is never written over another; choose another name"));
    }
    let Some(http) = http else {
        return Err(Failure::new(Code::NotRunning, "no rendezvous with pages runs for this PILOT_HOME")
            .hint("while it is stopped, a copy of its store file is as good"));
    };
    let control = super::control_file(ctx);
    let token = std::fs::read_to_string(&control)
        .map_err(|error| Failure::io(format!("reading {}", control.display()), &error))?;
    let text = pages::get(http, "/api/backup", Some(token.trim()), args.timeout).await?;
    // What cannot be restored is no copy.
    let records = dump::read(text.as_slice()).map_err(|error| Failure::internal(error.to_string()))?;
    settings::write_private(file, &text)
        .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
    let (nodes, networks) = count(&records);
    let file = file.display().to_string();
    Ok(Output::of(BackedUp { file, records: records.len(), nodes, networks, bytes: text.len() }))
}

#[derive(Serialize)]
struct Restored {
    store: String,
    records: usize,
    nodes: usize,
    networks: usize,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, nodes, networks, .. } = self;
        write!(f, "{} {store}: {nodes} nodes, {networks} networks", style::good("restored into"))
    }
}

pub(super) async fn restore(ctx: &Context, args: &RestoreArgs) -> Result<Output, Failure> {
    let reading = |error: &std::io::Error| Failure::io(format!("reading {}", args.file.display()), error);
    let file = std::fs::File::open(&args.file).map_err(|error| reading(&error))?;
    let records = dump::read(std::io::BufReader::new(file)).map_err(|error| match error {
        dump::DumpError::Io(error) => reading(&error),
        error @ (dump::DumpError::Head(_)
        | dump::DumpError::Format(_)
        | dump::DumpError::Line { .. }
        | dump::DumpError::Long(_)
        | dump::DumpError::Cut
        | dump::DumpError::Checksum) => Failure::usage(format!("{}: {error}", args.file.display())),
    })?;
    let store = super::store(&ctx.settings)?;
    let (total, (nodes, networks)) = (records.len(), count(&records));
    fill(ctx, &store, records).await?;
    Ok(Output::of(Restored { store: store.to_string(), records: total, nodes, networks }))
}

/// Lines about what was left out that are printed for people; programs get all.
const LEFT_OUT_SHOWN: usize = 20;

#[derive(Serialize)]
struct Imported {
    store: String,
    nodes: usize,
    departed: usize,
    networks: usize,
    trust_links: usize,
    waiting: usize,
    checksum_verified: bool,
    left_out: Vec<String>,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", style::good("imported into"), self.store)?;
        writeln!(f, "  nodes        {} registered, {} that were", self.nodes, self.departed)?;
        writeln!(f, "  networks     {}", self.networks)?;
        writeln!(f, "  trust links  {}", self.trust_links)?;
        write!(f, "  waiting      {} requests, answers and invitations", self.waiting)?;
        if !self.left_out.is_empty() {
            write!(f, "\n{} {}", style::strong("left out:"), self.left_out.len())?;
        }
        for what in self.left_out.iter().take(LEFT_OUT_SHOWN) {
            write!(f, "\n  {what}")?;
        }
        if self.left_out.len() > LEFT_OUT_SHOWN {
            write!(f, "\n  and more; --json has all")?;
        }
        Ok(())
    }
}

pub(super) async fn import(ctx: &Context, args: &ImportArgs) -> Result<Output, Failure> {
    let json = std::fs::read(&args.file)
        .map_err(|error| Failure::io(format!("reading {}", args.file.display()), &error))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (records, report) = import::read(&json, now, args.ignore_checksum).map_err(|error| {
        let failure = Failure::usage(format!("{}: {error}", args.file.display()));
        match error {
            import::ImportError::Checksum => failure.hint("if it was edited on purpose: --ignore-checksum"),
            import::ImportError::Unreadable(_) | import::ImportError::Empty => failure,
        }
    })?;
    let store = super::store(&ctx.settings)?;
    fill(ctx, &store, records).await?;
    Ok(Output::of(Imported {
        store: store.to_string(),
        nodes: report.nodes,
        departed: report.departed,
        networks: report.networks,
        trust_links: report.trust_links,
        waiting: report.waiting,
        checksum_verified: report.checked,
        left_out: report.left_out,
    }))
}

async fn fill(ctx: &Context, store: &StoreUrl, records: Vec<(Key, Record)>) -> Result<(), Failure> {
    let folder = super::folder(&ctx.settings, store);
    settings::private_directory(&folder)
        .map_err(|error| Failure::io(format!("making {}", folder.display()), &error))?;
    transfer::fill(store, records).await.map_err(|error| {
        let message = error.to_string();
        match error {
            FillError::NotEmpty { .. } => Failure::new(Code::AlreadyExists, message)
                .hint("give another with --store, or move it away first"),
            FillError::Store(error) => super::store_failure(&error, message),
            FillError::Records(_) => Failure::usage(message),
        }
    })
}

fn count(records: &[(Key, Record)]) -> (usize, usize) {
    let of = |is: fn(&Key) -> bool| records.iter().filter(|(key, _)| is(key)).count();
    (of(|key| matches!(key, Key::Node(_))), of(|key| matches!(key, Key::Network(_))))
}
