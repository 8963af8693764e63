//! The processes of a way, seen from who measures.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, iter};

use pilot_lab::Host;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use super::role::Role;

/// Lines of what a process said before its end that are shown.
const SHOWN: usize = 5;

/// A process of the benchmark itself, on a machine of the lab. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Actor {
    child: Child,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Actor {
    /// Starts it. `name` is that of its log in `folder`.
    pub(crate) fn start(host: &Host, role: &Role, name: &str, folder: &Path) -> Result<Self, Error> {
        let log = folder.join(format!("{name}.log"));
        let errors = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(env::current_exe()?);
        command.args([crate::ROLE, "six-ways", &serde_json::to_string(role)?]).stderr(errors);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = host.namespace().enter(|| command.spawn())?;
        let orders = child.stdin.take().ok_or(Error::Ended("the standard input"))?;
        let reports = child.stdout.take().ok_or(Error::Ended("the standard output"))?;
        Ok(Self { child, orders, reports: BufReader::new(reports), log })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it something.
    pub(crate) fn tell(&mut self, what: &impl Serialize) -> Result<(), Error> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        Ok(self.orders.write_all(&line)?)
    }

    /// Waits for what it has to say.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let mut line = String::new();
        if self.reports.read_line(&mut line)? == 0 {
            return Err(Error::Process(self.last_words()));
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to kill and its status is taken below.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("; ")
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The first executable of this name in the path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders
        .chain(iter::once(PathBuf::from("/bin")))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
