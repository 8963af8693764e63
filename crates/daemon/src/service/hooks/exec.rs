//! Running a program for a message.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Bytes of what a program prints that are kept, of stdout and stderr each. The rest is read and thrown away.
const OUTPUT_MAX: usize = 4096;

/// How long what a program has left running may keep its output open after it has ended itself.
const LINGER: Duration = Duration::from_secs(1);

/// What is run.
pub(super) struct Program<'a> {
    /// For `sh -c`.
    pub(super) command: &'a str,
    /// Beyond the daemon's own.
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) directory: &'a Path,
    pub(super) limit: Duration,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ran {
    /// Exit status 0.
    pub(super) ok: bool,
    /// In words.
    pub(super) outcome: String,
    /// What it printed, as far as it is kept.
    pub(super) output: String,
}

/// Runs a program with `document` on its stdin, until it ends or its time is over; then it is killed, with everything
/// it has started in its process group. Dropping the future kills it, too.
pub(super) async fn run(program: Program<'_>, document: Vec<u8>) -> Ran {
    match timeout(program.limit, start_and_wait(&program, document)).await {
        Ok(Ok((status, output))) => Ran { ok: status.success(), outcome: words(status), output },
        Ok(Err(error)) => {
            Ran { ok: false, outcome: format!("it cannot be run: {error}"), output: String::new() }
        }
        Err(_) => Ran {
            ok: false,
            outcome: format!("it was killed after {} s", program.limit.as_secs_f64()),
            output: String::new(),
        },
    }
}

async fn start_and_wait(program: &Program<'_>, document: Vec<u8>) -> io::Result<(ExitStatus, String)> {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(program.command)
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(program.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let stdin = child.stdin.take();
    let feeding = async move {
        if let Some(mut stdin) = stdin {
            // A program need not read what it is given.
            let _ = stdin.write_all(&document).await;
        }
    };
    let (stdout, stderr) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let (from_stdout, from_stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async {
        tokio::join!(keep(from_stdout, &stdout), keep(from_stderr, &stderr));
    };
    tokio::pin!(reading);
    let mut is_read = false;
    let ended = {
        tokio::pin!(feeding);
        let mut is_fed = false;
        loop {
            tokio::select! {
                status = child.wait() => break status?,
                () = &mut feeding, if !is_fed => is_fed = true,
                () = &mut reading, if !is_read => is_read = true,
            }
        }
    };
    // Whatever still holds its output open is of its group.
    if is_read || timeout(LINGER, &mut reading).await.is_ok() {
        group.0 = None;
    }
    drop(group);
    let mut output = std::mem::take(&mut *stdout.lock().await);
    output.append(&mut *stderr.lock().await);
    Ok((ended, String::from_utf8_lossy(&output).trim_end().to_owned()))
}

/// A process group that is killed when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It fails when everything in it has ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn keep<R: AsyncRead + Unpin>(from: Option<R>, kept: &Mutex<Vec<u8>>) {
    let Some(mut from) = from else { return };
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        let mut kept = kept.lock().await;
        let room = OUTPUT_MAX.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(piece.get(..room).unwrap_or_default());
    }
}

fn words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(command: &str, document: &[u8], limit: Duration) -> Ran {
        let environment = vec![("PILOT_MESSAGE_ID", "m-1".to_owned())];
        let directory = tempfile::tempdir().unwrap();
        let program = Program { command, environment, directory: directory.path(), limit };
        run(program, document.to_vec()).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_program_gets_the_message_on_stdin_and_its_names_in_the_environment() {
        let ran = sh("cat; echo \" $PILOT_MESSAGE_ID\"", b"hello", LONG).await;
        assert_eq!(ran, Ran { ok: true, outcome: "exit status 0".into(), output: "hello m-1".into() });
    }

    #[tokio::test]
    async fn what_a_program_does_not_read_and_prints_too_much_does_no_harm() {
        let ran = sh("yes | head -c 1000000; exit 3", &vec![b'x'; 1 << 20], LONG).await;
        assert_eq!((ran.ok, ran.outcome.as_str()), (false, "exit status 3"));
        assert!(ran.output.len() <= 2 * OUTPUT_MAX);
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("alive");
        // A child that holds this file open for as long as it lives.
        let fifo = directory.path().join("fifo");
        let command = format!(
            "mkfifo {0}; (exec 3<>{0}; touch {1}; sleep 1000) & wait",
            fifo.display(),
            mark.display()
        );
        let environment = Vec::new();
        let program = Program {
            command: &command,
            environment,
            directory: directory.path(),
            limit: Duration::from_secs(2),
        };
        let ran = run(program, Vec::new()).await;
        assert_eq!(ran.outcome, "it was killed after 2 s");
        assert!(mark.exists(), "it had begun");
        // Nobody reads the pipe any more: a writer that does not wait is told so.
        let gone = async {
            loop {
                let opened = rustix::fs::open(
                    &fifo,
                    rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK,
                    rustix::fs::Mode::empty(),
                );
                if opened.is_err() {
                    return;
                }
                drop(opened);
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, gone).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_does_not_hold_up_its_end() {
        let ran = sh("sleep 1000 & exit 0", b"", LONG).await;
        assert!(ran.ok, "{ran:?}");
    }
}
