//! `pilotctl send-file`.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl send-file agent-b ./report.pdf\n  pilotctl send-file agent-b ./project/\n  \
    pilotctl send-file agent-b ./model.bin --now --json\n  \
    make-report | pilotctl send-file agent-b - --name report.pdf\n\n\
    A transfer that was interrupted goes on where it stopped when the same file is sent again."
)]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// The file or folder; `-` is stdin
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// The name that the receiver shall see [default: the last part of the path]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Fail if the peer cannot be reached now, instead of leaving the file with the daemon
    #[arg(long, conflicts_with = "queue")]
    pub(crate) now: bool,
    /// Leave the file with the daemon at once: it takes a copy and delivers that when it can
    #[arg(long)]
    pub(crate) queue: bool,
    /// For how long the daemon tries to deliver what was left with it [default: 7 days]
    #[arg(long, conflicts_with = "now", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) ttl: Option<Duration>,
    /// How long the peer may be silent before a transfer that was under way is given up
    #[arg(long, default_value = "90s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;

use pilot_client::ipc::Code as Class;
use pilot_client::{Client, FileOptions, FileReceipt, Queued, Transport};
use pilot_wire::dataexchange::{ContentHash, MessageId};
use pilot_wire::{Addr, Port};
use serde::Serialize;

use super::send_message::is_there;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::target::{self, Peer};
use crate::{duration, humane, progress, settings, style};

/// How long a peer of which nothing is known may take to be reached, before the file is left with the daemon.
const GLANCE: Duration = Duration::from_millis(35);

impl Args {
    /// `send NODE --file PATH`.
    pub(crate) fn of(target: String, path: PathBuf, timeout: Duration) -> Self {
        Args { target, path, name: None, now: false, queue: false, ttl: None, timeout }
    }
}

/// What is delivered.
#[derive(Serialize)]
struct Delivered {
    filename: String,
    bytes: u64,
    bytes_sent: u64,
    bytes_resumed: u64,
    destination: Addr,
    elapsed_ms: f64,
    sha256: String,
    /// How far it came; the same words as of messages.
    state: &'static str,
    /// Megabytes per second (10^6), under the reference's name.
    throughput_mbps: f64,
    transport: &'static str,
    verified: bool,
    /// Of a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<u64>,
    /// Links and the like, which a folder leaves behind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<String>,
}

impl fmt::Display for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = duration::show(Duration::from_secs_f64(self.elapsed_ms / 1e3));
        let rate = format!("{:.1} MB/s", self.throughput_mbps);
        let size = match self.files {
            Some(files) => format!("{}, {}", humane::count(files, "file"), humane::bytes(self.bytes)),
            None => humane::bytes(self.bytes),
        };
        writeln!(f, "{}: {} ({size}) in {took}, {rate}", style::good("delivered"), self.filename)?;
        if self.bytes_resumed > 0 {
            writeln!(f, "  resumed after {}", humane::bytes(self.bytes_resumed))?;
        }
        for path in &self.skipped {
            writeln!(f, "  not sent, for it is no file: {}", humane::printable(path))?;
        }
        let checked =
            if self.verified { "the receiver computed the same" } else { "not checked by the receiver" };
        write!(f, "  sha256 {} ({checked})", self.sha256)
    }
}

/// What is left with the daemon.
#[derive(Serialize)]
struct Waiting {
    filename: String,
    bytes: u64,
    destination: Addr,
    #[serde(skip)]
    to: String,
    state: &'static str,
    message_id: MessageId,
    expires_at: String,
    /// Why it was not delivered at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queued = style::strong("queued");
        writeln!(f, "{queued}: {} gets {} as soon as it can be reached", self.to, self.filename)?;
        if let Some(reason) = &self.reason {
            writeln!(f, "  why         {}", humane::printable(reason))?;
        }
        writeln!(f, "  message id  {}", self.message_id)?;
        write!(f, "  follow it   pilotctl outbox show {}", self.message_id)
    }
}

/// What is to be sent.
struct Parcel {
    path: PathBuf,
    name: Option<String>,
    length: u64,
    is_folder: bool,
    /// Goes when this goes.
    _spooled: Option<Spooled>,
}

/// `pilotctl send-file`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let parcel = parcel(ctx, args)?;
    let client = ctx.client().await?;
    let peer = target::find(&client, &args.target).await?;
    if args.queue {
        return queue(&client, &peer, &parcel, args, None).await;
    }
    let may_wait = !args.now && !parcel.is_folder && !client.is_reference();
    if may_wait && !can_be_reached(&client, &peer).await? {
        return queue(&client, &peer, &parcel, args, None).await;
    }
    match send(ctx, &client, &peer, &parcel, args).await {
        Ok(receipt) => Ok(Output::of(delivered(&peer, receipt))),
        Err(error) if may_wait && is_about_reaching(&error) => {
            queue(&client, &peer, &parcel, args, Some(error.to_string())).await
        }
        Err(error) => Err(explain(&peer, &parcel, error)),
    }
}

fn parcel(ctx: &Context, args: &Args) -> Result<Parcel, Failure> {
    if args.path.as_os_str() == "-" {
        let spooled = Spooled::stdin(ctx)?;
        let length = std::fs::metadata(&spooled.0).map_or(0, |metadata| metadata.len());
        let name = Some(args.name.clone().unwrap_or_else(|| "stdin".to_owned()));
        return Ok(Parcel {
            path: spooled.0.clone(),
            name,
            length,
            is_folder: false,
            _spooled: Some(spooled),
        });
    }
    let path = args.path.clone();
    let metadata =
        std::fs::metadata(&path).map_err(|e| Failure::io(format!("reading {}", path.display()), &e))?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(Failure::usage(format!("{} is neither a file nor a folder", path.display())));
    }
    if args.queue && metadata.is_dir() {
        return Err(Failure::usage("folders are sent while the peer is there, not left with the daemon")
            .hint("pack it: tar c FOLDER | pilotctl send-file NODE - --name FOLDER.tar --queue"));
    }
    let (name, length, is_folder) = (args.name.clone(), metadata.len(), metadata.is_dir());
    Ok(Parcel { path, name, length, is_folder, _spooled: None })
}

/// Whether a peer is there, as far as one can tell at once.
async fn can_be_reached(client: &Client, peer: &Peer) -> Result<bool, Failure> {
    if is_there(client, peer.node).await? {
        return Ok(true);
    }
    let knock = client.dial(peer.port(Port::DATA_EXCHANGE));
    Ok(matches!(tokio::time::timeout(GLANCE, knock).await, Ok(Ok(_))))
}

/// Whether the daemon may have more luck later.
fn is_about_reaching(error: &pilot_client::Error) -> bool {
    matches!(
        error.code(),
        Class::Unreachable | Class::Timeout | Class::NotTrusted | Class::Closed | Class::RegistryUnreachable
    )
}

async fn send(
    ctx: &Context,
    client: &Client,
    peer: &Peer,
    parcel: &Parcel,
    args: &Args,
) -> Result<FileReceipt, pilot_client::Error> {
    let bar = progress::bytes(ctx.format, parcel.length);
    let options = FileOptions { name: parcel.name.clone(), patience: args.timeout };
    let sending = client.send_file_with(peer.addr, &parcel.path, options, |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    });
    let sent = Box::pin(sending).await;
    bar.finish_and_clear();
    sent
}

fn delivered(peer: &Peer, receipt: FileReceipt) -> Delivered {
    Delivered {
        filename: receipt.name,
        bytes: receipt.bytes,
        bytes_sent: receipt.bytes_sent,
        bytes_resumed: receipt.bytes_resumed,
        destination: peer.addr,
        elapsed_ms: receipt.elapsed.as_secs_f64() * 1e3,
        sha256: ContentHash(receipt.sha256).to_string(),
        state: "stored",
        throughput_mbps: humane::megabytes_per_second(receipt.bytes_sent, receipt.elapsed),
        transport: match receipt.transport {
            Transport::FileStream => "filestream",
            Transport::Whole => "file",
        },
        verified: receipt.transport == Transport::FileStream,
        files: receipt.files,
        skipped: receipt.skipped,
    }
}

async fn queue(
    client: &Client,
    peer: &Peer,
    parcel: &Parcel,
    args: &Args,
    reason: Option<String>,
) -> Result<Output, Failure> {
    let path = std::path::absolute(&parcel.path)
        .map_err(|e| Failure::io(format!("reading {}", parcel.path.display()), &e))?;
    let message = Queued { ttl: args.ttl, ..Queued::file(peer.addr, path, parcel.name.clone()) };
    let item = client.queue(message).await.map_err(|error| {
        Failure::from(error).advise(Code::Unsupported, "give --now: this daemon delivers nothing later")
    })?;
    Ok(Output::of(Waiting {
        filename: item.name.unwrap_or_default(),
        bytes: item.bytes,
        destination: peer.addr,
        to: peer.name(),
        state: super::outbox::word(item.state),
        message_id: item.id,
        expires_at: item.expires_at,
        reason: reason.or(item.reason),
    }))
}

fn explain(peer: &Peer, parcel: &Parcel, error: pilot_client::Error) -> Failure {
    let name = peer.name();
    let away = match parcel.is_folder {
        true => format!(
            "is it up? pilotctl ping {name}; a folder is sent while the peer is there, an archive can wait"
        ),
        false => format!("is it up? pilotctl ping {name}"),
    };
    Failure::from(error)
        .advise(Code::TrustRequired, format!("ask for trust: pilotctl handshake {name}"))
        .advise(Code::Unreachable, away.clone())
        .advise(Code::Timeout, away)
}

/// What came on stdin, in a file: its length and hash go ahead of it.
struct Spooled(PathBuf);

impl Spooled {
    fn stdin(ctx: &Context) -> Result<Self, Failure> {
        let mut input = io::stdin().lock();
        if input.is_terminal() {
            return Err(Failure::usage("there is nothing on stdin").hint("pipe something in, or name a file"));
        }
        let home = ctx.settings.home();
        let path = home.join(format!(".stdin-{}.tmp", std::process::id()));
        let failed = |e: io::Error| Failure::io(format!("keeping stdin in {}", path.display()), &e);
        settings::private_directory(home).map_err(failed)?;
        let spooled = Self(path.clone());
        let mut file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        io::copy(&mut input, &mut file).map_err(failed)?;
        Ok(spooled)
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        // What could not be removed takes space, nothing else.
        let _ = std::fs::remove_file(&self.0);
    }
}
