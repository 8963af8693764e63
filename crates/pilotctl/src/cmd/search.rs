//! `pilotctl search`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl search gpu\n  pilotctl search --tag ml --tag gpu --json")]
pub(crate) struct Args {
    /// Tags that a node must all have
    #[arg(value_name = "TAG")]
    pub(crate) words: Vec<String>,
    /// A tag that a node must have; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Look among the members of this network
    #[arg(long, value_name = "ID")]
    pub(crate) network: Option<u16>,
}

use std::fmt;

use pilot_wire::NetworkId;
use serde::Serialize;
use serde_json::Value;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::{humane, style};

#[derive(Serialize)]
struct Report {
    nodes: Vec<Found>,
    total: usize,
}

#[derive(Serialize)]
struct Found {
    node_id: u64,
    address: String,
    hostname: String,
    tags: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes.is_empty() {
            return write!(f, "no node that can be seen from here has these tags");
        }
        writeln!(f, "{}", style::faint(format!("{:<20} {:<20} TAGS", "ADDRESS", "HOSTNAME")))?;
        for node in &self.nodes {
            let tags: Vec<String> = node.tags.iter().map(|tag| format!("#{tag}")).collect();
            writeln!(f, "{:<20} {:<20} {}", node.address, node.hostname, humane::printable(&tags.join(" ")))?;
        }
        Ok(())
    }
}

/// `pilotctl search`: trusted and connected peers, and the members of a network if one is named.
pub(crate) async fn run(ctx: &Context, args: Args) -> Result<Output, Failure> {
    let mut wanted = args.tags;
    wanted.extend(args.words);
    let wanted: Vec<String> = wanted.iter().map(|tag| tag.trim_start_matches('#').to_lowercase()).collect();
    if wanted.is_empty() && args.network.is_none() {
        return Err(Failure::usage("a tag or a network is missing").hint("pilotctl search --tag gpu"));
    }
    let client = ctx.client().await?;
    let mut nodes = match args.network {
        Some(network) => members(client.network_members(NetworkId(network)).await?),
        None => known(&client).await?,
    };
    nodes.retain(|node| wanted.iter().all(|tag| node.tags.contains(tag)));
    let total = nodes.len();
    Ok(Output::of(Report { nodes, total }))
}

fn members(answer: Value) -> Vec<Found> {
    let Some(nodes) = answer["nodes"].as_array() else { return Vec::new() };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    nodes
        .iter()
        .map(|node| Found {
            node_id: node["node_id"].as_u64().unwrap_or_default(),
            address: text(&node["address"]),
            hostname: text(&node["hostname"]),
            tags: node["tags"].as_array().map(|tags| tags.iter().map(text).collect()).unwrap_or_default(),
        })
        .collect()
}

async fn known(client: &pilot_client::Client) -> Result<Vec<Found>, Failure> {
    let mut nodes: Vec<(pilot_wire::NodeId, String)> =
        super::peers::list(client).await?.into_iter().map(|peer| (peer.node_id, peer.hostname)).collect();
    let trusted = client.trusted().await?;
    nodes.extend(trusted.into_iter().map(|node| (node.node_id, node.hostname)));
    nodes.sort_by_key(|(node, _)| *node);
    nodes.dedup_by_key(|(node, _)| *node);
    let mut found = Vec::new();
    for (node, hostname) in nodes {
        let tags = super::peers::tags(client, node).await?;
        found.push(Found {
            node_id: node.0.into(),
            address: pilot_wire::Addr::backbone(node).to_string(),
            hostname,
            tags,
        });
    }
    Ok(found)
}
