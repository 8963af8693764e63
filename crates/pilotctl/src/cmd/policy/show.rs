//! Rules as people read them.

use std::collections::BTreeMap;
use std::fmt;

use pilot_client::Client;
use pilot_client::policy::{
    Effective, GroupName, Limit, Overview, PeerCount, PortSpan, Rules, Sourced, Target, Topics, Who,
};
use pilot_wire::{Addr, NodeId};
use serde::Serialize;

use crate::{duration, humane, style};

/// The names of trusted nodes: rules are for numbers, people know names.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(BTreeMap<NodeId, String>);

impl Names {
    /// Names are a comfort: a daemon that does not tell them is no failure.
    pub(super) async fn known(client: &Client) -> Self {
        let trusted = client.trusted().await.unwrap_or_default();
        let named = trusted.into_iter().filter(|node| !node.hostname.is_empty());
        Self(named.map(|node| (node.node_id, humane::printable(&node.hostname))).collect())
    }

    /// The node with the name that the user gave, if any.
    pub(super) fn named(&self, node: NodeId, given: &str) -> String {
        if given.is_empty() { self.node(node) } else { given.to_owned() }
    }

    fn node(&self, node: NodeId) -> String {
        self.0.get(&node).cloned().unwrap_or_else(|| Addr::backbone(node).to_string())
    }

    fn who(&self, who: &Who) -> String {
        match who {
            Who::Node(node) => self.node(*node),
            Who::Key(_) => who.to_string(),
        }
    }

    fn target(&self, target: &Target) -> String {
        match target {
            Target::Peer(who) => self.who(who),
            Target::All | Target::Strangers | Target::Group(_) => target.to_string(),
        }
    }
}

/// Where a value comes from.
pub(super) fn origin(names: &Names, from: &[Target]) -> String {
    if from.is_empty() {
        return "default".to_owned();
    }
    let from: Vec<String> = from.iter().map(|target| names.target(target)).collect();
    from.join(", ")
}

/// One line of a table.
struct Row {
    key: &'static str,
    value: String,
    from: String,
}

fn rows(names: &Names, effective: &Effective) -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, span) in effective.ports.iter().enumerate() {
        let key = if at == 0 { "ports" } else { "" };
        rows.push(Row { key, value: port_span(span), from: origin(names, &span.from) });
    }
    for (key, lists) in [("publish", &effective.publish), ("subscribe", &effective.subscribe)] {
        rows.extend(topic_rows(names, key, lists));
    }
    let limit = |key, limit: &Sourced<Limit>, show: fn(Limit) -> String| Row {
        key,
        value: show(limit.value),
        from: origin(names, &limit.from),
    };
    rows.push(limit("messages_per_min", &effective.messages_per_min, |limit| limit.to_string()));
    rows.push(limit("bytes_per_min", &effective.bytes_per_min, bytes));
    rows.push(limit("max_message", &effective.max_message, bytes));
    rows.push(limit("max_file", &effective.max_file, bytes));
    let flags =
        [("requests", &effective.requests), ("tasks", &effective.tasks), ("mailbox", &effective.mailbox)];
    for (key, flag) in flags {
        let value = if flag.value { "yes" } else { "no" }.to_owned();
        rows.push(Row { key, value, from: origin(names, &flag.from) });
    }
    let hops = &effective.max_hops;
    rows.push(Row { key: "max_hops", value: hops.value.to_string(), from: origin(names, &hops.from) });
    let answers = &effective.auto_answers_per_min;
    rows.push(limit("auto_answers_per_min", answers, |limit| limit.to_string()));
    rows
}

fn port_span(span: &PortSpan) -> String {
    let ports = match (span.first.0, span.last.0) {
        (0, u16::MAX) if span.allowed => return "all".to_owned(),
        (0, u16::MAX) => return "none".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    if span.allowed { ports } else { format!("not {ports}") }
}

fn topic_rows(names: &Names, key: &'static str, lists: &[Sourced<Topics>]) -> Vec<Row> {
    if lists.is_empty() {
        return vec![Row { key, value: "all".to_owned(), from: origin(names, &[]) }];
    }
    let row = |(at, list): (usize, &Sourced<Topics>)| {
        let (key, and) = if at == 0 { (key, "") } else { ("", "and in ") };
        let value = format!("{and}{}", humane::preview(&list.value.to_string(), 60));
        Row { key, value, from: origin(names, &list.from) }
    };
    lists.iter().enumerate().map(row).collect()
}

fn bytes(limit: Limit) -> String {
    match limit {
        Limit::Of(most) => humane::bytes(most),
        Limit::Unlimited => "unlimited".to_owned(),
    }
}

fn table(f: &mut fmt::Formatter<'_>, rows: &[Row]) -> fmt::Result {
    let width = rows.iter().map(|row| row.value.chars().count()).max().unwrap_or(0).max("VALUE".len());
    writeln!(f, "{}", style::faint(format!("  {:<22}{:<width$}  FROM", "RULE", "VALUE")))?;
    for Row { key, value, from } in rows {
        writeln!(f, "  {key:<22}{value:<width$}  {from}")?;
    }
    Ok(())
}

/// What a target's rules say, one line each.
fn said(f: &mut fmt::Formatter<'_>, rules: &Rules) -> fmt::Result {
    let mut line = |key: &str, value: Option<String>| match value {
        Some(value) => writeln!(f, "  {key:<22}{value}"),
        None => Ok(()),
    };
    let flag = |flag: Option<bool>| flag.map(|yes| if yes { "yes" } else { "no" }.to_owned());
    let topics = |topics: &Option<Topics>| topics.as_ref().map(|t| humane::printable(&t.to_string()));
    line("ports", rules.ports.as_ref().map(ToString::to_string))?;
    line("publish", topics(&rules.publish))?;
    line("subscribe", topics(&rules.subscribe))?;
    line("messages_per_min", rules.messages_per_min.map(|limit| limit.to_string()))?;
    line("bytes_per_min", rules.bytes_per_min.map(bytes))?;
    line("max_message", rules.max_message.map(bytes))?;
    line("max_file", rules.max_file.map(bytes))?;
    line("requests", flag(rules.requests))?;
    line("tasks", flag(rules.tasks))?;
    line("mailbox", flag(rules.mailbox))?;
    line("max_hops", rules.max_hops.map(|hops| hops.to_string()))?;
    line("auto_answers_per_min", rules.auto_answers_per_min.map(|limit| limit.to_string()))
}

/// All rules.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Everything {
    overview: Overview,
    #[serde(skip)]
    names: Names,
}

impl Everything {
    pub(super) fn new(names: Names, overview: Overview) -> Self {
        Self { overview, names }
    }

    fn members(&self, name: &GroupName) -> String {
        let members = self.overview.book.groups.get(name).map(|group| &group.members);
        let members: Vec<String> = members.into_iter().flatten().map(|who| self.names.who(who)).collect();
        if members.is_empty() { "nobody".to_owned() } else { members.join(", ") }
    }
}

impl fmt::Display for Everything {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overview { path, broken, book, everybody, peers } = &self.overview;
        if let Some(reason) = broken {
            writeln!(f, "{} {path} cannot be used:", style::bad("nothing is allowed to other nodes:"))?;
            writeln!(f, "  {reason}")?;
            return write!(
                f,
                "mend it and run `pilotctl policy reload`, or drop all rules with `pilotctl policy reset`"
            );
        }
        writeln!(f, "{} · {path}", style::strong("trusted nodes without rules of their own"))?;
        table(f, &rows(&self.names, everybody))?;
        for (target, rules) in book.targets().filter(|(target, _)| *target != Target::All) {
            match &target {
                Target::Group(name) => {
                    writeln!(f, "{} · {}", style::strong(&target), self.members(name))?;
                }
                Target::Peer(_) => writeln!(f, "{}", style::strong(self.names.target(&target)))?,
                Target::Strangers if !rules.is_empty() => {
                    writeln!(f, "{} · nodes without trust", style::strong(&target))?;
                }
                Target::Strangers | Target::All => {}
            }
            said(f, rules)?;
        }
        if !peers.is_empty() {
            writeln!(f, "{}", style::strong("held up since the daemon started"))?;
        }
        for peer in peers {
            writeln!(f, "  {:<22}{}", self.names.node(peer.node), held_up(peer))?;
        }
        Ok(())
    }
}

fn held_up(peer: &PeerCount) -> String {
    let mut parts = Vec::new();
    if peer.refused > 0 {
        parts.push(format!("{} refused", peer.refused));
    }
    if peer.slowed > 0 {
        parts.push(format!("slowed {}", humane::count(peer.slowed, "time")));
    }
    if peer.answers_held > 0 {
        parts.push(format!("{} held back", humane::count(peer.answers_held, "automatic answer")));
    }
    if let Some(wait) = peer.answers_again_ms {
        let wait = std::time::Duration::from_millis(wait);
        parts.push(format!("answers go on in {}", duration::show(wait)));
    }
    parts.join(" · ")
}

/// What holds for one node.
#[derive(Serialize)]
pub(super) struct OfPeer {
    node: String,
    #[serde(flatten)]
    effective: Effective,
    #[serde(skip)]
    names: Names,
}

impl OfPeer {
    pub(super) fn new(names: Names, node: String, effective: Effective) -> Self {
        Self { node, effective, names }
    }
}

impl fmt::Display for OfPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", style::strong(&self.node))?;
        table(f, &rows(&self.names, &self.effective))
    }
}

/// The rules of a target after a change.
#[derive(Serialize)]
pub(super) struct Changed {
    target: Target,
    rules: Rules,
    #[serde(skip)]
    shown: String,
}

impl Changed {
    pub(super) fn new(names: &Names, target: Target, rules: Rules) -> Self {
        Self { shown: names.target(&target), target, rules }
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rules.is_empty() {
            return write!(f, "{} has no rules of its own", style::strong(&self.shown));
        }
        writeln!(f, "{}", style::strong(&self.shown))?;
        said(f, &self.rules)
    }
}

/// A group after a change.
#[derive(Serialize)]
pub(super) struct Members {
    group: GroupName,
    members: Vec<Who>,
    #[serde(skip)]
    shown: Vec<String>,
}

impl Members {
    pub(super) fn new(names: &Names, group: GroupName, members: Vec<Who>) -> Self {
        Self { shown: members.iter().map(|who| names.who(who)).collect(), group, members }
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shown.as_slice() {
            [] => write!(f, "{} has no members", style::strong(&self.group)),
            members => write!(f, "{} · {}", style::strong(&self.group), members.join(", ")),
        }
    }
}
