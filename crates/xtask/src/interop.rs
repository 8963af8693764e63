//! Runs the interoperability tests against the released reference node.

use std::path::PathBuf;
use std::process::Command;

use crate::{Failure, cargo, root, run as run_program};

/// Release of the reference that the tests are written for.
const RELEASE: &str = "1.18.0";

/// The packages that the README's test command has: with others, dependencies have other features and are built again.
pub(crate) const AS_TESTED: [&str; 3] = ["--workspace", "--exclude", "pilot-bench"];

/// Builds `pilotctl` with the features that it has in tests: a test of it brings the executable.
pub(crate) const BUILD_PILOTCTL: [&str; 4] = ["test", "--no-run", "--test", "contract"];

/// How to run the tests.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Virtual environment that holds the reference; made in target/reference when absent
    #[arg(long, env = "PILOT_REFERENCE")]
    reference: Option<PathBuf>,
    /// Passed on to the test runner
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Installs the reference where it is missing, builds our executable and runs the tests.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let venv = install(args.reference.clone())?;
    run_program(cargo().args(BUILD_PILOTCTL).args(AS_TESTED))?;
    run_program(
        cargo()
            .env("PILOT_REFERENCE", &venv)
            .args(["test", "--features", "pilot-interop/reference", "--test", "interop"])
            .args(AS_TESTED)
            .arg("--")
            .args(&args.rest),
    )
}

/// Installs the reference where it is missing, and says where it is.
pub(crate) fn install(venv: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let venv = venv.unwrap_or_else(|| root().join("target/reference").join(RELEASE));
    // The tests run in the folder of their crate.
    let venv = std::path::absolute(&venv).map_err(crate::during(format!("find {}", venv.display())))?;
    if !venv.join("bin/python").exists() {
        run_program(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run_program(
            Command::new(venv.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check"])
                .arg(format!("pilotprotocol=={RELEASE}")),
        )?;
    }
    Ok(venv)
}
