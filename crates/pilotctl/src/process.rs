//! Background processes: starting one and hearing from it when it is ready, ending one, and its log.
//!
//! A process in the background is this executable with `daemon run --json` or `rendezvous run --json`: its first line on
//! stdout is the JSON document that says it is ready or why it is not. Nothing is polled.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::failure::{Code, Failure};

/// A log longer than this is put aside (`.1`) when its process starts.
const LOG_MAX: u64 = 16 << 20;

/// Log lines shown when a process in the background could not start.
const LOG_LINES_ON_FAILURE: usize = 5;

/// Between two looks at whether a process has ended. It only sets how soon after the end we notice.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Starts this executable with `arguments` as a process of its own, in its own group so that Ctrl-C of this
/// terminal does not reach it, and returns the `data` of its ready document. `secrets` go into its environment:
/// a command line is for everybody to see.
pub(crate) async fn start(
    what: &str,
    arguments: &[String],
    secrets: &[(&str, &str)],
    log: &Path,
    timeout: Duration,
) -> Result<Value, Failure> {
    let executable = std::env::current_exe().map_err(|e| Failure::io("finding this executable", &e))?;
    let log_file =
        open_log(log).map_err(|e| Failure::io(format!("opening the log {}", log.display()), &e))?;
    let log_start = log_file.metadata().map_or(0, |m| m.len());
    let mut child = Command::new(executable)
        .args(arguments)
        .envs(secrets.iter().copied())
        // Whoever waits for this process is told by it, not by one that it starts.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .process_group(0)
        .spawn()
        .map_err(|e| Failure::io(format!("starting the {what}"), &e))?;
    let first_line = first_line(&mut child);
    match tokio::time::timeout(timeout, first_line).await {
        Ok(Ok(line)) => ready(what, &line, &mut child, log, log_start),
        Ok(Err(_)) | Err(_) => {
            // It is ours and did not get ready; half-started it would only be in the way.
            drop(child.kill());
            drop(child.wait());
            let message = format!("the {what} was not ready within {}", crate::duration::show(timeout));
            Err(Failure::new(Code::Timeout, message + &log_excerpt(log, log_start))
                .hint(format!("see {}", log.display())))
        }
    }
}

fn first_line(child: &mut Child) -> oneshot::Receiver<String> {
    let (sender, receiver) = oneshot::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut line = String::new();
            // An unreadable line is as good as none: the process is then reported as failed.
            drop(BufReader::new(stdout).read_line(&mut line));
            drop(sender.send(line));
        });
    }
    receiver
}

fn ready(what: &str, line: &str, child: &mut Child, log: &Path, log_start: u64) -> Result<Value, Failure> {
    let document: Value = serde_json::from_str(line).unwrap_or_default();
    if document["status"] == "ok" {
        return Ok(document["data"].clone());
    }
    let ended = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
    let Some(message) = document["message"].as_str() else {
        let message = format!("the {what} ended at once ({ended})");
        return Err(
            Failure::internal(message + &log_excerpt(log, log_start)).hint(format!("see {}", log.display()))
        );
    };
    let code = document["code"].as_str().map_or(Code::Internal, Code::from_name);
    let hint = document["hint"].as_str().map_or_else(|| format!("see {}", log.display()), str::to_owned);
    Err(Failure::new(code, format!("the {what} could not start: {message}") + &log_excerpt(log, log_start))
        .hint(hint))
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        crate::settings::private_directory(directory)?;
    }
    if std::fs::metadata(path).is_ok_and(|m| m.len() > LOG_MAX) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn log_excerpt(path: &Path, from: u64) -> String {
    let lines = tail(path, from, LOG_LINES_ON_FAILURE).unwrap_or_default();
    if lines.is_empty() {
        String::new()
    } else {
        format!("\nlast lines of its log:\n  {}", lines.join("\n  "))
    }
}

/// The last `count` lines of a log, not reading what was written before `from`.
pub(crate) fn tail(path: &Path, from: u64, count: usize) -> io::Result<Vec<String>> {
    /// Longer than any useful excerpt of a log; what is before is not read.
    const WINDOW: u64 = 4 << 20;
    let mut file = File::open(path)?;
    let start = from.max(file.metadata()?.len().saturating_sub(WINDOW));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(WINDOW).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect())
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself, in the time given.
    Orderly,
    /// Only by SIGKILL.
    Forced,
}

/// Asks the process to end (SIGTERM), and makes it end when `timeout` is over.
pub(crate) async fn stop(pid: u32, timeout: Duration) -> Result<Ending, Failure> {
    signal(pid, Signal::TERM)?;
    wait_until_gone(pid, timeout).await
}

/// Waits for a process that was told to end, and makes it end when `timeout` is over.
pub(crate) async fn wait_until_gone(pid: u32, timeout: Duration) -> Result<Ending, Failure> {
    if gone_within(pid, timeout).await {
        return Ok(Ending::Orderly);
    }
    signal(pid, Signal::KILL)?;
    if gone_within(pid, Duration::from_secs(2)).await {
        return Ok(Ending::Forced);
    }
    Err(Failure::new(Code::Timeout, format!("process {pid} does not end")).hint(format!("kill -9 {pid}")))
}

async fn gone_within(pid: u32, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    while is_running(pid) {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    true
}

fn signal(pid: u32, signal: Signal) -> Result<(), Failure> {
    let Some(target) = as_pid(pid) else {
        return Err(Failure::internal(format!("{pid} is not a process number")));
    };
    match kill_process(target, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(Failure::io(format!("ending process {pid}"), &e.into())),
    }
}

/// Whether the process exists and has not ended. One that has ended and that nobody has asked after (a zombie)
/// counts as ended: in a container without an init it stays for ever.
pub(crate) fn is_running(pid: u32) -> bool {
    let exists = as_pid(pid)
        .is_some_and(|target| matches!(test_kill_process(target), Ok(()) | Err(rustix::io::Errno::PERM)));
    exists && !is_zombie(pid)
}

fn is_zombie(pid: u32) -> bool {
    // "pid (name) S ...": the name may contain anything, so the state is looked for behind the last parenthesis.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(')')?.1.trim_start().starts_with('Z')))
        .unwrap_or(false)
}

fn as_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Ends when this process is asked to end: Ctrl-C or SIGTERM. What comes from the call on counts.
pub(crate) fn asked_to_end() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
            // Without handlers the default action ends the process; there is nothing to wait for here.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_its_last_lines_from_the_start_of_this_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        std::fs::write(&path, "old\none\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&path, 4, 2).unwrap(), ["two", "three"]);
        assert_eq!(tail(&path, 4, 9).unwrap(), ["one", "two", "three"]);
    }

    #[tokio::test]
    async fn a_process_that_ended_and_was_not_asked_after_counts_as_ended() {
        let mut child = Command::new("true").spawn().unwrap();
        assert!(gone_within(child.id(), Duration::from_secs(5)).await);
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(stop(child.id(), Duration::from_millis(50)).await, Ok(Ending::Forced));
        child.wait().unwrap();
    }
}
