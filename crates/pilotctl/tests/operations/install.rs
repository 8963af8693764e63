//! `daemon install` and `daemon uninstall`, with service managers that only write down what they are told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{Done, PILOTCTL, Running, World};

/// Notes what it is called with. Whether it can be talked to and whether the service runs is said by files.
const MANAGER: &str = r#"#!/bin/sh
echo "$(basename "$0") $*" >>"$FAKE/calls"
case " $* " in
  *" show-environment "*) test ! -e "$FAKE/away" ;;
  *" is-active "* | *" print "*"/net.pilot.daemon "*) test -e "$FAKE/active" ;;
  *" enable "*) test ! -e "$FAKE/broken" || { echo 'Job for pilot.service failed' >&2; exit 1; } ;;
esac
"#;

/// A user on a machine with such a manager, and nothing of it is real.
struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("pilot").tempdir_in("/tmp").unwrap();
        let desk = Self { directory };
        fs::create_dir_all(desk.path("bin")).unwrap();
        fs::create_dir_all(desk.path("home")).unwrap();
        for name in ["systemctl", "launchctl", "loginctl"] {
            fs::write(desk.path("bin").join(name), MANAGER).unwrap();
            fs::set_permissions(desk.path("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn unit(&self) -> PathBuf {
        self.path("home/.config/systemd/user/pilot.service")
    }

    fn say(&self, name: &str) {
        fs::write(self.path(name), "").unwrap();
    }

    /// What the managers were told since the last time, without their being asked how it stands.
    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        drop(fs::remove_file(self.path("calls")));
        let asks =
            |line: &&str| !["show-environment", "is-active", " print "].iter().any(|ask| line.contains(ask));
        text.lines().filter(asks).map(str::to_owned).collect()
    }

    fn run(&self, words: &[&str]) -> Done {
        let mut command = Command::new(PILOTCTL);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PILOT_"))
        {
            command.env_remove(name);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(words)
            .arg("--socket")
            .arg(self.path("sock"))
            .current_dir(self.directory.path())
            .env("HOME", self.path("home"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("FAKE", self.directory.path())
            .env_remove("XDG_CONFIG_HOME")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        Running::start(command).finish()
    }

    fn json(&self, words: &[&str]) -> Value {
        let done = self.run(&[words, &["--json"]].concat());
        assert_eq!(done.status, 0, "{words:?}: {done:?}");
        done.json()["data"].clone()
    }
}

/// If systemd is here, it says whether it would take the unit.
fn verify(unit: &Path) {
    let mut command = Command::new("systemd-analyze");
    command.args(["--user", "verify", "--man=no"]).arg(unit).env("XDG_RUNTIME_DIR", unit.parent().unwrap());
    match command.output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
    }
}

#[test]
fn the_daemon_is_installed_when_told_and_taken_out_again() {
    let desk = Desk::new();
    let install = ["daemon", "install", "--registry", "r.example.com:9000", "--hostname", "agent-a"];
    let shown = desk.run(&install);
    for part in
        ["write ", "daemon run", "hostname = agent-a", "run systemctl --user enable --now pilot", "--apply"]
    {
        assert!(shown.text().contains(part), "{part}: {shown:?}");
    }
    assert!(!desk.unit().exists() && !desk.path("home/.pilot/config.json").exists());
    assert_eq!(desk.calls(), [""; 0]);

    let done = desk.json(&[&install[..], &["--apply", "--linger"]].concat());
    assert_eq!((done["applied"].as_bool(), &done["by_hand"]), (Some(true), &Value::Null), "{done}");
    let unit = fs::read_to_string(desk.unit()).unwrap();
    assert!(unit.contains(&format!("ExecStart={PILOTCTL} daemon run\n")), "{unit}");
    assert!(!unit.contains("r.example.com") && !unit.contains("PILOT_HOME"), "{unit}");
    verify(&desk.unit());
    let config = desk.path("home/.pilot/config.json");
    let settings: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let socket = desk.path("sock");
    assert_eq!(settings, json!({"registry": "r.example.com:9000", "hostname": "agent-a", "socket": socket}));
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    let begin = ["systemctl --user daemon-reload", "systemctl --user enable --now pilot"];
    assert_eq!(desk.calls(), [&begin[..], &["loginctl enable-linger"]].concat());

    desk.say("active");
    desk.json(&["daemon", "install", "--hostname", "agent-b", "--yes"]);
    assert_eq!(desk.calls(), [&begin[..], &["systemctl --user restart pilot"]].concat());
    assert!(fs::read_to_string(&config).unwrap().contains("agent-b"));

    let shown = desk.run(&["daemon", "uninstall"]);
    assert!(shown.text().contains("run systemctl --user disable --now pilot"), "{shown:?}");
    assert!(desk.unit().exists() && desk.calls().is_empty());
    desk.json(&["daemon", "uninstall", "--apply"]);
    assert_eq!(desk.calls(), ["systemctl --user disable --now pilot", "systemctl --user daemon-reload"]);
    assert!(!desk.unit().exists() && config.exists());
    assert_eq!(desk.run(&["daemon", "uninstall", "--apply"]).status, 5);
}

#[test]
fn without_a_service_manager_the_files_are_written_and_the_rest_is_said() {
    let desk = Desk::new();
    desk.say("away");
    let done = desk.json(&["daemon", "install", "--apply"]);
    let by_hand = json!(["systemctl --user daemon-reload", "systemctl --user enable --now pilot"]);
    assert_eq!((done["applied"].as_bool(), &done["by_hand"]), (Some(true), &by_hand));
    assert!(desk.unit().exists() && desk.calls().is_empty());
    let done = desk.json(&["daemon", "uninstall", "--apply"]);
    assert_eq!(done["by_hand"][0], "systemctl --user disable --now pilot", "{done}");
    assert!(!desk.unit().exists());
}

#[test]
fn a_service_that_does_not_start_is_reported_with_where_to_look() {
    let desk = Desk::new();
    desk.say("broken");
    let failed = desk.run(&["daemon", "install", "--apply", "--json"]);
    let document = failed.json();
    assert_eq!(failed.status, 1, "{failed:?}");
    assert!(document["message"].as_str().unwrap().contains("Job for pilot.service failed"), "{document}");
    assert_eq!(document["hint"], "see: journalctl --user -u pilot");
}

#[test]
fn what_others_wrote_is_left_alone() {
    let desk = Desk::new();
    fs::create_dir_all(desk.unit().parent().unwrap()).unwrap();
    fs::write(desk.unit(), "[Unit]\nDescription=mine\n").unwrap();
    for words in [&["daemon", "install", "--apply"][..], &["daemon", "uninstall", "--apply"]] {
        let refused = desk.run(words);
        assert_eq!(refused.status, 1, "{refused:?}");
    }
    assert_eq!(fs::read_to_string(desk.unit()).unwrap(), "[Unit]\nDescription=mine\n");
    assert_eq!(desk.calls(), [""; 0]);
}

#[test]
fn a_daemon_that_runs_already_has_to_be_stopped_first() {
    let world = World::new();
    let agent = world.agent("agent-a");
    let config = world.directory.path().join("config");
    let mut command = agent.command(&["daemon", "install", "--manager", "systemd", "--apply", "--json"]);
    command.env("XDG_CONFIG_HOME", &config);
    let refused = Running::start(command).finish();
    assert_eq!((refused.status, refused.json()["code"].as_str()), (1, Some("already_exists")), "{refused:?}");
    assert!(refused.json()["hint"].as_str().unwrap().contains("pilotctl daemon stop"), "{refused:?}");
    assert!(!config.exists());
}

#[test]
fn launchd_gets_a_property_list_and_is_told_to_load_it() {
    let desk = Desk::new();
    let plist = desk.path("home/Library/LaunchAgents/net.pilot.daemon.plist");
    desk.json(&["daemon", "install", "--manager", "launchd", "--apply"]);
    let text = fs::read_to_string(&plist).unwrap();
    assert!(text.contains(&format!("<string>{PILOTCTL}</string>")), "{text}");
    let domain = format!("gui/{}", own_uid());
    assert_eq!(desk.calls(), [format!("launchctl bootstrap {domain} {}", plist.display())]);
    desk.json(&["daemon", "uninstall", "--manager", "launchd", "--apply"]);
    assert_eq!(desk.calls(), [format!("launchctl bootout {domain}/net.pilot.daemon")]);
    assert!(!plist.exists());
}

/// Of this process, whose files are its user's.
fn own_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    fs::metadata(directory.path()).unwrap().uid()
}

#[test]
fn a_service_of_the_machine_has_its_settings_where_only_root_reads_them() {
    let desk = Desk::new();
    let mut command = Command::new(PILOTCTL);
    command.args(["daemon", "install", "--system", "--hostname", "agent-a", "--json"]);
    command.env("HOME", desk.path("home")).env("PILOT_HOME", desk.path("home"));
    let done = Running::start(piped(command)).finish();
    if PILOTCTL.starts_with("/home") || PILOTCTL.starts_with("/root") || PILOTCTL.starts_with("/tmp") {
        // Such a service could not see the executable.
        assert_eq!(done.status, 2, "{done:?}");
        return;
    }
    let steps = done.json()["data"]["steps"].clone();
    assert_eq!(steps[0]["file"], "/etc/pilot/daemon.env", "{steps}");
    assert!(steps[0]["text"].as_str().unwrap().contains("PILOT_HOSTNAME=agent-a\n"), "{steps}");
    assert_eq!(steps[1]["file"], "/etc/systemd/system/pilot.service", "{steps}");
    assert!(!steps[1]["text"].as_str().unwrap().contains("agent-a"), "{steps}");
}

fn piped(mut command: Command) -> Command {
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}
