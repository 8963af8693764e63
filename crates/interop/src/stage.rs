//! The rendezvous and the nodes around it.

use std::path::Path;
use std::process::Command as System;

use pilot_ports::Ports;
use tempfile::TempDir;

use crate::command::{Program, isolate};
use crate::node::{Node, Place};
use crate::process::Process;
use crate::until;

/// The token of the operator of the rendezvous.
pub const OPERATOR: &str = "operator-token";

/// A rendezvous of ours on loopback, and a place for nodes.
#[derive(Debug)]
pub struct Stage {
    // Before the folder, so that it is gone when its files go.
    rendezvous: Option<Process>,
    registry: String,
    beacon: String,
    web: String,
    folder: TempDir,
    _ports: Ports,
}

impl Default for Stage {
    fn default() -> Self {
        Self::open()
    }
}

impl Stage {
    /// Starts a rendezvous and waits until it answers.
    pub fn open() -> Self {
        let folder = tempfile::Builder::new().prefix("pilot-").tempdir().expect("a folder can be made");
        let ports = Ports::reserve();
        // The web is not where nodes look for it by themselves.
        let [registry, beacon, _, web] = ports.all().map(|address| address.to_string());
        let mut stage = Self { rendezvous: None, registry, beacon, web, folder, _ports: ports };
        stage.start_rendezvous();
        stage
    }

    /// Ends the rendezvous as a crash would, and starts it again with its store.
    pub fn crash_and_restart_rendezvous(&mut self) {
        self.rendezvous = None;
        self.start_rendezvous();
    }

    /// Starts a node of ours.
    pub fn ours(&self, name: &str) -> Node {
        self.node(Program::Ours, name, &[])
    }

    /// Starts a reference node.
    pub fn reference(&self, name: &str) -> Node {
        self.node(Program::Reference, name, &[])
    }

    /// Starts a node of either side with more flags.
    pub fn node(&self, program: Program, name: &str, flags: &[&str]) -> Node {
        let place = Place {
            folder: self.folder.path(),
            registry: &self.registry,
            beacon: &self.beacon,
            listen: "127.0.0.1:0",
            environment: &[],
        };
        Node::start(program, name, place, flags)
    }

    /// A reference node that reaches its beacon over the web only.
    pub fn reference_on_the_web(&self, name: &str) -> Node {
        let url = self.web_url();
        let flags = ["-transport", "compat", "-registry-tls=false", "-compat-beacon", &url];
        self.node(Program::Reference, name, &flags)
    }

    /// A node of ours that reaches its beacon over the web only.
    pub fn ours_on_the_web(&self, name: &str) -> Node {
        self.node(Program::Ours, name, &["--transport", "web", "--beacon-web", &self.web_url()])
    }

    fn web_url(&self) -> String {
        format!("ws://{}/v1/compat", self.web)
    }

    /// A folder for files of a test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn start_rendezvous(&mut self) {
        let home = self.folder.path();
        let mut command = System::new(Program::Ours.pilotctl());
        isolate(&mut command, home, &home.join("none.sock"), &self.registry);
        command.args(["rendezvous", "run", "--registry-addr", &self.registry, "--beacon-addr", &self.beacon]);
        command.args(["--web-listen", &self.web]).env("PILOT_ADMIN_TOKEN", OPERATOR);
        command.arg("--store").arg(home.join("rendezvous.redb"));
        let mut process = Process::start("rendezvous", home, &mut command);
        until("the rendezvous answers", || {
            assert!(process.is_running(), "the rendezvous has ended: {}", process.log());
            std::net::TcpStream::connect(&self.registry).ok()
        });
        self.rendezvous = Some(process);
    }
}

/// One node of ours and one of the reference that trust each other.
#[derive(Debug)]
pub struct Pair {
    /// Ours.
    pub ours: Node,
    /// The reference's.
    pub theirs: Node,
    /// Where they live; last, so that it goes after them.
    pub stage: Stage,
}

impl Default for Pair {
    fn default() -> Self {
        Self::trusting()
    }
}

impl Pair {
    /// Starts both and lets the reference ask ours for trust.
    pub fn trusting() -> Self {
        let stage = Stage::open();
        let ours = stage.ours("ours");
        let theirs = stage.reference("theirs");
        Self::befriended(stage, ours, theirs)
    }

    /// Lets the reference ask ours for trust.
    pub fn befriended(stage: Stage, ours: Node, theirs: Node) -> Self {
        theirs.ctl(&["handshake", &ours.id().to_string(), "test"]);
        until("the request arrives", || ours.is_asked_by(&theirs).then_some(()));
        ours.ctl(&["approve", &theirs.id().to_string()]);
        until("both trust each other", || (theirs.trusts(&ours) && ours.trusts(&theirs)).then_some(()));
        Self { ours, theirs, stage }
    }

    /// Both nodes in both orders, for what must work in either direction.
    pub fn directions(&self) -> [(&Node, &Node); 2] {
        [(&self.ours, &self.theirs), (&self.theirs, &self.ours)]
    }

    /// Asserts that each sees the other's tunnel as encrypted and authenticated.
    #[track_caller]
    pub fn assert_sealed(&self) {
        self.ours.assert_sealed_to(&self.theirs);
        self.theirs.assert_sealed_to(&self.ours);
    }
}
