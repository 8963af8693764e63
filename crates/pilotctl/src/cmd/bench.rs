//! `pilotctl bench`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl bench agent-b\n  pilotctl bench agent-b 100         100 MB\n  pilotctl bench agent-b --duration 10s"
)]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// How much, in MB of 2^20 bytes
    #[arg(value_name = "MB", default_value_t = 1.0)]
    pub(crate) megabytes: f64,
    /// Send for this long instead of a fixed amount
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) duration: Option<Duration>,
    /// How long the peer may be silent
    #[arg(long, default_value = "30s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

use std::fmt;

use pilot_wire::{Addr, Port};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::connect::dial;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{duration, humane, progress, target};

/// Bytes per write.
const CHUNK: usize = 64 << 10;

#[derive(Serialize)]
struct Report {
    target: Addr,
    sent_bytes: u64,
    recv_bytes: u64,
    send_duration_ms: f64,
    total_duration_ms: f64,
    /// Megabytes per second (10^6), under the reference's name.
    send_mbps: f64,
    total_mbps: f64,
    send_mbit_per_s: f64,
    total_mbit_per_s: f64,
    rtt_ms: f64,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<bool>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |ms: f64| duration::show(Duration::from_secs_f64(ms / 1e3));
        let path = match self.relay {
            Some(true) => " · relayed",
            Some(false) => " · direct",
            None => "",
        };
        writeln!(f, "echo through {}{path} · first byte back after {:.2} ms", self.target, self.rtt_ms)?;
        writeln!(
            f,
            "  sent    {} in {} · {:.1} MB/s",
            humane::bytes(self.sent_bytes),
            span(self.send_duration_ms),
            self.send_mbps
        )?;
        write!(
            f,
            "  echoed  {} in {} · {:.1} MB/s, every byte compared",
            humane::bytes(self.recv_bytes),
            span(self.total_duration_ms),
            self.total_mbps
        )
    }
}

/// `pilotctl bench`: out and back through the peer's echo service, each byte compared with what was sent.
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    if !args.megabytes.is_finite() || args.megabytes <= 0.0 {
        return Err(Failure::usage("the amount must be more than 0 MB"));
    }
    let client = ctx.client().await?;
    let peer = target::find(&client, &args.target).await?;
    let stream = dial(&client, &peer, Port::ECHO, args.timeout).await?;
    let amount = match args.duration {
        Some(_) => u64::MAX,
        None => (args.megabytes * f64::from(1 << 20)) as u64,
    };
    let bar = progress::bytes(ctx.format, amount);
    let (mut reader, mut writer) = stream.into_split();
    let begin = Instant::now();
    let sending = async {
        let mut sent = 0;
        while sent < amount && args.duration.is_none_or(|limit| begin.elapsed() < limit) {
            let count = (amount - sent).min(CHUNK as u64);
            writer.write_all(&pattern(sent, usize::try_from(count).unwrap_or(CHUNK))).await?;
            sent += count;
        }
        writer.shutdown().await?;
        Ok::<_, std::io::Error>((sent, begin.elapsed()))
    };
    let receiving = async {
        let mut buffer = vec![0; CHUNK];
        let (mut received, mut first) = (0, None);
        loop {
            let count = match tokio::time::timeout(args.timeout, reader.read(&mut buffer)).await {
                Ok(read) => read?,
                Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
            };
            first.get_or_insert_with(|| begin.elapsed());
            if buffer[..count] != pattern(received, count)[..] {
                return Err(std::io::Error::other(format!("wrong bytes came back after {received}")));
            }
            received += count as u64;
            bar.set_position(received);
            if count == 0 || received == amount {
                return Ok((received, begin.elapsed(), first.unwrap_or_default()));
            }
        }
    };
    let done = tokio::try_join!(sending, receiving);
    bar.finish_and_clear();
    let ((sent, send_time), (received, total_time, first)) = done.map_err(|e| {
        if e.kind() == std::io::ErrorKind::TimedOut {
            let silence = duration::show(args.timeout);
            return Failure::new(Code::Timeout, format!("{} sent nothing back for {silence}", peer.name()));
        }
        Failure::new(Code::ConnectionFailed, format!("the stream to {} broke: {e}", peer.name()))
    })?;
    let known = super::peers::list(&client).await?.into_iter().find(|known| known.node_id == peer.node);
    let (send_mbps, total_mbps) =
        (humane::megabytes_per_second(sent, send_time), humane::megabytes_per_second(received, total_time));
    let report = Report {
        target: peer.addr,
        sent_bytes: sent,
        recv_bytes: received,
        send_duration_ms: send_time.as_secs_f64() * 1e3,
        total_duration_ms: total_time.as_secs_f64() * 1e3,
        send_mbps,
        total_mbps,
        send_mbit_per_s: send_mbps * 8.0,
        total_mbit_per_s: total_mbps * 8.0,
        rtt_ms: first.as_secs_f64() * 1e3,
        complete: received == sent,
        relay: known.map(|known| known.relay),
    };
    if !report.complete {
        let message = format!("only {received} of {sent} bytes came back from {}", peer.name());
        return Err(Failure::new(Code::ConnectionFailed, message).with_data(json!(report)));
    }
    Ok(Output::of(report))
}

/// The bytes at this place of the stream; a lost, doubled or moved byte does not fit.
fn pattern(position: u64, count: usize) -> Vec<u8> {
    (position..).take(count).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}
