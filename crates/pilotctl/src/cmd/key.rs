//! `pilotctl key`: for how long the key of a node is valid.

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The life of a node's key
    Info(InfoArgs),
    /// Say until when this node's key is valid; needs membership in an enterprise network
    Expire(ExpireArgs),
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl key info\n  pilotctl key info agent-b")]
pub(crate) struct InfoArgs {
    /// Hostname, address or node number [default: this node]
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl key expire 90d\n  pilotctl key expire never")]
pub(crate) struct ExpireArgs {
    /// A duration from now, a time in RFC 3339, or `never`
    #[arg(value_name = "WHEN", value_parser = moment::parse)]
    pub(crate) when: String,
    /// Another node, with the operator's token
    #[arg(long, value_name = "TARGET")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) operator: Token,
}

use serde_json::{Value, json};

use super::network::admin::{Token, answer};
use super::network::{Report, text_of};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::{moment, target};

/// `pilotctl key ...`
pub(crate) async fn run(ctx: &Context, command: Command) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let (mut request, node, operator) = match command {
        Command::Info(args) => (json!({"type": "get_key_info"}), args.target, Token::default()),
        Command::Expire(args) => {
            (json!({"type": "set_key_expiry", "expires_at": args.when}), args.node, args.operator)
        }
    };
    if let Some(node) = node {
        request["node_id"] = json!(target::find(&client, &node).await?.node);
    }
    let answer = answer(&client, request, &operator).await?;
    Ok(Output::of(Report { answer, text: life }))
}

fn life(answer: &Value) -> String {
    let mut lines = Vec::new();
    if answer["type"] == "get_key_info_ok" {
        lines.push(format!("created   {}", text_of(&answer["created_at"])));
        lines.push(format!(
            "replaced  {} times, last {}",
            answer["rotate_count"],
            text_of(&answer["rotated_at"])
        ));
    }
    lines.push(format!("ends      {}", answer["expires_at"].as_str().unwrap_or("never")));
    lines.join("\n")
}
