//! Chores of this workspace: `cargo xtask <chore>`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to the person who runs it")]

mod deps;
mod duplicates;
mod fuzz;
mod interop;
mod lab;
mod licences;
mod mcp_client;
mod packages;
mod policy;
mod sbom;
mod vectors;
mod weaken;
mod yanked;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

/// Chores of this workspace.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Copy the recorded vectors from ../shared/vectors into the tests of the wire crate
    Vectors,
    /// Compare what the core crates and the executable depend on with the committed lists
    Deps {
        /// Write the lists instead of comparing
        #[arg(long)]
        write: bool,
    },
    /// Refuse dependencies whose licence is not allowed in deny.toml
    Licences,
    /// Refuse a second version of a crate for which deny.toml has no reason
    Duplicates,
    /// Refuse versions in Cargo.lock that their authors have taken back; asks the registry
    Yanked,
    /// Write what a release of pilotctl is made of (CycloneDX)
    Sbom(sbom::Args),
    /// Take the defences of docs/security.md away one by one, and see the attacks succeed
    Weaken(weaken::Args),
    /// Run the fuzz targets, one for each processor at a time
    Fuzz(fuzz::Args),
    /// Run the tests against the released reference node
    Interop(interop::Args),
    /// Run the tests of the MCP server with the official client
    McpClient(mcp_client::Args),
    /// Run the tests in namespaces with real NATs between them: every pair of networks, roaming, spoofing
    Lab(lab::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().chore {
        Chore::Vectors => vectors::copy(),
        Chore::Deps { write } => deps::run(write),
        Chore::Licences => licences::check(),
        Chore::Duplicates => duplicates::check(),
        Chore::Yanked => yanked::check(),
        Chore::Sbom(args) => sbom::run(&args),
        Chore::Weaken(args) => weaken::run(&args),
        Chore::Fuzz(args) => fuzz::run(&args),
        Chore::Interop(args) => interop::run(&args),
        Chore::McpClient(args) => mcp_client::run(&args),
        Chore::Lab(args) => lab::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Why a chore was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// A file or a program could not be reached.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A program ran and failed.
    #[error("`{0}` failed")]
    Program(String),
    /// The check itself failed; the text says what to do.
    #[error("{0}")]
    Check(String),
}

/// Turns an I/O error into a [`Failure`] that says what was being done.
fn during(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Failure {
    let what = what.into();
    move |source| Failure::Io { what, source }
}

/// The root of the workspace.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map(PathBuf::from).unwrap_or(here)
}

/// The cargo that runs this chore.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a program to its end and shows its output as it comes.
fn run(command: &mut Command) -> Result<(), Failure> {
    let shown = shown(command);
    let status = command.status().map_err(during(&shown))?;
    if status.success() { Ok(()) } else { Err(Failure::Program(shown)) }
}

/// Runs a program to its end and returns what it printed.
fn output_of(command: &mut Command) -> Result<String, Failure> {
    let shown = shown(command);
    let output = command.output().map_err(during(&shown))?;
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        return Err(Failure::Program(shown));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
