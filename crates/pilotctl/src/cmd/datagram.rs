//! `pilotctl listen`, `dgram` and `broadcast`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl listen 5000\n  pilotctl listen 5000 --count 1 --timeout 10s --json"
)]
pub(crate) struct ListenArgs {
    /// Port to take datagrams on
    #[arg(value_name = "PORT", default_value_t = 1000)]
    pub(crate) port: u16,
    /// End after so many; 0 goes on until it is stopped
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub(crate) count: usize,
    /// End after this time
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl dgram agent-b 5000 --data ping\n  date | pilotctl dgram agent-b 5000 --data -"
)]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Port of the peer
    #[arg(value_name = "PORT")]
    pub(crate) port: u16,
    /// What to send
    #[arg(value_name = "TEXT", conflicts_with = "data", required_unless_present = "data")]
    pub(crate) text: Option<String>,
    /// What to send; `-` is stdin
    #[arg(long, value_name = "DATA", allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl broadcast 1 \"hello all\"\n  pilotctl broadcast 1 \"hello all\" --port 5000"
)]
pub(crate) struct BroadcastArgs {
    /// Number of the network
    #[arg(value_name = "NETWORK")]
    pub(crate) network: u16,
    /// What to send
    #[arg(value_name = "TEXT")]
    pub(crate) text: String,
    /// Port of the members
    #[arg(long, default_value_t = 1000, value_name = "PORT")]
    pub(crate) port: u16,
}

use std::fmt;

use pilot_wire::{Addr, Endpoint, NetworkId, Port};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Output};
use crate::{duration, humane, input, target};

#[derive(Serialize)]
struct Received {
    messages: Vec<Datagram>,
    timeout: bool,
}

impl fmt::Display for Received {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

#[derive(Serialize)]
struct Datagram {
    src_addr: Addr,
    src_port: u16,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_b64: Option<String>,
}

impl fmt::Display for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .data
            .as_deref()
            .map_or_else(|| format!("({} bytes of binary)", self.bytes), humane::printable);
        write!(f, "{}:{} {shown}", self.src_addr, self.src_port)
    }
}

/// `pilotctl listen`
pub(crate) async fn listen(ctx: &Context, args: &ListenArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let datagrams = client.datagrams(Port(args.port))?;
    ctx.note(format!("listening for datagrams on port {}", args.port));
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    // One document at the end, unless there is no end in sight.
    let gather = ctx.format == Format::Json && (args.count > 0 || args.timeout.is_some());
    let (mut messages, mut seen) = (Vec::new(), 0);
    while args.count == 0 || seen < args.count {
        let receiving = datagrams.recv_from();
        let received = match deadline {
            None => receiving.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, receiving).await {
                Ok(received) => received,
                Err(_) if seen == 0 => return Err(nothing_came(args)),
                Err(_) if gather => return Ok(Output::of(Received { messages, timeout: true })),
                Err(_) => return Ok(Output::streamed()),
            },
        };
        let (from, bytes) = received?;
        let datagram = datagram(from, &bytes);
        seen += 1;
        if gather { messages.push(datagram) } else { output::item(ctx.format, &datagram)? }
    }
    Ok(if gather { Output::of(Received { messages, timeout: false }) } else { Output::streamed() })
}

fn nothing_came(args: &ListenArgs) -> Failure {
    let waited = duration::show(args.timeout.unwrap_or_default());
    Failure::new(Code::Timeout, format!("no datagram came to port {} within {waited}", args.port))
        .with_data(json!({ "messages": [], "timeout": true }))
}

fn datagram(from: Endpoint, bytes: &[u8]) -> Datagram {
    let (data, data_b64) = input::shown(bytes);
    Datagram { src_addr: from.addr, src_port: from.port.0, bytes: bytes.len(), data, data_b64 }
}

#[derive(Serialize)]
struct Sent {
    target: Addr,
    port: u16,
    bytes: usize,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent to {} port {}; datagrams are not acknowledged",
            humane::bytes(self.bytes as u64),
            self.target,
            self.port
        )
    }
}

/// `pilotctl dgram`
pub(crate) async fn send(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let bytes = match (&args.data, &args.text) {
        (Some(data), _) => input::data(data)?,
        (None, text) => text.clone().unwrap_or_default().into_bytes(),
    };
    let client = ctx.client().await?;
    let peer = target::find(&client, &args.target).await?;
    client.send_datagram(peer.port(Port(args.port)), &bytes).await?;
    Ok(Output::of(Sent { target: peer.addr, port: args.port, bytes: bytes.len() }))
}

#[derive(Serialize)]
struct Broadcast {
    network_id: u16,
    port: u16,
    bytes: usize,
}

impl fmt::Display for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent to the members of network {}", humane::bytes(self.bytes as u64), self.network_id)
    }
}

/// `pilotctl broadcast`
pub(crate) async fn broadcast(ctx: &Context, args: &BroadcastArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let token = std::env::var("PILOT_ADMIN_TOKEN").unwrap_or_default();
    let (network, port) = (NetworkId(args.network), Port(args.port));
    client.broadcast(network, port, &token, args.text.as_bytes()).await?;
    Ok(Output::of(Broadcast { network_id: args.network, port: args.port, bytes: args.text.len() }))
}
