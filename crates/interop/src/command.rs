//! The two command lines, ours and the reference's, and what they answer.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as System, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest time that one command may take before it is ended and the test fails.
const COMMAND_PATIENCE: Duration = Duration::from_secs(120);

/// Whose programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Built from this workspace.
    Ours,
    /// The released reference, from its package.
    Reference,
}

impl Program {
    /// The command line.
    pub fn pilotctl(self) -> PathBuf {
        match self {
            Self::Ours => ours(),
            Self::Reference => reference_programs().join("pilotctl"),
        }
    }
}

/// The executable beside the one that runs, or beside the folder of the test that runs, built by
/// `cargo build -p pilotctl`.
fn ours() -> PathBuf {
    let running = env::current_exe().expect("a program knows its own path");
    // A test lies in target/<profile>/deps, a benchmark in target/<profile>.
    let places = running.ancestors().skip(1).take(2).map(|folder| folder.join("pilotctl"));
    let found = places.clone().find(|path| path.is_file());
    found.unwrap_or_else(|| {
        let places: Vec<_> = places.collect();
        panic!("no pilotctl at {places:?}: run the tests with `cargo xtask interop` or `cargo xtask lab`")
    })
}

/// The virtual environment with the reference's package.
pub(crate) fn reference() -> PathBuf {
    let path = env::var_os("PILOT_REFERENCE").map(PathBuf::from);
    path.expect("PILOT_REFERENCE names the virtual environment: run the tests with `cargo xtask interop`")
}

/// The folder with the reference's executables.
pub(crate) fn reference_programs() -> PathBuf {
    let lib = reference().join("lib");
    let versions = lib.read_dir().unwrap_or_else(|error| panic!("{}: {error}", lib.display()));
    versions
        .filter_map(Result::ok)
        .map(|version| version.path().join("site-packages/pilotprotocol/bin"))
        .find(|programs| programs.is_dir())
        .unwrap_or_else(|| panic!("no pilotprotocol in {}", lib.display()))
}

/// Gives a program its own home, and nobody outside to talk to.
pub fn isolate(command: &mut System, home: &Path, socket: &Path, registry: &str) {
    command
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("PILOT_SOCKET", socket)
        .env("PILOT_SEND_PATIENCE", "2s")
        .env("PILOT_REGISTRY", registry)
        .env("PILOT_NO_SKILLINJECT", "1")
        .env("PILOT_TELEMETRY_URL", "")
        .env("PILOT_MOTD_URL", "")
        .env("PILOT_APPSTORE_CATALOG_URL", "http://127.0.0.1:9/x");
}

/// What a command says when it fails.
#[derive(Debug)]
pub struct Failed {
    /// The exit code.
    pub status: Option<i32>,
    /// The error document, or null when there was none.
    pub document: Value,
    /// Everything it printed.
    pub output: String,
}

impl Failed {
    /// The `code` of the error document.
    pub fn code(&self) -> &str {
        self.document["code"].as_str().unwrap_or_default()
    }
}

/// A command that was started. It is ended if nobody asks for its result.
#[derive(Debug)]
pub struct Command {
    child: Option<Child>,
    words: String,
}

impl Command {
    /// Starts `program` with `--json` before the words, and `input` on its standard input.
    pub(crate) fn start(
        program: Program,
        words: &[&str],
        input: Option<&[u8]>,
        home: &Path,
        socket: &Path,
        registry: &str,
    ) -> Self {
        let mut command = System::new(program.pilotctl());
        isolate(&mut command, home, socket, registry);
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.arg("--json").args(words).current_dir(home).stdin(stdin);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            let input = input.to_owned();
            // The command may end before it has read everything; what it says then is looked at, not the pipe.
            std::thread::spawn(move || stdin.write_all(&input).is_ok());
        }
        Self { child: Some(child), words: format!("{program:?} pilotctl {}", words.join(" ")) }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// Waits for its end: the `data` of a success, or how it failed.
    ///
    /// # Errors
    /// When it exits with another code than 0.
    pub fn result(mut self) -> Result<Value, Failed> {
        let child = self.child.take().expect("a command has one result");
        let output = wait(child, &self.words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        // Some commands of the reference print more than one document; the first is the result.
        let mut documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let document = documents.next().and_then(Result::ok).unwrap_or(Value::Null);
        if output.status.success() {
            assert_eq!(document["status"], "ok", "{}: {text}{errors}", self.words);
            return Ok(document["data"].clone());
        }
        // The reference writes its error document to standard error.
        let last = errors.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        let document = if document.is_null() { last.unwrap_or(Value::Null) } else { document };
        Err(Failed { status: output.status.code(), document, output: text + &errors })
    }

    /// Waits for its end, which must be a success.
    #[track_caller]
    pub fn data(self) -> Value {
        let words = self.words.clone();
        self.result().unwrap_or_else(|failed| panic!("{words}: {failed:?}"))
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait(mut child: Child, words: &str) -> std::process::Output {
    let mut stdout = child.stdout.take().expect("the output is a pipe");
    let mut stderr = child.stderr.take().expect("the output is a pipe");
    let read_output = std::thread::spawn(move || read_all(&mut stdout));
    let read_errors = std::thread::spawn(move || read_all(&mut stderr));
    let deadline = Instant::now() + COMMAND_PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{words} did not end within {COMMAND_PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let stdout = read_output.join().expect("reading does not panic");
    let stderr = read_errors.join().expect("reading does not panic");
    std::process::Output { status, stdout, stderr }
}

fn read_all(pipe: &mut impl std::io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A pipe that breaks has given what it had.
    let _ = pipe.read_to_end(&mut bytes);
    bytes
}
