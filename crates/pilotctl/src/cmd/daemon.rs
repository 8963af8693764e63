//! `pilotctl daemon run|start|stop|restart|status|logs|install|uninstall`.

mod install;
mod logs;
mod run;
mod start;
mod stop;

pub(super) use run::config;

use std::fmt;

use pilot_wire::{Addr, NodeId};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::settings::Flags;
use crate::style;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run the daemon in the foreground until it is told to stop
    Run(DaemonFlags),
    /// Start the daemon in the background and wait until it is ready
    Start(StartArgs),
    /// Stop the daemon and wait until it has ended
    Stop(StopArgs),
    /// Stop the daemon if it runs, and start it
    #[command(
        before_help = "Examples:\n  pilotctl daemon restart\n  pilotctl daemon restart --log-level debug"
    )]
    Restart(StartArgs),
    /// Whether the daemon runs, since when, and where its state is
    Status(super::status::Args),
    /// The last lines of the daemon's log
    Logs(LogsArgs),
    /// Have systemd or launchd run the daemon
    Install(Box<install::InstallArgs>),
    /// Take the daemon out of systemd or launchd
    Uninstall(install::UninstallArgs),
}

/// Settings of a daemon. What is not said is taken from the environment and `config.json`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl daemon run --hostname my-agent\n  \
    pilotctl daemon run --registry rendezvous.example.com:9000 --log-level debug")]
pub(crate) struct DaemonFlags {
    /// Registry to register with; several separated by commas, the next is used when one is lost [default: the
    /// rendezvous of this machine]
    #[arg(long, value_name = "HOST:PORT,...")]
    pub(crate) registry: Option<String>,
    /// auto: TLS, or none if the registry never spoke it; require; off
    #[arg(long, value_name = "HOW")]
    pub(crate) registry_tls: Option<String>,
    /// SHA-256 of the only certificate that the registry may show; several separated by commas [default: one that an
    /// authority vouches for, else the first that is seen]
    #[arg(long, value_name = "HEX")]
    pub(crate) registry_fingerprint: Option<String>,
    /// Beacon for discovery and relay; one for each registry, or one for all [default: the registry's host, next port]
    #[arg(long, value_name = "HOST:PORT,...")]
    pub(crate) beacon: Option<String>,
    /// URL of the beacon where UDP does not pass [default: wss://HOST/v1/compat with the beacon's host]
    #[arg(long, value_name = "URL")]
    pub(crate) beacon_web: Option<String>,
    /// SHA-256 of the only certificate that the beacon may show there
    #[arg(long, value_name = "HEX")]
    pub(crate) beacon_web_fingerprint: Option<String>,
    /// auto: UDP, and the web while the beacon does not answer there; udp; web
    #[arg(long, value_name = "HOW")]
    pub(crate) transport: Option<String>,
    /// HTTP proxy to beacon and registry, or off [default: HTTPS_PROXY, except for NO_PROXY]
    #[arg(long, value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// UDP address for tunnels; port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Public address to announce instead of the discovered one
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) endpoint: Option<String>,
    /// File with the node's key; made if it does not exist
    #[arg(long, value_name = "PATH")]
    pub(crate) identity: Option<String>,
    /// Name under which peers find this node
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Owner given to the registry
    #[arg(long, alias = "owner", value_name = "ADDRESS")]
    pub(crate) email: Option<String>,
    /// Let everybody resolve and reach this node
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) public: Option<String>,
    /// Settings file [default: config.json of the state directory]
    #[arg(long, value_name = "PATH")]
    pub(crate) config: Option<std::path::PathBuf>,
    /// error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// URL that is told of events
    #[arg(long, value_name = "URL")]
    pub(crate) webhook: Option<String>,
    /// Secret that signs what is posted to the webhook
    #[arg(long, value_name = "SECRET", env = "PILOT_WEBHOOK_SECRET", hide_env_values = true)]
    pub(crate) webhook_secret: Option<String>,
    /// Serve metrics to Prometheus there, such as 127.0.0.1:9465, or off
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) metrics: Option<String>,
    /// Send traces to this collector (OTLP over HTTP), such as http://127.0.0.1:4318, or off
    #[arg(long, value_name = "URL")]
    pub(crate) otlp: Option<String>,
    /// Send and accept packets in clear; for experiments only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) no_encrypt: Option<String>,
    /// `--encrypt=false` is `--no-encrypt`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    pub(crate) encrypt: Option<String>,
    /// Approve every handshake
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) trust_auto_approve: Option<String>,
    /// Silence after which a peer is probed, such as 30s
    #[arg(long, value_name = "DURATION")]
    pub(crate) keepalive: Option<String>,
    /// Silence after which a connection is given up, such as 120s
    #[arg(long, value_name = "DURATION")]
    pub(crate) idle_timeout: Option<String>,
    /// How connections find their speed: cubic takes loss for congestion, bbr measures
    #[arg(long, value_name = "cubic|bbr")]
    pub(crate) congestion: Option<String>,
    /// Largest datagram that paths are searched for, in bytes; 1222: none is
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_datagram: Option<String>,
    /// Do not ask the gateway to map a port (PCP, NAT-PMP, UPnP)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) no_port_mapping: Option<String>,
    /// Do not look for trusted peers in the same network (mDNS), and do not be found there
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) no_lan_discovery: Option<String>,
    /// Do not serve echo, port 7
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) no_echo: Option<String>,
    /// Do not serve messages and files, port 1001
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) no_dataexchange: Option<String>,
    /// Do not serve events, port 1002
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) no_eventstream: Option<String>,
    /// Do not serve tasks, port 1003
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) no_tasks: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl daemon start\n  pilotctl daemon start --hostname my-agent\n  \
    pilotctl daemon start --registry rendezvous.example.com:9000 --hostname my-agent\n\n\
    Without a registry it uses the rendezvous of this machine, and starts one if there is none."
)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) daemon: DaemonFlags,
    /// Stay in the foreground: the same as `daemon run`
    #[arg(long)]
    pub(crate) foreground: bool,
    /// How long to wait until the daemon is ready
    #[arg(long, default_value = "15s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: std::time::Duration,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl daemon stop")]
pub(crate) struct StopArgs {
    /// How long to wait until the daemon has ended
    #[arg(long, default_value = "10s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: std::time::Duration,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl daemon logs\n  pilotctl daemon logs --lines 200")]
pub(crate) struct LogsArgs {
    /// How many lines
    #[arg(long, short = 'n', default_value_t = 50, value_name = "COUNT")]
    pub(crate) lines: usize,
}

impl DaemonFlags {
    /// What was said, by the names of the settings.
    pub(crate) fn settings(&self) -> Flags {
        let negated = |flag: &Option<String>| {
            flag.as_deref().map(|value| if value == "false" { "true" } else { "false" }.to_owned())
        };
        let encrypt = negated(&self.no_encrypt).or_else(|| self.encrypt.clone());
        let port_mapping = negated(&self.no_port_mapping);
        let lan_discovery = negated(&self.no_lan_discovery);
        [
            ("registry", &self.registry),
            ("registry_tls", &self.registry_tls),
            ("registry_fingerprint", &self.registry_fingerprint),
            ("beacon", &self.beacon),
            ("beacon_web", &self.beacon_web),
            ("beacon_web_fingerprint", &self.beacon_web_fingerprint),
            ("transport", &self.transport),
            ("proxy", &self.proxy),
            ("listen", &self.listen),
            ("endpoint", &self.endpoint),
            ("identity", &self.identity),
            ("hostname", &self.hostname),
            ("email", &self.email),
            ("public", &self.public),
            ("log_level", &self.log_level),
            ("log_format", &self.log_format),
            ("webhook", &self.webhook),
            ("metrics", &self.metrics),
            ("otlp", &self.otlp),
            ("encrypt", &encrypt),
            ("trust_auto_approve", &self.trust_auto_approve),
            ("keepalive", &self.keepalive),
            ("idle_timeout", &self.idle_timeout),
            ("congestion", &self.congestion),
            ("max_datagram", &self.max_datagram),
            ("port_mapping", &port_mapping),
            ("lan_discovery", &lan_discovery),
            ("no_echo", &self.no_echo),
            ("no_dataexchange", &self.no_dataexchange),
            ("no_eventstream", &self.no_eventstream),
            ("no_tasks", &self.no_tasks),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)))
        .collect()
    }
}

/// Carries out `pilotctl daemon ...`.
pub(crate) async fn dispatch(ctx: &Context, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Run(flags) => run::run(ctx, &flags).await,
        Command::Start(args) if args.foreground => run::run(ctx, &args.daemon).await,
        Command::Start(args) => start::start(ctx, &args).await,
        Command::Stop(args) => stop::stop(ctx, args.timeout).await,
        Command::Restart(args) => start::restart(ctx, &args).await,
        Command::Status(args) => super::status::run(ctx, &args).await,
        Command::Logs(args) => logs::run(ctx, &args),
        Command::Install(args) => install::run(ctx, &args).await,
        Command::Uninstall(args) => install::undo(&args).await,
    }
}

/// A daemon that is ready: what `daemon start` and `daemon run` report.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) node_id: NodeId,
    pub(crate) address: Addr,
    pub(crate) hostname: String,
    pub(crate) pid: u32,
    pub(crate) socket: String,
    pub(crate) listen: String,
    pub(crate) registry: String,
    pub(crate) beacon: String,
    /// Whether the registry has answered yet; if not, the daemon keeps asking.
    pub(crate) registered: bool,
    pub(crate) log_file: Option<String>,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (pid {})", style::good("daemon running"), self.pid)?;
        let mut row = |name: &str, value: &str| writeln!(f, "  {name:<9} {value}");
        if self.registered || self.node_id != NodeId::UNSET {
            row("address", &self.address.to_string())?;
        }
        if !self.hostname.is_empty() {
            row("hostname", &self.hostname)?;
        }
        row(
            "registry",
            &if self.registered {
                self.registry.clone()
            } else {
                format!("{} (no answer yet, trying on)", self.registry)
            },
        )?;
        row("socket", &self.socket)?;
        if let Some(log) = &self.log_file {
            row("log", log)?;
        }
        Ok(())
    }
}
