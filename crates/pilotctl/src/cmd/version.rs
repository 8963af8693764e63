//! `pilotctl version`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl version\n  pilotctl version --json")]
pub(crate) struct Args {}

use std::fmt;

use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    version: &'static str,
    /// Of the running daemon, if one runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon_version: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pilotctl {}", self.version)?;
        match &self.daemon_version {
            Some(version) if version != self.version => {
                write!(f, "\ndaemon   {version}: restart it to use this version")
            }
            Some(version) => write!(f, "\ndaemon   {version}"),
            None => Ok(()),
        }
    }
}

/// `pilotctl version`: works without a daemon.
pub(crate) async fn run(ctx: &Context) -> Result<Output, Failure> {
    let daemon_version = match ctx.client_if_running().await? {
        Some(client) => client.info().await.ok().map(|info| info.version),
        None => None,
    };
    Ok(Output::of(Report { version: env!("CARGO_PKG_VERSION"), daemon_version }))
}
