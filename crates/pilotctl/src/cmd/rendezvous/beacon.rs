//! `pilotctl rendezvous beacon`: one more beacon of a rendezvous that runs somewhere else.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use pilot_daemon::Fingerprint;
use pilot_rendezvous::{BeaconConfig, BoundBeacon, RegistryTrust};
use serde::Serialize;

use super::{advertised, failure, relay_limits, web, without};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::settings::{self, Flags};
use crate::{logging, process, style};

#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:\n  \
    pilotctl rendezvous beacon --registry rendezvous.example.com:9000 --beacon-addr 0.0.0.0:9001")]
pub(crate) struct BeaconArgs {
    /// Registry that it belongs to; several addresses of one rendezvous are separated by commas
    #[arg(long, value_name = "HOST:PORT,..")]
    pub(crate) registry: Option<String>,
    /// SHA-256 of the registry's certificate, as `pilotctl rendezvous status` shows it there [default: a known authority
    /// must vouch for it, unless it is on this machine]
    #[arg(long, value_name = "HEX,..")]
    pub(crate) registry_fingerprint: Option<String>,
    /// UDP address to listen on [default: 127.0.0.1:9001]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) beacon_addr: Option<String>,
    /// Where nodes and other beacons reach it [default: where it listens, or the address it reaches the registry from]
    #[arg(long = "advertise", value_name = "HOST:PORT")]
    pub(crate) beacon_advertise: Option<String>,
    /// Number among the beacons of the registry [default: drawn at random]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) id: Option<u32>,
    /// Another address of this machine: the beacon listens there too, and nodes learn from it whether their NAT gives
    /// them another address for each of theirs
    #[arg(long, value_name = "IP")]
    pub(crate) beacon_second_ip: Option<String>,
    /// Bytes a second that it relays for all nodes together, such as 50MB [default: no limit]
    #[arg(long, value_name = "SIZE")]
    pub(crate) relay_limit: Option<String>,
    /// TCP address of the beacon over the web, for nodes that UDP does not reach, or off [default: one port above the
    /// beacon]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) web_listen: Option<String>,
    /// Its certificate, a PEM file [default: one of its own making, kept in the state directory]
    #[arg(long, value_name = "PATH", requires = "web_key")]
    pub(crate) web_cert: Option<String>,
    /// The key of the certificate, a PEM file
    #[arg(long, value_name = "PATH")]
    pub(crate) web_key: Option<String>,
    /// No TLS there: behind something that does it [default: on loopback only]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) web_plain: Option<String>,
    /// The registry's token; not needed on the registry's machine
    #[arg(long, value_name = "TOKEN", env = "PILOT_ADMIN_TOKEN", hide_env_values = true)]
    pub(crate) admin_token: Option<String>,
    /// error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
}

impl BeaconArgs {
    /// What was said, by the names of the settings.
    pub(crate) fn settings(&self) -> Flags {
        [
            ("registry", &self.registry),
            ("registry_fingerprint", &self.registry_fingerprint),
            ("beacon_addr", &self.beacon_addr),
            ("beacon_advertise", &self.beacon_advertise),
            ("beacon_second_ip", &self.beacon_second_ip),
            ("relay_limit", &self.relay_limit),
            ("web_listen", &self.web_listen),
            ("web_cert", &self.web_cert),
            ("web_key", &self.web_key),
            ("web_plain", &self.web_plain),
            ("log_level", &self.log_level),
            ("log_format", &self.log_format),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)))
        .collect()
    }
}

/// A beacon that is ready.
#[derive(Debug, Serialize)]
struct Ready {
    beacon_addr: String,
    beacon_id: u32,
    registry: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    web_addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    web_fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    web_missing: Option<String>,
    pid: u32,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (pid {})", style::good("beacon running"), self.pid)?;
        writeln!(f, "  beacon    {} (udp), number {}", self.beacon_addr, self.beacon_id)?;
        if let Some(web) = &self.web_addr {
            writeln!(f, "  web       {web}")?;
        }
        if let Some(fingerprint) = &self.web_fingerprint {
            writeln!(f, "            certificate {fingerprint}")?;
        }
        if let Some(missing) = &self.web_missing {
            writeln!(f, "  web       {}", without(missing, "--web-listen"))?;
        }
        write!(f, "  registry  {}", self.registry)
    }
}

fn registry_trust(settings: &settings::Settings) -> Result<RegistryTrust, Failure> {
    let given = settings.list("registry_fingerprint");
    let given = given.iter().map(|text| text.parse::<Fingerprint>().map(|fingerprint| fingerprint.0));
    let given = given.collect::<Result<Vec<_>, _>>();
    let given = given.map_err(|error| Failure::usage(format!("registry_fingerprint: {error}")))?;
    Ok(if given.is_empty() { RegistryTrust::Authorities } else { RegistryTrust::Fingerprints(given) })
}

pub(super) async fn run(ctx: &Context, args: BeaconArgs) -> Result<Output, Failure> {
    logging::start(&ctx.settings)?;
    let home = ctx.settings.home();
    settings::private_directory(home).map_err(|e| Failure::io(format!("making {}", home.display()), &e))?;
    let registries = ctx.settings.registries();
    if registries.is_empty() {
        return Err(Failure::usage("a beacon needs the registry that it belongs to")
            .hint("name it with --registry HOST:PORT"));
    }
    let beacon_addr = match ctx.settings.get("beacon_addr") {
        Some(address) => settings::socket_address(address)?,
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, 9001)),
    };
    let config = BeaconConfig {
        registries: registries.clone(),
        admin_token: args.admin_token.unwrap_or_default(),
        registry_trust: registry_trust(&ctx.settings)?,
        beacon_addr,
        beacon_id: args.id,
        beacon_advertise: advertised(&ctx.settings)?,
        second_beacon_ip: ctx.settings.ip("beacon_second_ip"),
        beacon: pilot_rendezvous::beacon::Config {
            relay: relay_limits(&ctx.settings),
            ..pilot_rendezvous::beacon::Config::default()
        },
        web: web(&ctx.settings, home.to_owned(), beacon_addr.ip().is_loopback())?,
    };
    let format = ctx.format;
    let ready = move |bound: BoundBeacon| {
        let ready = Ready {
            beacon_addr: bound.beacon.to_string(),
            beacon_id: bound.id,
            registry: registries.join(","),
            web_addr: bound.web.map(|web| web.addr.to_string()),
            web_fingerprint: bound
                .web
                .and_then(|web| web.fingerprint)
                .map(|sha| Fingerprint(sha).to_string()),
            web_missing: bound.web_missing.map(|missing| missing.to_string()),
            pid: std::process::id(),
        };
        let _ = output::finish(format, Ok(Output::of(ready)));
    };
    let ended = Box::pin(pilot_rendezvous::run_beacon(config, ready, process::asked_to_end())).await;
    ended.map_err(|error| failure(&error))?;
    Ok(Output::streamed())
}
