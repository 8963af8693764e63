//! `pilotctl network` and `join`.

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Networks of the registry
    #[command(before_help = "Examples:\n  pilotctl network list")]
    List,
    /// Join a network
    Join(JoinArgs),
    /// Leave a network
    #[command(before_help = "Examples:\n  pilotctl network leave 1")]
    Leave(NetworkArgs),
    /// Members of a network
    #[command(before_help = "Examples:\n  pilotctl network members 1")]
    Members(NetworkArgs),
    /// Invite a node into a network
    Invite(InviteArgs),
    /// Invitations to us
    #[command(before_help = "Examples:\n  pilotctl network invites")]
    Invites,
    /// Accept an invitation
    #[command(before_help = "Examples:\n  pilotctl network accept 1")]
    Accept(NetworkArgs),
    /// Decline an invitation
    #[command(before_help = "Examples:\n  pilotctl network reject 1")]
    Reject(NetworkArgs),
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl network join 9\n  pilotctl network join 1 --token my-secret")]
pub(crate) struct JoinArgs {
    /// Number or name of the network
    #[arg(value_name = "NETWORK", required_unless_present = "network_flag")]
    pub(crate) network: Option<String>,
    /// Number of the network, as the articles write it
    #[arg(long = "network", value_name = "NETWORK", conflicts_with = "network", hide = true)]
    pub(crate) network_flag: Option<String>,
    /// Token of the network, if it wants one
    #[arg(long, value_name = "TOKEN", default_value = "")]
    pub(crate) token: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NetworkArgs {
    /// Number or name of the network
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl network invite 1 agent-b")]
pub(crate) struct InviteArgs {
    /// Number or name of the network
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    /// Hostname, address or node number
    #[arg(value_name = "TARGET", required_unless_present = "node")]
    pub(crate) target: Option<String>,
    /// The node, as the articles write it
    #[arg(long, value_name = "TARGET", conflicts_with = "target", hide = true)]
    pub(crate) node: Option<String>,
}

use std::fmt;

use pilot_client::Client;
use pilot_wire::NetworkId;
use serde::Serialize;
use serde_json::Value;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{style, target};

/// The registry's own object, with a text for people.
#[derive(Serialize)]
#[serde(transparent)]
struct Report {
    answer: Value,
    #[serde(skip)]
    text: fn(&Value) -> String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&(self.text)(&self.answer))
    }
}

/// `pilotctl network ...`
pub(crate) async fn run(ctx: &Context, command: Command) -> Result<Output, Failure> {
    if let Command::Join(args) = &command {
        return join(ctx, args).await;
    }
    let client = ctx.client().await?;
    let (answer, text): (_, fn(&Value) -> String) = match command {
        Command::Join(_) | Command::List => (client.network_list().await, networks),
        Command::Leave(args) => (client.network_leave(number(&client, &args.network).await?).await, left),
        Command::Members(args) => {
            (client.network_members(number(&client, &args.network).await?).await, members)
        }
        Command::Invite(args) => {
            let network = number(&client, &args.network).await?;
            let node = args.target.or(args.node).unwrap_or_default();
            let peer = target::find(&client, &node).await?;
            (client.network_invite(network, peer.node).await, invited)
        }
        Command::Invites => (client.network_invites().await, invites),
        Command::Accept(args) => {
            (client.network_respond(number(&client, &args.network).await?, true).await, responded)
        }
        Command::Reject(args) => {
            (client.network_respond(number(&client, &args.network).await?, false).await, responded)
        }
    };
    Ok(Output::of(Report { answer: answer?, text }))
}

/// `pilotctl network join`, `join`
pub(crate) async fn join(ctx: &Context, args: &JoinArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let name = args.network.as_ref().or(args.network_flag.as_ref()).map_or("", String::as_str);
    let network = number(&client, name).await?;
    let answer = client.network_join(network, &args.token).await?;
    Ok(Output::of(Report { answer, text: joined }))
}

/// A network by number, or by its name in the registry's list.
async fn number(client: &Client, text: &str) -> Result<NetworkId, Failure> {
    if let Ok(number) = text.parse() {
        return Ok(NetworkId(number));
    }
    let list = client.network_list().await?;
    let found =
        list["networks"].as_array().and_then(|all| all.iter().find(|network| network["name"] == text));
    found
        .and_then(|network| network["id"].as_u64())
        .and_then(|id| u16::try_from(id).ok())
        .map(NetworkId)
        .ok_or_else(|| {
            Failure::new(Code::NotFound, format!("no network is called `{text}`"))
                .hint("see `pilotctl network list`")
        })
}

fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| if value.is_null() { "-".to_owned() } else { value.to_string() }, str::to_owned)
}

fn table(answer: &Value, list: &str, columns: &[(&str, &str, usize)], empty: &str) -> String {
    let rows = answer[list].as_array().map_or(&[][..], Vec::as_slice);
    if rows.is_empty() {
        return empty.to_owned();
    }
    let heading: Vec<String> = columns.iter().map(|(title, _, width)| format!("{title:<width$}")).collect();
    let mut lines = vec![style::faint(heading.join(" ").trim_end())];
    for row in rows {
        let cells: Vec<String> =
            columns.iter().map(|(_, field, width)| format!("{:<width$}", text_of(&row[*field]))).collect();
        lines.push(cells.join(" ").trim_end().to_owned());
    }
    lines.join("\n")
}

fn networks(answer: &Value) -> String {
    let columns =
        [("ID", "id", 8), ("NAME", "name", 30), ("JOIN RULE", "join_rule", 10), ("MEMBERS", "members", 8)];
    table(answer, "networks", &columns, "no networks")
}

fn members(answer: &Value) -> String {
    let columns = [
        ("NODE", "node_id", 8),
        ("ADDRESS", "address", 22),
        ("HOSTNAME", "hostname", 24),
        ("ROLE", "role", 8),
    ];
    table(answer, "nodes", &columns, "no members")
}

fn invites(answer: &Value) -> String {
    let columns = [("NETWORK", "network_id", 10), ("FROM NODE", "inviter_id", 10)];
    table(answer, "invites", &columns, "no invitations")
}

fn joined(answer: &Value) -> String {
    format!("joined network {} as {}", answer["network_id"], text_of(&answer["address"]))
}

fn left(answer: &Value) -> String {
    format!("left network {}", answer["network_id"])
}

fn invited(answer: &Value) -> String {
    format!("node {} is invited to network {}", answer["target_node_id"], answer["network_id"])
}

fn responded(answer: &Value) -> String {
    let verb = if answer["accepted"] == true { "accepted" } else { "declined" };
    format!("the invitation to network {} is {verb}", answer["network_id"])
}
