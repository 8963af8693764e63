//! What the commands are, read from the parser itself, so that documents made of it cannot drift.

use clap::{Arg, Command, CommandFactory};

use crate::args::Cli;

/// Flags of every command and what clap itself adds: said once, not with each command.
const COMMON: [&str; 4] = ["help", "version", "json", "socket"];

/// A command that can be run.
pub(crate) struct Entry {
    /// As it is written, without the program: `task submit`.
    pub(crate) name: String,
    /// Built: it knows its whole name and its common flags.
    pub(crate) command: Command,
}

/// The program, with everything that clap adds to it.
pub(crate) fn program() -> Command {
    let mut root = Cli::command();
    root.build();
    root
}

/// All commands that can be run and are shown, by name.
pub(crate) fn commands() -> Vec<Entry> {
    let mut found = Vec::new();
    collect(&program(), "", &mut found);
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn collect(command: &Command, prefix: &str, into: &mut Vec<Entry>) {
    for sub in shown(command) {
        let name = format!("{prefix}{}", sub.get_name());
        if sub.has_subcommands() {
            collect(sub, &format!("{name} "), into);
        }
        if !sub.is_subcommand_required_set() {
            into.push(Entry { name, command: sub.clone() });
        }
    }
}

/// The subcommands that people see.
pub(crate) fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set())
}

/// What a command takes beyond what every command takes.
pub(crate) fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_hide_set() && !COMMON.contains(&arg.get_id().as_str()))
}

/// `--name` for a flag, `name` for a word in its place.
pub(crate) fn argument_name(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().to_string(), |long| format!("--{long}"))
}
