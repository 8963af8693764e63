//! Processes of a measurement: what they say, and what they cost.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    time::Duration,
};

use serde::de::DeserializeOwned;

use crate::{Failure, ROLE};

/// Nothing that is asked of a process takes longer, unless the asker says so.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that a process may be ahead of whoever reads them.
const LINES: usize = 16;

/// A process that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    /// This executable in another role.
    pub(crate) fn role(words: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ROLE).args(words);
        Self::start(&words.join(" "), &mut command, None)
    }

    /// A program; what it says on its standard error goes to `log`, or to ours.
    pub(crate) fn start(name: &str, command: &mut Command, log: Option<&Path>) -> Result<Self, Failure> {
        let errors = match log {
            Some(path) => Stdio::from(File::create(path)?),
            None => Stdio::inherit(),
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (tell, lines) = sync_channel(LINES);
        std::thread::spawn(move || {
            for line in output.map(BufReader::new).into_iter().flat_map(BufRead::lines) {
                let Ok(line) = line else { break };
                // Whoever does not listen any more has let it go.
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { name: name.to_owned(), child, input, lines })
    }

    /// The next line it says.
    pub(crate) fn line(&self) -> Result<String, Failure> {
        self.line_within(PATIENCE)
    }

    /// The same, of somebody who may take longer or shorter.
    pub(crate) fn line_within(&self, patience: Duration) -> Result<String, Failure> {
        let line = self.lines.recv_timeout(patience);
        line.map_err(|error| format!("`{}` has nothing to say: {error}", self.name).into())
    }

    /// Says a line to it, and reads its answer.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, line: &str) -> Result<T, Failure> {
        let input = self.input.as_mut().ok_or("its input is closed")?;
        input.write_all(format!("{line}\n").as_bytes())?;
        let answer = self.line()?;
        serde_json::from_str(&answer).map_err(|error| format!("`{}`: {error}: {answer}", self.name).into())
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Seconds of processor time it has had, all threads that live.
    pub(crate) fn cpu(&self) -> f64 {
        cpu_of(self.id())
    }

    /// Resident bytes.
    pub(crate) fn memory(&self) -> f64 {
        1024.0 * self.status("VmRSS:")
    }

    /// How often each of its threads has waited for something and was woken.
    pub(crate) fn wake_ups(&self) -> WakeUps {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten().flatten();
        let count = |task: fs::DirEntry| {
            (task.file_name(), field(&task.path().join("status"), "voluntary_ctxt_switches:"))
        };
        WakeUps(tasks.map(count).collect())
    }

    /// Open file descriptors.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count)
    }

    /// Live threads.
    pub(crate) fn threads(&self) -> f64 {
        self.status("Threads:")
    }

    fn status(&self, name: &str) -> f64 {
        field(Path::new(&format!("/proc/{}/status", self.id())), name)
    }
}

/// Of each thread.
#[derive(Debug)]
pub(crate) struct WakeUps(BTreeMap<OsString, f64>);

impl WakeUps {
    /// How many more there are than `before`. A thread that ended in between counts for nothing.
    pub(crate) fn since(&self, before: &Self) -> f64 {
        self.0.iter().map(|(thread, count)| count - before.0.get(thread).unwrap_or(&0.0)).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; its status is taken in any case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of processor time of a process, to the scheduler's nanosecond, or to its tick where it does not tell.
pub(crate) fn cpu_of(process: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let spent = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    let nanoseconds: f64 = spent.sum();
    if nanoseconds > 0.0 { nanoseconds / 1e9 } else { ticks_of(process).unwrap_or(0.0) / 100.0 }
}

fn ticks_of(process: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>().ok()
}

/// The number behind a name in a status file; zero if it is not there.
fn field(path: &Path, name: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

/// Bytes and packets that went over the loopback interface of this network namespace.
pub(crate) fn loopback_bytes() -> f64 {
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

/// Says a line to whoever started this process.
pub(crate) fn say(line: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    output.write_all(format!("{line}\n").as_bytes())?;
    Ok(output.flush()?)
}

/// A command with nothing of our environment but where programs are.
pub(crate) fn isolated(program: impl AsRef<OsStr>, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_heard_and_its_costs_are_counted() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "read line; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo \"[$line]\"; read line",
        ]);
        let mut shell = Process::start("sh", &mut command, None).unwrap();
        let answer: Vec<u32> = shell.ask("7").unwrap();
        assert_eq!(answer, [7]);
        assert!(shell.cpu() > 0.0 && shell.memory() > 0.0 && shell.files() >= 3);
        assert_eq!(shell.threads(), 1.0);
    }

    #[test]
    fn a_process_that_ends_is_an_error_and_not_a_wait() {
        let mut command = Command::new("true");
        let shell = Process::start("true", &mut command, None).unwrap();
        assert!(shell.line().unwrap_err().to_string().contains("`true`"));
    }
}
