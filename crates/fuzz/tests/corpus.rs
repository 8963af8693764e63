//! Every input that was ever found, and the same changed ones each time: no change gets by what the fuzzer once saw.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use pilot_fuzz::mutate::{Dice, changed};
use pilot_fuzz::{TARGETS, Target};

/// Changed inputs for each target. More are found by the fuzzer.
const CHANGED: usize = 1000;
/// State machines and cryptography take longer for each.
const CHANGED_SLOW: usize = 40;
const SLOW: [&str; 4] = ["letter", "node", "noise", "registry_state"];
/// Longest changed input.
const LONGEST: usize = 4096;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

/// The inputs of a target with their files, always in the same order.
fn inputs(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(corpus().join(target.name));
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", target.name));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Runs all targets on all processors and says which failed.
fn each_target(run: impl Fn(&Target) -> Vec<String> + Sync) {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut failed = Vec::new();
        while let Some(target) = TARGETS.get(next.fetch_add(1, Ordering::Relaxed)) {
            failed.extend(run(target));
        }
        failed
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "inputs that are not taken:\n{}", failed.join("\n"));
}

fn takes(target: &Target, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok()
}

#[test]
fn every_input_that_was_ever_found_is_taken() {
    each_target(|target| {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "{} has no inputs", target.name);
        let failed = inputs.iter().filter(|(_, input)| !takes(target, input));
        failed.map(|(path, _)| format!("{}: {}", target.name, path.display())).collect()
    });
}

#[test]
fn the_same_changed_inputs_are_taken_each_time() {
    each_target(|target| {
        let inputs: Vec<_> = inputs(target).into_iter().map(|(_, input)| input).collect();
        let count = if SLOW.contains(&target.name) { CHANGED_SLOW } else { CHANGED };
        let mut dice = Dice::new(8);
        let mut failed = Vec::new();
        for number in 0..count {
            let input = changed(&mut dice, &inputs, LONGEST);
            if !takes(target, &input) {
                let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", target.name));
                fs::write(&path, &input).unwrap();
                failed.push(format!("{}: {}", target.name, path.display()));
            }
        }
        failed
    });
}

#[test]
fn every_folder_of_inputs_belongs_to_a_target_and_every_target_can_be_fuzzed() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let of = |folder: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    assert_eq!(of(corpus()), names);
    assert_eq!(of(corpus().join("../fuzz_targets")), names);
    assert!(TARGETS.is_sorted_by_key(|target| target.name));
}

#[test]
fn no_input_is_large_and_all_together_are_few() {
    let mut total = 0;
    for target in TARGETS {
        for (path, input) in inputs(target) {
            assert!(input.len() <= 64 << 10, "{} has {} bytes", path.display(), input.len());
            total += input.len();
        }
    }
    assert!(total <= 6 << 20, "{total} bytes of inputs");
}
