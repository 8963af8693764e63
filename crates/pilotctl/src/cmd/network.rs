//! `pilotctl network` and `join`.

pub(crate) mod admin;

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
    /// The networks this node is in
    #[command(before_help = "Examples:\n  pilotctl network mine")]
    Mine,
    /// Whether the members of a network are trusted without a handshake
    Trust(TrustArgs),
    /// Create a network
    Create(admin::CreateArgs),
    /// Delete a network
    Delete(admin::DeleteArgs),
    /// Rename a network
    Rename(admin::RenameArgs),
    /// Remove a member
    #[command(
        before_help = "Examples:\n  pilotctl network kick team agent-b\n  pilotctl network kick team 12"
    )]
    Kick(admin::MemberArgs),
    /// Make a member an admin
    #[command(
        before_help = "Examples:\n  pilotctl network promote team agent-b\n  pilotctl network promote team 12"
    )]
    Promote(admin::MemberArgs),
    /// Make an admin a member
    #[command(
        before_help = "Examples:\n  pilotctl network demote team agent-b\n  pilotctl network demote team 12"
    )]
    Demote(admin::MemberArgs),
    /// Hand a network over to a member
    #[command(
        alias = "transfer-ownership",
        before_help = "Examples:\n  pilotctl network transfer team agent-b"
    )]
    Transfer(admin::MemberArgs),
    /// The role of a member
    #[command(
        before_help = "Examples:\n  pilotctl network role team agent-b\n  pilotctl network role team 12"
    )]
    Role(admin::MemberArgs),
    /// The labels of a member in a network
    Tags(admin::TagsArgs),
    /// Say until when a node is a member
    Expire(admin::ExpireArgs),
    /// The limits of a network: ports, members, description
    #[command(alias = "set-policy")]
    Policy(admin::PolicyArgs),
    /// The expression policy of a network, which nodes carry out
    ExprPolicy(admin::ExprArgs),
    /// Roles, invitations and limits on or off
    Enterprise(admin::EnterpriseArgs),
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl network trust 9 off\n  pilotctl network trust data-agents on")]
pub(crate) struct TrustArgs {
    /// Number or name of the network
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    /// `on` or `off`
    #[arg(value_name = "on|off", value_parser = ["on", "off"])]
    pub(crate) switch: String,
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
    /// Do not trust its members: each needs a handshake, as without a network
    #[arg(long)]
    pub(crate) no_trust: bool,
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
use pilot_wire::networks::Membership;
use pilot_wire::registry::Role;
use serde::Serialize;
use serde_json::Value;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{style, target};

/// The registry's own object, with a text for people.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Report {
    pub(super) answer: Value,
    #[serde(skip)]
    pub(super) text: fn(&Value) -> String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&(self.text)(&self.answer))
    }
}

/// What any daemon can be asked, the reference's too.
enum Plain {
    List,
    Leave(NetworkArgs),
    Members(NetworkArgs),
    Invite(InviteArgs),
    Invites,
    Respond(NetworkArgs, bool),
}

/// `pilotctl network ...`
pub(crate) async fn run(ctx: &Context, command: Command) -> Result<Output, Failure> {
    let command = match command {
        Command::Join(args) => return join(ctx, &args).await,
        Command::Mine => return mine(ctx).await,
        Command::Trust(args) => return trust(ctx, &args).await,
        Command::Create(args) => return admin::create(ctx, &args).await,
        Command::Delete(args) => return admin::delete(ctx, &args).await,
        Command::Rename(args) => return admin::rename(ctx, &args).await,
        Command::Kick(args) => return admin::member(ctx, &args, "kick_member", admin::kicked).await,
        Command::Promote(args) => return admin::member(ctx, &args, "promote_member", admin::role).await,
        Command::Demote(args) => return admin::member(ctx, &args, "demote_member", admin::role).await,
        Command::Transfer(args) => {
            return admin::member(ctx, &args, "transfer_ownership", admin::transferred).await;
        }
        Command::Role(args) => return admin::member(ctx, &args, "get_member_role", admin::role).await,
        Command::Tags(args) => return admin::tags(ctx, &args).await,
        Command::Expire(args) => return admin::expire(ctx, &args).await,
        Command::Policy(args) => return admin::policy(ctx, &args).await,
        Command::ExprPolicy(args) => return admin::expr_policy(ctx, &args).await,
        Command::Enterprise(args) => return admin::enterprise(ctx, &args).await,
        Command::List => Plain::List,
        Command::Leave(args) => Plain::Leave(args),
        Command::Members(args) => Plain::Members(args),
        Command::Invite(args) => Plain::Invite(args),
        Command::Invites => Plain::Invites,
        Command::Accept(args) => Plain::Respond(args, true),
        Command::Reject(args) => Plain::Respond(args, false),
    };
    let client = ctx.client().await?;
    let (answer, text): (_, fn(&Value) -> String) = match command {
        Plain::List => (client.network_list().await, networks),
        Plain::Leave(args) => (client.network_leave(number(&client, &args.network).await?).await, left),
        Plain::Members(args) => {
            (client.network_members(number(&client, &args.network).await?).await, members)
        }
        Plain::Invite(args) => {
            let network = number(&client, &args.network).await?;
            let node = args.target.or(args.node).unwrap_or_default();
            let peer = target::find(&client, &node).await?;
            (client.network_invite(network, peer.node).await, invited)
        }
        Plain::Invites => (client.network_invites().await, invites),
        Plain::Respond(args, accept) => {
            (client.network_respond(number(&client, &args.network).await?, accept).await, responded)
        }
    };
    Ok(Output::of(Report { answer: answer?, text }))
}

/// `pilotctl network join`, `join`
pub(crate) async fn join(ctx: &Context, args: &JoinArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let name = args.network.as_ref().or(args.network_flag.as_ref()).map_or("", String::as_str);
    let network = number(&client, name).await?;
    let answer = match client.is_reference() {
        true => client.network_join(network, &args.token).await?,
        false => client.join_network(network, &args.token, !args.no_trust).await?,
    };
    Ok(Output::of(Report { answer, text: joined }))
}

#[derive(Serialize)]
struct Mine {
    networks: Vec<Membership>,
}

impl fmt::Display for Mine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.networks.is_empty() {
            return write!(f, "this node is in no network");
        }
        let heading =
            format!("{:<8} {:<24} {:<20} {:<8} {:<26} PORTS", "ID", "NAME", "ADDRESS", "ROLE", "MEMBERS");
        writeln!(f, "{}", style::faint(heading))?;
        for network in &self.networks {
            let name = if network.name.is_empty() { "-" } else { &network.name };
            let role = network.role.map_or("-", |role| match role {
                Role::Owner => "owner",
                Role::Admin => "admin",
                Role::Member => "member",
            });
            let trust = match network.trust {
                true => format!("{} trusted", network.trusted_members),
                false => "not trusted".to_owned(),
            };
            let ports: Vec<String> = network.allowed_ports.iter().map(u16::to_string).collect();
            let ports = if ports.is_empty() { "all".to_owned() } else { ports.join(",") };
            let end = network.expires_at.map(|end| format!(" · until {}", crate::humane::utc(end)));
            let address = network.address.to_string();
            writeln!(
                f,
                "{:<8} {name:<24} {address:<20} {role:<8} {trust:<26} {ports}{}",
                network.network_id,
                end.unwrap_or_default()
            )?;
        }
        Ok(())
    }
}

/// `pilotctl network mine`
async fn mine(ctx: &Context) -> Result<Output, Failure> {
    let networks = ctx.client().await?.memberships().await?;
    Ok(Output::of(Mine { networks }))
}

/// `pilotctl network trust`
async fn trust(ctx: &Context, args: &TrustArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let network = number(&client, &args.network).await?;
    let networks = client.trust_network(network, args.switch == "on").await?;
    Ok(Output::of(Mine { networks }))
}

/// A network by number, or by its name in the registry's list.
pub(crate) async fn number(client: &Client, text: &str) -> Result<NetworkId, Failure> {
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

pub(super) fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| if value.is_null() { "-".to_owned() } else { value.to_string() }, str::to_owned)
}

pub(super) fn table(answer: &Value, list: &str, columns: &[(&str, &str, usize)], empty: &str) -> String {
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
