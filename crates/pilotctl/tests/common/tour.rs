//! Console blocks of a document, played line by line, and compared with what they printed.
//!
//! A line is `alice$ pilotctl ...`; what stands below it, up to the next line, is what it prints. A line that ends with
//! ` &` goes on in the background: its output stands below it all the same.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pilot_ports::Ports;

use super::{Agent, Done, PILOTCTL, Running, World};

/// What a line that waits for others says when it is ready.
const READY: &[&str] = &["listening", "subscribed", "serving", "waiting"];

/// Lines that say so.
const SAYS_READY: &[&str] = &[
    "capture",
    "recv",
    "subscribe",
    "listen",
    "serve",
    "forward",
    "proxy",
    "gateway start",
    "agent directory",
    "mcp expose",
    "inbox follow",
    "inbox wait",
    "received wait",
];

/// One line of a document and what stands below it.
pub(crate) struct Step {
    who: String,
    line: String,
    shown: Vec<String>,
    /// Which console block of the document it stands in.
    block: usize,
}

/// The machines of a document.
pub(crate) struct Tour {
    world: World,
    people: Vec<Agent>,
    tools: PathBuf,
    /// Of "the rendezvous of this machine".
    ports: Ports,
    /// What a document says, and what stands for it here.
    stand_ins: Vec<(String, String)>,
}

/// Plays a document and compares; with `UPDATE_DOCS` set, writes what was printed into it instead.
pub(crate) fn check(document: &str, people: &[&str], at_least: usize) {
    play(document, people, at_least, Tour::new(people));
}

/// The same among people whose daemons run, and who trust each other.
pub(crate) fn check_among_friends(document: &str, people: &[&str], at_least: usize) {
    let tour = Tour::new(people);
    tour.befriend();
    play(document, people, at_least, tour);
}

/// The same, with other words for some of the document's: addresses that are free on this machine.
pub(crate) fn check_among_friends_with(
    document: &str,
    people: &[&str],
    at_least: usize,
    stand_ins: &[(&str, String)],
) {
    let mut tour = Tour::new(people);
    tour.stand_ins = stand_ins.iter().map(|(said, meant)| ((*said).to_owned(), meant.clone())).collect();
    tour.befriend();
    play(document, people, at_least, tour);
}

fn play(document: &str, people: &[&str], at_least: usize, tour: Tour) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(document);
    let text = std::fs::read_to_string(&path).unwrap();
    let steps = steps(&text, people);
    assert!(steps.len() >= at_least, "{document} has {} lines", steps.len());
    let printed = tour.play(&steps);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, rewritten(&text, people, &printed)).unwrap();
        return;
    }
    for (step, printed) in steps.iter().zip(&printed) {
        let shown: Vec<String> = step.shown.iter().map(|line| essence(line)).collect();
        let printed_essence: Vec<String> = printed.iter().map(|line| essence(line)).collect();
        assert_eq!(shown, printed_essence, "{}$ {} printed:\n{}", step.who, step.line, printed.join("\n"));
    }
}

impl Tour {
    fn new(people: &[&str]) -> Self {
        let world = World::new();
        let tools = world.directory.path().join("bin");
        std::fs::create_dir(&tools).unwrap();
        std::os::unix::fs::symlink(PILOTCTL, tools.join("pilotctl")).unwrap();
        let people = people.iter().map(|name| world.machine(name)).collect();
        Tour { world, people, tools, ports: Ports::reserve(), stand_ins: Vec::new() }
    }

    fn befriend(&self) {
        let run = |agent: &Agent, line: &str| {
            let done = Running::start(self.shell(agent, line)).finish();
            assert_eq!(done.status, 0, "{}$ {line}: {done:?}", agent.name);
        };
        for agent in &self.people {
            run(agent, &format!("pilotctl daemon start --hostname {}", agent.name));
        }
        for (at, from) in self.people.iter().enumerate() {
            for to in &self.people[at + 1..] {
                let asking =
                    Running::start(self.shell(from, &format!("pilotctl handshake {} --wait=20s", to.name)));
                run(to, "pilotctl pending --wait=20s");
                run(to, &format!("pilotctl approve {}", from.name));
                let asked = asking.finish();
                assert_eq!(asked.status, 0, "{asked:?}");
            }
        }
    }

    fn play(&self, steps: &[Step]) -> Vec<Vec<String>> {
        let mut printed = vec![Vec::new(); steps.len()];
        let mut background: Vec<(usize, Running)> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let agent = self.people.iter().find(|agent| agent.name == step.who).unwrap();
            match step.line.strip_suffix(" &") {
                Some(line) => background.push((at, self.begin(agent, line))),
                None => printed[at] = lines(Running::start(self.shell(agent, &step.line)).finish()),
            }
            // What waits in the background ends with the block at the latest: by itself, or with Ctrl-C.
            if steps.get(at + 1).is_none_or(|next| next.block != step.block) {
                for (at, running) in background.drain(..) {
                    printed[at] = lines(running.finish_or_interrupt());
                }
            }
        }
        printed.iter().map(|lines| lines.iter().map(|line| self.at_home(line)).collect()).collect()
    }

    /// The line as it would be with the usual directories and ports.
    fn at_home(&self, line: &str) -> String {
        let place = self.world.directory.path().display().to_string();
        let line = line
            .replace(&place, "/tmp")
            .replace(&self.ports.registry().to_string(), "127.0.0.1:9000")
            .replace(&self.ports.beacon().to_string(), "127.0.0.1:9001");
        self.stand_ins.iter().fold(line, |line, (said, meant)| line.replace(meant, said))
    }

    /// Starts a line that goes on; one that says when it is ready is waited for.
    fn begin(&self, agent: &Agent, line: &str) -> Running {
        // The shell becomes the command, so that Ctrl-C reaches that.
        let alone = line.starts_with("pilotctl ") && !line.contains(" | ");
        let command = self.shell(agent, &if alone { format!("exec {line}") } else { line.to_owned() });
        match SAYS_READY.iter().any(|word| line.contains(&format!("pilotctl {word}"))) {
            true => Running::start_until(command, READY),
            false => Running::start(command),
        }
    }

    fn shell(&self, agent: &Agent, line: &str) -> Command {
        let line =
            self.stand_ins.iter().fold(line.to_owned(), |line, (said, meant)| line.replace(said, meant));
        let path = format!("{}:{}", self.tools.display(), std::env::var("PATH").unwrap_or_default());
        std::fs::create_dir_all(&agent.home).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", &line])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .env("PATH", path)
            .env("HOME", self.world.directory.path())
            .env("PILOT_HOME", &agent.home)
            .env("PILOT_SOCKET", &agent.socket)
            // A machine under load is no reason to print another word.
            .env("PILOT_SEND_PATIENCE", "2s")
            .env("PILOT_REGISTRY_ADDR", self.ports.registry().to_string())
            .env("PILOT_BEACON_ADDR", self.ports.beacon().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Drop for Tour {
    fn drop(&mut self) {
        // Of a tour that broke off; one that was played to its end has stopped everything itself.
        for agent in &self.people {
            drop(
                Running::start(self.shell(agent, "pilotctl daemon stop; pilotctl rendezvous stop")).finish(),
            );
        }
    }
}

/// A failed line shows its error, without what was noted on the way to it.
fn lines(done: Done) -> Vec<String> {
    if !done.stdout.is_empty() {
        return done.text().lines().map(str::to_owned).collect();
    }
    let failed = done.status != 0;
    let shown = done.stderr.lines().skip_while(|line| failed && !line.starts_with("error: "));
    shown.map(str::to_owned).collect()
}

/// `alice$ pilotctl ...` in a console block, and the lines up to the next one.
fn steps(document: &str, people: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    let mut block = 0;
    for line in document.lines() {
        match (line, prompt(line, people)) {
            ("```console", _) => (inside, block) = (true, block + 1),
            ("```", _) => inside = false,
            (_, Some((who, line))) if inside => {
                steps.push(Step { who: who.to_owned(), line: line.to_owned(), shown: Vec::new(), block });
            }
            (line, None) if inside => steps.last_mut().unwrap().shown.push(line.to_owned()),
            _ => {}
        }
    }
    steps
}

fn prompt<'a>(line: &'a str, people: &[&str]) -> Option<(&'a str, &'a str)> {
    line.split_once("$ ").filter(|(who, _)| people.contains(who))
}

fn rewritten(document: &str, people: &[&str], printed: &[Vec<String>]) -> String {
    let mut printed = printed.iter();
    let mut text = String::new();
    let mut inside = false;
    for line in document.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ => {}
        }
        let is_prompt = inside && prompt(line, people).is_some();
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
