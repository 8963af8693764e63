//! `pilotctl daemon run`: settings become the daemon's configuration, and the daemon runs here.

use pilot_daemon::{
    Config, Congestion, Fingerprint, ProxySetting, ReceivedLimits, RegistryTls, RunError, Running, Services,
    TlsMode, Transport, Web, Webhook,
};

use super::{DaemonFlags, Ready};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::local_rendezvous::Registry;
use crate::output::{self, Format, Output};
use crate::settings::{Settings, socket_address};
use crate::{local_rendezvous, logging, notify, process};

pub(super) async fn run(ctx: &Context, flags: &DaemonFlags) -> Result<Output, Failure> {
    logging::start(&ctx.settings)?;
    let registry = local_rendezvous::registry(&ctx.settings).await?;
    let config = config(&ctx.settings, &registry, flags.webhook_secret.clone())?;
    let format = ctx.format;
    let (registry_names, beacon_names) = (config.registries.join(","), config.beacons.join(","));
    let ready = move |running: Running| announce(format, running, registry_names, beacon_names);
    Box::pin(pilot_daemon::run(config, ready, process::asked_to_end()))
        .await
        .map_err(|error| failure(&error))?;
    Ok(Output::streamed())
}

/// One line (text: a few) that says the daemon is ready; `daemon start` waits for it.
fn announce(format: Format, running: Running, registry: String, beacon: String) {
    let ready = Ready {
        node_id: running.node_id,
        address: running.address,
        hostname: running.hostname,
        pid: std::process::id(),
        socket: running.socket.display().to_string(),
        listen: running.listen.to_string(),
        registry,
        beacon,
        registered: running.registered,
        log_file: None,
    };
    // Whoever started us may have gone; the daemon runs on.
    let _ = output::finish(format, Ok(Output::of(ready)));
    notify::ready();
}

pub(in crate::cmd) fn config(
    settings: &Settings,
    registry: &Registry,
    secret: Option<String>,
) -> Result<Config, Failure> {
    let mut config = Config::at(settings.home());
    config.socket = settings.socket();
    if let Some(identity) = settings.path("identity") {
        config.identity = identity;
    }
    config.registries.clone_from(&registry.registries);
    config.beacons.clone_from(&registry.beacons);
    config.registry_tls = registry_tls(settings, registry)?;
    if let Some(listen) = settings.get("listen") {
        config.listen = socket_address(listen)?;
    }
    config.web = web(settings)?;
    config.hostname = settings.get("hostname").map(str::to_owned);
    config.public = settings.get("public").map(|value| value == "true");
    config.encrypt = settings.is_on("encrypt");
    config.trust_auto_approve = settings.is_on("trust_auto_approve");
    config.keepalive = settings.duration("keepalive").unwrap_or(config.keepalive);
    config.idle_timeout = settings.duration("idle_timeout").unwrap_or(config.idle_timeout);
    if settings.get("congestion") == Some("bbr") {
        config.congestion = Congestion::Bbr;
    }
    if let Some(bytes) = settings.size("max_datagram") {
        config.max_datagram = u16::try_from(bytes).unwrap_or(u16::MAX);
    }
    config.port_mapping = settings.is_on("port_mapping");
    config.lan_discovery = settings.is_on("lan_discovery");
    config.received = ReceivedLimits {
        max_bytes: settings.size("received_max_bytes").unwrap_or(config.received.max_bytes),
        max_file: settings.size("received_max_file").unwrap_or(config.received.max_file),
        min_free: settings.size("received_min_free").unwrap_or(config.received.min_free),
    };
    config.webhook = Webhook { url: settings.get("webhook").map(str::to_owned), secret };
    config.metrics = match settings.get("metrics") {
        None | Some("off") => None,
        // Elsewhere a port alone means every interface; this is nothing to show by accident.
        Some(port) if port.starts_with(':') => Some(socket_address(&format!("127.0.0.1{port}"))?),
        Some(address) => Some(socket_address(address)?),
    };
    config.otlp = settings.get("otlp").filter(|url| *url != "off").map(str::to_owned);
    config.services = Services {
        echo: !settings.is_on("no_echo"),
        data_exchange: !settings.is_on("no_dataexchange"),
        event_stream: !settings.is_on("no_eventstream"),
        tasks: !settings.is_on("no_tasks"),
    };
    Ok(config)
}

fn registry_tls(settings: &Settings, registry: &Registry) -> Result<RegistryTls, Failure> {
    let given = settings.list("registry_fingerprint");
    let given = given.iter().map(|text| fingerprint("registry_fingerprint", text));
    Ok(RegistryTls {
        mode: match settings.get("registry_tls") {
            Some("require") => TlsMode::Require,
            Some("off") => TlsMode::Off,
            _ => TlsMode::Auto,
        },
        fingerprints: given.collect::<Result<_, _>>()?,
        remembers: !registry.own,
    })
}

fn fingerprint(setting: &str, text: &str) -> Result<Fingerprint, Failure> {
    text.parse().map_err(|error| {
        Failure::usage(format!("{setting}: {error}"))
            .hint("`pilotctl rendezvous status` on the rendezvous' machine shows it")
    })
}

fn web(settings: &Settings) -> Result<Web, Failure> {
    let fingerprint = settings.get("beacon_web_fingerprint");
    let fingerprint =
        fingerprint.map(|text| self::fingerprint("beacon_web_fingerprint", text)).transpose()?;
    Ok(Web {
        transport: match settings.get("transport") {
            Some("udp") => Transport::Udp,
            // The reference's word for it.
            Some("web" | "compat") => Transport::Web,
            _ => Transport::Auto,
        },
        url: settings.get("beacon_web").map(str::to_owned),
        fingerprint,
        proxy: proxy(settings.get("proxy").unwrap_or("auto"), &|name| std::env::var(name).ok()),
        ..Web::default()
    })
}

/// The proxy that is set, or that of the environment, as other programs understand it.
fn proxy(setting: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<ProxySetting> {
    let env =
        |names: [&str; 2]| names.into_iter().find_map(|name| env(name).filter(|value| !value.is_empty()));
    let except = env(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let url = match setting {
        "off" | "no" | "none" | "false" | "direct" => return None,
        "auto" => env(["HTTPS_PROXY", "https_proxy"])?,
        url => url.to_owned(),
    };
    // A proxy elsewhere cannot reach what is on this machine only.
    let except = if setting == "auto" { format!("{except},localhost,127.0.0.0/8,::1") } else { except };
    Some(ProxySetting { url, except })
}

fn failure(error: &RunError) -> Failure {
    let failure = Failure::new(Code::from_name(error.code()), error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_that_of_the_setting_or_else_of_the_environment() {
        let env = |name: &str| match name {
            "https_proxy" => Some("http://env:1".to_owned()),
            "HTTPS_PROXY" => Some(String::new()),
            "NO_PROXY" => Some("corp.example".to_owned()),
            _ => None,
        };
        let found = |setting: &str| proxy(setting, &env).map(|proxy| (proxy.url, proxy.except));
        let local = "corp.example,localhost,127.0.0.0/8,::1".to_owned();
        assert_eq!(found("auto"), Some(("http://env:1".to_owned(), local)));
        assert_eq!(found("http://set:2"), Some(("http://set:2".to_owned(), "corp.example".to_owned())));
        for off in ["off", "none", "direct"] {
            assert_eq!(found(off), None);
        }
        assert!(proxy("auto", &|_| None).is_none());
    }
}
