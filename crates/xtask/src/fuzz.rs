//! Builds the fuzz targets with coverage, runs as many at a time as there are processors and says what they reached.
//!
//! No extra tool is needed: the instrumentation flags are those of libFuzzer, the code is safe Rust, so no sanitizer
//! beside the overflow and bounds checks of the compiler is of use.

mod report;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use crate::{Failure, cargo, during, output_of, root, run as run_program};
use report::{Report, Row};

/// What to run and for how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Targets that run at one time; as many as there are processors, if not said
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Write the table there, as Markdown
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the table there, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Afterwards, renew fuzz/corpus: of the fewest inputs that reach as much, up to fifty for each target, beside those with a
    /// name of their own
    #[arg(long)]
    merge: bool,
    /// Only these targets
    targets: Vec<String>,
}

/// Named explicitly so that build scripts and macros stay without instrumentation.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Longest input, in bytes. What needs more is found by other tests.
const LONGEST: usize = 16 << 10;

/// Inputs of a target that are put into the checkout, beside those with a name. All of them would be a burden to everybody.
const COMMITTED: usize = 50;

/// Characters of a digest that name an input.
const DIGEST_LEN: usize = 12;

/// Runs the targets. A finding stops its target only, and is left in `fuzz/artifacts`.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let fuzz = root().join("fuzz");
    let names = chosen(&fuzz, &args.targets)?;
    let mut build = cargo();
    build
        .current_dir(&fuzz)
        .env("RUSTC_WRAPPER", fuzz.join("instrumented"))
        .env("RUSTFLAGS", "--cfg fuzzing")
        .args(["build", "--release", "--target", TARGET]);
    for name in &names {
        build.args(["--bin", name]);
    }
    run_program(&mut build)?;
    let mut findings = Vec::new();
    let mut report = Report::begin(args.seconds);
    let mut broken = None;
    for result in run_all(&fuzz, &names, args) {
        match result {
            Ok((row, found)) => {
                report.rows.push(row);
                findings.extend(found);
            }
            Err(failure) => broken = broken.or(Some(failure)),
        }
    }
    print!("{}", report.table());
    for (path, text) in [(&args.report, report.markdown()), (&args.json, report.json())] {
        if let Some(path) = path {
            fs::write(path, text).map_err(during(format!("write {}", path.display())))?;
        }
    }
    if findings.is_empty() {
        return broken.map_or(Ok(()), Err);
    }
    let list: Vec<_> = findings.iter().map(|path| format!("\n  {}", path.display())).collect();
    Err(Failure::Check(format!(
        "inputs that are not taken (fuzz/README.md says how to repeat one):{}",
        list.concat()
    )))
}

/// Runs the programs side by side. What became of each, in the order of their names.
fn run_all(fuzz: &Path, names: &[String], args: &Args) -> Vec<Result<(Row, Vec<PathBuf>), Failure>> {
    let run_one = |name: &String| {
        let program = Program::new(fuzz, name);
        println!("{name}: {} s", args.seconds);
        let reached = program.run(args.seconds)?;
        if args.merge {
            program.merge()?;
        }
        Ok(reached)
    };
    let jobs = args.jobs.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    side_by_side(jobs, names, run_one)
}

/// Does `work` for each item, `jobs` at a time.
fn side_by_side<T: Sync, R: Send>(jobs: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let waiting = Mutex::new(items.iter().enumerate());
    let next = || waiting.lock().ok()?.next();
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.min(items.len()) {
            scope.spawn(|| {
                while let Some((index, item)) = next() {
                    let result = work(item);
                    if let Ok(mut done) = done.lock() {
                        done.push((index, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

fn chosen(fuzz: &Path, wanted: &[String]) -> Result<Vec<String>, Failure> {
    let folder = fuzz.join("fuzz_targets");
    let mut names: Vec<_> = files(&folder)?
        .iter()
        .filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    if let Some(unknown) = wanted.iter().find(|wanted| !names.contains(wanted)) {
        return Err(Failure::Check(format!("no target `{unknown}`; there are {}", names.join(", "))));
    }
    names.retain(|name| wanted.is_empty() || wanted.contains(name));
    Ok(names)
}

/// The files in a folder; none if there is no such folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let what = || during(format!("read {}", folder.display()));
    let mut files = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder).map_err(what())? {
            files.push(entry.map_err(what())?.path());
        }
    }
    Ok(files)
}

/// libFuzzer calls an input by its whole digest; the beginning of it is enough here.
fn digest_of(input: &Path) -> String {
    input.file_name().unwrap_or_default().to_string_lossy().chars().take(DIGEST_LEN).collect()
}

/// Whether somebody gave an input a name, which says why it is kept.
fn is_named(input: &Path) -> bool {
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    name.len() != DIGEST_LEN || name.bytes().any(|byte| !byte.is_ascii_hexdigit())
}

fn create(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(during(format!("create {}", folder.display())))
}

/// One target, built.
struct Program<'a> {
    name: &'a str,
    fuzz: &'a Path,
    /// The committed inputs.
    seeds: PathBuf,
    /// What was found since, kept from run to run.
    found: PathBuf,
    artifacts: PathBuf,
}

impl<'a> Program<'a> {
    fn new(fuzz: &'a Path, name: &'a str) -> Self {
        Self {
            name,
            fuzz,
            seeds: fuzz.join("corpus").join(name),
            found: fuzz.join("target/corpus").join(name),
            artifacts: fuzz.join("artifacts").join(name),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.fuzz.join("target").join(TARGET).join("release").join(self.name));
        command.current_dir(self.fuzz);
        command
    }

    /// Runs it; what it reached, and the inputs that it does not take.
    fn run(&self, seconds: u64) -> Result<(Row, Vec<PathBuf>), Failure> {
        for folder in [&self.found, &self.artifacts] {
            create(folder)?;
        }
        let before = files(&self.artifacts)?;
        let mut command = self.command();
        command.arg(&self.found);
        if self.seeds.is_dir() {
            command.arg(&self.seeds);
        }
        command.args([
            format!("-max_total_time={seconds}"),
            format!("-artifact_prefix={}/", self.artifacts.display()),
            format!("-max_len={LONGEST}"),
            "-print_final_stats=1".to_owned(),
            "-rss_limit_mb=2048".to_owned(),
            "-timeout=10".to_owned(),
        ]);
        let output = command.output().map_err(during(format!("run {}", self.name)))?;
        let log = String::from_utf8_lossy(&output.stderr);
        let found =
            files(&self.artifacts)?.into_iter().filter(|path| !before.contains(path)).collect::<Vec<_>>();
        if !output.status.success() {
            println!("{log}");
            if found.is_empty() {
                return Err(Failure::Program(self.name.to_owned()));
            }
        }
        let row = Row::of_log(self.name, &log);
        row.map(|row| (row, found))
            .ok_or_else(|| Failure::Check(format!("{} said nothing of its run", self.name)))
    }

    /// The fewest of all inputs that reach what all reach become the committed ones.
    fn merge(&self) -> Result<(), Failure> {
        let merged = self.fuzz.join("target/merged").join(self.name);
        if merged.is_dir() {
            fs::remove_dir_all(&merged).map_err(during(format!("empty {}", merged.display())))?;
        }
        for folder in [&merged, &self.seeds] {
            create(folder)?;
        }
        let mut command = self.command();
        command.args(["-set_cover_merge=1".to_owned(), format!("-max_len={LONGEST}")]);
        output_of(command.args([&merged, &self.seeds, &self.found]))?;
        for path in files(&self.seeds)?.iter().filter(|path| !is_named(path)) {
            fs::remove_file(path).map_err(during(format!("remove {}", path.display())))?;
        }
        let mut paths = files(&merged)?;
        paths.sort();
        // Digests are in no order, so these are any of them.
        for path in paths.iter().step_by(paths.len().div_ceil(COMMITTED).max(1)) {
            let to = self.seeds.join(digest_of(path));
            fs::copy(path, &to).map_err(during(format!("write {}", to.display())))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_side_by_side_is_reported_in_order_and_as_many_at_a_time_as_asked_for() {
        let both_are_there = std::sync::Barrier::new(2);
        let names = ["a", "b", "c", "d"];
        let seen = side_by_side(2, &names, |name| {
            both_are_there.wait();
            (*name).to_owned()
        });
        assert_eq!(seen, names);
        assert_eq!(side_by_side(8, &[1], |one| one + 1), [2]);
    }

    #[test]
    fn an_input_with_a_name_is_told_from_one_that_was_found() {
        let found = Path::new("corpus/web/0123456789abcdef0123456789abcdef01234567");
        assert_eq!(digest_of(found), "0123456789ab");
        assert!(!is_named(Path::new("corpus/web/0123456789ab")));
        for name in ["two-hosts", "0123456789abc", "0123456789ag"] {
            assert!(is_named(&Path::new("corpus/web").join(name)), "{name}");
        }
    }
}
