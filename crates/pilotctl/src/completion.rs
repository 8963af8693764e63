//! What a shell may complete: asked of the program itself at each tab, so that names of peers and networks are
//! those of this moment. A daemon that is down or slow means fewer candidates, never an error at the prompt.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::CompleteEnv;
use pilot_client::Client;
use pilot_wire::Addr;

use crate::args::Cli;
use crate::cmd;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Format;
use crate::settings::Flags;

/// The variable by which the scripts of [`crate::cmd::completions`] ask.
pub(crate) const VARIABLE: &str = "COMPLETE";

/// Nobody waits longer than this for a list at a prompt.
const PATIENCE: Duration = Duration::from_millis(500);

/// Answers a shell, if it is one that asks; the status to exit with.
pub(crate) fn answer() -> Option<u8> {
    let here = std::env::current_dir().ok();
    let asked = CompleteEnv::with_factory(completable).bin("pilotctl").completer("pilotctl");
    match asked.try_complete(std::env::args_os(), here.as_deref()) {
        Ok(false) => None,
        Ok(true) => Some(0),
        Err(error) => {
            drop(error.print());
            Some(crate::failure::Code::InvalidArgument.exit_status())
        }
    }
}

/// The commands, where a value that is a peer or a network knows which ones there are.
fn completable() -> Command {
    with_candidates(Cli::command())
}

fn with_candidates(command: Command) -> Command {
    command.mut_args(known_values).mut_subcommands(with_candidates)
}

/// By the name that the value has in the help: one place instead of a hundred, and none that is forgotten.
fn known_values(arg: Arg) -> Arg {
    let named = |names: &[&str]| {
        arg.get_value_names().is_some_and(|own| own.iter().any(|name| names.contains(&name.as_str())))
    };
    if named(&["TARGET", "NODE"]) {
        arg.add(ArgValueCandidates::new(peers))
    } else if named(&["NETWORK"]) {
        arg.add(ArgValueCandidates::new(networks))
    } else {
        arg
    }
}

fn peers() -> Vec<CompletionCandidate> {
    ask(async |client| {
        // Whoever has two claims to be listed is listed once.
        let mut known: BTreeMap<Addr, (String, &'static str)> = BTreeMap::new();
        for peer in client.trusted().await? {
            known.insert(Addr::backbone(peer.node_id), (peer.hostname, "trusted"));
        }
        for peer in cmd::peers::list(&client).await? {
            let addr = peer.address.unwrap_or_else(|| Addr::backbone(peer.node_id));
            let entry = known.entry(addr).or_insert_with(|| (String::new(), "connected"));
            if entry.0.is_empty() {
                entry.0 = peer.hostname;
            }
        }
        Ok(known
            .into_iter()
            .map(|(addr, (name, how))| match name.as_str() {
                "" => candidate(&addr.to_string(), how),
                name => candidate(name, &format!("{addr}, {how}")),
            })
            .collect())
    })
}

fn networks() -> Vec<CompletionCandidate> {
    ask(async |client| {
        let networks = client.memberships().await?;
        Ok(networks.iter().map(|network| candidate(&network.network_id.to_string(), &network.name)).collect())
    })
}

fn candidate(value: &str, about: &str) -> CompletionCandidate {
    CompletionCandidate::new(value).help(Some(StyledStr::from(about.to_owned())))
}

/// What the daemon says within [`PATIENCE`]; nothing if it does not.
fn ask<F>(question: F) -> Vec<CompletionCandidate>
where
    F: AsyncFnOnce(Client) -> Result<Vec<CompletionCandidate>, Failure>,
{
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let asking = async {
        let flags: Flags = socket_flag(std::env::args_os())
            .map(|socket| ("socket", socket.display().to_string()))
            .into_iter()
            .collect();
        let context = Context::new(Format::Json, flags, None)?;
        question(context.client().await?).await
    };
    // Its clock is that of the runtime, so it is made inside.
    let answered = runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await });
    answered.ok().and_then(Result::ok).unwrap_or_default()
}

/// `--socket` of the line that is being completed.
fn socket_flag(words: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let mut words = words.skip_while(|word| word != "--").skip(1);
    while let Some(word) = words.next() {
        if word == "--socket" {
            return words.next().map(PathBuf::from);
        }
        if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--socket=")) {
            return Some(PathBuf::from(path));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Option<PathBuf> {
        socket_flag(words.iter().map(OsString::from))
    }

    #[test]
    fn the_socket_on_the_line_is_the_one_that_is_asked() {
        assert_eq!(line(&["pilotctl", "--", "pilotctl", "--socket", "/a", "ping"]), Some("/a".into()));
        assert_eq!(line(&["pilotctl", "--", "pilotctl", "ping", "--socket=/b"]), Some("/b".into()));
        assert_eq!(line(&["pilotctl", "--", "pilotctl", "ping"]), None);
        assert_eq!(line(&["pilotctl", "--", "pilotctl", "--socket"]), None);
    }

    #[test]
    fn every_value_that_is_a_peer_knows_the_peers() {
        let mut command = completable();
        command.build();
        let ping = command.find_subcommand("ping").unwrap();
        let target = ping.get_arguments().find(|arg| arg.get_id() == "target").unwrap();
        assert!(target.get::<ArgValueCandidates>().is_some());
        let submit = command.find_subcommand("task").unwrap().find_subcommand("submit").unwrap();
        assert!(submit.get_arguments().any(|arg| arg.get::<ArgValueCandidates>().is_some()));
    }
}
