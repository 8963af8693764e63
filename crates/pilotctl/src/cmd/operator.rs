//! `pilotctl audit`, `provision` and `provision-status`: for the operator of a registry.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::network::admin::{Token, answer};
use super::network::{Report, number, table, text_of};
use crate::context::Context;
use crate::failure::Failure;
use crate::input;
use crate::output::Output;

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl audit\n  pilotctl audit --network team --limit 20 --json")]
pub(crate) struct AuditArgs {
    /// Only of this network, by number or name
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    /// At most so many entries, the newest first
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) operator: Token,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl provision corp.json\n  echo '{\"name\":\"corp\",\"enterprise\":true}' | pilotctl provision -"
)]
pub(crate) struct ProvisionArgs {
    /// The blueprint, a JSON file; `-` reads it from stdin
    #[arg(value_name = "PATH")]
    pub(crate) blueprint: PathBuf,
    #[command(flatten)]
    pub(crate) operator: Token,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl provision-status")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) operator: Token,
}

/// `pilotctl audit`
pub(crate) async fn audit(ctx: &Context, args: &AuditArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let mut request = json!({"type": "get_audit_log", "limit": args.limit});
    if let Some(network) = &args.network {
        request["network_id"] = json!(number(&client, network).await?);
    }
    let answer = answer(&client, request, &args.operator).await?;
    Ok(Output::of(Report { answer, text: entries }))
}

fn entries(answer: &Value) -> String {
    let columns = [
        ("WHEN", "timestamp", 21),
        ("ACTION", "action", 28),
        ("NETWORK", "network_id", 8),
        ("NODE", "node_id", 8),
        ("DETAILS", "details", 8),
    ];
    table(answer, "entries", &columns, "nothing is written")
}

/// `pilotctl provision`
pub(crate) async fn provision(ctx: &Context, args: &ProvisionArgs) -> Result<Output, Failure> {
    let bytes =
        if args.blueprint.as_os_str() == "-" { input::stdin()? } else { input::file(&args.blueprint)? };
    let wrong = |error| Failure::usage(format!("the blueprint is not JSON: {error}"));
    let blueprint: Value = serde_json::from_slice(&bytes).map_err(wrong)?;
    let client = ctx.client().await?;
    let request = json!({"type": "provision_network", "blueprint": blueprint});
    let answer = answer(&client, request, &args.operator).await?;
    Ok(Output::of(Report { answer, text: provisioned }))
}

fn provisioned(answer: &Value) -> String {
    let mut lines = vec![format!("network {} is `{}`", answer["network_id"], text_of(&answer["name"]))];
    lines.extend(
        answer["actions"].as_array().into_iter().flatten().map(|action| format!("  {}", text_of(action))),
    );
    lines.join("\n")
}

/// `pilotctl provision-status`
pub(crate) async fn status(ctx: &Context, args: &StatusArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let request = json!({"type": "get_provision_status"});
    let answer = answer(&client, request, &args.operator).await?;
    Ok(Output::of(Report { answer, text: networks }))
}

fn networks(answer: &Value) -> String {
    let columns = [
        ("ID", "network_id", 8),
        ("NAME", "name", 30),
        ("JOIN RULE", "join_rule", 10),
        ("MEMBERS", "members", 8),
        ("MOST", "max_members", 8),
        ("WAITING ROLES", "rbac_pre_assignments", 8),
    ];
    table(answer, "networks", &columns, "no networks")
}
