//! `pilotctl traceroute`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl traceroute agent-b\n  pilotctl traceroute 0:0000.0000.0002 --json"
)]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// How long each step may take
    #[arg(long, default_value = "10s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

use std::fmt;

use pilot_wire::{Addr, Port};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::connect::dial;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::target;

/// Probes on the open stream.
const SAMPLES: usize = 3;

/// As the reference's.
const PROBE: &[u8] = b"tracert";

#[derive(Serialize)]
struct Report {
    target: Addr,
    setup_ms: f64,
    rtt_samples: Vec<Sample>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
}

#[derive(Serialize)]
struct Sample {
    rtt_ms: f64,
    bytes: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "to {}", self.target)?;
        if let Some(endpoint) = &self.endpoint {
            writeln!(
                f,
                "  path    {} {endpoint}",
                if self.relay == Some(true) { "relayed by" } else { "direct to" }
            )?;
        }
        writeln!(f, "  set-up  {:.3} ms", self.setup_ms)?;
        for sample in &self.rtt_samples {
            writeln!(f, "  echo    {:.3} ms  {} bytes", sample.rtt_ms, sample.bytes)?;
        }
        Ok(())
    }
}

/// `pilotctl traceroute`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let peer = target::find(&client, &args.target).await?;
    let begin = Instant::now();
    let mut stream = dial(&client, &peer, Port::ECHO, args.timeout).await?;
    let setup_ms = millis(begin);
    let broken = |e: std::io::Error| {
        Failure::new(Code::ConnectionFailed, format!("the echo of {} broke: {e}", peer.name()))
    };
    let mut rtt_samples = Vec::new();
    for _ in 0..SAMPLES {
        let begin = Instant::now();
        stream.write_all(PROBE).await.map_err(broken)?;
        let mut back = [0; PROBE.len()];
        match tokio::time::timeout(args.timeout, stream.read_exact(&mut back)).await {
            Ok(read) => read.map_err(broken)?,
            Err(_) => return Err(Failure::new(Code::Timeout, format!("no echo from {}", peer.name()))),
        };
        rtt_samples.push(Sample { rtt_ms: millis(begin), bytes: PROBE.len() });
    }
    let known = super::peers::list(&client).await?.into_iter().find(|known| known.node_id == peer.node);
    let (relay, endpoint) = known.map_or((None, None), |known| (Some(known.relay), Some(known.endpoint)));
    Ok(Output::of(Report { target: peer.addr, setup_ms, rtt_samples, relay, endpoint }))
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
