//! `pilotctl capture`.

mod line;

use std::path::PathBuf;
use std::time::Duration;

use pilot_wire::Port;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl capture                                a line per packet, until Ctrl-C\n  \
        pilotctl capture -w out.pcapng --peer agent-b --port 80\n  \
        pilotctl capture -w - | wireshark -k -i -       live, with packaging/wireshark/pilot.lua\n  \
        pilotctl capture --count 10 --seconds 5 --json"
)]
pub(crate) struct Args {
    /// Write a pcapng file, `-` to stdout. It holds what is said in clear; only its owner may read it
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Only packets to and from this peer
    #[arg(long, value_name = "TARGET")]
    pub(crate) peer: Option<String>,
    /// Only packets with this port at either end
    #[arg(long, value_parser = clap::value_parser!(u16).map(Port))]
    pub(crate) port: Option<Port>,
    /// End after so many packets
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after this time
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) seconds: Option<Duration>,
}

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::builder::TypedValueParser as _;
use pilot_client::{Capture, Packets};
use pilot_wire::capture::{Counts, Filter};
use serde::Serialize;
use tokio::time::Instant;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Output};
use crate::pcapng::Writer;
use crate::{humane, process, style, target};

use line::Line;

/// Replies fetched at the end: more than the daemon's queue holds.
const LAST_REPLIES: usize = 64;

#[derive(Serialize)]
struct Report {
    /// The file that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    /// Packets in it.
    packets: u64,
    /// Packets that were lost, because they came faster than they were taken.
    dropped: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} dropped", humane::count(self.packets, "packet"), self.dropped)?;
        match &self.file {
            Some(file) => write!(f, " → {}", file.display()),
            None => Ok(()),
        }
    }
}

/// Where the packets go.
enum Sink {
    Lines(Format),
    File(Box<Writer<Box<dyn Write>>>),
}

impl Sink {
    fn take(&mut self, packets: &Packets, most: u64) -> Result<u64, Failure> {
        let mut taken = 0;
        for record in packets.records().iter().take(usize::try_from(most).unwrap_or(usize::MAX)) {
            match self {
                Self::Lines(format) => output::item(*format, &Line::of(record))?,
                Self::File(writer) => writer.packet(record),
            }
            taken += 1;
        }
        match self {
            Self::Lines(_) => {}
            Self::File(writer) => writer.flush().map_err(|error| written(&error))?,
        }
        Ok(taken)
    }
}

/// `pilotctl capture`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let to_stdout = args.write.as_deref() == Some(Path::new("-"));
    if to_stdout && ctx.format == Format::Json {
        return Err(Failure::usage("`-w -` and `--json` both want stdout")
            .hint("write to a file: pilotctl capture -w out.pcapng --json"));
    }
    let client = ctx.client().await?;
    let peer = match &args.peer {
        Some(peer) => Some(target::find(&client, peer).await?.node),
        None => None,
    };
    let info = client.info().await?;
    let asked_to_end = process::asked_to_end();
    let capture = client.capture(Filter { peer, port: args.port }).await.map_err(explain)?;
    let mut sink = match args.write.as_deref() {
        None => Sink::Lines(ctx.format),
        Some(path) => {
            let out: Box<dyn Write> =
                if to_stdout { Box::new(io::stdout()) } else { Box::new(create(path)?) };
            let writer = Writer::begin(out, &info.address.to_string(), &info.hostname, now_ns());
            Sink::File(Box::new(writer.map_err(|error| written(&error))?))
        }
    };
    ctx.note(style::faint("listening for packets; Ctrl-C ends it"));
    let mut gone = Gone::default();
    let outcome = follow(&capture, args, &mut sink, &mut gone, asked_to_end).await;
    let Gone { packets, counts } = gone;
    let dropped = counts.dropped;
    let is_file = matches!(sink, Sink::File(_));
    if let Sink::File(writer) = sink {
        // Also after a failure: what was caught is worth having.
        let finished = writer.finish(now_ns(), counts);
        outcome?;
        finished.map_err(|error| written(&error))?;
    } else {
        outcome?;
    }
    let report = Report { file: args.write.clone().filter(|_| !to_stdout), packets, dropped };
    if is_file && !to_stdout {
        return Ok(Output::of(report));
    }
    match ctx.format {
        Format::Json => output::item(ctx.format, &report)?,
        Format::Text => ctx.note(style::faint(report)),
    }
    Ok(Output::streamed())
}

/// What has been taken, and what the daemon counted.
#[derive(Default)]
struct Gone {
    packets: u64,
    counts: Counts,
}

impl Gone {
    fn take(&mut self, packets: &Packets, sink: &mut Sink, most: u64) -> Result<(), Failure> {
        self.counts = packets.counts();
        self.packets += sink.take(packets, most - self.packets)?;
        Ok(())
    }
}

/// Takes packets until there are enough, the time is over, or somebody has seen enough.
async fn follow(
    capture: &Capture,
    args: &Args,
    sink: &mut Sink,
    gone: &mut Gone,
    asked_to_end: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let most = args.count.unwrap_or(u64::MAX);
    let deadline = args.seconds.map(|time| Instant::now() + time);
    let over = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(asked_to_end, over);
    loop {
        let next = capture.next();
        tokio::pin!(next);
        let packets = tokio::select! {
            packets = &mut next => packets?,
            () = &mut asked_to_end => return rest(capture, next, sink, gone, most).await,
            () = &mut over => return rest(capture, next, sink, gone, most).await,
        };
        gone.take(&packets, sink, most)?;
        if gone.packets >= most {
            return Ok(());
        }
    }
}

/// Takes what the daemon still has.
async fn rest(
    capture: &Capture,
    waiting: impl Future<Output = Result<Packets, pilot_client::Error>>,
    sink: &mut Sink,
    gone: &mut Gone,
    most: u64,
) -> Result<(), Failure> {
    let (waited, mut ready) = tokio::try_join!(waiting, capture.ready())?;
    gone.take(&waited, sink, most)?;
    for _ in 0..LAST_REPLIES {
        gone.take(&ready, sink, most)?;
        if ready.records().is_empty() || gone.packets >= most {
            break;
        }
        ready = capture.ready().await?;
    }
    Ok(())
}

/// A file that only its owner may read: it holds what peers believe to be said in private.
fn create(path: &Path) -> Result<File, Failure> {
    let failed = |error| Failure::io(format!("creating `{}`", path.display()), &error);
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let file = file.map_err(failed)?;
    // One that was there before may be open to others.
    if file.metadata().map_err(failed)?.is_file() {
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    }
    Ok(file)
}

/// A reader that has seen enough (Wireshark was closed) is no failure.
fn written(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    Failure::io("writing the capture", error)
}

/// A daemon that was started before this program was replaced does not know what is asked.
fn explain(error: pilot_client::Error) -> Failure {
    Failure::from(error)
        .advise(Code::InvalidArgument, "is the daemon older than this program? pilotctl daemon restart")
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
