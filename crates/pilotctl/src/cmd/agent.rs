//! `pilotctl agent`: the directory of service agents of a network.

mod directory;

use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Put a card into the directory of a network, in the place of an older one of its name
    Publish(PublishArgs),
    /// Take a card of this node out of the directory
    Remove(RemoveArgs),
    /// Find agents by label and by words
    List(ListArgs),
    /// One agent with everything on its card
    Show(ShowArgs),
    /// Answer requests with agents of the directory, as `list-agents` does
    Directory(DirectoryArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl agent publish card.json --network data-agents\n  \
    pilotctl agent publish --name world-clock --tag time --description 'Local time of cities'",
    after_help = "A card is {\"name\", \"description\", \"tags\": [], \"methods\": [{\"name\", \"description\", \"input\", \
    \"output\"}]}; node, address, network and number are filled in, and the node signs it."
)]
pub(crate) struct PublishArgs {
    /// The card, a JSON file; `-` reads it from stdin
    #[arg(value_name = "PATH")]
    pub(crate) card: Option<PathBuf>,
    /// Its name: lowercase letters, digits and hyphens
    #[arg(long, value_name = "NAME", required_unless_present = "card")]
    pub(crate) name: Option<String>,
    /// What the agent does
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// A label to be found by
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Number or name of the network [default: the one this node is in]
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl agent remove world-clock")]
pub(crate) struct RemoveArgs {
    /// Name on the card
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Number or name of the network [default: the one this node is in]
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl agent list\n  pilotctl agent list berlin time\n  pilotctl agent list --tag geo --network 9"
)]
pub(crate) struct ListArgs {
    /// Words that all occur in name, labels, description or methods
    #[arg(value_name = "TEXT")]
    pub(crate) text: Vec<String>,
    /// Only agents with this label
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// Number or name of the network [default: the one this node is in]
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    /// At most so many, 100 at once
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    pub(crate) limit: u32,
    /// After so many
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub(crate) offset: u32,
    #[command(flatten)]
    pub(crate) operator: Token,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl agent show world-clock")]
pub(crate) struct ShowArgs {
    /// Name on the card
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Number or name of the network [default: the one this node is in]
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    #[command(flatten)]
    pub(crate) operator: Token,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl agent directory --network data-agents\n  \
    pilotctl send-message list-agents --data 'weather in Berlin' --wait      (from a member)",
    after_help = "Requests are words, or {\"text\": .., \"tag\": .., \"limit\": ..}. Answers are JSON."
)]
pub(crate) struct DirectoryArgs {
    /// Number or name of the network [default: the one this node is in]
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    /// End after one request
    #[arg(long)]
    pub(crate) once: bool,
}

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use pilot_client::Client;
use pilot_wire::networks::FoundCard;
use pilot_wire::registry::{Card, CardQuery};
use pilot_wire::{Addr, NetworkId};
use serde::Serialize;
use serde_json::{Value, json};

use super::network::admin::{Token, answer, role_needed};
use super::network::{Report, number, text_of};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{humane, input, style};

/// `pilotctl agent ...`
pub(crate) async fn run(ctx: &Context, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Publish(args) => publish(ctx, &args).await,
        Command::Remove(args) => remove(ctx, &args).await,
        Command::List(args) => list(ctx, &args).await,
        Command::Show(args) => show(ctx, &args).await,
        Command::Directory(args) => directory::run(ctx, &args).await,
    }
}

/// The network that is meant: the one that was named, or the only one this node is in.
async fn network(client: &Client, named: Option<&str>) -> Result<NetworkId, Failure> {
    if let Some(named) = named {
        return number(client, named).await;
    }
    match client.memberships().await?.as_slice() {
        [only] => Ok(only.network_id),
        [] => Err(Failure::new(Code::NotFound, "this node is in no network")
            .hint("join one: `pilotctl network list`, `pilotctl network join`")),
        several => {
            let names: Vec<String> =
                several.iter().map(|network| format!("{} ({})", network.network_id, network.name)).collect();
            Err(Failure::usage(format!("this node is in several networks: {}", names.join(", ")))
                .hint("say which: `--network NUMBER`"))
        }
    }
}

fn refused(error: pilot_client::Error) -> Failure {
    role_needed(error.into())
}

/// Numbers of cards rise, because clocks do; the registry says so when one does not.
fn next_seq() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn publish(ctx: &Context, args: &PublishArgs) -> Result<Output, Failure> {
    let mut card = match &args.card {
        Some(path) => {
            let bytes = if path.as_os_str() == "-" { input::stdin()? } else { input::file(path)? };
            let wrong = |error| Failure::usage(format!("`{}` is no card: {error}", path.display()));
            serde_json::from_slice::<Card>(&bytes).map_err(wrong)?
        }
        None => Card::default(),
    };
    card.name = args.name.clone().unwrap_or(card.name);
    card.description = args.description.clone().unwrap_or(card.description);
    card.tags.extend(args.tags.iter().map(|tag| tag.trim_start_matches('#').to_owned()));
    let client = ctx.client().await?;
    let node = client.info().await?.node_id;
    card.network = network(&client, args.network.as_deref()).await?;
    (card.node, card.address) = (node, Addr { network: card.network, node });
    card.seq = next_seq();
    let request = json!({"type": "publish_card", "network_id": card.network, "card": card.to_text()});
    let answer = answer(&client, request, &Token::default()).await?;
    Ok(Output::of(Report {
        answer,
        text: |answer| {
            format!("`{}` is in the directory of network {}", text_of(&answer["name"]), answer["network_id"])
        },
    }))
}

async fn remove(ctx: &Context, args: &RemoveArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let network = network(&client, args.network.as_deref()).await?;
    let request = json!({"type": "remove_card", "network_id": network, "name": args.name, "seq": next_seq()});
    let answer = answer(&client, request, &Token::default()).await?;
    Ok(Output::of(Report {
        answer,
        text: |answer| {
            format!(
                "`{}` is not in the directory of network {} any more",
                text_of(&answer["name"]),
                answer["network_id"]
            )
        },
    }))
}

#[derive(Serialize)]
struct Found {
    network_id: NetworkId,
    agents: Vec<FoundCard>,
    total: u32,
    /// Cards that are not signed by their node.
    refused: u32,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.agents.is_empty() {
            return write!(f, "no such agent in network {}", self.network_id);
        }
        writeln!(f, "{}", style::faint(format!("{:<24} {:<20} {:<24} DOES", "NAME", "ADDRESS", "TAGS")))?;
        for FoundCard { card, online, .. } in &self.agents {
            let tags = card.tags.join(" ");
            let does = humane::preview(&card.description, 60);
            let away = if *online { "" } else { " (away)" };
            writeln!(f, "{:<24} {:<20} {tags:<24} {does}{away}", card.name, card.address.to_string())?;
        }
        if self.agents.len() < self.total as usize {
            writeln!(f, "{} of {}", self.agents.len(), self.total)?;
        }
        if self.refused > 0 {
            let refused = humane::count(u64::from(self.refused), "card");
            writeln!(f, "{}", style::bad(format!("{refused} left out: not signed by the node they name")))?;
        }
        Ok(())
    }
}

async fn list(ctx: &Context, args: &ListArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let network_id = network(&client, args.network.as_deref()).await?;
    let query = CardQuery {
        network_id,
        text: args.text.join(" "),
        tag: args.tag.clone().unwrap_or_default(),
        limit: args.limit,
        offset: args.offset,
        ..CardQuery::default()
    };
    let (agents, total, refused) = client.find_cards(&query, args.operator.text()).await.map_err(refused)?;
    Ok(Output::of(Found { network_id, agents, total, refused }))
}

#[derive(Serialize)]
#[serde(transparent)]
struct Shown(FoundCard);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FoundCard { card, hostname, online } = &self.0;
        let away = if *online { "" } else { " · away" };
        writeln!(f, "{}{away}", style::strong(&card.name))?;
        if !card.description.is_empty() {
            writeln!(f, "  {}", humane::printable(&card.description))?;
        }
        let name = if hostname.is_empty() { String::new() } else { format!(" · {hostname}") };
        writeln!(f, "  address  {}{name} · node {}", card.address, card.node)?;
        if !card.tags.is_empty() {
            writeln!(f, "  tags     {}", card.tags.join(" "))?;
        }
        for method in &card.methods {
            writeln!(
                f,
                "  method   {} · {}",
                humane::printable(&method.name),
                humane::printable(&method.description)
            )?;
            for (name, value) in [("takes", &method.input), ("gives", &method.output)] {
                if let Some(value) = value {
                    writeln!(f, "    {name}  {}", humane::preview(&plain(value), 300))?;
                }
            }
        }
        writeln!(f, "  ask it   pilotctl send-message {} --data '...' --wait", card.address)
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

async fn show(ctx: &Context, args: &ShowArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let network_id = network(&client, args.network.as_deref()).await?;
    let query = CardQuery { network_id, text: args.name.clone(), limit: 100, ..CardQuery::default() };
    let (agents, ..) = client.find_cards(&query, args.operator.text()).await.map_err(refused)?;
    match agents.into_iter().find(|found| found.card.name == args.name) {
        Some(found) => Ok(Output::of(Shown(found))),
        None => {
            Err(Failure::new(Code::NotFound, format!("no agent `{}` in network {network_id}", args.name))
                .hint("see who is there: `pilotctl agent list`"))
        }
    }
}
