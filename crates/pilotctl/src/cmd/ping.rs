//! `pilotctl ping`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl ping agent-b\n  pilotctl ping agent-b --count 1 --json")]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// How many probes
    #[arg(long, short = 'c', default_value_t = 4, value_name = "COUNT")]
    pub(crate) count: u32,
    /// How long a probe may take
    #[arg(long, default_value = "2s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// Pause between probes
    #[arg(long, default_value = "0s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) interval: Duration,
}

use std::fmt;

use pilot_client::Client;
use pilot_wire::ipc::{Call, Pong};
use pilot_wire::{Addr, Port};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::connect::dial;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Output};
use crate::target::{self, Peer};

#[derive(Serialize)]
struct Report {
    target: Addr,
    results: Vec<Probe>,
    timeout: bool,
}

/// In text form each probe was printed when it came back.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times: Vec<f64> = self.results.iter().filter_map(|probe| probe.rtt_ms).collect();
        let (sent, back) = (self.results.len(), times.len());
        write!(f, "{back} of {sent} came back")?;
        if back > 1 {
            let (low, high) =
                times.iter().fold((f64::MAX, 0.0_f64), |(low, high), t| (low.min(*t), high.max(*t)));
            let mean = times.iter().sum::<f64>() / back as f64;
            write!(f, " · min {low:.2} ms, mean {mean:.2} ms, max {high:.2} ms")?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Probe {
    seq: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rtt) = self.rtt_ms else {
            return write!(f, "seq={} {}", self.seq, self.error.as_deref().unwrap_or("no answer"));
        };
        write!(f, "seq={} bytes={} time={rtt:.3} ms", self.seq, self.bytes.unwrap_or_default())?;
        let endpoint = self.endpoint.as_deref().unwrap_or_default();
        match self.relay {
            Some(true) => write!(f, "  relayed {endpoint}"),
            Some(false) => write!(f, "  direct {endpoint}"),
            None => Ok(()),
        }
    }
}

/// `pilotctl ping`: succeeds if at least one probe came back.
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let peer = target::find(&client, &args.target).await?;
    if ctx.format == Format::Text {
        ctx.note(format!("ping {} ({})", peer.name(), peer.addr));
    }
    let mut results = Vec::new();
    let mut last_failure = None;
    for seq in 0..args.count {
        if seq > 0 && !args.interval.is_zero() {
            tokio::time::sleep(args.interval).await;
        }
        let probe = match probe(&client, &peer, args.timeout).await {
            Ok(Answered { bytes, rtt, relay, endpoint }) => {
                let rtt_ms = Some(rtt.as_secs_f64() * 1e3);
                Probe { seq, bytes: Some(bytes), rtt_ms, relay, endpoint, error: None }
            }
            Err(failure) => {
                let error = Some(failure.message.clone());
                last_failure = Some(failure);
                Probe { seq, bytes: None, rtt_ms: None, relay: None, endpoint: None, error }
            }
        };
        if ctx.format == Format::Text {
            output::item(ctx.format, &probe)?;
        }
        results.push(probe);
        // A cause that another probe cannot change is reported at once.
        if last_failure.as_ref().is_some_and(|failure| hopeless(failure.code)) {
            break;
        }
    }
    let report =
        Report { target: peer.addr, timeout: results.iter().all(|probe| probe.rtt_ms.is_none()), results };
    match last_failure.filter(|_| report.timeout) {
        Some(failure) => Err(failure.with_data(json!(report))),
        None => Ok(Output::of(report)),
    }
}

fn hopeless(code: Code) -> bool {
    matches!(
        code,
        Code::NotFound
            | Code::TrustRequired
            | Code::PermissionDenied
            | Code::NotRegistered
            | Code::NotRunning
    )
}

/// A probe that came back. A daemon of the reference does not say by which way.
struct Answered {
    bytes: u16,
    rtt: Duration,
    relay: Option<bool>,
    endpoint: Option<String>,
}

async fn probe(client: &Client, peer: &Peer, timeout: Duration) -> Result<Answered, Failure> {
    /// As long as the reference's, so that figures compare.
    const SIZE: u16 = 8;
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let pong = client.call::<Pong>(Call::Ping { node: peer.node, size: SIZE, timeout_ms }).await;
    match pong.map_err(Failure::from) {
        Ok(pong) => Ok(Answered {
            bytes: SIZE,
            rtt: Duration::from_micros(pong.rtt_us),
            relay: Some(pong.relay),
            endpoint: Some(pong.endpoint).filter(|endpoint| !endpoint.is_empty()),
        }),
        // A daemon of the reference has no such call: its own pilotctl opens a stream to the echo port, too.
        Err(failure) if failure.code == Code::Unsupported => {
            let rtt = echo(client, peer, SIZE.into(), timeout).await?;
            Ok(Answered { bytes: SIZE, rtt, relay: None, endpoint: None })
        }
        Err(failure) => Err(failure),
    }
}

/// One round trip through the echo service, with the opening of the stream.
pub(crate) async fn echo(
    client: &Client,
    peer: &Peer,
    size: usize,
    timeout: Duration,
) -> Result<Duration, Failure> {
    let begin = Instant::now();
    let mut stream = dial(client, peer, Port::ECHO, timeout).await?;
    let broken = |e: std::io::Error| {
        Failure::new(Code::ConnectionFailed, format!("the echo of {} broke: {e}", peer.name()))
    };
    stream.write_all(&vec![b'p'; size]).await.map_err(broken)?;
    let mut back = vec![0; size];
    match tokio::time::timeout(timeout, stream.read_exact(&mut back)).await {
        Ok(read) => read.map(|_| begin.elapsed()).map_err(broken),
        Err(_) => Err(Failure::new(Code::Timeout, format!("no echo from {}", peer.name()))),
    }
}
