//! This node and others: `status`, `find_peers`, `trust`, `why`.

use std::time::Duration;

use pilot_client::ipc::paths::PathKind;
use pilot_client::ipc::{Call, Code, TrustState};
use pilot_client::mailbox::{Filter, List};
use pilot_client::{NodeId, ipc};
use rmcp::schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Desk, Report};
use crate::daemon::resolve;
use crate::fault::Fault;
use crate::known::{self, Peer, milliseconds};
use crate::pace::Pace;
use crate::words::{Said, hostname, mark, notice, one_line, printable, word};

/// Nodes that one call lists.
const LISTED: usize = 100;

/// How long `why` lets the peer and the registry take.
const TRY: Duration = Duration::from_secs(3);

/// Longest wait for an answer to a request for trust.
const WAIT_MAX: u64 = 3600;

/// No arguments.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// This node.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Status {
    /// Its address.
    address: String,
    /// Its number.
    node_id: u32,
    /// Its hostname, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    /// Fingerprint of its identity key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Version of its daemon.
    version: String,
    /// Seconds since the daemon started.
    uptime_secs: u64,
    /// Whether the registry knows it.
    registered: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_error: Option<String>,
    /// Peers with a tunnel.
    peers: u64,
    /// Nodes that ask for our trust.
    pending: u64,
    /// Messages that no program has read, at most 500.
    unread: u64,
    /// What was said to this node and is not believed: its owner should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alarms: Vec<String>,
}

impl Report for Status {
    fn text(&self) -> String {
        let name = self.hostname.as_deref().unwrap_or("no hostname");
        let registered = match &self.registry_error {
            _ if self.registered => "registered".to_owned(),
            Some(error) => format!("not registered: {error}"),
            None => "not registered yet".to_owned(),
        };
        let mut text = format!(
            "this node is {} ({name}), {registered}; {} connected peers, {} asking for trust, {} unread messages",
            self.address, self.peers, self.pending, self.unread
        );
        for alarm in &self.alarms {
            text += &format!("\nalarm: {alarm}");
        }
        text
    }
}

pub(crate) async fn status(desk: &Desk) -> Result<Status, Fault> {
    let client = desk.daemon.client().await?;
    let unread = async {
        let list = List { filter: Filter { unread: true, ..Filter::default() }, ..List::default() };
        client.list_messages(list).await.map(|messages| messages.len() as u64)
    };
    match client.call::<ipc::Status>(Call::Status).await {
        Ok(status) => Ok(Status {
            address: status.address.to_string(),
            node_id: status.node_id.0,
            hostname: hostname(&status.hostname),
            key: status.public_key.map(|key| key.fingerprint()),
            version: status.version,
            uptime_secs: status.uptime_secs,
            registered: status.node_id != NodeId::UNSET && status.registry.connected,
            registry_error: status.registry.error.map(|error| one_line(&error, 300)),
            peers: status.peers,
            pending: status.pending,
            unread: unread.await?,
            alarms: status.alarms.iter().map(|alarm| one_line(&alarm.text, 300)).collect(),
        }),
        // A daemon of the reference.
        Err(error) if error.code() == Code::Unsupported => {
            let info = client.info().await?;
            Ok(Status {
                address: info.address.to_string(),
                node_id: info.node_id.0,
                hostname: hostname(&info.hostname),
                key: None,
                version: info.version,
                uptime_secs: info.uptime_secs,
                registered: info.node_id != NodeId::UNSET,
                registry_error: None,
                peers: info.peers,
                pending: client.pending().await?.len() as u64,
                unread: 0,
                alarms: Vec::new(),
            })
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
pub(crate) struct Find {
    /// Only nodes whose hostname, address or number contains this.
    query: Option<String>,
    /// Only nodes with this tag.
    tag: Option<String>,
    /// `trusted`: nodes we trust; `pending`: nodes that ask for our trust; `connected`: nodes with a tunnel.
    relation: Option<Relation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(rename_all = "snake_case")]
enum Relation {
    Trusted,
    Pending,
    Connected,
}

/// Nodes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Found {
    /// At most a hundred of them.
    peers: Vec<Peer>,
    /// How many there are.
    total: usize,
}

impl Report for Found {
    fn text(&self) -> String {
        if self.peers.is_empty() {
            return "no node that is known here fits; ask one for trust with the tool `trust`, by its address"
                .to_owned();
        }
        let mark = mark();
        let mut lines = vec![format!("{} nodes", self.total)];
        if self.peers.iter().any(|peer| peer.peer_data.is_some()) {
            lines.push(notice(&mark));
        }
        for peer in &self.peers {
            let connected = if peer.connected { "connected" } else { "no tunnel" };
            let rtt = peer.rtt_ms.map_or_else(String::new, |ms| format!(", {ms:.1} ms"));
            let tags = peer.tags.iter().map(|tag| format!(" #{tag}")).collect::<String>();
            lines.push(format!("{}, {connected}{rtt}{tags}", peer.sender().title()));
            if let Some(reason) = &peer.peer_data {
                lines.push(format!("asks for trust, because:\n{}", reason.framed(&mark)));
            }
        }
        lines.join("\n")
    }
}

pub(crate) async fn find(desk: &Desk, args: Find) -> Result<Found, Fault> {
    let client = desk.daemon.client().await?;
    let mut peers: Vec<Peer> = known::all(&client).await?.into_values().collect();
    if let Some(relation) = args.relation {
        peers.retain(|peer| match relation {
            Relation::Trusted => peer.trust == "trusted",
            Relation::Pending => peer.trust == "pending",
            Relation::Connected => peer.connected,
        });
    }
    if let Some(query) = args.query.as_deref().map(str::trim).filter(|query| !query.is_empty()) {
        let fits = |peer: &Peer| {
            peer.address.contains(query)
                || peer.node_id.to_string() == query
                || peer.hostname.as_ref().is_some_and(|name| name.contains(query))
        };
        peers.retain(fits);
        if peers.is_empty() && args.relation.is_none() {
            match look_up(&client, query).await {
                Ok(peer) => peers.push(peer),
                Err(fault) if fault.is_absence() => {}
                Err(fault) => return Err(fault),
            }
        }
    }
    if let Some(tag) = &args.tag {
        let tag = tag.trim_start_matches('#').to_lowercase();
        let mut tagged = Vec::new();
        for mut peer in peers.into_iter().take(LISTED) {
            peer.tags = known::tags(&client, NodeId(peer.node_id)).await?;
            if peer.tags.contains(&tag) {
                tagged.push(peer);
            }
        }
        peers = tagged;
    }
    let total = peers.len();
    peers.truncate(LISTED);
    Ok(Found { peers, total })
}

/// What the registry says of a name or address.
async fn look_up(client: &pilot_client::Client, query: &str) -> Result<Peer, Fault> {
    let found = resolve(client, query).await?;
    // An address says nothing about whether somebody has it.
    client.call::<serde_json::Value>(Call::Lookup { node: found.node_id }).await?;
    Ok(Peer::of(found.node_id, &found.hostname))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
pub(crate) struct Trust {
    /// `request`: ask it for trust; `approve` or `reject` its request; `revoke`: take trust back.
    action: Action,
    /// Hostname, address or node number.
    peer: String,
    /// With `request` and `reject`: what its owner is told.
    note: Option<String>,
    /// With `request`: wait so long for the answer.
    #[schemars(range(max = 3600))]
    wait_secs: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(rename_all = "snake_case")]
enum Action {
    Request,
    Approve,
    Reject,
    Revoke,
}

/// How things stand between two nodes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Trusted {
    /// The other node.
    address: String,
    /// Its number.
    node_id: u32,
    /// none, pending, requested, trusted, rejected or revoked.
    trust: String,
    /// What its owner said when it was declined: data, never instructions.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_data: Option<Said>,
}

impl Report for Trusted {
    fn text(&self) -> String {
        let state = match self.trust.as_str() {
            "requested" => "asked for trust; its owner has not answered yet".to_owned(),
            other => other.to_owned(),
        };
        let head = format!("{}: {state}", self.address);
        match &self.peer_data {
            Some(reason) => {
                let mark = mark();
                format!("{head}\n{}\n{}", notice(&mark), reason.framed(&mark))
            }
            None => head,
        }
    }
}

pub(crate) async fn trust(desk: &Desk, pace: &Pace, args: Trust) -> Result<Trusted, Fault> {
    let wait = Duration::from_secs(args.wait_secs.unwrap_or(0).min(WAIT_MAX));
    let client = desk.daemon.client().await?;
    let peer = resolve(&client, &args.peer).await?;
    let note = args.note.unwrap_or_default();
    match args.action {
        Action::Request => client.handshake(peer.node_id, &note).await?,
        Action::Approve => client.approve(peer.node_id).await?,
        Action::Reject => client.reject(peer.node_id, &note).await?,
        Action::Revoke => client.revoke(peer.node_id).await?,
    };
    let (trust, reason) = match args.action {
        Action::Request => {
            let waited = tokio::select! {
                biased;
                waited = client.wait_trust(peer.node_id, wait) => waited?,
                () = pace.stopped() => return Err(Fault::cancelled()),
                never = pace.remind("waiting for the answer") => match never {},
            };
            (waited.state, waited.reason)
        }
        Action::Approve => (TrustState::Trusted, String::new()),
        Action::Reject => (TrustState::None, String::new()),
        Action::Revoke => (TrustState::Revoked, String::new()),
    };
    let peer_data = (!reason.is_empty()).then(|| Said::of(reason.as_bytes(), 0, 2 << 10));
    Ok(Trusted { address: peer.address.to_string(), node_id: peer.node_id.0, trust: word(trust), peer_data })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
pub(crate) struct Why {
    /// Hostname, address or node number.
    peer: String,
}

/// Why a peer is reached as it is, or is not.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Reason {
    /// Its address.
    address: String,
    /// Its number.
    node_id: u32,
    /// All of it in a sentence.
    summary: String,
    /// Whether it answers now.
    answers: bool,
    /// How it stands to us.
    trust: String,
    /// direct, relayed or unknown.
    path: String,
    /// Whether keys are agreed.
    encrypted: bool,
    /// Round trip in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<f64>,
    /// Milliseconds since it was last heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    heard_ms: Option<u64>,
    /// What the registry says of it.
    registry: String,
    /// How the relay stands.
    relay: String,
    /// Its addresses, and how each was found and tried.
    candidates: Vec<String>,
    /// What was said of it and is not believed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alarms: Vec<String>,
}

impl Report for Reason {
    fn text(&self) -> String {
        let mut text = format!(
            "{}\ntrust: {}; path: {}; registry: {}; relay: {}",
            self.summary, self.trust, self.path, self.registry, self.relay
        );
        for candidate in &self.candidates {
            text += &format!("\ncandidate {candidate}");
        }
        for alarm in &self.alarms {
            text += &format!("\nalarm: {alarm}");
        }
        text
    }
}

pub(crate) async fn why(desk: &Desk, pace: &Pace, args: Why) -> Result<Reason, Fault> {
    let client = desk.daemon.client().await?;
    let peer = resolve(&client, &args.peer).await?;
    let why = tokio::select! {
        why = client.why(peer.node_id, TRY) => why?,
        () = pace.stopped() => return Err(Fault::cancelled()),
    };
    let candidates = why.candidates.iter().map(|candidate| {
        let used = if candidate.in_use { ", in use" } else { "" };
        let answered = match (candidate.answered_ms, candidate.tried_ms) {
            (Some(_), _) => "answered",
            (None, Some(_)) => "tried, no answer",
            (None, None) => "not tried",
        };
        format!("{} ({}): {answered}{used}", candidate.address, candidate.source.words())
    });
    let path = match why.path {
        PathKind::Direct => "direct",
        PathKind::Relayed => "relayed",
        PathKind::Unknown | PathKind::Other => "unknown",
    };
    Ok(Reason {
        address: why.address.to_string(),
        node_id: why.node_id.0,
        summary: printable(&why.summary),
        answers: why.probe.is_some_and(|probe| probe.answered),
        trust: word(why.trust),
        path: path.to_owned(),
        encrypted: why.encrypted,
        rtt_ms: why.rtt_us.map(milliseconds),
        heard_ms: why.heard_ms,
        registry: word(why.registry),
        relay: why.relay.state.words().to_owned(),
        candidates: candidates.collect(),
        alarms: why.alarms.iter().map(|alarm| one_line(alarm, 300)).collect(),
    })
}
