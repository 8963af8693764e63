//! `pilotctl handshake`.

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl handshake agent-b\n  pilotctl handshake agent-b \"we analyse the same data\"\n  \
    pilotctl handshake agent-b --wait=60s"
)]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Why; shown to the other side
    #[arg(value_name = "REASON")]
    pub(crate) reason: Vec<String>,
    /// Wait until the other side has decided [default when bare: 60s]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "60s",
          value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) wait: Option<std::time::Duration>,
}

use std::fmt;

use pilot_wire::NodeId;
use pilot_wire::ipc::{TrustState, TrustWait};
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::target::{self, Peer};
use crate::{duration, humane};

#[derive(Serialize)]
struct Report {
    node_id: NodeId,
    status: &'static str,
    #[serde(skip)]
    name: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status == "trusted" {
            return write!(f, "{} and this node trust each other", self.name);
        }
        writeln!(f, "handshake request sent to {}", self.name)?;
        write!(f, "its owner answers with `pilotctl approve`; see `pilotctl trust`")
    }
}

/// `pilotctl handshake`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    request(ctx, &args.target, &args.reason.join(" "), args.wait).await
}

/// Asks for trust and, if wanted, waits for the answer.
pub(crate) async fn request(
    ctx: &Context,
    target: &str,
    reason: &str,
    wait: Option<std::time::Duration>,
) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let peer = target::find(&client, target).await?;
    client.handshake(peer.node, reason).await?;
    let status = match wait {
        None => "sent",
        Some(patience) => {
            let answer = client.wait_trust(peer.node, patience).await?;
            decided(&peer, &answer, patience)?
        }
    };
    Ok(Output::of(Report { node_id: peer.node, status, name: peer.name() }))
}

fn decided(peer: &Peer, answer: &TrustWait, patience: std::time::Duration) -> Result<&'static str, Failure> {
    let name = peer.name();
    let failure = match answer.state {
        TrustState::Trusted => return Ok("trusted"),
        TrustState::Rejected | TrustState::Revoked => {
            let reason = humane::printable(&answer.reason);
            let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            Failure::new(Code::TrustRequired, format!("{name} declined{because}"))
        }
        TrustState::None | TrustState::Pending | TrustState::Requested => {
            let message = format!("{name} has not decided within {}", duration::show(patience));
            Failure::new(Code::Timeout, message).hint("the request stays; see `pilotctl trust` later")
        }
    };
    Err(failure.with_data(json!({ "node_id": peer.node, "status": answer.state })))
}
