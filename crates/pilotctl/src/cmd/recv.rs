//! `pilotctl recv`.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl recv 1000\n  pilotctl recv 1000 --count 5 --timeout 60s\n  \
    pilotctl recv 1000 --output data.bin\n  pilotctl recv 1000 --reply \"got it\"")]
pub(crate) struct Args {
    /// Port to take streams on
    #[arg(value_name = "PORT", default_value_t = 1000)]
    pub(crate) port: u16,
    /// How many streams to take; 0 takes streams until it is stopped
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    pub(crate) count: usize,
    /// How long to wait for a stream
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
    /// Write what arrives into this file
    #[arg(long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Answer each stream with this once the peer has finished
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) reply: Option<String>,
    /// From a peer that cannot finish one direction alone (1.18): silence that ends its message
    #[arg(long, default_value = "500ms", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) idle: Duration,
}

use std::fmt;
use std::fs::File;
use std::io::{IsTerminal, Write};

use pilot_client::{Client, Stream};
use pilot_wire::{Addr, Port};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Output};
use crate::{duration, humane, input};

#[derive(Serialize)]
struct Report {
    messages: Vec<Message>,
    timeout: bool,
}

#[derive(Serialize)]
struct Message {
    seq: usize,
    port: u16,
    from: Addr,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

/// In text form everything was printed while it came.
impl fmt::Display for Message {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// `pilotctl recv`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let mut listener = client.listen(Port(args.port)).await?;
    ctx.note(format!("listening on port {}", args.port));
    let unbounded = args.count == 0;
    let mut messages = Vec::new();
    let mut seq = 0;
    while unbounded || seq < args.count {
        let stream = match accepted(&mut listener, args.timeout).await? {
            Some(stream) => stream,
            None => return ran_out(ctx, args, messages),
        };
        let message = receive(ctx, &client, args, seq, stream).await?;
        if ctx.format == Format::Json && unbounded {
            output::item(ctx.format, &message)?;
        } else {
            messages.push(message);
        }
        seq += 1;
    }
    Ok(Output::of(Report { messages, timeout: false }))
}

async fn accepted(
    listener: &mut pilot_client::Listener,
    timeout: Option<Duration>,
) -> Result<Option<Stream>, Failure> {
    let accepting = listener.accept();
    let accepted = match timeout {
        None => accepting.await,
        Some(timeout) => match tokio::time::timeout(timeout, accepting).await {
            Ok(accepted) => accepted,
            Err(_) => return Ok(None),
        },
    };
    accepted.map(Some).map_err(Failure::from)
}

/// The time is over. That is a failure only if nothing came at all.
fn ran_out(ctx: &Context, args: &Args, messages: Vec<Message>) -> Result<Output, Failure> {
    if messages.is_empty() {
        let waited = duration::show(args.timeout.unwrap_or_default());
        return Err(Failure::new(
            Code::Timeout,
            format!("no stream came to port {} within {waited}", args.port),
        )
        .with_data(json!({ "messages": [], "timeout": true })));
    }
    ctx.note(format!("{} of {} streams came in time", messages.len(), args.count));
    Ok(Output::of(Report { messages, timeout: true }))
}

async fn receive(
    ctx: &Context,
    client: &Client,
    args: &Args,
    seq: usize,
    mut stream: Stream,
) -> Result<Message, Failure> {
    /// What a JSON document holds of one message; more goes to a file with `--output`.
    const KEPT_MAX: usize = 64 << 20;
    let from = stream.peer().addr;
    let half_close = super::connect::can_half_close(client, &stream).await?;
    let mut sink = Sink::new(ctx.format, args)?;
    let mut bytes = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let reading = stream.read(&mut buffer);
        let read = if bytes > 0 && !half_close {
            match tokio::time::timeout(args.idle, reading).await {
                Ok(read) => read,
                Err(_) => break,
            }
        } else {
            reading.await
        };
        let count = read.map_err(|e| {
            Failure::new(Code::ConnectionFailed, format!("the stream from {from} broke: {e}"))
        })?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        if matches!(&sink, Sink::Keep(kept) if kept.len() + count > KEPT_MAX) {
            let message = format!("{from} sent more than {}", humane::bytes(KEPT_MAX as u64));
            return Err(Failure::internal(message).hint("write it into a file with --output"));
        }
        sink.take(&buffer[..count])?;
    }
    if let Some(reply) = &args.reply {
        let lost =
            |e| Failure::new(Code::ConnectionFailed, format!("the answer to {from} was not taken: {e}"));
        stream.write_all(reply.as_bytes()).await.map_err(lost)?;
    }
    // The peer may have gone at once after its last byte; its message is complete all the same.
    drop(stream.shutdown().await);
    let (data, data_b64) = sink.end(args)?;
    let file = args.output.as_ref().map(|path| path.display().to_string());
    Ok(Message { seq, port: args.port, from, bytes, data, data_b64, file })
}

/// Where the bytes of a stream go.
enum Sink {
    Print { last: Option<u8> },
    Keep(Vec<u8>),
    File(File),
}

impl Sink {
    fn new(format: Format, args: &Args) -> Result<Self, Failure> {
        match (&args.output, format) {
            (Some(path), _) => File::create(path)
                .map(Sink::File)
                .map_err(|e| Failure::io(format!("writing {}", path.display()), &e)),
            (None, Format::Text) => Ok(Sink::Print { last: None }),
            (None, Format::Json) => Ok(Sink::Keep(Vec::new())),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Sink::Print { last } => {
                *last = bytes.last().copied();
                output::raw(bytes)
            }
            Sink::Keep(kept) => {
                kept.extend_from_slice(bytes);
                Ok(())
            }
            Sink::File(file) => file.write_all(bytes).map_err(|e| Failure::io("writing the output file", &e)),
        }
    }

    /// Several messages stand on lines of their own; a single one is passed on byte for byte.
    fn end(self, args: &Args) -> Result<(Option<String>, Option<String>), Failure> {
        match self {
            Sink::Print { last } => {
                let open_line = last.is_some_and(|last| last != b'\n');
                if open_line && (args.count != 1 || std::io::stdout().is_terminal()) {
                    output::raw(b"\n")?;
                }
                Ok((None, None))
            }
            Sink::Keep(kept) => Ok(input::shown(&kept)),
            Sink::File(file) => {
                file.sync_all().map_err(|e| Failure::io("writing the output file", &e))?;
                Ok((None, None))
            }
        }
    }
}
