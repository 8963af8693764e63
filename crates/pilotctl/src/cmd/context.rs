//! `pilotctl context`: what this program can do, made from the parser itself so that it cannot drift.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::failure::Code;
use crate::output::Output;
use crate::reference::{self, argument_name};
use crate::settings::KEYS;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl context > context.json\n  pilotctl context --json | jq '.data.commands | keys'"
)]
pub(crate) struct Args {}

#[derive(Serialize)]
#[serde(transparent)]
struct Document(Value);

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

/// The whole tree of commands.
pub(crate) fn run() -> Output {
    let commands: Map<String, Value> = reference::commands()
        .into_iter()
        .map(|entry| {
            let described = describe(&entry.command);
            (entry.name, described)
        })
        .collect();
    let codes: Map<String, Value> = Code::TABLE
        .iter()
        .map(|(_, name, status)| ((*name).to_owned(), json!({ "exit_status": status })))
        .collect();
    let settings: Map<String, Value> = KEYS
        .iter()
        .map(|key| {
            (
                key.name.to_owned(),
                json!({ "environment": key.env, "default": key.default, "about": key.about }),
            )
        })
        .collect();
    Output::of(Document(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "targets": "address (0:0000.0000.0002), node number (2) or hostname (agent-b)",
        "json": "with --json: {\"status\":\"ok\",\"data\":...} or {\"status\":\"error\",\"code\",\"message\",\"hint\"} on stdout",
        "commands": commands,
        "error_codes": codes,
        "settings": settings,
    })))
}

fn describe(command: &clap::Command) -> Value {
    let text = |help: Option<&clap::builder::StyledStr>| help.map(ToString::to_string);
    let arguments: Vec<Value> = reference::arguments(command)
        .map(|arg| {
            json!({
                "name": argument_name(arg),
                "required": arg.is_required_set(),
                "about": text(arg.get_help()),
            })
        })
        .collect();
    let examples = text(command.get_before_help());
    json!({ "about": text(command.get_about()), "args": arguments, "examples": examples })
}
