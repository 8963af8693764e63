//! `pilotctl recovery create|show|remove|use`.

use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a recovery key, and name it in this node's record from now on
    Create(CreateArgs),
    /// Which recovery key this node's record names
    #[command(before_help = "Examples:\n  pilotctl recovery show")]
    Show,
    /// Name no recovery key any more
    #[command(before_help = "Examples:\n  pilotctl recovery remove")]
    Remove,
    /// On a machine without an identity: become the node whose own is lost
    Use(UseArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl recovery create\n  pilotctl recovery create --out /media/stick/recovery.json"
)]
pub(crate) struct CreateArgs {
    /// Where to write it; keep it on another machine than the node [default: recovery.json, here]
    #[arg(long, value_name = "FILE", default_value = "recovery.json", hide_default_value = true)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl recovery use recovery.json --address 0:2A1F.93C4.77D0")]
pub(crate) struct UseArgs {
    /// The recovery key
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The node's address, or its number
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: String,
    /// Registry to ask; several separated by commas [default: that of the settings]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) registry: Option<String>,
}

use pilot_daemon::{RecoverError, Recovered};
use pilot_wire::ipc::{Call, Recovery, RecoveryChange};
use pilot_wire::{Addr, NodeId, PublicKey};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::local_rendezvous;
use crate::output::Output;
use crate::style;
use crate::target::Target;

/// `pilotctl recovery ...`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    match &args.command {
        Command::Create(args) => create(ctx, &args.out).await,
        Command::Show => named(ctx, None).await,
        Command::Remove => named(ctx, Some(RecoveryChange::Remove)).await,
        Command::Use(args) => use_key(ctx, args).await,
    }
}

#[derive(Serialize)]
struct Created {
    file: PathBuf,
    public_key: PublicKey,
    fingerprint: String,
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", style::strong("recovery key"), self.fingerprint)?;
        writeln!(f, "  written to {}", self.file.display())?;
        writeln!(f, "  keep it elsewhere: whoever has it can become this node")?;
        write!(f, "  if this machine is lost: pilotctl recovery use FILE --address ADDRESS")
    }
}

async fn create(ctx: &Context, out: &Path) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    // The file first: a key that the record names and nobody has would be worse than none.
    if out.exists() {
        let message = format!("{} exists already", out.display());
        return Err(Failure::new(Code::AlreadyExists, message).hint("choose another file with --out"));
    }
    let public_key = pilot_daemon::make_recovery_key(out).map_err(|error| failure(&error))?;
    let change = Some(RecoveryChange::Name(public_key));
    let named = client.call::<Recovery>(Call::Recovery { change }).await.map_err(Failure::from);
    if let Err(failure) = named {
        // It is of no use to anybody.
        let _ = std::fs::remove_file(out);
        return Err(failure);
    }
    let file = out.to_owned();
    Ok(Output::of(Created { file, fingerprint: public_key.fingerprint(), public_key }))
}

#[derive(Serialize)]
struct Named {
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<PublicKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fingerprint {
            Some(fingerprint) => write!(f, "this node's record names the recovery key {fingerprint}"),
            None => write!(f, "this node's record names no recovery key\nmake one: pilotctl recovery create"),
        }
    }
}

async fn named(ctx: &Context, change: Option<RecoveryChange>) -> Result<Output, Failure> {
    let found = ctx.client().await?.call::<Recovery>(Call::Recovery { change }).await?;
    let fingerprint = found.key.map(|key| key.fingerprint());
    Ok(Output::of(Named { public_key: found.key, fingerprint }))
}

#[derive(Serialize)]
struct Again {
    node_id: NodeId,
    address: Addr,
    hostname: String,
    public_key: PublicKey,
    fingerprint: String,
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.hostname.is_empty() { String::new() } else { format!(" · {}", self.hostname) };
        writeln!(f, "this machine is {}{name}", style::strong(self.address))?;
        writeln!(f, "  new key {}", self.fingerprint)?;
        writeln!(f, "  peers that knew the recovery key take it for this node's own")?;
        write!(f, "  go on with: pilotctl daemon start")
    }
}

async fn use_key(ctx: &Context, args: &UseArgs) -> Result<Output, Failure> {
    let address = match Target::parse(&args.address)? {
        Target::Address(address) => address,
        Target::Number(node) => Addr::backbone(node),
        Target::Name(_) => {
            return Err(Failure::usage(format!("`{}` is not an address", args.address))
                .hint("names can be given to others; the address is that of the lost node, such as 0:0000.0000.0001"));
        }
    };
    if ctx.client_if_running().await?.is_some() {
        let message = "a daemon is running: its node is not lost";
        return Err(Failure::new(Code::AlreadyExists, message).hint(
            "on another machine, or with another PILOT_HOME and --socket; to replace a living key: pilotctl rotate-key",
        ));
    }
    let registry = local_rendezvous::registry(&ctx.settings).await?;
    let config = super::daemon::config(&ctx.settings, &registry, None)?;
    let Recovered { node_id, address, hostname, public_key } =
        Box::pin(pilot_daemon::recover(&config, &args.file, address))
            .await
            .map_err(|error| failure(&error))?;
    Ok(Output::of(Again { node_id, address, hostname, public_key, fingerprint: public_key.fingerprint() }))
}

fn failure(error: &RecoverError) -> Failure {
    let failure = Failure::new(Code::from_name(error.code()), error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
