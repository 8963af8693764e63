//! Sums, as JSON.

use super::{
    Desk,
    access::Visitor,
    health,
    history::{Point, SERIES, Span},
};
use crate::registry::NetworkSize;
use axum::{
    Json,
    extract::{Query, State},
};
use pilot_metrics::Process;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Points of the hour and of the day in `/api/stats`, as the reference has them.
const HOURLY: usize = 24;
const DAILY: usize = 30;

/// How things are. The names of the first half are those of the reference (spec/registry.md 16).
pub(super) async fn stats(State(desk): State<Arc<Desk>>, visitor: Visitor) -> Json<Value> {
    let pulse = desk.sources.registry.borrow().clone();
    let beacon = *desk.sources.beacon.borrow();
    let (overview, round) = (&pulse.overview, &pulse.overview.round);
    let (requests, _) = desk.sources.meters.totals();
    let (latest, hourly, daily) = desk.history(|history| {
        let hourly: Vec<_> = history.points(Span::Month).1.collect();
        let daily: Vec<_> = history.points(Span::Days).1.collect();
        (history.latest(), hourly, daily)
    });
    let per_second: f64 = latest.iter().flat_map(|point| &point.values[6..11]).sum();
    let mut answer = json!({
        "total_nodes": overview.nodes,
        "active_nodes": overview.online,
        "total_trust_links": overview.trust_links,
        "total_requests": requests,
        "req_per_day": (per_second * 86_400.0).round(),
        "uptime_secs": desk.uptime().as_secs(),
        "unique_tags": round.unique_tags,
        "task_executors": round.task_executors,
        "versions": pairs(&round.versions),
        "hourly": moments(&hourly, HOURLY),
        "daily": moments(&daily, DAILY),
        "now": desk.unix(),
        "version": env!("CARGO_PKG_VERSION"),
        "ready": health::faults(&desk).is_empty(),
        "age_ms": pulse.at.map(|at| millis(at.elapsed())),
        "public_nodes": round.public,
        "relay_only_nodes": round.relay_only,
        "tags": list(&round.tags),
        "version_list": list(&round.versions),
        "networks_total": overview.networks,
        "networks": networks(&round.networks, visitor.is_insider),
        "beacons": overview.beacons,
        "beacon": {
            "nodes": beacon.stats.nodes,
            "web": beacon.web,
            "relayed": beacon.stats.relayed,
            "relayed_bytes": beacon.stats.relayed_bytes,
            "introduced": beacon.stats.introduced,
            "discovered": beacon.stats.discovered,
        },
        "rates": latest.map_or(Value::Null, |point| rates(&point)),
        "insider": visitor.is_insider,
    });
    if visitor.is_insider {
        let process = Process::look();
        answer["process"] = json!({
            "memory_bytes": process.memory,
            "cpu_seconds": process.cpu,
            "descriptors": process.descriptors,
        });
        answer["connections"] = overview.connections.into();
        answer["held_requests"] = overview.held.into();
        answer["inboxes"] = overview.inboxes.into();
        answer["faults"] = health::faults(&desk).into();
    }
    Json(answer)
}

/// How far back.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    span: Back,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Back {
    #[default]
    Hour,
    Day,
    Month,
}

/// Points for charts.
pub(super) async fn history(State(desk): State<Arc<Desk>>, Query(asked): Query<Asked>) -> Json<Value> {
    let span = match asked.span {
        Back::Hour => Span::Hour,
        Back::Day => Span::Day,
        Back::Month => Span::Month,
    };
    let (step, points) = desk.history(|history| {
        let (step, points) = history.points(span);
        (step, points.collect::<Vec<_>>())
    });
    let series = SERIES.iter().enumerate().map(|(place, name)| {
        let values = points.iter().map(|point| short(point.values[place]));
        ((*name).to_owned(), Value::Array(values.collect()))
    });
    let at: Vec<u64> = points.iter().map(|point| point.at).collect();
    Json(json!({ "step": step, "now": desk.unix(), "at": at, "series": series.collect::<Map<_, _>>() }))
}

/// Three decimals are enough for a chart.
fn short(value: f64) -> Value {
    ((value * 1000.0).round() / 1000.0).into()
}

fn rates(point: &Point) -> Value {
    let named = SERIES.iter().zip(point.values).skip(6);
    Value::Object(named.map(|(name, value)| ((*name).to_owned(), short(value))).collect())
}

fn moments(points: &[Point], most: usize) -> Vec<Value> {
    let recent = points.iter().skip(points.len().saturating_sub(most));
    let moment = |point: &Point| {
        let [online, nodes, trust, _, _, requests, ..] = point.values;
        json!({
            "ts": point.at,
            "total_nodes": nodes,
            "online_nodes": online,
            "trust_links": trust,
            "total_requests": requests,
        })
    };
    recent.map(moment).collect()
}

fn pairs(counts: &[(String, u64)]) -> Map<String, Value> {
    counts.iter().map(|(text, count)| (text.clone(), (*count).into())).collect()
}

fn list(counts: &[(String, u64)]) -> Vec<Value> {
    counts.iter().map(|(text, count)| json!({ "name": text, "nodes": count })).collect()
}

/// That a network exists which not everybody may enter is not for everybody.
fn networks(networks: &[NetworkSize], is_insider: bool) -> Vec<Value> {
    let shown = networks.iter().filter(|network| network.open || is_insider);
    let row = |network: &NetworkSize| {
        json!({
            "id": network.id,
            "name": network.name,
            "open": network.open,
            "members": network.members,
            "online_members": network.online,
        })
    };
    shown.map(row).collect()
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
