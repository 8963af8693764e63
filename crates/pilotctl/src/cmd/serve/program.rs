//! One run of the program that answers a request.

use std::fmt;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use pilot_client::{Incoming, MessageKind, Outgoing};
use pilot_wire::ipc;
use pilot_wire::serving::Why;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::failure::Failure;
use crate::{duration, humane};

/// Bytes read of the program's output at a time.
const READ: usize = 16 << 10;

/// Bytes of the end of stderr that make the reason of a failure.
const REASON: usize = 2 << 10;

/// How long a program may take to end by itself when it is told to.
const GRACE: Duration = Duration::from_secs(2);

/// What is run for each request.
pub(super) struct Program {
    pub(super) line: String,
    pub(super) stream: bool,
    pub(super) kind: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) max_output: usize,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Ended {
    Answered {
        bytes: usize,
    },
    Failed {
        reason: String,
    },
    /// It was not to be worked at any more.
    Stopped {
        reason: &'static str,
    },
    /// Given back, for somebody else.
    Released,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { bytes } => write!(f, "answered with {}", humane::bytes(*bytes as u64)),
            Self::Failed { reason } => write!(f, "failed: {}", humane::preview(reason.trim_end(), 200)),
            Self::Stopped { reason } => write!(f, "stopped: {reason}"),
            Self::Released => f.write_str("given back"),
        }
    }
}

/// How a run of the program ended.
enum Run {
    /// By itself.
    Output(Vec<u8>),
    Failed(String),
    Withdrawn(Why),
    Hurried,
}

impl Program {
    /// Runs the program on a request, and answers it.
    pub(super) async fn answer(
        &self,
        mut incoming: Incoming,
        mut hurried: watch::Receiver<bool>,
    ) -> Result<Ended, Failure> {
        let failed = |reason: String| Run::Failed(reason);
        let run = match self.start(&incoming) {
            Err(error) => failed(format!("the program cannot be started: {error}")),
            Ok(mut child) => {
                let run = self.watch(&mut child, &mut incoming, &mut hurried).await;
                end(&mut child).await;
                run
            }
        };
        let ended = match run {
            Run::Withdrawn(why) => return Ok(Ended::Stopped { reason: why.text() }),
            Run::Hurried => return incoming.release().await.map(|()| Ended::Released).map_err(Failure::from),
            Run::Failed(reason) => (incoming.fail(reason.clone()).await, Ended::Failed { reason }),
            Run::Output(output) => match self.outgoing(&incoming.message().kind, output) {
                Ok(answer) => {
                    let bytes = answer.data.len();
                    (incoming.answer(answer).await, Ended::Answered { bytes })
                }
                Err(reason) => (incoming.fail(reason.clone()).await, Ended::Failed { reason }),
            },
        };
        match ended {
            (Ok(_), ended) => Ok(ended),
            // Taken back, or answered by somebody, in the moment of the answer.
            (Err(error), _) if error.code() == ipc::Code::Cancelled => {
                Ok(Ended::Stopped { reason: Why::Cancelled.text() })
            }
            (Err(error), _) if [ipc::Code::AlreadyExists, ipc::Code::NotFound].contains(&error.code()) => {
                Ok(Ended::Stopped { reason: Why::Answered.text() })
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    fn start(&self, incoming: &Incoming) -> io::Result<Child> {
        let message = incoming.message();
        let left = incoming.deadline().saturating_duration_since(Instant::now());
        let mut command = Command::new("sh");
        command
            .args(["-c", &self.line])
            .env("PILOT_FROM", message.from.to_string())
            .env("PILOT_FROM_HOSTNAME", humane::printable(message.from_hostname.as_deref().unwrap_or("")))
            .env("PILOT_MESSAGE_ID", message.message_id.as_ref().map_or("", |id| id.as_str()))
            .env("PILOT_TYPE", message.kind.to_lowercase())
            .env("PILOT_DEADLINE_MS", left.as_millis().to_string())
            .env("PILOT_HOPS", incoming.hops().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: it is ended with all its children, and not by the terminal's Ctrl-C.
            .process_group(0)
            .kill_on_drop(true);
        command.spawn()
    }

    async fn watch(
        &self,
        child: &mut Child,
        incoming: &mut Incoming,
        hurried: &mut watch::Receiver<bool>,
    ) -> Run {
        let body = match incoming.body() {
            Ok(body) => body,
            Err(error) => return Run::Failed(error.to_string()),
        };
        let began = Instant::now();
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // A program that does not read its input is free to do so.
        let fed = async {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(&body).await;
            }
        };
        let reason = async {
            let mut end = Vec::new();
            if let Some(mut stderr) = stderr {
                let mut buffer = vec![0; READ];
                while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
                    end.extend_from_slice(&buffer[..count]);
                    end.drain(..end.len().saturating_sub(REASON));
                }
            }
            String::from_utf8_lossy(&end).trim().to_owned()
        };
        let limit = self.timeout.map(|timeout| began + timeout);
        let over = async {
            match limit {
                Some(limit) => sleep_until(limit).await,
                None => std::future::pending().await,
            }
        };
        let withdrawn = incoming.withdrawal();
        let work = async {
            let (output, reason, ()) = tokio::join!(self.read(stdout, incoming), reason, fed);
            let output = output?;
            let status = child.wait().await.map_err(|error| Run::Failed(error.to_string()))?;
            match (status.success(), reason.as_str()) {
                (true, _) => Ok(output),
                (false, "") => Err(Run::Failed(format!("the program ended with {status}"))),
                (false, reason) => Err(Run::Failed(reason.to_owned())),
            }
        };
        tokio::select! {
            biased;
            why = withdrawn => Run::Withdrawn(why),
            () = over => {
                let limit = duration::show(self.timeout.unwrap_or_default());
                Run::Failed(format!("the program took longer than {limit}"))
            }
            done = work => done.map_or_else(|run| run, Run::Output),
            Ok(_) = hurried.wait_for(|hurried| *hurried) => Run::Hurried,
        }
    }

    /// The whole output, without the line break at its very end; piece by piece to the requester if that is wanted.
    async fn read(&self, stdout: Option<ChildStdout>, incoming: &mut Incoming) -> Result<Vec<u8>, Run> {
        let Some(mut stdout) = stdout else { return Ok(Vec::new()) };
        let (mut output, mut sent) = (Vec::new(), 0);
        let mut buffer = vec![0; READ];
        loop {
            let count = stdout.read(&mut buffer).await.map_err(|error| Run::Failed(error.to_string()))?;
            if count == 0 {
                break;
            }
            output.extend_from_slice(&buffer[..count]);
            if output.len() > self.max_output {
                let limit = humane::bytes(self.max_output as u64);
                return Err(Run::Failed(format!("the program wrote more than {limit}")));
            }
            // A line break at the end may be the last byte, which is no part of the answer.
            let ready = output.len() - usize::from(output.last() == Some(&b'\n'));
            if self.stream && incoming.wants_parts() && ready > sent {
                match incoming.part(&output[sent..ready]).await {
                    Ok(()) => sent = ready,
                    Err(error) if error.code() == ipc::Code::Cancelled => {
                        return Err(Run::Withdrawn(incoming.cancelled().await));
                    }
                    Err(error) => return Err(Run::Failed(error.to_string())),
                }
            }
        }
        if output.last() == Some(&b'\n') {
            output.pop();
        }
        Ok(output)
    }

    fn outgoing(&self, request: &str, output: Vec<u8>) -> Result<Outgoing, String> {
        let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(&output);
        let is_text = std::str::from_utf8(&output).is_ok();
        let kind = match self.kind.as_deref() {
            Some("json") => match is_json() {
                Ok(_) => MessageKind::Json,
                Err(error) => return Err(format!("the program's output is not JSON: {error}")),
            },
            Some("binary") => MessageKind::Binary,
            Some(_) if !is_text => return Err("the program's output is not UTF-8 text".to_owned()),
            Some(_) => MessageKind::Text,
            None if request == "JSON" && is_json().is_ok() => MessageKind::Json,
            None if is_text => MessageKind::Text,
            None => MessageKind::Binary,
        };
        Ok(Outgoing::new(kind, output))
    }
}

/// Ends the program and all its children: asked first, then forced.
async fn end(child: &mut Child) {
    let Some(group) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) else {
        // It has ended, and was asked after.
        return;
    };
    // It fails when nobody is left in the group.
    let _ = kill_process_group(group, Signal::TERM);
    tokio::select! {
        _ = child.wait() => {}
        () = sleep(GRACE) => {}
    }
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait().await;
}
