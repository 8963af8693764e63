//! `pilotctl init` and `config`.

use std::fmt;

use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::settings::{self, Setting};
use crate::style;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl init --hostname my-agent\n  pilotctl init --registry rendezvous.example.com:9000\n\n\
    Settings that are not named stay as they are."
)]
pub(crate) struct InitArgs {
    /// Registry to register with
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) registry: Option<String>,
    /// Beacon for discovery and relay
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) beacon: Option<String>,
    /// Name under which peers find this node
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Let everybody resolve and reach this node
    #[arg(long)]
    pub(crate) public: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl config\n  pilotctl config --set registry=rendezvous.example.com:9000\n  \
    pilotctl config --set registry=             (back to the default)"
)]
pub(crate) struct Args {
    /// Change a setting of the settings file; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Serialize)]
struct Initialised {
    config_path: String,
    registry: Option<String>,
    beacon: Option<String>,
    socket: String,
    hostname: Option<String>,
    public: bool,
}

impl fmt::Display for Initialised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |value: &Option<String>, other: &str| value.clone().unwrap_or_else(|| other.to_owned());
        writeln!(f, "settings written to {}", self.config_path)?;
        writeln!(f, "  registry  {}", or(&self.registry, "(the rendezvous of this machine)"))?;
        writeln!(f, "  beacon    {}", or(&self.beacon, "(beside the registry)"))?;
        writeln!(f, "  hostname  {}", or(&self.hostname, "(none)"))?;
        writeln!(f, "  socket    {}", self.socket)?;
        write!(f, "next: pilotctl daemon start")
    }
}

/// `pilotctl init`
pub(crate) fn init(ctx: &Context, args: &InitArgs) -> Result<Output, Failure> {
    let socket = ctx.socket_flag().map(|path| path.display().to_string());
    let mut changes: Vec<(&str, Option<&str>)> = [
        ("registry", &args.registry),
        ("beacon", &args.beacon),
        ("hostname", &args.hostname),
        ("socket", &socket),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, Some(value.as_deref()?))))
    .collect();
    if args.public {
        changes.push(("public", Some("true")));
    }
    settings::store(ctx.settings.file(), &changes)?;
    let settings = ctx.reload()?;
    Ok(Output::of(Initialised {
        config_path: settings.file().display().to_string(),
        registry: settings.get("registry").map(str::to_owned),
        beacon: settings.get("beacon").map(str::to_owned),
        socket: settings.socket().display().to_string(),
        hostname: settings.get("hostname").map(str::to_owned),
        public: settings.is_on("public"),
    }))
}

struct Shown {
    rows: Vec<(&'static settings::Key, Setting)>,
    file: String,
    home: String,
}

impl Serialize for Shown {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serde_json::Map::new();
        let mut origins = serde_json::Map::new();
        for (key, setting) in &self.rows {
            document.insert(key.name.into(), json!(setting.value));
            origins.insert(key.name.into(), json!(setting.origin));
        }
        document.insert("config_path".into(), json!(self.file));
        document.insert("home".into(), json!(self.home));
        document.insert("origins".into(), origins.into());
        document.serialize(serializer)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", style::faint(format!("state {}, settings {}", self.home, self.file)))?;
        for (key, setting) in &self.rows {
            let value = setting.value.as_deref().unwrap_or("-");
            writeln!(
                f,
                "{:<19} {:<24} {}",
                key.name,
                value,
                style::faint(format!("{:<12} {}", setting.origin, key.about))
            )?;
        }
        Ok(())
    }
}

/// `pilotctl config`
pub(crate) fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    if args.set.is_empty() {
        return Ok(Output::of(shown(&ctx.settings)));
    }
    let mut changes = Vec::new();
    for change in &args.set {
        let (name, value) = change.split_once('=').ok_or_else(|| {
            Failure::usage(format!("`{change}` is not key=value")).hint("such as `--set registry=host:9000`")
        })?;
        changes.push((name.trim(), Some(value.trim())));
    }
    settings::store(ctx.settings.file(), &changes)?;
    Ok(Output::of(shown(&ctx.reload()?)))
}

fn shown(settings: &settings::Settings) -> Shown {
    Shown {
        rows: settings.all().map(|(key, setting)| (key, setting.shown(key))).collect(),
        file: settings.file().display().to_string(),
        home: settings.home().display().to_string(),
    }
}
