//! `pilotctl peers`.

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl peers\n  pilotctl peers --search agent-b\n  pilotctl peers --search tag:gpu"
)]
pub(crate) struct Args {
    /// Only peers whose address, number, hostname or tag contains this; `tag:x` looks at tags alone
    #[arg(long, value_name = "QUERY")]
    pub(crate) search: Option<String>,
    /// Kept for scripts: all peers are always listed
    #[arg(long, hide = true)]
    pub(crate) all: bool,
}

use std::fmt;

use pilot_client::Client;
use pilot_wire::ipc::{Call, PeerInfo};
use pilot_wire::{Addr, NodeId};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::paths::{ago_ms, rtt};
use crate::{humane, style};

#[derive(Serialize)]
struct Report {
    peers: Vec<PeerInfo>,
    total: usize,
    encrypted: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.peers.is_empty() {
            return write!(f, "no peers connected\na tunnel opens with the first word: pilotctl ping NODE");
        }
        writeln!(f, "{}, {} encrypted", humane::count(self.total, "peer"), self.encrypted)?;
        let heading = format!(
            "{:<20} {:<18} {:<10} {:<7} {:<22} {:>9}  {:<12} {}",
            "ADDRESS", "HOSTNAME", "TUNNEL", "PATH", "ENDPOINT", "RTT", "HEARD", "MEMBER OF"
        );
        writeln!(f, "{}", style::faint(heading))?;
        for peer in &self.peers {
            let address = peer.address.unwrap_or_else(|| Addr::backbone(peer.node_id)).to_string();
            let hostname = if peer.hostname.is_empty() { "-" } else { &peer.hostname };
            let tunnel = if peer.encrypted {
                style::good(format!("{:<10}", "encrypted"))
            } else {
                style::bad(format!("{:<10}", "in clear"))
            };
            let path = match (peer.relay, peer.endpoint.as_str()) {
                (true, _) => "relay",
                (false, "") => "-",
                (false, _) => "direct",
            };
            let endpoint = if peer.endpoint.is_empty() { "-" } else { &peer.endpoint };
            let rtt = rtt(peer.rtt_us);
            let heard = peer.idle_ms.map_or_else(|| "-".to_owned(), ago_ms);
            let networks: Vec<String> = peer.networks.iter().map(|id| format!("network {id}")).collect();
            let row = format!(
                "{address:<20} {hostname:<18} {tunnel} {path:<7} {endpoint:<22} {rtt:>9}  {heard:<12}"
            );
            writeln!(f, "{}", format!("{row} {}", networks.join(", ")).trim_end())?;
            for alarm in &peer.alarms {
                writeln!(f, "  {}: {alarm}", style::bad("alarm"))?;
            }
        }
        Ok(())
    }
}

/// `pilotctl peers`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let mut peers = list(&client).await?;
    if let Some(query) = &args.search {
        peers = matching(&client, peers, query).await?;
    }
    let (total, encrypted) = (peers.len(), peers.iter().filter(|peer| peer.encrypted).count());
    Ok(Output::of(Report { peers, total, encrypted }))
}

/// Peers with a tunnel, by number.
pub(crate) async fn list(client: &Client) -> Result<Vec<PeerInfo>, Failure> {
    let mut peers = match client.call::<Vec<PeerInfo>>(Call::Peers).await.map_err(Failure::from) {
        Ok(peers) => peers,
        Err(failure) if failure.code == Code::Unsupported => client.info().await?.peer_list,
        Err(failure) => return Err(failure),
    };
    peers.sort_by_key(|peer| peer.node_id);
    Ok(peers)
}

/// A search looks at connected and at trusted peers; tags are asked of the registry.
async fn matching(client: &Client, mut peers: Vec<PeerInfo>, query: &str) -> Result<Vec<PeerInfo>, Failure> {
    for trusted in client.trusted().await? {
        if peers.iter().all(|peer| peer.node_id != trusted.node_id) {
            peers.push(PeerInfo {
                node_id: trusted.node_id,
                address: Some(Addr::backbone(trusted.node_id)),
                hostname: trusted.hostname,
                ..PeerInfo::default()
            });
        }
    }
    let words: Vec<&str> = query.split_whitespace().collect();
    let mut found = Vec::new();
    for peer in peers {
        let tags = tags(client, peer.node_id).await?;
        if words.iter().all(|word| matches(&peer, &tags, word)) {
            found.push(peer);
        }
    }
    Ok(found)
}

fn matches(peer: &PeerInfo, tags: &[String], word: &str) -> bool {
    if let Some(tag) = word.strip_prefix("tag:").or_else(|| word.strip_prefix('#')) {
        return tags.iter().any(|known| known == tag);
    }
    let address = peer.address.map(|addr| addr.to_string()).unwrap_or_default();
    peer.node_id.to_string() == word
        || address.contains(word)
        || peer.hostname.contains(word)
        || tags.iter().any(|tag| tag.contains(word))
}

/// The tags of a node; none for one the registry does not show us.
pub(crate) async fn tags(client: &Client, node: NodeId) -> Result<Vec<String>, Failure> {
    #[derive(serde::Deserialize)]
    struct Tagged {
        #[serde(default)]
        tags: Option<Vec<String>>,
    }
    match client.call::<Tagged>(Call::Lookup { node }).await.map_err(Failure::from) {
        Ok(found) => Ok(found.tags.unwrap_or_default()),
        Err(failure)
            if matches!(failure.code, Code::NotFound | Code::TrustRequired | Code::PermissionDenied) =>
        {
            Ok(Vec::new())
        }
        Err(failure) => Err(failure),
    }
}
