//! `pilotctl daemon start` and `restart`: the daemon in the background, reported when it is ready.

use super::{Ready, StartArgs, stop};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{local_rendezvous, process};

pub(super) async fn start(ctx: &Context, args: &StartArgs) -> Result<Output, Failure> {
    if let Some(client) = ctx.client_if_running().await? {
        let info = client.info().await?;
        let socket = ctx.settings.socket();
        let message = format!("a daemon is running already: {} on {}", info.address, socket.display());
        return Err(Failure::new(Code::AlreadyExists, message).hint(
            "`pilotctl daemon restart` replaces it; another one needs its own --socket and PILOT_HOME",
        ));
    }
    // Started from here and not from the daemon, so that it outlives the daemon.
    let registry = local_rendezvous::registry(&ctx.settings).await?;
    if let Some(started) = &registry.started {
        ctx.note(format!("started the rendezvous of this machine: registry {started}"));
    }
    let log = ctx.settings.home().join("pilot.log");
    let secret = args.daemon.webhook_secret.as_deref();
    let secrets: Vec<_> = secret.into_iter().map(|secret| ("PILOT_WEBHOOK_SECRET", secret)).collect();
    let data = process::start("daemon", &arguments(ctx, args), &secrets, &log, args.timeout).await?;
    let mut ready: Ready = serde_json::from_value(data)
        .map_err(|e| Failure::internal(format!("the daemon's report is not understood: {e}")))?;
    ready.log_file = Some(log.display().to_string());
    Ok(Output::of(ready))
}

/// The same settings, said in full: the process in the background reads the same file and environment, and is
/// told again what was said on the command line.
fn arguments(ctx: &Context, args: &StartArgs) -> Vec<String> {
    let mut words: Vec<String> = ["daemon", "run", "--json"].map(str::to_owned).into();
    for (name, value) in args.daemon.settings() {
        words.push(format!("--{}={value}", name.replace('_', "-")));
    }
    if let Some(config) = &args.daemon.config {
        words.push(format!("--config={}", config.display()));
    }
    if let Some(socket) = ctx.socket_flag() {
        words.push(format!("--socket={}", socket.display()));
    }
    words
}

pub(super) async fn restart(ctx: &Context, args: &StartArgs) -> Result<Output, Failure> {
    match stop::stop(ctx, std::time::Duration::from_secs(10)).await {
        Ok(_) => {}
        Err(failure) if failure.code == Code::NotRunning => {}
        Err(failure) => return Err(failure),
    }
    start(ctx, args).await
}
