//! `pilotctl rendezvous run|start|stop|status|backup|restore|import|beacon`.

mod records;
mod status;

pub(crate) use records::{ImportArgs, RestoreArgs};

pub(crate) mod beacon;

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pilot_daemon::Fingerprint;
use pilot_rendezvous::beacon::RelayLimits;
use pilot_rendezvous::store::{StoreError, StoreUrl};
use pilot_rendezvous::{
    CertificateSource, Http, HttpListen, RegistryTls, RunError, Web, WebLimits, WebListen, WebTls,
};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use crate::process::{self, Ending};
use crate::settings::{self, Flags, Settings};
use crate::{local_rendezvous, logging, notify, style};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run registry and beacon in the foreground until told to stop
    Run(RunArgs),
    /// Start them in the background and wait until they are ready
    #[command(before_help = "Examples:\n  pilotctl rendezvous start\n  \
        pilotctl rendezvous start --registry-addr 0.0.0.0:9000 --beacon-addr 0.0.0.0:9001")]
    Start(RunArgs),
    /// Stop the rendezvous that `start` began
    Stop(StopArgs),
    /// Whether a rendezvous answers
    Status(StatusArgs),
    /// Copy the records of the running rendezvous into a file
    Backup(records::BackupArgs),
    /// Fill an empty store from such a copy
    Restore(RestoreArgs),
    /// Fill an empty store from a snapshot of the reference's rendezvous
    Import(ImportArgs),
    /// Run another beacon of a rendezvous, in the foreground until told to stop
    Beacon(beacon::BeaconArgs),
}

#[derive(Debug, Clone, Default, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl rendezvous run\n  \
    pilotctl rendezvous run --registry-addr 0.0.0.0:9000 --beacon-addr 0.0.0.0:9001 --store /var/lib/pilot/rendezvous.redb\n  \
    PGPASSWORD=... pilotctl rendezvous run --store postgres://pilot@db.example.com/pilot")]
pub(crate) struct RunArgs {
    /// TCP address of the registry [default: 127.0.0.1:9000]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) registry_addr: Option<String>,
    /// UDP address of the beacon [default: 127.0.0.1:9001]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) beacon_addr: Option<String>,
    /// Another address of this machine: the beacon listens there too, and nodes learn from it whether their NAT gives
    /// them another address for each of theirs [default: none, and nodes do not tell the two kinds apart]
    #[arg(long, value_name = "IP")]
    pub(crate) beacon_second_ip: Option<String>,
    /// Where nodes and other beacons reach the beacon, if that is not where it listens
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) beacon_advertise: Option<String>,
    /// Bytes a second that the beacon relays for all nodes together, such as 50MB; who is over its share is held back
    /// first [default: no limit]
    #[arg(long, value_name = "SIZE")]
    pub(crate) relay_limit: Option<String>,
    /// Everything the registry has acknowledged: a file, or a PostgreSQL database for several rendezvous at once
    /// (postgres://user@host/database; its password in PGPASSWORD or ~/.pgpass, or the whole in PILOT_STORE)
    /// [default: rendezvous.redb of the state directory]
    #[arg(long, value_name = "PATH|URL")]
    pub(crate) store: Option<String>,
    /// The registry's certificate, a PEM file [default: one of its own making, kept beside the store]
    #[arg(long, value_name = "PATH", requires = "tls_key")]
    pub(crate) tls_cert: Option<String>,
    /// The key of the certificate, a PEM file
    #[arg(long, value_name = "PATH")]
    pub(crate) tls_key: Option<String>,
    /// off: the registry serves nobody without TLS; nodes of 1.18.0 need `-registry-tls` then [default: on]
    #[arg(long, value_name = "BOOL")]
    pub(crate) plaintext: Option<String>,
    /// TCP address of the beacon over the web, for nodes that UDP does not reach, or off; nodes look at port 443 and
    /// one port above the beacon [default: one port above the beacon]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) web_listen: Option<String>,
    /// Its certificate, a PEM file [default: one of its own making, kept beside the store]
    #[arg(long, value_name = "PATH", requires = "web_key")]
    pub(crate) web_cert: Option<String>,
    /// The key of the certificate, a PEM file
    #[arg(long, value_name = "PATH")]
    pub(crate) web_key: Option<String>,
    /// No TLS there: behind something that does it [default: on loopback only]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) web_plain: Option<String>,
    /// TCP address of the pages (dashboard, /metrics, /healthz, /readyz), or off
    /// [default: three ports above the registry, on 127.0.0.1]
    #[arg(long, visible_alias = "http", value_name = "HOST:PORT")]
    pub(crate) http_listen: Option<String>,
    /// Whoever has it sees on the pages what else only this machine sees [default: nobody else]
    #[arg(long, value_name = "TOKEN", env = "PILOT_DASHBOARD_TOKEN", hide_env_values = true)]
    pub(crate) http_token: Option<String>,
    /// Whoever has it may create and change networks [default: nobody may]
    #[arg(long, value_name = "TOKEN", env = "PILOT_ADMIN_TOKEN", hide_env_values = true)]
    pub(crate) admin_token: Option<String>,
    /// error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl rendezvous stop")]
pub(crate) struct StopArgs {
    /// How long to wait until it has ended
    #[arg(long, default_value = "10s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl rendezvous status\n  \
    pilotctl rendezvous status --registry-addr rendezvous.example.com:9000")]
pub(crate) struct StatusArgs {
    /// TCP address of the registry [default: 127.0.0.1:9000]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) registry_addr: Option<String>,
}

impl RunArgs {
    /// What was said, by the names of the settings.
    pub(crate) fn settings(&self) -> Flags {
        [
            ("registry_addr", &self.registry_addr),
            ("beacon_addr", &self.beacon_addr),
            ("beacon_second_ip", &self.beacon_second_ip),
            ("beacon_advertise", &self.beacon_advertise),
            ("relay_limit", &self.relay_limit),
            ("store", &self.store),
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
            ("plaintext", &self.plaintext),
            ("web_listen", &self.web_listen),
            ("web_cert", &self.web_cert),
            ("web_key", &self.web_key),
            ("web_plain", &self.web_plain),
            ("http_listen", &self.http_listen),
            ("log_level", &self.log_level),
            ("log_format", &self.log_format),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)))
        .collect()
    }
}

/// A rendezvous that is ready. The addresses are the real ones, also when port 0 was asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) registry_addr: String,
    /// SHA-256 of the certificate that the registry shows over TLS.
    #[serde(default)]
    pub(crate) registry_fingerprint: String,
    /// Whether it serves nodes without TLS.
    #[serde(default)]
    pub(crate) plaintext: bool,
    pub(crate) beacon_addr: String,
    /// The beacon over the web.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) web_addr: Option<String>,
    /// SHA-256 of its certificate; none without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) web_fingerprint: Option<String>,
    /// Where that was to be, and why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) web_missing: Option<String>,
    /// The pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http_addr: Option<String>,
    /// Where they were to be, and why they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http_missing: Option<String>,
    pub(crate) store: String,
    pub(crate) pid: u32,
    #[serde(default)]
    pub(crate) log_file: Option<String>,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (pid {})", style::good("rendezvous running"), self.pid)?;
        let plain = if self.plaintext { "tcp, with TLS or without" } else { "tcp, TLS only" };
        writeln!(f, "  registry  {} ({plain})", self.registry_addr)?;
        writeln!(f, "            certificate {}", self.registry_fingerprint)?;
        writeln!(f, "  beacon    {} (udp)", self.beacon_addr)?;
        if let Some(web) = &self.web_addr {
            let tls = if self.web_fingerprint.is_some() { "wss" } else { "ws, without TLS" };
            writeln!(f, "  web       {web} ({tls})")?;
        }
        if let Some(fingerprint) = &self.web_fingerprint {
            writeln!(f, "            certificate {fingerprint}")?;
        }
        if let Some(missing) = &self.web_missing {
            writeln!(f, "  web       {}", without(missing, "--web-listen"))?;
        }
        if let Some(http) = &self.http_addr {
            writeln!(f, "  pages     http://{http}/")?;
        }
        if let Some(missing) = &self.http_missing {
            writeln!(f, "  pages     {}", without(missing, "--http-listen"))?;
        }
        writeln!(f, "  store     {}", self.store)?;
        if let Some(log) = &self.log_file {
            writeln!(f, "  log       {log}")?;
        }
        write!(
            f,
            "join it with: pilotctl daemon start --registry {} --beacon {}",
            self.registry_addr, self.beacon_addr
        )
    }
}

/// What stands in the place of an address that is missing.
fn without(missing: &str, flag: &str) -> String {
    format!("{} ({missing}); `{flag}` sets where", style::strong("none"))
}

/// Carries out `pilotctl rendezvous ...`.
pub(crate) async fn dispatch(ctx: &Context, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Run(args) => Box::pin(run(ctx, args.admin_token, args.http_token)).await,
        Command::Start(args) => start(ctx, &args).await,
        Command::Stop(args) => stop(ctx, args.timeout).await,
        Command::Status(args) => status::status(ctx, &args).await,
        Command::Backup(args) => {
            let http = recorded(ctx).and_then(|ready| ready.http_addr);
            records::backup(ctx, &args, http.as_deref()).await
        }
        Command::Restore(args) => records::restore(ctx, &args).await,
        Command::Import(args) => records::import(ctx, &args).await,
        Command::Beacon(args) => beacon::run(ctx, args).await,
    }
}

async fn run(
    ctx: &Context,
    admin_token: Option<String>,
    http_token: Option<String>,
) -> Result<Output, Failure> {
    logging::start(&ctx.settings)?;
    let store = store(&ctx.settings)?;
    let folder = folder(&ctx.settings, &store);
    settings::private_directory(&folder)
        .map_err(|e| Failure::io(format!("making {}", folder.display()), &e))?;
    let mut config = pilot_rendezvous::Config::new(store.clone());
    if let Some(address) = ctx.settings.get("registry_addr") {
        config.registry_addr = settings::socket_address(address)?;
    }
    if let Some(address) = ctx.settings.get("beacon_addr") {
        config.beacon_addr = settings::socket_address(address)?;
    }
    config.second_beacon_ip = ctx.settings.ip("beacon_second_ip");
    config.beacon_advertise = advertised(&ctx.settings)?;
    config.beacon.relay = relay_limits(&ctx.settings);
    config.registry_tls = registry_tls(&ctx.settings, folder.clone())?;
    config.web = web(&ctx.settings, folder, config.beacon_addr.ip().is_loopback())?;
    config.registry.admin_token = admin_token.filter(|token| !token.is_empty());
    config.http = http(ctx, http_token)?;
    let control = config.http.as_ref().and_then(|http| http.control.clone()).unwrap_or_default();
    let (format, pid_file, control_file) = (ctx.format, pid_file(ctx), control_file(ctx));
    let ready = move |bound: pilot_rendezvous::Bound| {
        let ready = Ready {
            registry_addr: bound.registry.to_string(),
            registry_fingerprint: Fingerprint(bound.registry_fingerprint).to_string(),
            plaintext: bound.plaintext,
            beacon_addr: bound.beacon.to_string(),
            web_addr: bound.web.map(|web| web.addr.to_string()),
            web_fingerprint: bound
                .web
                .and_then(|web| web.fingerprint)
                .map(|sha| Fingerprint(sha).to_string()),
            web_missing: bound.web_missing.map(|missing| missing.to_string()),
            http_addr: bound.http.map(|http| http.to_string()),
            http_missing: bound.http_missing.map(|missing| missing.to_string()),
            store: store.to_string(),
            pid: std::process::id(),
            log_file: None,
        };
        // For `stop` and `status`; a rendezvous that cannot write it still serves.
        drop(serde_json::to_vec(&ready).map(|json| settings::write_private(&pid_file, &json)));
        drop(settings::write_private(&control_file, control.as_bytes()));
        let _ = output::finish(format, Ok(Output::of(ready)));
        notify::ready();
    };
    let ended = Box::pin(pilot_rendezvous::run(config, ready, process::asked_to_end())).await;
    ended.map_err(|error| failure(&error))?;
    drop(std::fs::remove_file(self::pid_file(ctx)));
    drop(std::fs::remove_file(self::control_file(ctx)));
    Ok(Output::streamed())
}

fn registry_tls(settings: &Settings, folder: PathBuf) -> Result<RegistryTls, Failure> {
    let own = CertificateSource::Own { folder };
    let certificate = given_certificate(settings, "tls")?.unwrap_or(own);
    Ok(RegistryTls { certificate, plaintext: settings.is_on("plaintext") })
}

/// The certificate of the settings `<prefix>_cert` and `<prefix>_key`, if they are set.
fn given_certificate(settings: &Settings, prefix: &str) -> Result<Option<CertificateSource>, Failure> {
    match (settings.path(&format!("{prefix}_cert")), settings.path(&format!("{prefix}_key"))) {
        (Some(certificate), Some(key)) => Ok(Some(CertificateSource::Files { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => {
            Err(Failure::usage("a certificate needs its key, and a key its certificate")
                .hint(format!("give both --{prefix}-cert and --{prefix}-key")))
        }
    }
}

fn store(settings: &Settings) -> Result<StoreUrl, Failure> {
    match settings.get("store") {
        Some(text) => text.parse().map_err(|error| Failure::usage(format!("store: {error}"))),
        None => Ok(settings.home().join("rendezvous.redb").into()),
    }
}

/// Where files of the rendezvous are kept: beside its store.
fn folder(settings: &Settings, store: &StoreUrl) -> PathBuf {
    let beside = store.file().map(|path| path.parent().unwrap_or(Path::new(".")));
    beside.unwrap_or(settings.home()).to_owned()
}

fn advertised(settings: &Settings) -> Result<Option<SocketAddr>, Failure> {
    settings.get("beacon_advertise").map(settings::socket_address).transpose()
}

fn relay_limits(settings: &Settings) -> RelayLimits {
    let limits = RelayLimits::default();
    match settings.size("relay_limit") {
        Some(bytes) => limits.with_total(u32::try_from(bytes).unwrap_or(u32::MAX)),
        None => limits,
    }
}

/// The beacon over the web: beside the beacon unless something else is said; without TLS on loopback.
fn web(settings: &Settings, folder: PathBuf, beacon_is_here: bool) -> Result<Option<Web>, Failure> {
    let listen = match settings.get("web_listen") {
        Some("off") => return Ok(None),
        Some(address) => WebListen::At(settings::socket_address(address)?),
        None => WebListen::Beside,
    };
    let is_here = match listen {
        WebListen::At(address) => address.ip().is_loopback(),
        WebListen::Beside => beacon_is_here,
    };
    let tls = match given_certificate(settings, "web")? {
        Some(given) => WebTls::On(given),
        None if settings.get("web_plain").map_or(is_here, |plain| plain == "true") => WebTls::Off,
        None => WebTls::On(CertificateSource::Own { folder }),
    };
    Ok(Some(Web { listen, tls, limits: WebLimits::default() }))
}

/// The pages: on loopback unless something else is said. Whoever can read the state directory gets the records.
fn http(ctx: &Context, token: Option<String>) -> Result<Option<Http>, Failure> {
    let listen = match ctx.settings.get("http_listen") {
        Some("off") => return Ok(None),
        Some(address) => HttpListen::At(settings::socket_address(address)?),
        None => HttpListen::Beside,
    };
    let control = Http::random_token().map_err(|error| Failure::internal(error.to_string()))?;
    let token = token.filter(|token| !token.is_empty());
    Ok(Some(Http { listen, token, control: Some(control), ..Http::beside() }))
}

/// What `backup` shows, so that it is known to be ours.
fn control_file(ctx: &Context) -> PathBuf {
    ctx.settings.home().join("rendezvous.control")
}

fn failure(error: &RunError) -> Failure {
    let message = error.to_string();
    match error {
        RunError::Bind { source, .. } if source.kind() == ErrorKind::AddrInUse => taken(message),
        RunError::Bind { .. } => {
            Failure::internal(message).hint("choose another address with --registry-addr and --beacon-addr")
        }
        RunError::Store(error) => store_failure(error, message),
        RunError::Refused { .. } => hinted(Failure::new(Code::PermissionDenied, message), error.hint()),
        RunError::Certificate { .. } => hinted(Failure::new(Code::InvalidArgument, message), error.hint()),
        RunError::Restore { .. } | RunError::Failed(_) => Failure::internal(message),
    }
}

fn store_failure(error: &StoreError, message: String) -> Failure {
    let failure = match error {
        StoreError::Locked { .. } => return taken(message),
        StoreError::Unreachable { .. } => Failure::new(Code::ConnectionFailed, message),
        StoreError::Open { .. }
        | StoreError::Damaged { .. }
        | StoreError::Format { .. }
        | StoreError::Denied { .. }
        | StoreError::NoDatabase { .. }
        | StoreError::Forbidden { .. }
        | StoreError::Failed(_) => Failure::internal(message),
    };
    hinted(failure, error.hint())
}

fn hinted(failure: Failure, hint: Option<impl Into<String>>) -> Failure {
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn taken(message: String) -> Failure {
    Failure::new(Code::AlreadyExists, message)
        .hint("another rendezvous may run already: pilotctl rendezvous status")
}

fn pid_file(ctx: &Context) -> PathBuf {
    ctx.settings.home().join("rendezvous.pid")
}

fn recorded(ctx: &Context) -> Option<Ready> {
    let ready: Ready = serde_json::from_slice(&std::fs::read(pid_file(ctx)).ok()?).ok()?;
    process::is_running(ready.pid).then_some(ready)
}

async fn start(ctx: &Context, args: &RunArgs) -> Result<Output, Failure> {
    if let Some(ready) = recorded(ctx) {
        let message =
            format!("a rendezvous is running already: registry {} (pid {})", ready.registry_addr, ready.pid);
        return Err(Failure::new(Code::AlreadyExists, message)
            .hint("`pilotctl rendezvous stop` ends it; another one needs its own PILOT_HOME"));
    }
    let mut words: Vec<String> = ["rendezvous", "run", "--json"].map(str::to_owned).into();
    let mut flags = args.settings();
    // It may hold a password.
    let store = flags.remove("store").map(|store| ("PILOT_STORE", store));
    words.extend(flags.iter().map(|(name, value)| format!("--{}={value}", name.replace('_', "-"))));
    let log = local_rendezvous::log_path(&ctx.settings);
    let token = args.admin_token.clone().map(|token| ("PILOT_ADMIN_TOKEN", token));
    let dashboard = args.http_token.clone().map(|token| ("PILOT_DASHBOARD_TOKEN", token));
    let secrets: Vec<_> = [store, token, dashboard].into_iter().flatten().collect();
    let secrets: Vec<_> = secrets.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let data = process::start("rendezvous", &words, &secrets, &log, Duration::from_secs(15)).await?;
    let mut ready: Ready = serde_json::from_value(data)
        .map_err(|e| Failure::internal(format!("the rendezvous' report is not understood: {e}")))?;
    ready.log_file = Some(log.display().to_string());
    Ok(Output::of(ready))
}

#[derive(Serialize)]
struct Stopped {
    pid: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    forced: bool,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rendezvous stopped (pid {})", self.pid)
    }
}

async fn stop(ctx: &Context, timeout: Duration) -> Result<Output, Failure> {
    let ready = recorded(ctx).ok_or_else(|| {
        Failure::new(Code::NotRunning, format!("no rendezvous runs for {}", ctx.settings.home().display()))
            .hint("one in the foreground is ended with Ctrl-C")
    })?;
    let forced = process::stop(ready.pid, timeout).await? == Ending::Forced;
    Ok(Output::of(Stopped { pid: ready.pid, forced }))
}
