//! The tour of the README is run line by line, and prints what it says there.
//!
//! `UPDATE_README=1 cargo test -p pilotctl --test readme` writes what was printed into the README.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Agent, PILOTCTL, Running, World};

/// One line of the tour and what stands below it.
struct Step {
    who: String,
    line: String,
    shown: Vec<String>,
}

#[test]
fn the_tour_prints_what_the_readme_shows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let steps = steps(&readme);
    assert!(steps.len() > 15, "the tour has {} lines", steps.len());
    let printed = Tour::new().play(&steps);
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(&path, rewritten(&readme, &printed)).unwrap();
        return;
    }
    for (step, printed) in steps.iter().zip(&printed) {
        let shown: Vec<String> = step.shown.iter().map(|line| essence(line)).collect();
        let printed_essence: Vec<String> = printed.iter().map(|line| essence(line)).collect();
        assert_eq!(shown, printed_essence, "{}$ {} printed:\n{}", step.who, step.line, printed.join("\n"));
    }
}

struct Tour {
    world: World,
    alice: Agent,
    bob: Agent,
    tools: PathBuf,
    ports: (String, String),
}

impl Tour {
    fn new() -> Self {
        let world = World::new();
        // Free ports for "the rendezvous of this machine": those of one that has just gone.
        let other = World::new();
        let ports = (other.registry.clone(), other.beacon.clone());
        drop(other);
        let tools = world.directory.path().join("bin");
        std::fs::create_dir(&tools).unwrap();
        std::os::unix::fs::symlink(PILOTCTL, tools.join("pilotctl")).unwrap();
        let (alice, bob) = (world.machine("alice"), world.machine("bob"));
        Tour { world, alice, bob, tools, ports }
    }

    fn play(&self, steps: &[Step]) -> Vec<Vec<String>> {
        let mut printed = vec![Vec::new(); steps.len()];
        let mut background = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let agent = if step.who == "alice" { &self.alice } else { &self.bob };
            if let Some(line) = step.line.strip_suffix(" &") {
                background.push((at, self.begin(agent, line)));
                continue;
            }
            printed[at] = lines(Running::start(self.shell(agent, &step.line)).finish());
            // What waited in the background ends with the line that it waited for, or with a later one.
            let is_last =
                !steps[at + 1..].iter().any(|later| !later.line.ends_with('&') && later.who != step.who);
            if is_last || !waits(steps, at) {
                for (at, running) in background.drain(..) {
                    printed[at] = lines(Running::finish(running));
                }
            }
        }
        for (at, running) in background {
            printed[at] = lines(running.finish());
        }
        printed.iter().map(|lines| lines.iter().map(|line| self.at_home(line)).collect()).collect()
    }

    /// The line as it would be with the usual directories and ports.
    fn at_home(&self, line: &str) -> String {
        let place = self.world.directory.path().display().to_string();
        line.replace(&place, "/tmp")
            .replace(&self.ports.0, "127.0.0.1:9000")
            .replace(&self.ports.1, "127.0.0.1:9001")
    }

    /// Starts a line that goes on; one that says when it is ready is waited for.
    fn begin(&self, agent: &Agent, line: &str) -> Running {
        let ready =
            ["recv", "subscribe", "listen"].iter().any(|word| line.contains(&format!("pilotctl {word}")));
        let command = self.shell(agent, line);
        if ready {
            Running::start_until(command, &["listening", "subscribed"])
        } else {
            Running::start(command)
        }
    }

    fn shell(&self, agent: &Agent, line: &str) -> Command {
        let path = format!("{}:{}", self.tools.display(), std::env::var("PATH").unwrap_or_default());
        std::fs::create_dir_all(&agent.home).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .env("PATH", path)
            .env("HOME", self.world.directory.path())
            .env("PILOT_HOME", &agent.home)
            .env("PILOT_SOCKET", &agent.socket)
            .env("PILOT_REGISTRY_ADDR", &self.ports.0)
            .env("PILOT_BEACON_ADDR", &self.ports.1)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Drop for Tour {
    fn drop(&mut self) {
        // Of a tour that broke off; one that was played to its end has stopped everything itself.
        for agent in [&self.alice, &self.bob] {
            drop(
                Running::start(self.shell(agent, "pilotctl daemon stop; pilotctl rendezvous stop")).finish(),
            );
        }
    }
}

/// Whether a later line of the same block belongs to what waits in the background.
fn waits(steps: &[Step], at: usize) -> bool {
    steps.get(at + 1).is_some_and(|next| next.line.contains("approve") || next.line.contains("--reply-to"))
}

/// A failed line shows its error.
fn lines(done: common::Done) -> Vec<String> {
    let text = if done.status == 0 { done.text() } else { done.stderr };
    text.lines().map(str::to_owned).collect()
}

/// `alice$ pilotctl ...` in a console block, and the lines up to the next one.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match (line, prompt(line)) {
            ("```console", _) => inside = true,
            ("```", _) => inside = false,
            (_, Some((who, line))) if inside => {
                steps.push(Step { who: who.to_owned(), line: line.to_owned(), shown: Vec::new() });
            }
            (line, None) if inside => steps.last_mut().unwrap().shown.push(line.to_owned()),
            _ => {}
        }
    }
    steps
}

fn prompt(line: &str) -> Option<(&str, &str)> {
    line.split_once("$ ").filter(|(who, _)| ["alice", "bob"].contains(who))
}

fn rewritten(readme: &str, printed: &[Vec<String>]) -> String {
    let mut printed = printed.iter();
    let mut text = String::new();
    let mut inside = false;
    for line in readme.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ => {}
        }
        let is_prompt = inside && prompt(line).is_some();
        if !inside || is_prompt || line == "```console" {
            text += &format!("{line}\n");
        }
        if is_prompt {
            printed.next().unwrap().iter().for_each(|line| text += &format!("{line}\n"));
        }
    }
    text
}

/// What is the same in every run: words without digits. Units follow the figures, and blanks the widths.
fn essence(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let unit = ["us", "ms", "s", "B", "KB", "MB", "MB/s,", "MB/s"].contains(&word);
        if word.bytes().any(|b| b.is_ascii_digit()) || word.contains('/') && !unit {
            "#"
        } else if unit {
            "unit"
        } else if ["direct", "relay", "relayed"].contains(&word) {
            // A pair may start on the relay and move to the direct path at any moment.
            "path"
        } else {
            word
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
