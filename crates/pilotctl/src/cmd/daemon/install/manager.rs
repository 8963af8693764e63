//! The service managers: where they look, and what they are told to do.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use super::units::{self, Facts};
use crate::failure::{Code, Failure};

/// Longer than a start of the daemon may take (`TimeoutStartSec`).
const PATIENCE: Duration = Duration::from_secs(90);

/// Which one, and for whom.
pub(super) enum Manager {
    /// The user's own.
    SystemdUser {
        /// `~/.config`
        config: PathBuf,
    },
    SystemdSystem,
    Launchd {
        /// The user's home.
        home: PathBuf,
        uid: u32,
    },
}

/// A command with its words.
pub(super) type Words = Vec<String>;

fn words(of: &[&str]) -> Words {
    of.iter().map(|word| (*word).to_owned()).collect()
}

impl Manager {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::SystemdUser { .. } => "systemd of this user",
            Self::SystemdSystem => "systemd",
            Self::Launchd { .. } => "launchd",
        }
    }

    /// The file that describes the service.
    pub(super) fn file(&self) -> PathBuf {
        match self {
            Self::SystemdUser { config } => config.join("systemd/user/pilot.service"),
            Self::SystemdSystem => PathBuf::from("/etc/systemd/system/pilot.service"),
            Self::Launchd { home, .. } => home.join("Library/LaunchAgents/net.pilot.daemon.plist"),
        }
    }

    pub(super) fn text(&self, facts: &Facts<'_>) -> String {
        match self {
            Self::SystemdUser { .. } => units::systemd(false, facts),
            Self::SystemdSystem => units::systemd(true, facts),
            Self::Launchd { .. } => units::launchd(facts),
        }
    }

    fn systemctl(&self, more: &[&str]) -> Words {
        let scope = matches!(self, Self::SystemdUser { .. }).then_some("--user");
        words(&["systemctl"]).into_iter().chain(scope.map(str::to_owned)).chain(words(more)).collect()
    }

    fn domain(uid: u32) -> String {
        format!("gui/{uid}")
    }

    /// Succeeds if the manager can be talked to.
    fn probe(&self) -> Words {
        match self {
            Self::SystemdUser { .. } | Self::SystemdSystem => self.systemctl(&["show-environment"]),
            Self::Launchd { uid, .. } => words(&["launchctl", "print", &Self::domain(*uid)]),
        }
    }

    /// Succeeds if the service runs.
    fn status(&self) -> Words {
        match self {
            Self::SystemdUser { .. } | Self::SystemdSystem => {
                self.systemctl(&["is-active", "--quiet", "pilot"])
            }
            Self::Launchd { uid, .. } => {
                words(&["launchctl", "print", &format!("{}/net.pilot.daemon", Self::domain(*uid))])
            }
        }
    }

    /// Has it run now and from now on. `runs`: an earlier form of it does.
    pub(super) fn begin(&self, runs: bool) -> Vec<Words> {
        match self {
            Self::SystemdUser { .. } | Self::SystemdSystem => {
                let mut steps =
                    vec![self.systemctl(&["daemon-reload"]), self.systemctl(&["enable", "--now", "pilot"])];
                if runs {
                    steps.push(self.systemctl(&["restart", "pilot"]));
                }
                steps
            }
            Self::Launchd { uid, .. } => {
                let domain = Self::domain(*uid);
                let file = self.file().display().to_string();
                let mut steps = vec![words(&["launchctl", "bootstrap", &domain, &file])];
                if runs {
                    steps.insert(0, words(&["launchctl", "bootout", &format!("{domain}/net.pilot.daemon")]));
                }
                steps
            }
        }
    }

    /// Stops it, and has it never run again.
    pub(super) fn end(&self) -> Vec<Words> {
        match self {
            Self::SystemdUser { .. } | Self::SystemdSystem => {
                vec![self.systemctl(&["disable", "--now", "pilot"])]
            }
            Self::Launchd { uid, .. } => {
                vec![words(&["launchctl", "bootout", &format!("{}/net.pilot.daemon", Self::domain(*uid))])]
            }
        }
    }

    /// What is to be done after the file is gone.
    pub(super) fn forget(&self) -> Vec<Words> {
        match self {
            Self::SystemdUser { .. } | Self::SystemdSystem => vec![self.systemctl(&["daemon-reload"])],
            Self::Launchd { .. } => Vec::new(),
        }
    }

    pub(super) async fn is_there(&self) -> bool {
        succeeds(&self.probe()).await
    }

    pub(super) async fn runs_it(&self) -> bool {
        succeeds(&self.status()).await
    }

    /// Where to read why it did not start.
    pub(super) fn journal(&self) -> &'static str {
        match self {
            Self::SystemdUser { .. } => "see: journalctl --user -u pilot",
            Self::SystemdSystem => "see: journalctl -u pilot",
            Self::Launchd { .. } => "see: launchctl print gui/$(id -u)/net.pilot.daemon",
        }
    }
}

/// The manager may not even be on this machine.
async fn succeeds(words: &[String]) -> bool {
    matches!(call(words).await, Ok(output) if output.status.success())
}

/// Runs a command to its end.
pub(super) async fn run(words: &[String], hint: &str) -> Result<(), Failure> {
    let line = words.join(" ");
    let output = call(words).await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = format!("`{line}` failed ({}): {}", output.status, said.trim());
    Err(Failure::new(Code::Failed, message).hint(hint))
}

async fn call(words: &[String]) -> Result<Output, Failure> {
    let line = words.join(" ");
    let (program, more) = words.split_first().ok_or_else(|| Failure::internal("no command"))?;
    let mut command = tokio::process::Command::new(program);
    command.args(more).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(Failure::io(format!("running `{line}`"), &error)),
        Err(_) => Err(Failure::new(Code::Timeout, format!("`{line}` did not end within 90 s"))),
    }
}

/// Whether a service of the system may run what lies there: the homes of users are hidden from it.
pub(super) fn is_hidden_from_the_system(executable: &Path) -> bool {
    ["/home", "/root", "/run/user", "/tmp", "/var/tmp"].iter().any(|hidden| executable.starts_with(hidden))
}
