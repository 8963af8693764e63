//! Runs the tests in networks of their own.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use crate::interop::{AS_TESTED, BUILD_PILOTCTL};
use crate::{Failure, cargo, during, output_of, root, run as run_program};

/// Tests that run side by side. They wait more than they work.
const SIDE_BY_SIDE: &str = "6";

/// Tools that the lab needs, and the Debian packages that have them.
const TOOLS: [(&str, &str); 2] = [("ip", "iproute2"), ("nft", "nftables")];

/// How to run the tests.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains this, such as `symmetric_and_symmetric` or `roaming::`
    filter: Option<String>,
    /// List the tests instead of running them
    #[arg(long)]
    list: bool,
    /// Virtual environment that holds the reference; made in target/reference when absent
    #[arg(long, env = "PILOT_REFERENCE")]
    reference: Option<PathBuf>,
    /// How many tests run side by side
    #[arg(long, default_value = SIDE_BY_SIDE)]
    jobs: String,
    /// Passed on to the test runner
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Checks that this machine can do it, builds our executable, runs the tests and prints what they measured.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut test = cargo();
    test.args(["test", "--features", "pilot-lab/namespaces", "--test", "lab"]).args(AS_TESTED).arg("--");
    test.args(&args.filter).args(["--test-threads", &args.jobs]).args(&args.rest);
    if args.list {
        return run_program(test.arg("--list"));
    }
    check_machine()?;
    let reference = crate::interop::install(args.reference.clone())?;
    run_program(cargo().args(BUILD_PILOTCTL).args(AS_TESTED))?;
    let report = root().join("target/lab-report.txt");
    match fs::remove_file(&report) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(during(format!("remove {}", report.display()))(error));
        }
        Ok(()) | Err(_) => {}
    }
    let tested = run_program(test.env("PILOT_REFERENCE", reference).env("PILOT_LAB_REPORT", &report));
    let measured = fs::read_to_string(&report).unwrap_or_default();
    let mut lines: Vec<&str> = measured.lines().collect();
    lines.sort_unstable();
    for line in lines {
        println!("{line}");
    }
    tested
}

fn check_machine() -> Result<(), Failure> {
    for (tool, package) in TOOLS {
        if Command::new(tool).arg("-V").output().is_err() {
            return Err(Failure::Check(format!("`{tool}` is missing: install {package}")));
        }
    }
    let user = output_of(Command::new("id").arg("-u"))?;
    if user.trim() != "0" {
        return Err(Failure::Check(
            "namespaces need root: run this as root, in a container for example".into(),
        ));
    }
    Ok(())
}
