//! `pilotctl daemon run`: settings become the daemon's configuration, and the daemon runs here.

use pilot_daemon::{Config, RunError, Running, Services, Webhook};

use super::{DaemonFlags, Ready};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::local_rendezvous::Registry;
use crate::output::{self, Format, Output};
use crate::settings::{Settings, socket_address};
use crate::{local_rendezvous, logging, process};

pub(super) async fn run(ctx: &Context, flags: &DaemonFlags) -> Result<Output, Failure> {
    logging::start(&ctx.settings)?;
    let registry = local_rendezvous::registry(&ctx.settings).await?;
    let config = config(&ctx.settings, &registry, flags.webhook_secret.clone())?;
    let format = ctx.format;
    let registry_names = config.registries.join(",");
    let ready = move |running: Running| announce(format, running, registry_names, registry.beacon);
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
}

fn config(settings: &Settings, registry: &Registry, secret: Option<String>) -> Result<Config, Failure> {
    let mut config = Config::at(settings.home());
    config.socket = settings.socket();
    if let Some(identity) = settings.path("identity") {
        config.identity = identity;
    }
    config.registries.clone_from(&registry.registries);
    config.beacon = Some(registry.beacon.clone());
    if let Some(listen) = settings.get("listen") {
        config.listen = socket_address(listen)?;
    }
    config.hostname = settings.get("hostname").map(str::to_owned);
    config.public = settings.get("public").map(|value| value == "true");
    config.encrypt = settings.is_on("encrypt");
    config.trust_auto_approve = settings.is_on("trust_auto_approve");
    config.keepalive = settings.duration("keepalive").unwrap_or(config.keepalive);
    config.idle_timeout = settings.duration("idle_timeout").unwrap_or(config.idle_timeout);
    config.port_mapping = settings.is_on("port_mapping");
    config.lan_discovery = settings.is_on("lan_discovery");
    config.webhook = Webhook { url: settings.get("webhook").map(str::to_owned), secret };
    config.services = Services {
        echo: !settings.is_on("no_echo"),
        data_exchange: !settings.is_on("no_dataexchange"),
        event_stream: !settings.is_on("no_eventstream"),
    };
    Ok(config)
}

fn failure(error: &RunError) -> Failure {
    let failure = Failure::new(Code::from_name(error.code()), error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
