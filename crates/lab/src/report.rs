//! Figures that a run shows at its end.

use std::env;
use std::fs::File;
use std::io::Write;

/// Adds a line to the figures of this run. `cargo xtask lab` prints them.
pub fn report(line: &str) {
    let Some(path) = env::var_os("PILOT_LAB_REPORT") else { return };
    let file = File::options().create(true).append(true).open(path);
    // One write, so that lines of tests that run side by side stay whole.
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    written.expect("the report can be written");
}
