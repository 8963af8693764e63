//! Runs one imaginary world, or many, and says what happened.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use pilot_sim::{Bulk, Conditions, Day, Detail, Fault, Plan, Programme, Recovery, World};

const USAGE: &str = "usage: pilot-sim --seed N [--verbose]     one world and what happened in it
       pilot-sim --seeds FROM..TO            many worlds, and the seeds of those that failed
       pilot-sim --day N [--verbose]         one long world and what happened in it
       pilot-sim programme --hours N [--seed N] [--short N] [--jobs N] [--json]
                                             long worlds, and so many short ones for each of them (8),
                                             over all processors, and a table
       pilot-sim --bulk MIB --loss PERCENT   one large transfer at 20 ms round trip and 100 MB/s, and its rate
";

/// Short worlds of a programme for each long one.
const PLANS_PER_DAY: u64 = 8;

fn main() -> ExitCode {
    match run(std::env::args().skip(1), &mut io::stdout().lock()) {
        Ok(code) => code,
        Err(Failure::Usage) => {
            let _ = io::stderr().write_all(USAGE.as_bytes());
            ExitCode::from(2)
        }
        // Who reads us has had enough.
        Err(Failure::Output) => ExitCode::SUCCESS,
    }
}

enum Failure {
    Usage,
    Output,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Output
    }
}

fn run(args: impl Iterator<Item = String>, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let args: Vec<String> = args.collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--seed", seed] => one(number(seed)?, Detail::Digest, out),
        ["--seed", seed, "--verbose"] | ["--verbose", "--seed", seed] => {
            one(number(seed)?, Detail::Lines, out)
        }
        ["--seeds", range] => {
            let (from, to) = range.split_once("..").ok_or(Failure::Usage)?;
            many(number(from)?..number(to)?, out)
        }
        ["--day", seed] => day(number(seed)?, Detail::Digest, out),
        ["--day", seed, "--verbose"] => day(number(seed)?, Detail::Lines, out),
        ["programme", options @ ..] => programme(options, out),
        ["--bulk", mebibytes, "--loss", percent] => {
            let percent: f64 = percent.parse().map_err(|_| Failure::Usage)?;
            bulk(number(mebibytes)? << 20, percent / 100.0, out)
        }
        _ => Err(Failure::Usage),
    }
}

fn number(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| Failure::Usage)
}

fn one(seed: u64, detail: Detail, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let plan = Plan::random(seed);
    writeln!(out, "{plan:#?}")?;
    let (world, result) = plan.run(detail);
    tell(seed, &world, result, out)
}

fn day(seed: u64, detail: Detail, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let day = Day::random(seed);
    writeln!(out, "{day:#?}")?;
    let (world, journal, result) = day.run(detail);
    for Recovery { trouble, took, limit } in journal.recoveries {
        let (took, limit) = (took.as_secs_f64(), limit.as_secs_f64());
        writeln!(out, "{:<40} {took:>8.3} s of {limit:.3} s   {trouble:?}", trouble.name())?;
    }
    tell(seed, &world, result, out)
}

fn tell(
    seed: u64,
    world: &World,
    result: Result<(), Fault>,
    out: &mut impl Write,
) -> Result<ExitCode, Failure> {
    for line in world.history().lines() {
        writeln!(out, "{line}")?;
    }
    writeln!(
        out,
        "seed {seed}: {:.3} s, {} events, {} datagrams, history {:016x}",
        world.elapsed().as_secs_f64(),
        world.history().events(),
        world.datagrams(),
        world.history().digest(),
    )?;
    match result {
        Ok(()) => {
            writeln!(out, "every byte arrived once and in order")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(fault) => {
            writeln!(out, "FAULT: {fault}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn many(seeds: std::ops::Range<u64>, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let mut failed = 0_u64;
    let mut seconds = 0.0;
    let mut datagrams = 0;
    for seed in seeds.clone() {
        let (world, result) = Plan::random(seed).run(Detail::Digest);
        seconds += world.elapsed().as_secs_f64();
        datagrams += world.datagrams();
        if let Err(fault) = result {
            failed += 1;
            writeln!(out, "seed {seed}: {fault}")?;
        }
    }
    writeln!(
        out,
        "{} worlds, {:.1} simulated hours, {datagrams} datagrams, {failed} failed",
        seeds.end.saturating_sub(seeds.start),
        seconds / 3600.0,
    )?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn programme(options: &[&str], out: &mut impl Write) -> Result<ExitCode, Failure> {
    let mut programme = Programme { hours: 0, seed: 0, plans_per_day: PLANS_PER_DAY, jobs: None };
    let mut json = false;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut value = || options.next().ok_or(Failure::Usage);
        match *option {
            "--hours" => programme.hours = number(value()?)?,
            "--seed" => programme.seed = number(value()?)?,
            "--short" => programme.plans_per_day = number(value()?)?,
            "--jobs" => programme.jobs = Some(value()?.parse().map_err(|_| Failure::Usage)?),
            "--json" => json = true,
            _ => return Err(Failure::Usage),
        }
    }
    if programme.hours == 0 {
        return Err(Failure::Usage);
    }
    let report = programme.run();
    if json {
        writeln!(out, "{}", report.json())?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(if report.is_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bulk(bytes: u64, loss: f64, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let conditions = Conditions {
        delay: Duration::from_millis(10),
        loss,
        bandwidth: Some(100_000_000),
        ..Conditions::PERFECT
    }
    .queue_of_one_round_trip(100);
    let started = Instant::now();
    let result = Bulk { bytes, conditions, legacy: false }.run(1);
    let took = started.elapsed().as_secs_f64();
    match result {
        Ok(goodput) => {
            writeln!(out, "loss {:.1} %: {goodput}; {took:.1} s of real time", loss * 100.0)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(fault) => {
            writeln!(out, "FAULT: {fault}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}
