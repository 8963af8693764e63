//! Network namespaces for tests: networks of their own, which end with the test.
//!
//! Making one takes root. Without it, a test runs itself again under `unshare`, as root of a user namespace of its own;
//! where that is not allowed either, it fails and says so.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace, held by a process that ends when its input does: with this value or with the test, however it
/// ends.
pub(crate) struct Namespace {
    holder: Child,
}

impl Namespace {
    /// `None` when the test named `test` has passed already, in a run of its own.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            let this = std::env::current_exe().expect("the test's own executable");
            let mut again = Command::new("unshare");
            again.args(["-Urn", "--"]).arg(this).args(["--exact", test, "--nocapture"]);
            let status = again.status().expect("tests of networks need root, or unshare (util-linux)");
            assert!(status.success(), "tests of networks need root, or user namespaces: {test}: {status}");
            return None;
        }
        Some(Self::make())
    }

    /// One more.
    pub(crate) fn make() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux)");
        // It says something once it is in its namespace.
        let mut line = [0; 1];
        let said = holder.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(said, &mut line).expect("a network namespace");
        Self { holder }
    }

    /// The process that is in it.
    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Runs `ip` with these words in it.
    pub(crate) fn ip(&self, words: &str) {
        let mut command = Command::new("nsenter");
        command.args(["--net", "-t", &self.pid().to_string(), "--", "ip"]).args(words.split(' '));
        let status = command.status().expect("nsenter (util-linux) and ip (iproute2)");
        assert!(status.success(), "ip {words}: {status}");
    }

    /// Moves this thread, and those it starts from now on, into it.
    pub(crate) fn enter(&self) {
        let space = File::open(format!("/proc/{}/ns/net", self.pid())).expect("the namespace");
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("enter the namespace");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
