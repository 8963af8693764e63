//! What Pilot costs, beside what people use instead and what the machine allows, measured in one run.
//!
//! ```text
//! cargo run --release -p pilot-bench -- all
//! ```
//!
//! `docs/performance.md` says what is measured and how. Programs that talk to each other are processes of their own:
//! this executable again, with the hidden word `role` and what it is to be.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the tables are its output")]

mod cold;
mod events;
mod floods;
mod goals;
mod idle;
mod loss;
mod process;
mod relay;
mod rendezvous;
mod report;
mod side;
mod six_ways;
mod soak;
mod stage;
mod streams;
mod way;
mod work;

use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Instant,
};

use clap::{Parser, ValueEnum};
use report::{Run, Table};

/// What ends a measurement.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The first argument of this executable when it plays a part in a measurement.
const ROLE: &str = "role";

/// What Pilot costs, beside what people use instead and what the machine allows.
#[derive(Parser)]
#[command(name = "pilot-bench")]
struct Args {
    /// What to measure
    #[arg(value_enum, required = true, value_name = "TOPIC")]
    topics: Vec<Topic>,
    #[command(flatten)]
    options: Options,
}

/// How to measure, and where to put what is found.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// How often each figure is measured; medians are shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Minutes of the soak
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
    /// Nodes of the rendezvous, if not 100,000
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    nodes: Option<u32>,
    /// Connections that they share, one request at a time on each
    #[arg(long, default_value_t = 200)]
    connections: usize,
    /// Store of the rendezvous, if not a temporary file: postgres://... with a database that may be filled
    #[arg(long, value_name = "PATH|URL")]
    store: Option<String>,
    /// A short look: one round with little data, to see that it works
    #[arg(long)]
    quick: bool,
    /// Write the tables as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a chart of each table as SVG into this folder
    #[arg(long, value_name = "DIR")]
    charts: Option<PathBuf>,
    /// Print Markdown instead of text
    #[arg(long)]
    markdown: bool,
    /// Write tables and charts into the documents of this repository
    #[arg(long)]
    write_docs: bool,
}

impl Options {
    /// How often to measure each figure.
    fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.runs }
    }
}

/// One measurement, with tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Topic {
    /// Everything that is in docs/performance.md, without floods and soak
    All,
    /// One stream in one direction
    Bulk,
    /// 64 bytes there and back
    Rtt,
    /// Small messages in one direction
    Messages,
    /// New streams on a warm connection
    Dial,
    /// The first stream to a peer that was never met
    Cold,
    /// One stream over a link that loses datagrams, simulated
    Loss,
    /// A daemon that has nothing to do
    Idle,
    /// 10,000 connections that are open and quiet
    Connections,
    /// 1,000 peers that say nothing
    Peers,
    /// A rendezvous with 100,000 nodes
    Rendezvous,
    /// The beacon's relay
    Relay,
    /// Events to 100 subscribers on 10 nodes
    Events,
    /// One stream while the node is flooded
    Floods,
    /// Minutes of dial, transfer, close; fails if anything grows
    Soak,
    /// The same job in six ways, for docs/six-ways.md
    SixWays,
}

/// What `all` is, in the order of the goals.
const ALL: &[Topic] = &[
    Topic::Bulk,
    Topic::Rtt,
    Topic::Messages,
    Topic::Dial,
    Topic::Cold,
    Topic::Loss,
    Topic::Idle,
    Topic::Connections,
    Topic::Peers,
    Topic::Rendezvous,
    Topic::Relay,
    Topic::Events,
];

impl Topic {
    /// The document that shows its tables.
    fn document(self) -> &'static str {
        if self == Self::SixWays { "docs/six-ways.md" } else { "docs/performance.md" }
    }

    /// Measures.
    async fn tables(self, options: &Options) -> Result<Vec<Table>, Failure> {
        match self {
            Self::All => Err("`all` is several".into()),
            Self::Bulk => streams::bulk(options).await,
            Self::Rtt => streams::round_trips(options).await,
            Self::Messages => streams::messages(options).await,
            Self::Dial => streams::dials(options).await,
            Self::Cold => cold::tables(options).await,
            Self::Loss => loss::tables(options),
            Self::Idle => idle::alone(options).await,
            Self::Connections => idle::connections(options).await,
            Self::Peers => idle::peers(options).await,
            Self::Rendezvous => rendezvous::tables(options).await,
            Self::Relay => relay::tables(options),
            Self::Events => events::tables(options).await,
            Self::Floods => floods::tables(options).await,
            Self::Soak => soak::tables(options).await,
            Self::SixWays => six_ways::run(options),
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((word, part)) if word == ROLE => play(part),
        _ => measure(&Args::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A part in somebody else's measurement.
fn play(part: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = part.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["six-ways", ..] => six_ways::play(&part[1..]),
        ["serve", rest @ ..] => in_runtime(way::serving(rest)),
        ["drive", rest @ ..] => in_runtime(way::driving(rest)),
        ["relay", rest @ ..] => in_runtime(way::relaying(rest)),
        ["crowd", rest @ ..] => in_runtime(idle::play(rest)),
        ["rendezvous", rest @ ..] => in_runtime(rendezvous::play(rest)),
        ["flood", rest @ ..] => floods::play(rest),
        ["beacon", rest @ ..] => in_runtime(relay::play(rest)),
        _ => Err(format!("no such role: {part:?}").into()),
    }
}

/// One thread, as the daemon has.
fn in_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // A blocking read of stdin may still be waiting.
    runtime.shutdown_background();
    done
}

/// Set in the environment when this process has a network namespace of its own.
const ALONE: &str = "PILOT_BENCH_ALONE";

/// Goes on in a network namespace of its own, so that nobody else's bytes are on its loopback interface. Where that is
/// not allowed it goes on here.
fn alone() -> Result<(), Failure> {
    if std::env::var_os(ALONE).is_some() {
        return Ok(());
    }
    let program = stage::prepare()?;
    let lets = |flags: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", "ip link set lo up"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    let Some(flags) =
        [&["--net"][..], &["--user", "--map-root-user", "--net"]].into_iter().find(|flags| lets(flags))
    else {
        eprintln!(
            "note: no network namespace of its own (needs unshare and ip): bytes on the wire are everybody's"
        );
        return Ok(());
    };
    let mut command = Command::new("unshare");
    command.args(flags).args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    Err(command.env(ALONE, "1").env(stage::PROGRAM, program).exec().into())
}

fn measure(args: &Args) -> Result<(), Failure> {
    let options = &args.options;
    let topics: Vec<Topic> = args
        .topics
        .iter()
        .flat_map(|&topic| if topic == Topic::All { ALL.to_vec() } else { vec![topic] })
        .collect();
    if !topics.contains(&Topic::SixWays) {
        alone()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut run = Run::new();
    let show = |table: &Table| println!("{}", if options.markdown { table.markdown() } else { table.text() });
    for &topic in &topics {
        let start = Instant::now();
        let tables = runtime.block_on(Box::pin(topic.tables(options)))?;
        tables.iter().for_each(show);
        eprintln!("({} s)", start.elapsed().as_secs());
        if options.write_docs {
            report::write_docs(topic.document(), &tables, &run.machine)?;
        }
        run.tables.extend(tables);
    }
    if ALL.iter().all(|topic| topics.contains(topic)) {
        let goals = goals::table(&run.tables);
        show(&goals);
        if options.write_docs {
            report::write_docs(Topic::All.document(), std::slice::from_ref(&goals), &run.machine)?;
        }
        run.tables.push(goals);
    }
    if let Some(folder) = &options.charts {
        report::write_charts(folder, &run.tables)?;
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&run)?)?;
    }
    Ok(())
}
