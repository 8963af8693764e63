//! A process of the stage, and where its output goes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as System, Stdio};

/// Lines of a log that are shown when a test fails.
const SHOWN: usize = 40;

/// A process that ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in a file beside `home`.
    pub fn start(name: &str, home: &Path, command: &mut System) -> Self {
        let log = home.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a log file can be made");
        let errors = file.try_clone().expect("a file can be written twice");
        let child = command
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?})"));
        Self { name: name.to_owned(), child, log }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to kill and its status is taken below.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "the logs of a failed test belong to its report")]
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- {} said at the end:", self.name);
            for line in &lines[lines.len().saturating_sub(SHOWN)..] {
                eprintln!("{line}");
            }
        }
    }
}
