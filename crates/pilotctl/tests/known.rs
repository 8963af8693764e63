//! What the program says of itself: completions that know the peers of the moment, manual pages, schemas.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::{Agent, World};
use serde_json::Value;

/// What bash offers at the end of a line, by the script that `pilotctl completions bash` gives.
fn offered(agent: &Agent, line: &[&str]) -> BTreeSet<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_pilotctl")).parent().unwrap();
    let words: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "source <(pilotctl completions bash); COMP_WORDS=({}); COMP_CWORD={}; COMP_TYPE=9; \
         _clap_complete_pilotctl pilotctl {} x; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        line.len() - 1,
        words.last().unwrap(),
    );
    let settings = agent.command(&[]);
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]);
    for (name, value) in settings.get_envs() {
        match value {
            Some(value) => bash.env(name, value),
            None => bash.env_remove(name),
        };
    }
    let path = std::env::var_os("PATH").unwrap();
    let path = std::iter::once(program.to_path_buf()).chain(std::env::split_paths(&path));
    let done = bash.env("PATH", std::env::join_paths(path).unwrap()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap().lines().map(|word| word.trim().to_owned()).collect()
}

#[test]
fn a_shell_offers_the_peers_that_are_there_now() {
    let world = World::new();
    let (a, mut b) = world.friends();
    assert!(offered(&a, &["pilotctl", "ping", ""]).contains("agent-b"));
    assert!(offered(&a, &["pilotctl", "send-message", "ag"]).contains("agent-b"));
    assert!(offered(&a, &["pilotctl", "task", "submit", ""]).contains("agent-b"));
    assert!(offered(&a, &["pilotctl", "why", "zz"]).iter().all(String::is_empty));
    assert!(offered(&a, &["pilotctl", "send-m"]).contains("send-message"));
    // A friend that is away is still a friend.
    b.kill();
    assert!(offered(&a, &["pilotctl", "ping", ""]).contains("agent-b"));
}

#[test]
fn without_a_daemon_a_shell_still_offers_commands_and_says_nothing_else() {
    let world = World::new();
    let a = world.machine("agent-a");
    assert!(offered(&a, &["pilotctl", "mess"]).iter().all(String::is_empty));
    assert!(offered(&a, &["pilotctl", "outb"]).contains("outbox"));
    assert!(!offered(&a, &["pilotctl", "ping", ""]).contains("agent-b"));
}

#[test]
fn every_shell_gets_a_script_that_asks_the_program() {
    let world = World::new();
    let a = world.machine("agent-a");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = a.ok(&["completions", shell]);
        assert!(script.contains("COMPLETE") && script.contains("pilotctl"), "{shell}: {script}");
    }
    assert_eq!(a.run(&["completions", "tcsh"]).status, 2);
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let world = World::new();
    let a = world.machine("agent-a");
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let said = a.json(&["man", "--dir", place]);
    let pages: BTreeSet<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(said["pages"], pages.len());
    let context = a.json(&["context"]);
    for command in context["commands"].as_object().unwrap().keys() {
        let page = format!("pilotctl-{}.1", command.replace(' ', "-"));
        assert!(pages.contains(&page), "{page}");
    }
    let page = a.ok(&["man", "task", "submit"]);
    assert!(page.contains(".TH PILOTCTL-TASK-SUBMIT 1") && page.contains("EXIT STATUS"), "{page}");
    assert_eq!(page, std::fs::read_to_string(dir.path().join("pilotctl-task-submit.1")).unwrap());
    assert_eq!(a.run(&["man", "frobnicate"]).status, 5);
}

#[test]
fn there_is_a_schema_for_every_command_and_what_is_printed_fits() {
    let world = World::new();
    let a = world.agent("agent-a");
    let schemas = a.json(&["schema"]);
    let context = a.json(&["context"]);
    let names = |document: &Value| document.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&schemas), names(&context["commands"]));
    let input = &schemas["send-message"]["inputSchema"];
    assert_eq!(input["properties"]["target"]["x-place"], 1);
    assert_eq!(input["properties"]["wait"]["x-flag"], "--wait");

    // What the schema of the output says of a success and of a failure.
    let output = &a.json(&["schema", "info"])["outputSchema"]["oneOf"];
    for (words, form) in [(&["info"][..], 0), (&["find", "nobody"], 1)] {
        let document = a.run(&[words, &["--json"]].concat()).json();
        let form = &output[form];
        for field in form["required"].as_array().unwrap() {
            assert!(document.get(field.as_str().unwrap()).is_some(), "{field}: {document}");
        }
        assert_eq!(document["status"], form["properties"]["status"]["const"]);
        if let Some(codes) = form["properties"]["code"]["enum"].as_array() {
            assert!(codes.contains(&document["code"]), "{document}");
        }
    }
    assert_eq!(a.run(&["schema", "frobnicate"]).status, 5);
}
