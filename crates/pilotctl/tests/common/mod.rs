//! Real processes in a temporary place: a rendezvous, agents with daemons, and lines run on them.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on stops, and says why")]

pub(crate) mod mcp;
pub(crate) mod tour;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use pilot_ports::Ports;
use serde_json::Value;

pub(crate) const PILOTCTL: &str = env!("CARGO_BIN_EXE_pilotctl");

/// The token of the operator of the rendezvous.
pub(crate) const OPERATOR: &str = "operator-token";

/// A rendezvous and the temporary directory of everything around it.
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    rendezvous: Option<Running>,
    pub(crate) registry: String,
    pub(crate) beacon: String,
    _ports: Ports,
}

/// A rendezvous beside that of the world.
pub(crate) struct Rendezvous {
    running: Option<Running>,
    home: PathBuf,
    pub(crate) registry: String,
    pub(crate) beacon: String,
    /// Of its registry's certificate.
    pub(crate) fingerprint: String,
    /// Where its pages are, and where the beacon is on the web.
    pub(crate) pages: String,
    pub(crate) web: String,
    _ports: Ports,
}

impl Rendezvous {
    pub(crate) fn start(home: PathBuf, more: &[&str]) -> Self {
        let ports = Ports::reserve();
        let mut rendezvous = Self {
            running: None,
            home,
            registry: ports.registry().to_string(),
            beacon: ports.beacon().to_string(),
            fingerprint: String::new(),
            pages: String::new(),
            web: String::new(),
            _ports: ports,
        };
        rendezvous.restart(more);
        rendezvous
    }

    /// At the same addresses, with what is on disk.
    pub(crate) fn restart(&mut self, more: &[&str]) {
        let words = ["rendezvous", "run", "--json", "--registry-addr", &self.registry];
        let words = [&words[..], &["--beacon-addr", &self.beacon], more].concat();
        let mut command = command(&self.home, &self.home.join("sock"), &words);
        command.stderr(log(&self.home));
        let mut running = Running::start(command);
        let ready = running.json_line();
        assert_eq!(ready["status"], "ok", "{ready}");
        let text = |name: &str| ready["data"][name].as_str().unwrap().to_owned();
        (self.pages, self.web) = (text("http_addr"), text("web_addr"));
        self.fingerprint = text("registry_fingerprint");
        self.running = Some(running);
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    /// Its process does nothing any more, and nobody is told.
    pub(crate) fn freeze(&self) {
        let pid = self.running.as_ref().unwrap().pid().to_string();
        assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.running.as_ref().unwrap().pid()
    }

    /// It makes another certificate at its next start.
    pub(crate) fn lose_certificate(&self) {
        std::fs::remove_file(self.home.join("registry-cert.der")).unwrap();
    }
}

/// One machine: its own state, its own socket, perhaps a daemon.
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
    pub(crate) socket: PathBuf,
    registry: String,
    beacon: String,
    daemon: Option<Running>,
    env: Vec<(String, String)>,
    /// What the line of the daemon is run by.
    wrapper: Vec<String>,
}

/// A process that is killed when the test is over.
pub(crate) struct Running {
    child: Child,
    stdout: Option<BufReader<std::process::ChildStdout>>,
    stdin: Option<ChildStdin>,
}

/// How long a line in the background may take to end by itself when everything it waited for has happened.
const GOES_ON: std::time::Duration = std::time::Duration::from_secs(2);

/// What a line said and how it ended.
pub(crate) struct Done {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        // Short: the path of a socket may have about a hundred characters.
        let directory = tempfile::Builder::new().prefix("pilot").tempdir_in("/tmp").unwrap();
        let ports = Ports::reserve();
        let (registry, beacon) = (ports.registry().to_string(), ports.beacon().to_string());
        let mut world = World { directory, rendezvous: None, registry, beacon, _ports: ports };
        world.start_rendezvous();
        world
    }

    fn start_rendezvous(&mut self) {
        let (registry, beacon) = (&self.registry, &self.beacon);
        let home = self.directory.path().join("rendezvous");
        let words = ["rendezvous", "run", "--json", "--registry-addr", registry, "--beacon-addr", beacon];
        let mut command = command(&home, &home.join("sock"), &words);
        command.env("PILOT_ADMIN_TOKEN", OPERATOR).stderr(log(&home));
        let mut running = Running::start(command);
        let ready = running.json_line();
        assert_eq!(ready["status"], "ok", "{ready}");
        self.rendezvous = Some(running);
    }

    /// `kill -9`, as a power failure would do.
    pub(crate) fn kill_rendezvous(&mut self) {
        self.rendezvous = None;
    }

    /// At the same addresses, with the same store.
    pub(crate) fn restart_rendezvous(&mut self) {
        self.start_rendezvous();
    }

    /// A machine without a daemon yet.
    pub(crate) fn machine(&self, name: &str) -> Agent {
        Agent {
            name: name.to_owned(),
            home: self.directory.path().join(name),
            socket: self.directory.path().join(format!("{name}.sock")),
            registry: self.registry.clone(),
            beacon: self.beacon.clone(),
            daemon: None,
            env: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// A machine with a daemon that has registered under its name.
    pub(crate) fn agent(&self, name: &str) -> Agent {
        let mut agent = self.machine(name);
        agent.start(&[]);
        agent
    }

    /// Two agents that trust each other.
    pub(crate) fn friends(&self) -> (Agent, Agent) {
        let (a, b) = (self.agent("agent-a"), self.agent("agent-b"));
        befriend(&a, &b);
        (a, b)
    }
}

/// A test that fails shows what the processes logged.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in std::fs::read_dir(self.directory.path()).into_iter().flatten().flatten() {
            let path = entry.path().join(LOG);
            if let Ok(text) = std::fs::read_to_string(&path) {
                eprintln!("--- {}\n{text}", path.display());
            }
        }
    }
}

/// Where the processes of a test log, in their state directory.
const LOG: &str = "test.log";

fn log(home: &Path) -> std::fs::File {
    std::fs::create_dir_all(home).unwrap();
    std::fs::OpenOptions::new().create(true).append(true).open(home.join(LOG)).unwrap()
}

/// `from` asks, `to` approves; returns when both know it.
pub(crate) fn befriend(from: &Agent, to: &Agent) {
    let asking = from.spawn(&["handshake", &to.address(), "for the test", "--wait=20s"]);
    to.ok(&["pending", "--wait=20s"]);
    to.ok(&["approve", &from.address()]);
    let asked = asking.finish();
    assert_eq!(asked.status, 0, "{asked:?}");
}

impl Agent {
    /// Starts its daemon and returns when it is ready, whether the registry can be reached or not.
    pub(crate) fn start_anyhow(&mut self) {
        self.launch(&[]);
    }

    /// Where its daemon registers from its next start on.
    pub(crate) fn set_registry(&mut self, registry: &str, beacon: &str) {
        (self.registry, self.beacon) = (registry.to_owned(), beacon.to_owned());
    }

    /// For its processes from now on.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Its daemon is started by these words, which end in running the words behind them.
    pub(crate) fn run_daemon_by(&mut self, words: &[&str]) {
        self.wrapper = words.iter().map(|&word| word.to_owned()).collect();
    }

    /// The process of its daemon.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().pid()
    }

    /// Starts its daemon and returns when it is ready.
    pub(crate) fn start(&mut self, more: &[&str]) {
        let ready = self.launch(more);
        assert_eq!(ready["data"]["registered"], true, "{ready}");
    }

    /// What its daemon says when it is ready, whether it is registered by then or not.
    pub(crate) fn start_and_tell(&mut self, more: &[&str]) -> Value {
        self.launch(more)["data"].clone()
    }

    fn launch(&mut self, more: &[&str]) -> Value {
        let (registry, beacon, name) = (self.registry.clone(), self.beacon.clone(), self.name.clone());
        let words = ["daemon", "run", "--json", "--registry", &registry, "--beacon", &beacon];
        // A machine without a name takes the one that it remembers.
        let named = if name.is_empty() { &[][..] } else { &["--hostname", &name][..] };
        let words = [&words[..], named, &["--listen", "127.0.0.1:0"], more].concat();
        let mut command = self.command(&words);
        if let Some((first, more)) = self.wrapper.split_first() {
            command = wrapped(&command, first, more);
        }
        command.stderr(log(&self.home));
        let mut running = Running::start(command);
        let ready = running.json_line();
        assert_eq!(ready["status"], "ok", "{ready}");
        self.daemon = Some(running);
        ready
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.daemon = None;
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = command(&self.home, &self.socket, words);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a line to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Done {
        self.spawn(words).finish()
    }

    /// Runs a line with something on stdin.
    pub(crate) fn pipe(&self, words: &[&str], input: &[u8]) -> Done {
        let mut running = self.spawn_piped(words);
        let mut stdin = running.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let done = running.finish();
        writer.join().unwrap();
        done
    }

    /// Runs a line that must succeed; its stdout.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let done = self.run(words);
        assert_eq!(done.status, 0, "{} {words:?}: {done:?}", self.name);
        done.text()
    }

    /// The `data` of a line that must succeed.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let done = self.run(&[words, &["--json"]].concat());
        let document = done.json();
        assert_eq!((done.status, document["status"].as_str()), (0, Some("ok")), "{words:?}: {done:?}");
        document["data"].clone()
    }

    /// Starts a line that goes on.
    pub(crate) fn spawn(&self, words: &[&str]) -> Running {
        let mut command = self.command(words);
        command.stdin(Stdio::null());
        Running::start(command)
    }

    pub(crate) fn spawn_piped(&self, words: &[&str]) -> Running {
        Running::start(self.command(words))
    }

    /// Starts a line and returns when it says `ready` on stderr.
    pub(crate) fn spawn_until(&self, words: &[&str], ready: &str) -> Running {
        let mut command = self.command(words);
        command.stdin(Stdio::null());
        Running::start_until(command, &[ready])
    }

    pub(crate) fn address(&self) -> String {
        self.json(&["info"])["address"].as_str().unwrap().to_owned()
    }
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        let stdin = child.stdin.take();
        Running { child, stdout, stdin }
    }

    /// Starts a process and returns when it says one of `ready` on stderr.
    pub(crate) fn start_until(command: Command, ready: &[&str]) -> Self {
        let shown = format!("{command:?}");
        let mut running = Running::start(command);
        let mut stderr = BufReader::new(running.child.stderr.take().unwrap());
        let mut line = String::new();
        while !ready.iter().any(|word| line.contains(word)) {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "{shown} ended before it said {ready:?}");
        }
        // Drained from now on, so that the process never waits for us.
        std::thread::spawn(move || drop(stderr.read_to_end(&mut Vec::new())));
        running
    }

    /// The next line of stdout, as JSON.
    pub(crate) fn json_line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("`{line}` is not JSON: {e}"))
    }

    /// What it prints from now on, for somebody else to read.
    pub(crate) fn take_stdout(&mut self) -> BufReader<std::process::ChildStdout> {
        self.stdout.take().unwrap()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// For somebody else to write to.
    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().unwrap()
    }

    /// Its exit status, once it has ended.
    pub(crate) fn status(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Done {
        drop(self.stdin.take());
        let stderr = self.child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut text = String::new();
                drop(stderr.read_to_string(&mut text));
                text
            })
        });
        let mut stdout = Vec::new();
        self.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        let status = self.child.wait().unwrap();
        let stderr = stderr.map(|thread| thread.join().unwrap()).unwrap_or_default();
        Done { status: status.code().unwrap_or(-1), stdout, stderr }
    }

    /// Waits for its end; one that goes on after a while is sent Ctrl-C.
    pub(crate) fn finish_or_interrupt(self) -> Done {
        let pid = self.pid();
        let (ended, waits) = std::sync::mpsc::channel::<()>();
        let interrupt = std::thread::spawn(move || {
            if waits.recv_timeout(GOES_ON).is_err() {
                drop(Command::new("kill").args(["-INT", &pid.to_string()]).status());
            }
        });
        let done = self.finish();
        let _ = ended.send(());
        interrupt.join().unwrap();
        done
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout);
        let shown: String = stdout.chars().take(2000).collect();
        write!(f, "exit {}\n--- stdout\n{shown}\n--- stderr\n{}", self.status, self.stderr)
    }
}

impl Done {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// The one JSON document on stdout.
    pub(crate) fn json(&self) -> Value {
        let text = self.text();
        assert_eq!(text.lines().count(), 1, "not one line: {self:?}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// A line with nothing of the tester's own settings around it.
pub(crate) fn command(home: &Path, socket: &Path, words: &[&str]) -> Command {
    std::fs::create_dir_all(home).unwrap();
    let mut command = Command::new(PILOTCTL);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PILOT_")) {
        command.env_remove(name);
    }
    command
        .args(words)
        .current_dir(home)
        .env("HOME", home)
        .env("PILOT_HOME", home)
        .env("PILOT_SOCKET", socket)
        // A machine under load is no reason to say that a message is queued.
        .env("PILOT_SEND_PATIENCE", "2s")
        .env_remove("NO_COLOR")
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The same line, run by another program.
fn wrapped(line: &Command, by: &str, words: &[String]) -> Command {
    let mut command = Command::new(by);
    command.args(words).arg(line.get_program()).args(line.get_args());
    for (name, value) in line.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(directory) = line.get_current_dir() {
        command.current_dir(directory);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Bytes without a short period.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
