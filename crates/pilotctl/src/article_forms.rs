//! Every line that the articles and documents about the system show is read, or known not to be a line.

use std::ffi::OsString;

use clap::Parser;

use crate::args::Cli;
use crate::failure::Code;
use crate::words;

/// Lines found in articles, with how often; from `shared/vectors`.
const LINES: &str = include_str!("../tests/data/article_commands.txt");

/// How a line ends up.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    Command,
    /// Known, and refused with the reason.
    Unsupported,
    /// clap's first line.
    Wrong(String),
}

#[test]
fn every_line_of_the_articles_is_a_command_or_known_not_to_be_one() {
    let mut unexpected = Vec::new();
    for line in LINES.lines().filter_map(command_of) {
        let reading = read(&line);
        let known = NO_COMMANDS.iter().find(|(text, _)| line == *text);
        let fine = match (&reading, known) {
            (Reading::Command | Reading::Unsupported, None) => true,
            (Reading::Wrong(_), Some(_)) => true,
            (Reading::Command | Reading::Unsupported, Some(_)) | (Reading::Wrong(_), None) => false,
        };
        if !fine {
            unexpected.push(format!("{line}\n    {reading:?}"));
        }
    }
    assert!(unexpected.is_empty(), "{} lines:\n{}", unexpected.len(), unexpected.join("\n"));
}

/// The promises of docs/product.md, word for word.
const PROMISES: &[&str] = &[
    "daemon start --hostname my-agent",
    "info",
    "find agent-b",
    "peers --search tag",
    "ping agent-b",
    "handshake worker-node",
    "pending",
    "approve",
    "untrust agent-b",
    "connect worker-node 1000",
    "send-message agent-b --data 'process this' --wait",
    "send-message worker-node --data '{\"status\":\"complete\"}' --type json",
    "send-message 1:0001.0002.0001 --data '...'",
    "subscribe \"agent-b.results\"",
    "publish agent-a.tasks '{\"id\":1}'",
    "subscribe agent-b topic",
    "publish agent-b topic --data 'x'",
    "send-message list-agents --data \"...\"",
    "send-message agent-b --wait --data x",
    "send-message agent-b --wait=10s 'a text' --json",
    "--json trusted list",
    "daemon run -no-echo -registry=127.0.0.1:9000 -encrypt=false",
    "daemon start --public=false --no-encrypt",
    "serve 80 --to 127.0.0.1:8080",
    "forward 127.0.0.1:9090 agent-b:80",
    "proxy --socks5 127.0.0.1:1080",
    "gateway start --ports 443 --secure 1:0001.0002.0003",
];

#[test]
fn the_promised_lines_are_commands() {
    for line in PROMISES {
        assert_eq!(read(line), Reading::Command, "{line}");
    }
}

#[test]
fn a_bare_wait_does_not_swallow_the_next_word() {
    let words = ["pilotctl", "send-message", "agent-b", "--wait", "hello"];
    let Ok(cli) = Cli::try_parse_from(words) else { panic!("the line is not read") };
    let crate::args::Command::SendMessage(args) = cli.command else { panic!("another command") };
    assert_eq!(args.text.as_deref(), Some("hello"));
    assert_eq!(args.wait, Some(std::time::Duration::from_secs(30)));
}

const SENTENCE: &str = "part of a sentence or of program text, not a line to run";
const NAME: &str = "the name of a command in running text, without the arguments it needs";
const PATTERN: &str = "a pattern with brackets or an open value, not a line to run";
const OTHER: &str = "asks for what no version ever had";

/// Lines that are not read, and why.
const NO_COMMANDS: &[(&str, &str)] = &[
    ("untrust", NAME),
    ("handshake", NAME),
    ("ping", NAME),
    ("send-message", NAME),
    ("connect", NAME),
    ("broadcast", NAME),
    ("trust request", NAME),
    ("set-webhook", NAME),
    ("resolve", NAME),
    ("network members", NAME),
    ("network policy", NAME),
    ("bench", NAME),
    ("subscribe", NAME),
    ("send-file", NAME),
    ("send", NAME),
    ("revoke", NAME),
    ("reject", NAME),
    ("network join", NAME),
    ("find", NAME),
    ("data send", NAME),
    ("traceroute", NAME),
    ("set-tags", NAME),
    ("set-hostname", NAME),
    ("publish", NAME),
    ("network leave", NAME),
    ("network accept", NAME),
    ("lookup", NAME),
    ("join", NAME),
    ("disconnect", NAME),
    ("gateway map", NAME),
    ("gateway unmap", NAME),
    ("task send-results --id", NAME),
    ("task accept --id", NAME),
    ("task decline --id", NAME),
    ("task submit --to", NAME),
    ("task list [--type received", PATTERN),
    ("task accept --json --timeout $TIMEOUT", PATTERN),
    ("enable-tasks (on worker node)", SENTENCE),
    ("search --tag", PATTERN),
    ("received [--clear]", PATTERN),
    ("peers [--search", PATTERN),
    ("init --registry", PATTERN),
    ("daemon status [--check]", PATTERN),
    ("daemon start [--registry", PATTERN),
    ("config --set", PATTERN),
    ("resolve --capability task-ready --network 1", OTHER),
    ("resolve --capability task-ready --filter skills=summarization", OTHER),
    ("recv chart-maker", "`recv` takes a port; files are listed by `received`"),
    ("command and return parsed JSON.\"\"\"", SENTENCE),
    ("v0.5.0", SENTENCE),
    ("untrust)", SENTENCE),
    ("status --json (verify daemon alive)", SENTENCE),
    ("sensor-device:/usr/local/bin/", SENTENCE),
    ("scriptorium", SENTENCE),
    ("robot@192.168.1.42:/usr/local/bin/", SENTENCE),
    ("receive writes incoming files to the specified directory", SENTENCE),
    ("publish \"metrics/cpu\"    ──┼──> [Aggregator] pilotctl subscribe \"metrics/*\"", SENTENCE),
    ("inbox (or higher-level command) prints reply", SENTENCE),
    ("failed: {result.stderr}", SENTENCE),
    ("events for error patterns", SENTENCE),
    ("daemon, addr 1:0001.0000.0005", SENTENCE),
    ("daemon, addr 1:0001.0000.0004", SENTENCE),
    ("daemon, addr 1:0001.0000.0003", SENTENCE),
    ("daemon, addr 1:0001.0000.0002", SENTENCE),
    ("daemon, addr 1:0001.0000.0001", SENTENCE),
    ("daemon start) with access to a registry server.", SENTENCE),
    ("commands, flags, and return values.' },", SENTENCE),
    ("commands — syntax, flags, return values, and examples.\"", SENTENCE),
    ("command and return parsed output.\"\"\"", SENTENCE),
    ("clawdit", SENTENCE),
    ("binary on PATH (installed to ~/.pilot/bin by default).", SENTENCE),
    ("ai", SENTENCE),
];

/// The words behind `pilotctl`, without what belongs to the shell or to the sentence around it.
fn command_of(line: &str) -> Option<String> {
    let (_, line) = line.trim().split_once(' ')?;
    let line = line.strip_prefix("pilotctl ")?;
    let line = line.split(" #").next().unwrap_or(line);
    let line = line.trim_end_matches("2>/dev/null").trim_end_matches("\")").trim_end_matches(['\\', ' ']);
    Some(line.to_owned())
}

fn read(line: &str) -> Reading {
    let words: Vec<OsString> =
        std::iter::once("pilotctl".to_owned()).chain(split(line)).map(Into::into).collect();
    match words::normalise(words) {
        Err(failure) if failure.code == Code::Unsupported => Reading::Unsupported,
        Err(failure) => Reading::Wrong(failure.message),
        Ok(words) => match Cli::try_parse_from(words) {
            Ok(_) => Reading::Command,
            Err(error) => Reading::Wrong(error.to_string().lines().next().unwrap_or_default().to_owned()),
        },
    }
}

/// As a shell does it, with single and double quotes; variables stay as they are.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
