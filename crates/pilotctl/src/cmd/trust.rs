//! `pilotctl pending`, `approve`, `reject`, `trust`, `trusted` and `untrust`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl pending\n  pilotctl pending --wait=60s --json")]
pub(crate) struct PendingArgs {
    /// Wait until somebody asks [default when bare: 30s]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "30s",
          value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl approve agent-a\n  pilotctl approve 0:0000.0000.0001\n  pilotctl approve --all"
)]
pub(crate) struct ApproveArgs {
    /// Hostname, address or node number; without one, the waiting requests are listed
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,
    /// Approve every request that waits now
    #[arg(long, conflicts_with = "target")]
    pub(crate) all: bool,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl reject agent-a\n  pilotctl reject agent-a \"not now\"")]
pub(crate) struct RejectArgs {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Why; told to the other side
    #[arg(value_name = "REASON")]
    pub(crate) reason: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl trust\n  pilotctl trust agent-b\n  pilotctl trust request agent-b --reason \"shared work\"\n  \
        pilotctl trust approve agent-a\n  pilotctl trust revoke agent-a",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Approve this node if it asks for trust, else ask it
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,
    /// Why; shown to the other side
    #[arg(value_name = "REASON", requires = "target")]
    pub(crate) reason: Vec<String>,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The nodes we trust
    #[command(before_help = "Examples:\n  pilotctl trust list")]
    List(Filter),
    /// Who asks for our trust
    #[command(alias = "pending", before_help = "Examples:\n  pilotctl trust list-pending")]
    ListPending,
    /// Ask a node for mutual trust
    #[command(before_help = "Examples:\n  pilotctl trust request agent-b --reason \"shared work\"")]
    Request(RequestArgs),
    /// Approve a node if it asks for trust, else ask it
    #[command(before_help = "Examples:\n  pilotctl trust add agent-b")]
    Add(TargetArgs),
    /// Give the trust that was asked for
    #[command(before_help = "Examples:\n  pilotctl trust approve agent-a\n  pilotctl trust approve --all")]
    Approve(ApproveArgs),
    /// Refuse the trust that was asked for
    #[command(before_help = "Examples:\n  pilotctl trust reject agent-a \"not now\"")]
    Reject(RejectArgs),
    /// Take trust back
    #[command(alias = "remove", before_help = "Examples:\n  pilotctl trust revoke agent-b")]
    Revoke(TargetArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RequestArgs {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Why; shown to the other side
    #[arg(long, alias = "justification", value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
}

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Filter {
    /// Only nodes whose number, address or hostname contains this
    #[arg(long, value_name = "QUERY")]
    pub(crate) search: Option<String>,
    /// At most so many; 0 is all
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub(crate) limit: usize,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl trusted\n  pilotctl trusted --json")]
pub(crate) struct TrustedArgs {
    /// `list`, as the reference writes it
    #[arg(value_parser = ["list"], value_name = "list", hide = true)]
    pub(crate) list: Option<String>,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl untrust agent-b\n  pilotctl untrust 2")]
pub(crate) struct UntrustArgs {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
}

use std::fmt;
use std::time::Duration;

use pilot_client::Client;
use pilot_wire::ipc::{Call, Pending, Trusted};
use pilot_wire::{Addr, NetworkId, NodeId, PublicKey};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::target::{Peer, Target};
use crate::{humane, style};

/// `pilotctl trust ...`
pub(crate) async fn run(ctx: &Context, args: Args) -> Result<Output, Failure> {
    match (args.command, args.target) {
        (None, None) => list(ctx, &args.filter).await,
        (None, Some(target)) => add(ctx, &target, &args.reason.join(" ")).await,
        (Some(Command::List(filter)), _) => list(ctx, &filter).await,
        (Some(Command::ListPending), _) => pending(ctx, None).await,
        (Some(Command::Request(args)), _) => {
            super::handshake::request(ctx, &args.target, &args.reason.unwrap_or_default(), None).await
        }
        (Some(Command::Add(args)), _) => add(ctx, &args.target, "").await,
        (Some(Command::Approve(args)), _) => approve(ctx, &args).await,
        (Some(Command::Reject(args)), _) => reject(ctx, &args).await,
        (Some(Command::Revoke(args)), _) => untrust(ctx, &args.target).await,
    }
}

/// Approves a node that waits for it, or else asks it.
async fn add(ctx: &Context, target: &str, reason: &str) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let waiting = client.pending().await?;
    if in_list(&Target::parse(target)?, &waiting).is_some() {
        return approve(ctx, &ApproveArgs { target: Some(target.to_owned()), all: false }).await;
    }
    super::handshake::request(ctx, target, reason, None).await
}

/// What a list of relations has in common.
trait Row {
    fn node(&self) -> NodeId;
    fn hostname(&self) -> &str;
}

impl Row for Pending {
    fn node(&self) -> NodeId {
        self.node_id
    }
    fn hostname(&self) -> &str {
        &self.hostname
    }
}

impl Row for Trusted {
    fn node(&self) -> NodeId {
        self.node_id
    }
    fn hostname(&self) -> &str {
        &self.hostname
    }
}

/// The name is looked for in the list first: a private node that asks us cannot always be resolved.
fn in_list(target: &Target, rows: &[impl Row]) -> Option<Peer> {
    let row = rows.iter().find(|row| match target {
        Target::Address(addr) => addr.node == row.node(),
        Target::Number(node) => *node == row.node(),
        Target::Name(name) => name == row.hostname(),
    })?;
    Some(Peer { node: row.node(), addr: Addr::backbone(row.node()), hostname: row.hostname().to_owned() })
}

async fn pick(client: &Client, text: &str, rows: &[impl Row], missing: &str) -> Result<Peer, Failure> {
    let target = Target::parse(text)?;
    if let Some(peer) = in_list(&target, rows) {
        return Ok(peer);
    }
    let named = match &target {
        Target::Name(_) => {
            target.resolve(client).await.ok().and_then(|peer| in_list(&Target::Number(peer.node), rows))
        }
        Target::Address(_) | Target::Number(_) => None,
    };
    named.ok_or_else(|| Failure::new(Code::NotFound, format!("`{text}` {missing}")))
}

#[derive(Serialize)]
struct PendingReport {
    pending: Vec<PendingRow>,
}

#[derive(Serialize)]
struct PendingRow {
    #[serde(flatten)]
    request: Pending,
    address: Addr,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_fingerprint: Option<String>,
}

impl fmt::Display for PendingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pending.is_empty() {
            return write!(f, "nobody waits for approval");
        }
        for row in &self.pending {
            let request = &row.request;
            let known_as =
                if request.hostname.is_empty() { row.address.to_string() } else { request.hostname.clone() };
            let asked = humane::ago(request.received_at);
            writeln!(
                f,
                "{} · {} · node {} · {asked}",
                style::strong(&known_as),
                row.address,
                request.node_id
            )?;
            if !request.justification.is_empty() {
                writeln!(f, "  says     {}", humane::preview(&request.justification, 200))?;
            }
            if let Some(fingerprint) = &row.key_fingerprint {
                writeln!(f, "  key      {fingerprint}")?;
            }
            writeln!(f, "  accept   pilotctl approve {known_as}")?;
            writeln!(f, "  decline  pilotctl reject {known_as} \"reason\"")?;
        }
        Ok(())
    }
}

/// `pilotctl pending`
pub(crate) async fn pending(ctx: &Context, wait: Option<Duration>) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let mut waiting = match wait {
        None => client.pending().await?,
        Some(patience) => until_asked(&client, patience).await?,
    };
    fill_in(&client, waiting.iter_mut().map(|row| (row.node_id, &mut row.hostname, &mut row.public_key)))
        .await;
    let pending = waiting
        .into_iter()
        .map(|request| PendingRow {
            address: Addr::backbone(request.node_id),
            key_fingerprint: request.public_key.map(|key| key.fingerprint()),
            request,
        })
        .collect();
    Ok(Output::of(PendingReport { pending }))
}

/// Rows for which the registry is asked; the daemon learns the rest by and by.
const LOOK_UPS: usize = 16;

/// A registry that takes longer is not waited for: names are a comfort.
const LOOK_UP_MAX: Duration = Duration::from_millis(500);

/// Name and key of nodes that the daemon has only just heard of: it looks them up in the background, and a person
/// who must decide now should see them.
async fn fill_in<'a>(
    client: &Client,
    rows: impl Iterator<Item = (NodeId, &'a mut String, &'a mut Option<PublicKey>)>,
) {
    #[derive(Deserialize)]
    struct Found {
        #[serde(default)]
        hostname: String,
        #[serde(default)]
        public_key: Option<PublicKey>,
    }
    let incomplete = rows.filter(|(_, hostname, key)| hostname.is_empty() || key.is_none()).take(LOOK_UPS);
    for (node, hostname, key) in incomplete {
        let asked = tokio::time::timeout(LOOK_UP_MAX, client.call::<Found>(Call::Lookup { node })).await;
        let Ok(Ok(found)) = asked else { return };
        if hostname.is_empty() {
            *hostname = found.hostname;
        }
        *key = key.or(found.public_key);
    }
}

/// Between two looks at the list of a daemon that cannot tell of changes.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

async fn until_asked(client: &Client, patience: Duration) -> Result<Vec<Pending>, Failure> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let waiting = client.pending().await?;
        if !waiting.is_empty() {
            return Ok(waiting);
        }
        if tokio::time::Instant::now() >= deadline {
            let message = format!("nobody asked for trust within {}", crate::duration::show(patience));
            return Err(Failure::new(Code::Timeout, message));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[derive(Serialize)]
struct Decided {
    node_id: NodeId,
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'static str,
    #[serde(skip)]
    text: String,
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Serialize)]
struct ApprovedAll {
    approved: Vec<NodeId>,
}

impl fmt::Display for ApprovedAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} approved", self.approved.len())
    }
}

/// `pilotctl approve`
pub(crate) async fn approve(ctx: &Context, args: &ApproveArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let waiting = client.pending().await?;
    if args.all {
        let mut approved = Vec::new();
        for request in waiting {
            client.approve(request.node_id).await?;
            approved.push(request.node_id);
        }
        return Ok(Output::of(ApprovedAll { approved }));
    }
    let Some(text) = &args.target else { return pending(ctx, None).await };
    let peer = pick(&client, text, &waiting, "has no pending request").await.map_err(|failure| {
        failure.advise(
            Code::NotFound,
            "see who waits: `pilotctl pending`; ask yourself: `pilotctl handshake NODE`",
        )
    })?;
    client.approve(peer.node).await?;
    let text = format!("{} and this node trust each other", peer.name());
    Ok(Output::of(Decided { node_id: peer.node, status: "approved", text }))
}

/// `pilotctl reject`
pub(crate) async fn reject(ctx: &Context, args: &RejectArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let waiting = client.pending().await?;
    let peer = pick(&client, &args.target, &waiting, "has no pending request").await?;
    client.reject(peer.node, &args.reason.join(" ")).await?;
    let text = format!("the request of {} is declined", peer.name());
    Ok(Output::of(Decided { node_id: peer.node, status: "rejected", text }))
}

/// `pilotctl untrust`
pub(crate) async fn untrust(ctx: &Context, target: &str) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let trusted = client.trusted().await?;
    let peer = pick(&client, target, &trusted, "is not trusted").await?;
    client.revoke(peer.node).await?;
    let text = format!("{} is not trusted any more", peer.name());
    Ok(Output::of(Decided { node_id: peer.node, status: "", text }))
}

#[derive(Serialize)]
struct TrustReport {
    trusted: Vec<TrustedRow>,
    total: usize,
}

#[derive(Serialize)]
struct TrustedRow {
    #[serde(flatten)]
    node: Trusted,
    address: Addr,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_fingerprint: Option<String>,
}

impl fmt::Display for TrustReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.trusted.is_empty() {
            return write!(f, "no node is trusted\nask one: pilotctl handshake NODE");
        }
        let heading = format!("{:<20} {:<20} {:<20} {:<20} KEY", "ADDRESS", "HOSTNAME", "SINCE", "BY");
        writeln!(f, "{}", style::faint(heading))?;
        for row in &self.trusted {
            let hostname = if row.node.hostname.is_empty() { "-" } else { &row.node.hostname };
            let since = humane::utc(row.node.approved_at);
            let key = row.key_fingerprint.as_deref().unwrap_or("(not known yet)");
            let by = by(&row.node);
            writeln!(f, "{:<20} {hostname:<20} {since:<20} {by:<20} {key}", row.address.to_string())?;
            if let Some(changed) = row.node.key_changed {
                let (at, by) = (humane::utc(changed.at), changed.by.words());
                writeln!(f, "  key changed on {at} by the {by}")?;
            }
        }
        if self.trusted.len() < self.total {
            writeln!(f, "{} of {}", self.trusted.len(), self.total)?;
        }
        Ok(())
    }
}

/// Why a node is trusted.
fn by(node: &Trusted) -> String {
    match (node.network, node.network_name.as_str()) {
        (NetworkId::BACKBONE, _) => "handshake".to_owned(),
        (network, "") => format!("network {network}"),
        (_, name) => format!("network {name}"),
    }
}

/// `pilotctl trust`, `trusted`
pub(crate) async fn list(ctx: &Context, filter: &Filter) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let mut nodes = client.trusted().await?;
    fill_in(&client, nodes.iter_mut().map(|row| (row.node_id, &mut row.hostname, &mut row.public_key))).await;
    let mut trusted: Vec<TrustedRow> = nodes
        .into_iter()
        .map(|node| TrustedRow {
            address: Addr::backbone(node.node_id),
            key_fingerprint: node.public_key.map(|key| key.fingerprint()),
            node,
        })
        .collect();
    if let Some(query) = &filter.search {
        trusted.retain(|row| {
            row.node.hostname.contains(query)
                || row.address.to_string().contains(query)
                || row.node.node_id.to_string() == *query
        });
    }
    let total = trusted.len();
    if filter.limit > 0 {
        trusted.truncate(filter.limit);
    }
    Ok(Output::of(TrustReport { trusted, total }))
}
