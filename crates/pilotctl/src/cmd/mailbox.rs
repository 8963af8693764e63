//! `pilotctl mailbox`.

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl mailbox allow laptop-b                 (on the node that keeps messages)\n  \
        pilotctl mailbox use home-server                (on laptop-b: home-server keeps my messages while I am away)\n  \
        pilotctl mailbox                                (what there is)",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// My mailboxes, what I keep for others, and the mailboxes of my peers
    #[command(
        visible_alias = "list",
        before_help = "Examples:\n  pilotctl mailbox status\n  pilotctl mailbox status --json"
    )]
    Status,
    /// Have other nodes keep my messages while I am away, sealed: they cannot read them. Trusted peers are told
    #[command(
        before_help = "Examples:\n  pilotctl mailbox use home-server\n  pilotctl mailbox use home-server office-server"
    )]
    Use {
        /// Hostname, address or node number; the first is tried first
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<String>,
    },
    /// Have a node keep my messages no more; what it has still comes
    #[command(before_help = "Examples:\n  pilotctl mailbox stop home-server")]
    Stop {
        /// Hostname, address or node number
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Keep messages for a node while it is away; whoever may reach this node may leave some for it
    #[command(
        before_help = "Examples:\n  pilotctl mailbox allow laptop-b\n  pilotctl mailbox allow laptop-b --max-bytes 16MB --max-messages 200"
    )]
    Allow {
        /// Hostname, address or node number
        #[arg(value_name = "NODE")]
        node: String,
        /// Bytes at most, such as 500KB, 64MB or 1048576 (powers of 1024) [default: 64MB]
        #[arg(long, value_name = "SIZE", value_parser = size)]
        max_bytes: Option<u64>,
        /// Messages at most [default: 1000]
        #[arg(long, value_name = "COUNT")]
        max_messages: Option<u32>,
    },
    /// Take no more messages for a node; what is kept stays until it is fetched or its time is over
    #[command(
        before_help = "Examples:\n  pilotctl mailbox deny laptop-b\n  pilotctl mailbox deny laptop-b --discard"
    )]
    Deny {
        /// Hostname, address or node number
        #[arg(value_name = "NODE")]
        node: String,
        /// Throw away what is kept for it
        #[arg(long)]
        discard: bool,
    },
}

use std::fmt;

use pilot_client::Client;
use pilot_wire::mailboxes::{Kept, Mine, Named, State};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::target::{Peer, Target};
use crate::{humane, style};

/// Sizes as `humane::bytes` writes them, without a space: powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| "write a number and perhaps KB, MB or GB".to_owned())?;
    let unit: u64 = match text.get(digits.len()..).unwrap_or_default().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        other => return Err(format!("`{other}` is not B, KB, MB or GB")),
    };
    number.checked_mul(unit).ok_or_else(|| "too large".to_owned())
}

#[derive(Serialize)]
struct Report {
    /// What was changed, in words.
    #[serde(skip)]
    done: Vec<String>,
    #[serde(flatten)]
    state: State,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.done.is_empty() {
            return write!(f, "{}", self.done.join("\n"));
        }
        let State { mine, told, kept, peers } = &self.state;
        if mine.is_empty() && kept.is_empty() && peers.is_empty() {
            return write!(
                f,
                "no mailboxes\nhave a node keep your messages while you are away: pilotctl mailbox use NODE"
            );
        }
        if !mine.is_empty() {
            writeln!(f, "{}", style::faint("MY MESSAGES ARE KEPT BY"))?;
            for mailbox in mine {
                writeln!(f, "  {:<24} {}", name(&mailbox.node), agreement(mailbox))?;
            }
            writeln!(f, "  known to {}", humane::count(*told, "trusted peer"))?;
        }
        if !kept.is_empty() {
            writeln!(f, "{}", style::faint("KEPT HERE FOR"))?;
            for owner in kept {
                writeln!(f, "  {:<24} {}", name(&owner.owner), load(owner))?;
            }
        }
        if !peers.is_empty() {
            writeln!(f, "{}", style::faint("MESSAGES OF PEERS ARE KEPT BY"))?;
            for peer in peers {
                let mailboxes: Vec<String> = peer.mailboxes.iter().map(name).collect();
                writeln!(f, "  {:<24} {}", name(&peer.peer), mailboxes.join(", "))?;
            }
        }
        Ok(())
    }
}

fn name(node: &Named) -> String {
    match &node.hostname {
        Some(hostname) if !hostname.is_empty() => humane::printable(hostname),
        Some(_) | None => node.address.to_string(),
    }
}

fn agreement(mailbox: &Mine) -> String {
    let why = mailbox.reason.as_deref().map(|reason| humane::preview(reason, 120)).unwrap_or_default();
    match mailbox.agrees {
        Some(true) => style::good("agrees"),
        Some(false) => format!("{}: {why}", style::bad("does not")),
        None => "not asked yet".to_owned(),
    }
}

fn load(kept: &Kept) -> String {
    let mut text = format!(
        "{} of {}, {} of {}",
        kept.messages,
        humane::count(kept.max_messages, "message"),
        humane::bytes(kept.bytes),
        humane::bytes(kept.max_bytes)
    );
    if let Some(oldest) = kept.oldest.as_deref().and_then(humane::from_rfc3339) {
        text += &format!(", the oldest {}", humane::ago(oldest));
    }
    if !kept.allowed {
        text += ", takes no more";
    }
    text
}

/// `pilotctl mailbox ...`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let (state, done) = match &args.command {
        None | Some(Command::Status) => (client.mailboxes().await?, Vec::new()),
        Some(Command::Use { nodes }) => begin_use(&client, nodes).await?,
        Some(Command::Stop { node }) => {
            let peer = peer(&client, node).await?;
            let state = client.stop_mailbox(peer.node).await?;
            (state, vec![format!("{} is no mailbox of this node any more", peer.name())])
        }
        Some(Command::Allow { node, max_bytes, max_messages }) => {
            let peer = peer(&client, node).await?;
            let state = client.allow_mailbox(peer.node, *max_bytes, *max_messages).await?;
            let limit = state.kept.iter().find(|kept| kept.owner.node == peer.node);
            let limit = limit.map(|kept| {
                let messages = humane::count(kept.max_messages, "message");
                format!(": up to {messages} and {}", humane::bytes(kept.max_bytes))
            });
            let text = format!("messages for {} are kept here{}", peer.name(), limit.unwrap_or_default());
            (state, vec![text])
        }
        Some(Command::Deny { node, discard }) => {
            let peer = peer(&client, node).await?;
            let state = client.deny_mailbox(peer.node, *discard).await?;
            (state, vec![format!("no more messages for {} are taken", peer.name())])
        }
    };
    Ok(Output::of(Report { done, state }))
}

async fn peer(client: &Client, text: &str) -> Result<Peer, Failure> {
    Target::parse(text)?.resolve(client).await
}

/// One after the other; those before one that does not agree stay.
async fn begin_use(client: &Client, nodes: &[String]) -> Result<(State, Vec<String>), Failure> {
    let mut done: Vec<String> = Vec::new();
    let mut state = State::default();
    for text in nodes {
        let peer = peer(client, text).await?;
        let used = client.use_mailbox(peer.node).await.map_err(Failure::from);
        state = used.map_err(|failure| match done.is_empty() {
            true => failure,
            false => failure.with_data(serde_json::json!({ "done": done })),
        })?;
        done.push(format!("{} keeps messages for this node while it is away", peer.name()));
    }
    done.push(format!(
        "known to {}; others hear of it when they are there",
        humane::count(state.told, "trusted peer")
    ));
    Ok((state, done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("17B", 17), ("500kb", 512_000), ("64MB", 64 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "1.5MB", "-1", "3 MB", "9TB", "99999999999GB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
