//! The part of `pilotctl network` for owners, admins and operators.

use std::path::PathBuf;

use pilot_client::Client;
use serde_json::{Value, json};

use super::{Report, number, text_of};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{humane, input, moment, target};

/// The token of the operator or of the network.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Token {
    /// Token of the registry's operator or of the network; without one the role of this node counts
    #[arg(long = "admin-token", value_name = "TOKEN", env = "PILOT_ADMIN_TOKEN", hide_env_values = true)]
    pub(crate) admin_token: Option<String>,
}

impl Token {
    pub(crate) fn text(&self) -> &str {
        self.admin_token.as_deref().unwrap_or_default()
    }
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl network create team\n  pilotctl network create secret --join-rule token --token s3cret\n  \
    pilotctl network create corp --join-rule invite --enterprise --node-id 12"
)]
pub(crate) struct CreateArgs {
    /// Its name: lowercase letters, digits and hyphens
    #[arg(value_name = "NAME", required_unless_present = "name_flag")]
    pub(crate) name: Option<String>,
    /// Its name, as the reference takes it
    #[arg(long = "name", value_name = "NAME", conflicts_with = "name", hide = true)]
    pub(crate) name_flag: Option<String>,
    /// Who may join
    #[arg(long, value_parser = ["open", "token", "invite"], default_value = "open", value_name = "RULE")]
    pub(crate) join_rule: String,
    /// What members must know with `--join-rule token`
    #[arg(long, value_name = "TOKEN", default_value = "")]
    pub(crate) token: String,
    /// With roles, invitations, limits and key expiry
    #[arg(long)]
    pub(crate) enterprise: bool,
    /// The owner [default: this node]
    #[arg(long, value_name = "NODE")]
    pub(crate) node_id: Option<String>,
    /// A number of your own choice that was never used [default: the next]
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) network_id: u16,
    /// A token that stands for the owner's role in this network
    #[arg(long, value_name = "TOKEN", default_value = "")]
    pub(crate) network_admin_token: String,
    #[command(flatten)]
    pub(crate) operator: Token,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl network delete team")]
pub(crate) struct DeleteArgs {
    /// Number or name of the network
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    #[command(flatten)]
    pub(crate) operator: Token,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl network rename team crew")]
pub(crate) struct RenameArgs {
    /// Number or name of the network
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    /// Its name from now on
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) operator: Token,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MemberArgs {
    /// Number or name of the network
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    /// The member: hostname, address or node number
    #[arg(value_name = "NODE", required_unless_present = "node_flag")]
    pub(crate) node: Option<String>,
    /// The member, as the articles write it
    #[arg(long = "node", alias = "to", value_name = "NODE", conflicts_with = "node", hide = true)]
    pub(crate) node_flag: Option<String>,
    #[command(flatten)]
    pub(crate) operator: Token,
}

/// A member of whom more is said.
#[derive(Debug, clap::Args)]
pub(crate) struct Subject {
    /// Number or name of the network
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    /// The member: hostname, address or node number
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) operator: Token,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl network tags team agent-b\n  pilotctl network tags team agent-b gpu linux\n  \
    pilotctl network tags team agent-b --clear"
)]
pub(crate) struct TagsArgs {
    #[command(flatten)]
    pub(crate) member: Subject,
    /// Its labels in this network from now on; without any, those it has are shown
    #[arg(value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// No labels any more
    #[arg(long, conflicts_with = "tags")]
    pub(crate) clear: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl network expire team agent-b 720h\n  pilotctl network expire team agent-b 2027-01-31T12:00:00Z\n  \
    pilotctl network expire team agent-b never"
)]
pub(crate) struct ExpireArgs {
    #[command(flatten)]
    pub(crate) member: Subject,
    /// When the membership ends: a duration from now, a time in RFC 3339, or `never`
    #[arg(value_name = "WHEN", value_parser = moment::parse)]
    pub(crate) when: String,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl network policy team\n  pilotctl network policy team --ports 7,1001,1002 --max-members 50\n  \
    pilotctl network policy set team --ports all --description 'the night shift'"
)]
pub(crate) struct PolicyArgs {
    /// Number or name of the network, after `get` or `set` if you like
    #[arg(value_name = "NETWORK", required = true, num_args = 1..=2)]
    pub(crate) network: Vec<String>,
    /// Ports on which members reach each other, or `all`
    #[arg(long, alias = "allowed-ports", value_name = "PORTS")]
    pub(crate) ports: Option<String>,
    /// Most members; 0 for no limit
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_members: Option<u32>,
    /// For people to read
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// One of these as `max_members=N`, `allowed_ports=N,N` or `description=TEXT`, as the reference takes it
    #[arg(long = "set", value_name = "KEY=VALUE", hide = true)]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) operator: Token,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl network expr-policy team\n  pilotctl network expr-policy team --file policy.json\n  \
    pilotctl network expr-policy team --clear"
)]
pub(crate) struct ExprArgs {
    /// Number or name of the network
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    /// The policy, from a file
    #[arg(long, value_name = "PATH", conflicts_with_all = ["inline", "clear"])]
    pub(crate) file: Option<PathBuf>,
    /// The policy as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "clear")]
    pub(crate) inline: Option<String>,
    /// No policy any more
    #[arg(long)]
    pub(crate) clear: bool,
    #[command(flatten)]
    pub(crate) operator: Token,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl network enterprise team on")]
pub(crate) struct EnterpriseArgs {
    /// Number or name of the network
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    /// `on` or `off`
    #[arg(value_name = "on|off", value_parser = ["on", "off"])]
    pub(crate) switch: String,
    #[command(flatten)]
    pub(crate) operator: Token,
}

/// Asks the registry through the daemon.
async fn ask(
    client: &Client,
    request: Value,
    token: &Token,
    text: fn(&Value) -> String,
) -> Result<Output, Failure> {
    Ok(Output::of(Report { answer: answer(client, request, token).await?, text }))
}

pub(crate) async fn answer(client: &Client, request: Value, token: &Token) -> Result<Value, Failure> {
    client.ask_about_network(request, token.text()).await.map_err(|error| role_needed(error.into()))
}

/// What a missing role, token or feature means.
pub(crate) fn role_needed(failure: Failure) -> Failure {
    if failure.message.contains("enterprise feature") {
        let hint = "the operator switches it on: pilotctl network enterprise NETWORK on";
        return Failure { code: Code::PermissionDenied, ..failure.hint(hint) };
    }
    let about_roles = ["admin token", "rbac:", "network creation is disabled"];
    if !about_roles.iter().any(|words| failure.message.contains(words)) {
        return failure;
    }
    let hint = "the operator's token: --admin-token or PILOT_ADMIN_TOKEN; for a network you own, its daemon must ask";
    Failure { code: Code::PermissionDenied, ..failure.hint(hint) }
}

/// `pilotctl network create`
pub(crate) async fn create(ctx: &Context, args: &CreateArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let mut request = json!({
        "type": "create_network",
        "name": args.name.as_ref().or(args.name_flag.as_ref()),
        "join_rule": args.join_rule,
        "token": args.token,
        "enterprise": args.enterprise,
        "network_id": args.network_id,
        "network_admin_token": args.network_admin_token,
    });
    if args.join_rule == "token" && args.token.is_empty() {
        return Err(Failure::usage("`--join-rule token` wants the token").hint("add `--token SECRET`"));
    }
    if let Some(owner) = &args.node_id {
        request["node_id"] = json!(target::find(&client, owner).await?.node);
    }
    ask(&client, request, &args.operator, |answer| {
        format!("network {} is `{}`", answer["network_id"], text_of(&answer["name"]))
    })
    .await
}

/// `pilotctl network delete`
pub(crate) async fn delete(ctx: &Context, args: &DeleteArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let request = json!({"type": "delete_network", "network_id": number(&client, &args.network).await?});
    ask(&client, request, &args.operator, |answer| format!("network {} is gone", answer["network_id"])).await
}

/// `pilotctl network rename`
pub(crate) async fn rename(ctx: &Context, args: &RenameArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let network = number(&client, &args.network).await?;
    let request = json!({"type": "rename_network", "network_id": network, "name": args.name});
    ask(&client, request, &args.operator, |answer| {
        format!("network {} is `{}`", answer["network_id"], text_of(&answer["name"]))
    })
    .await
}

/// What is done with a member.
pub(crate) async fn member(
    ctx: &Context,
    args: &MemberArgs,
    kind: &'static str,
    text: fn(&Value) -> String,
) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let node = args.node.as_ref().or(args.node_flag.as_ref()).map_or("", String::as_str);
    let request = about(&client, &args.network, node, kind).await?;
    ask(&client, request, &args.operator, text).await
}

async fn about(client: &Client, network: &str, node: &str, kind: &str) -> Result<Value, Failure> {
    let network = number(client, network).await?;
    let node = target::find(client, node).await?.node;
    let field = if kind == "transfer_ownership" { "new_owner_id" } else { "target_node_id" };
    Ok(json!({"type": kind, "network_id": network, field: node}))
}

pub(crate) fn kicked(answer: &Value) -> String {
    format!("node {} is not in network {} any more", answer["target_node_id"], answer["network_id"])
}

pub(crate) fn role(answer: &Value) -> String {
    format!("node {} is {}", answer["target_node_id"], text_of(&answer["role"]))
}

pub(crate) fn transferred(answer: &Value) -> String {
    format!("node {} owns network {}", answer["new_owner"], answer["network_id"])
}

/// `pilotctl network tags`
pub(crate) async fn tags(ctx: &Context, args: &TagsArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let sets = args.clear || !args.tags.is_empty();
    let kind = if sets { "set_member_tags" } else { "get_member_tags" };
    let mut request = about(&client, &args.member.network, &args.member.node, kind).await?;
    if sets {
        request["tags"] = json!(args.tags);
    }
    ask(&client, request, &args.member.operator, |answer| {
        let tags: Vec<&str> =
            answer["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if tags.is_empty() { "no tags".to_owned() } else { format!("tags: {}", tags.join(" ")) }
    })
    .await
}

/// `pilotctl network expire`
pub(crate) async fn expire(ctx: &Context, args: &ExpireArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let mut request = about(&client, &args.member.network, &args.member.node, "set_member_expiry").await?;
    request["expires_at"] = json!(args.when);
    ask(&client, request, &args.member.operator, |answer| {
        let member = format!("node {} is in network {}", answer["target_node_id"], answer["network_id"]);
        match answer["expires_at"].as_str() {
            Some(end) => format!("{member} until {end}"),
            None => format!("{member} without an end"),
        }
    })
    .await
}

/// `pilotctl network policy`
pub(crate) async fn policy(ctx: &Context, args: &PolicyArgs) -> Result<Output, Failure> {
    let (verb, name) = match args.network.as_slice() {
        [verb, name] if ["get", "set"].contains(&verb.as_str()) => (Some(verb.as_str()), name),
        [name] => (None, name),
        _ => {
            return Err(Failure::usage(
                "write `network policy NETWORK`, with `get` or `set` before it if you like",
            ));
        }
    };
    let changes = policy_changes(args)?;
    if verb == Some("set") && changes.is_empty() {
        return Err(Failure::usage("nothing is to be set").hint("see `pilotctl network policy --help`"));
    }
    let client = ctx.client().await?;
    let network = number(&client, name).await?;
    let kind =
        if changes.is_empty() || verb == Some("get") { "get_network_policy" } else { "set_network_policy" };
    let mut request = json!({"type": kind, "network_id": network});
    for (key, value) in changes {
        request[key] = value;
    }
    ask(&client, request, &args.operator, |answer| {
        let ports: Vec<String> =
            answer["allowed_ports"].as_array().into_iter().flatten().map(Value::to_string).collect();
        let ports = if ports.is_empty() { "all".to_owned() } else { ports.join(", ") };
        let most = match answer["max_members"].as_u64() {
            Some(0) | None => "no limit".to_owned(),
            Some(most) => most.to_string(),
        };
        let description = humane::printable(answer["description"].as_str().unwrap_or_default());
        format!("ports        {ports}\nmembers      {most}\ndescription  {description}").trim_end().to_owned()
    })
    .await
}

fn policy_changes(args: &PolicyArgs) -> Result<Vec<(&'static str, Value)>, Failure> {
    let mut changes = Vec::new();
    if let Some(text) = &args.ports {
        changes.push(("allowed_ports", ports(text)?));
    }
    changes.extend(args.max_members.map(|most| ("max_members", json!(most))));
    changes.extend(args.description.as_ref().map(|text| ("description", json!(text))));
    for pair in &args.set {
        changes.push(match pair.split_once('=') {
            Some(("max_members", value)) => {
                let most: u32 =
                    value.parse().map_err(|_| Failure::usage(format!("`{value}` is no number")))?;
                ("max_members", json!(most))
            }
            Some(("allowed_ports", value)) => ("allowed_ports", ports(value)?),
            Some(("description", value)) => ("description", json!(value)),
            Some(_) | None => {
                return Err(Failure::usage(format!(
                    "`{pair}` is none of max_members=, allowed_ports=, description="
                )));
            }
        });
    }
    Ok(changes)
}

fn ports(text: &str) -> Result<Value, Failure> {
    if matches!(text, "all" | "" | "[]") {
        return Ok(json!([]));
    }
    let list = text.trim_matches(['[', ']']).split(',').map(|port| port.trim().parse::<u16>());
    let list: Result<Vec<u16>, _> = list.collect();
    let wrong =
        |_| Failure::usage(format!("`{text}` is no list of ports")).hint("write `7,1001,1002` or `all`");
    Ok(json!(list.map_err(wrong)?))
}

/// `pilotctl network expr-policy`
pub(crate) async fn expr_policy(ctx: &Context, args: &ExprArgs) -> Result<Output, Failure> {
    let given = match (&args.file, &args.inline) {
        (Some(path), _) => Some(input::file(path)?),
        (None, Some(text)) => Some(text.as_bytes().to_vec()),
        (None, None) => None,
    };
    let policy = match given {
        Some(bytes) => {
            let wrong = |error| Failure::usage(format!("the policy is not JSON: {error}"));
            Some(serde_json::from_slice::<Value>(&bytes).map_err(wrong)?)
        }
        None => args.clear.then_some(Value::Null),
    };
    let client = ctx.client().await?;
    let network = number(&client, &args.network).await?;
    let request = match policy {
        Some(policy) => json!({"type": "set_expr_policy", "network_id": network, "expr_policy": policy}),
        None => json!({"type": "get_expr_policy", "network_id": network}),
    };
    ask(&client, request, &args.operator, |answer| {
        let policy = &answer["expr_policy"];
        if !policy.is_null() {
            return format!("{policy:#}");
        }
        let is_set = answer["type"] == "set_expr_policy_ok" && answer["cleared"] != true;
        if is_set { "set" } else { "no expression policy" }.to_owned()
    })
    .await
}

/// `pilotctl network enterprise`
pub(crate) async fn enterprise(ctx: &Context, args: &EnterpriseArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let network = number(&client, &args.network).await?;
    let on = args.switch == "on";
    let request = json!({"type": "set_network_enterprise", "network_id": network, "enterprise": on});
    ask(&client, request, &args.operator, |answer| {
        let switch = if answer["enterprise"] == true { "on" } else { "off" };
        format!("enterprise features of network {}: {switch}", answer["network_id"])
    })
    .await
}
