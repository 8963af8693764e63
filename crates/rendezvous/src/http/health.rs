//! Whether it lives, and whether it can serve.

use super::{BeaconPulse, Desk, RegistryPulse, access::Visitor};
use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Silence after which registry or beacon count as stuck. Both speak once a second.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Says yes, if anything at all.
pub(super) async fn healthz(State(desk): State<Arc<Desk>>) -> Json<Value> {
    let online = desk.sources.registry.borrow().overview.online;
    Json(json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "nodes_online": online,
        "uptime_seconds": desk.uptime().as_secs(),
    }))
}

/// 200 if nodes can be served, 503 if not. Why not is for insiders.
pub(super) async fn readyz(State(desk): State<Arc<Desk>>, visitor: Visitor) -> (StatusCode, Json<Value>) {
    let faults = faults(&desk);
    if faults.is_empty() {
        return (StatusCode::OK, Json(json!({ "status": "ready" })));
    }
    let mut answer = json!({ "status": "not ready" });
    if visitor.is_insider {
        answer["reasons"] = faults.into();
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(answer))
}

/// What is wrong.
pub(super) fn faults(desk: &Desk) -> Vec<&'static str> {
    let sources = &desk.sources;
    judge(&sources.registry.borrow(), &sources.beacon.borrow(), Instant::now())
}

fn judge(registry: &RegistryPulse, beacon: &BeaconPulse, now: Instant) -> Vec<&'static str> {
    let is_silent = |at: Option<Instant>| at.is_none_or(|at| now.saturating_duration_since(at) > SILENCE_MAX);
    let mut faults = Vec::new();
    if is_silent(registry.at) {
        faults.push("the registry does not answer");
    } else if !registry.writable {
        faults.push("the store cannot be written; changes are refused");
    }
    if is_silent(beacon.at) {
        faults.push("the beacon does not answer");
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_a_store_that_cannot_be_written_are_faults() {
        let now = Instant::now();
        let registry = |writable| RegistryPulse { at: Some(now), writable, ..RegistryPulse::default() };
        let beacon = BeaconPulse { at: Some(now), ..BeaconPulse::default() };
        assert!(judge(&registry(true), &beacon, now).is_empty());
        let faults = judge(&registry(false), &beacon, now);
        assert_eq!(faults, ["the store cannot be written; changes are refused"]);
        let later = now + SILENCE_MAX + Duration::from_millis(1);
        let faults = judge(&registry(true), &beacon, later);
        assert_eq!(faults, ["the registry does not answer", "the beacon does not answer"]);
        assert_eq!(judge(&RegistryPulse::default(), &BeaconPulse::default(), now), faults, "nothing yet");
    }
}
