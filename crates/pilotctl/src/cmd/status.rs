//! `pilotctl status`, which is also `pilotctl daemon status`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl status\n  pilotctl daemon status --check && echo up\n  \
    pilotctl status --clear-alarms")]
pub(crate) struct Args {
    /// Print nothing; only the exit status tells
    #[arg(long)]
    pub(crate) check: bool,
    /// Forget the alarms: they have been read
    #[arg(long, conflicts_with = "check")]
    pub(crate) clear_alarms: bool,
    /// Believe the keys with which registries sign from now on, though they signed with others before
    #[arg(long, conflicts_with = "check")]
    pub(crate) accept_registry_key: bool,
}

use std::fmt;
use std::time::Duration;

use pilot_wire::ipc::{Alarm, Call, Done, Info, RegistryTls, Status, WebLink};
use pilot_wire::{Addr, NodeId};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{duration, humane, style};

#[derive(Serialize, Default)]
struct Report {
    running: bool,
    responsive: bool,
    socket: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(flatten)]
    node: Option<Node>,
}

#[derive(Serialize)]
struct Node {
    node_id: NodeId,
    address: Addr,
    hostname: String,
    uptime_secs: u64,
    peers: u64,
    connections: u64,
    registered: bool,
    /// Which registry the node is at, or tries.
    #[serde(skip_serializing_if = "String::is_empty")]
    registry: String,
    /// Why the node is not registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_error: Option<String>,
    /// What protects the connection to the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_tls: Option<RegistryTls>,
    /// How the beacon is reached.
    transport: String,
    /// The way to it over the web, while that is used or tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    web: Option<WebLink>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beacon_answers: Option<bool>,
    /// Why the owner's rules cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_broken: Option<String>,
    /// Says so if the key of this node ends within a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_expiry: Option<String>,
    /// Where Prometheus reads the metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<String>,
    /// What was said and is not believed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alarms: Vec<Alarm>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(node) = &self.node else {
            writeln!(f, "{} (tried {})", style::strong("daemon not running"), self.socket)?;
            return write!(f, "start it with `pilotctl daemon start`");
        };
        let pid = self.pid.map_or_else(String::new, |pid| format!(" · pid {pid}"));
        let up = duration::show(Duration::from_secs(node.uptime_secs));
        writeln!(f, "{} {}{pid} · up {up}", style::good("●"), style::strong("daemon running"))?;
        let web = match &node.web {
            Some(web) if web.connected => " · over the web",
            Some(_) => " · beacon not reached",
            None => "",
        };
        let registered = if node.registered { "" } else { " · not registered yet" };
        let name = if node.hostname.is_empty() { String::new() } else { format!(" · {}", node.hostname) };
        let (peers, streams) = (humane::count(node.peers, "peer"), humane::count(node.connections, "stream"));
        write!(f, "  {}{name}{registered}{web} · {peers} · {streams}", node.address)?;
        if node.registry_tls.as_ref().is_some_and(|tls| !tls.used) {
            write!(f, "\n  registry {}: plaintext, not protected", node.registry)?;
        }
        if let Some(error) = node.web.as_ref().and_then(|web| web.error.as_ref()) {
            write!(f, "\n  {}: {error}", style::bad("the beacon over the web"))?;
        }
        if let Some(error) = node.registry_error.as_ref().filter(|_| !node.registered) {
            write!(f, "\n  {} {}: {}", style::bad("the registry"), node.registry, humane::printable(error))?;
        }
        if let Some(warning) = &node.key_expiry {
            write!(
                f,
                "\n  {}: replace it with `pilotctl rotate-key`",
                style::bad(humane::printable(warning))
            )?;
        }
        if node.policy_broken.is_some() {
            let closed = style::bad("nothing is allowed to other nodes");
            write!(f, "\n  {closed}: the rules cannot be used, see `pilotctl policy`")?;
        }
        if node.beacon_answers == Some(false) && node.transport != "web" {
            write!(f, "\n  the beacon does not answer: see `pilotctl netcheck`")?;
        }
        for alarm in &node.alarms {
            let times = if alarm.times > 1 { format!(", {} times", alarm.times) } else { String::new() };
            let said = humane::ago(alarm.last);
            write!(f, "\n  {}: {} · {said}{times}", style::bad("alarm"), alarm.text)?;
        }
        if node.alarms.iter().any(|alarm| alarm.kind == "registry_key") {
            write!(f, "\n  if its operator says so: `pilotctl status --accept-registry-key --clear-alarms`")?;
        } else if !node.alarms.is_empty() {
            write!(f, "\n  read them? `pilotctl status --clear-alarms`")?;
        }
        Ok(())
    }
}

/// `pilotctl status`: a daemon that is down is an answer, told apart by the exit status.
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let socket = ctx.settings.socket().display().to_string();
    let Some(client) = ctx.client_if_running().await? else {
        let output =
            if args.check { Output::streamed() } else { Output::of(Report { socket, ..Report::default() }) };
        return Ok(output.exiting_as(Code::NotRunning));
    };
    if args.check {
        return Ok(Output::streamed());
    }
    if args.clear_alarms || args.accept_registry_key {
        let clear = Call::ClearAlarms { registry_keys: args.accept_registry_key };
        client.call::<Done>(clear).await?;
    }
    let (pid, node) = match client.call::<Status>(Call::Status).await.map_err(Failure::from) {
        Ok(status) => (Some(status.pid), of_status(status)),
        Err(failure) if failure.code == Code::Unsupported => (None, of_info(client.info().await?)),
        Err(failure) => return Err(failure),
    };
    Ok(Output::of(Report { running: true, responsive: true, socket, pid, node: Some(node) }))
}

fn of_status(status: Status) -> Node {
    Node {
        registered: status.node_id != NodeId::UNSET && status.registry.connected,
        registry: status.registry.address,
        registry_error: status.registry.error,
        registry_tls: status.registry.tls,
        node_id: status.node_id,
        address: status.address,
        hostname: status.hostname,
        uptime_secs: status.uptime_secs,
        peers: status.peers,
        connections: status.connections,
        transport: status.transport,
        web: status.web,
        beacon_answers: status.beacon_answers,
        policy_broken: status.policy_broken,
        key_expiry: status.key_expiry,
        metrics: status.metrics,
        alarms: status.alarms,
    }
}

fn of_info(info: Info) -> Node {
    Node {
        registered: info.node_id != NodeId::UNSET,
        registry: String::new(),
        registry_error: None,
        registry_tls: None,
        node_id: info.node_id,
        address: info.address,
        hostname: info.hostname,
        uptime_secs: info.uptime_secs,
        peers: info.peers,
        connections: info.connections,
        transport: info.transport,
        web: None,
        beacon_answers: None,
        policy_broken: None,
        key_expiry: None,
        metrics: None,
        alarms: Vec::new(),
    }
}
