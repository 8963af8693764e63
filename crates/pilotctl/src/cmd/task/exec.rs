//! A program that does tasks.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pilot_client::{Client, Task, TaskId, TaskState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::report::Sent;
use super::work::hand_in;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};

/// Longest output that goes as a text; more goes as a file. In bytes.
const TEXT_MAX: usize = 512 << 10;

/// Longest output that is read at all, in bytes: a program with more writes files.
const OUTPUT_MAX: u64 = 64 << 20;

/// What of a failed program's last words the submitter reads, in bytes.
const LAST_WORDS: usize = 2 << 10;

/// How long the daemon is asked at a time whether a task was taken back.
const WATCH: Duration = Duration::from_secs(3600);

/// What is to be done.
pub(super) struct Work<'a> {
    pub(super) line: &'a str,
    pub(super) id: Option<&'a TaskId>,
    pub(super) accept: bool,
    pub(super) timeout: Duration,
    pub(super) count: usize,
    pub(super) any_type: bool,
}

/// Begins the next task, accepting one first if that is wanted.
pub(super) async fn next(
    client: &Client,
    id: Option<&TaskId>,
    accept: bool,
    timeout: Duration,
) -> Result<Task, Failure> {
    if !accept {
        return Ok(client.execute_task(id, timeout).await?);
    }
    match client.execute_task(id, Duration::ZERO).await.map_err(Failure::from) {
        Err(failure) if failure.code == Code::NotFound && id.is_none() => {}
        begun => return begun,
    }
    let accepted = client.accept_task(timeout).await?;
    Ok(client.execute_task(Some(&accepted.task_id), Duration::ZERO).await?)
}

/// Does as many tasks as wanted.
pub(super) async fn run(ctx: &Context, client: &Client, work: Work<'_>) -> Result<Output, Failure> {
    let mut done = 0;
    loop {
        let task = match next(client, work.id, work.accept, work.timeout).await {
            Ok(task) => task,
            // Nothing more came in time: the end of one that was to go on.
            Err(failure) if work.count == 0 && matches!(failure.code, Code::NotFound | Code::Timeout) => {
                return Ok(Output::streamed());
            }
            Err(failure) => return Err(failure),
        };
        let report = carry_out(client, &task, &work).await;
        done += 1;
        if work.count == 1 {
            return report.map(Output::of);
        }
        // One task that failed does not end a worker.
        match report {
            Ok(report) => output::item(ctx.format, &report)?,
            Err(failure) => output::note(ctx.format, &failure.message),
        }
        if done == work.count {
            return Ok(Output::streamed());
        }
    }
}

async fn carry_out(client: &Client, task: &Task, work: &Work<'_>) -> Result<Sent, Failure> {
    let out = Out::make(&task.task_id)?;
    let ran = tokio::select! {
        ran = execute(work.line, task, &out.0) => ran,
        taken_back = taken_back(client, &task.task_id) => return Err(taken_back),
    };
    let (text, mut files) = match ran {
        Ok(Ran::Done { stdout }) => (stdout, out.files()?),
        Ok(Ran::Failed { reason }) => {
            client.fail_task(&task.task_id, &reason).await?;
            return Err(Failure::new(Code::Refused, format!("task {}: {reason}", task.task_id)));
        }
        Err(error) => {
            let reason = format!("the worker's program cannot be run: {error}");
            client.fail_task(&task.task_id, &reason).await?;
            return Err(Failure::io(format!("running `{}`", work.line), &error));
        }
    };
    let text = match String::from_utf8(text) {
        Ok(text) if text.len() <= TEXT_MAX => Some(text).filter(|text| !text.is_empty() || files.is_empty()),
        Ok(text) => {
            files.push(out.put("output.txt", text.as_bytes())?);
            None
        }
        Err(bytes) => {
            files.push(out.put("output.bin", bytes.as_bytes())?);
            None
        }
    };
    let named: Vec<(String, u64)> = files
        .iter()
        .map(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            (name.unwrap_or_default(), path.metadata().map_or(0, |metadata| metadata.len()))
        })
        .collect();
    let has_text = text.is_some();
    match hand_in(client, &task.task_id, text, &files, work.any_type).await {
        Ok(task) => Ok(Sent::of(task, has_text, &named)),
        Err(failure) => {
            let reason = format!("the result cannot be handed in: {}", failure.message);
            client.fail_task(&task.task_id, &reason).await?;
            Err(failure)
        }
    }
}

/// Returns when the submitter no longer wants the task, or its time is over.
async fn taken_back(client: &Client, id: &TaskId) -> Failure {
    let ends = [TaskState::Cancelled, TaskState::Expired, TaskState::Failed, TaskState::Declined];
    loop {
        match client.wait_task_until(id, &ends, WATCH).await {
            Ok(task) => {
                let why = crate::humane::printable(&task.justification);
                return Failure::new(Code::Interrupted, format!("task {id} is {}: {why}", task.status));
            }
            Err(error) if error.code() == pilot_wire::ipc::Code::Timeout => {}
            Err(error) => return error.into(),
        }
    }
}

enum Ran {
    Done { stdout: Vec<u8> },
    Failed { reason: String },
}

async fn execute(line: &str, task: &Task, out: &Path) -> io::Result<Ran> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", line])
        .env("PILOT_TASK_ID", task.task_id.as_str())
        .env("PILOT_TASK_FROM", task.from.to_string())
        .env("PILOT_TASK_OUT", out)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (stdout, stderr) = talk(&mut child, task.description.as_bytes()).await?;
    if stdout.len() as u64 > OUTPUT_MAX {
        let reason = "the worker's program printed more than 64 MiB".to_owned();
        return Ok(Ran::Failed { reason });
    }
    let status = child.wait().await?;
    if status.success() {
        return Ok(Ran::Done { stdout });
    }
    let words = String::from_utf8_lossy(&stderr);
    let words = words.trim();
    let from = words.len().saturating_sub(LAST_WORDS);
    let from = (from..=words.len()).find(|at| words.is_char_boundary(*at)).unwrap_or(0);
    Ok(Ran::Failed { reason: format!("{status}: {}", &words[from..]) })
}

/// Feeds the program and takes what it says, all at once: neither side waits for the other.
async fn talk(child: &mut Child, input: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feeding = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its task has closed the pipe, which is its own affair.
            let _ = stdin.write_all(input).await;
        }
    };
    let hearing = async {
        let mut bytes = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(OUTPUT_MAX + 1).read_to_end(&mut bytes).await?;
        }
        io::Result::Ok(bytes)
    };
    let minding = async {
        let mut bytes = Vec::new();
        if let Some(stderr) = stderr {
            stderr.take(OUTPUT_MAX).read_to_end(&mut bytes).await?;
        }
        io::Result::Ok(bytes)
    };
    let ((), stdout, stderr) = tokio::join!(feeding, hearing, minding);
    Ok((stdout?, stderr?))
}

/// A folder for the files of one result; removed with it.
struct Out(PathBuf);

impl Out {
    fn make(id: &TaskId) -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("pilot-task-{id}-{}", std::process::id()));
        // A folder that somebody else made beforehand is not used.
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| Failure::io(format!("making {}", path.display()), &error))?;
        Ok(Self(path))
    }

    fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        let unreadable = |error: io::Error| Failure::io("reading the program's files", &error);
        let mut files = Vec::new();
        for file in std::fs::read_dir(&self.0).map_err(unreadable)? {
            let file = file.map_err(unreadable)?;
            // What a link leads to is not the program's result.
            if file.file_type().map_err(unreadable)?.is_file() {
                files.push(file.path());
            }
        }
        files.sort();
        Ok(files)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).map_err(|error| Failure::io("keeping the program's output", &error))?;
        Ok(path)
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // What is left lies in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
