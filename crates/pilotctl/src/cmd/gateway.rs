//! `pilotctl gateway`: peers have addresses of this machine, for programs that take nothing but an IP address.

mod address;
mod control;
mod run;
mod subnet;
mod table;

use std::time::Duration;

/// `pilotctl gateway ...`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Give peers addresses of this machine, until stopped
    Start(StartArgs),
    /// Stop the running gateway
    Stop(StopArgs),
    /// Give a peer an address
    Map(MapArgs),
    /// Take an address back
    Unmap(UnmapArgs),
    /// The addresses given
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  sudo pilotctl gateway start --ports 80,443 agent-b    (curl http://10.4.0.1/)\n  \
    pilotctl gateway start --subnet 127.4.0.0/16 --ports 8080 agent-b    (Linux: needs no root)",
    after_help = "Each connection to a port of such an address becomes a stream to the same port of the peer. Addresses \
    outside 127.0.0.0/8 are added to the loopback interface, which takes root, and removed at the end. Connections from \
    other machines are refused."
)]
pub(crate) struct StartArgs {
    /// Peers that get an address at once
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Where addresses are taken from
    #[arg(long, value_name = "NETWORK", default_value = "10.4.0.0/16")]
    pub(crate) subnet: Subnet,
    /// Ports to listen on, at each address
    #[arg(long, value_name = "PORTS", value_delimiter = ',',
        default_values_t = [80, 443, 1000, 1001, 1002, 7, 8080, 8443])]
    pub(crate) ports: Vec<u16>,
    /// So many connections at the same time; more are turned away
    #[arg(long, value_name = "COUNT", default_value_t = 4096,
        value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) limit: u16,
    /// As the articles write it: every tunnel is encrypted, with it and without
    #[arg(long, hide = true)]
    pub(crate) secure: bool,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl gateway stop")]
pub(crate) struct StopArgs {
    /// How long open connections may take to finish
    #[arg(long, default_value = "15s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl gateway map agent-b\n  pilotctl gateway map 1:0001.0002.0003 10.4.0.9"
)]
pub(crate) struct MapArgs {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// The address it gets [default: the next that is free]
    #[arg(value_name = "IP")]
    pub(crate) ip: Option<Ipv4Addr>,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl gateway unmap 10.4.0.1")]
pub(crate) struct UnmapArgs {
    /// The address
    #[arg(value_name = "IP")]
    pub(crate) ip: Ipv4Addr,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl gateway list\n  pilotctl gateway list --json | jq '.data.mappings'"
)]
pub(crate) struct ListArgs {}

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use self::control::Request;
use self::subnet::Subnet;
use self::table::Given;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::{process, style};

#[derive(Serialize, Deserialize)]
struct Mapped(Given);

impl fmt::Display for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Serialize)]
struct Unmapped {
    unmapped: Ipv4Addr,
}

impl fmt::Display for Unmapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} leads nowhere any more", self.unmapped)
    }
}

#[derive(Serialize)]
struct Listed {
    mappings: Vec<Given>,
    total: usize,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} address{}", self.total, if self.total == 1 { "" } else { "es" })?;
        self.mappings.iter().try_for_each(|given| write!(f, "\n{given}"))
    }
}

#[derive(Serialize)]
struct Stopped {
    pid: u32,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", style::good("gateway stopped"), self.pid)
    }
}

/// Carries out `pilotctl gateway ...`.
pub(crate) async fn dispatch(ctx: &Context, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Start(args) => Box::pin(run::run(ctx, args)).await,
        Command::Stop(args) => {
            let pid: u32 = control::ask(ctx, &Request::Stop).await?;
            process::wait_until_gone(pid, args.timeout).await?;
            Ok(Output::of(Stopped { pid }))
        }
        Command::Map(args) => {
            let request = Request::Map { target: args.target, ip: args.ip };
            Ok(Output::of(Mapped(control::ask(ctx, &request).await?)))
        }
        Command::Unmap(args) => {
            let unmapped = control::ask(ctx, &Request::Unmap { ip: args.ip }).await?;
            Ok(Output::of(Unmapped { unmapped }))
        }
        Command::List(ListArgs {}) => {
            let mappings: Vec<Given> = control::ask(ctx, &Request::List).await?;
            Ok(Output::of(Listed { total: mappings.len(), mappings }))
        }
    }
}
