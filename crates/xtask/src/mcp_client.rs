//! Runs the tests of the MCP server with the official client, which is written in Python.

use std::path::PathBuf;
use std::process::Command;

use crate::{Failure, cargo, root, run as run_program};

/// Release of the client that the tests are written for: the first that knows both revisions is 2.0.
const RELEASE: &str = "2.3.0";

/// How to run the tests.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Virtual environment that holds the client; made in target/mcp-client when absent
    #[arg(long, env = "PILOT_MCP_CLIENT")]
    venv: Option<PathBuf>,
    /// Only make the environment
    #[arg(long)]
    install: bool,
}

/// Installs the client where it is missing, and runs the tests with it.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let venv = args.venv.clone().unwrap_or_else(|| root().join("target/mcp-client"));
    // The tests run in the folder of their crate.
    let venv = std::path::absolute(&venv).map_err(crate::during(format!("find {}", venv.display())))?;
    if !venv.join("bin/python").exists() {
        run_program(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run_program(
            Command::new(venv.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check"])
                .arg(format!("mcp=={RELEASE}")),
        )?;
    }
    if args.install {
        return Ok(());
    }
    run_program(cargo().env("PILOT_MCP_CLIENT", &venv).args([
        "test",
        "--package",
        "pilotctl",
        "--test",
        "mcp",
        "--",
        "the_official_client",
    ]))
}
