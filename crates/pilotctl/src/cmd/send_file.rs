//! `pilotctl send-file`.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl send-file agent-b ./report.pdf\n  pilotctl send-file agent-b ./model.bin --json"
)]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// The file
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// How long the peer may be silent
    #[arg(long, default_value = "90s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

use std::fmt;

use pilot_client::Transport;
use pilot_wire::Addr;
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{duration, humane, progress, style, target};

#[derive(Serialize)]
struct Report {
    filename: String,
    bytes: u64,
    bytes_sent: u64,
    bytes_resumed: u64,
    destination: Addr,
    elapsed_ms: f64,
    sha256: String,
    /// Megabytes per second (10^6), under the reference's name.
    throughput_mbps: f64,
    transport: String,
    verified: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = duration::show(Duration::from_secs_f64(self.elapsed_ms / 1e3));
        let rate = format!("{:.1} MB/s", self.throughput_mbps);
        writeln!(
            f,
            "{}: {} ({}) in {took}, {rate}",
            style::good("delivered"),
            self.filename,
            humane::bytes(self.bytes)
        )?;
        if self.bytes_resumed > 0 {
            writeln!(f, "  resumed after {}", humane::bytes(self.bytes_resumed))?;
        }
        let checked =
            if self.verified { "the receiver computed the same" } else { "not checked by the receiver" };
        write!(f, "  sha256 {} ({checked})", self.sha256)
    }
}

/// `pilotctl send-file`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let metadata = std::fs::metadata(&args.path)
        .map_err(|e| Failure::io(format!("reading {}", args.path.display()), &e))?;
    if !metadata.is_file() {
        return Err(Failure::usage(format!("{} is not a file", args.path.display()))
            .hint("pack a directory first: tar"));
    }
    let client = ctx.client().await?;
    let peer = target::find(&client, &args.target).await?;
    let bar = progress::bytes(ctx.format, metadata.len());
    let sending = client.send_file(peer.addr, &args.path, |progress| bar.set_position(progress.done));
    let sent = sending.await;
    bar.finish_and_clear();
    let receipt = sent.map_err(|error| {
        let name = peer.name();
        Failure::from(error)
            .advise(Code::TrustRequired, format!("ask for trust: pilotctl handshake {name}"))
            .advise(Code::Unreachable, format!("is it up? pilotctl ping {name}"))
            .advise(Code::Timeout, format!("is it up? pilotctl ping {name}"))
    })?;
    let transport = match receipt.transport {
        Transport::FileStream => "filestream",
        Transport::Whole => "file",
    };
    Ok(Output::of(Report {
        filename: receipt.name,
        bytes: receipt.bytes,
        bytes_sent: receipt.bytes_sent,
        bytes_resumed: receipt.bytes_resumed,
        destination: peer.addr,
        elapsed_ms: receipt.elapsed.as_secs_f64() * 1e3,
        sha256: hex(&receipt.sha256),
        throughput_mbps: humane::megabytes_per_second(receipt.bytes_sent, receipt.elapsed),
        transport: transport.to_owned(),
        verified: receipt.transport == Transport::FileStream,
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
