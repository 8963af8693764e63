//! Builds the fuzz targets with coverage and runs them one after another.
//!
//! No extra tool is needed: the instrumentation flags are those of libFuzzer, the code is safe Rust, so no sanitizer
//! beside the overflow and bounds checks of the compiler is of use.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, cargo, during, output_of, root, run as run_program};

/// What to run and for how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only these targets
    targets: Vec<String>,
}

/// What libFuzzer needs to see of a program: counters per edge, operands of comparisons.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
     -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1 -Cdebuginfo=line-tables-only";

/// Named explicitly so that build scripts and macros stay without instrumentation.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs the targets; the first finding stops the run and is left in `fuzz/artifacts`.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let fuzz = root().join("fuzz");
    let names = chosen(&fuzz, &args.targets)?;
    let mut build = cargo();
    build.current_dir(&fuzz).env("RUSTFLAGS", COVERAGE).args(["build", "--release", "--target", TARGET]);
    for name in &names {
        build.args(["--bin", name]);
    }
    run_program(&mut build)?;
    let mut executions = BTreeMap::new();
    for name in &names {
        executions.insert(name.clone(), run_target(&fuzz, name, args.seconds)?);
    }
    println!("{:<24} executions in {} s", "target", args.seconds);
    for (name, count) in &executions {
        println!("{name:<24} {count}");
    }
    Ok(())
}

fn chosen(fuzz: &Path, wanted: &[String]) -> Result<Vec<String>, Failure> {
    let folder = fuzz.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(during(format!("read {}", folder.display())))? {
        let path = entry.map_err(during(format!("read {}", folder.display())))?.path();
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if wanted.is_empty() || wanted.contains(&name) {
            names.push(name);
        }
    }
    names.sort();
    if names.is_empty() {
        return Err(Failure::Check(format!("no such target in {}", folder.display())));
    }
    Ok(names)
}

/// Runs one target and returns the number of inputs it was given.
fn run_target(fuzz: &Path, name: &str, seconds: u64) -> Result<u64, Failure> {
    let found = fuzz.join("target/corpus").join(name);
    let artifacts = fuzz.join("artifacts").join(name);
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder).map_err(during(format!("create {}", folder.display())))?;
    }
    let seeds: PathBuf = fuzz.join("corpus").join(name);
    let mut command = Command::new(fuzz.join("target").join(TARGET).join("release").join(name));
    command.current_dir(fuzz).arg(&found);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    command.args([
        format!("-max_total_time={seconds}"),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".to_owned(),
        "-rss_limit_mb=2048".to_owned(),
        "-timeout=10".to_owned(),
    ]);
    println!("{name}: {seconds} s");
    let log = output_of(
        Command::new("sh")
            .args(["-c", "exec \"$@\" 2>&1", "sh"])
            .arg(command.get_program())
            .args(command.get_args()),
    )
    .inspect_err(|_| println!("{name}: see {}", artifacts.display()))?;
    let executed = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    executed
        .and_then(|count| count.trim().parse().ok())
        .ok_or_else(|| Failure::Check(format!("{name} said nothing about its executions")))
}
