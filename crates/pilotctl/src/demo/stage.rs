//! The place where the demo is played: a temporary directory, an environment for each agent, and the running of
//! one line after the other, shown with what it printed and how long it took.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::failure::{Code, Failure};
use crate::output::{self, Format};
use crate::{duration, style};

/// No line of the demo takes longer on the slowest machine; one that does is reported as stuck.
const LINE_MAX: Duration = Duration::from_secs(60);

/// One machine of the story: its own state and its own socket.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) name: &'static str,
    pub(crate) home: PathBuf,
    socket: PathBuf,
}

/// A line that was run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    agent: &'static str,
    command: String,
    output: String,
    ms: f64,
}

/// What was found true after some lines.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Entry {
    Title { step: String },
    Line(Line),
    Check { checked: String },
}

/// The stage, and the record of what was played on it.
pub(crate) struct Stage {
    format: Format,
    executable: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) record: Vec<Entry>,
}

/// A line that goes on while others are run.
pub(crate) struct Background {
    agent: &'static str,
    command: String,
    child: Child,
    begin: Instant,
    /// Kept open, so that the process can always write to it.
    stderr: Option<tokio::io::Lines<BufReader<tokio::process::ChildStderr>>>,
}

impl Stage {
    pub(crate) fn new(format: Format) -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt;
        let executable = std::env::current_exe().map_err(|e| Failure::io("finding this executable", &e))?;
        let name = format!("pilot-demo-{}", std::process::id());
        // Short, because the path of a socket may have about a hundred characters.
        let directory = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(|e| Failure::io(format!("making {}", directory.display()), &e))?;
        Ok(Stage { format, executable, directory, record: Vec::new() })
    }

    pub(crate) fn agent(&self, name: &'static str) -> Agent {
        let home = self.directory.join(name);
        Agent { name, socket: self.directory.join(format!("{name}.sock")), home }
    }

    /// The next chapter.
    pub(crate) fn title(&mut self, text: &str) {
        self.show(&format!("\n{}", style::strong(text)));
        self.record.push(Entry::Title { step: text.to_owned() });
    }

    /// Something that was compared and found true.
    pub(crate) fn checked(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.show(&format!("  {} {text}", style::good("✓")));
        self.record.push(Entry::Check { checked: text });
    }

    /// Runs a line to its end, shows it, and returns its stdout.
    pub(crate) async fn run(&mut self, agent: &Agent, words: &[&str]) -> Result<String, Failure> {
        let begin = Instant::now();
        let child = self.spawn(agent, words, Stdio::null())?;
        let command = shown(words);
        let output = finished(agent.name, &command, child).await?;
        self.line(agent.name, command, output, begin.elapsed())
    }

    /// Runs a line with `input` on its stdin; its output is returned and not shown.
    pub(crate) async fn pipe(
        &mut self,
        agent: &Agent,
        words: &[&str],
        input: Vec<u8>,
        how: &str,
    ) -> Result<Vec<u8>, Failure> {
        let begin = Instant::now();
        let mut child = self.spawn(agent, words, Stdio::piped())?;
        let command = format!("{how} {}", shown(words));
        let stdin = child.stdin.take();
        let writer = tokio::spawn(async move {
            if let Some(mut stdin) = stdin {
                // A process that ended early is noticed by its exit status.
                drop(stdin.write_all(&input).await);
            }
        });
        let output = finished(agent.name, &command, child).await?;
        drop(writer.await);
        let took = begin.elapsed();
        let summary = format!("({} bytes)", output.len());
        self.line(agent.name, command, summary.into_bytes(), took)?;
        Ok(output)
    }

    /// Runs a line silently and returns the `data` of its JSON document: for checks.
    pub(crate) async fn ask(&self, agent: &Agent, words: &[&str]) -> Result<Value, Failure> {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let child = self.spawn(agent, &words, Stdio::null())?;
        let output = finished(agent.name, &shown(&words), child).await?;
        let document: Value = serde_json::from_slice(&output)
            .map_err(|e| Failure::internal(format!("`{}` did not print JSON: {e}", shown(&words))))?;
        Ok(document["data"].clone())
    }

    /// Starts a line that goes on. If `ready` is given, returns when the line has said that on stderr.
    pub(crate) async fn background(
        &mut self,
        agent: &Agent,
        words: &[&str],
        ready: Option<&str>,
    ) -> Result<Background, Failure> {
        let begin = Instant::now();
        let mut child = self.spawn(agent, words, Stdio::null())?;
        let stderr = child.stderr.take().map(|stderr| BufReader::new(stderr).lines());
        let command = shown(words);
        self.show(&format!("  {}", style::faint(format!("{}$ {command} &", agent.name))));
        let mut running = Background { agent: agent.name, command, child, begin, stderr };
        if let Some(ready) = ready {
            running.until(ready).await?;
        }
        Ok(running)
    }

    /// Waits for the end of a line in the background, shows it, and returns its stdout.
    pub(crate) async fn finish(&mut self, running: Background) -> Result<String, Failure> {
        let Background { agent, command, mut child, begin, stderr } = running;
        let rest = tokio::spawn(async move {
            let mut said = Vec::new();
            if let Some(mut stderr) = stderr {
                while let Ok(Some(line)) = stderr.next_line().await {
                    said.push(line);
                }
            }
            said.join("\n")
        });
        let mut output = Vec::new();
        let reading = async {
            if let Some(stdout) = &mut child.stdout {
                stdout.read_to_end(&mut output).await?;
            }
            child.wait().await
        };
        let status = tokio::time::timeout(LINE_MAX, reading).await.map_err(|_| stuck(agent, &command))?;
        let status = status.map_err(|e| Failure::io(format!("running `{command}`"), &e))?;
        let said = rest.await.unwrap_or_default();
        if !status.success() {
            return Err(failed(agent, &command, &said, status));
        }
        self.line(agent, command, output, begin.elapsed())
    }

    fn spawn(&self, agent: &Agent, words: &[&str], stdin: Stdio) -> Result<Child, Failure> {
        let mut command = Command::new(&self.executable);
        // Nothing of the user's own Pilot may reach into the demo, nor the demo into it.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PILOT_"))
        {
            command.env_remove(name);
        }
        command
            .args(words)
            .current_dir(&self.directory)
            .env("HOME", &agent.home)
            .env("PILOT_HOME", &agent.home)
            .env("PILOT_SOCKET", &agent.socket)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the demo, which then ends everything in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Failure::io("starting pilotctl", &e))
    }

    fn line(
        &mut self,
        agent: &'static str,
        command: String,
        output: Vec<u8>,
        took: Duration,
    ) -> Result<String, Failure> {
        let output = String::from_utf8(output)
            .map_err(|_| Failure::internal(format!("`{command}` printed something that is not text")))?;
        self.show(&format!(
            "  {} {}",
            style::strong(format!("{agent}$ {command}")),
            style::faint(format!("({})", duration::show(took)))
        ));
        for text in output.lines() {
            self.show(&format!("    {text}"));
        }
        let ms = took.as_secs_f64() * 1e3;
        self.record.push(Entry::Line(Line { agent, command, output: output.clone(), ms }));
        Ok(output)
    }

    fn show(&self, text: &str) {
        if self.format == Format::Text {
            // The demo goes on when nobody listens any more, so that it cleans up.
            drop(output::item(self.format, &Text(text)));
        }
    }

    /// Removes the directory with everything in it.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        std::fs::remove_dir_all(&self.directory)
            .map_err(|e| Failure::io(format!("removing {}", self.directory.display()), &e))
    }
}

#[derive(Serialize)]
struct Text<'a>(&'a str);

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl Background {
    async fn until(&mut self, ready: &str) -> Result<(), Failure> {
        let mut said = Vec::new();
        let waiting = async {
            let Some(stderr) = &mut self.stderr else { return false };
            while let Ok(Some(line)) = stderr.next_line().await {
                let found = line.contains(ready);
                said.push(line);
                if found {
                    return true;
                }
            }
            false
        };
        match tokio::time::timeout(LINE_MAX, waiting).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let status = self.child.wait().await.map_err(|e| Failure::io("waiting for pilotctl", &e))?;
                Err(failed(self.agent, &self.command, &said.join("\n"), status))
            }
            Err(_) => Err(stuck(self.agent, &self.command)),
        }
    }
}

async fn finished(agent: &str, command: &str, child: Child) -> Result<Vec<u8>, Failure> {
    let output =
        tokio::time::timeout(LINE_MAX, child.wait_with_output()).await.map_err(|_| stuck(agent, command))?;
    let output = output.map_err(|e| Failure::io(format!("running `{command}`"), &e))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    Err(failed(agent, command, said.trim(), output.status))
}

fn failed(agent: &str, command: &str, said: &str, status: std::process::ExitStatus) -> Failure {
    let indented = said.replace('\n', "\n    ");
    Failure::internal(format!("{agent}$ {command}\n    {indented}\n  ended with {status}"))
        .hint("`pilotctl demo --keep` leaves the logs for a look")
}

fn stuck(agent: &str, command: &str) -> Failure {
    Failure::new(
        Code::Timeout,
        format!("{agent}$ {command}\n  did not end within {}", duration::show(LINE_MAX)),
    )
}

/// A line as one would type it.
fn shown(words: &[&str]) -> String {
    let quote = |word: &&str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,".contains(&b);
        if !word.is_empty() && word.bytes().all(plain) { (*word).to_owned() } else { format!("'{word}'") }
    };
    format!("pilotctl {}", words.iter().map(quote).collect::<Vec<_>>().join(" "))
}

/// Reads a file that some line of the demo has written.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::io(format!("reading {}", path.display()), &e))
}
