//! `pilotctl connect`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl connect agent-b --message hello\n  \
    echo '{\"action\":\"execute_query\"}' | pilotctl connect worker-node 1000\n  \
    pilotctl connect agent-b 80 < request > response\n  pilotctl connect agent-b            (a terminal: both directions, end with Ctrl-D)")]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Port of the peer [default: 1000]
    #[arg(value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Port of the peer, as the articles write it
    #[arg(long = "port", value_name = "PORT", conflicts_with = "port", hide = true)]
    pub(crate) port_flag: Option<u16>,
    /// Send this instead of stdin
    #[arg(long, short = 'm', value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) message: Option<String>,
    /// End after the first answer instead of reading until the peer has finished
    #[arg(long)]
    pub(crate) once: bool,
    /// How long the stream may take to open, and how long the first byte of an answer may take
    #[arg(long, default_value = "30s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// Towards a peer that cannot finish one direction alone (1.18): silence that ends the answer
    #[arg(long, default_value = "1s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) idle: Duration,
}

use std::fmt;
use std::io::IsTerminal;

use pilot_client::{Client, Stream};
use pilot_wire::ipc::{Call, ConnInfo};
use pilot_wire::{Addr, Port};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::input::{self, Chunks};
use crate::output::{self, Format, Output};
use crate::target::{self, Peer};
use crate::{duration, humane};

/// An answer that is kept for a JSON document may be so long; longer ones are for text output, which streams.
const ANSWER_MAX: usize = 64 << 20;

/// Bytes moved per read.
const CHUNK: usize = 64 << 10;

#[derive(Serialize)]
pub(crate) struct Report {
    target: Addr,
    port: Port,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_b64: Option<String>,
    bytes_sent: u64,
    bytes_received: u64,
}

/// In text form everything was printed while it came.
impl fmt::Display for Report {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// What goes out.
pub(crate) enum Source {
    Message(Vec<u8>),
    Stdin,
}

/// When the answer is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For the stream to open, and for the first byte once everything was sent.
    pub(crate) first: Duration,
    /// Silence after which a peer that cannot finish one direction alone is taken to have said everything.
    pub(crate) idle: Duration,
    /// The first piece of an answer is all of it.
    pub(crate) once: bool,
}

/// `pilotctl connect`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let peer = target::find(&client, &args.target).await?;
    let port = Port(args.port.or(args.port_flag).unwrap_or(Port::STDIO.0));
    let source = match &args.message {
        Some(text) => Source::Message(text.as_bytes().to_vec()),
        None => Source::Stdin,
    };
    let interactive = args.message.is_none() && std::io::stdin().is_terminal();
    if interactive {
        ctx.note(format!("connected to {} port {port}; end with Ctrl-D", peer.name()));
    }
    let patience = Patience { first: args.timeout, idle: args.idle, once: args.once };
    let stream = dial(&client, &peer, port, args.timeout).await?;
    let report = exchange(&client, ctx.format, stream, &peer, port, source, patience).await?;
    Ok(if ctx.format == Format::Json { Output::of(report) } else { Output::streamed() })
}

/// Opens a stream to a port of the peer.
pub(crate) async fn dial(
    client: &Client,
    peer: &Peer,
    port: Port,
    timeout: Duration,
) -> Result<Stream, Failure> {
    match tokio::time::timeout(timeout, client.dial(peer.port(port))).await {
        Ok(dialled) => dialled.map_err(|error| explain(&peer.name(), port, error.into())),
        Err(_) => {
            let message =
                format!("{} did not answer on port {port} within {}", peer.name(), duration::show(timeout));
            Err(Failure::new(Code::Timeout, message).hint(format!("is it up? pilotctl ping {}", peer.name())))
        }
    }
}

/// Advice for a stream that could not be opened.
pub(crate) fn explain(name: &str, port: Port, failure: Failure) -> Failure {
    failure
        .advise(Code::Refused, format!("nobody listens on port {port} of {name}"))
        .advise(Code::TrustRequired, format!("ask for trust: pilotctl handshake {name}"))
        .advise(Code::Unreachable, format!("is it up? pilotctl ping {name}"))
        .advise(Code::Timeout, format!("is it up? pilotctl ping {name}"))
}

/// Sends everything, finishes our direction, and takes what comes back until the peer has finished.
pub(crate) async fn exchange(
    client: &Client,
    format: Format,
    stream: Stream,
    peer: &Peer,
    port: Port,
    source: Source,
    patience: Patience,
) -> Result<Report, Failure> {
    let half_close = can_half_close(client, &stream).await?;
    let (mut reader, mut writer) = stream.into_split();
    let said = match &source {
        Source::Message(bytes) => input::shown(bytes).0,
        Source::Stdin => None,
    };
    let mut answer = Answer { format, kept: Vec::new(), received: 0 };
    let mut bytes_sent = 0;
    let mut all_sent = false;
    {
        let mut outgoing = std::pin::pin!(send_all(source, &mut writer));
        let mut buffer = vec![0; CHUNK];
        loop {
            // While we still send, or a person sits at the other end of stdin, silence means nothing.
            let silence = match (all_sent, answer.received > 0) {
                (false, _) => None,
                (true, true) => (!half_close).then_some(patience.idle),
                (true, false) => Some(patience.first),
            };
            tokio::select! {
                sent = &mut outgoing, if !all_sent => {
                    bytes_sent = sent.map_err(|e| broken(peer, &e))?;
                    all_sent = true;
                }
                read = reader.read(&mut buffer) => match read.map_err(|e| broken(peer, &e))? {
                    0 => break,
                    count => answer.take(&buffer[..count])?,
                },
                () = for_long(silence) => {
                    if answer.received == 0 {
                        return Err(no_answer(peer, port, patience.first, bytes_sent));
                    }
                    break;
                }
            }
            if patience.once && answer.received > 0 && all_sent {
                break;
            }
        }
    }
    answer.end();
    let (response, response_b64) = input::shown(&answer.kept);
    Ok(Report {
        target: peer.addr,
        port,
        sent: said,
        response,
        response_b64,
        bytes_sent,
        bytes_received: answer.received,
    })
}

/// Whether the peer can finish one direction alone. One of 1.18 cannot: it never says that its answer is over.
pub(crate) async fn can_half_close(client: &Client, stream: &Stream) -> Result<bool, Failure> {
    if client.is_reference() {
        return Ok(false);
    }
    let streams: Vec<ConnInfo> = client.call(Call::Connections).await?;
    Ok(streams
        .iter()
        .find(|known| known.id == stream.id())
        .and_then(|known| known.half_close)
        .unwrap_or(true))
}

async fn for_long(silence: Option<Duration>) {
    match silence {
        Some(silence) => tokio::time::sleep(silence).await,
        None => std::future::pending().await,
    }
}

async fn send_all(source: Source, writer: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<u64> {
    let mut sent = 0;
    match source {
        Source::Message(bytes) => {
            writer.write_all(&bytes).await?;
            sent += bytes.len() as u64;
        }
        Source::Stdin => {
            let mut chunks = Chunks::of_stdin();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk?;
                writer.write_all(&chunk).await?;
                sent += chunk.len() as u64;
            }
        }
    }
    writer.shutdown().await?;
    Ok(sent)
}

fn broken(peer: &Peer, error: &std::io::Error) -> Failure {
    Failure::new(Code::ConnectionFailed, format!("the stream to {} broke: {error}", peer.name()))
}

fn no_answer(peer: &Peer, port: Port, waited: Duration, bytes_sent: u64) -> Failure {
    let message = format!("no answer from {} port {port} within {}", peer.name(), duration::show(waited));
    Failure::new(Code::Timeout, message)
        .hint("what was sent did arrive; give more time with --timeout")
        .with_data(json!({ "target": peer.addr, "port": port, "bytes_sent": bytes_sent }))
}

/// What came back: printed at once as text, kept for the one JSON document.
struct Answer {
    format: Format,
    kept: Vec<u8>,
    received: u64,
}

impl Answer {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.received += bytes.len() as u64;
        if self.format == Format::Text {
            self.kept = bytes[bytes.len() - 1..].to_vec();
            return output::raw(bytes);
        }
        if self.kept.len() + bytes.len() > ANSWER_MAX {
            let limit = humane::bytes(ANSWER_MAX as u64);
            return Err(Failure::internal(format!("the answer is longer than {limit}"))
                .hint("leave --json out: text output is streamed, without a limit"));
        }
        self.kept.extend_from_slice(bytes);
        Ok(())
    }

    /// A prompt should not stick to the last line; in a pipe or file the bytes stay exact.
    fn end(&self) {
        let open_line = self.kept.last().is_some_and(|last| *last != b'\n');
        if self.format == Format::Text && open_line && std::io::stdout().is_terminal() {
            drop(output::raw(b"\n"));
        }
    }
}
