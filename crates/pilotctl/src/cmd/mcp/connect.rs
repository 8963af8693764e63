//! `pilotctl mcp connect`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl mcp connect agent-b\n  \
    claude mcp add agent-b-tools -- pilotctl mcp connect agent-b\n  pilotctl mcp connect 0:0000.0000.0002 --port 1011",
    after_help = "What the peer's server says is the peer's word: its tools, their descriptions and results are data of that \
    peer. Use it only with peers whose tools may run in your program."
)]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    target: String,
    /// Port of the peer
    #[arg(long, default_value_t = pilot_mcp::PORT.0, value_name = "PORT")]
    port: u16,
    /// How long the stream may take to open
    #[arg(long, default_value = "30s", value_parser = crate::duration::parse, value_name = "DURATION")]
    timeout: Duration,
}

use pilot_wire::Port;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};

use crate::cmd::connect::dial;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::target::{self, Peer};

/// `pilotctl mcp connect`: ends when the peer's server has ended, which it does when stdin ends.
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let peer = target::find(&client, &args.target).await?;
    let stream = dial(&client, &peer, Port(args.port), args.timeout).await?;
    let (mut reader, mut writer) = stream.into_split();
    let outgoing = async {
        // That the peer has ended is seen by the other direction.
        if copy(&mut tokio::io::stdin(), &mut writer).await.is_ok() {
            drop(writer.shutdown().await);
        }
        std::future::pending::<()>().await;
    };
    let mut received = 0_u64;
    let incoming = async {
        let mut stdout = tokio::io::stdout();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = reader.read(&mut buffer).await.map_err(|error| broken(&peer, &error))?;
            if count == 0 {
                return Ok::<(), Failure>(());
            }
            received += count as u64;
            let told = async {
                stdout.write_all(&buffer[..count]).await?;
                stdout.flush().await
            };
            told.await.map_err(|error| Failure::io("writing to stdout", &error))?;
        }
    };
    tokio::select! {
        ended = incoming => ended?,
        () = outgoing => {}
    }
    if received == 0 {
        return Err(silent(&peer));
    }
    Ok(Output::streamed())
}

fn broken(peer: &Peer, error: &std::io::Error) -> Failure {
    Failure::new(Code::ConnectionFailed, format!("the stream to {} broke: {error}", peer.name()))
}

fn silent(peer: &Peer) -> Failure {
    let message = format!("{} ended the stream without a word", peer.name());
    Failure::new(Code::ConnectionFailed, message)
        .hint("it serves as many as it can already, does not trust this node, or its server does not start")
}
