//! The same job in six ways: polling, webhook, WebSocket, MQTT, gRPC, Pilot.
//!
//! Agent A asks, agent B works and answers; then B has news for A. Both, and what has to be hosted for them, are
//! processes of their own on machines of their own: network namespaces with routers between them (`pilot-lab`).
//! `docs/six-ways.md` says what is measured and how.

mod actor;
mod chain;
mod distance;
mod document;
mod job;
mod measure;
mod relay;
mod role;
mod scene;
mod tables;
mod way;
mod ways;
mod wire;

use std::io;
use std::time::Duration;

use self::actor::find;
use self::measure::Plan;
use crate::{Failure, Options, report::Table};

/// What ends a measurement, or a process of it.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// A program of the system is not there.
    #[error("{what} is missing: `apt-get install {package}`")]
    Missing {
        /// Which.
        what: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// Namespaces cannot be made.
    #[error(
        "the machines are network namespaces, which need root: run this as root, in a container for example"
    )]
    NotRoot,
    /// Packets cannot be held.
    #[error("the kernel does not hold packets for us: {0}")]
    NoDistance(#[source] io::Error),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What was read is no message.
    #[error("not a message: {0}")]
    Json(#[from] serde_json::Error),
    /// A request could not be written.
    #[error(transparent)]
    Http(#[from] hyper::http::Error),
    /// Pilot said no.
    #[error(transparent)]
    Pilot(#[from] pilot_client::Error),
    /// A connection ended or was refused.
    #[error("{0}")]
    Lost(String),
    /// Somebody on the other side of a channel or a connection is gone.
    #[error("{0} has ended")]
    Ended(&'static str),
    /// A message did not come.
    #[error("no {kind:?} of round {round} within {patience:?}")]
    Silent {
        /// What was awaited.
        kind: job::Kind,
        /// Of which round.
        round: u32,
        /// How long.
        patience: Duration,
    },
    /// A process of the measurement failed.
    #[error("{0}")]
    Process(String),
}

impl Error {
    fn lost(error: impl std::fmt::Display) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<pilot_client::ConnectError> for Error {
    fn from(error: pilot_client::ConnectError) -> Self {
        Self::Pilot(error.into())
    }
}

/// Measures all ways.
pub(crate) fn run(options: &Options) -> Result<Vec<Table>, Failure> {
    check_machine()?;
    crate::stage::prepare()?;
    let plan = if options.quick { Plan::QUICK } else { Plan::FULL };
    Ok(measure::all(&plan)?)
}

/// A part in a process of its own.
pub(crate) fn play(part: &[String]) -> Result<(), Failure> {
    let [role] = part else { return Err(format!("no such role: {part:?}").into()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(role::play(serde_json::from_str(role)?))?)
}

/// Says at the beginning what would fail later.
fn check_machine() -> Result<(), Error> {
    for (what, package) in [("ip", "iproute2"), ("nft", "nftables"), ("iptables", "iptables")] {
        find(what).ok_or(Error::Missing { what, package })?;
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    Ok(())
}
