//! What Pilot costs, beside what people use instead and what the machine allows, measured in one run.
//!
//! ```text
//! cargo run --release -p pilot-bench -- all
//! ```
//!
//! `docs/performance.md` says what is measured and how. Programs that talk to each other are processes of their own:
//! this executable again, with the hidden word `role` and what it is to be.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the tables are its output")]

mod report;
mod six_ways;

use std::{path::PathBuf, process::ExitCode};

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
    /// Everything that is in docs/performance.md, without the soak
    All,
    /// The same job in six ways, for docs/six-ways.md
    SixWays,
}

impl Topic {
    /// The document that shows its tables.
    fn document(self) -> &'static str {
        match self {
            Self::SixWays => "docs/six-ways.md",
            Self::All => "docs/performance.md",
        }
    }

    /// Measures.
    fn tables(self, options: &Options) -> Result<Vec<Table>, Failure> {
        match self {
            Self::All => Ok(Vec::new()),
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
    match part.split_first() {
        Some((name, rest)) if name == "six-ways" => six_ways::play(rest),
        _ => Err(format!("no such role: {part:?}").into()),
    }
}

fn measure(args: &Args) -> Result<(), Failure> {
    let options = &args.options;
    let mut run = Run::new();
    for &topic in &args.topics {
        let tables = topic.tables(options)?;
        for table in &tables {
            println!("{}", if options.markdown { table.markdown() } else { table.text() });
        }
        if options.write_docs {
            report::write_docs(topic.document(), &tables, &run.machine)?;
        }
        run.tables.extend(tables);
    }
    if let Some(folder) = &options.charts {
        report::write_charts(folder, &run.tables)?;
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&run)?)?;
    }
    Ok(())
}
