//! One node of the stage: a daemon and the command lines that drive it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as System;

use serde_json::Value;

use crate::command::{Command, Failed, Program, isolate, reference, reference_programs};
use crate::process::Process;
use crate::until;

/// Where a node lives and whom it asks.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its home is made in here.
    pub folder: &'a Path,
    /// Address of the registry.
    pub registry: &'a str,
    /// Address of the beacon.
    pub beacon: &'a str,
    /// Where it listens for tunnels.
    pub listen: &'a str,
    /// What else its daemon finds in its environment.
    pub environment: &'a [(&'a str, &'a str)],
}

/// A daemon with its home.
#[derive(Debug)]
pub struct Node {
    program: Program,
    name: String,
    home: PathBuf,
    socket: PathBuf,
    registry: String,
    beacon: String,
    listen: String,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    process: Option<Process>,
    id: u32,
}

impl Node {
    /// Starts a daemon and waits until it answers as a registered node.
    pub fn start(program: Program, name: &str, place: Place<'_>, flags: &[&str]) -> Self {
        let home = place.folder.join(name);
        fs::create_dir(&home).expect("a home can be made");
        let mut node = Self {
            program,
            name: name.to_owned(),
            socket: home.join("p.sock"),
            home,
            registry: place.registry.to_owned(),
            beacon: place.beacon.to_owned(),
            listen: place.listen.to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            environment: place
                .environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            process: None,
            id: 0,
        };
        node.run();
        node
    }

    /// Its number at the registry.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its address as text.
    pub fn address(&self) -> String {
        format!("0:0000.{:04X}.{:04X}", self.id >> 16, self.id & 0xFFFF)
    }

    /// Its hostname.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of its daemon's process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// The socket of its daemon.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its home directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The directory with the files it received.
    pub fn received(&self) -> PathBuf {
        self.home.join(".pilot/received")
    }

    /// What its daemon has logged.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Ends the daemon as a crash would.
    pub fn crash(&mut self) {
        self.process = None;
    }

    /// Ends the daemon as a crash would, and starts it again with the same state.
    pub fn crash_and_restart(&mut self) {
        let before = self.id;
        self.crash();
        self.run();
        assert_eq!(self.id, before, "a node keeps its address");
    }

    /// Runs its own command line and returns the `data` of its success.
    #[track_caller]
    pub fn ctl(&self, words: &[&str]) -> Value {
        self.start_ctl(words).data()
    }

    /// Runs its own command line.
    ///
    /// # Errors
    /// When the command fails.
    pub fn try_ctl(&self, words: &[&str]) -> Result<Value, Failed> {
        self.start_ctl(words).result()
    }

    /// Starts its own command line.
    pub fn start_ctl(&self, words: &[&str]) -> Command {
        self.start_ctl_of(self.program, words, None)
    }

    /// Starts its own command line with something to read.
    pub fn start_ctl_with_input(&self, words: &[&str], input: &[u8]) -> Command {
        self.start_ctl_of(self.program, words, Some(input))
    }

    /// Its own command line in text form, ready to be started with other pipes.
    pub fn command(&self, words: &[&str]) -> System {
        let mut command = System::new(self.program.pilotctl());
        isolate(&mut command, &self.home, &self.socket, &self.registry);
        command.args(words).current_dir(&self.home);
        command
    }

    /// Starts the command line of either side with this node's socket.
    pub fn start_ctl_of(&self, program: Program, words: &[&str], input: Option<&[u8]>) -> Command {
        Command::start(program, words, input, &self.home, &self.socket, &self.registry)
    }

    /// Drives this node with the other side's command line.
    #[track_caller]
    pub fn foreign_ctl(&self, words: &[&str]) -> Value {
        let other = match self.program {
            Program::Ours => Program::Reference,
            Program::Reference => Program::Ours,
        };
        self.start_ctl_of(other, words, None).data()
    }

    /// Runs a script with the reference's Python and this node's socket; the script must succeed.
    #[track_caller]
    pub fn python(&self, script: &str, arguments: &[&str]) -> String {
        let mut command = System::new(reference().join("bin/python"));
        isolate(&mut command, &self.home, &self.socket, &self.registry);
        let output = command.arg("-c").arg(script).args(arguments).output().expect("python starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Whether the peer is among those this node trusts.
    pub fn trusts(&self, peer: &Node) -> bool {
        has_node(&self.ctl(&["trust"])["trusted"], peer.id)
    }

    /// Whether a request of the peer waits for a decision here.
    pub fn is_asked_by(&self, peer: &Node) -> bool {
        has_node(&self.ctl(&["pending"])["pending"], peer.id)
    }

    /// Asserts that the tunnel to the peer is encrypted and the peer's key was checked.
    #[track_caller]
    pub fn assert_sealed_to(&self, peer: &Node) {
        // The reference answers from a cache for a moment, so a new tunnel may not be listed yet.
        let what = format!("{} is a peer of {}", peer.name, self.name);
        let row = until(&what, || {
            let peers = self.ctl(&["peers"]);
            peers["peers"].as_array()?.iter().find(|row| row["node_id"] == peer.id).cloned()
        });
        assert_eq!((&row["encrypted"], &row["authenticated"]), (&true.into(), &true.into()), "{row}");
    }

    /// Messages in its inbox, each complete, oldest first as far as the store tells.
    pub fn inbox(&self) -> Vec<Value> {
        let folder = self.home.join(".pilot/inbox");
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
            .unwrap_or_default();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        files.iter().filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
    }

    fn run(&mut self) {
        // The address is taken again at every start, as after a reboot.
        let mut command = match self.program {
            Program::Ours => {
                let mut command = System::new(self.program.pilotctl());
                command.args(["daemon", "run"]);
                command
            }
            Program::Reference => {
                let mut command = System::new(reference_programs().join("pilot-daemon"));
                command.args(["-transport", "udp", "-proxy", "off", "-telemetry-url", ""]);
                command.args(["-motd-feed-url", "", "-no-skillinject", "-log-level", "debug"]);
                command
            }
        };
        isolate(&mut command, &self.home, &self.socket, &self.registry);
        let dashes = match self.program {
            Program::Ours => "--",
            Program::Reference => "-",
        };
        for (flag, value) in [
            ("registry", self.registry.as_str()),
            ("beacon", &self.beacon),
            ("listen", &self.listen),
            ("socket", &self.socket.to_string_lossy()),
            ("identity", &self.home.join("identity.json").to_string_lossy()),
            ("hostname", &self.name),
        ] {
            command.arg(format!("{dashes}{flag}")).arg(value);
        }
        command.args(&self.flags).envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start(&self.name, &self.home, &mut command);
        let what = format!("{} is registered", self.name);
        self.id = until(&what, || {
            assert!(process.is_running(), "{} has ended", self.name);
            let info = self.try_ctl(&["info"]).ok()?;
            u32::try_from(info["node_id"].as_u64()?).ok().filter(|id| *id != 0)
        });
        self.process = Some(process);
    }
}

fn has_node(rows: &Value, id: u32) -> bool {
    rows.as_array().is_some_and(|rows| rows.iter().any(|row| row["node_id"] == id))
}
