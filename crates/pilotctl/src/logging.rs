//! The log of a long-running process: to stderr, which `daemon start` points at a file.

use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::settings::Settings;

/// Starts it as `log_level` and `log_format` say.
pub(crate) fn start(settings: &Settings) -> Result<(), Failure> {
    use std::io::IsTerminal;
    let level = settings.get("log_level").unwrap_or("info");
    let filter = EnvFilter::try_new(level).map_err(|e| {
        Failure::usage(format!("`{level}` is not a log level: {e}")).hint("error, warn, info, debug or trace")
    })?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    let started = match settings.get("log_format") {
        Some("json") => builder.json().try_init(),
        _ => builder.try_init(),
    };
    started.map_err(|e| Failure::internal(format!("starting the log: {e}")))
}
